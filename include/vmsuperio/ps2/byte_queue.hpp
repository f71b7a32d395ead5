// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vmsuperio::inline v0_2::detail {

/// A short first-in first-out queue without heap memory, as plain data: unused slots are always 0, so that
/// equal contents are equal states. Removing a byte moves the others; N is a few bytes.
template <std::size_t N>
struct ByteQueue {
    static_assert(N > 0 && N < 256);
    std::array<std::uint8_t, N> bytes{};
    std::uint8_t count{};

    [[nodiscard]] static constexpr std::size_t capacity() noexcept { return N; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return count; }
    [[nodiscard]] constexpr std::size_t free() const noexcept { return N - count; }
    [[nodiscard]] constexpr bool empty() const noexcept { return count == 0; }

    /// Adds all of `more`, or returns false and adds nothing if it does not fit.
    constexpr bool push(std::span<const std::uint8_t> more) noexcept {
        if (more.size() > free()) {
            return false;
        }
        for (const std::uint8_t byte : more) {
            bytes[count++] = byte;
        }
        return true;
    }
    constexpr bool push(std::uint8_t byte) noexcept { return push({&byte, 1}); }

    /// The oldest byte. The queue must not be empty.
    constexpr std::uint8_t pop() noexcept {
        const std::uint8_t byte = bytes[0];
        for (std::size_t i = 1; i < N; ++i) {
            bytes[i - 1] = bytes[i];
        }
        bytes[N - 1] = 0;
        --count;
        return byte;
    }
    /// `length` bytes from `offset` on, the oldest being at 0.
    // From a pointer and a length, here and elsewhere: the constructors of std::span that take arrays ask
    // std::ranges, which takes longer to compile than all that is in this directory.
    [[nodiscard]] constexpr std::span<const std::uint8_t> view(std::size_t offset,
                                                               std::size_t length) const noexcept {
        return {bytes.data() + offset, length};
    }
    [[nodiscard]] constexpr std::span<const std::uint8_t> view() const noexcept { return view(0, count); }
    /// The newest byte. The queue must not be empty.
    [[nodiscard]] constexpr std::uint8_t back() const noexcept { return bytes[count - 1U]; }
    constexpr void clear() noexcept { *this = {}; }

    /// Whether saved contents are valid; if so, `normalize` clears the unused slots.
    [[nodiscard]] constexpr bool valid() const noexcept { return count <= N; }
    constexpr void normalize() noexcept {
        for (std::size_t i = count; i < N; ++i) {
            bytes[i] = 0;
        }
    }

    friend constexpr bool operator==(const ByteQueue&, const ByteQueue&) = default;
};

}  // namespace vmsuperio::inline v0_2::detail
