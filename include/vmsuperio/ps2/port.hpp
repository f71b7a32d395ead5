// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include <vmsuperio/registers/ps2.hpp>

namespace vmsuperio::inline v0_2::detail {

/// A device's end of a PS/2 cable: the common part of keyboard and mouse. It works on the device's part of
/// the saved state and has no state of its own.
///
/// The rules: answers are sent before unsolicited bytes, and while a command waits for its parameter the
/// device sends no unsolicited bytes. A byte from the host makes the device drop the rest of its answer; a
/// command instead of a parameter ends the command before it. Resend (0xFE) is an exception: it does not end
/// a command that waits for its parameter.
///
/// `Device` derives from this. It has `first_command`, below which a byte can only be a parameter;
/// `unasked(state)`, the queue of its unsolicited bytes, and `send_unasked()`, which removes a byte from it;
/// `can_resend(byte)`, whether the host can request a sent byte again, and `send_again()`;
/// `execute(command)`; `parameter(command, value)`, which returns false if the command does not accept the
/// value; and `refuse()`, which answers an invalid byte and returns whether the host may try again.
template <class Device, class State, class Command>
class Ps2Port {
public:
    explicit constexpr Ps2Port(State& state) noexcept : state_(state) {}

    [[nodiscard]] static constexpr bool has_byte(const State& state) noexcept {
        return !state.replies.empty() || (state.waiting_for == 0 && !Device::unasked(state).empty());
    }
    [[nodiscard]] constexpr bool has_byte() const noexcept { return has_byte(state_); }
    /// The next byte for the host; `has_byte()` must hold.
    constexpr std::uint8_t send() noexcept {
        const std::uint8_t byte = state_.replies.empty() ? device().send_unasked() : state_.replies.pop();
        if (Device::can_resend(byte)) {
            state_.last_sent = byte;
        }
        return byte;
    }

    /// A byte from the host.
    constexpr void receive(std::uint8_t byte) noexcept {
        if (Command{byte} == Command::resend) {
            return device().send_again();
        }
        state_.replies.clear();
        const std::uint8_t waiting = std::exchange(state_.waiting_for, std::uint8_t{0});
        if (waiting == 0 || Command{byte} >= Device::first_command) {
            device().execute(Command{byte});
        } else if (!device().parameter(Command{waiting}, byte) && device().refuse()) {
            state_.waiting_for = waiting;
        }
    }

protected:
    // Not an overload: the compiler would look for a conversion from each list to a span.
    constexpr void answer_bytes(std::span<const std::uint8_t> bytes) noexcept { state_.replies.push(bytes); }
    constexpr void answer(std::initializer_list<std::uint8_t> bytes) noexcept {
        answer_bytes({bytes.begin(), bytes.size()});
    }
    constexpr void wait_for_parameter(Command command) noexcept {
        state_.waiting_for = std::to_underlying(command);
    }

    State& state_;

private:
    [[nodiscard]] constexpr Device& device() noexcept { return static_cast<Device&>(*this); }
};

}  // namespace vmsuperio::inline v0_2::detail
