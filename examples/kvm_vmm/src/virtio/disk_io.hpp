// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <sys/uio.h>
#include <vector>

#include "virtio/buffers.hpp"
#include "virtio/disk_file.hpp"

namespace kvm_vmm::virtio {

/// One request to a disk, and how far it is. Reads and writes are done in steps, because the host may do a
/// part only: next_step() says what is to be done, finish_step() takes the host's answer.
class DiskIo {
public:
    enum class Operation : std::uint8_t { read, write, flush, discard, write_zeroes };
    struct Range {
        std::uint64_t offset;
        std::uint64_t length;
        bool unmap;
    };
    /// A system call.
    struct Step {
        std::span<const iovec> memory;
        std::uint64_t offset;
        bool aligned;  ///< for DiskFile::descriptor()
    };

    /// The most bytes that are copied at once for memory that is not aligned as the file needs it.
    static constexpr std::size_t bounce_size = std::size_t{256} << 10U;

    /// A read or write of `memory`, which has at least one byte and at most 1024 pieces.
    DiskIo(Operation operation, std::uint64_t offset, const Buffers& memory, bool durable);
    /// A flush (without ranges), discard or write of zeros.
    DiskIo(Operation operation, std::vector<Range> ranges, bool durable)
        : operation_(operation), durable_(durable), ranges_(std::move(ranges)) {}

    [[nodiscard]] Operation operation() const noexcept { return operation_; }
    [[nodiscard]] bool durable() const noexcept { return durable_; }
    /// Of a read or write: where it begins, in bytes.
    [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
    /// Of a read or write: how many bytes it has in all, and how many were transferred.
    [[nodiscard]] std::uint64_t length() const noexcept { return length_; }
    [[nodiscard]] std::uint64_t done() const noexcept { return done_; }
    /// 0 or the number of errno, when it has ended.
    [[nodiscard]] int error() const noexcept { return error_; }

    /// For a read or write that has not ended. Valid until finish_step().
    [[nodiscard]] Step next_step(const DiskFacts& facts);
    /// `result` is a number of bytes, or the negative number of an error. Returns whether the request has
    /// ended.
    [[nodiscard]] bool finish_step(std::int64_t result);
    /// Ends it with an error, or with 0.
    void end(int error) noexcept { error_ = error; }
    /// Does all of it in this thread, and ends it.
    void run(DiskFile& file);

private:
    struct Free {
        void operator()(std::byte* memory) const noexcept;
    };

    [[nodiscard]] bool memory_is_aligned(std::uint32_t alignment) const noexcept;
    void advance(std::uint64_t count) noexcept;
    void copy_bounce(bool to_bounce, std::size_t count) noexcept;
    [[nodiscard]] int run_ranges(DiskFile& file) const;

    Operation operation_;
    bool durable_;
    std::uint64_t offset_{0};
    std::uint64_t length_{0};
    std::uint64_t done_{0};
    int error_{0};
    unsigned retries_{0};
    std::vector<iovec> memory_;  // from first_ on: what is left
    std::size_t first_{0};
    std::vector<Range> ranges_;
    std::unique_ptr<std::byte, Free> bounce_;
    iovec bounce_piece_{};
};

}  // namespace kvm_vmm::virtio
