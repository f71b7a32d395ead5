// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/cpu_setup.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

namespace kvm_vmm {
namespace {

constexpr std::uint32_t bit(unsigned position) { return 1U << position; }

// Replaces bits [low, high] of `reg`.
constexpr void set_bits(std::uint32_t& reg, unsigned low, unsigned high, std::uint32_t value) {
    const std::uint32_t mask = (0xFFFF'FFFFU >> (31U - (high - low))) << low;
    reg = (reg & ~mask) | ((value << low) & mask);
}

// Leaf 0xB and 0x1F: one level for threads, one for cores.
void set_extended_topology(kvm_cpuid_entry2& entry, unsigned index, unsigned cpus, unsigned id_bits) {
    constexpr std::uint32_t type_thread = 1;
    constexpr std::uint32_t type_core = 2;
    entry.edx = index;
    switch (entry.index) {
        case 0:
            entry.eax = 0;
            entry.ebx = 1;
            entry.ecx = type_thread << 8U;
            break;
        case 1:
            entry.eax = id_bits;
            entry.ebx = cpus;
            entry.ecx = (type_core << 8U) | 1U;
            break;
        default:
            entry.eax = 0;
            entry.ebx = 0;
            entry.ecx = entry.index;
            break;
    }
}

void set_topology(kvm_cpuid_entry2& entry, unsigned index, unsigned cpus, unsigned id_bits, bool amd) {
    const std::uint32_t ids = 1U << id_bits;
    switch (entry.function) {
        case 0x1:
            set_bits(entry.ebx, 24, 31, index);
            set_bits(entry.ebx, 16, 23, std::min(ids, 255U));
            entry.edx = cpus > 1 ? (entry.edx | bit(28)) : (entry.edx & ~bit(28));
            entry.ecx |= bit(31);  // a hypervisor is present
            break;
        case 0x4:
            if ((entry.eax & 0x1FU) != 0) {
                const std::uint32_t level = (entry.eax >> 5U) & 7U;
                set_bits(entry.eax, 14, 25, level >= 3 ? ids - 1 : 0);
                set_bits(entry.eax, 26, 31, std::min(ids - 1, 63U));
            }
            break;
        case 0xB:
        case 0x1F:
            set_extended_topology(entry, index, cpus, id_bits);
            break;
        case 0x8000'0001:
            if (amd) {
                entry.ecx = cpus > 1 ? (entry.ecx | bit(1)) : (entry.ecx & ~bit(1));
            }
            break;
        case 0x8000'0008:
            if (amd) {
                set_bits(entry.ecx, 0, 7, cpus - 1);
                set_bits(entry.ecx, 12, 15, id_bits);
            }
            break;
        case 0x8000'001D:
            if ((entry.eax & 0x1FU) != 0) {
                const std::uint32_t level = (entry.eax >> 5U) & 7U;
                set_bits(entry.eax, 14, 25, level >= 3 ? cpus - 1 : 0);
            }
            break;
        case 0x8000'001E:
            entry.eax = index;
            entry.ebx = index & 0xFFU;  // core id; one thread a core
            entry.ecx = 0;              // one node
            break;
        default:
            break;
    }
}

// Leaf 0xB numbers its levels by index; KVM may offer fewer than the two that are filled in.
void ensure_extended_topology(std::vector<kvm_cpuid_entry2>& entries) {
    for (const std::uint32_t level : {0U, 1U, 2U}) {
        const bool present = std::ranges::any_of(
            entries, [level](const kvm_cpuid_entry2& e) { return e.function == 0xB && e.index == level; });
        if (!present) {
            kvm_cpuid_entry2 entry{};
            entry.function = 0xB;
            entry.index = level;
            entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
            entries.push_back(entry);
        }
    }
}

// The frequencies of the TSC and of the local APIC's timer, from which guests that do not use KVM's clock need not
// measure them. The leaf is VMware's proposal of 2008 to all hypervisors ("CPUID usage for interaction between
// Hypervisors and Linux"). FreeBSD reads it under KVM too. It is present only if it stays true, which is
// if the host's TSC is invariant (leaf 0x8000'0007, EDX bit 8).
void add_timing_leaf(std::vector<kvm_cpuid_entry2>& entries, std::uint32_t tsc_khz) {
    constexpr std::uint32_t first_leaf = 0x4000'0000;
    constexpr std::uint32_t timing_leaf = 0x4000'0010;
    constexpr std::uint32_t local_apic_khz = 1'000'000;  // KVM's local APIC counts nanoseconds
    const auto find = [&entries](std::uint32_t function) {
        return std::ranges::find(entries, function, &kvm_cpuid_entry2::function);
    };
    const auto power = find(0x8000'0007);
    const auto first = find(first_leaf);
    const bool invariant = power != entries.end() && (power->edx & bit(8)) != 0;
    if (tsc_khz == 0 || !invariant || first == entries.end() || find(timing_leaf) != entries.end()) {
        return;
    }
    // KVM reports 0 in this place for its one further leaf, 0x4000'0001, in old versions.
    first->eax = std::max(first->eax, timing_leaf);
    kvm_cpuid_entry2 timing{};
    timing.function = timing_leaf;
    timing.eax = tsc_khz;
    timing.ebx = local_apic_khz;
    entries.push_back(timing);
}

void set_local_apic(KvmVcpu& vcpu) {
    kvm_lapic_state lapic = vcpu.lapic();
    if (vcpu.id() == 0) {
        // SDM vol. 3A 11.5.1: on the boot CPU, LINT0 receives the PIC's interrupts (ExtINT) and LINT1 the
        // NMI.
        constexpr std::size_t lvt_lint0 = 0x350;
        constexpr std::size_t lvt_lint1 = 0x360;
        constexpr std::uint32_t delivery_nmi = 4U << 8U;
        constexpr std::uint32_t delivery_extint = 7U << 8U;
        std::memcpy(lapic.regs + lvt_lint0, &delivery_extint, sizeof(delivery_extint));
        std::memcpy(lapic.regs + lvt_lint1, &delivery_nmi, sizeof(delivery_nmi));
    }
    // Also for the other CPUs: KVM finds a new CPU by its APIC id only after its map has been rebuilt, which
    // this call causes. Without it, an INIT to such a CPU is lost unless the guest enables its own local APIC
    // before.
    vcpu.set_lapic(lapic);
}

constexpr kvm_msr_entry msr(std::uint32_t index, std::uint64_t value) {
    kvm_msr_entry entry{};
    entry.index = index;
    entry.data = value;
    return entry;
}

}  // namespace

std::vector<kvm_cpuid_entry2> guest_cpuid(std::vector<kvm_cpuid_entry2> supported, unsigned index,
                                          unsigned cpus, bool tsc_deadline_timer, std::uint32_t tsc_khz) {
    const auto id_bits = static_cast<unsigned>(std::bit_width(cpus - 1U));
    bool amd = false;
    bool has_extended_topology = false;
    for (const kvm_cpuid_entry2& entry : supported) {
        if (entry.function == 0) {
            // "AuthenticAMD" or "HygonGenuine": EBX holds the first four letters.
            amd = entry.ebx == 0x6874'7541 || entry.ebx == 0x6F67'7948;
            has_extended_topology = entry.eax >= 0xB;
        }
    }
    if (has_extended_topology) {
        ensure_extended_topology(supported);
    }
    for (kvm_cpuid_entry2& entry : supported) {
        set_topology(entry, index, cpus, id_bits, amd);
        if (entry.function == 1 && tsc_deadline_timer) {
            entry.ecx |= bit(24);
        }
    }
    add_timing_leaf(supported, tsc_khz);
    return supported;
}

void set_up_cpu(KvmVcpu& vcpu, const Kvm& kvm, unsigned cpus) {
    vcpu.set_cpuid(guest_cpuid(kvm.supported_cpuid(), vcpu.id(), cpus,
                               kvm.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0,
                               kvm.capability(KVM_CAP_GET_TSC_KHZ) > 0 ? vcpu.tsc_khz() : 0));

    // Architectural MSRs at their reset values, except two that firmware sets: fast string operations are
    // enabled, and memory that no MTRR names is write-back.
    constexpr std::array msrs{
        msr(0x174, 0),                     // IA32_SYSENTER_CS
        msr(0x175, 0),                     // IA32_SYSENTER_ESP
        msr(0x176, 0),                     // IA32_SYSENTER_EIP
        msr(0xC000'0081, 0),               // STAR
        msr(0xC000'0082, 0),               // LSTAR
        msr(0xC000'0083, 0),               // CSTAR
        msr(0xC000'0084, 0),               // FMASK
        msr(0xC000'0102, 0),               // KERNEL_GS_BASE
        msr(0x010, 0),                     // IA32_TSC
        msr(0x1A0, 1),                     // IA32_MISC_ENABLE: fast strings
        msr(0x2FF, (1ULL << 11U) | 6ULL),  // IA32_MTRR_DEF_TYPE: enabled, write-back
    };
    vcpu.set_msrs(msrs);

    kvm_fpu fpu{};
    fpu.fcw = 0x37F;
    fpu.mxcsr = 0x1F80;
    vcpu.set_fpu(fpu);

    set_local_apic(vcpu);
}

}  // namespace kvm_vmm
