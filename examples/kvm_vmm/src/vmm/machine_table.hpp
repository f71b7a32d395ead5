// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <vmdevice/allocator.hpp>
#include <vmdevice/device_manager.hpp>

#include "devices/machine_device.hpp"
#include "devices/virtio_mmio.hpp"
#include "machine/platform.hpp"
#include "vmm/config.hpp"

namespace kvm_vmm {

/// The devices of the machine that `config` describes, with one row for each device, which contains
/// everything that is known about it. Registration, firmware tables, traces and the manual are derived from
/// this table.
[[nodiscard]] std::vector<MachineDevice> machine_table(const VmmConfig& config);

/// Appends rows for virtio devices, in their order: each with a window and an interrupt that no row of the table
/// has. If there are more devices than free interrupts, they share those among themselves. Throws VmmError(usage)
/// if there are more than max_virtio_devices.
void place_virtio_devices(std::vector<VirtioDevice> devices, std::vector<MachineDevice>& table);

/// The number of names that ACPI nodes of virtio devices have.
inline constexpr std::size_t max_virtio_devices = 256;

/// The description of such a machine for the firmware tables.
[[nodiscard]] Platform platform_of(const VmmConfig& config, std::span<const MachineDevice> table);

/// The ports, memory and interrupts that a PC has for its devices.
[[nodiscard]] vmdevice::SystemAllocator make_allocator();

/// Creates the devices of the table and registers them with `manager`. Throws VmmError if one cannot be
/// created, or if two of them need the same resource.
void create_devices(std::span<const MachineDevice> table, vmdevice::DeviceManager& manager,
                    const DeviceContext& context);

/// The table as Markdown, for the manual.
[[nodiscard]] std::string to_markdown(std::span<const MachineDevice> table);

}  // namespace kvm_vmm
