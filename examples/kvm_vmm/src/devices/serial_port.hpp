// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <vmdevice/range.hpp>
#include <vmsuperio/serial.hpp>

#include "devices/interrupt.hpp"
#include "devices/machine_device.hpp"
#include "devices/serial_console.hpp"

namespace kvm_vmm {

struct ComPort {
    vmdevice::PioRange range;
    std::uint8_t irq;  ///< ISA interrupt, which ports may share
};

/// COM1 to COM4 at the addresses of a PC.
inline constexpr std::array com_ports{
    ComPort{.range = vmdevice::pio_range(0x3F8, 8), .irq = 4},
    ComPort{.range = vmdevice::pio_range(0x2F8, 8), .irq = 3},
    ComPort{.range = vmdevice::pio_range(0x3E8, 8), .irq = 4},
    ComPort{.range = vmdevice::pio_range(0x2E8, 8), .irq = 3},
};

/// The serial port COM(index + 1) of a machine that has `count` of them.
[[nodiscard]] inline MachineDevice serial_port(std::size_t index, std::size_t count,
                                               vmsuperio::TransmitPolicy policy) {
    const ComPort& port = com_ports.at(index);
    const auto users =
        std::count_if(com_ports.begin(), com_ports.begin() + static_cast<std::ptrdiff_t>(count),
                      [&port](const ComPort& other) { return other.irq == port.irq; });
    const auto sharing = users > 1 ? vmdevice::IrqSharing::edge : vmdevice::IrqSharing::exclusive;
    const std::string name = "COM" + std::to_string(index + 1);

    const auto create = [index, policy, name](const DeviceContext& context,
                                              ObservedDevice& observed) -> DevicePointer {
        auto console = std::make_unique<SerialConsole>(
            context.events, *context.serials[index], make_interrupt(context.vm, com_ports.at(index).irq),
            policy, context.on_command, context.observer.serial(name));
        observed.register_name = console->register_namer();
        console->log_errors(DeviceErrorLog(observed));
        DevicePointer device = console->device();
        context.controls.consoles.push_back(std::move(console));
        return device;
    };
    return {.description = with_acpi_node({.name = name,
                                           .title = "serial port",
                                           .model = "vmsuperio::Serial",
                                           .resources = {ports(port.range), interrupt(port.irq, sharing)}},
                                          name, "PNP0501", index + 1),
            .create = create,
            // Only the transmitter: a guest expects an effect at once of writes to the other registers, for
            // example an interrupt when it enables one in IER.
            .coalesced_ports = {port.range.base().value}};
}

}  // namespace kvm_vmm
