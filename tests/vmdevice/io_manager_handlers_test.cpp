// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What a device's handler may do to the buses: move its own range, remove itself and others, with its own
// lock held, any number of times. Built twice, like io_manager_concurrency_test.cpp.
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <vmdevice/io_manager.hpp>
#include <vmdevice/locked.hpp>
#include <vmdevice/resources.hpp>

#include "bus_devices.hpp"
#include "catch.hpp"

using namespace vmdevice;
using namespace bus_tests;

namespace {

constexpr std::uint64_t many = 300'000;

/// Ends the program if a test hangs: deadlocked threads could not be joined.
class Watchdog {
public:
    explicit Watchdog(std::chrono::seconds limit)
        : thread_([limit](const std::stop_token& stop) {
              const auto end = std::chrono::steady_clock::now() + limit;
              while (!stop.stop_requested()) {
                  if (std::chrono::steady_clock::now() > end) {
                      std::fputs("threads wait for each other\n", stderr);
                      std::abort();
                  }
                  std::this_thread::sleep_for(std::chrono::milliseconds(10));
              }
          }) {}

private:
    std::jthread thread_;
};

using LockedHook = Locked<Hook>;
std::shared_ptr<LockedHook> locked_hook(std::function<void()> function) {
    return std::make_shared<LockedHook>(std::move(function));
}

/// A device with a mutex of which the library does not know.
struct WithMutex : Hook {
    explicit WithMutex(std::function<void()> f)
        : Hook([this, run = std::move(f)] {
              const std::lock_guard guard(mutex);
              run();
          }) {}
    std::mutex mutex;
};

}  // namespace

TEST_CASE("IoManager: a handler moves its own ports any number of times, one move to an access",
          "[vmdevice][io_manager][move]") {
    IoManager manager;
    std::size_t at = 0x100;
    bool moved = true;
    REQUIRE(manager.register_pio(
        pio(at, 8), hook([&] {
            const std::size_t to = at == 0x100 ? 0x108 : 0x100;
            moved =
                moved && manager.move_pio(PioAddress{static_cast<std::uint16_t>(at)}, pio(to, 8)).has_value();
            at = to;
        })));
    std::uint64_t answered = 0;
    for (std::uint64_t i = 0; i < many; ++i) {
        answered += read(manager, at + 7) ? 1U : 0U;
    }
    CHECK(answered == many);
    CHECK(moved);
    CHECK(manager.pio_size() == 1);
    CHECK(read(manager, at));
    CHECK(manager.register_pio(pio(0x200, 8), hook([] {})));
}

TEST_CASE("IoManager: a handler moves its own ports and memory any number of times in one access",
          "[vmdevice][io_manager][move]") {
    IoManager manager;
    std::uint64_t moved = 0;
    const auto device = hook([&] {
        for (std::uint64_t i = 0; i < many; ++i) {
            // Also to a range that overlaps the old one, and in memory to ranges of other size classes.
            moved += manager.move_pio(PioAddress{static_cast<std::uint16_t>(0x1003 + (i & 1) * 4)},
                                      pio(0x1000 + ((i + 1) & 1) * 4, 8))
                             .has_value()
                         ? 1U
                         : 0U;
            moved +=
                manager.move_mmio(MmioAddress{0x10'0000 + (i & 1) * 0x800},
                                  mmio(0x10'0000 + ((i + 1) & 1) * 0x800, std::uint64_t{0x1000} << (i % 5)))
                        .has_value()
                    ? 1U
                    : 0U;
        }
    });
    REQUIRE(manager.register_pio(pio(0x1000, 8), device));
    REQUIRE(manager.register_mmio(mmio(0x10'0000, 0x1000), device));
    CHECK(read(manager, 0x1000));
    CHECK(moved == 2 * many);
    CHECK(manager.pio_size() == 1);
    CHECK(manager.mmio_size() == 1);
    // The retired entries have been released.
    device->function = [] {};
    CHECK(manager.deregister_pio(PioAddress{0x1004}));
    CHECK(manager.deregister_mmio(MmioAddress{0x10'0800}));
    CHECK(device.use_count() == 1);
}

TEST_CASE("IoManager: a handler removes its own device and registers it again any number of times",
          "[vmdevice][io_manager][move]") {
    IoManager manager;
    std::uint64_t failed = 0;
    std::shared_ptr<Hook> device;
    const auto once = [&](std::uint64_t i) {
        const auto port = manager.deregister_pio(PioAddress{static_cast<std::uint16_t>(0x100 + i % 2 * 8)});
        const auto memory = manager.deregister_mmio(MmioAddress{0x1000 + i % 2 * 0x1000});
        failed += port && memory ? 0U : 1U;
        failed += manager.register_pio(pio(0x100 + (i + 1) % 2 * 8, 8), device) ? 0U : 1U;
        failed += manager.register_mmio(mmio(0x1000 + (i + 1) % 2 * 0x1000, 0x1000), device) ? 0U : 1U;
    };
    std::uint64_t accesses = 0;
    device = hook([&] { once(accesses++); });
    REQUIRE(manager.register_pio(pio(0x100, 8), device));
    REQUIRE(manager.register_mmio(mmio(0x1000, 0x1000), device));
    for (std::uint64_t i = 0; i < many / 3; ++i) {
        failed += read(manager, 0x100 + i % 2 * 8) ? 0U : 1U;
    }
    CHECK(accesses == many / 3);
    // The same in one access, this time in memory.
    device->function = [&] {
        for (std::uint64_t i = 0; i < many / 3; ++i) {
            once(i);
        }
    };
    CHECK(read_memory(manager, 0x1000));
    CHECK(failed == 0);
    deregister(manager, 0x100);
    manager.deregister_mmio(MmioAddress{0x1000});
    CHECK(device.use_count() == 1);
    device->function = nullptr;
}

TEST_CASE("IoManager: the number of retired entries is bounded while other threads stay inside",
          "[vmdevice][io_manager][move]") {
    // The port table has room for 131,071 entries, so a leak of one entry per access is detected.
    IoManager manager;
    std::latch entered(1);
    std::latch leave(1);
    std::atomic<bool> first = true;
    std::uint64_t refused = 0;
    std::uint64_t moves = 0;
    const auto device = hook([&] {
        if (first.exchange(false)) {
            entered.count_down();
            leave.wait();
        }
    });
    REQUIRE(manager.register_pio(pio(0x100, 8), device));
    REQUIRE(manager.register_mmio(mmio(0x1000, 0x1000), device));
    // Another device's handler, such as a bridge's, moves the one that a thread is inside.
    REQUIRE(manager.register_pio(pio(0x10, 1), hook([&] {
                                     const std::uint64_t i = moves++;
                                     refused += manager.move_pio(
                                                    PioAddress{static_cast<std::uint16_t>(0x100 + i % 2 * 8)},
                                                    pio(0x100 + (i + 1) % 2 * 8, 8))
                                                    ? 0U
                                                    : 1U;
                                     refused += manager.move_mmio(MmioAddress{0x1000 + i % 2 * 0x1000},
                                                                  mmio(0x1000 + (i + 1) % 2 * 0x1000, 0x1000))
                                                    ? 0U
                                                    : 1U;
                                 })));
    std::thread inside([&] { read(manager, 0x100); });
    entered.wait();
    for (std::uint64_t i = 0; i < many; ++i) {
        refused += read(manager, 0x10) ? 0U : 1U;
    }
    CHECK(refused == 0);
    CHECK(moves == many);
    // A removal from outside waits for the thread that entered through a much earlier range.
    std::atomic<bool> removed = false;
    std::thread remover([&] {
        deregister(manager, 0x100);
        removed = true;
    });
    while (manager.pio_size() == 2) {
        std::this_thread::yield();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK_FALSE(removed);
    leave.count_down();
    inside.join();
    remover.join();
    CHECK(removed);
    CHECK(manager.pio_size() == 1);
}

TEST_CASE("IoManager: locked devices that move themselves while two vCPUs access them do not deadlock",
          "[vmdevice][io_manager][deadlock]") {
    const Watchdog watchdog(std::chrono::seconds(120));
    for (const bool memory : {false, true}) {
        IoManager manager;
        std::uint64_t moves = 0;  // guarded by the device's lock
        std::atomic<std::uint64_t> answered = 0;
        const auto device = locked_hook([&] {
            const std::uint64_t from = moves % 2;
            const std::uint64_t to = ++moves % 2;
            if (memory) {
                static_cast<void>(manager.move_mmio(MmioAddress{0x1000 + from * 0x1000},
                                                    mmio(0x1000 + to * 0x1000, 0x1000)));
            } else {
                static_cast<void>(manager.move_pio(PioAddress{static_cast<std::uint16_t>(0x100 + from * 8)},
                                                   pio(0x100 + to * 8, 8)));
            }
        });
        REQUIRE(manager.register_pio(pio(0x100, 8), device));
        REQUIRE(manager.register_mmio(mmio(0x1000, 0x1000), device));
        {
            std::vector<std::jthread> vcpus;
            for (int vcpu = 0; vcpu < 2; ++vcpu) {
                vcpus.emplace_back([&] {
                    for (std::uint64_t i = 0; i < 20'000; ++i) {
                        answered += memory ? read_memory(manager, 0x1000 + i % 2 * 0x1000)
                                           : read(manager, 0x100 + i % 2 * 8);
                    }
                });
            }
        }
        CHECK(moves == answered);
        CHECK(moves > 10'000);
        CHECK(manager.pio_size() == 1);
        CHECK(manager.mmio_size() == 1);
    }
}

namespace {

/// Two vCPUs are inside devices A and B, or one waits for the lock of the other's. Then both act.
template <class MakeDevice>
void remove_each_other(MakeDevice make) {
    const Watchdog watchdog(std::chrono::seconds(120));
    for (int round = 0; round < 50; ++round) {
        IoManager manager;
        std::barrier both_inside(2);
        std::array<bool, 2> first{true, true};
        for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
            REQUIRE(manager.register_pio(pio(i, 1), make([&, i] {
                                             if (std::exchange(first[i], false)) {
                                                 both_inside.arrive_and_wait();
                                                 deregister(manager, 1 - i);
                                             }
                                         })));
        }
        std::vector<std::thread> vcpus;
        for (std::size_t vcpu = 0; vcpu < 4; ++vcpu) {
            // The third and the fourth vCPU wait for the locks, or find no device.
            vcpus.emplace_back([&, vcpu] { read(manager, vcpu % 2); });
        }
        for (std::thread& vcpu : vcpus) {
            vcpu.join();
        }
        CHECK(manager.pio_size() == 0);
    }
}

}  // namespace

TEST_CASE("IoManager: locked devices whose handlers remove each other do not block their vCPUs",
          "[vmdevice][io_manager][deadlock]") {
    remove_each_other([](std::function<void()> f) { return locked_hook(std::move(f)); });
}

TEST_CASE("IoManager: devices with a mutex of their own may remove each other as well",
          "[vmdevice][io_manager][deadlock]") {
    remove_each_other([](std::function<void()> f) { return std::make_shared<WithMutex>(std::move(f)); });
}

TEST_CASE("IoManager: a locked handler removes its own device while others wait for its lock",
          "[vmdevice][io_manager][deadlock]") {
    const Watchdog watchdog(std::chrono::seconds(120));
    enum class Way { deregister, resources, move };
    for (const bool own_mutex : {false, true}) {
        for (const Way way : {Way::deregister, Way::resources, Way::move}) {
            IoManager manager;
            std::atomic<int> inside = 0;
            int calls = 0;
            bool changed = false;
            const DeviceResources resources{PioResource{pio(0x10, 8)}, MmioResource{mmio(0x1000, 0x1000)}};
            const auto handler = [&] {
                if (calls++ != 0) {
                    return;
                }
                // The others are about to lock; one that is late finds no device.
                while (inside != 3) {
                    std::this_thread::yield();
                }
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
                switch (way) {
                    case Way::deregister:
                        changed = manager.deregister_pio(PioAddress{0x10}).has_value();
                        break;
                    case Way::resources:
                        changed = manager.deregister_resources(resources).has_value();
                        break;
                    case Way::move:
                        changed = manager.move_pio(PioAddress{0x10}, pio(0x20, 8)).has_value();
                        break;
                }
            };
            std::shared_ptr<DevicePio> on_ports;
            std::shared_ptr<DeviceMmio> in_memory;
            if (own_mutex) {
                const auto device = std::make_shared<WithMutex>(handler);
                on_ports = device;
                in_memory = device;
            } else {
                const auto device = locked_hook(handler);
                on_ports = device;
                in_memory = device;
            }
            REQUIRE(manager.register_resources(resources, on_ports, in_memory));
            {
                std::vector<std::jthread> vcpus;
                for (int vcpu = 0; vcpu < 3; ++vcpu) {
                    vcpus.emplace_back([&, vcpu] {
                        ++inside;
                        if (vcpu == 2) {
                            read_memory(manager, 0x1000);
                        } else {
                            read(manager, 0x10);
                        }
                    });
                }
            }
            CHECK(changed);
            CHECK_FALSE(read(manager, 0x10));
            CHECK(read(manager, 0x20) == (way == Way::move));
            CHECK(read_memory(manager, 0x1000) == (way != Way::resources));
        }
    }
}

TEST_CASE("IoManager: a device may be removed or moved from outside with its lock held",
          "[vmdevice][io_manager][deadlock]") {
    const Watchdog watchdog(std::chrono::seconds(120));
    for (const bool move : {false, true}) {
        IoManager manager;
        std::atomic<bool> left = false;
        auto device = locked_hook([&] { left = true; });
        const std::weak_ptr<LockedHook> watched = device;
        REQUIRE(manager.register_pio(pio(0x10, 8), device));
        std::jthread vcpu;
        device->with_lock([&](Hook&) {
            vcpu = std::jthread([&] { read(manager, 0x10); });
            // Long enough for the vCPU to wait for the lock. If it is not, the test passes as well.
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            if (move) {
                CHECK(manager.move_pio(PioAddress{0x10}, pio(0x20, 8)));
            } else {
                CHECK(manager.deregister_pio(PioAddress{0x10}));
            }
            CHECK_FALSE(left);
        });
        vcpu.join();
        CHECK(read(manager, 0x20) == move);
        deregister(manager, 0x20);
        device.reset();
        REQUIRE(manager.register_pio(pio(0x30, 1), hook([] {})));
        CHECK(watched.expired());
    }
}

TEST_CASE("IoManager: a locked handler removes a device whose handler is about to access the first one",
          "[vmdevice][io_manager][deadlock]") {
    const Watchdog watchdog(std::chrono::seconds(120));
    IoManager manager;
    std::barrier both_inside(2);
    REQUIRE(manager.register_pio(pio(1, 1), locked_hook([&, first = true]() mutable {
                                     if (std::exchange(first, false)) {
                                         both_inside.arrive_and_wait();
                                         std::this_thread::sleep_for(std::chrono::milliseconds(20));
                                         deregister(manager, 2);
                                     }
                                 })));
    REQUIRE(manager.register_pio(pio(2, 1), hook([&] {
                                     both_inside.arrive_and_wait();
                                     read(manager, 1);
                                 })));
    {
        const std::jthread a([&] { read(manager, 1); });
        const std::jthread b([&] { read(manager, 2); });
    }
    CHECK(manager.pio_size() == 1);
}

TEST_CASE("IoManager: a thread that has left all devices and released their locks waits again",
          "[vmdevice][io_manager][deadlock]") {
    // The thread has released the lock and left the device, so it waits again.
    IoManager manager;
    const auto locked = locked_hook([] {});
    REQUIRE(manager.register_pio(pio(1, 1), locked));
    CHECK(read(manager, 1));
    locked->with_lock([](Hook&) {});
    std::latch entered(1);
    std::atomic<bool> left = false;
    REQUIRE(manager.register_pio(pio(2, 1), hook([&] {
                                     entered.count_down();
                                     std::this_thread::sleep_for(std::chrono::milliseconds(30));
                                     left = true;
                                 })));
    const std::jthread vcpu([&] { read(manager, 2); });
    entered.wait();
    deregister(manager, 2);
    CHECK(left);
}
