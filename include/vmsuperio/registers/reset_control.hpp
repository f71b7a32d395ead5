// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

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
