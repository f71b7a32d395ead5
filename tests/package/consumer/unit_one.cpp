// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A program of two source files that both include everything: this one dispatches to what the other one registers.
#include <array>
#include <cstdint>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

bool add_uart(vmdevice::IoManager& io);

int main() {
    vmdevice::IoManager io;
    std::array<std::uint8_t, 1> line_status{};
    if (!add_uart(io) || !io.pio_read(vmdevice::PioAddress{0x3FD}, line_status)) {
        return 1;
    }
    return line_status[0] == vmsuperio::Serial(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{}).read(5) ? 0
                                                                                                          : 2;
}
