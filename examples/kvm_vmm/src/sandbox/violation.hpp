// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

namespace kvm_vmm::sandbox {

/// What becomes of a system call that a filter does not allow.
enum class OnViolation : std::uint8_t {
    end,      ///< the process ends
    log_call  ///< it is reported once and then made
};

/// Installs the handler of SIGSYS. For a system call that a filter stopped it writes one line with the call, its
/// first arguments, the kind of file that the first one names, and the thread, and then ends the process with
/// ExitCode::sandbox. It makes only system calls that every filter allows, and takes no lock and no memory.
/// A SIGSYS that another process sent ends the process as it would without the handler.
void handle_violations(OnViolation action);

/// Called by the handler before it writes, to restore the terminal; must be safe in a signal handler.
void set_terminal_restorer(void (*restore)() noexcept) noexcept;

/// How the calling thread is named in the line.
void name_thread(const char* name) noexcept;

/// The address after the instruction by which the handler makes the call itself (see OnViolation::log_call).
[[nodiscard]] std::uintptr_t exempt_instruction() noexcept;

}  // namespace kvm_vmm::sandbox
