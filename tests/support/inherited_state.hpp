// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// Makes tests independent of the process that started them: nohup, a background job, a program that blocks or
// ignores signals.
#ifdef __unix__
#include <csignal>
#include <sys/stat.h>

namespace test_support {

/// No signal is ignored or blocked, and new files are readable as usual.
inline void forget_inherited_state() {
    for (int signal = 1; signal < NSIG; ++signal) {
        struct sigaction action{};
        // A handler belongs to a sanitizer: it is not inherited.
        if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) {
            std::signal(signal, SIG_DFL);
        }
    }
    sigset_t none{};
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    ::umask(022);
}

}  // namespace test_support
#else
namespace test_support {
inline void forget_inherited_state() {}
}  // namespace test_support
#endif
