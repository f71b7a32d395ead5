// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/device_directory.hpp"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>

namespace kvm_vmm {

ObservedDevice& DeviceDirectory::add(std::string_view name) {
    const auto found = std::ranges::find(devices_, name, &ObservedDevice::name);
    return found != devices_.end() ? *found : devices_.emplace_back(name);
}

ObservedDevice& DeviceDirectory::add_ports(std::string_view name, std::uint16_t first, std::uint16_t size) {
    ObservedDevice& device = add(name);
    insert(ports_, {first, std::uint64_t{first} + size - 1, &device});
    device.port_origin = static_cast<std::uint16_t>(origin(ports_, device));
    return device;
}

ObservedDevice& DeviceDirectory::add_mmio(std::string_view name, std::uint64_t first, std::uint64_t size) {
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
        std::array<char, 24> text{};
        std::snprintf(text.data(), text.size(), "0x%02" PRIx64, offset);
        name = text.data();
    }
    return device->name + '.' + name;
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
