// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string_view>
#include <vector>

#include "virtio/disk_io.hpp"

namespace kvm_vmm::virtio {

/// Performs requests to a disk while the caller does something else.
///
/// Thread safety: one thread at a time. Only fd() may be waited for by another one.
class DiskEngine {
public:
    DiskEngine() = default;
    DiskEngine(const DiskEngine&) = delete;
    DiskEngine& operator=(const DiskEngine&) = delete;
    /// Nothing may be in progress.
    virtual ~DiskEngine() = default;

    /// For messages: "io_uring", "threads".
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;
    /// A descriptor that is readable when requests have ended.
    [[nodiscard]] virtual int fd() const noexcept = 0;

    /// Adds a request, which must stay at its place until take_ended() has returned it. It starts with start()
    /// at the latest.
    virtual void submit(DiskIo& io) = 0;
    virtual void start() = 0;
    /// Appends the requests that have ended. Does not wait.
    virtual void take_ended(std::vector<DiskIo*>& ended) = 0;
    /// Waits until at least one request has ended. Some must be in progress.
    virtual void wait() = 0;
    /// Returns when no request is in progress; take_ended() returns none of them. Requests that have not begun
    /// are not performed.
    virtual void cancel_all() = 0;
};

}  // namespace kvm_vmm::virtio
