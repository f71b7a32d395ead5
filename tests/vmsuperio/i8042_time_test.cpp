// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The hold-off between two bytes of a device, on a clock that stands still until it is moved.
#include <chrono>
#include <cstdint>
#include <limits>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "catch.hpp"
#include "ps2_harness.hpp"

using namespace std::chrono_literals;
using ps2::Bytes;
using vmsuperio::I8042Options;
using vmsuperio::I8042State;
using vmsuperio::Key;
using vmsuperio::ManualClock;

namespace {

using TimedDevice = vmsuperio::I8042<ps2::CountingTrigger, ps2::RecordingLevel, ps2::RecordingLevel,
                                     vmsuperio::NoI8042Events, vmsuperio::ClockRef<ManualClock>>;

struct TimedPc {
    ManualClock clock{5s};
    int resets{};
    int edges{};
    std::vector<bool> irq1;
    std::vector<bool> irq12;
    TimedDevice dev;

    explicit TimedPc(I8042Options options = {.hold_off = 1ms})
        : dev(ps2::CountingTrigger{&resets}, ps2::RecordingLevel{&irq1, &edges},
              ps2::RecordingLevel{&irq12, &edges}, {}, vmsuperio::ClockRef(clock), options) {}
    TimedPc(const TimedPc&) = delete;
    TimedPc& operator=(const TimedPc&) = delete;

    std::expected<TimedDevice, vmsuperio::StateError> restored(const I8042State& state,
                                                               std::chrono::nanoseconds hold_off) {
        return TimedDevice::from_state(
            state, ps2::CountingTrigger{&resets}, ps2::RecordingLevel{&irq1, &edges},
            ps2::RecordingLevel{&irq12, &edges}, {}, vmsuperio::ClockRef(clock), hold_off);
    }
    bool full() { return (dev.read(4) & 0x01) != 0; }
    void mouse(std::uint8_t byte) {
        CHECK(dev.write(4, 0xD4).has_value());
        CHECK(dev.write(0, byte).has_value());
    }
};

}  // namespace

TEST_CASE("I8042 hold-off: port 0x60 read again at once shows the same byte", "[i8042][time]") {
    TimedPc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    CHECK(pc.irq1 == std::vector<bool>{true});
    CHECK(pc.dev.read(0) == 0x1E);
    CHECK(pc.irq1 == std::vector<bool>{true, false});
    for (int i = 0; i < 5; ++i) {
        CHECK_FALSE(pc.full());
        CHECK(pc.dev.read(0) == 0x1E);
    }
    CHECK(pc.irq1 == std::vector<bool>{true, false});
    CHECK(pc.dev.next_deadline() == 5s + 1ms);
    pc.clock.advance(1ms - 1ns);
    pc.dev.tick();
    CHECK(pc.dev.read(0) == 0x1E);
    CHECK(pc.irq1 == std::vector<bool>{true, false});
    CHECK(pc.dev.next_deadline() == 5s + 1ms);
    pc.clock.advance(1ns);
    pc.dev.tick();
    CHECK(pc.irq1 == std::vector<bool>{true, false, true});
    CHECK(pc.dev.next_deadline() == std::nullopt);
    CHECK(pc.dev.read(0) == 0x30);
    CHECK(pc.irq1 == std::vector<bool>{true, false, true, false});
    CHECK(pc.dev.next_deadline() == std::nullopt);  // no byte is pending
}

TEST_CASE("I8042 hold-off: reading an empty buffer does not begin it again", "[i8042][time]") {
    TimedPc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    CHECK(pc.dev.read(0) == 0x1E);
    pc.clock.advance(600us);
    CHECK(pc.dev.read(0) == 0x1E);
    pc.clock.advance(400us);
    CHECK(pc.dev.read(0) == 0x30);
}

TEST_CASE("I8042 hold-off: a guest that polls needs no tick", "[i8042][time]") {
    TimedPc pc;
    pc.dev.press(Key::up);
    CHECK(pc.full());
    CHECK(pc.dev.read(0) == 0xE0);
    CHECK_FALSE(pc.full());
    pc.clock.advance(1ms);
    CHECK(pc.dev.peek(4) == 0x14);  // as of the last access
    CHECK(pc.full());
    CHECK(pc.dev.read(0) == 0x48);
}

TEST_CASE("I8042 hold-off: a key after the hold-off arrives at once, one within it waits", "[i8042][time]") {
    TimedPc pc;
    pc.dev.press(Key::a);
    CHECK(pc.dev.read(0) == 0x1E);
    CHECK(pc.dev.next_deadline() == std::nullopt);
    pc.clock.advance(400us);
    pc.dev.press(Key::b);
    CHECK_FALSE(pc.full());
    CHECK(pc.dev.next_deadline() == 5s + 1ms);
    pc.clock.advance(600us);
    pc.dev.tick();
    CHECK(pc.dev.read(0) == 0x30);
    pc.clock.advance(1h);
    pc.dev.press(Key::c);
    CHECK(pc.full());
    CHECK(pc.dev.read(0) == 0x2E);
}

TEST_CASE("I8042 hold-off: the controller's own answers do not wait, the devices' do", "[i8042][time]") {
    TimedPc pc;
    pc.dev.press(Key::a);
    CHECK(pc.dev.read(0) == 0x1E);
    CHECK(pc.dev.write(4, 0x20).has_value());
    CHECK(pc.dev.read(0) == 0x65);
    CHECK(pc.dev.write(4, 0xAA).has_value());
    CHECK(pc.dev.read(0) == 0x55);
    pc.clock.advance(1ms);
    pc.mouse(0xF2);
    CHECK(pc.dev.read(0) == 0xFA);
    CHECK_FALSE(pc.full());
    CHECK(pc.dev.next_deadline() == 5s + 2ms);
    pc.clock.advance(1ms);
    pc.dev.tick();
    CHECK(pc.full());
    CHECK(pc.dev.read(0) == 0x00);
}

TEST_CASE("I8042 hold-off: a disabled port has no deadline", "[i8042][time]") {
    TimedPc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    CHECK(pc.dev.read(0) == 0x1E);
    CHECK(pc.dev.write(4, 0xAD).has_value());
    CHECK(pc.dev.next_deadline() == std::nullopt);
    pc.clock.advance(1s);
    pc.dev.tick();
    CHECK_FALSE(pc.full());
    CHECK(pc.dev.write(4, 0xAE).has_value());
    CHECK(pc.dev.read(0) == 0x30);
}

TEST_CASE("I8042 hold-off: a clock that is set back delays a byte by at most one hold-off", "[i8042][time]") {
    TimedPc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    CHECK(pc.dev.read(0) == 0x1E);
    pc.clock.set(-std::chrono::hours(24 * 365 * 280));
    CHECK_FALSE(pc.full());
    CHECK(pc.dev.next_deadline() == -std::chrono::hours(24 * 365 * 280) + 1ms);
    pc.clock.advance(1ms);
    CHECK(pc.full());
    CHECK(pc.dev.read(0) == 0x30);
    // From one end of the clock's range to the other, and close to its end.
    pc.dev.press(Key::c);
    pc.clock.set(std::chrono::nanoseconds::max());
    CHECK(pc.full());
    CHECK(pc.dev.read(0) == 0x2E);
    pc.dev.press(Key::d);
    CHECK(pc.dev.next_deadline() == std::chrono::nanoseconds::max());
    pc.dev.tick();
    CHECK_FALSE(pc.full());
    pc.clock.set(std::chrono::nanoseconds::min());
    pc.dev.tick();
    pc.clock.advance(1ms);
    CHECK(pc.full());
}

TEST_CASE("I8042 hold-off: the option is 0 by default, is never negative, and has a maximum",
          "[i8042][time]") {
    const auto after = [](I8042Options options) {
        TimedPc pc{options};
        pc.dev.press(Key::a);
        pc.dev.press(Key::b);
        CHECK(pc.dev.read(0) == 0x1E);
        const auto due = pc.dev.next_deadline();
        CHECK(pc.dev.read(0) == (due ? 0x1E : 0x30));
        return due;
    };
    CHECK(after({}) == std::nullopt);
    CHECK(after({.hold_off = -5ms}) == std::nullopt);
    CHECK(after({.hold_off = std::chrono::nanoseconds::min()}) == std::nullopt);
    CHECK(after({.hold_off = 1ns}) == 5s + 1ns);
    CHECK(after({.hold_off = std::chrono::nanoseconds::max()}) == 6s);
}

TEST_CASE("I8042 hold-off: the remaining time is saved, and the new owner specifies the next hold-off",
          "[i8042][time][snapshot]") {
    TimedPc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    pc.dev.press(Key::c);
    CHECK(pc.dev.read(0) == 0x1E);
    pc.clock.advance(400us);
    pc.dev.tick();
    const auto state = vmsuperio::decode<I8042State>(vmsuperio::encode(pc.dev.state()));
    REQUIRE(state.has_value());
    CHECK(state->hold_left == 600'000);
    pc.clock.set(99s);  // another host, another clock
    SECTION("the same") {
        pc.irq1.clear();
        auto restored = pc.restored(*state, 1ms);
        REQUIRE(restored.has_value());
        CHECK_SAME_STATE(restored->state(), *state);
        CHECK(pc.irq1.empty());
        CHECK(restored->next_deadline() == 99s + 600us);
        pc.clock.advance(600us);
        restored->tick();
        CHECK(pc.irq1 == std::vector<bool>{true});
        CHECK(restored->read(0) == 0x30);
        restored->reset();
        CHECK(restored->state().hold_left == 0);
        CHECK(restored->next_deadline() == std::nullopt);
        // The hold-off still applies after the reset.
        restored->press(Key::a);
        restored->press(Key::b);
        CHECK(restored->read(0) == 0x1E);
        CHECK(restored->next_deadline() == 99s + 600us + 1ms);
    }
    SECTION("a shorter one") {
        auto restored = pc.restored(*state, 100us);
        REQUIRE(restored.has_value());
        CHECK(restored->next_deadline() == 99s + 100us);
    }
    SECTION("none: the byte that was held back arrives") {
        pc.irq1.clear();
        auto restored = pc.restored(*state, 0ms);
        REQUIRE(restored.has_value());
        CHECK(pc.irq1 == std::vector<bool>{true});
        CHECK(restored->next_deadline() == std::nullopt);
        CHECK(restored->read(0) == 0x30);
        CHECK(restored->read(0) == 0x2E);
    }
}

TEST_CASE("I8042 hold-off: the guest reads the same bytes with and without it", "[i8042][time]") {
    TimedPc slow;
    TimedPc fast{I8042Options{}};
    const auto both = [&](auto action) {
        action(slow);
        action(fast);
    };
    unsigned random = 3;
    const auto next = [&random] {
        random = random * 1103515245U + 12345U;
        return random >> 16U;
    };
    both([](TimedPc& pc) { pc.mouse(0xF4); });
    const auto drain = [](TimedPc& pc) {
        Bytes bytes;
        for (int i = 0; i < 200; ++i) {
            if (pc.full()) {
                bytes.push_back(pc.dev.read(0));
            }
            pc.clock.advance(1ms);
        }
        return bytes;
    };
    CHECK(drain(slow) == drain(fast));
    for (int round = 0; round < 300; ++round) {
        const auto key = static_cast<Key>(30 + next() % 10);
        const bool down = next() % 2 == 0;
        const int x = static_cast<int>(next() % 3) - 1;
        both([&](TimedPc& pc) {
            pc.dev.key(key, down);
            pc.dev.move_mouse({.x = x});
        });
        REQUIRE(drain(slow) == drain(fast));
    }
}

namespace {

/// An INT 9 handler that reads the scan code and then calls the previous handler, as keyboard drivers and
/// resident programs of DOS do: each handler of the chain reads port 0x60.
Bytes chained_int9(TimedPc& pc, int handlers) {
    Bytes seen;
    for (int i = 0; i < handlers; ++i) {
        seen.push_back(pc.dev.read(0));
    }
    // The BIOS's handler enables the keyboard again at its end (SeaBIOS, handle_09).
    CHECK(pc.dev.write(4, 0xAE).has_value());
    return seen;
}

}  // namespace

TEST_CASE("I8042 hold-off: each of a chain of DOS keyboard handlers sees every scan code once",
          "[i8042][time][dos]") {
    TimedPc pc;
    pc.dev.press(Key::left_shift);
    pc.dev.press(Key::a);
    pc.dev.release(Key::a);
    pc.dev.release(Key::left_shift);
    std::vector<Bytes> interrupts;
    for (int step = 0; step < 20; ++step) {
        if (!pc.irq1.empty() && pc.irq1.back()) {
            interrupts.push_back(chained_int9(pc, 3));
        }
        pc.clock.advance(500us);
        pc.dev.tick();
    }
    CHECK(interrupts ==
          std::vector<Bytes>{{0x2A, 0x2A, 0x2A}, {0x1E, 0x1E, 0x1E}, {0x9E, 0x9E, 0x9E}, {0xAA, 0xAA, 0xAA}});
    CHECK(pc.edges == 0);
}
