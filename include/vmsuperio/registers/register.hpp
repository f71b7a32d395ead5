// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <limits>

#include <vmsuperio/detail/config.hpp>

namespace vmsuperio {

/// Base of the register dictionaries: one type per register, naming its fields as the datasheet does.
///
/// ```cpp
/// struct LineControl : Register<LineControl, std::uint8_t, 0xFF> {
///     using Register::Register;
///     static constexpr Field<0, 1> word_length{};
///     static constexpr Bit<7> divisor_latch_access{};
/// };
/// LineControl lcr{0x83};
/// if (lcr[LineControl::divisor_latch_access]) ...
/// ```
/// A field belongs to the register that names it: to use it on another one does not compile.
/// `GuestMask` has a 1 for each bit that a guest's write can change; the others keep their value.
template <class Derived, std::unsigned_integral Value, Value GuestMask = std::numeric_limits<Value>::max()>
class Register {
public:
    using value_type = Value;
    static constexpr Value guest_mask = GuestMask;

    /// Bits `Low` to `High`, both included.
    template <unsigned Low, unsigned High>
    struct Field {
        static_assert(Low <= High && High < std::numeric_limits<Value>::digits,
                      "the field is outside the register");
        static constexpr unsigned shift = Low;
        static constexpr Value max = static_cast<Value>(
            std::numeric_limits<Value>::max() >> (std::numeric_limits<Value>::digits - 1U - (High - Low)));
        static constexpr Value mask = static_cast<Value>(max << shift);
    };
    template <unsigned Position>
    struct Bit : Field<Position, Position> {};

    constexpr Register() = default;
    explicit constexpr Register(Value value) noexcept : value_(value) {}

    [[nodiscard]] constexpr Value value() const noexcept { return value_; }

    template <unsigned Position>
    [[nodiscard]] constexpr bool operator[](Bit<Position>) const noexcept {
        return (value_ & Bit<Position>::mask) != 0;
    }
    template <unsigned Low, unsigned High>
    [[nodiscard]] constexpr Value operator[](Field<Low, High>) const noexcept {
        return static_cast<Value>((value_ & Field<Low, High>::mask) >> Low);
    }

    template <unsigned Position>
    constexpr Derived& set(Bit<Position>, bool on = true) noexcept {
        value_ = static_cast<Value>(on ? (value_ | Bit<Position>::mask) : (value_ & ~Bit<Position>::mask));
        return static_cast<Derived&>(*this);
    }
    /// Bits of `field_value` beyond the field's width are dropped.
    template <unsigned Low, unsigned High>
    constexpr Derived& set(Field<Low, High>, Value field_value) noexcept {
        value_ = static_cast<Value>((value_ & ~Field<Low, High>::mask) |
                                    (static_cast<Value>(field_value << Low) & Field<Low, High>::mask));
        return static_cast<Derived&>(*this);
    }
    template <unsigned Position>
    constexpr Derived& clear(Bit<Position> bit) noexcept {
        return set(bit, false);
    }

    /// Takes a value that the guest wrote: only the bits of the guest mask change.
    constexpr void guest_write(Value written) noexcept {
        value_ = static_cast<Value>((value_ & ~GuestMask) | (written & GuestMask));
    }

    friend constexpr bool operator==(const Register&, const Register&) = default;

private:
    Value value_{};
};

}  // namespace vmsuperio
