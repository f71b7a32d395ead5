// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

bool add_uart(vmdevice::IoManager& io);

bool add_uart(vmdevice::IoManager& io) {
    vmsuperio::Serial uart(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{});
    return io.register_pio(vmdevice::pio_range(0x3F8, 8), vmdevice::share(std::move(uart))).has_value();
}
