// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cerrno>
#include <cstdint>
#include <expected>
#include <sys/eventfd.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <vmsuperio/linux/unique_fd.hpp>
#include <vmsuperio/trigger.hpp>

namespace vmsuperio::inline v0_2 {

/// An edge trigger that adds 1 to an eventfd, on which an irqfd waits or which an event loop polls.
///
/// It owns the descriptor. It may be triggered from any thread.
class EventFdTrigger {
public:
    using error_type = std::error_code;

    /// Creates an eventfd, non-blocking and closed on exec. Fails if eventfd(2) does, for example if no
    /// descriptor is left.
    [[nodiscard]] static std::expected<EventFdTrigger, std::error_code> create() noexcept {
        const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (fd < 0) {
            return std::unexpected(detail::last_error());
        }
        return EventFdTrigger(UniqueFd(fd));
    }
    /// Takes ownership of an existing eventfd, which should be non-blocking.
    [[nodiscard]] static EventFdTrigger adopt(int fd) noexcept { return EventFdTrigger(UniqueFd(fd)); }

    /// The descriptor, which stays owned by this object.
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// Another trigger on the same counter, with a descriptor of its own.
    [[nodiscard]] std::expected<EventFdTrigger, std::error_code> duplicate() const noexcept {
        auto copy = UniqueFd::duplicate(fd_.get());
        if (!copy) {
            return std::unexpected(copy.error());
        }
        return EventFdTrigger(std::move(*copy));
    }

    /// Signals the event. A counter at its maximum is not an error: the event is pending already.
    [[nodiscard]] std::expected<void, std::error_code> trigger() const noexcept {
        const std::uint64_t one = 1;
        while (::write(fd_.get(), &one, sizeof one) != static_cast<ssize_t>(sizeof one)) {
            if (errno == EAGAIN) {
                return {};
            }
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
        return {};
    }

    /// Reads the counter and sets it to 0. Returns how often the event was signalled since the last call.
    [[nodiscard]] std::expected<std::uint64_t, std::error_code> take() const noexcept {
        std::uint64_t count = 0;
        while (::read(fd_.get(), &count, sizeof count) != static_cast<ssize_t>(sizeof count)) {
            if (errno == EAGAIN) {
                return 0;
            }
            if (errno != EINTR) {
                return std::unexpected(detail::last_error());
            }
        }
        return count;
    }

private:
    explicit EventFdTrigger(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

    UniqueFd fd_;
};
static_assert(Trigger<EventFdTrigger> && !LevelTrigger<EventFdTrigger>);

}  // namespace vmsuperio::inline v0_2
