// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Addresses, ranges and resources as text, for log lines and messages.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include <vmdevice/address.hpp>
#include <vmdevice/allocator_state.hpp>
#include <vmdevice/range.hpp>
#include <vmdevice/resources.hpp>

namespace vmdevice::inline v0_2 {

namespace detail {

/// In lower-case hexadecimal with at least `digits` digits.
[[nodiscard]] inline std::string hexadecimal(std::uint64_t value, std::size_t digits = 1) {
    std::string text(digits < 16 ? 16 : digits, '0');
    std::size_t first = text.size();
    std::size_t written = 0;
    for (; value != 0 || written < digits; value >>= 4U, ++written) {
        text[--first] = "0123456789abcdef"[value & 0xFU];
    }
    text.erase(0, first);
    return text;
}

}  // namespace detail

/// "0x3f8".
[[nodiscard]] inline std::string to_string(PioAddress address) {
    return "0x" + detail::hexadecimal(address.value);
}
[[nodiscard]] inline std::string to_string(MmioAddress address) {
    return "0x" + detail::hexadecimal(address.value);
}
[[nodiscard]] inline std::string to_string(Number number) { return std::to_string(number.value); }

/// The first and the last address: "0x3f8-0x3ff" for addresses, "5-15" for numbers.
template <BusAddress A>
[[nodiscard]] std::string to_string(const BusRange<A>& range) {
    if constexpr (requires { to_string(range.base()); }) {
        return to_string(range.base()) + "-" + to_string(range.last());
    } else {
        return "0x" + detail::hexadecimal(range.base().value) + "-0x" +
               detail::hexadecimal(range.last().value);
    }
}

/// "52:54:00:00:00:01".
[[nodiscard]] inline std::string mac_to_string(const MacAddress& address) {
    std::string text;
    for (const std::uint8_t byte : address) {
        if (!text.empty()) {
            text += ':';
        }
        text += detail::hexadecimal(byte, 2);
    }
    return text;
}

[[nodiscard]] inline std::string to_string(const PioResource& owned) {
    return "pio " + to_string(owned.range);
}
[[nodiscard]] inline std::string to_string(const MmioResource& owned) {
    return "mmio " + to_string(owned.range);
}
/// "irq 4", "irq 4 (shared, edge)".
[[nodiscard]] inline std::string to_string(const LegacyIrqResource& owned) {
    std::string text = "irq " + std::to_string(owned.irq);
    if (owned.sharing != IrqSharing::exclusive) {
        text += owned.sharing == IrqSharing::edge ? " (shared, edge)" : " (shared, level)";
    }
    return text;
}
/// The first and how many: "msi-x 36+2".
[[nodiscard]] inline std::string to_string(const MsiIrqResource& owned) {
    const char* const kind = owned.type == MsiIrqType::pci_msi    ? "msi "
                             : owned.type == MsiIrqType::pci_msix ? "msi-x "
                                                                  : "generic-msi ";
    return kind + std::to_string(owned.base) + "+" + std::to_string(owned.count);
}
[[nodiscard]] inline std::string to_string(const MacAddressResource& owned) {
    return "mac " + mac_to_string(owned.address);
}
[[nodiscard]] inline std::string to_string(const KvmMemSlotResource& owned) {
    return "slot " + std::to_string(owned.slot);
}
template <std::same_as<Resource> R>
[[nodiscard]] std::string to_string(const R& resource) {
    return std::visit([](const auto& owned) { return to_string(owned); }, resource);
}
/// All of them, with two spaces between: "pio 0x3f8-0x3ff  irq 4".
template <std::same_as<DeviceResources> R>
[[nodiscard]] std::string to_string(const R& resources) {
    std::string text;
    for (const Resource& resource : resources) {
        if (!text.empty()) {
            text += "  ";
        }
        text += to_string(resource);
    }
    return text;
}

/// The request, as the subject of a message: "port range 0x3f8-0x3ff", "8 ports", "an IRQ", "IRQ 4".
[[nodiscard]] inline std::string to_string(const PioConstraint& wanted) {
    if (!wanted.base) {
        return std::to_string(wanted.size) + " ports";
    }
    const auto range = PioRange::create(*wanted.base, wanted.size);
    return range ? "port range " + to_string(*range)
                 : std::to_string(wanted.size) + " ports at " + to_string(*wanted.base);
}
[[nodiscard]] inline std::string to_string(const MmioConstraint& wanted) {
    std::string size = "0x" + detail::hexadecimal(wanted.size) + " bytes of memory";
    if (!wanted.base) {
        return size;
    }
    const auto range = MmioRange::create(*wanted.base, wanted.size);
    return range ? "memory range " + to_string(*range) : size + " at " + to_string(*wanted.base);
}
[[nodiscard]] inline std::string to_string(const LegacyIrqConstraint& wanted) {
    if (wanted.irq) {
        return wanted.count == 1 ? "IRQ " + std::to_string(*wanted.irq)
                                 : std::to_string(wanted.count) + " IRQs from " + std::to_string(*wanted.irq);
    }
    return wanted.count == 1 ? "an IRQ" : std::to_string(wanted.count) + " IRQs";
}
[[nodiscard]] inline std::string to_string(const MsiIrqConstraint& wanted) {
    return std::to_string(wanted.count) + " MSIs" +
           (wanted.base ? " from " + std::to_string(*wanted.base) : std::string());
}
[[nodiscard]] inline std::string to_string(const MacAddressConstraint& wanted) {
    return wanted.address ? "MAC address " + mac_to_string(*wanted.address) : "a MAC address";
}
[[nodiscard]] inline std::string to_string(const KvmMemSlotConstraint& wanted) {
    return std::to_string(wanted.count) + " memory slots" +
           (wanted.slot ? " from " + std::to_string(*wanted.slot) : std::string());
}
template <std::same_as<ResourceConstraint> C>
[[nodiscard]] std::string to_string(const C& constraint) {
    return std::visit([](const auto& wanted) { return to_string(wanted); }, constraint);
}

}  // namespace vmdevice::inline v0_2
