// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "arch/x86_64/boot_info.hpp"
#include "arch/x86_64/elf_image.hpp"
#include "boot/image_file.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// The entry point for Xen's x86/HVM direct boot ABI (PVH), from the ELF note XEN_ELFNOTE_PHYS32_ENTRY.
/// Throws VmmError(ExitCode::bad_file) if notes are malformed or the entry is outside the kernel.
[[nodiscard]] std::optional<std::uint64_t> find_pvh_entry(const ImageFile& file, const ElfImage& elf);

/// Writes hvm_start_info with its module list and memory map, and returns its address. Throws
/// VmmError(ExitCode::usage) if the guest has no RAM there.
std::uint64_t write_pvh_start_info(GuestMemory& memory, const BootInfo& info);

}  // namespace kvm_vmm
