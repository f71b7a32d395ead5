// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <ctime>
#include <utility>

#include <vmdevice/range.hpp>
#include <vmsuperio/acpi_pm.hpp>
#include <vmsuperio/clock.hpp>

#include "devices/interrupt.hpp"
#include "devices/machine_device.hpp"
#include "machine/end.hpp"

namespace kvm_vmm {

/// ACPI's power management block: power button, S5 and the PM timer. The guest finds it in the FADT.
[[nodiscard]] inline MachineDevice power_management() {
    static constexpr fixed_hardware::PowerManagement block{
        .block_port = 0x600, .sci_irq = 9, .sleep_type_s5 = 5};
    static constexpr auto range = vmdevice::pio_range(block.block_port, vmsuperio::acpi_pm::block_length);

    struct PowerEvents {
        EndLatch* end;
        void power_off() const { end->request(end::PoweredOff{}); }
    };
    const auto create = [](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
        const auto device = put_on_bus_timed(
            observed, context.events, CLOCK_MONOTONIC,
            vmsuperio::AcpiPm(
                IrqLine(context.vm, block.sci_irq), PowerEvents{&context.end}, vmsuperio::SteadyClock(),
                {.sleep_type_s5 = block.sleep_type_s5, .timer_width = vmsuperio::AcpiTimerWidth::bits_32}));
        context.controls.press_power_button = [device] {
            (void)device->lock()->device().press_power_button();
        };
        return device;
    };
    return {
        .description = {.name = "PM1a",
                        .title = "ACPI power management",
                        .model = "vmsuperio::AcpiPm",
                        .resources = {ports(range), interrupt(block.sci_irq, vmdevice::IrqSharing::level)},
                        .fixed_hardware = block},
        .create = create};
}

}  // namespace kvm_vmm
