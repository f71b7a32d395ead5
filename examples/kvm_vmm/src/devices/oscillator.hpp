// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <concepts>
#include <ctime>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is not in <ctime>

#include <vmsuperio/clock.hpp>

namespace kvm_vmm {

/// The clock of the host that cannot be set, and that includes the time of suspends (CLOCK_BOOTTIME).
class BootClock {
public:
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<BootClock>;
    static constexpr bool is_steady = true;
    static constexpr clockid_t id = CLOCK_BOOTTIME;

    [[nodiscard]] static time_point now() noexcept {
        timespec time{};
        ::clock_gettime(id, &time);
        return time_point(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
    }
};
static_assert(vmsuperio::Clock<BootClock>);

/// The oscillator of a clock chip that was set to the host's time once: it shows the wall time of its
/// construction plus the time that has passed since then. It does not depend on later settings of the host's
/// clock, so that no alarm is late and no second is lost or counted twice.
template <vmsuperio::Clock Wall = vmsuperio::SystemClock, vmsuperio::Clock Steady = BootClock>
class Oscillator {
public:
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<Oscillator>;
    static constexpr bool is_steady = true;

    Oscillator()
        requires(std::default_initializable<Wall> && std::default_initializable<Steady>)
        : Oscillator(Wall{}, Steady{}) {}
    Oscillator(Wall wall, Steady steady)
        : steady_(std::move(steady)),
          ahead_(vmsuperio::time_since_epoch(wall) - vmsuperio::time_since_epoch(steady_)) {}

    /// UTC, since the Unix epoch.
    [[nodiscard]] time_point now() const { return time_point(vmsuperio::time_since_epoch(steady_) + ahead_); }

    /// Converts a time of this clock to the steady clock's time, for a timer.
    [[nodiscard]] duration on_steady(duration time) const noexcept { return time - ahead_; }

private:
    Steady steady_;
    duration ahead_;
};
static_assert(vmsuperio::Clock<Oscillator<>>);

}  // namespace kvm_vmm
