// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <chrono>
#include <utility>

namespace kvm_vmm {

/// Limits the rate at which a guest that reboots is started again. A guest that reboots at once, repeatedly,
/// would use a whole CPU of the host and fill its logs, so each restart in a row waits twice as long as the
/// one before it.
class RestartPace {
public:
    static constexpr std::chrono::milliseconds first_delay{100};
    static constexpr std::chrono::milliseconds longest_delay{30'000};
    /// A guest that ran for this long has not failed at its start, so the next wait is the shortest again.
    static constexpr std::chrono::seconds settled{10};

    /// Call it when a guest reboots after it `ran` for that time: returns how long to wait before the next
    /// start.
    [[nodiscard]] std::chrono::milliseconds next(std::chrono::nanoseconds ran) noexcept {
        if (ran >= settled) {
            in_a_row_ = 0;
            delay_ = first_delay;
        }
        ++in_a_row_;
        return std::exchange(delay_, std::min(2 * delay_, longest_delay));
    }

    /// Restarts since the guest last ran for as long as `settled`.
    [[nodiscard]] unsigned in_a_row() const noexcept { return in_a_row_; }

private:
    std::chrono::milliseconds delay_{first_delay};
    unsigned in_a_row_{0};
};

}  // namespace kvm_vmm
