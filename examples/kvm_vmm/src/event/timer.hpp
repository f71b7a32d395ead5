// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <ctime>
#include <functional>
#include <optional>

#include "event/event_manager.hpp"
#include "util/file_descriptor.hpp"

namespace kvm_vmm {

/// Calls a function in the event loop at a time that may be set from any thread.
class Timer {
public:
    /// `clock` is what set() counts from: CLOCK_MONOTONIC, or CLOCK_BOOTTIME, which counts suspend of the
    /// host as well. Not CLOCK_REALTIME: a deadline must not move when somebody sets that.
    Timer(EventManager& events, clockid_t clock, std::function<void()> on_expired);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    /// Expires at `deadline`, at once where that is past; never with nothing. Replaces the time set before.
    void set(std::optional<std::chrono::nanoseconds> deadline) noexcept;

private:
    EventManager& events_;
    std::function<void()> on_expired_;
    FileDescriptor fd_;
    EventManager::SubscriptionId subscription_{};
};

}  // namespace kvm_vmm
