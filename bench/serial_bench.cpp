// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The cost of a guest's access to the serial port, without bus and VM exit.
#include <array>
#include <benchmark/benchmark.h>
#include <cstdint>
#include <numeric>
#include <vector>

#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_metrics.hpp>
#include <vmsuperio/snapshot.hpp>

namespace {

using vmsuperio::Serial;

constexpr std::uint8_t data = 0, ier = 1, iir = 2, fcr = 2, lcr = 3, mcr = 4, lsr = 5, msr = 6, scr = 7;

// A trigger and a writer that the compiler cannot optimize away, as cheap as possible.
struct CountingTrigger {
    using error_type = int;
    std::uint64_t count{0};
    std::expected<void, int> trigger() {
        benchmark::DoNotOptimize(++count);
        return {};
    }
};

struct CountingWriter {
    std::uint64_t count{0};
    std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) {
        benchmark::DoNotOptimize(count += bytes.size());
        return bytes.size();
    }
};

struct FullWriter {
    std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t>) { return 0; }
};

using Uart = Serial<CountingTrigger, vmsuperio::NoEvents, CountingWriter>;

Uart make(std::uint8_t interrupts = 0, std::uint8_t fifo = 0x81) {
    Uart uart(CountingTrigger{}, CountingWriter{});
    static_cast<void>(uart.write(fcr, fifo));
    static_cast<void>(uart.write(ier, interrupts));
    return uart;
}

// The offset comes from the guest, so it must not be a constant to the compiler.
void read_register(benchmark::State& state, std::uint8_t offset) {
    Uart uart = make(0x05);
    for (auto _ : state) {
        benchmark::DoNotOptimize(offset);
        benchmark::DoNotOptimize(uart.read(offset));
    }
}
BENCHMARK_CAPTURE(read_register, RBR_empty, data);
BENCHMARK_CAPTURE(read_register, IER, ier);
BENCHMARK_CAPTURE(read_register, IIR_none, iir);
BENCHMARK_CAPTURE(read_register, LCR, lcr);
BENCHMARK_CAPTURE(read_register, MCR, mcr);
BENCHMARK_CAPTURE(read_register, LSR, lsr);
BENCHMARK_CAPTURE(read_register, MSR, msr);
BENCHMARK_CAPTURE(read_register, SCR, scr);

void write_register(benchmark::State& state, std::uint8_t offset, std::uint8_t value) {
    Uart uart = make();
    for (auto _ : state) {
        benchmark::DoNotOptimize(offset);
        benchmark::DoNotOptimize(value);
        benchmark::DoNotOptimize(uart.write(offset, value).has_value());
    }
}
BENCHMARK_CAPTURE(write_register, THR, data, 'x');
BENCHMARK_CAPTURE(write_register, IER, ier, 0x05);
BENCHMARK_CAPTURE(write_register, FCR, fcr, 0x81);
BENCHMARK_CAPTURE(write_register, LCR, lcr, 0x03);
BENCHMARK_CAPTURE(write_register, MCR, mcr, 0x0B);
BENCHMARK_CAPTURE(write_register, SCR, scr, 0x55);

void write_thr_with_interrupt(benchmark::State& state) {
    Uart uart = make(0x07);
    std::uint8_t offset = data;
    for (auto _ : state) {
        benchmark::DoNotOptimize(offset);
        benchmark::DoNotOptimize(uart.write(offset, 'x').has_value());
    }
}
BENCHMARK(write_thr_with_interrupt);

void write_thr_with_metrics(benchmark::State& state) {
    vmsuperio::SerialMetrics metrics;
    Serial uart(CountingTrigger{}, vmsuperio::EventsRef(metrics), CountingWriter{});
    std::uint8_t offset = data;
    for (auto _ : state) {
        benchmark::DoNotOptimize(offset);
        benchmark::DoNotOptimize(uart.write(offset, 'x').has_value());
    }
}
BENCHMARK(write_thr_with_metrics);

void write_thr_to_full_sink(benchmark::State& state) {
    Serial uart(CountingTrigger{}, FullWriter{});
    std::uint8_t offset = data;
    for (auto _ : state) {
        benchmark::DoNotOptimize(offset);
        benchmark::DoNotOptimize(uart.write(offset, 'x').has_value());
    }
}
BENCHMARK(write_thr_to_full_sink);

void acknowledge_thre(benchmark::State& state) {
    // The accesses of a driver per interrupt: IIR, LSR, one byte.
    Uart uart = make(0x07);
    for (auto _ : state) {
        benchmark::DoNotOptimize(uart.read(iir));
        benchmark::DoNotOptimize(uart.read(lsr));
        benchmark::DoNotOptimize(uart.write(data, 'x').has_value());
    }
}
BENCHMARK(acknowledge_thre);

void write_data(benchmark::State& state) {
    Uart uart = make(0x07);
    const std::vector<std::uint8_t> bytes(static_cast<std::size_t>(state.range(0)), 'x');
    for (auto _ : state) {
        benchmark::DoNotOptimize(uart.write_data(bytes).has_value());
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(write_data)->Arg(1)->Arg(16)->Arg(4096);

void enqueue_and_read(benchmark::State& state) {
    Uart uart = make(0x05);
    const std::vector<std::uint8_t> bytes(static_cast<std::size_t>(state.range(0)), 'x');
    std::uint8_t offset = data;
    for (auto _ : state) {
        benchmark::DoNotOptimize(uart.enqueue_raw_bytes(bytes).has_value());
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            benchmark::DoNotOptimize(offset);
            benchmark::DoNotOptimize(uart.read(offset));
        }
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(enqueue_and_read)->Arg(1)->Arg(16)->Arg(64);

void loop_back(benchmark::State& state) {
    Uart uart = make(0x05);
    static_cast<void>(uart.write(mcr, 0x18));
    for (auto _ : state) {
        benchmark::DoNotOptimize(uart.write(data, 'x').has_value());
        benchmark::DoNotOptimize(uart.read(data));
    }
}
BENCHMARK(loop_back);

void save(benchmark::State& state) {
    const Uart uart = make();
    for (auto _ : state) {
        benchmark::DoNotOptimize(uart.state());
    }
}
BENCHMARK(save);

void save_encode_decode_restore(benchmark::State& state) {
    const Uart uart = make();
    for (auto _ : state) {
        const auto bytes = vmsuperio::encode(uart.state());
        const auto decoded = vmsuperio::decode<vmsuperio::SerialState>(bytes);
        benchmark::DoNotOptimize(
            Uart::from_state(*decoded, CountingTrigger{}, {}, CountingWriter{}).has_value());
    }
}
BENCHMARK(save_encode_decode_restore);

}  // namespace
