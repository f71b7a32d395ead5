// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/device_directory.hpp"

#include <algorithm>

namespace kvm_vmm {

ObservedDevice& DeviceDirectory::add(const DeviceName& name) {
    const auto found = std::ranges::find(devices_, name.name, &ObservedDevice::name);
    if (found != devices_.end()) {
        found->registers = name.registers;
        return *found;
    }
    return devices_.emplace_back(name.name, name.registers, devices_.size());
}

ObservedDevice& DeviceDirectory::add_ports(const DeviceName& name, std::uint16_t first, std::uint16_t size) {
    ObservedDevice& device = add(name);
    insert(ports_, {first, std::uint64_t{first} + size - 1, &device});
    device.port_origin = static_cast<std::uint16_t>(origin(ports_, device));
    return device;
}

ObservedDevice& DeviceDirectory::add_mmio(const DeviceName& name, std::uint64_t first, std::uint64_t size) {
    ObservedDevice& device = add(name);
    insert(mmio_, {first, first + (size - 1), &device});
    device.mmio_origin = origin(mmio_, device);
    return device;
}

ObservedDevice* DeviceDirectory::find_port(std::uint16_t port, std::size_t length) const noexcept {
    return find(ports_, port, length);
}

ObservedDevice* DeviceDirectory::find_mmio(std::uint64_t address, std::size_t length) const noexcept {
    return find(mmio_, address, length);
}

void DeviceDirectory::insert(Ranges& ranges, const Range& range) {
    std::erase_if(ranges,
                  [&](const Range& other) { return other.first <= range.last && range.first <= other.last; });
    ranges.insert(std::ranges::upper_bound(ranges, range.first, {}, &Range::first), range);
}

ObservedDevice* DeviceDirectory::find(const Ranges& ranges, std::uint64_t address,
                                      std::size_t length) noexcept {
    const auto behind = std::ranges::upper_bound(ranges, address, {}, &Range::first);
    if (behind == ranges.begin() || length == 0) {
        return nullptr;
    }
    const Range& range = *std::prev(behind);
    const bool inside = address <= range.last && length - 1 <= range.last - address;
    return inside ? range.device : nullptr;
}

std::uint64_t DeviceDirectory::origin(const Ranges& ranges, const ObservedDevice& device) noexcept {
    const auto first = std::ranges::find(ranges, &device, &Range::device);
    return first == ranges.end() ? 0 : first->first;
}

}  // namespace kvm_vmm
