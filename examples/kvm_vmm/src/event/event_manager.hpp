// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <sys/epoll.h>
#include <system_error>
#include <unordered_map>

#include "util/file_descriptor.hpp"

namespace kvm_vmm {

/// Waits for file descriptors with epoll and calls whoever registered them. One thread only.
///
/// A handler may add, modify and remove any subscription, its own included. Events are tied to the
/// subscription, not to the number of the descriptor: what was pending when a subscription is removed is
/// dropped, even where the number has been used again since.
///
/// Descriptors that epoll refuses because they are always ready (regular files) are served as such.
class EventManager {
public:
    enum class SubscriptionId : std::uint64_t {};
    /// Gets the EPOLL* bits that came up.
    using Handler = std::function<void(std::uint32_t events)>;

    /// Throws VmmError where the system has no epoll descriptor left.
    EventManager();

    /// As the events to wait for: the handler is called once when EPOLLHUP or EPOLLERR comes up, and not for
    /// readiness to read or write. So the peer's end is heard of while nothing is to be read or written, and
    /// a handler that does nothing about it is not called over and over. If it holds already, that counts as
    /// coming up.
    static constexpr std::uint32_t hangup_only = EPOLLET;

    /// Calls `handler` whenever one of `events` (EPOLLIN, EPOLLOUT), EPOLLHUP or EPOLLERR holds for `fd`,
    /// which stays the caller's and must be open until the subscription is removed. `events` 0 starts paused.
    [[nodiscard]] std::expected<SubscriptionId, std::error_code> add(int fd, std::uint32_t events,
                                                                     Handler handler);

    /// Waits for other events from now on. With 0 the subscription is paused: it is not called at all,
    /// not even for EPOLLHUP. This holds within a batch too: an event that is pending and no longer waited
    /// for is not reported. False where there is no such subscription, or the descriptor was closed.
    bool modify(SubscriptionId id, std::uint32_t events);

    /// Forgets a subscription. False where there is none.
    bool remove(SubscriptionId id);

    /// Waits up to `timeout_ms` (-1: for ever) for one batch of events and calls their handlers. Returns how
    /// many were called.
    std::size_t run_once(int timeout_ms);

private:
    struct Subscription {
        int fd;
        std::uint32_t events;
        bool in_epoll;
        bool always_ready;
        Handler handler;
    };

    std::error_code update_epoll(SubscriptionId id, Subscription& subscription, std::uint32_t events) const;
    bool dispatch(SubscriptionId id, std::uint32_t events);

    FileDescriptor epoll_;
    std::uint64_t next_id_{1};
    std::unordered_map<SubscriptionId, std::shared_ptr<Subscription>> subscriptions_;
};

}  // namespace kvm_vmm
