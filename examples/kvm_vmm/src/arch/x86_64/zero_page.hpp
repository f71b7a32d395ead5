// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

#include "arch/x86_64/boot_info.hpp"
#include "arch/x86_64/kernel_image.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// Writes boot_params (Documentation/arch/x86/zero-page.rst) and returns its address. Throws
/// VmmError(ExitCode::usage) if the guest has no RAM there.
std::uint64_t write_zero_page(GuestMemory& memory, const KernelImage& kernel, const BootInfo& info);

}  // namespace kvm_vmm
