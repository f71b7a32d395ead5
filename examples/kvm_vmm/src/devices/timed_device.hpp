// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include <vmsuperio/timed.hpp>

#include "event/timer.hpp"

namespace kvm_vmm {

/// Keeps a timer set to the next deadline of a device that has `next_deadline()`, `tick()` and `clock()`,
/// after every access. A clock with `on_steady` (see Oscillator) converts the deadlines to the timer's time;
/// any other clock must be that of the timer.
template <vmsuperio::Timed Device, class DeadlineTimer = Timer>
class TimedDevice {
public:
    /// `timer` runs on the steady clock of the device's clock and must outlive the device. When it expires,
    /// call expired() with the device's lock held.
    TimedDevice(Device device, DeadlineTimer& timer) : device_(std::move(device)), timer_(&timer) {}

    [[nodiscard]] Device& device() noexcept { return device_; }
    [[nodiscard]] const Device& device() const noexcept { return device_; }

    std::uint8_t read(std::uint8_t offset) {
        const std::uint8_t value = device_.read(offset);
        update_timer();
        return value;
    }
    auto write(std::uint8_t offset, std::uint8_t value) {
        auto result = device_.write(offset, value);
        update_timer();
        return result;
    }
    void expired() {
        (void)device_.tick();
        deadline_.reset();  // the timer has expired: if the deadline is the same, it has to be set again
        update_timer();
    }

private:
    void update_timer() {
        const auto deadline = device_.next_deadline();
        if (deadline != deadline_) {
            deadline_ = deadline;
            timer_->set(deadline ? std::optional(on_timer(*deadline)) : std::nullopt);
        }
    }
    [[nodiscard]] std::chrono::nanoseconds on_timer(std::chrono::nanoseconds deadline) const {
        if constexpr (requires { device_.clock().on_steady(deadline); }) {
            return device_.clock().on_steady(deadline);
        } else {
            return deadline;
        }
    }

    Device device_;
    DeadlineTimer* timer_;
    std::optional<std::chrono::nanoseconds> deadline_;
};

}  // namespace kvm_vmm
