// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/timer.hpp"

#include <chrono>
#include <ctime>
#include <optional>
#include <thread>

#include "catch.hpp"

using kvm_vmm::EventManager;
using kvm_vmm::Timer;
using namespace std::chrono_literals;

namespace {

std::chrono::nanoseconds now(clockid_t clock) {
    timespec time{};
    REQUIRE(::clock_gettime(clock, &time) == 0);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

struct Counted {
    explicit Counted(clockid_t clock) : timer(events, clock, [this] { ++calls; }) {}

    // A timer that does not expire is a failure, not a hang.
    int wait() {
        events.run_once(10'000);
        return calls;
    }
    int look() {
        events.run_once(0);
        return calls;
    }

    EventManager events;
    int calls{0};
    Timer timer;
};

}  // namespace

TEST_CASE("Timer: a timer that has never been set does not expire", "[event]") {
    Counted counted(CLOCK_MONOTONIC);
    CHECK(counted.look() == 0);
    counted.timer.set(std::nullopt);
    CHECK(counted.look() == 0);
}

TEST_CASE("Timer: a deadline that is past, zero or negative expires at once, and only once", "[event]") {
    const clockid_t clock = GENERATE(CLOCK_MONOTONIC, CLOCK_REALTIME);
    Counted counted(clock);
    const std::chrono::nanoseconds deadline =
        GENERATE(std::chrono::nanoseconds(0), std::chrono::nanoseconds(1), std::chrono::nanoseconds(-1),
                 std::chrono::nanoseconds(std::chrono::hours(-1)), std::chrono::nanoseconds::min(),
                 std::chrono::nanoseconds(999'999'999), std::chrono::nanoseconds(-1'000'000'000));
    counted.timer.set(deadline);
    CHECK(counted.wait() == 1);
    CHECK(counted.look() == 1);
}

TEST_CASE("Timer: it expires no earlier than its deadline, and only once", "[event]") {
    const clockid_t clock = GENERATE(CLOCK_MONOTONIC, CLOCK_REALTIME);
    Counted counted(clock);
    const auto deadline = now(clock) + 20ms;
    counted.timer.set(deadline);
    CHECK(counted.wait() == 1);
    CHECK(now(clock) >= deadline);
    CHECK(counted.look() == 1);
}

TEST_CASE("Timer: the last deadline that was set counts, whether earlier or later than the one before",
          "[event]") {
    Counted counted(CLOCK_MONOTONIC);
    SECTION("earlier") {
        counted.timer.set(now(CLOCK_MONOTONIC) + 1h);
        counted.timer.set(now(CLOCK_MONOTONIC));
        CHECK(counted.wait() == 1);
    }
    SECTION("later") {
        counted.timer.set(now(CLOCK_MONOTONIC) + 1ms);
        counted.timer.set(now(CLOCK_MONOTONIC) + 1h);
        std::this_thread::sleep_for(5ms);
        CHECK(counted.look() == 0);
    }
    SECTION("never") {
        counted.timer.set(now(CLOCK_MONOTONIC) + 1ms);
        counted.timer.set(std::nullopt);
        std::this_thread::sleep_for(5ms);
        CHECK(counted.look() == 0);
    }
    SECTION("never, after it has expired and before the function is called") {
        counted.timer.set(std::chrono::nanoseconds(0));
        std::this_thread::sleep_for(1ms);
        counted.timer.set(std::nullopt);
        CHECK(counted.look() == 0);
    }
    SECTION("later, after it has expired and before the function is called") {
        counted.timer.set(std::chrono::nanoseconds(0));
        std::this_thread::sleep_for(1ms);
        counted.timer.set(now(CLOCK_MONOTONIC) + 1h);
        CHECK(counted.look() == 0);
    }
}

TEST_CASE("Timer: a deadline too far in the future never expires, instead of at once", "[event]") {
    Counted counted(CLOCK_MONOTONIC);
    counted.timer.set(std::chrono::nanoseconds::max());
    CHECK(counted.look() == 0);
}

TEST_CASE("Timer: its function may set it again, and destroying it cancels the deadline", "[event]") {
    EventManager events;
    int calls = 0;
    std::optional<Timer> timer;
    timer.emplace(events, CLOCK_MONOTONIC, [&] {
        if (++calls < 3) {
            timer->set(std::chrono::nanoseconds(0));
        }
    });
    timer->set(std::chrono::nanoseconds(0));
    for (int i = 0; i < 3; ++i) {
        events.run_once(10'000);
    }
    CHECK(calls == 3);
    timer->set(std::chrono::nanoseconds(0));
    timer.reset();
    events.run_once(0);
    CHECK(calls == 3);
}

TEST_CASE("Timer: it may be set from another thread", "[event]") {
    Counted counted(CLOCK_MONOTONIC);
    std::thread([&] { counted.timer.set(now(CLOCK_MONOTONIC) + 5ms); }).join();
    CHECK(counted.wait() == 1);
}
