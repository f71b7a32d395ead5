// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

/// The registers of the ARM PrimeCell Real Time Clock (PL031).
///
/// Source: ARM DDI 0224, "Programmer's model", table 3-1. Every register is 32 bits wide.
namespace vmsuperio::pl031 {

inline constexpr std::uint16_t data = 0x000;              ///< RTCDR: the seconds counter, read only
inline constexpr std::uint16_t match = 0x004;             ///< RTCMR
inline constexpr std::uint16_t load = 0x008;              ///< RTCLR: sets the counter
inline constexpr std::uint16_t control = 0x00C;           ///< RTCCR
inline constexpr std::uint16_t interrupt_mask = 0x010;    ///< RTCIMSC
inline constexpr std::uint16_t raw_interrupt = 0x014;     ///< RTCRIS, read only
inline constexpr std::uint16_t masked_interrupt = 0x018;  ///< RTCMIS, read only
inline constexpr std::uint16_t interrupt_clear = 0x01C;   ///< RTCICR, write only
inline constexpr std::uint16_t first_id = 0xFE0;          ///< RTCPeriphID0-3, then RTCPCellID0-3

/// One byte in each of the eight identification registers: part 0x031, designer 0x41 (ARM), revision 0; then
/// the PrimeCell's own 0xB105F00D.
inline constexpr std::array<std::uint8_t, 8> ids{0x31, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1};

/// RTCCR.
struct Control : Register<Control, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = "RTCCR";
    static constexpr Bit<0> start{};
    static constexpr std::array fields{named("start", start)};
};

/// RTCIMSC: 1 lets the interrupt through.
struct InterruptMask : Register<InterruptMask, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = "RTCIMSC";
    static constexpr Bit<0> match{};
    static constexpr std::array fields{named("match", match)};
};

/// RTCRIS and RTCMIS, and what a 1 written to RTCICR clears.
struct InterruptStatus : Register<InterruptStatus, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = "RTCRIS";
    static constexpr Bit<0, Access::read_only> match{};
    static constexpr std::array fields{named("match", match)};
};

}  // namespace vmsuperio::pl031
