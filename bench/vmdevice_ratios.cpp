// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// IoManager's cost as a ratio to that of other designs, measured side by side in CPU time of the dispatching
// thread. The minimum of many short runs is taken, so that a busy machine has little influence.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <latch>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "bus_designs.hpp"

namespace {

using namespace bus_designs;

double thread_nanoseconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}
double wall_nanoseconds() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

/// Prevents the compiler from removing the computation of `value`.
template <class T>
void keep(const T& value) {
    asm volatile("" : : "r"(value) : "memory");
}

constexpr std::size_t run_length = 16384;

/// Nanoseconds per dispatch of one run.
template <class Design, class A>
[[gnu::noinline]] double run(Machine<Design, A>& machine) {
    const double start = thread_nanoseconds();
    for (std::size_t i = 0; i < run_length; ++i) {
        keep(machine.read(i));
    }
    return (thread_nanoseconds() - start) / run_length;
}

template <class A>
void compare(const char* space, int rounds) {
    std::printf("%-5s %6s %9s %9s %9s %9s   %s  %s\n", space, "N", "call", "ours", "mutex", "rwlock",
                "ours/mutex", "ours/rwlock");
    double first = 0;
    for (const std::size_t count : {1U, 4U, 16U, 64U, 256U, 1024U}) {
        Machine<VirtualCall, A> call(count, true);
        Machine<Ours, A> ours(count, true);
        Machine<GlobalMutex, A> mutex(count, true);
        Machine<ReaderWriterLock, A> rwlock(count, true);
        std::array<double, 4> least;
        least.fill(std::numeric_limits<double>::max());
        for (int round = 0; round < rounds; ++round) {
            const std::array<double, 4> now{run(call), run(ours), run(mutex), run(rwlock)};
            std::ranges::transform(least, now, least.begin(),
                                   [](double a, double b) { return std::min(a, b); });
        }
        first = count == 1 ? least[1] : first;
        std::printf("%-5s %6zu %9.2f %9.2f %9.2f %9.2f   %10.2f  %11.2f   (N=1: x%.2f)\n", space, count,
                    least[0], least[1], least[2], least[3], least[1] / least[2], least[1] / least[3],
                    least[1] / first);
    }
}

/// Dispatches per second of CPU time, summed over `threads` that run at the same time.
template <class Design, class A>
void scale(const char* name) {
    double alone = 0;
    for (const bool writing : {false, true}) {
        for (const int threads : {1, 2, 4}) {
            double best_cpu = 0;
            double best_wall = 0;
            std::uint64_t changes = 0;
            for (int round = 0; round < 9; ++round) {
                Machine<Design, A> machine(64, true);
                std::atomic<bool> stop = false;
                std::atomic<std::uint64_t> total = 0;
                std::vector<double> rates(static_cast<std::size_t>(threads));
                std::latch ready(threads + 1);
                std::vector<std::jthread> all;
                for (auto& rate : rates) {
                    all.emplace_back([&] {
                        ready.arrive_and_wait();
                        std::uint64_t done = 0;
                        const double start = thread_nanoseconds();
                        while (!stop) {
                            keep(run(machine));
                            done += run_length;
                        }
                        rate = static_cast<double>(done) / (thread_nanoseconds() - start);
                        total += done;
                    });
                }
                std::jthread registrar;
                if (writing) {
                    registrar = std::jthread([&] {
                        const auto device = std::make_shared<Register>();
                        while (!stop) {
                            machine.design.add(Machine<Design, A>::spare(), device);
                            machine.design.remove(Machine<Design, A>::spare().base());
                            ++changes;
                        }
                    });
                }
                ready.arrive_and_wait();
                const double start = wall_nanoseconds();
                std::this_thread::sleep_for(std::chrono::milliseconds(60));
                stop = true;
                all.clear();
                const double wall = wall_nanoseconds() - start;
                best_cpu = std::max(best_cpu, std::accumulate(rates.begin(), rates.end(), 0.0));
                best_wall = std::max(best_wall, static_cast<double>(total.load()) / wall);
            }
            alone = threads == 1 && !writing ? best_cpu : alone;
            std::printf(
                "%-7s %d threads%s: %7.1f M/s of CPU time (x%.2f), %7.1f M/s of real time, %.0f changes/s\n",
                name, threads, writing ? " and a registrar" : "", best_cpu * 1e3, best_cpu / alone,
                best_wall * 1e3, static_cast<double>(changes) / (9 * 0.06));
        }
    }
}

template <class Design, class A>
double register_all(bool shuffled) {
    std::vector<std::size_t> order(10'000);
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (shuffled) {
        std::ranges::shuffle(order, std::mt19937(1));
    }
    const auto device = std::make_shared<Register>();
    double least = std::numeric_limits<double>::max();
    for (int round = 0; round < 9; ++round) {
        Design design;
        const double start = thread_nanoseconds();
        for (const std::size_t n : order) {
            if constexpr (std::same_as<A, PioAddress>) {
                design.add(PioRange::create(PioAddress{static_cast<std::uint16_t>(n * 6)}, 4).value(),
                           device);
            } else {
                design.add(mmio_range(n), device);
            }
        }
        least = std::min(least, thread_nanoseconds() - start);
    }
    return least / 1e6;
}

}  // namespace

int main() {
    std::puts("One byte read from a random device of N, ns of CPU time.");
    std::puts(
        "In a process without further threads, where the C++ library counts references without atomics:");
    compare<PioAddress>("pio", 200);
    compare<MmioAddress>("mmio", 200);
    std::jthread([] {}).join();
    std::puts("In a process that has started a thread, as a VMM has:");
    compare<PioAddress>("pio", 200);
    compare<MmioAddress>("mmio", 200);
    std::puts("Throughput, N = 64:");
    scale<Ours, PioAddress>("ours");
    scale<GlobalMutex, PioAddress>("mutex");
    scale<ReaderWriterLock, PioAddress>("rwlock");
    std::puts("10,000 registrations, ms of CPU time (in order, shuffled):");
    std::printf("pio  %.2f %.2f\n", register_all<Ours, PioAddress>(false),
                register_all<Ours, PioAddress>(true));
    std::printf("mmio %.2f %.2f\n", register_all<Ours, MmioAddress>(false),
                register_all<Ours, MmioAddress>(true));
    return 0;
}
