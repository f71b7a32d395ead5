// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The guarantees of IoManager to threads. Built twice: with the fences of the platform and with the portable
// ones.
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
#include <random>
#include <semaphore>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <vmdevice/io_manager.hpp>

#include "bus_devices.hpp"
#include "catch.hpp"

using namespace vmdevice;
using namespace bus_tests;

namespace {

/// Assertions for several threads; the framework's own ones are for one thread at a time.
struct Expectations {
    std::atomic<int> failed{0};
    template <class T>
    void operator()(const T& expectation) {
        failed += static_cast<bool>(expectation) ? 0 : 1;
    }
    // Destroyed last in its test, after the threads.
    ~Expectations() { CHECK(failed == 0); }
};

/// A device inside which a thread can be made to wait.
struct Gate {
    std::latch entered{1};
    std::latch opened{1};
    std::atomic<bool> left{false};
    std::shared_ptr<Hook> device = hook([this] {
        entered.count_down();
        opened.wait();
        left = true;
    });
};

}  // namespace

TEST_CASE("IoManager: a device may access others through the bus from inside its handler",
          "[vmdevice][io_manager][nesting]") {
    IoManager manager;
    std::vector<int> order;
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] {
                                     order.push_back(1);
                                     CHECK(read(manager, 2));
                                     order.push_back(-1);
                                     CHECK(read(manager, 2));
                                 })));
    REQUIRE(manager.register_pio(pio(2, 1), hook([&] {
                                     order.push_back(2);
                                     CHECK(read_memory(manager, 3));
                                 })));
    REQUIRE(manager.register_mmio(mmio(3, 1), hook([&] { order.push_back(3); })));
    CHECK(read(manager, 1));
    CHECK(order == std::vector<int>{1, 2, 3, -1, 2, 3});
    CHECK(manager.deregister_pio(PioAddress{1}));
    CHECK(manager.deregister_pio(PioAddress{2}));
    CHECK(manager.deregister_mmio(MmioAddress{3}));
}

TEST_CASE("IoManager: a device that accesses itself recursively reaches the nesting limit",
          "[vmdevice][io_manager][nesting]") {
    IoManager manager;
    std::size_t depth = 0;
    std::size_t refused = 0;
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] {
                                     ++depth;
                                     if (!read(manager, 1)) {
                                         ++refused;
                                     }
                                 })));
    for (std::size_t round = 1; round <= 2; ++round) {
        CHECK(read(manager, 1));
        CHECK(depth == round * IoManager::max_nesting);
        CHECK(refused == round);
    }
    deregister(manager, 1);
}

TEST_CASE("IoManager: an exception of a device propagates and has no other effect",
          "[vmdevice][io_manager]") {
    IoManager manager;
    REQUIRE(manager.register_pio(pio(1, 1), hook([] { throw std::runtime_error("broken"); })));
    REQUIRE(manager.register_pio(pio(2, 1), hook([&] { read(manager, 1); })));
    for (std::size_t i = 0; i < 2 * IoManager::max_nesting; ++i) {
        CHECK_THROWS_AS(read(manager, 1), std::runtime_error);
        CHECK_THROWS_AS(read(manager, 2), std::runtime_error);
    }
    // If a slot had not been cleared, these calls would never return.
    std::thread([&] {
        deregister(manager, 1);
        deregister(manager, 2);
    }).join();
    CHECK_FALSE(read(manager, 1));
}

TEST_CASE("IoManager: deregister returns when no thread is inside the device",
          "[vmdevice][io_manager][quiesce]") {
    Expectations expect;
    for (const bool nested : {false, true}) {
        IoManager manager;
        Gate gate;
        REQUIRE(manager.register_pio(pio(1, 1), gate.device));
        REQUIRE(manager.register_pio(pio(2, 1), hook([&] { read(manager, 1); })));
        const std::jthread vcpu([&] { read(manager, nested ? 2 : 1); });
        gate.entered.wait();
        std::atomic<bool> returned = false;
        const std::jthread registrar([&] {
            const auto taken = manager.deregister_pio(PioAddress{1});
            expect(gate.left);
            expect(taken->second == gate.device);
            returned = true;
        });
        while (read(manager, 3) || manager.pio_size() == 2) {
            std::this_thread::yield();
        }
        for (int i = 0; i < 100; ++i) {
            std::this_thread::yield();
        }
        expect(!returned);
        gate.opened.count_down();
    }
}

TEST_CASE("IoManager: deregister does not wait for a thread inside another device",
          "[vmdevice][io_manager][quiesce]") {
    IoManager manager;
    Gate gate;
    REQUIRE(manager.register_pio(pio(1, 1), gate.device));
    REQUIRE(manager.register_pio(pio(2, 1), hook([] {})));
    REQUIRE(manager.register_mmio(mmio(1, 1), hook([] {})));
    const std::jthread vcpu([&] { read(manager, 1); });
    gate.entered.wait();
    CHECK(manager.deregister_pio(PioAddress{2}));
    CHECK(manager.deregister_mmio(MmioAddress{1}));
    CHECK(manager.register_pio(pio(2, 1), hook([] {})));
    CHECK(read(manager, 2));
    CHECK_FALSE(gate.left);
    gate.opened.count_down();
}

TEST_CASE("IoManager: a range is free as soon as its device is unreachable",
          "[vmdevice][io_manager][quiesce]") {
    IoManager manager;
    Gate gate;
    std::atomic<int> calls = 0;
    REQUIRE(manager.register_pio(pio(1, 1), gate.device));
    const std::jthread vcpu([&] { read(manager, 1); });
    gate.entered.wait();
    std::jthread registrar([&] { deregister(manager, 1); });
    while (!manager.register_pio(pio(1, 1), hook([&] { ++calls; })).has_value()) {
        std::this_thread::yield();
    }
    CHECK(read(manager, 1));
    CHECK(calls == 1);
    CHECK_FALSE(gate.left);
    gate.opened.count_down();
    registrar.join();
    CHECK(read(manager, 1));
}

TEST_CASE("IoManager: a handler may remove its own device", "[vmdevice][io_manager][quiesce]") {
    IoManager manager;
    bool destroyed = false;
    struct Flag {
        bool& flag;
        ~Flag() { flag = true; }
    };
    auto flag = std::make_shared<Flag>(destroyed);
    bool alive_after = false;
    REQUIRE(manager.register_pio(pio(1, 1), hook([&, held = std::exchange(flag, nullptr)] {
                                     const auto self = manager.deregister_pio(PioAddress{1});
                                     CHECK(self.has_value());
                                     CHECK_FALSE(read(manager, 1));
                                     CHECK_FALSE(manager.deregister_pio(PioAddress{1}));
                                     alive_after = !destroyed;
                                     // This handler owns the device now, which must outlive the call.
                                     static std::shared_ptr<DevicePio> kept;
                                     kept = self->second;
                                     REQUIRE(manager.register_pio(pio(5, 1), std::exchange(kept, nullptr)));
                                 })));
    CHECK(read(manager, 1));
    CHECK(alive_after);
    CHECK_FALSE(destroyed);
    CHECK_FALSE(read(manager, 1));
    deregister(manager, 5);
    CHECK(destroyed);
}

TEST_CASE("IoManager: a device that its own handler removed lives while the handler changes the bus further",
          "[vmdevice][io_manager][quiesce]") {
    IoManager manager;
    struct Trace {
        bool destroyed{false};
        bool destroyed_inside{false};
    };
    Trace trace;
    struct Flag {
        Trace* trace;
        ~Flag() { trace->destroyed = true; }
    };
    auto flag = std::make_shared<Flag>(&trace);
    REQUIRE(manager.register_pio(pio(1, 1), hook([&manager, held = std::exchange(flag, nullptr)] {
                                     Trace& seen = *held->trace;  // outlives the handler
                                     IoManager& bus = manager;
                                     deregister(bus, 1);
                                     for (std::size_t port = 2; port < 6; ++port) {
                                         static_cast<void>(bus.register_pio(pio(port, 1), hook([] {})));
                                         deregister(bus, port);
                                     }
                                     seen.destroyed_inside = seen.destroyed;
                                 })));
    CHECK(read(manager, 1));
    CHECK_FALSE(trace.destroyed_inside);
    // The next change of the bus releases it.
    REQUIRE(manager.register_pio(pio(1, 1), hook([] {})));
    deregister(manager, 1);
    CHECK(trace.destroyed);
}

TEST_CASE("IoManager: a handler that removes its own device does not wait for the other threads in it",
          "[vmdevice][io_manager][quiesce]") {
    Expectations expect;
    IoManager manager;
    Gate gate;
    std::atomic<int> calls = 0;
    auto device = hook([&] {
        if (calls++ == 0) {
            gate.device->function();
        } else {
            deregister(manager, 1);
            expect(!gate.left);
        }
    });
    const std::weak_ptr<Hook> watched = device;
    REQUIRE(manager.register_pio(pio(1, 1), std::move(device)));
    {
        const std::jthread first([&] { read(manager, 1); });
        gate.entered.wait();
        std::thread([&] { expect(read(manager, 1)); }).join();
        // No access reaches it any more, but it lives because another thread is still inside.
        expect(!read(manager, 1));
        expect(manager.register_pio(pio(1, 1), hook([] {})));
        expect(!watched.expired());
        gate.opened.count_down();
    }
    deregister(manager, 1);
    expect(watched.expired());
}

TEST_CASE("IoManager: a handler may register and remove other devices", "[vmdevice][io_manager][quiesce]") {
    IoManager manager;
    REQUIRE(manager.register_pio(pio(2, 1), hook([] {})));
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] {
                                     deregister(manager, 2);
                                     CHECK_FALSE(read(manager, 2));
                                     CHECK(manager.register_pio(pio(3, 1), hook([] {})));
                                     CHECK(read(manager, 3));
                                     CHECK(manager.move_pio(PioAddress{3}, pio(4, 2)));
                                 })));
    CHECK(read(manager, 1));
    CHECK(read(manager, 5));
    CHECK(manager.pio_size() == 2);
}

TEST_CASE("IoManager: a device that a handler removed is released after the other threads have left it",
          "[vmdevice][io_manager][quiesce]") {
    IoManager manager;
    std::binary_semaphore entered(0);
    std::binary_semaphore leave(0);
    auto slow = hook([&] {
        entered.release();
        leave.acquire();
    });
    const std::weak_ptr<Hook> watched = slow;
    REQUIRE(manager.register_pio(pio(0x10, 1), std::move(slow)));
    bool gone = false;
    REQUIRE(manager.register_pio(pio(0x20, 1), hook([&] {
                                     deregister(manager, 0x10);
                                     gone = watched.expired();
                                 })));
    std::thread inside([&] { read(manager, 0x10); });
    entered.acquire();
    std::thread([&] { read(manager, 0x20); }).join();
    CHECK_FALSE(gone);
    leave.release();
    inside.join();
    // The next change of the bus releases it.
    REQUIRE(manager.register_pio(pio(0x30, 1), hook([] {})));
    CHECK(watched.expired());

    // If no thread is inside, it is released at once.
    auto idle = hook([] {});
    const std::weak_ptr<Hook> also_watched = idle;
    REQUIRE(manager.register_pio(pio(0x10, 1), std::move(idle)));
    gone = false;
    REQUIRE(manager.register_pio(pio(0x40, 1), hook([&] {
                                     deregister(manager, 0x10);
                                     gone = also_watched.expired();
                                 })));
    CHECK(read(manager, 0x40));
    CHECK(gone);
}

TEST_CASE("IoManager: handlers that remove each other's devices do not deadlock",
          "[vmdevice][io_manager][quiesce]") {
    Expectations expect;
    for (const std::size_t count : {2U, 3U, 7U}) {
        for (int round = 0; round < 20; ++round) {
            IoManager manager;
            std::barrier all_inside(static_cast<std::ptrdiff_t>(count));
            std::vector<std::shared_ptr<Hook>> devices;
            for (std::size_t i = 0; i < count; ++i) {
                devices.push_back(hook([&, i] {
                    all_inside.arrive_and_wait();
                    deregister(manager, (i + 1) % count);
                }));
                REQUIRE(manager.register_pio(pio(i, 1), devices.back()));
            }
            {
                std::vector<std::jthread> threads;
                for (std::size_t i = 0; i < count; ++i) {
                    threads.emplace_back([&, i] { expect(read(manager, i)); });
                }
            }
            expect(manager.pio_size() == 0);
            // The released entries are reused and answer.
            for (std::size_t i = 0; i < 2 * count; ++i) {
                REQUIRE(manager.register_pio(pio(i, 1), hook([] {})));
            }
            for (std::size_t i = 0; i < 2 * count; ++i) {
                expect(read(manager, i));
                deregister(manager, i);
            }
        }
    }
}

TEST_CASE("IoManager: a cycle of removals across several managers and both buses does not deadlock",
          "[vmdevice][io_manager][quiesce]") {
    Expectations expect;
    IoManager one;
    IoManager two;
    std::barrier all_inside(2);
    REQUIRE(one.register_pio(pio(1, 1), hook([&] {
                                 all_inside.arrive_and_wait();
                                 two.deregister_mmio(MmioAddress{0x1000});
                             })));
    REQUIRE(two.register_mmio(mmio(0x1000, 0x1000), hook([&] {
                                  all_inside.arrive_and_wait();
                                  deregister(one, 1);
                              })));
    const std::jthread a([&] { expect(read(one, 1)); });
    const std::jthread b([&] { expect(read_memory(two, 0x1800)); });
}

TEST_CASE(
    "IoManager: a moved device answers at its new range, and its removal waits for accesses through the old "
    "one",
    "[vmdevice][io_manager][quiesce]") {
    Expectations expect;
    IoManager manager;
    std::atomic<int> calls = 0;
    REQUIRE(manager.register_mmio(mmio(0x1000, 0x1000), hook([&] { ++calls; })));
    REQUIRE(manager.register_mmio(mmio(0x4000, 0x1000), hook([] {})));
    CHECK(manager.move_mmio(MmioAddress{0x1800}, mmio(0x3001, 0x1000)).error() == BusError::device_overlap);
    CHECK(manager.move_mmio(MmioAddress{0x2000}, mmio(0x3000, 0x1000)).error() == BusError::device_not_found);
    CHECK(read_memory(manager, 0x1000));
    REQUIRE(manager.move_mmio(MmioAddress{0x1800}, mmio(0x1800, 0x1000)));
    CHECK_FALSE(read_memory(manager, 0x17FF));
    CHECK(read_memory(manager, 0x1800));
    CHECK(read_memory(manager, 0x27FF));
    CHECK_FALSE(read_memory(manager, 0x2800));
    CHECK(calls == 3);

    // The handler moves its own device, so the move cannot wait for it; the removal by another thread does.
    Gate gate;
    REQUIRE(manager.register_pio(pio(0x10, 8), hook([&] {
                                     expect(manager.move_pio(PioAddress{0x10}, pio(0x14, 8)));
                                     gate.device->function();
                                 })));
    const std::jthread vcpu([&] { expect(read(manager, 0x17)); });
    gate.entered.wait();
    const std::jthread registrar([&] {
        expect(manager.deregister_pio(PioAddress{0x1B}));
        expect(gate.left);
    });
    while (manager.pio_size() != 0) {
        std::this_thread::yield();
    }
    CHECK_FALSE(read(manager, 0x14));
    gate.opened.count_down();
}

TEST_CASE("IoManager: hundreds of threads may be inside devices at the same time", "[vmdevice][io_manager]") {
    Expectations expect;
    constexpr std::size_t count = 200;
    IoManager manager;
    std::barrier all_inside(count);
    std::atomic<std::size_t> left = 0;
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] {
                                     all_inside.arrive_and_wait();
                                     ++left;
                                 })));
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < count; ++i) {
        threads.emplace_back([&] { expect(read(manager, 1)); });
    }
    threads.clear();
    CHECK(left == count);
    deregister(manager, 1);
}

TEST_CASE("IoManager: a thread may outlive the managers that it used", "[vmdevice][io_manager]") {
    Expectations expect;
    std::optional<IoManager> manager;
    std::binary_semaphore go(0);
    std::binary_semaphore done(0);
    const std::jthread thread([&] {
        for (int i = 0; i < 100; ++i) {
            go.acquire();
            expect(read(*manager, 1));
            expect(!read(*manager, 2));
            done.release();
        }
    });
    for (int i = 0; i < 100; ++i) {
        manager.emplace();
        REQUIRE(manager->register_pio(pio(1, 1), hook([] {})));
        go.release();
        done.acquire();
        if (i % 2 == 0) {
            deregister(*manager, 1);
        }
        manager.reset();
    }
}

namespace {
struct LateReader {
    IoManager* manager = nullptr;
    ~LateReader() {
        if (manager != nullptr) {
            *answered = read(*manager, 1);
        }
    }
    bool* answered = nullptr;
};
}  // namespace

TEST_CASE("IoManager: a thread may dispatch in the destructors of its thread-local objects",
          "[vmdevice][io_manager]") {
    IoManager manager;
    int calls = 0;
    bool answered = false;
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] { ++calls; })));
    std::thread([&] {
        static thread_local LateReader late;
        late.answered = &answered;
        late.manager = &manager;  // constructed before the first dispatch, so destroyed after its record
        read(manager, 1);
    }).join();
    CHECK(calls == 2);
    CHECK(answered);
    deregister(manager, 1);
}

TEST_CASE("IoManager: a device's destructor may use the manager that is being destroyed",
          "[vmdevice][io_manager]") {
    int taken = 0;
    {
        IoManager manager;
        struct Owner : Hook {
            explicit Owner(std::function<void()> f) : Hook([] {}), at_end(std::move(f)) {}
            std::function<void()> at_end;
            ~Owner() override { at_end(); }
        };
        for (std::size_t i = 0; i < 4; ++i) {
            REQUIRE(manager.register_pio(pio(i, 1), std::make_shared<Owner>([&] {
                                             ++taken;
                                             CHECK_FALSE(read(manager, 1));
                                             deregister(manager, 2);
                                         })));
        }
    }
    CHECK(taken == 4);
}

namespace {

/// Checks at each access whether it may be entered.
struct Checked : DevicePio, DeviceMmio {
    std::atomic<bool> registered{true};
    std::atomic<int> inside{0};
    static inline std::atomic<std::uint64_t> late_entries = 0;

    void enter(std::span<std::uint8_t> data) {
        inside.fetch_add(1);
        late_entries += registered ? 0U : 1U;
        data[0] = 0x5A;
        inside.fetch_sub(1);
    }
    void pio_read(PioAddress, PioOffset, std::span<std::uint8_t> data) override { enter(data); }
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}
    void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t> data) override { enter(data); }
    void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t>) override {}
};

std::uint64_t test_scale() {
    const char* scale = std::getenv("VMSUPERIO_TEST_SCALE");
    return scale != nullptr ? std::strtoull(scale, nullptr, 10) : 1;
}

}  // namespace

TEST_CASE("IoManager: no device is entered after its deregistration returned",
          "[vmdevice][io_manager][stress]") {
    constexpr std::size_t slots = 32;
    constexpr int readers = 4;
    const std::uint64_t wanted = 2'600'000 * test_scale();  // each; more than 10^7 in all
    IoManager manager;
    Checked::late_entries = 0;
    std::atomic<bool> stop = false;
    std::atomic<std::uint64_t> hits = 0;
    std::atomic<std::uint64_t> dispatches = 0;
    std::atomic<std::uint64_t> cycles = 0;
    // The scheduler decides how far the registrars come meanwhile; the readers go on until the test has met both cases.
    constexpr std::uint64_t least_cycles = 1000;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    // Sizes of several classes, so that ranges share blocks and move between tables.
    const auto port_range = [](std::size_t slot) { return pio(slot * 64, 1 + slot * 2); };
    const auto memory_range = [](std::size_t slot) {
        return mmio(0x10'0000 * slot + slot * 3, std::uint64_t{1} << (slot % 20));
    };
    {
        std::vector<std::jthread> threads;
        for (int r = 0; r < 2; ++r) {
            threads.emplace_back([&, r] {
                std::mt19937 random(static_cast<unsigned>(100 + r));
                std::array<std::shared_ptr<Checked>, slots> ports;
                std::array<std::shared_ptr<Checked>, slots> memory;
                while (!stop) {
                    // Each registrar has slots of its own.
                    const std::size_t slot = random() % (slots / 2) * 2 + static_cast<std::size_t>(r);
                    if (ports[slot]) {
                        if (!manager.deregister_pio(port_range(slot).last())) {
                            std::abort();
                        }
                        ports[slot]->registered = false;
                        if (ports[slot]->inside != 0) {
                            ++Checked::late_entries;
                        }
                        ports[slot].reset();
                    } else {
                        ports[slot] = std::make_shared<Checked>();
                        if (!manager.register_pio(port_range(slot), ports[slot])) {
                            std::abort();
                        }
                    }
                    if (memory[slot]) {
                        const auto taken = manager.deregister_mmio(memory_range(slot).base());
                        if (!taken) {
                            std::abort();
                        }
                        memory[slot]->registered = false;
                        if (memory[slot]->inside != 0) {
                            ++Checked::late_entries;
                        }
                        memory[slot].reset();
                    } else {
                        memory[slot] = std::make_shared<Checked>();
                        if (!manager.register_mmio(memory_range(slot), memory[slot])) {
                            std::abort();
                        }
                    }
                    ++cycles;
                }
            });
        }
        std::vector<std::jthread> vcpus;
        for (int t = 0; t < readers; ++t) {
            vcpus.emplace_back([&, t] {
                std::mt19937 random(static_cast<unsigned>(t));
                std::uint64_t count = 0;
                std::uint64_t found = 0;
                std::array<std::uint8_t, 1> data{};
                const auto met_both = [&] { return found > wanted / 10 && cycles > least_cycles; };
                while (count < wanted ||
                       (count % 1024 != 0 || (!met_both() && std::chrono::steady_clock::now() < limit))) {
                    const std::size_t slot = random() % slots;
                    data[0] = 0;
                    const bool hit = (count & 1) != 0
                                         ? manager.pio_read(port_range(slot).base(), data).has_value()
                                         : manager.mmio_read(memory_range(slot).last(), data).has_value();
                    if (hit != (data[0] == 0x5A)) {
                        ++Checked::late_entries;
                    }
                    found += hit ? 1U : 0U;
                    ++count;
                }
                hits += found;
                dispatches += count;
            });
        }
        vcpus.clear();
        stop = true;
    }
    CHECK(Checked::late_entries == 0);
    CHECK(dispatches >= 10'000'000);
    CHECK(hits > readers * (wanted / 10));
    CHECK(hits < dispatches);
    CHECK(cycles > least_cycles);
}

TEST_CASE("IoManager: other devices stay reachable while devices are added and removed",
          "[vmdevice][io_manager][stress]") {
    // These devices are in the same pages, probe sequences and tables as those that change.
    IoManager manager;
    std::atomic<bool> stop = false;
    std::uint64_t lost = 0;
    for (std::size_t i = 0; i < 64; ++i) {
        REQUIRE(manager.register_pio(pio(i * 4, 2), hook([] {})));
        REQUIRE(manager.register_mmio(mmio(i * 0x20, 0x10), hook([] {})));
    }
    {
        const std::jthread registrar([&] {
            std::uint64_t round = 0;
            while (!stop) {
                const std::size_t i = round % 64;
                const std::uint64_t size = std::uint64_t{1} << (round % 5);
                const auto device = hook([] {});
                if (!manager.register_pio(pio(i * 4 + 2, 2), device) ||
                    !manager.register_mmio(mmio(i * 0x20 + 0x10, size), device)) {
                    std::abort();
                }
                // In bursts, so that tables grow and shrink.
                if (round % 64 == 63) {
                    for (std::size_t n = 0; n < 64; ++n) {
                        deregister(manager, n * 4 + 3);
                        manager.deregister_mmio(MmioAddress{n * 0x20 + 0x10});
                    }
                }
                ++round;
            }
        });
        std::mt19937 random(1);
        for (int i = 0; i < 400'000; ++i) {
            const std::size_t n = random() % 64;
            lost += read(manager, n * 4 + 1) ? 0U : 1U;
            lost += read_memory(manager, n * 0x20 + 0xF) ? 0U : 1U;
        }
        stop = true;
    }
    CHECK(lost == 0);
}
