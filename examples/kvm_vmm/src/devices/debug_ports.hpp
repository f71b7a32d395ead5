// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <vmdevice/range.hpp>
#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/exit_port.hpp>

#include "devices/machine_device.hpp"
#include "machine/end.hpp"

namespace kvm_vmm {

[[nodiscard]] inline MachineDevice post_code_port() {
    return {.description = {.name = "post_code",
                            .title = "POST codes",
                            .model = "vmsuperio::DebugPort",
                            .resources = {ports(vmdevice::pio_range(0x80, 1))}},
            .create = [](const DeviceContext&, ObservedDevice& observed) -> DevicePointer {
                return put_on_bus(observed, vmsuperio::DebugPort());
            },
            // Guests write here for the delay that this takes on a PC, mostly.
            .coalesced_ports = {0x80}};
}

/// The debug console of Bochs (0xE9) and of EDK II and SeaBIOS (0x402).
[[nodiscard]] inline MachineDevice debug_console() {
    return {.description = {.name = "debug_console",
                            .title = "debug console",
                            .model = "vmsuperio::DebugPort",
                            .note = "with `--debug-console`",
                            .resources = {ports(vmdevice::pio_range(0xE9, 1)),
                                          ports(vmdevice::pio_range(0x402, 1))}},
            .create = [](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
                const auto send = [output = context.debug_console](std::span<const std::uint8_t> bytes) {
                    const auto taken = output->write(bytes);
                    return taken ? std::optional(*taken) : std::nullopt;
                };
                auto console = put_on_bus(observed, vmsuperio::DebugPort::console(send));
                observed.register_name = [](std::uint64_t, bool) { return std::string("data"); };
                return console;
            },
            .coalesced_ports = {0xE9, 0x402}};
}

[[nodiscard]] inline MachineDevice exit_port() {
    return {.description = {.name = "exit_port",
                            .title = "exit port",
                            .model = "vmsuperio::ExitPort",
                            .note = "with `--exit-port`: the byte written is the exit code; "
                                    "`--on-reboot restart` does not apply to it",
                            .resources = {ports(
                                vmdevice::pio_range(0x501, vmsuperio::ExitPort::register_count))}},
            .create = [](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
                return put_on_bus(observed, vmsuperio::ExitPort([&end = context.end](std::uint8_t status) {
                                      end.request(end::ExitPort{status});
                                  }));
            }};
}

}  // namespace kvm_vmm
