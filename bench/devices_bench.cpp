// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The cost of the most frequent accesses of guests: the controller's status and data, the clock's registers,
// a debug console's text.
#include <array>
#include <benchmark/benchmark.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/rtc_cmos.hpp>
#include <vmsuperio/rtc_pl031.hpp>

namespace {

using vmsuperio::ManualClock;
using vmsuperio::NullTrigger;

void i8042_read_status(benchmark::State& state) {
    vmsuperio::I8042 dev(NullTrigger{});
    for (auto _ : state) {
        benchmark::DoNotOptimize(dev.read(4));
    }
}
BENCHMARK(i8042_read_status);

void i8042_command_and_answer(benchmark::State& state) {
    vmsuperio::I8042 dev(NullTrigger{});
    for (auto _ : state) {
        benchmark::DoNotOptimize(dev.write(4, 0x20));
        benchmark::DoNotOptimize(dev.read(0));
    }
}
BENCHMARK(i8042_command_and_answer);

void i8042_key_pressed_and_read(benchmark::State& state) {
    vmsuperio::I8042 dev(NullTrigger{});
    for (auto _ : state) {
        dev.press(vmsuperio::Key::a);
        benchmark::DoNotOptimize(dev.read(0));
    }
}
BENCHMARK(i8042_key_pressed_and_read);

/// The probe of a Linux guest: check, self-test, AUX loop, keyboard id, mouse id.
void i8042_probe(benchmark::State& state) {
    for (auto _ : state) {
        vmsuperio::I8042 dev(NullTrigger{});
        for (const int command : {0xAA, 0x20, 0x20, 0xA7, 0x20, 0xA8, 0x20, 0xA9}) {
            benchmark::DoNotOptimize(dev.write(4, static_cast<std::uint8_t>(command)));
            benchmark::DoNotOptimize(dev.read(0));
        }
        for (const int byte : {0xF2, 0xF5, 0xED, 0x00, 0xF3, 0x00, 0xF4}) {
            benchmark::DoNotOptimize(dev.write(0, static_cast<std::uint8_t>(byte)));
            while ((dev.read(4) & 0x01) != 0) {
                benchmark::DoNotOptimize(dev.read(0));
            }
        }
    }
}
BENCHMARK(i8042_probe);

void cmos_read_seconds(benchmark::State& state) {
    const ManualClock clock(std::chrono::seconds(1'700'000'000));
    vmsuperio::RtcCmos rtc(NullTrigger{}, vmsuperio::ClockRef{clock});
    benchmark::DoNotOptimize(rtc.write(0, 0x00));
    for (auto _ : state) {
        benchmark::DoNotOptimize(rtc.read(1));
    }
}
BENCHMARK(cmos_read_seconds);

void cmos_read_seconds_on_the_system_clock(benchmark::State& state) {
    vmsuperio::RtcCmos rtc;
    benchmark::DoNotOptimize(rtc.write(0, 0x00));
    for (auto _ : state) {
        benchmark::DoNotOptimize(rtc.read(1));
    }
}
BENCHMARK(cmos_read_seconds_on_the_system_clock);

/// A jump of the clock costs the same whatever its length.
void cmos_advance(benchmark::State& state) {
    ManualClock clock(std::chrono::seconds(0));
    vmsuperio::RtcCmos rtc(NullTrigger{}, vmsuperio::ClockRef{clock});
    const std::chrono::seconds step(state.range(0));
    for (auto _ : state) {
        clock.advance(step);
        if (clock.now().time_since_epoch() > std::chrono::hours(2'000'000)) {
            state.PauseTiming();
            clock.set(std::chrono::seconds(0));
            rtc = vmsuperio::RtcCmos(NullTrigger{}, vmsuperio::ClockRef{clock});
            state.ResumeTiming();
        }
        benchmark::DoNotOptimize(rtc.tick());
    }
}
BENCHMARK(cmos_advance)->Arg(1)->Arg(86'400)->Arg(1'000'000'000);

void cmos_next_deadline_with_alarm(benchmark::State& state) {
    const ManualClock clock(std::chrono::seconds(1'700'000'000));
    vmsuperio::RtcCmos rtc(NullTrigger{}, vmsuperio::ClockRef{clock});
    for (const auto& [index, value] : {std::pair{0x01, 0x59}, {0x03, 0x59}, {0x05, 0x23}, {0x0B, 0x22}}) {
        benchmark::DoNotOptimize(rtc.write(0, static_cast<std::uint8_t>(index)));
        benchmark::DoNotOptimize(rtc.write(1, static_cast<std::uint8_t>(value)));
    }
    for (auto _ : state) {
        benchmark::DoNotOptimize(rtc.next_deadline());
    }
}
BENCHMARK(cmos_next_deadline_with_alarm);

void pl031_read_counter(benchmark::State& state) {
    const ManualClock clock(std::chrono::seconds(1'700'000'000));
    vmsuperio::RtcPl031 rtc(NullTrigger{}, vmsuperio::ClockRef{clock});
    std::array<std::uint8_t, 4> bytes{};
    for (auto _ : state) {
        rtc.read(0, bytes);
        benchmark::DoNotOptimize(bytes);
    }
}
BENCHMARK(pl031_read_counter);

void debug_console_text(benchmark::State& state) {
    vmsuperio::NullWriter writer;
    vmsuperio::DebugPort port = vmsuperio::DebugPort::console(writer);
    const std::array<std::uint8_t, 64> text{};
    const auto length = static_cast<std::size_t>(state.range(0));
    for (auto _ : state) {
        port.write_data(std::span(text).first(length));
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(debug_console_text)->Arg(1)->Arg(64);

}  // namespace
