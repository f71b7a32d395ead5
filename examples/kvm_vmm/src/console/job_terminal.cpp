// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/job_terminal.hpp"

#include <chrono>
#include <csignal>
#include <ctime>
#include <unistd.h>
#include <utility>

namespace kvm_vmm {

JobTerminal::JobTerminal(EventManager& events, int fd, std::function<void(bool)> on_front)
    : terminal_(fd),
      is_terminal_(::isatty(fd) != 0),
      on_front_(std::move(on_front)),
      timer_(events, CLOCK_MONOTONIC, [this] { look(); }) {
    look_again_later();
}

void JobTerminal::look() {
    on_front_(RawTerminal::resume());
    look_again_later();
}

void JobTerminal::look_again_later() {
    // Only a terminal has a foreground process group, which has to be looked for because nothing reports its change.
    constexpr std::chrono::milliseconds interval{200};
    if (is_terminal_) {
        timer_.set_after(interval);
    }
}

void stop_this_process(bool asked_by_process) {
    RawTerminal::suspend();
    sigset_t stop{};
    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    // SIGTSTP is pending until it is unblocked; it discards a pending SIGCONT.
    ::raise(SIGTSTP);
    pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
    pthread_sigmask(SIG_BLOCK, &stop, nullptr);
    sigset_t pending{};
    const bool stopped = ::sigpending(&pending) == 0 && sigismember(&pending, SIGCONT) == 1;
    if (!stopped && asked_by_process) {
        ::raise(SIGSTOP);
    }
}

}  // namespace kvm_vmm
