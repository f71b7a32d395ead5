// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The C++ half of the comparison with the Rust crate vm-superio; serial_compare.rs makes the same accesses.
// `run` builds and measures both.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <expected>
#include <span>
#include <string_view>
#include <system_error>

#include <vmsuperio/serial.hpp>

namespace {

using vmsuperio::Serial;

// Hides a value from the optimizer, as std::hint::black_box does in Rust.
template <class T>
inline void opaque(T& value) {
    asm volatile("" : "+m"(value) : : "memory");
}

struct CountingTrigger {
    using error_type = int;
    std::uint64_t count{0};
    std::expected<void, int> trigger() {
        ++count;
        opaque(count);
        return {};
    }
};

struct CountingWriter {
    std::uint64_t count{0};
    std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) {
        count += bytes.size();
        opaque(count);
        return bytes.size();
    }
};

using Uart = Serial<CountingTrigger, vmsuperio::NoEvents, CountingWriter>;

// Each access is a call, as from a VMM's bus.
[[gnu::noinline]] bool write(Uart& uart, std::uint8_t offset, std::uint8_t value) {
    return uart.write(offset, value).has_value();
}
[[gnu::noinline]] std::uint8_t read(Uart& uart, std::uint8_t offset) { return uart.read(offset); }
[[gnu::noinline]] bool enqueue(Uart& uart, std::span<const std::uint8_t> bytes) {
    return uart.enqueue_raw_bytes(bytes).has_value();
}

struct Access {
    std::string_view name;
    std::uint8_t interrupts;  // IER
    bool write;
    std::uint8_t offset;
    std::uint8_t value;
    std::size_t enqueued;  // bytes that the host offers before each round of reads
};
constexpr std::array accesses{
    Access{"thr", 0x00, true, 0, 'x', 0},        Access{"thr_interrupt", 0x07, true, 0, 'x', 0},
    Access{"lsr", 0x05, false, 5, 0, 0},         Access{"iir", 0x05, false, 2, 0, 0},
    Access{"lcr", 0x00, true, 3, 0x03, 0},       Access{"fcr", 0x00, true, 2, 0x81, 0},
    Access{"mcr", 0x00, true, 4, 0x0B, 0},       Access{"receive_1", 0x05, false, 0, 0, 1},
    Access{"receive_64", 0x05, false, 0, 0, 64},
};

void repeat(const Access& access, std::uint64_t rounds) {
    Uart uart(CountingTrigger{}, CountingWriter{});
    write(uart, 2, 0x81);
    write(uart, 1, access.interrupts);
    std::array<std::uint8_t, 64> input;
    input.fill('x');
    const std::span<const std::uint8_t> offered(input.data(), access.enqueued);
    std::uint8_t offset = 0;
    std::uint8_t value = 0;
    bool done = false;
    if (access.write) {
        for (; rounds != 0; --rounds) {
            offset = access.offset;
            value = access.value;
            opaque(offset);
            opaque(value);
            done = write(uart, offset, value);
            opaque(done);
        }
    } else if (access.enqueued == 0) {
        for (; rounds != 0; --rounds) {
            offset = access.offset;
            opaque(offset);
            value = read(uart, offset);
            opaque(value);
        }
    } else {
        for (; rounds != 0; --rounds) {
            done = enqueue(uart, offered);
            opaque(done);
            for (std::size_t i = 0; i < access.enqueued; ++i) {
                offset = access.offset;
                opaque(offset);
                value = read(uart, offset);
                opaque(value);
            }
        }
    }
}

}  // namespace

// Prints the nanoseconds of a round, the best of `runs`.
int main(int argc, char** argv) {
    if (argc != 4) {
        std::fputs("usage: serial_compare ACCESS ROUNDS RUNS\n", stderr);
        return 2;
    }
    const auto* const access = std::ranges::find(accesses, std::string_view(argv[1]), &Access::name);
    const std::uint64_t rounds = std::strtoull(argv[2], nullptr, 10);
    if (access == accesses.end() || rounds == 0) {
        std::fputs("serial_compare: no such access, or no rounds\n", stderr);
        return 2;
    }
    double best = 1e9;
    for (long run = std::strtol(argv[3], nullptr, 10); run > 0; --run) {
        const auto start = std::chrono::steady_clock::now();
        repeat(*access, rounds);
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        best = std::min(best, taken.count());
    }
    std::printf("%.2f\n", best * 1e9 / static_cast<double>(rounds));
}
