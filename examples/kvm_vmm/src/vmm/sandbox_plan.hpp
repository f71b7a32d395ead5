// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "observe/observer.hpp"
#include "sandbox/sandbox.hpp"
#include "vmm/config.hpp"
#include "vmm/opened_files.hpp"

namespace kvm_vmm {

/// What this process needs inside its sandbox. The plan refers to descriptors of `files` and `observer`, so use it
/// before they are moved.
[[nodiscard]] sandbox::Plan sandbox_plan(const VmmConfig& config, const OpenedFiles& files,
                                         const Observer& observer);

}  // namespace kvm_vmm
