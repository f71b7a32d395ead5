// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

#include <vmsuperio/linux/unique_fd.hpp>

namespace kvm_vmm {

/// Wakes the event loop from any thread: an eventfd.
class Notifier {
public:
    /// Throws VmmError if the system has no descriptor left.
    Notifier();

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    void notify() noexcept;
    /// Clears pending notifications.
    void clear() noexcept;

private:
    vmsuperio::UniqueFd fd_;
};

}  // namespace kvm_vmm
