// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <vmsuperio/keys.hpp>
#include <vmsuperio/ps2/key_forms.hpp>
#include <vmsuperio/ps2/keyboard_state.hpp>
#include <vmsuperio/ps2/port.hpp>
#include <vmsuperio/ps2/scan_codes.hpp>
#include <vmsuperio/registers/ps2.hpp>

namespace vmsuperio::inline v0_2::detail {

/// A PS/2 keyboard (IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)") at the
/// end of its cable: it receives bytes from the controller and sends bytes to it.
///
/// Not modelled: typematic repeat (the host's own repeat arrives as further presses), the key types of set 3
/// (0xF7 to 0xFD are acknowledged; every key is make/break), the 300-500 ms that the reset test takes.
class Ps2Keyboard : public Ps2Port<Ps2Keyboard, Ps2KeyboardState, ps2::KeyboardCommand> {
    using Command = ps2::KeyboardCommand;
    friend Ps2Port;

public:
    using Ps2Port::Ps2Port;

    /// Queues the result of the self-test at power-on.
    constexpr void power_on() noexcept { answer({ps2::self_test_passed}); }

    /// Presses or releases a key; `reserved` bytes of the buffer are not used. Returns false if nothing was
    /// sent because the buffer is full; the guest then finds an overrun code. A key that the keyboard does
    /// not have, and any key while scanning is off, sends nothing and counts as no loss.
    constexpr bool key(Key key, bool down, std::size_t reserved = 0) noexcept {
        const std::uint8_t bit = held_key(key).value();
        const bool repeated = down && (state_.modifiers & bit) != 0;
        state_.modifiers = static_cast<std::uint8_t>(down ? state_.modifiers | bit : state_.modifiers & ~bit);
        if (key == Key::num_lock && down && !repeated) {
            state_.num_lock_toggled = !state_.num_lock_toggled;
        }
        return type(key, down, key_form::of(key, modifiers(), num_lock()), reserved);
    }

    /// Presses and releases Ctrl-Alt-Del. Queues all codes, or returns false and queues none if there is no
    /// room. The keys that the user holds have no effect, nor does Num Lock: the Shift codes that it would
    /// add to Del have no meaning for present software, and would not fit.
    constexpr bool ctrl_alt_del(std::size_t reserved) noexcept {
        Ps2KeyboardState after = state_;
        Ps2Keyboard typed(after);
        const auto move = [&](Key key, bool down) { return typed.type(key, down, key_form::down, reserved); };
        if (move(Key::left_ctrl, true) && move(Key::left_alt, true) && move(Key::del, true) &&
            move(Key::del, false) && move(Key::left_alt, false) && move(Key::left_ctrl, false)) {
            state_ = after;
            return true;
        }
        return false;
    }

private:
    static constexpr Command first_command = Command::set_leds;
    // The byte that the keyboard sends in place of lost keys.
    static constexpr std::uint8_t overrun_set1 = 0xFF;
    static constexpr std::uint8_t overrun_set2 = 0x00;  // and set 3

    [[nodiscard]] static constexpr const auto& unasked(const Ps2KeyboardState& state) noexcept {
        return state.keys;
    }
    constexpr std::uint8_t send_unasked() noexcept { return state_.keys.pop(); }
    /// The host can request the byte before the keyboard's own request to resend.
    [[nodiscard]] static constexpr bool can_resend(std::uint8_t byte) noexcept {
        return byte != ps2::resend_request;
    }
    constexpr bool refuse() noexcept {
        answer({ps2::resend_request});
        return true;
    }

    [[nodiscard]] constexpr ps2::HeldKeys modifiers() const noexcept {
        return ps2::HeldKeys(state_.modifiers);
    }
    /// The keyboard has its own Num Lock state: the key toggles it, and setting the LED sets it.
    [[nodiscard]] constexpr bool num_lock() const noexcept {
        return ps2::Leds(state_.leds)[ps2::Leds::num_lock] != state_.num_lock_toggled;
    }

    /// Sends the codes of `key`. `form` is the form of a press now, if the key has forms and is not down.
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
            code = codes.break_code(key, before == key_form::up ? form : before, modifiers());
        } else if (before == key_form::up) {
            code = codes.make(key, form);
        } else if (before == form) {
            code = codes.repeat(key, form);
        } else {
            // The key is held and pressed again with other keys: the guest sees it released and pressed.
            code = codes.break_code(key, before, modifiers());
            code.append(codes.make(key, form));
        }
        if (!queue(code, reserved)) {
            return false;
        }
        state_.forms[index] = down ? form : key_form::up;
        return true;
    }

    constexpr bool queue(const ScanCode& code, std::size_t reserved) noexcept {
        // The last slot is reserved for the overrun code.
        if (code.count + 1U + reserved <= state_.keys.free() || code.count == 0) {
            return state_.keys.push(code.span());
        }
        const std::uint8_t overrun = state_.scan_code_set == 1 ? overrun_set1 : overrun_set2;
        if (state_.keys.empty() || state_.keys.back() != overrun) {
            state_.keys.push(overrun);
        }
        return false;
    }

    /// Resend (0xFE): the last byte again, then the rest of the answer.
    constexpr void send_again() noexcept {
        const auto rest = state_.replies;
        if (rest.free() == 0) {
            return;  // the answer to an earlier Resend has not been read
        }
        state_.replies.clear();
        answer({state_.last_sent});
        answer_bytes(rest.view());
    }

    /// The defaults of default_disable, set_default and reset. Only a reset changes the LEDs.
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
                wait_for_parameter(command);
                return answer({ps2::acknowledge});
            case Command::echo:
                return answer({std::to_underlying(Command::echo)});
            case Command::identify:  // a 101/102-key keyboard
                return answer({ps2::acknowledge, ps2::keyboard_id[0], ps2::keyboard_id[1]});
            case Command::enable:
                state_.scanning = true;
                state_.keys.clear();
                return answer({ps2::acknowledge});
            case Command::default_disable:
                set_defaults(false);
                return answer({ps2::acknowledge});
            case Command::set_default:
                set_defaults(state_.scanning);
                return answer({ps2::acknowledge});
            case Command::all_typematic:
            case Command::all_make_break:
            case Command::all_make:
            case Command::all_typematic_make_break:
                return answer({ps2::acknowledge});
            case Command::reset:
                set_defaults(true);
                state_.leds = 0;
                state_.num_lock_toggled = false;
                return answer({ps2::acknowledge, ps2::self_test_passed});
            default:
                refuse();
                return;
        }
    }

    /// Returns false if the command does not accept the value.
    constexpr bool parameter(Command command, std::uint8_t value) noexcept {
        switch (command) {
            case Command::set_leds:
                if (value > ps2::Leds::guest_mask()) {
                    return false;
                }
                state_.leds = value;
                state_.num_lock_toggled = false;
                break;
            case Command::scan_code_set:
                if (value > ps2::last_scan_code_set) {
                    return false;
                }
                if (value == 0) {
                    answer({ps2::acknowledge, state_.scan_code_set});
                    return true;
                }
                state_.scan_code_set = value;
                state_.keys.clear();
                break;
            case Command::set_typematic:
                if (value > ps2::Typematic::guest_mask()) {
                    return false;
                }
                state_.typematic = value;
                break;
            default:  // the lists of keys end at the next command
                wait_for_parameter(command);
                break;
        }
        answer({ps2::acknowledge});
        return true;
    }
};

}  // namespace vmsuperio::inline v0_2::detail
