// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <vmsuperio/linux/unique_fd.hpp>

#include "memory/guest_memory.hpp"
#include "util/file_identity.hpp"

namespace kvm_vmm {

/// A regular file that is open for reading, whose size was determined once.
///
/// Every failure is a VmmError(ExitCode::bad_file) of the form "kernel 'path': reason". A directory, FIFO,
/// device or empty file is refused when it is opened; opening never blocks.
class ImageFile {
public:
    /// `role` is the user's term for the file: "kernel", "initrd". `checkpoint` is called before each 4 MiB
    /// are read, because a file can be as large as the guest's RAM and its disk slow; it may throw to abort. Two threads
    /// may call it at the same time.
    ImageFile(std::string_view role, const std::string& path, std::function<void()> checkpoint = {});

    void set_checkpoint(std::function<void()> checkpoint) { checkpoint_ = std::move(checkpoint); }

    /// The identity of the file, whatever its path.
    [[nodiscard]] FileIdentity identity() const noexcept { return identity_; }
    /// In bytes, never 0.
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    /// Whether [offset, offset + length) is inside the file.
    [[nodiscard]] bool contains(std::uint64_t offset, std::uint64_t length) const noexcept {
        return offset <= size_ && length <= size_ - offset;
    }

    /// Fills all of `target` from `offset`, a large one by two threads. Throws if the file is shorter, or has shrunk since it
    /// was opened.
    void read(std::uint64_t offset, std::span<std::uint8_t> target) const;

    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] T read_object(std::uint64_t offset) const {
        T object{};
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the bytes of a trivial object
        read(offset, {reinterpret_cast<std::uint8_t*>(&object), sizeof(T)});
        return object;
    }

    /// Reads `length` bytes from `offset` straight into guest RAM.
    void read_into(GuestMemory& memory, std::uint64_t address, std::uint64_t offset,
                   std::uint64_t length) const;

    /// Throws VmmError(ExitCode::bad_file, "kernel 'path': reason").
    [[noreturn]] void fail(const std::string& reason) const;

private:
    void read_part(std::uint64_t offset, std::span<std::uint8_t> target, std::atomic<bool>& failed) const;
    void read_steps(std::uint64_t offset, std::span<std::uint8_t> target,
                    const std::atomic<bool>& failed) const;

    std::string label_;
    std::function<void()> checkpoint_;
    vmsuperio::UniqueFd fd_;
    FileIdentity identity_;
    std::uint64_t size_{0};
};

}  // namespace kvm_vmm
