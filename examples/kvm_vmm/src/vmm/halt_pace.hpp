// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <chrono>
#include <utility>

namespace kvm_vmm {

/// Decides when the event loop looks at the CPUs again, and when it has them checked for a halt.
///
/// A CPU that halts with interrupts off stays halted, but KVM does not report that. So the event loop looks at the
/// time that the CPUs have used, and has them checked once they have been active and then used none. While the guest
/// is busy, a look follows after `shortest`. A guest that uses less than an eighth of the time doubles the interval at each look, up to
/// `longest`; from `rest_after` on the guest is at rest, until a CPU returns to this program, which the caller reports by wake().
/// So an idle guest costs a wake-up every few seconds. One that is at rest and then halts for good without any
/// access to a device before is detected within `longest`, any other one within a few times the interval before rest.
class HaltPace {
public:
    using Time = std::chrono::nanoseconds;
    static constexpr Time shortest = std::chrono::milliseconds(20);
    static constexpr Time rest_after = std::chrono::milliseconds(320);
    static constexpr Time longest = std::chrono::milliseconds(10'240);
    /// After this time a CPU that is not busy has answered the check.
    static constexpr Time answer_time = std::chrono::milliseconds(2);

    struct Look {
        bool check;  ///< the CPUs are to be checked now
        Time next;   ///< the time until the next look
    };

    /// A look takes place. `cpu_time`: what the CPUs have used so far.
    [[nodiscard]] Look look(Time cpu_time) noexcept {
        const Time used = cpu_time - std::exchange(seen_, cpu_time);
        const Time elapsed = std::exchange(next_, interval_);
        if (std::exchange(answering_, false)) {
            // The check itself takes CPU time, which must not cause another one.
            due_ = used >= check_cost;
            return {.check = false, .next = next_};
        }
        if (used == Time{} && due_) {
            due_ = false;
            answering_ = true;
            return {.check = true, .next = next_ = answer_time};
        }
        if (used >= elapsed / 8) {
            wake();
        } else {
            interval_ = std::min(2 * interval_, longest);
            resting_ = resting_ || interval_ >= rest_after;
        }
        due_ = due_ || used != Time{};
        // A guest that was active in a long interval may be idle again by now: that is seen soon, but not looked for twice.
        settling_ = used != Time{} && !settling_;
        next_ = settling_ ? shortest : interval_;
        return {.check = false, .next = next_};
    }

    /// The guest is active: the next look has to follow after `shortest`.
    void wake() noexcept {
        interval_ = shortest;
        next_ = shortest;
        resting_ = false;
    }

    /// Whether the caller has to report with wake() that a CPU returns.
    [[nodiscard]] bool resting() const noexcept { return resting_; }

private:
    // Less than this is the cost of a check.
    static constexpr Time check_cost = std::chrono::microseconds(500);

    Time seen_{};
    Time interval_{shortest};
    Time next_{shortest};
    bool due_{true};
    bool answering_{false};
    bool settling_{false};
    bool resting_{false};
};

}  // namespace kvm_vmm
