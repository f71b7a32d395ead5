// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/rtc/civil_date.hpp>
#include <vmsuperio/rtc/device_time.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

namespace vmsuperio::inline v0_2::detail {

/// Any type may be the events of a clock, because all its members are optional. It must not be a trigger or a
/// clock, so that arguments in a wrong order do not compile.
template <class E>
concept RtcEvents = !Trigger<E> && !Clock<E>;

/// "2024-06-11 13:45:30", of seconds since 1970-01-01 00:00.
[[nodiscard]] inline std::string date_text(std::int64_t seconds) {
    constexpr std::int64_t per_day = 86400;
    const CivilDate date = civil_from_days(floor_div(seconds, per_day));
    const std::int64_t of_day = floor_mod(seconds, per_day);
    const auto two_digits = [](std::int64_t value) {
        return (value < 10 ? "0" : "") + std::to_string(value);
    };
    return std::to_string(date.year) + "-" + two_digits(date.month) + "-" + two_digits(date.day) + " " +
           two_digits(of_day / 3600) + ":" + two_digits(of_day / 60 % 60) + ":" + two_digits(of_day % 60);
}

/// The common part of all real-time clocks: their construction, time and interrupt. The constructor of `Core`
/// takes the clock's time (ns since its epoch) and an `options_type`.
template <class Core, Trigger T, RtcEvents Events, Clock C>
class RtcShell : public DeviceShell<Core, Events, T> {
    using Shell = DeviceShell<Core, Events, T>;

public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using clock_type = C;
    using options_type = typename Core::options_type;

    constexpr RtcShell()
        requires std::default_initializable<T> && std::default_initializable<Events> &&
                 std::default_initializable<C>
        : RtcShell(T(), Events(), C()) {}
    explicit constexpr RtcShell(T interrupt)
        requires std::default_initializable<Events> && std::default_initializable<C>
        : RtcShell(std::move(interrupt), Events(), C()) {}
    constexpr RtcShell(T interrupt, Events events, C clock = C(), const options_type& options = {})
        : Shell(Core(time_since_epoch(clock).count(), options), std::move(events), std::move(interrupt)),
          clock_(std::move(clock)) {}
    /// Without events.
    explicit constexpr RtcShell(C clock)
        requires std::default_initializable<T> && std::default_initializable<Events>
        : RtcShell(T(), Events(), std::move(clock)) {}
    constexpr RtcShell(T interrupt, C clock)
        requires std::default_initializable<Events>
        : RtcShell(std::move(interrupt), Events(), std::move(clock)) {}
    constexpr RtcShell(T interrupt, C clock, const options_type& options)
        requires std::default_initializable<Events> && (!std::same_as<options_type, NoRtcOptions>)
        : RtcShell(std::move(interrupt), Events(), std::move(clock), options) {}

    /// The chip's reset line: see the core's `reset`. An interrupt that was due before is not reported any
    /// more.
    constexpr std::expected<void, error_type> reset() {
        this->core().reset(now());
        return this->update_interrupt();
    }

    /// Updates the device to its clock. Call it at the deadline; it is harmless at any other time.
    constexpr std::expected<void, error_type> tick() {
        this->core().advance(now());
        return this->update_interrupt();
    }

    /// The time on the device's clock at which the interrupt line will next rise without an access, or
    /// nothing if no event can raise it. Call it again after every access and every `tick()`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        return this->core().next_deadline();
    }

    /// How far the guest's clock is ahead of the device's clock, as of the last access.
    [[nodiscard]] constexpr std::chrono::seconds time_offset() const noexcept {
        return this->core().time_offset();
    }
    /// `host_errors().interrupt`: how often the interrupt trigger failed, whether or not a caller received
    /// the error.
    [[nodiscard]] constexpr std::uint64_t interrupt_errors() const noexcept {
        return this->host_errors().interrupt;
    }

    [[nodiscard]] constexpr const T& interrupt_evt() const noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr T& interrupt_evt() noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }
    [[nodiscard]] constexpr C& clock() noexcept { return clock_; }

protected:
    [[nodiscard]] constexpr std::int64_t now() const { return time_since_epoch(clock_).count(); }

    /// Implements `from_state` of `Device`. An error of the trigger is counted.
    template <class Device, class State>
    [[nodiscard]] static constexpr std::expected<Device, StateError> restored(const State& state, T interrupt,
                                                                              Events events, C clock,
                                                                              const options_type& options) {
        if (const auto valid = Core::validate(state, options); !valid) {
            return std::unexpected(valid.error());
        }
        Device device(std::move(interrupt), std::move(events), std::move(clock), options);
        device.core().restore(state);
        static_cast<void>(device.tick());
        return device;
    }

private:
    [[no_unique_address]] C clock_;
};

}  // namespace vmsuperio::inline v0_2::detail
