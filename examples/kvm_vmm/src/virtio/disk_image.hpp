// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <string>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/file_identity.hpp"
#include "virtio/disk_config.hpp"
#include "virtio/disk_file.hpp"

namespace kvm_vmm::virtio {

/// A regular file or a block device that is a disk, byte for byte ("raw").
///
/// Every failure is a VmmError(ExitCode::bad_file) of the form "disk 'path': reason". Refused are: a directory,
/// FIFO, socket or character device; what is empty, or whose size is not a multiple of 512; a file that begins
/// like an image of another format (unless DiskConfig::raw is set), because its guest would see the format and
/// not the content; a writable block device that the host uses (a mounted one). Opening never blocks, and
/// changes nothing.
class DiskImage final : public DiskFile {
public:
    explicit DiskImage(const DiskConfig& config);

    /// Locks the bytes of the disk, shared if it is read-only, until the process ends (open file description
    /// locks, fcntl(2)). Fails if another process has locked it. A file system without locks is reported in
    /// the log only.
    void lock() const;

    /// The identity of the file, or of the device to which a device node refers.
    [[nodiscard]] FileIdentity identity() const noexcept { return identity_; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

    [[nodiscard]] const DiskFacts& facts() const noexcept override { return facts_; }
    [[nodiscard]] std::expected<std::uint64_t, std::string> find_size() override;
    void set_size(std::uint64_t size) noexcept override { facts_.size = size; }
    [[nodiscard]] int descriptor(bool aligned) const noexcept override {
        return aligned ? fd_.get() : cached_fd_.get();
    }
    [[nodiscard]] std::int64_t read(std::span<const iovec> memory, std::uint64_t offset,
                                    bool aligned) noexcept override;
    [[nodiscard]] std::int64_t write(std::span<const iovec> memory, std::uint64_t offset, bool aligned,
                                     bool durable) noexcept override;
    [[nodiscard]] int flush() noexcept override;
    [[nodiscard]] int discard(std::uint64_t offset, std::uint64_t length) noexcept override;
    [[nodiscard]] int write_zeroes(std::uint64_t offset, std::uint64_t length, bool unmap) noexcept override;

private:
    [[noreturn]] void fail(const std::string& reason) const;
    [[noreturn]] void fail_with(const std::string& what, int error_number) const;
    void open_descriptors(DiskCache cache);
    void examine_file(std::uint64_t size);
    void examine_device();
    [[nodiscard]] std::string beginning() const;
    void refuse_other_formats() const;
    void find_alignment();
    [[nodiscard]] std::expected<void, std::string> move_lock(std::uint64_t size) const;
    void allow_size(std::uint64_t size) const noexcept;
    [[nodiscard]] int write_zero_bytes(std::uint64_t offset, std::uint64_t length) noexcept;

    std::string path_;
    std::string label_;
    vmsuperio::UniqueFd fd_;         // without the cache of the host if that is configured
    vmsuperio::UniqueFd cached_fd_;  // the same file, with the cache
    FileIdentity identity_;
    DiskFacts facts_;
    bool device_{false};
    std::uint64_t most_allowed_{0};  // RLIMIT_FSIZE before the sandbox lowered it
};

}  // namespace kvm_vmm::virtio
