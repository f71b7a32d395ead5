// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vmsuperio::inline v0_2::detail {

/// Copies `count` bytes; the ranges may overlap. Works at compile time, and does not make the compiler
/// instantiate the iterators of std::copy_n for every user of the headers.
constexpr void copy_bytes(const std::uint8_t* from, std::size_t count, std::uint8_t* to) noexcept {
    if consteval {
        // Only ranges that move down, or do not overlap, are copied at compile time.
        for (std::size_t i = 0; i < count; ++i) {
            to[i] = from[i];
        }
    } else {
        if (count != 0) {
            std::memmove(to, from, count);
        }
    }
}

[[nodiscard]] constexpr std::size_t smaller(std::size_t a, std::size_t b) noexcept { return b < a ? b : a; }

}  // namespace vmsuperio::inline v0_2::detail
