// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// ACPI 6.5, 4.8: the PM1a registers, the power button, the power management timer and its SCI.
#include <chrono>
#include <cstdint>
#include <expected>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include <vmsuperio/acpi_pm.hpp>
#include <vmsuperio/timed.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace vmsuperio;
using namespace std::chrono_literals;
using recorders::RecordingLevel;
using std::chrono::nanoseconds;

namespace {

struct Power {
    int* power_offs;
    std::vector<int>* sleeps;
    void power_off() { ++*power_offs; }
    void sleep(std::uint8_t type) { sleeps->push_back(type); }
};

struct Harness {
    using Device = AcpiPm<RecordingLevel, Power, ClockRef<ManualClock>>;
    static_assert(Timed<Device>);

    explicit Harness(AcpiPmOptions options = {}, nanoseconds start = 5s)
        : clock(start), pm(RecordingLevel{&levels}, Power{&power_offs, &sleeps}, ClockRef(clock), options) {}

    ManualClock clock;
    std::vector<bool> levels;
    int power_offs{0};
    std::vector<int> sleeps;
    Device pm;

    std::expected<Device, StateError> restored(const AcpiPmState& state, AcpiPmOptions options = {}) {
        return Device::from_state(state, RecordingLevel{&levels}, Power{&power_offs, &sleeps},
                                  ClockRef(clock), options);
    }

    unsigned read(std::uint8_t offset, unsigned bytes) {
        unsigned value = 0;
        for (unsigned i = 0; i < bytes; ++i) {
            value |= static_cast<unsigned>(pm.read(static_cast<std::uint8_t>(offset + i))) << (8U * i);
        }
        return value;
    }
    void write16(std::uint8_t offset, unsigned value) {
        CHECK(pm.write(offset, static_cast<std::uint8_t>(value)).has_value());
        CHECK(pm.write(static_cast<std::uint8_t>(offset + 1), static_cast<std::uint8_t>(value >> 8U))
                  .has_value());
    }
};

constexpr std::uint8_t status = 0;
constexpr std::uint8_t enable = 2;
constexpr std::uint8_t control = 4;
constexpr std::uint8_t timer = 8;

constexpr std::uint64_t frequency = 3'579'545;
/// The first nanosecond at which the timer has counted to `ticks`.
nanoseconds time_of(std::uint64_t ticks) {
    const std::uint64_t seconds = ticks / frequency;
    std::uint64_t rest = (ticks - seconds * frequency) * 1'000'000'000;
    rest = rest / frequency + (rest % frequency != 0 ? 1 : 0);
    return std::chrono::seconds(seconds) + nanoseconds(rest);
}

}  // namespace

TEST_CASE("AcpiPm: reset values, and nothing asserted", "[acpi_pm]") {
    Harness h;
    CHECK(h.read(status, 2) == 0);
    CHECK(h.read(enable, 2) == 0);
    CHECK(h.read(control, 2) == 1);  // SCI_EN: ACPI mode from the start
    CHECK(h.read(timer, 4) == 0);
    CHECK(h.read(6, 2) == 0);
    CHECK(h.pm.read(200) == 0);
    CHECK(h.levels.empty());
    CHECK(h.power_offs == 0);
}

TEST_CASE("AcpiPm: writable masks", "[acpi_pm]") {
    Harness h;
    h.write16(enable, 0xFFFF);
    CHECK(h.read(enable, 2) == 0x0521);  // timer, global lock, power button, RTC: they must be kept
    h.write16(enable, 0);
    CHECK(h.read(enable, 2) == 0);
    h.write16(control, 0x1C02);
    CHECK(h.read(control, 2) == 0x1C03);
    h.write16(control, 0x0004);  // GBL_RLS reads 0; SCI_EN stays
    CHECK(h.read(control, 2) == 1);
    h.write16(status, 0xFFFF);  // only clears
    CHECK(h.read(status, 2) == 0);
    for (std::uint8_t offset = 6; offset < 12; ++offset) {
        CHECK(h.pm.write(offset, 0xFF).has_value());
    }
    CHECK(h.read(timer, 4) == 0);
    CHECK(h.power_offs == 0);
}

TEST_CASE("AcpiPm: SLP_EN with the S5 type powers off, once; other types and the type alone do not",
          "[acpi_pm]") {
    Harness h;
    h.write16(control, 5U << 10U);
    CHECK(h.power_offs == 0);
    for (unsigned type = 0; type < 8; ++type) {
        if (type != 5) {
            h.write16(control, type << 10U | 1U << 13U);
        }
    }
    CHECK(h.power_offs == 0);
    CHECK(h.sleeps == std::vector{0, 1, 2, 3, 4, 6, 7});  // reported, and nothing else happens
    h.sleeps.clear();
    h.write16(control, 5U << 10U | 1U << 13U);
    CHECK(h.power_offs == 1);
    CHECK(h.sleeps.empty());
    CHECK((h.read(control, 2) & 1U << 13U) == 0);
    CHECK(h.pm.write(control, 0).has_value());  // the low byte alone is no new request
    CHECK(h.power_offs == 1);
}

TEST_CASE("AcpiPm: the power button raises the SCI while enabled, until its status is cleared", "[acpi_pm]") {
    Harness h;
    CHECK(h.pm.press_power_button().has_value());
    CHECK(h.read(status, 2) == 0x100);
    CHECK(h.levels.empty());  // not enabled
    h.write16(enable, 0x100);
    CHECK(h.levels == std::vector{true});
    CHECK(h.pm.press_power_button().has_value());
    CHECK(h.levels == std::vector{true});
    h.write16(status, 0x0001);  // another bit
    CHECK(h.pm.sci_level());
    h.write16(status, 0x0100);
    CHECK(h.levels == std::vector{true, false});
    CHECK(h.read(status, 2) == 0);
    CHECK(h.pm.press_power_button().has_value());
    CHECK(h.levels == std::vector{true, false, true});
    h.write16(enable, 0);
    CHECK(h.levels == std::vector{true, false, true, false});
    CHECK(h.read(status, 2) == 0x100);
}

TEST_CASE("AcpiPm: the timer counts 3.579545 MHz in 32 bits", "[acpi_pm]") {
    Harness h;
    h.clock.advance(1s);
    CHECK(h.read(timer, 4) == 3'579'545);
    h.clock.advance(1ms);
    CHECK(h.read(timer, 4) == 3'583'124);  // 3579.545 ticks in a ms, rounded down
    h.clock.set(5s + std::chrono::hours(24 * 365));
    CHECK(h.read(timer, 4) == static_cast<std::uint32_t>(3'579'545ULL * 3600 * 24 * 365));
    const unsigned before = h.read(timer, 4);
    h.clock.set(4s);  // set back: the chip's own oscillator continues
    CHECK(h.read(timer, 4) == before);
    h.clock.advance(1s);
    CHECK(h.read(timer, 4) == before + 3'579'545);
}

TEST_CASE("AcpiPm: a timer read that is split into bytes returns a consistent value", "[acpi_pm]") {
    Harness h;
    h.clock.advance(18308ns);  // 65 ticks
    h.clock.advance(18309ns);
    const unsigned low = h.pm.read(timer);
    h.clock.advance(1h);
    CHECK((low | static_cast<unsigned>(h.pm.read(timer + 1)) << 8U) == 131);
    CHECK(h.pm.read(timer + 2) == 0);
    CHECK(h.pm.read(timer + 3) == 0);
    CHECK(h.pm.read(timer) != low);
}

TEST_CASE("AcpiPm: TMR_STS is set with each change of the timer's top bit", "[acpi_pm]") {
    Harness h;
    h.write16(enable, 1);
    h.clock.advance(599s);
    CHECK(h.read(status, 2) == 0);
    h.clock.advance(2s);  // 2^31 ticks take 599.9 s
    CHECK(h.read(status, 2) == 1);
    CHECK(h.levels == std::vector{true});
    h.write16(status, 1);
    CHECK(h.levels == std::vector{true, false});
    CHECK(h.read(status, 2) == 0);
    h.clock.advance(600s);
    CHECK(h.read(status, 2) == 1);
}

TEST_CASE("AcpiPm: with 24 bits the timer's top byte reads 0 and TMR_STS is set every 2.3 s", "[acpi_pm]") {
    Harness h({.timer_width = AcpiTimerWidth::bits_24});
    h.clock.set(5s + time_of(0x00FF'FFFF));
    CHECK(h.read(timer, 4) == 0x00FF'FFFF);
    CHECK(h.pm.timer() == 0x00FF'FFFF);
    h.clock.set(5s + time_of(0x0100'0000));
    CHECK(h.pm.timer() == 0);
    CHECK(h.read(timer, 4) == 0);
    h.write16(status, 1);
    h.clock.set(5s + time_of(0x0180'0000) - 1ns);
    CHECK(h.read(status, 2) == 0);
    CHECK(h.read(timer, 4) == 0x007F'FFFF);
    h.clock.advance(1ns);
    CHECK(h.read(status, 2) == 1);
    CHECK(h.read(timer, 4) == 0x0080'0000);
    CHECK(h.levels.empty());  // not enabled
}

TEST_CASE("AcpiPm: the deadline is the nanosecond at which the timer's top bit changes", "[acpi_pm][time]") {
    const struct {
        AcpiTimerWidth width;
        std::uint64_t half;
    } cases[] = {{AcpiTimerWidth::bits_24, 0x80'0000}, {AcpiTimerWidth::bits_32, 0x8000'0000}};
    for (const auto& [width, half] : cases) {
        CAPTURE(half);
        Harness h({.timer_width = width}, 0s);
        CHECK_FALSE(h.pm.next_deadline().has_value());  // not enabled
        h.write16(enable, 0x0521);
        for (std::uint64_t change = 1; change <= 1000; ++change) {
            const auto deadline = h.pm.next_deadline();
            REQUIRE(deadline == time_of(change * half));
            h.clock.set(*deadline - 1ns);
            REQUIRE(h.pm.tick().has_value());
            REQUIRE_FALSE(h.pm.sci_level());
            REQUIRE(h.pm.next_deadline() == deadline);
            h.clock.set(*deadline);
            REQUIRE(h.pm.tick().has_value());
            REQUIRE(h.pm.sci_level());
            REQUIRE(h.pm.status().value() == 1);
            REQUIRE_FALSE(h.pm.next_deadline().has_value());  // the line is high
            REQUIRE(h.pm.write(status, 1).has_value());
            REQUIRE_FALSE(h.pm.sci_level());
        }
        CHECK(h.levels.size() == 2000);
    }
}

TEST_CASE("AcpiPm: there is a deadline only while TMR_EN is set and the SCI is low", "[acpi_pm][time]") {
    Harness h;
    h.write16(enable, 0x0100);
    CHECK_FALSE(h.pm.next_deadline().has_value());
    h.write16(enable, 0x0101);
    CHECK(h.pm.next_deadline() == 5s + time_of(0x8000'0000));
    CHECK(h.pm.press_power_button().has_value());
    CHECK_FALSE(h.pm.next_deadline().has_value());
    h.clock.advance(601s);  // the timer's event occurs while the line is high
    CHECK(h.pm.tick().has_value());
    CHECK(h.levels == std::vector{true});
    h.write16(status, 0x0100);
    CHECK(h.levels == std::vector{true});  // held by TMR_STS
    CHECK(h.read(status, 2) == 1);
    h.write16(status, 0x0001);
    CHECK(h.levels == std::vector{true, false});
    CHECK(h.pm.next_deadline() == 5s + time_of(0x1'0000'0000));
    CHECK(h.pm.reset().has_value());
    CHECK_FALSE(h.pm.next_deadline().has_value());
}

TEST_CASE("AcpiPm: TMR_STS that was set before TMR_EN raises the SCI when that is set", "[acpi_pm][time]") {
    Harness h;
    h.clock.advance(700s);
    h.write16(enable, 1);
    CHECK(h.levels == std::vector{true});
    CHECK(h.read(status, 2) == 1);
}

TEST_CASE("AcpiPm: a jump of the clock over any number of changes is one event", "[acpi_pm][time]") {
    for (const std::uint64_t changes : {1U, 2U, 3U, 4U, 1'000'000U}) {
        CAPTURE(changes);
        Harness h({}, 0s);
        h.write16(enable, 1);
        h.clock.set(time_of(changes * 0x8000'0000U));
        CHECK(h.pm.tick().has_value());
        CHECK(h.levels == std::vector{true});
        h.write16(status, 1);
        CHECK(h.levels == std::vector{true, false});
        CHECK(h.read(status, 2) == 0);
        CHECK(h.pm.next_deadline() == time_of((changes + 1) * 0x8000'0000U));
    }
}

TEST_CASE("AcpiPm: if the clock is set back, the timer and its deadline continue", "[acpi_pm][time]") {
    Harness h({}, 1000s);
    h.write16(enable, 1);
    h.clock.advance(100s);
    const unsigned before = h.read(timer, 4);
    h.clock.set(10s);
    CHECK(h.pm.tick().has_value());
    CHECK(h.read(timer, 4) == before);
    // 100 s of the half period have passed, and the deadline is relative to the clock's new time.
    CHECK(h.pm.next_deadline() == 10s + time_of(0x8000'0000) - 100s);
    h.clock.set(*h.pm.next_deadline() - 1ns);
    CHECK(h.pm.tick().has_value());
    CHECK(h.levels.empty());
    h.clock.advance(1ns);
    CHECK(h.pm.tick().has_value());
    CHECK(h.levels == std::vector{true});
    CHECK(h.read(timer, 4) == 0x8000'0000U);
}

TEST_CASE("AcpiPm: a saved device continues with the time that passed while it was saved",
          "[acpi_pm][snapshot]") {
    Harness h;
    h.write16(enable, 0x0101);
    h.write16(control, 0x0C02);
    h.clock.advance(100s);
    static_cast<void>(h.pm.read(timer));  // latches the other three bytes
    const AcpiPmState saved = h.pm.state();
    const auto decoded = decode<AcpiPmState>(encode(saved));
    REQUIRE(decoded == saved);

    auto same = h.restored(saved);
    REQUIRE(same.has_value());
    CHECK(same->state() == saved);
    CHECK(same->read(timer + 1) == h.pm.read(timer + 1));
    CHECK(same->next_deadline() == h.pm.next_deadline());
    CHECK(h.levels.empty());

    h.clock.advance(550s);
    auto later = h.restored(saved);
    REQUIRE(later.has_value());
    CHECK(later->timer() == h.pm.timer());
    CHECK(h.levels == std::vector{true});  // the deadline passed while it was saved
    CHECK_FALSE(later->next_deadline().has_value());
    CHECK(later->status().value() == 1);
    CHECK(later->control().value() == 0x0C03);

    h.levels.clear();
    const auto high = h.restored(later->state());
    REQUIRE(high.has_value());
    CHECK(h.levels == std::vector{true});  // a line that was high is raised again
    CHECK(h.power_offs == 0);
    CHECK(h.sleeps.empty());
}

TEST_CASE("AcpiPm: impossible states are refused and named", "[acpi_pm][snapshot]") {
    Harness h;
    const AcpiPmState good = h.pm.state();
    const auto refused = [&](auto change, AcpiPmOptions options = {}) {
        AcpiPmState state = good;
        change(state);
        const auto valid = validate(state, options);
        const auto made = h.restored(state, options);
        CHECK(valid.has_value() == made.has_value());
        return valid.has_value() ? std::string_view("accepted") : valid.error().field;
    };
    for (unsigned bit = 0; bit < 16; ++bit) {
        CAPTURE(bit);
        const auto mask = static_cast<std::uint16_t>(1U << bit);
        CHECK(refused([&](AcpiPmState& state) { state.status = mask; }) ==
              (bit == 0 || bit == 8 ? "accepted" : "status"));
        CHECK(refused([&](AcpiPmState& state) { state.enable = mask; }) ==
              (bit == 0 || bit == 5 || bit == 8 || bit == 10 ? "accepted" : "enable"));
        CHECK(refused([&](AcpiPmState& state) { state.control ^= mask; }) ==
              (bit == 1 || (bit >= 10 && bit <= 12) ? "accepted" : "control"));
    }
    const AcpiPmOptions narrow{.timer_width = AcpiTimerWidth::bits_24};
    CHECK(refused([](AcpiPmState& state) { state.held_timer = 0xFF'FFFF; }, narrow) == "accepted");
    CHECK(refused([](AcpiPmState& state) { state.held_timer = 0x100'0000; }, narrow) == "held_timer");
    CHECK(refused([](AcpiPmState& state) { state.held_timer = 0xFFFF'FFFF; }) == "accepted");
    CHECK(refused([](AcpiPmState& state) { ++state.timer_start; }) == "timer_start");
    CHECK(refused([](AcpiPmState& state) { state.timer_start = std::numeric_limits<std::int64_t>::min(); }) ==
          "timer_start");
    CHECK(refused([](AcpiPmState& state) { --state.timer_start; }) == "accepted");
    CHECK(refused([](AcpiPmState& state) { state.time.shift = -1; }) == "time");
    // The clock would have stood before the first time that it can show.
    CHECK(refused([](AcpiPmState& state) {
              state.time = {.seen = -2, .shift = std::numeric_limits<std::int64_t>::max()};
              state.timer_start = -2;
          }) == "time");
    CHECK(refused([](AcpiPmState& state) {
              state.time = {.seen = -1, .shift = std::numeric_limits<std::int64_t>::max()};
              state.timer_start = -1;
          }) == "accepted");
    CHECK(refused([](AcpiPmState& state) { state.time.seen = std::numeric_limits<std::int64_t>::min(); }) ==
          "time");
    CHECK(h.levels.empty());
}

TEST_CASE("AcpiPm: no saved time and no clock makes a sum of times overflow", "[acpi_pm][time][property]") {
    constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
    constexpr std::int64_t highest = std::numeric_limits<std::int64_t>::max();
    const std::vector<std::int64_t> times{lowest, lowest / 2,  lowest / 2 + 1, -1,     0,
                                          1,      highest / 2, highest - 1,    highest};
    int restored = 0;
    for (const std::int64_t start : times) {
        for (const std::int64_t seen : times) {
            for (const std::int64_t shift : times) {
                for (const std::int64_t now : times) {
                    Harness h({}, nanoseconds(now));
                    AcpiPmState state;
                    state.enable = 1;
                    state.timer_start = start;
                    state.time = {.seen = seen, .shift = shift};
                    auto pm = h.restored(state);
                    if (!pm) {
                        continue;
                    }
                    ++restored;
                    const auto deadline = pm->next_deadline();
                    CHECK((!deadline || !pm->sci_level()));
                    CHECK(pm->tick().has_value());
                    h.clock.set(nanoseconds(highest));
                    CHECK(pm->tick().has_value());
                    static_cast<void>(pm->next_deadline());
                    static_cast<void>(pm->timer());
                    CHECK(validate(pm->state()).has_value());
                }
            }
        }
    }
    CHECK(restored > 100);
}

TEST_CASE("AcpiPm: the firmware chooses the sleep type of S5", "[acpi_pm]") {
    Harness h({.sleep_type_s5 = 0});
    h.write16(control, 5U << 10U | 1U << 13U);
    CHECK(h.power_offs == 0);
    CHECK(h.sleeps == std::vector{5});
    h.write16(control, 1U << 13U);
    CHECK(h.power_offs == 1);
    CHECK(h.sleeps == std::vector{5});
}

TEST_CASE("AcpiPm: peek has no effect and returns the result of a read", "[acpi_pm]") {
    Harness h;
    h.write16(enable, 0x0101);
    h.write16(control, 0x1C02);
    h.clock.advance(1234567us);
    CHECK(h.pm.tick().has_value());
    const AcpiPmState before = h.pm.state();
    for (unsigned offset = 0; offset <= 0xFF; ++offset) {
        CAPTURE(offset);
        const std::uint8_t shown = h.pm.peek(static_cast<std::uint8_t>(offset));
        CHECK(h.pm.state() == before);
        if (offset <= timer || offset >= 12) {
            Harness copy;
            copy.clock.set(h.clock.now().time_since_epoch());
            auto other = copy.restored(before);
            REQUIRE(other.has_value());
            CHECK(other->read(static_cast<std::uint8_t>(offset)) == shown);
        }
    }
    static_cast<void>(h.pm.read(timer));
    CHECK(h.pm.peek(timer + 2) == h.pm.read(timer + 2));
}

TEST_CASE("AcpiPm: failures of the SCI are counted, in reads and writes", "[acpi_pm][host_errors]") {
    struct Events {
        int* errors;
        void power_off() {}
        void host_error(HostErrorSource source) { *errors += source == HostErrorSource::interrupt ? 1 : 100; }
    };
    ManualClock clock;
    int errors = 0;
    std::vector<bool> levels;
    AcpiPm pm(RecordingLevel{&levels, nullptr, &recorders::always}, Events{&errors}, ClockRef(clock));
    CHECK(pm.write(enable, 1).has_value());
    clock.advance(600s);
    CHECK(pm.read(status) == 1);
    CHECK(pm.host_errors() == HostErrors{.interrupt = 1});
    CHECK((pm.write(status, 1) == std::unexpected(recorders::failure)));
    CHECK(pm.host_errors() == HostErrors{.interrupt = 2});
    CHECK(pm.press_power_button().has_value());  // not enabled
    CHECK((pm.write(enable + 1, 1) == std::unexpected(recorders::failure)));
    CHECK((pm.reset() == std::unexpected(recorders::failure)));
    CHECK(pm.host_errors() == HostErrors{.interrupt = 4});
    CHECK(errors == 4);
    CHECK_FALSE(pm.sci_level());
}

TEST_CASE("AcpiPm: a move-only clock is read before it is moved from", "[acpi_pm][time]") {
    struct OwnedClock {
        std::unique_ptr<ManualClock> clock;
        [[nodiscard]] auto now() const { return clock->now(); }
    };
    struct Nobody {
        void power_off() {}
    };
    const AcpiPm pm(NullTrigger{}, Nobody{}, OwnedClock{std::make_unique<ManualClock>(7s)});
    CHECK(nanoseconds(pm.state().timer_start) == 7s);
    CHECK(pm.timer() == 0);
}

TEST_CASE("AcpiPm: a constant expression can use it", "[acpi_pm]") {
    struct Nobody {
        constexpr void power_off() {}
    };
    STATIC_REQUIRE([] {
        AcpiPm pm(NullTrigger{}, Nobody{}, ManualClock());
        const bool enabled = pm.write(enable, 1).has_value();
        pm.clock().set(600s);
        return enabled && pm.read(status) == 1 && pm.sci_level() && !pm.next_deadline();
    }());
}

TEST_CASE("AcpiPm: reset() lowers the SCI and clears the guest's settings", "[acpi_pm]") {
    Harness h;
    h.write16(enable, 0x100);
    h.write16(control, 0x1C02);
    CHECK(h.pm.press_power_button().has_value());
    CHECK(h.pm.reset().has_value());
    CHECK(h.levels == std::vector{true, false});
    CHECK(h.read(status, 2) == 0);
    CHECK(h.read(enable, 2) == 0);
    CHECK(h.read(control, 2) == 1);
    CHECK(h.power_offs == 0);
}
