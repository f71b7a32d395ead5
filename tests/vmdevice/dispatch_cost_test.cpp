// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A dispatch must neither allocate nor take a lock. This program replaces the allocation functions and the C
// library's lock functions with ones that count.
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

TEST_CASE("Dispatch: allocates nothing and takes no lock, not even the first one of a thread",
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

TEST_CASE("Dispatch: to a locked byte device takes the lock of the device and nothing else",
          "[vmdevice][io_manager]") {
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
