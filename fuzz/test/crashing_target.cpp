// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A target that fails in the way that its input names, to test the report that is printed then.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "support/target.hpp"

namespace fuzz {
namespace {

// Read through a pointer that no optimizer can see through.
std::uint8_t read(volatile std::uint8_t* from) { return *from; }

std::uint8_t read_as(char kind) {
    volatile std::uint8_t* volatile nowhere = nullptr;
    std::array<std::uint8_t, 2> on_stack{1, 2};
    const auto on_heap = std::make_unique<std::array<std::uint8_t, 2>>();
    volatile std::size_t beyond = 2;
    switch (kind) {
        case 'n':
            return read(nowhere);
        case 'h':  // found by AddressSanitizer only
            return read(on_heap->data() + beyond);
        case 'a':
            std::abort();
        default:
            return on_stack[beyond % 2];
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    while (!input.empty()) {
        const auto kind = static_cast<char>(input.byte());
        if (kind == 'w') {
            trace("device.write(0, 0x01);");
            continue;
        }
        trace.call("CHECK(device.read('", std::string_view(&kind, 1), "') == ");
        const std::uint8_t value = read_as(kind);
        trace.result(Hex{value}, ");");
        check(kind != 'c', "nothing is a c");
    }
}

}  // namespace fuzz
