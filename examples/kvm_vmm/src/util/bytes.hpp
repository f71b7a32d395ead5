// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

/// Functions that build tables for the guest.
namespace kvm_vmm {

using Bytes = std::vector<std::uint8_t>;

/// Appends the lowest `width` bytes of `value`, little-endian. `width` is 1 to 8.
inline void append_integer(Bytes& target, std::uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; ++i) {
        target.push_back(static_cast<std::uint8_t>(value >> (8U * i)));
    }
}
inline void append_bytes(Bytes& target, std::span<const std::uint8_t> bytes) {
    target.insert(target.end(), bytes.begin(), bytes.end());
}
inline void append_text(Bytes& target, std::string_view text) {
    target.insert(target.end(), text.begin(), text.end());
}

/// The value of the checksum byte with which all bytes add up to 0 modulo 256.
[[nodiscard]] inline std::uint8_t checksum_of(std::span<const std::uint8_t> bytes) {
    return static_cast<std::uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0));
}

}  // namespace kvm_vmm
