// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The port on the buses of a VMM: on the port bus, and in memory with spaced registers.
#include <array>
#include <memory>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;

namespace {

using Uart = Serial<Edge, Events, Sink>;
using BusUart = vmdevice::Locked<vmdevice::ByteDevice<Uart>>;

Uart make(World& world) { return {Edge{&world}, Events{&world}, Sink{&world}}; }

}  // namespace

TEST_CASE("Serial: on the port bus the guest finds it at 0x3F8", "[serial][bus]") {
    World world;
    vmdevice::IoManager io;
    const auto uart = std::make_shared<BusUart>(make(world));
    const auto range = vmdevice::PioRange::create(vmdevice::PioAddress{0x3F8}, 8);
    REQUIRE(range.has_value());
    REQUIRE(io.register_pio(*range, uart).has_value());

    std::array<std::uint8_t, 1> byte{'h'};
    REQUIRE(io.pio_write(vmdevice::PioAddress{0x3F8}, byte).has_value());
    CHECK(world.output == "h");
    REQUIRE(io.pio_read(vmdevice::PioAddress{0x3FD}, byte).has_value());
    CHECK(byte[0] == 0x60);
    byte[0] = 0x01;
    REQUIRE(io.pio_write(vmdevice::PioAddress{0x3F9}, byte).has_value());

    const auto taken = uart->with_lock(
        [](vmdevice::ByteDevice<Uart>& device) { return device.device().enqueue_raw_bytes(bytes("ok")); });
    CHECK(taken == std::size_t{2});
    CHECK(world.take_edges() == 1);
    REQUIRE(io.pio_read(vmdevice::PioAddress{0x3F8}, byte).has_value());
    CHECK(byte[0] == 'o');

    // A wide access is split into bytes in ascending order; none goes past the eighth register.
    std::array<std::uint8_t, 2> word{0x34, 0x12};
    byte[0] = 0x83;
    REQUIRE(io.pio_write(vmdevice::PioAddress{0x3FB}, byte).has_value());
    REQUIRE(io.pio_write(vmdevice::PioAddress{0x3F8}, word).has_value());
    CHECK(uart->with_lock([](const auto& device) { return device.device().state().divisor_high; }) == 0x12);
    CHECK_FALSE(io.pio_write(vmdevice::PioAddress{0x3FF}, word).has_value());
    CHECK(world.invalid == 0);
}

TEST_CASE("Serial: a REP OUTSB arrives completely, in one call of the writer",
          "[serial][bus][peers]") {  // PEERS 1.15, 1.16
    World world;
    BusUart uart(make(world));
    const std::string text(3000, 'r');
    uart.pio_write_repeated(vmdevice::PioAddress{0x3F8}, 0, 1, bytes(text));
    CHECK(world.output == text);
    CHECK(world.writer_calls == 1);
    // A REP INSB empties the FIFO.
    REQUIRE(uart.with_lock([](auto& device) { return device.device().enqueue_raw_bytes(bytes("abc")); }) ==
            std::size_t{3});
    std::array<std::uint8_t, 4> got{};
    uart.pio_read_repeated(vmdevice::PioAddress{0x3F8}, 0, 1, got);
    CHECK(got == std::array<std::uint8_t, 4>{'a', 'b', 'c', 0});
}

TEST_CASE("Serial: in memory its registers may be four bytes apart", "[serial][bus]") {
    World world;
    vmdevice::IoManager io;
    const auto uart = std::make_shared<BusUart>(
        make(world), vmdevice::ByteDeviceOptions{.register_count = 8, .register_shift = 2});
    const auto range = vmdevice::MmioRange::create(vmdevice::MmioAddress{0x1000'0000}, 0x20);
    REQUIRE(range.has_value());
    REQUIRE(io.register_mmio(*range, uart).has_value());
    std::array<std::uint8_t, 4> word{'m', 0, 0, 0};
    REQUIRE(io.mmio_write(vmdevice::MmioAddress{0x1000'0000}, word).has_value());
    CHECK(world.output == "m");
    CHECK(world.lost_bytes == 0);
    REQUIRE(io.mmio_read(vmdevice::MmioAddress{0x1000'0014}, word).has_value());
    CHECK(word == std::array<std::uint8_t, 4>{0x60, 0, 0, 0});
}
