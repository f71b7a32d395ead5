// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <chrono>
#include <cstdint>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/rtc/civil_date.hpp>

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

TEST_CASE("Clock: standard clocks satisfy the concept", "[clock]") {
    STATIC_REQUIRE(vmsuperio::Clock<std::chrono::steady_clock>);
    STATIC_REQUIRE(vmsuperio::Clock<std::chrono::system_clock>);
    STATIC_REQUIRE_FALSE(vmsuperio::Clock<int>);
    const auto before = std::chrono::system_clock::now().time_since_epoch();
    CHECK(vmsuperio::time_since_epoch(std::chrono::system_clock{}) >= before);
}

TEST_CASE("Civil dates are those of <chrono>, over the whole range of the clocks", "[clock][property]") {
    using namespace vmsuperio::detail;
    for (std::int64_t day = -200'000; day <= 9'600'000; day += day < 200'000 ? 1 : 977) {
        const std::chrono::year_month_day date{std::chrono::sys_days(std::chrono::days(day))};
        const CivilDate found = civil_from_days(day);
        REQUIRE(found.year == int{date.year()});
        REQUIRE(found.month == unsigned{date.month()});
        REQUIRE(found.day == unsigned{date.day()});
        REQUIRE(days_from_civil(found) == day);
    }
    for (int year = 1890; year <= 2410; ++year) {
        for (unsigned month = 1; month <= 12; ++month) {
            const std::chrono::year_month_day last(std::chrono::year(year) / std::chrono::month(month) /
                                                   std::chrono::last);
            REQUIRE(days_of_month(year, month) == unsigned{last.day()});
        }
    }
}
