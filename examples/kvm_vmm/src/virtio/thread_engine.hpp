// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "event/notifier.hpp"
#include "virtio/disk_engine.hpp"

namespace kvm_vmm::virtio {

/// Performs requests in threads, with ordinary system calls. All threads are started at once: the sandbox of the
/// thread that uses this object allows no others later.
class ThreadEngine final : public DiskEngine {
public:
    /// `name` (at most 11 bytes) is that of the threads, with "-io" appended. `file` must outlive the engine.
    /// Throws VmmError if the system has no descriptor or thread left.
    ThreadEngine(std::string_view name, DiskFile& file, std::size_t threads);
    ~ThreadEngine() override;

    [[nodiscard]] std::string_view name() const noexcept override { return "threads"; }
    [[nodiscard]] int fd() const noexcept override { return ended_event_.fd(); }
    void submit(DiskIo& io) override;
    void start() override;
    void take_ended(std::vector<DiskIo*>& ended) override;
    void wait() override;
    void cancel_all() override;

private:
    void add_thread();
    void run();

    std::string name_;
    DiskFile& file_;
    Notifier ended_event_;
    std::vector<std::thread> threads_;

    // A condition variable of the standard library needs its mutex, which has no annotations.
    std::mutex mutex_;  // guards all below
    std::condition_variable work_;
    std::condition_variable progress_;
    std::deque<DiskIo*> waiting_;
    std::vector<DiskIo*> ended_;
    std::size_t running_{0};
    bool stopping_{false};
};

}  // namespace kvm_vmm::virtio
