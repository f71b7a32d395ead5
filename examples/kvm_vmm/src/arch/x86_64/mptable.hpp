// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "machine/platform.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// Writes an MP floating pointer and configuration table (Intel MultiProcessor Specification 1.4) into the
/// BIOS area, for kernels without ACPI. Throws VmmError(ExitCode::usage) if the guest has no RAM there.
void write_mptable(GuestMemory& memory, const Platform& platform);

}  // namespace kvm_vmm
