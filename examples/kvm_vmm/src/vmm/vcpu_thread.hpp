// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <semaphore>
#include <thread>

#include "kvm/kvm_vcpu.hpp"
#include "vmm/exit_handler.hpp"
#include "vmm/vcpu_requests.hpp"

namespace kvm_vmm {

/// Runs one vCPU in a thread of its own until the exit handler ends it or it is stopped.
class VcpuThread {
public:
    /// `vcpu` and `handler` must outlive this object.
    VcpuThread(KvmVcpu& vcpu, ExitHandler& handler);
    /// Stops the vCPU.
    ~VcpuThread();
    VcpuThread(const VcpuThread&) = delete;
    VcpuThread& operator=(const VcpuThread&) = delete;

    void start();
    /// Requests the vCPU to stop, without waiting.
    void request_stop();
    /// Returns when the thread has ended.
    void join();
    /// Waits until the thread is at its end. Returns false if it is not after `timeout`.
    [[nodiscard]] bool wait_stopped(std::chrono::milliseconds timeout);

    /// Makes the thread leave the guest and check whether its CPU can ever run again without an external
    /// event.
    void request_halt_check();
    /// Makes the thread notify the guest that it was paused (see KvmVcpu::declare_pause).
    void request_pause_notice();
    /// The result of the last check: whether the CPU is halted with interrupts off, or was never started.
    [[nodiscard]] bool halted() const noexcept { return halted_.load(); }
    /// The CPU time that the thread has used, from which the caller detects whether the guest was active.
    [[nodiscard]] std::chrono::nanoseconds cpu_time() const noexcept;

private:
    void run();
    void on_resume();
    void kick();

    KvmVcpu& vcpu_;
    ExitHandler& handler_;
    VcpuRequests requests_;
    std::atomic<bool> halted_{false};
    /// The thread waits until `thread_` is complete: a device may send a request to the thread of its own
    /// vCPU.
    std::binary_semaphore started_{0};
    std::binary_semaphore stopped_{0};
    std::thread thread_;
};

}  // namespace kvm_vmm
