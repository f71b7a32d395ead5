// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "machine/end.hpp"
#include "observe/observer.hpp"
#include "vmm/config.hpp"
#include "vmm/opened_files.hpp"

namespace kvm_vmm {

/// What outlives a single VM of this process: the event loop, signals, the terminal and the serial ports'
/// back ends. Runs VMs until it is over and tells how the last one ended. Throws VmmError where set-up fails;
/// the terminal is restored in every case.
[[nodiscard]] VmEnd run_session(const VmmConfig& config, OpenedFiles& files, Observer& observer);

}  // namespace kvm_vmm
