// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/signals.hpp"

#include <algorithm>
#include <cerrno>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"

namespace kvm_vmm {

int pending_signal(std::initializer_list<int> except) {
    sigset_t pending{};
    ::sigpending(&pending);
    for (int signal = 1; signal < NSIG; ++signal) {
        if (::sigismember(&pending, signal) == 1 &&
            std::find(except.begin(), except.end(), signal) == except.end()) {
            return signal;
        }
    }
    return 0;
}

void leave_signals_to_main_thread() noexcept {
    sigset_t blocked{};
    sigfillset(&blocked);
    // If a fault signal were blocked, it would end the process without calling its handler.
    for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS}) {
        sigdelset(&blocked, fault);
    }
    pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

SignalEvents::SignalEvents(EventManager& events, std::initializer_list<int> signals,
                           std::function<void(int)> handler)
    : events_(events), handler_(std::move(handler)) {
    sigset_t set{};
    sigemptyset(&set);
    for (const int signal : signals) {
        // A signal that the parent ignored (nohup, a background job) stays ignored.
        struct sigaction action{};
        if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) {
            sigaddset(&set, signal);
        }
    }
    fd_ = vmsuperio::UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd_) {
        throw VmmError(ExitCode::vmm_error, errno_message("signalfd failed", errno));
    }
    subscription_ =
        events_.subscribe(fd_.get(), EPOLLIN, "signals", [this](std::uint32_t) { read_signals(); });
    pthread_sigmask(SIG_BLOCK, &set, &previous_);
}

SignalEvents::~SignalEvents() {
    events_.remove(subscription_);
    pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
}

void SignalEvents::read_signals() {
    signalfd_siginfo info{};
    while (::read(fd_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
        sent_by_process_ = info.ssi_code <= 0;  // SI_USER, SI_QUEUE, SI_TKILL; the kernel's are above
        handler_(static_cast<int>(info.ssi_signo));
    }
}

}  // namespace kvm_vmm
