// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include <vmdevice/io_manager.hpp>

#include "arch/x86_64/boot_cpu.hpp"
#include "arch/x86_64/boot_registers.hpp"
#include "arch/x86_64/cpu_setup.hpp"
#include "catch.hpp"
#include "event/event_manager.hpp"
#include "kvm/kvm.hpp"
#include "kvm/kvm_vcpu.hpp"
#include "kvm/kvm_vm.hpp"
#include "machine/end.hpp"
#include "memory/guest_memory.hpp"
#include "vmm/exit_handler.hpp"
#include "vmm/rest_watch.hpp"
#include "vmm/vcpu_thread.hpp"

namespace kvm_vmm::test {

/// The reason why guests cannot run here, for the message of the skipped test; nothing if they can.
inline std::optional<std::string> no_kvm_reason() {
    try {
        const Kvm kvm;
        return std::nullopt;
    } catch (const VmmError& error) {
        return error.what();
    }
}

/// A VM with one CPU, 4 MiB of RAM and the devices that the test puts on its bus.
class SmallGuest {
public:
    static constexpr std::uint64_t real_mode_entry = 0x1000;
    static constexpr std::uint64_t long_mode_entry = 0x10'0000;

    SmallGuest() : memory_(4ULL << 20U), vm_(kvm_), handler_(io_, end_, observer_, rest_) {
        vm_.map_memory(memory_);
        vm_.create_interrupt_controllers();
        vcpu_.emplace(kvm_, vm_, 0U);
        set_up_cpu(*vcpu_, kvm_, 1);
    }

    GuestMemory& memory() { return memory_; }
    KvmVm& vm() { return vm_; }
    KvmVcpu& vcpu() { return *vcpu_; }
    EndLatch& end() { return end_; }
    vmdevice::IoManager& io() { return io_; }
    ExitHandler& handler() { return handler_; }
    Observer& observer() { return observer_; }

    /// Loads 16-bit code at 0x1000; all segments are 0 and interrupts are off.
    void load_real_mode(const std::vector<std::uint8_t>& code) {
        REQUIRE(memory_.write(real_mode_entry, code));
        kvm_sregs sregs = vcpu_->sregs();
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        vcpu_->set_sregs(sregs);
        kvm_regs regs{};
        regs.rip = real_mode_entry;
        regs.rsp = 0x8000;
        regs.rflags = 2;
        vcpu_->set_regs(regs);
    }

    /// Loads 64-bit code at 1 MiB; the first 4 GiB are mapped to themselves.
    void load_long_mode(const std::vector<std::uint8_t>& code) {
        REQUIRE(memory_.write(long_mode_entry, code));
        const EntryPoint entry{
            .protocol = EntryPoint::Protocol::linux64, .rip = long_mode_entry, .boot_info = 0x7000};
        set_boot_registers(*vcpu_, setup_boot_cpu(memory_, entry));
    }

    /// Runs the guest in this thread until the VM ends.
    VmEnd run() {
        while (!end_.get()) {
            VcpuExit exit = vcpu_->run();
            if (!handler_.handle(*vcpu_, exit)) {
                break;
            }
        }
        REQUIRE(end_.get().has_value());
        return *end_.get();
    }

private:
    Kvm kvm_;
    GuestMemory memory_;
    KvmVm vm_;
    EndLatch end_;
    vmdevice::IoManager io_;
    Observer observer_;
    RestWatch rest_;
    ExitHandler handler_;
    std::optional<KvmVcpu> vcpu_;
};

}  // namespace kvm_vmm::test

/// Skips the test case if guests cannot run.
#define REQUIRE_KVM()                                             \
    do {                                                          \
        if (const auto reason = kvm_vmm::test::no_kvm_reason()) { \
            VMSUPERIO_SKIP(reason->c_str());                      \
        }                                                         \
    } while (false)
