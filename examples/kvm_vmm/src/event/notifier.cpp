// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/notifier.hpp"

#include <cerrno>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/error.hpp"

namespace kvm_vmm {

Notifier::Notifier() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!fd_) {
        throw VmmError(ExitCode::vmm_error, errno_message("eventfd failed", errno));
    }
}

void Notifier::notify() noexcept {
    const std::uint64_t one = 1;
    // The write can only fail if the counter is at its maximum, and then the eventfd is readable already.
    [[maybe_unused]] const auto written = ::write(fd_.get(), &one, sizeof(one));
}

void Notifier::clear() noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto taken = ::read(fd_.get(), &count, sizeof(count));
}

}  // namespace kvm_vmm
