// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>
#include <utility>

#include <vmsuperio/detail/chrono.hpp>
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

namespace detail {

/// The sum, or the end of the range that it would pass: clocks and saved states may hold any time.
[[nodiscard]] constexpr std::int64_t saturating_add(std::int64_t a, std::int64_t b) noexcept {
    using Limits = std::numeric_limits<std::int64_t>;
    if (b > 0 && a > Limits::max() - b) {
        return Limits::max();
    }
    if (b < 0 && a < Limits::min() - b) {
        return Limits::min();
    }
    return a + b;
}

/// `count` times `factor` (positive), or the end of the range that it would pass.
template <std::integral Count>
[[nodiscard]] constexpr std::int64_t saturating_multiply(Count count, std::int64_t factor) noexcept {
    using Limits = std::numeric_limits<std::int64_t>;
    if (std::cmp_greater(count, Limits::max() / factor)) {
        return Limits::max();
    }
    if (std::cmp_less(count, Limits::min() / factor)) {
        return Limits::min();
    }
    return static_cast<std::int64_t>(count) * factor;
}

}  // namespace detail

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
    /// Stops at the ends of the range.
    constexpr void advance(duration by) noexcept {
        now_ = duration(detail::saturating_add(now_.count(), by.count()));
    }

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

/// The time that a clock shows, as nanoseconds since its epoch. A clock of coarser ticks may show times that
/// no 64-bit count of nanoseconds can hold: the nearest one that it can is returned.
template <Clock C>
[[nodiscard]] constexpr std::chrono::nanoseconds time_since_epoch(const C& clock) {
    const auto time = clock.now().time_since_epoch();
    using Duration = std::remove_cvref_t<decltype(time)>;
    if constexpr (requires { typename Duration::period; } && std::integral<typename Duration::rep>) {
        // The conversion to nanoseconds is exact, so that a tick is a whole number of them.
        using Factor = std::ratio_divide<typename Duration::period, std::nano>;
        static_assert(Factor::den == 1);
        return std::chrono::nanoseconds(detail::saturating_multiply(time.count(), Factor::num));
    } else {
        return std::chrono::nanoseconds(time);
    }
}

}  // namespace vmsuperio
