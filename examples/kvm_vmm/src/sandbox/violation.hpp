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
/// ExitCode::sandbox. It makes only system calls that every filter allows, and takes no lock and no memory. If the
/// main thread watches and the thread is another one, it stays in the handler for up to five seconds, in which the
/// main thread can pass on the output that waits for a reader.
/// A SIGSYS that another process sent ends the process as it would without the handler.
void handle_violations(OnViolation action);

/// Called by the handler before it writes, to restore the terminal; must be safe in a signal handler.
void set_terminal_restorer(void (*restore)() noexcept) noexcept;

/// For the main thread: a descriptor that is readable once another thread has been stopped; -1 if there is none. From
/// now on that thread waits for the main thread to end the process.
[[nodiscard]] int watch_violations() noexcept;
/// Whether a thread other than the main one has been stopped.
[[nodiscard]] bool is_violated() noexcept;

/// How the calling thread is named in the line.
void name_thread(const char* name) noexcept;

/// The address after the instruction by which the handler makes the call itself (see OnViolation::log_call).
[[nodiscard]] std::uintptr_t exempt_instruction() noexcept;

}  // namespace kvm_vmm::sandbox
