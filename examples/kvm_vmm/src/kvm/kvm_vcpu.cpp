// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm/kvm_vcpu.hpp"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <sys/mman.h>

#include "kvm/counted_list.hpp"
#include "kvm/kvm_ioctl.hpp"

namespace kvm_vmm {

KvmVcpu::KvmVcpu(const Kvm& kvm, const KvmVm& vm, unsigned id)
    : fd_(vm.create_vcpu(id)),
      run_size_(kvm.vcpu_mmap_size()),
      ring_offset_(kvm.coalesced_ring_offset()),
      id_(id) {
    void* const page = ::mmap(nullptr, run_size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    if (page == MAP_FAILED) {
        throw VmmError(ExitCode::vmm_error, errno_message("cannot map the shared page of a vCPU", errno));
    }
    run_ = static_cast<kvm_run*>(page);
}

KvmVcpu::~KvmVcpu() { ::munmap(run_, run_size_); }

VcpuExit KvmVcpu::run() {
    if (::ioctl(fd_.get(), KVM_RUN, 0) < 0) {
        // EAGAIN: an application processor that has not been started yet was woken.
        if (errno == EINTR || errno == EAGAIN) {
            return exits::Resume{};
        }
        throw VmmError(
            ExitCode::unhandled_exit,
            errno_message("KVM_RUN failed on CPU " + std::to_string(id_), errno) + "; " + describe());
    }
    return decode_exit(*run_, run_size_);
}

std::optional<CoalescedRing> KvmVcpu::coalesced_ring() const noexcept {
    if (!ring_offset_ || *ring_offset_ > run_size_ || run_size_ - *ring_offset_ < CoalescedRing::page_size) {
        return std::nullopt;
    }
    auto* const page = reinterpret_cast<std::uint8_t*>(run_) + *ring_offset_;
    return CoalescedRing(*reinterpret_cast<CoalescedRing::Page*>(page));
}

void KvmVcpu::request_exit() noexcept {
    std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_release);
}

void KvmVcpu::clear_exit_request() noexcept {
    // The strongest order, because later reads of the caller must not be moved before this.
    std::atomic_ref(run_->immediate_exit).store(0, std::memory_order_seq_cst);
}

void KvmVcpu::declare_pause() noexcept {
    // EINVAL: the guest has not registered a clock (KVM's API document, KVM_KVMCLOCK_CTRL).
    (void)::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0);
}

kvm_regs KvmVcpu::regs() const {
    kvm_regs regs{};
    kvm_ioctl(fd_.get(), KVM_GET_REGS, &regs, "KVM_GET_REGS");
    return regs;
}

void KvmVcpu::set_regs(const kvm_regs& regs) { kvm_ioctl(fd_.get(), KVM_SET_REGS, &regs, "KVM_SET_REGS"); }

kvm_sregs KvmVcpu::sregs() const {
    kvm_sregs sregs{};
    kvm_ioctl(fd_.get(), KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
    return sregs;
}

void KvmVcpu::set_sregs(const kvm_sregs& sregs) {
    kvm_ioctl(fd_.get(), KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}

void KvmVcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries) {
    CountedList list(entries);
    kvm_ioctl(fd_.get(), list_request(KVM_SET_CPUID2), list.data(), "KVM_SET_CPUID2");
}

std::uint32_t KvmVcpu::tsc_khz() const noexcept {
    const int khz = ::ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0);
    return khz > 0 ? static_cast<std::uint32_t>(khz) : 0;
}

void KvmVcpu::set_msrs(std::span<const kvm_msr_entry> entries) {
    CountedList list(entries);
    const int written = kvm_ioctl(fd_.get(), list_request(KVM_SET_MSRS), list.data(), "KVM_SET_MSRS");
    // KVM stops at the first MSR that it refuses and returns the number of those before it.
    if (static_cast<std::size_t>(written) != entries.size()) {
        std::array<char, 64> text{};
        std::snprintf(text.data(), text.size(), "KVM refused MSR 0x%x",
                      entries[static_cast<std::size_t>(written)].index);
        throw VmmError(ExitCode::vmm_error, text.data());
    }
}

void KvmVcpu::set_fpu(const kvm_fpu& fpu) { kvm_ioctl(fd_.get(), KVM_SET_FPU, &fpu, "KVM_SET_FPU"); }

kvm_lapic_state KvmVcpu::lapic() const {
    kvm_lapic_state lapic{};
    kvm_ioctl(fd_.get(), KVM_GET_LAPIC, &lapic, "KVM_GET_LAPIC");
    return lapic;
}

void KvmVcpu::set_lapic(const kvm_lapic_state& lapic) {
    kvm_ioctl(fd_.get(), KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC");
}

kvm_mp_state KvmVcpu::mp_state() const {
    kvm_mp_state state{};
    kvm_ioctl(fd_.get(), KVM_GET_MP_STATE, &state, "KVM_GET_MP_STATE");
    return state;
}

std::string KvmVcpu::describe() const noexcept {
    try {
        const kvm_regs r = regs();
        const kvm_sregs s = sregs();
        std::array<char, 320> text{};
        std::snprintf(text.data(), text.size(),
                      "CPU %u at rip=0x%" PRIx64 " rsp=0x%" PRIx64 " rflags=0x%" PRIx64
                      " cs=0x%x cr0=0x%" PRIx64 " cr2=0x%" PRIx64 " cr3=0x%" PRIx64 " cr4=0x%" PRIx64
                      " efer=0x%" PRIx64,
                      id_, static_cast<std::uint64_t>(r.rip), static_cast<std::uint64_t>(r.rsp),
                      static_cast<std::uint64_t>(r.rflags), s.cs.selector, static_cast<std::uint64_t>(s.cr0),
                      static_cast<std::uint64_t>(s.cr2), static_cast<std::uint64_t>(s.cr3),
                      static_cast<std::uint64_t>(s.cr4), static_cast<std::uint64_t>(s.efer));
        return text.data();
    } catch (...) {
        return {};
    }
}

}  // namespace kvm_vmm
