// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <sys/epoll.h>
#include <system_error>
#include <unordered_map>

#include <vmsuperio/linux/unique_fd.hpp>

namespace kvm_vmm {

/// Waits for file descriptors with epoll and calls the handlers that were registered for them. For one thread
/// only.
///
/// A handler may add, modify and remove any subscription, including its own. Events belong to the
/// subscription, not to the number of the descriptor: pending events of a removed subscription are dropped,
/// even if the number has been reused since.
///
/// Descriptors that epoll refuses because they are always ready (regular files) are served as such.
class EventManager {
public:
    enum class SubscriptionId : std::uint64_t {};
    /// Receives the EPOLL* bits that occurred.
    using Handler = std::function<void(std::uint32_t events)>;

    /// Throws VmmError if the system has no epoll descriptor left.
    EventManager();

    /// As the events to wait for: the handler is called once when EPOLLHUP or EPOLLERR occurs, or if it holds
    /// already, and not for readiness to read or write. So the end of the peer is detected while nothing is
    /// read or written, and a handler that does not react to it is not called repeatedly.
    static constexpr std::uint32_t hangup_only = EPOLLET;

    /// Calls `handler` whenever one of `events` (EPOLLIN, EPOLLOUT), EPOLLHUP or EPOLLERR holds for `fd`. The
    /// caller owns `fd`, which must stay open until the subscription is removed. With `events` 0 the
    /// subscription starts paused.
    [[nodiscard]] std::expected<SubscriptionId, std::error_code> add(int fd, std::uint32_t events,
                                                                     Handler handler);

    /// As add(), but throws VmmError if the system has no room for the subscription. `what` describes in the
    /// message what is waited for.
    [[nodiscard]] SubscriptionId subscribe(int fd, std::uint32_t events, std::string_view what,
                                           Handler handler);

    /// Waits for other events from now on. With 0 the subscription is paused: the handler is not called at
    /// all, not even for EPOLLHUP. This also applies within a batch: a pending event for which the
    /// subscription no longer waits is not reported. Returns false if there is no such subscription, or the
    /// descriptor was closed.
    bool modify(SubscriptionId id, std::uint32_t events);

    /// Removes a subscription. Returns false if there is none.
    bool remove(SubscriptionId id);

    /// Waits up to `timeout_ms` (-1: without a limit) for one batch of events and calls their handlers.
    /// Returns how many were called.
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

    vmsuperio::UniqueFd epoll_;
    std::uint64_t next_id_{1};
    std::unordered_map<SubscriptionId, std::shared_ptr<Subscription>> subscriptions_;
};

}  // namespace kvm_vmm
