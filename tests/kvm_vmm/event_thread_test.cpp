// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/event_thread.hpp"

#include <atomic>
#include <semaphore>
#include <sys/epoll.h>
#include <thread>

#include <vmsuperio/linux/eventfd.hpp>

#include "catch.hpp"

using namespace kvm_vmm;

TEST_CASE("EventThread: handlers run in the new thread, and none after stop()", "[event]") {
    auto event = vmsuperio::EventFdTrigger::create().value();
    std::atomic<int> calls{0};
    std::thread::id caller;
    std::binary_semaphore called{0};
    {
        EventThread thread("test", sandbox::Role::disk);
        REQUIRE(thread.events()
                    .add(event.fd(), EPOLLIN,
                         [&](std::uint32_t) {
                             (void)event.take();
                             caller = std::this_thread::get_id();
                             ++calls;
                             called.release();
                         })
                    .has_value());
        REQUIRE(event.trigger().has_value());
        CHECK_FALSE(called.try_acquire_for(std::chrono::milliseconds(20)));  // not started yet
        thread.start();
        called.acquire();
        CHECK(caller != std::this_thread::get_id());
        CHECK(calls == 1);
        thread.stop();
        REQUIRE(event.trigger().has_value());
        CHECK_FALSE(called.try_acquire_for(std::chrono::milliseconds(20)));
        thread.stop();  // has no effect
    }
    CHECK(calls == 1);
}

TEST_CASE("EventThread: the destructor waits for a handler that is running", "[event]") {
    auto event = vmsuperio::EventFdTrigger::create().value();
    std::binary_semaphore entered{0};
    std::atomic<bool> left{false};
    {
        EventThread thread("test", sandbox::Role::disk);
        REQUIRE(thread.events()
                    .add(event.fd(), EPOLLIN,
                         [&](std::uint32_t) {
                             (void)event.take();
                             entered.release();
                             std::this_thread::sleep_for(std::chrono::milliseconds(30));
                             left = true;
                         })
                    .has_value());
        thread.start();
        REQUIRE(event.trigger().has_value());
        entered.acquire();
    }
    CHECK(left);
}

TEST_CASE("EventThread: a handler that throws does not end the loop", "[event]") {
    auto event = vmsuperio::EventFdTrigger::create().value();
    std::counting_semaphore<> calls{0};
    EventThread thread("test", sandbox::Role::disk);
    REQUIRE(thread.events()
                .add(event.fd(), EPOLLIN,
                     [&](std::uint32_t) {
                         (void)event.take();
                         calls.release();
                         throw std::bad_alloc();
                     })
                .has_value());
    thread.start();
    for (int i = 0; i < 2; ++i) {
        REQUIRE(event.trigger().has_value());
        CHECK(calls.try_acquire_for(std::chrono::seconds(10)));
    }
}

TEST_CASE("EventThread: a thread that was never started can be destroyed", "[event]") {
    const EventThread thread("test", sandbox::Role::disk);
}
