// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cerrno>
#include <string>
#include <sys/ioctl.h>

#include "error.hpp"

namespace kvm_vmm {

/// ioctl(2) that throws VmmError, naming the call, where it fails. EINTR is tried again.
template <class Argument>
int kvm_ioctl(int fd, unsigned long request, Argument argument, const char* name,
              ExitCode code = ExitCode::vmm_error) {
    for (;;) {
        const int result = ::ioctl(fd, request, argument);  // NOLINT(cppcoreguidelines-pro-type-vararg)
        if (result >= 0) {
            return result;
        }
        if (errno != EINTR) {
            throw VmmError(code, errno_message(std::string(name) + " failed", errno));
        }
    }
}

}  // namespace kvm_vmm
