// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <functional>

#include "console/raw_terminal.hpp"
#include "event/event_manager.hpp"
#include "event/timer.hpp"

namespace kvm_vmm {

/// The console's terminal under job control: in raw mode and read from while this process is in the
/// foreground, unchanged while it is in the background.
///
/// A shell that brings a running job to the foreground need not send a signal, and a terminal has no event
/// for it. So the terminal is checked five times a second.
class JobTerminal {
public:
    /// After each check `on_front` is called with whether input may be read, except by the constructor.
    /// `events` must outlive this object.
    JobTerminal(EventManager& events, int fd, std::function<void(bool in_front)> on_front);

    /// Checks the terminal: takes it in the foreground, and leaves it in the background.
    void look();

private:
    void look_again_later();

    RawTerminal terminal_;
    bool is_terminal_;
    std::function<void(bool)> on_front_;
    Timer timer_;
};

/// Stops this process like the default action of SIGTSTP, after restoring the terminal. SIGTSTP and SIGCONT
/// must be blocked. Returns when the process is continued. If no process could continue the process group
/// (POSIX.1, "orphaned process group"), it is stopped only if a process sent the signal, not the terminal.
void stop_this_process(bool asked_by_process);

}  // namespace kvm_vmm
