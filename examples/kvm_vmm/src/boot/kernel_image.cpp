// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "boot/kernel_image.hpp"

#include "boot/bzimage.hpp"

namespace kvm_vmm {

KernelImage load_kernel(GuestMemory& memory, const ImageFile& file, BootProtocol wanted) {
    if (is_bzimage(file)) {
        if (wanted == BootProtocol::pvh) {
            file.fail("is a bzImage, which has no PVH entry; PVH needs an ELF kernel (vmlinux)");
        }
        return load_bzimage(memory, file);
    }
    file.fail("not a Linux kernel image (no HdrS signature)");
}

}  // namespace kvm_vmm
