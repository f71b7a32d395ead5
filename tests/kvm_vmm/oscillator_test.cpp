// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/oscillator.hpp"

#include <chrono>
#include <optional>
#include <vector>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/rtc_cmos.hpp>

#include "catch.hpp"
#include "devices/timed_device.hpp"

using namespace kvm_vmm;
using namespace std::chrono_literals;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;
namespace mc146818 = vmsuperio::mc146818;

namespace {

using TestOscillator = Oscillator<ClockRef<ManualClock>, ClockRef<ManualClock>>;
using Rtc = vmsuperio::RtcCmos<vmsuperio::NullTrigger, vmsuperio::NoRtcCmosEvents, TestOscillator>;

/// The host's clocks: one that can be set, and one that only runs.
struct Host {
    ManualClock wall{std::chrono::hours(24 * 365 * 50) + 250ms};
    ManualClock steady{1000s};

    TestOscillator oscillator() const { return TestOscillator(wall, steady); }
    void pass(std::chrono::nanoseconds time) {
        wall.advance(time);
        steady.advance(time);
    }
};

/// Replaces the event loop's timer on the steady clock.
struct RecordedTimer {
    std::vector<std::optional<std::chrono::nanoseconds>> deadlines;
    void set(std::optional<std::chrono::nanoseconds> deadline) { deadlines.push_back(deadline); }
};

std::uint8_t cmos(TimedDevice<Rtc, RecordedTimer>& device, std::uint8_t index) {
    device.write(0, index);
    return device.read(1);
}

void set_cmos(TimedDevice<Rtc, RecordedTimer>& device, std::uint8_t index, std::uint8_t value) {
    device.write(0, index);
    device.write(1, value);
}

}  // namespace

TEST_CASE("Oscillator: it starts with the wall time and then counts the time that passes", "[time]") {
    Host host;
    const TestOscillator clock = host.oscillator();
    const auto start = vmsuperio::time_since_epoch(host.wall);
    CHECK(vmsuperio::time_since_epoch(clock) == start);
    for (const auto step : {-3600s, 7200s, -24 * 3600s}) {
        host.wall.advance(step);
        CHECK(vmsuperio::time_since_epoch(clock) == start);
    }
    host.pass(1500ms);
    CHECK(vmsuperio::time_since_epoch(clock) == start + 1500ms);
    CHECK(clock.on_steady(vmsuperio::time_since_epoch(clock)) == 1000s + 1500ms);
}

TEST_CASE("Oscillator: the host's own clocks agree on the time of day", "[time]") {
    const Oscillator<> clock;
    const auto difference =
        std::chrono::system_clock::now().time_since_epoch() - clock.now().time_since_epoch();
    CHECK(std::chrono::abs(difference) < 1s);
    const auto first = BootClock::now();
    CHECK(BootClock::now() >= first);
}

TEST_CASE("CMOS clock: setting the host's clock changes neither its time nor an alarm's", "[time]") {
    for (const auto step : {-3600s, -1s, 1s, 3600s}) {
        Host host;
        RecordedTimer timer;
        TimedDevice<Rtc, RecordedTimer> device(Rtc(vmsuperio::NullTrigger(), host.oscillator()), timer);
        const std::uint8_t second = cmos(device, mc146818::seconds);
        REQUIRE(second == 0);
        set_cmos(device, mc146818::seconds_alarm, 0x08);
        set_cmos(device, mc146818::minutes_alarm, 0xFF);  // any
        set_cmos(device, mc146818::hours_alarm, 0xFF);
        set_cmos(device, mc146818::register_b,
                 mc146818::RegisterB()
                     .set(mc146818::RegisterB::hours_24)
                     .set(mc146818::RegisterB::alarm_interrupt)
                     .value());
        REQUIRE(timer.deadlines.size() == 1);
        REQUIRE(timer.deadlines.back().has_value());
        // The host's second began 250 ms before the device was created.
        CHECK(*timer.deadlines.back() == 1000s + 8s - 250ms);
        host.wall.advance(step);
        CHECK(cmos(device, mc146818::seconds) == 0);
        host.pass(3s);
        CHECK(cmos(device, mc146818::seconds) == 0x03);
        CHECK(timer.deadlines.size() == 1);
        host.pass(4749ms);
        device.expired();
        CHECK((cmos(device, mc146818::register_c) & 0x20) == 0);
        CHECK(timer.deadlines.back() == 1000s + 8s - 250ms);
        host.pass(1ms);
        device.expired();
        CHECK((cmos(device, mc146818::register_c) & 0x20) != 0);
        CHECK(cmos(device, mc146818::seconds) == 0x08);
    }
}
