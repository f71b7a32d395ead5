// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include <vmdevice/io_manager.hpp>

#include "catch.hpp"

using namespace vmdevice;

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

PioRange pio(std::uint16_t base, std::uint16_t size) {
    return PioRange::create(PioAddress{base}, size).value();
}
MmioRange mmio(std::uint64_t base, std::uint64_t size) {
    return MmioRange::create(MmioAddress{base}, size).value();
}

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

TEST_CASE("IoManager: an access that no device owns whole reaches none", "[vmdevice][io_manager]") {
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

TEST_CASE("IoManager: a deregistered device is handed back and no longer reached", "[vmdevice][io_manager]") {
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
    CHECK(device->accesses.empty());
}
