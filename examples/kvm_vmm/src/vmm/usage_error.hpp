// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string>

namespace kvm_vmm {

/// Throws VmmError(usage) with the reason on one line, whatever the user's words in it are, and a reference to --help.
[[noreturn]] void refuse(const std::string& reason);

}  // namespace kvm_vmm
