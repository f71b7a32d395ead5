// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <expected>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/timed.hpp>

#include "catch.hpp"

/// The properties of every device with time. A subject adapts one device:
///
/// - `Device`, `State`; `name`;
/// - `make(line, clock)` and `restore(state, line, clock)`, with a `Wire` on `line` and no other host object;
/// - `access(device, random)`: does anything that a guest or the host may do, and returns the value read;
/// - `happened(device)`: whether the event of the deadline has occurred (the line is high, a byte is there);
/// - `line(device)`: the level that the interrupt line must have;
/// - `valid(state)`: the result of `validate`.
namespace timed_device {

using std::chrono::nanoseconds;
using vmsuperio::ManualClock;
using ClockRef = vmsuperio::ClockRef<ManualClock>;
using Random = std::mt19937_64;

/// The far end of an interrupt line.
struct Line {
    bool level{};
    int rises{};
    int falls{};
};

struct Wire {
    using error_type = int;
    Line* line;

    // NOLINTNEXTLINE(readability-convert-member-functions-to-static)
    constexpr std::expected<void, int> trigger() { return std::unexpected(1); }
    constexpr std::expected<void, int> set_level(bool asserted) {
        line->level = asserted;
        ++(asserted ? line->rises : line->falls);
        return {};
    }
};

/// A device with its clock and its interrupt line.
template <class Subject>
struct Bench {
    static_assert(vmsuperio::Timed<typename Subject::Device>);

    ManualClock clock;
    Line line;
    typename Subject::Device device;

    explicit Bench(nanoseconds now) : clock(now), device(Subject::make(line, clock)) {}
    /// The state must be valid.
    Bench(nanoseconds now, const typename Subject::State& state)
        : clock(now), device(std::move(*Subject::restore(state, line, clock))) {}
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    [[nodiscard]] nanoseconds now() const { return vmsuperio::time_since_epoch(clock); }
    void tick_at(nanoseconds time) {
        clock.set(time);
        static_cast<void>(device.tick());
    }
};

/// Throws with the device as text if the condition does not hold. Catch's own macros are too slow for
/// millions of checks.
template <class Subject>
void require(bool holds, std::string_view what, const Bench<Subject>& bench) {
    if (!holds) {
        FAIL(Subject::name << ": " << what << "\n" << vmsuperio::inspect(bench.device.state()));
    }
}

/// `by` after `time`, or the end of the range.
inline nanoseconds later(nanoseconds time, nanoseconds by) {
    return nanoseconds(vmsuperio::detail::saturating_add(time.count(), by.count()));
}

inline std::int64_t below(Random& random, std::int64_t limit) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(limit));
}

/// A step of the clock, from a nanosecond to a year, forwards or backwards.
inline nanoseconds time_step(Random& random) {
    static constexpr std::array<std::int64_t, 10> most{1,
                                                       30'518,
                                                       1'000'000,
                                                       250'000'000,
                                                       1'000'000'000,
                                                       2'000'000'000,
                                                       70'000'000'000,
                                                       4'000'000'000'000,
                                                       100'000'000'000'000,
                                                       32'000'000'000'000'000};
    const nanoseconds step(below(random, most.at(random() % most.size())) + 1);
    return random() % 8 == 0 ? -step : step;
}

/// One thing that happens: an access, a step of the clock with or without a tick, a tick at the deadline.
template <class Subject>
std::uint64_t step(Bench<Subject>& bench, Random& random) {
    switch (random() % 4) {
        case 0:
            bench.clock.advance(time_step(random));
            return 0;
        case 1:
            if (const auto deadline = bench.device.next_deadline()) {
                bench.clock.set(*deadline);
            }
            static_cast<void>(bench.device.tick());
            return 0;
        default:
            return Subject::access(bench.device, random);
    }
}

/// Checks `next_deadline()` and `tick()` in the present state of the device: the deadline is exact, and
/// next_deadline() changes nothing. Does not change the device. Returns whether there was a deadline.
template <class Subject>
bool check_deadline(const Bench<Subject>& original, Random& random) {
    // A restored device is up to date at once: its deadline accounts for a clock that was set back.
    Bench<Subject> bench(original.now(), original.device.state());
    const auto state = bench.device.state();
    const auto deadline = bench.device.next_deadline();
    require(bench.device.next_deadline() == deadline, "asked twice, it says the same", bench);
    require(bench.device.state() == state, "asking changes nothing", bench);
    static_cast<void>(bench.device.tick());
    require(bench.device.state() == state, "a tick at the same time changes nothing", bench);
    require(bench.line.level == Subject::line(bench.device), "the trigger has the line's level", bench);

    const int rises = bench.line.rises;
    const bool before = Subject::happened(bench.device);
    if (!deadline) {
        bench.tick_at(later(bench.now(), nanoseconds(below(random, 32'000'000'000'000'000))));
        require(bench.line.rises == rises, "without a deadline the line does not rise", bench);
        require(Subject::happened(bench.device) == before, "without a deadline nothing happens", bench);
        return false;
    }
    require(!before, "a deadline is for what has not happened yet", bench);
    require(*deadline > bench.now(), "a device that is up to date has its deadline ahead", bench);
    for (const std::int64_t left : {below(random, (*deadline - bench.now()).count()), std::int64_t{0}}) {
        bench.tick_at(*deadline - nanoseconds(left + 1));
        require(!Subject::happened(bench.device), "nothing happens before the deadline", bench);
        require(bench.line.rises == rises, "the line does not rise before the deadline", bench);
        require(bench.device.next_deadline() == deadline, "ticks before the deadline do not move it", bench);
    }
    Bench<Subject> late(original.now(), state);
    const int late_rises = late.line.rises;
    bench.tick_at(*deadline);
    require(Subject::happened(bench.device), "at the deadline it happens", bench);
    require(bench.line.level == Subject::line(bench.device), "the trigger has the line's level", bench);
    require(bench.line.rises - rises == (Subject::line(bench.device) ? 1 : 0), "the line rises once", bench);
    late.tick_at(later(*deadline, nanoseconds(below(random, 1'000'000'000'000))));
    require(Subject::happened(late.device), "a late tick finds it happened", late);
    require(late.line.rises - late_rises == (Subject::line(late.device) ? 1 : 0), "late, the line rises once",
            late);
    return true;
}

/// Many random sequences: the deadline is exact after each step.
template <class Subject>
void deadlines_are_exact(unsigned seed, int lives) {
    constexpr int steps = 200;  // so that no sequence comes near the end of the clock's range
    Random random(seed);
    int deadlines = 0;
    int without = 0;
    for (int life = 0; life < lives; ++life) {
        Bench<Subject> bench(nanoseconds(below(random, 2'000'000'000'000'000'000)));
        for (int i = 0; i < steps; ++i) {
            step(bench, random);
            ++(check_deadline(bench, random) ? deadlines : without);
        }
    }
    CHECK(deadlines > lives * steps / 50);
    CHECK(without > lives * steps / 50);
}

/// A device that is saved in the middle, encoded, decoded and restored continues like the original.
template <class Subject>
void restored_continues(unsigned seed, int rounds) {
    using State = typename Subject::State;
    Random random(seed);
    for (int round = 0; round < rounds; ++round) {
        Bench<Subject> original(nanoseconds(below(random, 4'000'000'000'000'000'000)));
        for (int i = 0; i < 32; ++i) {
            step(original, random);
        }
        static_cast<void>(original.device.tick());
        const State state = original.device.state();
        require(Subject::valid(state).has_value(), "a device's own state is valid", original);
        const auto decoded = vmsuperio::decode<State>(vmsuperio::encode(state));
        require(decoded.has_value() && *decoded == state, "the state survives encode and decode", original);
        Bench<Subject> restored(original.now(), *decoded);
        require(restored.device.state() == state, "the restored device has the state", restored);
        require(restored.line.level == Subject::line(original.device), "a high line is raised again",
                restored);
        require(restored.line.rises == (restored.line.level ? 1 : 0) && restored.line.falls == 0,
                "restoring raises the line once or not at all", restored);
        Random left(seed + static_cast<unsigned>(round));
        Random right = left;
        restored.line = original.line;
        for (int i = 0; i < 16; ++i) {
            const std::uint64_t read = step(original, left);
            require(step(restored, right) == read, "both read the same", restored);
            require(restored.device.state() == original.device.state(), "both have the same state", restored);
            require(restored.device.next_deadline() == original.device.next_deadline(),
                    "both have the same deadline", restored);
            require(restored.line.level == original.line.level &&
                        restored.line.rises == original.line.rises &&
                        restored.line.falls == original.line.falls,
                    "both drove the line alike", restored);
        }
    }
}

/// Hostile states: `from_state` and `validate` agree on each, and a device that is created stays in valid
/// states, whatever its clock does.
template <class Subject>
void hostile_states_are_refused_or_work(unsigned seed, int rounds) {
    using State = typename Subject::State;
    using Limits = std::numeric_limits<std::int64_t>;
    constexpr std::size_t header_size = 12;
    Random random(seed);
    int accepted = 0;
    int refused = 0;
    for (int round = 0; round < rounds; ++round) {
        Bench<Subject> source(nanoseconds(below(random, 4'000'000'000'000'000'000)));
        for (int i = 0; i < 8; ++i) {
            step(source, random);
        }
        std::vector<std::uint8_t> bytes = vmsuperio::encode(source.device.state());
        for (std::uint64_t patches = random() % 3 + 1; patches != 0; --patches) {
            bytes[header_size + random() % (bytes.size() - header_size)] =
                static_cast<std::uint8_t>(random());
        }
        const auto state = vmsuperio::decode<State>(bytes);
        if (!state) {
            continue;  // not a boolean
        }
        const auto valid = Subject::valid(*state);
        Line line;
        const auto made = Subject::restore(*state, line, source.clock);
        require(made.has_value() == valid.has_value(), "from_state asks validate", source);
        if (!made) {
            ++refused;
            require(made.error() == valid.error() && !valid.error().field.empty(),
                    "both name the same member", source);
            require(line.rises == 0 && line.falls == 0, "a refused state drives no line", source);
            continue;
        }
        ++accepted;
        static constexpr std::array<std::int64_t, 7> ends{
            Limits::min(),     Limits::min() + 1, Limits::min() / 2, 0,
            Limits::max() / 2, Limits::max() - 1, Limits::max()};
        Bench<Subject> bench(source.now(), *state);
        for (int i = 0; i < 12; ++i) {
            if (random() % 4 == 0) {
                bench.tick_at(nanoseconds(ends.at(random() % ends.size())));
            }
            step(bench, random);
            static_cast<void>(bench.device.tick());
            require(Subject::valid(bench.device.state()).has_value(), "it stays in valid states", bench);
            require(bench.line.level == Subject::line(bench.device), "the trigger has the line's level",
                    bench);
        }
    }
    CHECK(accepted > rounds / 20);
    CHECK(refused > rounds / 100);
}

}  // namespace timed_device
