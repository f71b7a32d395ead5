// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstdint>
#include <expected>
#include <string_view>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/ps2/keyboard_state.hpp>
#include <vmsuperio/ps2/mouse_state.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// Which parts of the controller exist.
enum class I8042Profile : std::uint8_t {
    full,     ///< controller, keyboard and mouse
    minimal,  ///< only the CPU reset; every read returns 0, as in rust-vmm's vm-superio. A Linux guest waits
              ///< half a second for the controller unless i8042.noprobe or ACPI reports that it is absent.
    absent,   ///< no controller: reads return 0xFF, writes have no effect
};

[[nodiscard]] constexpr std::string_view to_string(I8042Profile profile) noexcept {
    switch (profile) {
        case I8042Profile::full:
            return "full";
        case I8042Profile::minimal:
            return "minimal";
        case I8042Profile::absent:
            return "absent";
    }
    return "unknown profile";
}

/// The configuration of the controller.
struct I8042Options {
    I8042Profile profile{I8042Profile::full};  ///< which controller the device pretends to be
    bool keyboard{true};                       ///< a keyboard is plugged in
    bool mouse{true};                          ///< a mouse is plugged in
    /// The command byte at reset. The default is the value that a PC's firmware leaves (keyboard with its
    /// interrupt and translation enabled, mouse port disabled, system flag set), because most VMMs start the
    /// kernel without firmware.
    std::uint8_t command_byte{i8042::CommandByte()
                                  .set(i8042::CommandByte::keyboard_interrupt)
                                  .set(i8042::CommandByte::system_flag)
                                  .set(i8042::CommandByte::aux_disabled)
                                  .set(i8042::CommandByte::translate)
                                  .value()};
    bool a20{true};  ///< address line 20 is enabled at reset
    bool self_tests{
        false};  ///< at reset the self-test results wait: 0xAA of the keyboard, 0xAA 0x00 of the mouse
    /// The time from the read of a byte at port 0x60 until the next byte of a device arrives, at most 1 s; 0
    /// means at once. A real device takes about a millisecond, and chained keyboard handlers rely on that:
    /// see `tick()`.
    std::chrono::nanoseconds hold_off{0};

    /// The state after power-on, for VMMs that run firmware: A20 is held low, both ports and their interrupts
    /// are disabled, translation is off, no self-test has passed, and the devices' self-test results wait
    /// behind their ports.
    [[nodiscard]] static constexpr I8042Options power_on() noexcept {
        return {.command_byte = i8042::CommandByte()
                                    .set(i8042::CommandByte::keyboard_disabled)
                                    .set(i8042::CommandByte::aux_disabled)
                                    .value(),
                .a20 = false,
                .self_tests = true};
    }
};

/// The controller, its keyboard and its mouse as plain data.
struct I8042State {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("8042"), .version = 2, .readable_since = 1};
    /// The longest hold-off, in ns.
    static constexpr std::uint64_t longest_hold_off = 1'000'000'000;

    I8042Profile profile{I8042Profile::full};  ///< which controller the device pretends to be
    bool keyboard_present{true};               ///< whether a keyboard is plugged in
    bool mouse_present{true};                  ///< whether a mouse is plugged in
    std::uint8_t reset_command_byte{I8042Options{}.command_byte};  ///< the command byte after a reset
    std::array<std::uint8_t, i8042::ram_size> ram{I8042Options{}.command_byte};  ///< byte 0: command byte
    /// No CPU reset, A20 enabled, and the lines to the devices high as with open collectors. The bits that
    /// follow the output buffer are 0 here.
    std::uint8_t output_port{i8042::OutputPort()
                                 .set(i8042::OutputPort::not_reset)
                                 .set(i8042::OutputPort::a20_gate)
                                 .set(i8042::OutputPort::aux_data)
                                 .set(i8042::OutputPort::aux_clock)
                                 .set(i8042::OutputPort::keyboard_clock)
                                 .set(i8042::OutputPort::keyboard_data)
                                 .value()};
    std::uint8_t waiting_for{};     ///< the command whose data byte comes next, or 0
    bool last_write_command{};      ///< status bit 3: the last write was to port 0x64
    bool output_full{};             ///< status bit 0: a byte waits in port 0x60
    std::uint8_t output_data{};     ///< the byte that port 0x60 shows
    std::uint8_t output_flags{};    ///< the output byte's MOBF, TO and PERR, as in the status
    bool response_waiting{};        ///< the controller's own answer waits for the output buffer
    std::uint8_t response{};        ///< an answer of the controller that waits for the port
    std::uint8_t response_flags{};  ///< the status bits of that answer
    Ps2KeyboardState keyboard{};    ///< the keyboard
    Ps2MouseState mouse{};          ///< the mouse
    // Since version 2.
    bool reset_a20{true};          ///< whether address line 20 is on after a reset
    bool reset_self_tests{false};  ///< whether the devices send their self-test results after a reset
    std::uint64_t hold_left{};     ///< the rest of the hold-off, as of the last access or `tick()`, in ns

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [profile, keyboard_present, mouse_present, reset_command_byte, ram, output_port, waiting_for,
               last_write_command, output_full, output_data, output_flags, response_waiting, response,
               response_flags, keyboard, mouse, reset_a20, reset_self_tests, hold_left] = self;
        archive("profile", profile);
        archive("keyboard_present", keyboard_present);
        archive("mouse_present", mouse_present);
        archive("reset_command_byte", reset_command_byte, as<i8042::CommandByte>);
        archive("ram", ram);
        archive("output_port", output_port, as<i8042::OutputPort>);
        archive("waiting_for", waiting_for, as_command<i8042::Command>);
        archive("last_write_command", last_write_command);
        archive("output_full", output_full);
        archive("output_data", output_data);
        archive("output_flags", output_flags, as<i8042::Status>);
        archive("response_waiting", response_waiting);
        archive("response", response);
        archive("response_flags", response_flags, as<i8042::Status>);
        for (const int version : {1, 2}) {
            // Captures copies of the references: not every compiler captures a structured binding in a
            // constant.
            archive.nested("keyboard", [version, &state = keyboard](auto& nested) {
                Ps2KeyboardState::visit_version(version, state, nested);
            });
            archive.nested("mouse", [version, &state = mouse](auto& nested) {
                Ps2MouseState::visit_version(version, state, nested);
            });
        }
        archive.since(2, "reset_a20", reset_a20);
        archive.since(2, "reset_self_tests", reset_self_tests);
        archive.since(2, "hold_left", hold_left);
    }
    friend constexpr bool operator==(const I8042State&, const I8042State&) = default;
};

/// Checks whether a controller can be in this state. The error names the invalid member; a member of a device
/// has the form "keyboard.leds".
[[nodiscard]] constexpr std::expected<void, StateError> validate(const I8042State& state) {
    using Status = i8042::Status;
    using CommandByte = i8042::CommandByte;
    using OutputPort = i8042::OutputPort;
    constexpr unsigned no_flag =
        ~unsigned{Status().set(Status::aux_data).set(Status::timeout).set(Status::parity_error).value()};
    constexpr unsigned no_command_bit = ~unsigned{CommandByte::guest_mask()};
    const OutputPort port(state.output_port);
    if (state.profile > I8042Profile::absent) {
        return std::unexpected(StateError{"profile"});
    }
    if ((state.ram[0] & no_command_bit) != 0) {
        return std::unexpected(StateError{"ram"});
    }
    if ((state.reset_command_byte & no_command_bit) != 0) {
        return std::unexpected(StateError{"reset_command_byte"});
    }
    if (!port[OutputPort::not_reset] || port[OutputPort::keyboard_full] || port[OutputPort::aux_full]) {
        return std::unexpected(StateError{"output_port"});
    }
    if (state.waiting_for != 0 && !i8042::takes_data(i8042::Command{state.waiting_for})) {
        return std::unexpected(StateError{"waiting_for"});
    }
    // Without the ports the guest could never read a waiting byte.
    if (state.profile != I8042Profile::full && state.output_full) {
        return std::unexpected(StateError{"output_full"});
    }
    if (state.profile != I8042Profile::full && state.response_waiting) {
        return std::unexpected(StateError{"response_waiting"});
    }
    if ((state.output_flags & no_flag) != 0 || (!state.output_full && state.output_flags != 0)) {
        return std::unexpected(StateError{"output_flags"});
    }
    if ((state.response_flags & no_flag) != 0) {
        return std::unexpected(StateError{"response_flags"});
    }
    if (state.hold_left > I8042State::longest_hold_off) {
        return std::unexpected(StateError{"hold_left"});
    }
    // A device that is not there cannot have queued a byte.
    const bool full = state.profile == I8042Profile::full;
    if (!full || !state.keyboard_present) {
        if (!state.keyboard.replies.empty()) {
            return std::unexpected(StateError{"keyboard.replies"});
        }
        if (!state.keyboard.keys.empty()) {
            return std::unexpected(StateError{"keyboard.keys"});
        }
    }
    if (!full || !state.mouse_present) {
        if (!state.mouse.replies.empty()) {
            return std::unexpected(StateError{"mouse.replies"});
        }
        if (!state.mouse.packets.empty()) {
            return std::unexpected(StateError{"mouse.packets"});
        }
    }
    if (const auto valid = validate(state.keyboard); !valid) {
        return valid;
    }
    return validate(state.mouse);
}

}  // namespace vmsuperio::inline v0_2
