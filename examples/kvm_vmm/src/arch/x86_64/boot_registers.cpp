// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/boot_registers.hpp"

namespace kvm_vmm {
namespace {

kvm_segment to_kvm(const BootSegment& segment) {
    kvm_segment out{};
    out.base = segment.base;
    out.limit = segment.limit;
    out.selector = segment.selector;
    out.type = segment.type;
    out.s = segment.code_or_data ? 1 : 0;
    out.present = segment.present ? 1 : 0;
    out.db = segment.default_32 ? 1 : 0;
    out.l = segment.long_mode ? 1 : 0;
    out.g = segment.granularity ? 1 : 0;
    return out;
}

kvm_dtable to_kvm(const BootDescriptorTable& table) {
    kvm_dtable out{};
    out.base = table.base;
    out.limit = table.limit;
    return out;
}

}  // namespace

void set_boot_registers(KvmVcpu& vcpu, const BootCpu& cpu) {
    kvm_sregs sregs = vcpu.sregs();  // keeps the values that the loader does not set, such as the APIC base
    sregs.cs = to_kvm(cpu.code);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = to_kvm(cpu.data);
    sregs.tr = to_kvm(cpu.task);
    sregs.gdt = to_kvm(cpu.gdt);
    sregs.idt = to_kvm(cpu.idt);
    sregs.cr0 = cpu.cr0;
    sregs.cr3 = cpu.cr3;
    sregs.cr4 = cpu.cr4;
    sregs.efer = cpu.efer;
    vcpu.set_sregs(sregs);

    kvm_regs regs{};
    regs.rip = cpu.rip;
    regs.rsp = cpu.rsp;
    regs.rbx = cpu.rbx;
    regs.rsi = cpu.rsi;
    regs.rflags = cpu.rflags;
    vcpu.set_regs(regs);
}

}  // namespace kvm_vmm
