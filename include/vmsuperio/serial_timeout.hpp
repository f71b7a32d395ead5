// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <cstdint>
#include <expected>
#include <optional>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/serial.hpp>

namespace vmsuperio {

/// Drives the character timeout of one `Serial` by a clock, for a VMM that has timers.
///
/// Call `poll` after anything that may have moved received bytes (input enqueued, guest accesses) and when
/// the time it returned is over; it starts no timer and no thread of its own. It keeps nothing that must be
/// saved: after a restore the time starts anew. A clock that goes backwards lets the timeout pass at once,
/// rather than hold the guest's input.
template <Clock C = SteadyClock>
class SerialTimeout {
public:
    constexpr SerialTimeout()
        requires std::default_initializable<C>
        : SerialTimeout(C{}) {}
    explicit constexpr SerialTimeout(C clock) : clock_(std::move(clock)) {}

    /// Lets the timeout happen if its time is over. Returns how long until it will be, or nothing where no
    /// byte waits for it. Errors: those of `Serial::character_timeout`.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::expected<std::optional<std::chrono::nanoseconds>, SerialError<typename T::error_type>>
    poll(Serial<T, E, W>& serial) {
        using std::chrono::nanoseconds;
        if (!serial.character_timeout_armed()) {
            running_ = false;
            return std::nullopt;
        }
        const nanoseconds now = time_since_epoch(clock_);
        if (!running_ || activity_ != serial.receive_activity()) {
            running_ = true;
            activity_ = serial.receive_activity();
            started_ = now;
        }
        const nanoseconds length = serial.character_timeout_length();
        if (now >= started_) {
            // Two's complement distance: a clock may start far below zero.
            const auto elapsed =
                static_cast<std::uint64_t>(now.count()) - static_cast<std::uint64_t>(started_.count());
            if (elapsed < static_cast<std::uint64_t>(length.count())) {
                return length - nanoseconds(static_cast<std::int64_t>(elapsed));
            }
        }
        running_ = false;
        if (auto timed_out = serial.character_timeout(); !timed_out) {
            return std::unexpected(std::move(timed_out.error()));
        }
        return std::nullopt;
    }

private:
    C clock_;
    std::chrono::nanoseconds started_{};
    std::uint32_t activity_{0};
    bool running_{false};
};

}  // namespace vmsuperio
