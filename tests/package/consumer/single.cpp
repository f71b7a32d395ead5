// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Two files, copied from single_include, are all that this program needs: a UART on a bus prints "ok".
#include "vmdevice.hpp"
#include "vmsuperio.hpp"

int main() {
    auto interrupt = vmsuperio::EventFdTrigger::create();
    auto output = vmsuperio::FdWriter::create(1);
    if (!interrupt || !output) {
        return 1;
    }
    const auto com1 = vmdevice::share(vmsuperio::Serial(std::move(*interrupt), std::move(*output)));
    vmdevice::IoManager io;
    if (!io.register_pio(vmdevice::pio_range(0x3F8, 8), com1)) {
        return 2;
    }
    for (const std::uint8_t byte : {std::uint8_t{'o'}, std::uint8_t{'k'}}) {
        if (!io.pio_write(vmdevice::PioAddress{0x3F8}, std::array{byte})) {
            return 3;
        }
    }
    return 0;
}
