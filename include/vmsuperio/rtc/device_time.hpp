// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstdint>
#include <expected>
#include <limits>
#include <optional>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/rtc/civil_date.hpp>
#include <vmsuperio/state_error.hpp>

/// Device time: the time that a clock chip's own oscillator would have counted. It follows the clock of the
/// host with one exception: it continues if the host's clock is set back. If the host's clock jumps ahead
/// (host suspend, restored snapshot), device time follows.
///
/// All sums of times saturate, or are of unsigned distances: no clock and no saved state can make one
/// overflow. All times are in nanoseconds; the clock's are since its epoch.
namespace vmsuperio::inline v0_2 {

/// The relation of a device's time to a clock, as plain data, in nanoseconds.
struct DeviceTimeState {
    std::int64_t seen{};   ///< device time when the clock was last read
    std::int64_t shift{};  ///< device time minus the clock's time

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [seen, shift] = self;
        archive("seen", seen);
        archive("shift", shift);
    }
    friend constexpr bool operator==(const DeviceTimeState&, const DeviceTimeState&) = default;
};

namespace detail {

inline constexpr std::int64_t ns_per_second = 1'000'000'000;
/// The lower end of the range of device times, which leaves room for computations below it.
inline constexpr std::int64_t earliest_device_time = std::numeric_limits<std::int64_t>::min() / 2;

[[nodiscard]] constexpr std::int64_t not_too_early(std::int64_t time) noexcept {
    return time < earliest_device_time ? earliest_device_time : time;
}
/// Whether a device can have reached these times. When the clock was last read, it showed `seen - shift` or
/// less, and no clock shows a time before the smallest one.
[[nodiscard]] constexpr bool valid_time(const DeviceTimeState& time) noexcept {
    return time.seen >= earliest_device_time && time.shift >= 0 &&
           time.seen >= std::numeric_limits<std::int64_t>::min() + time.shift;
}
/// Updates device time to the clock's time. Returns device time, which never decreases.
constexpr std::int64_t look(DeviceTimeState& time, std::int64_t clock_time) noexcept {
    const std::int64_t now = not_too_early(saturating_add(clock_time, time.shift));
    if (now < time.seen) {
        time.shift = saturating_subtract(time.seen, clock_time);
    } else {
        time.seen = now;
    }
    return time.seen;
}
/// The clock's time at a device time, or nothing if that is out of range.
[[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> on_clock(const DeviceTimeState& time,
                                                                         std::int64_t device_time) noexcept {
    if (device_time == std::numeric_limits<std::int64_t>::max()) {
        return std::nullopt;
    }
    return std::chrono::nanoseconds(saturating_add(device_time, -time.shift));
}

/// The distance from a device time to a later one. It is correct for every pair, unlike a signed difference.
[[nodiscard]] constexpr std::uint64_t elapsed(std::int64_t from, std::int64_t to) noexcept {
    return static_cast<std::uint64_t>(to) - static_cast<std::uint64_t>(from);
}

/// `count` seconds after `start`, which must be a valid device time.
[[nodiscard]] constexpr std::int64_t seconds_after(std::int64_t start, std::uint64_t count) noexcept {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(start) +
                                     count * static_cast<std::uint64_t>(ns_per_second));
}

/// The last whole second at or before `time`, or the earliest time if that is out of range.
[[nodiscard]] constexpr std::int64_t floor_second(std::int64_t time) noexcept {
    return saturating_add(time, -floor_mod(time, ns_per_second));
}

/// The state of a clock core: its time, and the start of its current second.
template <class State>
concept KeepsSeconds = requires(State& state) {
    { state.second_start } -> std::same_as<std::int64_t&>;
    { state.time } -> std::same_as<DeviceTimeState&>;
};

/// Refuses times that no device can have.
template <KeepsSeconds State>
[[nodiscard]] constexpr std::expected<void, StateError> validate_time(const State& state) {
    if (!valid_time(state.time)) {
        return std::unexpected(StateError{"time"});
    }
    // In a valid state the current second has begun and has not ended.
    if (state.second_start > state.time.seen ||
        elapsed(state.second_start, state.time.seen) >= static_cast<std::uint64_t>(ns_per_second)) {
        return std::unexpected(StateError{"second_start"});
    }
    return {};
}

/// The options type of a clock without options.
struct NoRtcOptions {};

/// The base of the clocks' cores: holds the state and counts the seconds in it.
template <KeepsSeconds State>
class SecondsCore {
public:
    [[nodiscard]] constexpr const State& state() const noexcept { return state_; }
    /// Restores a saved state, which must be valid.
    constexpr void restore(const State& state) noexcept { state_ = state; }

protected:
    /// A chip that is switched on at `clock_time`, which is in general in the middle of a second.
    explicit constexpr SecondsCore(std::int64_t clock_time) noexcept {
        state_.time.seen = not_too_early(clock_time);
        state_.second_start = floor_second(state_.time.seen);
    }
    /// Updates device time to the clock's time. Returns device time, which never decreases.
    constexpr std::int64_t look(std::int64_t clock_time) noexcept {
        return detail::look(state_.time, clock_time);
    }
    /// The whole seconds from the start of the current second to the present device time.
    [[nodiscard]] constexpr std::uint64_t seconds_passed() const noexcept {
        return elapsed(state_.second_start, state_.time.seen) / ns_per_second;
    }
    /// Advances the current second by `count`. The new second must have begun.
    constexpr void count_seconds(std::uint64_t count) noexcept {
        state_.second_start = seconds_after(state_.second_start, count);
    }
    /// The device time `nanoseconds` after the start of the current second, or the latest device time.
    [[nodiscard]] constexpr std::int64_t from_second_start(std::int64_t nanoseconds) const noexcept {
        return saturating_add(state_.second_start, nanoseconds);
    }
    /// The clock's time at a device time, or nothing if that is out of range.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> on_clock(
        std::int64_t device_time) const noexcept {
        return detail::on_clock(state_.time, device_time);
    }
    /// The clock's time in seconds at the start of the current second.
    [[nodiscard]] constexpr std::int64_t clock_seconds() const noexcept {
        const auto time = on_clock(state_.second_start);
        return floor_div(time ? time->count() : 0, ns_per_second);
    }

    State state_;  // NOLINT(*-non-private-member-variables-in-classes): the cores work on it
};

}  // namespace detail
}  // namespace vmsuperio::inline v0_2
