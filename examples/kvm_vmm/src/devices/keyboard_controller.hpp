// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <vmdevice/port_view.hpp>
#include <vmdevice/range.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/linux/eventfd.hpp>

#include "devices/interrupt.hpp"
#include "devices/machine_device.hpp"
#include "devices/reset_trigger.hpp"

namespace kvm_vmm {

/// The i8042 with a keyboard and a mouse. With I8042Profile::minimal it accepts only the reset command, and
/// the firmware tables do not mention it, so that the guest does not probe it.
[[nodiscard]] inline MachineDevice keyboard_controller(vmsuperio::I8042Profile profile) {
    static constexpr auto data_port = vmdevice::pio_range(0x60, 1);
    static constexpr auto command_port =
        vmdevice::pio_range(0x64, 1);  // 0x61, between the two, belongs to the PIT
    static constexpr std::uint8_t keyboard_irq = 1;
    static constexpr std::uint8_t mouse_irq = 12;

    const Resources keyboard{ports(data_port), ports(command_port), interrupt(keyboard_irq)};
    const Resources mouse{interrupt(mouse_irq)};
    DeviceDescription description{.name = "i8042",
                                  .title = "keyboard controller",
                                  .model = "vmsuperio::I8042",
                                  .note = "`--i8042 full`, `minimal` or `absent`",
                                  .resources = keyboard};
    description.resources.insert(description.resources.end(), mouse.begin(), mouse.end());
    if (profile == vmsuperio::I8042Profile::full) {
        description.acpi_nodes = {{.name = "KBD_", .hardware_id = "PNP0303", .resources = keyboard},
                                  {.name = "MOU_", .hardware_id = "PNP0F13", .resources = mouse}};
        description.fixed_hardware = fixed_hardware::KeyboardController{};
    }
    const auto create = [profile](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
        using Interrupt = vmsuperio::EventFdTrigger;
        using Controller = vmsuperio::I8042<ResetTrigger, Interrupt, Interrupt>;
        const auto controller = put_on_bus(
            observed, Controller(ResetTrigger(context.end), make_interrupt(context.vm, keyboard_irq),
                                 make_interrupt(context.vm, mouse_irq), {}, {.profile = profile}));
        context.controls.ctrl_alt_del = [controller] { return controller->lock()->ctrl_alt_del(); };
        return std::make_shared<vmdevice::PortView>(data_port.base(), controller);
    };
    return {.description = description, .create = create};
}

}  // namespace kvm_vmm
