// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

#include "arch/x86_64/kernel_image.hpp"
#include "boot/image_file.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

struct Initrd {
    std::uint64_t address{};
    std::uint64_t size{};
};

/// Loads an initrd as high as the kernel allows, page aligned, in RAM below the MMIO gap and apart from the
/// kernel, which leaves the most room for the kernel's own growth and KASLR. Throws
/// VmmError(ExitCode::bad_file).
[[nodiscard]] Initrd load_initrd(GuestMemory& memory, const ImageFile& file, const KernelImage& kernel);

}  // namespace kvm_vmm
