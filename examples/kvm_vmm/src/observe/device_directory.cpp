// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/device_directory.hpp"

#include <algorithm>
#include <limits>
#include <variant>

#include <vmdevice/resources.hpp>

#include "util/text.hpp"

namespace kvm_vmm {

ObservedDevice& DeviceDirectory::add(std::string_view name) {
    const auto found = std::ranges::find(devices_, name, &ObservedDevice::name);
    return found != devices_.end() ? *found : devices_.emplace_back(name);
}

void DeviceDirectory::place(std::span<const vmdevice::DeviceInfo> devices) {
    ports_ = {};
    mmio_ = {};
    for (const vmdevice::DeviceInfo& info : devices) {
        const auto found = std::ranges::find(devices_, info.name, &ObservedDevice::name);
        if (found == devices_.end()) {
            continue;  // it is not observed
        }
        ObservedDevice* const device = &*found;
        device->port_origin = std::numeric_limits<std::uint16_t>::max();
        device->mmio_origin = std::numeric_limits<std::uint64_t>::max();
        // Ranges of devices that are registered together do not overlap.
        for (const vmdevice::Resource& resource : info.resources) {
            if (const auto* const io = std::get_if<vmdevice::PioResource>(&resource)) {
                device->port_origin = std::min(device->port_origin, io->range.base().value);
                (void)ports_.register_device(io->range, device);
            } else if (const auto* const window = std::get_if<vmdevice::MmioResource>(&resource)) {
                device->mmio_origin = std::min(device->mmio_origin, window->range.base().value);
                (void)mmio_.register_device(window->range, device);
            }
        }
    }
}

ObservedDevice* DeviceDirectory::find_port(std::uint16_t port, std::size_t length) const noexcept {
    const auto entry = ports_.check_access(vmdevice::PioAddress{port}, length);
    return entry ? entry->device : nullptr;
}

ObservedDevice* DeviceDirectory::find_mmio(std::uint64_t address, std::size_t length) const noexcept {
    const auto entry = mmio_.check_access(vmdevice::MmioAddress{address}, length);
    return entry ? entry->device : nullptr;
}

std::string DeviceDirectory::register_name(const IoAccess& access) const {
    const bool pio = access.bus == IoAccess::Bus::pio;
    const ObservedDevice* const device =
        pio ? find_port(static_cast<std::uint16_t>(access.address), access.width)
            : find_mmio(access.address, access.width);
    if (device == nullptr) {
        return "-";
    }
    const std::uint64_t offset = access.address - (pio ? device->port_origin : device->mmio_origin);
    std::string name = device->register_name ? device->register_name(offset, access.write) : std::string();
    if (name.empty()) {
        name = hex(offset, 2);
    }
    return device->name + '.' + name;
}

}  // namespace kvm_vmm
