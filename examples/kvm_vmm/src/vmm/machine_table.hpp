// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <vector>

#include <vmdevice/allocator.hpp>
#include <vmdevice/device_manager.hpp>

#include "devices/machine_device.hpp"
#include "machine/platform.hpp"
#include "vmm/config.hpp"

namespace kvm_vmm {

/// The devices of the machine that `config` describes, one row for each: all that is known of a device stands
/// in its row. Registration, firmware tables, traces and the manual follow from here.
[[nodiscard]] std::vector<MachineDevice> machine_table(const VmmConfig& config);

/// What the firmware tables say of such a machine.
[[nodiscard]] Platform platform_of(const VmmConfig& config, std::span<const MachineDevice> table);

/// The ports, memory and interrupts that a PC has for its devices.
[[nodiscard]] vmdevice::SystemAllocator make_allocator();

/// Creates the devices of the table and puts them on the buses of `manager`. Throws VmmError if one cannot be
/// created, or if two of them want the same resource.
void create_devices(std::span<const MachineDevice> table, vmdevice::DeviceManager& manager,
                    const DeviceContext& context);

/// The table as Markdown, for the manual.
[[nodiscard]] std::string to_markdown(std::span<const MachineDevice> table);

}  // namespace kvm_vmm
