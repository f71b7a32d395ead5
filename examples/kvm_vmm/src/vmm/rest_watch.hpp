// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>

#include "event/notifier.hpp"

namespace kvm_vmm {

/// Wakes the event loop when a CPU of a guest at rest returns to this program.
class RestWatch {
public:
    /// Readable once after start() if a CPU has returned.
    [[nodiscard]] int fd() const noexcept { return notifier_.fd(); }
    /// For the event loop: the guest is at rest.
    void start() noexcept { watching_.store(true); }
    /// For the event loop: it is not, or the notification was received.
    void stop() noexcept {
        watching_.store(false);
        notifier_.clear();
    }
    /// For the CPUs' threads: the guest made this CPU return from KVM_RUN.
    void on_return() noexcept {
        if (watching_.load(std::memory_order_relaxed) && watching_.exchange(false)) {
            notifier_.notify();
        }
    }

private:
    std::atomic<bool> watching_{false};
    Notifier notifier_;
};

}  // namespace kvm_vmm
