// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Properties of all devices: a default state is that of a device that has just been reset, reset() has the
// effect of the reset line, and no clock and no saved state makes a sum of times overflow.
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <vector>

#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using namespace vmsuperio;
using recorders::CountingTrigger;
using recorders::RecordingLevel;
using std::chrono::nanoseconds;

namespace {

using ManualCmos = RtcCmos<NullTrigger, NoRtcCmosEvents, ClockRef<ManualClock>>;
using ManualPl031 = RtcPl031<NullTrigger, NoRtcPl031Events, ClockRef<ManualClock>>;

constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t highest = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t second = 1'000'000'000;

template <class Device>
void put32(Device& rtc, std::uint64_t offset, std::uint32_t value) {
    const std::array<std::uint8_t, 4> bytes{
        static_cast<std::uint8_t>(value), static_cast<std::uint8_t>(value >> 8U),
        static_cast<std::uint8_t>(value >> 16U), static_cast<std::uint8_t>(value >> 24U)};
    CHECK(rtc.write(offset, bytes).has_value());
}

void put(auto& cmos, std::uint8_t index, std::uint8_t value) {
    CHECK(cmos.write(0, index).has_value());
    CHECK(cmos.write(1, value).has_value());
}
std::uint8_t get(auto& cmos, std::uint8_t index) {
    CHECK(cmos.write(0, index).has_value());
    return cmos.read(1);
}

}  // namespace

TEST_CASE("Devices: a default-constructed state is that of a new device, and is accepted",
          "[devices][snapshot]") {
    const ManualClock clock;
    CHECK(RtcCmosState{} == RtcCmos(NullTrigger{}, ClockRef(clock)).state());
    CHECK(RtcPl031State{} == RtcPl031(NullTrigger{}, ClockRef(clock)).state());
    CHECK(SerialState{} == Serial(NullTrigger{}, NullWriter{}).state());
    CHECK(DebugPortState{} == DebugPort().state());
    CHECK(ExitPortState{} == ExitPort().state());
    CHECK(PvpanicState{} == Pvpanic().state());

    CHECK(ManualCmos::from_state({}, {}, {}, ClockRef(clock)).has_value());
    CHECK(ManualPl031::from_state({}, {}, {}, ClockRef(clock)).has_value());
    CHECK(Serial<NullTrigger>::from_state({}, {}, {}, {}).has_value());
    CHECK(DebugPort::from_state({}).has_value());
    CHECK(ExitPort::from_state({}).has_value());
    CHECK(Pvpanic::from_state({}).has_value());
}

TEST_CASE("RtcCmos: a device restored from a default state has the time of its clock and no interrupt",
          "[rtc_cmos][snapshot]") {
    int irqs = 0;
    const ManualClock clock(1'718'113'530s);  // 2024-06-11 13:45:30
    auto rtc = RtcCmos<CountingTrigger, NoRtcCmosEvents, ClockRef<ManualClock>>::from_state(
        {}, CountingTrigger{&irqs}, {}, ClockRef(clock));
    REQUIRE(rtc.has_value());
    RtcCmos fresh(CountingTrigger{&irqs}, ClockRef(clock));
    for (const int at : {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0D, 0x32}) {
        CAPTURE(at);
        const auto index = static_cast<std::uint8_t>(at);
        CHECK(get(*rtc, index) == get(fresh, index));
    }
    CHECK(irqs == 0);
}

TEST_CASE("RtcCmos: RESET clears the enables and the flags; clock, calendar, alarm and memory stay",
          "[rtc_cmos][reset]") {
    std::vector<bool> levels;
    ManualClock clock(1'718'113'530s);
    RtcCmos rtc(RecordingLevel{&levels}, ClockRef(clock));
    put(rtc, 0x0A, 0x2F);
    put(rtc, 0x32, 0x19);
    put(rtc, 0x09, 0x99);
    put(rtc, 0x05, 0x13);
    put(rtc, 0x10, 0x5A);
    put(rtc, 0x7F, 0xA5);
    CHECK(rtc.write(2, 0x42).has_value());
    CHECK(rtc.write(3, 0x77).has_value());
    put(rtc, 0x0B, 0x7F);  // PIE, AIE, UIE, SQWE, DM, 24/12, DSE
    clock.advance(2s);
    CHECK(rtc.tick().has_value());
    CHECK(levels == std::vector<bool>{true});
    const RtcCmosState before = rtc.state();
    REQUIRE(rtc.reset().has_value());
    CHECK(levels == std::vector<bool>{true, false});
    RtcCmosState expected = before;
    expected.ram[0x0B] = 0x07;
    expected.ram[0x0C] = 0x00;
    CHECK_SAME_STATE(rtc.state(), expected);
    CHECK_FALSE(rtc.next_deadline().has_value());
    // The clock of a stopped machine continues, and the time that the guest has set is kept.
    clock.advance(3s);
    CHECK(get(rtc, 0x09) == 0x63);  // 99, in binary now
    CHECK(get(rtc, 0x00) == 35);
    CHECK(get(rtc, 0x10) == 0x5A);
    CHECK(get(rtc, 0x7F) == 0xA5);
    CHECK(rtc.read(3) == 0x77);
    CHECK(levels.size() == 2);
}

TEST_CASE("RtcCmos: RESET first counts the time that has passed", "[rtc_cmos][reset]") {
    int irqs = 0;
    ManualClock clock(1'718'113'530s);
    RtcCmos rtc(CountingTrigger{&irqs}, ClockRef(clock));
    put(rtc, 0x0B, 0x12);
    clock.advance(5s);
    REQUIRE(rtc.reset().has_value());
    CHECK(irqs == 0);  // the interrupt that was due belongs to the time before the reset
    CHECK(rtc.cmos(0x0C) == 0);
    CHECK(rtc.cmos(0x00) == 0x35);
}

TEST_CASE("RtcPl031: the bus reset clears match, load, mask and status; the counter continues",
          "[rtc_pl031][reset]") {
    std::vector<bool> levels;
    ManualClock clock(1'700'000'000s);
    RtcPl031 rtc(RecordingLevel{&levels}, ClockRef(clock));
    put32(rtc, 0x08, 1000);
    put32(rtc, 0x04, 1002);
    put32(rtc, 0x10, 1);
    clock.advance(5s);
    CHECK(rtc.tick().has_value());
    CHECK(levels == std::vector<bool>{true});
    REQUIRE(rtc.reset().has_value());
    CHECK(levels == std::vector<bool>{true, false});
    CHECK(rtc.peek(0x00) == 1005U);
    CHECK(rtc.peek(0x04) == 0U);
    CHECK(rtc.peek(0x08) == 0U);
    CHECK(rtc.peek(0x0C) == 1U);
    CHECK(rtc.peek(0x10) == 0U);
    CHECK(rtc.peek(0x14) == 0U);
    CHECK(rtc.peek(0x18) == 0U);
    CHECK_FALSE(rtc.next_deadline().has_value());
    clock.advance(1s);
    CHECK(rtc.tick().has_value());
    CHECK(rtc.peek(0x00) == 1006U);
}

TEST_CASE("Ports: a reset clears what the guest reported; counts for the host stay", "[devices][reset]") {
    DebugPort post;
    post.write(0, 0x55);
    post.reset();
    CHECK(post.last() == 0);
    CHECK(post.read() == 0);
    CHECK(post.written() == 1);
    int exits = 0;
    ExitPort exit_port([&](std::uint8_t) { ++exits; });
    exit_port.write(0, 3);
    exit_port.reset();
    CHECK_FALSE(exit_port.status().has_value());
    exit_port.write(0, 4);
    CHECK(exits == 2);
    CHECK(exit_port.status() == 4);
    Pvpanic panic;
    panic.write(0, 1);
    panic.reset();
    CHECK_FALSE(panic.seen(PvpanicEvent::panicked));
    CHECK(panic.read() == Pvpanic::all_events);
}

TEST_CASE("Ports: an impossible state is refused and named", "[devices][snapshot]") {
    CHECK(DebugPort::from_state({.last = 0, .written = 1, .dropped = 2}).error().field == "dropped");
    CHECK(DebugPort::from_state({.last = 1, .written = 0, .dropped = 0}).error().field == "last");
    CHECK(ExitPort::from_state({.requested = false, .status = 1}).error().field == "status");
    CHECK(Pvpanic::from_state({.seen = 0x08}).error().field == "seen");
    CHECK(Pvpanic::from_state({.seen = 0x02}, {}, 0x01).error().field == "seen");
    const auto console = DebugPort::from_state({.last = 'a', .written = 9, .dropped = 2}, {}, 0xE9);
    REQUIRE(console.has_value());
    CHECK(console->peek() == 0xE9);
    CHECK(console->written() == 9);
    const auto post = DebugPort::from_state({.last = 'a', .written = 9, .dropped = 2});
    REQUIRE(post.has_value());
    CHECK(post->peek() == 'a');
}

TEST_CASE("Clock: no clock makes a conversion to nanoseconds overflow", "[clock]") {
    struct Hours {
        using duration = std::chrono::duration<std::int64_t, std::ratio<3600>>;
        using time_point = std::chrono::time_point<std::chrono::system_clock, duration>;
        std::int64_t count;
        [[nodiscard]] time_point now() const { return time_point(duration(count)); }
    };
    struct UnsignedSeconds {
        using duration = std::chrono::duration<std::uint64_t>;
        using time_point = std::chrono::time_point<std::chrono::system_clock, duration>;
        std::uint64_t count;
        [[nodiscard]] time_point now() const { return time_point(duration(count)); }
    };
    STATIC_REQUIRE(Clock<Hours>);
    CHECK(time_since_epoch(Hours{2}) == 2h);
    CHECK(time_since_epoch(Hours{-2}) == -2h);
    CHECK(time_since_epoch(Hours{highest}) == nanoseconds::max());
    CHECK(time_since_epoch(Hours{lowest}) == nanoseconds::min());
    CHECK(time_since_epoch(UnsignedSeconds{7}) == 7s);
    CHECK(time_since_epoch(UnsignedSeconds{std::numeric_limits<std::uint64_t>::max()}) == nanoseconds::max());
    ManualClock clock(nanoseconds::max());
    clock.advance(1ns);
    CHECK(time_since_epoch(clock) == nanoseconds::max());
    clock.set(nanoseconds::min());
    clock.advance(-1ns);
    CHECK(time_since_epoch(clock) == nanoseconds::min());
}

// With -fsanitize=undefined (preset asan-ubsan), these fail at the first overflow. Without it, they still
// check the behaviour at the ends of the range of time.
TEST_CASE("Devices: no saved state and no clock makes a sum of times overflow", "[devices][time][property]") {
    const std::vector<std::int64_t> times{
        lowest, lowest + 1, lowest + second, lowest / 2 - 1, lowest / 2,       lowest / 2 + 1, -second, -1,
        0,      1,          second,          highest / 2,    highest - second, highest - 1,    highest};
    std::uint64_t restored = 0;
    for (const std::int64_t seen : times) {
        for (const std::int64_t shift : times) {
            for (const std::int64_t behind : {std::int64_t{0}, second - 1}) {
                const std::int64_t start = detail::saturating_add(seen, -behind);
                for (const std::int64_t now : times) {
                    ManualClock clock{nanoseconds(now)};
                    RtcPl031State pl031;
                    pl031.second_start = start;
                    pl031.time = {.seen = seen, .shift = shift};
                    if (auto rtc = ManualPl031::from_state(pl031, {}, {}, ClockRef(clock))) {
                        ++restored;
                        put32(*rtc, 0x10, 1);
                        put32(*rtc, 0x08, 0x8000'0000U);
                        put32(*rtc, 0x04, 0x7FFF'FFFFU);
                        static_cast<void>(rtc->next_deadline());
                        static_cast<void>(rtc->time_offset());
                        for (const std::int64_t later : {now, highest, lowest, seen}) {
                            clock.set(nanoseconds(later));
                            CHECK(rtc->tick().has_value());
                            static_cast<void>(rtc->next_deadline());
                            static_cast<void>(rtc->time_offset());
                        }
                        CHECK(rtc->reset().has_value());
                        CHECK(ManualPl031::from_state(rtc->state(), {}, {}, ClockRef(clock)).has_value());
                    }
                    RtcCmosState cmos;
                    cmos.second_start = start;
                    cmos.time = {.seen = seen, .shift = shift};
                    clock.set(nanoseconds(now));
                    if (auto rtc = ManualCmos::from_state(cmos, {}, {}, ClockRef(clock),
                                                          {.day_alarm = 0x7D, .month_alarm = 0x7E})) {
                        ++restored;
                        put(*rtc, 0x0B, 0x76);
                        put(*rtc, 0x7D, 29);
                        put(*rtc, 0x7E, 2);
                        put(*rtc, 0x32, 0xFF);
                        put(*rtc, 0x08, 0xFF);
                        put(*rtc, 0x0A, 0x6F);
                        put(*rtc, 0x0A, 0x26);
                        static_cast<void>(rtc->next_deadline());
                        static_cast<void>(rtc->time_offset());
                        for (const std::int64_t later : {now, highest, lowest, seen}) {
                            clock.set(nanoseconds(later));
                            CHECK(rtc->tick().has_value());
                            static_cast<void>(rtc->next_deadline());
                            static_cast<void>(rtc->time_offset());
                        }
                        CHECK(rtc->reset().has_value());
                        CHECK(ManualCmos::from_state(rtc->state(), {}, {}, ClockRef(clock)).has_value());
                    }
                    ManualClock fresh{nanoseconds(now)};
                    RateLimitedWriter limited(
                        NullWriter{}, RateLimit{.bytes_per_second = 0xFFFF'FFFF, .burst = 0xFFFF'FFFF},
                        ClockRef(fresh));
                    const std::array<std::uint8_t, 3> bytes{};
                    CHECK(limited.write(bytes) == 3U);
                    fresh.set(nanoseconds(shift));
                    CHECK(limited.write(bytes) == 3U);
                    CHECK(limited.ready_in() >= 0ns);
                    SerialTimeout timeout{ClockRef(fresh)};
                    Serial uart(NullTrigger{}, NullWriter{});
                    CHECK(uart.set_receive_timeout(ReceiveTimeout::manual).has_value());
                    CHECK(uart.write(2, 0x81).has_value());
                    CHECK(uart.enqueue_raw_bytes(bytes) == 3U);
                    CHECK(timeout.poll(uart).has_value());
                    fresh.set(nanoseconds(seen));
                    CHECK(timeout.poll(uart).has_value());
                }
            }
        }
    }
    CHECK(restored > 100);
}

TEST_CASE("RtcPl031: at the earliest time that a state can contain, the counter can be loaded",
          "[rtc_pl031][time]") {
    // The smallest device time, and the largest shift that is possible with it: the clock stood at its first
    // time.
    const ManualClock clock(0ns);
    RtcPl031State state;
    state.second_start = lowest / 2;
    state.time = {.seen = lowest / 2, .shift = lowest / 2 - lowest};
    auto rtc = ManualPl031::from_state(state, {}, {}, ClockRef(clock));
    REQUIRE(rtc.has_value());
    put32(*rtc, 0x08, 5);
    CHECK(rtc->peek(0x00) == 5U);
}
