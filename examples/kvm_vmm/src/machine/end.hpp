// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "event/notifier.hpp"
#include "util/error.hpp"
#include "util/mutex.hpp"

namespace kvm_vmm {

/// Why a VM ended.
namespace end {
/// The guest powered off, or the user ended the VM.
struct PoweredOff {
    friend bool operator==(PoweredOff, PoweredOff) = default;
};
/// The guest reset its machine.
struct Reset {
    friend bool operator==(Reset, Reset) = default;
};
/// The guest reported a panic.
struct Panicked {
    friend bool operator==(Panicked, Panicked) = default;
};
/// A CPU of the guest shut down.
struct TripleFaulted {
    friend bool operator==(TripleFaulted, TripleFaulted) = default;
};
/// Every CPU halted with interrupts off.
struct Halted {
    friend bool operator==(Halted, Halted) = default;
};
/// The guest wrote this to the exit port.
struct ExitPort {
    std::uint8_t status;
    friend bool operator==(ExitPort, ExitPort) = default;
};
/// A signal to this process requested the end.
struct Signal {
    int number;
    friend bool operator==(Signal, Signal) = default;
};
/// Something failed.
struct Failed {
    ExitCode code;
    friend bool operator==(Failed, Failed) = default;
};
}  // namespace end
using EndReason = std::variant<end::PoweredOff, end::Reset, end::Panicked, end::TripleFaulted, end::Halted,
                               end::ExitPort, end::Signal, end::Failed>;

/// The exit status of a process that ends for this reason. Several reasons may have the same status; code
/// that must distinguish them uses the reason.
[[nodiscard]] inline int exit_status(const EndReason& reason) {
    struct Status {
        int operator()(end::PoweredOff) const { return static_cast<int>(ExitCode::power_off); }
        int operator()(end::Reset) const { return static_cast<int>(ExitCode::guest_reset); }
        int operator()(end::Panicked) const { return static_cast<int>(ExitCode::guest_panic); }
        int operator()(end::TripleFaulted) const { return static_cast<int>(ExitCode::triple_fault); }
        int operator()(end::Halted) const { return static_cast<int>(ExitCode::guest_halted); }
        int operator()(end::ExitPort port) const { return port.status; }
        int operator()(end::Signal signal) const { return static_cast<int>(ended_by(signal.number)); }
        int operator()(end::Failed failure) const { return static_cast<int>(failure.code); }
    };
    return std::visit(Status{}, reason);
}

/// For the log.
[[nodiscard]] inline std::string to_string(const EndReason& reason) {
    struct Text {
        std::string operator()(end::PoweredOff) const { return "the VM was powered off"; }
        std::string operator()(end::Reset) const { return "the guest reset its machine"; }
        std::string operator()(end::Panicked) const { return "the guest panicked"; }
        std::string operator()(end::TripleFaulted) const { return "a CPU shut down with a triple fault"; }
        std::string operator()(end::Halted) const { return "all CPUs are halted"; }
        std::string operator()(end::ExitPort port) const {
            return "the guest wrote " + std::to_string(port.status) + " to the exit port";
        }
        std::string operator()(end::Signal signal) const { return "signal " + std::to_string(signal.number); }
        std::string operator()(end::Failed) const { return "a failure"; }
    };
    return std::visit(Text{}, reason);
}

/// How a VM came to its end.
struct VmEnd {
    EndReason reason;
    std::string message;  ///< for the user; may be empty
};

/// Collects the requests to end the VM, from vCPU threads, devices and the event loop. The first request is
/// kept, but a request of the host replaces it.
class EndLatch {
public:
    void request(EndReason reason, std::string message = {}) {
        set({.reason = reason, .message = std::move(message)}, false);
    }

    /// A request of the host replaces an earlier one, because otherwise a guest that reboots continuously
    /// could not be ended.
    void request_by_host(EndReason reason, std::string message = {}) {
        requested_by_host_.store(true, std::memory_order_release);
        set({.reason = reason, .message = std::move(message)}, true);
    }

    [[nodiscard]] std::optional<VmEnd> get() const {
        const LockGuard lock(mutex_);
        return end_;
    }

    /// Whether get() has something, at the cost of one load.
    [[nodiscard]] bool requested() const noexcept { return requested_.load(std::memory_order_acquire); }

    /// Whether the host requested the end.
    [[nodiscard]] bool requested_by_host() const noexcept {
        return requested_by_host_.load(std::memory_order_acquire);
    }

    /// Readable from the first request on.
    [[nodiscard]] int fd() const noexcept { return notifier_.fd(); }

private:
    void set(VmEnd end, bool replace) {
        {
            const LockGuard lock(mutex_);
            if (end_ && !replace) {
                return;
            }
            end_ = std::move(end);
            requested_.store(true, std::memory_order_release);
        }
        notifier_.notify();
    }

    mutable Mutex mutex_;
    std::optional<VmEnd> end_ KVM_VMM_GUARDED_BY(mutex_);
    std::atomic<bool> requested_{false};
    std::atomic<bool> requested_by_host_{false};
    Notifier notifier_;
};

}  // namespace kvm_vmm
