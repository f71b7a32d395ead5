// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <vmsuperio/clock.hpp>

#include "catch.hpp"

using namespace std::chrono_literals;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;

TEST_CASE("ManualClock: stands still until it is moved", "[clock]") {
    ManualClock clock(5s);
    CHECK(vmsuperio::time_since_epoch(clock) == 5s);
    CHECK(vmsuperio::time_since_epoch(clock) == 5s);
    clock.advance(250ms);
    CHECK(vmsuperio::time_since_epoch(clock) == 5250ms);
    clock.set(1s);
    CHECK(vmsuperio::time_since_epoch(clock) == 1s);
}

TEST_CASE("ClockRef: follows the clock it refers to, and so do its copies", "[clock]") {
    ManualClock clock;
    const ClockRef<ManualClock> ref(clock);
    const ClockRef<ManualClock> copy = ref;
    clock.advance(3ns);
    CHECK(vmsuperio::time_since_epoch(ref) == 3ns);
    CHECK(vmsuperio::time_since_epoch(copy) == 3ns);
}

TEST_CASE("Clock: standard clocks qualify as they are", "[clock]") {
    STATIC_REQUIRE(vmsuperio::Clock<std::chrono::steady_clock>);
    STATIC_REQUIRE(vmsuperio::Clock<std::chrono::system_clock>);
    STATIC_REQUIRE_FALSE(vmsuperio::Clock<int>);
    const auto before = std::chrono::system_clock::now().time_since_epoch();
    CHECK(vmsuperio::time_since_epoch(std::chrono::system_clock{}) >= before);
}
