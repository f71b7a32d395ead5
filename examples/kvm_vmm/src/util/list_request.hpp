// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <linux/ioctl.h>

namespace kvm_vmm {

/// The size in bytes of the header of kvm_cpuid2 and kvm_msrs in C: a count and padding.
inline constexpr std::size_t list_header_size = 8;

/// The number of the ioctl `request` whose argument is such a header with a flexible array. The number has the size of
/// the structure in C; the declaration of the array in the kernel's headers (6.1 among them) adds bytes to it in C++.
[[nodiscard]] constexpr unsigned long list_request(unsigned long request) noexcept {
    return (request & ~(static_cast<unsigned long>(_IOC_SIZEMASK) << _IOC_SIZESHIFT)) |
           (list_header_size << _IOC_SIZESHIFT);
}

}  // namespace kvm_vmm
