// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

/// The commands and replies of PS/2 devices.
///
/// Sources: IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)" and
/// "Mouse"; Microsoft's IntelliMouse protocol.
namespace vmsuperio::ps2 {

/// What a keyboard is sent.
enum class KeyboardCommand : std::uint8_t {
    set_leds = 0xED,         ///< the next byte: bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock
    echo = 0xEE,             ///< answered with itself
    scan_code_set = 0xF0,    ///< the next byte: 1 to 3 selects a set, 0 asks for it
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

/// What a mouse is sent.
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
    set_sample_rate = 0xF3,  ///< the next byte: 10, 20, 40, 60, 80, 100 or 200 a second
    enable = 0xF4,
    disable = 0xF5,
    set_default = 0xF6,
    resend = 0xFE,
    reset = 0xFF,
};

inline constexpr std::uint8_t acknowledge = 0xFA;
inline constexpr std::uint8_t resend_request = 0xFE;  ///< the device asks for the byte again
inline constexpr std::uint8_t error = 0xFC;           ///< a mouse was sent a second wrong byte in a row
inline constexpr std::uint8_t self_test_passed = 0xAA;

}  // namespace vmsuperio::ps2
