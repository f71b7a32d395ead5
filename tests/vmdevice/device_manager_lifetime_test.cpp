// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What devices may do while a DeviceManager is destroyed, and what happens to their exceptions.
#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <vmdevice/device_manager.hpp>

#include "catch.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::pio;

namespace {

SystemAllocator small_machine() {
    return SystemAllocator(
        {.pio = pio(0x100, 0xF00), .irq = *NumberRange::from_bounds(Number{3}, Number{9})});
}

using Log = std::vector<std::string>;

// Logs its destruction, and runs a function in its destructor.
struct Mortal : DevicePio {
    Mortal(Log& log, std::string called, std::function<void()> last_words = {})
        : log_(log), called_(std::move(called)), last_words_(std::move(last_words)) {}
    Mortal(const Mortal&) = delete;
    Mortal& operator=(const Mortal&) = delete;
    ~Mortal() override {
        log_.push_back(called_);
        if (last_words_) {
            last_words_();
        }
    }
    void pio_read(PioAddress, PioOffset, std::span<std::uint8_t> data) override {
        std::ranges::fill(data, std::uint8_t{0x5A});
    }
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {
        if (on_write) {
            on_write();
        }
    }
    void set_resources(const DeviceResources& resources) {
        if (resources.empty()) {
            log_.push_back(called_ + " has nothing");
        }
    }
    std::function<void()> on_write;

private:
    Log& log_;
    std::string called_;
    std::function<void()> last_words_;
};

std::uint8_t read_port(IoManager& io, std::uint16_t port) {
    std::uint8_t byte = 0xFF;
    static_cast<void>(io.pio_read(PioAddress{port}, {&byte, 1}));
    return byte;
}

}  // namespace

TEST_CASE("DeviceManager: its destructor removes the devices in the reverse order of their registration",
          "[vmdevice][device_manager][lifetime]") {
    SystemAllocator allocator = small_machine();
    Log log;
    {
        DeviceManager manager(allocator);
        const auto first = manager.register_device("first", std::make_shared<Mortal>(log, "first"),
                                                   {PioConstraint{.size = 1}});
        const auto bus = manager.register_device("bus", std::make_shared<Mortal>(log, "bus"));
        log.clear();
        REQUIRE(manager.unregister_device(*first));
        CHECK(log == Log{"first has nothing", "first"});
        // Its id is the lowest, although it is registered last.
        REQUIRE(manager.register_device("child", std::make_shared<Mortal>(log, "child"),
                                        {PioConstraint{.size = 1}}, *bus) == 1);
        log.clear();
    }
    CHECK(log == Log{"child has nothing", "child", "bus has nothing", "bus"});
    CHECK(allocator.state() == small_machine().state());
}

TEST_CASE("DeviceManager: a device uses the buses and the manager in its destructor",
          "[vmdevice][device_manager][lifetime]") {
    SystemAllocator allocator = small_machine();
    Log log;
    int ran = 0;
    {
        std::optional<DeviceManager> manager(std::in_place, allocator);
        DeviceManager* const devices = &*manager;
        REQUIRE(devices->register_device("uart", std::make_shared<Mortal>(log, "uart"),
                                         {PioConstraint::at(pio(0x3F8, 8))}));
        REQUIRE(devices->register_device("disk", std::make_shared<Mortal>(log, "disk"),
                                         {PioConstraint::at(pio(0x1F0, 8))}));
        const auto last_words = [&ran, devices, &log] {
            ++ran;
            // Its own port does not answer any more, and those of the others do.
            CHECK(read_port(devices->io_manager(), 0x200) == 0xFF);
            CHECK(read_port(devices->io_manager(), 0x3F8) == 0x5A);
            CHECK(devices->size() == 2);
            CHECK(devices->find("uart"));
            CHECK_FALSE(devices->find("dying"));
            CHECK_FALSE(devices->owner(PioAddress{0x200}));
            CHECK(devices->unregister_device(3).error() == DeviceManagerError::unknown_device);
            // Registrations are refused during destruction, which would otherwise never end.
            CHECK(devices->register_device("new", std::make_shared<Mortal>(log, "new")).error() ==
                  DeviceManagerError::ending);
            CHECK(devices->reserve("new").error() == DeviceManagerError::ending);
            CHECK(devices->unregister_device(devices->find("disk")->id));
            CHECK(devices->size() == 1);
            CHECK(devices->to_string() == "1 uart  pio 0x3f8-0x3ff\n");
            CHECK(devices->io_manager().register_pio(pio(0x80, 1), std::make_shared<Mortal>(log, "direct")));
        };
        REQUIRE(devices->register_device("dying", std::make_shared<Mortal>(log, "dying", last_words),
                                         {PioConstraint::at(pio(0x200, 1))}) == 3);
        manager.reset();
    }
    CHECK(ran == 1);
    CHECK(log == Log{"dying has nothing", "dying", "new", "disk has nothing", "disk", "uart has nothing",
                     "uart", "direct"});
    CHECK(allocator.state() == small_machine().state());
}

TEST_CASE("DeviceManager: devices that own each other are destroyed with the last of them",
          "[vmdevice][device_manager][lifetime]") {
    SystemAllocator allocator = small_machine();
    Log log;
    {
        DeviceManager manager(allocator);
        auto parent = std::make_shared<Mortal>(log, "parent");
        const auto bus = manager.register_device("parent", parent, {PioConstraint{.size = 1}});
        auto child = std::make_shared<Mortal>(log, "child", [held = parent, &manager] {
            CHECK(held);
            CHECK(manager.find("parent"));
        });
        // Other objects than its own registration own a device.
        auto sibling = std::make_shared<Mortal>(log, "sibling", [held = child] { CHECK(held); });
        REQUIRE(manager.register_device("child", child, {PioConstraint{.size = 1}}, *bus));
        REQUIRE(manager.register_device("child again", child, {PioConstraint{.size = 1}}, *bus));
        REQUIRE(manager.register_device("sibling", sibling, {PioConstraint{.size = 1}}, *bus));
        parent.reset();
        child.reset();
        sibling.reset();
    }
    CHECK(log == Log{"sibling has nothing", "sibling", "child has nothing", "child has nothing", "child",
                     "parent has nothing", "parent"});
}

TEST_CASE("DeviceManager: a device that outlives the manager is notified that it has no resources",
          "[vmdevice][device_manager][lifetime]") {
    SystemAllocator allocator = small_machine();
    Log log;
    const auto device = std::make_shared<Mortal>(log, "device");
    {
        DeviceManager manager(allocator);
        REQUIRE(manager.register_device("device", device, {PioConstraint{.size = 4}}));
    }
    CHECK(log == Log{"device has nothing"});
    CHECK(device.use_count() == 1);
}

TEST_CASE("DeviceManager: a device that removed itself in its handler is destroyed while the manager answers",
          "[vmdevice][device_manager][lifetime]") {
    SystemAllocator allocator = small_machine();
    Log log;
    bool ran = false;
    {
        DeviceManager manager(allocator);
        auto device = std::make_shared<Mortal>(log, "device", [&] {
            ran = true;
            CHECK(manager.size() == 0);
            CHECK(read_port(manager.io_manager(), 0x200) == 0xFF);
            static_cast<void>(manager.io_manager().deregister_pio(PioAddress{0x200}));
        });
        const auto id = manager.register_device("device", device, {PioConstraint::at(pio(0x200, 1))});
        device->on_write = [&manager, id] { CHECK(manager.unregister_device(*id)); };
        device.reset();
        const std::array<std::uint8_t, 1> byte{};
        REQUIRE(manager.io_manager().pio_write(PioAddress{0x200}, byte));
        CHECK_FALSE(ran);
    }
    CHECK(ran);
    CHECK(log == Log{"device has nothing", "device"});
}

TEST_CASE("DeviceManager: the destructor of a device that is removed may remove others",
          "[vmdevice][device_manager][lifetime]") {
    SystemAllocator allocator = small_machine();
    Log log;
    DeviceManager manager(allocator);
    REQUIRE(manager.register_device("function 1", std::make_shared<Mortal>(log, "function 1"),
                                    {PioConstraint{.size = 1}}));
    const auto zero = manager.register_device(
        "function 0",
        std::make_shared<Mortal>(log, "function 0",
                                 [&] {
                                     CHECK(manager.unregister_device(manager.find("function 1")->id));
                                     CHECK(manager.register_device("new",
                                                                   std::make_shared<Mortal>(log, "new"),
                                                                   {PioConstraint{.size = 1}}));
                                 }),
        {PioConstraint{.size = 1}});
    REQUIRE(manager.unregister_device(*zero));
    CHECK(log == Log{"function 0 has nothing", "function 0", "function 1 has nothing", "function 1"});
    CHECK(manager.size() == 1);
    CHECK(manager.find("new"));
    log.clear();
}

TEST_CASE("DeviceManager: a device that was registered directly may read the tree in its destructor",
          "[vmdevice][device_manager][lifetime]") {
    SystemAllocator allocator = small_machine();
    Log log;
    bool ran = false;
    {
        DeviceManager manager(allocator);
        REQUIRE(manager.io_manager().register_pio(pio(0x80, 1), std::make_shared<Mortal>(log, "direct", [&] {
                                                      ran = true;
                                                      CHECK(manager.size() == 0);
                                                      CHECK(manager.list().empty());
                                                      CHECK(manager.unregister_device(1).error() ==
                                                            DeviceManagerError::unknown_device);
                                                  })));
        REQUIRE(manager.register_device("device", std::make_shared<Mortal>(log, "device"),
                                        {PioConstraint{.size = 1}}));
    }
    CHECK(ran);
    CHECK(log == Log{"device has nothing", "device", "direct"});
}

namespace {

// Throws at chosen calls.
struct Thrower : Device {
    std::vector<DeviceResources> received;
    bool throws_at_resources = false;
    bool throws_at_nothing = false;
    bool throws_at_name = false;
    std::uint8_t value = 0x77;

    [[nodiscard]] std::string name() const override {
        if (throws_at_name) {
            throw std::runtime_error("no name");
        }
        return "thrower";
    }
    void read(std::uint64_t, std::span<std::uint8_t> data, IoType) override {
        std::ranges::fill(data, value);
    }
    void write(std::uint64_t, std::span<const std::uint8_t>, IoType) override {}
    void set_resources(const DeviceResources& resources) override {
        received.push_back(resources);
        if (resources.empty() ? throws_at_nothing : throws_at_resources) {
            throw std::runtime_error("no");
        }
    }
};

}  // namespace

TEST_CASE("DeviceManager: a device that throws whenever it is notified is refused, and the program continues",
          "[vmdevice][device_manager][exceptions]") {
    SystemAllocator allocator = small_machine();
    const SystemAllocatorState before = allocator.state();
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Thrower>();
    device->throws_at_resources = true;
    device->throws_at_nothing = true;
    for (int i = 0; i < 3; ++i) {
        device->received.clear();
        CHECK_THROWS_WITH(
            manager.register_device(device, std::nullopt,
                                    {PioConstraint::at(pio(0x200, 4)), LegacyIrqConstraint{.irq = 4}}),
            "no");
        REQUIRE(device->received.size() == 2);
        CHECK(device->received[0].size() == 2);
        CHECK(device->received[1].empty());
        CHECK(manager.size() == 0);
        CHECK(allocator.state() == before);
        CHECK(manager.io_manager().pio_size() == 0);
        CHECK(read_port(manager.io_manager(), 0x200) == 0xFF);
    }
    device->throws_at_name = true;
    CHECK_THROWS_WITH(manager.register_device(device), "no name");
    CHECK(allocator.state() == before);
    // None of that prevents a later registration.
    device->throws_at_name = device->throws_at_resources = device->throws_at_nothing = false;
    CHECK(manager.register_device(device, std::nullopt,
                                  {PioConstraint::at(pio(0x200, 4)), LegacyIrqConstraint{.irq = 4}}) == 1);
    CHECK(read_port(manager.io_manager(), 0x203) == 0x77);
}

TEST_CASE("DeviceManager: a device that throws when it loses its resources is removed nevertheless",
          "[vmdevice][device_manager][exceptions]") {
    SystemAllocator allocator = small_machine();
    const SystemAllocatorState before = allocator.state();
    const auto device = std::make_shared<Thrower>();
    device->throws_at_nothing = true;
    {
        DeviceManager manager(allocator);
        const auto id = manager.register_device(device, std::nullopt, {PioConstraint::at(pio(0x200, 4))});
        REQUIRE(id);
        const auto gone = manager.unregister_device(*id);
        REQUIRE(gone);
        CHECK(gone->device == device);
        CHECK(device->received.back().empty());
        CHECK(manager.size() == 0);
        CHECK(read_port(manager.io_manager(), 0x200) == 0xFF);
        CHECK(allocator.state() == before);
        // The same applies to the destructor of the manager.
        REQUIRE(manager.register_device(device, std::nullopt, {PioConstraint::at(pio(0x200, 4))}));
        device->received.clear();
    }
    CHECK(device->received == std::vector<DeviceResources>{DeviceResources{}});
    CHECK(allocator.state() == before);
}

TEST_CASE("DeviceManager: a device that throws at its move keeps its range",
          "[vmdevice][device_manager][exceptions]") {
    SystemAllocator allocator = small_machine();
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Thrower>();
    REQUIRE(manager.register_device(device, std::nullopt, {PioConstraint::at(pio(0x200, 4))}));
    const SystemAllocatorState before = allocator.state();
    device->throws_at_resources = true;
    device->received.clear();
    for (const PioRange to : {pio(0x300, 4), pio(0x202, 4), pio(0x1FE, 8), pio(0x200, 2)}) {
        CHECK_THROWS_AS(manager.move_pio(PioAddress{0x201}, to), std::runtime_error);
        CHECK(allocator.state() == before);
        CHECK(read_port(manager.io_manager(), 0x203) == 0x77);
        CHECK(read_port(manager.io_manager(), 0x303) == 0xFF);
        CHECK(manager.find(1)->resources.get_pio_address_ranges() == std::vector{pio(0x200, 4)});
        REQUIRE(device->received.size() == 2);
        CHECK(device->received[0].get_pio_address_ranges() == std::vector{to});
        CHECK(device->received[1].get_pio_address_ranges() == std::vector{pio(0x200, 4)});
        device->received.clear();
    }
    device->throws_at_resources = false;
    CHECK(manager.move_pio(PioAddress{0x201}, pio(0x300, 4)));
    CHECK(manager.unregister_device(1));
    CHECK(allocator.state() == small_machine().state());
}
