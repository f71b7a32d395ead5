// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "machine/end.hpp"
#include "observe/observer.hpp"
#include "vmm/config.hpp"
#include "vmm/opened_files.hpp"

namespace kvm_vmm {

/// Runs VMs in this process until none is to be restarted, and returns how the last one ended. The event
/// loop, signals, the terminal and the serial ports' back ends outlive the single VMs. Throws VmmError if
/// set-up fails; the terminal is restored in every case.
[[nodiscard]] VmEnd run_session(const VmmConfig& config, OpenedFiles& files, Observer& observer);

}  // namespace kvm_vmm
