// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <thread>

#include "kvm/kvm_vcpu.hpp"
#include "vmm/exit_handler.hpp"

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
    /// Asks the vCPU to leave the guest, without waiting.
    void request_stop();
    /// Returns when the thread has ended.
    void join();

private:
    void run();

    KvmVcpu& vcpu_;
    ExitHandler& handler_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace kvm_vmm
