// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The libraries as C++20 modules, beside a header of the library: both mean the same names.
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <vmdevice/range.hpp>

import vmdevice;
import vmsuperio;

int main() {
    auto interrupt = vmsuperio::EventFdTrigger::create();
    auto output = vmsuperio::FdWriter::create(1);
    if (!interrupt || !output) {
        return 1;
    }
    const auto com1 = vmdevice::share(vmsuperio::Serial(std::move(*interrupt), std::move(*output)));
    vmdevice::IoManager io;
    const vmdevice::PioRange range = vmdevice::PioRange::unit(vmdevice::PioAddress{0x3F8});
    if (!io.register_pio(range, com1)) {
        return 2;
    }
    for (const std::uint8_t byte : {std::uint8_t{'o'}, std::uint8_t{'k'}}) {
        if (!io.pio_write(vmdevice::PioAddress{0x3F8}, std::array{byte})) {
            return 3;
        }
    }
    return 0;
}
