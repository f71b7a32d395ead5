// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Ranges of addresses that cannot be empty and cannot wrap.

#include <vmdevice/detail/config.hpp>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <limits>
#include <optional>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/error.hpp>

namespace vmdevice::inline v0_2 {

/// The addresses base()..last(), both included, so that the last address of the space is usable.
///
/// A range covers at least one address and at most all but one of the space: the size of a whole space (2^16
/// ports, 2^64 bytes) does not fit its offset type. To cover a whole space, use two ranges.
template <BusAddress A>
class BusRange {
public:
    using address_type = A;
    using offset_type = OffsetOf<A>;

    /// `size` addresses from `base` on. Returns `invalid_range` if size is 0 or the range would wrap.
    [[nodiscard]] static constexpr std::expected<BusRange, BusError> create(A base,
                                                                            offset_type size) noexcept {
        if (size == 0 || static_cast<offset_type>(size - 1) > maximum - base.value) {
            return std::unexpected(BusError::invalid_range);
        }
        return BusRange(base.value, static_cast<offset_type>(base.value + (size - 1)));
    }

    /// The addresses `first`..`last`, both included. Returns `invalid_range` if they are out of order or
    /// cover the whole space.
    [[nodiscard]] static constexpr std::expected<BusRange, BusError> from_bounds(A first, A last) noexcept {
        if (first.value > last.value || (first.value == 0 && last.value == maximum)) {
            return std::unexpected(BusError::invalid_range);
        }
        return BusRange(first.value, last.value);
    }

    /// The one address `base`.
    [[nodiscard]] static constexpr BusRange unit(A base) noexcept { return BusRange(base.value, base.value); }

    /// The first address.
    [[nodiscard]] constexpr A base() const noexcept { return A{base_}; }
    /// The last address, which belongs to the range.
    [[nodiscard]] constexpr A last() const noexcept { return A{last_}; }
    /// How many addresses the range covers, at least 1.
    [[nodiscard]] constexpr offset_type size() const noexcept {
        return static_cast<offset_type>(last_ - base_ + 1);
    }

    /// Whether the address lies in the range.
    [[nodiscard]] constexpr bool contains(A address) const noexcept {
        return address.value >= base_ && address.value <= last_;
    }
    /// Whether all of the other range lies in this one.
    [[nodiscard]] constexpr bool contains(const BusRange& other) const noexcept {
        return other.base_ >= base_ && other.last_ <= last_;
    }
    /// Whether all `length` bytes from `address` on lie in this range; false for an access of no bytes.
    [[nodiscard]] constexpr bool contains_access(A address, std::size_t length) const noexcept {
        return length != 0 && contains(address) &&
               static_cast<std::uint64_t>(length - 1) <= static_cast<std::uint64_t>(last_ - address.value);
    }
    /// Whether the two ranges have an address in common.
    [[nodiscard]] constexpr bool overlaps(const BusRange& other) const noexcept {
        return base_ <= other.last_ && other.base_ <= last_;
    }
    /// The addresses that both ranges cover, or nothing if they share none.
    [[nodiscard]] constexpr std::optional<BusRange> intersection(const BusRange& other) const noexcept {
        if (!overlaps(other)) {
            return std::nullopt;
        }
        return BusRange(base_ < other.base_ ? other.base_ : base_, last_ < other.last_ ? last_ : other.last_);
    }
    /// The addresses below `first_of_upper`, and the others. Returns `invalid_range` if one of the two would
    /// be empty, that is if `first_of_upper` is not inside the range or is its base.
    [[nodiscard]] constexpr std::expected<std::pair<BusRange, BusRange>, BusError> split_at(
        A first_of_upper) const noexcept {
        if (!contains(first_of_upper) || first_of_upper.value == base_) {
            return std::unexpected(BusError::invalid_range);
        }
        return std::pair(BusRange(base_, static_cast<offset_type>(first_of_upper.value - 1)),
                         BusRange(first_of_upper.value, last_));
    }
    /// The distance of an address of this range from its base.
    [[nodiscard]] constexpr offset_type offset_of(A address) const noexcept {
        return static_cast<offset_type>(address.value - base_);
    }

    friend constexpr bool operator==(const BusRange&, const BusRange&) = default;
    /// Orders by base, and by last address if the bases are equal.
    friend constexpr auto operator<=>(const BusRange&, const BusRange&) = default;

private:
    static constexpr offset_type maximum = std::numeric_limits<offset_type>::max();

    constexpr BusRange(offset_type base, offset_type last) noexcept : base_(base), last_(last) {}

    offset_type base_;
    offset_type last_;
};

/// A range of ports.
using PioRange = BusRange<PioAddress>;
/// A range of guest physical memory.
using MmioRange = BusRange<MmioAddress>;

namespace detail {

// Deliberately not constexpr: a constant range that reaches it does not compile, and the message names it.
inline void the_range_is_empty_or_runs_past_the_last_address() {}

template <class A>
consteval BusRange<A> constant_range(A base, OffsetOf<A> size) {
    const auto range = BusRange<A>::create(base, size);
    if (!range) {
        the_range_is_empty_or_runs_past_the_last_address();
    }
    return *range;
}

}  // namespace detail

/// A range of ports known at compile time: `pio_range(0x3F8, 8)`. An invalid range does not compile.
[[nodiscard]] consteval PioRange pio_range(std::uint16_t base, std::uint16_t size) {
    return detail::constant_range(PioAddress{base}, size);
}
/// A range of guest physical memory known at compile time. An invalid range does not compile.
[[nodiscard]] consteval MmioRange mmio_range(std::uint64_t base, std::uint64_t size) {
    return detail::constant_range(MmioAddress{base}, size);
}

}  // namespace vmdevice::inline v0_2
