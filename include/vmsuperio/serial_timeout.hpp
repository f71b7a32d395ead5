// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstdint>
#include <expected>
#include <optional>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/serial.hpp>

namespace vmsuperio::inline v0_2 {

/// Drives the character timeout of one `Serial` by a clock, for a VMM that has timers. It starts no timer and
/// no thread, and has no state that must be saved: after a restore the time starts again. If the clock goes
/// backwards, the timeout occurs at once instead of delaying the guest's input.
///
/// Call `next_deadline` after every operation that may add or remove received bytes (input, guest accesses)
/// and after every `tick`, and call `tick` at that time. `TimedSerial` combines the port and its timeout in
/// one object.
template <Clock C = SteadyClock>
class SerialTimeout {
public:
    constexpr SerialTimeout()
        requires std::default_initializable<C>
        : SerialTimeout(C{}) {}
    /// A timeout that is not running.
    explicit constexpr SerialTimeout(C clock) : clock_(std::move(clock)) {}

    /// The time on the clock at which the timeout will occur, or nothing if no byte waits for it or if that
    /// time is past the clock's range.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::optional<std::chrono::nanoseconds> next_deadline(const Serial<T, E, W>& serial) {
        std::chrono::nanoseconds now{};
        return due(serial, now);
    }

    /// Causes the timeout if its time has passed. Call it at the deadline; it is harmless at any other time.
    /// Errors: those of `Serial::character_timeout`.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::expected<void, SerialError<typename T::error_type>> tick(Serial<T, E, W>& serial) {
        if (auto polled = poll(serial); !polled) {
            return std::unexpected(std::move(polled.error()));
        }
        return {};
    }

    /// Calls `tick`, and returns the time until the next deadline, or nothing if there is none.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::expected<std::optional<std::chrono::nanoseconds>, SerialError<typename T::error_type>>
    poll(Serial<T, E, W>& serial) {
        std::chrono::nanoseconds now{};
        const auto deadline = due(serial, now);
        if (!deadline) {
            return std::nullopt;
        }
        if (now < *deadline) {
            return *deadline - now;
        }
        running_ = false;
        if (auto timed_out = serial.character_timeout(); !timed_out) {
            return std::unexpected(std::move(timed_out.error()));
        }
        return std::nullopt;
    }

    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }

private:
    // The time of the timeout, or nothing if no byte waits for it or if that time is past the clock's range.
    // `now` is set to the clock's time if the clock was read.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::optional<std::chrono::nanoseconds> due(const Serial<T, E, W>& serial,
                                                          std::chrono::nanoseconds& now) {
        if (!serial.character_timeout_armed()) {
            running_ = false;
            return std::nullopt;
        }
        now = time_since_epoch(clock_);
        follow(serial.receive_activity(), now);
        if (now < started_) {
            return now;  // the clock was set back
        }
        const std::chrono::nanoseconds length = serial.character_timeout_length();
        if (started_ > std::chrono::nanoseconds::max() - length) {
            return std::nullopt;
        }
        return started_ + length;
    }
    // The time starts with each byte that arrives or is read.
    constexpr void follow(std::uint32_t activity, std::chrono::nanoseconds now) {
        if (!running_ || activity_ != activity) {
            running_ = true;
            activity_ = activity;
            started_ = now;
        }
    }

    C clock_;
    std::chrono::nanoseconds started_{};
    std::uint32_t activity_{0};
    bool running_{false};
};

/// A `Serial` with the clock of its character timeout. Unlike with other `Timed` devices, the time starts
/// when `next_deadline()` is called, so call it after every access. It sets `ReceiveTimeout::manual`. The
/// clock is not saved with the state; pass one again when you restore a port.
template <class Uart, Clock C = SteadyClock>
class TimedSerial : public Uart {
public:
    /// A UART with its timeout, which is set to ReceiveTimeout::manual.
    explicit constexpr TimedSerial(Uart uart, C clock = C{})
        : Uart(std::move(uart)), timeout_(std::move(clock)) {
        // A failure of the trigger is counted in `host_errors()`.
        static_cast<void>(this->set_receive_timeout(ReceiveTimeout::manual));
    }

    /// The time on the device's clock at which the interrupt line may next rise without an access, or nothing
    /// while no received byte waits for the timeout. Call it again after every access and every `tick()`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() {
        return timeout_.next_deadline(*this);
    }
    /// Updates the device to its clock. Call it at the deadline; it is harmless at any other time. Errors:
    /// `trigger`.
    constexpr std::expected<void, typename Uart::Error> tick() { return timeout_.tick(*this); }

    [[nodiscard]] constexpr const C& clock() const noexcept { return timeout_.clock(); }

private:
    SerialTimeout<C> timeout_;
};

}  // namespace vmsuperio::inline v0_2
