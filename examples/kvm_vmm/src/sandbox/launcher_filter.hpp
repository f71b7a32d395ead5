// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "sandbox/seccomp_filter.hpp"

namespace kvm_vmm::sandbox {

/// The filter of a process that starts a helper program (passt). The program inherits it, and makes
/// namespaces, mounts and a filter of its own for itself, in ways that change with its version, so this can
/// be no list of what is allowed: it refuses, with EPERM, the system calls by which a process reads or
/// controls others, changes the kernel, or finds more of it to attack. Throws VmmError(vmm_error) if it
/// cannot be made.
[[nodiscard]] SeccompFilter launcher_filter();

}  // namespace kvm_vmm::sandbox
