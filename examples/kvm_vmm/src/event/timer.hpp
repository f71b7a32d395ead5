// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <ctime>
#include <functional>
#include <optional>

#include <vmsuperio/linux/unique_fd.hpp>

#include "event/event_manager.hpp"

namespace kvm_vmm {

/// Calls a function in the event loop at a time that may be set from any thread.
class Timer {
public:
    /// `clock` is the clock of the times for set(): CLOCK_MONOTONIC, or CLOCK_BOOTTIME, which includes the
    /// time for which the host is suspended. It must not be CLOCK_REALTIME, because setting that clock would
    /// move the deadline.
    Timer(EventManager& events, clockid_t clock, std::function<void()> on_expired);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    /// Sets the timer to `deadline`, or disarms it. It expires at once if that time has passed. Replaces the
    /// earlier time.
    void set(std::optional<std::chrono::nanoseconds> deadline) noexcept;
    /// Likewise, for a time that many nanoseconds from now on.
    void set_after(std::chrono::nanoseconds delay) noexcept;

private:
    EventManager& events_;
    clockid_t clock_;
    std::function<void()> on_expired_;
    vmsuperio::UniqueFd fd_;
    EventManager::SubscriptionId subscription_{};
};

}  // namespace kvm_vmm
