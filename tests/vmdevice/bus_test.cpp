// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <vmdevice/bus.hpp>

#include "catch.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::mmio;
using bus_tests::pio;

TEST_CASE("Bus: a registered device is found at every address of its range and nowhere else",
          "[vmdevice][bus]") {
    PioBus<int> bus;
    REQUIRE(bus.register_device(pio(0x10, 0x10), 1).has_value());
    REQUIRE(bus.register_device(pio(0x20, 0x10), 2).has_value());
    CHECK_FALSE(bus.device(PioAddress{0x0F}).has_value());
    CHECK(bus.device(PioAddress{0x10})->device == 1);
    CHECK(bus.device(PioAddress{0x1F})->device == 1);
    CHECK(bus.device(PioAddress{0x20})->device == 2);
    CHECK(bus.device(PioAddress{0x2F})->range == pio(0x20, 0x10));
    CHECK_FALSE(bus.device(PioAddress{0x30}).has_value());
    CHECK(bus.size() == 2);
}

TEST_CASE("Bus: an overlap is refused and changes nothing", "[vmdevice][bus]") {
    MmioBus<int> bus;
    REQUIRE(bus.register_device(mmio(0x1000, 0x1000), 1).has_value());
    for (const auto& range :
         {mmio(0x1000, 0x1000), mmio(0xFFF, 2), mmio(0x1FFF, 1), mmio(0x1800, 1), mmio(0, ~0ULL)}) {
        CHECK(bus.register_device(range, 2).error() == BusError::device_overlap);
    }
    CHECK(bus.size() == 1);
    CHECK(bus.register_device(mmio(0xFFF, 1), 2).has_value());
    CHECK(bus.register_device(mmio(0x2000, 1), 3).has_value());
    CHECK(bus.device(MmioAddress{0x1000})->device == 1);
}

TEST_CASE("Bus: the last address of the space is usable", "[vmdevice][bus]") {
    PioBus<int> bus;
    REQUIRE(bus.register_device(pio(0xFFF8, 8), 1).has_value());
    CHECK(bus.check_access(PioAddress{0xFFFF}, 1)->device == 1);
    CHECK(bus.check_access(PioAddress{0xFFFF}, 2).error() == BusError::device_not_found);
    MmioBus<int> memory;
    REQUIRE(memory.register_device(MmioRange::unit(MmioAddress{~0ULL}), 1).has_value());
    CHECK(memory.check_access(MmioAddress{~0ULL}, 1)->device == 1);
    CHECK(memory.check_access(MmioAddress{~0ULL}, 2).error() == BusError::device_not_found);
}

TEST_CASE("Bus: check_access checks the whole access", "[vmdevice][bus]") {
    PioBus<int> bus;
    REQUIRE(bus.register_device(pio(0x10, 4), 1).has_value());
    REQUIRE(bus.register_device(pio(0x14, 4), 2).has_value());
    CHECK(bus.check_access(PioAddress{0x10}, 4)->device == 1);
    CHECK(bus.check_access(PioAddress{0x12}, 4).error() == BusError::device_not_found);
    CHECK(bus.check_access(PioAddress{0x10}, 0).error() == BusError::invalid_range);
    CHECK(bus.check_access(PioAddress{0x00}, 0).error() == BusError::invalid_range);
    CHECK(bus.check_access(PioAddress{0x0F}, 2).error() == BusError::device_not_found);
    CHECK(bus.check_access(PioAddress{0x17}, SIZE_MAX).error() == BusError::device_not_found);
    CHECK(bus.check_access(PioAddress{0x16}, 2)->range == pio(0x14, 4));
}

TEST_CASE("Bus: deregister takes any inside address and returns the whole range", "[vmdevice][bus]") {
    PioBus<std::string> bus;
    REQUIRE(bus.register_device(pio(0x10, 4), "a").has_value());
    CHECK_FALSE(bus.deregister(PioAddress{0x14}).has_value());
    const auto taken = bus.deregister(PioAddress{0x12});
    REQUIRE(taken.has_value());
    CHECK(taken->first == pio(0x10, 4));
    CHECK(taken->second == "a");
    CHECK(bus.empty());
    CHECK_FALSE(bus.deregister(PioAddress{0x12}).has_value());
    CHECK(bus.register_device(pio(0x10, 4), "b").has_value());
}

TEST_CASE("Bus: a move-only device survives a refused registration", "[vmdevice][bus]") {
    PioBus<std::unique_ptr<int>> bus;
    REQUIRE(bus.register_device(pio(0, 8), std::make_unique<int>(1)).has_value());
    auto device = std::make_unique<int>(2);
    CHECK(bus.register_device(pio(4, 8), std::move(device)).error() == BusError::device_overlap);
    REQUIRE(device != nullptr);
    CHECK(bus.register_device(pio(8, 8), std::move(device)).has_value());
    CHECK(*bus.device(PioAddress{8})->device == 2);
    CHECK(*bus.deregister(PioAddress{8})->second == 2);
}

TEST_CASE("Bus: a found device can be changed and its reference outlives other registrations",
          "[vmdevice][bus]") {
    MmioBus<int> bus;
    REQUIRE(bus.register_device(mmio(5000, 1), 7).has_value());
    int& device = bus.device(MmioAddress{5000})->device;
    for (std::uint64_t base = 0; base < 10000; ++base) {
        static_cast<void>(bus.register_device(mmio(base, 1), 0));
    }
    device = 8;
    CHECK(bus.size() == 10000);
    CHECK(std::as_const(bus).device(MmioAddress{5000})->device == 8);
}

TEST_CASE("Bus: the result of a lookup can be assigned and used in a structured binding", "[vmdevice][bus]") {
    PioBus<int> bus;
    REQUIRE(bus.register_device(pio(0, 1), 1));
    REQUIRE(bus.register_device(pio(1, 1), 2));
    auto found = bus.device(PioAddress{0});
    found = bus.device(PioAddress{1});
    CHECK(found->device == 2);
    auto checked = bus.check_access(PioAddress{1}, 1);
    checked = bus.check_access(PioAddress{0}, 1);
    auto& [range, device] = *checked;
    CHECK(range == pio(0, 1));
    CHECK(device == 1);
    CHECK(bus.device(PioAddress{1})->device == 2);
}

TEST_CASE("Bus: moving a bus moves its devices and leaves an empty bus", "[vmdevice][bus]") {
    PioBus<int> bus;
    REQUIRE(bus.register_device(pio(0, 1), 1));
    PioBus<int> other = std::move(bus);
    CHECK(other.device(PioAddress{0})->device == 1);
    bus = PioBus<int>();
    CHECK(bus.empty());
    CHECK(bus.begin() == bus.end());
    REQUIRE(bus.register_device(pio(0, 1), 2));
    other = std::move(bus);
    CHECK(other.size() == 1);
    CHECK(other.device(PioAddress{0})->device == 2);
}

TEST_CASE("Bus: move_range never loses the device", "[vmdevice][bus]") {
    PioBus<std::unique_ptr<int>> bus;
    REQUIRE(bus.register_device(pio(0x10, 0x10), std::make_unique<int>(1)).has_value());
    REQUIRE(bus.register_device(pio(0x40, 0x10), std::make_unique<int>(2)).has_value());
    CHECK(bus.move_range(PioAddress{0x00}, pio(0x80, 1)).error() == BusError::device_not_found);
    CHECK(bus.move_range(PioAddress{0x10}, pio(0x3F, 2)).error() == BusError::device_overlap);
    CHECK(*bus.device(PioAddress{0x1F})->device == 1);
    REQUIRE(bus.move_range(PioAddress{0x1F}, pio(0x18, 0x10)).has_value());
    CHECK_FALSE(bus.device(PioAddress{0x17}).has_value());
    CHECK(*bus.device(PioAddress{0x27})->device == 1);
    REQUIRE(bus.move_range(PioAddress{0x18}, pio(0x18, 0x28)).has_value());
    CHECK(bus.move_range(PioAddress{0x18}, pio(0x18, 0x29)).error() == BusError::device_overlap);
    REQUIRE(bus.move_range(PioAddress{0x40}, pio(0x00, 4)).has_value());
    CHECK(*bus.device(PioAddress{0x03})->device == 2);
    CHECK(bus.size() == 2);
}

TEST_CASE("Bus: iteration is in ascending order of address", "[vmdevice][bus]") {
    PioBus<int> bus;
    for (int i = 0; i < 500; ++i) {
        const auto base = static_cast<std::uint16_t>((i * 7919) % 500 * 4);
        REQUIRE(bus.register_device(pio(base, 4), i).has_value());
    }
    std::size_t count = 0;
    std::optional<PioRange> before;
    for (const auto& [range, device] : std::as_const(bus)) {
        CHECK((device * 7919) % 500 * 4 == range.base().value);
        if (before) {
            CHECK(before->last() < range.base());
        }
        before = range;
        ++count;
    }
    CHECK(count == 500);
    for (auto entry : bus) {
        entry.device = -1;
    }
    CHECK(std::ranges::all_of(std::as_const(bus), [](const auto& entry) { return entry.device == -1; }));
}

TEST_CASE("Bus: an iterator can be incremented by prefix and postfix", "[vmdevice][bus]") {
    PioBus<int> bus;
    for (int i = 0; i < 3; ++i) {
        REQUIRE(bus.register_device(pio(static_cast<std::uint16_t>(i * 8), 8), i * 10).has_value());
    }
    auto entry = bus.begin();
    CHECK((*entry++).device == 0);
    CHECK((*entry).device == 10);
    CHECK((*++entry).device == 20);
    const auto last = entry++;
    CHECK((*last).device == 20);
    CHECK(entry == bus.end());
    CHECK_FALSE(last == entry);
}

TEST_CASE("Bus: agrees with a naive model under random operations", "[vmdevice][bus][property]") {
    struct Naive {
        std::uint32_t base, last;
        int device;
    };
    const char* scale = std::getenv("VMSUPERIO_TEST_SCALE");
    const int rounds = scale != nullptr ? 20 * std::atoi(scale) : 20;
    for (int round = 0; round < rounds; ++round) {
        std::mt19937 random(static_cast<unsigned>(round));
        const auto any = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random()) % n; };
        PioBus<int> bus;
        std::vector<Naive> model;
        // A dense part of the space, at its very end in every other round.
        const std::uint32_t space = round % 4 < 2 ? 512 : 8192;
        const std::uint32_t start = round % 2 == 0 ? 0 : 0x10000 - space;
        const auto owner = [&](std::uint32_t address) {
            return std::ranges::find_if(
                model, [&](const Naive& entry) { return address >= entry.base && address <= entry.last; });
        };
        const auto clear = [&](std::uint32_t base, std::uint32_t last, int except) {
            return std::ranges::none_of(model, [&](const Naive& entry) {
                return entry.device != except && entry.base <= last && base <= entry.last;
            });
        };
        for (int step = 0; step < 4000; ++step) {
            const std::uint32_t base = start + any(space);
            const std::uint32_t size = 1 + any(8);
            const PioAddress address{static_cast<std::uint16_t>(base)};
            const auto range = PioRange::create(address, static_cast<std::uint16_t>(size));
            REQUIRE(range.has_value() == (base + size <= 0x10000));
            switch (any(8)) {
                case 0:
                case 1:
                case 2:
                    if (range) {
                        const bool free = clear(base, base + size - 1, -1);
                        REQUIRE(bus.register_device(*range, step).has_value() == free);
                        if (free) {
                            model.push_back({base, base + size - 1, step});
                        }
                    }
                    break;
                case 3:
                case 4: {
                    const auto taken = bus.deregister(address);
                    const auto expected = owner(base);
                    REQUIRE(taken.has_value() == (expected != model.end()));
                    if (taken) {
                        REQUIRE(taken->second == expected->device);
                        REQUIRE(taken->first.base().value == expected->base);
                        model.erase(expected);
                    }
                    break;
                }
                case 5: {
                    const std::uint32_t from = start + any(space);
                    const auto mover = owner(from);
                    if (range) {
                        const bool possible =
                            mover != model.end() && clear(base, base + size - 1, mover->device);
                        REQUIRE(bus.move_range(PioAddress{static_cast<std::uint16_t>(from)}, *range)
                                    .has_value() == possible);
                        if (possible) {
                            mover->base = base;
                            mover->last = base + size - 1;
                        }
                    }
                    break;
                }
                default: {
                    const auto expected = owner(base);
                    const auto found = bus.check_access(address, size);
                    REQUIRE(found.has_value() ==
                            (expected != model.end() && base + size - 1 <= expected->last));
                    REQUIRE(bus.device(address).has_value() == (expected != model.end()));
                    if (found) {
                        REQUIRE(found->device == expected->device);
                    }
                    break;
                }
            }
            REQUIRE(bus.size() == model.size());
        }
        std::ranges::sort(model, {}, &Naive::base);
        auto expected = model.begin();
        for (const auto& [range, device] : bus) {
            REQUIRE(range.base().value == expected->base);
            REQUIRE(range.last().value == expected->last);
            REQUIRE(device == expected->device);
            ++expected;
        }
        REQUIRE(expected == model.end());
    }
}

namespace {
struct ConfigAddress {
    std::uint32_t value;
};
}  // namespace

TEST_CASE("Bus: works with a user-defined address space", "[vmdevice][bus]") {
    Bus<ConfigAddress, int> bus;
    REQUIRE(
        bus.register_device(BusRange<ConfigAddress>::create(ConfigAddress{0xFFFF'FF00}, 0x100).value(), 3));
    CHECK(bus.check_access(ConfigAddress{0xFFFF'FFFC}, 4)->device == 3);
    CHECK(bus.check_access(ConfigAddress{0xFFFF'FFFD}, 4).error() == BusError::device_not_found);
}
