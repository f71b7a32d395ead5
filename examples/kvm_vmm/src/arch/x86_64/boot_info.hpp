// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "arch/x86_64/initrd.hpp"

namespace kvm_vmm {

/// The information that every boot protocol passes to a kernel, each in its own form, in addition to the
/// memory map.
struct BootInfo {
    std::uint64_t command_line{};  ///< guest address
    std::optional<Initrd> initrd;
    std::uint64_t acpi_rsdp{};  ///< guest address, 0 for none
};

}  // namespace kvm_vmm
