// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <span>

namespace kvm_vmm {

/// Makes this process independent of the process that started it. Called first in main(), before any other
/// thread exists. What a process inherits through exec(3) is set as this program needs it:
///
/// - Descriptors: 0, 1 and 2 are open (on /dev/null if they were closed); all others are closed, except
///   those that an argument names as `/dev/fd/N`, `/proc/self/fd/N` or `fd=N`.
/// - Signals: none is blocked except SIGUSR1 and SIGUSR2, which stay pending until the event loop waits for them. Each has
///   its default action, except that SIGPIPE, SIGXFSZ and SIGTTIN are ignored, and that SIGHUP, SIGINT,
///   SIGQUIT, SIGTSTP and SIGTTOU stay ignored if the parent ignored them (nohup, a shell without job
///   control).
/// - Limits: the soft limit of open files is raised to the hard one, the stack is 8 MiB for each thread.
/// - umask: 077, because output may contain what the user typed.
/// - The process is not dumpable: it leaves no core file, and other processes of the same user cannot attach
///   to it (see set_dumpable()).
///
/// Timers are not changed: an alarm(2) before exec(3) is the usual way to limit a program's time.
void take_over_process(std::span<const char* const> arguments);

/// Whether this process leaves core files, without guest RAM, and debuggers may attach: for developers. The kernel
/// forgets it when a thread changes its user.
void set_dumpable(bool dumpable) noexcept;

/// Returns the memory of those parts of the program and its libraries that hold what their files hold: most of that was
/// needed by the start-up alone. What is needed again is mapped again when it is accessed, from the page cache. A
/// debugger's breakpoints are lost by it.
void return_program_pages() noexcept;

/// Ends this process by `signal`, so that its parent can see the signal. Returns only if that fails.
void end_by_signal(int signal) noexcept;

}  // namespace kvm_vmm
