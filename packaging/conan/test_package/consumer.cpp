// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <cstdint>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

int main() {
    vmdevice::IoManager io;
    vmsuperio::Serial uart(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{});
    if (!io.register_pio(vmdevice::pio_range(0x3F8, 8), vmdevice::share(std::move(uart)))) {
        return 1;
    }
    std::array<std::uint8_t, 1> line_status{};
    return io.pio_read(vmdevice::PioAddress{0x3FD}, line_status) && line_status[0] == 0x60 ? 0 : 2;
}
