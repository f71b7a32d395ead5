// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvm_vmm::virtio {

using MacAddress = std::array<std::uint8_t, 6>;

/// Six hexadecimal bytes with ':' or '-' between them; nothing if the text is anything else.
[[nodiscard]] inline std::optional<MacAddress> parse_mac(std::string_view text) noexcept {
    const auto digit = [](char c) -> int {
        if (c >= '0' && c <= '9') {
            return c - '0';
        }
        if (c >= 'a' && c <= 'f') {
            return c - 'a' + 10;
        }
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    };
    MacAddress address{};
    if (text.size() != 3 * address.size() - 1 || (text[2] != ':' && text[2] != '-')) {
        return std::nullopt;
    }
    for (std::size_t i = 0; i < address.size(); ++i) {
        const int high = digit(text[3 * i]);
        const int low = digit(text[3 * i + 1]);
        if (high < 0 || low < 0 || (i + 1 < address.size() && text[3 * i + 2] != text[2])) {
            return std::nullopt;
        }
        address[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return address;
}

/// Whether an interface may have it: it is the address of one interface, and not 0.
[[nodiscard]] inline bool is_unicast(const MacAddress& address) noexcept {
    return (address[0] & 1U) == 0 && address != MacAddress{};
}

/// A locally administered address, always the same one for the same text.
[[nodiscard]] inline MacAddress derive_mac(std::string_view text) noexcept {
    std::uint64_t hash = 0xCBF2'9CE4'8422'2325;  // FNV-1a
    for (const char c : text) {
        hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100'0000'01B3;
    }
    hash ^= hash >> 32U;
    MacAddress address{};
    for (std::size_t i = 0; i < address.size(); ++i) {
        address[i] = static_cast<std::uint8_t>(hash >> (8 * i));
    }
    address[0] = static_cast<std::uint8_t>((address[0] & 0xFCU) | 2U);
    return address;
}

/// "02:00:5e:10:00:01".
[[nodiscard]] inline std::string to_string(const MacAddress& address) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : address) {
        text += text.empty() ? "" : ":";
        text += digits[byte / 16];
        text += digits[byte % 16];
    }
    return text;
}

}  // namespace kvm_vmm::virtio
