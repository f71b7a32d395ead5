// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/detail/clamp.hpp>
#include <vmsuperio/i8042_state.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/keys.hpp>
#include <vmsuperio/ps2/keyboard.hpp>
#include <vmsuperio/ps2/mouse.hpp>
#include <vmsuperio/ps2/scan_codes.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/registers/ps2.hpp>

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
