// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

#include "arch/x86_64/entry_point.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// A segment register with its hidden part, as the CPU (and KVM) stores it. `limit` is in bytes.
struct BootSegment {
    std::uint64_t base{};
    std::uint32_t limit{};
    std::uint16_t selector{};
    std::uint8_t type{};  ///< descriptor type field (Intel SDM vol. 3, 3.4.5.1 and 3.5)
    bool code_or_data{};  ///< S
    bool present{};
    bool default_32{};   ///< D/B
    bool long_mode{};    ///< L
    bool granularity{};  ///< G: the descriptor's limit counts pages
};

struct BootDescriptorTable {
    std::uint64_t base{};
    std::uint16_t limit{};
};

/// The registers with which the boot CPU enters the guest; every register not named here is 0.
struct BootCpu {
    BootSegment code;
    BootSegment data;  ///< DS, ES, FS, GS and SS
    BootSegment task;
    BootDescriptorTable gdt;
    BootDescriptorTable idt;
    std::uint64_t cr0{};
    std::uint64_t cr3{};
    std::uint64_t cr4{};
    std::uint64_t efer{};
    std::uint64_t rip{};
    std::uint64_t rsp{};
    std::uint64_t rbx{};
    std::uint64_t rsi{};
    std::uint64_t rflags{};
};

/// Writes the GDT, and for a 64-bit entry page tables that map the first 4 GiB to themselves; returns the
/// registers that use them. Throws VmmError(ExitCode::usage) if the guest has no RAM for these.
[[nodiscard]] BootCpu setup_boot_cpu(GuestMemory& memory, const EntryPoint& entry);

}  // namespace kvm_vmm
