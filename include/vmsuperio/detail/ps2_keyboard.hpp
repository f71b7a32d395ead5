// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>

#include <vmsuperio/detail/byte_queue.hpp>
#include <vmsuperio/detail/scan_codes.hpp>
#include <vmsuperio/keys.hpp>

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
    /// 14 bytes of scan codes and one of overrun. Deviation: a real keyboard has 16 and the overrun code.
    /// With the byte in the controller's output buffer ours makes 16 as well: Linux's i8042_flush() gives
    /// the controller up when it finds more than that, so a user who types before the driver loads would
    /// otherwise lose the keyboard.
    detail::ByteQueue<15> keys;

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        archive(self.scanning, self.scan_code_set, self.leds, self.typematic, self.waiting_for,
                self.last_sent, self.replies.bytes, self.replies.count, self.keys.bytes, self.keys.count);
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
public:
    static constexpr std::uint8_t overrun_code = 0x00;  // in set 1 it is 0xFF

    constexpr Ps2Keyboard() = default;
    explicit constexpr Ps2Keyboard(const Ps2KeyboardState& state) : state_(state) {
        state_.replies.normalize();
        state_.keys.normalize();
    }

    [[nodiscard]] constexpr const Ps2KeyboardState& state() const noexcept { return state_; }

    [[nodiscard]] static constexpr bool valid(const Ps2KeyboardState& state) noexcept {
        return state.scan_code_set >= 1 && state.scan_code_set <= 3 && state.leds <= 0x07 &&
               state.typematic <= 0x7F && (state.waiting_for == 0 || takes_parameter(state.waiting_for)) &&
               state.replies.valid() && state.keys.valid();
    }

    /// A byte from the host. A new command makes the keyboard forget what it still had to answer.
    constexpr void receive(std::uint8_t byte) noexcept {
        state_.replies.clear();
        const std::uint8_t command = std::exchange(state_.waiting_for, std::uint8_t{0});
        if (command != 0 && byte < first_command) {
            parameter(command, byte);
        } else {
            execute(byte);
        }
    }

    [[nodiscard]] constexpr bool has_byte() const noexcept {
        // While it waits for a parameter the keyboard sends no scan code.
        return !state_.replies.empty() || (state_.waiting_for == 0 && !state_.keys.empty());
    }
    /// The next byte for the host; `has_byte()` must hold.
    constexpr std::uint8_t send() noexcept {
        state_.last_sent = state_.replies.empty() ? state_.keys.pop() : state_.replies.pop();
        return state_.last_sent;
    }

    /// A key moves. False when nothing was sent because the buffer is full; the guest then finds an overrun
    /// code. A key unknown to the keyboard, and any while scanning is off, sends nothing and is no loss.
    constexpr bool key(Key key, bool down) noexcept {
        if (!state_.scanning) {
            return true;
        }
        const ScanCode code = scan_code(key, down, state_.scan_code_set);
        if (code.count <= free()) {
            state_.keys.push(code.span());
            return true;
        }
        const std::uint8_t overrun = state_.scan_code_set == 1 ? std::uint8_t{0xFF} : overrun_code;
        if (state_.keys.empty() || state_.keys.back() != overrun) {
            state_.keys.push(overrun);  // fits: the last slot is kept for it
        }
        return false;
    }

    /// Room for scan codes, in bytes. The last slot is kept for the overrun code.
    [[nodiscard]] constexpr std::size_t free() const noexcept {
        const std::size_t slots = state_.keys.free();
        return slots == 0 ? 0 : slots - 1;
    }

private:
    static constexpr std::uint8_t first_command = 0xED;
    static constexpr std::uint8_t acknowledge = 0xFA;
    static constexpr std::uint8_t resend = 0xFE;
    static constexpr std::uint8_t self_test_passed = 0xAA;

    [[nodiscard]] static constexpr bool takes_parameter(std::uint8_t command) noexcept {
        return command == 0xED || command == 0xF0 || command == 0xF3 || (command >= 0xFB && command <= 0xFD);
    }

    constexpr void reply(std::initializer_list<std::uint8_t> bytes) noexcept {
        state_.replies.push(std::span(bytes.begin(), bytes.size()));
    }

    /// The defaults of commands 0xF5, 0xF6 and 0xFF. The LEDs are left alone except by a reset.
    constexpr void set_defaults(bool scanning) noexcept {
        state_.scanning = scanning;
        state_.scan_code_set = 2;
        state_.typematic = Ps2KeyboardState{}.typematic;
        state_.keys.clear();
    }

    constexpr void execute(std::uint8_t command) noexcept {
        switch (command) {
            case 0xED:  // set the LEDs
            case 0xF0:  // select or ask for the scan code set
            case 0xF3:  // set the typematic rate and delay
            case 0xFB:  // set the type of single keys: typematic, ...
            case 0xFC:  // ... make/break, ...
            case 0xFD:  // ... make only
                state_.waiting_for = command;
                return reply({acknowledge});
            case 0xEE:  // echo
                return reply({0xEE});
            case 0xF2:  // identify: a 101/102-key keyboard
                return reply({acknowledge, 0xAB, 0x83});
            case 0xF4:  // enable
                state_.scanning = true;
                state_.keys.clear();
                return reply({acknowledge});
            case 0xF5:  // defaults and disable
                set_defaults(false);
                return reply({acknowledge});
            case 0xF6:  // defaults
                set_defaults(state_.scanning);
                return reply({acknowledge});
            case 0xF7:  // the type of all keys
            case 0xF8:
            case 0xF9:
            case 0xFA:
                return reply({acknowledge});
            case 0xFE:  // send the last byte again
                return reply({state_.last_sent});
            case 0xFF:  // reset and test
                set_defaults(true);
                state_.leds = 0;
                return reply({acknowledge, self_test_passed});
            default:
                return reply({resend});
        }
    }

    constexpr void parameter(std::uint8_t command, std::uint8_t value) noexcept {
        switch (command) {
            case 0xED:
                if (value > 0x07) {
                    break;
                }
                state_.leds = value;
                return reply({acknowledge});
            case 0xF0:
                if (value == 0) {
                    return reply({acknowledge, state_.scan_code_set});
                }
                if (value > 3) {
                    break;
                }
                state_.scan_code_set = value;
                state_.keys.clear();
                return reply({acknowledge});
            case 0xF3:
                if (value > 0x7F) {
                    break;
                }
                state_.typematic = value;
                return reply({acknowledge});
            default:  // 0xFB to 0xFD take a list of keys that ends at the next command
                state_.waiting_for = command;
                return reply({acknowledge});
        }
        // The host may send the parameter again.
        state_.waiting_for = command;
        reply({resend});
    }

    Ps2KeyboardState state_;
};

}  // namespace detail
}  // namespace vmsuperio
