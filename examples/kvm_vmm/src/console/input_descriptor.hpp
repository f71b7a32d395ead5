// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <system_error>

#include <vmsuperio/linux/unique_fd.hpp>

namespace kvm_vmm {

/// Reads from a descriptor that other processes use too, without blocking.
///
/// If poll(2) reports a descriptor as readable, that is only a hint: another process may take the byte first,
/// and then read(2) blocks. O_NONBLOCK prevents that, but belongs to the open file description, which a
/// terminal or pipe of the shell shares with all its other users, who would be affected. So the flag of the
/// given descriptor is never changed.
///
/// - A terminal, FIFO or character device is opened again through /proc/self/fd, non-blocking.
/// - A socket is read with MSG_DONTWAIT.
/// - A regular file never blocks in this sense and is read directly, from its current position.
/// - If it cannot be opened again (no permission, no /proc, the master of a pseudo-terminal, which would be
///   another one), a thread reads, which may block, and passes the bytes on.
class InputDescriptor {
public:
    /// Nothing to read.
    InputDescriptor();
    /// The caller owns `fd`, which must stay open. Throws VmmError if the system has no descriptor left.
    explicit InputDescriptor(int fd);
    ~InputDescriptor();
    InputDescriptor(const InputDescriptor&) = delete;
    InputDescriptor& operator=(const InputDescriptor&) = delete;
    InputDescriptor(InputDescriptor&& other) noexcept;
    InputDescriptor& operator=(InputDescriptor&&) = delete;

    /// The descriptor to wait for, or -1 if there is nothing to read.
    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] bool is_terminal() const noexcept { return is_terminal_; }

    /// Returns 0 at the end of the input, and the error EAGAIN if there is no input at present.
    [[nodiscard]] std::expected<std::size_t, std::error_code> read(std::span<std::uint8_t> bytes) const;

private:
    class Thread;

    void read_in_thread(int source);

    vmsuperio::UniqueFd own_;
    int fd_{-1};
    bool is_socket_{false};
    bool is_terminal_{false};
    std::unique_ptr<Thread> thread_;
};

}  // namespace kvm_vmm
