// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <linux/filter.h>
#include <span>
#include <vector>

#include "sandbox/allow_list.hpp"

namespace kvm_vmm::sandbox {

/// A seccomp filter: a system call that is not in its list is not executed; the thread that made it gets a
/// SIGSYS (SECCOMP_RET_TRAP) instead. clone3(2) returns ENOSYS, so that the C library uses clone(2), whose
/// flags a filter can check.
class SeccompFilter {
public:
    /// Throws VmmError(vmm_error) if the filter cannot be made. A system call that is made by the instruction
    /// before `exempt` is always allowed (for Mode::log); 0: there is no such instruction.
    explicit SeccompFilter(std::span<const AllowedCall> calls, std::uintptr_t exempt = 0);

    /// A filter that refuses the system calls `refused`, and those of other architectures, with EPERM, and
    /// allows the others.
    explicit SeccompFilter(std::span<const int> refused);

    /// Applies the filter to the calling thread, in addition to those that it has, and to the threads that it
    /// starts. Needs no_new_privs. Returns 0 or an error number.
    [[nodiscard]] int install() const noexcept;

    /// The number of instructions.
    [[nodiscard]] std::size_t size() const noexcept { return program_.size(); }

private:
    std::vector<sock_filter> program_;
};

}  // namespace kvm_vmm::sandbox
