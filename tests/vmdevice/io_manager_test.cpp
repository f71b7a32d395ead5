// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <expected>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <vmdevice/io_manager.hpp>

#include "catch.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::mmio;
using bus_tests::pio;

namespace {

struct Access {
    bool write;
    std::uint64_t base, offset;
    std::size_t length;
    friend bool operator==(const Access&, const Access&) = default;
};

struct Recorder : DevicePio, DeviceMmio {
    std::vector<Access> accesses;
    void pio_read(PioAddress base, PioOffset offset, std::span<std::uint8_t> data) override {
        accesses.push_back({false, base.value, offset, data.size()});
        std::ranges::fill(data, std::uint8_t{0x5A});
    }
    void pio_write(PioAddress base, PioOffset offset, std::span<const std::uint8_t> data) override {
        accesses.push_back({true, base.value, offset, data.size()});
    }
    void mmio_read(MmioAddress base, MmioOffset offset, std::span<std::uint8_t> data) override {
        accesses.push_back({false, base.value, offset, data.size()});
        std::ranges::fill(data, std::uint8_t{0xA5});
    }
    void mmio_write(MmioAddress base, MmioOffset offset, std::span<const std::uint8_t> data) override {
        accesses.push_back({true, base.value, offset, data.size()});
    }
};

}  // namespace

TEST_CASE("IoManager: an access reaches its device with the range's base and the offset in it",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    REQUIRE(manager.register_pio(pio(0x3F8, 8), device));
    REQUIRE(manager.register_mmio(mmio(0x3F8, 8), device));
    std::array<std::uint8_t, 4> data{};
    REQUIRE(manager.pio_read(PioAddress{0x3FA}, std::span(data).first(2)));
    CHECK(data == std::array<std::uint8_t, 4>{0x5A, 0x5A, 0, 0});
    REQUIRE(manager.pio_write(PioAddress{0x3FF}, std::span(data).first(1)));
    REQUIRE(manager.mmio_read(MmioAddress{0x3F8}, data));
    CHECK(data == std::array<std::uint8_t, 4>{0xA5, 0xA5, 0xA5, 0xA5});
    REQUIRE(manager.mmio_write(MmioAddress{0x3FC}, data));
    CHECK(device->accesses ==
          std::vector<Access>{
              {false, 0x3F8, 2, 2}, {true, 0x3F8, 7, 1}, {false, 0x3F8, 0, 4}, {true, 0x3F8, 4, 4}});
}

TEST_CASE("IoManager: an access reaches no device unless one owns all of it", "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    REQUIRE(manager.register_pio(pio(0xFFF8, 8), device));
    REQUIRE(manager.register_pio(pio(0xFFF0, 8), device));
    REQUIRE(manager.register_mmio(mmio(~0ULL - 7, 8), device));
    std::array<std::uint8_t, 4> data{1, 2, 3, 4};
    CHECK(manager.pio_read(PioAddress{0xFFFE}, data).error() == BusError::device_not_found);
    CHECK(manager.pio_read(PioAddress{0xFFF6}, data).error() == BusError::device_not_found);
    CHECK(manager.pio_write(PioAddress{0xFFEF}, data).error() == BusError::device_not_found);
    CHECK(manager.pio_write(PioAddress{0x0}, data).error() == BusError::device_not_found);
    CHECK(manager.mmio_read(MmioAddress{~0ULL - 2}, data).error() == BusError::device_not_found);
    CHECK(manager.mmio_write(MmioAddress{0}, data).error() == BusError::device_not_found);
    CHECK(manager.pio_read(PioAddress{0xFFF8}, {}).error() == BusError::invalid_range);
    CHECK(manager.pio_write(PioAddress{0}, {}).error() == BusError::invalid_range);
    CHECK(manager.mmio_read(MmioAddress{~0ULL}, {}).error() == BusError::invalid_range);
    CHECK(manager.mmio_write(MmioAddress{0}, {}).error() == BusError::invalid_range);
    CHECK(device->accesses.empty());
    CHECK(data == std::array<std::uint8_t, 4>{1, 2, 3, 4});
    CHECK(manager.pio_read(PioAddress{0xFFFC}, data));
    CHECK(manager.mmio_write(MmioAddress{~0ULL - 3}, data));
    CHECK(device->accesses.size() == 2);
}

TEST_CASE("IoManager: an overlap and an empty pointer are refused", "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    REQUIRE(manager.register_pio(pio(0x60, 5), device));
    CHECK(manager.register_pio(pio(0x64, 1), device).error() == BusError::device_overlap);
    CHECK(manager.register_pio(pio(0x80, 1), nullptr).error() == BusError::device_not_found);
    CHECK(manager.register_mmio(mmio(0x80, 1), nullptr).error() == BusError::device_not_found);
    std::array<std::uint8_t, 1> data{};
    CHECK(manager.pio_read(PioAddress{0x80}, data).error() == BusError::device_not_found);
}

TEST_CASE("IoManager: a deregistered device is returned and no longer reached", "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    REQUIRE(manager.register_pio(pio(0x60, 5), device));
    REQUIRE(manager.register_mmio(mmio(0x60, 5), device));
    const auto port = manager.deregister_pio(PioAddress{0x62});
    REQUIRE(port);
    CHECK(port->first == pio(0x60, 5));
    CHECK(port->second == device);
    CHECK_FALSE(manager.deregister_pio(PioAddress{0x62}));
    std::array<std::uint8_t, 1> data{};
    CHECK(manager.pio_read(PioAddress{0x60}, data).error() == BusError::device_not_found);
    CHECK(manager.mmio_read(MmioAddress{0x60}, data));
    const auto memory = manager.deregister_mmio(MmioAddress{0x64});
    REQUIRE(memory);
    CHECK(memory->first == mmio(0x60, 5));
    CHECK(manager.mmio_read(MmioAddress{0x60}, data).error() == BusError::device_not_found);
    CHECK(device->accesses.size() == 1);
    CHECK(manager.register_pio(pio(0x62, 5), device));
}

TEST_CASE("IoManager: a repeated access is many accesses to one port in one dispatch",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    REQUIRE(manager.register_pio(pio(0x1F0, 8), device));
    std::array<std::uint8_t, 6> data{};
    REQUIRE(manager.pio_read_repeated(PioAddress{0x1F0}, 2, data));
    CHECK(device->accesses == std::vector<Access>(3, {false, 0x1F0, 0, 2}));
    CHECK(data[5] == 0x5A);
    device->accesses.clear();
    REQUIRE(manager.pio_write_repeated(PioAddress{0x1F7}, 1, data));
    CHECK(device->accesses == std::vector<Access>(6, {true, 0x1F0, 7, 1}));
    device->accesses.clear();
    CHECK(manager.pio_write_repeated(PioAddress{0x1F7}, 2, data).error() == BusError::device_not_found);
    CHECK(manager.pio_write_repeated(PioAddress{0x1F0}, 4, data).error() == BusError::invalid_access_length);
    CHECK(manager.pio_write_repeated(PioAddress{0x1F0}, 3, data).error() == BusError::invalid_access_length);
    CHECK(manager.pio_read_repeated(PioAddress{0x1F0}, 0, data).error() == BusError::invalid_access_length);
    CHECK(manager.pio_read_repeated(PioAddress{0x1F0}, 1, {}).error() == BusError::invalid_range);
    CHECK(manager.pio_write_repeated(PioAddress{0x1F0}, 1, {}).error() == BusError::invalid_range);
    CHECK(device->accesses.empty());
}

TEST_CASE("IoManager: items of 8 bytes can be repeated, because a range may be that wide",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    REQUIRE(manager.register_pio(pio(0x1F0, 8), device));
    std::array<std::uint8_t, 16> data{};
    REQUIRE(manager.pio_write_repeated(PioAddress{0x1F0}, 8, data));
    CHECK(device->accesses == std::vector<Access>(2, {true, 0x1F0, 0, 8}));
    CHECK(manager.pio_write_repeated(PioAddress{0x1F1}, 8, data).error() == BusError::device_not_found);
    CHECK(manager.pio_write_repeated(PioAddress{0x1F0}, 16, data).error() == BusError::invalid_access_length);
}

TEST_CASE("DevicePio: a width of 0 makes no access", "[vmdevice][io_manager]") {
    Recorder device;
    std::array<std::uint8_t, 4> data{};
    device.pio_read_repeated(PioAddress{0x1F0}, 0, 0, data);
    device.pio_write_repeated(PioAddress{0x1F0}, 0, 0, data);
    CHECK(device.accesses.empty());
    // A remainder at the end is a separate item.
    device.pio_write_repeated(PioAddress{0x1F0}, 2, 3, data);
    CHECK(device.accesses == std::vector<Access>{{true, 0x1F0, 2, 3}, {true, 0x1F0, 2, 1}});
}

TEST_CASE("IoManager: all resources are registered, or none", "[vmdevice][io_manager][resources]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    const auto other = std::make_shared<Recorder>();
    const DeviceResources resources{PioResource{pio(0x100, 8)}, MmioResource{mmio(0x1000, 0x1000)},
                                    PioResource{pio(0x200, 8)}, LegacyIrqResource{5}};
    const auto reachable = [&] {
        std::array<std::uint8_t, 1> data{};
        return (manager.pio_read(PioAddress{0x100}, data) ? 1 : 0) +
               (manager.pio_read(PioAddress{0x200}, data) ? 2 : 0) +
               (manager.mmio_read(MmioAddress{0x1000}, data) ? 4 : 0);
    };

    REQUIRE(manager.register_mmio(mmio(0x1FFF, 1), other));
    CHECK(manager.register_resources(resources, device).error() == BusError::device_overlap);
    CHECK(reachable() == 0);
    REQUIRE(manager.deregister_mmio(MmioAddress{0x1FFF}));

    CHECK(manager.register_resources({PioResource{pio(1, 8)}, PioResource{pio(8, 8)}}, device).error() ==
          BusError::device_overlap);
    CHECK(manager.register_resources(resources, std::shared_ptr<DevicePio>(device)).error() ==
          BusError::device_not_found);
    CHECK(manager.register_resources(resources, std::shared_ptr<Recorder>()).error() ==
          BusError::device_not_found);
    CHECK(manager.pio_size() + manager.mmio_size() == 0);

    REQUIRE(manager.register_resources(resources, device));
    CHECK(reachable() == 7);
    CHECK(manager.register_resources(resources, device).error() == BusError::device_overlap);

    CHECK(manager.deregister_resources({PioResource{pio(0x100, 8)}, PioResource{pio(0x200, 4)}}).error() ==
          BusError::device_not_found);
    CHECK(manager.deregister_resources({PioResource{pio(0x100, 8)}, MmioResource{mmio(0x3000, 4)}}).error() ==
          BusError::device_not_found);
    CHECK(reachable() == 7);
    REQUIRE(manager.deregister_resources(resources));
    CHECK(reachable() == 0);
    CHECK(manager.deregister_resources(resources).error() == BusError::device_not_found);
    CHECK(device.use_count() == 1);
    CHECK(other.use_count() == 1);
    CHECK(manager.register_resources({}, device));
    CHECK(manager.deregister_resources({}));
}

TEST_CASE("IoManager: every port may have a device of its own", "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    for (int round = 0; round < 2; ++round) {
        std::size_t failures = 0;
        for (std::uint32_t port = 0; port <= 0xFFFF; ++port) {
            failures +=
                manager.register_pio(PioRange::unit({static_cast<std::uint16_t>(port)}), device) ? 0U : 1U;
        }
        CHECK(manager.pio_size() == 0x10000);
        std::array<std::uint8_t, 2> data{};
        for (std::uint32_t port = 0; port <= 0xFFFF; ++port) {
            const PioAddress address{static_cast<std::uint16_t>(port)};
            failures += manager.pio_read(address, std::span(data).first(1)) ? 0U : 1U;
            failures += manager.pio_read(address, data) ? 1U : 0U;
            failures += device->accesses.back() == Access{false, port, 0, 1} ? 0U : 1U;
            device->accesses.clear();
        }
        for (std::uint32_t port = 0; port <= 0xFFFF; ++port) {
            failures += manager.deregister_pio({static_cast<std::uint16_t>(port)}) ? 0U : 1U;
        }
        CHECK(failures == 0);
        CHECK(manager.pio_size() == 0);
        CHECK(device.use_count() == 1);
    }
}

TEST_CASE("IoManager: moving a device any number of times uses up no table entries",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Recorder>();
    std::array<std::uint8_t, 1> data{};
    const std::array ranges{PioRange::create(PioAddress{0x100}, 8).value(),
                            PioRange::create(PioAddress{0x200}, 8).value()};
    REQUIRE(manager.register_pio(ranges[1], device));
    // More moves than the table of ports has entries.
    constexpr unsigned moves = 2 * 65'536 + 10;
    unsigned done = 0;
    for (unsigned i = 0; i < moves; ++i) {
        done += manager.move_pio(ranges[(i + 1) % 2].base(), ranges[i % 2]).has_value() ? 1U : 0U;
    }
    CHECK(done == moves);
    CHECK(manager.pio_read(ranges[1].base(), data).has_value());
    CHECK_FALSE(manager.pio_read(ranges[0].base(), data).has_value());
}

TEST_CASE("IoManager: agrees with Bus under random operations", "[vmdevice][io_manager][property]") {
    const char* scale = std::getenv("VMSUPERIO_TEST_SCALE");
    const int rounds = scale != nullptr ? 24 * std::atoi(scale) : 24;
    for (int round = 0; round < rounds; ++round) {
        std::mt19937_64 random(static_cast<unsigned>(round));
        const auto any = [&](std::uint64_t n) { return random() % n; };
        IoManager manager;
        MmioBus<std::shared_ptr<Recorder>> model;
        // Where the ranges begin: dense, at pages, anywhere in the space, at its very end.
        const auto any_base = [&]() -> std::uint64_t {
            switch (round % 4) {
                case 0:
                    return any(0x400);
                case 1:
                    return 0xC000'0000 + any(0x200) * 0x1000;
                case 2:
                    return any(0x100) << any(57);
                default:
                    return ~0ULL - any(0x4000);
            }
        };
        const auto any_size = [&]() -> std::uint64_t {
            switch (any(4)) {
                case 0:
                    return 1 + any(8);
                case 1:
                    return 0x1000;
                case 2:
                    return 1 + any(0x400);
                default:
                    return std::uint64_t{1} << any(round % 4 == 2 ? 62 : 14);
            }
        };
        std::vector<std::uint64_t> probes{0, ~0ULL};
        for (int step = 0; step < 1500; ++step) {
            const std::uint64_t base = any_base();
            const auto range = MmioRange::create(MmioAddress{base}, any_size());
            switch (any(5)) {
                case 0:
                case 1:
                    if (range) {
                        const auto device = std::make_shared<Recorder>();
                        REQUIRE(manager.register_mmio(*range, device).has_value() ==
                                model.register_device(*range, device).has_value());
                        for (const std::uint64_t at : {range->base().value, range->last().value}) {
                            probes.insert(probes.end(), {at - 1, at, at + 1});
                        }
                    }
                    break;
                case 2: {
                    const MmioAddress address{probes[any(probes.size())]};
                    const auto taken = manager.deregister_mmio(address);
                    const auto expected = model.deregister(address);
                    REQUIRE(taken.has_value() == expected.has_value());
                    if (taken) {
                        REQUIRE(taken->first == expected->first);
                        REQUIRE(taken->second == expected->second);
                    }
                    break;
                }
                case 3: {
                    const MmioAddress address{probes[any(probes.size())]};
                    if (range) {
                        REQUIRE(manager.move_mmio(address, *range) == model.move_range(address, *range));
                        probes.push_back(range->last().value);
                    }
                    break;
                }
                default:
                    for (int i = 0; i < 20; ++i) {
                        const MmioAddress address{i == 0 ? random() : probes[any(probes.size())]};
                        std::array<std::uint8_t, 16> data{};
                        const std::size_t length = 1 + any(16);
                        const auto expected = model.check_access(address, length);
                        const auto done = manager.mmio_read(address, std::span(data).first(length));
                        REQUIRE(done.has_value() == expected.has_value());
                        if (done) {
                            auto& accesses = expected->device->accesses;
                            REQUIRE(accesses ==
                                    std::vector<Access>{{false, expected->range.base().value,
                                                         expected->range.offset_of(address), length}});
                            accesses.clear();
                        } else {
                            REQUIRE(done.error() == BusError::device_not_found);
                        }
                    }
            }
            REQUIRE(manager.mmio_size() == model.size());
        }
    }
}

TEST_CASE("IoManager: returns the owner of an address and all ranges", "[vmdevice][io_manager]") {
    IoManager manager;
    const auto low = std::make_shared<Recorder>();
    const auto high = std::make_shared<Recorder>();
    REQUIRE(manager.register_pio(pio(0x3F8, 8), high));
    REQUIRE(manager.register_pio(pio(0x60, 1), low));
    REQUIRE(manager.register_mmio(mmio(0x3F0, 8), low));
    CHECK(manager.pio_ranges() == std::vector{pio(0x60, 1), pio(0x3F8, 8)});
    CHECK(manager.mmio_ranges() == std::vector{mmio(0x3F0, 8)});
    REQUIRE(manager.pio_owner(PioAddress{0x3FF}));
    CHECK(manager.pio_owner(PioAddress{0x3FF})->first == pio(0x3F8, 8));
    CHECK(manager.pio_owner(PioAddress{0x3FF})->second == high);
    CHECK(manager.mmio_owner(MmioAddress{0x3F0})->second == low);
    CHECK_FALSE(manager.pio_owner(PioAddress{0x3F7}));
    CHECK_FALSE(manager.pio_owner(PioAddress{0x61}));
    CHECK_FALSE(manager.mmio_owner(MmioAddress{0x3F8}));
    REQUIRE(manager.move_pio(PioAddress{0x60}, pio(0x64, 2)));
    CHECK(manager.pio_owner(PioAddress{0x65})->second == low);
    CHECK_FALSE(manager.pio_owner(PioAddress{0x60}));
    static_cast<void>(manager.deregister_pio(PioAddress{0x3F8}));
    CHECK_FALSE(manager.pio_owner(PioAddress{0x3F8}));
    CHECK(manager.pio_ranges() == std::vector{pio(0x64, 2)});
    CHECK(low->accesses.empty());
}

namespace {

/// Records its accesses. A read returns the width and a count, but does not set the bytes at offset 7.
struct ExitRecorder : DevicePio, DeviceMmio {
    std::vector<std::string> accesses;
    std::uint8_t next = 1;

    void note(const char* what, std::uint64_t offset, std::span<const std::uint8_t> data) {
        std::string text = what + std::to_string(offset);
        for (const std::uint8_t byte : data) {
            text += " " + std::to_string(byte);
        }
        accesses.push_back(text);
    }
    void fill(std::uint64_t offset, std::span<std::uint8_t> data) {
        accesses.push_back("in" + std::to_string(offset) + "/" + std::to_string(data.size()));
        for (std::uint8_t& byte : data) {
            byte = offset == 7 ? byte : next++;
        }
    }
    void pio_read(PioAddress, PioOffset offset, std::span<std::uint8_t> data) override { fill(offset, data); }
    void pio_write(PioAddress, PioOffset offset, std::span<const std::uint8_t> data) override {
        note("out", offset, data);
    }
    void mmio_read(MmioAddress, MmioOffset offset, std::span<std::uint8_t> data) override {
        fill(offset, data);
    }
    void mmio_write(MmioAddress, MmioOffset offset, std::span<const std::uint8_t> data) override {
        note("out", offset, data);
    }
};

using Bytes = std::vector<std::uint8_t>;
using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("IoManager: a port exit is as many accesses as the guest made", "[vmdevice][io_manager][exit]") {
    IoManager manager;
    const auto device = std::make_shared<ExitRecorder>();
    REQUIRE(manager.register_pio(PioRange::create(PioAddress{0x3F8}, 8).value(), device));
    const auto exit = [&](IoDirection direction, std::uint16_t port, std::size_t size, std::size_t count,
                          Bytes data) {
        device->accesses.clear();
        device->next = 1;
        const auto answered = manager.pio_exit(direction, PioAddress{port}, size, count, data);
        return std::pair(answered, data);
    };
    const std::expected<void, BusError> answered;
    // OUT of every width is one access.
    CHECK(exit(IoDirection::out, 0x3F8, 1, 1, {9}) == std::pair(answered, Bytes{9}));
    CHECK(device->accesses == Texts{"out0 9"});
    CHECK(exit(IoDirection::out, 0x3F9, 2, 1, {9, 8}).first == answered);
    CHECK(device->accesses == Texts{"out1 9 8"});
    CHECK(exit(IoDirection::out, 0x3FC, 4, 1, {9, 8, 7, 6}).first == answered);
    CHECK(device->accesses == Texts{"out4 9 8 7 6"});
    // REP OUTS goes to one port, item by item.
    CHECK(exit(IoDirection::out, 0x3F8, 1, 3, {9, 8, 7}).first == answered);
    CHECK(device->accesses == Texts{"out0 9", "out0 8", "out0 7"});
    CHECK(exit(IoDirection::out, 0x3FA, 2, 2, {9, 8, 7, 6}).first == answered);
    CHECK(device->accesses == Texts{"out2 9 8", "out2 7 6"});
    // So do IN and REP INS.
    CHECK(exit(IoDirection::in, 0x3FD, 1, 1, {0}) == std::pair(answered, Bytes{1}));
    CHECK(device->accesses == Texts{"in5/1"});
    CHECK(exit(IoDirection::in, 0x3F8, 4, 2, Bytes(8)) == std::pair(answered, Bytes{1, 2, 3, 4, 5, 6, 7, 8}));
    CHECK(device->accesses == Texts{"in0/4", "in0/4"});
}

TEST_CASE("IoManager: a read exit of a port without a device yields all ones",
          "[vmdevice][io_manager][exit]") {
    IoManager manager;
    const auto device = std::make_shared<ExitRecorder>();
    REQUIRE(manager.register_pio(PioRange::create(PioAddress{0x3F8}, 8).value(), device));
    for (const std::size_t size : {1U, 2U, 4U}) {
        for (const std::size_t count : {1U, 2U, 100U}) {
            Bytes data(size * count, 0x5A);
            CHECK(manager.pio_exit(IoDirection::in, PioAddress{0x80}, size, count, data).error() ==
                  BusError::device_not_found);
            CHECK(data == Bytes(size * count, 0xFF));
            // A write does not change the hypervisor's buffer.
            data.assign(size * count, 0x5A);
            CHECK(manager.pio_exit(IoDirection::out, PioAddress{0x80}, size, count, data).error() ==
                  BusError::device_not_found);
            CHECK(data == Bytes(size * count, 0x5A));
        }
    }
    // An access that extends past the range reaches no device.
    Bytes data(2, 0x5A);
    CHECK(manager.pio_exit(IoDirection::in, PioAddress{0x3FF}, 2, 1, data).error() ==
          BusError::device_not_found);
    CHECK(data == Bytes{0xFF, 0xFF});
    CHECK(device->accesses.empty());
    // No stale data reaches the guest if a device does not set the bytes.
    data = {0x5A};
    CHECK(manager.pio_exit(IoDirection::in, PioAddress{0x3FF}, 1, 1, data));
    CHECK(data == Bytes{0xFF});
}

TEST_CASE("IoManager: a port exit that contradicts itself reaches no device",
          "[vmdevice][io_manager][exit]") {
    IoManager manager;
    const auto device = std::make_shared<ExitRecorder>();
    REQUIRE(manager.register_pio(PioRange::create(PioAddress{0}, 8).value(), device));
    struct Case {
        std::size_t size, count, bytes;
        BusError error;
    };
    constexpr std::size_t huge = static_cast<std::size_t>(-1);
    for (const auto& [size, count, bytes, error] :
         {Case{0, 1, 1, BusError::invalid_access_length}, Case{3, 1, 3, BusError::invalid_access_length},
          Case{16, 1, 16, BusError::invalid_access_length}, Case{1, 2, 1, BusError::invalid_access_length},
          Case{1, 1, 2, BusError::invalid_access_length}, Case{2, 2, 3, BusError::invalid_access_length},
          Case{4, 1, 0, BusError::invalid_access_length},
          Case{8, huge / 8 + 1, 8, BusError::invalid_access_length},
          Case{2, 0, 2, BusError::invalid_access_length}, Case{1, 0, 0, BusError::invalid_range}}) {
        for (const IoDirection direction : {IoDirection::in, IoDirection::out}) {
            Bytes data(bytes, 0x5A);
            CHECK(manager.pio_exit(direction, PioAddress{0}, size, count, data).error() == error);
            CHECK(data == Bytes(bytes, direction == IoDirection::in ? 0xFF : 0x5A));
        }
    }
    CHECK(device->accesses.empty());
}

TEST_CASE("IoManager: a memory exit is one access, and a read without a device yields all ones",
          "[vmdevice][io_manager][exit]") {
    IoManager manager;
    const auto device = std::make_shared<ExitRecorder>();
    REQUIRE(manager.register_mmio(MmioRange::create(MmioAddress{0x1000}, 0x10).value(), device));
    Bytes data{9, 8, 7, 6};
    CHECK(manager.mmio_exit(IoDirection::out, MmioAddress{0x1004}, data));
    CHECK(manager.mmio_exit(IoDirection::in, MmioAddress{0x1008}, data));
    CHECK(data == Bytes{1, 2, 3, 4});
    CHECK(device->accesses == Texts{"out4 9 8 7 6", "in8/4"});
    data = {0x5A, 0x5A};
    CHECK(manager.mmio_exit(IoDirection::in, MmioAddress{0x100F}, data).error() ==
          BusError::device_not_found);
    CHECK(data == Bytes{0xFF, 0xFF});
    data = {0x5A, 0x5A};
    CHECK(manager.mmio_exit(IoDirection::out, MmioAddress{0x2000}, data).error() ==
          BusError::device_not_found);
    CHECK(data == Bytes{0x5A, 0x5A});
    CHECK(manager.mmio_exit(IoDirection::in, MmioAddress{0x1000}, {}).error() == BusError::invalid_range);
    CHECK(device->accesses.size() == 2);
}

TEST_CASE("IoManager: the directions of an exit are KVM's", "[vmdevice][io_manager][exit]") {
    // KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT; is_write.
    STATIC_REQUIRE(static_cast<IoDirection>(0) == IoDirection::in);
    STATIC_REQUIRE(static_cast<IoDirection>(1) == IoDirection::out);
}
