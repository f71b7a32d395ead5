// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arch/x86_64/kernel_image.hpp"
#include "boot/image_file.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

struct ElfSegment {
    std::uint64_t offset{};
    std::uint64_t virtual_address{};
    std::uint64_t physical_address{};
    std::uint64_t file_size{};
    std::uint64_t memory_size{};
    std::uint64_t alignment{};
};

/// The parts of an ELF executable for x86 (32 or 64 bits) that a loader needs.
struct ElfImage {
    bool is_64{};
    std::uint64_t entry{};          ///< from the file: a physical or a virtual address
    std::vector<ElfSegment> loads;  ///< not empty; ascending by physical address, without overlap
    std::vector<ElfSegment> notes;
};

[[nodiscard]] bool is_elf(const ImageFile& file);

/// Reads the headers and checks that every segment is inside the file, and that every loaded one is inside
/// the guest's RAM between 1 MiB and `ram_end`. Throws VmmError(ExitCode::bad_file).
[[nodiscard]] ElfImage read_elf(const ImageFile& file, std::uint64_t ram_end);

/// The guest physical address of the entry point. Throws if it is not in the file contents of a segment.
[[nodiscard]] std::uint64_t physical_entry(const ImageFile& file, const ElfImage& elf);

/// Whether `address` is physical and within the file contents of a loaded segment.
[[nodiscard]] bool loads_physical(const ElfImage& elf, std::uint64_t address) noexcept;

/// Loads an ELF kernel for PVH or the Linux boot protocol. `memory` must be zeroed.
[[nodiscard]] KernelImage load_elf(GuestMemory& memory, const ImageFile& file, BootProtocol wanted);

}  // namespace kvm_vmm
