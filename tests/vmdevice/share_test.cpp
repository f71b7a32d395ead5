// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <type_traits>
#include <utility>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/rtc_pl031.hpp>
#include <vmsuperio/serial.hpp>

#include "catch.hpp"

using namespace vmdevice;

namespace {

struct ByteModel {
    static constexpr std::size_t register_count = 4;
    std::array<std::uint8_t, 4> registers{};
    std::unique_ptr<int> only_movable = std::make_unique<int>(5);

    std::uint8_t read(std::uint8_t offset) { return registers[offset]; }
    void write(std::uint8_t offset, std::uint8_t value) { registers[offset] = value; }
};
struct UnmovableModel {
    explicit UnmovableModel(int number, std::unique_ptr<int> owned) : sum(number + *owned) {}
    UnmovableModel(const UnmovableModel&) = delete;
    UnmovableModel& operator=(const UnmovableModel&) = delete;
    int sum;
    std::uint8_t read(std::uint8_t) const { return static_cast<std::uint8_t>(sum); }
    void write(std::uint8_t, std::uint8_t value) { sum = value; }
};
struct SpanModel {
    std::uint64_t last_offset{};
    std::size_t last_size{};
    void read(std::uint64_t offset, std::span<std::uint8_t> data) {
        last_offset = offset;
        last_size = data.size();
    }
    void write(std::uint64_t, std::span<const std::uint8_t>) {}
};

}  // namespace

static_assert(std::is_same_v<SharedDevice<ByteModel>, Locked<ByteDevice<ByteModel>>>);
static_assert(std::is_same_v<SharedDevice<SpanModel>, Locked<SpanDevice<SpanModel>>>);
static_assert(pio_range(0x3F8, 8).last() == PioAddress{0x3FF});
static_assert(pio_range(0xFFFF, 1).base() == PioAddress{0xFFFF});
static_assert(mmio_range(0xD000'0000, 0x1000).size() == 0x1000);

TEST_CASE("share: a model of bytes becomes a device for the buses and other threads", "[vmdevice][share]") {
    IoManager io;
    const auto device = share(ByteModel{});
    REQUIRE(io.register_pio(pio_range(0x200, 4), device));
    const std::array<std::uint8_t, 2> out{1, 2};
    REQUIRE(io.pio_write({0x201}, out));
    CHECK(device->lock()->registers == std::array<std::uint8_t, 4>{0, 1, 2, 0});
    (*device->lock()).registers[3] = 9;
    std::array<std::uint8_t, 1> in{};
    REQUIRE(io.pio_read({0x203}, in));
    CHECK(in[0] == 9);
    CHECK(*device->lock()->only_movable == 5);
}

TEST_CASE("share: a model of whole accesses gets them undivided", "[vmdevice][share]") {
    IoManager io;
    const auto device = share(SpanModel{});
    REQUIRE(io.register_mmio(mmio_range(0xD000'0000, 0x1000), device));
    std::array<std::uint8_t, 8> in{};
    REQUIRE(io.mmio_read({0xD000'0010}, in));
    CHECK(device->lock()->last_offset == 0x10);
    CHECK(device->lock()->last_size == 8);
}

TEST_CASE("share: the registers may be spaced", "[vmdevice][share]") {
    const auto device = share(ByteModel{}, {.register_shift = 2});
    device->mmio_write({0}, 8, std::array<std::uint8_t, 1>{7});
    CHECK(device->lock()->registers == std::array<std::uint8_t, 4>{0, 0, 7, 0});
}

TEST_CASE("share: a model that cannot be moved is built in place", "[vmdevice][share]") {
    const auto device = share(std::in_place_type<UnmovableModel>, 4, std::make_unique<int>(3));
    CHECK(device->lock()->sum == 7);
}

TEST_CASE("share: a serial port takes input and sends output", "[vmdevice][share]") {
    IoManager io;
    const auto com1 = share(vmsuperio::Serial(vmsuperio::NullTrigger{}, vmsuperio::BufferWriter{}));
    REQUIRE(io.register_pio(pio_range(0x3F8, 8), com1));
    REQUIRE(io.pio_write({0x3F8}, std::array<std::uint8_t, 1>{'x'}));
    CHECK(com1->lock()->writer().bytes().size() == 1);
    CHECK(com1->lock()->enqueue_raw_bytes(std::array<std::uint8_t, 2>{'o', 'k'}).value_or(0) == 2);
    std::array<std::uint8_t, 1> in{};
    REQUIRE(io.pio_read({0x3F8}, in));
    CHECK(in[0] == 'o');
}

TEST_CASE("Locked: a guard keeps other threads out until it is destroyed", "[vmdevice][locked]") {
    const auto device = share(ByteModel{});
    std::atomic<bool> inside{false};
    std::optional<std::thread> other;
    {
        const auto model = device->lock();
        other.emplace([&] {
            device->pio_write({0}, 0, std::array<std::uint8_t, 1>{1});
            inside = true;
        });
        // Whatever the scheduler does, the thread cannot get the lock.
        for (int i = 0; i < 100; ++i) {
            std::this_thread::yield();
            REQUIRE(!inside);
            REQUIRE(model->registers[0] == 0);
        }
    }
    other->join();
    CHECK(device->lock()->registers[0] == 1);
}

TEST_CASE("Locked: a const device provides a const model", "[vmdevice][locked]") {
    const auto device = share(ByteModel{});
    const auto& constant = *device;
    static_assert(std::is_same_v<decltype(*constant.lock()), const ByteModel&>);
    CHECK(constant.lock()->registers[0] == 0);
}
