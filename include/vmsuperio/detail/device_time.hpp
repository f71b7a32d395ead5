// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include <vmsuperio/clock.hpp>

namespace vmsuperio::detail {

inline constexpr std::int64_t ns_per_second = 1'000'000'000;

/// Sums that stop at the ends of the range: clocks and saved states may hold anything.
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

/// How a device keeps its place on a clock, as plain data. Nanoseconds.
struct DeviceTimeState {
    std::int64_t seen{};   ///< device time at the last look
    std::int64_t shift{};  ///< device time minus the clock's time

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        archive(self.seen, self.shift);
    }
    friend constexpr bool operator==(const DeviceTimeState&, const DeviceTimeState&) = default;
};

/// A clock as a crystal would tell it: the time runs on when the host's clock is set back, as the chip's
/// oscillator knows nothing of that. Where the host's clock jumps ahead (host suspend, restored snapshot),
/// so does the device's.
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
        return std::max(time, earliest);
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

/// The last whole second at or before `time`.
[[nodiscard]] constexpr std::int64_t floor_second(std::int64_t time) noexcept {
    const std::int64_t rest = time % ns_per_second;
    return time - rest - (rest < 0 ? ns_per_second : 0);
}

}  // namespace vmsuperio::detail
