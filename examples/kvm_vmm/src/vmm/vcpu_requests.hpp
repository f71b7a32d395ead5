// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <utility>

namespace kvm_vmm {

/// Requests of other threads to a vCPU's thread while that is in the guest.
///
/// The requesting thread sets a flag and then makes the vCPU leave the guest (`request_exit`); the vCPU's
/// thread clears the exit request first and reads the flags after that. In this order no request is lost: one
/// that arrives in between is either seen at once, or its exit request is still set when the thread enters
/// the guest.
class VcpuRequests {
public:
    struct Taken {
        bool halt_check;
        bool pause_notice;
        bool any;  ///< including a request to stop
    };

    template <class RequestExit>
    void request_stop(RequestExit&& request_exit) {
        request(stop, std::forward<RequestExit>(request_exit));
    }
    template <class RequestExit>
    void request_halt_check(RequestExit&& request_exit) {
        request(halt_check, std::forward<RequestExit>(request_exit));
    }
    template <class RequestExit>
    void request_pause_notice(RequestExit&& request_exit) {
        request(pause_notice, std::forward<RequestExit>(request_exit));
    }

    /// take() does not clear a request to stop.
    [[nodiscard]] bool stop_requested() const noexcept { return (flags_.load() & stop) != 0; }

    /// Called in the vCPU's thread each time it has left the guest for a reason other than the guest's.
    template <class ClearExit>
    [[nodiscard]] Taken take(ClearExit&& clear_exit_request) {
        std::forward<ClearExit>(clear_exit_request)();
        const unsigned flags = flags_.fetch_and(stop);
        return {.halt_check = (flags & halt_check) != 0,
                .pause_notice = (flags & pause_notice) != 0,
                .any = flags != 0};
    }

private:
    static constexpr unsigned stop = 1;
    static constexpr unsigned halt_check = 2;
    static constexpr unsigned pause_notice = 4;

    template <class RequestExit>
    void request(unsigned flag, RequestExit&& request_exit) {
        flags_.fetch_or(flag);
        std::forward<RequestExit>(request_exit)();
    }

    std::atomic<unsigned> flags_{0};
};

}  // namespace kvm_vmm
