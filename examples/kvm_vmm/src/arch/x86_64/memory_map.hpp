// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// A range of the guest's memory map, with the types of E820 (ACPI 6.5, 15.4).
struct MemoryRange {
    enum class Type : std::uint32_t { ram = 1, reserved = 2 };

    std::uint64_t address;
    std::uint64_t size;
    Type type;

    friend bool operator==(const MemoryRange&, const MemoryRange&) = default;
};

/// Ascending and without overlap. The MMIO gap (LAPIC, IOAPIC, virtio-mmio) and the VGA hole are left out.
[[nodiscard]] std::vector<MemoryRange> memory_map(const GuestMemory& memory);

/// Fills the words of the BIOS data area that give the end of conventional memory and the start of the EBDA.
/// Kernels find the EBDA through them and search it for firmware tables. Returns false if there is no RAM.
[[nodiscard]] bool write_bios_data_area(GuestMemory& memory);

}  // namespace kvm_vmm
