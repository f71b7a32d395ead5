// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The additions of later chips than the MC146818A: an alarm on a day and a month, and a second bank of
// memory.
#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <random>

#include <vmsuperio/rtc_cmos.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using recorders::CountingTrigger;
using std::chrono::seconds;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;
using vmsuperio::NoRtcCmosEvents;
using vmsuperio::RtcCmos;
using vmsuperio::RtcCmosOptions;
using vmsuperio::RtcCmosState;

namespace {

using Device = RtcCmos<CountingTrigger, NoRtcCmosEvents, ClockRef<ManualClock>>;

constexpr seconds at(int year, unsigned month, unsigned day, int hour = 0, int minute = 0, int second = 0) {
    return std::chrono::sys_days(std::chrono::year(year) / std::chrono::month(month) / std::chrono::day(day))
               .time_since_epoch() +
           std::chrono::hours(hour) + std::chrono::minutes(minute) + seconds(second);
}

struct Pc {
    int irqs{};
    ManualClock clock;
    Device dev;

    explicit Pc(RtcCmosOptions options, seconds start = at(2024, 6, 11, 13, 45, 30))
        : clock(start), dev(CountingTrigger{&irqs}, NoRtcCmosEvents{}, ClockRef(clock), options) {}
    Pc(const Pc&) = delete;
    Pc& operator=(const Pc&) = delete;

    std::uint8_t get(int index) {
        CHECK(dev.write(0, static_cast<std::uint8_t>(index)));
        return dev.read(1);
    }
    void put(int index, int value) {
        CHECK(dev.write(0, static_cast<std::uint8_t>(index)));
        CHECK(dev.write(1, static_cast<std::uint8_t>(value)));
    }
    void alarm(int hour, int minute, int second) {
        put(0x05, hour);
        put(0x03, minute);
        put(0x01, second);
        put(0x0B, 0x22);
    }
    std::optional<std::chrono::nanoseconds> deadline() { return dev.next_deadline(); }
    // Advances to the deadline, and checks that the line rises then and not a nanosecond earlier.
    void expect_alarm(seconds when) {
        REQUIRE(deadline().has_value());
        CHECK(*deadline() == when);
        clock.set(when - 1ns);
        CHECK(dev.tick());
        CHECK(irqs == 0);
        clock.set(when);
        CHECK(dev.tick());
        CHECK(irqs == 1);
        CHECK((get(0x0C) & 0xA0) == 0xA0);
        irqs = 0;
    }
};

constexpr RtcCmosOptions via{.utc_offset = seconds(0), .day_alarm = 0x7D, .month_alarm = 0x7E};
constexpr RtcCmosOptions piix4{.utc_offset = seconds(0), .day_alarm = 0x0D, .month_alarm = 0};

}  // namespace

TEST_CASE("RtcCmos: the alarm waits for its day and its month", "[rtc_cmos][alarm]") {
    Pc pc(via);
    pc.put(0x7D, 0x03);
    pc.put(0x7E, 0x09);
    pc.alarm(0x06, 0x30, 0x00);
    pc.expect_alarm(at(2024, 9, 3, 6, 30));
    pc.expect_alarm(at(2025, 9, 3, 6, 30));
    pc.put(0x7E, 0x00);  // any month
    pc.expect_alarm(at(2025, 10, 3, 6, 30));
    pc.put(0x7D, 0xFF);  // any day
    pc.expect_alarm(at(2025, 10, 4, 6, 30));
    pc.put(0x7D, 0x00);
    pc.put(0x7E, 0xC0);
    pc.expect_alarm(at(2025, 10, 5, 6, 30));
    pc.put(0x7E, 0x12);  // any day of December
    pc.expect_alarm(at(2025, 12, 1, 6, 30));
    pc.expect_alarm(at(2025, 12, 2, 6, 30));
}

TEST_CASE("RtcCmos: an alarm of today occurs today, one that has passed in the next month that has it",
          "[rtc_cmos][alarm]") {
    Pc pc(via);
    pc.put(0x7D, 0x11);
    pc.alarm(0x13, 0x45, 0x31);
    pc.expect_alarm(at(2024, 6, 11, 13, 45, 31));
    pc.expect_alarm(at(2024, 7, 11, 13, 45, 31));
    pc.put(0x7D, 0x31);  // months with 30 days have no such day
    pc.expect_alarm(at(2024, 7, 31, 13, 45, 31));
    pc.expect_alarm(at(2024, 8, 31, 13, 45, 31));
    pc.expect_alarm(at(2024, 10, 31, 13, 45, 31));
}

TEST_CASE("RtcCmos: an alarm on 29 February waits for a leap year, eight years across 2100",
          "[rtc_cmos][alarm]") {
    Pc pc(via, at(2095, 12, 31));
    pc.put(0x7D, 0x29);
    pc.put(0x7E, 0x02);
    pc.alarm(0x00, 0x00, 0x00);
    pc.expect_alarm(at(2096, 2, 29));
    pc.expect_alarm(at(2104, 2, 29));
}

TEST_CASE("RtcCmos: dates that do not exist cause no alarm and no deadline", "[rtc_cmos][alarm]") {
    for (const auto& [day, month] : {std::pair{0x30, 0x02},
                                     {0x31, 0x04},
                                     {0x32, 0x00},
                                     {0x0A, 0x00},
                                     {0x01, 0x13},
                                     {0x01, 0x0A},
                                     {0x01, 0x1F}}) {
        CAPTURE(day, month);
        Pc pc(via);
        pc.put(0x7D, day);
        pc.put(0x7E, month);
        pc.alarm(0xC0, 0xC0, 0xC0);
        CHECK_FALSE(pc.deadline().has_value());
        pc.clock.advance(std::chrono::hours(24 * 366 * 9));
        CHECK(pc.dev.tick());
        CHECK(pc.irqs == 0);
        CHECK((pc.dev.cmos(0x0C) & 0x20) == 0);
    }
}

TEST_CASE("RtcCmos: a day alarm in register D has six bits, and VRT stays", "[rtc_cmos][alarm]") {
    Pc pc(piix4);
    CHECK(pc.get(0x0D) == 0x80);
    for (int value = 0; value <= 0xFF; ++value) {
        pc.put(0x0D, value);
        REQUIRE(pc.get(0x0D) == (0x80 | (value & 0x3F)));
    }
    pc.put(0x0D, 0xFF);  // Linux' "any", of which six bits are kept
    pc.alarm(0x14, 0x00, 0x00);
    pc.expect_alarm(at(2024, 6, 11, 14));
    pc.put(0x0D, 0x20);
    pc.expect_alarm(at(2024, 6, 20, 14));
    const RtcCmosState saved = pc.dev.state();
    CHECK(saved.ram[0x0D] == 0xA0);
    CHECK(Device::from_state(saved, CountingTrigger{&pc.irqs}, {}, ClockRef(pc.clock), piix4).has_value());
    // A device without this alarm has only VRT there.
    const auto refused = Device::from_state(saved, CountingTrigger{&pc.irqs}, {}, ClockRef(pc.clock));
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().field == "ram");
}

TEST_CASE(
    "RtcCmos: without the options day and month are memory, and no byte of the clock can be used for them",
    "[rtc_cmos][alarm]") {
    for (const int index : {0x00, 0x07, 0x08, 0x0A, 0x0C, 0x32, 0x80, 0xFF}) {
        CAPTURE(index);
        Pc pc({.utc_offset = seconds(0),
               .day_alarm = static_cast<std::uint8_t>(index),
               .month_alarm = static_cast<std::uint8_t>(index)});
        pc.put(0x7D, 0x20);
        pc.put(0x7E, 0x12);
        pc.put(0x0D, 0x1F);
        CHECK(pc.get(0x0D) == 0x80);
        pc.alarm(0x14, 0x00, 0x00);
        pc.expect_alarm(at(2024, 6, 11, 14));
    }
}

TEST_CASE("RtcCmos: Linux' alarms a month and a year ahead occur", "[rtc_cmos][alarm][linux]") {
    // drivers/rtc/rtc-cmos.c, cmos_set_alarm: AIE off, hour, minute, second, then day_alrm and mon_alrm, AIE
    // on. cmos_validate_alarm permits a day up to a month ahead, with mon_alrm up to a year.
    Pc pc(via);
    pc.put(0x0B, 0x02);
    pc.put(0x05, 0x13);
    pc.put(0x03, 0x45);
    pc.put(0x01, 0x29);
    pc.put(0x7D, 0x11);
    pc.put(0x7E, 0x06);
    pc.put(0x0B, 0x22);
    pc.expect_alarm(at(2025, 6, 11, 13, 45, 29));
    // cmos_read_alarm: the day is masked with 0x3F.
    CHECK((pc.get(0x7D) & 0x3F) == 0x11);
    CHECK(pc.get(0x7E) == 0x06);
}

TEST_CASE("RtcCmos: deadlines of alarms with a date equal those of a search day by day",
          "[rtc_cmos][alarm][property]") {
    std::mt19937 random(7);
    const auto number = [&random](unsigned below) { return static_cast<unsigned>(random() % below); };
    for (int round = 0; round < 400; ++round) {
        const seconds start = at(1995 + static_cast<int>(random() % 110), number(12) + 1, number(28) + 1,
                                 static_cast<int>(random() % 24), static_cast<int>(random() % 60),
                                 static_cast<int>(random() % 60));
        Pc pc(via, start);
        const bool binary = random() % 2 != 0;
        const auto code = [binary](unsigned n) {
            return static_cast<int>(binary ? n : n / 10 * 16 + n % 10);
        };
        const unsigned day = number(32);
        const unsigned month = number(13);
        const int hour = static_cast<int>(random() % 24);
        const int minute = static_cast<int>(random() % 60);
        pc.put(0x0B, binary ? 0x06 : 0x02);
        pc.put(0x7D, code(day));
        pc.put(0x7E, code(month));
        pc.put(0x05, code(static_cast<unsigned>(hour)));
        pc.put(0x03, code(static_cast<unsigned>(minute)));
        pc.put(0x01, code(30));
        pc.put(0x0B, binary ? 0x26 : 0x22);
        std::optional<seconds> expected;
        const auto first = std::chrono::floor<std::chrono::days>(start);
        for (int i = 0; i < 366 * 9 && !expected; ++i) {
            const std::chrono::sys_days today{first + std::chrono::days(i)};
            const std::chrono::year_month_day date(today);
            const seconds when = today.time_since_epoch() + std::chrono::hours(hour) +
                                 std::chrono::minutes(minute) + seconds(30);
            if ((day == 0 || unsigned{date.day()} == day) &&
                (month == 0 || unsigned{date.month()} == month) && when > start) {
                expected = when;
            }
        }
        CAPTURE(round, day, month);
        REQUIRE(pc.deadline().has_value() == expected.has_value());
        if (expected) {
            REQUIRE(*pc.deadline() == *expected);
        }
    }
}

TEST_CASE("RtcCmos: the second bank holds 128 bytes of its own", "[rtc_cmos][extended]") {
    Pc pc({});
    for (int index = 0; index < 128; ++index) {
        pc.put(0x40, 0x11);
        CHECK(pc.dev.write(2, static_cast<std::uint8_t>(index)));
        REQUIRE(pc.dev.read(3) == 0);
        CHECK(pc.dev.write(3, static_cast<std::uint8_t>(255 - index)));
    }
    const RtcCmosState saved = pc.dev.state();
    for (int index = 0; index < 128; ++index) {
        CHECK(pc.dev.write(2, static_cast<std::uint8_t>(index | 0x80)));  // bit 7 is ignored
        REQUIRE(pc.dev.read(3) == 255 - index);
        REQUIRE(pc.dev.peek(3) == 255 - index);
        REQUIRE(pc.dev.extended_cmos(static_cast<std::uint8_t>(index)) == 255 - index);
    }
    CHECK(pc.dev.read(2) == 0xFF);
    CHECK_FALSE(pc.dev.nmi_masked());  // only bit 7 of port 0x70 is the mask
    CHECK(pc.get(0x40) == 0x11);
    CHECK(pc.get(0x0D) == 0x80);
    CHECK(pc.get(0x0A) == 0x26);
    // Save and restore it. A state of version 1 has no second bank, which is then empty.
    const auto encoded = vmsuperio::encode(saved);
    const auto decoded = vmsuperio::decode<RtcCmosState>(encoded);
    REQUIRE(decoded.has_value());
    CHECK_SAME_STATE(*decoded, saved);
    CHECK(Device::from_state(*decoded, CountingTrigger{&pc.irqs}, {}, ClockRef(pc.clock)).has_value());
    auto old = encoded;
    old.resize(old.size() - 129);
    old[4] = 1;
    const auto size = static_cast<std::uint16_t>(old.size() - 12);
    old[8] = static_cast<std::uint8_t>(size);
    old[9] = static_cast<std::uint8_t>(size >> 8U);
    const auto old_decoded = vmsuperio::decode<RtcCmosState>(old);
    REQUIRE(old_decoded.has_value());
    CHECK(old_decoded->ram == saved.ram);
    CHECK(old_decoded->time == saved.time);
    CHECK(old_decoded->extended_ram == RtcCmosState{}.extended_ram);
    pc.dev.set_extended_cmos(0x7F, 9);
    CHECK(pc.dev.extended_cmos(0xFF) == 9);
}
