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

/// Drives the character timeout of one `Serial` by a clock, for a VMM that has timers. It starts no timer
/// and no thread of its own, and keeps nothing that must be saved: after a restore the time starts again. A
/// clock that goes backwards lets the timeout pass at once, rather than hold the guest's input.
///
/// Ask `next_deadline` after anything that may have moved received bytes (input enqueued, guest accesses) and
/// after every `tick`, and call `tick` at that time. See `TimedSerial` for the two in one object.
template <Clock C = SteadyClock>
class SerialTimeout {
public:
    constexpr SerialTimeout()
        requires std::default_initializable<C>
        : SerialTimeout(C{}) {}
    explicit constexpr SerialTimeout(C clock) : clock_(std::move(clock)) {}

    /// When the timeout will happen, on the clock's own time line; nothing where no byte waits for it, or
    /// where the clock ends before.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::optional<std::chrono::nanoseconds> next_deadline(const Serial<T, E, W>& serial) {
        std::chrono::nanoseconds now{};
        return due(serial, now);
    }

    /// Lets the timeout happen if its time is over. To be called at the deadline; harmless at any other time.
    /// Errors: those of `Serial::character_timeout`.
    template <Trigger T, SerialEvents E, Writer W>
    constexpr std::expected<void, SerialError<typename T::error_type>> tick(Serial<T, E, W>& serial) {
        if (auto polled = poll(serial); !polled) {
            return std::unexpected(std::move(polled.error()));
        }
        return {};
    }

    /// `tick`, and how long until the next deadline, or nothing where there is none.
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
    // When the timeout happens; nothing where no byte waits for it, or where the clock ends before. `now` is
    // what the clock shows, where it was asked.
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
    // The time starts with each byte that comes or goes.
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

/// A `Serial` with the clock of its character timeout. Unlike the devices that are `Timed`, it learns that
/// the line became idle when it is asked: call `next_deadline()` after every access, and the time starts
/// then. It sets `ReceiveTimeout::manual`; the clock is not saved with the state, and a port that was
/// restored is given one again.
template <class Uart, Clock C = SteadyClock>
class TimedSerial : public Uart {
public:
    explicit constexpr TimedSerial(Uart uart, C clock = C{})
        : Uart(std::move(uart)), timeout_(std::move(clock)) {
        // A trigger that fails here is counted in `host_errors()`.
        static_cast<void>(this->set_receive_timeout(ReceiveTimeout::manual));
    }

    /// When the interrupt line may next rise by itself, on the clock's own time line; nothing while no
    /// received byte waits for the timeout. To be asked again after every access and every `tick()`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() {
        return timeout_.next_deadline(*this);
    }
    /// Brings the device up to date with its clock. To be called at the deadline; harmless at any other time.
    /// Errors: `trigger`.
    constexpr std::expected<void, typename Uart::Error> tick() { return timeout_.tick(*this); }

    [[nodiscard]] constexpr const C& clock() const noexcept { return timeout_.clock(); }

private:
    SerialTimeout<C> timeout_;
};

}  // namespace vmsuperio
