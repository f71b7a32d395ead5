// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Serial compared with the model of fuzz/model/serial_model.hpp, and its invariants.
//
// Input: one byte of options (bit 0: a level trigger instead of an edge trigger), then operations:
//   0o        read offset o            4x  save, encode, decode and restore
//   1o vv     write vv to offset o     5n  0-7: the writer has room for n bytes; 8: for 40; 9: without end;
//   2n b...   n + 1 bytes of input         10, 11: it works, fails; 12, 13: the trigger works, fails
//   3n        the clock moves, and     6n  the host's call n, see host_call
//             the timeout is polled    7n b...  string output of n + 1 bytes; in each, the values below

#include "serial_target.hpp"
#include "support/target.hpp"
#include "support/world.hpp"

namespace fuzz {
namespace {

template <class Trigger>
void run(Input& input, const Trace& trace) {
    SerialTarget<Trigger> target(trace);
    while (!input.empty()) {
        target.step(input);
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    if ((input.byte() & 1) != 0) {
        run<Level>(input, trace);
    } else {
        run<Edge>(input, trace);
    }
}

}  // namespace fuzz
