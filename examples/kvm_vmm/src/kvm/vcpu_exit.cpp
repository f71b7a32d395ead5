// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm/vcpu_exit.hpp"

#include <algorithm>
#include <array>
#include <linux/kvm.h>

namespace kvm_vmm {
namespace {

constexpr std::array<std::string_view, 38> reason_names{"UNKNOWN",
                                                        "EXCEPTION",
                                                        "IO",
                                                        "HYPERCALL",
                                                        "DEBUG",
                                                        "HLT",
                                                        "MMIO",
                                                        "IRQ_WINDOW_OPEN",
                                                        "SHUTDOWN",
                                                        "FAIL_ENTRY",
                                                        "INTR",
                                                        "SET_TPR",
                                                        "TPR_ACCESS",
                                                        "S390_SIEIC",
                                                        "S390_RESET",
                                                        "DCR",
                                                        "NMI",
                                                        "INTERNAL_ERROR",
                                                        "OSI",
                                                        "PAPR_HCALL",
                                                        "S390_UCONTROL",
                                                        "WATCHDOG",
                                                        "S390_TSCH",
                                                        "EPR",
                                                        "SYSTEM_EVENT",
                                                        "S390_STSI",
                                                        "IOAPIC_EOI",
                                                        "HYPERV",
                                                        "ARM_NISV",
                                                        "X86_RDMSR",
                                                        "X86_WRMSR",
                                                        "DIRTY_RING_FULL",
                                                        "AP_RESET_HOLD",
                                                        "X86_BUS_LOCK",
                                                        "XEN",
                                                        "RISCV_SBI",
                                                        "RISCV_CSR",
                                                        "NOTIFY"};

VcpuExit decode_port(kvm_run& run, std::size_t run_size) {
    const std::size_t width = run.io.size;
    const std::size_t bytes = width * run.io.count;
    if (width == 0 || run.io.data_offset > run_size || bytes > run_size - run.io.data_offset) {
        return exits::Unknown{run.exit_reason, "IO with data outside the shared page"};
    }
    const std::span<std::uint8_t> data{reinterpret_cast<std::uint8_t*>(&run) + run.io.data_offset, bytes};
    if (run.io.direction == KVM_EXIT_IO_IN) {
        return exits::PortRead{run.io.port, width, data};
    }
    return exits::PortWrite{run.io.port, width, data};
}

VcpuExit decode_mmio(kvm_run& run) {
    const std::span<std::uint8_t> data{run.mmio.data,
                                       std::min<std::size_t>(run.mmio.len, sizeof(run.mmio.data))};
    if (run.mmio.is_write != 0) {
        return exits::MmioWrite{run.mmio.phys_addr, data};
    }
    return exits::MmioRead{run.mmio.phys_addr, data};
}

exits::SystemEvent decode_system_event(const kvm_run& run) {
    using Kind = exits::SystemEvent::Kind;
    const std::uint32_t type = run.system_event.type;
    switch (type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
            return {Kind::power_off, type};
        case KVM_SYSTEM_EVENT_RESET:
            return {Kind::reset, type};
        case KVM_SYSTEM_EVENT_CRASH:
            return {Kind::crash, type};
        default:
            return {Kind::other, type};
    }
}

exits::InternalError decode_internal_error(const kvm_run& run) {
    const std::size_t count = std::min<std::size_t>(run.internal.ndata, std::size(run.internal.data));
    return {run.internal.suberror, {run.internal.data, run.internal.data + count}};
}

}  // namespace

std::string_view exit_reason_name(std::uint32_t reason) noexcept {
    return reason < reason_names.size() ? reason_names[reason] : "an exit newer than this program";
}

VcpuExit decode_exit(kvm_run& run, std::size_t run_size) {
    switch (run.exit_reason) {
        case KVM_EXIT_IO:
            return decode_port(run, run_size);
        case KVM_EXIT_MMIO:
            return decode_mmio(run);
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN:
        case KVM_EXIT_SET_TPR:
            return exits::Resume{};
        case KVM_EXIT_HLT:
            return exits::Halt{};
        case KVM_EXIT_SHUTDOWN:
            return exits::Shutdown{};
        case KVM_EXIT_SYSTEM_EVENT:
            return decode_system_event(run);
        case KVM_EXIT_FAIL_ENTRY:
            return exits::FailEntry{run.fail_entry.hardware_entry_failure_reason};
        case KVM_EXIT_INTERNAL_ERROR:
            return decode_internal_error(run);
        default:
            return exits::Unknown{run.exit_reason, exit_reason_name(run.exit_reason)};
    }
}

}  // namespace kvm_vmm
