// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cerrno>
#include <string>
#include <sys/ioctl.h>

#include "util/error.hpp"

namespace kvm_vmm {

/// Calls ioctl(2), and throws VmmError with the name of the call if it fails. Retries after EINTR.
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
