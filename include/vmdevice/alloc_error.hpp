// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// What can go wrong where addresses and numbers are handed out, and where they are looked for.

#include <cstdint>
#include <string_view>

#include <vmdevice/detail/config.hpp>

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

}  // namespace vmdevice
