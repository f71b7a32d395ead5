// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <concepts>

#include <vmsuperio/detail/config.hpp>

namespace vmsuperio {

/// Where a device takes the time from. Every standard clock qualifies as it is
/// (`std::chrono::steady_clock`, `std::chrono::system_clock`).
///
/// `now()` returns a time point. Devices that keep a time of day (RTCs) take its epoch to be the Unix
/// epoch, in UTC; for all others only differences matter. Nothing breaks where `now()` goes backwards.
template <class C>
concept Clock = requires(const C& clock) {
    { clock.now().time_since_epoch() } -> std::convertible_to<std::chrono::nanoseconds>;
};

using SteadyClock = std::chrono::steady_clock;
using SystemClock = std::chrono::system_clock;
static_assert(Clock<SteadyClock> && Clock<SystemClock>);

/// A clock that stands still until it is moved: for tests, fuzzing and deterministic replay.
class ManualClock {
public:
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<ManualClock, duration>;
    static constexpr bool is_steady = false;

    constexpr ManualClock() = default;
    explicit constexpr ManualClock(duration since_epoch) : now_(since_epoch) {}

    [[nodiscard]] constexpr time_point now() const noexcept { return time_point(now_); }
    constexpr void set(duration since_epoch) noexcept { now_ = since_epoch; }
    constexpr void advance(duration by) noexcept { now_ += by; }

private:
    duration now_{};
};
static_assert(Clock<ManualClock>);

/// A clock that lives elsewhere, so that several devices and a test can share one. The clock referred to
/// must outlive every copy.
template <Clock C>
class ClockRef {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a clock is a clock
    constexpr ClockRef(const C& clock) noexcept : clock_(&clock) {}

    [[nodiscard]] constexpr auto now() const { return clock_->now(); }

private:
    const C* clock_;
};
static_assert(Clock<ClockRef<ManualClock>>);

/// The time that a clock shows, as nanoseconds since its epoch.
template <Clock C>
[[nodiscard]] constexpr std::chrono::nanoseconds time_since_epoch(const C& clock) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(clock.now().time_since_epoch());
}

}  // namespace vmsuperio
