// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The allocator behind RangeAllocator. It manages spaces of every width as ranges of 64-bit numbers.

#include <vmdevice/detail/config.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include <vmdevice/alloc_error.hpp>

namespace vmdevice::inline v0_2::detail {

/// The numbers first..last, both included.
struct Span {
    std::uint64_t first;
    std::uint64_t last;
};

/// Two sorted lists of disjoint spans, the allocated and the free ones; adjacent free spans are merged.
/// Operations that need memory allocate it before they change anything, and freeing never needs any: there is
/// always room for one more free span than there are allocated ones, which is the largest possible number.
///
/// A template so that it is compiled only where it is used.
template <class Part = Span>
class RangePool {
public:
    explicit RangePool(Part space) : space_(space) { free_.push_back(space); }
    RangePool(const RangePool& other) : space_(other.space_) {
        used_.reserve(other.used_.capacity());
        free_.reserve(other.free_.capacity());
        used_ = other.used_;
        free_ = other.free_;
    }
    RangePool(RangePool&&) noexcept = default;
    RangePool& operator=(const RangePool& other) {
        RangePool copy(other);
        *this = static_cast<RangePool&&>(copy);
        return *this;
    }
    RangePool& operator=(RangePool&&) noexcept = default;
    ~RangePool() = default;

    [[nodiscard]] Part space() const noexcept { return space_; }
    [[nodiscard]] std::span<const Part> used() const noexcept { return used_; }

    /// Returns the span that a request would get now. `within` and `at` are as for RangeAllocator::allocate.
    [[nodiscard]] std::expected<Part, AllocError> place(std::uint64_t size, std::uint64_t align,
                                                        AllocPolicy policy, std::optional<Part> within,
                                                        std::optional<std::uint64_t> at) const {
        if (size == 0) {
            return std::unexpected(AllocError::invalid_size);
        }
        if (!std::has_single_bit(align)) {
            return std::unexpected(AllocError::invalid_alignment);
        }
        if (policy == AllocPolicy::exact_match) {
            return place_at(size, align, within, at);
        }
        const Part bounds = within.value_or(space_);
        for (std::size_t i = 0; i < free_.size(); ++i) {
            const Part& part = policy == AllocPolicy::first_match ? free_[i] : free_[free_.size() - 1 - i];
            const Part usable{part.first < bounds.first ? bounds.first : part.first,
                              part.last < bounds.last ? part.last : bounds.last};
            if (const auto base = fit(usable, size, align, policy)) {
                return Part{*base, *base + (size - 1)};
            }
        }
        return std::unexpected(AllocError::exhausted);
    }

    /// Allocates room for `count` calls of take().
    void reserve(std::size_t count) {
        grow(used_, used_.size() + count);
        grow(free_, used_.size() + count + 1);
    }
    /// Allocates `wanted`, which must lie in one free span. reserve() must have been called.
    void take(Part wanted) noexcept {
        const std::size_t index = not_above(free_, wanted.first) - 1;
        const Part part = free_[index];
        if (part.first == wanted.first && part.last == wanted.last) {
            free_.erase(at(free_, index));
        } else if (part.first == wanted.first) {
            free_[index].first = wanted.last + 1;
        } else {
            free_[index].last = wanted.first - 1;
            if (wanted.last < part.last) {
                free_.insert(at(free_, index + 1), Part{wanted.last + 1, part.last});
            }
        }
        used_.insert(at(used_, not_above(used_, wanted.first)), wanted);
    }

    /// Frees a span; returns false if it was not allocated exactly like that.
    bool give_back(Part span) noexcept {
        const std::size_t used = not_above(used_, span.first);
        if (used == 0 || used_[used - 1].first != span.first || used_[used - 1].last != span.last) {
            return false;
        }
        used_.erase(at(used_, used - 1));
        const std::size_t next = not_above(free_, span.first);
        const bool joins_next = next < free_.size() && free_[next].first - 1 == span.last;
        const bool joins_previous = next > 0 && free_[next - 1].last + 1 == span.first;
        if (joins_previous && joins_next) {
            free_[next - 1].last = free_[next].last;
            free_.erase(at(free_, next));
        } else if (joins_previous) {
            free_[next - 1].last = span.last;
        } else if (joins_next) {
            free_[next].first = span.first;
        } else {
            free_.insert(at(free_, next), span);
        }
        return true;
    }

    [[nodiscard]] bool is_free(Part span) const noexcept {
        const std::size_t index = not_above(free_, span.first);
        return index != 0 && free_[index - 1].last >= span.last;
    }
    /// The allocated span that contains `number`.
    [[nodiscard]] std::optional<Part> holder(std::uint64_t number) const noexcept {
        const std::size_t index = not_above(used_, number);
        if (index == 0 || used_[index - 1].last < number) {
            return std::nullopt;
        }
        return used_[index - 1];
    }
    /// The lowest free part inside `bounds`.
    [[nodiscard]] std::optional<Part> first_free_in(Part bounds) const noexcept {
        const std::size_t index = not_above(free_, bounds.first);
        for (std::size_t i = index == 0 ? 0 : index - 1; i < free_.size() && free_[i].first <= bounds.last;
             ++i) {
            if (free_[i].last >= bounds.first) {
                return Part{free_[i].first < bounds.first ? bounds.first : free_[i].first,
                            free_[i].last < bounds.last ? free_[i].last : bounds.last};
            }
        }
        return std::nullopt;
    }

private:
    using Spans = std::vector<Part>;

    static auto at(Spans& spans, std::size_t index) noexcept {
        return spans.begin() + static_cast<std::ptrdiff_t>(index);
    }
    /// How many of the spans begin at `number` or below.
    [[nodiscard]] static std::size_t not_above(const Spans& spans, std::uint64_t number) noexcept {
        std::size_t low = 0;
        std::size_t high = spans.size();
        while (low < high) {
            const std::size_t middle = low + (high - low) / 2;
            if (spans[middle].first <= number) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }
    static void grow(Spans& spans, std::size_t size) {
        if (size > spans.capacity()) {
            const std::size_t doubled = 2 * spans.capacity();
            spans.reserve(size < doubled ? doubled : size);
        }
    }

    [[nodiscard]] std::expected<Part, AllocError> place_at(std::uint64_t size, std::uint64_t align,
                                                           std::optional<Part> within,
                                                           std::optional<std::uint64_t> base) const {
        const auto holds = [&](const Part& bounds) {
            return *base >= bounds.first && *base <= bounds.last && size - 1 <= bounds.last - *base;
        };
        if (!base || !holds(space_) || (within && !holds(*within))) {
            return std::unexpected(AllocError::out_of_range);
        }
        if ((*base & (align - 1)) != 0) {
            return std::unexpected(AllocError::invalid_alignment);
        }
        const Part span{*base, *base + (size - 1)};
        if (!is_free(span)) {
            return std::unexpected(AllocError::taken);
        }
        return span;
    }

    /// The position of a request in a free part, if it fits.
    static std::optional<std::uint64_t> fit(Part part, std::uint64_t size, std::uint64_t align,
                                            AllocPolicy policy) noexcept {
        if (part.first > part.last || size - 1 > part.last - part.first) {
            return std::nullopt;
        }
        const std::uint64_t mask = align - 1;
        if (policy == AllocPolicy::last_match) {
            const std::uint64_t base = (part.last - (size - 1)) & ~mask;
            return base >= part.first ? std::optional(base) : std::nullopt;
        }
        if ((part.first & mask) != 0 && mask > std::numeric_limits<std::uint64_t>::max() - part.first) {
            return std::nullopt;  // rounding up would wrap
        }
        const std::uint64_t base = (part.first + mask) & ~mask;
        if (base > part.last || size - 1 > part.last - base) {
            return std::nullopt;
        }
        return base;
    }

    Part space_;
    Spans used_;
    Spans free_;
};

}  // namespace vmdevice::inline v0_2::detail
