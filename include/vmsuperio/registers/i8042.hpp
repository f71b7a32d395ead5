// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

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
