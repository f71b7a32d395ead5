// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Resources in words.

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include <vmdevice/resources.hpp>

namespace vmdevice::detail {

inline std::string hexadecimal(std::uint64_t value, std::size_t digits = 1) {
    std::array<char, 16> buffer{};
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, 16).ptr;
    const auto length = static_cast<std::size_t>(end - buffer.data());
    return std::string(digits > length ? digits - length : 0, '0') + std::string(buffer.data(), length);
}

inline std::string describe(const PioResource& owned) {
    return "pio 0x" + hexadecimal(owned.range.base().value) + "-0x" + hexadecimal(owned.range.last().value);
}
inline std::string describe(const MmioResource& owned) {
    return "mmio 0x" + hexadecimal(owned.range.base().value) + "-0x" + hexadecimal(owned.range.last().value);
}
inline std::string describe(const LegacyIrqResource& owned) { return "irq " + std::to_string(owned.irq); }
inline std::string describe(const MsiIrqResource& owned) {
    const char* const kind = owned.type == MsiIrqType::pci_msi    ? "msi "
                             : owned.type == MsiIrqType::pci_msix ? "msi-x "
                                                                  : "generic-msi ";
    return kind + std::to_string(owned.base) + "+" + std::to_string(owned.count);
}
inline std::string describe(const MacAddressResource& owned) {
    std::string text = "mac";
    char separator = ' ';
    for (const std::uint8_t byte : owned.address) {
        text += separator + hexadecimal(byte, 2);
        separator = ':';
    }
    return text;
}
inline std::string describe(const KvmMemSlotResource& owned) { return "slot " + std::to_string(owned.slot); }

/// Appends all of them, each after two spaces.
inline void describe(std::string& text, const DeviceResources& resources) {
    for (const Resource& resource : resources) {
        text += "  " + std::visit([](const auto& owned) { return describe(owned); }, resource);
    }
}

}  // namespace vmdevice::detail
