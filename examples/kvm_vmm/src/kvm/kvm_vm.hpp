// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>

#include <vmsuperio/linux/unique_fd.hpp>

#include "kvm/kvm.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// One virtual machine of KVM: memory slots and interrupt controllers.
class KvmVm {
public:
    explicit KvmVm(const Kvm& kvm);

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// Maps every region of `memory`. `memory` must outlive the VM.
    void map_memory(const GuestMemory& memory);

    /// In-kernel PIC pair, IOAPIC and local APICs, and the PIT with its port 0x61. Call it before the first
    /// vCPU is created.
    void create_interrupt_controllers();

    /// Every write to the eventfd `event_fd` from now on is an edge on interrupt line `gsi`.
    void register_irqfd(int event_fd, std::uint32_t gsi);

    /// A write of `value`, 4 bytes wide, to guest physical address `address` adds 1 to the eventfd `event_fd`
    /// from now on, and does not return to this program.
    void register_ioeventfd(int event_fd, std::uint64_t address, std::uint32_t value);

    /// From now on writes of four bytes to `port` only signal `event_fd`, and do not return from KVM_RUN. Returns false
    /// if KVM refuses.
    [[nodiscard]] bool signal_port_writes(int event_fd, std::uint16_t port) noexcept;

    /// From now on KVM keeps writes of one byte to `port` in the ring of coalesced writes, if that has room. Returns
    /// false if KVM refuses.
    [[nodiscard]] bool coalesce_port(std::uint16_t port) noexcept;
    /// The same for writes of up to four bytes to a register in memory.
    [[nodiscard]] bool coalesce_register(std::uint64_t address) noexcept;
    /// Ends that. When this returns, the ring holds all writes that KVM kept.
    void stop_coalescing_port(std::uint16_t port) noexcept;

    /// Sets the level of interrupt line `gsi`.
    void set_irq_line(std::uint32_t gsi, bool level);

    /// A new vCPU's file descriptor.
    [[nodiscard]] vmsuperio::UniqueFd create_vcpu(unsigned id) const;

private:
    vmsuperio::UniqueFd fd_;
};

}  // namespace kvm_vmm
