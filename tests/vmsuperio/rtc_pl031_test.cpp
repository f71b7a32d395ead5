// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <vmsuperio/rtc_pl031.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using recorders::CountingTrigger;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;
using vmsuperio::RtcPl031;
using vmsuperio::RtcPl031State;

namespace {

constexpr std::uint16_t dr = 0x00;
constexpr std::uint16_t mr = 0x04;
constexpr std::uint16_t lr = 0x08;
constexpr std::uint16_t cr = 0x0C;
constexpr std::uint16_t imsc = 0x10;
constexpr std::uint16_t ris = 0x14;
constexpr std::uint16_t mis = 0x18;
constexpr std::uint16_t icr = 0x1C;

struct RecordingEvents {
    int* bad_reads;
    int* bad_writes;
    std::vector<std::int64_t>* set;
    void invalid_read() { ++*bad_reads; }
    void invalid_write() { ++*bad_writes; }
    void time_changed(seconds ahead) { set->push_back(ahead.count()); }
};

using Device = RtcPl031<CountingTrigger, RecordingEvents, ClockRef<ManualClock>>;

struct Board {
    int irqs{};
    bool irq_fails{};
    int bad_reads{};
    int bad_writes{};
    std::vector<std::int64_t> set;
    ManualClock clock;
    Device dev;

    explicit Board(nanoseconds start = 1'700'000'000s)
        : clock(start),
          dev(CountingTrigger{&irqs, &irq_fails}, RecordingEvents{&bad_reads, &bad_writes, &set},
              ClockRef(clock)) {}
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;

    std::uint32_t get(std::uint16_t offset) {
        std::array<std::uint8_t, 4> bytes{0xAA, 0xAA, 0xAA, 0xAA};
        dev.read(offset, bytes);
        return bytes[0] | std::uint32_t{bytes[1]} << 8U | std::uint32_t{bytes[2]} << 16U |
               std::uint32_t{bytes[3]} << 24U;
    }
    bool put(std::uint16_t offset, std::uint32_t value) {
        const std::array<std::uint8_t, 4> bytes{
            static_cast<std::uint8_t>(value), static_cast<std::uint8_t>(value >> 8U),
            static_cast<std::uint8_t>(value >> 16U), static_cast<std::uint8_t>(value >> 24U)};
        return dev.write(offset, bytes).has_value();
    }
    [[nodiscard]] std::expected<Device, vmsuperio::StateError> restored(const RtcPl031State& state) {
        return Device::from_state(state, CountingTrigger{&irqs, &irq_fails},
                                  RecordingEvents{&bad_reads, &bad_writes, &set}, ClockRef(clock));
    }
};

}  // namespace

TEST_CASE("RtcPl031: it can be constructed from nothing, a trigger, events, a clock, or all", "[rtc_pl031]") {
    int irqs = 0;
    const ManualClock clock(5s);
    const RtcPl031 nothing;
    const RtcPl031<> defaulted;
    const RtcPl031 with_clock(clock);
    const RtcPl031 with_trigger(CountingTrigger{&irqs});
    const RtcPl031 with_both(CountingTrigger{&irqs}, ClockRef(clock));
    int ignored = 0;
    std::vector<std::int64_t> set;
    const RtcPl031 with_events(CountingTrigger{&irqs}, RecordingEvents{&ignored, &ignored, &set});
    const RtcPl031 with_all(CountingTrigger{&irqs}, RecordingEvents{&ignored, &ignored, &set}, clock);
    STATIC_REQUIRE(std::is_same_v<decltype(nothing), const RtcPl031<>>);
    STATIC_REQUIRE(std::is_same_v<decltype(with_events), const RtcPl031<CountingTrigger, RecordingEvents>>);
    STATIC_REQUIRE(std::is_same_v<decltype(with_trigger), const RtcPl031<CountingTrigger>>);
    CHECK(with_clock.peek(dr) == 5U);
    CHECK(with_both.peek(dr) == 5U);
    CHECK(with_all.peek(dr) == 5U);
    // The host's own clock is past 2024.
    CHECK(nothing.peek(dr) > 1'700'000'000U);
    CHECK(defaulted.peek(cr) == 1U);
}

TEST_CASE("RtcPl031: reset values of every register", "[rtc_pl031]") {
    Board board;
    CHECK(board.get(dr) == 1'700'000'000U);
    CHECK(board.get(mr) == 0);
    CHECK(board.get(lr) == 0);
    CHECK(board.get(cr) == 1);
    CHECK(board.get(imsc) == 0);
    CHECK(board.get(ris) == 0);
    CHECK(board.get(mis) == 0);
    const std::array<std::uint32_t, 8> ids{0x31, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1};
    for (std::uint16_t i = 0; i < 8; ++i) {
        CHECK(board.get(static_cast<std::uint16_t>(0xFE0 + 4 * i)) == ids[i]);
    }
    CHECK(board.bad_reads == 0);
    CHECK(board.irqs == 0);
    CHECK_FALSE(board.dev.next_deadline().has_value());
}

TEST_CASE("RtcPl031: every offset and width: an access that is not a register reads 0 and is reported",
          "[rtc_pl031]") {
    for (std::uint32_t offset = 0; offset < 0x1010; ++offset) {
        for (std::size_t width = 0; width <= 8; ++width) {
            Board board;
            const RtcPl031State before = board.dev.state();
            std::array<std::uint8_t, 8> bytes{};
            bytes.fill(0xAA);
            board.dev.read(offset, std::span(bytes).first(width));
            const bool readable =
                width == 4 && offset % 4 == 0 && (offset < 0x1C || (offset >= 0xFE0 && offset < 0x1000));
            const bool writable = width == 4 && (offset == mr || offset == lr || offset == cr ||
                                                 offset == imsc || offset == icr);
            bool right = board.bad_reads == (readable ? 0 : 1);
            for (std::size_t i = 0; i < bytes.size(); ++i) {
                right = right && (i >= width ? bytes[i] == 0xAA : readable || bytes[i] == 0);
            }
            bytes.fill(0x00);
            right = right && board.dev.write(offset, std::span(bytes).first(width)).has_value();
            right = right && board.bad_writes == (writable ? 0 : 1);
            right = right && (writable || board.dev.state() == before);
            if (!right) {
                FAIL("offset " << offset << " width " << width);
            }
        }
    }
}

TEST_CASE("RtcPl031: peek returns the registers and nothing between or after them", "[rtc_pl031]") {
    Board board;
    for (std::uint32_t offset = 0; offset < 0x1100; ++offset) {
        const bool readable = offset % 4 == 0 && (offset < 0x1C || (offset >= 0xFE0 && offset < 0x1000));
        if (board.dev.peek(static_cast<std::uint16_t>(offset)).has_value() != readable) {
            FAIL("offset " << offset);
        }
    }
    CHECK(board.dev.peek(0xFFFC) == std::nullopt);
}

TEST_CASE("RtcPl031: device time stops at the ends of its range", "[rtc_pl031][clock]") {
    using vmsuperio::detail::saturating_add;
    constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    CHECK(saturating_add(least, -1) == least);
    CHECK(saturating_add(least + 1, -1) == least);
    CHECK(saturating_add(least + 1, -2) == least);
    CHECK(saturating_add(-1, least) == least);
    CHECK(saturating_add(most, 1) == most);
    CHECK(saturating_add(most - 1, 1) == most);
    CHECK(saturating_add(most, least) == -1);
    CHECK(saturating_add(5, -7) == -2);
}

TEST_CASE("RtcPl031: offsets beyond 16 bits do not wrap around", "[rtc_pl031]") {
    Board board;
    std::array<std::uint8_t, 4> bytes{1, 2, 3, 4};
    CHECK(board.dev.write(0x10008, bytes).has_value());
    board.dev.read(0x1'0000'0000, bytes);
    CHECK(bytes == std::array<std::uint8_t, 4>{0, 0, 0, 0});
    CHECK(board.bad_reads == 1);
    CHECK(board.bad_writes == 1);
    CHECK(board.get(lr) == 0);
}

TEST_CASE("RtcPl031: the counter counts seconds", "[rtc_pl031]") {
    Board board(1'700'000'000s + 250ms);
    board.clock.advance(749'999'999ns);
    CHECK(board.get(dr) == 1'700'000'000U);
    board.clock.advance(1ns);
    CHECK(board.get(dr) == 1'700'000'001U);
    board.clock.advance(1h);
    CHECK(board.get(dr) == 1'700'003'601U);
}

TEST_CASE("RtcPl031: the load register sets the counter and reads back", "[rtc_pl031]") {
    Board board;
    for (const std::uint32_t value : {0U, 1U, 0x7FFFFFFFU, 0x80000000U, 0xFFFFFFFEU, 0xFFFFFFFFU}) {
        CHECK(board.put(lr, value));
        CHECK(board.get(lr) == value);
        CHECK(board.get(dr) == value);
        board.clock.advance(1s);
        CHECK(board.get(dr) == static_cast<std::uint32_t>(value + 1U));
        board.clock.advance(2s);
        CHECK(board.get(dr) == static_cast<std::uint32_t>(value + 3U));
        CHECK(board.get(lr) == value);
    }
}

TEST_CASE("RtcPl031: the guest's change of the time is reported as an offset", "[rtc_pl031]") {
    Board board;
    board.put(lr, 1'700'000'060U);
    board.put(lr, 1'699'999'990U);
    CHECK(board.set == std::vector<std::int64_t>{60, -10});
    CHECK(board.dev.time_offset() == -10s);
    board.clock.advance(100s);
    CHECK(board.get(dr) == 1'700'000'090U);
    CHECK(board.dev.time_offset() == -10s);
}

TEST_CASE("RtcPl031: the counter wraps from 2^32 - 1 to 0, in 2106", "[rtc_pl031]") {
    Board board(4'294'967'295s);
    CHECK(board.get(dr) == 0xFFFFFFFFU);
    board.clock.advance(1s);
    CHECK(board.get(dr) == 0U);
    Board before(-1s);
    CHECK(before.get(dr) == 0xFFFFFFFFU);
    before.clock.advance(1s);
    CHECK(before.get(dr) == 0U);
}

TEST_CASE("RtcPl031: the match interrupt fires when the counter reaches the value, and not before",
          "[rtc_pl031][irq]") {
    Board board(1'700'000'000s + 300ms);
    board.put(mr, 1'700'000'002U);
    CHECK_FALSE(board.dev.next_deadline().has_value());
    board.put(imsc, 1);
    CHECK(board.dev.next_deadline() == 1'700'000'002s);
    board.clock.set(1'700'000'002s - 1ns);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 0);
    CHECK(board.get(ris) == 0);
    board.clock.advance(1ns);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 1);
    CHECK(board.get(ris) == 1);
    CHECK(board.get(mis) == 1);
    CHECK_FALSE(board.dev.next_deadline().has_value());
    // It stays until it is cleared, and does not occur again in the same second.
    board.clock.advance(500ms);
    CHECK(board.put(icr, 0));
    CHECK(board.get(mis) == 1);
    CHECK(board.put(icr, 1));
    CHECK(board.get(ris) == 0);
    CHECK(board.get(mis) == 0);
    CHECK(board.irqs == 1);
    // The next match occurs after the counter has wrapped.
    CHECK(board.dev.next_deadline() == 1'700'000'002s + 4'294'967'296s);
}

TEST_CASE("RtcPl031: the mask gates the line and not the raw status", "[rtc_pl031][irq]") {
    Board board;
    board.put(mr, 1'700'000'001U);
    board.clock.advance(5s);
    CHECK(board.get(ris) == 1);
    CHECK(board.get(mis) == 0);
    CHECK(board.irqs == 0);
    board.put(imsc, 1);
    CHECK(board.irqs == 1);
    CHECK(board.get(mis) == 1);
    board.put(imsc, 0);
    CHECK(board.get(mis) == 0);
    board.put(imsc, 0xFFFFFFFF);
    CHECK(board.get(imsc) == 1);
    CHECK(board.irqs == 2);
}

TEST_CASE("RtcPl031: a match or load value equal to the other fires at once", "[rtc_pl031][irq]") {
    Board board;
    board.put(imsc, 1);
    board.put(mr, 1'700'000'000U);
    CHECK(board.irqs == 1);
    board.put(icr, 1);
    board.put(mr, 42);
    CHECK(board.irqs == 1);
    board.put(lr, 42);
    CHECK(board.irqs == 2);
}

TEST_CASE("RtcPl031: a match passed over by a jump of the clock is not lost, a later one does not occur",
          "[rtc_pl031][irq]") {
    Board board;
    board.put(imsc, 1);
    board.put(mr, 1'700'000'010U);
    board.clock.advance(9s);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 0);
    board.clock.advance(1000s);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 1);
    // A jump by the whole range passes every match value.
    board.put(icr, 1);
    board.put(mr, 5);
    board.clock.advance(4'294'967'296s);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 2);
}

TEST_CASE("RtcPl031: a match across the wrap", "[rtc_pl031][irq]") {
    Board board;
    board.put(imsc, 1);
    board.put(lr, 0xFFFFFFFE);
    board.put(mr, 1);
    CHECK(board.irqs == 0);
    CHECK(board.dev.next_deadline() == 1'700'000'003s);
    board.clock.advance(2s);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 0);
    board.clock.advance(1s);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 1);
    CHECK(board.get(dr) == 1);
}

TEST_CASE("RtcPl031: an access at or after the deadline raises the interrupt too", "[rtc_pl031][irq]") {
    Board board;
    board.put(imsc, 1);
    board.put(mr, 1'700'000'003U);
    board.clock.advance(3s);
    CHECK(board.get(dr) == 1'700'000'003U);
    CHECK(board.irqs == 1);
}

TEST_CASE("RtcPl031: the control register reads 1 and cannot stop the clock", "[rtc_pl031]") {
    Board board;
    board.put(cr, 0);
    CHECK(board.get(cr) == 1);
    board.clock.advance(1s);
    CHECK(board.get(dr) == 1'700'000'001U);
    CHECK(board.bad_writes == 0);
}

TEST_CASE("RtcPl031: setting the clock back does not set the counter back", "[rtc_pl031][clock]") {
    Board board;
    board.put(imsc, 1);
    board.put(mr, 1'700'000'003U);
    board.clock.advance(-1h);
    CHECK(board.get(dr) == 1'700'000'000U);
    CHECK(board.dev.next_deadline() == 1'700'000'003s - 1h);
    board.clock.advance(2s);
    CHECK(board.get(dr) == 1'700'000'002U);
    CHECK(board.irqs == 0);
    board.clock.advance(1s);
    CHECK(board.dev.tick());
    CHECK(board.irqs == 1);
    CHECK(board.dev.time_offset() == 3600s);
}

TEST_CASE("RtcPl031: jumps to the ends of time are harmless", "[rtc_pl031][clock]") {
    for (const nanoseconds start :
         {nanoseconds::min(), nanoseconds(-1), nanoseconds(0), nanoseconds::max()}) {
        Board board(start);
        board.put(imsc, 1);
        for (const nanoseconds time : {nanoseconds::max(), nanoseconds::min(), nanoseconds(0),
                                       nanoseconds::max(), nanoseconds::max() - 1ns}) {
            board.clock.set(time);
            (void)board.get(dr);
            board.put(lr, 7);
            board.put(mr, 6);
            (void)board.dev.next_deadline();
            (void)board.dev.time_offset();
            board.put(icr, 1);
            CHECK(board.restored(board.dev.state()).has_value());
        }
    }
}

TEST_CASE("RtcPl031: trigger errors are returned by write and tick, and counted for reads",
          "[rtc_pl031][irq]") {
    Board board;
    board.irq_fails = true;
    board.put(imsc, 1);
    CHECK_FALSE(board.put(mr, 1'700'000'000U));
    CHECK(board.put(icr, 1));
    board.put(mr, 1'700'000'001U);
    board.clock.advance(1s);
    CHECK_FALSE(board.dev.tick().has_value());
    board.put(icr, 1);
    board.put(mr, 1'700'000'002U);
    board.clock.advance(1s);
    CHECK(board.get(mis) == 1);
    CHECK(board.dev.interrupt_errors() == board.dev.host_errors().interrupt);
    CHECK(board.dev.interrupt_errors() == 3);
}

TEST_CASE("RtcPl031: Linux sets an alarm and gets its interrupt", "[rtc_pl031][linux]") {
    Board board;
    // Probe: the ids, then the clock is started if it is not, and the interrupt masked and cleared.
    CHECK((board.get(0xFE0) | board.get(0xFE4) << 8U | board.get(0xFE8) << 16U) == 0x041031U);
    CHECK(board.get(cr) == 1);
    board.put(icr, 1);
    const std::uint32_t alarm = board.get(dr) + 2;
    board.put(mr, alarm);
    board.put(imsc, board.get(imsc) | 1U);
    const auto deadline = board.dev.next_deadline();
    REQUIRE(deadline.has_value());
    board.clock.set(deadline.value_or(0ns));
    CHECK(board.dev.tick());
    CHECK(board.irqs == 1);
    // The handler.
    CHECK(board.get(ris) == 1);
    board.put(icr, 1);
    CHECK(board.get(ris) == 0);
    CHECK(board.bad_reads == 0);
    CHECK(board.bad_writes == 0);
}

namespace {

void random_step(Device& dev, ManualClock& clock, std::mt19937& random) {
    std::array<std::uint8_t, 8> bytes{};
    for (std::uint8_t& byte : bytes) {
        byte = static_cast<std::uint8_t>(random());
    }
    const std::array<std::uint16_t, 9> offsets{dr, mr, lr, cr, imsc, ris, mis, icr, 0xFE0};
    switch (random() % 8) {
        case 0:
            dev.read(random() % 0x1010, std::span(bytes).first(random() % 9));
            break;
        case 1:
            (void)dev.write(random() % 0x1010, std::span(bytes).first(random() % 9));
            break;
        case 2:
            dev.read(offsets[random() % offsets.size()], std::span(bytes).first(4));
            break;
        case 3:
            (void)dev.write(offsets[random() % offsets.size()], std::span(bytes).first(4));
            break;
        case 4: {
            // A match in the near future, so that it occurs.
            const std::uint32_t match = dev.peek(dr).value_or(0) + static_cast<std::uint32_t>(random() % 4);
            bytes = {static_cast<std::uint8_t>(match), static_cast<std::uint8_t>(match >> 8U),
                     static_cast<std::uint8_t>(match >> 16U), static_cast<std::uint8_t>(match >> 24U)};
            (void)dev.write(mr, std::span(bytes).first(4));
            break;
        }
        case 5:
            clock.advance(nanoseconds(static_cast<std::int64_t>(random() % 2'000'000'000)));
            break;
        case 6:
            if (random() % 16 == 0) {
                clock.advance(seconds(static_cast<std::int64_t>(random() % 2'000'000)) - 1'000'000s);
            }
            break;
        default:
            (void)dev.tick();
            break;
    }
}

}  // namespace

TEST_CASE("RtcPl031: hostile sequences always lead to a valid state", "[rtc_pl031][fuzz]") {
    STATIC_REQUIRE(std::is_trivially_copyable_v<RtcPl031State>);
    Board board;
    std::mt19937 random(23);
    for (int step = 0; step < 200'000; ++step) {
        random_step(board.dev, board.clock, random);
        const int irqs = board.irqs;
        const auto restored = board.restored(board.dev.state());
        if (!restored) {
            FAIL("invalid state at step " << step);
        }
        if (board.irqs - irqs != static_cast<int>(restored->peek(mis).value_or(2))) {
            FAIL("wrong line at step " << step);
        }
        if (const auto deadline = board.dev.next_deadline(); deadline && step % 8 == 0) {
            const int before = board.irqs;
            if (*deadline - board.clock.now().time_since_epoch() < 100s) {
                board.clock.set(*deadline);
                (void)board.dev.tick();
                if (board.irqs != before + 1) {
                    FAIL("no interrupt at the deadline, step " << step);
                }
            }
        }
    }
    CHECK(board.irqs > 1000);
}

TEST_CASE("RtcPl031: a saved and restored device continues like the original, at every step",
          "[rtc_pl031][snapshot]") {
    Board original;
    std::mt19937 random(29);
    for (int round = 0; round < 2000; ++round) {
        for (int step = 0; step < 5; ++step) {
            random_step(original.dev, original.clock, random);
        }
        const RtcPl031State state = original.dev.state();
        const auto decoded = vmsuperio::decode<RtcPl031State>(vmsuperio::encode(state));
        REQUIRE(decoded.has_value());
        REQUIRE_SAME_STATE(*decoded, state);
        Board other;
        other.clock.set(original.clock.now().time_since_epoch());
        auto restored = other.restored(*decoded);
        REQUIRE(restored.has_value());
        (void)original.dev.tick();  // as restoring does
        REQUIRE_SAME_STATE(restored->state(), original.dev.state());
        CHECK(other.irqs == static_cast<int>(restored->peek(mis).value_or(2)));
        std::mt19937 left(static_cast<unsigned>(round));
        std::mt19937 right(static_cast<unsigned>(round));
        for (int step = 0; step < 20; ++step) {
            random_step(original.dev, original.clock, left);
            random_step(*restored, other.clock, right);
        }
        REQUIRE_SAME_STATE(restored->state(), original.dev.state());
    }
}

TEST_CASE("RtcPl031: from_state refuses each value that no clock can have", "[rtc_pl031][snapshot]") {
    Board board;
    const RtcPl031State good = board.dev.state();
    const auto refuses = [&](auto change, std::string_view field) {
        RtcPl031State bad = good;
        change(bad);
        const auto result = board.restored(bad);
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().field == field);
    };
    refuses([](RtcPl031State& s) { s.time.seen = std::numeric_limits<std::int64_t>::min(); }, "time");
    refuses([](RtcPl031State& s) { s.time.shift = -1; }, "time");
    // The clock would have stood before the first time that it can show.
    refuses(
        [](RtcPl031State& s) {
            s.time = {.seen = -2, .shift = std::numeric_limits<std::int64_t>::max()};
            s.second_start = -2;
        },
        "time");
    refuses([](RtcPl031State& s) { s.second_start = s.time.seen + 1; }, "second_start");
    refuses([](RtcPl031State& s) { s.second_start = s.time.seen - 1'000'000'000; }, "second_start");
    CHECK(board.restored(good).has_value());
}
