// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include <vmdevice/device_info.hpp>
#include <vmdevice/resources.hpp>

#include "machine/device_description.hpp"
#include "machine/platform.hpp"
#include "vmm/config.hpp"
#include "vmm/machine_table.hpp"

namespace kvm_vmm::test {

/// A machine with `serials` serial ports and, unless `config` differs, all devices that kvm_vmm has by
/// default.
inline Platform machine_with(std::size_t serials = 1, VmmConfig config = {}) {
    config.serials.assign(serials, SerialConfig{});
    return platform_of(config, machine_table(config));
}

inline void remove_device(Platform& machine, const std::string& name) {
    std::erase_if(machine.devices, [&name](const DeviceDescription& device) { return device.name == name; });
}

/// A virtio-mmio device.
inline DeviceDescription virtio_mmio(std::size_t index, std::uint32_t base, std::uint32_t size,
                                     std::uint32_t gsi,
                                     vmdevice::IrqSharing sharing = vmdevice::IrqSharing::exclusive) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    const std::string name{'V', 'T', digits.at(index / 16 % 16), digits.at(index % 16)};
    DeviceDescription device =
        with_acpi_node({.name = name,
                        .title = "virtio device",
                        .model = "test",
                        .resources = {mmio_window(vmdevice::MmioRange::create({base}, size).value()),
                                      interrupt(gsi, sharing)}},
                       name, "LNRO0005", index);
    device.acpi_nodes.front().dma_coherent = true;
    return device;
}

/// A registered device, for a DeviceDirectory.
inline vmdevice::DeviceInfo placed(std::string name, std::initializer_list<vmdevice::Resource> resources) {
    vmdevice::DeviceInfo info;
    info.name = std::move(name);
    for (const vmdevice::Resource& resource : resources) {
        info.resources.append(resource);
    }
    return info;
}
inline vmdevice::Resource at_ports(std::uint16_t first, std::uint16_t size) {
    return vmdevice::PioResource{vmdevice::PioRange::create({first}, size).value()};
}
inline vmdevice::Resource at_memory(std::uint64_t first, std::uint64_t size) {
    return vmdevice::MmioResource{vmdevice::MmioRange::create({first}, size).value()};
}

}  // namespace kvm_vmm::test
