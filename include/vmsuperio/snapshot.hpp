// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <vmsuperio/detail/config.hpp>

/// Saving device state as bytes.
///
/// A state is plain data. It says how it is saved by two members:
/// ```cpp
/// struct FooState {
///     static constexpr SnapshotFormat snapshot_format{.tag = snapshot_tag("FOO "), .version = 2,
///     .readable_since = 1}; std::uint8_t control{}; std::array<std::uint8_t, 16> ram{}; std::uint32_t
///     since_version_2{7};
///
///     template <class Self, class Archive>
///     static constexpr void visit(Self& self, Archive& archive) {
///         archive(self.control, self.ram);
///         archive.since(2, self.since_version_2);
///     }
///     friend bool operator==(const FooState&, const FooState&) = default;
/// };
/// ```
/// Encoding: a 12-byte header (tag u32, version u16, readable_since u16, payload size u32), then the
/// fields in the order visited, all little-endian, `bool` as one byte 0 or 1, enums as their number.
///
/// Backward: a field added in version N is visited through `since(N, ...)`; where older bytes lack it, it
/// keeps the value that the state gives it by default. Forward: a newer version may append fields; an older
/// reader accepts it while its own version is at least the `readable_since` found there, and ignores what it
/// does not know. Fields are never removed, reordered or resized without raising `readable_since`.
///
/// Decoding checks the format only. Whether the values make sense is checked by each device's `from_state`.
namespace vmsuperio {

enum class SnapshotError : std::uint8_t {
    truncated,            ///< fewer bytes than the header says, or than the version's fields need
    wrong_tag,            ///< the bytes are the state of some other device
    unsupported_version,  ///< saved by a version that this one cannot read
    trailing_bytes,       ///< bytes behind the end of the state
    invalid_value,        ///< a boolean that is neither 0 nor 1, or a malformed header
};

[[nodiscard]] constexpr std::string_view to_string(SnapshotError error) noexcept {
    switch (error) {
        case SnapshotError::truncated:
            return "the saved state is truncated";
        case SnapshotError::wrong_tag:
            return "the saved state belongs to another device";
        case SnapshotError::unsupported_version:
            return "the saved state has an unsupported version";
        case SnapshotError::trailing_bytes:
            return "there are bytes behind the saved state";
        case SnapshotError::invalid_value:
            return "the saved state holds an invalid value";
    }
    return "unknown snapshot error";
}

/// Four characters as a number, the first in the lowest byte.
[[nodiscard]] consteval std::uint32_t snapshot_tag(const char (&text)[5]) {
    std::uint32_t tag = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        tag |= static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])) << (8U * i);
    }
    return tag;
}

struct SnapshotFormat {
    std::uint32_t tag;
    std::uint16_t version;         ///< of the fields, from 1
    std::uint16_t readable_since;  ///< the oldest version whose reader understands these bytes
};

namespace detail {

template <class T>
concept SnapshotScalar = std::integral<T> || std::is_enum_v<T>;

class SnapshotEncoder {
public:
    template <class... Ts>
    constexpr void operator()(const Ts&... values) {
        (put(values), ...);
    }
    template <class... Ts>
    constexpr void since(std::uint16_t, const Ts&... values) {
        (put(values), ...);
    }
    [[nodiscard]] constexpr std::vector<std::uint8_t>& bytes() noexcept { return bytes_; }

    template <SnapshotScalar T>
    constexpr void put(T value) {
        if constexpr (std::is_enum_v<T>) {
            put(static_cast<std::underlying_type_t<T>>(value));
        } else if constexpr (std::same_as<T, bool>) {
            bytes_.push_back(value ? 1 : 0);
        } else {
            auto bits = static_cast<std::make_unsigned_t<T>>(value);
            for (std::size_t i = 0; i < sizeof(T); ++i) {
                bytes_.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(bits) >> (8U * i)));
            }
        }
    }
    template <class T, std::size_t N>
    constexpr void put(const std::array<T, N>& values) {
        for (const T& value : values) {
            put(value);
        }
    }

private:
    std::vector<std::uint8_t> bytes_;
};

class SnapshotDecoder {
public:
    constexpr SnapshotDecoder(std::span<const std::uint8_t> bytes, std::uint16_t version)
        : bytes_(bytes), version_(version) {}

    template <class... Ts>
    constexpr void operator()(Ts&... values) {
        (get(values), ...);
    }
    template <class... Ts>
    constexpr void since(std::uint16_t version, Ts&... values) {
        if (version_ >= version) {
            (get(values), ...);
        }
    }
    [[nodiscard]] constexpr bool truncated() const noexcept { return truncated_; }
    [[nodiscard]] constexpr bool invalid() const noexcept { return invalid_; }
    [[nodiscard]] constexpr std::size_t remaining() const noexcept { return bytes_.size(); }

    template <SnapshotScalar T>
    constexpr void get(T& value) {
        if constexpr (std::is_enum_v<T>) {
            std::underlying_type_t<T> number{};
            get(number);
            value = static_cast<T>(number);
        } else if constexpr (std::same_as<T, bool>) {
            std::uint8_t number{};
            get(number);
            invalid_ = invalid_ || number > 1;
            value = number != 0;
        } else {
            if (bytes_.size() < sizeof(T)) {
                truncated_ = true;
                bytes_ = {};
                return;
            }
            std::uint64_t bits = 0;
            for (std::size_t i = 0; i < sizeof(T); ++i) {
                bits |= static_cast<std::uint64_t>(bytes_[i]) << (8U * i);
            }
            bytes_ = {bytes_.data() + sizeof(T), bytes_.size() - sizeof(T)};
            value = static_cast<T>(bits);
        }
    }
    template <class T, std::size_t N>
    constexpr void get(std::array<T, N>& values) {
        for (T& value : values) {
            get(value);
        }
    }

private:
    std::span<const std::uint8_t> bytes_;
    std::uint16_t version_;
    bool truncated_{false};
    bool invalid_{false};
};

}  // namespace detail

/// Plain data that can be saved.
template <class S>
concept SnapshotState =
    std::default_initializable<S> && std::equality_comparable<S> &&
    requires(S& state, const S& saved, detail::SnapshotEncoder& encoder, detail::SnapshotDecoder& decoder) {
        { S::snapshot_format } -> std::convertible_to<SnapshotFormat>;
        S::visit(saved, encoder);
        S::visit(state, decoder);
    };

/// The state as bytes.
template <SnapshotState S>
[[nodiscard]] constexpr std::vector<std::uint8_t> encode(const S& state) {
    constexpr SnapshotFormat format = S::snapshot_format;
    detail::SnapshotEncoder encoder;
    encoder(format.tag, format.version, format.readable_since, std::uint32_t{0});
    const std::size_t header_size = encoder.bytes().size();
    S::visit(state, encoder);
    // The size of what follows the header is known now.
    const std::size_t size = encoder.bytes().size() - header_size;
    for (std::size_t i = 0; i < sizeof(std::uint32_t); ++i) {
        encoder.bytes()[header_size - sizeof(std::uint32_t) + i] =
            static_cast<std::uint8_t>(size >> (8U * i));
    }
    return std::move(encoder.bytes());
}

/// Reads what `encode` wrote, in this version or in another that allows it. `bytes` holds exactly one state.
template <SnapshotState S>
[[nodiscard]] constexpr std::expected<S, SnapshotError> decode(std::span<const std::uint8_t> bytes) {
    constexpr SnapshotFormat format = S::snapshot_format;
    constexpr std::size_t header_size = 12;
    std::uint32_t tag{};
    std::uint16_t version{};
    std::uint16_t readable_since{};
    std::uint32_t payload_size{};
    detail::SnapshotDecoder header(bytes, format.version);
    header(tag, version, readable_since, payload_size);
    if (header.truncated()) {
        return std::unexpected(SnapshotError::truncated);
    }
    if (tag != format.tag) {
        return std::unexpected(SnapshotError::wrong_tag);
    }
    if (version == 0 || readable_since == 0 || readable_since > version) {
        return std::unexpected(SnapshotError::invalid_value);
    }
    if (readable_since > format.version) {
        return std::unexpected(SnapshotError::unsupported_version);
    }
    const auto payload = bytes.subspan(header_size);
    if (payload.size() < payload_size) {
        return std::unexpected(SnapshotError::truncated);
    }
    if (payload.size() > payload_size) {
        return std::unexpected(SnapshotError::trailing_bytes);
    }
    S state{};
    detail::SnapshotDecoder decoder(payload, version);
    S::visit(state, decoder);
    if (decoder.truncated()) {
        return std::unexpected(SnapshotError::truncated);
    }
    if (decoder.invalid()) {
        return std::unexpected(SnapshotError::invalid_value);
    }
    // A newer version may have appended fields that this one does not know.
    if (decoder.remaining() != 0 && version <= format.version) {
        return std::unexpected(SnapshotError::trailing_bytes);
    }
    return state;
}

}  // namespace vmsuperio
