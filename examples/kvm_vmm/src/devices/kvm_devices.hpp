// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmdevice/range.hpp>

#include "devices/machine_device.hpp"
#include "machine/platform.hpp"

namespace kvm_vmm {

/// The pair of 8259s with its edge/level registers. The second one is connected to interrupt 2 of the first.
[[nodiscard]] inline MachineDevice interrupt_controllers() {
    return {.description = {
                .name = "8259",
                .title = "interrupt controllers",
                .model = "KVM",
                .resources = {ports(vmdevice::pio_range(0x20, 2)), ports(vmdevice::pio_range(0xA0, 2)),
                              ports(vmdevice::pio_range(0x4D0, 2)), interrupt(2)}}};
}

/// The 8254, and port 0x61, which gates its speaker channel.
[[nodiscard]] inline MachineDevice interval_timer() {
    return {.description = {.name = "8254",
                            .title = "interval timer",
                            .model = "KVM",
                            .resources = {ports(vmdevice::pio_range(0x40, 4)),
                                          ports(vmdevice::pio_range(0x61, 1)), interrupt(0)}}};
}

[[nodiscard]] inline MachineDevice io_apic() {
    return {
        .description = {.name = "IOAPIC",
                        .title = "I/O APIC",
                        .model = "KVM",
                        .resources = {mmio_window(vmdevice::mmio_range(platform::ioapic_address, 0x1000))}}};
}

[[nodiscard]] inline MachineDevice local_apics() {
    return {
        .description = {.name = "LAPIC",
                        .title = "local APICs",
                        .model = "KVM",
                        .resources = {mmio_window(vmdevice::mmio_range(platform::lapic_address, 0x1000))}}};
}

}  // namespace kvm_vmm
