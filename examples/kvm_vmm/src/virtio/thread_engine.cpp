// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/thread_engine.hpp"

#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

#include "event/signals.hpp"
#include "sandbox/sandbox.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm::virtio {

ThreadEngine::ThreadEngine(std::string_view name, DiskFile& file, std::size_t threads)
    : name_(std::string(name) + "-io"), file_(file) {
    try {
        while (threads_.size() < threads) {
            add_thread();
        }
    } catch (const std::system_error& error) {
        if (threads_.empty()) {
            throw VmmError(ExitCode::vmm_error, "cannot start the thread " + name_ + ": " + error.what());
        }
        // Those that there are do all the work.
        log(LogLevel::warning, name_ + ": cannot start another thread: " + error.what());
    }
}

ThreadEngine::~ThreadEngine() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) {
        thread.join();
    }
}

void ThreadEngine::add_thread() {
    threads_.emplace_back([this] { run(); });
}

void ThreadEngine::submit(DiskIo& io) {
    {
        const std::lock_guard lock(mutex_);
        waiting_.push_back(&io);
    }
    work_.notify_one();
}

void ThreadEngine::start() {}

void ThreadEngine::take_ended(std::vector<DiskIo*>& ended) {
    ended_event_.clear();
    const std::lock_guard lock(mutex_);
    ended.insert(ended.end(), ended_.begin(), ended_.end());
    ended_.clear();
}

void ThreadEngine::wait() {
    std::unique_lock lock(mutex_);
    progress_.wait(lock, [this] { return !ended_.empty(); });
}

void ThreadEngine::cancel_all() {
    // The event may stay pending: take_ended() then finds nothing.
    std::unique_lock lock(mutex_);
    waiting_.clear();
    progress_.wait(lock, [this] { return running_ == 0; });
    ended_.clear();
}

void ThreadEngine::run() {
    leave_signals_to_main_thread();
    sandbox::enter(sandbox::Role::disk, name_.c_str());
    std::unique_lock lock(mutex_);
    for (;;) {
        work_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
        if (stopping_) {
            return;
        }
        DiskIo* const io = waiting_.front();
        waiting_.pop_front();
        ++running_;
        lock.unlock();
        try {
            io->run(file_);
        } catch (const std::bad_alloc&) {
            io->end(ENOMEM);
        }
        lock.lock();
        --running_;
        ended_.push_back(io);
        ended_event_.notify();
        progress_.notify_all();
    }
}

}  // namespace kvm_vmm::virtio
