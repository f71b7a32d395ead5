// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <vmsuperio/rtc_cmos.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using recorders::CountingTrigger;
using recorders::RecordingLevel;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;
using vmsuperio::RtcCmos;
using vmsuperio::RtcCmosState;

namespace {

struct RecordingEvents {
    std::vector<std::int64_t>* set;
    std::vector<int>* shutdown;
    std::vector<bool>* nmi;
    void time_changed(seconds ahead) { set->push_back(ahead.count()); }
    void shutdown_status(std::uint8_t code) { shutdown->push_back(code); }
    void nmi_masked(bool masked) { nmi->push_back(masked); }
};

using Device = RtcCmos<CountingTrigger, RecordingEvents, ClockRef<ManualClock>>;

constexpr seconds at(int year, unsigned month, unsigned day, int hour = 0, int minute = 0, int second = 0) {
    return std::chrono::sys_days(std::chrono::year(year) / std::chrono::month(month) / std::chrono::day(day))
               .time_since_epoch() +
           std::chrono::hours(hour) + std::chrono::minutes(minute) + seconds(second);
}

struct Pc {
    int irqs{};
    bool irq_fails{};
    std::vector<std::int64_t> set;
    std::vector<int> shutdown;
    std::vector<bool> nmi;
    ManualClock clock;
    Device dev;

    explicit Pc(nanoseconds start = at(2024, 6, 11, 13, 45, 30))
        : clock(start),
          dev(CountingTrigger{&irqs, &irq_fails}, RecordingEvents{&set, &shutdown, &nmi}, ClockRef(clock)) {}
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
    /// century, year, month, day, hour, minute, second
    std::array<int, 7> time() {
        return {get(0x32), get(0x09), get(0x08), get(0x07), get(0x04), get(0x02), get(0x00)};
    }
    void set_time(const std::array<int, 7>& time) {
        put(0x32, time[0]);
        put(0x09, time[1]);
        put(0x08, time[2]);
        put(0x07, time[3]);
        put(0x04, time[4]);
        put(0x02, time[5]);
        put(0x00, time[6]);
    }
    void alarm(int hour, int minute, int second) {
        put(0x05, hour);
        put(0x03, minute);
        put(0x01, second);
    }
    /// Acts as an event loop: advances the clock to the next deadline and calls the device.
    bool run_to_deadline() {
        const auto deadline = dev.next_deadline();
        if (!deadline) {
            return false;
        }
        clock.set(*deadline);
        CHECK(dev.tick());
        return true;
    }
    [[nodiscard]] std::expected<Device, vmsuperio::StateError> restored(const RtcCmosState& state) {
        return Device::from_state(state, CountingTrigger{&irqs, &irq_fails},
                                  RecordingEvents{&set, &shutdown, &nmi}, ClockRef(clock));
    }
};

using Time = std::array<int, 7>;

}  // namespace

TEST_CASE("RtcCmos: it can be constructed from nothing, a trigger, a clock, or both", "[rtc_cmos]") {
    int irqs = 0;
    const ManualClock clock(0ns);
    RtcCmos nothing;
    const RtcCmos<> defaulted;
    const RtcCmos trigger(CountingTrigger{&irqs});
    RtcCmos with_clock(clock);
    RtcCmos both(CountingTrigger{&irqs}, ClockRef(clock));
    STATIC_REQUIRE(std::is_same_v<decltype(nothing), RtcCmos<>>);
    STATIC_REQUIRE(std::is_same_v<decltype(trigger), const RtcCmos<CountingTrigger>>);
    STATIC_REQUIRE(std::is_same_v<decltype(with_clock),
                                  RtcCmos<vmsuperio::NullTrigger, vmsuperio::NoRtcCmosEvents, ManualClock>>);
    CHECK(with_clock.write(0, 0x09));
    CHECK(with_clock.read(1) == 0x70);
    CHECK(both.interrupt_evt().edges == &irqs);
    // The host's own clock is past 2024.
    CHECK(nothing.write(0, 0x32));
    CHECK(nothing.read(1) >= 0x20);
    CHECK(defaulted.cmos(0x0D) == 0x80);
}

TEST_CASE("RtcCmos: reset values of every byte", "[rtc_cmos]") {
    Pc pc;
    for (int index = 0; index < 128; ++index) {
        int expected = 0;
        switch (index) {
            case 0x00:
                expected = 0x30;
                break;
            case 0x02:
                expected = 0x45;
                break;
            case 0x04:
                expected = 0x13;
                break;
            case 0x06:
                expected = 0x03;  // a Tuesday
                break;
            case 0x07:
                expected = 0x11;
                break;
            case 0x08:
                expected = 0x06;
                break;
            case 0x09:
                expected = 0x24;
                break;
            case 0x0A:
                expected = 0x26;
                break;
            case 0x0B:
                expected = 0x02;
                break;
            case 0x0D:
                expected = 0x80;
                break;
            case 0x32:
                expected = 0x20;
                break;
            default:
                break;
        }
        INFO("index " << index);
        CHECK(pc.get(index) == expected);
        CHECK(pc.get(index | 0x80) == expected);  // the NMI bit selects nothing
    }
    CHECK(pc.irqs == 0);
    CHECK_FALSE(pc.dev.next_deadline().has_value());
}

TEST_CASE("RtcCmos: the index port reads 0xFF and its bit 7 masks NMI", "[rtc_cmos]") {
    Pc pc;
    for (int offset = 0; offset < 256; ++offset) {
        if (offset != 1 && offset != 3) {
            CHECK(pc.dev.read(static_cast<std::uint8_t>(offset)) == 0xFF);
        }
    }
    pc.put(0x10, 0x5A);
    CHECK_FALSE(pc.dev.nmi_masked());
    CHECK(pc.get(0x90) == 0x5A);
    CHECK(pc.dev.nmi_masked());
    pc.get(0x8F);
    pc.get(0x0F);
    CHECK(pc.nmi == std::vector<bool>{true, false});
    // Other offsets are not ports of the device.
    CHECK(pc.dev.write(2, 0x77));
    CHECK(pc.get(0x10) == 0x5A);
}

TEST_CASE("RtcCmos: writable-mask sweep of registers A to D", "[rtc_cmos]") {
    for (int value = 0; value < 256; ++value) {
        Pc pc;
        pc.put(0x0A, value);
        CHECK(pc.get(0x0A) == (value & 0x7F));
        pc.put(0x0B, value);
        // SET clears UIE.
        CHECK(pc.get(0x0B) == ((value & 0x80) != 0 ? value & ~0x10 : value));
        pc.put(0x0C, value);
        pc.put(0x0D, value);
        CHECK(pc.get(0x0D) == 0x80);
        CHECK(pc.get(0x0C) == 0x00);
    }
}

TEST_CASE("RtcCmos: all other bytes are memory", "[rtc_cmos]") {
    Pc pc;
    for (int index = 0x0E; index < 0x80; ++index) {
        pc.put(index, index ^ 0xA5);
    }
    for (int index = 0x0E; index < 0x80; ++index) {
        CHECK(pc.get(index) == (index ^ 0xA5));
    }
    CHECK(pc.shutdown == std::vector<int>{0x0F ^ 0xA5});
}

TEST_CASE("RtcCmos: the shutdown byte is reported, with and without the NMI bit", "[rtc_cmos]") {
    Pc pc;
    pc.put(0x8F, 0x0A);
    pc.put(0x0F, 0x00);
    pc.put(0x0E, 0x05);
    CHECK(pc.shutdown == std::vector<int>{0x0A, 0x00});
}

TEST_CASE("RtcCmos: the calendar rolls over at its boundaries", "[rtc_cmos][time]") {
    struct Row {
        seconds start;
        Time before;
        Time after;
    };
    const std::vector<Row> rows{
        {at(2024, 12, 31, 23, 59, 59),
         {0x20, 0x24, 0x12, 0x31, 0x23, 0x59, 0x59},
         {0x20, 0x25, 0x01, 0x01, 0, 0, 0}},
        {at(1999, 12, 31, 23, 59, 59),
         {0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59},
         {0x20, 0x00, 0x01, 0x01, 0, 0, 0}},
        {at(2099, 12, 31, 23, 59, 59),
         {0x20, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59},
         {0x21, 0x00, 0x01, 0x01, 0, 0, 0}},
        {at(2024, 2, 28, 23, 59, 59),
         {0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59},
         {0x20, 0x24, 0x02, 0x29, 0, 0, 0}},
        {at(2024, 2, 29, 23, 59, 59),
         {0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x59},
         {0x20, 0x24, 0x03, 0x01, 0, 0, 0}},
        {at(2023, 2, 28, 23, 59, 59),
         {0x20, 0x23, 0x02, 0x28, 0x23, 0x59, 0x59},
         {0x20, 0x23, 0x03, 0x01, 0, 0, 0}},
        {at(2000, 2, 28, 23, 59, 59),
         {0x20, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59},
         {0x20, 0x00, 0x02, 0x29, 0, 0, 0}},
        {at(2100, 2, 28, 23, 59, 59),
         {0x21, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59},
         {0x21, 0x00, 0x03, 0x01, 0, 0, 0}},
        {at(2024, 4, 30, 23, 59, 59),
         {0x20, 0x24, 0x04, 0x30, 0x23, 0x59, 0x59},
         {0x20, 0x24, 0x05, 0x01, 0, 0, 0}},
        {at(2038, 1, 19, 3, 14, 7),
         {0x20, 0x38, 0x01, 0x19, 0x03, 0x14, 0x07},
         {0x20, 0x38, 0x01, 0x19, 0x03, 0x14, 0x08}},
        {at(1970, 1, 1), {0x19, 0x70, 0x01, 0x01, 0, 0, 0}, {0x19, 0x70, 0x01, 0x01, 0, 0, 0x01}},
        {at(1969, 12, 31, 23, 59, 59),
         {0x19, 0x69, 0x12, 0x31, 0x23, 0x59, 0x59},
         {0x19, 0x70, 0x01, 0x01, 0, 0, 0}},
    };
    for (const Row& row : rows) {
        Pc pc(row.start);
        CHECK(pc.time() == row.before);
        pc.clock.advance(999'999'999ns);
        CHECK(pc.time() == row.before);
        pc.clock.advance(1ns);
        CHECK(pc.time() == row.after);
        // The same if the guest has set that time through the registers.
        Pc other(at(2001, 1, 1));
        other.put(0x0B, 0x82);
        other.set_time(row.before);
        other.put(0x0B, 0x02);
        CHECK(other.time() == row.before);
        other.clock.advance(1s);
        CHECK(other.time() == row.after);
    }
}

TEST_CASE("RtcCmos: every day from 1970 to 2261 has its date and weekday", "[rtc_cmos][time]") {
    Pc pc(at(1970, 1, 1));
    const auto bcd = [](unsigned value) { return static_cast<int>((value / 10) << 4U | (value % 10)); };
    const std::chrono::sys_days last = std::chrono::year(2261) / 12 / 31;
    for (std::chrono::sys_days day = std::chrono::sys_days(std::chrono::days(0)); day <= last;
         day += std::chrono::days(1)) {
        pc.clock.set(day.time_since_epoch());
        (void)pc.dev.tick();
        const std::chrono::year_month_day date(day);
        const auto year = static_cast<unsigned>(int{date.year()});
        const std::chrono::weekday weekday(day);
        const bool right = pc.dev.cmos(0x32) == bcd(year / 100) && pc.dev.cmos(0x09) == bcd(year % 100) &&
                           pc.dev.cmos(0x08) == bcd(unsigned{date.month()}) &&
                           pc.dev.cmos(0x07) == bcd(unsigned{date.day()}) &&
                           pc.dev.cmos(0x06) == weekday.c_encoding() + 1;
        if (!right) {
            FAIL("wrong on day " << day.time_since_epoch().count());
        }
    }
}

TEST_CASE("RtcCmos: a century is a leap year only if it is divisible by 400", "[rtc_cmos][time]") {
    for (const auto& [century, leap] :
         {std::pair{0x16, true}, {0x17, false}, {0x24, true}, {0x25, false}, {0x99, false}}) {
        Pc pc;
        pc.put(0x0B, 0x82);
        pc.set_time({century, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59});
        pc.put(0x0B, 0x02);
        pc.clock.advance(1s);
        CHECK(pc.time() ==
              (leap ? Time{century, 0x00, 0x02, 0x29, 0, 0, 0} : Time{century, 0x00, 0x03, 0x01, 0, 0, 0}));
    }
    // The last year that two BCD bytes can hold.
    Pc pc;
    pc.put(0x0B, 0x82);
    pc.set_time({0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59});
    pc.put(0x0B, 0x02);
    pc.clock.advance(1s);
    CHECK(pc.time() == Time{0x00, 0x00, 0x01, 0x01, 0, 0, 0});
}

TEST_CASE("RtcCmos: every hour in BCD and binary, 12 and 24 hours", "[rtc_cmos][time]") {
    for (int hour = 0; hour < 24; ++hour) {
        for (const bool binary : {false, true}) {
            for (const bool hours_24 : {false, true}) {
                Pc pc(at(2024, 6, 10, 12));
                const int mode = (binary ? 0x04 : 0) | (hours_24 ? 0x02 : 0);
                const auto number = [binary](int value) {
                    return binary ? value : (value / 10) * 16 + value % 10;
                };
                const auto hours = [&](int value) {
                    if (hours_24) {
                        return number(value);
                    }
                    return number(value % 12 == 0 ? 12 : value % 12) | (value >= 12 ? 0x80 : 0);
                };
                pc.put(0x0B, 0x80 | mode);
                pc.set_time(
                    {number(20), number(24), number(6), number(10), hours(hour), number(59), number(59)});
                pc.put(0x0B, mode);
                CHECK(pc.get(0x04) == hours(hour));
                pc.clock.advance(1s);
                CHECK(pc.get(0x04) == hours((hour + 1) % 24));
                CHECK(pc.get(0x07) == number(hour == 23 ? 11 : 10));
                CHECK(pc.get(0x02) == 0);
            }
        }
    }
}

TEST_CASE("RtcCmos: noon is 12 PM and midnight 12 AM", "[rtc_cmos][time]") {
    Pc pc(at(2024, 6, 11, 11, 59, 59));
    pc.put(0x0B, 0x80);
    pc.put(0x04, 0x11);
    pc.put(0x0B, 0x00);
    CHECK(pc.get(0x04) == 0x11);
    pc.clock.advance(1s);
    CHECK(pc.get(0x04) == 0x92);
    pc.clock.advance(1h);
    CHECK(pc.get(0x04) == 0x81);
    pc.clock.advance(11h);
    CHECK(pc.get(0x04) == 0x12);
    CHECK(pc.get(0x07) == 0x12);
}

TEST_CASE("RtcCmos: the time stays right when a running clock changes its format, as in QEMU",
          "[rtc_cmos][time]") {
    Pc pc;
    pc.put(0x06, 0x05);  // the guest determines the weekday
    pc.put(0x0B, 0x06);  // binary
    CHECK(pc.get(0x04) == 13);
    CHECK(pc.get(0x02) == 45);
    CHECK(pc.get(0x00) == 30);
    CHECK(pc.get(0x06) == 5);
    CHECK(pc.get(0x07) == 11);
    CHECK(pc.get(0x09) == 24);
    CHECK(pc.get(0x32) == 20);
    pc.clock.advance(1s);
    CHECK(pc.get(0x00) == 31);
    pc.put(0x0B, 0x04);  // 12 hours
    CHECK(pc.get(0x04) == (0x80 | 1));
    pc.put(0x0B, 0x00);  // BCD
    CHECK(pc.get(0x04) == 0x81);
    CHECK(pc.get(0x02) == 0x45);
    pc.put(0x0B, 0x02);
    CHECK(pc.get(0x04) == 0x13);
    CHECK(pc.get(0x00) == 0x31);
}

TEST_CASE("RtcCmos: with SET the bytes are not converted when the format changes", "[rtc_cmos][time]") {
    Pc pc;
    pc.put(0x0B, 0x82);
    pc.put(0x04, 17);  // in the later format
    pc.put(0x0B, 0x86);
    CHECK(pc.get(0x04) == 17);
    CHECK(pc.get(0x02) == 0x45);
    pc.put(0x02, 59);
    pc.put(0x0B, 0x06);
    CHECK(pc.get(0x04) == 17);
    CHECK(pc.get(0x02) == 59);
    pc.put(0x0B, 0x82);
    pc.put(0x0B, 0x06);  // both at once: not converted either
    CHECK(pc.get(0x02) == 59);
}

TEST_CASE("RtcCmos: the day of the week continues from the value that the guest set", "[rtc_cmos][time]") {
    Pc pc(at(2024, 6, 11, 23, 59, 59));
    pc.put(0x06, 0x07);
    pc.clock.advance(1s);
    CHECK(pc.get(0x06) == 0x01);
    pc.clock.advance(std::chrono::hours(24 * 8));
    CHECK(pc.get(0x06) == 0x02);
}

TEST_CASE("RtcCmos: daylight savings have no effect", "[rtc_cmos][time]") {
    // The two switches of the United States by the datasheet's rule, when DSE is set.
    for (const seconds start : {at(2024, 4, 28, 1, 59, 59), at(2024, 10, 27, 1, 59, 59)}) {
        Pc pc(start);
        pc.put(0x0B, 0x03);
        pc.clock.advance(1s);
        CHECK(pc.get(0x04) == 0x02);
        CHECK(pc.get(0x0B) == 0x03);
    }
}

TEST_CASE("RtcCmos: a local time is UTC and an offset", "[rtc_cmos][time]") {
    const ManualClock clock(at(2024, 6, 11, 23, 30));
    const RtcCmos dev(vmsuperio::NullTrigger{}, vmsuperio::NoRtcCmosEvents{}, ClockRef{clock},
                      {.utc_offset = 1h});
    CHECK(dev.cmos(0x04) == 0x00);
    CHECK(dev.cmos(0x02) == 0x30);
    CHECK(dev.cmos(0x07) == 0x12);
    CHECK(dev.time_offset() == 3600s);
}

TEST_CASE("RtcCmos: SET holds the time, and the update continues from the written bytes", "[rtc_cmos][set]") {
    Pc pc;
    pc.put(0x0B, 0x82);
    pc.clock.advance(10s);
    CHECK(pc.time() == Time{0x20, 0x24, 0x06, 0x11, 0x13, 0x45, 0x30});
    pc.set_time({0x19, 0x85, 0x10, 0x26, 0x01, 0x21, 0x00});
    CHECK(pc.set.empty());
    pc.clock.advance(10s + 500ms);
    CHECK(pc.time() == Time{0x19, 0x85, 0x10, 0x26, 0x01, 0x21, 0x00});
    CHECK(pc.get(0x0C) == 0x40);  // the periodic flag continues, update-ended does not
    pc.put(0x0B, 0x02);
    // The divider was not reset, so the second ends at the same time as without SET.
    pc.clock.advance(499ms);
    CHECK(pc.get(0x00) == 0x00);
    pc.clock.advance(1ms);
    CHECK(pc.get(0x00) == 0x01);
    const std::int64_t ahead = (at(1985, 10, 26, 1, 21, 0) - at(2024, 6, 11, 13, 45, 50)).count();
    CHECK(pc.set == std::vector<std::int64_t>{ahead});
    CHECK(pc.dev.time_offset() == seconds(ahead));
}

TEST_CASE("RtcCmos: a write without SET takes effect at once", "[rtc_cmos][set]") {
    Pc pc;
    pc.put(0x04, 0x14);
    CHECK(pc.set == std::vector<std::int64_t>{3600});
    pc.clock.advance(1s);
    CHECK(pc.time() == Time{0x20, 0x24, 0x06, 0x11, 0x14, 0x45, 0x31});
}

TEST_CASE("RtcCmos: Linux sets the time: SET, divider reset, then the first update half a second later",
          "[rtc_cmos][set]") {
    Pc pc;
    pc.clock.advance(123ms);
    const int b = pc.get(0x0B);
    pc.put(0x0B, b | 0x80);
    const int a = pc.get(0x0A);
    pc.put(0x0A, a | 0x70);
    pc.set_time({0x20, 0x30, 0x01, 0x02, 0x03, 0x04, 0x05});
    pc.clock.advance(3s);
    pc.put(0x0B, b);
    pc.put(0x0A, a);
    pc.clock.advance(499'999'999ns);
    CHECK(pc.get(0x00) == 0x05);
    pc.clock.advance(1ns);
    CHECK(pc.time() == Time{0x20, 0x30, 0x01, 0x02, 0x03, 0x04, 0x06});
}

TEST_CASE("RtcCmos: a divider in reset stops time, updates and periodic interrupts", "[rtc_cmos][set]") {
    for (int divider = 3; divider < 8; ++divider) {
        Pc pc;
        pc.put(0x0B, 0x72);
        pc.get(0x0C);
        pc.put(0x0A, divider << 4 | 0x06);
        pc.irqs = 0;
        CHECK_FALSE(pc.dev.next_deadline().has_value());
        pc.clock.advance(100s);
        CHECK(pc.dev.tick());
        CHECK(pc.get(0x00) == 0x30);
        CHECK(pc.get(0x0C) == 0x00);
        CHECK((pc.get(0x0A) & 0x80) == 0);
        CHECK(pc.irqs == 0);
    }
}

TEST_CASE("RtcCmos: UIP rises 244 us before an update and falls at its end", "[rtc_cmos][uip]") {
    Pc pc;
    const nanoseconds second = at(2024, 6, 11, 13, 45, 31);
    const auto uip_at = [&](nanoseconds time) {
        pc.clock.set(time);
        return (pc.get(0x0A) & 0x80) != 0;
    };
    CHECK_FALSE(uip_at(second - 500ms));
    CHECK_FALSE(uip_at(second - 244'142ns));
    CHECK(uip_at(second - 244'140ns));
    CHECK(uip_at(second - 1ns));
    CHECK(pc.get(0x00) == 0x30);
    CHECK_FALSE(uip_at(second));
    CHECK(pc.get(0x00) == 0x31);
    // A guest that sees UIP clear has the 244 us to read the time.
    CHECK_FALSE(uip_at(second + 1s - 244'142ns));
    pc.clock.advance(244'140ns);
    CHECK(pc.get(0x00) == 0x31);
    // SET holds it low.
    pc.put(0x0B, 0x82);
    CHECK_FALSE(uip_at(second + 5s - 1ns));
}

TEST_CASE("RtcCmos: update-ended interrupts occur once a second, and reading C drops the line",
          "[rtc_cmos][irq]") {
    Pc pc;
    pc.get(0x0C);
    pc.put(0x0B, 0x12);
    const nanoseconds start = at(2024, 6, 11, 13, 45, 30);
    for (int i = 1; i <= 5; ++i) {
        CHECK(pc.dev.next_deadline() == start + seconds(i));
        CHECK(pc.run_to_deadline());
        CHECK(pc.irqs == i);
        // Until C is read there is no further interrupt, and no deadline.
        CHECK_FALSE(pc.dev.next_deadline().has_value());
        CHECK(pc.get(0x0C) == (0xD0));
        CHECK(pc.get(0x0C) == 0x00);
    }
}

TEST_CASE("RtcCmos: the line stays high until C is read", "[rtc_cmos][irq]") {
    std::vector<bool> levels;
    ManualClock clock(at(2024, 1, 1));
    RtcCmos dev(RecordingLevel{&levels}, ClockRef(clock));
    (void)dev.write(0, 0x0B);
    (void)dev.write(1, 0x12);
    for (int i = 0; i < 5; ++i) {
        clock.advance(1s);
        CHECK(dev.tick());
    }
    CHECK(levels == std::vector<bool>{true});
    (void)dev.write(0, 0x0C);
    dev.read(1);
    CHECK(levels == std::vector<bool>{true, false});
    // Disabling the source drops it too; enabling it with the flag still set raises it.
    clock.advance(1s);
    CHECK(dev.tick());
    (void)dev.write(0, 0x0B);
    (void)dev.write(1, 0x02);
    (void)dev.write(1, 0x12);
    CHECK(levels == std::vector<bool>{true, false, true, false, true});
}

TEST_CASE("RtcCmos: flags are set without their enables, but raise no interrupt", "[rtc_cmos][irq]") {
    Pc pc;
    pc.alarm(0xFF, 0xFF, 0xFF);
    pc.get(0x0C);
    pc.clock.advance(1s);
    CHECK(pc.get(0x0C) == 0x70);
    CHECK(pc.irqs == 0);
}

TEST_CASE("RtcCmos: the alarm fires at its time, once a day", "[rtc_cmos][alarm]") {
    Pc pc;
    pc.alarm(0x13, 0x45, 0x32);
    pc.put(0x0B, 0x22);
    CHECK(pc.dev.next_deadline() == at(2024, 6, 11, 13, 45, 32));
    pc.clock.advance(1999ms);
    CHECK(pc.dev.tick());
    CHECK(pc.irqs == 0);
    CHECK(pc.run_to_deadline());
    CHECK(pc.irqs == 1);
    CHECK((pc.get(0x0C) & 0xA0) == 0xA0);
    CHECK(pc.dev.next_deadline() == at(2024, 6, 12, 13, 45, 32));
    CHECK(pc.run_to_deadline());
    CHECK(pc.irqs == 2);
}

TEST_CASE("RtcCmos: an alarm for the present second waits a day", "[rtc_cmos][alarm]") {
    Pc pc;
    pc.alarm(0x13, 0x45, 0x30);
    pc.put(0x0B, 0x22);
    CHECK(pc.dev.next_deadline() == at(2024, 6, 12, 13, 45, 30));
}

TEST_CASE("RtcCmos: alarm wildcards match every second, minute or hour", "[rtc_cmos][alarm]") {
    struct Row {
        int hour, minute, second;
        seconds first, then;
    };
    const std::vector<Row> rows{
        {0xFF, 0xFF, 0xFF, at(2024, 6, 11, 13, 45, 31), at(2024, 6, 11, 13, 45, 32)},
        {0xC0, 0xC0, 0xC0, at(2024, 6, 11, 13, 45, 31), at(2024, 6, 11, 13, 45, 32)},
        {0xFF, 0xFF, 0x10, at(2024, 6, 11, 13, 46, 10), at(2024, 6, 11, 13, 47, 10)},
        {0xFF, 0x00, 0x10, at(2024, 6, 11, 14, 0, 10), at(2024, 6, 11, 15, 0, 10)},
        {0xFF, 0x45, 0xFF, at(2024, 6, 11, 13, 45, 31), at(2024, 6, 11, 13, 45, 32)},
        {0xFF, 0x44, 0xFF, at(2024, 6, 11, 14, 44, 0), at(2024, 6, 11, 14, 44, 1)},
        {0x13, 0xFF, 0x30, at(2024, 6, 11, 13, 46, 30), at(2024, 6, 11, 13, 47, 30)},
        {0x12, 0xFF, 0xFF, at(2024, 6, 12, 12, 0, 0), at(2024, 6, 12, 12, 0, 1)},
        {0x00, 0x00, 0x00, at(2024, 6, 12), at(2024, 6, 13)},
        {0x23, 0x59, 0x59, at(2024, 6, 11, 23, 59, 59), at(2024, 6, 12, 23, 59, 59)},
    };
    for (const Row& row : rows) {
        Pc pc;
        pc.alarm(row.hour, row.minute, row.second);
        pc.put(0x0B, 0x22);
        CHECK(pc.dev.next_deadline() == row.first);
        CHECK(pc.run_to_deadline());
        CHECK(pc.irqs == 1);
        pc.get(0x0C);
        CHECK(pc.dev.next_deadline() == row.then);
    }
}

TEST_CASE("RtcCmos: an alarm that equals no valid time never fires", "[rtc_cmos][alarm]") {
    for (const auto& [hour, minute, second] : std::vector<std::array<int, 3>>{{0x24, 0xFF, 0xFF},
                                                                              {0x0A, 0xFF, 0xFF},
                                                                              {0xFF, 0x60, 0xFF},
                                                                              {0xFF, 0xFF, 0x3A},
                                                                              {0xFF, 0x99, 0x99},
                                                                              {0x92, 0xFF, 0xFF}}) {
        Pc pc;
        pc.alarm(hour, minute, second);
        pc.put(0x0B, 0x22);
        CHECK_FALSE(pc.dev.next_deadline().has_value());
        pc.clock.advance(std::chrono::hours(48));
        CHECK((pc.get(0x0C) & 0x20) == 0);
        CHECK(pc.irqs == 0);
    }
}

TEST_CASE("RtcCmos: the alarm in 12-hour and binary format", "[rtc_cmos][alarm]") {
    Pc pc(at(2024, 6, 11, 11, 0, 0));
    pc.put(0x0B, 0x80);
    pc.put(0x04, 0x11);
    pc.alarm(0x92, 0x00, 0x00);
    pc.put(0x0B, 0x20);
    CHECK(pc.dev.next_deadline() == at(2024, 6, 11, 12));
    pc.alarm(0x12, 0x00, 0x00);
    CHECK(pc.dev.next_deadline() == at(2024, 6, 12));
    pc.put(0x0B, 0x84);
    pc.set_time({20, 24, 6, 11, 11, 0, 0});
    pc.alarm(0x80 | 1, 30, 15);
    pc.put(0x0B, 0x24);
    CHECK(pc.dev.next_deadline() == at(2024, 6, 11, 13, 30, 15));
}

TEST_CASE("RtcCmos: next_alarm agrees with a search second by second", "[rtc_cmos][alarm]") {
    std::mt19937 random(5);
    for (int round = 0; round < 300; ++round) {
        const vmsuperio::detail::RtcFormat format{.binary = random() % 2 == 0, .hours_24 = random() % 2 == 0};
        const auto field = [&](unsigned range, bool hour) {
            const auto value = random() % 4;
            if (value == 0) {
                return std::uint8_t{0xFF};
            }
            const auto number = static_cast<std::int64_t>(random() % range);
            return value == 3 && random() % 8 == 0 ? static_cast<std::uint8_t>(random())
                   : hour                          ? format.encode_hour(number)
                                                   : format.encode(number);
        };
        const vmsuperio::detail::RtcAlarm alarm{
            .second = field(60, false), .minute = field(60, false), .hour = field(24, true)};
        const auto of_day = static_cast<std::int64_t>(random() % 86400);
        const auto matches = [](std::uint8_t byte, std::uint8_t now) { return byte >= 0xC0 || byte == now; };
        std::optional<std::int64_t> expected;
        for (std::int64_t after = 1; after <= 86400 && !expected; ++after) {
            const std::int64_t t = (of_day + after) % 86400;
            if (matches(alarm.second, format.encode(t % 60)) &&
                matches(alarm.minute, format.encode(t / 60 % 60)) &&
                matches(alarm.hour, format.encode_hour(t / 3600))) {
                expected = after;
            }
        }
        if (vmsuperio::detail::next_alarm(alarm, format, of_day) != expected) {
            FAIL("round " << round);
        }
    }
}

TEST_CASE("RtcCmos: an alarm passed over by a jump of the clock is not lost", "[rtc_cmos][alarm]") {
    Pc pc;
    pc.alarm(0x03, 0x00, 0x00);
    pc.put(0x0B, 0x22);
    pc.clock.advance(std::chrono::hours(24 * 365 * 100));
    CHECK(pc.dev.tick());
    CHECK(pc.irqs == 1);
    CHECK((pc.get(0x0C) & 0x20) != 0);
    Pc early;
    early.alarm(0x13, 0x45, 0x40);
    early.get(0x0C);
    early.clock.advance(9s);
    CHECK((early.get(0x0C) & 0x20) == 0);
    early.clock.advance(1s);
    CHECK((early.get(0x0C) & 0x20) != 0);
}

TEST_CASE("RtcCmos: periodic interrupts at each rate", "[rtc_cmos][periodic]") {
    // Table 5 of the datasheet for 32.768 kHz: interrupts per second for rates 1 to 15.
    const std::array<int, 16> per_second{0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                         256, 128, 64,  32,   16,   8,    4,    2};
    for (int rate = 0; rate < 16; ++rate) {
        Pc pc;
        pc.put(0x0A, 0x20 | rate);
        pc.get(0x0C);
        pc.put(0x0B, 0x42);
        const nanoseconds end = at(2024, 6, 11, 13, 45, 32);
        if (rate == 0) {
            CHECK_FALSE(pc.dev.next_deadline().has_value());
            pc.clock.set(end);
            CHECK((pc.get(0x0C) & 0x40) == 0);
            continue;
        }
        int edges = 0;
        nanoseconds last = pc.clock.now().time_since_epoch();
        while (true) {
            const auto deadline = pc.dev.next_deadline();
            REQUIRE(deadline.has_value());
            REQUIRE(*deadline > last);
            if (*deadline > end) {
                break;
            }
            pc.clock.set(*deadline - 1ns);
            REQUIRE(pc.dev.tick());
            REQUIRE(pc.irqs == edges);
            pc.clock.set(*deadline);
            REQUIRE(pc.dev.tick());
            ++edges;
            REQUIRE(pc.irqs == edges);
            REQUIRE((pc.get(0x0C) & 0xC0) == 0xC0);
            last = *deadline;
        }
        CHECK(edges == 2 * per_second[static_cast<std::size_t>(rate)]);
        CHECK(last == end);
    }
}

TEST_CASE("RtcCmos: periods that were not served become one interrupt", "[rtc_cmos][periodic]") {
    Pc pc;
    pc.put(0x0A, 0x2A);
    pc.get(0x0C);
    pc.put(0x0B, 0x42);
    pc.clock.advance(700ms);
    CHECK(pc.dev.tick());
    pc.clock.advance(700ms);
    CHECK(pc.dev.tick());
    CHECK(pc.irqs == 1);
    CHECK((pc.get(0x0C) & 0x40) != 0);
    CHECK(pc.get(0x0C) == 0x00);
}

TEST_CASE("RtcCmos: the earliest of several events is the deadline", "[rtc_cmos][irq]") {
    Pc pc;
    pc.put(0x0A, 0x2F);
    pc.get(0x0C);
    pc.alarm(0x13, 0x45, 0x32);
    pc.put(0x0B, 0x72);
    const nanoseconds start = at(2024, 6, 11, 13, 45, 30);
    CHECK(pc.dev.next_deadline() == start + 500ms);
    pc.put(0x0B, 0x32);
    CHECK(pc.dev.next_deadline() == start + 1s);
    pc.put(0x0B, 0x22);
    CHECK(pc.dev.next_deadline() == start + 2s);
    pc.put(0x0B, 0x02);
    CHECK_FALSE(pc.dev.next_deadline().has_value());
}

TEST_CASE("RtcCmos: setting the clock back does not set the chip back", "[rtc_cmos][clock]") {
    Pc pc;
    pc.put(0x0B, 0x12);
    pc.clock.advance(500ms);
    CHECK(pc.dev.tick());
    pc.clock.advance(-1h);
    CHECK(pc.time() == Time{0x20, 0x24, 0x06, 0x11, 0x13, 0x45, 0x30});
    // It continues from there, and the deadline is relative to the present time of the clock.
    CHECK(pc.dev.next_deadline() == at(2024, 6, 11, 12, 45, 31));
    pc.clock.advance(500ms);
    CHECK(pc.get(0x00) == 0x31);
    CHECK(pc.irqs == 1);
    CHECK(pc.dev.time_offset() == 3600s);
}

TEST_CASE("RtcCmos: jumps to the ends of time are harmless", "[rtc_cmos][clock]") {
    for (const nanoseconds start :
         {nanoseconds::min(), nanoseconds(-1), nanoseconds(0), nanoseconds::max()}) {
        Pc pc(start);
        pc.alarm(0xFF, 0xFF, 0x00);
        for (const nanoseconds time : {nanoseconds::max(), nanoseconds::min(), nanoseconds(0),
                                       nanoseconds::max(), nanoseconds::max() - 1ns}) {
            pc.clock.set(time);
            pc.put(0x0B, 0x72);
            (void)pc.dev.next_deadline();
            (void)pc.time();
            (void)pc.dev.time_offset();
            (void)pc.get(0x0C);
            pc.put(0x0A, 0x76);
            pc.put(0x0A, 0x26);
            CHECK(pc.restored(pc.dev.state()).has_value());
        }
    }
}

TEST_CASE("RtcCmos: a jump of centuries lands on the right date", "[rtc_cmos][clock]") {
    Pc pc(at(1970, 1, 1));
    pc.clock.set(at(2262, 4, 11, 23, 47, 16));
    CHECK(pc.time() == Time{0x22, 0x62, 0x04, 0x11, 0x23, 0x47, 0x16});
}

TEST_CASE("RtcCmos: any bytes in the time registers lead to valid times again", "[rtc_cmos][time]") {
    std::mt19937 random(11);
    for (int round = 0; round < 20'000; ++round) {
        Pc pc;
        pc.dev.write(0, 0x0B).value();
        pc.dev.write(1, static_cast<std::uint8_t>(0x80 | (random() & 0x06))).value();
        for (const int index : {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32}) {
            pc.dev.write(0, static_cast<std::uint8_t>(index)).value();
            pc.dev.write(1, static_cast<std::uint8_t>(random())).value();
        }
        const auto b = static_cast<std::uint8_t>(pc.dev.cmos(0x0B) & 0x06);
        pc.dev.write(0, 0x0B).value();
        pc.dev.write(1, b).value();
        pc.clock.advance(1s);
        pc.dev.tick().value();
        const vmsuperio::detail::RtcFormat format{.binary = (b & 4) != 0, .hours_24 = (b & 2) != 0};
        const bool sane = format.decode(pc.dev.cmos(0)) < 60 && format.decode(pc.dev.cmos(2)) < 60 &&
                          format.decode_hour(pc.dev.cmos(4)) < 24 && format.decode(pc.dev.cmos(7)) >= 1 &&
                          format.decode(pc.dev.cmos(7)) <= 31 && format.decode(pc.dev.cmos(8)) >= 1 &&
                          format.decode(pc.dev.cmos(8)) <= 12;
        if (!sane) {
            FAIL("round " << round);
        }
    }
}

TEST_CASE("RtcCmos: memory sizes as firmware stores them", "[rtc_cmos][memory]") {
    const auto read = [](Pc& pc, std::initializer_list<int> indices) {
        std::uint64_t value = 0;
        unsigned shift = 0;
        for (const int index : indices) {
            value |= std::uint64_t{pc.get(index)} << shift;
            shift += 8;
        }
        return value;
    };
    struct Row {
        std::uint64_t below, above, base, extended, units, high;
    };
    constexpr std::uint64_t kib = 1024;
    constexpr std::uint64_t mib = 1024 * kib;
    constexpr std::uint64_t units = 16;  // of 64 KiB in a MiB
    const std::vector<Row> rows{
        {0, 0, 0, 0, 0, 0},
        {512 * kib, 0, 512, 0, 0, 0},
        {mib, 0, 640, 0, 0, 0},
        {16 * mib, 0, 640, 15 * kib, 0, 0},
        {128 * mib, 0, 640, 65535, 112 * units, 0},
        {3072 * mib, 5120 * mib, 640, 65535, 3056 * units, 5120 * units},
        {4096 * mib, 0xFFFF'FFFF'FFFF'FFFF, 640, 65535, 4080 * units, 0xFFFFFF},
    };
    for (const Row& row : rows) {
        Pc pc;
        pc.dev.set_memory_size(row.below, row.above);
        CHECK(read(pc, {0x15, 0x16}) == row.base);
        CHECK(read(pc, {0x17, 0x18}) == row.extended);
        CHECK(read(pc, {0x30, 0x31}) == row.extended);
        CHECK(read(pc, {0x34, 0x35}) == row.units);
        CHECK(read(pc, {0x5B, 0x5C, 0x5D}) == row.high);
        std::uint32_t sum = 0;
        for (int i = 0x10; i <= 0x2D; ++i) {
            sum += pc.get(i);
        }
        CHECK(read(pc, {0x2F, 0x2E}) == sum);
    }
}

TEST_CASE("RtcCmos: set_cmos does not change the clock's own bytes", "[rtc_cmos][memory]") {
    Pc pc;
    const auto before = pc.dev.state();
    for (int index = 0; index <= 0x0D; ++index) {
        pc.dev.set_cmos(static_cast<std::uint8_t>(index), 0x99);
    }
    pc.dev.set_cmos(0x32, 0x99);
    pc.dev.set_cmos(0x80, 0x99);
    CHECK_SAME_STATE(pc.dev.state(), before);
    pc.dev.set_cmos(0x3D, 0x21);
    CHECK(pc.get(0x3D) == 0x21);
}

TEST_CASE("RtcCmos: peek and cmos have no side effect", "[rtc_cmos]") {
    Pc pc;
    pc.put(0x0B, 0x12);
    pc.clock.advance(1s);
    CHECK(pc.dev.tick());
    CHECK(pc.dev.write(0, 0x0C));
    const RtcCmosState before = pc.dev.state();
    CHECK((pc.dev.peek(1) & 0x90) == 0x90);
    CHECK((pc.dev.cmos(0x0C) & 0x90) == 0x90);
    CHECK(pc.dev.peek(0) == 0xFF);
    CHECK_SAME_STATE(pc.dev.state(), before);
    CHECK(pc.irqs == 1);
}

TEST_CASE("RtcCmos: trigger errors are returned by write and tick, and counted for reads",
          "[rtc_cmos][irq]") {
    Pc pc;
    pc.put(0x0B, 0x12);
    pc.irq_fails = true;
    pc.clock.advance(1s);
    const auto ticked = pc.dev.tick();
    REQUIRE_FALSE(ticked.has_value());
    CHECK(ticked.error() == recorders::failure);
    CHECK((pc.get(0x0C) & 0x90) == 0x90);
    pc.clock.advance(1s);
    CHECK(pc.dev.read(1) != 0);
    CHECK(pc.dev.interrupt_errors() == 2);
    pc.clock.advance(1s);
    CHECK(pc.dev.write(0, 0x10));
    CHECK_FALSE(pc.dev.write(1, 0x10).has_value());
}

TEST_CASE("RtcCmos: a saved clock continues with the time that passed", "[rtc_cmos][snapshot]") {
    Pc pc;
    pc.alarm(0x13, 0x46, 0x00);
    pc.put(0x0B, 0x22);
    const RtcCmosState state = pc.dev.state();
    pc.clock.advance(29s);
    auto restored = pc.restored(state);
    REQUIRE(restored.has_value());
    CHECK(restored->write(0, 0x00));
    CHECK(restored->read(1) == 0x59);
    CHECK(pc.irqs == 0);
    CHECK(restored->next_deadline() == at(2024, 6, 11, 13, 46));
    pc.clock.advance(1h);
    CHECK(restored->tick());
    CHECK(pc.irqs == 1);
    // The line is raised again if it was high.
    auto again = pc.restored(restored->state());
    REQUIRE(again.has_value());
    CHECK(pc.irqs == 2);
}

namespace {

void random_step(Device& dev, ManualClock& clock, std::mt19937& random) {
    const auto byte = [&random] { return static_cast<std::uint8_t>(random()); };
    switch (random() % 8) {
        case 0:
        case 1:
            (void)dev.write(0, static_cast<std::uint8_t>(random() % 16));
            break;
        case 2:
            (void)dev.write(1, byte());
            break;
        case 3:
            (void)dev.read(1);
            break;
        case 4:
            clock.advance(nanoseconds(static_cast<std::int64_t>(random() % 2'000'000'000)));
            break;
        case 5:
            if (const auto deadline = dev.next_deadline(); deadline && random() % 4 == 0) {
                clock.set(*deadline);
            }
            (void)dev.tick();
            break;
        case 6:
            if (random() % 16 == 0) {
                clock.advance(seconds(static_cast<std::int64_t>(random() % 2'000'000)) - 1'000'000s);
            }
            break;
        default:
            (void)dev.write(byte(), byte());
            break;
    }
}

}  // namespace

TEST_CASE("RtcCmos: hostile sequences always lead to a valid state", "[rtc_cmos][fuzz]") {
    STATIC_REQUIRE(std::is_trivially_copyable_v<RtcCmosState>);
    Pc pc;
    std::mt19937 random(3);
    for (int step = 0; step < 200'000; ++step) {
        random_step(pc.dev, pc.clock, random);
        if (step % 16 == 0) {
            const int irqs = pc.irqs;
            const auto restored = pc.restored(pc.dev.state());
            if (!restored) {
                FAIL("invalid state at step " << step);
            }
            const bool line = (restored->cmos(0x0C) & 0x80) != 0;
            if (pc.irqs - irqs != (line ? 1 : 0)) {
                FAIL("wrong line at step " << step);
            }
        }
        // If there is a deadline, the line is low, and at the deadline it rises.
        if (const auto deadline = pc.dev.next_deadline(); deadline && step % 64 == 0) {
            const int irqs = pc.irqs;
            pc.clock.set(*deadline);
            (void)pc.dev.tick();
            if (pc.irqs != irqs + 1) {
                FAIL("no interrupt at the deadline, step " << step);
            }
        }
    }
    CHECK(pc.irqs > 1000);
}

TEST_CASE("RtcCmos: a saved and restored device continues like the original, at every step",
          "[rtc_cmos][snapshot]") {
    Pc original;
    std::mt19937 random(17);
    for (int round = 0; round < 2000; ++round) {
        for (int step = 0; step < 5; ++step) {
            random_step(original.dev, original.clock, random);
        }
        const RtcCmosState state = original.dev.state();
        const auto decoded = vmsuperio::decode<RtcCmosState>(vmsuperio::encode(state));
        REQUIRE(decoded.has_value());
        REQUIRE_SAME_STATE(*decoded, state);
        Pc other;
        other.clock.set(original.clock.now().time_since_epoch());
        auto restored = other.restored(*decoded);
        REQUIRE(restored.has_value());
        (void)original.dev.tick();  // as restoring does
        REQUIRE_SAME_STATE(restored->state(), original.dev.state());
        std::mt19937 left(static_cast<unsigned>(round));
        std::mt19937 right(static_cast<unsigned>(round));
        for (int step = 0; step < 20; ++step) {
            random_step(original.dev, original.clock, left);
            random_step(*restored, other.clock, right);
        }
        REQUIRE_SAME_STATE(restored->state(), original.dev.state());
    }
}

TEST_CASE("RtcCmos: from_state refuses each value that no clock can have", "[rtc_cmos][snapshot]") {
    Pc pc;
    const RtcCmosState good = pc.dev.state();
    const auto refuses = [&](auto change, std::string_view field) {
        RtcCmosState bad = good;
        change(bad);
        const auto result = pc.restored(bad);
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().field == field);
    };
    refuses([](RtcCmosState& s) { s.ram[0x0A] = 0xA6; }, "ram");
    refuses([](RtcCmosState& s) { s.ram[0x0C] = 0x80; }, "ram");
    refuses([](RtcCmosState& s) { s.ram[0x0C] = 0x01; }, "ram");
    refuses(
        [](RtcCmosState& s) {
            s.ram[0x0B] = 0x12;
            s.ram[0x0C] = 0x10;
        },
        "ram");
    refuses([](RtcCmosState& s) { s.ram[0x0D] = 0x00; }, "ram");
    refuses([](RtcCmosState& s) { s.time.seen = std::numeric_limits<std::int64_t>::min(); }, "time");
    refuses([](RtcCmosState& s) { s.time.shift = -1; }, "time");
    // The clock would have stood before the first time that it can show.
    refuses(
        [](RtcCmosState& s) {
            s.time = {.seen = -2, .shift = std::numeric_limits<std::int64_t>::max()};
            s.second_start = -2;
        },
        "time");
    refuses([](RtcCmosState& s) { s.second_start = s.time.seen + 1; }, "second_start");
    refuses([](RtcCmosState& s) { s.second_start = s.time.seen - 1'000'000'000; }, "second_start");
    refuses([](RtcCmosState& s) { s.second_start = std::numeric_limits<std::int64_t>::min(); },
            "second_start");
    CHECK(pc.restored(good).has_value());
}
