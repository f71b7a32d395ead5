// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/timer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"

namespace kvm_vmm {

Timer::Timer(EventManager& events, clockid_t clock, std::function<void()> on_expired)
    : events_(events),
      clock_(clock),
      on_expired_(std::move(on_expired)),
      fd_(::timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK)) {
    if (!fd_) {
        throw VmmError(ExitCode::vmm_error, errno_message("timerfd_create failed", errno));
    }
    subscription_ = events_.subscribe(fd_.get(), EPOLLIN, "a timer", [this](std::uint32_t) {
        std::uint64_t expirations = 0;
        // There is nothing to read if the timer was set again since it expired.
        if (::read(fd_.get(), &expirations, sizeof(expirations)) > 0) {
            on_expired_();
        }
    });
}

Timer::~Timer() { events_.remove(subscription_); }

void Timer::set(std::optional<std::chrono::nanoseconds> deadline) noexcept {
    constexpr std::int64_t second = 1'000'000'000;
    itimerspec time{};
    if (deadline) {
        // A time of 0 would disarm the timer.
        const std::int64_t at = std::max<std::int64_t>(deadline->count(), 1);
        time.it_value.tv_sec = at / second;
        time.it_value.tv_nsec = at % second;
    }
    ::timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &time, nullptr);
}

void Timer::set_after(std::chrono::nanoseconds delay) noexcept {
    timespec now{};
    ::clock_gettime(clock_, &now);
    set(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec) + delay);
}

}  // namespace kvm_vmm
