// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Compiled with -fno-exceptions -fno-rtti. Prints the line of a failed check.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>

#include <vmdevice/vmdevice.hpp>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this test is about programs without exceptions and run-time type information"
#endif

// Instantiates all members, including those that nothing here calls.
template class vmdevice::BusRange<vmdevice::PioAddress>;
template class vmdevice::RangeAllocator<vmdevice::PioAddress>;
template class vmdevice::RangeAllocator<vmdevice::MmioAddress>;
template class vmdevice::BasicDeviceResources<>;
template class vmdevice::BasicSystemAllocator<>;
template class vmdevice::BasicDeviceManager<>;
template class vmdevice::detail::BasicIoManager<vmdevice::DevicePio, vmdevice::DeviceMmio>;

using namespace vmdevice;

namespace {

struct Registers {
    std::uint8_t value = 0;
    [[nodiscard]] std::uint8_t read(std::uint8_t offset) const {
        return static_cast<std::uint8_t>(value + offset);
    }
    void write(std::uint8_t, std::uint8_t byte) { value = byte; }
};

struct Both : Device, DevicePio {
    DeviceResources resources;
    [[nodiscard]] std::string name() const override { return "both"; }
    void read(std::uint64_t, std::span<std::uint8_t> data, IoType) override {
        std::ranges::fill(data, std::uint8_t{0x11});
    }
    void write(std::uint64_t, std::span<const std::uint8_t>, IoType) override {}
    void set_resources(const DeviceResources& now) override { resources = now; }
    void pio_read(PioAddress, PioOffset, std::span<std::uint8_t> data) override {
        std::ranges::fill(data, std::uint8_t{0x22});
    }
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}
};

std::uint8_t read(DeviceManager& manager, std::uint64_t address, IoType type) {
    std::uint8_t byte = 0xFF;
    static_cast<void>(manager.read(address, {&byte, 1}, type));
    return byte;
}

int run() {
    SystemAllocator allocator({.pio = *PioRange::create({0x100}, 0xF00),
                               .mmio = *MmioRange::create({0xC000'0000}, 0x10'0000),
                               .irq = *NumberRange::from_bounds({4}, {9})});
    const SystemAllocatorState before = allocator.state();
    {
        DeviceManager manager(allocator);
        const auto uart = std::make_shared<Locked<ByteDevice<Registers>>>();
        const auto com1 = manager.register_device(
            "COM1", uart, {PioConstraint::at(*PioRange::create({0x3F8}, 8)), LegacyIrqConstraint{.irq = 4}});
        if (!com1 || read(manager, 0x3FA, IoType::pio) != 2) {
            return __LINE__;
        }
        const auto both = std::make_shared<Both>();
        const auto id =
            manager.register_device(both, *com1, {PioConstraint{.size = 4}, MmioConstraint{.size = 0x1000}});
        // Called through its own interface on the one bus, and through the manager on the other.
        if (!id || read(manager, 0x101, IoType::pio) != 0x22 ||
            read(manager, 0xC000'0010, IoType::mmio) != 0x11 || both->resources.size() != 2) {
            return __LINE__;
        }
        // Registered by a pointer to Device, it is called through the manager on both buses.
        const std::shared_ptr<Device> erased = std::make_shared<Both>();
        const auto plain = manager.register_device(erased, std::nullopt, {PioConstraint{.size = 4}});
        if (!plain || read(manager, 0x105, IoType::pio) != 0x11) {
            return __LINE__;
        }
        const auto taken = manager.register_device("COM3", uart, {LegacyIrqConstraint{.irq = 4}});
        if (taken || to_string(taken.error()) != "a resource is not available: IRQ 4 is held by COM1") {
            return __LINE__;
        }
        if (!manager.move_mmio({0xC000'0000}, *MmioRange::create({0xC000'0800}, 0x1000)) ||
            read(manager, 0xC000'1000, IoType::mmio) != 0x11) {
            return __LINE__;
        }
        if (!manager.unregister_device(*id) || read(manager, 0x101, IoType::pio) != 0xFF ||
            !both->resources.empty()) {
            return __LINE__;
        }
        const auto restored = decode<SystemAllocatorState>(encode(allocator.state()));
        if (!restored || !SystemAllocator::from_state(*restored)) {
            return __LINE__;
        }
    }
    return allocator.state() == before ? 0 : __LINE__;
}

}  // namespace

int main() {
    const int wrong = run();
    if (wrong != 0) {
        std::fprintf(stderr, "no_exceptions_test.cpp:%d\n", wrong);
    }
    return wrong == 0 ? 0 : 1;
}
