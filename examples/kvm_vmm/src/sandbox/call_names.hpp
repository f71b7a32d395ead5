// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string_view>

namespace kvm_vmm::sandbox {

/// The name of a system call of x86-64, or an empty view for a number that Linux does not use. Takes no lock
/// and no memory, so that the handler of a signal can call it. (The functions of libseccomp allocate memory.)
[[nodiscard]] std::string_view call_name(int number) noexcept;

}  // namespace kvm_vmm::sandbox
