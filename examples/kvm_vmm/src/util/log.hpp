// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string_view>

namespace kvm_vmm {

/// Writes "kvm_vmm: MESSAGE" as one line to stderr, whatever mode the terminal is in. From any thread.
void report(std::string_view message) noexcept;

}  // namespace kvm_vmm
