// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

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
