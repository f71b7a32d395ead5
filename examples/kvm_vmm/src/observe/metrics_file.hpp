// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string>

namespace kvm_vmm {

/// Writes a file as a whole: whoever reads `path` finds the old content or the new one, never a part. What is
/// no regular file (a FIFO, a device) is written to. Throws VmmError(bad_file).
void replace_file(const std::string& path, const std::string& content);

}  // namespace kvm_vmm
