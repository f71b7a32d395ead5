// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A UART on a bus: prints "ok" through it.
#include <array>
#include <cstdint>
#include <memory>
#include <utility>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/vmsuperio.hpp>

int main() {
    auto interrupt = vmsuperio::EventFdTrigger::create().value();
    vmsuperio::Serial serial(std::move(interrupt), vmsuperio::FdWriter(1));
    using Device = vmdevice::Locked<vmdevice::ByteDevice<decltype(serial)>>;
    vmdevice::IoManager io;
    const vmdevice::PioAddress com1{0x3F8};
    if (!io.register_pio(vmdevice::PioRange::create(com1, 8).value(),
                         std::make_shared<Device>(std::move(serial)))) {
        return 1;
    }
    for (const std::uint8_t byte : {std::uint8_t{'o'}, std::uint8_t{'k'}}) {
        if (!io.pio_write(com1, std::array{byte})) {
            return 2;
        }
    }
    return 0;
}
