// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>

namespace kvm_vmm {

/// "0x1f0", for messages; with at least `width` digits.
[[nodiscard]] inline std::string hex(std::uint64_t value, std::size_t width = 1) {
    std::array<char, 16> digits{};
    const auto result = std::to_chars(digits.begin(), digits.end(), value, 16);
    const std::string text(digits.begin(), result.ptr);
    return "0x" + std::string(width > text.size() ? width - text.size() : 0, '0') + text;
}

/// An amount of memory for messages: "512 bytes", "20 KiB", "52 MiB". Amounts are rounded up, so that this
/// much is enough for a guest.
[[nodiscard]] inline std::string amount(std::uint64_t bytes) {
    constexpr std::uint64_t kib = 1024;
    const auto units = [bytes](std::uint64_t unit) { return bytes / unit + (bytes % unit != 0 ? 1U : 0U); };
    if (bytes < 4 * kib) {
        return std::to_string(bytes) + " bytes";
    }
    if (bytes < 64 * kib * kib && bytes % (kib * kib) != 0) {
        return std::to_string(units(kib)) + " KiB";
    }
    return std::to_string(units(kib * kib)) + " MiB";
}

}  // namespace kvm_vmm
