// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What a dispatch must not do: allocate, or take a lock. And what registrations leave behind when memory runs
// out. This program replaces the allocation functions and the C library's lock functions with ones that
// count.
#include <array>
#include <cstdint>
#include <dlfcn.h>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <span>
#include <thread>
#include <vector>

#include <vmdevice/vmdevice.hpp>

#include "catch.hpp"
#include "failing_allocations.hpp"

namespace {

constinit thread_local std::uint64_t locks = 0;

template <class F>
F* next_function(const char* name) {
    return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {
int pthread_mutex_lock(pthread_mutex_t* mutex) {
    static const auto next = next_function<int(pthread_mutex_t*)>("pthread_mutex_lock");
    ++locks;
    return next(mutex);
}
int pthread_rwlock_rdlock(pthread_rwlock_t* lock) {
    static const auto next = next_function<int(pthread_rwlock_t*)>("pthread_rwlock_rdlock");
    ++locks;
    return next(lock);
}
int pthread_rwlock_wrlock(pthread_rwlock_t* lock) {
    static const auto next = next_function<int(pthread_rwlock_t*)>("pthread_rwlock_wrlock");
    ++locks;
    return next(lock);
}
}

using namespace vmdevice;
using test_support::allocations;
using test_support::fail_each_allocation;

namespace {

struct Forward : DevicePio, DeviceMmio {
    IoManager* manager = nullptr;
    void pio_read(PioAddress, PioOffset offset, std::span<std::uint8_t> data) override {
        if (offset == 7) {
            static_cast<void>(manager->mmio_read(MmioAddress{0x1000}, data));
        }
    }
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}
    void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t>) override {}
    void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t>) override {}
};

struct Registers {
    std::uint8_t value = 0;
    [[nodiscard]] std::uint8_t read(std::uint8_t) const { return value; }
    void write(std::uint8_t, std::uint8_t v) { value = v; }
};

struct Cost {
    std::uint64_t allocations, locks;
    friend bool operator==(const Cost&, const Cost&) = default;
};

template <class F>
Cost cost_of(F function) {
    const Cost before{allocations.made, locks};
    function();
    return {allocations.made - before.allocations, locks - before.locks};
}

void access_everything(IoManager& manager) {
    std::array<std::uint8_t, 8> data{};
    const auto all = std::span(data);
    for (std::uint16_t n = 0; n < 100; ++n) {
        const PioAddress port{static_cast<std::uint16_t>(0x1000 + n * 8)};
        const MmioAddress address{std::uint64_t{n} * 0x1000};
        static_cast<void>(manager.pio_read(port, all.first(1)));
        static_cast<void>(manager.pio_write(port, all.first(4)));
        static_cast<void>(
            manager.pio_read(PioAddress{static_cast<std::uint16_t>(port.value + 7)}, all.first(1)));
        static_cast<void>(
            manager.pio_read(PioAddress{static_cast<std::uint16_t>(port.value + 7)}, all.first(2)));
        static_cast<void>(manager.pio_write_repeated(port, 1, all));
        static_cast<void>(manager.pio_read_repeated(port, 2, all));
        static_cast<void>(manager.mmio_read(address, all));
        static_cast<void>(manager.mmio_write(address, all.first(1)));
        static_cast<void>(manager.mmio_read(MmioAddress{address.value + 0xFFF}, all.first(2)));
        static_cast<void>(manager.pio_read(PioAddress{0}, all));
        static_cast<void>(manager.pio_read(PioAddress{0}, {}));
    }
}

}  // namespace

TEST_CASE("Dispatch: allocates nothing and takes no lock, also a thread's first one",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Forward>();
    device->manager = &manager;
    for (std::uint16_t n = 0; n < 50; ++n) {
        REQUIRE(manager.register_pio(
            *PioRange::create(PioAddress{static_cast<std::uint16_t>(0x1000 + n * 8)}, 8), device));
        REQUIRE(manager.register_mmio(*MmioRange::create(MmioAddress{std::uint64_t{n} * 0x1000}, 0x1000),
                                      device));
    }
    CHECK(cost_of([&] { access_everything(manager); }) == Cost{0, 0});
    for (int i = 0; i < 10; ++i) {
        Cost cost{1, 1};
        std::thread([&] { cost = cost_of([&] { access_everything(manager); }); }).join();
        CHECK(cost == Cost{0, 0});
    }
}

TEST_CASE("Dispatch: of a byte device costs its own lock and nothing else", "[vmdevice][io_manager]") {
    IoManager manager;
    std::array<std::uint8_t, 4> data{};
    REQUIRE(manager.register_pio(*PioRange::create(PioAddress{0x10}, 8),
                                 std::make_shared<ByteDevice<Registers>>()));
    CHECK(cost_of([&] { static_cast<void>(manager.pio_write(PioAddress{0x10}, data)); }) == Cost{0, 0});
    REQUIRE(manager.register_pio(*PioRange::create(PioAddress{0x20}, 8),
                                 std::make_shared<Locked<ByteDevice<Registers>>>()));
    CHECK(cost_of([&] { static_cast<void>(manager.pio_write(PioAddress{0x20}, data)); }) == Cost{0, 1});
}

TEST_CASE("Dispatch: the counters of this test count", "[vmdevice][io_manager]") {
    IoManager manager;
    const Cost cost = cost_of([&] {
        static_cast<void>(manager.register_pio(PioRange::unit(PioAddress{1}), std::make_shared<Forward>()));
    });
    CHECK(cost.allocations > 0);
    CHECK(cost.locks > 0);
}

namespace {

struct Silent : DevicePio, DeviceMmio {
    void pio_read(PioAddress, PioOffset, std::span<std::uint8_t>) override {}
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}
    void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t>) override {}
    void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t>) override {}
};

// Ranges of every size class that the table of memory can have, and ports.
DeviceResources many_resources(std::uint64_t memory_base) {
    DeviceResources resources;
    for (std::uint16_t i = 0; i < 20; ++i) {
        resources.append(PioResource{
            PioRange::create(PioAddress{static_cast<std::uint16_t>(0x2000 + (i * 16))}, 8).value()});
    }
    for (unsigned shift = 0; shift < 40; shift += 4) {
        const MmioAddress base{memory_base + (std::uint64_t{1} << (shift + 1))};
        resources.append(MmioResource{MmioRange::create(base, std::uint64_t{1} << shift).value()});
    }
    return resources;
}

std::size_t answering(IoManager& manager, const DeviceResources& resources) {
    std::array<std::uint8_t, 1> data{};
    std::size_t count = 0;
    for (const PioRange& range : resources.get_pio_address_ranges()) {
        count += manager.pio_read(range.base(), data).has_value() ? 1U : 0U;
        count += manager.pio_read(range.last(), data).has_value() ? 1U : 0U;
    }
    for (const MmioRange& range : resources.get_mmio_address_ranges()) {
        count += manager.mmio_read(range.base(), data).has_value() ? 1U : 0U;
        count += manager.mmio_read(range.last(), data).has_value() ? 1U : 0U;
    }
    return count;
}

}  // namespace

TEST_CASE("IoManager: where memory runs out, a device has all of its ranges or none",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto other = std::make_shared<Silent>();
    const DeviceResources others = many_resources(std::uint64_t{1} << 44U);
    const auto device = std::make_shared<Silent>();
    const DeviceResources resources = many_resources(std::uint64_t{1} << 50U);
    // The other device is in memory only: the ports are the same.
    for (const MmioRange& range : others.get_mmio_address_ranges()) {
        REQUIRE(manager.register_mmio(range, other));
    }
    const std::size_t others_answer = others.get_mmio_address_ranges().size() * 2;
    const std::size_t all_answer =
        (resources.get_pio_address_ranges().size() + resources.get_mmio_address_ranges().size()) * 2;
    REQUIRE(answering(manager, others) == others_answer);
    for (int round = 0; round < 3; ++round) {
        const auto registering =
            fail_each_allocation([&] { return manager.register_resources(resources, device).has_value(); },
                                 [&] {
                                     REQUIRE(answering(manager, resources) == 0);
                                     REQUIRE(answering(manager, others) == others_answer);
                                     REQUIRE(device.use_count() == 1);
                                 });
        CHECK(registering > 20);
        CHECK(answering(manager, resources) == all_answer);
        const auto removing =
            fail_each_allocation([&] { return manager.deregister_resources(resources).has_value(); },
                                 [&] { REQUIRE(answering(manager, resources) == all_answer); });
        CHECK(removing > 20);
        CHECK(answering(manager, resources) == 0);
        CHECK(device.use_count() == 1);
        CHECK(answering(manager, others) == others_answer);
    }
}

TEST_CASE("IoManager: where memory runs out, one registration, move or removal happens or does not",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Silent>();
    const auto here = MmioRange::create(MmioAddress{0x1000}, 0x1000).value();
    const auto there = MmioRange::create(MmioAddress{0x10'0000}, 0x10000).value();
    std::array<std::uint8_t, 1> data{};
    const auto answers = [&](const MmioRange& range) {
        return manager.mmio_read(range.base(), data).has_value();
    };
    const auto registering =
        fail_each_allocation([&] { return manager.register_mmio(here, device).has_value(); },
                             [&] { REQUIRE_FALSE(answers(here)); });
    CHECK(registering > 1);
    CHECK(answers(here));
    const auto moving =
        fail_each_allocation([&] { return manager.move_mmio(here.base(), there).has_value(); },
                             [&] {
                                 REQUIRE(answers(here));
                                 REQUIRE_FALSE(answers(there));
                             });
    CHECK(moving > 0);
    CHECK(answers(there));
    CHECK_FALSE(answers(here));
    const auto removing = fail_each_allocation(
        [&] { return manager.deregister_mmio(there.base()).has_value(); }, [&] { REQUIRE(answers(there)); });
    CHECK(removing > 0);
    CHECK_FALSE(answers(there));
    CHECK(device.use_count() == 1);
}
