// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <expected>
#include <fcntl.h>
#include <poll.h>
#include <span>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <vmsuperio/linux/unique_fd.hpp>
#include <vmsuperio/writer.hpp>

namespace vmsuperio::inline v0_2 {

/// Writes to a file descriptor without blocking.
///
/// - `EINTR` is retried, `EAGAIN` is "would block" (0 bytes taken), a partial write returns the number of
///   bytes written.
/// - If the reader has closed its end, each write returns the error `EPIPE`, and later writes are still
///   possible. No `SIGPIPE` is raised for a socket. For a pipe the closed end is detected before writing;
///   because the reader may close it at that very moment, a program that writes to pipes should ignore
///   `SIGPIPE` nevertheless.
/// - A terminal or pipe that was inherited from the shell shares its open file description with it:
///   `O_NONBLOCK` would affect the shell and all other programs, so this class never changes that flag.
///   `create` opens the same terminal or pipe a second time, non-blocking, for this writer alone; `borrow`
///   calls poll(2) before each write and writes no more than certainly fits.
/// - Regular files are written directly: they do not block in the sense of poll(2).
class FdWriter {
public:
    /// Writes to `fd`, which the caller owns and which must outlive the writer.
    explicit FdWriter(int fd) noexcept : fd_(fd) { inspect(); }
    /// A writer to a descriptor that the caller keeps, and whose flags do not change.
    [[nodiscard]] static FdWriter borrow(int fd) noexcept { return FdWriter(fd); }
    /// Writes to `fd` and closes it in the destructor.
    [[nodiscard]] static FdWriter own(int fd) noexcept { return FdWriter(UniqueFd(fd)); }

    /// Creates the best writer for the file of `fd`; the caller keeps `fd` and may close it. Terminals and
    /// pipes are opened a second time, so that they can be non-blocking; if that is not possible (no /proc,
    /// no permission), and for all other files, the descriptor is duplicated.
    [[nodiscard]] static std::expected<FdWriter, std::error_code> create(int fd) {
        struct stat status{};
        if (fd < 0) {
            return std::unexpected(std::error_code(EBADF, std::system_category()));
        }
        const int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0 || ::fstat(fd, &status) != 0) {
            return std::unexpected(detail::last_error());
        }
        if ((flags & O_NONBLOCK) == 0 && (S_ISFIFO(status.st_mode) || is_reopenable_terminal(fd))) {
            std::array<char, 32> path{};
            (void)std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", fd);
            // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg): open(2) is declared so
            const int opened = ::open(path.data(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
            if (opened >= 0) {
                return FdWriter(UniqueFd(opened));
            }
        }
        auto copy = UniqueFd::duplicate(fd);
        if (!copy) {
            return std::unexpected(copy.error());
        }
        return FdWriter(std::move(*copy));
    }

    /// The descriptor to poll for writability before `resume_transmit()`.
    [[nodiscard]] int fd() const noexcept { return fd_; }

    /// Writes what certainly fits, possibly nothing. Returns how many bytes, or the error of write(2).
    [[nodiscard]] WriteResult write(std::span<const std::uint8_t> bytes) {
        std::size_t written = 0;
        while (written < bytes.size()) {
            const auto part = write_some(bytes.subspan(written));
            if (!part) {
                // Return the bytes that were written before the error; the next write returns the error.
                if (written != 0) {
                    break;
                }
                return part;
            }
            if (*part == 0) {
                break;
            }
            written += *part;
        }
        return written;
    }

private:
    enum class Kind : std::uint8_t {
        direct,       // never blocks: non-blocking, or a regular file
        direct_pipe,  // non-blocking, but may raise SIGPIPE
        socket,
        blocking_pipe,
        blocking_other,  // a terminal
    };

    explicit FdWriter(UniqueFd owned) noexcept : owned_(std::move(owned)), fd_(owned_.get()) { inspect(); }

    // Returns false for the master of a pseudo-terminal: opening it again would create another
    // pseudo-terminal.
    [[nodiscard]] static bool is_reopenable_terminal(int fd) noexcept {
        unsigned number = 0;
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg): ioctl(2) is declared so
        return ::isatty(fd) != 0 && ::ioctl(fd, TIOCGPTN, &number) != 0;
    }

    void inspect() noexcept {
        struct stat status{};
        const int flags = fd_ < 0 ? -1 : ::fcntl(fd_, F_GETFL);
        if (flags < 0 || ::fstat(fd_, &status) != 0) {
            return;  // the first write will fail
        }
        const bool blocking = (flags & O_NONBLOCK) == 0;
        if (S_ISSOCK(status.st_mode)) {
            kind_ = Kind::socket;
        } else if (S_ISFIFO(status.st_mode)) {
            kind_ = blocking ? Kind::blocking_pipe : Kind::direct_pipe;
        } else if (blocking && !S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
            kind_ = Kind::blocking_other;
        }
    }

    // One write, or none if it could block.
    [[nodiscard]] WriteResult write_some(std::span<const std::uint8_t> bytes) const noexcept {
        if (kind_ == Kind::blocking_pipe || kind_ == Kind::blocking_other || kind_ == Kind::direct_pipe) {
            const auto writable = can_write();
            if (!writable) {
                return std::unexpected(writable.error());
            }
            if (!*writable) {
                return 0;
            }
            // A writable pipe has room for PIPE_BUF bytes (pipe(7)); a writable terminal for one.
            if (kind_ == Kind::blocking_pipe) {
                bytes = bytes.first(std::min<std::size_t>(bytes.size(), PIPE_BUF));
            } else if (kind_ == Kind::blocking_other) {
                bytes = bytes.first(1);
            }
        }
        for (;;) {
            const ssize_t count = kind_ == Kind::socket
                                      ? ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                                      : ::write(fd_, bytes.data(), bytes.size());
            if (count >= 0) {
                return static_cast<std::size_t>(count);
            }
            if (errno == EAGAIN) {
                return 0;
            }
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
    }

    [[nodiscard]] std::expected<bool, std::error_code> can_write() const noexcept {
        struct pollfd entry{.fd = fd_, .events = POLLOUT, .revents = 0};
        while (::poll(&entry, 1, 0) < 0) {
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
        if ((entry.revents & POLLNVAL) != 0) {
            return std::unexpected(std::error_code(EBADF, std::system_category()));
        }
        if ((entry.revents & POLLERR) != 0 && kind_ != Kind::blocking_other) {
            return std::unexpected(std::error_code(EPIPE, std::system_category()));
        }
        return (entry.revents & (POLLOUT | POLLERR | POLLHUP)) != 0;
    }

    UniqueFd owned_;
    int fd_;
    Kind kind_{Kind::direct};
};
static_assert(Writer<FdWriter>);

}  // namespace vmsuperio::inline v0_2
