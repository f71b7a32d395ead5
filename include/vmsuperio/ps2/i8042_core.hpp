// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/ps2/keyboard.hpp>
#include <vmsuperio/ps2/mouse.hpp>
#include <vmsuperio/ps2/scan_codes.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/snapshot.hpp>

namespace vmsuperio {

/// How much of the controller there is.
enum class I8042Profile : std::uint8_t {
    full,     ///< controller, keyboard and mouse
    minimal,  ///< CPU reset only and every read gives 0, as rust-vmm's vm-superio has it. A Linux guest that
              ///< is not told with i8042.noprobe or ACPI waits half a second for it.
    absent,   ///< nothing there: reads give 0xFF, writes do nothing
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

/// What the controller is made of.
struct I8042Options {
    I8042Profile profile{I8042Profile::full};
    bool keyboard{true};  ///< a keyboard is plugged in
    bool mouse{true};     ///< a mouse is plugged in
    /// The command byte at reset: as a PC's firmware leaves it, since most VMMs start the kernel without any
    /// (keyboard with its interrupt and translation on, mouse port off, system flag set).
    std::uint8_t command_byte{0x65};
    bool a20{true};  ///< address line 20 is let through at reset
    bool self_tests{
        false};  ///< at reset the devices' self-test results wait: 0xAA, and 0xAA 0x00 of the mouse
    /// How long after a byte was read from port 0x60 the next one of a device comes, at most 1 s. 0: at once.
    /// A real device takes about a millisecond, and chained keyboard handlers rely on that: see `tick()`.
    std::chrono::nanoseconds hold_off{0};

    /// As the machine is when power comes on, for those who run firmware of their own: A20 is held low, both
    /// ports and their interrupts are off, translation is off, no self-test has passed, and the devices'
    /// results wait behind their ports.
    [[nodiscard]] static constexpr I8042Options power_on() noexcept {
        return {.command_byte = 0x30, .a20 = false, .self_tests = true};
    }
};

/// The controller, its keyboard and its mouse as plain data.
struct I8042State {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("8042"), .version = 2, .readable_since = 1};
    /// The longest hold-off, in ns.
    static constexpr std::uint64_t longest_hold_off = 1'000'000'000;

    I8042Profile profile{I8042Profile::full};
    bool keyboard_present{true};
    bool mouse_present{true};
    std::uint8_t reset_command_byte{0x65};
    std::array<std::uint8_t, 32> ram{0x65};  ///< byte 0 is the command byte
    std::uint8_t output_port{0xCF};
    std::uint8_t waiting_for{};  ///< the command whose data byte comes next, or 0
    bool last_write_command{};
    bool output_full{};
    std::uint8_t output_data{};
    std::uint8_t output_flags{};  ///< the output byte's MOBF, TO and PERR, as in the status
    bool response_waiting{};      ///< the controller's own answer waits for the output buffer
    std::uint8_t response{};
    std::uint8_t response_flags{};
    Ps2KeyboardState keyboard{};
    Ps2MouseState mouse{};
    // Since version 2.
    bool reset_a20{true};
    bool reset_self_tests{false};
    std::uint64_t hold_left{};  ///< what is left of the hold-off, as of the last access or `tick()`, in ns

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
        archive("waiting_for", waiting_for);
        archive("last_write_command", last_write_command);
        archive("output_full", output_full);
        archive("output_data", output_data);
        archive("output_flags", output_flags, as<i8042::Status>);
        archive("response_waiting", response_waiting);
        archive("response", response);
        archive("response_flags", response_flags, as<i8042::Status>);
        for (const int version : {1, 2}) {
            // By copies of the references: not every compiler captures a structured binding in a constant.
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
static_assert(SnapshotState<I8042State> && visits_every_member<I8042State>());

namespace detail {

/// The controller without its wires: what `I8042` connects to triggers and events.
class I8042Core {
public:
    explicit constexpr I8042Core(const I8042Options& options) noexcept {
        state_.profile = options.profile;
        state_.keyboard_present = options.keyboard;
        state_.mouse_present = options.mouse;
        state_.reset_command_byte =
            static_cast<std::uint8_t>(options.command_byte & i8042::CommandByte::guest_mask());
        state_.reset_a20 = options.a20;
        state_.reset_self_tests = options.self_tests;
        hold_off_ = limited(options.hold_off);
        power_on();
    }
    /// `state` must be valid. The hold-off is no part of it: it goes with the owner's timers.
    constexpr I8042Core(const I8042State& state, std::chrono::nanoseconds hold_off) noexcept
        : state_(state), keyboard_(state.keyboard), mouse_(state.mouse), hold_off_(limited(hold_off)) {
        if (state_.hold_left > hold_off_) {
            state_.hold_left = hold_off_;
            refresh();
        }
    }

    [[nodiscard]] static constexpr const char* first_invalid(const I8042State& state) noexcept {
        constexpr std::uint8_t flags = decltype(i8042::Status::aux_data)::mask |
                                       decltype(i8042::Status::timeout)::mask |
                                       decltype(i8042::Status::parity_error)::mask;
        if (state.profile > I8042Profile::absent) {
            return "profile";
        }
        if ((state.ram[0] & ~i8042::CommandByte::guest_mask()) != 0) {
            return "ram";
        }
        if ((state.reset_command_byte & ~i8042::CommandByte::guest_mask()) != 0) {
            return "reset_command_byte";
        }
        if (!i8042::OutputPort(state.output_port)[i8042::OutputPort::not_reset] ||
            i8042::OutputPort(state.output_port)[i8042::OutputPort::keyboard_full] ||
            i8042::OutputPort(state.output_port)[i8042::OutputPort::aux_full]) {
            return "output_port";
        }
        if (state.waiting_for != 0 && !takes_data(state.waiting_for)) {
            return "waiting_for";
        }
        if (state.profile != I8042Profile::full && (state.output_full || state.response_waiting)) {
            return "output_full";  // nothing could ever read it
        }
        if ((state.output_flags & ~flags) != 0 || (!state.output_full && state.output_flags != 0)) {
            return "output_flags";
        }
        if ((state.response_flags & ~flags) != 0) {
            return "response_flags";
        }
        if (state.hold_left > I8042State::longest_hold_off) {
            return "hold_left";
        }
        if (const char* field = Ps2Keyboard::first_invalid(state.keyboard); field != nullptr) {
            return field;
        }
        return Ps2Mouse::first_invalid(state.mouse);
    }

    /// Back to the state after power-on, with the options it was made with.
    constexpr void reset() noexcept {
        state_ = {.profile = state_.profile,
                  .keyboard_present = state_.keyboard_present,
                  .mouse_present = state_.mouse_present,
                  .reset_command_byte = state_.reset_command_byte,
                  .reset_a20 = state_.reset_a20,
                  .reset_self_tests = state_.reset_self_tests};
        keyboard_ = {};
        mouse_ = {};
        power_on();
    }

    [[nodiscard]] constexpr I8042State state() const noexcept {
        I8042State saved = state_;
        saved.keyboard = keyboard_.state();
        saved.mouse = mouse_.state();
        return saved;
    }

    [[nodiscard]] constexpr I8042Profile profile() const noexcept { return state_.profile; }
    [[nodiscard]] constexpr const Ps2Keyboard& keyboard() const noexcept { return keyboard_; }
    [[nodiscard]] constexpr bool keyboard_present() const noexcept { return state_.keyboard_present; }
    [[nodiscard]] constexpr bool mouse_present() const noexcept { return state_.mouse_present; }

    [[nodiscard]] constexpr std::uint8_t status() const noexcept {
        i8042::Status status(state_.output_flags);
        status.set(i8042::Status::output_full, state_.output_full);
        status.set(i8042::Status::system_flag, command_byte()[i8042::CommandByte::system_flag]);
        status.set(i8042::Status::last_command, state_.last_write_command);
        status.set(i8042::Status::not_locked);
        return status.value();
    }
    /// What port 0x60 shows. An empty output buffer shows the last byte again.
    [[nodiscard]] constexpr std::uint8_t output() const noexcept { return state_.output_data; }

    /// The levels of the two interrupt lines: output buffer full, and enabled in the command byte.
    [[nodiscard]] constexpr bool keyboard_line() const noexcept {
        return state_.output_full && !from_aux() && command_byte()[i8042::CommandByte::keyboard_interrupt];
    }
    [[nodiscard]] constexpr bool aux_line() const noexcept {
        return state_.output_full && from_aux() && command_byte()[i8042::CommandByte::aux_interrupt];
    }
    /// Whether a byte came into the output buffer since the last call: a new edge on the line even where
    /// the byte before was taken in the same operation.
    [[nodiscard]] constexpr bool take_new_byte() noexcept { return std::exchange(new_byte_, false); }

    [[nodiscard]] constexpr bool a20() const noexcept {
        return i8042::OutputPort(state_.output_port)[i8042::OutputPort::a20_gate];
    }
    [[nodiscard]] constexpr std::uint64_t unknown_commands() const noexcept { return unknown_commands_; }

    /// What is left of the hold-off, in ns.
    [[nodiscard]] constexpr std::uint64_t hold_left() const noexcept { return state_.hold_left; }
    /// Whether a device's byte waits for no more than the end of the hold-off.
    [[nodiscard]] constexpr bool held_back() const noexcept {
        return state_.hold_left != 0 && !state_.output_full && (keyboard_sends() || mouse_sends());
    }
    /// Time passes, in ns.
    constexpr void advance(std::uint64_t time) noexcept {
        state_.hold_left -= std::min(time, state_.hold_left);
        refresh();
    }

    /// A key moves. False when it was lost because the keyboard's buffer is full.
    constexpr bool key(Key key, bool down) noexcept {
        const bool sent = keyboard_.key(key, down, reserved());
        refresh();
        return sent;
    }
    constexpr bool ctrl_alt_del() noexcept {
        const bool sent = keyboard_.ctrl_alt_del(reserved());
        refresh();
        return sent;
    }
    constexpr void move_mouse(const MouseMotion& motion) noexcept {
        mouse_.move(motion);
        refresh();
    }

    constexpr void read_data() noexcept {
        if (state_.output_full) {
            state_.hold_left = hold_off_;
        }
        state_.output_full = false;
        state_.output_flags = 0;
        refresh();
    }

    /// True when the CPU is to be reset.
    [[nodiscard]] constexpr bool write_data(std::uint8_t value) noexcept {
        state_.last_write_command = false;
        bool reset = false;
        switch (const std::uint8_t command = std::exchange(state_.waiting_for, std::uint8_t{0}); command) {
            case 0:
                // Talking to a device turns its port on, as common controllers do and drivers expect.
                set_command_bit(i8042::CommandByte::keyboard_disabled, false);
                if (state_.keyboard_present) {
                    keyboard_.receive(value);
                } else {
                    respond(no_device, timeout_flag);
                }
                break;
            case std::to_underlying(i8042::Command::write_output_port):
                reset = write_output_port(value);
                break;
            case std::to_underlying(i8042::Command::write_keyboard_output):
                respond(value);
                break;
            case std::to_underlying(i8042::Command::write_aux_output):
                respond(value, aux_flag);
                break;
            case std::to_underlying(i8042::Command::write_aux):
                set_command_bit(i8042::CommandByte::aux_disabled, false);
                if (state_.mouse_present) {
                    mouse_.receive(value);
                } else {
                    respond(no_device, static_cast<std::uint8_t>(aux_flag | timeout_flag));
                }
                break;
            case std::to_underlying(i8042::Command::write_ram): {
                i8042::CommandByte byte = command_byte();
                byte.guest_write(value);
                state_.ram[0] = byte.value();
                break;
            }
            default:
                state_.ram[command & 0x1FU] = value;
                break;
        }
        refresh();
        return reset;
    }

    /// True when the CPU is to be reset.
    [[nodiscard]] constexpr bool write_command(std::uint8_t value) noexcept {
        state_.last_write_command = true;
        state_.waiting_for = takes_data(value) ? value : std::uint8_t{0};
        bool reset = false;
        if (value >= 0x20 && value <= 0x3F) {
            respond(state_.ram[value & 0x1FU]);
        } else if (value >= std::to_underlying(i8042::Command::pulse_output)) {
            // Bits 1 to 3 of the pulse are not modelled: A20 low for 6 us shows nothing but trouble.
            reset = (value & 0x01U) == 0;
        } else if (state_.waiting_for == 0) {
            // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): a guest may write any byte
            execute(static_cast<i8042::Command>(value));
        }
        refresh();
        return reset;
    }

    /// Moves the next byte into the output buffer, where that is empty.
    constexpr void refresh() noexcept {
        if (state_.output_full) {
            return;
        }
        if (state_.response_waiting) {
            state_.response_waiting = false;
            place(state_.response, state_.response_flags);
        } else if (state_.hold_left != 0) {
            return;  // a device's byte would be on its way
        } else if (keyboard_sends()) {
            place(from_keyboard(), 0);
        } else if (mouse_sends()) {
            place(mouse_.send(), aux_flag);
        }
    }

private:
    static constexpr std::uint8_t aux_flag = decltype(i8042::Status::aux_data)::mask;
    static constexpr std::uint8_t timeout_flag = decltype(i8042::Status::timeout)::mask;
    static constexpr std::uint8_t no_device = 0xFE;  // what the controller gives with a timeout

    [[nodiscard]] static constexpr std::uint64_t limited(std::chrono::nanoseconds hold_off) noexcept {
        constexpr std::int64_t longest{I8042State::longest_hold_off};
        return static_cast<std::uint64_t>(std::clamp<std::int64_t>(hold_off.count(), 0, longest));
    }
    constexpr void power_on() noexcept {
        state_.ram[0] = state_.reset_command_byte;
        state_.output_port =
            i8042::OutputPort(state_.output_port).set(i8042::OutputPort::a20_gate, state_.reset_a20).value();
        if (state_.profile == I8042Profile::full && state_.reset_self_tests) {
            if (state_.keyboard_present) {
                keyboard_.power_on();
            }
            if (state_.mouse_present) {
                mouse_.power_on();
            }
            refresh();
        }
    }
    [[nodiscard]] constexpr bool keyboard_sends() const noexcept {
        return !command_byte()[i8042::CommandByte::keyboard_disabled] && keyboard_.has_byte();
    }
    [[nodiscard]] constexpr bool mouse_sends() const noexcept {
        return !command_byte()[i8042::CommandByte::aux_disabled] && mouse_.has_byte();
    }
    /// What the output buffer holds counts with what the keyboard's buffer holds (Ps2KeyboardState::keys).
    [[nodiscard]] constexpr std::size_t reserved() const noexcept { return state_.output_full ? 1 : 0; }

    [[nodiscard]] static constexpr bool takes_data(std::uint8_t command) noexcept {
        return (command >= 0x60 && command <= 0x7F) || (command >= 0xD1 && command <= 0xD4);
    }
    [[nodiscard]] constexpr i8042::CommandByte command_byte() const noexcept {
        return i8042::CommandByte(state_.ram[0]);
    }
    template <unsigned Position>
    constexpr void set_command_bit(i8042::CommandByte::Bit<Position> bit, bool on) noexcept {
        state_.ram[0] = command_byte().set(bit, on).value();
    }
    [[nodiscard]] constexpr bool from_aux() const noexcept { return (state_.output_flags & aux_flag) != 0; }

    constexpr void respond(std::uint8_t value, std::uint8_t flags = 0) noexcept {
        state_.response_waiting = true;
        state_.response = value;
        state_.response_flags = flags;
    }
    constexpr void place(std::uint8_t value, std::uint8_t flags) noexcept {
        state_.output_full = true;
        state_.output_data = value;
        state_.output_flags = flags;
        new_byte_ = true;
    }

    constexpr std::uint8_t from_keyboard() noexcept {
        std::uint8_t code = keyboard_.send();
        if (!command_byte()[i8042::CommandByte::translate]) {
            return code;
        }
        std::uint8_t released = 0;
        // The keyboard queues codes whole, so what follows a release prefix is there.
        while (code == 0xF0 && keyboard_.has_byte()) {
            released = 0x80;
            code = keyboard_.send();
        }
        return static_cast<std::uint8_t>(translate_to_set1(code) | released);
    }

    [[nodiscard]] constexpr bool write_output_port(std::uint8_t value) noexcept {
        i8042::OutputPort port(state_.output_port);
        port.guest_write(value);
        state_.output_port = port.value();
        return !i8042::OutputPort(value)[i8042::OutputPort::not_reset];
    }
    [[nodiscard]] constexpr std::uint8_t read_output_port() const noexcept {
        i8042::OutputPort port(state_.output_port);
        port.set(i8042::OutputPort::keyboard_full, state_.output_full && !from_aux());
        port.set(i8042::OutputPort::aux_full, state_.output_full && from_aux());
        return port.value();
    }

    constexpr void execute(i8042::Command command) noexcept {
        i8042::OutputPort port(state_.output_port);
        switch (command) {
            case i8042::Command::test_password:
                return respond(i8042::no_password);
            case i8042::Command::disable_aux:
            case i8042::Command::enable_aux:
                return set_command_bit(i8042::CommandByte::aux_disabled,
                                       command == i8042::Command::disable_aux);
            case i8042::Command::test_aux:
            case i8042::Command::test_keyboard:
                return respond(i8042::interface_test_passed);
            case i8042::Command::self_test:
                set_command_bit(i8042::CommandByte::system_flag, true);
                return respond(i8042::self_test_passed);
            case i8042::Command::disable_keyboard:
            case i8042::Command::enable_keyboard:
                return set_command_bit(i8042::CommandByte::keyboard_disabled,
                                       command == i8042::Command::disable_keyboard);
            case i8042::Command::read_input_port:
                return respond(0x80);  // the key lock is open
            case i8042::Command::read_output_port:
                return respond(read_output_port());
            case i8042::Command::disable_a20:
            case i8042::Command::enable_a20:
                port.set(i8042::OutputPort::a20_gate, command == i8042::Command::enable_a20);
                state_.output_port = port.value();
                return;
            case i8042::Command::read_test_inputs: {
                const i8042::CommandByte byte = command_byte();
                return respond(
                    static_cast<std::uint8_t>((byte[i8042::CommandByte::keyboard_disabled] ? 0U : 1U) |
                                              (byte[i8042::CommandByte::aux_disabled] ? 0U : 2U)));
            }
            default:
                ++unknown_commands_;
                return;
        }
    }

    I8042State state_;  // without keyboard and mouse, which keep their own
    Ps2Keyboard keyboard_;
    Ps2Mouse mouse_;
    std::uint64_t hold_off_{};  // ns
    bool new_byte_{false};
    std::uint64_t unknown_commands_{};
};

}  // namespace detail
}  // namespace vmsuperio
