// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A DeviceManager that several threads change and use at the same time.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <vmdevice/device_manager.hpp>

#include "catch.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::pio;

namespace {

struct Port : DevicePio {
    explicit Port(std::uint8_t value) : value_(value) {}
    void pio_read(PioAddress, PioOffset, std::span<std::uint8_t> data) override {
        std::ranges::fill(data, value_);
    }
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}

private:
    std::uint8_t value_;
};

}  // namespace

TEST_CASE("DeviceManager: threads register, move, list and remove devices while others use them",
          "[vmdevice][device_manager][concurrency]") {
    SystemAllocator allocator(
        {.pio = pio(0x100, 0x400), .irq = *NumberRange::from_bounds(Number{4}, Number{15})});
    const SystemAllocatorState before = allocator.state();
    DeviceManager manager(allocator);
    constexpr std::uint8_t threads = 3;
    std::atomic<int> wrong = 0;
    std::atomic<bool> done = false;
    const auto change = [&](std::uint8_t number) {
        const std::string name = "device " + std::to_string(number);
        const auto device = std::make_shared<Port>(number);
        for (unsigned i = 0; i < 200; ++i) {
            const auto id = manager.register_device(
                name, device,
                {PioConstraint{.size = 8}, LegacyIrqConstraint{.irq = 5, .sharing = IrqSharing::level}});
            if (!id) {
                ++wrong;
                return;
            }
            // A range that only this thread uses.
            const PioRange own = pio(static_cast<std::uint16_t>(0x300 + 0x10 * number), 8);
            const auto found = manager.find(*id);
            const PioRange at = found ? found->resources.get_pio_address_ranges()[0] : own;
            const bool moved = manager.move_pio(at.base(), own).has_value();
            std::uint8_t byte = 0xFF;
            const bool answered = manager.io_manager().pio_read(own.last(), {&byte, 1}).has_value();
            const auto owner = manager.owner(own.base());
            wrong += moved && answered && byte == number && owner && owner->name == name ? 0 : 1;
            wrong += manager.unregister_device(*id) ? 0 : 1;
        }
    };
    std::vector<std::thread> all;
    for (std::uint8_t number = 1; number <= threads; ++number) {
        all.emplace_back(change, number);
    }
    std::thread guest([&] {
        while (!done) {
            for (std::uint16_t port = 0x100; port < 0x500 && !done; ++port) {
                std::uint8_t byte = 0xFF;
                if (manager.io_manager().pio_read(PioAddress{port}, {&byte, 1})) {
                    wrong += byte >= 1 && byte <= threads ? 0 : 1;
                }
            }
            wrong += manager.list().size() <= threads && manager.irq_owners(5).size() <= threads ? 0 : 1;
        }
    });
    for (std::thread& thread : all) {
        thread.join();
    }
    done = true;
    guest.join();
    CHECK(wrong == 0);
    CHECK(manager.size() == 0);
    CHECK(manager.io_manager().pio_size() == 0);
    CHECK(allocator.state() == before);
}
