// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <functional>

#include "console/raw_terminal.hpp"
#include "event/event_manager.hpp"
#include "event/timer.hpp"

namespace kvm_vmm {

/// The console's terminal under job control: raw and read from while this process is in front of it, left
/// alone while it is in the background.
///
/// A shell that brings a running job to the front need not send a signal, and a terminal has no event for it.
/// So it is looked at five times a second.
class JobTerminal {
public:
    /// `on_front` is called after each look with whether input may be read; not by the constructor. `events`
    /// must outlive this object.
    JobTerminal(EventManager& events, int fd, std::function<void(bool in_front)> on_front);

    /// Takes the terminal or leaves it, as is due now.
    void look();

private:
    void look_again_later();

    RawTerminal terminal_;
    std::function<void(bool)> on_front_;
    Timer timer_;
};

/// Stops this process as SIGTSTP does by default, with the terminal given back. SIGTSTP must be blocked, and
/// so must SIGCONT. Returns when the process is continued. A process group that nobody would continue is
/// not stopped by the terminal (POSIX.1, "orphaned process group"), only where a process asked for it.
void stop_this_process(bool asked_by_process);

}  // namespace kvm_vmm
