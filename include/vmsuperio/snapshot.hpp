// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// Saving device state as bytes.
///
/// A state is plain data. Two members specify how it is saved:
///
/// ```cpp
/// struct FooState {
///     static constexpr SnapshotFormat snapshot_format{
///         .tag = snapshot_tag("FOO "), .version = 2, .readable_since = 1};
///     std::uint8_t control{};
///     std::array<std::uint8_t, 16> ram{};
///     std::uint32_t since_version_2{7};
///
///     template <class Self, class Archive>
///     static constexpr void visit(Self& self, Archive& archive) {
///         auto& [control, ram, since_version_2] = self;
///         archive("control", control, as<FooControl>);
///         archive("ram", ram);
///         archive.since(2, "since_version_2", since_version_2);
///     }
///     friend bool operator==(const FooState&, const FooState&) = default;
/// };
/// static_assert(SnapshotState<FooState> && visits_every_member<FooState>());
/// ```
///
/// The bytes (here), the text (`inspect.hpp`), the difference of two states (`inspect.hpp`) and JSON (`state_json.hpp`) are derived
/// from this description. The structured binding names every member, so that a member that was added and
/// forgotten in `visit` does not compile; `visits_every_member` detects one that is bound and not visited. An
/// archive accepts:
/// - `archive(name, value)`: a number, a boolean, an enumeration, an array of them, or another state;
/// - `archive(name, value, as<R>)`: a number that is the register `R`, for the text; or `as_command<C>` for a
///   value of the enumeration `C`, `decimal` for a count of one byte;
/// - `archive.bytes(name, count, data)` or `(name, data, count)`: as many bytes of `data` as `count` says;
///   the bytes of the encoding are in the order of the arguments;
/// - `archive.since(version, name, value)` and `archive.bytes_since(version, name, ...)`: a member that a
///   later version added;
/// - `archive.nested(name, visitor)`: `visitor(archive)` visits further members of the state `name`.
///
/// Encoding: a 12-byte header (tag u32, version u16, readable_since u16, payload size u32), then the
/// fields in the order visited, all little-endian, `bool` as one byte 0 or 1, enums as their number. Names
/// are not encoded.
///
/// Backward compatibility: a field that version N added is visited through `since(N, ...)`; if older bytes
/// lack it, it keeps the default value of the state. Forward compatibility: a newer version may append
/// fields; an older reader accepts its bytes if the reader's version is at least their `readable_since`, and
/// ignores the fields that it does not know. Fields are never removed, reordered or resized without raising
/// `readable_since`.
///
/// Decoding checks only the format. Each device's `from_state` checks whether the values are valid.
namespace vmsuperio::inline v0_2 {

/// Why bytes are not a state.
enum class SnapshotError : std::uint8_t {
    truncated,            ///< fewer bytes than the header states, or than the version's fields need
    wrong_tag,            ///< the bytes are the state of another kind of device
    unsupported_version,  ///< saved by a version that this one cannot read
    trailing_bytes,       ///< there are bytes after the end of the state
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

/// The kind of a state and its versions.
struct SnapshotFormat {
    std::uint32_t tag;             ///< four characters, from snapshot_tag()
    std::uint16_t version;         ///< of the fields, from 1
    std::uint16_t readable_since;  ///< the oldest version whose reader can read these bytes
};

/// Specifies in a `visit` that a number is the register `R` of the dictionary (`registers/`).
template <class R>
struct AsRegister {};
/// Text shows the member as this register.
template <class R>
inline constexpr AsRegister<R> as{};
/// Specifies in a `visit` that a number is a value of the enumeration `Command`, which `to_string` names; 0
/// for none.
template <class Command>
struct AsCommand {};
/// Text shows the member as this command.
template <class Command>
inline constexpr AsCommand<Command> as_command{};
/// Specifies in a `visit` that a byte is a count, which the text shows as a decimal number.
struct AsDecimal {};
/// Text shows the member as a decimal number.
inline constexpr AsDecimal decimal{};

namespace detail {

template <class T>
concept SnapshotScalar = std::integral<T> || std::is_enum_v<T>;

/// The common part of archives that use neither the names nor the meaning of the numbers:
/// `derived().value(v)` is called for each number and array, in order.
template <class Derived>
class PlainArchive {
public:
    template <class T, class... Meaning>
    constexpr void operator()(std::string_view, T& value, Meaning...) {
        put_or_visit(value);
    }
    template <class First, class Second>
    constexpr void bytes(std::string_view, First& first, Second& second) {
        derived().value(first);
        derived().value(second);
    }
    template <class T, class... Meaning>
    constexpr void since(std::uint16_t version, std::string_view, T& value, Meaning...) {
        if (derived().has_version(version)) {
            put_or_visit(value);
        }
    }
    template <class First, class Second>
    constexpr void bytes_since(std::uint16_t version, std::string_view name, First& first, Second& second) {
        if (derived().has_version(version)) {
            bytes(name, first, second);
        }
    }
    template <class Visitor>
    constexpr void nested(std::string_view, Visitor&& visitor) {
        std::forward<Visitor>(visitor)(derived());
    }
    [[nodiscard]] static constexpr bool has_version(std::uint16_t) noexcept { return true; }

private:
    [[nodiscard]] constexpr Derived& derived() noexcept { return static_cast<Derived&>(*this); }
    template <class T>
    constexpr void put_or_visit(T& value) {
        if constexpr (requires { std::remove_const_t<T>::visit(value, derived()); }) {
            std::remove_const_t<T>::visit(value, derived());
        } else {
            derived().value(value);
        }
    }
};

/// The common part of archives that use names and ignore versions: they treat a member that a later version
/// added like the others.
template <class Derived>
class NamedArchive {
public:
    template <class... Arguments>
    constexpr void since(std::uint16_t, std::string_view name, Arguments&&... arguments) {
        static_cast<Derived&>(*this)(name, std::forward<Arguments>(arguments)...);
    }
    template <class... Arguments>
    constexpr void bytes_since(std::uint16_t, std::string_view name, Arguments&&... arguments) {
        static_cast<Derived&>(*this).bytes(name, std::forward<Arguments>(arguments)...);
    }
};

class SnapshotEncoder : public PlainArchive<SnapshotEncoder> {
public:
    [[nodiscard]] constexpr std::vector<std::uint8_t>& encoded() noexcept { return bytes_; }

    template <SnapshotScalar T>
    constexpr void value(T value) {
        if constexpr (std::is_enum_v<T>) {
            this->value(static_cast<std::underlying_type_t<T>>(value));
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
    constexpr void value(const std::array<T, N>& values) {
        for (const T& element : values) {
            value(element);
        }
    }

private:
    std::vector<std::uint8_t> bytes_;
};

class SnapshotDecoder : public PlainArchive<SnapshotDecoder> {
public:
    constexpr SnapshotDecoder(std::span<const std::uint8_t> bytes, std::uint16_t version)
        : bytes_(bytes), version_(version) {}

    [[nodiscard]] constexpr bool has_version(std::uint16_t version) const noexcept {
        return version_ >= version;
    }
    [[nodiscard]] constexpr bool truncated() const noexcept { return truncated_; }
    [[nodiscard]] constexpr bool invalid() const noexcept { return invalid_; }
    [[nodiscard]] constexpr std::size_t remaining() const noexcept { return bytes_.size(); }

    template <SnapshotScalar T>
    constexpr void value(T& value) {
        if constexpr (std::is_enum_v<T>) {
            std::underlying_type_t<T> number{};
            this->value(number);
            value = static_cast<T>(number);
        } else if constexpr (std::same_as<T, bool>) {
            std::uint8_t number{};
            this->value(number);
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
    constexpr void value(std::array<T, N>& values) {
        for (T& element : values) {
            value(element);
        }
    }

private:
    std::span<const std::uint8_t> bytes_;
    std::uint16_t version_;
    bool truncated_{false};
    bool invalid_{false};
};

/// Sets every number that it visits to 0.
class SnapshotEraser : public PlainArchive<SnapshotEraser> {
public:
    template <class T>
    constexpr void value(T& value) {
        value = T{};
    }
};

}  // namespace detail

/// Plain data that can be saved.
// The format is tested first, so that comparing a type without it is not attempted, which could be an error.
template <class S>
concept SnapshotState =
    requires {
        { S::snapshot_format } -> std::convertible_to<SnapshotFormat>;
    } && std::default_initializable<S> && std::equality_comparable<S> &&
    requires(S& state, const S& saved, detail::SnapshotEncoder& encoder, detail::SnapshotDecoder& decoder) {
        S::visit(saved, encoder);
        S::visit(state, decoder);
    };

/// Whether `visit` visits every member of the state: a member that it does not visit would be lost in a
/// snapshot.
template <SnapshotState S>
[[nodiscard]] consteval bool visits_every_member() {
    // 1 is a valid representation of every number, boolean and enumeration.
    std::array<unsigned char, sizeof(S)> ones{};
    ones.fill(1);
    auto state = std::bit_cast<S>(ones);
    detail::SnapshotEraser eraser;
    S::visit(state, eraser);
    return state == std::bit_cast<S>(std::array<unsigned char, sizeof(S)>{});
}

/// The state as bytes.
template <SnapshotState S>
[[nodiscard]] constexpr std::vector<std::uint8_t> encode(const S& state) {
    constexpr SnapshotFormat format = S::snapshot_format;
    detail::SnapshotEncoder encoder;
    encoder.value(format.tag);
    encoder.value(format.version);
    encoder.value(format.readable_since);
    encoder.value(std::uint32_t{0});
    const std::size_t header_size = encoder.encoded().size();
    S::visit(state, encoder);
    // The size of what follows the header is known now.
    const std::size_t size = encoder.encoded().size() - header_size;
    for (std::size_t i = 0; i < sizeof(std::uint32_t); ++i) {
        encoder.encoded()[header_size - sizeof(std::uint32_t) + i] =
            static_cast<std::uint8_t>(size >> (8U * i));
    }
    return std::move(encoder.encoded());
}

/// Reads bytes that `encode` wrote, in this version or in a compatible one. `bytes` must contain exactly one
/// state.
template <SnapshotState S>
[[nodiscard]] constexpr std::expected<S, SnapshotError> decode(std::span<const std::uint8_t> bytes) {
    constexpr SnapshotFormat format = S::snapshot_format;
    constexpr std::size_t header_size = 12;
    std::uint32_t tag{};
    std::uint16_t version{};
    std::uint16_t readable_since{};
    std::uint32_t payload_size{};
    detail::SnapshotDecoder header(bytes, format.version);
    header.value(tag);
    header.value(version);
    header.value(readable_since);
    header.value(payload_size);
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

}  // namespace vmsuperio::inline v0_2
