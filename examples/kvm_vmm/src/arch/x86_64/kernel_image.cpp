// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/kernel_image.hpp"

#include "arch/x86_64/bzimage.hpp"
#include "arch/x86_64/elf_image.hpp"

namespace kvm_vmm {

KernelImage load_kernel(GuestMemory& memory, const ImageFile& file, BootProtocol wanted) {
    if (is_bzimage(file)) {
        if (wanted == BootProtocol::pvh) {
            file.fail("is a bzImage, which has no PVH entry; PVH needs an ELF kernel (vmlinux)");
        }
        return load_bzimage(memory, file);
    }
    if (is_elf(file)) {
        return load_elf(memory, file, wanted);
    }
    file.fail("is not a kernel image: neither a Linux bzImage (no HdrS signature) nor an ELF file");
}

}  // namespace kvm_vmm
