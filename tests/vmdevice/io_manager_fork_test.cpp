// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A child of fork() has only the thread that called fork(). Operations of the other threads that were in
// progress must not block it.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <vmdevice/io_manager.hpp>

#include "bus_devices.hpp"
#include "catch.hpp"

using namespace vmdevice;
using namespace bus_tests;

namespace {

/// Runs `function` in a child and returns its result, or false if it takes longer than 60 s.
bool in_child(const std::function<bool()>& function) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::alarm(60);
        ::_exit(function() ? 0 : 1);
    }
    int status = 0;
    return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

/// Whether all operations that need no other thread work.
bool works(IoManager& manager) {
    bool good = manager.register_pio(pio(0x500, 4), hook([] {})).has_value();
    good = good && manager.register_mmio(mmio(0x50'0000, 0x1000), hook([] {})).has_value();
    good = good && read(manager, 0x503) && read_memory(manager, 0x50'0FFF);
    good = good && manager.move_pio(PioAddress{0x500}, pio(0x502, 4)).has_value();
    good = good && manager.move_mmio(MmioAddress{0x50'0000}, mmio(0x50'1000, 0x10000)).has_value();
    good = good && read(manager, 0x505) && read_memory(manager, 0x51'0FFF);
    good = good && manager.deregister_pio(PioAddress{0x502}).has_value();
    good = good && manager.deregister_mmio(MmioAddress{0x50'1000}).has_value();
    return good && !read(manager, 0x502) && !read_memory(manager, 0x50'1000);
}

}  // namespace

TEST_CASE("fork: a child removes a device that a thread of the parent is inside",
          "[vmdevice][io_manager][fork]") {
    IoManager manager;
    std::latch entered(2);
    std::latch leave(1);
    const auto wait_inside = [&] {
        entered.count_down();
        leave.wait();
    };
    REQUIRE(manager.register_pio(pio(1, 1), hook(wait_inside)));
    REQUIRE(manager.register_mmio(mmio(0x1000, 0x1000), hook(wait_inside)));
    std::thread on_port([&] { read(manager, 1); });
    std::thread in_memory([&] { read_memory(manager, 0x1000); });
    entered.wait();
    CHECK(in_child([&] {
        return manager.move_mmio(MmioAddress{0x1000}, mmio(0x2000, 0x1000)).has_value() &&
               manager.deregister_pio(PioAddress{1}).has_value() &&
               manager.deregister_mmio(MmioAddress{0x2000}).has_value() && manager.pio_size() == 0 &&
               works(manager);
    }));
    // In the parent, the thread is still inside the device.
    CHECK(manager.pio_size() == 1);
    std::atomic<bool> removed = false;
    std::thread remover([&] {
        deregister(manager, 1);
        removed = true;
    });
    while (manager.pio_size() == 1) {
        std::this_thread::yield();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK_FALSE(removed);
    leave.count_down();
    on_port.join();
    in_memory.join();
    remover.join();
    CHECK(works(manager));
}

TEST_CASE("fork: if a handler forks, the child is inside the device and the parent's other threads are not",
          "[vmdevice][io_manager][fork]") {
    IoManager manager;
    bool good = false;
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] {
                                     good = in_child([&] {
                                         // It removes its own device, and continues.
                                         return manager.deregister_pio(PioAddress{1}).has_value() &&
                                                !read(manager, 1) && works(manager);
                                     });
                                 })));
    CHECK(read(manager, 1));
    CHECK(good);
    CHECK(manager.pio_size() == 1);
    CHECK(works(manager));
}

TEST_CASE("fork: the buses are consistent in a child, whatever other threads were doing to them",
          "[vmdevice][io_manager][fork]") {
    IoManager manager;
    IoManager other;
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    REQUIRE(manager.register_pio(pio(0x80, 1), hook([] {})));
    for (std::size_t n = 0; n < 2; ++n) {
        threads.emplace_back([&, n] {
            while (!stop) {
                for (IoManager* const at : {&manager, &other}) {
                    static_cast<void>(at->register_pio(pio(n * 8, 4), hook([] {})));
                    static_cast<void>(at->register_mmio(mmio(n * 0x1000, 0x1000), hook([] {})));
                    read(*at, n * 8);
                    static_cast<void>(
                        at->move_pio(PioAddress{static_cast<std::uint16_t>(n * 8)}, pio(n * 8 + 4, 4)));
                    deregister(*at, n * 8 + 4);
                    at->deregister_mmio(MmioAddress{n * 0x1000});
                }
                // Also while a bus is created and destroyed.
                const IoManager brief;
                static_cast<void>(brief.pio_size());
            }
        });
    }
    int good = 0;
    constexpr int rounds = 100;
    for (int round = 0; round < rounds; ++round) {
        good += in_child([&] { return read(manager, 0x80) && works(manager) && works(other); }) ? 1 : 0;
    }
    stop = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    CHECK(good == rounds);
    CHECK(manager.pio_size() == 1);
}

TEST_CASE("fork: the threads of the child reuse the records of the parent's threads",
          "[vmdevice][io_manager][fork]") {
    IoManager manager;
    std::latch entered(1);
    std::latch leave(1);
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] {
                                     entered.count_down();
                                     leave.wait();
                                 })));
    std::thread inside([&] { read(manager, 1); });
    entered.wait();
    CHECK(in_child([&] {
        std::size_t claimed = 0;
        for (const detail::ReaderRecord* record = detail::reader_records.head; record != nullptr;
             record = record->next) {
            claimed += record->claimed ? 1U : 0U;
            for (const detail::ReaderSlot& slot : record->slots) {
                if (slot != detail::empty_slot) {
                    return false;
                }
            }
        }
        return claimed <= 1;  // this thread's, if it has dispatched
    }));
    leave.count_down();
    inside.join();
}
