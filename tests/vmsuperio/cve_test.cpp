// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The classes of vulnerabilities that other implementations of these devices have had, with at least one test
// each.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;

TEST_CASE("CVE-2020-27173 class: input that the guest does not read does not accumulate on the host",
          "[serial][cve]") {
    Machine m;
    const std::vector<std::uint8_t> flood(1'000'000, 'x');
    CHECK(m.uart.enqueue_raw_bytes(flood).value() == 64);
    for (int i = 0; i < 1000; ++i) {
        const auto refused = m.uart.enqueue_raw_bytes(flood);
        REQUIRE_FALSE(refused);
        REQUIRE(refused.error() == SerialErrorKind::full_fifo);
    }
    CHECK(m.drain() == std::string(64, 'x'));
    // The state has a fixed size, without a pointer to memory that could grow.
    CHECK(sizeof(m.uart.state()) < 512);
}

TEST_CASE("CVE-2020-27173 class: output that the host does not take does not accumulate either",
          "[serial][cve]") {
    Machine m;
    m.world.room = 0;
    m.enable_fifo();
    const std::vector<std::uint8_t> flood(1'000'000, 'x');
    REQUIRE(m.uart.write_data(flood));
    CHECK(m.world.lost_bytes == 1'000'000 - 16);
    m.world.room = SIZE_MAX;
    REQUIRE(m.uart.resume_transmit());
    CHECK(m.world.output == std::string(16, 'x'));
}

TEST_CASE("CVE-2016-8669 class: no divisor divides by zero", "[serial][cve]") {
    for (unsigned low = 0; low < 256; ++low) {
        Machine m;
        m.out(lcr, dlab);
        m.out(dll, static_cast<std::uint8_t>(low));
        m.out(dlm, 0);
        m.out(lcr, static_cast<std::uint8_t>(low & 0x7F));
        REQUIRE(m.uart.character_timeout_length().count() > 0);
    }
}

TEST_CASE("CVE-2017-16845 class: a restored serial count cannot point outside the FIFO", "[serial][cve]") {
    for (unsigned count = 0; count < 256; ++count) {
        SerialState state;
        state.receive_count = static_cast<std::uint8_t>(count);
        const auto received =
            Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::NullWriter>::from_state(state, {},
                                                                                                   {}, {});
        CHECK(received.has_value() == (count <= 64));
        state.receive_count = 0;
        state.fifo_control = 0x01;
        state.transmit_count = static_cast<std::uint8_t>(count);
        const auto sent =
            Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::NullWriter>::from_state(state, {},
                                                                                                   {}, {});
        CHECK(sent.has_value() == (count <= 64));
    }
}

TEST_CASE("CVE-2017-16845 class: a restored keyboard or mouse queue cannot point outside its buffer",
          "[i8042][cve]") {
    using Device = vmsuperio::I8042<vmsuperio::NullTrigger>;
    for (unsigned count = 0; count < 256; ++count) {
        vmsuperio::I8042State state;
        state.keyboard.keys.count = static_cast<std::uint8_t>(count);
        CHECK(Device::from_state(state, {}).has_value() == (count <= state.keyboard.keys.capacity()));
        state = {};
        state.keyboard.replies.count = static_cast<std::uint8_t>(count);
        CHECK(Device::from_state(state, {}).has_value() == (count <= state.keyboard.replies.capacity()));
    }
}

TEST_CASE("CVE-2017-16845 class: a restored state that is accepted never causes an access outside a buffer",
          "[i8042][cve]") {
    // Each byte of the encoded state in turn takes each value; what is accepted must work.
    using Device = vmsuperio::I8042<vmsuperio::NullTrigger>;
    const std::vector<std::uint8_t> good = vmsuperio::encode(vmsuperio::I8042State{});
    std::size_t accepted = 0;
    for (std::size_t at = 12; at < good.size(); ++at) {
        for (const unsigned value : {0U, 1U, 2U, 4U, 15U, 16U, 64U, 127U, 128U, 254U, 255U}) {
            std::vector<std::uint8_t> bytes = good;
            bytes[at] = static_cast<std::uint8_t>(value);
            const auto state = vmsuperio::decode<vmsuperio::I8042State>(bytes);
            if (!state) {
                continue;
            }
            auto device = Device::from_state(*state, {});
            if (!device) {
                continue;
            }
            ++accepted;
            for (const auto key : {vmsuperio::Key::a, vmsuperio::Key::pause, vmsuperio::Key::print_screen}) {
                device->press(key);
                device->move_mouse({.x = 300, .y = -300, .wheel = 9, .buttons = 0x1F});
            }
            for (int i = 0; i < 64; ++i) {
                device->read(0);
            }
            // An invalid state cannot make this loop endless: no device queues more than it has room for.
            CHECK_FALSE(
                (device->profile() == vmsuperio::I8042Profile::full && (device->read(4) & 0x01) != 0));
        }
    }
    CHECK(accepted > 100);
}

TEST_CASE("CVE-2017-16845 class: a restored mouse queue cannot point outside its buffer either",
          "[i8042][cve]") {
    using Device = vmsuperio::I8042<vmsuperio::NullTrigger>;
    for (unsigned count = 0; count < 256; ++count) {
        vmsuperio::I8042State state;
        state.mouse.packets.count = static_cast<std::uint8_t>(count);
        CHECK(Device::from_state(state, {}).has_value() == (count <= state.mouse.packets.capacity()));
        state = {};
        state.mouse.replies.count = static_cast<std::uint8_t>(count);
        CHECK(Device::from_state(state, {}).has_value() == (count <= state.mouse.replies.capacity()));
    }
}

TEST_CASE("CVE-2017-16845 class: a restored clock's index cannot point outside its RAM", "[rtc_cmos][cve]") {
    const vmsuperio::ManualClock clock;
    const vmsuperio::RtcCmos fresh{vmsuperio::ClockRef(clock)};
    for (unsigned index = 0; index < 256; ++index) {
        vmsuperio::RtcCmosState state = fresh.state();
        state.index = static_cast<std::uint8_t>(index);
        // Bit 7 is the NMI mask, which is stored with the index.
        const auto restored = decltype(fresh)::from_state(state, {}, {}, vmsuperio::ClockRef(clock));
        REQUIRE(restored.has_value());
        CHECK(restored->state().index == index);
        CHECK(restored->peek(1) == restored->cmos(static_cast<std::uint8_t>(index & 0x7FU)));
    }
}

TEST_CASE("CVE-2023-50711 class: the length in a saved state is not trusted", "[snapshot][cve]") {
    const std::vector<std::uint8_t> good = vmsuperio::encode(SerialState{});
    const std::size_t payload = good.size() - 12;
    for (const std::uint32_t length : {0U, 1U, static_cast<std::uint32_t>(payload) - 1,
                                       static_cast<std::uint32_t>(payload) + 1, 0x7FFF'FFFFU, 0xFFFF'FFFFU}) {
        std::vector<std::uint8_t> bytes = good;
        for (unsigned i = 0; i < 4; ++i) {
            bytes[8 + i] = static_cast<std::uint8_t>(length >> (8 * i));
        }
        CHECK_FALSE(vmsuperio::decode<SerialState>(bytes).has_value());
    }
    CHECK(vmsuperio::decode<SerialState>(good).has_value());
}

TEST_CASE("CVE-2021-3750 class: the recursion of a device that accesses itself through the bus is limited",
          "[io_manager][cve]") {
    struct Mirror : vmdevice::DeviceMmio {
        vmdevice::IoManager* bus{nullptr};
        std::size_t depth{0};
        std::size_t deepest{0};
        std::size_t refused{0};
        void mmio_read(vmdevice::MmioAddress, vmdevice::MmioOffset, std::span<std::uint8_t> data) override {
            deepest = std::max(deepest, ++depth);
            refused += bus->mmio_read(vmdevice::MmioAddress{0x1000}, data) ? 0U : 1U;
            --depth;
        }
        void mmio_write(vmdevice::MmioAddress, vmdevice::MmioOffset, std::span<const std::uint8_t>) override {
        }
    };
    vmdevice::IoManager bus;
    const auto device = std::make_shared<Mirror>();
    device->bus = &bus;
    REQUIRE(
        bus.register_mmio(vmdevice::MmioRange::create(vmdevice::MmioAddress{0x1000}, 16).value(), device));
    std::array<std::uint8_t, 4> data{};
    CHECK(bus.mmio_read(vmdevice::MmioAddress{0x1000}, data));
    CHECK(device->deepest == vmdevice::IoManager::max_nesting);
    CHECK(device->refused == 1);
}

TEST_CASE("Firecracker#6207 class: an access that begins inside a device and ends past it reaches no device",
          "[io_manager][cve]") {
    struct Bytes : vmdevice::DeviceMmio {
        std::array<std::uint8_t, 16> bytes{};
        void mmio_read(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                       std::span<std::uint8_t> data) override {
            for (std::size_t i = 0; i < data.size(); ++i) {
                data[i] = bytes.at(offset + i);  // throws if the bus has passed an invalid access on
            }
        }
        void mmio_write(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                        std::span<const std::uint8_t> data) override {
            for (std::size_t i = 0; i < data.size(); ++i) {
                bytes.at(offset + i) = data[i];
            }
        }
    };
    vmdevice::IoManager bus;
    for (const std::uint64_t base : {0x1000ULL, 0x1020ULL, ~0ULL - 15}) {
        REQUIRE(bus.register_mmio(vmdevice::MmioRange::create(vmdevice::MmioAddress{base}, 16).value(),
                                  std::make_shared<Bytes>()));
    }
    std::array<std::uint8_t, 32> data{};
    for (const std::uint64_t base : {0x1000ULL, 0x1020ULL, ~0ULL - 15}) {
        for (std::uint64_t offset = 0; offset < 16; ++offset) {
            for (std::size_t length = 1; length <= data.size(); ++length) {
                const bool inside = offset + length <= 16;
                const vmdevice::MmioAddress at{base + offset};
                CHECK(bus.mmio_read(at, std::span(data).first(length)).has_value() == inside);
                CHECK(bus.mmio_write(at, std::span(data).first(length)).has_value() == inside);
            }
        }
    }
}

TEST_CASE("kvmtool class: a full keyboard queue takes no further byte", "[i8042][cve]") {
    vmsuperio::I8042 device{vmsuperio::NullTrigger{}};
    for (int i = 0; i < 1000; ++i) {
        device.press(vmsuperio::Key::pause);  // the longest code
        REQUIRE(device.state().keyboard.keys.count <= device.state().keyboard.keys.capacity());
    }
    CHECK(device.counters().keyboard_overruns > 900);
    int bytes = 0;
    while ((device.read(4) & 0x01) != 0) {
        device.read(0);
        REQUIRE(++bytes <= 32);
    }
}

TEST_CASE("cloud-hypervisor class: the CMOS index never leaves the RAM", "[rtc_cmos][cve]") {
    const vmsuperio::ManualClock clock;
    vmsuperio::RtcCmos rtc{vmsuperio::ClockRef(clock)};
    for (unsigned index = 0; index < 256; ++index) {
        REQUIRE(rtc.write(0, static_cast<std::uint8_t>(index)));
        REQUIRE(rtc.write(1, 0x5A));
        const std::uint8_t value = rtc.read(1);
        REQUIRE(rtc.write(0, static_cast<std::uint8_t>(index ^ 0x80U)));  // bit 7 is only the NMI mask
        CHECK(rtc.read(1) == ((index & 0x7F) == 0x0C ? 0 : value));
    }
}
