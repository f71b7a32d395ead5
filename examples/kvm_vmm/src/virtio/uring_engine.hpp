// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <expected>
#include <liburing.h>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "virtio/disk_engine.hpp"
#include "virtio/thread_engine.hpp"

namespace kvm_vmm::virtio {

/// Performs reads, writes and flushes with io_uring: many with one system call, and those that the host's
/// cache can serve at once. Discards and writes of zeros are left to a thread.
class UringEngine final : public DiskEngine {
public:
    /// `name` is at most 11 bytes. `file` must outlive the engine. Returns the number of errno if the host does
    /// not allow io_uring: EPERM, ENOSYS and others.
    [[nodiscard]] static std::expected<std::unique_ptr<UringEngine>, int> create(std::string_view name,
                                                                                 DiskFile& file);
    ~UringEngine() override;

    [[nodiscard]] std::string_view name() const noexcept override { return "io_uring"; }
    [[nodiscard]] int fd() const noexcept override { return ring_.ring_fd; }
    void submit(DiskIo& io) override;
    void start() override;
    void take_ended(std::vector<DiskIo*>& ended) override;
    void wait() override;
    void cancel_all() override;

private:
    UringEngine(std::string_view name, DiskFile& file, const io_uring& ring);

    [[nodiscard]] bool prepare(DiskIo& io);
    [[nodiscard]] bool prepare_poll();
    void take_completions(bool continue_them);
    void take_completion(const io_uring_cqe& entry, bool continue_it);

    DiskFile& file_;
    io_uring ring_;
    std::deque<DiskIo*> waiting_;  // for room in the submission queue
    std::vector<DiskIo*> ended_;
    std::size_t in_ring_{0};  // reads, writes and flushes in the submission queue or in the kernel
    std::unique_ptr<ThreadEngine> thread_;
    std::size_t in_thread_{0};
    bool polling_thread_{false};
};

}  // namespace kvm_vmm::virtio
