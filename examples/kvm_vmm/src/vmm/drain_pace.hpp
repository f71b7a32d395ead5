// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

namespace kvm_vmm {

/// Decides when the event loop looks at the ring of coalesced writes (see CoalescedWrites) again.
///
/// Nearly all guests access the device soon after they have written to it, and deliver their writes by that. The
/// event loop's looks are for the others: for example an interrupt handler that fills the FIFO and halts, which waits
/// for the interrupt that the delivery causes. After a look that has delivered writes the next one follows after
/// `shortest`, and each that finds nothing doubles that time. At `longest` there are no looks of its own any more,
/// only those with the check for a halt, which takes place anyway: an idle guest causes no wake-up by this.
///
/// Writes of a CPU that is about to deliver them itself must not count, because otherwise a guest that prints all
/// the time would cause thousands of useless wake-ups. So if CPUs have delivered writes since the last look,
/// the writes found now are left to them for `shortest`, once.
class DrainPace {
public:
    static constexpr std::chrono::microseconds shortest{200};
    static constexpr std::chrono::milliseconds longest{20};

    enum class Action : std::uint8_t { none, deliver };
    struct Look {
        Action action;
        /// The time until the next look; nothing if the looks with the check for a halt are enough.
        std::optional<std::chrono::microseconds> next;
    };

    /// A look takes place. `found`: the ring is not empty. `delivered_by_cpus`: how often the CPUs have
    /// delivered writes so far.
    [[nodiscard]] Look look(bool found, std::uint64_t delivered_by_cpus) noexcept {
        const bool by_cpus = delivered_by_cpus != delivered_by_cpus_;
        delivered_by_cpus_ = delivered_by_cpus;
        if (found && !by_cpus) {
            left_to_cpus_ = false;
            interval_ = shortest;
            return {.action = Action::deliver, .next = interval_};
        }
        if (found && !left_to_cpus_) {
            left_to_cpus_ = true;
            return {.action = Action::none, .next = shortest};
        }
        left_to_cpus_ = false;
        interval_ = std::min<std::chrono::microseconds>(2 * interval_, longest);
        return {.action = found ? Action::deliver : Action::none,
                .next = interval_ < longest ? std::optional(interval_) : std::nullopt};
    }

private:
    std::chrono::microseconds interval_{longest};
    std::uint64_t delivered_by_cpus_{0};
    bool left_to_cpus_{false};
};

}  // namespace kvm_vmm
