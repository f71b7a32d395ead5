// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>
#include <utility>

#include <vmsuperio/detail/chrono.hpp>

namespace vmsuperio::inline v0_2 {

/// The source of a device's time. Every standard clock satisfies this concept (`std::chrono::steady_clock`,
/// `std::chrono::system_clock`).
///
/// `now()` returns a time point. Devices that keep a time of day (RTCs) assume that its epoch is the Unix
/// epoch, in UTC; for all others only differences matter. `now()` may go backwards.
template <class C>
concept Clock = requires(const C& clock) {
    { clock.now().time_since_epoch() } -> std::convertible_to<std::chrono::nanoseconds>;
};

namespace detail {

/// The sum, saturated at the ends of the range, because clocks and saved states may contain any time.
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

/// The difference, or the end of the range that it would exceed.
[[nodiscard]] constexpr std::int64_t saturating_subtract(std::int64_t a, std::int64_t b) noexcept {
    using Limits = std::numeric_limits<std::int64_t>;
    // The smallest number cannot be negated.
    return b == Limits::min() ? saturating_add(saturating_add(a, Limits::max()), 1) : saturating_add(a, -b);
}

/// `count` times `factor` (positive), saturated at the ends of the range.
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

/// A clock that cannot be set: `std::chrono::steady_clock`.
using SteadyClock = std::chrono::steady_clock;
/// The host's wall clock: `std::chrono::system_clock`.
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
    /// A clock that shows `since_epoch` until it is set or advanced.
    explicit constexpr ManualClock(duration since_epoch) : now_(since_epoch) {}

    [[nodiscard]] constexpr time_point now() const noexcept { return time_point(now_); }
    /// Sets the time; it may go back.
    constexpr void set(duration since_epoch) noexcept { now_ = since_epoch; }
    /// Stops at the ends of the range.
    constexpr void advance(duration by) noexcept {
        now_ = duration(detail::saturating_add(now_.count(), by.count()));
    }

private:
    duration now_{};
};
static_assert(Clock<ManualClock>);

/// A reference to a clock, so that several devices and a test can share one. The clock must outlive every
/// copy of the reference.
template <Clock C>
class ClockRef {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a clock is a clock
    /// Refers to a clock, which must outlive this object.
    constexpr ClockRef(const C& clock) noexcept : clock_(&clock) {}

    [[nodiscard]] constexpr auto now() const { return clock_->now(); }

private:
    const C* clock_;
};
static_assert(Clock<ClockRef<ManualClock>>);

/// The time of a clock, as nanoseconds since its epoch. A clock with coarser ticks may have times that a
/// 64-bit count of nanoseconds cannot represent; then the nearest representable one is returned.
template <Clock C>
[[nodiscard]] constexpr std::chrono::nanoseconds time_since_epoch(const C& clock) {
    const auto time = clock.now().time_since_epoch();
    using Duration = std::remove_cvref_t<decltype(time)>;
    if constexpr (requires { typename Duration::period; } && std::integral<typename Duration::rep>) {
        // A tick must be a whole number of nanoseconds, so that the conversion is exact.
        using Factor = std::ratio_divide<typename Duration::period, std::nano>;
        static_assert(Factor::den == 1);
        return std::chrono::nanoseconds(detail::saturating_multiply(time.count(), Factor::num));
    } else {
        return std::chrono::nanoseconds(time);
    }
}

}  // namespace vmsuperio::inline v0_2
