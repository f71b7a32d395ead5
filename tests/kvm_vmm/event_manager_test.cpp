// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/event_manager.hpp"

#include <array>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <vector>

#include "catch.hpp"
#include "event/notifier.hpp"
#include "event/signals.hpp"

using kvm_vmm::EventManager;
using kvm_vmm::Notifier;
using vmsuperio::UniqueFd;

namespace {

struct Pipe {
    vmsuperio::UniqueFd read_end;
    vmsuperio::UniqueFd write_end;
};

Pipe make_pipe() {
    std::array<int, 2> fds{};
    REQUIRE(::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK) == 0);
    return {vmsuperio::UniqueFd(fds[0]), vmsuperio::UniqueFd(fds[1])};
}

}  // namespace

TEST_CASE("EventManager: calls the handler while the descriptor is ready", "[event]") {
    EventManager events;
    Notifier notifier;
    int calls = 0;
    const auto id = events.add(notifier.fd(), EPOLLIN, [&](std::uint32_t bits) {
        CHECK((bits & EPOLLIN) != 0);
        ++calls;
    });
    REQUIRE(id.has_value());
    events.run_once(0);
    CHECK(calls == 0);
    notifier.notify();
    events.run_once(0);
    events.run_once(0);
    CHECK(calls == 2);
    notifier.clear();
    events.run_once(0);
    CHECK(calls == 2);
}

TEST_CASE("EventManager: an event that is pending for a removed subscription is dropped", "[event]") {
    EventManager events;
    Notifier first;
    Notifier second;
    std::array<EventManager::SubscriptionId, 2> ids{};
    int calls = 0;
    // The handler that is called first removes the other, whose event is in the same batch.
    ids[0] = *events.add(first.fd(), EPOLLIN, [&](std::uint32_t) {
        ++calls;
        CHECK(events.remove(ids[1]));
    });
    ids[1] = *events.add(second.fd(), EPOLLIN, [&](std::uint32_t) {
        ++calls;
        CHECK(events.remove(ids[0]));
    });
    first.notify();
    second.notify();
    events.run_once(0);
    CHECK(calls == 1);
}

TEST_CASE("EventManager: a reused descriptor number does not get its predecessor's event", "[event]") {
    EventManager events;
    Notifier trigger;
    auto old_pipe = make_pipe();
    auto other_pipe = make_pipe();
    const int number = old_pipe.read_end.get();
    bool old_called = false;
    bool new_called = false;
    EventManager::SubscriptionId old_id{};
    bool swapped = false;
    (void)events.add(trigger.fd(), EPOLLIN, [&](std::uint32_t) {
        if (swapped) {
            return;
        }
        swapped = true;
        events.remove(old_id);
        old_pipe.read_end.reset();
        REQUIRE(::dup3(other_pipe.read_end.get(), number, O_CLOEXEC) == number);
        REQUIRE(events.add(number, EPOLLIN, [&](std::uint32_t) { new_called = true; }).has_value());
    });
    old_id = *events.add(number, EPOLLIN, [&](std::uint32_t) { old_called = true; });
    REQUIRE(::write(old_pipe.write_end.get(), "x", 1) == 1);
    trigger.notify();
    events.run_once(0);
    events.run_once(0);
    CHECK(swapped);
    CHECK_FALSE(new_called);
    (void)old_called;  // its handler may have been called first, which is correct too
    ::close(number);
}

TEST_CASE("EventManager: a handler may remove itself", "[event]") {
    EventManager events;
    Notifier notifier;
    notifier.notify();
    int calls = 0;
    EventManager::SubscriptionId id{};
    const std::vector<int> captured(100, 7);
    id = *events.add(notifier.fd(), EPOLLIN, [&, captured](std::uint32_t) {
        CHECK(events.remove(id));
        ++calls;
        CHECK(captured.back() == 7);
    });
    events.run_once(0);
    events.run_once(0);
    CHECK(calls == 1);
    CHECK_FALSE(events.remove(id));
    CHECK_FALSE(events.modify(id, EPOLLIN));
}

TEST_CASE("EventManager: a descriptor closed too early is not fatal", "[event]") {
    EventManager events;
    auto pipe = make_pipe();
    const auto id = *events.add(pipe.read_end.get(), EPOLLIN, [](std::uint32_t) {});
    pipe.read_end.reset();
    events.run_once(0);
    CHECK_FALSE(events.modify(id, EPOLLIN | EPOLLOUT));
    CHECK(events.remove(id));
}

TEST_CASE("EventManager: adding a descriptor that is not open fails with EBADF", "[event]") {
    EventManager events;
    const auto id = events.add(-1, EPOLLIN, [](std::uint32_t) {});
    REQUIRE_FALSE(id.has_value());
    CHECK(id.error() == std::errc::bad_file_descriptor);
}

TEST_CASE("EventManager: a paused subscription is not called, not even for a hang-up", "[event]") {
    EventManager events;
    auto pipe = make_pipe();
    int calls = 0;
    const auto id = *events.add(pipe.read_end.get(), EPOLLIN, [&](std::uint32_t) { ++calls; });
    pipe.write_end.reset();
    CHECK(events.modify(id, 0));
    events.run_once(0);
    CHECK(calls == 0);
    CHECK(events.modify(id, EPOLLIN));
    events.run_once(0);
    CHECK(calls == 1);
}

TEST_CASE("EventManager: hangup_only reports a hang-up once, and readiness never", "[event]") {
    EventManager events;
    auto pipe = make_pipe();
    std::vector<std::uint32_t> seen;
    const auto id = *events.add(pipe.read_end.get(), EventManager::hangup_only,
                                [&](std::uint32_t bits) { seen.push_back(bits); });
    REQUIRE(::write(pipe.write_end.get(), "x", 1) == 1);
    CHECK(events.run_once(0) == 0);
    CHECK(seen.empty());
    SECTION("it occurs later") {
        pipe.write_end.reset();
        CHECK(events.run_once(0) == 1);
    }
    SECTION("it has occurred before the subscription") {
        CHECK(events.modify(id, 0));
        pipe.write_end.reset();
        CHECK(events.run_once(0) == 0);
        CHECK(events.modify(id, EventManager::hangup_only));
        CHECK(events.run_once(0) == 1);
    }
    SECTION("of the reader of a pipe") {
        auto other = make_pipe();
        REQUIRE(events
                    .add(other.write_end.get(), EventManager::hangup_only,
                         [&](std::uint32_t bits) { seen.push_back(bits & EPOLLERR ? EPOLLHUP : 0U); })
                    .has_value());
        CHECK(events.run_once(0) == 0);
        other.read_end.reset();
        CHECK(events.run_once(0) == 1);
    }
    for (int i = 0; i < 20; ++i) {
        CHECK(events.run_once(0) == 0);
    }
    REQUIRE(seen.size() == 1);
    CHECK((seen[0] & EPOLLHUP) != 0);
    CHECK((seen[0] & (EPOLLIN | EPOLLOUT)) == 0);
}

TEST_CASE("EventManager: hangup_only reports nothing for a descriptor that never hangs up", "[event]") {
    EventManager events;
    const vmsuperio::UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    int calls = 0;
    const auto id =
        events.add(null.get(), EPOLLIN | EventManager::hangup_only, [&](std::uint32_t) { ++calls; });
    REQUIRE(id.has_value());
    CHECK(events.run_once(0) == 1);
    CHECK(events.modify(*id, EventManager::hangup_only));
    CHECK(events.run_once(0) == 0);
    CHECK(calls == 1);
}

TEST_CASE("EventManager: a handler that another handler of the same batch has paused is not called",
          "[event]") {
    EventManager events;
    std::array<Notifier, 2> notifiers;
    std::array<EventManager::SubscriptionId, 2> ids{};
    std::array<int, 2> calls{};
    // The handler that is called first pauses the other, whose event is in the same batch.
    for (const std::size_t i : {0U, 1U}) {
        ids.at(i) = *events.add(notifiers.at(i).fd(), EPOLLIN, [&, i](std::uint32_t) {
            ++calls.at(i);
            CHECK(events.modify(ids.at(1 - i), 0));
        });
        notifiers.at(i).notify();
    }
    CHECK(events.run_once(0) == 1);
    CHECK(calls[0] + calls[1] == 1);
    const std::size_t paused = calls[0] == 0 ? 0 : 1;
    CHECK(events.run_once(0) == 1);
    CHECK(calls.at(paused) == 0);
    // The pending event is not lost: it is reported once the subscription waits for it again.
    CHECK(events.modify(ids.at(1 - paused), 0));
    CHECK(events.modify(ids.at(paused), EPOLLIN));
    CHECK(events.run_once(0) == 1);
    CHECK(calls.at(paused) == 1);
}

TEST_CASE("EventManager: an event that another handler of the same batch has stopped waiting for is dropped",
          "[event]") {
    EventManager events;
    Notifier first;
    Notifier second;
    std::array<EventManager::SubscriptionId, 2> ids{};
    std::vector<std::uint32_t> seen;
    // An eventfd is also writable; each handler makes the other subscription wait only for that.
    ids[0] = *events.add(first.fd(), EPOLLIN, [&](std::uint32_t bits) {
        seen.push_back(bits);
        CHECK(events.modify(ids[1], EPOLLOUT));
    });
    ids[1] = *events.add(second.fd(), EPOLLIN, [&](std::uint32_t bits) {
        seen.push_back(bits);
        CHECK(events.modify(ids[0], EPOLLOUT));
    });
    first.notify();
    second.notify();
    CHECK(events.run_once(0) == 1);
    CHECK(seen == std::vector<std::uint32_t>{EPOLLIN});
}

TEST_CASE("EventManager: regular files and /dev/null are always ready, and can be paused", "[event]") {
    EventManager events;
    const auto check = [&](int fd) {
        int calls = 0;
        const auto id = events.add(fd, EPOLLIN, [&](std::uint32_t) { ++calls; });
        REQUIRE(id.has_value());
        events.run_once(-1);
        CHECK(calls == 1);
        CHECK(events.modify(*id, 0));
        events.run_once(0);
        CHECK(calls == 1);
        CHECK(events.modify(*id, EPOLLIN));
        events.run_once(-1);
        CHECK(calls == 2);
        CHECK(events.remove(*id));
        events.run_once(0);
        CHECK(calls == 2);
    };
    std::FILE* const file = std::tmpfile();
    REQUIRE(file != nullptr);
    check(::fileno(file));
    (void)std::fclose(file);
    const vmsuperio::UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    check(null.get());
}

TEST_CASE("SignalEvents: a signal reaches the handler and the mask is restored", "[event]") {
    EventManager events;
    sigset_t before{};
    pthread_sigmask(SIG_SETMASK, nullptr, &before);
    std::vector<int> seen;
    {
        const kvm_vmm::SignalEvents signals(events, {SIGUSR1, SIGUSR2},
                                            [&](int signal) { seen.push_back(signal); });
        REQUIRE(::raise(SIGUSR2) == 0);
        events.run_once(1000);
        CHECK(seen == std::vector{SIGUSR2});
    }
    sigset_t after{};
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    CHECK(sigismember(&after, SIGUSR1) == sigismember(&before, SIGUSR1));
    CHECK(sigismember(&after, SIGUSR2) == sigismember(&before, SIGUSR2));
}

TEST_CASE("SignalEvents: a signal that was ignored stays ignored", "[event]") {
    EventManager events;
    std::signal(SIGUSR1, SIG_IGN);
    int calls = 0;
    {
        const kvm_vmm::SignalEvents signals(events, {SIGUSR1}, [&](int) { ++calls; });
        REQUIRE(::raise(SIGUSR1) == 0);
        events.run_once(0);
    }
    std::signal(SIGUSR1, SIG_DFL);
    CHECK(calls == 0);
}

TEST_CASE("Signals: pending_signal finds a pending signal without consuming it, unless it is excepted",
          "[event][signals]") {
    sigset_t both{};
    sigset_t before{};
    sigemptyset(&both);
    sigaddset(&both, SIGTERM);
    sigaddset(&both, SIGUSR1);
    REQUIRE(::pthread_sigmask(SIG_BLOCK, &both, &before) == 0);
    CHECK(kvm_vmm::pending_signal({}) == 0);
    REQUIRE(::kill(::getpid(), SIGUSR1) == 0);
    CHECK(kvm_vmm::pending_signal({SIGUSR1}) == 0);
    CHECK(kvm_vmm::pending_signal({}) == SIGUSR1);
    REQUIRE(::kill(::getpid(), SIGTERM) == 0);
    CHECK(kvm_vmm::pending_signal({SIGUSR1}) == SIGTERM);
    CHECK(kvm_vmm::pending_signal({SIGUSR1}) == SIGTERM);  // it is still pending
    const timespec none{};
    CHECK(::sigtimedwait(&both, nullptr, &none) > 0);
    CHECK(::sigtimedwait(&both, nullptr, &none) > 0);
    CHECK(kvm_vmm::pending_signal({}) == 0);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
