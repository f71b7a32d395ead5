// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cerrno>
#include <expected>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace vmsuperio::inline v0_2 {
namespace detail {

[[nodiscard]] inline std::error_code last_error() noexcept { return {errno, std::system_category()}; }

}  // namespace detail

/// Owns a file descriptor, or none (-1).
class UniqueFd {
public:
    UniqueFd() = default;
    /// Owns the descriptor; -1 is none.
    explicit UniqueFd(int fd) noexcept : fd_(fd) {}
    /// Takes the other's descriptor.
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    /// Closes the own descriptor and takes the other's.
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.fd_, -1));
        }
        return *this;
    }
    UniqueFd(const UniqueFd&) = delete;
    UniqueFd& operator=(const UniqueFd&) = delete;
    ~UniqueFd() { reset(); }

    /// The descriptor, or -1.
    [[nodiscard]] int get() const noexcept { return fd_; }
    /// Whether there is a descriptor.
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    /// Passes ownership of the descriptor to the caller.
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    /// Closes the descriptor, and owns `fd` from now on.
    void reset(int fd = -1) noexcept {
        if (const int old = std::exchange(fd_, fd); old >= 0) {
            // Ignore an error: Linux has closed the descriptor nevertheless.
            (void)::close(old);
        }
    }

    /// A new descriptor, closed on exec, for the same open file.
    [[nodiscard]] static std::expected<UniqueFd, std::error_code> duplicate(int fd) noexcept {
        const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0) {
            return std::unexpected(detail::last_error());
        }
        return UniqueFd(copy);
    }

private:
    int fd_{-1};
};

}  // namespace vmsuperio::inline v0_2
