// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <linux/kvm.h>
#include <optional>
#include <span>
#include <string>

#include <vmsuperio/linux/unique_fd.hpp>

#include "kvm/coalesced_ring.hpp"
#include "kvm/kvm.hpp"
#include "kvm/kvm_vm.hpp"
#include "kvm/vcpu_exit.hpp"

namespace kvm_vmm {

/// One vCPU. All functions except `request_exit` may be called only by the thread that runs it.
class KvmVcpu {
public:
    KvmVcpu(const Kvm& kvm, const KvmVm& vm, unsigned id);
    ~KvmVcpu();
    KvmVcpu(const KvmVcpu&) = delete;
    KvmVcpu& operator=(const KvmVcpu&) = delete;
    KvmVcpu(KvmVcpu&&) = delete;
    KvmVcpu& operator=(KvmVcpu&&) = delete;

    [[nodiscard]] unsigned id() const noexcept { return id_; }

    /// Runs the guest until it needs something. A signal or `request_exit` ends it with `Resume`. Throws
    /// VmmError if KVM itself fails.
    [[nodiscard]] VcpuExit run();

    /// The VM's ring of coalesced writes, which all its vCPUs map; nothing if KVM cannot coalesce writes to ports.
    /// It must not be used longer than this object.
    [[nodiscard]] std::optional<CoalescedRing> coalesced_ring() const noexcept;

    /// Makes this or the next `run` return at once. May be called from any thread; also send the vCPU's
    /// thread a signal, so that it leaves guest mode.
    void request_exit() noexcept;
    void clear_exit_request() noexcept;

    /// Notifies the guest that it has not run for a while, so that its watchdogs do not take that for a
    /// lockup. Call it before the guest runs again. It has no effect if the guest does not use KVM's clock.
    void declare_pause() noexcept;

    [[nodiscard]] kvm_regs regs() const;
    void set_regs(const kvm_regs& regs);
    [[nodiscard]] kvm_sregs sregs() const;
    void set_sregs(const kvm_sregs& sregs);
    void set_cpuid(std::span<const kvm_cpuid_entry2> entries);
    /// The frequency of the CPU's time stamp counter; 0 if KVM does not know it.
    [[nodiscard]] std::uint32_t tsc_khz() const noexcept;
    void set_msrs(std::span<const kvm_msr_entry> entries);
    void set_fpu(const kvm_fpu& fpu);
    [[nodiscard]] kvm_lapic_state lapic() const;
    void set_lapic(const kvm_lapic_state& lapic);
    [[nodiscard]] kvm_mp_state mp_state() const;

    /// The position of the CPU, for reports. Never throws.
    [[nodiscard]] std::string describe() const noexcept;

private:
    vmsuperio::UniqueFd fd_;
    kvm_run* run_{nullptr};
    std::size_t run_size_;
    std::optional<std::size_t> ring_offset_;
    unsigned id_;
};

}  // namespace kvm_vmm
