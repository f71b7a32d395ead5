// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string>

#include <vmdevice/io_manager.hpp>

#include "kvm/kvm_vcpu.hpp"
#include "kvm/vcpu_exit.hpp"
#include "machine/end.hpp"
#include "observe/observer.hpp"
#include "vmm/coalesced_writes.hpp"
#include "vmm/rest_watch.hpp"

namespace kvm_vmm {

/// Answers the exits of all vCPUs: I/O goes to the devices, anything final ends the VM. Thread-safe.
class ExitHandler {
public:
    /// All must outlive this object.
    ExitHandler(vmdevice::IoManager& io, EndLatch& end, Observer& observer, RestWatch& rest)
        : io_(io), end_(end), observer_(observer), rest_(rest) {}

    /// Delivers coalesced writes before each exit from now on. Call it while no vCPU runs. `writes` must outlive
    /// this object.
    void set_coalesced_writes(CoalescedWrites& writes) noexcept { coalesced_ = &writes; }

    /// Call it after every return of KVM_RUN. Returns false if the vCPU must not run again.
    [[nodiscard]] bool handle(const KvmVcpu& vcpu, VcpuExit& exit);

    /// A vCPU thread failed.
    void fail(ExitCode code, const std::string& message) { end_.request(end::Failed{code}, message); }

private:
    bool on(const KvmVcpu& vcpu, exits::PortRead& exit);
    bool on(const KvmVcpu& vcpu, exits::PortWrite& exit);
    bool on(const KvmVcpu& vcpu, exits::MmioRead& exit);
    bool on(const KvmVcpu& vcpu, exits::MmioWrite& exit);
    bool on(const KvmVcpu& vcpu, exits::Resume& exit);
    bool on(const KvmVcpu& vcpu, exits::Halt& exit);
    bool on(const KvmVcpu& vcpu, exits::Shutdown& exit);
    bool on(const KvmVcpu& vcpu, exits::SystemEvent& exit);
    bool on(const KvmVcpu& vcpu, exits::FailEntry& exit);
    bool on(const KvmVcpu& vcpu, exits::InternalError& exit);
    bool on(const KvmVcpu& vcpu, exits::Unknown& exit);

    vmdevice::IoManager& io_;
    EndLatch& end_;
    Observer& observer_;
    RestWatch& rest_;
    CoalescedWrites* coalesced_{nullptr};
};

}  // namespace kvm_vmm
