// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/initrd.hpp"

#include <algorithm>

#include "arch/x86_64/layout.hpp"
#include "util/text.hpp"

namespace kvm_vmm {

Initrd load_initrd(GuestMemory& memory, const ImageFile& file, const KernelImage& kernel) {
    const std::uint64_t ceiling = std::min(kernel.initrd_limit + 1, memory.low_end());
    const std::uint64_t floor = std::max(kernel.end, layout::high_memory);
    const std::uint64_t start =
        file.size() <= ceiling ? (ceiling - file.size()) & ~(layout::page_size - 1) : 0;
    if (start < floor) {
        const std::uint64_t space = ceiling > floor ? ceiling - floor : 0;
        file.fail("does not fit: it has " + amount(file.size()) + ", and between the kernel (up to " +
                  amount(kernel.end) + ") and " + amount(ceiling) + " there is room for " + amount(space));
    }
    file.read_into(memory, start, 0, file.size());
    return {start, file.size()};
}

}  // namespace kvm_vmm
