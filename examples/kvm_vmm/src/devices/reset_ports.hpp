// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmdevice/range.hpp>
#include <vmsuperio/reset_control.hpp>

#include "devices/machine_device.hpp"
#include "devices/reset_trigger.hpp"

namespace kvm_vmm {

/// The reset control register of the PCI host bridges of PCs, which the FADT names as its reset register.
[[nodiscard]] inline MachineDevice reset_control() {
    static constexpr fixed_hardware::ResetRegister reset{.port = 0xCF9, .value = 0x06};
    return {.description = {.name = "reset_control",
                            .title = "reset control",
                            .model = "vmsuperio::ResetControl",
                            .resources = {ports(vmdevice::pio_range(reset.port, 1))},
                            .fixed_hardware = reset},
            .create = [](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
                return put_on_bus(observed, vmsuperio::ResetControl(ResetTrigger(context.end)));
            }};
}

/// System control port A: fast reset and the A20 gate. The gate has no effect: A20 is always enabled on KVM's
/// CPUs, as guests since the 1990s expect.
[[nodiscard]] inline MachineDevice system_control_port_a() {
    return {.description = {.name = "system_control",
                            .title = "system control port A",
                            .model = "vmsuperio::SystemControlPortA",
                            .note = "fast reset; A20 is always on",
                            .resources = {ports(vmdevice::pio_range(0x92, 1))}},
            .create = [](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
                return put_on_bus(observed, vmsuperio::SystemControlPortA(ResetTrigger(context.end)));
            }};
}

}  // namespace kvm_vmm
