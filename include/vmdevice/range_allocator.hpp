// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Hands out parts of an address space, or of any other row of numbers.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/range.hpp>

namespace vmdevice {

enum class AllocError : std::uint8_t {
    /// No free part is large enough where the request may lie.
    exhausted,
    /// The address or number asked for is taken.
    taken,
    /// The address or number asked for is not managed here, or no such space was configured.
    out_of_range,
    /// A request for nothing.
    invalid_size,
    /// An alignment that is not a power of two, or an address asked for that does not have it.
    invalid_alignment,
    /// What is to be freed was not allocated like that.
    not_allocated,
};

/// The error in words, for a message.
[[nodiscard]] constexpr std::string_view to_string(AllocError error) noexcept {
    switch (error) {
        case AllocError::exhausted:
            return "no free range is large enough";
        case AllocError::taken:
            return "already allocated";
        case AllocError::out_of_range:
            return "outside the managed range";
        case AllocError::invalid_size:
            return "a size of 0";
        case AllocError::invalid_alignment:
            return "the alignment is not a power of two, or the address does not have it";
        case AllocError::not_allocated:
            return "not allocated";
    }
    return "unknown allocation error";
}

/// Where a range is looked for: at the lowest possible address, at the highest, or at one only.
enum class AllocPolicy : std::uint8_t { first_match, last_match, exact_match };

/// Hands out parts of one space: addresses, or numbers such as interrupts. What it hands out never overlaps,
/// and where it returns an error it has not changed.
///
/// Thread safety: none.
template <BusAddress A>
class RangeAllocator {
public:
    using offset_type = OffsetOf<A>;
    using range_type = BusRange<A>;

    explicit RangeAllocator(range_type space) : space_(space) {
        free_.emplace(space.base().value, space.last().value);
    }

    /// A range of `size` at a multiple of `align`; inside `within` where that is given. `at` is the address
    /// for exact_match and ignored otherwise.
    [[nodiscard]] std::expected<range_type, AllocError> allocate(
        offset_type size, offset_type align = 1, AllocPolicy policy = AllocPolicy::first_match,
        std::optional<range_type> within = std::nullopt, std::optional<A> at = std::nullopt) {
        if (size == 0) {
            return std::unexpected(AllocError::invalid_size);
        }
        if (!std::has_single_bit(align)) {
            return std::unexpected(AllocError::invalid_alignment);
        }
        if (policy == AllocPolicy::exact_match) {
            return allocate_at(size, align, at, within);
        }
        const range_type bounds = within.value_or(space_);
        const offset_type lowest = std::max(bounds.base().value, space_.base().value);
        const offset_type highest = std::min(bounds.last().value, space_.last().value);
        const auto fits = [&](offset_type first, offset_type last) {
            return place(std::max(first, lowest), std::min(last, highest), size, align, policy);
        };
        if (policy == AllocPolicy::first_match) {
            for (const auto& [first, last] : free_) {
                if (const auto base = fits(first, last)) {
                    return take(*base, size);
                }
            }
        } else {
            for (auto part = free_.rbegin(); part != free_.rend(); ++part) {
                if (const auto base = fits(part->first, part->second)) {
                    return take(*base, size);
                }
            }
        }
        return std::unexpected(AllocError::exhausted);
    }

    /// The range of `size` at `address` and no other.
    [[nodiscard]] std::expected<range_type, AllocError> allocate_exact(A address, offset_type size) {
        return allocate(size, 1, AllocPolicy::exact_match, std::nullopt, address);
    }

    /// Takes back a range exactly as it was handed out.
    [[nodiscard]] std::expected<void, AllocError> free(range_type range) {
        const auto found = used_.find(range.base().value);
        if (found == used_.end() || found->second != range.last().value) {
            return std::unexpected(AllocError::not_allocated);
        }
        // The node moves from one map to the other, so that giving back cannot run out of memory.
        auto node = used_.extract(found);
        const auto next = free_.upper_bound(range.base().value);
        if (next != free_.end() && next->first - 1 == node.mapped()) {
            node.mapped() = next->second;
            free_.erase(next);
        }
        const auto above = free_.upper_bound(range.base().value);
        if (above != free_.begin()) {
            const auto previous = std::prev(above);
            if (previous->second + 1 == range.base().value) {
                previous->second = node.mapped();
                return {};
            }
        }
        free_.insert(std::move(node));
        return {};
    }

    [[nodiscard]] range_type space() const noexcept { return space_; }
    /// How many ranges are handed out.
    [[nodiscard]] std::size_t allocated() const noexcept { return used_.size(); }
    /// Whether all of `range` is free.
    [[nodiscard]] bool is_free(range_type range) const {
        const auto part = free_part(range.base().value);
        return part != free_.end() && part->second >= range.last().value;
    }

private:
    using Parts = std::map<offset_type, offset_type>;  // first -> last

    /// Where a range lies in the free part first..last, if it fits.
    static std::optional<offset_type> place(offset_type first, offset_type last, offset_type size,
                                            offset_type align, AllocPolicy policy) {
        if (first > last || static_cast<offset_type>(size - 1) > last - first) {
            return std::nullopt;
        }
        const auto mask = static_cast<offset_type>(align - 1);
        if (policy == AllocPolicy::last_match) {
            const auto base = static_cast<offset_type>((last - (size - 1)) & static_cast<offset_type>(~mask));
            return base >= first ? std::optional(base) : std::nullopt;
        }
        if ((first & mask) != 0 && mask > std::numeric_limits<offset_type>::max() - first) {
            return std::nullopt;  // rounding up would wrap
        }
        const auto base = static_cast<offset_type>((first + mask) & static_cast<offset_type>(~mask));
        if (base > last || static_cast<offset_type>(size - 1) > last - base) {
            return std::nullopt;
        }
        return base;
    }

    std::expected<range_type, AllocError> allocate_at(offset_type size, offset_type align,
                                                      std::optional<A> at, std::optional<range_type> within) {
        if (!at) {
            return std::unexpected(AllocError::out_of_range);
        }
        const auto range = range_type::create(*at, size);
        if (!range || !space_.contains(*range) || (within && !within->contains(*range))) {
            return std::unexpected(AllocError::out_of_range);
        }
        if ((at->value & static_cast<offset_type>(align - 1)) != 0) {
            return std::unexpected(AllocError::invalid_alignment);
        }
        if (!is_free(*range)) {
            return std::unexpected(AllocError::taken);
        }
        return take(at->value, size);
    }

    [[nodiscard]] typename Parts::const_iterator free_part(offset_type address) const {
        auto part = free_.upper_bound(address);
        if (part == free_.begin()) {
            return free_.end();
        }
        --part;
        return part->second >= address ? part : free_.end();
    }

    /// Moves a range that lies in one free part from there to the used ones.
    range_type take(offset_type base, offset_type size) {
        const auto last = static_cast<offset_type>(base + (size - 1));
        const auto part = free_.find(free_part(base)->first);
        const offset_type part_last = part->second;
        // What may run out of memory comes first and is undone by nothing but itself.
        Parts fresh_used;
        fresh_used.emplace(base, last);
        Parts fresh_free;
        if (last < part_last) {
            fresh_free.emplace(static_cast<offset_type>(last + 1), part_last);
        }
        if (base == part->first) {
            free_.erase(part);
        } else {
            part->second = static_cast<offset_type>(base - 1);
        }
        free_.merge(fresh_free);
        used_.merge(fresh_used);
        return range_type::create(A{base}, size).value();
    }

    range_type space_;
    Parts free_;
    Parts used_;
};

}  // namespace vmdevice
