// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// Processes that tests start.
#include <csignal>
#include <sys/prctl.h>
#include <unistd.h>

#include "inherited_state.hpp"

namespace kvm_vmm::test {

/// Calls fork(2). The child has the same signal state whatever started the test (nohup, a background job, a
/// program that blocks or ignores signals), and ends with the test, even if the test is killed.
inline pid_t fork_child() {
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child != 0) {
        return child;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
        ::_exit(127);  // the parent was killed just now
    }
    // The test itself may ignore a signal.
    test_support::forget_inherited_state();
    return 0;
}

}  // namespace kvm_vmm::test
