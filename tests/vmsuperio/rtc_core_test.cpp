// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The clocks' cores at compile time, their validators, and their texts: names and inspect().
#include <array>
#include <chrono>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include <vmsuperio/rtc_cmos.hpp>
#include <vmsuperio/rtc_pl031.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using namespace vmsuperio;

namespace {

constexpr std::int64_t second = 1'000'000'000;
constexpr std::int64_t june = 1'718'113'530 * second;  // 2024-06-11 13:45:30

std::string lines(const std::string& text, int count) {
    std::size_t end = 0;
    for (; count != 0; --count) {
        end = text.find('\n', end) + 1;
    }
    return text.substr(0, end);
}

// A core needs no host: update-ended interrupts occur once a second and are acknowledged by register C.
constexpr bool cmos_core_works() {
    detail::RtcCmosCore core(june, {});
    core.write_port(0, 0x0B);
    const auto effects = core.write_data(june, 0x12);
    if (effects.time_changed || core.interrupt_level()) {
        return false;
    }
    if (core.next_deadline() != std::chrono::nanoseconds(june + second)) {
        return false;
    }
    core.advance(june + second - 1);
    if (core.interrupt_level()) {
        return false;
    }
    core.advance(june + second);
    if (!core.interrupt_level() || core.next_deadline()) {
        return false;
    }
    core.write_port(0, 0x0C);
    return core.read_data(june + second) == 0xD0 && !core.interrupt_level() && core.peek(1) == 0;
}

constexpr bool pl031_core_works() {
    detail::RtcPl031Core core(june);
    const auto set = core.write(june, pl031::load, 4, 100);
    if (!set.time_changed || set.ahead != 100s - 1'718'113'530s || set.invalid_write) {
        return false;
    }
    const auto match = core.write(june, pl031::match, 4, 103);
    const auto mask = core.write(june, pl031::interrupt_mask, 4, 1);
    if (match.time_changed || match.invalid_write || mask.invalid_write) {
        return false;
    }
    core.advance(june + 3 * second);
    if (!core.interrupt_level()) {
        return false;
    }
    // RTCICR: a 1 clears, a 0 does not.
    if (core.write(june + 3 * second, pl031::interrupt_clear, 4, 0xFFFF'FFFE).invalid_write ||
        !core.interrupt_level()) {
        return false;
    }
    return !core.write(june + 3 * second, pl031::interrupt_clear, 4, 1).invalid_write &&
           !core.interrupt_level() && core.read(june, pl031::data, 4).value == 103U &&
           core.read(june, pl031::interrupt_clear, 4).effects.invalid_read &&
           core.write(june, pl031::data, 4, 1).invalid_write;
}

static_assert(cmos_core_works());
static_assert(pl031_core_works());

// A whole device also works at compile time, with a clock that is a constant expression.
constexpr std::uint8_t seconds_at(std::chrono::nanoseconds time) {
    ManualClock clock;
    RtcCmos rtc(NullTrigger{}, ClockRef{clock});
    clock.set(time);
    return rtc.write(0, mc146818::seconds) ? rtc.read(1) : std::uint8_t{0xFF};
}
static_assert(seconds_at(42s) == 0x42);

static_assert(validate(RtcCmosState{}).has_value() && validate(RtcPl031State{}).has_value());

}  // namespace

TEST_CASE("RtcCmos: validate() takes the options that the state was saved with", "[rtc_cmos][snapshot]") {
    RtcCmosState state;
    state.ram[mc146818::register_d] = 0x80 | 0x15;
    CHECK(validate(state).error().field == "ram");
    CHECK(validate(state, {.day_alarm = 0x7D}).error().field == "ram");
    CHECK(validate(state, {.day_alarm = 0x0D}).has_value());
    state.ram[mc146818::register_d] = 0x80 | 0x40;  // not a bit of the alarm
    CHECK(validate(state, {.day_alarm = 0x0D}).error().field == "ram");
}

TEST_CASE("RtcCmos: inspect() shows the registers decoded, the time of day and the state",
          "[rtc_cmos][inspect]") {
    ManualClock clock(1'718'113'530s);
    RtcCmos rtc(NullTrigger{}, ClockRef(clock));
    CHECK(rtc.write(0, 0x0B));
    CHECK(rtc.write(1, 0x12));
    clock.advance(1'900ms);
    CHECK(rtc.tick());
    CHECK(lines(rtc.inspect(), 5) ==
          "A=0x26 [rate_select=6 divider=2]\n"
          "B=0x12 [hours_24 update_ended_interrupt]\n"
          "C=0xD0 [update_ended periodic interrupt_request]\n"
          "D=0x80 [valid_ram_and_time]\n"
          "time_of_day=2024-06-11 13:45:31\n");
    CHECK(rtc.inspect() == lines(rtc.inspect(), 5) + inspect(rtc.state()));
    clock.advance(99'999us);  // A is as the guest reads it
    CHECK(rtc.tick());
    CHECK(lines(rtc.inspect(), 1) == "A=0xA6 [rate_select=6 divider=2 update_in_progress]\n");
}

TEST_CASE("RtcPl031: inspect() shows the registers decoded, the date and the state", "[rtc_pl031][inspect]") {
    const ManualClock clock(1'718'113'530s);
    RtcPl031 rtc(NullTrigger{}, ClockRef(clock));
    const std::array<std::uint8_t, 4> one{1, 0, 0, 0};
    CHECK(rtc.write(pl031::interrupt_mask, one));
    CHECK(rtc.write(pl031::match, std::array<std::uint8_t, 4>{0xFF, 0x00, 0x00, 0x66}));
    CHECK(lines(rtc.inspect(), 8) ==
          "RTCDR=0x666854FA\n"
          "RTCMR=0x660000FF\n"
          "RTCLR=0x00000000\n"
          "RTCCR=0x00000001 [start]\n"
          "RTCIMSC=0x00000001 [match]\n"
          "RTCRIS=0x00000000\n"
          "RTCMIS=0x00000000\n"
          "time_of_day=2024-06-11 13:45:30\n");
    CHECK(rtc.inspect() == lines(rtc.inspect(), 8) + inspect(rtc.state()));
}

TEST_CASE("RtcCmos: the bytes of the CMOS have their names", "[rtc_cmos][register]") {
    CHECK(mc146818::index_name(0x00) == "seconds");
    CHECK(mc146818::index_name(0x0A) == "A");
    CHECK(mc146818::index_name(0x8A) == "A");  // with the NMI bit
    CHECK(mc146818::index_name(0x0D) == mc146818::RegisterD::name);
    CHECK(mc146818::index_name(0x32) == "century");
    CHECK(mc146818::index_name(0x5D) == "memory_above_4g_high");
    CHECK(mc146818::index_name(0x0E).empty());
    CHECK(mc146818::index_name(0x7F).empty());
    // Each name occurs once.
    for (unsigned i = 0; i < 128; ++i) {
        for (unsigned j = 0; j < i; ++j) {
            const std::string_view name = mc146818::index_name(static_cast<std::uint8_t>(i));
            CHECK((name.empty() || name != mc146818::index_name(static_cast<std::uint8_t>(j))));
        }
    }
}

TEST_CASE("RtcPl031: the registers have their names, and nothing else has", "[rtc_pl031][register]") {
    CHECK(pl031::register_name(0x000) == "RTCDR");
    CHECK(pl031::register_name(0x004) == "RTCMR");
    CHECK(pl031::register_name(0x01C) == "RTCICR");
    CHECK(pl031::register_name(0xFE0) == "RTCPeriphID0");
    CHECK(pl031::register_name(0xFFC) == "RTCPCellID3");
    const RtcPl031<> rtc;
    for (std::uint64_t offset = 0; offset < 0x1010; ++offset) {
        CAPTURE(offset);
        // A register that can be read or written has a name.
        CHECK(pl031::register_name(offset).empty() ==
              (!rtc.peek(offset).has_value() && offset != pl031::interrupt_clear));
    }
    CHECK(pl031::register_name(0x1'0000'0000).empty());
}

TEST_CASE("RtcCmos: interrupt_errors() counts every failure, as host_errors() does",
          "[rtc_cmos][host_errors]") {
    std::vector<HostErrorSource> heard;
    int edges{};
    ManualClock clock(0s);
    RtcCmos rtc(recorders::CountingTrigger{&edges, &recorders::always}, recorders::HostErrorEvents{&heard},
                ClockRef(clock));
    CHECK(rtc.write(0, 0x0B));
    CHECK(rtc.write(1, 0x12));
    clock.advance(1s);
    CHECK(rtc.tick().error() == recorders::failure);
    CHECK(rtc.host_errors() == HostErrors{.interrupt = 1});
    CHECK(rtc.interrupt_errors() == 1);
    CHECK(rtc.write(0, 0x0C));
    CHECK(rtc.read(1) == 0xD0);
    clock.advance(1s);
    CHECK(rtc.read(1) == 0xD0);
    CHECK(rtc.host_errors() == HostErrors{.interrupt = 2});
    CHECK(rtc.interrupt_errors() == 2);
    CHECK(heard == std::vector(2, HostErrorSource::interrupt));
}
