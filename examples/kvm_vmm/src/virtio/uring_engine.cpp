// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/uring_engine.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <linux/fs.h>
#include <new>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <thread>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm::virtio {
namespace {

constexpr unsigned submission_entries = 128;
// More than a disk has in progress; if that is exceeded the kernel keeps what does not fit (Linux 5.5).
constexpr unsigned completion_entries = 1024;

// The registered files.
constexpr int aligned_file = 0;
constexpr int cached_file = 1;

bool passes(int error) noexcept { return error == -EINTR || error == -EAGAIN || error == -EBUSY; }

int make_ring(io_uring& ring, unsigned flags) {
    io_uring_params params{};
    params.flags = IORING_SETUP_CQSIZE | flags;
    params.cq_entries = completion_entries;
    return ::io_uring_queue_init_params(submission_entries, &ring, &params);
}

// Debian 12's liburing declares functions for these two operations, but does not export them.
int register_with(const io_uring& ring, unsigned operation, void* argument, std::size_t count) {
    return ::syscall(SYS_io_uring_register, ring.ring_fd, operation, argument, static_cast<unsigned>(count)) <
                   0
               ? -errno
               : 0;
}

// The operations of a ring are system calls that no seccomp filter sees: this ring performs only those that a disk
// needs, and enters them into its files.
int restrict_ring(io_uring& ring) {
    constexpr std::array operations{IORING_OP_NOP, IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                                    IORING_OP_POLL_ADD};
    std::array<io_uring_restriction, operations.size() + 1> restrictions{};
    for (std::size_t i = 0; i < operations.size(); ++i) {
        restrictions.at(i).opcode = IORING_RESTRICTION_SQE_OP;
        restrictions.at(i).sqe_op = operations.at(i);
    }
    restrictions.back().opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    restrictions.back().sqe_flags = IOSQE_FIXED_FILE;
    const int error =
        register_with(ring, IORING_REGISTER_RESTRICTIONS, restrictions.data(), restrictions.size());
    return error != 0 ? error : register_with(ring, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
}

}  // namespace

std::expected<std::unique_ptr<UringEngine>, int> UringEngine::create(std::string_view name, DiskFile& file) {
    const std::array<int, 2> files{file.descriptor(true), file.descriptor(false)};
    if (files[aligned_file] < 0 || files[cached_file] < 0) {
        return std::unexpected(EBADF);
    }
    io_uring ring{};
    int error = make_ring(ring, IORING_SETUP_R_DISABLED);
    const bool restricted = error == 0;
    if (error == -EINVAL) {
        error = make_ring(ring, 0);  // Linux before 5.10
    }
    if (error != 0) {
        return std::unexpected(-error);
    }
    error = (ring.features & IORING_FEAT_NODROP) != 0 ? 0 : -ENOSYS;
    if (error == 0) {
        error = ::io_uring_register_files(&ring, files.data(), static_cast<unsigned>(files.size()));
    }
    if (error == 0 && restricted) {
        error = restrict_ring(ring);
    }
    if (error != 0) {
        ::io_uring_queue_exit(&ring);
        return std::unexpected(-error);
    }
    return std::unique_ptr<UringEngine>(new UringEngine(name, file, ring));
}

UringEngine::UringEngine(std::string_view name, DiskFile& file, const io_uring& ring)
    : file_(file), ring_(ring) {
    if (!file.facts().read_only) {
        try {
            thread_ = std::make_unique<ThreadEngine>(name, file, 1);
        } catch (const VmmError& error) {
            log(LogLevel::warning, std::string(error.what()) + "; the disk discards nothing");
        }
    }
}

UringEngine::~UringEngine() { ::io_uring_queue_exit(&ring_); }

void UringEngine::submit(DiskIo& io) {
    const auto operation = io.operation();
    if (operation == DiskIo::Operation::discard || operation == DiskIo::Operation::write_zeroes) {
        if (!thread_) {
            io.end(EAGAIN);
            ended_.push_back(&io);
            return;
        }
        ++in_thread_;
        thread_->submit(io);
    } else {
        waiting_.push_back(&io);
    }
}

// Puts a request into the submission queue. Returns false if there is no room.
bool UringEngine::prepare(DiskIo& io) {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    if (entry == nullptr) {
        return false;
    }
    ++in_ring_;
    if (io.operation() == DiskIo::Operation::flush) {
        ::io_uring_prep_fsync(entry, aligned_file, IORING_FSYNC_DATASYNC);
    } else {
        DiskIo::Step step{};
        try {
            step = io.next_step(file_.facts());
        } catch (const std::bad_alloc&) {
            // No memory to copy through. The entry is taken: it does nothing, and its answer ends the request.
            io.end(ENOMEM);
            ::io_uring_prep_nop(entry);
            ::io_uring_sqe_set_data(entry, &io);
            return true;
        }
        const int file = step.aligned ? aligned_file : cached_file;
        const auto count = static_cast<unsigned>(step.memory.size());
        if (io.operation() == DiskIo::Operation::read) {
            ::io_uring_prep_readv(entry, file, step.memory.data(), count, step.offset);
        } else {
            ::io_uring_prep_writev(entry, file, step.memory.data(), count, step.offset);
            entry->rw_flags = io.durable() ? RWF_DSYNC : 0;
        }
    }
    entry->flags |= IOSQE_FIXED_FILE;
    ::io_uring_sqe_set_data(entry, &io);
    return true;
}

// Lets the ring report the end of what the thread does; its descriptor is the only one that fd() returns.
bool UringEngine::prepare_poll() {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    if (entry == nullptr) {
        return false;
    }
    ::io_uring_prep_poll_add(entry, thread_->fd(), POLLIN);
    ::io_uring_sqe_set_data(entry, nullptr);
    polling_thread_ = true;
    return true;
}

void UringEngine::start() {
    for (;;) {
        if (in_thread_ != 0 && !polling_thread_ && !prepare_poll()) {
            std::ignore = ::io_uring_submit(&ring_);
            continue;
        }
        while (!waiting_.empty() && prepare(*waiting_.front())) {
            waiting_.pop_front();
        }
        if (::io_uring_sq_ready(&ring_) == 0) {
            return;
        }
        const int submitted = ::io_uring_submit(&ring_);
        if (submitted < 0) {
            // What is in the submission queue stays there, and goes with the next call. If completions have to
            // make room first, they are what fd() reports.
            if (!passes(submitted) || ::io_uring_cq_ready(&ring_) != 0) {
                return;
            }
            std::this_thread::yield();
        }
    }
}

void UringEngine::take_completion(const io_uring_cqe& entry, bool continue_it) {
    auto* const io = static_cast<DiskIo*>(::io_uring_cqe_get_data(&entry));
    if (io == nullptr) {
        polling_thread_ = false;
        return;
    }
    --in_ring_;
    bool ended = true;
    if (io->error() == 0) {
        if (io->operation() == DiskIo::Operation::flush) {
            ended = entry.res != -EINTR && entry.res != -EAGAIN;
            io->end(ended ? -entry.res : 0);
        } else {
            ended = io->finish_step(entry.res);
        }
    }
    if (ended) {
        ended_.push_back(io);
    } else if (continue_it) {
        waiting_.push_back(io);
    }
}

void UringEngine::take_completions(bool continue_them) {
    io_uring_cqe* entry = nullptr;
    while (::io_uring_peek_cqe(&ring_, &entry) == 0) {
        const io_uring_cqe copy = *entry;
        ::io_uring_cqe_seen(&ring_, entry);
        take_completion(copy, continue_them);
    }
}

void UringEngine::take_ended(std::vector<DiskIo*>& ended) {
    take_completions(true);
    if (in_thread_ != 0) {
        const std::size_t before = ended_.size();
        thread_->take_ended(ended_);
        in_thread_ -= ended_.size() - before;
    }
    // Continues what was done in part, and what found no room.
    if (!waiting_.empty() || (in_thread_ != 0 && !polling_thread_) || ::io_uring_sq_ready(&ring_) != 0) {
        start();
    }
    ended.insert(ended.end(), ended_.begin(), ended_.end());
    ended_.clear();
}

void UringEngine::wait() {
    while (ended_.empty()) {
        start();
        io_uring_cqe* entry = nullptr;
        if (::io_uring_wait_cqe(&ring_, &entry) == 0) {
            return;
        }
    }
}

void UringEngine::cancel_all() {
    waiting_.clear();
    while (in_ring_ != 0) {
        if (::io_uring_sq_ready(&ring_) != 0) {
            std::ignore = ::io_uring_submit(&ring_);
        }
        io_uring_cqe* entry = nullptr;
        std::ignore = ::io_uring_wait_cqe(&ring_, &entry);
        take_completions(false);
    }
    if (thread_) {
        thread_->cancel_all();
        in_thread_ = 0;
    }
    ended_.clear();
}

}  // namespace kvm_vmm::virtio
