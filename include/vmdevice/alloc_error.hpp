// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The errors of allocating addresses and numbers, and the policies for choosing them.

#include <vmdevice/detail/config.hpp>

#include <cstdint>
#include <string_view>

namespace vmdevice::inline v0_2 {

/// Why a resource cannot be allocated or freed.
enum class AllocError : std::uint8_t {
    /// No free part of the permitted range is large enough.
    exhausted,
    /// The requested address or number is taken.
    taken,
    /// The requested address or number is not managed here, or no such space was configured.
    out_of_range,
    /// The requested size is 0.
    invalid_size,
    /// The alignment is not a power of two, or the requested address does not have it.
    invalid_alignment,
    /// The range or number to be freed was not allocated exactly like that.
    not_allocated,
};

/// The text of the error, for a message.
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

/// Which position is chosen for a range: the lowest possible one, the highest, or exactly one.
enum class AllocPolicy : std::uint8_t { first_match, last_match, exact_match };

}  // namespace vmdevice::inline v0_2
