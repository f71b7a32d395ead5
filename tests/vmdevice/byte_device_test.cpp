// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <array>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/io_manager.hpp>
#include <vmdevice/locked.hpp>
#include <vmdevice/port_view.hpp>
#include <vmdevice/span_device.hpp>

#include "catch.hpp"

using namespace vmdevice;

namespace {

/// Records every access; register n reads 0x10 + n. Writing 0xEE is an error.
struct Recorder {
    static constexpr std::size_t register_count = 8;
    std::vector<std::pair<int, int>> accesses;

    std::uint8_t read(std::uint8_t offset) {
        accesses.emplace_back(offset, -1);
        return static_cast<std::uint8_t>(0x10 + offset);
    }
    std::expected<void, int> write(std::uint8_t offset, std::uint8_t value) {
        accesses.emplace_back(offset, value);
        if (value == 0xEE) {
            return std::unexpected(42);
        }
        return {};
    }
};
using Accesses = std::vector<std::pair<int, int>>;

/// The smallest possible model: void write, wider offsets, nothing else.
struct Minimal {
    std::uint8_t value = 0;
    [[nodiscard]] std::uint8_t read(std::uint64_t offset) const {
        return static_cast<std::uint8_t>(value + offset);
    }
    void write(std::uint64_t, std::uint8_t v) { value = v; }
};

struct Transmitter : Recorder {
    std::vector<std::uint8_t> sent;
    std::expected<void, int> write_data(std::span<const std::uint8_t> data) {
        sent.insert(sent.end(), data.begin(), data.end());
        if (data[0] == 0xEE) {
            return std::unexpected(7);
        }
        return {};
    }
};

constexpr PioAddress com1{0x3F8};

}  // namespace

TEST_CASE("ByteDevice: a wide access is split into bytes in ascending order", "[vmdevice][byte_device]") {
    ByteDevice device{Recorder{}};
    std::array<std::uint8_t, 4> data{};
    device.pio_read(com1, 2, data);
    CHECK(data == std::array<std::uint8_t, 4>{0x12, 0x13, 0x14, 0x15});
    const std::array<std::uint8_t, 2> out{1, 2};
    device.mmio_write(MmioAddress{0x1000}, 6, out);
    CHECK(device.device().accesses == Accesses{{2, -1}, {3, -1}, {4, -1}, {5, -1}, {6, 1}, {7, 2}});
    CHECK(device.refused_accesses() == 0);
}

TEST_CASE("ByteDevice: an access that extends past the window is refused as a whole and reads 0xFF",
          "[vmdevice][byte_device]") {
    ByteDevice device{Recorder{}};
    std::array<std::uint8_t, 2> data{0xAA, 0xAA};
    device.pio_read(com1, 7, data);
    CHECK(data == std::array<std::uint8_t, 2>{0xFF, 0xFF});
    device.pio_write(com1, 7, data);
    device.mmio_write(MmioAddress{0}, 8, std::span(data).first(1));
    std::array<std::uint8_t, 1> one{0};
    device.mmio_read(MmioAddress{0}, ~0ULL, one);
    CHECK(one[0] == 0xFF);
    CHECK(device.device().accesses.empty());
    CHECK(device.refused_accesses() == 4);
}

TEST_CASE("ByteDevice: the window is that of the model, or specified, or all that an offset can name",
          "[vmdevice][byte_device]") {
    CHECK(ByteDevice(Recorder{}).window() == 8);
    CHECK(ByteDevice(Recorder{}, 5).window() == 5);
    CHECK(ByteDevice(Minimal{}).window() == 256);
    CHECK(ByteDevice(Minimal{}, ByteDeviceOptions{.register_count = 8, .register_shift = 2}).window() == 32);
    CHECK(ByteDevice<Minimal>().window() == 256);
}

TEST_CASE("ByteDevice: a register shift spaces the registers, and the bytes between them are empty",
          "[vmdevice][byte_device]") {
    ByteDevice device(Recorder{}, {.register_count = 8, .register_shift = 2});
    std::array<std::uint8_t, 8> data;
    data.fill(0xAA);
    device.mmio_read(MmioAddress{0}, 4, data);
    CHECK(data == std::array<std::uint8_t, 8>{0x11, 0, 0, 0, 0x12, 0, 0, 0});
    const std::array<std::uint8_t, 4> word{0x5A, 1, 2, 3};
    device.mmio_write(MmioAddress{0}, 28, word);
    device.mmio_write(MmioAddress{0}, 29, std::span(word).first(3));
    device.mmio_write(MmioAddress{0}, 29, word);  // extends past the end
    CHECK(device.device().accesses == Accesses{{1, -1}, {2, -1}, {7, 0x5A}});
    CHECK(device.refused_accesses() == 1);
}

TEST_CASE("ByteDevice: an error of the model is counted and reported, and stops nothing",
          "[vmdevice][byte_device]") {
    ByteDevice device{Recorder{}};
    int reported = 0;
    device.set_error_handler([&](int error) { reported += error; });
    const std::array<std::uint8_t, 3> out{1, 0xEE, 3};
    device.pio_write(com1, 0, out);
    CHECK(device.device().accesses.size() == 3);
    CHECK(device.write_errors() == 1);
    CHECK(reported == 42);
}

TEST_CASE("ByteDevice: bytes repeated at offset 0 reach write_data at once", "[vmdevice][byte_device]") {
    ByteDevice device{Transmitter{}};
    const std::array<std::uint8_t, 4> out{'a', 'b', 'c', 'd'};
    device.pio_write_repeated(com1, 0, 1, out);
    CHECK(device.device().sent == std::vector<std::uint8_t>{'a', 'b', 'c', 'd'});
    CHECK(device.device().accesses.empty());
    device.pio_write_repeated(com1, 7, 1, out);
    CHECK(device.device().accesses == Accesses{{7, 'a'}, {7, 'b'}, {7, 'c'}, {7, 'd'}});
    device.device().accesses.clear();
    device.pio_write_repeated(com1, 0, 2, out);
    CHECK(device.device().accesses == Accesses{{0, 'a'}, {1, 'b'}, {0, 'c'}, {1, 'd'}});
    CHECK(device.device().sent.size() == 4);
    const std::array<std::uint8_t, 1> bad{0xEE};
    device.pio_write_repeated(com1, 0, 1, bad);
    CHECK(device.write_errors() == 1);
}

TEST_CASE("ByteDevice: wraps a reference and a pointer as well as a value", "[vmdevice][byte_device]") {
    Recorder recorder;
    ByteDevice<Recorder&> by_reference(recorder);
    auto shared = std::make_shared<Recorder>();
    ByteDevice<std::shared_ptr<Recorder>> by_pointer(shared);
    std::array<std::uint8_t, 1> data{};
    by_reference.pio_read(com1, 3, data);
    by_pointer.pio_read(com1, 4, data);
    CHECK(recorder.accesses == Accesses{{3, -1}});
    CHECK(shared->accesses == Accesses{{4, -1}});
    CHECK(&by_reference.device() == &recorder);
    CHECK(&by_pointer.device() == shared.get());
}

TEST_CASE("ByteDevice: constructs its model in place from the arguments", "[vmdevice][byte_device]") {
    struct Fixed {
        explicit Fixed(std::uint8_t a, int b = 0) : value(static_cast<std::uint8_t>(a + b)) {}
        Fixed(const Fixed&) = delete;
        Fixed& operator=(const Fixed&) = delete;
        std::uint8_t value;
        [[nodiscard]] std::uint8_t read(std::uint8_t) const { return value; }
        void write(std::uint8_t, std::uint8_t) {}
    };
    CHECK(ByteDevice<Fixed>(std::uint8_t{3}).device().value == 3);
    CHECK(ByteDevice<Fixed>(std::uint8_t{3}, 4).device().value == 7);
    const ByteDevice<Fixed> device(std::in_place, {.register_count = 2}, std::uint8_t{5});
    CHECK(device.device().value == 5);
    CHECK(device.window() == 2);
    CHECK(std::make_shared<Locked<ByteDevice<Fixed>>>(std::uint8_t{3}, 1)->with_lock([](auto& locked) {
        return locked.device().value;
    }) == 4);
}

TEST_CASE("SpanDevice: passes each access to the model unchanged", "[vmdevice][span_device]") {
    struct Clock {
        std::vector<std::pair<std::uint64_t, std::size_t>> accesses;
        void read(std::uint64_t offset, std::span<std::uint8_t> bytes) {
            accesses.emplace_back(offset, bytes.size());
            std::ranges::fill(bytes, std::uint8_t{0x31});
        }
        std::expected<void, int> write(std::uint64_t offset, std::span<const std::uint8_t> bytes) {
            accesses.emplace_back(offset, bytes.size());
            if (bytes.size() != 4) {
                return std::unexpected(3);
            }
            return {};
        }
    };
    auto device = std::make_shared<Locked<SpanDevice<Clock>>>();
    int reported = 0;
    device->with_lock([&](auto& clock) { clock.set_error_handler([&](int error) { reported += error; }); });
    IoManager manager;
    REQUIRE(manager.register_mmio(*MmioRange::create(MmioAddress{0x9010000}, 0x1000), device));
    REQUIRE(manager.register_pio(*PioRange::create(PioAddress{0x70}, 8), device));
    std::array<std::uint8_t, 4> data{};
    CHECK(manager.mmio_read(MmioAddress{0x9010FE0}, data));
    CHECK(data == std::array<std::uint8_t, 4>{0x31, 0x31, 0x31, 0x31});
    CHECK(manager.mmio_write(MmioAddress{0x9010004}, data));
    CHECK(reported == 0);
    CHECK(manager.pio_write(PioAddress{0x71}, std::span(data).first(2)));
    CHECK(reported == 3);
    data = {};
    CHECK(manager.pio_read(PioAddress{0x75}, std::span(data).first(1)));
    CHECK(data == std::array<std::uint8_t, 4>{0x31, 0, 0, 0});
    device->with_lock([&](auto& clock) {
        CHECK(clock.device().accesses ==
              std::vector<std::pair<std::uint64_t, std::size_t>>{{0xFE0, 4}, {4, 4}, {1, 2}, {5, 1}});
        CHECK(clock.write_errors() == 1);
    });
}

TEST_CASE("Locked: has the bus interfaces of its device and forwards every access", "[vmdevice][locked]") {
    auto serial = std::make_shared<Locked<ByteDevice<Transmitter>>>(Transmitter{});
    IoManager manager;
    REQUIRE(manager.register_pio(*PioRange::create(com1, 8), serial));
    REQUIRE(manager.register_mmio(*MmioRange::create(MmioAddress{0x1000}, 8), serial));
    std::array<std::uint8_t, 2> data{};
    CHECK(manager.pio_read(PioAddress{0x3F9}, data));
    CHECK(data == std::array<std::uint8_t, 2>{0x11, 0x12});
    CHECK(manager.mmio_write(MmioAddress{0x1007}, std::span(data).first(1)));
    CHECK(manager.pio_write_repeated(com1, 1, data));
    serial->with_lock([](ByteDevice<Transmitter>& device) {
        CHECK(device.device().accesses == Accesses{{1, -1}, {2, -1}, {7, 0x11}});
        CHECK(device.device().sent == std::vector<std::uint8_t>{0x11, 0x12});
    });
    CHECK(std::as_const(*serial).with_lock([](const auto& device) { return device.window(); }) == 8);
}

TEST_CASE("Locked: a bare register model remains a register model", "[vmdevice][locked]") {
    static_assert(!std::is_base_of_v<DevicePio, Locked<Recorder>>);
    ByteDevice<Locked<Recorder>> device;
    std::array<std::uint8_t, 1> data{};
    device.pio_read(com1, 3, data);
    CHECK(data[0] == 0x13);
    const std::array<std::uint8_t, 2> out{0x41, 0xEE};
    device.pio_write(com1, 4, out);
    CHECK(device.write_errors() == 1);
    device.device().with_lock([](const Recorder& recorder) {
        CHECK(recorder.accesses == Accesses{{3, -1}, {4, 0x41}, {5, 0xEE}});
    });
}

namespace {

// Has the members of a bus device without deriving from DevicePio, and lacks the repeated accesses.
struct PlainPorts {
    std::vector<std::pair<std::uint64_t, std::size_t>> reads;
    std::vector<std::vector<std::uint8_t>> writes;
    void pio_read(PioAddress, PioOffset offset, std::span<std::uint8_t> data) {
        reads.emplace_back(offset, data.size());
        std::ranges::fill(data, static_cast<std::uint8_t>(reads.size()));
    }
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t> data) {
        writes.emplace_back(data.begin(), data.end());
    }
};

struct FromAnything {
    FromAnything() = default;
    explicit FromAnything(const auto&...) {}
};
template <class T>
void takes(T);
template <class T, class... Args>
concept TakesBraced = requires(Args... args) { takes<T>({args...}); };

}  // namespace

TEST_CASE("Locked: repeats accesses for a device that has no repeated access", "[vmdevice][locked]") {
    Locked<PlainPorts> device;
    std::array<std::uint8_t, 6> data{};
    device.pio_read_repeated(com1, 3, 2, data);
    CHECK(data == std::array<std::uint8_t, 6>{1, 1, 2, 2, 3, 3});
    device.pio_read_repeated(com1, 3, 1, std::span(data).first(2));
    device.pio_read_repeated(com1, 3, 0, data);
    device.pio_read_repeated(com1, 3, 2, {});
    device.pio_write_repeated(com1, 3, 2, std::span(data).first(4));
    device.pio_write_repeated(com1, 3, 1, std::span(data).first(1));
    device.pio_write_repeated(com1, 3, 0, data);
    device.pio_write_repeated(com1, 3, 4, {});
    device.with_lock([](const PlainPorts& ports) {
        CHECK(ports.reads ==
              std::vector<std::pair<std::uint64_t, std::size_t>>{{3, 2}, {3, 2}, {3, 2}, {3, 1}, {3, 1}});
        CHECK(ports.writes == std::vector<std::vector<std::uint8_t>>{{4, 5}, {2, 2}, {4}});
    });
}

TEST_CASE("Locked: is constructed like its device, and cannot be copied", "[vmdevice][locked]") {
    using L = Locked<FromAnything>;
    STATIC_REQUIRE(std::is_constructible_v<L, int, int>);
    STATIC_REQUIRE(std::is_constructible_v<L, L&, L&>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<L, L&>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<L, const L&>);
    // One argument converts, several are named.
    STATIC_REQUIRE(std::is_convertible_v<int, L>);
    STATIC_REQUIRE(TakesBraced<L, int>);
    STATIC_REQUIRE_FALSE(TakesBraced<L, int, int>);
}

TEST_CASE("PortView: a device in several ranges sees each access at its offset from the origin",
          "[vmdevice]") {
    auto device = std::make_shared<Locked<PlainPorts>>();
    auto view = std::make_shared<PortView>(PioAddress{0x60}, device);
    IoManager manager;
    REQUIRE(manager.register_pio(PioRange::unit(PioAddress{0x60}), view));
    REQUIRE(manager.register_pio(*PioRange::create(PioAddress{0x64}, 2), view));
    std::array<std::uint8_t, 2> data{};
    CHECK(manager.pio_read(PioAddress{0x60}, std::span(data).first(1)));
    CHECK(manager.pio_read(PioAddress{0x65}, std::span(data).first(1)));
    CHECK(manager.pio_read_repeated(PioAddress{0x64}, 2, data));
    CHECK_FALSE(manager.pio_read(PioAddress{0x61}, std::span(data).first(1)));
    const std::array<std::uint8_t, 2> out{7, 8};
    CHECK(manager.pio_write(PioAddress{0x64}, out));
    CHECK(manager.pio_write_repeated(PioAddress{0x60}, 1, out));
    device->with_lock([](const PlainPorts& ports) {
        CHECK(ports.reads == std::vector<std::pair<std::uint64_t, std::size_t>>{{0, 1}, {5, 1}, {4, 2}});
        CHECK(ports.writes == std::vector<std::vector<std::uint8_t>>{{7, 8}, {7}, {8}});
    });
}

TEST_CASE("Locked: with_lock takes what std::invoke takes", "[vmdevice][locked]") {
    struct Model {
        int value = 3;
        int doubled() const { return 2 * value; }
    };
    Locked<Model> locked;
    CHECK(locked.with_lock(&Model::doubled) == 6);
    CHECK(locked.with_lock(&Model::value) == 3);
    CHECK(locked.with_lock([](Model& model) { return ++model.value; }) == 4);
    const Locked<Model>& seen = locked;
    CHECK(seen.with_lock(&Model::doubled) == 8);
    CHECK(seen.with_lock([](const Model& model) { return model.value; }) == 4);
}

TEST_CASE("ByteDevice: an error handler may be copied with its device, replaced and removed",
          "[vmdevice][byte_device]") {
    struct Failing {
        std::uint8_t read(std::uint8_t) { return 0; }
        std::expected<void, int> write(std::uint8_t, std::uint8_t value) { return std::unexpected(value); }
    };
    ByteDevice<Failing> device;
    int reported = 0;
    const std::array<std::uint8_t, 1> byte{5};
    device.set_error_handler(
        [&reported, calls = 0](const int& error) mutable { reported += error + ++calls; });
    ByteDevice<Failing> copy = device;
    device.pio_write(PioAddress{0}, 0, byte);
    copy.pio_write(PioAddress{0}, 0, byte);
    CHECK(reported == 12);  // each copy of the handler has its own count
    copy.set_error_handler(std::function<void(const int&)>());
    copy.pio_write(PioAddress{0}, 0, byte);
    device.set_error_handler(nullptr);
    device.pio_write(PioAddress{0}, 0, byte);
    CHECK(reported == 12);
    CHECK(device.write_errors() == 2);
    device = copy;
    device.set_error_handler(+[](const int&) {});
    device.pio_write(PioAddress{0}, 0, byte);
    CHECK(reported == 12);
}
