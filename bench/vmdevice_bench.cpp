// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Dispatch and registration of IoManager beside the designs that its peers use. On a busy machine:
//   vmdevice_bench --benchmark_repetitions=9 --benchmark_enable_random_interleaving=true
// and read the minimum. vmdevice_ratios prints the same as ratios.
#include <algorithm>
#include <atomic>
#include <benchmark/benchmark.h>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "bus_designs.hpp"

namespace {

using namespace bus_designs;

/// Constructed by the first thread of a run, and used by all.
template <class Design, class A>
std::unique_ptr<Machine<Design, A>> machine;

/// Registers and deregisters a device repeatedly while this object exists.
template <class Design, class A>
class Registrar {
public:
    explicit Registrar(Design& design)
        : thread_([this, &design] {
              while (!stop_) {
                  design.add(Machine<Design, A>::spare(), std::make_shared<Register>());
                  design.remove(Machine<Design, A>::spare().base());
              }
          }) {}
    Registrar(const Registrar&) = delete;
    Registrar& operator=(const Registrar&) = delete;
    ~Registrar() {
        stop_ = true;
        thread_.join();
    }

private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

enum class Order { random, same };
enum class Writers { none, one };

/// One read of one byte.
template <class Design, class A, Order Which, Writers Writing>
void dispatch(benchmark::State& state) {
    auto& current = machine<Design, A>;
    std::optional<Registrar<Design, A>> registrar;
    if (state.thread_index() == 0) {
        current = std::make_unique<Machine<Design, A>>(static_cast<std::size_t>(state.range(0)),
                                                       Which == Order::random);
        if constexpr (Writing == Writers::one) {
            registrar.emplace(current->design);
        }
    }
    std::size_t at = static_cast<std::size_t>(state.thread_index()) * 1000;
    for (auto _ : state) {
        benchmark::DoNotOptimize(current->read(at++));
    }
    state.SetItemsProcessed(state.iterations());
    if (state.thread_index() == 0) {
        registrar.reset();
        current.reset();
    }
}

/// 10,000 ranges, one by one.
template <class Design, class A>
void register_ranges(benchmark::State& state) {
    std::vector<std::size_t> order(10'000);
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (state.range(0) != 0) {
        std::ranges::shuffle(order, std::mt19937(1));
    }
    const auto device = std::make_shared<Register>();
    for (auto _ : state) {
        state.PauseTiming();
        auto design = std::make_unique<Design>();
        state.ResumeTiming();
        for (const std::size_t n : order) {
            if constexpr (std::same_as<A, PioAddress>) {
                design->add(PioRange::create(PioAddress{static_cast<std::uint16_t>(n * 6)}, 4).value(),
                            device);
            } else {
                design->add(mmio_range(n), device);
            }
        }
        state.PauseTiming();
        design.reset();
        state.ResumeTiming();
    }
}

/// Bus alone, which does not support threads.
void bus_lookup(benchmark::State& state) {
    MmioBus<std::uint32_t> bus;
    const auto count = static_cast<std::size_t>(state.range(0));
    for (std::size_t n = 0; n < count; ++n) {
        if (!bus.register_device(mmio_range(n), static_cast<std::uint32_t>(n))) {
            std::abort();
        }
    }
    std::mt19937 generator(1);
    std::vector<MmioAddress> addresses;
    for (int i = 0; i < 4096; ++i) {
        addresses.push_back(mmio_range(generator() % count).base());
    }
    std::size_t at = 0;
    for (auto _ : state) {
        benchmark::DoNotOptimize(bus.check_access(addresses[at++ & 4095], 4));
    }
}

double minimum(const std::vector<double>& values) { return *std::ranges::min_element(values); }

void all_sizes(benchmark::internal::Benchmark* benchmark) {
    for (const int n : {1, 4, 16, 64, 256, 1024}) {
        benchmark->Arg(n);
    }
    benchmark->ComputeStatistics("min", minimum);
}
void all_threads(benchmark::internal::Benchmark* benchmark) {
    for (const int threads : {1, 2, 4}) {
        benchmark->Arg(64)->Threads(threads)->UseRealTime();
    }
    benchmark->ComputeStatistics("min", minimum);
}
void both_orders(benchmark::internal::Benchmark* benchmark) {
    benchmark->Arg(0)->Arg(1)->ArgName("shuffled")->Unit(benchmark::kMillisecond);
    benchmark->ComputeStatistics("min", minimum);
}

template <class Design, class A>
void add_dispatch(const std::string& name) {
    benchmark::RegisterBenchmark((name + "/random").c_str(),
                                 dispatch<Design, A, Order::random, Writers::none>)
        ->Apply(all_sizes);
    benchmark::RegisterBenchmark((name + "/same").c_str(), dispatch<Design, A, Order::same, Writers::none>)
        ->Apply(all_sizes);
}
template <class Design, class A>
void add_threads(const std::string& name) {
    benchmark::RegisterBenchmark((name + "/threads").c_str(),
                                 dispatch<Design, A, Order::random, Writers::none>)
        ->Apply(all_threads);
    benchmark::RegisterBenchmark((name + "/threads_and_registrar").c_str(),
                                 dispatch<Design, A, Order::random, Writers::one>)
        ->Apply(all_threads);
}
template <class Design>
void add_design(const std::string& name) {
    add_dispatch<Design, PioAddress>("dispatch/" + name + "/pio");
    add_dispatch<Design, MmioAddress>("dispatch/" + name + "/mmio");
    if constexpr (!std::same_as<Design, VirtualCall>) {
        add_threads<Design, PioAddress>("dispatch/" + name + "/pio");
        add_threads<Design, MmioAddress>("dispatch/" + name + "/mmio");
        benchmark::RegisterBenchmark(("register_10000/" + name + "/pio").c_str(),
                                     register_ranges<Design, PioAddress>)
            ->Apply(both_orders);
        benchmark::RegisterBenchmark(("register_10000/" + name + "/mmio").c_str(),
                                     register_ranges<Design, MmioAddress>)
            ->Apply(both_orders);
    }
}

}  // namespace

int main(int argc, char** argv) {
    add_design<Ours>("io_manager");
    add_design<GlobalMutex>("global_mutex");
    add_design<ReaderWriterLock>("reader_writer_lock");
    add_design<VirtualCall>("virtual_call");
    benchmark::RegisterBenchmark("bus_lookup", bus_lookup)->Apply(all_sizes);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
        return 1;
    }
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
}
