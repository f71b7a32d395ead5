// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// I8042 with its keyboard and mouse: invariants after each step, and a copy that goes through a saved state
// and must then behave alike.
//
// Input: one byte of options (bits 1:0 profile, bit 2 no keyboard, bit 3 no mouse, bit 4 level triggers, bit
// 5 a twin that is restored from the saved state before every step, bit 6 a hold-off of 1 ms, bit 7 the state
// after power-on), then operations:
//   0o     read offset o                    4x  save, encode, decode and restore
//   1o vv  write vv to offset o             5n  odd: the triggers fail from now on; even: they work
//   2n b   keyboard command: b to port 60   60  Ctrl-Alt-Del        61  reset
//   3n b   n * 200 us pass; D4, b           62 x y w b: the mouse moves, each times the low digit of w + 1
//   7n k   key k goes down (n even), up     63 k k: key of 16 bits goes down
// Offsets other than 0 and 4 are taken modulo 8 to 0, 4 and the ports between; 8 to 15 mean offset 4.

#include <chrono>
#include <cstdint>

#include <vmsuperio/i8042.hpp>

#include "i8042_target.hpp"
#include "support/target.hpp"
#include "support/world.hpp"

namespace fuzz {
namespace {

using vmsuperio::I8042Options;
using vmsuperio::I8042Profile;

template <class Trigger>
void run(Input& input, const Trace& trace, I8042Options options, bool with_twin) {
    I8042Target<Trigger> target(trace, options, with_twin);
    while (!input.empty()) {
        target.step(input);
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    const std::uint8_t bits = input.byte();
    I8042Options options = (bits & 128) != 0 ? I8042Options::power_on() : I8042Options{};
    options.profile = (bits & 3) == 3 ? I8042Profile::full : static_cast<I8042Profile>(bits & 3);
    options.keyboard = (bits & 4) == 0;
    options.mouse = (bits & 8) == 0;
    options.hold_off = std::chrono::milliseconds((bits & 64) != 0 ? 1 : 0);
    if ((bits & 16) != 0) {
        run<Level>(input, trace, options, (bits & 32) != 0);
    } else {
        run<Edge>(input, trace, options, (bits & 32) != 0);
    }
}

}  // namespace fuzz
