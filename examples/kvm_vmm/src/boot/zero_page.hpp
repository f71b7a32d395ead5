// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "boot/initrd.hpp"
#include "boot/kernel_image.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// What the zero page tells the kernel besides its own setup header and the memory map.
struct ZeroPageInput {
    std::uint64_t command_line{};  ///< guest address
    std::optional<Initrd> initrd;
    std::uint64_t acpi_rsdp{};  ///< guest address, 0 for none
};

/// Writes boot_params (Documentation/arch/x86/zero-page.rst) and returns its address.
/// Throws VmmError(ExitCode::usage) where the guest has no RAM there.
std::uint64_t write_zero_page(GuestMemory& memory, const KernelImage& kernel, const ZeroPageInput& input);

}  // namespace kvm_vmm
