// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstdint>

namespace vmsuperio::inline v0_2::detail {

/// Equals std::clamp, whose header <algorithm> takes longer to compile than any device.
[[nodiscard]] constexpr std::int64_t clamp(std::int64_t value, std::int64_t least,
                                           std::int64_t most) noexcept {
    if (value < least) {
        return least;
    }
    return value > most ? most : value;
}

}  // namespace vmsuperio::inline v0_2::detail
