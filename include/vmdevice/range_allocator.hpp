// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Allocates ranges of an address space, or of any other space of numbers.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/alloc_error.hpp>
#include <vmdevice/detail/range_pool.hpp>
#include <vmdevice/range.hpp>

namespace vmdevice::inline v0_2 {

/// Allocates ranges of one space: addresses, or numbers such as interrupts. Allocated ranges never overlap.
/// If a function returns an error or memory runs out (std::bad_alloc), nothing has changed. Freeing needs no
/// memory.
///
/// Thread safety: none.
template <BusAddress A>
class RangeAllocator {
public:
    using offset_type = OffsetOf<A>;
    using range_type = BusRange<A>;

    /// An allocator of the addresses of `space`, none of which is allocated.
    explicit RangeAllocator(range_type space) : pool_(span_of(space)) {}

    /// Allocates a range of `size` at a multiple of `align`, inside `within` if that is given. `at` is the
    /// address for exact_match and ignored otherwise.
    [[nodiscard]] std::expected<range_type, AllocError> allocate(
        offset_type size, offset_type align = 1, AllocPolicy policy = AllocPolicy::first_match,
        std::optional<range_type> within = std::nullopt, std::optional<A> at = std::nullopt) {
        const auto found = place(size, align, policy, within, at);
        if (found) {
            pool_.reserve(1);
            pool_.take(span_of(*found));
        }
        return found;
    }
    /// Allocates exactly the range of `size` at `address`.
    [[nodiscard]] std::expected<range_type, AllocError> allocate_exact(A address, offset_type size) {
        return allocate(size, 1, AllocPolicy::exact_match, std::nullopt, address);
    }
    /// Allocates `count` adjacent addresses (from `at` on, or the lowest that are free) individually: each is
    /// freed on its own. Returns them all as one range.
    [[nodiscard]] std::expected<range_type, AllocError> allocate_units(offset_type count,
                                                                       std::optional<A> at = std::nullopt) {
        const auto found = place(count, 1, at ? AllocPolicy::exact_match : AllocPolicy::first_match, {}, at);
        if (found) {
            pool_.reserve(static_cast<std::size_t>(count));
            for (offset_type i = 0; i < count; ++i) {
                const std::uint64_t unit = std::uint64_t{found->base().value} + i;
                pool_.take({unit, unit});
            }
        }
        return found;
    }

    /// Frees a range, which must have been allocated exactly like that.
    [[nodiscard]] std::expected<void, AllocError> free(range_type range) noexcept {
        if (!pool_.give_back(span_of(range))) {
            return std::unexpected(AllocError::not_allocated);
        }
        return {};
    }

    /// A move in progress: both the old range and the new one are allocated until finish_move() or
    /// cancel_move().
    class Move {
    public:
        /// The range that the device has.
        [[nodiscard]] range_type from() const noexcept { return from_; }
        /// The range that it is to have.
        [[nodiscard]] range_type to() const noexcept { return to_; }

    private:
        friend RangeAllocator;
        Move(range_type from, range_type to) noexcept : from_(from), to_(to) {}
        range_type from_;
        range_type to_;
        // The parts of the new range below and above the old one.
        std::optional<range_type> below_;
        std::optional<range_type> above_;
    };
    /// Allocates `to` in addition to `from`, which must be allocated exactly like that and which `to` may
    /// overlap. Returns `taken` if another allocation contains a part of `to`, and `out_of_range` if `to`
    /// extends past the space.
    [[nodiscard]] std::expected<Move, AllocError> begin_move(range_type from, range_type to) {
        if (!is_allocated(from)) {
            return std::unexpected(AllocError::not_allocated);
        }
        if (!space().contains(to)) {
            return std::unexpected(AllocError::out_of_range);
        }
        Move move(from, to);
        if (!from.overlaps(to)) {
            move.below_ = to;
        } else {
            if (to.base().value < from.base().value) {
                move.below_ = to.split_at(from.base())->first;
            }
            if (to.last().value > from.last().value) {
                move.above_ = to.split_at(A{static_cast<offset_type>(from.last().value + 1)})->second;
            }
        }
        if ((move.below_ && !is_free(*move.below_)) || (move.above_ && !is_free(*move.above_))) {
            return std::unexpected(AllocError::taken);
        }
        // One more than the two parts: finish_move() allocates the whole range after it has freed them.
        pool_.reserve(3);
        for (const auto& part : {move.below_, move.above_}) {
            if (part) {
                pool_.take(span_of(*part));
            }
        }
        return move;
    }
    /// Frees the old range.
    void finish_move(const Move& move) noexcept {
        cancel_move(move);
        pool_.give_back(span_of(move.from_));
        pool_.take(span_of(move.to_));
    }
    /// Frees the new range; only the old one is allocated, as before.
    void cancel_move(const Move& move) noexcept {
        for (const auto& part : {move.below_, move.above_}) {
            if (part) {
                pool_.give_back(span_of(*part));
            }
        }
    }

    /// All addresses, allocated or not.
    [[nodiscard]] range_type space() const noexcept { return range_of(pool_.space()); }
    /// How many ranges are allocated.
    [[nodiscard]] std::size_t allocated() const noexcept { return pool_.used().size(); }
    /// All allocated ranges, in ascending order.
    [[nodiscard]] std::vector<range_type> allocations() const {
        std::vector<range_type> all;
        all.reserve(pool_.used().size());
        for (const detail::Span& span : pool_.used()) {
            all.push_back(range_of(span));
        }
        return all;
    }
    /// The allocated range that contains `address`.
    [[nodiscard]] std::optional<range_type> allocation_at(A address) const noexcept {
        const auto found = pool_.holder(address.value);
        return found ? std::optional(range_of(*found)) : std::nullopt;
    }
    /// Whether `range` is allocated with exactly these bounds.
    [[nodiscard]] bool is_allocated(range_type range) const noexcept {
        return allocation_at(range.base()) == range;
    }
    /// Whether all of `range` is free.
    [[nodiscard]] bool is_free(range_type range) const noexcept { return pool_.is_free(span_of(range)); }
    /// The lowest free part inside `bounds`.
    [[nodiscard]] std::optional<range_type> first_free_in(range_type bounds) const noexcept {
        const auto found = pool_.first_free_in(span_of(bounds));
        return found ? std::optional(range_of(*found)) : std::nullopt;
    }

private:
    static detail::Span span_of(range_type range) noexcept {
        return {range.base().value, range.last().value};
    }
    static range_type range_of(detail::Span span) noexcept {
        const A first{static_cast<offset_type>(span.first)};
        return *range_type::create(first, static_cast<offset_type>(span.last - span.first + 1));
    }
    [[nodiscard]] std::expected<range_type, AllocError> place(offset_type size, offset_type align,
                                                              AllocPolicy policy,
                                                              std::optional<range_type> within,
                                                              std::optional<A> at) const {
        const auto found =
            pool_.place(size, align, policy, within ? std::optional(span_of(*within)) : std::nullopt,
                        at ? std::optional<std::uint64_t>(at->value) : std::nullopt);
        if (!found) {
            return std::unexpected(found.error());
        }
        return range_of(*found);
    }

    detail::RangePool<> pool_;
};

}  // namespace vmdevice::inline v0_2
