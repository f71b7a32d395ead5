// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/event_manager.hpp"

#include <array>
#include <cerrno>
#include <string>
#include <sys/epoll.h>
#include <utility>
#include <vector>

#include "util/error.hpp"

namespace kvm_vmm {

EventManager::EventManager() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (!epoll_) {
        throw VmmError(ExitCode::vmm_error, errno_message("epoll_create1 failed", errno));
    }
}

std::error_code EventManager::update_epoll(SubscriptionId id, Subscription& subscription,
                                           std::uint32_t events) const {
    subscription.events = events;
    if (subscription.always_ready) {
        return {};
    }
    // epoll reports EPOLLHUP even if no event was requested, so a paused descriptor has to be removed from
    // it.
    const int operation =
        events == 0 ? EPOLL_CTL_DEL : (subscription.in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
    if (operation == EPOLL_CTL_DEL && !subscription.in_epoll) {
        return {};
    }
    epoll_event event{};
    event.events = events;
    event.data.u64 = static_cast<std::uint64_t>(id);
    const bool failed = ::epoll_ctl(epoll_.get(), operation, subscription.fd, &event) != 0;
    const int error_number = errno;
    subscription.in_epoll = events != 0 && !failed;
    if (failed && error_number == EPERM && operation == EPOLL_CTL_ADD) {
        subscription.always_ready = true;
        return {};
    }
    if (failed && operation != EPOLL_CTL_DEL) {
        return {error_number, std::system_category()};
    }
    return {};
}

std::expected<EventManager::SubscriptionId, std::error_code> EventManager::add(int fd, std::uint32_t events,
                                                                               Handler handler) {
    const SubscriptionId id{next_id_++};
    auto subscription =
        std::make_shared<Subscription>(Subscription{fd, events, false, false, std::move(handler)});
    if (const std::error_code error = update_epoll(id, *subscription, events)) {
        return std::unexpected(error);
    }
    subscriptions_.emplace(id, std::move(subscription));
    return id;
}

EventManager::SubscriptionId EventManager::subscribe(int fd, std::uint32_t events, std::string_view what,
                                                     Handler handler) {
    const auto id = add(fd, events, std::move(handler));
    if (!id) {
        throw VmmError(ExitCode::vmm_error,
                       "cannot wait for " + std::string(what) + ": " + id.error().message());
    }
    return *id;
}

bool EventManager::modify(SubscriptionId id, std::uint32_t events) {
    const auto found = subscriptions_.find(id);
    return found != subscriptions_.end() && !update_epoll(id, *found->second, events);
}

bool EventManager::remove(SubscriptionId id) {
    const auto found = subscriptions_.find(id);
    if (found == subscriptions_.end()) {
        return false;
    }
    (void)update_epoll(id, *found->second, 0);
    subscriptions_.erase(found);
    return true;
}

bool EventManager::dispatch(SubscriptionId id, std::uint32_t events) {
    // An earlier handler of the same batch may have removed or paused this subscription, or changed its
    // events.
    const auto found = subscriptions_.find(id);
    if (found == subscriptions_.end() || found->second->events == 0) {
        return false;
    }
    // The handler may remove its own subscription, which has to outlive the call.
    const std::shared_ptr<Subscription> subscription = found->second;
    events &= subscription->events | EPOLLHUP | EPOLLERR;
    if (events == 0) {
        return false;
    }
    subscription->handler(events);
    return true;
}

std::size_t EventManager::run_once(int timeout_ms) {
    std::vector<std::pair<SubscriptionId, std::uint32_t>> ready;
    for (const auto& [id, subscription] : subscriptions_) {
        const std::uint32_t readiness = subscription->events & (EPOLLIN | EPOLLOUT);
        if (subscription->always_ready && readiness != 0) {
            ready.emplace_back(id, readiness);
        }
    }
    std::array<epoll_event, 32> events{};
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   ready.empty() ? timeout_ms : 0);
    if (count < 0 && errno != EINTR) {
        throw VmmError(ExitCode::vmm_error, errno_message("epoll_wait failed", errno));
    }
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = events.at(static_cast<std::size_t>(i));
        ready.emplace_back(SubscriptionId{event.data.u64}, event.events);
    }
    std::size_t called = 0;
    for (const auto& [id, bits] : ready) {
        called += dispatch(id, bits) ? 1U : 0U;
    }
    return called;
}

}  // namespace kvm_vmm
