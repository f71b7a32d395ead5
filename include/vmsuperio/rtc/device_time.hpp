// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/rtc/civil_date.hpp>
#include <vmsuperio/trigger.hpp>

namespace vmsuperio::detail {

/// Any type may be the events of a clock, as all their members are optional. So that arguments in a wrong
/// order do not compile, it must be none of the other things that a clock is given.
template <class E>
concept RtcEvents = !Trigger<E> && !Clock<E>;

inline constexpr std::int64_t ns_per_second = 1'000'000'000;

/// How a device keeps its place on a clock, as plain data. Nanoseconds.
struct DeviceTimeState {
    std::int64_t seen{};   ///< device time at the last look
    std::int64_t shift{};  ///< device time minus the clock's time

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [seen, shift] = self;
        archive("seen", seen);
        archive("shift", shift);
    }
    friend constexpr bool operator==(const DeviceTimeState&, const DeviceTimeState&) = default;
};

/// A clock as the chip's own oscillator would keep it: device time runs on when the host's clock is set
/// back. Where the host's clock jumps ahead (host suspend, restored snapshot), device time follows.
///
/// All sums of times saturate, or are of unsigned distances: no clock and no saved state can make one
/// overflow.
template <Clock C>
class DeviceTime {
public:
    /// The range of device times leaves room below for a second or two of arithmetic.
    static constexpr std::int64_t earliest = std::numeric_limits<std::int64_t>::min() / 2;

    explicit constexpr DeviceTime(C clock) : clock_(std::move(clock)) { state_.seen = clamp(clock_ns()); }
    /// `state` must be valid.
    constexpr DeviceTime(const DeviceTimeState& state, C clock) : clock_(std::move(clock)), state_(state) {}

    [[nodiscard]] static constexpr bool valid(const DeviceTimeState& state) noexcept {
        return state.seen >= earliest && state.shift >= 0;
    }
    [[nodiscard]] constexpr const DeviceTimeState& state() const noexcept { return state_; }
    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }
    [[nodiscard]] constexpr C& clock() noexcept { return clock_; }

    /// The device time at the last look.
    [[nodiscard]] constexpr std::int64_t seen() const noexcept { return state_.seen; }

    /// Looks at the clock. Never less than before.
    constexpr std::int64_t now() {
        const std::int64_t time = clamp(saturating_add(clock_ns(), state_.shift));
        if (time < state_.seen) {
            state_.shift = saturating_add(state_.shift, saturating_add(state_.seen, -time));
        } else {
            state_.seen = time;
        }
        return state_.seen;
    }

    /// A device time in the clock's own terms; nothing where that is out of range.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> on_clock(
        std::int64_t device_time) const noexcept {
        if (device_time == std::numeric_limits<std::int64_t>::max()) {
            return std::nullopt;
        }
        return std::chrono::nanoseconds(saturating_add(device_time, -state_.shift));
    }

private:
    [[nodiscard]] constexpr std::int64_t clock_ns() const { return time_since_epoch(clock_).count(); }
    [[nodiscard]] static constexpr std::int64_t clamp(std::int64_t time) noexcept {
        return time < earliest ? earliest : time;
    }

    C clock_;
    DeviceTimeState state_;
};

/// From a device time to a later one. Right for every pair, which a signed difference is not.
[[nodiscard]] constexpr std::uint64_t elapsed(std::int64_t from, std::int64_t to) noexcept {
    return static_cast<std::uint64_t>(to) - static_cast<std::uint64_t>(from);
}

/// `count` seconds after `start`, where that is known to be a device time.
[[nodiscard]] constexpr std::int64_t seconds_after(std::int64_t start, std::uint64_t count) noexcept {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(start) +
                                     count * static_cast<std::uint64_t>(ns_per_second));
}

/// The last whole second at or before `time`; the first time of all where that is out of range.
[[nodiscard]] constexpr std::int64_t floor_second(std::int64_t time) noexcept {
    return saturating_add(time, -floor_mod(time, ns_per_second));
}

}  // namespace vmsuperio::detail
