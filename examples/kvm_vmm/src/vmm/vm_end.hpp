// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "error.hpp"
#include "event/notifier.hpp"

namespace kvm_vmm {

/// How a VM came to its end.
struct VmEnd {
    ExitCode code;
    std::string message;  ///< for the user; empty where there is nothing to say
    int signal{0};        ///< of this process, that asked for the end; 0 for none
};

/// Where anything that ends the VM says so: vCPU threads, devices, the event loop. The first one counts.
class EndLatch {
public:
    void request(ExitCode code, std::string message = {}) {
        set({.code = code, .message = std::move(message)}, false);
    }

    /// The host's own wish goes before what the guest did at the same time: a guest that reboots all the time
    /// could not be ended otherwise.
    void request_by_host(ExitCode code, std::string message = {}, int signal = 0) {
        requested_by_host_.store(true, std::memory_order_release);
        set({.code = code, .message = std::move(message), .signal = signal}, true);
    }

    [[nodiscard]] std::optional<VmEnd> get() const {
        const std::lock_guard lock(mutex_);
        return end_;
    }

    /// Whether get() has something, at the cost of one load.
    [[nodiscard]] bool requested() const noexcept { return requested_.load(std::memory_order_acquire); }

    /// Whether the host asked for the end.
    [[nodiscard]] bool requested_by_host() const noexcept {
        return requested_by_host_.load(std::memory_order_acquire);
    }

    /// Readable from the first request on.
    [[nodiscard]] int fd() const noexcept { return notifier_.fd(); }

private:
    void set(VmEnd end, bool replace) {
        {
            const std::lock_guard lock(mutex_);
            if (end_ && !replace) {
                return;
            }
            end_ = std::move(end);
            requested_.store(true, std::memory_order_release);
        }
        notifier_.notify();
    }

    mutable std::mutex mutex_;
    std::optional<VmEnd> end_;
    std::atomic<bool> requested_{false};
    std::atomic<bool> requested_by_host_{false};
    Notifier notifier_;
};

}  // namespace kvm_vmm
