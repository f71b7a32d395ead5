// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

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
