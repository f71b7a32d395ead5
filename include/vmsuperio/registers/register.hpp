// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string_view>

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
