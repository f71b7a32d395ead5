// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

#include <vmsuperio/registers/register.hpp>

namespace vmsuperio {

/// RST_CNT, port 0xCF9 of PC chipsets (Intel ICH9 datasheet, 13.7.5), reset 0x00. Bits 7:4 and 0 read 0.
struct ResetControlRegister : Register<ResetControlRegister, std::uint8_t, 0x0E> {
    using Register::Register;
    static constexpr Bit<1> system_reset{};  // SYS_RST: the reset is that of the platform, not INIT
    static constexpr Bit<2> reset_cpu{};     // RST_CPU: a change from 0 to 1 resets
    static constexpr Bit<3> full_reset{};    // FULL_RST: with SYS_RST, a power cycle
};

/// System control port A, port 0x92 (Intel ICH9 datasheet, 13.7.2), reset 0x00. Bits 7:2 read 0.
struct SystemControlA : Register<SystemControlA, std::uint8_t, 0x03> {
    using Register::Register;
    static constexpr Bit<0> fast_reset{};  // INIT_NOW: a change from 0 to 1 resets the CPUs
    static constexpr Bit<1> a20_gate{};    // ALT_A20_GATE
};

}  // namespace vmsuperio
