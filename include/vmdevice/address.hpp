// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Strong guest addresses: a port number cannot be used where a memory address is meant.

#include <vmdevice/detail/config.hpp>

#include <compare>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>

namespace vmdevice::inline v0_2 {

/// A distance in the port space, or an offset inside a port range, in bytes.
using PioOffset = std::uint16_t;
/// A distance in guest physical memory, or an offset inside an MMIO range, in bytes.
using MmioOffset = std::uint64_t;

/// A port of the x86 I/O space, 0..0xFFFF.
struct PioAddress {
    std::uint16_t value;  ///< the port, 0 to 0xFFFF

    friend constexpr auto operator<=>(const PioAddress&, const PioAddress&) = default;
};

/// A guest physical address, 0..2^64-1.
struct MmioAddress {
    std::uint64_t value;  ///< the guest physical address in bytes

    friend constexpr auto operator<=>(const MmioAddress&, const MmioAddress&) = default;
};

/// Any address space: a type that holds one unsigned integer named `value` and is constructed from it.
/// Nothing else is required, so that a user can define another space in one line.
template <class A>
concept BusAddress = std::copyable<A> && std::unsigned_integral<std::remove_cvref_t<decltype(A::value)>> &&
                     !std::same_as<std::remove_cvref_t<decltype(A::value)>, bool> &&
                     requires(std::remove_cvref_t<decltype(A::value)> value) { A{value}; };

/// The integer type of an address space; also the type of sizes and offsets in it.
template <BusAddress A>
using OffsetOf = std::remove_cvref_t<decltype(A::value)>;

/// The address `offset` bytes above `address`, or nothing if it would exceed the address space.
template <BusAddress A>
[[nodiscard]] constexpr std::optional<A> checked_add(A address, OffsetOf<A> offset) noexcept {
    if (offset > std::numeric_limits<OffsetOf<A>>::max() - address.value) {
        return std::nullopt;
    }
    return A{static_cast<OffsetOf<A>>(address.value + offset)};
}

}  // namespace vmdevice::inline v0_2
