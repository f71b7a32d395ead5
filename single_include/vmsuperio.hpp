// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// vmsuperio 0.2.0 in one file, written by scripts/amalgamate from include/vmsuperio.
#pragma once

// vmsuperio/detail/config.hpp

/// Stops compilation with a readable message if the compiler or its standard library is too old. A compiler
/// continues after #error, and would report hundreds of errors that follow from it; it stops at an #include of a
/// file that does not exist.

#if !defined(__cplusplus) || __cplusplus < 202100L
#error "vmsuperio needs C++23: compile with -std=c++23 (GCC 12 or later, Clang 19 or later)"
#include <vmsuperio/needs_cxx23>
#else
#include <version>
#if !defined(__cpp_lib_expected)
#error "vmsuperio needs std::expected: use GCC 12 or later, or Clang 19 or later with libstdc++ 12 or later"
#include <vmsuperio/needs_std_expected>
#endif
#endif

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <initializer_list>
#include <limits>
#include <new>
#include <optional>
#include <ratio>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// vmsuperio/detail/chrono.hpp

/// Durations, time points and clocks, which is all of <chrono> that the devices need. In libstdc++ they have
/// a separate header, which <mutex> and others include; the rest (calendars, parsing, streams) takes longer
/// to compile than all devices together. Other libraries have only <chrono>.
#if defined(_GLIBCXX_RELEASE) && __has_include(<bits/chrono.h>)
#include <bits/chrono.h>
#else
#include <chrono>
#endif

// vmsuperio/clock.hpp

namespace vmsuperio::inline v0_2 {

/// The source of a device's time. Every standard clock satisfies this concept (`std::chrono::steady_clock`,
/// `std::chrono::system_clock`).
///
/// `now()` returns a time point. Devices that keep a time of day (RTCs) assume that its epoch is the Unix
/// epoch, in UTC; for all others only differences matter. `now()` may go backwards.
template <class C>
concept Clock = requires(const C& clock) {
    { clock.now().time_since_epoch() } -> std::convertible_to<std::chrono::nanoseconds>;
};

namespace detail {

/// The sum, saturated at the ends of the range, because clocks and saved states may contain any time.
[[nodiscard]] constexpr std::int64_t saturating_add(std::int64_t a, std::int64_t b) noexcept {
    using Limits = std::numeric_limits<std::int64_t>;
    if (b > 0 && a > Limits::max() - b) {
        return Limits::max();
    }
    if (b < 0 && a < Limits::min() - b) {
        return Limits::min();
    }
    return a + b;
}

/// The difference, or the end of the range that it would exceed.
[[nodiscard]] constexpr std::int64_t saturating_subtract(std::int64_t a, std::int64_t b) noexcept {
    using Limits = std::numeric_limits<std::int64_t>;
    // The smallest number cannot be negated.
    return b == Limits::min() ? saturating_add(saturating_add(a, Limits::max()), 1) : saturating_add(a, -b);
}

/// `count` times `factor` (positive), saturated at the ends of the range.
template <std::integral Count>
[[nodiscard]] constexpr std::int64_t saturating_multiply(Count count, std::int64_t factor) noexcept {
    using Limits = std::numeric_limits<std::int64_t>;
    if (std::cmp_greater(count, Limits::max() / factor)) {
        return Limits::max();
    }
    if (std::cmp_less(count, Limits::min() / factor)) {
        return Limits::min();
    }
    return static_cast<std::int64_t>(count) * factor;
}

}  // namespace detail

/// A clock that cannot be set: `std::chrono::steady_clock`.
using SteadyClock = std::chrono::steady_clock;
/// The host's wall clock: `std::chrono::system_clock`.
using SystemClock = std::chrono::system_clock;
static_assert(Clock<SteadyClock> && Clock<SystemClock>);

/// A clock that stands still until it is moved: for tests, fuzzing and deterministic replay.
class ManualClock {
public:
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<ManualClock, duration>;
    static constexpr bool is_steady = false;

    constexpr ManualClock() = default;
    /// A clock that shows `since_epoch` until it is set or advanced.
    explicit constexpr ManualClock(duration since_epoch) : now_(since_epoch) {}

    [[nodiscard]] constexpr time_point now() const noexcept { return time_point(now_); }
    /// Sets the time; it may go back.
    constexpr void set(duration since_epoch) noexcept { now_ = since_epoch; }
    /// Stops at the ends of the range.
    constexpr void advance(duration by) noexcept {
        now_ = duration(detail::saturating_add(now_.count(), by.count()));
    }

private:
    duration now_{};
};
static_assert(Clock<ManualClock>);

/// A reference to a clock, so that several devices and a test can share one. The clock must outlive every
/// copy of the reference.
template <Clock C>
class ClockRef {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a clock is a clock
    /// Refers to a clock, which must outlive this object.
    constexpr ClockRef(const C& clock) noexcept : clock_(&clock) {}

    [[nodiscard]] constexpr auto now() const { return clock_->now(); }

private:
    const C* clock_;
};
static_assert(Clock<ClockRef<ManualClock>>);

/// The time of a clock, as nanoseconds since its epoch. A clock with coarser ticks may have times that a
/// 64-bit count of nanoseconds cannot represent; then the nearest representable one is returned.
template <Clock C>
[[nodiscard]] constexpr std::chrono::nanoseconds time_since_epoch(const C& clock) {
    const auto time = clock.now().time_since_epoch();
    using Duration = std::remove_cvref_t<decltype(time)>;
    if constexpr (requires { typename Duration::period; } && std::integral<typename Duration::rep>) {
        // A tick must be a whole number of nanoseconds, so that the conversion is exact.
        using Factor = std::ratio_divide<typename Duration::period, std::nano>;
        static_assert(Factor::den == 1);
        return std::chrono::nanoseconds(detail::saturating_multiply(time.count(), Factor::num));
    } else {
        return std::chrono::nanoseconds(time);
    }
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/host_errors.hpp

namespace vmsuperio::inline v0_2 {

/// The part of the host's side that failed.
enum class HostErrorSource : std::uint8_t {
    interrupt,  ///< an interrupt trigger returned an error
    reset,      ///< the trigger of a reset returned an error
    output,     ///< a writer returned an error
};

[[nodiscard]] constexpr std::string_view to_string(HostErrorSource source) noexcept {
    switch (source) {
        case HostErrorSource::interrupt:
            return "the interrupt trigger failed";
        case HostErrorSource::reset:
            return "the reset trigger failed";
        case HostErrorSource::output:
            return "the writer failed";
    }
    return "unknown host error";
}

/// How often each part of the host's side failed since the device was constructed: in reads, in writes, in
/// calls of the host and in `from_state`, whether or not a caller received the error. The guest cannot see
/// this, and it is not part of the saved state. Every device has `host_errors()`;
/// an events type that the user supplies may have the member `host_error(HostErrorSource)`, which is called
/// each time.
struct HostErrors {
    std::uint64_t interrupt{};  ///< failures of interrupt triggers
    std::uint64_t reset{};      ///< failures of the trigger that resets the CPU
    std::uint64_t output{};     ///< failures of writers and sinks

    /// The sum of all.
    [[nodiscard]] constexpr std::uint64_t total() const noexcept { return interrupt + reset + output; }
    friend constexpr bool operator==(const HostErrors&, const HostErrors&) = default;
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/registers/register.hpp

namespace vmsuperio::inline v0_2 {

/// The effect of a guest's write on a field.
enum class Access : std::uint8_t {
    read_write,          ///< the field takes the value
    read_only,           ///< the write has no effect
    self_clearing,       ///< the device acts on a 1; the field is not stored and reads as 0
    write_one_to_clear,  ///< each bit that is written as 1 becomes 0
};

/// The bits of a field, and the effect of a guest's write on them.
struct FieldBits {
    std::uint64_t mask;  ///< the field's bits in the register
    unsigned shift;      ///< the lowest of these bits
    Access access;       ///< the effect of a guest's write
};

/// A field of a register at run time, for traces, for `inspect()` and for debuggers.
struct FieldInfo {
    std::string_view name;
    std::uint64_t mask;  ///< the field's bits in the register
    unsigned shift;      ///< the lowest of these bits
    Access access;       ///< the effect of a guest's write

    // The length by the built-in: std::string_view counts characters one by one while it compiles.
    /// A field by its name and its bits.
    consteval FieldInfo(const char* field_name, FieldBits bits) noexcept
        : name(field_name, __builtin_strlen(field_name)),
          mask(bits.mask),
          shift(bits.shift),
          access(bits.access) {}

    /// Whether the field has one bit.
    [[nodiscard]] constexpr bool is_bit() const noexcept { return mask >> shift == 1; }
    /// The field's value in a register.
    [[nodiscard]] constexpr std::uint64_t value_in(std::uint64_t register_value) const noexcept {
        return (register_value & mask) >> shift;
    }
};

/// Base of the register dictionaries: one type per register, with the field names of the datasheet.
///
/// ```cpp
/// struct LineStatus : Register<LineStatus, std::uint8_t> {
///     using Register::Register;
///     static constexpr std::string_view name = "LSR";
///     static constexpr Bit<0, Access::read_only> data_ready{};
///     static constexpr Field<1, 4, Access::read_only> errors{};
///     static constexpr FieldInfo fields[]{{"data_ready", data_ready.bits}, {"errors", errors.bits}};
/// };
/// LineStatus lsr{0x61};
/// if (lsr[LineStatus::data_ready]) { /* a received byte waits */ }
/// ```
/// A field belongs to the register that names it: using it with another one does not compile. `fields` must
/// cover every implemented bit exactly once; bits that it does not list are reserved, and a guest's write
/// does not change them. Further fields may overlap those of the list, to test several bits at once.
template <class Derived, std::unsigned_integral Value>
class Register {
public:
    using value_type = Value;

    /// Bits `Low` to `High`, both included.
    template <unsigned Low, unsigned High, Access How = Access::read_write>
    struct Field {
        static_assert(Low <= High && High < std::numeric_limits<Value>::digits,
                      "the field is outside the register");
        static constexpr unsigned shift = Low;  ///< the lowest bit
        static constexpr Access access = How;   ///< the effect of a guest's write
        /// The largest value of the field.
        static constexpr Value max = static_cast<Value>(
            std::numeric_limits<Value>::max() >> (std::numeric_limits<Value>::digits - 1U - (High - Low)));
        /// The field's bits in the register.
        static constexpr Value mask = static_cast<Value>(max << shift);
        static constexpr FieldBits bits{.mask = mask, .shift = Low, .access = How};  ///< all of this as data
    };
    template <unsigned Position, Access How = Access::read_write>
    struct Bit : Field<Position, Position, How> {};

    constexpr Register() = default;
    /// The register with this value.
    explicit constexpr Register(Value value) noexcept : value_(value) {}

    /// The whole register.
    [[nodiscard]] constexpr Value value() const noexcept { return value_; }

    /// Whether the bit is set.
    template <unsigned Position, Access How>
    [[nodiscard]] constexpr bool operator[](Bit<Position, How>) const noexcept {
        return (value_ & Bit<Position, How>::mask) != 0;
    }
    /// The value of the field, shifted down to bit 0.
    template <unsigned Low, unsigned High, Access How>
    [[nodiscard]] constexpr Value operator[](Field<Low, High, How>) const noexcept {
        return static_cast<Value>((value_ & Field<Low, High, How>::mask) >> Low);
    }

    /// Sets or clears a bit.
    template <unsigned Position, Access How>
    constexpr Derived& set(Bit<Position, How> bit, bool on = true) noexcept {
        value_ = static_cast<Value>(on ? (value_ | bit.mask) : (value_ & ~bit.mask));
        return static_cast<Derived&>(*this);
    }
    /// Bits of `field_value` beyond the field's width are dropped.
    template <unsigned Low, unsigned High, Access How>
    constexpr Derived& set(Field<Low, High, How> field, Value field_value) noexcept {
        value_ = static_cast<Value>((value_ & ~field.mask) |
                                    (static_cast<Value>(field_value << Low) & field.mask));
        return static_cast<Derived&>(*this);
    }
    /// Clears a bit.
    template <unsigned Position, Access How>
    constexpr Derived& clear(Bit<Position, How> bit) noexcept {
        return set(bit, false);
    }

    /// Applies a value that the guest wrote: each field changes according to its access.
    constexpr void guest_write(Value written) noexcept {
        constexpr Value writable = guest_mask();
        constexpr Value cleared = mask_of(Access::write_one_to_clear);
        value_ = static_cast<Value>((value_ & ~writable & ~(written & cleared)) | (written & writable));
    }

    /// The bits that take the value that a guest writes.
    [[nodiscard]] static consteval Value guest_mask() noexcept { return mask_of(Access::read_write); }
    /// The bits of all fields with this access.
    [[nodiscard]] static consteval Value mask_of(Access access) noexcept {
        Value mask = 0;
        for (const FieldInfo& field : Derived::fields) {
            mask = static_cast<Value>(mask | (field.access == access ? field.mask : 0U));
        }
        return mask;
    }

    friend constexpr bool operator==(const Register&, const Register&) = default;

private:
    Value value_{};
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/snapshot.hpp

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

// vmsuperio/inspect.hpp

/// States and registers as text for people: for debuggers, logs and failing tests.
///
/// A register is "NAME=0xVALUE [fields]": each bit that is set by its name, each wider field that is not 0
/// as "name=value". A command is "0xVALUE name". A state is a line "name=value" for each member under the
/// name that its `visit` gives it; the members of a state within it are "outer.inner". Bytes are hexadecimal,
/// other numbers decimal.
namespace vmsuperio::inline v0_2 {

namespace detail {

// All functions are templates over the string type, so that a program that includes a device without using
// its text instantiates no part of std::string and std::vector.

template <class Text>
[[nodiscard]] Text hexadecimal(std::uint64_t value, std::size_t digits) {
    constexpr std::string_view digit = "0123456789ABCDEF";
    Text text("0x");
    for (std::size_t i = digits; i-- != 0;) {
        text += digit[(value >> (4U * i)) & 0x0FU];
    }
    return text;
}

/// The fields of a register that are not 0, each with a space before it.
template <class Text>
[[nodiscard]] Text describe_fields(std::span<const FieldInfo> fields, std::uint64_t value,
                                   std::uint64_t whole) {
    Text text;
    for (const FieldInfo& field : fields) {
        if (field.value_in(value) == 0 || field.mask == whole) {
            continue;
        }
        text.append(text.empty() ? "" : " ").append(field.name);
        if (!field.is_bit()) {
            text.append("=").append(std::to_string(field.value_in(value)));
        }
    }
    return text.empty() ? text : Text(" [").append(text).append("]");
}

template <class Text, class R>
[[nodiscard]] Text register_value(R reg) {
    using Value = typename R::value_type;
    return hexadecimal<Text>(reg.value(), 2 * sizeof(Value))
        .append(describe_fields<Text>(R::fields, reg.value(), static_cast<Value>(~Value{0})));
}

template <class Text>
[[nodiscard]] Text bytes_text(std::span<const std::uint8_t> bytes) {
    Text text;
    for (const std::uint8_t byte : bytes) {
        text.append(text.empty() ? "" : " ").append(hexadecimal<Text>(byte, 2), 2, 2);
    }
    return text.empty() ? Text("none") : text;
}

template <class Text, class T>
[[nodiscard]] Text number_text(T value) {
    if constexpr (std::same_as<T, bool>) {
        return Text(value ? "yes" : "no");
    } else if constexpr (std::is_enum_v<T>) {
        if constexpr (requires { std::string_view(to_string(value)); }) {
            return Text(to_string(value));
        } else {
            return std::to_string(std::to_underlying(value));
        }
    } else if constexpr (std::same_as<T, std::uint8_t>) {
        return hexadecimal<Text>(value, 2);
    } else {
        return std::to_string(value);
    }
}

template <class Text, class T, std::size_t N>
[[nodiscard]] Text number_text(const std::array<T, N>& values) {
    Text text;
    for (const T& value : values) {
        text.append(text.empty() ? "" : " ").append(number_text<Text>(value));
    }
    return text;
}

/// Collects the members of a state as names and texts.
template <class Text>
class TextArchive : public NamedArchive<TextArchive<Text>> {
public:
    struct Entry {
        Text name;
        Text value;
        friend bool operator==(const Entry&, const Entry&) = default;
    };

    template <class T>
    void operator()(std::string_view name, const T& value) {
        if constexpr (requires { T::visit(value, *this); }) {
            nested(name, [&](TextArchive& archive) { T::visit(value, archive); });
        } else {
            add(Text(name), number_text<Text>(value));
        }
    }
    template <class T, class R>
    void operator()(std::string_view name, const T& value, AsRegister<R>) {
        add(Text(name), register_value<Text>(R(value)));
    }
    template <std::integral T, class Command>
    void operator()(std::string_view name, T value, AsCommand<Command>) {
        const std::string_view command = to_string(static_cast<Command>(value));
        add(Text(name),
            number_text<Text>(value).append(command.empty() || value == 0 ? "" : " ").append(command));
    }
    template <std::integral T>
    void operator()(std::string_view name, T value, AsDecimal) {
        add(Text(name), std::to_string(value));
    }
    template <std::size_t N>
    void operator()(std::string_view name, const std::array<std::uint8_t, N>& value) {
        add(Text(name), bytes_text<Text>(value));
    }
    template <std::size_t N>
    void bytes(std::string_view name, std::uint8_t count, const std::array<std::uint8_t, N>& data) {
        add(Text(name), bytes_text<Text>(std::span(data).first(count < N ? count : N)));
    }
    template <std::size_t N>
    void bytes(std::string_view name, const std::array<std::uint8_t, N>& data, std::uint8_t count) {
        bytes(name, count, data);
    }
    template <class Visitor>
    void nested(std::string_view name, Visitor&& visitor) {
        const std::size_t length = prefix_.size();
        prefix_.append(name).append(".");
        std::forward<Visitor>(visitor)(*this);
        prefix_.resize(length);
    }

    [[nodiscard]] std::vector<Entry> take() && { return std::move(entries_); }

private:
    void add(const Text& name, Text value) { entries_.push_back({prefix_ + name, std::move(value)}); }

    Text prefix_;
    std::vector<Entry> entries_;
};

template <class Text, SnapshotState S>
[[nodiscard]] auto text_of(const S& state) {
    TextArchive<Text> archive;
    S::visit(state, archive);
    return std::move(archive).take();
}

}  // namespace detail

/// "IER=0x05 [received_data line_status]".
template <class R>
    requires std::derived_from<R, Register<R, typename R::value_type>>
[[nodiscard]] std::string inspect(R reg) {
    return std::string(R::name).append("=").append(detail::register_value<std::string>(reg));
}

/// A line for each member of the state.
template <SnapshotState S>
[[nodiscard]] std::string inspect(const S& state) {
    std::string text;
    for (const auto& [name, value] : detail::text_of<std::string>(state)) {
        text.append(name).append("=").append(value).append("\n");
    }
    return text;
}

/// A line "name: value -> value" for each member that differs; empty if none does.
template <SnapshotState S>
[[nodiscard]] std::string difference(const S& before, const S& after) {
    const auto old_text = detail::text_of<std::string>(before);
    const auto new_text = detail::text_of<std::string>(after);
    std::string text;
    for (std::size_t i = 0; i < old_text.size(); ++i) {
        const auto& [name, value] = old_text[i];
        if (value != new_text[i].value) {
            text.append(name).append(": ").append(value).append(" -> ");
            text.append(new_text[i].value).append("\n");
        }
    }
    return text;
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/trigger.hpp

namespace vmsuperio::inline v0_2 {

/// The interface through which a device reports that its interrupt line rose.
///
/// A plain `Trigger` receives edges: `trigger()` is called once per rising edge of the line, and once more
/// when a single operation deasserts and reasserts the line. It must not block and must not throw.
template <class T>
concept Trigger = requires(T t) {
    typename T::error_type;
    { t.trigger() } -> std::same_as<std::expected<void, typename T::error_type>>;
};

/// A trigger that receives the level of the line, once per change, instead of its edges.
///
/// A device with a `LevelTrigger` calls only `set_level` and never `trigger`.
template <class T>
concept LevelTrigger = Trigger<T> && requires(T t, bool asserted) {
    { t.set_level(asserted) } -> std::same_as<std::expected<void, typename T::error_type>>;
};

/// The error type of a trigger that cannot fail. This library never creates a value of it.
struct NoTriggerError {
    friend constexpr bool operator==(NoTriggerError, NoTriggerError) = default;
};

/// A `Trigger` that does nothing, for a device whose interrupt is not connected.
struct NullTrigger {
    using error_type = NoTriggerError;

    // NOLINTNEXTLINE(readability-convert-member-functions-to-static): the concept requires a member
    [[nodiscard]] constexpr std::expected<void, error_type> trigger() noexcept { return {}; }
};
static_assert(Trigger<NullTrigger> && !LevelTrigger<NullTrigger>);

/// A reference to a trigger, so that a device and its owner can share it. The trigger must outlive every copy
/// of the reference.
template <Trigger T>
class TriggerRef {
public:
    using error_type = typename T::error_type;

    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a trigger is a trigger
    /// Refers to a trigger, which must outlive this object.
    constexpr TriggerRef(T& trigger) noexcept : trigger_(&trigger) {}

    [[nodiscard]] constexpr std::expected<void, error_type> trigger() { return trigger_->trigger(); }
    [[nodiscard]] constexpr std::expected<void, error_type> set_level(bool asserted)
        requires LevelTrigger<T>
    {
        return trigger_->set_level(asserted);
    }

private:
    T* trigger_;
};
static_assert(Trigger<TriggerRef<NullTrigger>> && !LevelTrigger<TriggerRef<NullTrigger>>);

/// Pulses the line, as for a reset: one edge, or high and low again for a `LevelTrigger`. Returns the first
/// error of the trigger.
template <Trigger T>
[[nodiscard]] constexpr std::expected<void, typename T::error_type> pulse(T& trigger) {
    if constexpr (LevelTrigger<T>) {
        auto rose = trigger.set_level(true);
        auto fell = trigger.set_level(false);
        return rose ? fell : rose;
    } else {
        return trigger.trigger();
    }
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/interrupt_line.hpp

namespace vmsuperio::inline v0_2 {

/// The behaviour of a device's interrupt line within one access, in addition to its level at the end.
enum class LinePulse : std::uint8_t {
    none,   ///< nothing else
    again,  ///< another cause occurred while the line stayed high: an edge trigger sees another edge, a level
            ///< trigger nothing
    dropped,  ///< the line was low in between: both kinds of trigger see it fall and rise
};

/// One interrupt line of a device: stores its level and calls the trigger with edges or levels, depending on
/// its type. This class is for authors of devices; call `update` after each access with the level that
/// follows from the registers.
template <Trigger T>
class InterruptLine {
public:
    using error_type = typename T::error_type;

    /// A line that is low.
    explicit constexpr InterruptLine(T trigger) : trigger_(std::move(trigger)) {}

    /// The present level.
    [[nodiscard]] constexpr bool level() const noexcept { return level_; }
    [[nodiscard]] constexpr T& trigger() noexcept { return trigger_; }
    [[nodiscard]] constexpr const T& trigger() const noexcept { return trigger_; }

    /// Sets the line to `level`; a pulse has an effect only if the level is high. The line takes the level
    /// even if the trigger fails. Returns the result of the trigger, or its first error if it was called
    /// twice.
    [[nodiscard]] constexpr std::expected<void, error_type> update(bool level,
                                                                   LinePulse pulse = LinePulse::none) {
        const bool was = std::exchange(level_, level);
        if constexpr (LevelTrigger<T>) {
            if (level && was && pulse == LinePulse::dropped) {
                auto fell = trigger_.set_level(false);
                auto rose = trigger_.set_level(true);
                return fell ? rose : fell;
            }
            return level == was ? std::expected<void, error_type>{} : trigger_.set_level(level);
        } else {
            return level && (!was || pulse != LinePulse::none) ? trigger_.trigger()
                                                               : std::expected<void, error_type>{};
        }
    }

private:
    T trigger_;
    bool level_{false};
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/device_shell.hpp

/// The shape of every device: a core and a shell.
///
/// A *core* is plain C++ without template parameters. It holds the device's saved state, implements the
/// registers and makes no calls to the host. An access changes the state and returns its *effects*: the
/// events that happened and the pulses of the interrupt lines. Values that follow from the state (interrupt
/// levels, status registers) are computed from it.
///
/// The *shell* is the device class: it adds the triggers, the events, the writer and the clock of the host.
/// After an access it calls `apply`, which acts on the effects (`Serial` has its own version, for speed). The
/// order is: output (before `apply`, because the writer's result changes the core), then events, then
/// interrupt lines. So an event handler sees the state after the access.
namespace vmsuperio::inline v0_2 {

/// The requirements of the shell on a core.
template <class Core>
concept DeviceCore = requires(const Core& core) {
    core.state();                                                   // plain data that `inspect()` can show
    { core.interrupt_level(std::size_t{}) } -> std::same_as<bool>;  // of each line, by its number
};

/// The effects of an access to a core.
template <class Effects, class Events>
concept DeviceEffects = requires(const Effects& effects, Events& events) {
    effects.report(events);                               // calls the events, in order
    { effects.pulse } -> std::convertible_to<LinePulse>;  // of each line that is high at the end
};

namespace detail {

/// The interrupt lines of a device by their numbers. A std::tuple would keep devices from being trivially
/// copyable, and costs more to compile.
template <std::size_t Number, class T>
struct NumberedLine {
    InterruptLine<T> line;
};
template <class Numbers, class... Ts>
struct NumberedLines;
template <std::size_t... Numbers, class... Ts>
struct NumberedLines<std::index_sequence<Numbers...>, Ts...> : NumberedLine<Numbers, Ts>... {};

template <std::size_t Number, class T>
[[nodiscard]] constexpr InterruptLine<T>& line_of(NumberedLine<Number, T>& lines) noexcept {
    return lines.line;
}
template <std::size_t Number, class T>
[[nodiscard]] constexpr const InterruptLine<T>& line_of(const NumberedLine<Number, T>& lines) noexcept {
    return lines.line;
}

}  // namespace detail

/// The part that is the same in all devices. `Ts` are the triggers of the interrupt lines, in the core's
/// numbering.
template <DeviceCore Core, class Events, Trigger... Ts>
class DeviceShell {
    static_assert(
        !requires { &Events::host_error; } ||
            requires(Events& events) { events.host_error(HostErrorSource::output); },
        "the event host_error must take a HostErrorSource");

public:
    using events_type = Events;

    /// The complete state of the device. It may be read at any time between two calls.
    [[nodiscard]] constexpr auto state() const { return core_.state(); }
    /// The device as text for people, see `inspect.hpp`.
    [[nodiscard]] std::string inspect() const { return vmsuperio::inspect(core_.state()); }
    /// How often the host's side failed since construction.
    [[nodiscard]] constexpr const HostErrors& host_errors() const noexcept { return host_errors_; }

    [[nodiscard]] constexpr const Events& events() const noexcept { return events_; }
    [[nodiscard]] constexpr Events& events() noexcept { return events_; }

protected:
    /// A shell around `core` with a trigger for each of its lines.
    constexpr DeviceShell(const Core& core, Events events, Ts... triggers)
        : core_(core), lines_{{InterruptLine<Ts>(std::move(triggers))}...}, events_(std::move(events)) {}

    [[nodiscard]] constexpr Core& core() noexcept { return core_; }
    [[nodiscard]] constexpr const Core& core() const noexcept { return core_; }
    template <std::size_t Line = 0>
    [[nodiscard]] constexpr auto& line() noexcept {
        return detail::line_of<Line>(lines_);
    }
    template <std::size_t Line = 0>
    [[nodiscard]] constexpr const auto& line() const noexcept {
        return detail::line_of<Line>(lines_);
    }

    /// Acts on the effects of an access: events, then interrupt lines. Returns the result of the first line's
    /// trigger. A read cannot return it to its caller and ignores it; it is counted in any case.
    template <DeviceEffects<Events> Effects>
    constexpr auto apply(const Effects& effects) {
        effects.report(events_);
        return update_interrupts(effects.pulse, std::index_sequence_for<Ts...>());
    }

    /// Sets line `Line` to the level that follows from the core's state.
    template <std::size_t Line = 0>
    constexpr auto update_interrupt(LinePulse pulse = LinePulse::none) {
        return checked(HostErrorSource::interrupt, line<Line>().update(core_.interrupt_level(Line), pulse));
    }

    /// Returns `result`, and counts and reports it if it is an error.
    template <class Result>
    constexpr Result checked(HostErrorSource source, Result result) {
        if (!result) [[unlikely]] {
            host_failed(source);
        }
        return result;
    }
    /// Counts and reports every failure on the host's side.
    constexpr void host_failed(HostErrorSource source) {
        switch (source) {
            case HostErrorSource::interrupt:
                ++host_errors_.interrupt;
                break;
            case HostErrorSource::reset:
                ++host_errors_.reset;
                break;
            case HostErrorSource::output:
                ++host_errors_.output;
                break;
        }
        if constexpr (requires { events_.host_error(source); }) {
            events_.host_error(source);
        }
    }

private:
    constexpr void update_interrupts(LinePulse, std::index_sequence<>) noexcept {}
    template <std::size_t... Rest>
    constexpr auto update_interrupts(LinePulse pulse, std::index_sequence<0, Rest...>) {
        auto result = update_interrupt<0>(pulse);
        (static_cast<void>(update_interrupt<Rest>(pulse)), ...);
        return result;
    }

    Core core_;
    [[no_unique_address]] detail::NumberedLines<std::index_sequence_for<Ts...>, Ts...> lines_;
    [[no_unique_address]] Events events_;
    HostErrors host_errors_;
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/registers/acpi_pm.hpp

/// The fixed power management registers of ACPI (ACPI 6.5, 4.8.3).
namespace vmsuperio::inline v0_2 {

/// The block of registers of `AcpiPm`: PM1a_EVT_BLK, PM1a_CNT_BLK and PM_TMR_BLK of the FADT, one after the
/// other. Offsets and lengths are in bytes.
namespace acpi_pm {

inline constexpr std::uint8_t status_offset = 0;   // PM1_STS
inline constexpr std::uint8_t enable_offset = 2;   // PM1_EN
inline constexpr std::uint8_t control_offset = 4;  // PM1_CNT
inline constexpr std::uint8_t timer_offset = 8;    // PM_TMR
inline constexpr std::uint8_t event_length = 4;    // PM1_EVT_LEN: status and enable
inline constexpr std::uint8_t control_length = 2;  // PM1_CNT_LEN
inline constexpr std::uint8_t timer_length = 4;    // PM_TMR_LEN
/// How many ports the whole block has.
inline constexpr std::size_t block_length = 12;

inline constexpr std::int64_t timer_frequency = 3'579'545;  ///< Hz (ACPI 6.5, 4.8.2.1)

}  // namespace acpi_pm

/// PM1 Status, reset 0x0000 (ACPI 6.5, 4.8.3.1.1).
struct Pm1Status : Register<Pm1Status, std::uint16_t> {
    using Register::Register;
    static constexpr std::string_view name = "PM1_STS";
    static constexpr Bit<0, Access::write_one_to_clear> timer{};             // TMR_STS
    static constexpr Bit<4, Access::write_one_to_clear> bus_master{};        // BM_STS
    static constexpr Bit<5, Access::write_one_to_clear> global_lock{};       // GBL_STS
    static constexpr Bit<8, Access::write_one_to_clear> power_button{};      // PWRBTN_STS
    static constexpr Bit<9, Access::write_one_to_clear> sleep_button{};      // SLPBTN_STS
    static constexpr Bit<10, Access::write_one_to_clear> real_time_clock{};  // RTC_STS
    static constexpr Bit<15, Access::write_one_to_clear> wake{};             // WAK_STS
    static constexpr FieldInfo fields[]{{"timer", timer.bits},
                                        {"bus_master", bus_master.bits},
                                        {"global_lock", global_lock.bits},
                                        {"power_button", power_button.bits},
                                        {"sleep_button", sleep_button.bits},
                                        {"real_time_clock", real_time_clock.bits},
                                        {"wake", wake.bits}};
};

/// PM1 Enable, reset 0x0000 (ACPI 6.5, 4.8.3.1.2).
struct Pm1Enable : Register<Pm1Enable, std::uint16_t> {
    using Register::Register;
    static constexpr std::string_view name = "PM1_EN";
    static constexpr Bit<0> timer{};             // TMR_EN
    static constexpr Bit<5> global_lock{};       // GBL_EN
    static constexpr Bit<8> power_button{};      // PWRBTN_EN
    static constexpr Bit<10> real_time_clock{};  // RTC_EN
    static constexpr FieldInfo fields[]{{"timer", timer.bits},
                                        {"global_lock", global_lock.bits},
                                        {"power_button", power_button.bits},
                                        {"real_time_clock", real_time_clock.bits}};
};

/// PM1 Control (ACPI 6.5, 4.8.3.2.1). SCI_EN is read-only, because there is no SMI mode to return to.
struct Pm1Control : Register<Pm1Control, std::uint16_t> {
    using Register::Register;
    static constexpr std::string_view name = "PM1_CNT";
    static constexpr Bit<0, Access::read_only> sci_enable{};          // SCI_EN
    static constexpr Bit<1> bus_master_reload{};                      // BM_RLD
    static constexpr Bit<2, Access::self_clearing> global_release{};  // GBL_RLS
    static constexpr Field<10, 12> sleep_type{};                      // SLP_TYPx
    static constexpr Bit<13, Access::self_clearing> sleep_enable{};   // SLP_EN
    static constexpr FieldInfo fields[]{{"sci_enable", sci_enable.bits},
                                        {"bus_master_reload", bus_master_reload.bits},
                                        {"global_release", global_release.bits},
                                        {"sleep_type", sleep_type.bits},
                                        {"sleep_enable", sleep_enable.bits}};
};

namespace acpi_pm {

/// The name of the register that an access to the block reaches, for traces and debuggers; empty if there is
/// none.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset) noexcept {
    switch (offset & ~std::uint64_t{1}) {
        case status_offset:
            return Pm1Status::name;
        case enable_offset:
            return Pm1Enable::name;
        case control_offset:
            return Pm1Control::name;
        case timer_offset:
        case timer_offset + 2:
            return "PM_TMR";
        default:
            return {};
    }
}

}  // namespace acpi_pm

}  // namespace vmsuperio::inline v0_2

// vmsuperio/rtc/civil_date.hpp

/// The Gregorian calendar, without the rest of <chrono>.
namespace vmsuperio::inline v0_2::detail {

/// Divides rounding down. `b` is positive.
[[nodiscard]] constexpr std::int64_t floor_div(std::int64_t a, std::int64_t b) noexcept {
    return a / b - (a % b < 0 ? 1 : 0);
}
/// The remainder of `floor_div`, 0 to `b` - 1.
[[nodiscard]] constexpr std::int64_t floor_mod(std::int64_t a, std::int64_t b) noexcept {
    const std::int64_t rest = a % b;
    return rest < 0 ? rest + b : rest;
}

struct CivilDate {
    std::int64_t year{};
    std::int64_t month{};  // 1 to 12
    std::int64_t day{};    // 1 to 31

    friend constexpr bool operator==(const CivilDate&, const CivilDate&) = default;
};

// A year that begins in March has its leap day at the end, and its months before a given one have
// (153 * month + 2) / 5 days. 400 years have 146097 days, and 719468 lie between 0000-03-01 and 1970-01-01.

/// The days from 1970-01-01 to a date. Month and day must be in range; a day past the end of the month is one
/// of the next month.
[[nodiscard]] constexpr std::int64_t days_from_civil(const CivilDate& date) noexcept {
    const std::int64_t year = date.year - (date.month <= 2 ? 1 : 0);
    const std::int64_t era = floor_div(year, 400);
    const std::int64_t of_era = year - era * 400;
    const std::int64_t month = date.month > 2 ? date.month - 3 : date.month + 9;
    const std::int64_t of_year = (153 * month + 2) / 5 + date.day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/// The date that is `days` days after 1970-01-01.
[[nodiscard]] constexpr CivilDate civil_from_days(std::int64_t days) noexcept {
    const std::int64_t shifted = days + 719468;
    const std::int64_t era = floor_div(shifted, 146097);
    const std::int64_t of_era = shifted - era * 146097;
    const std::int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const std::int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    const std::int64_t month = (5 * of_year + 2) / 153;
    return {.year = year + era * 400 + (month >= 10 ? 1 : 0),
            .month = month < 10 ? month + 3 : month - 9,
            .day = of_year - (153 * month + 2) / 5 + 1};
}

[[nodiscard]] constexpr std::int64_t days_of_month(std::int64_t year, std::int64_t month) noexcept {
    return days_from_civil({month == 12 ? year + 1 : year, month == 12 ? 1 : month + 1, 1}) -
           days_from_civil({year, month, 1});
}

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/state_error.hpp

namespace vmsuperio::inline v0_2 {

/// A saved state that no device can be in. `field` names the first invalid member; it refers to a string
/// literal.
struct StateError {
    std::string_view field;  ///< the member that is wrong

    friend constexpr bool operator==(const StateError&, const StateError&) = default;
};

/// One line for a log, which names the field.
[[nodiscard]] inline std::string to_string(const StateError& error) {
    return std::string("the saved state holds a value that the device cannot have: ").append(error.field);
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/rtc/device_time.hpp

/// Device time: the time that a clock chip's own oscillator would have counted. It follows the clock of the
/// host with one exception: it continues if the host's clock is set back. If the host's clock jumps ahead
/// (host suspend, restored snapshot), device time follows.
///
/// All sums of times saturate, or are of unsigned distances: no clock and no saved state can make one
/// overflow. All times are in nanoseconds; the clock's are since its epoch.
namespace vmsuperio::inline v0_2 {

/// The relation of a device's time to a clock, as plain data, in nanoseconds.
struct DeviceTimeState {
    std::int64_t seen{};   ///< device time when the clock was last read
    std::int64_t shift{};  ///< device time minus the clock's time

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [seen, shift] = self;
        archive("seen", seen);
        archive("shift", shift);
    }
    friend constexpr bool operator==(const DeviceTimeState&, const DeviceTimeState&) = default;
};

namespace detail {

inline constexpr std::int64_t ns_per_second = 1'000'000'000;
/// The lower end of the range of device times, which leaves room for computations below it.
inline constexpr std::int64_t earliest_device_time = std::numeric_limits<std::int64_t>::min() / 2;

[[nodiscard]] constexpr std::int64_t not_too_early(std::int64_t time) noexcept {
    return time < earliest_device_time ? earliest_device_time : time;
}
/// Whether a device can have reached these times. When the clock was last read, it showed `seen - shift` or
/// less, and no clock shows a time before the smallest one.
[[nodiscard]] constexpr bool valid_time(const DeviceTimeState& time) noexcept {
    return time.seen >= earliest_device_time && time.shift >= 0 &&
           time.seen >= std::numeric_limits<std::int64_t>::min() + time.shift;
}
/// Updates device time to the clock's time. Returns device time, which never decreases.
constexpr std::int64_t look(DeviceTimeState& time, std::int64_t clock_time) noexcept {
    const std::int64_t now = not_too_early(saturating_add(clock_time, time.shift));
    if (now < time.seen) {
        time.shift = saturating_subtract(time.seen, clock_time);
    } else {
        time.seen = now;
    }
    return time.seen;
}
/// The clock's time at a device time, or nothing if that is out of range.
[[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> on_clock(const DeviceTimeState& time,
                                                                         std::int64_t device_time) noexcept {
    if (device_time == std::numeric_limits<std::int64_t>::max()) {
        return std::nullopt;
    }
    return std::chrono::nanoseconds(saturating_add(device_time, -time.shift));
}

/// The distance from a device time to a later one. It is correct for every pair, unlike a signed difference.
[[nodiscard]] constexpr std::uint64_t elapsed(std::int64_t from, std::int64_t to) noexcept {
    return static_cast<std::uint64_t>(to) - static_cast<std::uint64_t>(from);
}

/// `count` seconds after `start`, which must be a valid device time.
[[nodiscard]] constexpr std::int64_t seconds_after(std::int64_t start, std::uint64_t count) noexcept {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(start) +
                                     count * static_cast<std::uint64_t>(ns_per_second));
}

/// The last whole second at or before `time`, or the earliest time if that is out of range.
[[nodiscard]] constexpr std::int64_t floor_second(std::int64_t time) noexcept {
    return saturating_add(time, -floor_mod(time, ns_per_second));
}

/// The state of a clock core: its time, and the start of its current second.
template <class State>
concept KeepsSeconds = requires(State& state) {
    { state.second_start } -> std::same_as<std::int64_t&>;
    { state.time } -> std::same_as<DeviceTimeState&>;
};

/// Refuses times that no device can have.
template <KeepsSeconds State>
[[nodiscard]] constexpr std::expected<void, StateError> validate_time(const State& state) {
    if (!valid_time(state.time)) {
        return std::unexpected(StateError{"time"});
    }
    // In a valid state the current second has begun and has not ended.
    if (state.second_start > state.time.seen ||
        elapsed(state.second_start, state.time.seen) >= static_cast<std::uint64_t>(ns_per_second)) {
        return std::unexpected(StateError{"second_start"});
    }
    return {};
}

/// The options type of a clock without options.
struct NoRtcOptions {};

/// The base of the clocks' cores: holds the state and counts the seconds in it.
template <KeepsSeconds State>
class SecondsCore {
public:
    [[nodiscard]] constexpr const State& state() const noexcept { return state_; }
    /// Restores a saved state, which must be valid.
    constexpr void restore(const State& state) noexcept { state_ = state; }

protected:
    /// A chip that is switched on at `clock_time`, which is in general in the middle of a second.
    explicit constexpr SecondsCore(std::int64_t clock_time) noexcept {
        state_.time.seen = not_too_early(clock_time);
        state_.second_start = floor_second(state_.time.seen);
    }
    /// Updates device time to the clock's time. Returns device time, which never decreases.
    constexpr std::int64_t look(std::int64_t clock_time) noexcept {
        return detail::look(state_.time, clock_time);
    }
    /// The whole seconds from the start of the current second to the present device time.
    [[nodiscard]] constexpr std::uint64_t seconds_passed() const noexcept {
        return elapsed(state_.second_start, state_.time.seen) / ns_per_second;
    }
    /// Advances the current second by `count`. The new second must have begun.
    constexpr void count_seconds(std::uint64_t count) noexcept {
        state_.second_start = seconds_after(state_.second_start, count);
    }
    /// The device time `nanoseconds` after the start of the current second, or the latest device time.
    [[nodiscard]] constexpr std::int64_t from_second_start(std::int64_t nanoseconds) const noexcept {
        return saturating_add(state_.second_start, nanoseconds);
    }
    /// The clock's time at a device time, or nothing if that is out of range.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> on_clock(
        std::int64_t device_time) const noexcept {
        return detail::on_clock(state_.time, device_time);
    }
    /// The clock's time in seconds at the start of the current second.
    [[nodiscard]] constexpr std::int64_t clock_seconds() const noexcept {
        const auto time = on_clock(state_.second_start);
        return floor_div(time ? time->count() : 0, ns_per_second);
    }

    State state_;  // NOLINT(*-non-private-member-variables-in-classes): the cores work on it
};

}  // namespace detail
}  // namespace vmsuperio::inline v0_2

// vmsuperio/acpi_pm.hpp

/// ACPI fixed hardware: the PM1a event and control registers with a power button, and the power management
/// timer, in one block of 12 ports.
///
/// | offset | register | read | write |
/// |---|---|---|---|
/// | 0, 1 | PM1_STS | status | each bit written as 1 is cleared |
/// | 2, 3 | PM1_EN | enables of the SCI | the same |
/// | 4, 5 | PM1_CNT | SCI_EN, BM_RLD, SLP_TYP | BM_RLD, SLP_TYP; SLP_EN requests the sleep state |
/// | 8-11 | PM_TMR | the timer | no effect |
///
/// Other offsets read 0 and ignore writes. Reading the timer's lowest byte latches the other three, so that
/// an access that is split into bytes reads a consistent value.
///
/// The machine is in ACPI mode from the start: SCI_EN reads 1 and the FADT names no SMI command port.
///
/// Source: ACPI 6.5, 4.8.3 (registers), 4.8.2.1 (timer), 4.8.2.2.1.1 (power button). Not modelled: the power
/// button override (4 seconds), the sleep button, wake events (WAK_STS), the global lock (GBL_RLS has no
/// effect), bus master status, legacy mode with its SMIs.
/// Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The events of the power management block. `sleep(std::uint8_t type)` is an optional member: the guest set
/// SLP_EN with another type than that of S5, which otherwise has no effect.
template <class E>
concept AcpiPmEvents = !Trigger<E> && !Clock<E> && requires(E& events) {
    events.power_off();  // the guest set SLP_EN with the type of S5, soft-off
};

/// The width of the power management timer, in bits: TMR_VAL_EXT of the FADT's flags.
enum class AcpiTimerWidth : std::uint8_t {
    bits_24 = 24,
    bits_32 = 32,
};

/// The values of the block in the firmware tables.
struct AcpiPmOptions {
    /// SLP_TYPx of soft-off, 0 to 7: the first element of the DSDT's \_S5.
    std::uint8_t sleep_type_s5{5};
    /// How many bits of the timer count; the FADT must say the same.
    AcpiTimerWidth timer_width{AcpiTimerWidth::bits_32};
};

/// Everything that an AcpiPm remembers; the default is a device that has just been reset.
struct AcpiPmState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("ACPM"), .version = 1, .readable_since = 1};

    std::uint16_t status{};  ///< PM1_STS
    std::uint16_t enable{};  ///< PM1_EN
    /// PM1_CNT.
    std::uint16_t control{Pm1Control().set(Pm1Control::sci_enable).value()};
    std::uint32_t held_timer{};  ///< the timer when its lowest byte was last read
    std::int64_t timer_start{};  ///< the device time at which the timer was 0, in ns
    DeviceTimeState time;        ///< the device's own time, from which the timer follows

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [status, enable, control, held_timer, timer_start, time] = self;
        archive("status", status, as<Pm1Status>);
        archive("enable", enable, as<Pm1Enable>);
        archive("control", control, as<Pm1Control>);
        archive("held_timer", held_timer);
        archive("timer_start", timer_start);
        archive("time", time);
    }
    friend constexpr bool operator==(const AcpiPmState&, const AcpiPmState&) = default;
};

namespace detail {

/// The number of timer ticks in `elapsed` nanoseconds, not reduced to the timer's width.
[[nodiscard]] constexpr std::uint64_t pm_timer_ticks(std::uint64_t elapsed) noexcept {
    // Whole seconds are converted separately, so that no product overflows.
    constexpr std::uint64_t second = ns_per_second;
    constexpr std::uint64_t frequency = acpi_pm::timer_frequency;
    return elapsed / second * frequency + elapsed % second * frequency / second;
}

/// The number of nanoseconds after which the timer has counted `ticks`, rounded up.
[[nodiscard]] constexpr std::uint64_t pm_timer_nanoseconds(std::uint64_t ticks) noexcept {
    constexpr std::uint64_t second = ns_per_second;
    constexpr std::uint64_t frequency = acpi_pm::timer_frequency;
    return ticks / frequency * second + (ticks % frequency * second + frequency - 1) / frequency;
}

/// The registers and the timer.
class AcpiPmCore {
public:
    struct Effects {
        static constexpr LinePulse pulse = LinePulse::none;
        bool power_off{};
        bool sleep{};
        std::uint8_t sleep_type{};

        template <class Events>
        constexpr void report(Events& events) const {
            if (power_off) {
                events.power_off();
            }
            if constexpr (requires { events.sleep(std::uint8_t{}); }) {
                if (sleep) {
                    events.sleep(sleep_type);
                }
            }
        }
    };

    /// A device that has just been reset, whose timer starts at `clock_ns`.
    constexpr AcpiPmCore(const AcpiPmOptions& options, std::int64_t clock_ns) : options_(options) {
        state_.time.seen = not_too_early(clock_ns);
        state_.timer_start = state_.time.seen;
    }
    /// `state` must be valid.
    constexpr AcpiPmCore(const AcpiPmState& state, const AcpiPmOptions& options)
        : options_(options), state_(state) {}

    [[nodiscard]] constexpr const AcpiPmState& state() const noexcept { return state_; }
    [[nodiscard]] constexpr const AcpiPmOptions& options() const noexcept { return options_; }
    /// The SCI.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t /*line*/ = 0) const noexcept {
        return (state_.status & state_.enable) != 0;
    }

    /// Updates the device to the clock's time: sets TMR_STS if the timer's most significant bit has changed
    /// at least once.
    constexpr void advance(std::int64_t clock_ns) {
        const std::uint64_t before = half_periods();
        look(state_.time, clock_ns);
        if (half_periods() != before) {
            state_.status = Pm1Status(state_.status).set(Pm1Status::timer).value();
        }
    }
    /// The value of PM_TMR at a time of the clock.
    [[nodiscard]] constexpr std::uint32_t timer_at(std::int64_t clock_ns) const {
        DeviceTimeState time = state_.time;
        return timer_after(elapsed(state_.timer_start, look(time, clock_ns)));
    }
    /// The time on the clock at which the SCI will next rise without an access.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const {
        if (!Pm1Enable(state_.enable)[Pm1Enable::timer] || interrupt_level()) {
            return std::nullopt;
        }
        const std::uint64_t change = pm_timer_nanoseconds((half_periods() + 1) << half_period_bits());
        const auto left = static_cast<std::int64_t>(change - elapsed_ns());  // less than 10 minutes
        return on_clock(state_.time, saturating_add(state_.time.seen, left));
    }

    /// The result of a read, without its effects.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        switch (offset & ~1U) {
            case acpi_pm::status_offset:
                return byte_of(state_.status, offset % 2U);
            case acpi_pm::enable_offset:
                return byte_of(state_.enable, offset % 2U);
            case acpi_pm::control_offset:
                return byte_of(state_.control, offset % 2U);
            case acpi_pm::timer_offset:
            case acpi_pm::timer_offset + 2U:
                return byte_of(
                    offset == acpi_pm::timer_offset ? timer_after(elapsed_ns()) : state_.held_timer,
                    offset - acpi_pm::timer_offset);
            default:
                return 0;
        }
    }
    constexpr std::uint8_t read(std::uint8_t offset) noexcept {
        if (offset == acpi_pm::timer_offset) {
            state_.held_timer = timer_after(elapsed_ns());
        }
        return peek(offset);
    }
    [[nodiscard]] constexpr Effects write(std::uint8_t offset, std::uint8_t value) noexcept {
        const unsigned byte = offset % 2U;
        switch (offset & ~1U) {
            case acpi_pm::status_offset: {
                Pm1Status status(state_.status);
                status.guest_write(in_byte(value, byte));
                state_.status = status.value();
                return {};
            }
            case acpi_pm::enable_offset: {
                Pm1Enable enable(state_.enable);
                enable.guest_write(replace_byte(state_.enable, value, byte));
                state_.enable = enable.value();
                return {};
            }
            case acpi_pm::control_offset:
                return write_control(replace_byte(state_.control, value, byte));
            default:
                return {};  // the timer is read-only
        }
    }
    constexpr void press_power_button() noexcept {
        state_.status = Pm1Status(state_.status).set(Pm1Status::power_button).value();
    }
    /// Resets everything except the timer, which continues.
    constexpr void reset() noexcept { state_ = {.timer_start = state_.timer_start, .time = state_.time}; }

private:
    [[nodiscard]] static constexpr std::uint8_t byte_of(std::uint32_t value, unsigned index) noexcept {
        return static_cast<std::uint8_t>(value >> (8U * index));
    }
    [[nodiscard]] static constexpr std::uint16_t in_byte(std::uint8_t value, unsigned index) noexcept {
        return static_cast<std::uint16_t>(value << (8U * index));
    }
    [[nodiscard]] static constexpr std::uint16_t replace_byte(std::uint16_t old, std::uint8_t value,
                                                              unsigned index) noexcept {
        return static_cast<std::uint16_t>((old & ~in_byte(0xFF, index)) | in_byte(value, index));
    }

    [[nodiscard]] constexpr std::uint64_t elapsed_ns() const noexcept {
        return elapsed(state_.timer_start, state_.time.seen);
    }
    /// The timer's most significant bit changes every two to the power of this number of ticks.
    [[nodiscard]] constexpr unsigned half_period_bits() const noexcept {
        return static_cast<unsigned>(options_.timer_width) - 1U;
    }
    [[nodiscard]] constexpr std::uint64_t half_periods() const noexcept {
        return pm_timer_ticks(elapsed_ns()) >> half_period_bits();
    }
    [[nodiscard]] constexpr std::uint32_t timer_after(std::uint64_t nanoseconds) const noexcept {
        const std::uint64_t mask = (std::uint64_t{2} << half_period_bits()) - 1;
        return static_cast<std::uint32_t>(pm_timer_ticks(nanoseconds) & mask);
    }

    constexpr Effects write_control(std::uint16_t written) noexcept {
        Pm1Control control(state_.control);
        control.guest_write(written);
        state_.control = control.value();
        const Pm1Control request(written);
        Effects effects;
        if (request[Pm1Control::sleep_enable]) {
            effects.sleep_type = static_cast<std::uint8_t>(request[Pm1Control::sleep_type]);
            effects.power_off = effects.sleep_type == options_.sleep_type_s5;
            effects.sleep = !effects.power_off;
        }
        return effects;
    }

    AcpiPmOptions options_;
    AcpiPmState state_;
};

}  // namespace detail

/// Checks whether a device with these options can be in this state; the error names the first invalid member.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const AcpiPmState& state,
                                                                 const AcpiPmOptions& options = {}) {
    constexpr unsigned possible_status =
        Pm1Status().set(Pm1Status::timer).set(Pm1Status::power_button).value();
    constexpr unsigned sci_enable = Pm1Control().set(Pm1Control::sci_enable).value();
    const char* field = nullptr;
    if ((state.status & ~possible_status) != 0) {
        field = "status";
    } else if ((state.enable & ~unsigned{Pm1Enable::guest_mask()}) != 0) {
        field = "enable";
    } else if ((state.control & ~unsigned{Pm1Control::guest_mask()}) != sci_enable) {
        field = "control";
    } else if (options.timer_width == AcpiTimerWidth::bits_24 && state.held_timer > 0xFF'FFFF) {
        field = "held_timer";
    } else if (!detail::valid_time(state.time)) {
        field = "time";
    } else if (state.timer_start > state.time.seen || state.timer_start < detail::earliest_device_time) {
        field = "timer_start";
    }
    if (field != nullptr) {
        return std::unexpected(StateError{field});
    }
    return {};
}

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the SCI
/// will next rise without an access; call `tick()` then. Guest accesses update the device implicitly. Device
/// time continues if the clock is set back, and follows the clock if it jumps ahead.
///
/// Arguments: the trigger of the system control interrupt, preferably a `LevelTrigger` because the SCI is
/// level triggered; events; clock; options.
///
/// Errors: `write`, `tick`, `reset` and `press_power_button` return the result of the interrupt trigger; all
/// failures, including those in reads, are counted in `host_errors().interrupt`.
template <Trigger T, AcpiPmEvents Events, Clock C = SteadyClock>
class AcpiPm : public DeviceShell<detail::AcpiPmCore, Events, T> {
    using Shell = DeviceShell<detail::AcpiPmCore, Events, T>;
    static_assert(
        !requires { &Events::sleep; } || requires(Events& events) { events.sleep(std::uint8_t{}); },
        "the event sleep must take a std::uint8_t");

public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using clock_type = C;
    static constexpr std::size_t register_count = acpi_pm::block_length;

    /// The timer starts at 0.
    constexpr AcpiPm(T sci, Events events, C clock = C(), AcpiPmOptions options = {})
        : AcpiPm(detail::AcpiPmCore(options, time_since_epoch(clock).count()), std::move(sci),
                 std::move(events), std::move(clock)) {}

    /// Restores a saved device. The time that has passed on `clock` since then has also passed for the
    /// device. So `clock` must have the same epoch as before: a steady clock counts from the start of its
    /// host, so a device that is restored on another host needs another clock. The restored device is up to
    /// date with `clock`: an SCI that was high, or is due by now, is raised. A default-constructed state is
    /// a device that has just been reset, whose timer was 0 at the clock's epoch.
    [[nodiscard]] static constexpr std::expected<AcpiPm, StateError> from_state(const AcpiPmState& state,
                                                                                T sci, Events events,
                                                                                C clock = C(),
                                                                                AcpiPmOptions options = {}) {
        if (const auto valid = validate(state, options); !valid) {
            return std::unexpected(valid.error());
        }
        AcpiPm device(detail::AcpiPmCore(state, options), std::move(sci), std::move(events),
                      std::move(clock));
        [[maybe_unused]] const auto ticked = device.tick();
        return device;
    }

    /// A read by the guest.
    constexpr std::uint8_t read(std::uint8_t offset) {
        (void)tick();
        return this->core().read(offset);
    }
    /// The result of `read` without its effects, as of the last access or `tick()`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        return this->core().peek(offset);
    }
    /// A write by the guest.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        advance();
        return this->apply(this->core().write(offset, value));
    }

    /// The user pressed the power button: the guest sees the event and decides what to do.
    constexpr std::expected<void, error_type> press_power_button() {
        advance();
        this->core().press_power_button();
        return this->update_interrupt();
    }

    /// Updates the device to its clock. Call it at the deadline; it is harmless at any other time.
    constexpr std::expected<void, error_type> tick() {
        advance();
        return this->update_interrupt();
    }
    /// The time on the device's clock at which the SCI will next rise without an access: the next change of
    /// the timer's most significant bit if TMR_EN is set and the SCI is low, otherwise nothing. Call it again
    /// after every access and every `tick()`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const {
        return this->core().next_deadline();
    }

    /// Restores the power-on state: the SCI falls and the guest's settings are cleared; the timer continues
    /// (4.8.3.3 does not specify that).
    constexpr std::expected<void, error_type> reset() {
        advance();
        this->core().reset();
        return this->update_interrupt();
    }

    /// The present value of the timer's register.
    [[nodiscard]] constexpr std::uint32_t timer() const { return this->core().timer_at(clock_ns()); }
    // As of the last access or `tick()`.
    /// PM1_STS, without side effects.
    [[nodiscard]] constexpr Pm1Status status() const noexcept {
        return Pm1Status(this->core().state().status);
    }
    /// PM1_EN.
    [[nodiscard]] constexpr Pm1Enable enable() const noexcept {
        return Pm1Enable(this->core().state().enable);
    }
    /// PM1_CNT.
    [[nodiscard]] constexpr Pm1Control control() const noexcept {
        return Pm1Control(this->core().state().control);
    }
    /// The level of the system control interrupt.
    [[nodiscard]] constexpr bool sci_level() const noexcept { return this->line().level(); }
    [[nodiscard]] constexpr const T& sci() const noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr T& sci() noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }
    [[nodiscard]] constexpr C& clock() noexcept { return clock_; }
    [[nodiscard]] constexpr const AcpiPmOptions& options() const noexcept { return this->core().options(); }

private:
    // By reference, because the caller reads the clock to construct the core.
    constexpr AcpiPm(const detail::AcpiPmCore& core, T sci, Events events, C&& clock)
        : Shell(core, std::move(events), std::move(sci)), clock_(std::move(clock)) {}

    [[nodiscard]] constexpr std::int64_t clock_ns() const { return time_since_epoch(clock_).count(); }
    constexpr void advance() { this->core().advance(clock_ns()); }

    [[no_unique_address]] C clock_;
};

template <Trigger T, AcpiPmEvents Events>
AcpiPm(T, Events) -> AcpiPm<T, Events>;
template <Trigger T, AcpiPmEvents Events, Clock C>
AcpiPm(T, Events, C) -> AcpiPm<T, Events, C>;
template <Trigger T, AcpiPmEvents Events, Clock C>
AcpiPm(T, Events, C, AcpiPmOptions) -> AcpiPm<T, Events, C>;

}  // namespace vmsuperio::inline v0_2

// vmsuperio/callback.hpp

namespace vmsuperio::inline v0_2 {

template <class Signature>
class Callback;

/// A function of the owner that a device calls; empty by default. Accepts every copyable callable, including
/// a `std::function`.
///
/// It has the members of `std::function` that the small devices need, without `<functional>`: that header
/// alone takes a quarter of the time that the compiler needs for this library.
template <class Result, class... Arguments>
class Callback<Result(Arguments...)> {
public:
    constexpr Callback() = default;
    /// Takes a function object by value; memory is allocated here, not in a call.
    template <class Function>
        requires(!std::same_as<std::remove_cvref_t<Function>, Callback> &&
                 std::is_invocable_r_v<Result, std::decay_t<Function>&, Arguments...> &&
                 std::copy_constructible<std::decay_t<Function>>)
    // NOLINTNEXTLINE(google-explicit-constructor, bugprone-forwarding-reference-overload): as std::function
    Callback(Function&& function) {
        if constexpr (requires { function == nullptr; }) {
            if (function == nullptr) {
                return;
            }
        }
        target_ = new Holder<std::decay_t<Function>>(std::forward<Function>(function));
    }
    /// Copies the function object.
    Callback(const Callback& other) : target_(other.target_ != nullptr ? other.target_->copy() : nullptr) {}
    /// Takes the function object; `other` is then empty.
    Callback(Callback&& other) noexcept : target_(std::exchange(other.target_, nullptr)) {}
    /// Replaces the function object.
    Callback& operator=(Callback other) noexcept {
        std::swap(target_, other.target_);
        return *this;
    }
    ~Callback() { delete target_; }

    /// Whether there is a function object to call.
    [[nodiscard]] explicit operator bool() const noexcept { return target_ != nullptr; }
    /// The callback must not be empty.
    Result operator()(Arguments... arguments) { return target_->call(std::forward<Arguments>(arguments)...); }

private:
    struct Target {
        Target() = default;
        Target(const Target&) = delete;
        Target& operator=(const Target&) = delete;
        virtual ~Target() = default;
        virtual Result call(Arguments... arguments) = 0;
        [[nodiscard]] virtual Target* copy() const = 0;
    };
    template <class Function>
    struct Holder final : Target {
        template <class From>
            requires(!std::same_as<std::remove_cvref_t<From>, Holder>)
        explicit Holder(From&& from) : function(std::forward<From>(from)) {}
        Result call(Arguments... arguments) override {
            return static_cast<Result>(function(std::forward<Arguments>(arguments)...));
        }
        [[nodiscard]] Target* copy() const override { return new Holder(function); }

        Function function;
    };

    Target* target_{nullptr};
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/detail/port_core.hpp

namespace vmsuperio::inline v0_2::detail {

/// The common part of the cores of ports without an interrupt line, whose saved state is the live state.
template <class State>
class PortCore {
public:
    constexpr PortCore() = default;
    /// `state` must be valid.
    explicit constexpr PortCore(const State& state) : state_(state) {}

    [[nodiscard]] constexpr const State& state() const noexcept { return state_; }
    [[nodiscard]] static constexpr bool interrupt_level(std::size_t /*line*/) noexcept { return false; }

protected:
    State state_;
};

/// Base of the effects of such a core.
struct PortEffects {
    static constexpr LinePulse pulse = LinePulse::none;
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/detail/copy_bytes.hpp

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

// vmsuperio/writer.hpp

namespace vmsuperio::inline v0_2 {

/// The result of a `Writer`: how many bytes it took, or the error.
using WriteResult = std::expected<std::size_t, std::error_code>;

/// The sink for the bytes that a device sends.
///
/// `write` returns how many of the offered bytes were taken, from the front. The number is smaller than
/// offered, or 0, if the sink is full at present ("would block"). `write` returns an error if the sink will
/// not take them. It must not block and must not throw.
template <class W>
concept Writer = requires(W w, std::span<const std::uint8_t> bytes) {
    { w.write(bytes) } -> std::convertible_to<WriteResult>;
};

/// A `Writer` that discards everything.
struct NullWriter {
    // NOLINTNEXTLINE(readability-convert-member-functions-to-static): the concept requires a member
    /// Takes all bytes and discards them.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) noexcept {
        return bytes.size();
    }
};
static_assert(Writer<NullWriter>);

/// Keeps all bytes. It grows without bound, so it is for tests, not for hostile guests. If memory runs out,
/// `write` returns an error; compiled without exceptions, the program then ends, as with every container.
class BufferWriter {
public:
    /// Takes all bytes.
    template <class = void>  // instantiated only if it is called
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
#if defined(__cpp_exceptions)
        try {
            bytes_.insert(bytes_.end(), bytes.data(), bytes.data() + bytes.size());
        } catch (const std::bad_alloc&) {
            return std::unexpected(std::make_error_code(std::errc::not_enough_memory));
        }
#else
        bytes_.insert(bytes_.end(), bytes.data(), bytes.data() + bytes.size());
#endif
        return bytes.size();
    }

    /// All bytes written since the last clear().
    [[nodiscard]] constexpr const std::vector<std::uint8_t>& bytes() const noexcept { return bytes_; }
    /// The bytes as characters; valid until the next write.
    [[nodiscard]] std::string_view text() const noexcept {
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): char may alias anything
        return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
    }
    /// Discards what was written.
    constexpr void clear() noexcept { bytes_.clear(); }

private:
    std::vector<std::uint8_t> bytes_;
};
static_assert(Writer<BufferWriter>);

/// Keeps the newest `capacity` bytes and counts those that were overwritten. It takes all bytes, and
/// allocates only in its constructor. A capacity of 0 drops everything.
class RingWriter {
public:
    /// Keeps the newest `capacity` bytes.
    explicit constexpr RingWriter(std::size_t capacity) : ring_(capacity) {}

    /// Takes all bytes; those for which there is no room replace the oldest.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) noexcept {
        const std::size_t offered = bytes.size();
        if (bytes.size() > ring_.size()) {
            dropped_ += bytes.size() - ring_.size();
            bytes = bytes.last(ring_.size());
        }
        if (bytes.empty()) {
            return offered;
        }
        const std::size_t room = ring_.size() - size_;
        dropped_ += bytes.size() > room ? bytes.size() - room : 0;
        const std::size_t first = detail::smaller(bytes.size(), ring_.size() - next_);
        detail::copy_bytes(bytes.data(), first, ring_.data() + next_);
        detail::copy_bytes(bytes.data() + first, bytes.size() - first, ring_.data());
        next_ = (next_ + bytes.size()) % ring_.size();
        size_ = detail::smaller(ring_.size(), size_ + bytes.size());
        return offered;
    }

    /// The bytes that are kept, the oldest first.
    [[nodiscard]] constexpr std::vector<std::uint8_t> bytes() const {
        std::vector<std::uint8_t> kept;
        kept.reserve(size_);
        for (std::size_t i = 0; i < size_; ++i) {
            kept.push_back(ring_[(next_ + ring_.size() - size_ + i) % ring_.size()]);
        }
        return kept;
    }
    /// How many bytes are kept.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    /// How many bytes can be kept.
    [[nodiscard]] constexpr std::size_t capacity() const noexcept { return ring_.size(); }
    /// How many bytes were overwritten, or did not fit, since construction.
    [[nodiscard]] constexpr std::uint64_t dropped() const noexcept { return dropped_; }
    /// Removes the bytes, but keeps the count of dropped ones.
    constexpr void clear() noexcept {
        next_ = 0;
        size_ = 0;
    }

private:
    std::vector<std::uint8_t> ring_;
    std::size_t next_{0};
    std::size_t size_{0};
    std::uint64_t dropped_{0};
};
static_assert(Writer<RingWriter>);

/// A reference to a writer, so that a device and its owner can share it. The writer must outlive every copy
/// of the reference.
template <Writer W>
class WriterRef {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a writer is a writer
    /// Refers to a writer, which must outlive this object.
    constexpr WriterRef(W& writer) noexcept : writer_(&writer) {}

    /// Forwards to the writer.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        return writer_->write(bytes);
    }

private:
    W* writer_;
};
static_assert(Writer<WriterRef<NullWriter>>);

/// The treatment of bytes that exceed the rate.
enum class RateLimitMode : std::uint8_t {
    drop,  ///< taken, discarded and counted: the guest never waits
    hold,  ///< not taken ("would block"): the guest waits; call the device again after `ready_in()`
};

/// How fast a writer takes bytes.
struct RateLimit {
    std::uint32_t bytes_per_second{};         ///< 0: nothing is written after the burst
    std::uint32_t burst{};                    ///< bytes that may be written at once: the size of the bucket
    RateLimitMode mode{RateLimitMode::drop};  ///< what happens to bytes beyond the limit
};

/// A token bucket in front of another writer, so that a guest cannot fill the host's disk or log at will. The
/// bucket starts full. If the clock goes backwards, nothing is added.
template <Writer W, Clock C = SteadyClock>
class RateLimitedWriter {
public:
    /// Limits `writer` by `limit`, measured with `clock`.
    constexpr RateLimitedWriter(W writer, C clock, RateLimit limit)
        : writer_(std::move(writer)),
          clock_(std::move(clock)),
          limit_(limit),
          tokens_(std::uint64_t{limit.burst} * per_byte),
          refilled_(time_since_epoch(clock_)) {}
    /// Limits `writer` by `limit`, measured with `clock`.
    constexpr RateLimitedWriter(W writer, RateLimit limit, C clock = C{})
        : RateLimitedWriter(std::move(writer), std::move(clock), limit) {}

    /// Writes as many bytes as the limit permits; the mode says what becomes of the rest.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        refill();
        const auto allowed =
            tokens_ / per_byte < bytes.size() ? static_cast<std::size_t>(tokens_ / per_byte) : bytes.size();
        std::size_t taken = 0;
        if (allowed != 0) {
            const WriteResult result = writer_.write(bytes.first(allowed));
            if (!result) {
                return result;
            }
            taken = detail::smaller(*result, allowed);
            tokens_ -= taken * per_byte;
        }
        if (limit_.mode == RateLimitMode::drop && taken == allowed) {
            dropped_ += bytes.size() - taken;
            return bytes.size();
        }
        return taken;
    }

    /// The time until the bucket has tokens for a byte: 0 if it has them now, the maximum if it never will.
    [[nodiscard]] constexpr std::chrono::nanoseconds ready_in() {
        refill();
        if (tokens_ >= per_byte) {
            return std::chrono::nanoseconds::zero();
        }
        if (limit_.bytes_per_second == 0 || limit_.burst == 0) {
            return std::chrono::nanoseconds::max();
        }
        const std::uint64_t missing = per_byte - tokens_;
        return std::chrono::nanoseconds((missing + limit_.bytes_per_second - 1) / limit_.bytes_per_second);
    }

    /// How many bytes were discarded because of the limit.
    [[nodiscard]] constexpr std::uint64_t dropped() const noexcept { return dropped_; }
    [[nodiscard]] constexpr const W& inner() const noexcept { return writer_; }
    [[nodiscard]] constexpr W& inner() noexcept { return writer_; }

private:
    // One byte costs as many tokens as a second has nanoseconds; each nanosecond adds `bytes_per_second`
    // tokens.
    static constexpr std::uint64_t per_byte = 1'000'000'000;

    constexpr void refill() {
        const std::chrono::nanoseconds now = time_since_epoch(clock_);
        const std::chrono::nanoseconds last = std::exchange(refilled_, now);
        if (now <= last || limit_.bytes_per_second == 0) {
            return;
        }
        const std::uint64_t full = std::uint64_t{limit_.burst} * per_byte;
        const std::uint64_t missing = full - tokens_;
        // Compared by division, because the product could overflow after a long time without output.
        const std::uint64_t elapsed =
            static_cast<std::uint64_t>(now.count()) - static_cast<std::uint64_t>(last.count());
        tokens_ = elapsed > missing / limit_.bytes_per_second ? full
                                                              : tokens_ + (elapsed * limit_.bytes_per_second);
    }

    W writer_;
    C clock_;
    RateLimit limit_;
    std::uint64_t tokens_;
    std::chrono::nanoseconds refilled_;
    std::uint64_t dropped_{0};
};
template <Writer W>
RateLimitedWriter(W, RateLimit) -> RateLimitedWriter<W>;

/// Writes to several writers. The first one, the leader, determines the result: the number of bytes that it
/// takes, or its error. The others are offered exactly the bytes that the leader took; bytes that one of them
/// does not take, or fails to take, are lost for that writer and counted. So a slow log never blocks the
/// console, and the console never receives bytes twice.
template <Writer First, Writer... Others>
class TeeWriter {
public:
    /// The first writer determines how many bytes are taken.
    explicit constexpr TeeWriter(First first, Others... others)
        : first_(std::move(first)), others_(std::move(others)...) {}

    /// Writes to all writers. Returns what the first one has taken.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        const WriteResult taken = first_.write(bytes);
        if (taken && *taken != 0) {
            offer(bytes.first(detail::smaller(*taken, bytes.size())), std::index_sequence_for<Others...>{});
        }
        return taken;
    }

    /// Writer `I`, 0 being the leader.
    template <std::size_t I>
    [[nodiscard]] constexpr auto& get() noexcept {
        if constexpr (I == 0) {
            return first_;
        } else {
            return std::get<I - 1>(others_);
        }
    }
    template <std::size_t I>
    [[nodiscard]] constexpr const auto& get() const noexcept {
        if constexpr (I == 0) {
            return first_;
        } else {
            return std::get<I - 1>(others_);
        }
    }
    /// How many bytes writer `index` has missed. The leader misses none.
    [[nodiscard]] constexpr std::uint64_t dropped(std::size_t index) const noexcept {
        return index == 0 || index > sizeof...(Others) ? 0 : dropped_[index - 1];
    }

private:
    template <std::size_t... Is>
    constexpr void offer([[maybe_unused]] std::span<const std::uint8_t> bytes, std::index_sequence<Is...>) {
        (offer_one(std::get<Is>(others_), bytes, dropped_[Is]), ...);
    }
    template <Writer W>
    static constexpr void offer_one(W& writer, std::span<const std::uint8_t> bytes, std::uint64_t& dropped) {
        const WriteResult taken = writer.write(bytes);
        dropped += bytes.size() - detail::smaller(taken.value_or(0), bytes.size());
    }

    First first_;
    std::tuple<Others...> others_;
    std::array<std::uint64_t, sizeof...(Others)> dropped_{};
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/debug_port.hpp

/// One-byte ports to which firmware and kernels write progress and text.
///
/// | port | use | a read returns |
/// |---|---|---|
/// | 0x80 | power-on self-test codes, and Linux's I/O delay | the last byte written |
/// | 0xE9 | Bochs' "port E9 hack": text | 0xE9, by which software detects it |
/// | 0x402 | the same, used by SeaBIOS and OVMF | 0xE9, like QEMU's `isa-debugcon` |
///
/// Port 0x80 reads back its last byte, like the latch of IBM's and Intel's DMA page register 0.
///
/// Sources: Bochs, "Advanced debugger usage" and `iodev/unmapped.cc`; QEMU `isa-debugcon` (property
/// `readback`). Not modelled: other bytes of the DMA page register file around port 0x80. Thread safety:
/// none.
namespace vmsuperio::inline v0_2 {

/// Everything that a DebugPort remembers.
struct DebugPortState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("DBGP"), .version = 1, .readable_since = 1};

    std::uint8_t last{};      ///< the last byte written
    std::uint64_t written{};  ///< how many bytes the guest has written
    std::uint64_t dropped{};  ///< how many of them the sink did not take

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [last, written, dropped] = self;
        archive("last", last);
        archive("written", written);
        archive("dropped", dropped);
    }
    friend constexpr bool operator==(const DebugPortState&, const DebugPortState&) = default;
};

/// Checks whether a port can be in this state. The error names the invalid member: "dropped" if more bytes
/// were dropped than written, "last" if there is a last byte although none was written.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const DebugPortState& state) {
    if (state.dropped > state.written) {
        return std::unexpected(StateError{"dropped"});
    }
    if (state.written == 0 && state.last != 0) {
        return std::unexpected(StateError{"last"});
    }
    return {};
}

namespace detail {

class DebugPortCore : public PortCore<DebugPortState> {
public:
    explicit constexpr DebugPortCore(std::optional<std::uint8_t> readback) : readback_(readback) {}
    constexpr DebugPortCore(const DebugPortState& state, std::optional<std::uint8_t> readback)
        : PortCore(state), readback_(readback) {}

    [[nodiscard]] constexpr std::uint8_t read() const noexcept { return readback_.value_or(state_.last); }
    /// `bytes` must not be empty.
    constexpr void write(std::span<const std::uint8_t> bytes) noexcept {
        state_.last = bytes.back();
        state_.written += bytes.size();
    }
    constexpr void drop(std::size_t count) noexcept { state_.dropped += count; }
    constexpr void reset() noexcept { state_.last = 0; }

private:
    std::optional<std::uint8_t> readback_;  // of a console; a POST code port has none
};

/// A debug port has no events, only output.
struct NoDebugPortEvents {};

}  // namespace detail

/// A debug port. Writes of the guest never fail: bytes that the sink does not take are dropped and counted.
/// If the sink itself fails, that is counted in `host_errors().output` as well.
class DebugPort : public DeviceShell<detail::DebugPortCore, detail::NoDebugPortEvents> {
public:
    static constexpr std::size_t register_count = 1;

    /// Takes bytes that the guest wrote, at least one at a time, and returns how many of them it took, or
    /// nothing if it failed. It may also return a plain number. It must not block and must not throw.
    using Sink = Callback<std::optional<std::size_t>(std::span<const std::uint8_t>)>;

    /// The value that debug consoles return when they are read.
    static constexpr std::uint8_t console_id = 0xE9;

    /// A POST code port: keeps the last byte, and passes each byte on to `sink` if there is one.
    explicit DebugPort(Sink sink = {}) : DebugPort(detail::DebugPortCore({}), std::move(sink)) {}

    /// A POST code port that calls `notify(code)` for each code.
    template <class Notify>
        requires std::invocable<Notify&, std::uint8_t>
    [[nodiscard]] static DebugPort post_code(Notify notify) {
        return DebugPort([notify = std::move(notify)](std::span<const std::uint8_t> codes) mutable {
            for (const std::uint8_t code : codes) {
                notify(code);
            }
            return codes.size();
        });
    }

    /// A debug console that reads back `readback`.
    [[nodiscard]] static DebugPort console(Sink sink, std::uint8_t readback = console_id) {
        return {detail::DebugPortCore(readback), std::move(sink)};
    }
    /// A debug console that writes to `writer`, a `Writer` that outlives the port.
    template <Writer W>
    [[nodiscard]] static DebugPort console(W& writer, std::uint8_t readback = console_id) {
        return console(Sink([&writer](std::span<const std::uint8_t> bytes) -> std::optional<std::size_t> {
                           const auto taken = writer.write(bytes);
                           return taken ? std::optional(static_cast<std::size_t>(*taken)) : std::nullopt;
                       }),
                       readback);
    }

    /// A read by the guest.
    std::uint8_t read(std::uint8_t offset = 0) { return peek(offset); }
    [[nodiscard]] std::uint8_t peek(std::uint8_t = 0) const noexcept { return core().read(); }

    /// A write by the guest.
    void write(std::uint8_t, std::uint8_t value) { write_data({&value, 1}); }

    /// Many writes to the port at once, as by REP OUTSB.
    void write_data(std::span<const std::uint8_t> bytes) {
        if (bytes.empty()) {
            return;
        }
        core().write(bytes);
        if (sink_) {
            const std::optional<std::size_t> answer = sink_(bytes);
            const std::size_t taken = answer.value_or(0);
            core().drop(taken < bytes.size() ? bytes.size() - taken : 0);
            if (!answer) {
                host_failed(HostErrorSource::output);
            }
        }
    }

    /// The last byte written, 0 before the first.
    [[nodiscard]] std::uint8_t last() const noexcept { return core().state().last; }
    /// Bytes written by the guest, and how many of them the sink did not take.
    [[nodiscard]] std::uint64_t written() const noexcept { return core().state().written; }
    /// How many bytes the sink did not take.
    [[nodiscard]] std::uint64_t dropped() const noexcept { return core().state().dropped; }

    /// Restores a saved port: a POST code port, or a console if there is a `readback`.
    template <class Self = DebugPort>  // so that inclusion alone does not instantiate std::expected
    [[nodiscard]] static std::expected<Self, StateError> from_state(
        const DebugPortState& state, Sink sink = {}, std::optional<std::uint8_t> readback = {}) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return Self(detail::DebugPortCore(state, readback), std::move(sink));
    }
    /// A hardware reset: sets the latch to 0. The counts are for the host and stay.
    void reset() noexcept { core().reset(); }

private:
    DebugPort(const detail::DebugPortCore& core, Sink sink) : DeviceShell(core, {}), sink_(std::move(sink)) {}

    Sink sink_;
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/exit_port.hpp

namespace vmsuperio::inline v0_2 {

/// Everything that an ExitPort remembers.
struct ExitPortState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("EXIT"), .version = 1, .readable_since = 1};

    bool requested{};       ///< whether the guest has written a status
    std::uint8_t status{};  ///< the status, 0 to 255; 0 if the guest has written none

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [requested, status] = self;
        archive("requested", requested);
        archive("status", status);
    }
    friend constexpr bool operator==(const ExitPortState&, const ExitPortState&) = default;
};

/// Checks whether a port can be in this state. The error names "status" if there is one although no exit was
/// requested.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const ExitPortState& state) {
    if (!state.requested && state.status != 0) {
        return std::unexpected(StateError{"status"});
    }
    return {};
}

namespace detail {

class ExitPortCore : public PortCore<ExitPortState> {
public:
    using PortCore::PortCore;

    struct Effects : PortEffects {
        std::optional<std::uint8_t> requested;

        template <class Events>
        constexpr void report(Events& events) const {
            if (requested) {
                events.exit(*requested);
            }
        }
    };

    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        Effects effects;
        if (!state_.requested) {
            state_ = {.requested = true, .status = value};
            effects.requested = value;
        }
        return effects;
    }
    constexpr void reset() noexcept { state_ = {}; }
};

struct ExitPortEvents {
    Callback<void(std::uint8_t status)> on_exit;
    void exit(std::uint8_t status) {
        if (on_exit) {
            on_exit(status);
        }
    }
};

}  // namespace detail

/// A port through which a guest ends its machine with a status, for tests (QEMU calls its own
/// `isa-debug-exit`, at 0x501 by default).
///
/// The first byte written is the status, 0 to 255; later ones have no effect. QEMU's device ends the process
/// with `(status << 1) | 1` instead, so that no guest can fake a success: `qemu_status()` returns that
/// number. A read returns 0. Thread safety: none.
///
/// It may have up to four ports (QEMU's `iosize=0x04`), so that guests may write 32 bits: the lowest byte is
/// the status.
class ExitPort : public DeviceShell<detail::ExitPortCore, detail::ExitPortEvents> {
public:
    static constexpr std::size_t register_count = 4;

    /// `on_exit(status)` is called once, from within the guest's write. It must not block and must not throw.
    explicit ExitPort(Callback<void(std::uint8_t status)> on_exit = {})
        : ExitPort(detail::ExitPortCore(), std::move(on_exit)) {}

    // NOLINTNEXTLINE(readability-convert-member-functions-to-static): as in all devices
    /// Reads 0.
    std::uint8_t read(std::uint8_t = 0) { return 0; }

    /// The first byte that is written to offset 0 is the guest's exit status.
    void write(std::uint8_t offset, std::uint8_t value) {
        if (offset == 0) {
            apply(core().write(value));
        }
    }
    /// Many writes at once: the first byte is the status.
    void write_data(std::span<const std::uint8_t> bytes) {
        if (!bytes.empty()) {
            write(0, bytes.front());
        }
    }

    /// The exit status that the guest requested, if it has.
    [[nodiscard]] std::optional<std::uint8_t> status() const noexcept {
        const ExitPortState& state = core().state();
        return state.requested ? std::optional(state.status) : std::nullopt;
    }
    /// The exit status that QEMU would end with, 1 to 511, odd. A shell sees its low 8 bits.
    [[nodiscard]] static constexpr int qemu_status(std::uint8_t status) noexcept { return (status << 1) | 1; }

    /// Restores a saved port without calling `on_exit`.
    template <class Self = ExitPort>  // so that inclusion alone does not instantiate std::expected<ExitPort>
    [[nodiscard]] static std::expected<Self, StateError> from_state(
        const ExitPortState& state, Callback<void(std::uint8_t status)> on_exit = {}) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return Self(detail::ExitPortCore(state), std::move(on_exit));
    }
    /// A hardware reset: the next write requests an exit again.
    void reset() noexcept { core().reset(); }

private:
    ExitPort(const detail::ExitPortCore& core, Callback<void(std::uint8_t)> on_exit)
        : DeviceShell(core, {.on_exit = std::move(on_exit)}) {}
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/ps2/byte_queue.hpp

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

// vmsuperio/keys.hpp

namespace vmsuperio::inline v0_2 {

/// The keys of a 105-key PC keyboard. The numbers are those of Linux's evdev interface
/// (`<linux/input-event-codes.h>`), so that `static_cast<Key>(event.code)` is correct. A number that is not
/// listed is a key that this keyboard does not have.
enum class Key : std::uint16_t {
    esc = 1,
    digit_1 = 2,
    digit_2 = 3,
    digit_3 = 4,
    digit_4 = 5,
    digit_5 = 6,
    digit_6 = 7,
    digit_7 = 8,
    digit_8 = 9,
    digit_9 = 10,
    digit_0 = 11,
    minus = 12,
    equal = 13,
    backspace = 14,
    tab = 15,
    q = 16,
    w = 17,
    e = 18,
    r = 19,
    t = 20,
    y = 21,
    u = 22,
    i = 23,
    o = 24,
    p = 25,
    left_brace = 26,
    right_brace = 27,
    enter = 28,
    left_ctrl = 29,
    a = 30,
    s = 31,
    d = 32,
    f = 33,
    g = 34,
    h = 35,
    j = 36,
    k = 37,
    l = 38,
    semicolon = 39,
    apostrophe = 40,
    grave = 41,
    left_shift = 42,
    backslash = 43,
    z = 44,
    x = 45,
    c = 46,
    v = 47,
    b = 48,
    n = 49,
    m = 50,
    comma = 51,
    dot = 52,
    slash = 53,
    right_shift = 54,
    keypad_asterisk = 55,
    left_alt = 56,
    space = 57,
    caps_lock = 58,
    f1 = 59,
    f2 = 60,
    f3 = 61,
    f4 = 62,
    f5 = 63,
    f6 = 64,
    f7 = 65,
    f8 = 66,
    f9 = 67,
    f10 = 68,
    num_lock = 69,
    scroll_lock = 70,
    keypad_7 = 71,
    keypad_8 = 72,
    keypad_9 = 73,
    keypad_minus = 74,
    keypad_4 = 75,
    keypad_5 = 76,
    keypad_6 = 77,
    keypad_plus = 78,
    keypad_1 = 79,
    keypad_2 = 80,
    keypad_3 = 81,
    keypad_0 = 82,
    keypad_dot = 83,
    key_102nd = 86,
    f11 = 87,
    f12 = 88,
    keypad_enter = 96,
    right_ctrl = 97,
    keypad_slash = 98,
    print_screen = 99,
    right_alt = 100,
    home = 102,
    up = 103,
    page_up = 104,
    left = 105,
    right = 106,
    end = 107,
    down = 108,
    page_down = 109,
    insert = 110,
    del = 111,
    pause = 119,
    left_meta = 125,
    right_meta = 126,
    menu = 127,
};

/// A movement of the mouse since the last call. `x` increases to the right, `y` upwards, `wheel` towards the
/// user, in counts. Buttons: bit 0 left, 1 right, 2 middle, 3 fourth, 4 fifth (see `ps2::MouseButtons`).
struct MouseMotion {
    std::int32_t x{};        ///< to the right, in counts
    std::int32_t y{};        ///< upwards, in counts
    std::int32_t wheel{};    ///< towards the user, in counts
    std::uint8_t buttons{};  ///< the buttons that are pressed, a bit for each
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/ps2/scan_codes.hpp

/// Scan codes of a 105-key PC keyboard in sets 1, 2 and 3.
///
/// Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)", tables of the
/// three sets; the controller's translation is the table in the 8042's own ROM as IBM lists it.
namespace vmsuperio::inline v0_2::detail {

inline constexpr std::uint8_t extended_prefix = 0xE0;
inline constexpr std::uint8_t release_prefix = 0xF0;  // of break codes in sets 2 and 3
inline constexpr std::uint8_t set1_release = 0x80;    // the bit of break codes in set 1

/// The controller's translation of a byte from the keyboard. 0xF0 is never passed to this function: the
/// controller removes it and sets bit 7 of the next byte. From 0x80 on only 0x83 (F7) and 0x84 (SysRq)
/// change, because replies (0xFA, 0xFE, 0xAA, 0xEE, ...) and prefixes (0xE0, 0xE1) must pass.
[[nodiscard]] constexpr std::uint8_t translate_to_set1(std::uint8_t code) noexcept {
    constexpr std::array<std::uint8_t, 0x85> table{
        0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,  // 00
        0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,  // 10
        0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,  // 20
        0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,  // 30
        0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,  // 40
        0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,  // 50
        0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,  // 60
        0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,  // 70
        0x80, 0x81, 0x82, 0x41, 0x54};                                                                   // 80
    return code < table.size() ? table[code] : code;
}

/// The bytes that the press or release of a key sends. The longest sequence is that of a key whose form
/// changes while it is held (key_forms.hpp): the break code of the old form and the make code of the new one,
/// 14 bytes.
struct ScanCode {
    std::array<std::uint8_t, 16> bytes{};
    std::uint8_t count{};

    constexpr ScanCode() = default;
    constexpr ScanCode(std::initializer_list<std::uint8_t> codes) {
        for (const std::uint8_t code : codes) {
            push(code);
        }
    }

    constexpr void push(std::uint8_t code) noexcept { bytes[count++] = code; }
    constexpr void append(const ScanCode& more) noexcept {
        for (std::size_t i = 0; i < more.count; ++i) {
            push(more.bytes[i]);
        }
    }
    [[nodiscard]] constexpr std::span<const std::uint8_t> span() const noexcept {
        return {bytes.data(), count};
    }
};

/// Key numbers 1 to 127 as (0xE0 prefix, set 1 code); 0 if there is no such key. Up to 88, Linux' key numbers
/// equal the codes of set 1, so only the later ones need a list.
struct Set1Code {
    bool extended{};
    std::uint8_t code{};
};
[[nodiscard]] constexpr Set1Code set1_code(Key key) noexcept {
    const auto number = static_cast<std::uint16_t>(key);
    if (number >= 1 && number <= 88 && number != 84 && number != 85) {
        return {false, static_cast<std::uint8_t>(number)};
    }
    switch (key) {
        case Key::keypad_enter:
            return {true, 0x1C};
        case Key::right_ctrl:
            return {true, 0x1D};
        case Key::keypad_slash:
            return {true, 0x35};
        case Key::print_screen:
            return {true, 0x37};
        case Key::right_alt:
            return {true, 0x38};
        case Key::home:
            return {true, 0x47};
        case Key::up:
            return {true, 0x48};
        case Key::page_up:
            return {true, 0x49};
        case Key::left:
            return {true, 0x4B};
        case Key::right:
            return {true, 0x4D};
        case Key::end:
            return {true, 0x4F};
        case Key::down:
            return {true, 0x50};
        case Key::page_down:
            return {true, 0x51};
        case Key::insert:
            return {true, 0x52};
        case Key::del:
            return {true, 0x53};
        case Key::left_meta:
            return {true, 0x5B};
        case Key::right_meta:
            return {true, 0x5C};
        case Key::menu:
            return {true, 0x5D};
        default:
            return {};
    }
}

/// The set 2 code that the controller would translate to a given set 1 code (below 0x80); 0 if none.
// Searched for: a table of the inverse would be computed by every compilation that includes this.
[[nodiscard]] constexpr std::uint8_t set2_from_set1(std::uint8_t set1) noexcept {
    // Two codes share these; the keyboard sends the higher one.
    if (set1 == 0x41) {
        return 0x83;  // F7
    }
    if (set1 == 0x54) {
        return 0x84;  // SysRq
    }
    std::uint8_t code = set1 < 0x80 ? 0x7F : 0;
    while (code != 0 && translate_to_set1(code) != set1) {
        --code;
    }
    return code;
}

/// In set 3 each key has one byte. The typewriter keys have their code of set 2; the others are listed.
[[nodiscard]] constexpr std::uint8_t set3_code(Key key) noexcept {
    switch (key) {
        case Key::esc:
            return 0x08;
        case Key::f1:
            return 0x07;
        case Key::f2:
            return 0x0F;
        case Key::f3:
            return 0x17;
        case Key::f4:
            return 0x1F;
        case Key::f5:
            return 0x27;
        case Key::f6:
            return 0x2F;
        case Key::f7:
            return 0x37;
        case Key::f8:
            return 0x3F;
        case Key::f9:
            return 0x47;
        case Key::f10:
            return 0x4F;
        case Key::f11:
            return 0x56;
        case Key::f12:
            return 0x5E;
        case Key::print_screen:
            return 0x57;
        case Key::scroll_lock:
            return 0x5F;
        case Key::pause:
            return 0x62;
        case Key::backslash:
            return 0x5C;
        case Key::key_102nd:
            return 0x13;
        case Key::caps_lock:
            return 0x14;
        case Key::left_ctrl:
            return 0x11;
        case Key::left_alt:
            return 0x19;
        case Key::right_alt:
            return 0x39;
        case Key::right_ctrl:
            return 0x58;
        case Key::left_meta:
            return 0x8B;
        case Key::right_meta:
            return 0x8C;
        case Key::menu:
            return 0x8D;
        case Key::insert:
            return 0x67;
        case Key::del:
            return 0x64;
        case Key::home:
            return 0x6E;
        case Key::end:
            return 0x65;
        case Key::page_up:
            return 0x6F;
        case Key::page_down:
            return 0x6D;
        case Key::up:
            return 0x63;
        case Key::left:
            return 0x61;
        case Key::down:
            return 0x60;
        case Key::right:
            return 0x6A;
        case Key::num_lock:
            return 0x76;
        case Key::keypad_slash:
            return 0x77;
        case Key::keypad_asterisk:
            return 0x7E;
        case Key::keypad_minus:
            return 0x84;
        case Key::keypad_plus:
            return 0x7C;
        case Key::keypad_enter:
            return 0x79;
        default: {
            const Set1Code code = set1_code(key);
            return code.extended ? std::uint8_t{0} : set2_from_set1(code.code);
        }
    }
}

/// The codes that a keyboard sends in scan code set `set` (1 to 3) when `key` is pressed or released and no
/// other key or lock affects it. Empty for a key that does not exist, and for the release of Pause in sets 1
/// and 2, which has no break code.
[[nodiscard]] constexpr ScanCode scan_code(Key key, bool down, std::uint8_t set) noexcept {
    constexpr std::uint8_t extended = extended_prefix;
    constexpr std::uint8_t release = release_prefix;
    if (set == 3) {
        const std::uint8_t code = set3_code(key);
        if (code == 0) {
            return {};
        }
        return down ? ScanCode{code} : ScanCode{release, code};
    }
    if (key == Key::pause) {
        if (!down) {
            return {};
        }
        return set == 1 ? ScanCode{0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5}
                        : ScanCode{0xE1, 0x14, 0x77, 0xE1, release, 0x14, release, 0x77};
    }
    // Print Screen is sent with a left Shift, as on the 83-key keyboard.
    if (key == Key::print_screen) {
        if (set == 1) {
            return down ? ScanCode{extended, 0x2A, extended, 0x37} : ScanCode{extended, 0xB7, extended, 0xAA};
        }
        return down ? ScanCode{extended, 0x12, extended, 0x7C}
                    : ScanCode{extended, release, 0x7C, extended, release, 0x12};
    }
    const Set1Code code = set1_code(key);
    if (code.code == 0) {
        return {};
    }
    if (set == 1) {
        const auto byte = static_cast<std::uint8_t>(code.code | (down ? 0U : set1_release));
        return code.extended ? ScanCode{extended, byte} : ScanCode{byte};
    }
    const std::uint8_t byte = set2_from_set1(code.code);
    if (code.extended) {
        return down ? ScanCode{extended, byte} : ScanCode{extended, release, byte};
    }
    return down ? ScanCode{byte} : ScanCode{release, byte};
}

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/registers/ps2.hpp

/// The commands, replies and data bytes of PS/2 devices.
///
/// Sources: IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)" and
/// "Mouse"; Microsoft's IntelliMouse protocol.
namespace vmsuperio::inline v0_2::ps2 {

/// The commands to a keyboard.
enum class KeyboardCommand : std::uint8_t {
    set_leds = 0xED,         ///< the next byte: bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock
    echo = 0xEE,             ///< answered with itself
    scan_code_set = 0xF0,    ///< the next byte: 1 to 3 selects a set, 0 requests its number
    identify = 0xF2,         ///< answered with AB 83
    set_typematic = 0xF3,    ///< the next byte: bits 0 to 4 the rate, 5 and 6 the delay
    enable = 0xF4,           ///< starts scanning
    default_disable = 0xF5,  ///< defaults, and stops scanning
    set_default = 0xF6,      ///< defaults
    all_typematic = 0xF7,    ///< set 3: the type of all keys
    all_make_break = 0xF8,
    all_make = 0xF9,
    all_typematic_make_break = 0xFA,
    key_typematic = 0xFB,  ///< set 3: the type of the keys whose codes follow
    key_make_break = 0xFC,
    key_make = 0xFD,
    resend = 0xFE,
    reset = 0xFF,
};

/// The commands to a mouse.
enum class MouseCommand : std::uint8_t {
    scaling_1_1 = 0xE6,
    scaling_2_1 = 0xE7,
    set_resolution = 0xE8,  ///< the next byte: 2^n counts per mm, 0 to 3
    status_request = 0xE9,  ///< answered with three bytes
    set_stream = 0xEA,
    read_data = 0xEB,  ///< answered with a packet
    reset_wrap = 0xEC,
    set_wrap = 0xEE,
    set_remote = 0xF0,
    identify = 0xF2,         ///< answered with 0, 3 or 4
    set_sample_rate = 0xF3,  ///< the next byte: 10, 20, 40, 60, 80, 100 or 200 per second
    enable = 0xF4,
    disable = 0xF5,
    set_default = 0xF6,
    resend = 0xFE,
    reset = 0xFF,
};

/// The name of a command in the enumeration; empty for a byte that is not a command.
[[nodiscard]] constexpr std::string_view to_string(KeyboardCommand command) noexcept {
    switch (command) {
        case KeyboardCommand::set_leds:
            return "set_leds";
        case KeyboardCommand::echo:
            return "echo";
        case KeyboardCommand::scan_code_set:
            return "scan_code_set";
        case KeyboardCommand::identify:
            return "identify";
        case KeyboardCommand::set_typematic:
            return "set_typematic";
        case KeyboardCommand::enable:
            return "enable";
        case KeyboardCommand::default_disable:
            return "default_disable";
        case KeyboardCommand::set_default:
            return "set_default";
        case KeyboardCommand::all_typematic:
            return "all_typematic";
        case KeyboardCommand::all_make_break:
            return "all_make_break";
        case KeyboardCommand::all_make:
            return "all_make";
        case KeyboardCommand::all_typematic_make_break:
            return "all_typematic_make_break";
        case KeyboardCommand::key_typematic:
            return "key_typematic";
        case KeyboardCommand::key_make_break:
            return "key_make_break";
        case KeyboardCommand::key_make:
            return "key_make";
        case KeyboardCommand::resend:
            return "resend";
        case KeyboardCommand::reset:
            return "reset";
    }
    return {};
}

/// The name of a command in the enumeration; empty for a byte that is not a command.
[[nodiscard]] constexpr std::string_view to_string(MouseCommand command) noexcept {
    switch (command) {
        case MouseCommand::scaling_1_1:
            return "scaling_1_1";
        case MouseCommand::scaling_2_1:
            return "scaling_2_1";
        case MouseCommand::set_resolution:
            return "set_resolution";
        case MouseCommand::status_request:
            return "status_request";
        case MouseCommand::set_stream:
            return "set_stream";
        case MouseCommand::read_data:
            return "read_data";
        case MouseCommand::reset_wrap:
            return "reset_wrap";
        case MouseCommand::set_wrap:
            return "set_wrap";
        case MouseCommand::set_remote:
            return "set_remote";
        case MouseCommand::identify:
            return "identify";
        case MouseCommand::set_sample_rate:
            return "set_sample_rate";
        case MouseCommand::enable:
            return "enable";
        case MouseCommand::disable:
            return "disable";
        case MouseCommand::set_default:
            return "set_default";
        case MouseCommand::resend:
            return "resend";
        case MouseCommand::reset:
            return "reset";
    }
    return {};
}

/// Whether the byte after the command belongs to it.
[[nodiscard]] constexpr bool takes_parameter(KeyboardCommand command) noexcept {
    return command == KeyboardCommand::set_leds || command == KeyboardCommand::scan_code_set ||
           command == KeyboardCommand::set_typematic ||
           (command >= KeyboardCommand::key_typematic && command <= KeyboardCommand::key_make);
}
[[nodiscard]] constexpr bool takes_parameter(MouseCommand command) noexcept {
    return command == MouseCommand::set_resolution || command == MouseCommand::set_sample_rate;
}

/// The device has understood the byte.
inline constexpr std::uint8_t acknowledge = 0xFA;
inline constexpr std::uint8_t resend_request = 0xFE;  ///< the device requests the byte again
inline constexpr std::uint8_t error = 0xFC;           ///< a mouse received a second invalid byte in a row
/// The device's self-test has passed.
inline constexpr std::uint8_t self_test_passed = 0xAA;
/// The answer of a 101/102-key keyboard to identify, after the acknowledgement.
inline constexpr std::array<std::uint8_t, 2> keyboard_id{0xAB, 0x83};

/// The number of the scan code sets, from 1.
inline constexpr std::uint8_t last_scan_code_set = 3;
/// The exponent of the finest resolution of a mouse: 2^3 counts per mm.
inline constexpr std::uint8_t finest_resolution = 3;

/// Whether a mouse supports this number of reports per second.
[[nodiscard]] constexpr bool is_sample_rate(std::uint8_t rate) noexcept {
    switch (rate) {
        case 10:
        case 20:
        case 40:
        case 60:
        case 80:
        case 100:
        case 200:
            return true;
        default:
            return false;
    }
}

/// The ids of mice, which are the answers to identify.
inline constexpr std::uint8_t standard_mouse = 0;  ///< three buttons, packets of 3 bytes
inline constexpr std::uint8_t wheel_mouse = 3;     ///< IntelliMouse: with a wheel, packets of 4 bytes
inline constexpr std::uint8_t explorer_mouse = 4;  ///< IntelliMouse Explorer: five buttons as well

/// The parameter of set_leds.
struct Leds : Register<Leds, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "leds";
    static constexpr Bit<0> scroll_lock{};
    static constexpr Bit<1> num_lock{};
    static constexpr Bit<2> caps_lock{};
    static constexpr FieldInfo fields[]{
        {"scroll_lock", scroll_lock.bits}, {"num_lock", num_lock.bits}, {"caps_lock", caps_lock.bits}};
};

/// The parameter of set_typematic.
struct Typematic : Register<Typematic, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "typematic";
    static constexpr Field<0, 4> rate{};   // 0 is 30 per second, 31 is 2
    static constexpr Field<5, 6> delay{};  // (delay + 1) * 250 ms
    static constexpr FieldInfo fields[]{{"rate", rate.bits}, {"delay", delay.bits}};
};

/// The held keys on which the codes of other keys depend. This value is never sent over the cable.
struct HeldKeys : Register<HeldKeys, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "modifiers";
    static constexpr Bit<0> left_shift{};
    static constexpr Bit<1> right_shift{};
    static constexpr Bit<2> left_ctrl{};
    static constexpr Bit<3> right_ctrl{};
    static constexpr Bit<4> left_alt{};
    static constexpr Bit<5> right_alt{};
    static constexpr Bit<6> num_lock{};
    static constexpr Field<0, 1> shift{};  // either of the two
    static constexpr Field<2, 3> ctrl{};
    static constexpr Field<4, 5> alt{};
    static constexpr FieldInfo fields[]{{"left_shift", left_shift.bits}, {"right_shift", right_shift.bits},
                                        {"left_ctrl", left_ctrl.bits},   {"right_ctrl", right_ctrl.bits},
                                        {"left_alt", left_alt.bits},     {"right_alt", right_alt.bits},
                                        {"num_lock", num_lock.bits}};
};

/// The buttons of a mouse as reported by the host (`MouseMotion`). The lower three have the same positions as
/// in the first byte of a packet.
struct MouseButtons : Register<MouseButtons, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "buttons";
    static constexpr Bit<0> left{};
    static constexpr Bit<1> right{};
    static constexpr Bit<2> middle{};
    static constexpr Bit<3> fourth{};
    static constexpr Bit<4> fifth{};
    static constexpr Field<0, 2> standard{};  // those that every mouse has
    static constexpr Field<3, 4> extra{};     // those that only an IntelliMouse Explorer has
    static constexpr FieldInfo fields[]{{"left", left.bits},
                                        {"right", right.bits},
                                        {"middle", middle.bits},
                                        {"fourth", fourth.bits},
                                        {"fifth", fifth.bits}};
};

/// The first byte of a mouse's answer to status_request.
struct MouseStatus : Register<MouseStatus, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "mouse_status";
    static constexpr Bit<0, Access::read_only> right{};
    static constexpr Bit<1, Access::read_only> middle{};
    static constexpr Bit<2, Access::read_only> left{};
    static constexpr Bit<4, Access::read_only> scaling_2_1{};
    static constexpr Bit<5, Access::read_only> reporting{};
    static constexpr Bit<6, Access::read_only> remote{};
    static constexpr FieldInfo fields[]{{"right", right.bits},         {"middle", middle.bits},
                                        {"left", left.bits},           {"scaling_2_1", scaling_2_1.bits},
                                        {"reporting", reporting.bits}, {"remote", remote.bits}};
};

/// The first byte of a packet; the lower eight bits of x and of y follow.
struct MousePacket : Register<MousePacket, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "mouse_packet";
    static constexpr Bit<0, Access::read_only> left{};
    static constexpr Bit<1, Access::read_only> right{};
    static constexpr Bit<2, Access::read_only> middle{};
    static constexpr Bit<3, Access::read_only> always_set{};  // drivers identify the first byte by it
    static constexpr Bit<4, Access::read_only> x_negative{};
    static constexpr Bit<5, Access::read_only> y_negative{};
    static constexpr Bit<6, Access::read_only> x_overflow{};
    static constexpr Bit<7, Access::read_only> y_overflow{};
    static constexpr Field<0, 2, Access::read_only> buttons{};  // as MouseButtons::standard
    static constexpr FieldInfo fields[]{{"left", left.bits},
                                        {"right", right.bits},
                                        {"middle", middle.bits},
                                        {"always_set", always_set.bits},
                                        {"x_negative", x_negative.bits},
                                        {"y_negative", y_negative.bits},
                                        {"x_overflow", x_overflow.bits},
                                        {"y_overflow", y_overflow.bits}};
};

/// The fourth byte of a packet of an IntelliMouse Explorer. An IntelliMouse has eight bits of wheel there.
struct MouseExtra : Register<MouseExtra, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "mouse_extra";
    static constexpr Field<0, 3, Access::read_only> wheel{};  // two's complement
    static constexpr Bit<4, Access::read_only> fourth{};
    static constexpr Bit<5, Access::read_only> fifth{};
    static constexpr Field<4, 5, Access::read_only> buttons{};  // as MouseButtons::extra
    static constexpr FieldInfo fields[]{
        {"wheel", wheel.bits}, {"fourth", fourth.bits}, {"fifth", fifth.bits}};
};

}  // namespace vmsuperio::inline v0_2::ps2

// vmsuperio/ps2/key_forms.hpp

/// The keys whose codes depend on other keys and on Num Lock, in sets 1 and 2; in set 3 no code does.
///
/// Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)", the tables of sets
/// 1 and 2 after the list of keys with one code: key numbers 75, 76, 79 to 81, 83 to 86 and 89 (the ten grey
/// cursor keys), 95 (keypad /), 124 (Print Screen) and 126 (Pause).
///
/// | keys | alone | with Shift | with Num Lock | with Ctrl | with Alt |
/// |---|---|---|---|---|---|
/// | cursor | E0 70 | E0 F0 12, E0 70 | E0 12, E0 70 | as alone | as alone |
/// | keypad / | E0 4A | E0 F0 12, E0 4A | as alone | as alone | as alone |
/// | Print Screen | E0 12, E0 7C | E0 7C | as alone | E0 7C | 84 |
/// | Pause | E1 14 77 E1 F0 14 F0 77 | as alone | as alone | E0 7E, E0 F0 7E | as alone |
///
/// With both Shift and Num Lock the cursor keys send the same codes as alone. The right Shift is cancelled
/// with E0 F0 59, both Shifts with both codes. A break code mirrors its make code.
namespace vmsuperio::inline v0_2::detail {

/// The bit of a key on which the codes of other keys depend, or 0 for a key on which none depends.
[[nodiscard]] constexpr ps2::HeldKeys held_key(Key key) noexcept {
    using Held = ps2::HeldKeys;
    switch (key) {
        case Key::left_shift:
            return Held().set(Held::left_shift);
        case Key::right_shift:
            return Held().set(Held::right_shift);
        case Key::left_ctrl:
            return Held().set(Held::left_ctrl);
        case Key::right_ctrl:
            return Held().set(Held::right_ctrl);
        case Key::left_alt:
            return Held().set(Held::left_alt);
        case Key::right_alt:
            return Held().set(Held::right_alt);
        case Key::num_lock:
            return Held().set(Held::num_lock);
        default:
            return {};
    }
}

/// The form in which a key of the table above was pressed, as a bit mask. Its break code must match that
/// form, whatever has happened to the other keys since.
namespace key_form {
inline constexpr std::uint8_t up = 0x00;           ///< no make code was sent, or the break code as well
inline constexpr std::uint8_t down = 0x01;         ///< set in every form except `up`
inline constexpr std::uint8_t hides_left = 0x02;   ///< the left Shift was cancelled before the code
inline constexpr std::uint8_t hides_right = 0x04;  ///< the right Shift was cancelled before the code
inline constexpr std::uint8_t fakes_left = 0x08;   ///< a left Shift was added before the code
inline constexpr std::uint8_t alternate = 0x10;    ///< Print Screen as SysRq, Pause as Break

[[nodiscard]] constexpr bool valid(std::uint8_t form) noexcept {
    const bool hides = (form & (hides_left | hides_right)) != 0;
    const bool fakes = (form & fakes_left) != 0;
    const bool other = (form & alternate) != 0;
    return form == up || (form <= 0x1F && (form & down) != 0 && hides + fakes + other <= 1);
}

/// How many keys have forms.
inline constexpr std::size_t count = 13;

/// The index of a key among those that have forms, or `count` for all others.
[[nodiscard]] constexpr std::size_t index_of(Key key) noexcept {
    switch (key) {
        case Key::insert:
            return 0;
        case Key::del:
            return 1;
        case Key::home:
            return 2;
        case Key::end:
            return 3;
        case Key::page_up:
            return 4;
        case Key::page_down:
            return 5;
        case Key::up:
            return 6;
        case Key::down:
            return 7;
        case Key::left:
            return 8;
        case Key::right:
            return 9;
        case Key::keypad_slash:
            return 10;
        case Key::print_screen:
            return 11;
        case Key::pause:
            return 12;
        default:
            return count;
    }
}

/// The form of a key that is pressed while the keys of `modifiers` are held.
[[nodiscard]] constexpr std::uint8_t of(Key key, ps2::HeldKeys modifiers, bool num_lock) noexcept {
    using Held = ps2::HeldKeys;
    const bool shifted = modifiers[Held::shift] != 0;
    if (key == Key::pause) {
        return modifiers[Held::ctrl] != 0 ? down | alternate : down;
    }
    if (key == Key::print_screen) {
        if (modifiers[Held::alt] != 0) {
            return down | alternate;
        }
        return modifiers[Held::ctrl] != 0 || shifted ? down : down | fakes_left;
    }
    if (key != Key::keypad_slash && num_lock) {
        return shifted ? down : down | fakes_left;
    }
    return static_cast<std::uint8_t>(down | (modifiers[Held::left_shift] ? hides_left : 0U) |
                                     (modifiers[Held::right_shift] ? hides_right : 0U));
}
}  // namespace key_form

/// The codes of the keys that have forms, in one scan code set.
class FormedCodes {
public:
    explicit constexpr FormedCodes(std::uint8_t set) noexcept : set_(set) {}

    /// The make code, with the Shift codes before it.
    [[nodiscard]] constexpr ScanCode make(Key key, std::uint8_t form) const noexcept {
        ScanCode code;
        if (set_ != 3) {
            if ((form & key_form::hides_left) != 0) {
                shift(code, Key::left_shift, false);
            }
            if ((form & key_form::hides_right) != 0) {
                shift(code, Key::right_shift, false);
            }
            if ((form & key_form::fakes_left) != 0) {
                shift(code, Key::left_shift, true);
            }
        }
        code.append(bare(key, true, form));
        return code;
    }
    /// The make code alone, which a held key repeats.
    [[nodiscard]] constexpr ScanCode repeat(Key key, std::uint8_t form) const noexcept {
        return bare(key, true, form);
    }
    /// The break code, with the codes that restore the Shift keys: a Shift that was cancelled is restored
    /// only if it is still held, and one that was added is removed unless it has really been pressed.
    [[nodiscard]] constexpr ScanCode break_code(Key key, std::uint8_t form,
                                                ps2::HeldKeys modifiers) const noexcept {
        ScanCode code = bare(key, false, form);
        if (set_ == 3) {
            return code;
        }
        const bool left = modifiers[ps2::HeldKeys::left_shift];
        const bool right = modifiers[ps2::HeldKeys::right_shift];
        if ((form & key_form::hides_right) != 0 && right) {
            shift(code, Key::right_shift, true);
        }
        if ((form & key_form::hides_left) != 0 && left) {
            shift(code, Key::left_shift, true);
        }
        if ((form & key_form::fakes_left) != 0 && !left) {
            shift(code, Key::left_shift, false);
        }
        return code;
    }

private:
    static constexpr std::uint8_t extended = extended_prefix;
    static constexpr std::uint8_t release = release_prefix;

    constexpr void shift(ScanCode& code, Key key, bool down) const noexcept {
        code.push(extended);
        code.append(scan_code(key, down, set_));
    }
    [[nodiscard]] constexpr ScanCode bare(Key key, bool down, std::uint8_t form) const noexcept {
        if (set_ == 3) {
            return scan_code(key, down, set_);
        }
        const bool other = (form & key_form::alternate) != 0;
        if (key == Key::print_screen) {
            if (set_ == 1) {
                const auto code =
                    static_cast<std::uint8_t>((other ? 0x54U : 0x37U) | (down ? 0U : set1_release));
                return other ? ScanCode{code} : ScanCode{extended, code};
            }
            if (other) {
                return down ? ScanCode{0x84} : ScanCode{release, 0x84};
            }
            return down ? ScanCode{extended, 0x7C} : ScanCode{extended, release, 0x7C};
        }
        if (key == Key::pause && other) {
            if (!down) {
                return {};
            }
            return set_ == 1 ? ScanCode{extended, 0x46, extended, 0xC6}
                             : ScanCode{extended, 0x7E, extended, release, 0x7E};
        }
        return scan_code(key, down, set_);
    }

    std::uint8_t set_;
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/ps2/keyboard_state.hpp

namespace vmsuperio::inline v0_2 {

/// A PS/2 keyboard as plain data.
struct Ps2KeyboardState {
    bool scanning{true};            ///< key movements are sent (enable, default_disable)
    std::uint8_t scan_code_set{2};  ///< 1 to 3
    std::uint8_t leds{};            ///< see `ps2::Leds`
    /// The parameter of set_typematic, which has no effect. By default 10.9 per second, after 500 ms.
    std::uint8_t typematic{
        ps2::Typematic().set(ps2::Typematic::rate, 11).set(ps2::Typematic::delay, 1).value()};
    std::uint8_t waiting_for{};    ///< the command whose parameter comes next, or 0
    std::uint8_t last_sent{};      ///< the byte that resend sends again
    detail::ByteQueue<4> replies;  ///< answers that wait to be read, the oldest first
    /// 14 bytes of scan codes and one of overrun, one less while the controller's output buffer is full.
    /// Deviation: a real keyboard has 16 and the overrun code. A guest must be able to read fewer than 16
    /// bytes in a row: if a controller returns 16, SeaBIOS (ps2port.c, i8042_flush) and Linux 2.6 (i8042.c,
    /// i8042_controller_check) conclude that it is absent, so a user who types before the driver loads would
    /// lose the keyboard.
    detail::ByteQueue<15> keys;
    // Since version 2.
    std::uint8_t modifiers{};      ///< the held keys on which other codes depend, see `ps2::HeldKeys`
    bool num_lock_toggled{false};  ///< the keyboard's own Num Lock differs from the LED
    /// The form in which each of the cursor keys, keypad /, Print Screen and Pause was pressed; 0 if
    /// released.
    std::array<std::uint8_t, detail::key_form::count> forms{};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        visit_version(1, self, archive);
        visit_version(2, self, archive);
    }
    /// Visits the members that one version added: a controller's state has all those of version 1 first.
    template <class Self, class Archive>
    static constexpr void visit_version(int version, Self& self, Archive& archive) {
        auto& [scanning, scan_code_set, leds, typematic, waiting_for, last_sent, replies, keys, modifiers,
               num_lock_toggled, forms] = self;
        if (version == 1) {
            archive("scanning", scanning);
            archive("scan_code_set", scan_code_set, decimal);
            archive("leds", leds, as<ps2::Leds>);
            archive("typematic", typematic, as<ps2::Typematic>);
            archive("waiting_for", waiting_for, as_command<ps2::KeyboardCommand>);
            archive("last_sent", last_sent);
            archive.bytes("replies", replies.bytes, replies.count);
            archive.bytes("keys", keys.bytes, keys.count);
        } else {
            archive.since(2, "modifiers", modifiers, as<ps2::HeldKeys>);
            archive.since(2, "num_lock_toggled", num_lock_toggled);
            archive.since(2, "forms", forms);
        }
    }
    friend constexpr bool operator==(const Ps2KeyboardState&, const Ps2KeyboardState&) = default;
};

/// Checks whether a keyboard can be in this state. The error names the member as in a controller's state:
/// "keyboard.leds".
[[nodiscard]] constexpr std::expected<void, StateError> validate(const Ps2KeyboardState& state) {
    if (state.scan_code_set < 1 || state.scan_code_set > ps2::last_scan_code_set) {
        return std::unexpected(StateError{"keyboard.scan_code_set"});
    }
    if (state.leds > ps2::Leds::guest_mask()) {
        return std::unexpected(StateError{"keyboard.leds"});
    }
    if (state.typematic > ps2::Typematic::guest_mask()) {
        return std::unexpected(StateError{"keyboard.typematic"});
    }
    if (state.waiting_for != 0 && !ps2::takes_parameter(ps2::KeyboardCommand{state.waiting_for})) {
        return std::unexpected(StateError{"keyboard.waiting_for"});
    }
    if (!state.replies.valid()) {
        return std::unexpected(StateError{"keyboard.replies"});
    }
    if (!state.keys.valid()) {
        return std::unexpected(StateError{"keyboard.keys"});
    }
    if (state.modifiers > ps2::HeldKeys::guest_mask()) {
        return std::unexpected(StateError{"keyboard.modifiers"});
    }
    for (const std::uint8_t form : state.forms) {
        if (!detail::key_form::valid(form)) {
            return std::unexpected(StateError{"keyboard.forms"});
        }
    }
    return {};
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/ps2/mouse_state.hpp

namespace vmsuperio::inline v0_2 {

/// A PS/2 mouse as plain data.
struct Ps2MouseState {
    /// The limit of accumulated motion in each direction.
    static constexpr std::int16_t max_count = 0x7FFF;

    std::uint8_t id{
        ps2::standard_mouse};       ///< 0 three buttons, 3 with a wheel, 4 with a wheel and five buttons
    bool reporting{false};          ///< whether movements are sent without a request (0xF4)
    bool remote{false};             ///< remote mode: movements are sent on request only (0xF0)
    bool wrap{false};               ///< wrap mode: bytes are sent back (0xEE)
    bool scaling_2_1{false};        ///< scaling 2:1 (0xE7)
    std::uint8_t resolution{2};     ///< 2^n counts per mm
    std::uint8_t sample_rate{100};  ///< reports per second: 10, 20, 40, 60, 80, 100 or 200
    /// The two sample rates set before, oldest first: the IntelliMouse knock.
    std::array<std::uint8_t, 2> earlier_rates{};
    std::uint8_t waiting_for{};     ///< the command whose parameter comes next, or 0
    bool resend_failed{false};      ///< the last byte was refused: the next refusal is `ps2::error`
    std::uint8_t last_sent{};       ///< the last byte sent, for the command Resend
    std::uint8_t buttons{};         ///< see `ps2::MouseButtons`
    bool buttons_changed{false};    ///< a report is due whatever the buttons are; version 1 stored only this
    std::int16_t x{};               ///< counted and not yet in a packet
    std::int16_t y{};               ///< movement up that is not reported yet
    std::int16_t wheel{};           ///< turns of the wheel that are not reported yet
    detail::ByteQueue<6> replies;   ///< answers that wait to be read, the oldest first
    detail::ByteQueue<16> packets;  ///< whole packets, except the oldest, of which a part may have been sent
    // Since version 2.
    detail::ByteQueue<4> last_packet;  ///< the packet that resend sends again; if empty, last_sent
    std::uint8_t reported_buttons{};   ///< the buttons in the last packet that was sent

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        visit_version(1, self, archive);
        visit_version(2, self, archive);
    }
    /// Visits the members that one version added: a controller's state has all those of version 1 first.
    template <class Self, class Archive>
    static constexpr void visit_version(int version, Self& self, Archive& archive) {
        auto& [id, reporting, remote, wrap, scaling_2_1, resolution, sample_rate, earlier_rates, waiting_for,
               resend_failed, last_sent, buttons, buttons_changed, x, y, wheel, replies, packets, last_packet,
               reported_buttons] = self;
        if (version == 1) {
            archive("id", id, decimal);
            archive("reporting", reporting);
            archive("remote", remote);
            archive("wrap", wrap);
            archive("scaling_2_1", scaling_2_1);
            archive("resolution", resolution, decimal);
            archive("sample_rate", sample_rate, decimal);
            archive("earlier_rates", earlier_rates);
            archive("waiting_for", waiting_for, as_command<ps2::MouseCommand>);
            archive("resend_failed", resend_failed);
            archive("last_sent", last_sent);
            archive("buttons", buttons, as<ps2::MouseButtons>);
            archive("buttons_changed", buttons_changed);
            archive("x", x);
            archive("y", y);
            archive("wheel", wheel);
            archive.bytes("replies", replies.bytes, replies.count);
            archive.bytes("packets", packets.bytes, packets.count);
        } else {
            archive.bytes_since(2, "last_packet", last_packet.bytes, last_packet.count);
            archive.since(2, "reported_buttons", reported_buttons, as<ps2::MouseButtons>);
        }
    }
    friend constexpr bool operator==(const Ps2MouseState&, const Ps2MouseState&) = default;
};

/// Checks whether a mouse can be in this state. The error names the member as in a controller's state:
/// "mouse.id".
[[nodiscard]] constexpr std::expected<void, StateError> validate(const Ps2MouseState& state) {
    constexpr auto in_range = [](std::int16_t count) {
        return count >= -Ps2MouseState::max_count && count <= Ps2MouseState::max_count;
    };
    if (state.id != ps2::standard_mouse && state.id != ps2::wheel_mouse && state.id != ps2::explorer_mouse) {
        return std::unexpected(StateError{"mouse.id"});
    }
    if (state.resolution > ps2::finest_resolution) {
        return std::unexpected(StateError{"mouse.resolution"});
    }
    if (!ps2::is_sample_rate(state.sample_rate)) {
        return std::unexpected(StateError{"mouse.sample_rate"});
    }
    if (state.waiting_for != 0 && !ps2::takes_parameter(ps2::MouseCommand{state.waiting_for})) {
        return std::unexpected(StateError{"mouse.waiting_for"});
    }
    if (state.buttons > ps2::MouseButtons::guest_mask()) {
        return std::unexpected(StateError{"mouse.buttons"});
    }
    if (!in_range(state.x)) {
        return std::unexpected(StateError{"mouse.x"});
    }
    if (!in_range(state.y)) {
        return std::unexpected(StateError{"mouse.y"});
    }
    if (!in_range(state.wheel)) {
        return std::unexpected(StateError{"mouse.wheel"});
    }
    if (!state.replies.valid()) {
        return std::unexpected(StateError{"mouse.replies"});
    }
    if (!state.packets.valid()) {
        return std::unexpected(StateError{"mouse.packets"});
    }
    if (!state.last_packet.valid()) {
        return std::unexpected(StateError{"mouse.last_packet"});
    }
    if (state.reported_buttons > ps2::MouseButtons::guest_mask()) {
        return std::unexpected(StateError{"mouse.reported_buttons"});
    }
    return {};
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/registers/i8042.hpp

/// The registers and commands of the PS/2 keyboard and auxiliary device controller.
///
/// Sources: IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
/// Controller"; IBM PC/AT Technical Reference (6280070), "Keyboard Controller".
namespace vmsuperio::inline v0_2::i8042 {

inline constexpr std::uint8_t data_offset = 0;     ///< port 0x60
inline constexpr std::uint8_t command_offset = 4;  ///< port 0x64: status when read, command when written

/// Status register: read at port 0x64. The guest cannot write it.
struct Status : Register<Status, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "status";
    static constexpr Bit<0, Access::read_only> output_full{};  // OBF: a byte waits at port 0x60
    static constexpr Bit<1, Access::read_only>
        input_full{};  // IBF: the controller has not yet taken the last write
    static constexpr Bit<2, Access::read_only> system_flag{};  // SYS: mirrors bit 2 of the command byte
    static constexpr Bit<3, Access::read_only>
        last_command{};  // A2: the last write went to 0x64 (1) or 0x60 (0)
    static constexpr Bit<4, Access::read_only> not_locked{};  // INH: 0 while the key lock is turned
    static constexpr Bit<5, Access::read_only>
        aux_data{};  // MOBF: the byte in the output buffer is from the mouse
    static constexpr Bit<6, Access::read_only> timeout{};  // TO: the device did not answer
    static constexpr Bit<7, Access::read_only>
        parity_error{};  // PERR: the last byte from the device had bad parity
    static constexpr FieldInfo fields[]{
        {"output_full", output_full.bits}, {"input_full", input_full.bits},
        {"system_flag", system_flag.bits}, {"last_command", last_command.bits},
        {"not_locked", not_locked.bits},   {"aux_data", aux_data.bits},
        {"timeout", timeout.bits},         {"parity_error", parity_error.bits}};
};

/// Command byte (controller configuration byte): RAM byte 0, commands 0x20 and 0x60. Bit 7 is reserved, 0.
struct CommandByte : Register<CommandByte, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "command_byte";
    static constexpr Bit<0> keyboard_interrupt{};  // IRQ 1 while a keyboard byte is in the output buffer
    static constexpr Bit<1> aux_interrupt{};       // IRQ 12 while a mouse byte is in the output buffer
    static constexpr Bit<2> system_flag{};         // shown as SYS in the status
    static constexpr Bit<3> ignore_lock{};
    static constexpr Bit<4> keyboard_disabled{};  // the keyboard's clock line is held low
    static constexpr Bit<5> aux_disabled{};       // the mouse's clock line is held low
    static constexpr Bit<6> translate{};          // scan code set 2 from the keyboard becomes set 1
    static constexpr FieldInfo fields[]{{"keyboard_interrupt", keyboard_interrupt.bits},
                                        {"aux_interrupt", aux_interrupt.bits},
                                        {"system_flag", system_flag.bits},
                                        {"ignore_lock", ignore_lock.bits},
                                        {"keyboard_disabled", keyboard_disabled.bits},
                                        {"aux_disabled", aux_disabled.bits},
                                        {"translate", translate.bits}};
};

/// Output port: commands 0xD0 and 0xD1.
struct OutputPort : Register<OutputPort, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "output_port";
    static constexpr Bit<0, Access::read_only> not_reset{};  // 0 resets the CPU
    static constexpr Bit<1> a20_gate{};                      // 1 enables address line 20
    static constexpr Bit<2> aux_data{};                      // the lines to the mouse
    static constexpr Bit<3> aux_clock{};
    static constexpr Bit<4, Access::read_only> keyboard_full{};  // IRQ 1's source: follows the output buffer
    static constexpr Bit<5, Access::read_only> aux_full{};       // IRQ 12's source: follows the output buffer
    static constexpr Bit<6> keyboard_clock{};                    // the lines to the keyboard
    static constexpr Bit<7> keyboard_data{};
    static constexpr FieldInfo fields[]{{"not_reset", not_reset.bits},
                                        {"a20_gate", a20_gate.bits},
                                        {"aux_data", aux_data.bits},
                                        {"aux_clock", aux_clock.bits},
                                        {"keyboard_full", keyboard_full.bits},
                                        {"aux_full", aux_full.bits},
                                        {"keyboard_clock", keyboard_clock.bits},
                                        {"keyboard_data", keyboard_data.bits}};
};

/// Input port: command 0xC0.
struct InputPort : Register<InputPort, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "input_port";
    static constexpr Bit<0, Access::read_only> keyboard_data{};  // the line from the keyboard
    static constexpr Bit<1, Access::read_only> aux_data{};       // the line from the mouse
    static constexpr Bit<7, Access::read_only> not_locked{};     // 0 while the key lock is turned
    static constexpr FieldInfo fields[]{
        {"keyboard_data", keyboard_data.bits}, {"aux_data", aux_data.bits}, {"not_locked", not_locked.bits}};
};

/// Test inputs: command 0xE0. A clock line is low while its port is disabled.
struct TestInputs : Register<TestInputs, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "test_inputs";
    static constexpr Bit<0, Access::read_only> keyboard_clock{};
    static constexpr Bit<1, Access::read_only> aux_clock{};
    static constexpr FieldInfo fields[]{{"keyboard_clock", keyboard_clock.bits},
                                        {"aux_clock", aux_clock.bits}};
};

/// Commands, written to port 0x64.
enum class Command : std::uint8_t {
    read_ram = 0x20,   ///< to 0x3F: reads RAM byte 0 to 31; 0x20 is the command byte
    write_ram = 0x60,  ///< to 0x7F: the next data byte goes to RAM byte 0 to 31
    test_password = 0xA4,
    disable_aux = 0xA7,
    enable_aux = 0xA8,
    test_aux = 0xA9,
    self_test = 0xAA,
    test_keyboard = 0xAB,
    disable_keyboard = 0xAD,
    enable_keyboard = 0xAE,
    read_input_port = 0xC0,
    read_output_port = 0xD0,
    write_output_port = 0xD1,
    write_keyboard_output = 0xD2,  ///< the next data byte appears as if the keyboard had sent it
    write_aux_output = 0xD3,       ///< the next data byte appears as if the mouse had sent it
    write_aux = 0xD4,              ///< the next data byte goes to the mouse
    disable_a20 = 0xDD,
    enable_a20 = 0xDF,
    read_test_inputs = 0xE0,
    pulse_output = 0xF0,  ///< to 0xFF: the output port bits whose low bit here is 0 are pulsed low
};

/// The size of the RAM in bytes, which separate commands read and write.
inline constexpr std::size_t ram_size = 32;
/// The RAM byte to which a command of the ranges `read_ram` and `write_ram` refers.
[[nodiscard]] constexpr std::size_t ram_address(Command command) noexcept {
    return static_cast<std::size_t>(command) % ram_size;
}
/// The command that a byte encodes: the first of its range if it is within one.
[[nodiscard]] constexpr Command without_operand(Command command) noexcept {
    constexpr auto in_range = [](Command byte, Command first, std::size_t count) {
        return byte >= first && static_cast<std::size_t>(byte) < static_cast<std::size_t>(first) + count;
    };
    if (in_range(command, Command::read_ram, ram_size)) {
        return Command::read_ram;
    }
    if (in_range(command, Command::write_ram, ram_size)) {
        return Command::write_ram;
    }
    return command >= Command::pulse_output ? Command::pulse_output : command;
}
/// Whether the next byte written to port 0x60 belongs to the command.
[[nodiscard]] constexpr bool takes_data(Command command) noexcept {
    switch (without_operand(command)) {
        case Command::write_ram:
        case Command::write_output_port:
        case Command::write_keyboard_output:
        case Command::write_aux_output:
        case Command::write_aux:
            return true;
        default:
            return false;
    }
}

/// The name of a command in the enumeration, for all bytes of a range; empty for a byte that is not a
/// command.
[[nodiscard]] constexpr std::string_view to_string(Command command) noexcept {
    switch (without_operand(command)) {
        case Command::read_ram:
            return "read_ram";
        case Command::write_ram:
            return "write_ram";
        case Command::test_password:
            return "test_password";
        case Command::disable_aux:
            return "disable_aux";
        case Command::enable_aux:
            return "enable_aux";
        case Command::test_aux:
            return "test_aux";
        case Command::self_test:
            return "self_test";
        case Command::test_keyboard:
            return "test_keyboard";
        case Command::disable_keyboard:
            return "disable_keyboard";
        case Command::enable_keyboard:
            return "enable_keyboard";
        case Command::read_input_port:
            return "read_input_port";
        case Command::read_output_port:
            return "read_output_port";
        case Command::write_output_port:
            return "write_output_port";
        case Command::write_keyboard_output:
            return "write_keyboard_output";
        case Command::write_aux_output:
            return "write_aux_output";
        case Command::write_aux:
            return "write_aux";
        case Command::disable_a20:
            return "disable_a20";
        case Command::enable_a20:
            return "enable_a20";
        case Command::read_test_inputs:
            return "read_test_inputs";
        case Command::pulse_output:
            return "pulse_output";
    }
    return {};
}

inline constexpr std::uint8_t reset_cpu = 0xFE;  ///< pulses bit 0 of the output port: resets the CPU
/// The answer to 0xAA: the controller works.
inline constexpr std::uint8_t self_test_passed = 0x55;
/// The answer to 0xA9 and 0xAB: the port works.
inline constexpr std::uint8_t interface_test_passed = 0x00;
/// The answer to 0xA4: no password is set.
inline constexpr std::uint8_t no_password = 0xF1;
inline constexpr std::uint8_t no_device = 0xFE;  ///< with a timeout: replaces the answer of an absent device

/// The name of the register that an access reaches, for traces and debuggers; empty if there is none.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset, bool write) noexcept {
    switch (offset) {
        case data_offset:
            return "data";
        case command_offset:
            return write ? "command" : Status::name;
        default:
            return {};
    }
}

}  // namespace vmsuperio::inline v0_2::i8042

// vmsuperio/i8042_state.hpp

namespace vmsuperio::inline v0_2 {

/// Which parts of the controller exist.
enum class I8042Profile : std::uint8_t {
    full,     ///< controller, keyboard and mouse
    minimal,  ///< only the CPU reset; every read returns 0, as in rust-vmm's vm-superio. A Linux guest waits
              ///< half a second for the controller unless i8042.noprobe or ACPI reports that it is absent.
    absent,   ///< no controller: reads return 0xFF, writes have no effect
};

[[nodiscard]] constexpr std::string_view to_string(I8042Profile profile) noexcept {
    switch (profile) {
        case I8042Profile::full:
            return "full";
        case I8042Profile::minimal:
            return "minimal";
        case I8042Profile::absent:
            return "absent";
    }
    return "unknown profile";
}

/// The configuration of the controller.
struct I8042Options {
    I8042Profile profile{I8042Profile::full};  ///< which controller the device pretends to be
    bool keyboard{true};                       ///< a keyboard is plugged in
    bool mouse{true};                          ///< a mouse is plugged in
    /// The command byte at reset. The default is the value that a PC's firmware leaves (keyboard with its
    /// interrupt and translation enabled, mouse port disabled, system flag set), because most VMMs start the
    /// kernel without firmware.
    std::uint8_t command_byte{i8042::CommandByte()
                                  .set(i8042::CommandByte::keyboard_interrupt)
                                  .set(i8042::CommandByte::system_flag)
                                  .set(i8042::CommandByte::aux_disabled)
                                  .set(i8042::CommandByte::translate)
                                  .value()};
    bool a20{true};  ///< address line 20 is enabled at reset
    bool self_tests{
        false};  ///< at reset the self-test results wait: 0xAA of the keyboard, 0xAA 0x00 of the mouse
    /// The time from the read of a byte at port 0x60 until the next byte of a device arrives, at most 1 s; 0
    /// means at once. A real device takes about a millisecond, and chained keyboard handlers rely on that:
    /// see `tick()`.
    std::chrono::nanoseconds hold_off{0};

    /// The state after power-on, for VMMs that run firmware: A20 is held low, both ports and their interrupts
    /// are disabled, translation is off, no self-test has passed, and the devices' self-test results wait
    /// behind their ports.
    [[nodiscard]] static constexpr I8042Options power_on() noexcept {
        return {.command_byte = i8042::CommandByte()
                                    .set(i8042::CommandByte::keyboard_disabled)
                                    .set(i8042::CommandByte::aux_disabled)
                                    .value(),
                .a20 = false,
                .self_tests = true};
    }
};

/// The controller, its keyboard and its mouse as plain data.
struct I8042State {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("8042"), .version = 2, .readable_since = 1};
    /// The longest hold-off, in ns.
    static constexpr std::uint64_t longest_hold_off = 1'000'000'000;

    I8042Profile profile{I8042Profile::full};  ///< which controller the device pretends to be
    bool keyboard_present{true};               ///< whether a keyboard is plugged in
    bool mouse_present{true};                  ///< whether a mouse is plugged in
    std::uint8_t reset_command_byte{I8042Options{}.command_byte};  ///< the command byte after a reset
    std::array<std::uint8_t, i8042::ram_size> ram{I8042Options{}.command_byte};  ///< byte 0: command byte
    /// No CPU reset, A20 enabled, and the lines to the devices high as with open collectors. The bits that
    /// follow the output buffer are 0 here.
    std::uint8_t output_port{i8042::OutputPort()
                                 .set(i8042::OutputPort::not_reset)
                                 .set(i8042::OutputPort::a20_gate)
                                 .set(i8042::OutputPort::aux_data)
                                 .set(i8042::OutputPort::aux_clock)
                                 .set(i8042::OutputPort::keyboard_clock)
                                 .set(i8042::OutputPort::keyboard_data)
                                 .value()};
    std::uint8_t waiting_for{};     ///< the command whose data byte comes next, or 0
    bool last_write_command{};      ///< status bit 3: the last write was to port 0x64
    bool output_full{};             ///< status bit 0: a byte waits in port 0x60
    std::uint8_t output_data{};     ///< the byte that port 0x60 shows
    std::uint8_t output_flags{};    ///< the output byte's MOBF, TO and PERR, as in the status
    bool response_waiting{};        ///< the controller's own answer waits for the output buffer
    std::uint8_t response{};        ///< an answer of the controller that waits for the port
    std::uint8_t response_flags{};  ///< the status bits of that answer
    Ps2KeyboardState keyboard{};    ///< the keyboard
    Ps2MouseState mouse{};          ///< the mouse
    // Since version 2.
    bool reset_a20{true};          ///< whether address line 20 is on after a reset
    bool reset_self_tests{false};  ///< whether the devices send their self-test results after a reset
    std::uint64_t hold_left{};     ///< the rest of the hold-off, as of the last access or `tick()`, in ns

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [profile, keyboard_present, mouse_present, reset_command_byte, ram, output_port, waiting_for,
               last_write_command, output_full, output_data, output_flags, response_waiting, response,
               response_flags, keyboard, mouse, reset_a20, reset_self_tests, hold_left] = self;
        archive("profile", profile);
        archive("keyboard_present", keyboard_present);
        archive("mouse_present", mouse_present);
        archive("reset_command_byte", reset_command_byte, as<i8042::CommandByte>);
        archive("ram", ram);
        archive("output_port", output_port, as<i8042::OutputPort>);
        archive("waiting_for", waiting_for, as_command<i8042::Command>);
        archive("last_write_command", last_write_command);
        archive("output_full", output_full);
        archive("output_data", output_data);
        archive("output_flags", output_flags, as<i8042::Status>);
        archive("response_waiting", response_waiting);
        archive("response", response);
        archive("response_flags", response_flags, as<i8042::Status>);
        for (const int version : {1, 2}) {
            // Captures copies of the references: not every compiler captures a structured binding in a
            // constant.
            archive.nested("keyboard", [version, &state = keyboard](auto& nested) {
                Ps2KeyboardState::visit_version(version, state, nested);
            });
            archive.nested("mouse", [version, &state = mouse](auto& nested) {
                Ps2MouseState::visit_version(version, state, nested);
            });
        }
        archive.since(2, "reset_a20", reset_a20);
        archive.since(2, "reset_self_tests", reset_self_tests);
        archive.since(2, "hold_left", hold_left);
    }
    friend constexpr bool operator==(const I8042State&, const I8042State&) = default;
};

/// Checks whether a controller can be in this state. The error names the invalid member; a member of a device
/// has the form "keyboard.leds".
[[nodiscard]] constexpr std::expected<void, StateError> validate(const I8042State& state) {
    using Status = i8042::Status;
    using CommandByte = i8042::CommandByte;
    using OutputPort = i8042::OutputPort;
    constexpr unsigned no_flag =
        ~unsigned{Status().set(Status::aux_data).set(Status::timeout).set(Status::parity_error).value()};
    constexpr unsigned no_command_bit = ~unsigned{CommandByte::guest_mask()};
    const OutputPort port(state.output_port);
    if (state.profile > I8042Profile::absent) {
        return std::unexpected(StateError{"profile"});
    }
    if ((state.ram[0] & no_command_bit) != 0) {
        return std::unexpected(StateError{"ram"});
    }
    if ((state.reset_command_byte & no_command_bit) != 0) {
        return std::unexpected(StateError{"reset_command_byte"});
    }
    if (!port[OutputPort::not_reset] || port[OutputPort::keyboard_full] || port[OutputPort::aux_full]) {
        return std::unexpected(StateError{"output_port"});
    }
    if (state.waiting_for != 0 && !i8042::takes_data(i8042::Command{state.waiting_for})) {
        return std::unexpected(StateError{"waiting_for"});
    }
    // Without the ports the guest could never read a waiting byte.
    if (state.profile != I8042Profile::full && state.output_full) {
        return std::unexpected(StateError{"output_full"});
    }
    if (state.profile != I8042Profile::full && state.response_waiting) {
        return std::unexpected(StateError{"response_waiting"});
    }
    if ((state.output_flags & no_flag) != 0 || (!state.output_full && state.output_flags != 0)) {
        return std::unexpected(StateError{"output_flags"});
    }
    if ((state.response_flags & no_flag) != 0) {
        return std::unexpected(StateError{"response_flags"});
    }
    if (state.hold_left > I8042State::longest_hold_off) {
        return std::unexpected(StateError{"hold_left"});
    }
    // A device that is not there cannot have queued a byte.
    const bool full = state.profile == I8042Profile::full;
    if (!full || !state.keyboard_present) {
        if (!state.keyboard.replies.empty()) {
            return std::unexpected(StateError{"keyboard.replies"});
        }
        if (!state.keyboard.keys.empty()) {
            return std::unexpected(StateError{"keyboard.keys"});
        }
    }
    if (!full || !state.mouse_present) {
        if (!state.mouse.replies.empty()) {
            return std::unexpected(StateError{"mouse.replies"});
        }
        if (!state.mouse.packets.empty()) {
            return std::unexpected(StateError{"mouse.packets"});
        }
    }
    if (const auto valid = validate(state.keyboard); !valid) {
        return valid;
    }
    return validate(state.mouse);
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/detail/clamp.hpp

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

// vmsuperio/ps2/port.hpp

namespace vmsuperio::inline v0_2::detail {

/// A device's end of a PS/2 cable: the common part of keyboard and mouse. It works on the device's part of
/// the saved state and has no state of its own.
///
/// The rules: answers are sent before unsolicited bytes, and while a command waits for its parameter the
/// device sends no unsolicited bytes. A byte from the host makes the device drop the rest of its answer; a
/// command instead of a parameter ends the command before it. Resend (0xFE) is an exception: it does not end
/// a command that waits for its parameter.
///
/// `Device` derives from this. It has `first_command`, below which a byte can only be a parameter;
/// `unasked(state)`, the queue of its unsolicited bytes, and `send_unasked()`, which removes a byte from it;
/// `can_resend(byte)`, whether the host can request a sent byte again, and `send_again()`;
/// `execute(command)`; `parameter(command, value)`, which returns false if the command does not accept the
/// value; and `refuse()`, which answers an invalid byte and returns whether the host may try again.
template <class Device, class State, class Command>
class Ps2Port {
public:
    explicit constexpr Ps2Port(State& state) noexcept : state_(state) {}

    [[nodiscard]] static constexpr bool has_byte(const State& state) noexcept {
        return !state.replies.empty() || (state.waiting_for == 0 && !Device::unasked(state).empty());
    }
    [[nodiscard]] constexpr bool has_byte() const noexcept { return has_byte(state_); }
    /// The next byte for the host; `has_byte()` must hold.
    constexpr std::uint8_t send() noexcept {
        const std::uint8_t byte = state_.replies.empty() ? device().send_unasked() : state_.replies.pop();
        if (Device::can_resend(byte)) {
            state_.last_sent = byte;
        }
        return byte;
    }

    /// A byte from the host.
    constexpr void receive(std::uint8_t byte) noexcept {
        if (Command{byte} == Command::resend) {
            return device().send_again();
        }
        state_.replies.clear();
        const std::uint8_t waiting = std::exchange(state_.waiting_for, std::uint8_t{0});
        if (waiting == 0 || Command{byte} >= Device::first_command) {
            device().execute(Command{byte});
        } else if (!device().parameter(Command{waiting}, byte) && device().refuse()) {
            state_.waiting_for = waiting;
        }
    }

protected:
    // Not an overload: the compiler would look for a conversion from each list to a span.
    constexpr void answer_bytes(std::span<const std::uint8_t> bytes) noexcept { state_.replies.push(bytes); }
    constexpr void answer(std::initializer_list<std::uint8_t> bytes) noexcept {
        answer_bytes({bytes.begin(), bytes.size()});
    }
    constexpr void wait_for_parameter(Command command) noexcept {
        state_.waiting_for = std::to_underlying(command);
    }

    State& state_;

private:
    [[nodiscard]] constexpr Device& device() noexcept { return static_cast<Device&>(*this); }
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/ps2/keyboard.hpp

namespace vmsuperio::inline v0_2::detail {

/// A PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)") at the
/// end of its cable: it receives bytes from the controller and sends bytes to it.
///
/// Not modelled: typematic repeat (the host's own repeat arrives as further presses), the key types of set 3
/// (0xF7 to 0xFD are acknowledged; every key is make/break), the 300-500 ms that the reset test takes.
class Ps2Keyboard : public Ps2Port<Ps2Keyboard, Ps2KeyboardState, ps2::KeyboardCommand> {
    using Command = ps2::KeyboardCommand;
    friend Ps2Port;

public:
    using Ps2Port::Ps2Port;

    /// Queues the result of the self-test at power-on.
    constexpr void power_on() noexcept { answer({ps2::self_test_passed}); }

    /// Presses or releases a key; `reserved` bytes of the buffer are not used. Returns false if nothing was
    /// sent because the buffer is full; the guest then finds an overrun code. A key that the keyboard does
    /// not have, and any key while scanning is off, sends nothing and counts as no loss.
    constexpr bool key(Key key, bool down, std::size_t reserved = 0) noexcept {
        const std::uint8_t bit = held_key(key).value();
        const bool repeated = down && (state_.modifiers & bit) != 0;
        state_.modifiers = static_cast<std::uint8_t>(down ? state_.modifiers | bit : state_.modifiers & ~bit);
        if (key == Key::num_lock && down && !repeated) {
            state_.num_lock_toggled = !state_.num_lock_toggled;
        }
        return type(key, down, key_form::of(key, modifiers(), num_lock()), reserved);
    }

    /// Presses and releases Ctrl-Alt-Del. Queues all codes, or returns false and queues none if there is no
    /// room. The keys that the user holds have no effect, nor does Num Lock: the Shift codes that it would
    /// add to Del have no meaning for present software, and would not fit.
    constexpr bool ctrl_alt_del(std::size_t reserved) noexcept {
        Ps2KeyboardState after = state_;
        Ps2Keyboard typed(after);
        const auto move = [&](Key key, bool down) { return typed.type(key, down, key_form::down, reserved); };
        if (move(Key::left_ctrl, true) && move(Key::left_alt, true) && move(Key::del, true) &&
            move(Key::del, false) && move(Key::left_alt, false) && move(Key::left_ctrl, false)) {
            state_ = after;
            return true;
        }
        return false;
    }

private:
    static constexpr Command first_command = Command::set_leds;
    // The byte that the keyboard sends in place of lost keys.
    static constexpr std::uint8_t overrun_set1 = 0xFF;
    static constexpr std::uint8_t overrun_set2 = 0x00;  // and set 3

    [[nodiscard]] static constexpr const auto& unasked(const Ps2KeyboardState& state) noexcept {
        return state.keys;
    }
    constexpr std::uint8_t send_unasked() noexcept { return state_.keys.pop(); }
    /// The host can request the byte before the keyboard's own request to resend.
    [[nodiscard]] static constexpr bool can_resend(std::uint8_t byte) noexcept {
        return byte != ps2::resend_request;
    }
    constexpr bool refuse() noexcept {
        answer({ps2::resend_request});
        return true;
    }

    [[nodiscard]] constexpr ps2::HeldKeys modifiers() const noexcept {
        return ps2::HeldKeys(state_.modifiers);
    }
    /// The keyboard has its own Num Lock state: the key toggles it, and setting the LED sets it.
    [[nodiscard]] constexpr bool num_lock() const noexcept {
        return ps2::Leds(state_.leds)[ps2::Leds::num_lock] != state_.num_lock_toggled;
    }

    /// Sends the codes of `key`. `form` is the form of a press now, if the key has forms and is not down.
    constexpr bool type(Key key, bool down, std::uint8_t form, std::size_t reserved) noexcept {
        const std::size_t index = key_form::index_of(key);
        if (!state_.scanning) {
            if (index < key_form::count && !down) {
                state_.forms[index] = key_form::up;
            }
            return true;
        }
        if (index == key_form::count) {
            return queue(scan_code(key, down, state_.scan_code_set), reserved);
        }
        const FormedCodes codes(state_.scan_code_set);
        const std::uint8_t before = state_.forms[index];
        ScanCode code;
        if (!down) {
            code = codes.break_code(key, before == key_form::up ? form : before, modifiers());
        } else if (before == key_form::up) {
            code = codes.make(key, form);
        } else if (before == form) {
            code = codes.repeat(key, form);
        } else {
            // The key is held and pressed again with other keys: the guest sees it released and pressed.
            code = codes.break_code(key, before, modifiers());
            code.append(codes.make(key, form));
        }
        if (!queue(code, reserved)) {
            return false;
        }
        state_.forms[index] = down ? form : key_form::up;
        return true;
    }

    constexpr bool queue(const ScanCode& code, std::size_t reserved) noexcept {
        // The last slot is reserved for the overrun code.
        if (code.count + 1U + reserved <= state_.keys.free() || code.count == 0) {
            return state_.keys.push(code.span());
        }
        const std::uint8_t overrun = state_.scan_code_set == 1 ? overrun_set1 : overrun_set2;
        if (state_.keys.empty() || state_.keys.back() != overrun) {
            state_.keys.push(overrun);
        }
        return false;
    }

    /// Resend (0xFE): the last byte again, then the rest of the answer.
    constexpr void send_again() noexcept {
        const auto rest = state_.replies;
        if (rest.free() == 0) {
            return;  // the answer to an earlier Resend has not been read
        }
        state_.replies.clear();
        answer({state_.last_sent});
        answer_bytes(rest.view());
    }

    /// The defaults of default_disable, set_default and reset. Only a reset changes the LEDs.
    constexpr void set_defaults(bool scanning) noexcept {
        state_.scanning = scanning;
        state_.scan_code_set = 2;
        state_.typematic = Ps2KeyboardState{}.typematic;
        state_.keys.clear();
        state_.forms = {};
    }

    constexpr void execute(Command command) noexcept {
        switch (command) {
            case Command::set_leds:
            case Command::scan_code_set:
            case Command::set_typematic:
            case Command::key_typematic:
            case Command::key_make_break:
            case Command::key_make:
                wait_for_parameter(command);
                return answer({ps2::acknowledge});
            case Command::echo:
                return answer({std::to_underlying(Command::echo)});
            case Command::identify:  // a 101/102-key keyboard
                return answer({ps2::acknowledge, ps2::keyboard_id[0], ps2::keyboard_id[1]});
            case Command::enable:
                state_.scanning = true;
                state_.keys.clear();
                return answer({ps2::acknowledge});
            case Command::default_disable:
                set_defaults(false);
                return answer({ps2::acknowledge});
            case Command::set_default:
                set_defaults(state_.scanning);
                return answer({ps2::acknowledge});
            case Command::all_typematic:
            case Command::all_make_break:
            case Command::all_make:
            case Command::all_typematic_make_break:
                return answer({ps2::acknowledge});
            case Command::reset:
                set_defaults(true);
                state_.leds = 0;
                state_.num_lock_toggled = false;
                return answer({ps2::acknowledge, ps2::self_test_passed});
            default:
                refuse();
                return;
        }
    }

    /// Returns false if the command does not accept the value.
    constexpr bool parameter(Command command, std::uint8_t value) noexcept {
        switch (command) {
            case Command::set_leds:
                if (value > ps2::Leds::guest_mask()) {
                    return false;
                }
                state_.leds = value;
                state_.num_lock_toggled = false;
                break;
            case Command::scan_code_set:
                if (value > ps2::last_scan_code_set) {
                    return false;
                }
                if (value == 0) {
                    answer({ps2::acknowledge, state_.scan_code_set});
                    return true;
                }
                state_.scan_code_set = value;
                state_.keys.clear();
                break;
            case Command::set_typematic:
                if (value > ps2::Typematic::guest_mask()) {
                    return false;
                }
                state_.typematic = value;
                break;
            default:  // the lists of keys end at the next command
                wait_for_parameter(command);
                break;
        }
        answer({ps2::acknowledge});
        return true;
    }
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/ps2/mouse.hpp

namespace vmsuperio::inline v0_2::detail {

/// A PS/2 mouse with the IntelliMouse and IntelliMouse Explorer extensions, at the end of its cable.
///
/// Source: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse protocol for
/// the wheel (sample rates 200, 100, 80 make it id 3; 200, 200, 80 make it id 4).
///
/// Not modelled: the effect of the sample rate. A packet is created as soon as something has changed that it
/// can show and there is room; while the guest does not read, motion adds up as in a mouse whose report is
/// held back.
class Ps2Mouse : public Ps2Port<Ps2Mouse, Ps2MouseState, ps2::MouseCommand> {
    using Command = ps2::MouseCommand;
    using Buttons = ps2::MouseButtons;
    friend Ps2Port;

public:
    using Ps2Port::Ps2Port;

    /// Queues the result of the self-test at power-on and the id.
    constexpr void power_on() noexcept { reply({}, {ps2::self_test_passed, state_.id}); }

    /// A byte from the host. It ends the packet that the mouse was sending; in wrap mode it is sent back.
    constexpr void receive(std::uint8_t byte) noexcept {
        const Command command{byte};
        const bool wrapped = state_.wrap && command != Command::reset_wrap && command != Command::reset;
        if (command == Command::resend && !wrapped) {
            return send_again();
        }
        abort_packet();
        if (wrapped) {
            state_.replies.clear();
            return reply({}, {byte});
        }
        Ps2Port::receive(byte);
        make_packet();
    }

    constexpr void move(const MouseMotion& motion) noexcept {
        state_.x = add(state_.x, motion.x);
        state_.y = add(state_.y, motion.y);
        if (has_wheel()) {
            state_.wheel = add(state_.wheel, motion.wheel);
        }
        state_.buttons = static_cast<std::uint8_t>(motion.buttons & Buttons::guest_mask());
        make_packet();
    }

private:
    static constexpr Command first_command = Command::scaling_1_1;
    // The largest numbers that a packet can contain.
    static constexpr std::int32_t max_motion = 255;
    static constexpr std::int32_t max_scaled_motion = 127;  // doubled by the scaling
    static constexpr std::int32_t max_wheel = 7;
    // The sequences of sample rates that enable the wheel, and the fourth and fifth button.
    static constexpr std::array<std::uint8_t, 3> wheel_knock{200, 100, 80};
    static constexpr std::array<std::uint8_t, 3> explorer_knock{200, 200, 80};

    [[nodiscard]] static constexpr const auto& unasked(const Ps2MouseState& state) noexcept {
        return state.packets;
    }
    /// The next byte of a packet.
    constexpr std::uint8_t send_unasked() noexcept {
        if (!packet_begun()) {
            state_.last_packet.clear();
            state_.last_packet.push(state_.packets.view(0, packet_size()));
        }
        const std::uint8_t byte = state_.packets.pop();
        if (!packet_begun()) {
            state_.reported_buttons = buttons_of(state_.last_packet.view(0, state_.last_packet.capacity()));
        }
        make_packet();
        return byte;
    }
    /// Resend sends a whole packet; `last_sent` is used only before there was one.
    [[nodiscard]] static constexpr bool can_resend(std::uint8_t) noexcept { return true; }

    [[nodiscard]] static constexpr std::int16_t add(std::int16_t count, std::int32_t more) noexcept {
        constexpr std::int64_t most = Ps2MouseState::max_count;
        const std::int64_t sum = std::int64_t{count} + more;
        return static_cast<std::int16_t>(clamp(sum, -most, most));
    }

    [[nodiscard]] constexpr bool has_wheel() const noexcept { return state_.id != ps2::standard_mouse; }
    [[nodiscard]] constexpr bool has_extra_buttons() const noexcept {
        return state_.id == ps2::explorer_mouse;
    }
    [[nodiscard]] constexpr std::size_t packet_size() const noexcept { return has_wheel() ? 4 : 3; }
    /// Whether the oldest packet has been sent in part. The queue contains whole packets after it.
    [[nodiscard]] constexpr bool packet_begun() const noexcept {
        return state_.packets.size() % packet_size() != 0;
    }
    /// The buttons that a packet shows.
    [[nodiscard]] constexpr std::uint8_t buttons_of(std::span<const std::uint8_t> packet) const noexcept {
        Buttons buttons;
        buttons.set(Buttons::standard, ps2::MousePacket(packet[0])[ps2::MousePacket::buttons]);
        if (has_extra_buttons()) {
            buttons.set(Buttons::extra, ps2::MouseExtra(packet[3])[ps2::MouseExtra::buttons]);
        }
        return buttons.value();
    }
    /// The buttons that the host will know after it has read all waiting bytes.
    [[nodiscard]] constexpr std::uint8_t shown_buttons() const noexcept {
        const std::size_t size = packet_size();
        if (state_.packets.size() >= size) {
            return buttons_of(state_.packets.view(state_.packets.size() - size, size));
        }
        return packet_begun() ? buttons_of(state_.last_packet.view(0, state_.last_packet.capacity()))
                              : state_.reported_buttons;
    }
    [[nodiscard]] constexpr bool has_report() const noexcept {
        const std::uint8_t visible =
            has_extra_buttons() ? Buttons::guest_mask() : decltype(Buttons::standard)::mask;
        return state_.buttons_changed || ((state_.buttons ^ shown_buttons()) & visible) != 0 ||
               state_.x != 0 || state_.y != 0 || (state_.wheel != 0 && has_wheel());
    }

    /// Queues an answer: the acknowledgement, if any, then the packet that resend sends again. For that
    /// command a packet is a movement packet, the three bytes of a status request, the two after a reset, or
    /// a single byte.
    constexpr void reply_bytes(std::initializer_list<std::uint8_t> first,
                               std::span<const std::uint8_t> packet) noexcept {
        state_.resend_failed = false;
        answer(first);
        answer_bytes(packet);
        state_.last_packet.clear();
        state_.last_packet.push(packet);
    }
    constexpr void reply(std::initializer_list<std::uint8_t> first,
                         std::initializer_list<std::uint8_t> packet) noexcept {
        reply_bytes(first, {packet.begin(), packet.size()});
    }
    constexpr void acknowledge() noexcept { reply({}, {ps2::acknowledge}); }

    /// The first invalid byte is answered with "resend" (true), a second in a row with "error".
    constexpr bool refuse() noexcept {
        if (state_.resend_failed) {
            reply({}, {ps2::error});
            return false;
        }
        // It is not stored for resend: the host can request the byte before a request to resend.
        answer({ps2::resend_request});
        state_.resend_failed = true;
        return true;
    }

    /// Drops the rest of a packet whose beginning has been sent.
    constexpr void abort_packet() noexcept {
        while (packet_begun()) {
            state_.packets.pop();
        }
    }
    /// Resend (0xFE): the last packet again, without an acknowledgement. The packets after it do not change.
    constexpr void send_again() noexcept {
        state_.replies.clear();
        if (packet_begun()) {
            abort_packet();
            state_.reported_buttons = buttons_of(state_.last_packet.view(0, state_.last_packet.capacity()));
        }
        if (state_.last_packet.empty()) {
            answer({state_.last_sent});
        } else {
            answer_bytes(state_.last_packet.view());
        }
    }

    constexpr void clear_motion() noexcept {
        state_.packets.clear();
        state_.x = 0;
        state_.y = 0;
        state_.wheel = 0;
    }
    constexpr void set_defaults() noexcept {
        state_.reporting = false;
        state_.remote = false;
        state_.scaling_2_1 = false;
        state_.resolution = Ps2MouseState{}.resolution;
        state_.sample_rate = Ps2MouseState{}.sample_rate;
    }

    constexpr void execute(Command command) noexcept {
        if (command < first_command) {
            refuse();
            return;
        }
        // Each command except this one drops motion that has not been reported.
        if (command != Command::read_data) {
            clear_motion();
        }
        switch (command) {
            case Command::scaling_1_1:
            case Command::scaling_2_1:
                state_.scaling_2_1 = command == Command::scaling_2_1;
                return acknowledge();
            case Command::set_resolution:
            case Command::set_sample_rate:
                wait_for_parameter(command);
                return acknowledge();
            case Command::status_request:
                return reply({ps2::acknowledge}, {status_byte(), state_.resolution, state_.sample_rate});
            case Command::set_stream:
                state_.remote = false;
                return acknowledge();
            case Command::read_data: {
                state_.packets.clear();
                const Packet packet = next_packet(false);
                state_.reported_buttons = buttons_of(packet.span());
                return reply_bytes({ps2::acknowledge}, packet.span());
            }
            case Command::reset_wrap:
                state_.wrap = false;
                return acknowledge();
            case Command::set_wrap:
                state_.wrap = true;
                return acknowledge();
            case Command::set_remote:
                state_.remote = true;
                return acknowledge();
            case Command::identify:
                return reply({ps2::acknowledge}, {state_.id});
            case Command::enable:
                // From now on changes are reported, so the present state of the buttons counts as reported.
                state_.reporting = true;
                state_.reported_buttons = state_.buttons;
                state_.buttons_changed = false;
                return acknowledge();
            case Command::disable:
                state_.reporting = false;
                return acknowledge();
            case Command::set_default:
                set_defaults();
                return acknowledge();
            case Command::reset:
                set_defaults();
                state_.wrap = false;
                state_.id = ps2::standard_mouse;
                state_.earlier_rates = {};
                return reply({ps2::acknowledge}, {ps2::self_test_passed, state_.id});
            default:
                refuse();
                return;
        }
    }

    /// Returns false if the command does not accept the value.
    constexpr bool parameter(Command command, std::uint8_t value) noexcept {
        if (command == Command::set_resolution) {
            if (value > ps2::finest_resolution) {
                return false;
            }
            state_.resolution = value;
        } else {
            if (!ps2::is_sample_rate(value)) {
                return false;
            }
            const std::array rates{state_.earlier_rates[0], state_.earlier_rates[1], value};
            if (rates == wheel_knock) {
                state_.id = ps2::wheel_mouse;
            } else if (rates == explorer_knock) {
                state_.id = ps2::explorer_mouse;
            }
            state_.earlier_rates = {state_.earlier_rates[1], value};
            state_.sample_rate = value;
        }
        acknowledge();
        return true;
    }

    [[nodiscard]] constexpr std::uint8_t status_byte() const noexcept {
        using Status = ps2::MouseStatus;
        const Buttons buttons(state_.buttons);
        return Status()
            .set(Status::left, buttons[Buttons::left])
            .set(Status::right, buttons[Buttons::right])
            .set(Status::middle, buttons[Buttons::middle])
            .set(Status::scaling_2_1, state_.scaling_2_1)
            .set(Status::reporting, state_.reporting)
            .set(Status::remote, state_.remote)
            .value();
    }

    struct Packet {
        std::array<std::uint8_t, 4> bytes{};
        std::uint8_t count{};
        [[nodiscard]] constexpr std::span<const std::uint8_t> span() const noexcept {
            return {bytes.data(), count};
        }
    };

    /// Scaling 2:1 as in the reference's table: 0 1 1 3 6 9, then twice the count.
    [[nodiscard]] static constexpr std::int32_t scale(std::int32_t count) noexcept {
        constexpr std::array<std::int32_t, 6> small{0, 1, 1, 3, 6, 9};
        const std::int32_t size = count < 0 ? -count : count;
        const std::int32_t scaled = size < 6 ? small[static_cast<std::size_t>(size)] : 2 * size;
        return count < 0 ? -scaled : scaled;
    }

    /// Takes as much of the counted motion as fits into one packet. The rest stays for the next packet, so
    /// the overflow bits are never needed.
    constexpr Packet next_packet(bool scaled) noexcept {
        const auto take = [](std::int16_t& count, std::int32_t most) {
            const auto part = static_cast<std::int32_t>(clamp(count, -most, most));
            count = static_cast<std::int16_t>(count - part);
            return part;
        };
        const std::int32_t most = scaled ? max_scaled_motion : max_motion;
        std::int32_t x = take(state_.x, most);
        std::int32_t y = take(state_.y, most);
        if (scaled) {
            x = scale(x);
            y = scale(y);
        }
        state_.buttons_changed = false;
        const Buttons buttons(state_.buttons);
        Packet packet;
        packet.bytes[0] = ps2::MousePacket()
                              .set(ps2::MousePacket::buttons, buttons[Buttons::standard])
                              .set(ps2::MousePacket::always_set)
                              .set(ps2::MousePacket::x_negative, x < 0)
                              .set(ps2::MousePacket::y_negative, y < 0)
                              .value();
        packet.bytes[1] = low_byte(x);
        packet.bytes[2] = low_byte(y);
        packet.count = static_cast<std::uint8_t>(packet_size());
        if (!has_wheel()) {
            state_.wheel = 0;
            return packet;
        }
        packet.bytes[3] = low_byte(take(state_.wheel, max_wheel));
        if (has_extra_buttons()) {
            packet.bytes[3] = ps2::MouseExtra()
                                  .set(ps2::MouseExtra::wheel, packet.bytes[3])
                                  .set(ps2::MouseExtra::buttons, buttons[Buttons::extra])
                                  .value();
        }
        return packet;
    }
    [[nodiscard]] static constexpr std::uint8_t low_byte(std::int32_t count) noexcept {
        return static_cast<std::uint8_t>(count & 0xFF);
    }

    constexpr void make_packet() noexcept {
        if (!state_.reporting || state_.remote || state_.wrap || state_.waiting_for != 0) {
            return;
        }
        while (state_.packets.free() >= packet_size() && has_report()) {
            state_.packets.push(next_packet(state_.scaling_2_1).span());
        }
    }
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/ps2/i8042_core.hpp

namespace vmsuperio::inline v0_2::detail {

/// The controller with keyboard and mouse, without connections: the core of `I8042` (see `device_shell.hpp`).
class I8042Core {
    using Command = i8042::Command;
    using CommandByte = i8042::CommandByte;
    using OutputPort = i8042::OutputPort;
    using Status = i8042::Status;

public:
    /// The numbers of the interrupt lines.
    static constexpr std::size_t keyboard_line = 0;
    static constexpr std::size_t aux_line = 1;

    /// The effects of an access that do not follow from the state.
    struct Effects {
        /// `dropped` if a byte entered the output buffer, perhaps right after another one was read. The line
        /// is the buffer's "full" flag and falls with each byte that is read; drivers read one byte per
        /// interrupt.
        LinePulse pulse{LinePulse::none};
        bool resets_cpu{};
        bool key_lost{};
        bool unknown_command{};
        bool a20_changed{};
        bool a20{};  // whether A20 is enabled now
        bool leds_changed{};
        std::uint8_t leds{};  // the present LEDs

        template <class Events>
        constexpr void report(Events& events) const {
            if constexpr (requires { events.a20_changed(a20); }) {
                if (a20_changed) {
                    events.a20_changed(a20);
                }
            }
            if constexpr (requires { events.leds_changed(leds); }) {
                if (leds_changed) {
                    events.leds_changed(leds);
                }
            }
        }
    };

    explicit constexpr I8042Core(const I8042Options& options) noexcept
        : hold_off_(limited(options.hold_off)) {
        state_.profile = options.profile;
        state_.keyboard_present = options.keyboard;
        state_.mouse_present = options.mouse;
        state_.reset_command_byte =
            static_cast<std::uint8_t>(options.command_byte & CommandByte::guest_mask());
        state_.reset_a20 = options.a20;
        state_.reset_self_tests = options.self_tests;
        power_on();
        refresh();
    }
    /// `state` must be valid. The hold-off is not part of it, because it depends on the owner's timers.
    constexpr I8042Core(const I8042State& state, std::chrono::nanoseconds hold_off) noexcept
        : state_(state), hold_off_(limited(hold_off)) {
        state_.keyboard.replies.normalize();
        state_.keyboard.keys.normalize();
        state_.mouse.replies.normalize();
        state_.mouse.packets.normalize();
        state_.mouse.last_packet.normalize();
        if (state_.hold_left > hold_off_) {
            state_.hold_left = hold_off_;
            refresh();
        }
    }

    [[nodiscard]] constexpr const I8042State& state() const noexcept { return state_; }

    /// The levels of the two interrupt lines: output buffer full, and enabled in the command byte.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t line) const noexcept {
        const bool from_aux = Status(state_.output_flags)[Status::aux_data];
        return state_.output_full && from_aux == (line == aux_line) &&
               (from_aux ? command_byte()[CommandByte::aux_interrupt]
                         : command_byte()[CommandByte::keyboard_interrupt]);
    }

    [[nodiscard]] constexpr bool has_keyboard() const noexcept {
        return state_.profile == I8042Profile::full && state_.keyboard_present;
    }
    [[nodiscard]] constexpr bool has_mouse() const noexcept {
        return state_.profile == I8042Profile::full && state_.mouse_present;
    }
    [[nodiscard]] constexpr bool a20() const noexcept {
        return OutputPort(state_.output_port)[OutputPort::a20_gate];
    }

    /// The value that the guest reads at an offset, without the effects of the read.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        switch (state_.profile) {
            case I8042Profile::full:
                break;
            case I8042Profile::minimal:
                return 0;
            case I8042Profile::absent:
                return 0xFF;
        }
        if (offset == i8042::data_offset) {
            return state_.output_data;  // an empty output buffer shows the last byte again
        }
        return offset == i8042::command_offset ? status().value() : std::uint8_t{0};
    }

    /// The guest has read the byte in the output buffer.
    [[nodiscard]] constexpr Effects take_output() noexcept {
        const Effects before = begin();
        if (state_.output_full) {
            state_.hold_left = hold_off_;
        }
        state_.output_full = false;
        state_.output_flags = 0;
        return complete(before);
    }

    [[nodiscard]] constexpr Effects write(std::uint8_t offset, std::uint8_t value) noexcept {
        Effects effects = begin();
        switch (state_.profile) {
            case I8042Profile::full:
                break;
            case I8042Profile::minimal:
                effects.resets_cpu = offset == i8042::command_offset && value == i8042::reset_cpu;
                return effects;
            case I8042Profile::absent:
                return effects;
        }
        if (offset == i8042::data_offset) {
            write_data(value, effects);
        } else if (offset == i8042::command_offset) {
            write_command(value, effects);
        }
        return complete(effects);
    }

    /// Presses or releases a key, which is lost if the keyboard's buffer is full.
    [[nodiscard]] constexpr Effects key(Key key, bool down) noexcept {
        Effects effects = begin();
        effects.key_lost = !keyboard().key(key, down, reserved());
        return complete(effects);
    }
    [[nodiscard]] constexpr Effects ctrl_alt_del() noexcept {
        Effects effects = begin();
        effects.key_lost = !keyboard().ctrl_alt_del(reserved());
        return complete(effects);
    }
    [[nodiscard]] constexpr Effects move_mouse(const MouseMotion& motion) noexcept {
        const Effects before = begin();
        mouse().move(motion);
        return complete(before);
    }

    /// Advances the time by `time` ns.
    [[nodiscard]] constexpr Effects advance(std::uint64_t time) noexcept {
        const Effects before = begin();
        state_.hold_left -= time < state_.hold_left ? time : state_.hold_left;
        return complete(before);
    }
    /// Whether a device's byte waits only for the end of the hold-off.
    [[nodiscard]] constexpr bool held_back() const noexcept {
        return state_.hold_left != 0 && !state_.output_full && (keyboard_sends() || mouse_sends());
    }

    /// Restores the state after power-on, with the original options.
    [[nodiscard]] constexpr Effects reset() noexcept {
        const Effects before = begin();
        state_ = {.profile = state_.profile,
                  .keyboard_present = state_.keyboard_present,
                  .mouse_present = state_.mouse_present,
                  .reset_command_byte = state_.reset_command_byte,
                  .reset_a20 = state_.reset_a20,
                  .reset_self_tests = state_.reset_self_tests};
        power_on();
        return complete(before);
    }

private:
    static constexpr std::uint8_t aux_flag = decltype(Status::aux_data)::mask;
    static constexpr std::uint8_t timeout_flag = decltype(Status::timeout)::mask;

    [[nodiscard]] static constexpr std::uint64_t limited(std::chrono::nanoseconds hold_off) noexcept {
        constexpr std::int64_t longest{I8042State::longest_hold_off};
        return static_cast<std::uint64_t>(clamp(hold_off.count(), 0, longest));
    }

    [[nodiscard]] constexpr Ps2Keyboard keyboard() noexcept { return Ps2Keyboard(state_.keyboard); }
    [[nodiscard]] constexpr Ps2Mouse mouse() noexcept { return Ps2Mouse(state_.mouse); }
    [[nodiscard]] constexpr bool keyboard_sends() const noexcept {
        return !command_byte()[CommandByte::keyboard_disabled] && Ps2Keyboard::has_byte(state_.keyboard);
    }
    [[nodiscard]] constexpr bool mouse_sends() const noexcept {
        return !command_byte()[CommandByte::aux_disabled] && Ps2Mouse::has_byte(state_.mouse);
    }
    /// A byte in the output buffer counts as one of the keyboard's buffer (Ps2KeyboardState::keys).
    [[nodiscard]] constexpr std::size_t reserved() const noexcept { return state_.output_full ? 1 : 0; }

    [[nodiscard]] constexpr CommandByte command_byte() const noexcept { return CommandByte(state_.ram[0]); }
    template <unsigned Position>
    constexpr void set_command_bit(CommandByte::Bit<Position> bit, bool on) noexcept {
        state_.ram[0] = command_byte().set(bit, on).value();
    }
    [[nodiscard]] constexpr Status status() const noexcept {
        return Status(state_.output_flags)
            .set(Status::output_full, state_.output_full)
            .set(Status::system_flag, command_byte()[CommandByte::system_flag])
            .set(Status::last_command, state_.last_write_command)
            .set(Status::not_locked);
    }

    /// Call this before a change of the state: returns the values with which `complete` compares.
    [[nodiscard]] constexpr Effects begin() const noexcept {
        return {.a20 = a20(), .leds = state_.keyboard.leds};
    }
    /// Call this after a change of the state.
    [[nodiscard]] constexpr Effects complete(Effects effects) noexcept {
        effects.pulse = refresh() ? LinePulse::dropped : LinePulse::none;
        effects.a20_changed = effects.a20 != a20();
        effects.a20 = a20();
        effects.leds_changed = effects.leds != state_.keyboard.leds;
        effects.leds = state_.keyboard.leds;
        return effects;
    }
    /// Moves the next byte into the output buffer if that is empty. Returns whether it moved one.
    constexpr bool refresh() noexcept {
        if (state_.profile != I8042Profile::full) {
            return false;  // whatever a saved state contains, there is no port to read it
        }
        if (state_.output_full) {
            return false;
        }
        if (state_.response_waiting) {
            state_.response_waiting = false;
            place(state_.response, state_.response_flags);
        } else if (state_.hold_left != 0) {
            return false;  // a device's byte has not arrived yet
        } else if (keyboard_sends()) {
            place(from_keyboard(), 0);
        } else if (mouse_sends()) {
            place(mouse().send(), aux_flag);
        }
        return state_.output_full;
    }
    constexpr void place(std::uint8_t value, std::uint8_t flags) noexcept {
        state_.output_full = true;
        state_.output_data = value;
        state_.output_flags = flags;
    }
    constexpr std::uint8_t from_keyboard() noexcept {
        Ps2Keyboard keyboard = this->keyboard();
        std::uint8_t code = keyboard.send();
        if (!command_byte()[CommandByte::translate]) {
            return code;
        }
        std::uint8_t released = 0;
        // The keyboard queues codes as a whole, so the byte after a release prefix is present.
        while (code == release_prefix && keyboard.has_byte()) {
            released = set1_release;
            code = keyboard.send();
        }
        return static_cast<std::uint8_t>(translate_to_set1(code) | released);
    }
    /// The controller's own answer.
    constexpr void respond(std::uint8_t value, std::uint8_t flags = 0) noexcept {
        state_.response_waiting = true;
        state_.response = value;
        state_.response_flags = flags;
    }

    constexpr void power_on() noexcept {
        state_.ram[0] = state_.reset_command_byte;
        state_.output_port =
            OutputPort(state_.output_port).set(OutputPort::a20_gate, state_.reset_a20).value();
        if (state_.reset_self_tests && has_keyboard()) {
            keyboard().power_on();
        }
        if (state_.reset_self_tests && has_mouse()) {
            mouse().power_on();
        }
    }

    constexpr void write_data(std::uint8_t value, Effects& effects) noexcept {
        state_.last_write_command = false;
        const std::uint8_t waiting = std::exchange(state_.waiting_for, std::uint8_t{0});
        if (waiting == 0) {
            // A byte to a device enables its port, as in common controllers and as drivers expect.
            set_command_bit(CommandByte::keyboard_disabled, false);
            if (state_.keyboard_present) {
                keyboard().receive(value);
            } else {
                respond(i8042::no_device, timeout_flag);
            }
            return;
        }
        switch (const Command command{waiting}; command) {
            case Command::write_output_port:
                write_output_port(OutputPort(value), effects);
                break;
            case Command::write_keyboard_output:
                respond(value);
                break;
            case Command::write_aux_output:
                respond(value, aux_flag);
                break;
            case Command::write_aux:
                set_command_bit(CommandByte::aux_disabled, false);
                if (state_.mouse_present) {
                    mouse().receive(value);
                } else {
                    respond(i8042::no_device, aux_flag | timeout_flag);
                }
                break;
            case Command::write_ram: {
                CommandByte byte = command_byte();
                byte.guest_write(value);
                state_.ram[0] = byte.value();
                break;
            }
            default:
                state_.ram[i8042::ram_address(command)] = value;
                break;
        }
    }
    constexpr void write_output_port(OutputPort written, Effects& effects) noexcept {
        OutputPort port(state_.output_port);
        port.guest_write(written.value());
        state_.output_port = port.value();
        effects.resets_cpu = !written[OutputPort::not_reset];
    }
    [[nodiscard]] constexpr std::uint8_t read_output_port() const noexcept {
        const bool from_aux = Status(state_.output_flags)[Status::aux_data];
        return OutputPort(state_.output_port)
            .set(OutputPort::keyboard_full, state_.output_full && !from_aux)
            .set(OutputPort::aux_full, state_.output_full && from_aux)
            .value();
    }

    constexpr void write_command(std::uint8_t value, Effects& effects) noexcept {
        // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): a guest may write any byte
        const Command command{value};
        state_.last_write_command = true;
        state_.waiting_for = 0;
        if (i8042::takes_data(command)) {
            state_.waiting_for = value;
            return;
        }
        switch (i8042::without_operand(command)) {
            case Command::read_ram:
                return respond(state_.ram[i8042::ram_address(command)]);
            case Command::pulse_output:
                // Bits 1 to 3 of the pulse are not modelled: no guest benefits from A20 being low for 6 us.
                effects.resets_cpu = !OutputPort(value)[OutputPort::not_reset];
                return;
            case Command::test_password:
                return respond(i8042::no_password);
            case Command::disable_aux:
            case Command::enable_aux:
                return set_command_bit(CommandByte::aux_disabled, command == Command::disable_aux);
            case Command::test_aux:
            case Command::test_keyboard:
                return respond(i8042::interface_test_passed);
            case Command::self_test:
                set_command_bit(CommandByte::system_flag, true);
                return respond(i8042::self_test_passed);
            case Command::disable_keyboard:
            case Command::enable_keyboard:
                return set_command_bit(CommandByte::keyboard_disabled, command == Command::disable_keyboard);
            case Command::read_input_port:
                return respond(i8042::InputPort().set(i8042::InputPort::not_locked).value());
            case Command::read_output_port:
                return respond(read_output_port());
            case Command::disable_a20:
            case Command::enable_a20:
                state_.output_port = OutputPort(state_.output_port)
                                         .set(OutputPort::a20_gate, command == Command::enable_a20)
                                         .value();
                return;
            case Command::read_test_inputs:
                return respond(
                    i8042::TestInputs()
                        .set(i8042::TestInputs::keyboard_clock,
                             !command_byte()[CommandByte::keyboard_disabled])
                        .set(i8042::TestInputs::aux_clock, !command_byte()[CommandByte::aux_disabled])
                        .value());
            default:
                effects.unknown_command = true;
                return;
        }
    }

    I8042State state_;
    std::uint64_t hold_off_{};  // ns; specified by the owner, not saved
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/i8042.hpp

/// The PS/2 controller of a PC (8042) with its keyboard and mouse.
///
/// Models: the controller of IBM's PS/2 Hardware Interface Technical Reference (status, command byte, 32
/// bytes of RAM, self and interface tests, output port with A20 and CPU reset, loop-back commands 0xD2 and
/// 0xD3, pulse commands), a 101/102-key keyboard with scan code sets 1 to 3 and the controller's translation
/// of set 2 to set 1, and a mouse with wheel and five buttons.
///
/// | port | offset | read | write |
/// |---|---|---|---|
/// | 0x60 | 0 | output buffer | data: to the keyboard, or the data byte of the last command |
/// | 0x64 | 4 | status | command |
///
/// Not modelled: passwords (0xA5, 0xA6), the diagnostic dump (0xAC), the input port polls (0xC1, 0xC2), the
/// multiplexing extension, time except for the hold-off: each command is carried out before the write
/// returns, so IBF reads 0.
/// Ignored bits: output port bits 4 and 5 (they follow the output buffer), pulse bits 1 to 3, command byte
/// bit 7. Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The default events type of the controller, which ignores all events. Each member of an events type is
/// optional: `a20_changed(bool enabled)`, `leds_changed(std::uint8_t leds)` (see `ps2::Leds`: bit 0 Scroll
/// Lock, 1 Num Lock, 2 Caps Lock), `host_error(HostErrorSource)`.
struct NoI8042Events {};

/// Counters since construction. They are not part of the saved state.
struct I8042Counters {
    std::uint64_t interrupt_errors{};   ///< `host_errors().interrupt`: keyboard and mouse interrupt triggers
    std::uint64_t keyboard_overruns{};  ///< key movements that did not fit the keyboard's buffer
    std::uint64_t unknown_commands{};   ///< guest commands that the controller does not know
};

/// Errors: `write` returns only the result of the reset trigger, because neither the guest nor the code that
/// dispatches its writes could act on an error of the keyboard's and mouse's triggers. All errors are counted
/// in `host_errors()` and reported to the event `host_error`.
///
/// With `I8042Options::hold_off`, a device's next byte arrives that time after the last one was read,
/// measured with `C`; until then port 0x60 shows the old byte. `next_deadline()` returns the time at which to
/// call `tick()`; guest accesses update the device implicitly. Without a hold-off, which is the default, `C`
/// is never read.
template <Trigger T, Trigger KeyboardTrigger = NullTrigger, Trigger AuxTrigger = NullTrigger,
          class Events = NoI8042Events, Clock C = SteadyClock>
class I8042 : public DeviceShell<detail::I8042Core, Events, KeyboardTrigger, AuxTrigger> {
    using Core = detail::I8042Core;
    using Shell = DeviceShell<Core, Events, KeyboardTrigger, AuxTrigger>;
    static_assert(
        !requires { &Events::a20_changed; } || requires(Events& events) { events.a20_changed(true); },
        "the event a20_changed must take a bool");
    static_assert(
        !requires { &Events::leds_changed; } ||
            requires(Events& events) { events.leds_changed(std::uint8_t{}); },
        "the event leds_changed must take a std::uint8_t");

public:
    using error_type = typename T::error_type;
    /// Offsets 0 to 4; 1 to 3 do not belong to the controller and read 0.
    static constexpr std::size_t register_count = 5;

    /// `reset_evt` is triggered when the guest resets the CPU.
    explicit constexpr I8042(T reset_evt, I8042Options options = {})
        requires std::default_initializable<KeyboardTrigger> && std::default_initializable<AuxTrigger> &&
                 std::default_initializable<Events> && std::default_initializable<C>
        : I8042(std::move(reset_evt), KeyboardTrigger(), AuxTrigger(), Events(), options) {}

    /// With interrupts: `keyboard_interrupt` is IRQ 1, `aux_interrupt` IRQ 12 of a PC.
    constexpr I8042(T reset_evt, KeyboardTrigger keyboard_interrupt, AuxTrigger aux_interrupt = AuxTrigger(),
                    Events events = Events(), I8042Options options = {})
        requires std::default_initializable<C>
        : I8042(Core(options), std::move(reset_evt), std::move(keyboard_interrupt), std::move(aux_interrupt),
                std::move(events), C()) {}

    /// With a clock for the hold-off that `options` sets.
    constexpr I8042(T reset_evt, KeyboardTrigger keyboard_interrupt, AuxTrigger aux_interrupt, Events events,
                    C clock, I8042Options options)
        : I8042(Core(options), std::move(reset_evt), std::move(keyboard_interrupt), std::move(aux_interrupt),
                std::move(events), std::move(clock)) {}

    /// Restores a saved device with its options, except the hold-off, which the new owner specifies. An
    /// interrupt line that was high is raised again. A hold-off in progress continues with the remaining time
    /// as of the last access or `tick()`.
    [[nodiscard]] static constexpr std::expected<I8042, StateError> from_state(
        const I8042State& state, T reset_evt, KeyboardTrigger keyboard_interrupt = KeyboardTrigger(),
        AuxTrigger aux_interrupt = AuxTrigger(), Events events = Events(), C clock = C(),
        std::chrono::nanoseconds hold_off = {}) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return I8042(Core(state, hold_off), std::move(reset_evt), std::move(keyboard_interrupt),
                     std::move(aux_interrupt), std::move(events), std::move(clock));
    }

    /// A read by the guest. Offsets other than 0 and 4 return 0 (0xFF if the controller is absent).
    constexpr std::uint8_t read(std::uint8_t offset) {
        tick();
        const std::uint8_t value = peek(offset);
        if (profile() == I8042Profile::full && offset == i8042::data_offset) {
            const auto effects = this->core().take_output();
            start_hold();
            act(effects);
        }
        return value;
    }

    /// The result of `read` without its effects, as of the last access or `tick()`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        return this->core().peek(offset);
    }

    /// A write by the guest. Fails only if it resets the CPU and the reset trigger fails.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        tick();
        const auto effects = this->core().write(offset, value);
        act(effects);
        if (!effects.resets_cpu) {
            return {};
        }
        return this->checked(HostErrorSource::reset, pulse(reset_evt_));
    }

    /// Presses or releases a key of the keyboard. Returns false if it was lost because the guest does not
    /// read the keyboard; the guest then finds an overrun code.
    constexpr bool key(Key key, bool down) {
        if (!this->core().has_keyboard()) {
            return true;
        }
        tick();
        const auto effects = this->core().key(key, down);
        act(effects);
        counters_.keyboard_overruns += effects.key_lost ? 1U : 0U;
        return !effects.key_lost;
    }
    /// Presses a key, as key(k, true).
    constexpr bool press(Key k) { return key(k, true); }
    /// Releases a key, as key(k, false).
    constexpr bool release(Key k) { return key(k, false); }

    /// Presses and releases Ctrl-Alt-Del. Queues all codes, or returns false and queues none if the
    /// keyboard's buffer has no room for them.
    [[nodiscard]] constexpr bool ctrl_alt_del() {
        if (!this->core().has_keyboard()) {
            return true;
        }
        tick();
        const auto effects = this->core().ctrl_alt_del();
        act(effects);
        return !effects.key_lost;
    }

    /// Moves the mouse or changes its buttons. Motion that the guest has not read yet adds up.
    constexpr void move_mouse(const MouseMotion& motion) {
        if (this->core().has_mouse()) {
            tick();
            act(this->core().move_mouse(motion));
        }
    }

    /// Updates the device to its clock: if the hold-off has passed, the next byte arrives.
    constexpr void tick() {
        if (!holding()) {
            return;
        }
        const std::int64_t before = std::exchange(looked_, clock_ns());
        // If the clock was set back, no time has passed. The distance is in two's complement, so no sum
        // overflows.
        act(this->core().advance(looked_ > before ? static_cast<std::uint64_t>(looked_) -
                                                        static_cast<std::uint64_t>(before)
                                                  : 0U));
    }
    /// The time on the device's clock at which to call `tick()`, or nothing while no byte is held back. Call
    /// it again after every access, every `tick()`, and every key and movement.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        if (!this->core().held_back()) {
            return std::nullopt;
        }
        const auto left = static_cast<std::int64_t>(this->core().state().hold_left);
        return std::chrono::nanoseconds(detail::saturating_add(looked_, left));
    }

    /// Restores the state after power-on, as when the machine is reset. Triggers and options stay.
    constexpr void reset() { act(this->core().reset()); }

    /// The device as text for people: the status register as the guest reads it, then a line for each member
    /// of the state (see `inspect.hpp`).
    [[nodiscard]] std::string inspect() const {
        return vmsuperio::inspect(i8042::Status(peek(i8042::command_offset))) + "\n" + Shell::inspect();
    }
    /// Which controller the device pretends to be.
    [[nodiscard]] constexpr I8042Profile profile() const noexcept { return this->core().state().profile; }
    /// Host errors, lost keys and unknown commands since construction.
    [[nodiscard]] constexpr I8042Counters counters() const noexcept {
        I8042Counters counters = counters_;
        counters.interrupt_errors = this->host_errors().interrupt;
        return counters;
    }
    /// Whether address line 20 reaches the memory.
    [[nodiscard]] constexpr bool a20_enabled() const noexcept { return this->core().a20(); }
    /// Bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock: see `ps2::Leds`.
    [[nodiscard]] constexpr std::uint8_t leds() const noexcept { return this->core().state().keyboard.leds; }

    [[nodiscard]] constexpr const T& reset_evt() const noexcept { return reset_evt_; }
    [[nodiscard]] constexpr T& reset_evt() noexcept { return reset_evt_; }
    [[nodiscard]] constexpr const KeyboardTrigger& keyboard_interrupt() const noexcept {
        return this->template line<Core::keyboard_line>().trigger();
    }
    [[nodiscard]] constexpr KeyboardTrigger& keyboard_interrupt() noexcept {
        return this->template line<Core::keyboard_line>().trigger();
    }
    [[nodiscard]] constexpr const AuxTrigger& aux_interrupt() const noexcept {
        return this->template line<Core::aux_line>().trigger();
    }
    [[nodiscard]] constexpr AuxTrigger& aux_interrupt() noexcept {
        return this->template line<Core::aux_line>().trigger();
    }
    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }
    [[nodiscard]] constexpr C& clock() noexcept { return clock_; }

private:
    constexpr I8042(const Core& core, T reset_evt, KeyboardTrigger keyboard_interrupt,
                    AuxTrigger aux_interrupt, Events events, C clock)
        : Shell(core, std::move(events), std::move(keyboard_interrupt), std::move(aux_interrupt)),
          reset_evt_(std::move(reset_evt)),
          clock_(std::move(clock)) {
        start_hold();
        act({});
    }

    constexpr void act(const Core::Effects& effects) {
        counters_.unknown_commands += effects.unknown_command ? 1U : 0U;
        static_cast<void>(this->apply(effects));
    }

    [[nodiscard]] constexpr bool holding() const noexcept { return this->core().state().hold_left != 0; }
    [[nodiscard]] constexpr std::int64_t clock_ns() const { return time_since_epoch(clock_).count(); }
    /// Starts the hold-off at the present time.
    constexpr void start_hold() {
        if (holding()) {
            looked_ = clock_ns();
        }
    }

    T reset_evt_;
    [[no_unique_address]] C clock_;
    std::int64_t looked_{};  ///< the clock's time when it was last read; used while a hold-off runs
    I8042Counters counters_;
};

template <Trigger T>
I8042(T) -> I8042<T>;
template <Trigger T>
I8042(T, I8042Options) -> I8042<T>;

}  // namespace vmsuperio::inline v0_2

// vmsuperio/registers/pvpanic.hpp

namespace vmsuperio::inline v0_2 {

/// The events register of pvpanic (QEMU, "PVPANIC DEVICE" specification): a read returns the events that the
/// device supports, a write reports those that happened.
struct PvpanicEvents : Register<PvpanicEvents, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "events";
    static constexpr Bit<0> panicked{};
    static constexpr Bit<1> crash_loaded{};
    static constexpr Bit<2> shutdown{};
    static constexpr FieldInfo fields[]{
        {"panicked", panicked.bits}, {"crash_loaded", crash_loaded.bits}, {"shutdown", shutdown.bits}};
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/pvpanic.hpp

namespace vmsuperio::inline v0_2 {

/// What a guest reports through pvpanic. The numbers are the bits of its register.
enum class PvpanicEvent : std::uint8_t {
    panicked = 0x01,      ///< the guest's kernel panicked and stops
    crash_loaded = 0x02,  ///< it panicked and continues in a crash kernel, which will save a dump
    shutdown = 0x04,      ///< it shuts down in an orderly way
};

/// Everything that a Pvpanic remembers.
struct PvpanicState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PVPC"), .version = 1, .readable_since = 1};

    std::uint8_t seen{};  ///< the events reported so far, as bits

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [seen] = self;
        archive("seen", seen, as<PvpanicEvents>);
    }
    friend constexpr bool operator==(const PvpanicState&, const PvpanicState&) = default;
};

namespace detail {

inline constexpr std::uint8_t all_pvpanic_events = PvpanicEvents::guest_mask();

}  // namespace detail

/// Checks whether a device that supports the events `supported` can be in this state. The error names "seen"
/// if that contains an event that the device does not support.
[[nodiscard]] constexpr std::expected<void, StateError> validate(
    const PvpanicState& state, std::uint8_t supported = detail::all_pvpanic_events) {
    if ((state.seen & ~(unsigned{supported} & detail::all_pvpanic_events)) != 0) {
        return std::unexpected(StateError{"seen"});
    }
    return {};
}

namespace detail {

class PvpanicCore : public PortCore<PvpanicState> {
public:
    explicit constexpr PvpanicCore(std::uint8_t supported, const PvpanicState& state = {})
        : PortCore(state), supported_(supported & all_pvpanic_events) {}

    struct Effects : PortEffects {
        std::uint8_t reported{};

        template <class Events>
        constexpr void report(Events& events) const {
            constexpr std::array in_order{PvpanicEvent::panicked, PvpanicEvent::crash_loaded,
                                          PvpanicEvent::shutdown};
            for (const PvpanicEvent event : in_order) {
                if ((reported & static_cast<std::uint8_t>(event)) != 0) {
                    events.happened(event);
                }
            }
        }
    };

    [[nodiscard]] constexpr std::uint8_t supported() const noexcept { return supported_; }
    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        Effects effects;
        effects.reported = value & supported_;
        state_.seen |= effects.reported;
        return effects;
    }
    constexpr void reset() noexcept { state_ = {}; }

private:
    std::uint8_t supported_;
};

struct PvpanicCallback {
    Callback<void(PvpanicEvent)> on_event;
    void happened(PvpanicEvent event) {
        if (on_event) {
            on_event(event);
        }
    }
};

}  // namespace detail

/// The pvpanic ISA device: one byte, at port 0x505 by convention (the guest finds it through ACPI, QEMU0001).
///
/// A read returns the events that the device supports; a write reports one or more of them, and other bits
/// are ignored. Not modelled: the PCI variant. Source: QEMU, "PVPANIC DEVICE" specification. Thread safety:
/// none.
class Pvpanic : public DeviceShell<detail::PvpanicCore, detail::PvpanicCallback> {
public:
    static constexpr std::size_t register_count = 1;
    /// The port that QEMU uses, and that guests find through ACPI.
    static constexpr std::uint16_t default_port = 0x505;
    /// All events that the port can support.
    static constexpr std::uint8_t all_events = detail::all_pvpanic_events;

    /// `on_event` is called from within the guest's write for each event, panicked first. It must not block
    /// and must not throw. `supported` has a bit for each supported event.
    explicit Pvpanic(Callback<void(PvpanicEvent)> on_event = {}, std::uint8_t supported = all_events)
        : Pvpanic(detail::PvpanicCore(supported), std::move(on_event)) {}

    /// The supported events, a bit for each.
    std::uint8_t read(std::uint8_t = 0) { return core().supported(); }

    /// Reports the events whose bits are set.
    void write(std::uint8_t, std::uint8_t value) { apply(core().write(value)); }
    /// Writes of a string instruction: reports the events of each byte.
    void write_data(std::span<const std::uint8_t> bytes) {
        for (const std::uint8_t byte : bytes) {
            write(0, byte);
        }
    }

    /// Whether the guest has reported `event` since construction or the last reset.
    [[nodiscard]] bool seen(PvpanicEvent event) const noexcept {
        return (core().state().seen & static_cast<std::uint8_t>(event)) != 0;
    }

    /// Restores a saved device without calling `on_event`.
    template <class Self = Pvpanic>  // so that inclusion alone does not instantiate std::expected<Pvpanic>
    [[nodiscard]] static std::expected<Self, StateError> from_state(
        const PvpanicState& state, Callback<void(PvpanicEvent)> on_event = {},
        std::uint8_t supported = all_events) {
        if (const auto valid = validate(state, supported); !valid) {
            return std::unexpected(valid.error());
        }
        return Self(detail::PvpanicCore(supported, state), std::move(on_event));
    }
    /// A hardware reset: clears the events that the guest has reported.
    void reset() noexcept { core().reset(); }

private:
    Pvpanic(const detail::PvpanicCore& core, Callback<void(PvpanicEvent)> on_event)
        : DeviceShell(core, {.on_event = std::move(on_event)}) {}
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/registers/mc146818.hpp

/// The registers of the MC146818A real-time clock and the CMOS bytes that have a meaning on a PC.
///
/// Sources: Motorola MC146818A datasheet, "Address map", "Registers"; IBM PC/AT Technical Reference,
/// "Real-time clock/CMOS RAM information".
namespace vmsuperio::inline v0_2::mc146818 {

inline constexpr std::uint8_t index_offset = 0;           ///< port 0x70
inline constexpr std::uint8_t data_offset = 1;            ///< port 0x71
inline constexpr std::uint8_t extended_index_offset = 2;  ///< port 0x72, of the second bank
inline constexpr std::uint8_t extended_data_offset = 3;   ///< port 0x73

// The bytes by their index.
/// 0 to 59, in BCD or binary as register B says, like all of these.
inline constexpr std::uint8_t seconds = 0x00;
/// As seconds; 0xC0 and above match any.
inline constexpr std::uint8_t seconds_alarm = 0x01;
/// 0 to 59.
inline constexpr std::uint8_t minutes = 0x02;
/// As minutes; 0xC0 and above match any.
inline constexpr std::uint8_t minutes_alarm = 0x03;
/// 0 to 23, or 1 to 12 with bit 7 for the afternoon.
inline constexpr std::uint8_t hours = 0x04;
/// As hours; 0xC0 and above match any.
inline constexpr std::uint8_t hours_alarm = 0x05;
/// 1 to 7; 1 is Sunday.
inline constexpr std::uint8_t weekday = 0x06;
/// Of the month, 1 to 31.
inline constexpr std::uint8_t day = 0x07;
/// 1 to 12.
inline constexpr std::uint8_t month = 0x08;
/// Of the century, 0 to 99.
inline constexpr std::uint8_t year = 0x09;
/// Update in progress, divider, periodic rate.
inline constexpr std::uint8_t register_a = 0x0A;
/// Interrupt enables and formats.
inline constexpr std::uint8_t register_b = 0x0B;
/// Interrupt flags; a read clears them.
inline constexpr std::uint8_t register_c = 0x0C;
/// Valid RAM and time; the alarm's day in some chips.
inline constexpr std::uint8_t register_d = 0x0D;
inline constexpr std::uint8_t shutdown_status =
    0x0F;  ///< informs the firmware about the purpose of a CPU reset
inline constexpr std::uint8_t checksum_first = 0x10;   ///< the checksum covers 0x10 to 0x2D
inline constexpr std::uint8_t base_memory_low = 0x15;  ///< KiB below 640 KiB
/// Memory below 640 KiB in KiB, bits 15:8.
inline constexpr std::uint8_t base_memory_high = 0x16;
inline constexpr std::uint8_t extended_memory_low = 0x17;  ///< KiB above 1 MiB, at most 65535
/// Memory above 1 MiB in KiB, bits 15:8.
inline constexpr std::uint8_t extended_memory_high = 0x18;
/// The last byte that the checksum covers.
inline constexpr std::uint8_t checksum_last = 0x2D;
/// The checksum, bits 15:8.
inline constexpr std::uint8_t checksum_high = 0x2E;
/// The checksum, bits 7:0.
inline constexpr std::uint8_t checksum_low = 0x2F;
inline constexpr std::uint8_t extended_memory2_low = 0x30;  ///< as 0x17 and 0x18, found by the power-on test
/// The second copy of the extended memory, bits 15:8.
inline constexpr std::uint8_t extended_memory2_high = 0x31;
/// The century, in the format of the year.
inline constexpr std::uint8_t century = 0x32;
inline constexpr std::uint8_t memory_above_16m_low = 0x34;  ///< 64 KiB units between 16 MiB and 4 GiB
/// Memory above 16 MiB in units of 64 KiB, bits 15:8.
inline constexpr std::uint8_t memory_above_16m_high = 0x35;
inline constexpr std::uint8_t memory_above_4g_low = 0x5B;  ///< 64 KiB units above 4 GiB
/// Memory above 4 GiB in units of 64 KiB, bits 15:8.
inline constexpr std::uint8_t memory_above_4g_middle = 0x5C;
/// Memory above 4 GiB in units of 64 KiB, bits 23:16.
inline constexpr std::uint8_t memory_above_4g_high = 0x5D;

/// The name of a byte, for traces and debuggers; empty for plain memory. Bit 7 of the index, which masks NMI,
/// is ignored.
[[nodiscard]] constexpr std::string_view index_name(std::uint8_t index) noexcept {
    switch (index & 0x7FU) {
        case seconds:
            return "seconds";
        case seconds_alarm:
            return "seconds_alarm";
        case minutes:
            return "minutes";
        case minutes_alarm:
            return "minutes_alarm";
        case hours:
            return "hours";
        case hours_alarm:
            return "hours_alarm";
        case weekday:
            return "weekday";
        case day:
            return "day";
        case month:
            return "month";
        case year:
            return "year";
        case register_a:
            return "A";
        case register_b:
            return "B";
        case register_c:
            return "C";
        case register_d:
            return "D";
        case shutdown_status:
            return "shutdown_status";
        case base_memory_low:
            return "base_memory_low";
        case base_memory_high:
            return "base_memory_high";
        case extended_memory_low:
            return "extended_memory_low";
        case extended_memory_high:
            return "extended_memory_high";
        case checksum_high:
            return "checksum_high";
        case checksum_low:
            return "checksum_low";
        case extended_memory2_low:
            return "extended_memory2_low";
        case extended_memory2_high:
            return "extended_memory2_high";
        case century:
            return "century";
        case memory_above_16m_low:
            return "memory_above_16m_low";
        case memory_above_16m_high:
            return "memory_above_16m_high";
        case memory_above_4g_low:
            return "memory_above_4g_low";
        case memory_above_4g_middle:
            return "memory_above_4g_middle";
        case memory_above_4g_high:
            return "memory_above_4g_high";
        default:
            return {};
    }
}

/// Index register, port 0x70.
struct IndexRegister : Register<IndexRegister, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "index";
    static constexpr Field<0, 6> index{};
    static constexpr Bit<7> nmi_masked{};  // implemented on the PC's board, not in the chip
    static constexpr FieldInfo fields[]{{"index", index.bits}, {"nmi_masked", nmi_masked.bits}};
};

/// Register A. The guest cannot write UIP.
struct RegisterA : Register<RegisterA, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "A";
    static constexpr Field<0, 3> rate_select{};  // RS: the periodic interrupt's rate
    static constexpr Field<4, 6> divider{};      // DV: time base; 6 and 7 hold the divider in reset
    static constexpr Bit<7, Access::read_only> update_in_progress{};
    static constexpr FieldInfo fields[]{{"rate_select", rate_select.bits},
                                        {"divider", divider.bits},
                                        {"update_in_progress", update_in_progress.bits}};
};

/// Register B.
struct RegisterB : Register<RegisterB, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "B";
    static constexpr Bit<0> daylight_savings{};  // DSE: stored, without effect
    static constexpr Bit<1> hours_24{};          // 24/12
    static constexpr Bit<2> binary{};            // DM
    static constexpr Bit<3> square_wave{};       // SQWE: stored, without effect because there is no pin
    static constexpr Bit<4> update_ended_interrupt{};
    static constexpr Bit<5> alarm_interrupt{};
    static constexpr Bit<6> periodic_interrupt{};
    static constexpr Bit<7> set_mode{};                // SET: no updates, the guest sets the time
    static constexpr Field<4, 6> interrupt_enables{};  // UIE, AIE and PIE
    static constexpr FieldInfo fields[]{{"daylight_savings", daylight_savings.bits},
                                        {"hours_24", hours_24.bits},
                                        {"binary", binary.bits},
                                        {"square_wave", square_wave.bits},
                                        {"update_ended_interrupt", update_ended_interrupt.bits},
                                        {"alarm_interrupt", alarm_interrupt.bits},
                                        {"periodic_interrupt", periodic_interrupt.bits},
                                        {"set_mode", set_mode.bits}};
};

/// Register C: read only, cleared by a read.
struct RegisterC : Register<RegisterC, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "C";
    static constexpr Bit<4, Access::read_only> update_ended{};       // UF
    static constexpr Bit<5, Access::read_only> alarm{};              // AF
    static constexpr Bit<6, Access::read_only> periodic{};           // PF
    static constexpr Bit<7, Access::read_only> interrupt_request{};  // IRQF
    static constexpr Field<4, 6, Access::read_only> flags{};  // UF, AF and PF, in the order of their enables
    static constexpr FieldInfo fields[]{{"update_ended", update_ended.bits},
                                        {"alarm", alarm.bits},
                                        {"periodic", periodic.bits},
                                        {"interrupt_request", interrupt_request.bits}};
};

/// Register D: read only. Chips with an alarm on the day have it in bits 5:0 (Intel PIIX4 datasheet, RTC
/// register D), where the guest can write it.
struct RegisterD : Register<RegisterD, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "D";
    static constexpr Field<0, 5, Access::read_only> day_alarm{};
    static constexpr Bit<7, Access::read_only> valid_ram_and_time{};  // VRT
    static constexpr FieldInfo fields[]{{"day_alarm", day_alarm.bits},
                                        {"valid_ram_and_time", valid_ram_and_time.bits}};
};

/// The name of the port that an access reaches, for traces and debuggers; empty if there is none. The byte
/// behind a data port depends on the index that was written last.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset) noexcept {
    switch (offset) {
        case index_offset:
            return IndexRegister::name;
        case data_offset:
            return "data";
        case extended_index_offset:
            return "index2";
        case extended_data_offset:
            return "data2";
        default:
            return {};
    }
}

}  // namespace vmsuperio::inline v0_2::mc146818

// vmsuperio/registers/pl031.hpp

/// The registers of the ARM PrimeCell Real Time Clock (PL031).
///
/// Source: ARM DDI 0224, "Programmer's model", table 3-1. Every register is 32 bits wide.
namespace vmsuperio::inline v0_2::pl031 {

inline constexpr std::uint16_t data = 0x000;              ///< RTCDR: the seconds counter, read only
inline constexpr std::uint16_t match = 0x004;             ///< RTCMR
inline constexpr std::uint16_t load = 0x008;              ///< RTCLR: sets the counter
inline constexpr std::uint16_t control = 0x00C;           ///< RTCCR
inline constexpr std::uint16_t interrupt_mask = 0x010;    ///< RTCIMSC
inline constexpr std::uint16_t raw_interrupt = 0x014;     ///< RTCRIS, read only
inline constexpr std::uint16_t masked_interrupt = 0x018;  ///< RTCMIS, read only
inline constexpr std::uint16_t interrupt_clear = 0x01C;   ///< RTCICR, write only
inline constexpr std::uint16_t first_id = 0xFE0;          ///< RTCPeriphID0-3, then RTCPCellID0-3

/// Whether an identification register is at an offset.
[[nodiscard]] constexpr bool is_id(std::uint64_t offset) noexcept {
    return offset >= first_id && offset < first_id + 0x20U && offset % 4 == 0;
}
/// One byte in each of the eight identification registers: part 0x031, designer 0x41 (ARM), revision 0; then
/// the PrimeCell identification 0xB105F00D.
inline constexpr std::array<std::uint8_t, 8> ids{0x31, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1};

/// The name of the register at an offset, for traces and debuggers; empty if there is none.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset) noexcept {
    constexpr std::array<std::string_view, 8> id_names{"RTCPeriphID0", "RTCPeriphID1", "RTCPeriphID2",
                                                       "RTCPeriphID3", "RTCPCellID0",  "RTCPCellID1",
                                                       "RTCPCellID2",  "RTCPCellID3"};
    switch (offset) {
        case data:
            return "RTCDR";
        case match:
            return "RTCMR";
        case load:
            return "RTCLR";
        case control:
            return "RTCCR";
        case interrupt_mask:
            return "RTCIMSC";
        case raw_interrupt:
            return "RTCRIS";
        case masked_interrupt:
            return "RTCMIS";
        case interrupt_clear:
            return "RTCICR";
        default:
            return is_id(offset) ? id_names[(offset - first_id) / 4U] : std::string_view();
    }
}

/// RTCDR: seconds.
struct Data : Register<Data, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(data);
    static constexpr Field<0, 31, Access::read_only> seconds{};
    static constexpr FieldInfo fields[]{{"seconds", seconds.bits}};
};

/// RTCMR: the seconds at which the interrupt occurs.
struct Match : Register<Match, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(match);
    static constexpr Field<0, 31> seconds{};
    static constexpr FieldInfo fields[]{{"seconds", seconds.bits}};
};

/// RTCLR: the seconds to which the counter was last set.
struct Load : Register<Load, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(load);
    static constexpr Field<0, 31> seconds{};
    static constexpr FieldInfo fields[]{{"seconds", seconds.bits}};
};

/// RTCCR.
struct Control : Register<Control, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(control);
    static constexpr Bit<0> start{};
    static constexpr FieldInfo fields[]{{"start", start.bits}};
};

/// RTCIMSC: 1 enables the interrupt.
struct InterruptMask : Register<InterruptMask, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(interrupt_mask);
    static constexpr Bit<0> match{};
    static constexpr FieldInfo fields[]{{"match", match.bits}};
};

/// RTCRIS: the match, whether or not its interrupt is enabled.
struct InterruptStatus : Register<InterruptStatus, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(raw_interrupt);
    static constexpr Bit<0, Access::read_only> match{};
    static constexpr FieldInfo fields[]{{"match", match.bits}};
};

/// RTCMIS: the level of the interrupt line.
struct MaskedInterruptStatus : Register<MaskedInterruptStatus, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(masked_interrupt);
    static constexpr Bit<0, Access::read_only> match{};
    static constexpr FieldInfo fields[]{{"match", match.bits}};
};

/// RTCICR: RTCRIS as a guest's write changes it.
struct InterruptClear : Register<InterruptClear, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = register_name(interrupt_clear);
    static constexpr Bit<0, Access::write_one_to_clear> match{};
    static constexpr FieldInfo fields[]{{"match", match.bits}};
};

}  // namespace vmsuperio::inline v0_2::pl031

// vmsuperio/registers/reset_control.hpp

namespace vmsuperio::inline v0_2 {

/// RST_CNT, port 0xCF9 of PC chipsets (Intel ICH9 datasheet, 13.7.5), reset 0x00. Bits 7:4 and 0 read 0.
struct ResetControlRegister : Register<ResetControlRegister, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "RST_CNT";
    static constexpr Bit<1> system_reset{};  // SYS_RST: resets the platform instead of INIT
    static constexpr Bit<2> reset_cpu{};     // RST_CPU: a change from 0 to 1 causes a reset
    static constexpr Bit<3> full_reset{};    // FULL_RST: with SYS_RST, a power cycle
    static constexpr FieldInfo fields[]{
        {"system_reset", system_reset.bits}, {"reset_cpu", reset_cpu.bits}, {"full_reset", full_reset.bits}};
};

/// System control port A, port 0x92 (Intel ICH9 datasheet, 13.7.2), reset 0x00. Bits 7:2 read 0.
struct SystemControlA : Register<SystemControlA, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "PORT92";
    static constexpr Bit<0> fast_reset{};  // INIT_NOW: a change from 0 to 1 resets the CPUs
    static constexpr Bit<1> a20_gate{};    // ALT_A20_GATE
    static constexpr FieldInfo fields[]{{"fast_reset", fast_reset.bits}, {"a20_gate", a20_gate.bits}};
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/registers/uart16550.hpp

/// The registers of the 16550A UART, named as in the PC16550D datasheet (section 8.0, "Registers"); parts
/// that only the 64-byte version has are named as in the TL16C750 datasheet.
///
/// offset | read, DLAB=0 | write, DLAB=0 | read and write, DLAB=1
/// ------ | ------------ | ------------- | ----------------------
/// 0      | RBR          | THR           | DLL
/// 1      | IER          | IER           | DLM
/// 2      | IIR          | FCR           | IIR / FCR
/// 3..7   | LCR MCR LSR MSR SCR, independent of DLAB; writes to LSR and MSR have no effect
namespace vmsuperio::inline v0_2::uart16550 {

/// Offsets from the base address. RBR, THR and DLL share one, IER and DLM another, IIR and FCR a third.
namespace offset {
inline constexpr std::uint8_t receiver_buffer = 0;           // RBR
inline constexpr std::uint8_t transmitter_holding = 0;       // THR
inline constexpr std::uint8_t divisor_latch_low = 0;         // DLL, DLAB=1
inline constexpr std::uint8_t interrupt_enable = 1;          // IER
inline constexpr std::uint8_t divisor_latch_high = 1;        // DLM, DLAB=1
inline constexpr std::uint8_t interrupt_identification = 2;  // IIR
inline constexpr std::uint8_t fifo_control = 2;              // FCR
inline constexpr std::uint8_t line_control = 3;              // LCR
inline constexpr std::uint8_t modem_control = 4;             // MCR
inline constexpr std::uint8_t line_status = 5;               // LSR
inline constexpr std::uint8_t modem_status = 6;              // MSR
inline constexpr std::uint8_t scratch = 7;                   // SCR
/// How many offsets the UART has.
inline constexpr std::uint8_t count = 8;
}  // namespace offset

/// RBR: Receiver Buffer, offset 0, DLAB=0, read only. If it is empty, this model reads 0x00.
struct ReceiverBuffer : Register<ReceiverBuffer, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "RBR";
    static constexpr Field<0, 7, Access::read_only> data{};
    static constexpr FieldInfo fields[]{{"data", data.bits}};
};

/// DLL: Divisor Latch, low byte, offset 0, DLAB=1. This model resets it to 0x0C: 9600 baud.
struct DivisorLatchLow : Register<DivisorLatchLow, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "DLL";
    static constexpr Field<0, 7> divisor{};
    static constexpr FieldInfo fields[]{{"divisor", divisor.bits}};
};

/// DLM: Divisor Latch, high byte, offset 1, DLAB=1, reset 0x00.
struct DivisorLatchHigh : Register<DivisorLatchHigh, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "DLM";
    static constexpr Field<0, 7> divisor{};
    static constexpr FieldInfo fields[]{{"divisor", divisor.bits}};
};

/// IER: Interrupt Enable, offset 1, DLAB=0, reset 0x00. Bits 7:4 read 0.
struct InterruptEnable : Register<InterruptEnable, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "IER";
    static constexpr Bit<0> received_data{};  // ERBFI: data available and character timeout
    static constexpr Bit<1> thr_empty{};      // ETBEI
    static constexpr Bit<2> line_status{};    // ELSI
    static constexpr Bit<3> modem_status{};   // EDSSI
    static constexpr FieldInfo fields[]{{"received_data", received_data.bits},
                                        {"thr_empty", thr_empty.bits},
                                        {"line_status", line_status.bits},
                                        {"modem_status", modem_status.bits}};
};

/// IIR[3:0]: the highest pending interrupt (PC16550D table IV).
enum class InterruptId : std::uint8_t {
    modem_status = 0x0,  // MS, fourth priority
    none = 0x1,
    thr_empty = 0x2,          // THRE, third
    received_data = 0x4,      // RDA, second
    line_status = 0x6,        // RLS, first
    character_timeout = 0xC,  // CTI, second, after RDA
};

/// IIR: Interrupt Identification, offset 2, read only, reset 0x01.
struct InterruptIdentification : Register<InterruptIdentification, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "IIR";
    static constexpr Bit<0, Access::read_only> not_pending{};
    static constexpr Field<0, 3, Access::read_only> id{};
    static constexpr Bit<5, Access::read_only> fifo_64{};            // TL16C750: 64-byte mode
    static constexpr Field<6, 7, Access::read_only> fifo_enabled{};  // both set while the FIFOs are enabled
    static constexpr FieldInfo fields[]{
        {"id", id.bits}, {"fifo_64", fifo_64.bits}, {"fifo_enabled", fifo_enabled.bits}};
};

/// FCR: FIFO Control, offset 2, write only, reset 0x00. The reset bits clear themselves; bit 3 (DMA mode) is
/// stored and has no effect; bit 5 exists on the TL16C750 only and is writable while DLAB=1.
struct FifoControl : Register<FifoControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "FCR";
    static constexpr Bit<0> enable{};
    static constexpr Bit<1, Access::self_clearing> receiver_reset{};
    static constexpr Bit<2, Access::self_clearing> transmitter_reset{};
    static constexpr Bit<3> dma_mode{};
    static constexpr Bit<5, Access::read_only> fifo_64{};
    static constexpr Field<6, 7> receiver_trigger{};
    static constexpr FieldInfo fields[]{{"enable", enable.bits},
                                        {"receiver_reset", receiver_reset.bits},
                                        {"transmitter_reset", transmitter_reset.bits},
                                        {"dma_mode", dma_mode.bits},
                                        {"fifo_64", fifo_64.bits},
                                        {"receiver_trigger", receiver_trigger.bits}};
};

/// LCR: Line Control, offset 3. The PC16550D resets it to 0x00; this model to 0x03 (8 data bits).
struct LineControl : Register<LineControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "LCR";
    static constexpr Field<0, 1> word_length{};  // WLS: 5 to 8 bits
    static constexpr Bit<2> stop_bits{};         // STB: 2 (1.5 with 5 data bits)
    static constexpr Bit<3> parity_enable{};     // PEN
    static constexpr Bit<4> even_parity{};       // EPS
    static constexpr Bit<5> stick_parity{};
    static constexpr Bit<6> set_break{};
    static constexpr Bit<7> divisor_latch_access{};  // DLAB
    static constexpr Field<0, 5> format{};           // word length, stop bits and parity
    static constexpr FieldInfo fields[]{{"word_length", word_length.bits},
                                        {"stop_bits", stop_bits.bits},
                                        {"parity_enable", parity_enable.bits},
                                        {"even_parity", even_parity.bits},
                                        {"stick_parity", stick_parity.bits},
                                        {"set_break", set_break.bits},
                                        {"divisor_latch_access", divisor_latch_access.bits}};
};

/// MCR: Modem Control, offset 4. Bits 7:5 read 0; bit 5 exists on the TL16C750 only. The PC16550D resets it
/// to 0x00; this model to 0x08.
struct ModemControl : Register<ModemControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "MCR";
    static constexpr Bit<0> data_terminal_ready{};  // DTR
    static constexpr Bit<1> request_to_send{};      // RTS
    static constexpr Bit<2> out1{};
    static constexpr Bit<3> out2{};  // on a PC, gates the interrupt
    static constexpr Bit<4> loopback{};
    static constexpr Bit<5, Access::read_only> auto_flow_control{};  // AFE, TL16C750
    static constexpr FieldInfo fields[]{{"data_terminal_ready", data_terminal_ready.bits},
                                        {"request_to_send", request_to_send.bits},
                                        {"out1", out1.bits},
                                        {"out2", out2.bits},
                                        {"loopback", loopback.bits},
                                        {"auto_flow_control", auto_flow_control.bits}};
};

/// LSR: Line Status, offset 5, read only, reset 0x60. Reading clears bits 4:1.
struct LineStatus : Register<LineStatus, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "LSR";
    static constexpr Bit<0, Access::read_only> data_ready{};         // DR
    static constexpr Bit<1, Access::read_only> overrun_error{};      // OE
    static constexpr Bit<2, Access::read_only> parity_error{};       // PE
    static constexpr Bit<3, Access::read_only> framing_error{};      // FE
    static constexpr Bit<4, Access::read_only> break_interrupt{};    // BI
    static constexpr Bit<5, Access::read_only> thr_empty{};          // THRE
    static constexpr Bit<6, Access::read_only> transmitter_empty{};  // TEMT
    static constexpr Bit<7, Access::read_only> fifo_error{};  // FIFO mode: a PE, FE or BI is in the RX FIFO
    static constexpr Field<1, 4, Access::read_only> errors{};
    static constexpr Field<2, 4, Access::read_only> character_errors{};
    static constexpr FieldInfo fields[]{{"data_ready", data_ready.bits},
                                        {"overrun_error", overrun_error.bits},
                                        {"parity_error", parity_error.bits},
                                        {"framing_error", framing_error.bits},
                                        {"break_interrupt", break_interrupt.bits},
                                        {"thr_empty", thr_empty.bits},
                                        {"transmitter_empty", transmitter_empty.bits},
                                        {"fifo_error", fifo_error.bits}};
};

/// MSR: Modem Status, offset 6, read only. Reading clears the deltas. Reset 0xB0: CTS, DSR and DCD are on.
struct ModemStatus : Register<ModemStatus, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "MSR";
    static constexpr Bit<0, Access::read_only> delta_clear_to_send{};        // DCTS
    static constexpr Bit<1, Access::read_only> delta_data_set_ready{};       // DDSR
    static constexpr Bit<2, Access::read_only> trailing_edge_ring{};         // TERI
    static constexpr Bit<3, Access::read_only> delta_data_carrier_detect{};  // DDCD
    static constexpr Bit<4, Access::read_only> clear_to_send{};              // CTS
    static constexpr Bit<5, Access::read_only> data_set_ready{};             // DSR
    static constexpr Bit<6, Access::read_only> ring_indicator{};             // RI
    static constexpr Bit<7, Access::read_only> data_carrier_detect{};        // DCD
    static constexpr Field<0, 3, Access::read_only> deltas{};
    static constexpr Field<4, 7, Access::read_only> lines{};
    static constexpr FieldInfo fields[]{{"delta_clear_to_send", delta_clear_to_send.bits},
                                        {"delta_data_set_ready", delta_data_set_ready.bits},
                                        {"trailing_edge_ring", trailing_edge_ring.bits},
                                        {"delta_data_carrier_detect", delta_data_carrier_detect.bits},
                                        {"clear_to_send", clear_to_send.bits},
                                        {"data_set_ready", data_set_ready.bits},
                                        {"ring_indicator", ring_indicator.bits},
                                        {"data_carrier_detect", data_carrier_detect.bits}};
};

/// SCR: Scratch, offset 7, reset 0x00.
struct Scratch : Register<Scratch, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "SCR";
    static constexpr Field<0, 7> data{};
    static constexpr FieldInfo fields[]{{"data", data.bits}};
};

/// The name of the register that an access reaches, for traces and debuggers; empty if there is none.
/// `divisor_latch` is LCR.DLAB at the time of the access.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset, bool write,
                                                       bool divisor_latch) noexcept {
    switch (offset) {
        case offset::receiver_buffer:
            return divisor_latch ? "DLL" : (write ? "THR" : "RBR");
        case offset::interrupt_enable:
            return divisor_latch ? "DLM" : InterruptEnable::name;
        case offset::interrupt_identification:
            return write ? FifoControl::name : InterruptIdentification::name;
        case offset::line_control:
            return LineControl::name;
        case offset::modem_control:
            return ModemControl::name;
        case offset::line_status:
            return LineStatus::name;
        case offset::modem_status:
            return ModemStatus::name;
        case offset::scratch:
            return Scratch::name;
        default:
            return {};
    }
}

}  // namespace vmsuperio::inline v0_2::uart16550

// vmsuperio/reset_control.hpp

/// The two ports of a PC's chipset that reset it: RST_CNT at port 0xCF9, which the FADT of most machines also
/// names as ACPI's reset register, and system control port A at port 0x92, which gates A20 as well.
///
/// Sources: Intel ICH9 datasheet, 13.7.5 (RST_CNT) and 13.7.2 (PORT92); IBM PS/2 Hardware Interface Technical
/// Reference, "System Control Port A". Ignored bits: all bits that the registers do not name; they read 0.
/// Not modelled: the lock of the power-on password and the disk light of port 0x92. Thread safety: none.
namespace vmsuperio::inline v0_2 {

/// The kind of reset that the guest requested through RST_CNT.
enum class ResetKind : std::uint8_t {
    soft,  ///< INIT of the CPUs alone
    hard,  ///< the platform's reset line
    full,  ///< a power cycle
};

/// The default events type of RST_CNT, which ignores all events. An events type may have the members
/// `reset_requested(ResetKind kind)`, which is called before the trigger, and `host_error(HostErrorSource)`.
struct NoResetControlEvents {};

/// Everything that a ResetControl remembers.
struct ResetControlState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CF9 "), .version = 1, .readable_since = 1};

    std::uint8_t value{};  ///< RST_CNT as the guest reads it

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [value] = self;
        archive("value", value, as<ResetControlRegister>);
    }
    friend constexpr bool operator==(const ResetControlState&, const ResetControlState&) = default;
};

/// Checks whether RST_CNT can have this value. The error names "value" if a bit is set that always reads 0.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const ResetControlState& state) {
    if ((state.value & ~unsigned{ResetControlRegister::guest_mask()}) != 0) {
        return std::unexpected(StateError{"value"});
    }
    return {};
}

/// The default events type of system control port A, which ignores all events. An events type may have the
/// members `a20_changed(bool enabled)`, which is called when the guest or a reset switches the gate, and
/// `host_error(HostErrorSource)`.
struct NoSystemControlEvents {};

/// Everything that a SystemControlPortA remembers.
struct SystemControlPortAState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PT92"), .version = 1, .readable_since = 1};

    std::uint8_t value{};  ///< the port as the guest reads it

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [value] = self;
        archive("value", value, as<SystemControlA>);
    }
    friend constexpr bool operator==(const SystemControlPortAState&,
                                     const SystemControlPortAState&) = default;
};

/// Checks whether the port can have this value. The error names "value" if a bit is set that always reads 0.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const SystemControlPortAState& state) {
    if ((state.value & ~unsigned{SystemControlA::guest_mask()}) != 0) {
        return std::unexpected(StateError{"value"});
    }
    return {};
}

namespace detail {

class ResetControlCore : public PortCore<ResetControlState> {
public:
    using PortCore::PortCore;

    struct Effects : PortEffects {
        bool resets{};
        ResetKind kind{};

        template <class Events>
        constexpr void report(Events& events) const {
            if constexpr (requires { events.reset_requested(ResetKind::hard); }) {
                if (resets) {
                    events.reset_requested(kind);
                }
            }
        }
    };

    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        using Bits = ResetControlRegister;
        ResetControlRegister reg(state_.value);
        const bool before = reg[Bits::reset_cpu];
        reg.guest_write(value);
        state_.value = reg.value();
        Effects effects;
        effects.resets = !before && reg[Bits::reset_cpu];
        effects.kind = !reg[Bits::system_reset] ? ResetKind::soft
                       : reg[Bits::full_reset]  ? ResetKind::full
                                                : ResetKind::hard;
        return effects;
    }
    [[nodiscard]] constexpr Effects reset() noexcept {
        state_ = {};
        return {};
    }
};

class SystemControlPortACore : public PortCore<SystemControlPortAState> {
public:
    using PortCore::PortCore;

    struct Effects : PortEffects {
        bool resets{};
        bool gate_switched{};
        bool gate{};  // whether A20 is enabled now

        template <class Events>
        constexpr void report(Events& events) const {
            if constexpr (requires { events.a20_changed(true); }) {
                if (gate_switched) {
                    events.a20_changed(gate);
                }
            }
        }
    };

    [[nodiscard]] constexpr bool a20_enabled() const noexcept {
        return SystemControlA(state_.value)[SystemControlA::a20_gate];
    }
    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        SystemControlA reg(state_.value);
        reg.guest_write(value);
        return change_to(reg);
    }
    [[nodiscard]] constexpr Effects reset() noexcept { return change_to(SystemControlA()); }

private:
    constexpr Effects change_to(SystemControlA reg) noexcept {
        using Bits = SystemControlA;
        const SystemControlA before(std::exchange(state_.value, reg.value()));
        Effects effects;
        effects.resets = !before[Bits::fast_reset] && reg[Bits::fast_reset];
        effects.gate = reg[Bits::a20_gate];
        effects.gate_switched = before[Bits::a20_gate] != effects.gate;
        return effects;
    }
};

/// The shell of a port that resets. `Device` is the device class, which derives from it.
template <class Device, class Core, Trigger T, class Events>
class ResetPort : public DeviceShell<Core, Events> {
    using State = std::remove_cvref_t<decltype(std::declval<const Core&>().state())>;

public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    static constexpr std::size_t register_count = 1;

    constexpr ResetPort()
        requires std::default_initializable<T> && std::default_initializable<Events>
        : ResetPort(T(), Events()) {}
    explicit constexpr ResetPort(T reset_evt)
        requires std::default_initializable<Events>
        : ResetPort(std::move(reset_evt), Events()) {}
    constexpr ResetPort(T reset_evt, Events events)
        : ResetPort(Core(), std::move(reset_evt), std::move(events)) {}

    /// Restores a saved port without calling the trigger or an event.
    [[nodiscard]] static constexpr std::expected<Device, StateError> from_state(const State& state,
                                                                                T reset_evt = T(),
                                                                                Events events = Events()) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return Device(Core(state), std::move(reset_evt), std::move(events));
    }

    /// A read by the guest. Offsets other than 0 read 0xFF.
    [[nodiscard]] constexpr std::uint8_t read(std::uint8_t offset = 0) const noexcept { return peek(offset); }
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset = 0) const noexcept {
        return offset == 0 ? this->core().state().value : std::uint8_t{0xFF};
    }
    /// A write by the guest: reports events, then triggers the reset. Returns the result of the trigger.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        if (offset != 0) {
            return {};
        }
        const auto effects = this->core().write(value);
        this->apply(effects);
        return effects.resets ? this->checked(HostErrorSource::reset, pulse(reset_evt_))
                              : std::expected<void, error_type>{};
    }

    /// The chipset's reset: sets the register to 0. The trigger is not called.
    constexpr void reset() { this->apply(this->core().reset()); }

    [[nodiscard]] constexpr const T& reset_evt() const noexcept { return reset_evt_; }
    [[nodiscard]] constexpr T& reset_evt() noexcept { return reset_evt_; }

protected:
    constexpr ResetPort(const Core& core, T reset_evt, Events events)
        : DeviceShell<Core, Events>(core, std::move(events)), reset_evt_(std::move(reset_evt)) {}

private:
    T reset_evt_;
};

}  // namespace detail

/// RST_CNT, one port. A change of RST_CPU from 0 to 1 causes a reset: drivers first set SYS_RST alone, then
/// both.
///
/// Arguments: the trigger of the reset, events. `write` returns the result of the trigger.
template <Trigger T = NullTrigger, class Events = NoResetControlEvents>
    requires(!Trigger<Events>)
class ResetControl : public detail::ResetPort<ResetControl<T, Events>, detail::ResetControlCore, T, Events> {
    static_assert(
        !requires { &Events::reset_requested; } ||
            requires(Events& events) { events.reset_requested(ResetKind::hard); },
        "the event reset_requested must take a ResetKind");

public:
    using ResetControl::ResetPort::ResetPort;
};

ResetControl() -> ResetControl<>;
template <Trigger T>
ResetControl(T) -> ResetControl<T>;
template <Trigger T, class Events>
ResetControl(T, Events) -> ResetControl<T, Events>;

/// System control port A, one port. Bit 1 gates A20; the chipset enables A20 if this port or the keyboard
/// controller does. A change of bit 0 from 0 to 1 resets the CPUs (INIT), which "fast reset" programs use.
///
/// A20 is off after a reset, as on the hardware: `reset()` reports the change if the gate was on. A VMM that
/// does not model the gate may leave A20 of its CPUs on, because guests test memory before they switch the
/// gate.
///
/// Arguments: the trigger of the reset, events. `write` returns the result of the trigger.
template <Trigger T = NullTrigger, class Events = NoSystemControlEvents>
    requires(!Trigger<Events>)
class SystemControlPortA
    : public detail::ResetPort<SystemControlPortA<T, Events>, detail::SystemControlPortACore, T, Events> {
    static_assert(
        !requires { &Events::a20_changed; } || requires(Events& events) { events.a20_changed(true); },
        "the event a20_changed must take a bool");

public:
    using SystemControlPortA::ResetPort::ResetPort;

    /// Whether ALT_A20_GATE is set: address line 20 is on.
    [[nodiscard]] constexpr bool a20_enabled() const noexcept { return this->core().a20_enabled(); }
};

SystemControlPortA() -> SystemControlPortA<>;
template <Trigger T>
SystemControlPortA(T) -> SystemControlPortA<T>;
template <Trigger T, class Events>
SystemControlPortA(T, Events) -> SystemControlPortA<T, Events>;

}  // namespace vmsuperio::inline v0_2

// vmsuperio/rtc/calendar.hpp

/// The calendar of the MC146818A: its bytes in BCD or binary and in 12 or 24 hours, how they advance, and
/// when they match an alarm. No function loops over time: a jump of centuries costs the same as one second.
namespace vmsuperio::inline v0_2::detail {

inline constexpr std::int64_t seconds_per_day = 86400;

/// The format of the bytes: bits DM and 24/12 of register B.
struct RtcFormat {
    bool binary{};
    bool hours_24{};

    friend constexpr bool operator==(const RtcFormat&, const RtcFormat&) = default;

    /// 0 to 99 (BCD) or 0 to 255.
    [[nodiscard]] constexpr std::uint8_t encode(std::int64_t value) const noexcept {
        if (binary) {
            return static_cast<std::uint8_t>(value & 0xFF);
        }
        return static_cast<std::uint8_t>(((floor_mod(value, 100) / 10) << 4) | floor_mod(value, 10));
    }
    /// Every byte is converted to some number: a guest may write digits that are not BCD.
    [[nodiscard]] constexpr std::int64_t decode(std::uint8_t byte) const noexcept {
        return binary ? std::int64_t{byte} : std::int64_t{byte >> 4} * 10 + (byte & 0x0F);
    }
    /// In 12-hour mode midnight is 12 AM, noon is 12 PM, and bit 7 means PM.
    [[nodiscard]] constexpr std::uint8_t encode_hour(std::int64_t hour) const noexcept {
        if (hours_24) {
            return encode(hour);
        }
        const std::int64_t half = hour % 12 == 0 ? 12 : hour % 12;
        return static_cast<std::uint8_t>(encode(half) | (hour >= 12 ? 0x80 : 0x00));
    }
    [[nodiscard]] constexpr std::int64_t decode_hour(std::uint8_t byte) const noexcept {
        if (hours_24) {
            return decode(byte);
        }
        return decode(byte & 0x7F) % 12 + ((byte & 0x80) != 0 ? 12 : 0);
    }
};

/// The calendar bytes of the chip.
struct RtcBytes {
    std::uint8_t second{};
    std::uint8_t minute{};
    std::uint8_t hour{};
    std::uint8_t weekday{};  // 1 is Sunday
    std::uint8_t day{};
    std::uint8_t month{};
    std::uint8_t year{};
    std::uint8_t century{};
};

/// The time of the bytes, in seconds since 1970-01-01 00:00. Numbers beyond their range carry into the next
/// field.
[[nodiscard]] constexpr std::int64_t rtc_seconds(const RtcBytes& bytes, RtcFormat format) noexcept {
    const std::int64_t month = format.decode(bytes.month) - 1;
    const std::int64_t year =
        format.decode(bytes.century) * 100 + format.decode(bytes.year) + floor_div(month, 12);
    const std::int64_t days =
        days_from_civil({year, floor_mod(month, 12) + 1, 1}) + format.decode(bytes.day) - 1;
    return days * seconds_per_day + format.decode_hour(bytes.hour) * 3600 + format.decode(bytes.minute) * 60 +
           format.decode(bytes.second);
}

/// The bytes for a time. Years beyond 9999 (BCD) lose their upper digits.
[[nodiscard]] constexpr RtcBytes rtc_bytes(std::int64_t seconds, RtcFormat format) noexcept {
    const std::int64_t day_number = floor_div(seconds, seconds_per_day);
    const std::int64_t of_day = floor_mod(seconds, seconds_per_day);
    const CivilDate date = civil_from_days(day_number);
    return {.second = format.encode(of_day % 60),
            .minute = format.encode(of_day / 60 % 60),
            .hour = format.encode_hour(of_day / 3600),
            .weekday = format.encode(floor_mod(day_number + 4, 7) + 1),  // 1970-01-01 was a Thursday
            .day = format.encode(date.day),
            .month = format.encode(date.month),
            .year = format.encode(floor_mod(date.year, 100)),
            .century = format.encode(floor_div(date.year, 100))};
}

/// The bytes `count` seconds later. The day of the week only advances: the chip does not derive it from the
/// date, and keeps the value that the guest has set.
[[nodiscard]] constexpr RtcBytes rtc_advance(const RtcBytes& bytes, RtcFormat format,
                                             std::int64_t count) noexcept {
    const std::int64_t before = rtc_seconds(bytes, format);
    RtcBytes after = rtc_bytes(before + count, format);
    const std::int64_t days = floor_div(before + count, seconds_per_day) - floor_div(before, seconds_per_day);
    after.weekday =
        days == 0 ? bytes.weekday : format.encode(floor_mod(format.decode(bytes.weekday) - 1 + days, 7) + 1);
    return after;
}

/// The alarm bytes of the chip. Day and month are 0 if it has none.
struct RtcAlarm {
    std::uint8_t second{};
    std::uint8_t minute{};
    std::uint8_t hour{};
    std::uint8_t day{};
    std::uint8_t month{};
};

/// The first day after `today` on which the alarm's day and month match, as the number of days after it, or
/// nothing if there is none. 29 February may be eight years away, across a year like 2100.
[[nodiscard]] constexpr std::optional<std::int64_t> next_alarm_day(
    std::int64_t today, std::optional<std::int64_t> day, std::optional<std::int64_t> month) noexcept {
    CivilDate at = civil_from_days(today);
    ++at.day;  // the first day that may match
    for (int i = 0; i <= 8 * 12; ++i) {
        const std::int64_t match = day ? *day : at.day;
        if ((!month || *month == at.month) && match >= at.day && match <= days_of_month(at.year, at.month)) {
            return days_from_civil({at.year, at.month, match}) - today;
        }
        at = at.month == 12 ? CivilDate{at.year + 1, 1, 1} : CivilDate{at.year, at.month + 1, 1};
    }
    return std::nullopt;
}

/// The seconds from a time (since 1970) to the next match of the alarm, at least 1, or nothing if it can
/// never match. A byte with its two upper bits set matches every value; so does a day or a month of 0.
[[nodiscard]] constexpr std::optional<std::int64_t> next_alarm(const RtcAlarm& alarm, RtcFormat format,
                                                               std::int64_t time) noexcept {
    struct Match {
        bool any;
        std::int64_t value;
        [[nodiscard]] constexpr bool operator()(std::int64_t v) const noexcept { return any || v == value; }
    };
    const auto wildcard = [](std::uint8_t byte) { return (byte & 0xC0) == 0xC0; };
    const Match hour{wildcard(alarm.hour), format.decode_hour(alarm.hour)};
    const Match minute{wildcard(alarm.minute), format.decode(alarm.minute)};
    const Match second{wildcard(alarm.second), format.decode(alarm.second)};
    // The chip compares bytes, so a byte that does not occur in a valid time never matches.
    if ((!hour.any && (hour.value > 23 || format.encode_hour(hour.value) != alarm.hour)) ||
        (!minute.any && (minute.value > 59 || format.encode(minute.value) != alarm.minute)) ||
        (!second.any && (second.value > 59 || format.encode(second.value) != alarm.second))) {
        return std::nullopt;
    }
    // In register D the day has six bits, so that "any" is 0x3F there. Its upper bits otherwise have no
    // meaning (ACPI 4.8.2.4).
    const std::uint8_t day_bits = alarm.day & 0x3FU;
    const bool any_day = day_bits == 0 || day_bits == 0x3F || wildcard(alarm.day);
    const bool any_month = alarm.month == 0 || wildcard(alarm.month);
    const std::optional<std::int64_t> day = any_day ? std::nullopt : std::optional(format.decode(day_bits));
    const std::optional<std::int64_t> month =
        any_month ? std::nullopt : std::optional(format.decode(alarm.month));
    if ((day && format.encode(*day) != day_bits) || (month && format.encode(*month) != alarm.month)) {
        return std::nullopt;
    }
    // At most 24 + 60 + 60 steps: every level has a match.
    constexpr std::int64_t none = seconds_per_day;
    const auto first_from = [&](std::int64_t start) {
        for (std::int64_t h = start / 3600; h < 24; ++h) {
            if (!hour(h)) {
                continue;
            }
            const std::int64_t hour_start = h * 3600 > start ? h * 3600 : start;
            for (std::int64_t m = hour_start / 60 % 60; m < 60; ++m) {
                if (!minute(m)) {
                    continue;
                }
                const std::int64_t minute_start = h * 3600 + m * 60;
                for (std::int64_t s = minute_start >= start ? 0 : start - minute_start; s < 60; ++s) {
                    if (second(s)) {
                        return minute_start + s;
                    }
                }
            }
        }
        return none;
    };
    const std::int64_t of_day = floor_mod(time, seconds_per_day);
    const std::int64_t today = floor_div(time, seconds_per_day);
    const CivilDate date = civil_from_days(today);
    if ((!day || *day == date.day) && (!month || *month == date.month)) {
        if (const std::int64_t found = first_from(of_day + 1); found != none) {
            return found - of_day;
        }
    }
    const auto days = next_alarm_day(today, day, month);
    if (!days) {
        return std::nullopt;
    }
    return *days * seconds_per_day + first_from(0) - of_day;
}

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/rtc/rtc_cmos_core.hpp

namespace vmsuperio::inline v0_2 {

/// What a machine chooses when it makes an RtcCmos.
struct RtcCmosOptions {
    /// The guest's local time minus UTC, for guests that keep the clock in local time. At most a day.
    std::chrono::seconds utc_offset{0};
    /// The bytes that hold the alarm's day of the month and its month, as named by DAY_ALRM and MON_ALRM of
    /// the FADT; 0 for none. Valid are 0x0D for the day (its bits 5:0, as on the PIIX4) and 0x0E to 0x7F for
    /// both (VIA's chipsets: 0x7D and 0x7E); other numbers count as 0. The guest writes 0, or a byte with
    /// both upper bits set, for any day or month (ACPI 4.8.2.4).
    std::uint8_t day_alarm{0};
    /// The byte that holds the alarm's month, 0 if none does; the FADT's MON_ALRM.
    std::uint8_t month_alarm{0};
};

/// The clock as plain data. A default-constructed state is a device that was reset when its clock was at
/// 1970: once restored, it has the time of its new clock.
struct RtcCmosState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CMOS"), .version = 2, .readable_since = 1};

    /// The bytes of both banks: time, registers, memory.
    std::array<std::uint8_t, 128> ram{initial_ram()};
    std::uint8_t index{};                          ///< as last written to port 0x70, with the NMI bit
    std::int64_t second_start{};                   ///< device time of the last second's start, in ns
    DeviceTimeState time;                          ///< the device's own time
    std::array<std::uint8_t, 128> extended_ram{};  ///< the second bank
    std::uint8_t extended_index{};                 ///< as last written to port 0x72

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [ram, index, second_start, time, extended_ram, extended_index] = self;
        archive("ram", ram);
        archive("index", index, as<mc146818::IndexRegister>);
        archive("second_start", second_start);
        archive("time", time);
        archive.since(2, "extended_ram", extended_ram);
        archive.since(2, "extended_index", extended_index);
    }
    friend constexpr bool operator==(const RtcCmosState&, const RtcCmosState&) = default;

private:
    // Thursday, 1970-01-01, 00:00:00, in BCD and 24 hours.
    [[nodiscard]] static constexpr std::array<std::uint8_t, 128> initial_ram() noexcept {
        std::array<std::uint8_t, 128> ram{};
        ram[mc146818::weekday] = 5;
        ram[mc146818::day] = 1;
        ram[mc146818::month] = 1;
        ram[mc146818::year] = 0x70;
        ram[mc146818::century] = 0x19;
        ram[mc146818::register_a] =
            0x26;  // 32.768 kHz, 1024 Hz periodic: the value that a PC's firmware sets
        ram[mc146818::register_b] = mc146818::RegisterB().set(mc146818::RegisterB::hours_24).value();
        ram[mc146818::register_d] =
            mc146818::RegisterD().set(mc146818::RegisterD::valid_ram_and_time).value();
        return ram;
    }
};

namespace detail {

/// The indices of the alarm's date according to the options, or 0 for none. The clock's own bytes cannot be
/// used for it.
struct RtcAlarmDate {
    std::uint8_t day{};
    std::uint8_t month{};

    explicit constexpr RtcAlarmDate(const RtcCmosOptions& options) noexcept
        : day(options.day_alarm == mc146818::register_d ? options.day_alarm : free_byte(options.day_alarm)),
          month(free_byte(options.month_alarm)) {}

private:
    [[nodiscard]] static constexpr std::uint8_t free_byte(std::uint8_t index) noexcept {
        return index > mc146818::register_d && index < 0x80 && index != mc146818::century ? index
                                                                                          : std::uint8_t{0};
    }
};

/// IRQF and the interrupt line: a flag of register C whose enable in register B is set.
[[nodiscard]] constexpr bool rtc_interrupt(const std::array<std::uint8_t, 128>& ram) noexcept {
    using mc146818::RegisterB;
    using mc146818::RegisterC;
    return (RegisterB(ram[mc146818::register_b])[RegisterB::interrupt_enables] &
            RegisterC(ram[mc146818::register_c])[RegisterC::flags]) != 0;
}

}  // namespace detail

/// Checks whether a clock with these options can be in this state; the error names the first invalid member.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const RtcCmosState& state,
                                                                 const RtcCmosOptions& options = {}) {
    using namespace mc146818;
    const RegisterC flags(state.ram[register_c]);
    const unsigned alarm_bits =
        detail::RtcAlarmDate(options).day == register_d ? RegisterD::day_alarm.mask : 0U;
    if (RegisterA(state.ram[register_a])[RegisterA::update_in_progress] ||
        flags[RegisterC::interrupt_request] != detail::rtc_interrupt(state.ram) ||
        (flags.value() & ~RegisterC::mask_of(Access::read_only)) != 0 ||
        (state.ram[register_d] & ~alarm_bits) != RegisterD::valid_ram_and_time.mask) {
        return std::unexpected(StateError{"ram"});
    }
    return detail::validate_time(state);
}

namespace detail {

/// The effects of an access outside the clock. The interrupt line follows from the state; it never rises
/// again within one access.
struct RtcCmosEffects {
    bool time_changed{};             // by the guest; the device is now `ahead` of the host's clock
    bool shutdown_status_written{};  // with `shutdown_status`
    bool nmi_mask_changed{};         // to `nmi_masked`
    bool nmi_masked{};
    std::uint8_t shutdown_status{};
    std::chrono::seconds ahead{};
    static constexpr LinePulse pulse = LinePulse::none;

    template <class Events>
    constexpr void report(Events& events) const {
        if constexpr (requires { events.time_changed(ahead); }) {
            if (time_changed) {
                events.time_changed(ahead);
            }
        }
        if constexpr (requires { events.shutdown_status(shutdown_status); }) {
            if (shutdown_status_written) {
                events.shutdown_status(shutdown_status);
            }
        }
        if constexpr (requires { events.nmi_masked(nmi_masked); }) {
            if (nmi_mask_changed) {
                events.nmi_masked(nmi_masked);
            }
        }
    }
};

/// The chip and its memory without connections: `RtcCmos` connects it to a trigger, events and a clock. `now`
/// is the time of that clock, in ns since its epoch.
class RtcCmosCore : public SecondsCore<RtcCmosState> {
public:
    using options_type = RtcCmosOptions;

    constexpr RtcCmosCore(std::int64_t now, const RtcCmosOptions& options) noexcept
        : SecondsCore(now), alarm_date_(options) {
        std::int64_t ahead = options.utc_offset.count();
        ahead = ahead < -seconds_per_day ? -seconds_per_day : ahead;
        ahead = ahead > seconds_per_day ? seconds_per_day : ahead;
        store(rtc_bytes(saturating_add(floor_div(state_.second_start, ns_per_second), ahead), format()));
    }
    [[nodiscard]] static constexpr std::expected<void, StateError> validate(const RtcCmosState& state,
                                                                            const RtcCmosOptions& options) {
        return vmsuperio::validate(state, options);
    }

    /// The level of IRQ 8.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t = 0) const noexcept {
        return rtc_interrupt(state_.ram);
    }
    [[nodiscard]] constexpr bool nmi_masked() const noexcept {
        return mc146818::IndexRegister(state_.index)[mc146818::IndexRegister::nmi_masked];
    }

    /// Updates the state to `now`: updates of the time, alarm, periodic flag. O(1) in the time passed.
    constexpr void advance(std::int64_t now) noexcept {
        const std::int64_t before = state_.time.seen;
        const std::int64_t after = look(now);
        if (!running()) {
            state_.second_start = after;
            return;
        }
        if (after == before) {
            return;  // the second call within one access
        }
        using mc146818::RegisterC;
        RegisterC flags = register_c();
        const auto updates = static_cast<std::int64_t>(seconds_passed());
        const std::uint64_t every = period();
        if (every != 0 && (updates > 0 || ticks_until(before) / every != ticks_until(after) / every)) {
            flags.set(RegisterC::periodic);
        }
        if (updates > 0) {
            if (!register_b()[mc146818::RegisterB::set_mode]) {
                flags.set(RegisterC::update_ended);
                if (const auto alarm = seconds_to_alarm(); alarm && *alarm <= updates) {
                    flags.set(RegisterC::alarm);
                }
                store(rtc_advance(bytes(), format(), updates));
            }
            count_seconds(static_cast<std::uint64_t>(updates));
        }
        set_register_c(flags);
    }

    /// The RESET pin: PIE, AIE, UIE, SQWE and all flags of register C are cleared (datasheet, "RESET").
    /// Clock, calendar, alarm and memory stay, as the battery keeps them; so do the index registers, which
    /// are not part of the chip's reset.
    constexpr void reset(std::int64_t now) noexcept {
        advance(now);
        using mc146818::RegisterB;
        state_.ram[mc146818::register_b] =
            register_b().set(RegisterB::interrupt_enables, 0).clear(RegisterB::square_wave).value();
        set_register_c({});
    }

    /// The result of a read at a port's offset, as of the last `advance`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        switch (offset) {
            case mc146818::data_offset:
                return cmos(selected());
            case mc146818::extended_data_offset:
                return extended_cmos(state_.extended_index);
            default:
                return 0xFF;
        }
    }

    /// A read of the data port. It clears register C, so that the interrupt line may fall.
    constexpr std::uint8_t read_data(std::int64_t now) noexcept {
        advance(now);
        const std::uint8_t value = cmos(selected());
        if (selected() == mc146818::register_c) {
            set_register_c({});
        }
        return value;
    }

    /// A write to the data port.
    constexpr RtcCmosEffects write_data(std::int64_t now, std::uint8_t value) noexcept {
        advance(now);
        RtcCmosEffects effects;
        switch (const std::uint8_t index = selected(); index) {
            case mc146818::seconds:
            case mc146818::minutes:
            case mc146818::hours:
            case mc146818::weekday:
            case mc146818::day:
            case mc146818::month:
            case mc146818::year:
            case mc146818::century:
                state_.ram[index] = value;
                effects.time_changed = !register_b()[mc146818::RegisterB::set_mode];
                break;
            case mc146818::register_a:
                write_register_a(value);
                break;
            case mc146818::register_b:
                effects.time_changed = write_register_b(value);
                break;
            case mc146818::register_c:
                break;
            case mc146818::register_d:
                if (alarm_date_.day == mc146818::register_d) {
                    mc146818::RegisterD d(state_.ram[index]);
                    state_.ram[index] = d.set(mc146818::RegisterD::day_alarm, value).value();
                }
                break;
            case mc146818::shutdown_status:
                state_.ram[index] = value;
                effects.shutdown_status_written = true;
                effects.shutdown_status = value;
                break;
            default:
                state_.ram[index] = value;
                break;
        }
        if (effects.time_changed) {
            effects.ahead = time_offset();
        }
        return effects;
    }

    /// A write to any port except the data port. None of them depends on time.
    constexpr RtcCmosEffects write_port(std::uint8_t offset, std::uint8_t value) noexcept {
        RtcCmosEffects effects;
        switch (offset) {
            case mc146818::index_offset: {
                const bool was_masked = nmi_masked();
                state_.index = value;
                effects.nmi_masked = nmi_masked();
                effects.nmi_mask_changed = effects.nmi_masked != was_masked;
                break;
            }
            case mc146818::extended_index_offset:
                state_.extended_index = value;
                break;
            case mc146818::extended_data_offset:
                set_extended_cmos(state_.extended_index, value);
                break;
            default:
                break;
        }
        return effects;
    }

    /// The time on the clock at which the line will next rise without an access, as of the last `advance`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        if (interrupt_level() || !running()) {
            return std::nullopt;  // only an access lowers a high line
        }
        using mc146818::RegisterB;
        const RegisterB control = register_b();
        std::optional<std::int64_t> earliest;
        const auto consider = [&](std::int64_t time) {
            earliest = earliest && *earliest < time ? earliest : time;
        };
        if (const std::uint64_t every = period(); every != 0 && control[RegisterB::periodic_interrupt]) {
            const std::uint64_t ticks = (ticks_until(state_.time.seen) / every + 1) * every;
            consider(from_second_start(static_cast<std::int64_t>(ns_of_ticks(ticks))));
        }
        if (!control[RegisterB::set_mode]) {
            if (control[RegisterB::update_ended_interrupt]) {
                consider(from_second_start(ns_per_second));
            }
            if (control[RegisterB::alarm_interrupt]) {
                if (const auto seconds = seconds_to_alarm()) {
                    consider(from_second_start(*seconds * ns_per_second));
                }
            }
        }
        return earliest ? on_clock(*earliest) : std::nullopt;
    }

    [[nodiscard]] constexpr std::uint8_t cmos(std::uint8_t index) const noexcept {
        index &= 0x7FU;
        if (index == mc146818::register_a) {
            return register_a().set(mc146818::RegisterA::update_in_progress, update_in_progress()).value();
        }
        return state_.ram[index];
    }
    constexpr void set_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        index &= 0x7FU;
        if (index <= mc146818::register_d || index == mc146818::century) {
            return;
        }
        state_.ram[index] = value;
        if (index >= mc146818::checksum_first && index <= mc146818::checksum_last) {
            std::uint32_t sum = 0;
            for (std::size_t i = mc146818::checksum_first; i <= mc146818::checksum_last; ++i) {
                sum += state_.ram[i];
            }
            state_.ram[mc146818::checksum_high] = static_cast<std::uint8_t>(sum >> 8U);
            state_.ram[mc146818::checksum_low] = static_cast<std::uint8_t>(sum);
        }
    }
    [[nodiscard]] constexpr std::uint8_t extended_cmos(std::uint8_t index) const noexcept {
        return state_.extended_ram[index & 0x7FU];
    }
    constexpr void set_extended_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        state_.extended_ram[index & 0x7FU] = value;
    }

    constexpr void set_memory_size(std::uint64_t below_4g, std::uint64_t above_4g) noexcept {
        constexpr std::uint64_t kib = 1024;
        constexpr std::uint64_t mib = 1024 * kib;
        // The size of the memory from `base` on, in units, limited to the range of the bytes.
        const auto from = [below_4g](std::uint64_t base, std::uint64_t unit, std::uint64_t most) {
            const std::uint64_t size = below_4g > base ? (below_4g - base) / unit : 0;
            return size < most ? size : most;
        };
        const std::uint64_t extended = from(mib, kib, 0xFFFF);
        const std::uint64_t high = above_4g / (64 * kib);
        put(mc146818::base_memory_low, from(0, kib, 640), 2);
        put(mc146818::extended_memory_low, extended, 2);
        put(mc146818::extended_memory2_low, extended, 2);
        put(mc146818::memory_above_16m_low, from(16 * mib, 64 * kib, 0xFFFF), 2);
        put(mc146818::memory_above_4g_low, high < 0xFF'FFFF ? high : 0xFF'FFFF, 3);
    }

    /// The guest's time of day as seconds since 1970-01-01 00:00, in the guest's time zone.
    [[nodiscard]] constexpr std::int64_t time_of_day() const noexcept {
        return rtc_seconds(bytes(), format());
    }
    [[nodiscard]] constexpr std::chrono::seconds time_offset() const noexcept {
        return std::chrono::seconds(time_of_day() - clock_seconds());
    }

private:
    static constexpr std::uint64_t ticks_per_second = 32768;
    /// The time from the rise of UIP to the update: 8 ticks, 244 us (datasheet, "Update cycle").
    static constexpr std::uint64_t update_window = 244'140;

    [[nodiscard]] constexpr std::uint8_t selected() const noexcept {
        return mc146818::IndexRegister(state_.index)[mc146818::IndexRegister::index];
    }
    [[nodiscard]] constexpr mc146818::RegisterA register_a() const noexcept {
        return mc146818::RegisterA(state_.ram[mc146818::register_a]);
    }
    [[nodiscard]] constexpr mc146818::RegisterB register_b() const noexcept {
        return mc146818::RegisterB(state_.ram[mc146818::register_b]);
    }
    [[nodiscard]] constexpr mc146818::RegisterC register_c() const noexcept {
        return mc146818::RegisterC(state_.ram[mc146818::register_c]);
    }
    /// Sets the flags; IRQF follows from them and from register B.
    constexpr void set_register_c(mc146818::RegisterC flags) noexcept {
        std::uint8_t& c = state_.ram[mc146818::register_c];
        c = flags.value();
        c = flags.set(mc146818::RegisterC::interrupt_request, rtc_interrupt(state_.ram)).value();
    }
    [[nodiscard]] constexpr RtcFormat format() const noexcept {
        return {.binary = register_b()[mc146818::RegisterB::binary],
                .hours_24 = register_b()[mc146818::RegisterB::hours_24]};
    }
    /// Whether the divider chain counts: DV 0 to 2 select a time base, the others test or hold it in reset.
    [[nodiscard]] constexpr bool running() const noexcept {
        return register_a()[mc146818::RegisterA::divider] <= 2;
    }

    [[nodiscard]] constexpr RtcBytes bytes() const noexcept {
        const auto& ram = state_.ram;
        return {.second = ram[mc146818::seconds],
                .minute = ram[mc146818::minutes],
                .hour = ram[mc146818::hours],
                .weekday = ram[mc146818::weekday],
                .day = ram[mc146818::day],
                .month = ram[mc146818::month],
                .year = ram[mc146818::year],
                .century = ram[mc146818::century]};
    }
    constexpr void store(const RtcBytes& bytes) noexcept {
        auto& ram = state_.ram;
        ram[mc146818::seconds] = bytes.second;
        ram[mc146818::minutes] = bytes.minute;
        ram[mc146818::hours] = bytes.hour;
        ram[mc146818::weekday] = bytes.weekday;
        ram[mc146818::day] = bytes.day;
        ram[mc146818::month] = bytes.month;
        ram[mc146818::year] = bytes.year;
        ram[mc146818::century] = bytes.century;
    }
    /// Stores a number of several bytes, the lowest first, as firmware does.
    constexpr void put(std::uint8_t first, std::uint64_t value, std::uint8_t count) noexcept {
        for (std::uint8_t i = 0; i < count; ++i) {
            set_cmos(static_cast<std::uint8_t>(first + i), static_cast<std::uint8_t>(value >> (8U * i)));
        }
    }

    /// Ticks of the 32.768 kHz chain from one periodic interrupt to the next; 0 for none. Rates 1 and 2 are
    /// the same as 8 and 9 with this time base (datasheet, table 5).
    [[nodiscard]] constexpr std::uint64_t period() const noexcept {
        const unsigned rate = register_a()[mc146818::RegisterA::rate_select];
        if (rate == 0) {
            return 0;
        }
        return std::uint64_t{1} << ((rate <= 2 ? rate + 7 : rate) - 1U);
    }
    /// Whole ticks since the second's start; `time` is less than a second after that.
    [[nodiscard]] constexpr std::uint64_t ticks_until(std::int64_t time) const noexcept {
        return elapsed(state_.second_start, time) * ticks_per_second / ns_per_second;
    }
    /// The first nanosecond at which that many ticks have passed.
    [[nodiscard]] static constexpr std::uint64_t ns_of_ticks(std::uint64_t ticks) noexcept {
        return (ticks * ns_per_second + ticks_per_second - 1) / ticks_per_second;
    }
    [[nodiscard]] constexpr std::optional<std::int64_t> seconds_to_alarm() const noexcept {
        const auto& ram = state_.ram;
        return next_alarm({.second = ram[mc146818::seconds_alarm],
                           .minute = ram[mc146818::minutes_alarm],
                           .hour = ram[mc146818::hours_alarm],
                           .day = alarm_date_.day != 0 ? ram[alarm_date_.day] : std::uint8_t{0},
                           .month = alarm_date_.month != 0 ? ram[alarm_date_.month] : std::uint8_t{0}},
                          format(), time_of_day());
    }
    [[nodiscard]] constexpr bool update_in_progress() const noexcept {
        return running() && !register_b()[mc146818::RegisterB::set_mode] &&
               elapsed(state_.second_start, state_.time.seen) >= ns_per_second - update_window;
    }

    constexpr void write_register_a(std::uint8_t value) noexcept {
        const bool was_running = running();
        mc146818::RegisterA a = register_a();
        a.guest_write(value);
        state_.ram[mc146818::register_a] = a.value();
        if (running() && !was_running) {
            // The first update occurs half a second after the divider starts (datasheet, "Divider control").
            state_.second_start = state_.time.seen - ns_per_second / 2;
        } else if (!running()) {
            state_.second_start = state_.time.seen;
        }
    }

    /// Returns whether the guest has set the time with this write.
    constexpr bool write_register_b(std::uint8_t value) noexcept {
        using mc146818::RegisterB;
        const bool was_set = register_b()[RegisterB::set_mode];
        const RtcFormat old_format = format();
        const RtcBytes old_bytes = bytes();
        RegisterB b(value);
        const bool set = b[RegisterB::set_mode];
        if (set) {
            b.clear(RegisterB::update_ended_interrupt);  // datasheet, "UIE": SET clears it
        }
        state_.ram[mc146818::register_b] = b.value();
        set_register_c(register_c());
        if (!was_set && !set && format() != old_format) {
            // According to the datasheet the guest has to set the time again ("DM"). Until it does, or if it
            // never does, the time is correct in the new format, as in QEMU. With SET the bytes are not
            // converted.
            RtcBytes converted = rtc_bytes(rtc_seconds(old_bytes, old_format), format());
            converted.weekday = format().encode(old_format.decode(old_bytes.weekday));
            store(converted);
        }
        return was_set && !set;
    }

    RtcAlarmDate alarm_date_;  // of the options
};

}  // namespace detail
}  // namespace vmsuperio::inline v0_2

// vmsuperio/rtc/rtc_shell.hpp

namespace vmsuperio::inline v0_2::detail {

/// Any type may be the events of a clock, because all its members are optional. It must not be a trigger or a
/// clock, so that arguments in a wrong order do not compile.
template <class E>
concept RtcEvents = !Trigger<E> && !Clock<E>;

/// "2024-06-11 13:45:30", of seconds since 1970-01-01 00:00.
[[nodiscard]] inline std::string date_text(std::int64_t seconds) {
    constexpr std::int64_t per_day = 86400;
    const CivilDate date = civil_from_days(floor_div(seconds, per_day));
    const std::int64_t of_day = floor_mod(seconds, per_day);
    const auto two_digits = [](std::int64_t value) {
        return (value < 10 ? "0" : "") + std::to_string(value);
    };
    return std::to_string(date.year) + "-" + two_digits(date.month) + "-" + two_digits(date.day) + " " +
           two_digits(of_day / 3600) + ":" + two_digits(of_day / 60 % 60) + ":" + two_digits(of_day % 60);
}

/// The common part of all real-time clocks: their construction, time and interrupt. The constructor of `Core`
/// takes the clock's time (ns since its epoch) and an `options_type`.
template <class Core, Trigger T, RtcEvents Events, Clock C>
class RtcShell : public DeviceShell<Core, Events, T> {
    using Shell = DeviceShell<Core, Events, T>;

public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using clock_type = C;
    using options_type = typename Core::options_type;

    constexpr RtcShell()
        requires std::default_initializable<T> && std::default_initializable<Events> &&
                 std::default_initializable<C>
        : RtcShell(T(), Events(), C()) {}
    explicit constexpr RtcShell(T interrupt)
        requires std::default_initializable<Events> && std::default_initializable<C>
        : RtcShell(std::move(interrupt), Events(), C()) {}
    constexpr RtcShell(T interrupt, Events events, C clock = C(), const options_type& options = {})
        : Shell(Core(time_since_epoch(clock).count(), options), std::move(events), std::move(interrupt)),
          clock_(std::move(clock)) {}
    /// Without events.
    explicit constexpr RtcShell(C clock)
        requires std::default_initializable<T> && std::default_initializable<Events>
        : RtcShell(T(), Events(), std::move(clock)) {}
    constexpr RtcShell(T interrupt, C clock)
        requires std::default_initializable<Events>
        : RtcShell(std::move(interrupt), Events(), std::move(clock)) {}
    constexpr RtcShell(T interrupt, C clock, const options_type& options)
        requires std::default_initializable<Events> && (!std::same_as<options_type, NoRtcOptions>)
        : RtcShell(std::move(interrupt), Events(), std::move(clock), options) {}

    /// The chip's reset line: see the core's `reset`. An interrupt that was due before is not reported any
    /// more.
    constexpr std::expected<void, error_type> reset() {
        this->core().reset(now());
        return this->update_interrupt();
    }

    /// Updates the device to its clock. Call it at the deadline; it is harmless at any other time.
    constexpr std::expected<void, error_type> tick() {
        this->core().advance(now());
        return this->update_interrupt();
    }

    /// The time on the device's clock at which the interrupt line will next rise without an access, or
    /// nothing if no event can raise it. Call it again after every access and every `tick()`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        return this->core().next_deadline();
    }

    /// How far the guest's clock is ahead of the device's clock, as of the last access.
    [[nodiscard]] constexpr std::chrono::seconds time_offset() const noexcept {
        return this->core().time_offset();
    }
    /// `host_errors().interrupt`: how often the interrupt trigger failed, whether or not a caller received
    /// the error.
    [[nodiscard]] constexpr std::uint64_t interrupt_errors() const noexcept {
        return this->host_errors().interrupt;
    }

    [[nodiscard]] constexpr const T& interrupt_evt() const noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr T& interrupt_evt() noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }
    [[nodiscard]] constexpr C& clock() noexcept { return clock_; }

protected:
    [[nodiscard]] constexpr std::int64_t now() const { return time_since_epoch(clock_).count(); }

    /// Implements `from_state` of `Device`. An error of the trigger is counted.
    template <class Device, class State>
    [[nodiscard]] static constexpr std::expected<Device, StateError> restored(const State& state, T interrupt,
                                                                              Events events, C clock,
                                                                              const options_type& options) {
        if (const auto valid = Core::validate(state, options); !valid) {
            return std::unexpected(valid.error());
        }
        Device device(std::move(interrupt), std::move(events), std::move(clock), options);
        device.core().restore(state);
        static_cast<void>(device.tick());
        return device;
    }

private:
    [[no_unique_address]] C clock_;
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/rtc_cmos.hpp

/// The real-time clock and CMOS memory of a PC: MC146818A with 128 bytes, ports 0x70 and 0x71, IRQ 8; and a
/// second bank of 128 bytes at ports 0x72 and 0x73, as chipsets since the PIIX4 have it (Intel ICH9
/// datasheet, 13.6).
///
/// | port | offset | read | write |
/// |---|---|---|---|
/// | 0x70 | 0 | 0xFF: the index register is write only on a PC | bits 0-6 index, bit 7 masks NMI |
/// | 0x71 | 1 | the byte at the index | the byte at the index |
/// | 0x72 | 2 | 0xFF, as 0x70 | bits 0-6 index in the second bank; bit 7 is ignored |
/// | 0x73 | 3 | the second bank's byte at its index | the same |
///
/// A machine with only two ports on its bus has only the first bank.
///
/// Models: the whole datasheet except its pins: BCD and binary, 12 and 24 hours, alarm with wildcards,
/// periodic rates, update-ended, UIP, SET, the divider's reset, and the century byte at 0x32 that PCs added;
/// on request an alarm on a day of the month and a month, at bytes that the FADT names (ACPI 4.8.2.4). The
/// periodic flag follows the divider chain, which only DV and the updates touch, as on the chip: after a
/// write of register A the first period may be shorter than the others, where QEMU starts a whole one.
/// Not modelled: daylight savings (DSE is kept without effect), the square wave, standby pins, the 1984 us
/// that an update takes (it is done at once, when the UIP window ends), time bases other than 32.768 kHz
/// (they run at the same rate).
/// Deviation: leap years are those of the Gregorian calendar, with the century byte; for the chip itself
/// every fourth year is a leap year.
/// Ignored bits: register A bit 7, registers C and D as a whole (a day alarm at 0x0D has bits 5:0 there).
/// Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The default events type of the clock, which ignores all events. Each member of an events type is optional:
/// `time_changed(std::chrono::seconds ahead)`: the guest set the time, which is `ahead` of the device's
/// clock; `shutdown_status(std::uint8_t code)`: the guest wrote CMOS byte 0x0F; `nmi_masked(bool masked)`:
/// bit 7 of the index register changed.
struct NoRtcCmosEvents {};

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the
/// interrupt line will next rise; call `tick()` then. Guest accesses update the device implicitly. The epoch
/// of `C` is the Unix epoch in UTC.
///
/// The arguments are in the same order as for every device: trigger, events, clock, options. Each may be left
/// out if its type has a default. The trigger is IRQ 8. The clock starts with the time of `C`, in BCD and 24
/// hours, no interrupt enabled.
///
/// `reset()` is the RESET pin: PIE, AIE, UIE, SQWE and all flags of register C are cleared and the interrupt
/// line falls (datasheet, "RESET"). Clock, calendar, alarm and memory stay, as the battery keeps them; so do
/// the index registers, which are not part of the chip's reset.
///
/// Errors: `write`, `tick` and `reset` return the result of the interrupt trigger. `host_errors().interrupt`,
/// which is also `interrupt_errors()`, counts all failures, including those in reads and in `from_state`.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcCmosEvents, Clock C = SystemClock>
class RtcCmos : public detail::RtcShell<detail::RtcCmosCore, T, Events, C> {
    using Shell = detail::RtcShell<detail::RtcCmosCore, T, Events, C>;
    static_assert(
        !requires { &Events::time_changed; } ||
            requires(Events& events) { events.time_changed(std::chrono::seconds{}); },
        "the event time_changed must take a std::chrono::seconds");
    static_assert(
        !requires { &Events::shutdown_status; } ||
            requires(Events& events) { events.shutdown_status(std::uint8_t{}); },
        "the event shutdown_status must take a std::uint8_t");
    static_assert(
        !requires { &Events::nmi_masked; } || requires(Events& events) { events.nmi_masked(bool{}); },
        "the event nmi_masked must take a bool");

public:
    using error_type = typename Shell::error_type;
    static constexpr std::size_t register_count = 4;

    using Shell::Shell;

    /// Restores a saved device. The time that has passed on `clock` since then has also passed for the
    /// device. The restored device is up to date with `clock`: its interrupt line is raised if it was high in
    /// the saved state or has become due since. The options must be those of the saved device; `utc_offset`
    /// has no effect, because the saved time includes it.
    [[nodiscard]] static constexpr std::expected<RtcCmos, StateError> from_state(
        const RtcCmosState& state, T interrupt = T(), Events events = Events(), C clock = C(),
        RtcCmosOptions options = {}) {
        return Shell::template restored<RtcCmos>(state, std::move(interrupt), std::move(events),
                                                 std::move(clock), options);
    }

    /// A read by the guest. The index registers, and offsets above 3, return 0xFF.
    constexpr std::uint8_t read(std::uint8_t offset) {
        if (offset != mc146818::data_offset) {
            return peek(offset);
        }
        // An interrupt that is due is raised before the read clears its flag.
        const std::int64_t now = this->now();
        this->core().advance(now);
        static_cast<void>(this->update_interrupt());
        const std::uint8_t value = this->core().read_data(now);
        static_cast<void>(this->update_interrupt());
        return value;
    }

    /// The result of `read` without its effects, as of the last access or `tick()`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        return this->core().peek(offset);
    }

    /// A write by the guest.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        return this->apply(offset == mc146818::data_offset ? this->core().write_data(this->now(), value)
                                                           : this->core().write_port(offset, value));
    }

    /// Byte `index` (0 to 127) of the CMOS as the guest would read it, without side effects.
    [[nodiscard]] constexpr std::uint8_t cmos(std::uint8_t index) const noexcept {
        return this->core().cmos(index);
    }
    /// Sets a byte as firmware would before the guest starts. The clock's own bytes (0x00 to 0x0D and 0x32)
    /// do not change; the checksum of 0x10 to 0x2D is updated.
    constexpr void set_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        this->core().set_cmos(index, value);
    }

    /// Byte `index` (0 to 127) of the second bank, at ports 0x72 and 0x73.
    [[nodiscard]] constexpr std::uint8_t extended_cmos(std::uint8_t index) const noexcept {
        return this->core().extended_cmos(index);
    }
    /// Sets a byte of the second bank (ports 0x72 and 0x73), index 0x80 to 0xFF.
    constexpr void set_extended_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        this->core().set_extended_cmos(index, value);
    }

    /// Stores the memory sizes for the guest's firmware: bytes below 4 GiB (from address 0, holes included)
    /// and from 4 GiB on. Fills the bytes at 0x15-0x18, 0x30, 0x31, 0x34, 0x35 and 0x5B-0x5D.
    constexpr void set_memory_size(std::uint64_t below_4g, std::uint64_t above_4g = 0) noexcept {
        this->core().set_memory_size(below_4g, above_4g);
    }

    /// Whether the guest masks NMI (bit 7 of the last write to port 0x70).
    [[nodiscard]] constexpr bool nmi_masked() const noexcept { return this->core().nmi_masked(); }

    /// The device as text for people: registers A to D as the guest would read them, the guest's time of day,
    /// then a line for each member of the state (see `inspect.hpp`).
    [[nodiscard]] std::string inspect() const {
        using namespace mc146818;
        const auto line = [](auto reg) { return vmsuperio::inspect(reg) + "\n"; };
        return line(RegisterA(cmos(register_a))) + line(RegisterB(cmos(register_b))) +
               line(RegisterC(cmos(register_c))) + line(RegisterD(cmos(register_d))) +
               "time_of_day=" + detail::date_text(this->core().time_of_day()) + "\n" + Shell::inspect();
    }
};

// Deduces the parameters from the arguments of the constructors.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcCmosEvents, Clock C = SystemClock>
RtcCmos(T = {}, Events = {}, C = {}, RtcCmosOptions = {}) -> RtcCmos<T, Events, C>;
template <Trigger T, Clock C>
RtcCmos(T, C, RtcCmosOptions = {}) -> RtcCmos<T, NoRtcCmosEvents, C>;
template <Clock C>
RtcCmos(C) -> RtcCmos<NullTrigger, NoRtcCmosEvents, C>;

}  // namespace vmsuperio::inline v0_2

// vmsuperio/rtc/rtc_pl031_core.hpp

namespace vmsuperio::inline v0_2 {

/// The clock as plain data. A default-constructed state is a device that was reset when its clock was at
/// 1970: once restored, it has the time of its new clock.
struct RtcPl031State {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PL31"), .version = 1, .readable_since = 1};

    std::uint32_t count{};  ///< RTCDR in seconds
    // All match and load values are 0 at reset (table 3-1).
    std::uint32_t match{};        ///< RTCMR in seconds
    std::uint32_t load{};         ///< RTCLR in seconds
    bool interrupt_enabled{};     ///< RTCIMSC bit 0
    bool matched{};               ///< RTCRIS bit 0
    std::int64_t second_start{};  ///< device time of the last second's start, in ns
    DeviceTimeState time;         ///< the device's own time

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [count, match, load, interrupt_enabled, matched, second_start, time] = self;
        archive("count", count);
        archive("match", match);
        archive("load", load);
        archive("interrupt_enabled", interrupt_enabled);
        archive("matched", matched);
        archive("second_start", second_start);
        archive("time", time);
    }
    friend constexpr bool operator==(const RtcPl031State&, const RtcPl031State&) = default;
};

/// Checks whether a clock can be in this state; the error names the first invalid member.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const RtcPl031State& state) {
    return detail::validate_time(state);  // every value of the registers is possible
}

namespace detail {

/// The effects of an access outside the clock. The interrupt line follows from the state; it never rises
/// again within one access.
struct RtcPl031Effects {
    bool time_changed{};  // by the guest; the device is now `ahead` of the host's clock
    bool invalid_read{};
    bool invalid_write{};
    std::chrono::seconds ahead{};
    static constexpr LinePulse pulse = LinePulse::none;

    template <class Events>
    constexpr void report(Events& events) const {
        if constexpr (requires { events.time_changed(ahead); }) {
            if (time_changed) {
                events.time_changed(ahead);
            }
        }
        if constexpr (requires { events.invalid_read(); }) {
            if (invalid_read) {
                events.invalid_read();
            }
        }
        if constexpr (requires { events.invalid_write(); }) {
            if (invalid_write) {
                events.invalid_write();
            }
        }
    }
};

/// The chip without connections: `RtcPl031` connects it to a trigger, events and a clock. `now` is the time
/// of that clock, in ns since its epoch; the registers are at the offsets 0 to 0xFFF.
class RtcPl031Core : public SecondsCore<RtcPl031State> {
public:
    using options_type = NoRtcOptions;

    explicit constexpr RtcPl031Core(std::int64_t now, NoRtcOptions = {}) noexcept : SecondsCore(now) {
        state_.count = static_cast<std::uint32_t>(state_.second_start / ns_per_second);
    }
    [[nodiscard]] static constexpr std::expected<void, StateError> validate(const RtcPl031State& state,
                                                                            NoRtcOptions) {
        return vmsuperio::validate(state);
    }

    /// RTCMIS, and the level of RTCINTR.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t = 0) const noexcept {
        return state_.matched && state_.interrupt_enabled;
    }

    /// Updates the state to `now`. O(1) in the time passed.
    constexpr void advance(std::int64_t now) noexcept {
        look(now);
        const std::uint64_t seconds = seconds_passed();
        state_.matched = state_.matched || seconds >= seconds_to_match();
        state_.count += static_cast<std::uint32_t>(seconds);
        count_seconds(seconds);
    }

    /// The reset line of the bus (PRESETn): RTCMR, RTCLR, RTCIMSC and RTCRIS return to 0 (DDI 0224, table
    /// 3-1). The counter is in the domain of the 1 Hz clock, which a battery supplies: it continues with the
    /// time that the guest has set.
    constexpr void reset(std::int64_t now) noexcept {
        advance(now);
        state_ = {.count = state_.count, .second_start = state_.second_start, .time = state_.time};
    }

    /// The register at an offset as of the last `advance`, or nothing if no register can be read there.
    [[nodiscard]] constexpr std::optional<std::uint32_t> peek(std::uint64_t offset) const noexcept {
        switch (offset) {
            case pl031::data:
                return state_.count;
            case pl031::match:
                return state_.match;
            case pl031::load:
                return state_.load;
            case pl031::control:
                return pl031::Control().set(pl031::Control::start).value();
            case pl031::interrupt_mask:
                return interrupt_mask().value();
            case pl031::raw_interrupt:
                return pl031::InterruptStatus().set(pl031::InterruptStatus::match, state_.matched).value();
            case pl031::masked_interrupt:
                return pl031::MaskedInterruptStatus()
                    .set(pl031::MaskedInterruptStatus::match, interrupt_level())
                    .value();
            default:
                return pl031::is_id(offset)
                           ? std::optional<std::uint32_t>(pl031::ids[(offset - pl031::first_id) / 4U])
                           : std::nullopt;
        }
    }

    struct Read {
        std::optional<std::uint32_t> value;
        RtcPl031Effects effects;
    };
    /// A read of `size` bytes. Nothing is read if no register has that offset and width.
    constexpr Read read(std::int64_t now, std::uint64_t offset, std::size_t size) noexcept {
        advance(now);
        Read result{.value = size == register_width ? peek(offset) : std::nullopt, .effects = {}};
        result.effects.invalid_read = !result.value;
        return result;
    }

    /// A write of `value` with `size` bytes. Nothing is written if no register has that offset and width.
    constexpr RtcPl031Effects write(std::int64_t now, std::uint64_t offset, std::size_t size,
                                    std::uint32_t value) noexcept {
        advance(now);
        RtcPl031Effects effects;
        if (size != register_width) {
            effects.invalid_write = true;
            return effects;
        }
        switch (offset) {
            case pl031::match:
                state_.match = value;
                compare();
                break;
            case pl031::load:
                state_.load = value;
                state_.count = value;
                compare();
                effects.time_changed = true;
                effects.ahead = time_offset();
                break;
            case pl031::control:
                break;  // once started, only a reset stops the clock
            case pl031::interrupt_mask: {
                pl031::InterruptMask mask = interrupt_mask();
                mask.guest_write(value);
                state_.interrupt_enabled = mask[pl031::InterruptMask::match];
                break;
            }
            case pl031::interrupt_clear: {
                pl031::InterruptClear clear;
                clear.set(pl031::InterruptClear::match, state_.matched).guest_write(value);
                state_.matched = clear[pl031::InterruptClear::match];
                break;
            }
            default:
                effects.invalid_write = true;
                break;
        }
        return effects;
    }

    /// The time on the clock at which the line will next rise without an access, as of the last `advance`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        if (state_.matched || !state_.interrupt_enabled) {
            return std::nullopt;
        }
        return on_clock(from_second_start(static_cast<std::int64_t>(seconds_to_match()) * ns_per_second));
    }

    /// The shorter distance around the 32-bit counter.
    [[nodiscard]] constexpr std::chrono::seconds time_offset() const noexcept {
        return std::chrono::seconds(
            static_cast<std::int32_t>(state_.count - static_cast<std::uint32_t>(clock_seconds())));
    }

private:
    /// The width of every register in bytes: accesses are whole and aligned, as on the APB bus.
    static constexpr std::size_t register_width = 4;

    [[nodiscard]] constexpr pl031::InterruptMask interrupt_mask() const noexcept {
        return pl031::InterruptMask().set(pl031::InterruptMask::match, state_.interrupt_enabled);
    }
    /// The seconds until the counter next equals the match value, 1 to 2^32.
    [[nodiscard]] constexpr std::uint64_t seconds_to_match() const noexcept {
        const std::uint32_t distance = state_.match - state_.count;
        return distance == 0 ? std::uint64_t{1} << 32U : distance;
    }
    /// Sets the match if a write has made the counter and the match value equal.
    constexpr void compare() noexcept { state_.matched = state_.matched || state_.count == state_.match; }
};

}  // namespace detail
}  // namespace vmsuperio::inline v0_2

// vmsuperio/rtc_pl031.hpp

/// The real-time clock of ARM machines: PrimeCell PL031 (ARM DDI 0224).
///
/// | offset | register | read | write |
/// |---|---|---|---|
/// | 0x000 | RTCDR | seconds counter | invalid |
/// | 0x004 | RTCMR | match value | match value |
/// | 0x008 | RTCLR | last load value | sets the counter |
/// | 0x00C | RTCCR | 1 | no effect |
/// | 0x010 | RTCIMSC | bit 0: interrupt enabled | the same |
/// | 0x014 | RTCRIS | bit 0: matched | invalid |
/// | 0x018 | RTCMIS | RTCRIS and RTCIMSC | invalid |
/// | 0x01C | RTCICR | invalid | bit 0 clears the match |
/// | 0xFE0-0xFFC | ids | one byte each | invalid |
///
/// Accesses are 4 bytes wide and aligned, as on the APB bus. Any other access, and any not in the table, is
/// invalid: it changes nothing, a read returns 0, and an event reports it.
///
/// Deviations: the counter runs from reset and starts with the clock's time (firmware would have set both),
/// so RTCCR reads 1 at once; a load or a match value takes effect at once and not at the next 1 Hz edge,
/// because drivers read back what they wrote; a match that a jump of the clock passed over counts as a match.
/// Not modelled: the test registers (0x080-0x08C), reset through RTCCR.
/// Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The default events type of the clock, which ignores all events. Each member of an events type is optional:
/// `invalid_read()`, `invalid_write()`: the guest made an invalid access; `time_changed(std::chrono::seconds
/// ahead)`: the guest set the time, which is `ahead` of the device's clock.
struct NoRtcPl031Events {};

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the
/// interrupt line will next rise; call `tick()` then. Guest accesses update the device implicitly. The epoch
/// of `C` is the Unix epoch in UTC.
///
/// The arguments are in the same order as for every device: trigger, events, clock. Each may be left out if
/// its type has a default.
///
/// `reset()` is the reset line of the bus (PRESETn): RTCMR, RTCLR, RTCIMSC and RTCRIS return to 0 (DDI 0224,
/// table 3-1) and the interrupt line falls. The counter is in the domain of the 1 Hz clock, which a battery
/// supplies: it continues with the time that the guest has set. For a power-on reset (nPOR), construct a new
/// device. `time_offset()` is the shorter distance around the 32-bit counter.
///
/// Errors: `write`, `tick` and `reset` return the result of the interrupt trigger. `host_errors().interrupt`,
/// which is also `interrupt_errors()`, counts all failures, including those in reads and in `from_state`.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcPl031Events, Clock C = SystemClock>
class RtcPl031 : public detail::RtcShell<detail::RtcPl031Core, T, Events, C> {
    using Shell = detail::RtcShell<detail::RtcPl031Core, T, Events, C>;
    static_assert(
        !requires { &Events::time_changed; } ||
            requires(Events& events) { events.time_changed(std::chrono::seconds{}); },
        "the event time_changed must take a std::chrono::seconds");
    static_assert(
        !requires { &Events::invalid_read; } || requires(Events& events) { events.invalid_read(); },
        "the event invalid_read must take no argument");
    static_assert(
        !requires { &Events::invalid_write; } || requires(Events& events) { events.invalid_write(); },
        "the event invalid_write must take no argument");

public:
    using error_type = typename Shell::error_type;

    using Shell::Shell;

    /// Restores a saved device. The time that has passed on `clock` since then has also passed for the
    /// device. The restored device is up to date with `clock`: its interrupt line is raised if it was high in
    /// the saved state or has become due since. A default-constructed state is a device that has just been
    /// reset at the start of 1970: when it is restored, it has the time of `clock`.
    [[nodiscard]] static constexpr std::expected<RtcPl031, StateError> from_state(const RtcPl031State& state,
                                                                                  T interrupt = T(),
                                                                                  Events events = Events(),
                                                                                  C clock = C()) {
        return Shell::template restored<RtcPl031>(state, std::move(interrupt), std::move(events),
                                                  std::move(clock), {});
    }

    /// A read by the guest.
    constexpr void read(std::uint64_t offset, std::span<std::uint8_t> bytes) {
        const auto [value, effects] = this->core().read(this->now(), offset, bytes.size());
        static_cast<void>(this->apply(effects));
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = value ? static_cast<std::uint8_t>(*value >> (8U * i)) : std::uint8_t{0};
        }
    }

    /// The register at `offset` without updating it, or nothing if no register can be read there.
    [[nodiscard]] constexpr std::optional<std::uint32_t> peek(std::uint64_t offset) const noexcept {
        return this->core().peek(offset);
    }

    /// A write by the guest.
    constexpr std::expected<void, error_type> write(std::uint64_t offset,
                                                    std::span<const std::uint8_t> bytes) {
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < bytes.size() && i < sizeof(value); ++i) {
            value |= static_cast<std::uint32_t>(bytes[i]) << (8U * i);
        }
        return this->apply(this->core().write(this->now(), offset, bytes.size(), value));
    }

    /// The device as text for people: the registers as the guest would read them, the guest's time as a date,
    /// then a line for each member of the state (see `inspect.hpp`).
    [[nodiscard]] std::string inspect() const {
        using namespace pl031;
        const auto value = [this](std::uint16_t offset) { return peek(offset).value_or(0); };
        const auto line = [](auto reg) { return vmsuperio::inspect(reg) + "\n"; };
        return line(Data(value(data))) + line(Match(value(match))) + line(Load(value(load))) +
               line(Control(value(control))) + line(InterruptMask(value(interrupt_mask))) +
               line(InterruptStatus(value(raw_interrupt))) +
               line(MaskedInterruptStatus(value(masked_interrupt))) +
               "time_of_day=" + detail::date_text(value(data)) + "\n" + Shell::inspect();
    }
};

// Deduces the parameters from the arguments of the constructors.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcPl031Events, Clock C = SystemClock>
RtcPl031(T = {}, Events = {}, C = {}) -> RtcPl031<T, Events, C>;
template <Trigger T, Clock C>
RtcPl031(T, C) -> RtcPl031<T, NoRtcPl031Events, C>;
template <Clock C>
RtcPl031(C) -> RtcPl031<NullTrigger, NoRtcPl031Events, C>;

}  // namespace vmsuperio::inline v0_2

// vmsuperio/serial_error.hpp

namespace vmsuperio::inline v0_2 {

/// What failed.
enum class SerialErrorKind : std::uint8_t {
    trigger,        ///< the trigger failed; the device's own state is not affected
    write,          ///< the writer failed; the bytes offered to it are lost and counted
    full_fifo,      ///< no room in the receive FIFO
    invalid_state,  ///< a saved state that no device can be in
};

[[nodiscard]] constexpr std::string_view to_string(SerialErrorKind kind) noexcept {
    switch (kind) {
        case SerialErrorKind::trigger:
            return "the interrupt trigger failed";
        case SerialErrorKind::write:
            return "the writer failed";
        case SerialErrorKind::full_fifo:
            return "the receive FIFO is full";
        case SerialErrorKind::invalid_state:
            return "the saved serial state is invalid";
    }
    return "unknown serial error";
}

namespace detail {

/// The text of a trigger's error, if it has one in one of the usual forms; otherwise empty.
template <class E>
[[nodiscard]] std::string describe_error(const E& error) {
    if constexpr (requires { std::string(error.message()); }) {
        return std::string(error.message());
    } else if constexpr (requires { std::string(to_string(error)); }) {
        return std::string(to_string(error));
    } else if constexpr (std::is_enum_v<E>) {
        return std::to_string(static_cast<std::underlying_type_t<E>>(error));
    } else if constexpr (requires { std::to_string(error); }) {
        return std::to_string(error);
    } else {
        return {};
    }
}

}  // namespace detail

/// An error on the host's side. A guest's mistake is never an error.
template <class TriggerError>
class SerialError {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): full_fifo has no details
    /// An error without details.
    constexpr SerialError(SerialErrorKind kind) noexcept : kind_(kind) {}

    /// The error of a trigger.
    [[nodiscard]] static constexpr SerialError from_trigger(TriggerError error) {
        SerialError result(SerialErrorKind::trigger);
        result.trigger_error_.emplace(std::move(error));
        return result;
    }
    /// The error of a writer.
    [[nodiscard]] static constexpr SerialError from_writer(std::error_code error) noexcept {
        SerialError result(SerialErrorKind::write);
        result.write_error_ = error;
        return result;
    }

    /// What is wrong with a saved state.
    [[nodiscard]] static constexpr SerialError from_state_error(StateError error) noexcept {
        SerialError result(SerialErrorKind::invalid_state);
        result.field_ = error.field;
        return result;
    }

    /// What failed.
    [[nodiscard]] constexpr SerialErrorKind kind() const noexcept { return kind_; }
    /// The error of the trigger, if the kind is `trigger`.
    [[nodiscard]] constexpr const std::optional<TriggerError>& trigger_error() const noexcept {
        return trigger_error_;
    }
    /// The error of the writer, if the kind is `write`.
    [[nodiscard]] constexpr const std::error_code& write_error() const noexcept { return write_error_; }

    /// The invalid member of the saved state, if the kind is `invalid_state`; otherwise empty.
    [[nodiscard]] constexpr std::string_view field() const noexcept { return field_; }

    friend constexpr bool operator==(const SerialError& error, SerialErrorKind kind) noexcept {
        return error.kind_ == kind;
    }

private:
    SerialErrorKind kind_;
    std::optional<TriggerError> trigger_error_{};
    std::error_code write_error_;
    std::string_view field_;
};

/// One line for a log: what failed, with the error of the trigger or the writer or the invalid member.
template <class TriggerError>
[[nodiscard]] std::string to_string(const SerialError<TriggerError>& error) {
    std::string text(to_string(error.kind()));
    std::string reason;
    if (error.trigger_error()) {
        reason = detail::describe_error(*error.trigger_error());
    } else if (error.write_error()) {
        reason = error.write_error().message();
    } else {
        reason = error.field();
    }
    return reason.empty() ? text : text.append(": ").append(reason);
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/serial_events.hpp

namespace vmsuperio::inline v0_2 {

/// A character in the receive FIFO.
struct ReceivedCharacter {
    std::uint8_t byte{0};            ///< the byte
    uart16550::LineStatus errors{};  ///< PE, FE and BI, without those that the guest has read from LSR
};

/// The characters of a receive FIFO, the oldest first.
class ReceivedCharacters {
public:
    static constexpr std::size_t capacity = 64;  ///< the most that there can be: a whole FIFO

    /// How many there are.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr const ReceivedCharacter* begin() const noexcept { return &characters_[0]; }
    [[nodiscard]] constexpr const ReceivedCharacter* end() const noexcept { return &characters_[0] + size_; }

    /// There must be room.
    constexpr void push_back(ReceivedCharacter character) noexcept { characters_[size_++] = character; }

private:
    // NOLINTNEXTLINE(*-avoid-c-arrays): cheaper to compile than std::array
    ReceivedCharacter characters_[capacity]{};
    std::size_t size_{0};
};

/// The events that a `Serial` reports to its owner, for flow control and metrics.
///
/// - `buffer_read()`: the guest read a received byte.
/// - `out_byte()`: a byte reached the writer.
/// - `tx_lost_byte()`: a byte that the guest sent is lost, because the writer failed, because the policy does
///   not let bytes wait, or because the guest wrote to a full transmitter.
/// - `in_buffer_empty()`: the receive FIFO has become empty: offer more input.
///
/// Further members are called if the type has them; a member with one of these names and another signature
/// does not compile:
/// - `input_resumed()`: loopback ended, so that `enqueue_raw_bytes` takes input again.
/// - `overrun()`: a byte was lost because the receive FIFO had no room (LSR.OE).
/// - `break_received()`: a break entered the receive FIFO.
/// - `break_control(bool on)`: the guest began or ended sending a break (LCR bit 6); a reset ends one.
/// - `line_format_changed(uart16550::LineControl format)`: the guest, or a reset, changed word length, stop
///   bits or parity (LCR bits 5:0).
/// - `divisor_changed(std::uint16_t divisor)`: the guest, or a reset, changed the divisor; the baud rate is
///   115200 divided by it. A driver writes its two bytes separately, which are two changes.
/// - `data_terminal_ready(bool on)`, `request_to_send(bool on)`: the pin DTR or RTS changed, by a write of
///   MCR, with loopback, by automatic flow control, or by a reset.
/// - `dropped_bytes(std::size_t count)`: a FIFO reset by the guest discarded that many bytes.
/// - `characters_dropped(const ReceivedCharacters& characters)`: the received characters among them, the
///   oldest first, so that a console can offer them again.
/// - `fifo_reset()`: the guest cleared one or both FIFOs.
/// - `invalid_access()`: the guest accessed an offset above 7.
/// - `interrupt_raised()`: the interrupt line rose, or fell and rose at once.
/// - `trigger_failed()`: the trigger failed within a read, which cannot return the error.
/// - `host_error(HostErrorSource source)`: the trigger or the writer failed, in reads and in writes alike.
///
/// Events are reported after the registers and FIFOs have changed; only the interrupt line changes later. So
/// an event handler may read the device (`state()`, `peek()` and all other `const` members) and sees the
/// state after the access, except for `interrupt_line()`, which still returns the earlier level. It must not
/// call members that change the device, must not block and must not throw. A writer is called in the middle
/// of an access and a trigger at its end: neither may call the device.
template <class E>
concept SerialEvents = requires(E events) {
    events.buffer_read();
    events.out_byte();
    events.tx_lost_byte();
    events.in_buffer_empty();
};

/// Events that do nothing.
struct NoEvents {
    static constexpr void buffer_read() noexcept {}
    static constexpr void out_byte() noexcept {}
    static constexpr void tx_lost_byte() noexcept {}
    static constexpr void in_buffer_empty() noexcept {}
};
static_assert(SerialEvents<NoEvents>);

namespace detail {

/// Calls the events, the optional ones only if they exist.
template <SerialEvents E>
struct SerialEventCaller {
    E& events;

    constexpr void out_bytes(std::size_t count) const {
        for (std::size_t i = 0; i < count; ++i) {
            events.out_byte();
        }
    }
    constexpr void tx_lost_bytes(std::size_t count) const {
        for (std::size_t i = 0; i < count; ++i) {
            events.tx_lost_byte();
        }
    }
    constexpr void input_resumed() const {
        if constexpr (requires { events.input_resumed(); }) {
            events.input_resumed();
        }
    }
    constexpr void overruns(std::size_t count) const {
        if constexpr (requires { events.overrun(); }) {
            for (std::size_t i = 0; i < count; ++i) {
                events.overrun();
            }
        }
    }
    constexpr void break_received() const {
        if constexpr (requires { events.break_received(); }) {
            events.break_received();
        }
    }
    constexpr void break_control(bool on) const {
        if constexpr (requires { events.break_control(on); }) {
            events.break_control(on);
        }
    }
    constexpr void line_format_changed(uart16550::LineControl format) const {
        if constexpr (requires { events.line_format_changed(format); }) {
            events.line_format_changed(format);
        }
    }
    constexpr void divisor_changed(std::uint16_t divisor) const {
        if constexpr (requires { events.divisor_changed(divisor); }) {
            events.divisor_changed(divisor);
        }
    }
    constexpr void data_terminal_ready(bool on) const {
        if constexpr (requires { events.data_terminal_ready(on); }) {
            events.data_terminal_ready(on);
        }
    }
    constexpr void request_to_send(bool on) const {
        if constexpr (requires { events.request_to_send(on); }) {
            events.request_to_send(on);
        }
    }
    constexpr void dropped_bytes(std::size_t count) const {
        if constexpr (requires { events.dropped_bytes(count); }) {
            events.dropped_bytes(count);
        }
    }
    static constexpr bool wants_dropped_characters =
        requires(E& e, const ReceivedCharacters& characters) { e.characters_dropped(characters); };
    constexpr void fifo_reset() const {
        if constexpr (requires { events.fifo_reset(); }) {
            events.fifo_reset();
        }
    }
    constexpr void invalid_access() const {
        if constexpr (requires { events.invalid_access(); }) {
            events.invalid_access();
        }
    }
    constexpr void interrupt_raised() const {
        if constexpr (requires { events.interrupt_raised(); }) {
            events.interrupt_raised();
        }
    }
    constexpr void trigger_failed() const {
        if constexpr (requires { events.trigger_failed(); }) {
            events.trigger_failed();
        }
    }
    constexpr void host_error(HostErrorSource source) const {
        if constexpr (requires { events.host_error(source); }) {
            events.host_error(source);
        }
    }
};

/// Refuses events with an optional member that would never be called because it has another signature.
template <class E>
consteval bool check_optional_serial_events() {
    static_assert(
        requires(E& events) { events.input_resumed(); } || !requires { &E::input_resumed; },
        "the event cannot be called as input_resumed()");
    static_assert(
        requires(E& events) { events.overrun(); } || !requires { &E::overrun; },
        "the event cannot be called as overrun()");
    static_assert(
        requires(E& events) { events.break_received(); } || !requires { &E::break_received; },
        "the event cannot be called as break_received()");
    static_assert(
        requires(E& events) { events.break_control(true); } || !requires { &E::break_control; },
        "the event cannot be called as break_control(bool)");
    static_assert(
        requires(E& events, uart16550::LineControl format) { events.line_format_changed(format); } ||
            !requires { &E::line_format_changed; },
        "the event cannot be called as line_format_changed(uart16550::LineControl)");
    static_assert(
        requires(E& events, std::uint16_t divisor) { events.divisor_changed(divisor); } ||
            !requires { &E::divisor_changed; },
        "the event cannot be called as divisor_changed(std::uint16_t)");
    static_assert(
        requires(E& events) { events.data_terminal_ready(true); } || !requires { &E::data_terminal_ready; },
        "the event cannot be called as data_terminal_ready(bool)");
    static_assert(
        requires(E& events) { events.request_to_send(true); } || !requires { &E::request_to_send; },
        "the event cannot be called as request_to_send(bool)");
    static_assert(
        requires(E& events, std::size_t count) {
            events.dropped_bytes(count);
        } || !requires { &E::dropped_bytes; }, "the event cannot be called as dropped_bytes(std::size_t)");
    static_assert(
        requires(E& events, const ReceivedCharacters& characters) {
            events.characters_dropped(characters);
        } || !requires { &E::characters_dropped; },
        "the event cannot be called as characters_dropped(const ReceivedCharacters&)");
    static_assert(
        requires(E& events) { events.fifo_reset(); } || !requires { &E::fifo_reset; },
        "the event cannot be called as fifo_reset()");
    static_assert(
        requires(E& events) { events.invalid_access(); } || !requires { &E::invalid_access; },
        "the event cannot be called as invalid_access()");
    static_assert(
        requires(E& events) { events.interrupt_raised(); } || !requires { &E::interrupt_raised; },
        "the event cannot be called as interrupt_raised()");
    static_assert(
        requires(E& events) { events.trigger_failed(); } || !requires { &E::trigger_failed; },
        "the event cannot be called as trigger_failed()");
    static_assert(
        requires(E& events, HostErrorSource source) {
            events.host_error(source);
        } || !requires { &E::host_error; }, "the event cannot be called as host_error(HostErrorSource)");
    return true;
}

}  // namespace detail

/// A reference to events, so that several devices can share them. The events must outlive every copy of the
/// reference.
template <SerialEvents E>
class EventsRef {
    static_assert(detail::check_optional_serial_events<E>());

public:
    // NOLINTNEXTLINE(google-explicit-constructor): a reference to events is events
    /// Refers to an object that takes events, which must outlive this one.
    constexpr EventsRef(E& events) noexcept : events_(&events) {}

    constexpr void buffer_read() { events_->buffer_read(); }
    constexpr void out_byte() { events_->out_byte(); }
    constexpr void tx_lost_byte() { events_->tx_lost_byte(); }
    constexpr void in_buffer_empty() { events_->in_buffer_empty(); }
    constexpr void input_resumed() { caller().input_resumed(); }
    constexpr void overrun() { caller().overruns(1); }
    constexpr void break_received() { caller().break_received(); }
    constexpr void break_control(bool on) { caller().break_control(on); }
    constexpr void line_format_changed(uart16550::LineControl format) {
        caller().line_format_changed(format);
    }
    constexpr void divisor_changed(std::uint16_t divisor) { caller().divisor_changed(divisor); }
    constexpr void data_terminal_ready(bool on) { caller().data_terminal_ready(on); }
    constexpr void request_to_send(bool on) { caller().request_to_send(on); }
    constexpr void dropped_bytes(std::size_t count) { caller().dropped_bytes(count); }
    constexpr void characters_dropped(const ReceivedCharacters& characters)
        requires detail::SerialEventCaller<E>::wants_dropped_characters
    {
        events_->characters_dropped(characters);
    }
    constexpr void fifo_reset() { caller().fifo_reset(); }
    constexpr void invalid_access() { caller().invalid_access(); }
    constexpr void interrupt_raised() { caller().interrupt_raised(); }
    constexpr void trigger_failed() { caller().trigger_failed(); }
    constexpr void host_error(HostErrorSource source) { caller().host_error(source); }

private:
    [[nodiscard]] constexpr detail::SerialEventCaller<E> caller() const { return {*events_}; }

    E* events_;
};
static_assert(SerialEvents<EventsRef<NoEvents>>);

}  // namespace vmsuperio::inline v0_2

// vmsuperio/serial_state.hpp

namespace vmsuperio::inline v0_2 {

/// The treatment of bytes that the writer does not take at once.
enum class TransmitPolicy : std::uint8_t {
    back_pressure,   ///< they wait in the transmit FIFO, and LSR makes the guest wait too
    drop_and_count,  ///< they are lost and counted: the guest never waits
};

/// When the character timeout interrupt (CTI) occurs for received bytes below the trigger level.
enum class ReceiveTimeout : std::uint8_t {
    manual,     ///< when the caller reports that the time has passed: `character_timeout()`, `SerialTimeout`
    immediate,  ///< at once, the default: each received byte interrupts, whatever the trigger level is
};

/// What gates the interrupt between the UART and the interrupt controller.
enum class InterruptGate : std::uint8_t {
    out2,  ///< MCR.OUT2 enables it, as on a PC
    none,  ///< it is always connected, for guests that were developed on an emulator without this gate
};

[[nodiscard]] constexpr std::string_view to_string(TransmitPolicy policy) noexcept {
    switch (policy) {
        case TransmitPolicy::back_pressure:
            return "back_pressure";
        case TransmitPolicy::drop_and_count:
            return "drop_and_count";
    }
    return "unknown transmit policy";
}
[[nodiscard]] constexpr std::string_view to_string(ReceiveTimeout timeout) noexcept {
    switch (timeout) {
        case ReceiveTimeout::manual:
            return "manual";
        case ReceiveTimeout::immediate:
            return "immediate";
    }
    return "unknown receive timeout";
}
[[nodiscard]] constexpr std::string_view to_string(InterruptGate gate) noexcept {
    switch (gate) {
        case InterruptGate::out2:
            return "out2";
        case InterruptGate::none:
            return "none";
    }
    return "unknown interrupt gate";
}

/// The complete state of a `Serial`, as plain data. A default-constructed state is that of a device that has
/// just been reset. All other values (IIR, LSR, MSR, the interrupt line) follow from it and cannot contradict
/// it.
struct SerialState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("UART"), .version = 2, .readable_since = 1};
    static constexpr std::size_t fifo_size = 64;  ///< how many bytes each of the FIFOs can hold

    std::uint8_t interrupt_enable{0x00};  ///< IER
    std::uint8_t fifo_control{0x00};      ///< FCR without the reset bits
    std::uint8_t line_control{0x03};      ///< LCR
    std::uint8_t modem_control{0x08};     ///< MCR
    std::uint8_t scratch{0x00};           ///< SCR
    std::uint8_t divisor_low{0x0C};       ///< DLL
    std::uint8_t divisor_high{0x00};      ///< DLM
    std::uint8_t line_errors{0x00};       ///< LSR bits 4:1, not yet read
    std::uint8_t modem_inputs{0xB0};      ///< CTS, DSR, RI, DCD as the host drives them, as MSR bits 7:4
    std::uint8_t modem_deltas{0x00};      ///< MSR bits 3:0, not yet read
    bool thr_empty_pending{false};        ///< a THRE interrupt not yet acknowledged
    bool character_timeout{false};        ///< a CTI not yet served
    std::uint8_t receive_count{0};        ///< how many of them there are
    std::array<std::uint8_t, fifo_size> receive_data{};  ///< the oldest first
    std::uint64_t receive_parity_errors{
        0};  ///< bit n is for byte n; those of the oldest are in `line_errors`
    /// A bit for each byte of the receive FIFO: received with a framing error.
    std::uint64_t receive_framing_errors{0};
    std::uint64_t receive_breaks{0};  ///< a bit for each byte of the receive FIFO: a break
    std::uint8_t transmit_count{0};   ///< how many of them there are
    std::array<std::uint8_t, fifo_size> transmit_data{};  ///< the oldest first
    bool fifo_64_allowed{false};  ///< a TL16C750: the guest may use its 64-byte mode and flow control
    /// What happens to bytes that the writer does not take.
    TransmitPolicy transmit_policy{TransmitPolicy::back_pressure};
    /// When received bytes below the trigger level interrupt.
    ReceiveTimeout receive_timeout{ReceiveTimeout::immediate};
    InterruptGate interrupt_gate{InterruptGate::out2};  ///< whether OUT2 gates the interrupt
    bool auto_rts_held{false};  ///< automatic flow control holds RTS off until the receive FIFO is empty

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        using namespace uart16550;
        auto& [interrupt_enable, fifo_control, line_control, modem_control, scratch, divisor_low,
               divisor_high, line_errors, modem_inputs, modem_deltas, thr_empty_pending, character_timeout,
               receive_count, receive_data, receive_parity_errors, receive_framing_errors, receive_breaks,
               transmit_count, transmit_data, fifo_64_allowed, transmit_policy, receive_timeout,
               interrupt_gate, auto_rts_held] = self;
        archive("interrupt_enable", interrupt_enable, as<InterruptEnable>);
        archive("fifo_control", fifo_control, as<FifoControl>);
        archive("line_control", line_control, as<LineControl>);
        archive("modem_control", modem_control, as<ModemControl>);
        archive("scratch", scratch, as<Scratch>);
        archive("divisor_low", divisor_low);
        archive("divisor_high", divisor_high);
        archive("line_errors", line_errors, as<LineStatus>);
        archive("modem_inputs", modem_inputs, as<ModemStatus>);
        archive("modem_deltas", modem_deltas, as<ModemStatus>);
        archive("thr_empty_pending", thr_empty_pending);
        archive("character_timeout", character_timeout);
        archive.bytes("receive", receive_count, receive_data);
        archive("receive_parity_errors", receive_parity_errors);
        archive("receive_framing_errors", receive_framing_errors);
        archive("receive_breaks", receive_breaks);
        archive.bytes("transmit", transmit_count, transmit_data);
        archive("fifo_64_allowed", fifo_64_allowed);
        archive("transmit_policy", transmit_policy);
        archive("receive_timeout", receive_timeout);
        archive.since(2, "interrupt_gate", interrupt_gate);
        archive.since(2, "auto_rts_held", auto_rts_held);
    }
    friend constexpr bool operator==(const SerialState&, const SerialState&) = default;
};

namespace detail {

/// The number of received bytes at which data is available, according to FCR: the PC16550D's levels, or the
/// TL16C750's in its 64-byte mode; 1 with the FIFOs off.
[[nodiscard]] constexpr std::uint8_t receive_trigger_level(uart16550::FifoControl control) noexcept {
    using uart16550::FifoControl;
    constexpr std::uint8_t levels[2][4] = {{1, 4, 8, 14}, {1, 16, 32, 56}};
    return control[FifoControl::enable]
               ? levels[control[FifoControl::fifo_64] ? 1 : 0][control[FifoControl::receiver_trigger]]
               : std::uint8_t{1};
}

}  // namespace detail

/// Checks whether a `Serial` can be in this state. The bytes beyond the counts have no meaning. The error
/// names the first field whose value no device can have together with the others.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const SerialState& state) {
    using namespace uart16550;
    const auto only = [](std::uint8_t value, unsigned mask) { return (value & ~mask) == 0; };
    const FifoControl fifo_control(state.fifo_control);
    const bool fifo = fifo_control[FifoControl::enable];
    const bool fifo_64 = fifo_control[FifoControl::fifo_64];
    if (!only(state.interrupt_enable, InterruptEnable::guest_mask())) {
        return std::unexpected(StateError{"interrupt_enable"});
    }
    // FCR is 0 while the FIFOs are off.
    if (!only(state.fifo_control, FifoControl::guest_mask() | FifoControl::fifo_64.mask) ||
        (!fifo && state.fifo_control != 0) || (fifo_64 && !state.fifo_64_allowed)) {
        return std::unexpected(StateError{"fifo_control"});
    }
    const unsigned flow_control = state.fifo_64_allowed ? ModemControl::auto_flow_control.mask : 0U;
    if (!only(state.modem_control, ModemControl::guest_mask() | flow_control)) {
        return std::unexpected(StateError{"modem_control"});
    }
    if (!only(state.line_errors, LineStatus::errors.mask)) {
        return std::unexpected(StateError{"line_errors"});
    }
    if (!only(state.modem_inputs, ModemStatus::lines.mask)) {
        return std::unexpected(StateError{"modem_inputs"});
    }
    if (!only(state.modem_deltas, ModemStatus::deltas.mask)) {
        return std::unexpected(StateError{"modem_deltas"});
    }
    if (state.transmit_policy > TransmitPolicy::drop_and_count) {
        return std::unexpected(StateError{"transmit_policy"});
    }
    if (state.receive_timeout > ReceiveTimeout::immediate) {
        return std::unexpected(StateError{"receive_timeout"});
    }
    if (state.interrupt_gate > InterruptGate::none) {
        return std::unexpected(StateError{"interrupt_gate"});
    }
    if (state.receive_count > SerialState::fifo_size) {
        return std::unexpected(StateError{"receive_count"});
    }
    if (state.transmit_count > (fifo ? SerialState::fifo_size : 1U) ||
        (state.transmit_count != 0 && state.transmit_policy == TransmitPolicy::drop_and_count)) {
        return std::unexpected(StateError{"transmit_count"});
    }
    if (state.thr_empty_pending && state.transmit_count != 0) {
        return std::unexpected(StateError{"thr_empty_pending"});
    }
    if (state.character_timeout && (!fifo || state.receive_count == 0)) {
        return std::unexpected(StateError{"character_timeout"});
    }
    // Errors of absent bytes, or of the oldest byte, whose errors are in LSR already.
    const std::uint64_t held =
        state.receive_count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << state.receive_count) - 1;
    const std::uint64_t impossible = ~(held & ~std::uint64_t{1});
    if ((state.receive_parity_errors & impossible) != 0) {
        return std::unexpected(StateError{"receive_parity_errors"});
    }
    if ((state.receive_framing_errors & impossible) != 0) {
        return std::unexpected(StateError{"receive_framing_errors"});
    }
    if ((state.receive_breaks & impossible) != 0) {
        return std::unexpected(StateError{"receive_breaks"});
    }
    const ModemControl modem_control(state.modem_control);
    const bool auto_rts =
        modem_control[ModemControl::auto_flow_control] && modem_control[ModemControl::request_to_send];
    if (state.auto_rts_held
            ? !auto_rts || state.receive_count == 0
            : auto_rts && state.receive_count >= detail::receive_trigger_level(fifo_control)) {
        return std::unexpected(StateError{"auto_rts_held"});
    }
    return {};
}

}  // namespace vmsuperio::inline v0_2

// vmsuperio/uart/fifo.hpp

/// The FIFOs of a `SerialState` in use. Counts, bytes and errors are members of the state. The classes here
/// add only a derived value: the position of the oldest byte in the state's arrays, so that no byte moves
/// when the guest reads one. `put_in_order` produces the saved form, in which the oldest byte is the first.
namespace vmsuperio::inline v0_2::detail {

/// 64 received bytes with the errors of each, in a ring.
///
/// The errors of a byte appear in LSR when it becomes the oldest (PC16550D 8.6.2, LSR bits 2 to 4). So the
/// state's masks hold only those of the other bytes; the caller must collect the errors of the new oldest
/// byte with `take_front_errors` after every change of it.
class SerialReceiveFifo {
public:
    static constexpr std::size_t capacity = SerialState::fifo_size;

    [[nodiscard]] static constexpr bool empty(const SerialState& state) noexcept {
        return state.receive_count == 0;
    }
    [[nodiscard]] static constexpr std::size_t room(const SerialState& state) noexcept {
        return capacity - state.receive_count;
    }
    [[nodiscard]] constexpr std::uint8_t front(const SerialState& state) const noexcept {
        return state.receive_data[slot(0)];
    }
    /// Changes with every byte that arrives or is read; it repeats after 256 of each.
    [[nodiscard]] constexpr std::uint32_t position(const SerialState& state) const noexcept {
        return (std::uint32_t{head_} << 8U) | state.receive_count;
    }
    [[nodiscard]] constexpr bool has_errors() const noexcept { return has_errors_; }

    /// The FIFO must not be empty.
    constexpr std::uint8_t pop(SerialState& state) noexcept {
        const std::uint8_t byte = front(state);
        ++head_;
        --state.receive_count;
        return byte;
    }

    /// There must be room. `errors` contains LSR bits 4:2.
    constexpr void push(SerialState& state, std::uint8_t byte, std::uint8_t errors) noexcept {
        using uart16550::LineStatus;
        const std::size_t at = slot(state.receive_count);
        const std::uint64_t bit = std::uint64_t{1} << at;
        state.receive_data[at] = byte;
        state.receive_parity_errors |= (errors & LineStatus::parity_error.mask) != 0 ? bit : 0;
        state.receive_framing_errors |= (errors & LineStatus::framing_error.mask) != 0 ? bit : 0;
        state.receive_breaks |= (errors & LineStatus::break_interrupt.mask) != 0 ? bit : 0;
        note_errors(state);
        ++state.receive_count;
    }

    /// Takes as many bytes as fit, and returns their number.
    constexpr std::size_t push(SerialState& state, std::span<const std::uint8_t> bytes) noexcept {
        const std::size_t count = smaller(bytes.size(), room(state));
        const std::size_t at = slot(state.receive_count);
        if (count == 1) {  // a pressed key is not worth a call of memmove
            state.receive_data[at] = bytes.front();
        } else {
            const std::size_t first = smaller(count, capacity - at);
            copy_bytes(bytes.data(), first, state.receive_data.data() + at);
            copy_bytes(bytes.data() + first, count - first, state.receive_data.data());
        }
        state.receive_count = static_cast<std::uint8_t>(state.receive_count + count);
        return count;
    }

    /// Returns the errors of the oldest byte, LSR bits 4:2, and clears them here.
    constexpr std::uint8_t take_front_errors(SerialState& state) noexcept {
        if (!has_errors_) [[likely]] {
            return 0;
        }
        using uart16550::LineStatus;
        const std::uint64_t bit = std::uint64_t{1} << slot(0);
        const auto errors = static_cast<std::uint8_t>(
            ((state.receive_parity_errors & bit) != 0 ? LineStatus::parity_error.mask : 0) |
            ((state.receive_framing_errors & bit) != 0 ? LineStatus::framing_error.mask : 0) |
            ((state.receive_breaks & bit) != 0 ? LineStatus::break_interrupt.mask : 0));
        state.receive_parity_errors &= ~bit;
        state.receive_framing_errors &= ~bit;
        state.receive_breaks &= ~bit;
        note_errors(state);
        return errors;
    }

    constexpr void clear(SerialState& state) noexcept {
        // As if all had been read, so that the position differs when the same number of bytes arrives again.
        head_ = static_cast<std::uint8_t>(head_ + state.receive_count);
        state.receive_count = 0;
        state.receive_parity_errors = 0;
        state.receive_framing_errors = 0;
        state.receive_breaks = 0;
        has_errors_ = false;
    }

    /// Writes the content in its saved form to `saved`: the oldest byte first, with bit 0 of each mask, and
    /// zeros after the last byte.
    constexpr void put_in_order(const SerialState& state, SerialState& saved) const noexcept {
        saved.receive_data = {};
        for (std::size_t i = 0; i < state.receive_count; ++i) {
            saved.receive_data[i] = state.receive_data[slot(i)];
        }
        const auto shift = static_cast<int>(slot(0));
        saved.receive_parity_errors = std::rotr(state.receive_parity_errors, shift);
        saved.receive_framing_errors = std::rotr(state.receive_framing_errors, shift);
        saved.receive_breaks = std::rotr(state.receive_breaks, shift);
    }
    /// Adopts a state that is in its saved form.
    constexpr void restore(const SerialState& state) noexcept {
        // The oldest byte is in slot 0, but at another position than before.
        head_ = static_cast<std::uint8_t>((head_ / capacity + 1) * capacity);
        note_errors(state);
    }

private:
    [[nodiscard]] constexpr std::size_t slot(std::size_t index) const noexcept {
        return (head_ + index) % capacity;
    }
    constexpr void note_errors(const SerialState& state) noexcept {
        has_errors_ =
            (state.receive_parity_errors | state.receive_framing_errors | state.receive_breaks) != 0;
    }

    std::uint8_t head_{0};  // the position of the oldest byte; it increases past the end of the array
    bool has_errors_{false};
};

/// Bytes that wait for the writer, contiguous so that one call offers them all.
class SerialTransmitFifo {
public:
    static constexpr std::size_t capacity = SerialState::fifo_size;

    [[nodiscard]] constexpr std::span<const std::uint8_t> bytes(const SerialState& state) const noexcept {
        return {state.transmit_data.data() + head_, state.transmit_count};
    }

    /// Takes as many bytes as fit into a FIFO of `depth` bytes, and returns their number.
    constexpr std::size_t push(SerialState& state, std::span<const std::uint8_t> bytes,
                               std::size_t depth) noexcept {
        const std::size_t size = state.transmit_count;
        const std::size_t count = smaller(bytes.size(), depth > size ? depth - size : 0);
        std::uint8_t* const data = state.transmit_data.data();
        if (head_ + size + count > capacity) {
            copy_bytes(data + head_, size, data);
            head_ = 0;
        }
        copy_bytes(bytes.data(), count, data + head_ + size);
        state.transmit_count = static_cast<std::uint8_t>(size + count);
        return count;
    }
    /// There must be `count` bytes.
    constexpr void drop_front(SerialState& state, std::size_t count) noexcept {
        state.transmit_count = static_cast<std::uint8_t>(state.transmit_count - count);
        head_ = state.transmit_count == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(head_ + count);
    }
    constexpr void clear(SerialState& state) noexcept { drop_front(state, state.transmit_count); }

    /// Writes the content in its saved form to `saved`: the oldest byte first, zeros after the last.
    constexpr void put_in_order(const SerialState& state, SerialState& saved) const noexcept {
        saved.transmit_data = {};
        copy_bytes(state.transmit_data.data() + head_, state.transmit_count, saved.transmit_data.data());
    }
    /// Adopts a state that is in its saved form.
    constexpr void restore() noexcept { head_ = 0; }

private:
    std::uint8_t head_{0};  // the index of the oldest byte in the array
};

}  // namespace vmsuperio::inline v0_2::detail

// vmsuperio/uart/serial_core.hpp

namespace vmsuperio::inline v0_2 {

/// The effects of an access to a `SerialCore` other than the change of its state.
struct SerialEffects {
    std::size_t bytes_sent{0};              ///< to the writer
    std::size_t bytes_lost{0};              ///< sent by the guest, and lost
    std::size_t bytes_dropped{0};           ///< received bytes that were discarded
    std::size_t overruns{0};                ///< received bytes that found no room
    std::uint16_t divisor{0};               ///< the divisor, if it has changed
    uart16550::LineControl line_control{};  ///< LCR, if it has changed
    uart16550::ModemControl outputs{};      ///< MCR, if an output has changed
    std::uint8_t line_control_changes{0};   ///< the bits of LCR that changed
    std::uint8_t output_changes{0};         ///< the outputs that changed, as bits of MCR
    bool divisor_changed{false};            ///< whether the divisor has changed
    bool fifo_reset{false};                 ///< whether a FIFO has been cleared
    bool break_received{false};             ///< whether a break has been received
    bool byte_read{false};                  ///< whether RBR has returned a byte
    bool receive_emptied{false};            ///< whether the receive FIFO has become empty
    bool input_resumed{false};              ///< whether loopback has ended
    bool invalid_access{false};             ///< whether the offset does not exist
    /// The transmitter may send again: offer the waiting bytes to the writer. This is not an event.
    bool transmitter_resumed{false};
    /// The interrupt sources (bits of IER) that the access cleared, whether or not they were set again.
    std::uint8_t rearmed{0};

    /// Calls the events in a fixed order.
    template <SerialEvents E>
    [[gnu::always_inline]] constexpr void report(E& events) const {
        using uart16550::LineControl;
        using uart16550::ModemControl;
        const detail::SerialEventCaller<E> calls{events};
        if (invalid_access) {
            calls.invalid_access();
        }
        if ((line_control_changes & LineControl::format.mask) != 0) {
            calls.line_format_changed(line_control);
        }
        if ((line_control_changes & LineControl::set_break.mask) != 0) {
            calls.break_control(line_control[LineControl::set_break]);
        }
        if (divisor_changed) {
            calls.divisor_changed(divisor);
        }
        if (fifo_reset) {
            calls.fifo_reset();
        }
        if (bytes_dropped != 0) {
            calls.dropped_bytes(bytes_dropped);
        }
        calls.overruns(overruns);
        if (break_received) {
            calls.break_received();
        }
        if (byte_read) {
            events.buffer_read();
        }
        if (receive_emptied) {
            events.in_buffer_empty();
        }
        if ((output_changes & ModemControl::data_terminal_ready.mask) != 0) {
            calls.data_terminal_ready(outputs[ModemControl::data_terminal_ready]);
        }
        if ((output_changes & ModemControl::request_to_send.mask) != 0) {
            calls.request_to_send(outputs[ModemControl::request_to_send]);
        }
        if (input_resumed) {
            calls.input_resumed();
        }
        calls.out_bytes(bytes_sent);
        calls.tx_lost_bytes(bytes_lost);
    }
};

/// The core of `Serial`, which is independent of the host: registers, FIFOs, and the values that follow from
/// them. `Serial` documents the meaning of its members for the guest and the host.
class SerialCore {
public:
    /// How many received bytes the device holds.
    static constexpr std::size_t receive_fifo_size = detail::SerialReceiveFifo::capacity;
    /// The oscillator of a PC's UART, in Hz: the divisor 1 means 115200 baud.
    static constexpr std::uint64_t clock_frequency = 1'843'200;

    /// A device that has just been reset.
    constexpr SerialCore() = default;
    /// The state must be valid.
    explicit constexpr SerialCore(const SerialState& state) noexcept { restore(state); }

    /// The state in its saved form.
    [[nodiscard]] constexpr SerialState state() const noexcept {
        SerialState saved = state_;
        receive_.put_in_order(state_, saved);
        transmit_.put_in_order(state_, saved);
        return saved;
    }

    // --- The registers

    /// IER.
    [[nodiscard]] constexpr uart16550::InterruptEnable interrupt_enable() const noexcept {
        return uart16550::InterruptEnable(state_.interrupt_enable);
    }
    /// FCR, whose reset bits read 0.
    [[nodiscard]] constexpr uart16550::FifoControl fifo_control() const noexcept {
        return uart16550::FifoControl(state_.fifo_control);
    }
    /// LCR.
    [[nodiscard]] constexpr uart16550::LineControl line_control() const noexcept {
        return uart16550::LineControl(state_.line_control);
    }
    /// MCR.
    [[nodiscard]] constexpr uart16550::ModemControl modem_control() const noexcept {
        return uart16550::ModemControl(state_.modem_control);
    }
    /// SCR.
    [[nodiscard]] constexpr uart16550::Scratch scratch() const noexcept {
        return uart16550::Scratch(state_.scratch);
    }
    /// DLL.
    [[nodiscard]] constexpr uart16550::DivisorLatchLow divisor_low() const noexcept {
        return uart16550::DivisorLatchLow(state_.divisor_low);
    }
    /// DLM.
    [[nodiscard]] constexpr uart16550::DivisorLatchHigh divisor_high() const noexcept {
        return uart16550::DivisorLatchHigh(state_.divisor_high);
    }
    /// RBR, without reading the byte.
    [[nodiscard]] constexpr uart16550::ReceiverBuffer receiver_buffer() const noexcept {
        return uart16550::ReceiverBuffer(receive_empty() ? std::uint8_t{0} : receive_.front(state_));
    }
    /// IIR, without acknowledging the interrupt.
    [[nodiscard]] constexpr uart16550::InterruptIdentification interrupt_identification() const noexcept {
        return interrupt_identification(highest_interrupt());
    }
    /// LSR, without clearing its errors.
    [[nodiscard]] constexpr uart16550::LineStatus line_status() const noexcept {
        using uart16550::LineStatus;
        const unsigned ready = receive_empty() ? 0U : LineStatus::data_ready.mask;
        const unsigned transmitter =
            transmit_empty() ? unsigned{LineStatus::thr_empty.mask} | LineStatus::transmitter_empty.mask : 0U;
        const unsigned status = ready | transmitter | state_.line_errors;
        if (((state_.line_errors & LineStatus::character_errors.mask) != 0 || receive_.has_errors()) &&
            fifo_enabled()) [[unlikely]] {
            return LineStatus(static_cast<std::uint8_t>(status | LineStatus::fifo_error.mask));
        }
        return LineStatus(static_cast<std::uint8_t>(status));
    }
    /// MSR, without clearing its delta bits.
    [[nodiscard]] constexpr uart16550::ModemStatus modem_status() const noexcept {
        return uart16550::ModemStatus(static_cast<std::uint8_t>(modem_lines() | state_.modem_deltas));
    }

    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        using namespace uart16550;
        switch (offset) {
            case offset::receiver_buffer:
                return divisor_latch_access() ? state_.divisor_low : receiver_buffer().value();
            case offset::interrupt_enable:
                return divisor_latch_access() ? state_.divisor_high : state_.interrupt_enable;
            case offset::interrupt_identification:
                return interrupt_identification().value();
            case offset::line_control:
                return state_.line_control;
            case offset::modem_control:
                return state_.modem_control;
            case offset::line_status:
                return line_status().value();
            case offset::modem_status:
                return modem_status().value();
            case offset::scratch:
                return state_.scratch;
            default:
                return 0;
        }
    }

    // --- Values that follow from the registers

    /// LCR bit 7, DLAB.
    [[nodiscard]] constexpr bool divisor_latch_access() const noexcept {
        return line_control()[uart16550::LineControl::divisor_latch_access];
    }
    /// FCR bit 0.
    [[nodiscard]] constexpr bool fifo_enabled() const noexcept {
        return fifo_control()[uart16550::FifoControl::enable];
    }
    /// MCR bit 4, loopback.
    [[nodiscard]] constexpr bool looped() const noexcept {
        return modem_control()[uart16550::ModemControl::loopback];
    }
    /// The divisor: 115200 divided by it is the rate in baud.
    [[nodiscard]] constexpr std::uint16_t divisor() const noexcept {
        return static_cast<std::uint16_t>((static_cast<unsigned>(state_.divisor_high) << 8U) |
                                          state_.divisor_low);
    }
    /// DTR, RTS, OUT1 and OUT2 as driven on the pins.
    [[nodiscard]] constexpr uart16550::ModemControl modem_outputs() const noexcept {
        using uart16550::ModemControl;
        if (looped()) {
            return ModemControl();
        }
        ModemControl outputs = modem_control();
        outputs.clear(ModemControl::auto_flow_control);
        if (state_.auto_rts_held) {
            outputs.clear(ModemControl::request_to_send);
        }
        return outputs;
    }
    /// Whether LSR or MSR have bits that a read clears.
    [[nodiscard]] constexpr bool has_line_errors() const noexcept { return state_.line_errors != 0; }
    /// Whether a modem input has changed since MSR was read.
    [[nodiscard]] constexpr bool has_modem_deltas() const noexcept { return state_.modem_deltas != 0; }

    /// The contents of the receive FIFO.
    [[nodiscard]] constexpr ReceivedCharacters received() const noexcept {
        using uart16550::LineStatus;
        const SerialState saved = state();
        ReceivedCharacters characters;
        for (std::size_t i = 0; i < saved.receive_count; ++i) {
            const auto flag = [i](std::uint64_t errors, auto field) {
                return (errors >> i & 1U) != 0 ? unsigned{field.mask} : 0U;
            };
            // The errors of the oldest character are in LSR.
            const unsigned errors = i == 0
                                        ? saved.line_errors & LineStatus::character_errors.mask
                                        : flag(saved.receive_parity_errors, LineStatus::parity_error) |
                                              flag(saved.receive_framing_errors, LineStatus::framing_error) |
                                              flag(saved.receive_breaks, LineStatus::break_interrupt);
            characters.push_back(
                {.byte = saved.receive_data[i], .errors = LineStatus(static_cast<std::uint8_t>(errors))});
        }
        return characters;
    }

    /// Whether no received byte waits.
    [[nodiscard]] constexpr bool receive_empty() const noexcept { return receive_.empty(state_); }
    /// How many received bytes still fit.
    [[nodiscard]] constexpr std::size_t receive_room() const noexcept { return receive_.room(state_); }
    /// A number that changes when the receive FIFO does.
    [[nodiscard]] constexpr std::uint32_t receive_activity() const noexcept {
        return receive_.position(state_);
    }
    /// Whether the character timeout is running.
    [[nodiscard]] constexpr bool character_timeout_armed() const noexcept {
        return fifo_enabled() && !receive_empty() && !state_.character_timeout &&
               state_.receive_timeout == ReceiveTimeout::manual;
    }
    /// The time of four characters at the present rate and format.
    [[nodiscard]] constexpr std::chrono::nanoseconds character_timeout_length() const noexcept {
        using uart16550::LineControl;
        const LineControl control = line_control();
        const std::uint64_t word = 5U + control[LineControl::word_length];
        // Half bits: with 5 data bits the longer stop is 1.5.
        const std::uint64_t stop = !control[LineControl::stop_bits] ? 2 : (word == 5 ? 3 : 4);
        const std::uint64_t half_bits =
            (2 * (1 + word + (control[LineControl::parity_enable] ? 1 : 0))) + stop;
        const std::uint64_t clocks_per_bit = divisor() == 0 ? 1U : divisor();
        // 16 clocks a bit, 8 a half bit; four characters.
        return std::chrono::nanoseconds(4 * half_bits * 8 * clocks_per_bit * 1'000'000'000 / clock_frequency);
    }

    /// Whether no byte waits for the writer.
    [[nodiscard]] constexpr bool transmit_empty() const noexcept { return state_.transmit_count == 0; }
    /// How many bytes still fit into the transmit FIFO.
    [[nodiscard]] constexpr std::size_t transmit_room() const noexcept {
        const std::size_t depth = transmit_depth();
        return depth > state_.transmit_count ? depth - state_.transmit_count : 0;
    }
    /// Auto-CTS: whether the other side is not ready. In loopback there is no other side.
    [[nodiscard]] constexpr bool transmitter_stopped() const noexcept {
        return auto_flow_control() && !looped() &&
               (state_.modem_inputs & uart16550::ModemStatus::clear_to_send.mask) == 0;
    }
    /// Whether bytes may not simply go to the writer: loopback takes them, or flow control may stop them.
    [[nodiscard]] constexpr bool transmits_specially() const noexcept {
        using uart16550::ModemControl;
        constexpr unsigned special = ModemControl::loopback.mask | ModemControl::auto_flow_control.mask;
        return (state_.modem_control & special) != 0;
    }

    /// What happens to bytes that the writer does not take.
    [[nodiscard]] constexpr TransmitPolicy transmit_policy() const noexcept { return state_.transmit_policy; }
    /// When received bytes below the trigger level interrupt.
    [[nodiscard]] constexpr ReceiveTimeout receive_timeout() const noexcept { return state_.receive_timeout; }
    /// Whether OUT2 gates the interrupt.
    [[nodiscard]] constexpr InterruptGate interrupt_gate() const noexcept { return state_.interrupt_gate; }
    /// Whether the device is a TL16C750.
    [[nodiscard]] constexpr bool fifo_64_allowed() const noexcept { return state_.fifo_64_allowed; }
    /// CTS, DSR, RI and DCD as they come from outside.
    [[nodiscard]] constexpr uart16550::ModemStatus modem_inputs() const noexcept {
        return uart16550::ModemStatus(state_.modem_inputs);
    }

    // --- Interrupts: computed from the registers, only here.

    /// The sources that keep the interrupt line high, as their enable bits in IER: those that are enabled,
    /// pending and connected to the line. 0 if the line is low.
    [[nodiscard, gnu::always_inline]] constexpr std::uint8_t interrupt_sources() const noexcept {
        const bool connected =
            modem_control()[uart16550::ModemControl::out2] || state_.interrupt_gate == InterruptGate::none;
        return connected ? pending_sources() : std::uint8_t{0};
    }
    /// The level of the interrupt line.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t = 0) const noexcept {
        return interrupt_sources() != 0;
    }
    /// Whether any source may interrupt; if none may, the level is low.
    [[nodiscard]] constexpr bool interrupts_enabled() const noexcept { return state_.interrupt_enable != 0; }

    // --- The guest reads

    /// RBR. The FIFO must not be empty. If afterwards `only_byte_read()` is false, `note_byte_read()` must
    /// follow.
    constexpr std::uint8_t read_receiver_buffer() noexcept {
        state_.character_timeout = false;
        return receive_.pop(state_);
    }
    /// Whether the read of a byte changed only the level of the FIFO: "data available" stays set, so that
    /// neither the interrupt line nor RTS changes, and no remaining byte has errors that LSR may have to show.
    [[nodiscard]] constexpr bool only_byte_read() const noexcept {
        return state_.receive_count >= receive_hold_level_ && !receive_.has_errors();
    }
    /// The guest has read a byte of RBR: what follows from it.
    [[gnu::always_inline]] constexpr SerialEffects note_byte_read() noexcept {
        SerialEffects effects;
        if (receive_.has_errors()) [[unlikely]] {
            state_.line_errors |= receive_.take_front_errors(state_);
        }
        effects.byte_read = true;
        effects.receive_emptied = receive_empty();
        note_received(effects);
        if (state_.receive_count < receive_hold_level_) {
            effects.rearmed = received_data_source;
        }
        return effects;
    }
    /// IIR. Acknowledges THRE, but only if IIR reports it.
    struct InterruptRead {
        uart16550::InterruptIdentification id;  ///< IIR
        bool acknowledged;                      ///< whether the read has acknowledged THRE
    };
    /// The guest reads IIR, which acknowledges THRE if that is what it reports.
    constexpr InterruptRead read_interrupt_identification() noexcept {
        const uart16550::InterruptId id = highest_interrupt();
        const bool acknowledged = id == uart16550::InterruptId::thr_empty;
        if (acknowledged) {
            state_.thr_empty_pending = false;
        }
        return {.id = interrupt_identification(id), .acknowledged = acknowledged};
    }
    /// The guest reads LSR, which clears its error bits.
    constexpr uart16550::LineStatus read_line_status() noexcept {
        const uart16550::LineStatus status = line_status();
        state_.line_errors = 0;
        return status;
    }
    /// The guest reads MSR, which clears its delta bits.
    constexpr uart16550::ModemStatus read_modem_status() noexcept {
        const uart16550::ModemStatus status = modem_status();
        state_.modem_deltas = 0;
        return status;
    }

    // --- The guest writes

    /// IER.
    constexpr void write_interrupt_enable(std::uint8_t value) noexcept {
        using uart16550::InterruptEnable;
        const bool was_enabled = interrupt_enable()[InterruptEnable::thr_empty];
        guest_write<InterruptEnable>(state_.interrupt_enable, value);
        // Enabling THRE while the transmitter is empty interrupts at once; enabling it again does not.
        if (!was_enabled && interrupt_enable()[InterruptEnable::thr_empty] && transmit_empty()) {
            state_.thr_empty_pending = true;
        }
    }
    /// FCR.
    [[gnu::always_inline]] constexpr SerialEffects write_fifo_control(std::uint8_t value) noexcept {
        SerialEffects effects;
        const bool held_input = !receive_empty();
        set_fifo_control(value, effects);
        effects.receive_emptied = held_input && receive_empty();
        note_received(effects);
        return effects;
    }
    /// MCR.
    [[gnu::always_inline]] constexpr SerialEffects write_modem_control(std::uint8_t value) noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        set_modem_control(value);
        note_changes(before, effects);
        return effects;
    }
    /// All other registers: LCR, the divisor, SCR, and the read-only ones. No interrupt depends on them.
    [[gnu::always_inline]] constexpr SerialEffects write_other_register(std::uint8_t offset,
                                                                        std::uint8_t value) noexcept {
        using namespace uart16550;
        SerialEffects effects;
        switch (offset) {
            case offset::divisor_latch_low:
                effects.divisor_changed = state_.divisor_low != value;
                state_.divisor_low = value;
                break;
            case offset::divisor_latch_high:
                effects.divisor_changed = state_.divisor_high != value;
                state_.divisor_high = value;
                break;
            case offset::line_control: {
                const std::uint8_t before = state_.line_control;
                guest_write<LineControl>(state_.line_control, value);
                effects.line_control = line_control();
                effects.line_control_changes = changes(before, state_.line_control);
                break;
            }
            case offset::line_status:
            case offset::modem_status:
                break;
            case offset::scratch:
                guest_write<Scratch>(state_.scratch, value);
                break;
            default:
                effects.invalid_access = true;
        }
        effects.divisor = divisor();
        return effects;
    }

    /// In loopback the bytes that the guest sends are received at once (PC16550D 8.7, bit 4). Bytes that
    /// waited for the writer when loopback began still go to the writer.
    ///
    /// With the FIFOs on the receiver holds no more bytes than the chip, because guests count the bytes that
    /// fit to identify the chip. Linux identifies a 16550A that loops back 64 bytes as a U6_16550A, and then
    /// sends 64 bytes at once into a transmit FIFO of 16 (8250_port.c, size_fifo).
    constexpr SerialEffects loop_back(std::span<const std::uint8_t> bytes) noexcept {
        SerialEffects effects;
        const unsigned pending = pending_sources();
        const std::size_t depth = fifo_enabled() ? transmit_depth() : receive_fifo_size;
        const std::size_t held = state_.receive_count;
        const std::size_t room = depth > held ? depth - held : 0;
        effects.overruns =
            bytes.size() - receive_.push(state_, bytes.first(detail::smaller(bytes.size(), room)));
        if (effects.overruns != 0) {
            state_.line_errors |= uart16550::LineStatus::overrun_error.mask;
        }
        state_.thr_empty_pending = transmit_empty();
        note_received(effects);
        // The write cleared THRE, and the interrupts of these bytes were set after that.
        effects.rearmed = static_cast<std::uint8_t>(thr_empty_source | ~pending);
        return effects;
    }

    // --- Results of the writer for the bytes that the guest sent

    /// The writer took one byte at once, while no byte waited.
    [[gnu::always_inline]] constexpr SerialEffects byte_sent() noexcept {
        SerialEffects effects;
        effects.bytes_sent = 1;
        state_.thr_empty_pending = true;
        effects.rearmed = thr_empty_source;
        return effects;
    }
    /// The bytes that wait for the writer.
    [[nodiscard]] constexpr std::span<const std::uint8_t> waiting() const noexcept {
        return transmit_.bytes(state_);
    }
    /// The writer took `count` of the waiting bytes.
    constexpr void waiting_sent(std::size_t count) noexcept {
        transmit_.drop_front(state_, count);
        state_.thr_empty_pending = transmit_empty();
    }
    /// The writer failed: the waiting bytes are lost. Returns their number.
    constexpr std::size_t waiting_lost() noexcept {
        const std::size_t lost = state_.transmit_count;
        if (lost != 0) {
            transmit_.clear(state_);
            state_.thr_empty_pending = true;
        }
        return lost;
    }
    /// The writer took no more: of `bytes`, as many wait as may and fit; the others are lost.
    constexpr void keep_or_lose(std::span<const std::uint8_t> bytes, bool may_wait,
                                SerialEffects& effects) noexcept {
        std::size_t kept = 0;
        if (may_wait && state_.transmit_policy == TransmitPolicy::back_pressure) {
            kept = transmit_.push(state_, bytes, transmit_depth());
        }
        effects.bytes_lost += bytes.size() - kept;
        state_.thr_empty_pending = transmit_empty();
        effects.rearmed = thr_empty_source;
    }
    /// `count` bytes were lost after the writer failed.
    constexpr void bytes_lost(std::size_t count, SerialEffects& effects) const noexcept {
        effects.bytes_lost += count;
        effects.rearmed = thr_empty_source;
    }

    // --- The host

    /// Returns how many bytes fitted.
    [[gnu::always_inline]] constexpr std::size_t receive(std::span<const std::uint8_t> bytes,
                                                         SerialEffects& effects) noexcept {
        const std::size_t count = receive_.push(state_, bytes);
        note_received(effects);
        return count;
    }
    /// The FIFO must have room.
    constexpr SerialEffects receive_with_errors(std::uint8_t byte, uart16550::LineStatus errors) noexcept {
        using uart16550::LineStatus;
        SerialEffects effects;
        receive_.push(state_, byte,
                      static_cast<std::uint8_t>(errors.value() & LineStatus::character_errors.mask));
        if (state_.receive_count == 1) {
            state_.line_errors |= receive_.take_front_errors(state_);
        }
        effects.break_received = errors[LineStatus::break_interrupt];
        note_received(effects);
        return effects;
    }
    /// Four character times have passed.
    constexpr SerialEffects character_timeout() noexcept {
        if (character_timeout_armed()) {
            state_.character_timeout = true;
        }
        return {};
    }
    /// Sets CTS, DSR, RI and DCD.
    constexpr SerialEffects set_modem_inputs(uart16550::ModemStatus lines) noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        const std::uint8_t lines_before = modem_lines();
        state_.modem_inputs = lines.value() & uart16550::ModemStatus::lines.mask;
        note_modem_change(lines_before);
        note_changes(before, effects);
        return effects;
    }
    /// Sets what happens to bytes that the writer does not take.
    constexpr SerialEffects set_transmit_policy(TransmitPolicy policy) noexcept {
        SerialEffects effects;
        state_.transmit_policy = policy;
        if (policy == TransmitPolicy::drop_and_count) {
            effects.bytes_lost = waiting_lost();
        }
        return effects;
    }
    /// Sets when received bytes below the trigger level interrupt.
    constexpr SerialEffects set_receive_timeout(ReceiveTimeout policy) noexcept {
        state_.receive_timeout = policy;
        update_derived_values();
        return {};
    }
    /// Sets whether OUT2 gates the interrupt.
    constexpr SerialEffects set_interrupt_gate(InterruptGate gate) noexcept {
        state_.interrupt_gate = gate;
        return {};
    }
    /// Sets whether the device is a TL16C750.
    constexpr SerialEffects allow_64_byte_fifo(bool allow) noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        state_.fifo_64_allowed = allow;
        if (!allow) {
            state_.fifo_control = fifo_control().clear(uart16550::FifoControl::fifo_64).value();
            state_.modem_control = modem_control().clear(uart16550::ModemControl::auto_flow_control).value();
            update_derived_values();
        }
        note_changes(before, effects);
        return effects;
    }
    /// A hardware reset. The host's settings stay.
    constexpr SerialEffects reset() noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        const std::uint16_t divisor_before = divisor();
        const std::uint8_t line_control_before = state_.line_control;
        effects.receive_emptied = !receive_empty();
        SerialState fresh;
        fresh.modem_inputs = state_.modem_inputs;
        fresh.fifo_64_allowed = state_.fifo_64_allowed;
        fresh.transmit_policy = state_.transmit_policy;
        fresh.receive_timeout = state_.receive_timeout;
        fresh.interrupt_gate = state_.interrupt_gate;
        restore(fresh);
        note_changes(before, effects);
        effects.divisor = divisor();
        effects.divisor_changed = effects.divisor != divisor_before;
        effects.line_control = line_control();
        effects.line_control_changes = changes(line_control_before, state_.line_control);
        return effects;
    }
    /// The state must be valid.
    constexpr void restore(const SerialState& state) noexcept {
        state_ = state;
        receive_.restore(state_);
        transmit_.restore();
        update_derived_values();
    }

private:
    // The sources of interrupts, each as its enable bit in IER.
    static constexpr std::uint8_t received_data_source = uart16550::InterruptEnable::received_data.mask;
    static constexpr std::uint8_t thr_empty_source = uart16550::InterruptEnable::thr_empty.mask;
    static constexpr std::uint8_t line_status_source = uart16550::InterruptEnable::line_status.mask;
    static constexpr std::uint8_t modem_status_source = uart16550::InterruptEnable::modem_status.mask;

    // The enabled sources that are pending.
    [[nodiscard, gnu::always_inline]] constexpr std::uint8_t pending_sources() const noexcept {
        unsigned pending = state_.thr_empty_pending ? thr_empty_source : 0U;
        if (state_.receive_count >= receive_interrupt_level_ || state_.character_timeout) {
            pending |= received_data_source;
        }
        // One test for both, because they are rare.
        if ((state_.line_errors | state_.modem_deltas) != 0) [[unlikely]] {
            pending |= state_.line_errors != 0 ? line_status_source : 0U;
            pending |= state_.modem_deltas != 0 ? modem_status_source : 0U;
        }
        return static_cast<std::uint8_t>(pending & state_.interrupt_enable);
    }

    // PC16550D table IV.
    [[nodiscard]] constexpr uart16550::InterruptId highest_interrupt() const noexcept {
        using uart16550::InterruptId;
        const std::uint8_t pending = pending_sources();
        if (pending == 0) [[likely]] {
            return InterruptId::none;
        }
        if ((pending & line_status_source) != 0) {
            return InterruptId::line_status;
        }
        if ((pending & received_data_source) != 0) {
            return state_.receive_count >= receive_trigger_ ? InterruptId::received_data
                                                            : InterruptId::character_timeout;
        }
        return (pending & thr_empty_source) != 0 ? InterruptId::thr_empty : InterruptId::modem_status;
    }
    [[nodiscard]] constexpr uart16550::InterruptIdentification interrupt_identification(
        uart16550::InterruptId id) const noexcept {
        return uart16550::InterruptIdentification(
            static_cast<std::uint8_t>(identification_fifo_bits_ | static_cast<unsigned>(id)));
    }

    // MSR bits 7:4. In loopback the four outputs are connected to the inputs (PC16550D 8.7, bit 4).
    [[nodiscard]] constexpr std::uint8_t modem_lines() const noexcept {
        using uart16550::ModemControl;
        using uart16550::ModemStatus;
        if (!looped()) {
            return state_.modem_inputs;
        }
        const auto wire = [control = modem_control()](auto output, auto input) -> unsigned {
            return control[output] ? input.mask : 0U;
        };
        return static_cast<std::uint8_t>(
            wire(ModemControl::request_to_send, ModemStatus::clear_to_send) |
            wire(ModemControl::data_terminal_ready, ModemStatus::data_set_ready) |
            wire(ModemControl::out1, ModemStatus::ring_indicator) |
            wire(ModemControl::out2, ModemStatus::data_carrier_detect));
    }
    // Without FIFOs there is only the holding register.
    [[nodiscard]] constexpr std::size_t transmit_depth() const noexcept {
        return !fifo_enabled() ? 1 : fifo_control()[uart16550::FifoControl::fifo_64] ? 64 : 16;
    }

    // The values that follow from MCR and the modem inputs, to report the changes by an access.
    struct Wiring {
        uart16550::ModemControl outputs;
        bool looped;
        bool stopped;
    };
    [[nodiscard, gnu::always_inline]] constexpr Wiring wiring() const noexcept {
        return {.outputs = modem_outputs(), .looped = looped(), .stopped = transmitter_stopped()};
    }
    [[gnu::always_inline]] constexpr void note_changes(const Wiring& before,
                                                       SerialEffects& effects) noexcept {
        update_auto_rts();
        const Wiring after = wiring();
        effects.outputs = after.outputs;
        effects.output_changes = changes(before.outputs.value(), after.outputs.value());
        effects.input_resumed = before.looped && !after.looped;
        effects.transmitter_resumed = before.stopped && !after.stopped;
    }
    [[nodiscard]] static constexpr std::uint8_t changes(std::uint8_t before, std::uint8_t after) noexcept {
        return static_cast<std::uint8_t>(unsigned{before} ^ after);
    }
    // Called after bytes arrived or were read: automatic flow control may change RTS. It is inlined so that
    // the effects can stay in registers.
    [[gnu::always_inline]] constexpr void note_received(SerialEffects& effects) noexcept {
        if (auto_flow_control()) [[unlikely]] {
            const std::uint8_t before = modem_outputs().value();
            update_auto_rts();
            effects.outputs = modem_outputs();
            effects.output_changes = changes(before, effects.outputs.value());
        }
    }

    // --- The TL16C750's automatic flow control (its datasheet, "Autoflow control").

    [[nodiscard]] constexpr bool auto_flow_control() const noexcept {
        return modem_control()[uart16550::ModemControl::auto_flow_control];
    }
    // Auto-RTS: off from the trigger level on until the FIFO is empty.
    constexpr void update_auto_rts() noexcept {
        const bool automatic =
            auto_flow_control() && modem_control()[uart16550::ModemControl::request_to_send];
        state_.auto_rts_held = automatic && (state_.receive_count >= receive_trigger_ ||
                                             (state_.auto_rts_held && !receive_empty()));
    }

    // --- Effects of writes on the registers

    template <class R>
    static constexpr void guest_write(std::uint8_t& value, std::uint8_t written) noexcept {
        R reg(value);
        reg.guest_write(written);
        value = reg.value();
    }

    [[gnu::always_inline]] constexpr void set_fifo_control(std::uint8_t value,
                                                           SerialEffects& effects) noexcept {
        using uart16550::FifoControl;
        const FifoControl written(value);
        const bool enable = written[FifoControl::enable];
        const bool toggled = enable != fifo_enabled();
        const bool fifo_64 = divisor_latch_access() ? state_.fifo_64_allowed && written[FifoControl::fifo_64]
                                                    : fifo_control()[FifoControl::fifo_64];
        // The other bits are programmed only together with bit 0 (PC16550D 8.4).
        FifoControl control;
        if (enable) {
            control.guest_write(value);
            control.set(FifoControl::fifo_64, fifo_64);
        }
        state_.fifo_control = control.value();
        update_derived_values();
        // Enabling or disabling the FIFOs clears both.
        if (toggled || (enable && written[FifoControl::transmitter_reset])) {
            effects.fifo_reset = true;
            effects.bytes_dropped += state_.transmit_count;
            if (!transmit_empty()) {
                transmit_.clear(state_);
                state_.thr_empty_pending = true;
            }
        }
        if (toggled || (enable && written[FifoControl::receiver_reset])) {
            effects.fifo_reset = true;
            effects.bytes_dropped += state_.receive_count;
            receive_.clear(state_);
            state_.character_timeout = false;
            // These errors belong to a byte that was dropped; an overrun has still to be read.
            state_.line_errors &= uart16550::LineStatus::overrun_error.mask;
        }
    }

    constexpr void set_modem_control(std::uint8_t value) noexcept {
        using uart16550::ModemControl;
        const std::uint8_t lines_before = modem_lines();
        const bool automatic = state_.fifo_64_allowed && ModemControl(value)[ModemControl::auto_flow_control];
        ModemControl control = modem_control();
        control.guest_write(value);
        control.set(ModemControl::auto_flow_control, automatic);
        state_.modem_control = control.value();
        note_modem_change(lines_before);
    }
    // Sets the deltas: any change of CTS, DSR and DCD, and only the end of a ring. With automatic flow
    // control the transmitter handles CTS (TL16C750, MSR bit 0).
    constexpr void note_modem_change(std::uint8_t before) noexcept {
        using uart16550::ModemStatus;
        const std::uint8_t after = modem_lines();
        const unsigned changed = (unsigned{before} ^ after) & ~unsigned{ModemStatus::ring_indicator.mask};
        const unsigned ring_ended = unsigned{before} & ~unsigned{after} & ModemStatus::ring_indicator.mask;
        const unsigned hidden = auto_flow_control() && !looped() ? ModemStatus::clear_to_send.mask : 0U;
        state_.modem_deltas |=
            static_cast<std::uint8_t>(((changed & ~hidden) | ring_ended) >> ModemStatus::lines.shift);
    }
    // Called after FCR, the timeout's policy or the whole state changed.
    constexpr void update_derived_values() noexcept {
        const unsigned fifo_64 = fifo_control()[uart16550::FifoControl::fifo_64] ? 0x20U : 0U;
        identification_fifo_bits_ = static_cast<std::uint8_t>((fifo_enabled() ? 0xC0U : 0U) | fifo_64);
        receive_trigger_ = detail::receive_trigger_level(fifo_control());
        // With the FIFOs on, "data available" stays set until the level falls below the trigger. Otherwise
        // each read clears it, and the next byte sets it again.
        receive_hold_level_ =
            fifo_enabled() ? receive_trigger_ : static_cast<std::uint8_t>(receive_fifo_size + 1);
        // With the immediate timeout every byte interrupts, as "data available" or as the timeout.
        receive_interrupt_level_ =
            state_.receive_timeout == ReceiveTimeout::immediate ? std::uint8_t{1} : receive_trigger_;
    }

    SerialState state_;
    // Derived from the state; `restore` recomputes them.
    detail::SerialReceiveFifo receive_;
    detail::SerialTransmitFifo transmit_;
    std::uint8_t receive_trigger_{1};          // bytes for "data available"; follows from FCR
    std::uint8_t receive_interrupt_level_{1};  // bytes for any receive interrupt before the timeout
    // Bytes with which a read leaves "data available" set.
    std::uint8_t receive_hold_level_{receive_fifo_size + 1};
    std::uint8_t identification_fifo_bits_{0};  // IIR bits 7:5
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/serial.hpp

namespace vmsuperio::inline v0_2 {

/// A 16550A UART (PC16550D datasheet) whose receive FIFO holds 64 bytes.
///
/// Models: every register with its masks, reset values and DLAB aliasing; both FIFOs, their resets and the
/// trigger levels; the five interrupts by priority; line errors per byte, break and overrun; modem lines
/// with deltas; loopback of data and modem lines; the character timeout, at once or driven by the caller; on
/// request a TL16C750 with its 64-byte mode and automatic flow control (MCR bit 5).
///
/// Not modelled: the time that sending a byte takes (it is sent as soon as the writer takes it), DMA mode,
/// words of 5 to 7 bits (all eight bits pass), parity generation. LCR and the divisor only determine the
/// length of the timeout.
///
/// Deviations: the receive FIFO holds 64 bytes in every mode, so that host input is not lost before the
/// guest enables the FIFOs; with FIFOs on, loopback holds as many bytes as the chip does. MCR and LCR reset
/// to 0x08 and 0x03, the divisor to 12, the modem lines are on: a guest that sets up nothing can use the
/// port.
///
/// The interrupt is wired as on a PC: MCR.OUT2 gates the line (not IIR). It does so in loopback as well,
/// where the chip itself would deassert the pin OUT2 (a deviation, because drivers test their interrupts in
/// loopback). Guests that were developed on QEMU, which has no such gate, may never set OUT2: see
/// `set_interrupt_gate`.
///
/// Thread safety: none. One thread at a time, or wrap it (`vmdevice::Locked`).
///
/// No function blocks, throws or allocates, provided that the trigger, the events and the writer do not.
template <Trigger T, SerialEvents E = NoEvents, Writer W = NullWriter>
class Serial : public DeviceShell<SerialCore, E, T> {
    using Shell = DeviceShell<SerialCore, E, T>;
    static_assert(detail::check_optional_serial_events<E>());

public:
    /// The error of this UART's functions.
    using Error = SerialError<typename T::error_type>;
    using trigger_type = T;
    using events_type = E;
    using writer_type = W;

    /// The device answers at offsets 0 to 7.
    static constexpr std::size_t register_count = uart16550::offset::count;
    /// How many received bytes the device holds.
    static constexpr std::size_t receive_fifo_size = SerialCore::receive_fifo_size;
    /// The oscillator of a PC's UART, in Hz: the divisor 1 means 115200 baud.
    static constexpr std::uint64_t clock_frequency = SerialCore::clock_frequency;

    /// A UART that has just been reset.
    constexpr Serial(T trigger, E given_events, W writer)
        : Serial(SerialCore(), std::move(trigger), std::move(given_events), std::move(writer)) {}
    /// A UART that has just been reset, without events.
    constexpr Serial(T trigger, W writer) : Serial(std::move(trigger), E{}, std::move(writer)) {}

    /// Restores a saved device. If an interrupt is pending, the trigger is called, so that an edge that had
    /// not been delivered when the state was saved is not lost. Bytes that waited for the writer still wait:
    /// call `resume_transmit()`. Errors: `invalid_state`, which names the field as `validate` does. A failure
    /// of the trigger is only counted in `host_errors()`, as in every device: the state is valid, and a VMM
    /// that lost its port because of one failed notification could not resume the guest.
    [[nodiscard]] static constexpr std::expected<Serial, Error> from_state(const SerialState& state,
                                                                           T trigger, E events, W writer) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(Error::from_state_error(valid.error()));
        }
        std::expected<Serial, Error> serial(
            Serial(SerialCore(state), std::move(trigger), std::move(events), std::move(writer)));
        static_cast<void>(serial->update_interrupt());
        return serial;
    }

    // --- The guest

    /// The guest reads the register at `offset`. Offsets above 7 return 0.
    constexpr std::uint8_t read(std::uint8_t offset) {
        using namespace uart16550;
        switch (offset) {
            case offset::receiver_buffer:
                return core().divisor_latch_access() ? core().divisor_low().value() : read_receiver_buffer();
            case offset::interrupt_identification:
                return read_interrupt_identification();
            case offset::line_status:
                return core().has_line_errors() ? read_line_errors() : core().line_status().value();
            case offset::modem_status:
                return core().has_modem_deltas() ? read_modem_deltas() : core().modem_status().value();
            default:
                return offset < offset::count ? peek(offset) : read_nothing();
        }
    }

    /// The guest writes the register at `offset`. Offsets above 7 have no effect. An error concerns only the
    /// host's side; the guest's access has taken effect nevertheless. Errors: `write`; `trigger`.
    constexpr std::expected<void, Error> write(std::uint8_t offset, std::uint8_t value) {
        if (offset == uart16550::offset::transmitter_holding && !core().divisor_latch_access()) [[likely]] {
            return transmit_byte(value);
        }
        return write_register(offset, value);
    }

    /// Has the effect of writing each byte to offset 0, with as few calls of the writer and the trigger as
    /// possible, for REP OUTSB and coalesced port I/O. Bytes that neither the writer nor the transmit FIFO
    /// takes are lost and counted, as with any guest that does not check LSR. Errors: as `write`.
    constexpr std::expected<void, Error> write_data(std::span<const std::uint8_t> bytes) {
        if (bytes.empty()) {
            return {};
        }
        if (core().divisor_latch_access()) {
            for (const std::uint8_t byte : bytes) {
                [[maybe_unused]] const auto written =
                    write_register(uart16550::offset::divisor_latch_low, byte);
            }
            return {};
        }
        return core().looped() ? loop_back(bytes) : transmit(bytes);
    }

    // --- The host

    /// Offers input to the guest, and returns how many bytes fitted. The result is 0 for empty input, and in
    /// loopback, in which the line is disconnected. Errors: `full_fifo`; `trigger`, in which case as many
    /// bytes have been taken as `receive_fifo_room()` was before the call, or all if fewer were offered.
    [[nodiscard]] constexpr std::expected<std::size_t, Error> enqueue_raw_bytes(
        std::span<const std::uint8_t> bytes) {
        if (bytes.empty() || core().looped()) {
            return 0;
        }
        SerialEffects effects;
        const std::size_t count = core().receive(bytes, effects);
        if (count == 0) {
            return std::unexpected(Error(SerialErrorKind::full_fifo));
        }
        if (auto applied = apply(effects); !applied) {
            return std::unexpected(std::move(applied.error()));
        }
        return count;
    }
    /// The free room of the receive FIFO, in bytes: 0 (full) to 64 (empty), in every mode. In loopback,
    /// `enqueue_raw_bytes` takes nothing although there may be room.
    [[nodiscard]] constexpr std::size_t receive_fifo_room() const noexcept { return core().receive_room(); }
    /// The same as `receive_fifo_room()`, under the name that vm-superio uses. It is not the FIFO's size.
    [[nodiscard]] constexpr std::size_t fifo_capacity() const noexcept { return receive_fifo_room(); }

    /// Offers the waiting bytes to the writer again. Errors: `write`, `trigger`.
    [[nodiscard]] constexpr std::expected<void, Error> resume_transmit() {
        return transmit_pending() ? finish({.transmitter_resumed = true}) : std::expected<void, Error>{};
    }
    /// Whether bytes wait for the writer, so that `resume_transmit()` has something to do.
    [[nodiscard]] constexpr bool transmit_pending() const noexcept { return !core().transmit_empty(); }
    /// How many bytes the guest may send before one is lost, if the writer takes nothing.
    [[nodiscard]] constexpr std::size_t transmit_capacity() const noexcept { return core().transmit_room(); }

    /// The host sends a break: a 0x00 byte with LSR.BI. In loopback nothing arrives.
    /// Errors: `full_fifo`; `trigger`.
    [[nodiscard]] constexpr std::expected<void, Error> send_break() {
        return receive_with_errors(0x00, uart16550::LineStatus(uart16550::LineStatus::break_interrupt.mask));
    }
    /// A byte arrives with any of PE, FE and BI, for tests and fault injection. Errors as `send_break`.
    [[nodiscard]] constexpr std::expected<void, Error> receive_with_errors(std::uint8_t byte,
                                                                           uart16550::LineStatus errors) {
        if (core().looped()) {
            return {};
        }
        if (receive_fifo_room() == 0) {
            return std::unexpected(Error(SerialErrorKind::full_fifo));
        }
        return finish(core().receive_with_errors(byte, errors));
    }

    /// Reports that the line was idle for four character times (PC16550D, "FIFO interrupt mode operation"):
    /// if the FIFOs are on and bytes wait, the character timeout interrupt becomes pending. For
    /// `ReceiveTimeout::manual`; with the other policy this has no effect. Errors: `trigger`.
    constexpr std::expected<void, Error> character_timeout() { return finish(core().character_timeout()); }
    /// Whether `character_timeout()` would have an effect.
    [[nodiscard]] constexpr bool character_timeout_armed() const noexcept {
        return core().character_timeout_armed();
    }
    /// Four character times, computed from LCR and the divisor. The divisor 0, which has no meaning, counts
    /// as 1.
    [[nodiscard]] constexpr std::chrono::nanoseconds character_timeout_length() const noexcept {
        return core().character_timeout_length();
    }
    /// Changes whenever a byte arrives or is read, either of which starts the timeout again.
    [[nodiscard]] constexpr std::uint32_t receive_activity() const noexcept {
        return core().receive_activity();
    }

    /// Sets the levels of CTS, DSR, RI and DCD, as bits 7:4 of MSR; other bits are ignored. In loopback the
    /// guest sees its own outputs instead. If the guest has enabled automatic flow control, deasserting CTS
    /// stops the transmitter, and asserting it sends the waiting bytes. Errors: `trigger`; `write`.
    constexpr std::expected<void, Error> set_modem_lines(uart16550::ModemStatus lines) {
        return finish(core().set_modem_inputs(lines));
    }
    /// Sets the modem input CTS (MSR bit 4). Returns the trigger's error.
    constexpr std::expected<void, Error> set_clear_to_send(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::clear_to_send, on));
    }
    /// Sets the modem input DSR (MSR bit 5). Returns the trigger's error.
    constexpr std::expected<void, Error> set_data_set_ready(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::data_set_ready, on));
    }
    /// Sets the modem input RI (MSR bit 6). Returns the trigger's error.
    constexpr std::expected<void, Error> set_ring_indicator(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::ring_indicator, on));
    }
    /// Sets the modem input DCD (MSR bit 7). Returns the trigger's error.
    constexpr std::expected<void, Error> set_data_carrier_detect(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::data_carrier_detect, on));
    }
    /// DTR, RTS, OUT1 and OUT2 as driven on the pins: in loopback all are off, and automatic flow control
    /// (TL16C750) deasserts RTS from the time at which the receive FIFO reaches its trigger level until it is
    /// empty.
    [[nodiscard]] constexpr uart16550::ModemControl modem_outputs() const noexcept {
        return core().modem_outputs();
    }
    /// The baud rate is 115200 divided by the divisor.
    [[nodiscard]] constexpr std::uint16_t divisor() const noexcept { return core().divisor(); }

    /// Sets the policy. Waiting bytes are dropped and counted if the new policy does not let them wait.
    /// Errors, here and below: `trigger`.
    constexpr std::expected<void, Error> set_transmit_policy(TransmitPolicy policy) {
        return finish(core().set_transmit_policy(policy));
    }
    /// What happens to bytes that the writer does not take.
    [[nodiscard]] constexpr TransmitPolicy transmit_policy() const noexcept {
        return core().transmit_policy();
    }
    /// Sets when received bytes below the trigger level interrupt. Returns the trigger's error.
    constexpr std::expected<void, Error> set_receive_timeout(ReceiveTimeout policy) {
        return finish(core().set_receive_timeout(policy));
    }
    /// When received bytes below the trigger level interrupt.
    [[nodiscard]] constexpr ReceiveTimeout receive_timeout() const noexcept {
        return core().receive_timeout();
    }
    /// Selects whether the device is a TL16C750, on which the guest may enable the 64-byte mode (FCR bit 5
    /// while DLAB=1) and automatic flow control (MCR bit 5). By default it is a plain 16550A, whose MCR bits
    /// 7:5 read 0; disallowing the TL16C750 disables both. Errors also: `write`, for bytes that flow control
    /// held back.
    constexpr std::expected<void, Error> allow_64_byte_fifo(bool allow) {
        return finish(core().allow_64_byte_fifo(allow));
    }
    /// Whether the device is a TL16C750: 64-byte mode and automatic flow control.
    [[nodiscard]] constexpr bool is_64_byte_fifo_allowed() const noexcept { return core().fifo_64_allowed(); }
    /// Selects whether MCR.OUT2 gates the interrupt, as on a PC (the default), or nothing does.
    constexpr std::expected<void, Error> set_interrupt_gate(InterruptGate gate) {
        return finish(core().set_interrupt_gate(gate));
    }
    /// Whether OUT2 gates the interrupt.
    [[nodiscard]] constexpr InterruptGate interrupt_gate() const noexcept { return core().interrupt_gate(); }

    /// A hardware reset. The host's settings stay: policies and modem lines. Bytes in the FIFOs are dropped.
    constexpr std::expected<void, Error> reset() { return finish(core().reset()); }

    // --- Observation

    using Shell::events;       // the events that were passed to the constructor
    using Shell::host_errors;  // how often trigger and writer failed
    using Shell::state;        // the complete state, between any two calls

    /// The value that the guest would read at `offset`, without a side effect: for debuggers and tests.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const { return core().peek(offset); }
    /// The device as text for people: a line for each register as the guest sees it, whatever DLAB is, then
    /// a line for each member of the state; see `inspect.hpp`.
    [[nodiscard]] std::string inspect() const {
        std::string text;
        const auto line = [&text](auto reg) { text.append(vmsuperio::inspect(reg)).append("\n"); };
        line(core().receiver_buffer());
        line(core().interrupt_enable());
        line(core().interrupt_identification());
        line(core().fifo_control());
        line(core().line_control());
        line(core().modem_control());
        line(core().line_status());
        line(core().modem_status());
        line(core().scratch());
        line(core().divisor_low());
        line(core().divisor_high());
        return text.append(Shell::inspect());
    }
    /// Whether the interrupt line is high.
    [[nodiscard]] constexpr bool interrupt_line() const noexcept { return Shell::line().level(); }

    [[nodiscard]] constexpr const W& writer() const noexcept { return writer_; }
    [[nodiscard]] constexpr W& writer() noexcept { return writer_; }
    /// The writer, out of a device that is no longer used.
    [[nodiscard]] constexpr W into_writer() && { return std::move(writer_); }
    [[nodiscard]] constexpr const T& interrupt_evt() const noexcept { return Shell::line().trigger(); }
    [[nodiscard]] constexpr T& interrupt_evt() noexcept { return Shell::line().trigger(); }

private:
    using Shell::core;
    using Output = std::expected<void, std::error_code>;  // of the writer

    constexpr Serial(const SerialCore& restored, T trigger, E given_events, W writer)
        : Shell(restored, std::move(given_events), std::move(trigger)), writer_(std::move(writer)) {}

    // --- After each change of the core: output, then events, then the interrupt line

    [[gnu::always_inline]] constexpr std::expected<void, Error> finish(SerialEffects effects) {
        Output output;
        if (effects.transmitter_resumed) [[unlikely]] {
            output = send_waiting().note(effects);
        }
        return finish(effects, output);
    }
    // The writer's error has priority over the trigger's.
    [[gnu::always_inline]] constexpr std::expected<void, Error> finish(const SerialEffects& effects,
                                                                       const Output& output) {
        if (!output) [[unlikely]] {
            Shell::host_failed(HostErrorSource::output);
            [[maybe_unused]] const auto applied = apply(effects);
            return std::unexpected(Error::from_writer(output.error()));
        }
        return apply(effects);
    }
    [[gnu::always_inline]] constexpr std::expected<void, Error> apply(const SerialEffects& effects) {
        effects.report(events());
        return update_interrupt(effects.rearmed);
    }
    // A read cannot return an error.
    [[gnu::always_inline]] constexpr void apply_in_read(const SerialEffects& effects) {
        if (!apply(effects)) [[unlikely]] {
            calls().trigger_failed();
        }
    }
    // Sets the interrupt line to the level that follows from the core, at the end of an access in which the
    // sources `rearmed` were cleared at some moment. If no other source is pending and the line is high, an
    // edge trigger must see a new edge. The chip's line falls and rises then; a level trigger need not see
    // that, because nothing happens in between. The first test is a fast path for guests that poll, which
    // leave IER at zero.
    [[gnu::always_inline]] constexpr std::expected<void, Error> update_interrupt(std::uint8_t rearmed = 0) {
        if (!interrupt_line() && !core().interrupts_enabled()) [[likely]] {
            return {};
        }
        const unsigned sources = core().interrupt_sources();
        if (sources == 0) {
            return interrupt_line() ? drive_line<false>() : std::expected<void, Error>{};
        }
        if (interrupt_line() && (sources & ~unsigned{rearmed}) != 0) {
            return {};
        }
        return drive_line<true>();
    }
    // The rest of update_interrupt(), out of line to keep the common path short.
    template <bool Level>
    [[gnu::noinline]] constexpr std::expected<void, Error> drive_line() {
        if constexpr (Level) {
            calls().interrupt_raised();
        }
        auto driven =
            Shell::checked(HostErrorSource::interrupt, Shell::line().update(Level, LinePulse::again));
        if (!driven) [[unlikely]] {
            return std::unexpected(Error::from_trigger(std::move(driven.error())));
        }
        return {};
    }
    [[nodiscard]] constexpr detail::SerialEventCaller<E> calls() noexcept { return {events()}; }

    // --- Reads and writes outside the common path

    // Out of line, like the following functions, because each is a rare case of `read`.
    [[gnu::noinline]] constexpr std::uint8_t read_receiver_buffer() {
        if (core().receive_empty()) [[unlikely]] {
            return 0;
        }
        const std::uint8_t byte = core().read_receiver_buffer();
        if (core().only_byte_read()) [[likely]] {
            events().buffer_read();
        } else {
            note_byte_read();
        }
        return byte;
    }
    [[gnu::noinline]] constexpr void note_byte_read() { apply_in_read(core().note_byte_read()); }
    [[gnu::noinline]] constexpr std::uint8_t read_interrupt_identification() {
        const auto [id, acknowledged] = core().read_interrupt_identification();
        if (acknowledged) {
            update_interrupt_in_read();
        }
        return id.value();
    }
    [[gnu::noinline]] constexpr void update_interrupt_in_read() { apply_in_read({}); }
    [[gnu::noinline]] constexpr std::uint8_t read_line_errors() {
        const std::uint8_t status = core().read_line_status().value();
        update_interrupt_in_read();
        return status;
    }
    [[gnu::noinline]] constexpr std::uint8_t read_modem_deltas() {
        const std::uint8_t status = core().read_modem_status().value();
        update_interrupt_in_read();
        return status;
    }
    [[gnu::noinline]] constexpr std::uint8_t read_nothing() {
        apply_in_read({.invalid_access = true});
        return 0;
    }
    // Out of line, because nearly all writes are bytes to send.
    [[gnu::noinline]] constexpr std::expected<void, Error> write_register(std::uint8_t offset,
                                                                          std::uint8_t value) {
        using namespace uart16550;
        if (offset == offset::interrupt_enable && !core().divisor_latch_access()) {
            core().write_interrupt_enable(value);  // affects only the line
            return update_interrupt();
        }
        if (offset == offset::fifo_control) {
            return write_fifo_control(value);
        }
        if (offset == offset::modem_control) {
            return write_modem_control(value);
        }
        core().write_other_register(offset, value).report(events());
        return {};
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> write_modem_control(std::uint8_t value) {
        return finish(core().write_modem_control(value));
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> write_fifo_control(std::uint8_t value) {
        if constexpr (detail::SerialEventCaller<E>::wants_dropped_characters) {
            // The event gets the characters that a FIFO reset discards, so they are copied before it.
            const ReceivedCharacters received = core().received();
            const SerialEffects effects = core().write_fifo_control(value);
            if (effects.receive_emptied) {
                events().characters_dropped(received);
            }
            return apply(effects);
        } else {
            return apply(core().write_fifo_control(value));
        }
    }

    // --- Transmission

    [[gnu::always_inline]] constexpr std::expected<void, Error> transmit_byte(std::uint8_t value) {
        if (core().transmits_specially() || !core().transmit_empty()) [[unlikely]] {
            return core().looped() ? loop_back({&value, 1}) : transmit({&value, 1});
        }
        const WriteResult taken = writer_.write(std::span<const std::uint8_t>(&value, 1));
        if (taken.has_value() && *taken != 0) [[likely]] {
            return apply(core().byte_sent());
        }
        return keep_or_lose({&value, 1}, taken);
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> loop_back(std::span<const std::uint8_t> bytes) {
        return finish(core().loop_back(bytes));
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> transmit(std::span<const std::uint8_t> bytes) {
        SerialEffects effects;
        if (const Output output = send_waiting().note(effects); !output) {
            core().bytes_lost(bytes.size(), effects);
            return finish(effects, output);
        }
        WriteResult taken{0};
        while (core().transmit_empty() && !bytes.empty() && !core().transmitter_stopped()) {
            taken = writer_.write(bytes);
            if (!taken || *taken == 0) {
                break;
            }
            const std::size_t count = detail::smaller(*taken, bytes.size());
            effects.bytes_sent += count;
            bytes = bytes.subspan(count);
        }
        return keep_or_lose(bytes, taken, effects);
    }
    // Called when the writer takes no more of `bytes`.
    [[gnu::noinline]] constexpr std::expected<void, Error> keep_or_lose(std::span<const std::uint8_t> bytes,
                                                                        const WriteResult& taken,
                                                                        SerialEffects effects = {}) {
        core().keep_or_lose(bytes, taken.has_value(), effects);
        return finish(effects, taken ? Output{} : std::unexpected(taken.error()));
    }
    // The result of offering the waiting bytes. It is a separate type so that the `SerialEffects` of the
    // callers can stay in registers.
    struct Offered {
        Output output;
        std::size_t sent{0};
        std::size_t lost{0};

        constexpr Output note(SerialEffects& effects) const {
            effects.bytes_sent += sent;
            effects.bytes_lost += lost;
            return output;
        }
    };
    // Offers the waiting bytes until none is left or the writer is full.
    [[gnu::noinline]] constexpr Offered send_waiting() {
        Offered offered;
        while (!core().transmit_empty() && !core().transmitter_stopped()) {
            const std::span<const std::uint8_t> waiting = core().waiting();
            const WriteResult taken = writer_.write(waiting);
            if (!taken) {
                offered.lost = core().waiting_lost();
                offered.output = std::unexpected(taken.error());
                break;
            }
            if (*taken == 0) {
                break;
            }
            const std::size_t count = detail::smaller(*taken, waiting.size());
            core().waiting_sent(count);
            offered.sent += count;
        }
        return offered;
    }

    [[no_unique_address]] W writer_;
};

template <Trigger T, Writer W>
Serial(T, W) -> Serial<T, NoEvents, W>;
template <Trigger T, SerialEvents E, Writer W>
Serial(T, E, W) -> Serial<T, E, W>;

}  // namespace vmsuperio::inline v0_2

// vmsuperio/serial_metrics.hpp

namespace vmsuperio::inline v0_2 {

/// The counts of a `SerialMetrics` at one moment. Each number is correct, but an access in progress may be
/// included in some of them and not in others.
struct SerialCounts {
    std::uint64_t bytes_read{};        ///< received bytes that the guest read
    std::uint64_t bytes_written{};     ///< bytes that reached the writer
    std::uint64_t bytes_lost{};        ///< sent bytes that did not reach the writer
    std::uint64_t input_emptied{};     ///< times the receive FIFO was drained
    std::uint64_t overruns{};          ///< bytes lost because the receive FIFO was full
    std::uint64_t breaks{};            ///< breaks received
    std::uint64_t bytes_dropped{};     ///< bytes that the guest discarded by resetting a FIFO
    std::uint64_t fifo_resets{};       ///< resets of one or both FIFOs
    std::uint64_t invalid_accesses{};  ///< accesses to offsets above 7
    std::uint64_t interrupts{};        ///< rises of the interrupt line
    std::uint64_t trigger_failures{};  ///< failures of the trigger that were not returned to a caller

    friend constexpr bool operator==(const SerialCounts&, const SerialCounts&) = default;
};

/// Counts all events of one or more serial devices. Pass an `EventsRef<SerialMetrics>` to each device; the
/// counts may be read from any thread at any time.
class SerialMetrics {
public:
    SerialMetrics() = default;
    SerialMetrics(const SerialMetrics&) = delete;
    SerialMetrics& operator=(const SerialMetrics&) = delete;

    void buffer_read() noexcept { add(bytes_read_); }
    void out_byte() noexcept { add(bytes_written_); }
    void tx_lost_byte() noexcept { add(bytes_lost_); }
    void in_buffer_empty() noexcept { add(input_emptied_); }
    void overrun() noexcept { add(overruns_); }
    void break_received() noexcept { add(breaks_); }
    void dropped_bytes(std::size_t count) noexcept { add(bytes_dropped_, count); }
    void fifo_reset() noexcept { add(fifo_resets_); }
    void invalid_access() noexcept { add(invalid_accesses_); }
    void interrupt_raised() noexcept { add(interrupts_); }
    void trigger_failed() noexcept { add(trigger_failures_); }

    /// All counts at this moment; each is exact, but they are not of one instant.
    [[nodiscard]] SerialCounts counts() const noexcept {
        return {.bytes_read = get(bytes_read_),
                .bytes_written = get(bytes_written_),
                .bytes_lost = get(bytes_lost_),
                .input_emptied = get(input_emptied_),
                .overruns = get(overruns_),
                .breaks = get(breaks_),
                .bytes_dropped = get(bytes_dropped_),
                .fifo_resets = get(fifo_resets_),
                .invalid_accesses = get(invalid_accesses_),
                .interrupts = get(interrupts_),
                .trigger_failures = get(trigger_failures_)};
    }

private:
    // Replaces std::atomic<std::uint64_t>, which consists of these two operations of GCC and Clang but needs
    // a header that costs as much to compile as all devices.
    struct alignas(8) Counter {
        std::uint64_t value;
    };

    // Relaxed, because a count does not order other accesses.
    static void add(Counter& counter, std::uint64_t by = 1) noexcept {
        __atomic_fetch_add(&counter.value, by, __ATOMIC_RELAXED);
    }
    static std::uint64_t get(const Counter& counter) noexcept {
        return __atomic_load_n(&counter.value, __ATOMIC_RELAXED);
    }

    Counter bytes_read_{0};
    Counter bytes_written_{0};
    Counter bytes_lost_{0};
    Counter input_emptied_{0};
    Counter overruns_{0};
    Counter breaks_{0};
    Counter bytes_dropped_{0};
    Counter fifo_resets_{0};
    Counter invalid_accesses_{0};
    Counter interrupts_{0};
    Counter trigger_failures_{0};
};
static_assert(SerialEvents<SerialMetrics> && SerialEvents<EventsRef<SerialMetrics>>);

}  // namespace vmsuperio::inline v0_2

// vmsuperio/serial_timeout.hpp

namespace vmsuperio::inline v0_2 {

/// Drives the character timeout of one `Serial` by a clock, for a VMM that has timers. It starts no timer and
/// no thread, and has no state that must be saved: after a restore the time starts again. If the clock goes
/// backwards, the timeout occurs at once instead of delaying the guest's input.
///
/// Call `next_deadline` after every operation that may add or remove received bytes (input, guest accesses)
/// and after every `tick`, and call `tick` at that time. `TimedSerial` combines the port and its timeout in
/// one object.
template <Clock C = SteadyClock>
class SerialTimeout {
public:
    constexpr SerialTimeout()
        requires std::default_initializable<C>
        : SerialTimeout(C{}) {}
    /// A timeout that is not running.
    explicit constexpr SerialTimeout(C clock) : clock_(std::move(clock)) {}

    /// The time on the clock at which the timeout will occur, or nothing if no byte waits for it or if that
    /// time is past the clock's range.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::optional<std::chrono::nanoseconds> next_deadline(const Serial<T, E, W>& serial) {
        std::chrono::nanoseconds now{};
        return due(serial, now);
    }

    /// Causes the timeout if its time has passed. Call it at the deadline; it is harmless at any other time.
    /// Errors: those of `Serial::character_timeout`.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::expected<void, SerialError<typename T::error_type>> tick(Serial<T, E, W>& serial) {
        if (auto polled = poll(serial); !polled) {
            return std::unexpected(std::move(polled.error()));
        }
        return {};
    }

    /// Calls `tick`, and returns the time until the next deadline, or nothing if there is none.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::expected<std::optional<std::chrono::nanoseconds>, SerialError<typename T::error_type>>
    poll(Serial<T, E, W>& serial) {
        std::chrono::nanoseconds now{};
        const auto deadline = due(serial, now);
        if (!deadline) {
            return std::nullopt;
        }
        if (now < *deadline) {
            return *deadline - now;
        }
        running_ = false;
        if (auto timed_out = serial.character_timeout(); !timed_out) {
            return std::unexpected(std::move(timed_out.error()));
        }
        return std::nullopt;
    }

    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }

private:
    // The time of the timeout, or nothing if no byte waits for it or if that time is past the clock's range.
    // `now` is set to the clock's time if the clock was read.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::optional<std::chrono::nanoseconds> due(const Serial<T, E, W>& serial,
                                                          std::chrono::nanoseconds& now) {
        if (!serial.character_timeout_armed()) {
            running_ = false;
            return std::nullopt;
        }
        now = time_since_epoch(clock_);
        follow(serial.receive_activity(), now);
        if (now < started_) {
            return now;  // the clock was set back
        }
        const std::chrono::nanoseconds length = serial.character_timeout_length();
        if (started_ > std::chrono::nanoseconds::max() - length) {
            return std::nullopt;
        }
        return started_ + length;
    }
    // The time starts with each byte that arrives or is read.
    constexpr void follow(std::uint32_t activity, std::chrono::nanoseconds now) {
        if (!running_ || activity_ != activity) {
            running_ = true;
            activity_ = activity;
            started_ = now;
        }
    }

    C clock_;
    std::chrono::nanoseconds started_{};
    std::uint32_t activity_{0};
    bool running_{false};
};

/// A `Serial` with the clock of its character timeout. Unlike with other `Timed` devices, the time starts
/// when `next_deadline()` is called, so call it after every access. It sets `ReceiveTimeout::manual`. The
/// clock is not saved with the state; pass one again when you restore a port.
template <class Uart, Clock C = SteadyClock>
class TimedSerial : public Uart {
public:
    /// A UART with its timeout, which is set to ReceiveTimeout::manual.
    explicit constexpr TimedSerial(Uart uart, C clock = C{})
        : Uart(std::move(uart)), timeout_(std::move(clock)) {
        // A failure of the trigger is counted in `host_errors()`.
        static_cast<void>(this->set_receive_timeout(ReceiveTimeout::manual));
    }

    /// The time on the device's clock at which the interrupt line may next rise without an access, or nothing
    /// while no received byte waits for the timeout. Call it again after every access and every `tick()`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() {
        return timeout_.next_deadline(*this);
    }
    /// Updates the device to its clock. Call it at the deadline; it is harmless at any other time. Errors:
    /// `trigger`.
    constexpr std::expected<void, typename Uart::Error> tick() { return timeout_.tick(*this); }

    [[nodiscard]] constexpr const C& clock() const noexcept { return timeout_.clock(); }

private:
    SerialTimeout<C> timeout_;
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/timed.hpp

namespace vmsuperio::inline v0_2 {

/// A device with time. It is passive: it owns no thread and no timer.
///
/// `next_deadline()` returns the time on the device's own clock at which the next event will occur without an
/// access (its interrupt line rises, a byte arrives), or nothing if none can occur. It changes nothing, and
/// it is exact: no event occurs earlier. The owner arms a timer for that time and then calls `tick()`, which
/// updates the device to its clock and is harmless at any other time. Call `next_deadline()` again after
/// every access, every `tick()` and every other call of the host that changes the device.
template <class D>
concept Timed = requires(D& device, const D& constant) {
    { constant.next_deadline() } -> std::same_as<std::optional<std::chrono::nanoseconds>>;
    device.tick();
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/timestamp_writer.hpp

namespace vmsuperio::inline v0_2 {

/// How a `TimestampWriter` writes the time.
enum class TimestampFormat : std::uint8_t {
    elapsed,  ///< `[    1.234567] `: seconds since the writer was constructed, as in Linux's kernel log
    utc,      ///< `2026-03-14T15:09:26.535897Z `: ISO 8601, for a clock with the Unix epoch
};

/// Writes a timestamp before each line that it passes on: the time at which the line's first byte was
/// offered. A line ends with a line feed.
///
/// It takes as many bytes as the inner writer takes. If the sink is full within a timestamp, no byte of the
/// line is taken, and the next write continues the timestamp. Nothing is allocated. If the clock goes
/// backwards, so do the timestamps.
template <Writer W, Clock C = SteadyClock>
class TimestampWriter {
public:
    /// A clock of its own measures the time since now.
    explicit constexpr TimestampWriter(W writer, TimestampFormat format = TimestampFormat::elapsed)
        requires std::default_initializable<C>
        : TimestampWriter(std::move(writer), C{}, format) {}
    /// The given clock supplies the time.
    constexpr TimestampWriter(W writer, C clock, TimestampFormat format = TimestampFormat::elapsed)
        : writer_(std::move(writer)),
          clock_(std::move(clock)),
          start_(time_since_epoch(clock_)),
          format_(format) {}

    /// Writes the bytes with a time before each line. Returns how many of `bytes` were taken.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        std::size_t taken = 0;
        while (taken < bytes.size()) {
            if (at_line_start_) {
                make_stamp();
                at_line_start_ = false;
            }
            std::size_t wanted = stamp_size_ - stamp_sent_;
            if (wanted != 0) {
                const WriteResult sent = writer_.write({stamp_.data() + stamp_sent_, wanted});
                if (!sent) {
                    return failed(taken, sent);
                }
                stamp_sent_ += *sent < wanted ? *sent : wanted;
                if (*sent < wanted) {
                    return taken;
                }
                continue;
            }
            wanted = line_length({bytes.data() + taken, bytes.size() - taken});
            const WriteResult sent = writer_.write({bytes.data() + taken, wanted});
            if (!sent) {
                return failed(taken, sent);
            }
            taken += *sent < wanted ? *sent : wanted;
            if (*sent < wanted) {
                return taken;
            }
            at_line_start_ = bytes[taken - 1] == '\n';
        }
        return taken;
    }

    [[nodiscard]] constexpr const W& inner() const noexcept { return writer_; }
    [[nodiscard]] constexpr W& inner() noexcept { return writer_; }

private:
    // Return the bytes that were taken before the error; the next write returns the error.
    static constexpr WriteResult failed(std::size_t taken, const WriteResult& result) {
        return taken != 0 ? WriteResult(taken) : result;
    }
    // The length includes the line feed, if there is one.
    static constexpr std::size_t line_length(std::span<const std::uint8_t> bytes) noexcept {
        std::size_t length = 0;
        while (length < bytes.size()) {
            if (bytes[length++] == '\n') {
                break;
            }
        }
        return length;
    }

    constexpr void put(char character) noexcept {
        stamp_[stamp_size_++] = static_cast<std::uint8_t>(character);
    }
    // At least `width` characters, filled on the left.
    constexpr void put_number(std::uint64_t value, std::size_t width, char fill) noexcept {
        std::array<char, 20> digits{};
        std::size_t count = 0;
        do {
            digits[count++] = static_cast<char>('0' + value % 10);
            value /= 10;
        } while (value != 0);
        for (; width > count; --width) {
            put(fill);
        }
        while (count != 0) {
            put(digits[--count]);
        }
    }
    constexpr void make_stamp() {
        constexpr std::int64_t second = 1'000'000'000;
        const std::int64_t now = time_since_epoch(clock_).count();
        stamp_size_ = 0;
        stamp_sent_ = 0;
        if (format_ == TimestampFormat::elapsed) {
            // The distance of any two times fits an unsigned number.
            const std::int64_t start = start_.count();
            const std::uint64_t elapsed =
                now < start ? 0 : static_cast<std::uint64_t>(now) - static_cast<std::uint64_t>(start);
            put('[');
            put_number(elapsed / second, 5, ' ');
            put('.');
            put_number(elapsed % second / 1000, 6, '0');
            put(']');
        } else {
            const auto rest = static_cast<std::uint64_t>(detail::floor_mod(now, second));
            const std::int64_t seconds = detail::floor_div(now, second);
            const detail::CivilDate date = detail::civil_from_days(detail::floor_div(seconds, 86400));
            const auto of_day = static_cast<std::uint64_t>(detail::floor_mod(seconds, 86400));
            put_number(static_cast<std::uint64_t>(date.year), 4, '0');  // 1677 to 2262
            put('-');
            put_number(static_cast<std::uint64_t>(date.month), 2, '0');
            put('-');
            put_number(static_cast<std::uint64_t>(date.day), 2, '0');
            put('T');
            put_number(of_day / 3600, 2, '0');
            put(':');
            put_number(of_day / 60 % 60, 2, '0');
            put(':');
            put_number(of_day % 60, 2, '0');
            put('.');
            put_number(rest / 1000, 6, '0');
            put('Z');
        }
        put(' ');
    }

    W writer_;
    C clock_;
    std::chrono::nanoseconds start_;
    TimestampFormat format_;
    std::array<std::uint8_t, 48> stamp_{};
    std::size_t stamp_size_{0};
    std::size_t stamp_sent_{0};
    bool at_line_start_{true};
};
template <Writer W>
TimestampWriter(W) -> TimestampWriter<W>;
template <Writer W>
TimestampWriter(W, TimestampFormat) -> TimestampWriter<W>;

}  // namespace vmsuperio::inline v0_2

// vmsuperio/version.hpp

/// The version of vmsuperio, for the preprocessor. It is that of the repository: vmsuperio and vmdevice are released
/// together. `docs/versioning.md` says what may change between two versions.
///
/// Everything in vmsuperio is in the inline namespace `v0_2` of its major and minor version, so that a program may be
/// linked from parts that include different versions. Do not write `v0_2` yourself, and include a header instead
/// of declaring a name of vmsuperio.

#define VMSUPERIO_VERSION_MAJOR 0
#define VMSUPERIO_VERSION_MINOR 2
#define VMSUPERIO_VERSION_PATCH 0
/// One number that grows with each version: MAJOR * 1000000 + MINOR * 1000 + PATCH.
#define VMSUPERIO_VERSION \
    (VMSUPERIO_VERSION_MAJOR * 1000000 + VMSUPERIO_VERSION_MINOR * 1000 + VMSUPERIO_VERSION_PATCH)
#define VMSUPERIO_VERSION_STRING "0.2.0"

// vmsuperio/vmsuperio.hpp

/// All portable parts of vmsuperio. The helpers for Linux (`<vmsuperio/linux/...>`) and for nlohmann-json
/// (`<vmsuperio/state_json.hpp>`) are included by name.

#if defined(__linux__)
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

// vmsuperio/linux/unique_fd.hpp

namespace vmsuperio::inline v0_2 {
namespace detail {

[[nodiscard]] inline std::error_code last_error() noexcept { return {errno, std::system_category()}; }

}  // namespace detail

/// Owns a file descriptor, or none (-1).
class UniqueFd {
public:
    UniqueFd() = default;
    /// Owns the descriptor; -1 is none.
    explicit UniqueFd(int fd) noexcept : fd_(fd) {}
    /// Takes the other's descriptor.
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    /// Closes the own descriptor and takes the other's.
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.fd_, -1));
        }
        return *this;
    }
    UniqueFd(const UniqueFd&) = delete;
    UniqueFd& operator=(const UniqueFd&) = delete;
    ~UniqueFd() { reset(); }

    /// The descriptor, or -1.
    [[nodiscard]] int get() const noexcept { return fd_; }
    /// Whether there is a descriptor.
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    /// Passes ownership of the descriptor to the caller.
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    /// Closes the descriptor, and owns `fd` from now on.
    void reset(int fd = -1) noexcept {
        if (const int old = std::exchange(fd_, fd); old >= 0) {
            // Ignore an error: Linux has closed the descriptor nevertheless.
            (void)::close(old);
        }
    }

    /// A new descriptor, closed on exec, for the same open file.
    [[nodiscard]] static std::expected<UniqueFd, std::error_code> duplicate(int fd) noexcept {
        const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0) {
            return std::unexpected(detail::last_error());
        }
        return UniqueFd(copy);
    }

private:
    int fd_{-1};
};

}  // namespace vmsuperio::inline v0_2

// vmsuperio/linux/eventfd.hpp

namespace vmsuperio::inline v0_2 {

/// An edge trigger that adds 1 to an eventfd, on which an irqfd waits or which an event loop polls.
///
/// It owns the descriptor. It may be triggered from any thread.
class EventFdTrigger {
public:
    using error_type = std::error_code;

    /// Creates an eventfd, non-blocking and closed on exec. Fails if eventfd(2) does, for example if no
    /// descriptor is left.
    [[nodiscard]] static std::expected<EventFdTrigger, std::error_code> create() noexcept {
        const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (fd < 0) {
            return std::unexpected(detail::last_error());
        }
        return EventFdTrigger(UniqueFd(fd));
    }
    /// Takes ownership of an existing eventfd, which should be non-blocking.
    [[nodiscard]] static EventFdTrigger adopt(int fd) noexcept { return EventFdTrigger(UniqueFd(fd)); }

    /// The descriptor, which stays owned by this object.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// Another trigger on the same counter, with a descriptor of its own.
    [[nodiscard]] std::expected<EventFdTrigger, std::error_code> duplicate() const noexcept {
        auto copy = UniqueFd::duplicate(fd_.get());
        if (!copy) {
            return std::unexpected(copy.error());
        }
        return EventFdTrigger(std::move(*copy));
    }

    /// Signals the event. A counter at its maximum is not an error: the event is pending already.
    [[nodiscard]] std::expected<void, std::error_code> trigger() const noexcept {
        const std::uint64_t one = 1;
        while (::write(fd_.get(), &one, sizeof one) != static_cast<ssize_t>(sizeof one)) {
            if (errno == EAGAIN) {
                return {};
            }
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
        return {};
    }

    /// Reads the counter and sets it to 0. Returns how often the event was signalled since the last call.
    [[nodiscard]] std::expected<std::uint64_t, std::error_code> take() const noexcept {
        std::uint64_t count = 0;
        while (::read(fd_.get(), &count, sizeof count) != static_cast<ssize_t>(sizeof count)) {
            if (errno == EAGAIN) {
                return 0;
            }
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
        return count;
    }

private:
    explicit EventFdTrigger(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

    UniqueFd fd_;
};
static_assert(Trigger<EventFdTrigger> && !LevelTrigger<EventFdTrigger>);

}  // namespace vmsuperio::inline v0_2

// vmsuperio/linux/fd_writer.hpp

namespace vmsuperio::inline v0_2 {

/// Writes to a file descriptor without blocking.
///
/// - `EINTR` is retried, `EAGAIN` is "would block" (0 bytes taken), a partial write returns the number of
///   bytes written.
/// - If the reader has closed its end, each write returns the error `EPIPE`, and later writes are still
///   possible. No `SIGPIPE` is raised for a socket. For a pipe the closed end is detected before writing;
///   because the reader may close it at that very moment, a program that writes to pipes should ignore
///   `SIGPIPE` nevertheless.
/// - A terminal or pipe that was inherited from the shell shares its open file description with it:
///   `O_NONBLOCK` would affect the shell and all other programs, so this class never changes that flag.
///   `create` opens the same terminal or pipe a second time, non-blocking, for this writer alone; `borrow`
///   calls poll(2) before each write and writes no more than certainly fits.
/// - Regular files are written directly: they do not block in the sense of poll(2).
class FdWriter {
public:
    /// Writes to `fd`, which the caller owns and which must outlive the writer.
    explicit FdWriter(int fd) noexcept : fd_(fd) { inspect(); }
    /// A writer to a descriptor that the caller keeps, and whose flags do not change.
    [[nodiscard]] static FdWriter borrow(int fd) noexcept { return FdWriter(fd); }
    /// Writes to `fd` and closes it in the destructor.
    [[nodiscard]] static FdWriter own(int fd) noexcept { return FdWriter(UniqueFd(fd)); }

    /// Creates the best writer for the file of `fd`; the caller keeps `fd` and may close it. Terminals and
    /// pipes are opened a second time, so that they can be non-blocking; if that is not possible (no /proc,
    /// no permission), and for all other files, the descriptor is duplicated.
    [[nodiscard]] static std::expected<FdWriter, std::error_code> create(int fd) {
        struct stat status{};
        if (fd < 0) {
            return std::unexpected(std::error_code(EBADF, std::system_category()));
        }
        const int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0 || ::fstat(fd, &status) != 0) {
            return std::unexpected(detail::last_error());
        }
        if ((flags & O_NONBLOCK) == 0 && (S_ISFIFO(status.st_mode) || is_reopenable_terminal(fd))) {
            std::array<char, 32> path{};
            (void)std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", fd);
            // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg): open(2) is declared so
            const int opened = ::open(path.data(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
            if (opened >= 0) {
                return FdWriter(UniqueFd(opened));
            }
        }
        auto copy = UniqueFd::duplicate(fd);
        if (!copy) {
            return std::unexpected(copy.error());
        }
        return FdWriter(std::move(*copy));
    }

    /// The descriptor to poll for writability before `resume_transmit()`.
    [[nodiscard]] int fd() const noexcept { return fd_; }

    /// Writes what certainly fits, possibly nothing. Returns how many bytes, or the error of write(2).
    [[nodiscard]] WriteResult write(std::span<const std::uint8_t> bytes) {
        std::size_t written = 0;
        while (written < bytes.size()) {
            const auto part = write_some(bytes.subspan(written));
            if (!part) {
                // Return the bytes that were written before the error; the next write returns the error.
                if (written != 0) {
                    break;
                }
                return part;
            }
            if (*part == 0) {
                break;
            }
            written += *part;
        }
        return written;
    }

private:
    enum class Kind : std::uint8_t {
        direct,       // never blocks: non-blocking, or a regular file
        direct_pipe,  // non-blocking, but may raise SIGPIPE
        socket,
        blocking_pipe,
        blocking_other,  // a terminal
    };

    explicit FdWriter(UniqueFd owned) noexcept : owned_(std::move(owned)), fd_(owned_.get()) { inspect(); }

    // Returns false for the master of a pseudo-terminal: opening it again would create another
    // pseudo-terminal.
    [[nodiscard]] static bool is_reopenable_terminal(int fd) noexcept {
        unsigned number = 0;
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg): ioctl(2) is declared so
        return ::isatty(fd) != 0 && ::ioctl(fd, TIOCGPTN, &number) != 0;
    }

    void inspect() noexcept {
        struct stat status{};
        const int flags = fd_ < 0 ? -1 : ::fcntl(fd_, F_GETFL);
        if (flags < 0 || ::fstat(fd_, &status) != 0) {
            return;  // the first write will fail
        }
        const bool blocking = (flags & O_NONBLOCK) == 0;
        if (S_ISSOCK(status.st_mode)) {
            kind_ = Kind::socket;
        } else if (S_ISFIFO(status.st_mode)) {
            kind_ = blocking ? Kind::blocking_pipe : Kind::direct_pipe;
        } else if (blocking && !S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
            kind_ = Kind::blocking_other;
        }
    }

    // One write, or none if it could block.
    [[nodiscard]] WriteResult write_some(std::span<const std::uint8_t> bytes) const noexcept {
        if (kind_ == Kind::blocking_pipe || kind_ == Kind::blocking_other || kind_ == Kind::direct_pipe) {
            const auto writable = can_write();
            if (!writable) {
                return std::unexpected(writable.error());
            }
            if (!*writable) {
                return 0;
            }
            // A writable pipe has room for PIPE_BUF bytes (pipe(7)); a writable terminal for one.
            if (kind_ == Kind::blocking_pipe) {
                bytes = bytes.first(std::min<std::size_t>(bytes.size(), PIPE_BUF));
            } else if (kind_ == Kind::blocking_other) {
                bytes = bytes.first(1);
            }
        }
        for (;;) {
            const ssize_t count = kind_ == Kind::socket
                                      ? ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                                      : ::write(fd_, bytes.data(), bytes.size());
            if (count >= 0) {
                return static_cast<std::size_t>(count);
            }
            if (errno == EAGAIN) {
                return 0;
            }
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
    }

    [[nodiscard]] std::expected<bool, std::error_code> can_write() const noexcept {
        struct pollfd entry{.fd = fd_, .events = POLLOUT, .revents = 0};
        while (::poll(&entry, 1, 0) < 0) {
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
        if ((entry.revents & POLLNVAL) != 0) {
            return std::unexpected(std::error_code(EBADF, std::system_category()));
        }
        if ((entry.revents & POLLERR) != 0 && kind_ != Kind::blocking_other) {
            return std::unexpected(std::error_code(EPIPE, std::system_category()));
        }
        return (entry.revents & (POLLOUT | POLLERR | POLLHUP)) != 0;
    }

    UniqueFd owned_;
    int fd_;
    Kind kind_{Kind::direct};
};
static_assert(Writer<FdWriter>);

}  // namespace vmsuperio::inline v0_2

#endif  // __linux__
