// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include <vmsuperio/keys.hpp>
#include <vmsuperio/ps2/byte_queue.hpp>
#include <vmsuperio/ps2/key_forms.hpp>
#include <vmsuperio/ps2/scan_codes.hpp>
#include <vmsuperio/registers/ps2.hpp>
#include <vmsuperio/snapshot.hpp>

namespace vmsuperio {

/// A PS/2 keyboard as plain data.
struct Ps2KeyboardState {
    bool scanning{true};            ///< key movements are sent (commands 0xF4, 0xF5)
    std::uint8_t scan_code_set{2};  ///< 1 to 3
    std::uint8_t leds{};            ///< bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock
    std::uint8_t typematic{0x2B};   ///< as command 0xF3 sets it: kept, without effect
    std::uint8_t waiting_for{};     ///< the command whose parameter comes next, or 0
    std::uint8_t last_sent{};       ///< what command 0xFE sends again
    detail::ByteQueue<4> replies;
    /// 14 bytes of scan codes and one of overrun, less one while the controller's output buffer is full.
    /// Deviation: a real keyboard has 16 and the overrun code. What a guest can read at once must stay below
    /// 16 bytes: SeaBIOS (ps2port.c, i8042_flush) and Linux of the 2.6 series (i8042.c,
    /// i8042_controller_check) take a controller that gives 16 for one that is not there, so a user who types
    /// before the driver loads would lose the keyboard.
    detail::ByteQueue<15> keys;
    // Since version 2.
    /// The keys held that others' codes depend on: bit 0 left Shift, 1 right Shift, 2 left Ctrl, 3 right
    /// Ctrl, 4 left Alt, 5 right Alt, 6 Num Lock.
    std::uint8_t modifiers{};
    bool num_lock_toggled{false};  ///< the keyboard's own Num Lock differs from the LED
    /// How each of the cursor keys, keypad /, Print Screen and Pause went down; 0 for one that is up.
    std::array<std::uint8_t, detail::key_form::count> forms{};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        visit_version(1, self, archive);
        visit_version(2, self, archive);
    }
    /// What came with one version: a controller's state has all of version 1 before what came later.
    template <class Self, class Archive>
    static constexpr void visit_version(int version, Self& self, Archive& archive) {
        auto& [scanning, scan_code_set, leds, typematic, waiting_for, last_sent, replies, keys, modifiers,
               num_lock_toggled, forms] = self;
        if (version == 1) {
            archive("scanning", scanning);
            archive("scan_code_set", scan_code_set, decimal);
            archive("leds", leds);
            archive("typematic", typematic);
            archive("waiting_for", waiting_for);
            archive("last_sent", last_sent);
            archive.bytes("replies", replies.bytes, replies.count);
            archive.bytes("keys", keys.bytes, keys.count);
        } else {
            archive.since(2, "modifiers", modifiers);
            archive.since(2, "num_lock_toggled", num_lock_toggled);
            archive.since(2, "forms", forms);
        }
    }
    friend constexpr bool operator==(const Ps2KeyboardState&, const Ps2KeyboardState&) = default;
};

namespace detail {

/// A PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)") seen
/// from its cable: bytes in from the controller, bytes out to it.
///
/// Not modelled: typematic repeat (the host's own repeat comes in as further presses), the key types of set 3
/// (0xF7 to 0xFD are acknowledged; every key is make/break), the 300-500 ms that the reset test takes.
class Ps2Keyboard {
    using Command = ps2::KeyboardCommand;

public:
    static constexpr std::uint8_t overrun_code = 0x00;  // in set 1 it is 0xFF

    constexpr Ps2Keyboard() = default;
    explicit constexpr Ps2Keyboard(const Ps2KeyboardState& state) : state_(state) {
        state_.replies.normalize();
        state_.keys.normalize();
    }

    [[nodiscard]] constexpr const Ps2KeyboardState& state() const noexcept { return state_; }

    /// The name of the first member that no keyboard can have; null where there is none.
    [[nodiscard]] static constexpr const char* first_invalid(const Ps2KeyboardState& state) noexcept {
        if (state.scan_code_set < 1 || state.scan_code_set > 3) {
            return "keyboard.scan_code_set";
        }
        if (state.leds > 0x07) {
            return "keyboard.leds";
        }
        if (state.typematic > 0x7F) {
            return "keyboard.typematic";
        }
        if (state.waiting_for != 0 && !takes_parameter(Command{state.waiting_for})) {
            return "keyboard.waiting_for";
        }
        if (!state.replies.valid()) {
            return "keyboard.replies";
        }
        if (!state.keys.valid()) {
            return "keyboard.keys";
        }
        if (state.modifiers > held::all) {
            return "keyboard.modifiers";
        }
        for (const std::uint8_t form : state.forms) {
            if (!key_form::valid(form)) {
                return "keyboard.forms";
            }
        }
        return nullptr;
    }

    /// The result of the self-test at power-on waits to be fetched.
    constexpr void power_on() noexcept { reply({ps2::self_test_passed}); }

    /// A byte from the host. A new command makes the keyboard forget what it still had to answer.
    constexpr void receive(std::uint8_t byte) noexcept {
        if (Command{byte} == Command::resend) {
            return send_again();
        }
        state_.replies.clear();
        const std::uint8_t command = std::exchange(state_.waiting_for, std::uint8_t{0});
        if (command != 0 && Command{byte} < Command::set_leds) {
            parameter(Command{command}, byte);
        } else {
            execute(Command{byte});
        }
    }

    [[nodiscard]] constexpr bool has_byte() const noexcept {
        // While it waits for a parameter the keyboard sends no scan code.
        return !state_.replies.empty() || (state_.waiting_for == 0 && !state_.keys.empty());
    }
    /// The next byte for the host; `has_byte()` must hold.
    constexpr std::uint8_t send() noexcept {
        const std::uint8_t byte = state_.replies.empty() ? state_.keys.pop() : state_.replies.pop();
        // What stands before a request to resend is what the host can ask for.
        if (byte != ps2::resend_request) {
            state_.last_sent = byte;
        }
        return byte;
    }

    /// A key moves; of the buffer, `reserved` bytes are not to be used. False when nothing was sent because
    /// the buffer is full; the guest then finds an overrun code. A key unknown to the keyboard, and any while
    /// scanning is off, sends nothing and is no loss.
    constexpr bool key(Key key, bool down, std::size_t reserved = 0) noexcept {
        const std::uint8_t others = held::bit_of(key);
        const bool repeated = down && (state_.modifiers & others) != 0;
        state_.modifiers =
            static_cast<std::uint8_t>(down ? state_.modifiers | others : state_.modifiers & ~others);
        if (key == Key::num_lock && down && !repeated) {
            state_.num_lock_toggled = !state_.num_lock_toggled;
        }
        return type(key, down, key_form::of(key, state_.modifiers, num_lock()), reserved);
    }

    /// Ctrl-Alt-Del, pressed and released; all of it, or (false) nothing where there is no room. Which keys
    /// the user holds does not matter, nor does Num Lock: the Shift codes that it would add to Del tell the
    /// software of today nothing, and would not fit.
    constexpr bool ctrl_alt_del(std::size_t reserved) noexcept {
        Ps2Keyboard typed = *this;
        const auto move = [&](Key key, bool down) { return typed.type(key, down, key_form::down, reserved); };
        if (move(Key::left_ctrl, true) && move(Key::left_alt, true) && move(Key::del, true) &&
            move(Key::del, false) && move(Key::left_alt, false) && move(Key::left_ctrl, false)) {
            *this = typed;
            return true;
        }
        return false;
    }

private:
    [[nodiscard]] static constexpr bool takes_parameter(Command command) noexcept {
        return command == Command::set_leds || command == Command::scan_code_set ||
               command == Command::set_typematic ||
               (command >= Command::key_typematic && command <= Command::key_make);
    }
    /// The keyboard has a Num Lock of its own: its key toggles it, and setting the LED sets it.
    [[nodiscard]] constexpr bool num_lock() const noexcept {
        return ((state_.leds & 0x02U) != 0) != state_.num_lock_toggled;
    }

    /// Sends what `key` sends. `form` is the one in which it goes down now, if it has forms and is not down.
    constexpr bool type(Key key, bool down, std::uint8_t form, std::size_t reserved) noexcept {
        const std::size_t index = key_form::index_of(key);
        if (!state_.scanning) {
            if (index < key_form::count && !down) {
                state_.forms[index] = key_form::up;
            }
            return true;
        }
        if (index == key_form::count) {
            return queue(scan_code(key, down, state_.scan_code_set), reserved);
        }
        const FormedCodes codes(state_.scan_code_set);
        const std::uint8_t before = state_.forms[index];
        ScanCode code;
        if (!down) {
            code = codes.break_code(key, before == key_form::up ? form : before, state_.modifiers);
        } else if (before == key_form::up) {
            code = codes.make(key, form);
        } else if (before == form) {
            code = codes.repeat(key, form);
        } else {
            // Held, and pressed again with other keys: for the guest it goes up and down.
            code = codes.break_code(key, before, state_.modifiers);
            code.append(codes.make(key, form).span());
        }
        if (!queue(code, reserved)) {
            return false;
        }
        state_.forms[index] = down ? form : key_form::up;
        return true;
    }

    constexpr bool queue(const ScanCode& code, std::size_t reserved) noexcept {
        // The last slot is kept for the overrun code.
        if (code.count + 1U + reserved <= state_.keys.free() || code.count == 0) {
            return state_.keys.push(code.span());
        }
        const std::uint8_t overrun = state_.scan_code_set == 1 ? std::uint8_t{0xFF} : overrun_code;
        if (state_.keys.empty() || state_.keys.back() != overrun) {
            state_.keys.push(overrun);
        }
        return false;
    }

    constexpr void reply(std::initializer_list<std::uint8_t> bytes) noexcept {
        state_.replies.push(std::span(bytes.begin(), bytes.size()));
    }

    /// Command 0xFE: the last byte again, then what else there was to say. It is no answer to a command that
    /// waits for its parameter.
    constexpr void send_again() noexcept {
        const ByteQueue<4> rest = state_.replies;
        if (rest.free() == 0) {
            return;  // the answer to an 0xFE before this one has not been fetched
        }
        state_.replies.clear();
        state_.replies.push(state_.last_sent);
        state_.replies.push(std::span(rest.bytes).first(rest.size()));
    }

    /// The defaults of commands 0xF5, 0xF6 and 0xFF. The LEDs are left alone except by a reset.
    constexpr void set_defaults(bool scanning) noexcept {
        state_.scanning = scanning;
        state_.scan_code_set = 2;
        state_.typematic = Ps2KeyboardState{}.typematic;
        state_.keys.clear();
        state_.forms = {};
    }

    constexpr void execute(Command command) noexcept {
        switch (command) {
            case Command::set_leds:
            case Command::scan_code_set:
            case Command::set_typematic:
            case Command::key_typematic:
            case Command::key_make_break:
            case Command::key_make:
                state_.waiting_for = std::to_underlying(command);
                return reply({ps2::acknowledge});
            case Command::echo:
                return reply({std::to_underlying(Command::echo)});
            case Command::identify:  // a 101/102-key keyboard
                return reply({ps2::acknowledge, 0xAB, 0x83});
            case Command::enable:
                state_.scanning = true;
                state_.keys.clear();
                return reply({ps2::acknowledge});
            case Command::default_disable:
                set_defaults(false);
                return reply({ps2::acknowledge});
            case Command::set_default:
                set_defaults(state_.scanning);
                return reply({ps2::acknowledge});
            case Command::all_typematic:
            case Command::all_make_break:
            case Command::all_make:
            case Command::all_typematic_make_break:
                return reply({ps2::acknowledge});
            case Command::reset:
                set_defaults(true);
                state_.leds = 0;
                state_.num_lock_toggled = false;
                return reply({ps2::acknowledge, ps2::self_test_passed});
            default:
                return reply({ps2::resend_request});
        }
    }

    constexpr void parameter(Command command, std::uint8_t value) noexcept {
        switch (command) {
            case Command::set_leds:
                if (value > 0x07) {
                    break;
                }
                state_.leds = value;
                state_.num_lock_toggled = false;
                return reply({ps2::acknowledge});
            case Command::scan_code_set:
                if (value == 0) {
                    return reply({ps2::acknowledge, state_.scan_code_set});
                }
                if (value > 3) {
                    break;
                }
                state_.scan_code_set = value;
                state_.keys.clear();
                return reply({ps2::acknowledge});
            case Command::set_typematic:
                if (value > 0x7F) {
                    break;
                }
                state_.typematic = value;
                return reply({ps2::acknowledge});
            default:  // the lists of keys end at the next command
                state_.waiting_for = std::to_underlying(command);
                return reply({ps2::acknowledge});
        }
        // The host may send the parameter again.
        state_.waiting_for = std::to_underlying(command);
        reply({ps2::resend_request});
    }

    Ps2KeyboardState state_;
};

}  // namespace detail
}  // namespace vmsuperio
