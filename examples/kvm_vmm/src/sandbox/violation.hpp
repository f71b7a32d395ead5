// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

namespace kvm_vmm::sandbox {

/// What becomes of a system call that a filter does not allow.
enum class OnViolation : std::uint8_t {
    end,      ///< the process ends
    log_call  ///< it is reported once and then made
};

/// What is left of the output that waits for readers.
enum class OutputLeft : std::uint8_t {
    none,
    locked,  ///< there may be some, but a thread holds its lock: perhaps for good
    some,
};

/// Installs the handler of SIGSYS. For a system call that a filter stopped it writes one line with the call,
/// its first arguments, the kind of file that the first one names, and the thread, and then ends the process
/// with ExitCode::sandbox. It makes only system calls that every filter allows, takes no memory, and waits
/// for no lock.
///
/// Before the end it passes on what waits for readers (set_output_flusher()). If the main thread watches and
/// was not stopped itself, it can do the same with what it alone can write. Both together have five seconds.
///
/// A SIGSYS that another process sent ends the process as it would without the handler.
void handle_violations(OnViolation action);

/// Called by the handler before it writes, to restore the terminal; must be safe in a signal handler.
void set_terminal_restorer(void (*restore)() noexcept) noexcept;
/// Called by the handler until nothing is left; must be safe in a signal handler, whatever the thread was
/// doing.
void set_output_flusher(OutputLeft (*flush)() noexcept) noexcept;

/// For the main thread: a descriptor that is readable once another thread has been stopped; -1 if there is
/// none. From now on that thread waits until the main thread calls wait_for_end().
[[nodiscard]] int watch_violations() noexcept;
/// Whether a thread other than the main one has been stopped.
[[nodiscard]] bool is_violated() noexcept;
/// By the main thread, after a thread was stopped: there is nothing more to be done. The stopped thread ends
/// the process.
[[noreturn]] void wait_for_end() noexcept;

/// Lets the calling thread be stopped with the handler: a thread that blocks SIGSYS would end the process
/// without it.
void accept_violations() noexcept;

/// How the calling thread is named in the line.
void name_thread(const char* name) noexcept;

/// The address after the instruction by which the handler makes the call itself (see OnViolation::log_call).
[[nodiscard]] std::uintptr_t exempt_instruction() noexcept;

}  // namespace kvm_vmm::sandbox
