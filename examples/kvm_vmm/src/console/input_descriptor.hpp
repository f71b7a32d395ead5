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

/// Reads from a descriptor that others use too, without ever waiting.
///
/// That poll(2) calls a descriptor readable is a hint only: another process may take the byte first, and then
/// read(2) blocks. O_NONBLOCK prevents that, but belongs to the open file description, which a terminal or
/// pipe of the shell's shares with all its other users: they would see it change. So the flag of the
/// descriptor given is never touched.
///
/// - A terminal, FIFO or character device is opened again through /proc/self/fd, non-blocking, for us alone.
/// - A socket is read with MSG_DONTWAIT.
/// - A regular file never blocks in this sense and is read as it is, from the position that it has.
/// - Where opening again is not possible (no permission, no /proc, the master of a pseudo-terminal, which
///   would become another one), a thread reads, which may block, and passes on what it gets.
class InputDescriptor {
public:
    /// Nothing to read.
    InputDescriptor();
    /// `fd` stays the caller's and must stay open. Throws VmmError where the system has no descriptor left.
    explicit InputDescriptor(int fd);
    ~InputDescriptor();
    InputDescriptor(const InputDescriptor&) = delete;
    InputDescriptor& operator=(const InputDescriptor&) = delete;
    InputDescriptor(InputDescriptor&& other) noexcept;
    InputDescriptor& operator=(InputDescriptor&&) = delete;

    /// What to wait for; -1 where there is nothing to read.
    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] bool is_terminal() const noexcept { return is_terminal_; }

    /// 0 at the end of the input. Error EAGAIN: nothing at the moment.
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
