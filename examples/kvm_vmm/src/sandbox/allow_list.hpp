// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/role.hpp"

namespace kvm_vmm::sandbox {

/// A condition on an argument of a system call. Of most arguments the kernel uses only the low 32 bits, and
/// only these are compared then.
struct ArgumentCheck {
    unsigned argument;  ///< 0 is the first
    std::uint64_t mask;
    std::uint64_t value;  ///< of the bits in `mask`
    std::string_view meaning;
};

/// A system call that threads may make.
struct AllowedCall {
    int number;
    std::vector<ArgumentCheck> checks;  ///< all must hold
    RoleSet roles;
    FeatureSet features;  ///< needed if one of these is present; empty: always needed
    std::string_view why;
};

/// The table of all system calls that this program makes once its sandbox is closed. `process` is the ID of
/// this process, which may send signals to itself only.
[[nodiscard]] std::vector<AllowedCall> allowed_calls(std::uint32_t process);

/// Those of `calls` that `role` needs with `features`. For Role::set_up: those of every role, because a
/// filter also applies to the threads that are started under it.
[[nodiscard]] std::vector<AllowedCall> calls_of(Role role, FeatureSet features,
                                                std::vector<AllowedCall> calls);

}  // namespace kvm_vmm::sandbox
