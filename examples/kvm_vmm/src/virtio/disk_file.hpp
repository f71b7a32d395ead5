// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <sys/uio.h>

namespace kvm_vmm::virtio {

/// What is known of a disk before the first request. Only the size can change later.
struct DiskFacts {
    std::uint64_t size{0};  ///< bytes, a multiple of 512 and not 0; see DiskFile::set_size()
    bool read_only{false};
    bool can_discard{false};
    std::uint32_t logical_block{512};         ///< bytes: the unit in which the guest should address it
    std::uint32_t physical_block{4096};       ///< bytes: writes of parts of it may be slow
    std::uint32_t discard_granularity{4096};  ///< bytes

    /// Of the file that is used without the host's cache: what its requests have to be multiples of, in
    /// bytes. 1 for a file that is cached.
    std::uint32_t offset_alignment{1};
    std::uint32_t memory_alignment{1};
};

/// The content of a disk. All functions wait; none throws. Errors are negative numbers of errno.
///
/// Thread safety: all functions may be called from any thread, except that one at a time may call find_size() and
/// set_size().
class DiskFile {
public:
    DiskFile() = default;
    DiskFile(const DiskFile&) = delete;
    DiskFile& operator=(const DiskFile&) = delete;
    virtual ~DiskFile() = default;

    [[nodiscard]] virtual const DiskFacts& facts() const noexcept = 0;

    /// Looks at the size of the file again, in bytes, and prepares its use: the locks are those of this size then.
    /// facts() does not change. Returns why it cannot be the size of a disk; then nothing has changed.
    [[nodiscard]] virtual std::expected<std::uint64_t, std::string> find_size() { return facts().size; }
    /// `size`, from find_size(), is the one in facts() from now on. The caller guards facts().size.
    virtual void set_size(std::uint64_t) noexcept {}

    /// A descriptor with which another thread or io_uring can do the same as read() and write() for requests
    /// that are multiples of the alignments (`aligned`), or for others; -1 if only these functions can do it.
    [[nodiscard]] virtual int descriptor(bool aligned) const noexcept = 0;

    /// Returns how many bytes were read from `offset` on, which may be fewer than there is room for; 0 at the
    /// end of the file.
    [[nodiscard]] virtual std::int64_t read(std::span<const iovec> memory, std::uint64_t offset,
                                            bool aligned) noexcept = 0;
    /// Likewise. With `durable` what was written is on the storage when this returns.
    [[nodiscard]] virtual std::int64_t write(std::span<const iovec> memory, std::uint64_t offset,
                                             bool aligned, bool durable) noexcept = 0;
    /// Returns when all that was written before is on the storage: 0 or an error.
    [[nodiscard]] virtual int flush() noexcept = 0;
    /// The content of the range may be lost. Returns 0 or an error.
    [[nodiscard]] virtual int discard(std::uint64_t offset, std::uint64_t length) noexcept = 0;
    /// Fills the range with zeros, with `unmap` without keeping storage for it if that is possible.
    [[nodiscard]] virtual int write_zeroes(std::uint64_t offset, std::uint64_t length,
                                           bool unmap) noexcept = 0;
};

}  // namespace kvm_vmm::virtio
