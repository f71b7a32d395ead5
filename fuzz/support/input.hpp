// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace fuzz {

/// The bytes of one test case, read from front to back. Past the end zeros are read, so that truncating an
/// input never changes the meaning of its beginning.
class Input {
public:
    explicit constexpr Input(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

    [[nodiscard]] constexpr bool empty() const noexcept { return bytes_.empty(); }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return bytes_.size(); }

    constexpr std::uint8_t byte() noexcept {
        if (bytes_.empty()) {
            return 0;
        }
        const std::uint8_t value = bytes_.front();
        bytes_ = bytes_.subspan(1);
        return value;
    }
    /// Little-endian, as all numbers of the encoding.
    constexpr std::uint64_t number(std::size_t width) noexcept {
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < width; ++i) {
            value |= std::uint64_t{byte()} << (8U * i);
        }
        return value;
    }
    constexpr std::uint16_t u16() noexcept { return static_cast<std::uint16_t>(number(2)); }
    constexpr std::uint32_t u32() noexcept { return static_cast<std::uint32_t>(number(4)); }
    constexpr std::uint64_t u64() noexcept { return number(8); }

    /// The next `count` bytes, or as many as are left.
    constexpr std::span<const std::uint8_t> bytes(std::size_t count) noexcept {
        const auto taken = bytes_.first(std::min(count, bytes_.size()));
        bytes_ = bytes_.subspan(taken.size());
        return taken;
    }
    constexpr std::span<const std::uint8_t> rest() noexcept { return bytes(bytes_.size()); }

private:
    std::span<const std::uint8_t> bytes_;
};

/// The kind of an operation. All device targets share this encoding, so that a crash can be read in a hex
/// dump: the high digit (modulo 8) selects the kind, the low digit the place or the amount.
enum class OpKind : std::uint8_t {
    read,      ///< 0o: the guest reads offset o
    write,     ///< 1o vv: the guest writes vv to offset o
    enqueue,   ///< 2n b...: n + 1 bytes of data follow: host input, or a string output of the guest
    tick,      ///< 3n: the clock moves by step n of the target's table
    snapshot,  ///< 4x: the device is saved, destroyed and restored
    sink,      ///< 5n: how the host's side behaves from now on: room of the writer, failing triggers
    host,      ///< 6n: the host's call n of the target
    other,     ///< 7n: other operations of the target
};

struct Op {
    OpKind kind;
    std::uint8_t detail;  ///< 0 to 15
};

[[nodiscard]] constexpr Op next_op(Input& input) noexcept {
    const std::uint8_t code = input.byte();
    return {static_cast<OpKind>((code >> 4U) & 0x7U), static_cast<std::uint8_t>(code & 0x0FU)};
}

}  // namespace fuzz
