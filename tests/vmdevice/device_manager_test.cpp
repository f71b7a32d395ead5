// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/device_manager.hpp>

#include "catch.hpp"

using namespace vmdevice;

namespace {

PioRange pio(std::uint16_t base, std::uint16_t size) {
    return PioRange::create(PioAddress{base}, size).value();
}
MmioRange mmio(std::uint64_t base, std::uint64_t size) {
    return MmioRange::create(MmioAddress{base}, size).value();
}

SystemAllocatorConfig small_machine() {
    return {.pio = pio(0x100, 0xF00),
            .mmio = mmio(0xC000'0000, 0x10'0000),
            .irq = *NumberRange::from_bounds(Number{4}, Number{7})};
}

struct Access {
    std::uint64_t address;
    std::size_t length;
    IoType type;
    bool write;
    friend bool operator==(const Access&, const Access&) = default;
};

struct Dummy : Device {
    explicit Dummy(std::string called = "dummy") : called_(std::move(called)) {}
    std::vector<Access> accesses;
    std::vector<DeviceResources> told;

    [[nodiscard]] std::string name() const override { return called_; }
    void read(std::uint64_t address, std::span<std::uint8_t> data, IoType type) override {
        accesses.push_back({address, data.size(), type, false});
        std::ranges::fill(data, std::uint8_t{0x5A});
    }
    void write(std::uint64_t address, std::span<const std::uint8_t> data, IoType type) override {
        accesses.push_back({address, data.size(), type, true});
    }
    void set_resources(const DeviceResources& resources) override { told.push_back(resources); }

private:
    std::string called_;
};

}  // namespace

TEST_CASE("DeviceManager: a device gets its resources, is told, and is reached",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Dummy>();
    const auto id = manager.register_device(device, std::nullopt,
                                            {PioConstraint{.size = 8, .base = PioAddress{0xCF8}},
                                             MmioConstraint{.size = 0x1000}, LegacyIrqConstraint{}});
    REQUIRE(id == 1);
    REQUIRE(device->told.size() == 1);
    CHECK(device->told[0].get_pio_address_ranges() == std::vector{pio(0xCF8, 8)});
    CHECK(device->told[0].get_mmio_address_ranges() == std::vector{mmio(0xC000'0000, 0x1000)});
    CHECK(device->told[0].get_legacy_irq() == 4);

    std::array<std::uint8_t, 4> data{};
    CHECK(manager.read(0xCFC, data, IoType::pio));
    CHECK(data[3] == 0x5A);
    CHECK(manager.write(0xC000'0FFC, data, IoType::mmio));
    data = {};
    CHECK(manager.read(0xC000'0010, data, IoType::mmio));
    CHECK(data[0] == 0x5A);
    CHECK(manager.io_manager().pio_read(PioAddress{0xCF8}, std::span(data).first(1)));
    CHECK(device->accesses == std::vector<Access>{{0xCFC, 4, IoType::pio, false},
                                                  {0xC000'0FFC, 4, IoType::mmio, true},
                                                  {0xC000'0010, 4, IoType::mmio, false},
                                                  {0xCF8, 1, IoType::pio, false}});
    CHECK(manager.read(0xCFD, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(manager.read(0x1'0CF8, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(manager.write(0x1'0CF8, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(manager.write(0xC000'1000, data, IoType::mmio).error() == BusError::device_not_found);
    CHECK(device->accesses.size() == 4);
}

TEST_CASE("DeviceManager: unregistering gives everything back", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Dummy>();
    for (int i = 0; i < 10; ++i) {
        const auto id = manager.register_device(
            device, std::nullopt, {PioConstraint{.size = 0xF00}, LegacyIrqConstraint{.irq = 4}});
        REQUIRE(id == 1);
        const auto gone = manager.unregister_device(*id);
        REQUIRE(gone);
        CHECK(gone->device == device);
        CHECK(gone->name == "dummy");
        CHECK(device->told.back().empty());
        CHECK(manager.unregister_device(*id).error() == DeviceManagerError::unknown_device);
    }
    std::array<std::uint8_t, 1> data{};
    CHECK(manager.read(0x100, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(device->accesses.empty());
    CHECK(manager.size() == 0);
}

TEST_CASE("DeviceManager: a registration that fails is undone whole", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Dummy>();
    const auto blocker = std::make_shared<Dummy>("blocker");

    SECTION("no device") { CHECK(manager.register_device(nullptr).error() == DeviceManagerError::no_device); }
    SECTION("a resource that is not to be had") {
        CHECK(manager
                  .register_device(device, std::nullopt,
                                   {PioConstraint{.size = 8}, MmioConstraint{.size = 0x1000},
                                    LegacyIrqConstraint{}, LegacyIrqConstraint{.irq = 3}})
                  .error() == DeviceManagerError::resource_unavailable);
        CHECK(device->told.empty());
    }
    SECTION("an unknown parent") {
        CHECK(manager.register_device(device, 7).error() == DeviceManagerError::unknown_parent);
        CHECK(device->told.empty());
    }
    SECTION("a range that somebody else put a device at") {
        struct Other : DeviceMmio {
            void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t>) override {}
            void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t>) override {}
        };
        REQUIRE(manager.io_manager().register_mmio(mmio(0xC000'0800, 1), std::make_shared<Other>()));
        CHECK(manager
                  .register_device(device, std::nullopt,
                                   {PioConstraint{.size = 8, .base = PioAddress{0x200}},
                                    MmioConstraint{.size = 0x1000}, LegacyIrqConstraint{.irq = 4}})
                  .error() == DeviceManagerError::bus_conflict);
        REQUIRE(device->told.size() == 2);
        CHECK(device->told[0].size() == 3);
        CHECK(device->told[1].empty());
        manager.io_manager().deregister_mmio(MmioAddress{0xC000'0800});
    }
    SECTION("a device that throws when it is told") {
        struct Thrower : Dummy {
            void set_resources(const DeviceResources& resources) override {
                Dummy::set_resources(resources);
                if (!resources.empty()) {
                    throw std::runtime_error("no");
                }
            }
        };
        const auto thrower = std::make_shared<Thrower>();
        CHECK_THROWS_AS(
            manager.register_device(thrower, std::nullopt,
                                    {PioConstraint{.size = 0xF00}, LegacyIrqConstraint{.irq = 4}}),
            std::runtime_error);
        CHECK(thrower->told.back().empty());
    }

    std::array<std::uint8_t, 1> data{};
    CHECK(manager.read(0x200, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(manager.size() == 0);
    CHECK(manager.register_device(blocker, std::nullopt,
                                  {PioConstraint{.size = 0xF00}, MmioConstraint{.size = 0x10'0000},
                                   LegacyIrqConstraint{.irq = 4}}) == 1);
}

TEST_CASE("DeviceManager: buses are devices, and hold their children", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto bus = manager.register_device(std::make_shared<Dummy>("pci"));
    const auto serial = manager.register_device(
        std::make_shared<Dummy>("serial"), std::nullopt,
        {PioConstraint{.size = 8, .base = PioAddress{0x3F8}}, LegacyIrqConstraint{.irq = 4}});
    const auto bridge = manager.register_device(std::make_shared<Dummy>("bridge"), *bus);
    const auto net = manager.register_device(
        std::make_shared<Dummy>("net"), *bridge,
        {MmioConstraint{.size = 0x1000}, LegacyIrqConstraint{}, MacAddressConstraint{}});
    REQUIRE(net);
    CHECK(manager.size() == 4);
    CHECK(manager.to_string() ==
          "1 pci\n"
          "  3 bridge\n"
          "    4 net  mmio 0xc0000000-0xc0000fff  irq 5  mac 52:54:00:00:00:00\n"
          "2 serial  pio 0x3f8-0x3ff  irq 4\n");
    CHECK(manager.find("net")->id == *net);
    CHECK(manager.find("net")->parent == *bridge);
    CHECK(manager.find(*serial)->name == "serial");
    CHECK_FALSE(manager.find("disk"));
    CHECK_FALSE(manager.find(99));
    CHECK(manager.list().size() == 4);

    CHECK(manager.unregister_device(*bus).error() == DeviceManagerError::has_children);
    CHECK(manager.unregister_device(*bridge).error() == DeviceManagerError::has_children);
    CHECK(manager.unregister_device(*net));
    CHECK(manager.unregister_device(*bridge));
    CHECK(manager.unregister_device(*bus));
    CHECK(manager.to_string() == "2 serial  pio 0x3f8-0x3ff  irq 4\n");
    CHECK(manager.register_device(std::make_shared<Dummy>("child"), *bus).error() ==
          DeviceManagerError::unknown_parent);
}

TEST_CASE("DeviceManager: a device may take itself out of the tree and add others from its handler",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    struct Hotplug : Dummy {
        DeviceManager* manager = nullptr;
        InstanceId id = 0;
        void write(std::uint64_t, std::span<const std::uint8_t>, IoType) override {
            CHECK(manager->register_device(std::make_shared<Dummy>("new"), id, {PioConstraint{.size = 4}}));
            CHECK(manager->unregister_device(manager->find("new")->id));
            CHECK(manager->unregister_device(id));
        }
    };
    auto device = std::make_shared<Hotplug>();
    device->manager = &manager;
    device->id = *manager.register_device(device, std::nullopt, {PioConstraint{.size = 4}});
    const std::weak_ptr<Hotplug> observer = device;
    device.reset();
    std::array<std::uint8_t, 1> data{};
    CHECK(manager.write(0x100, data, IoType::pio));
    CHECK(manager.write(0x100, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(manager.size() == 0);
    // The next change of the bus lets go of what the handler was still inside.
    CHECK(manager.register_device(std::make_shared<Dummy>(), std::nullopt, {PioConstraint{.size = 4}}));
    CHECK(observer.expired());
}

TEST_CASE("DeviceManager: a device with a bus interface of its own is called through that",
          "[vmdevice][device_manager]") {
    struct Registers {
        std::uint8_t value = 7;
        [[nodiscard]] std::uint8_t read(std::uint8_t offset) const {
            return static_cast<std::uint8_t>(value + offset);
        }
        void write(std::uint8_t, std::uint8_t) {}
    };
    struct Port : Dummy, ByteDevice<Registers> {};
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Port>();
    REQUIRE(
        manager.register_device(device, std::nullopt, {PioConstraint{.size = 4, .base = PioAddress{0x200}}}));
    std::array<std::uint8_t, 2> data{};
    CHECK(manager.read(0x201, data, IoType::pio));
    CHECK(data == std::array<std::uint8_t, 2>{8, 9});
    CHECK(device->accesses.empty());
}

TEST_CASE("DeviceManager: the tree names resources of every kind", "[vmdevice][device_manager]") {
    SystemAllocator allocator({.msi = *NumberRange::from_bounds(Number{32}, Number{63}),
                               .kvm_mem_slots = *NumberRange::from_bounds(Number{2}, Number{9})});
    DeviceManager manager(allocator);
    REQUIRE(manager.register_device(std::make_shared<Dummy>("its"), std::nullopt,
                                    {MsiIrqConstraint{.type = MsiIrqType::generic, .count = 3},
                                     MsiIrqConstraint{.type = MsiIrqType::pci_msi},
                                     MsiIrqConstraint{.type = MsiIrqType::pci_msix, .count = 2},
                                     MacAddressConstraint{.address = MacAddress{0x02, 0, 0xAB, 0, 0, 0x1F}},
                                     KvmMemSlotConstraint{.count = 2}}));
    CHECK(manager.to_string() ==
          "1 its  generic-msi 32+3  msi 35+1  msi-x 36+2  mac 02:00:ab:00:00:1f  slot 2  slot 3\n");
}

TEST_CASE("DeviceManager: a device that is still coming or already going is nobody's",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    struct Curious : Dummy {
        DeviceManager* manager = nullptr;
        std::size_t calls = 0;
        void set_resources(const DeviceResources&) override {
            ++calls;
            // Its own id is 1, as that of the first device.
            CHECK(manager->size() == 0);
            CHECK_FALSE(manager->find(1));
            CHECK_FALSE(manager->find("dummy"));
            CHECK(manager->unregister_device(1).error() == DeviceManagerError::unknown_device);
            CHECK(manager->register_device(std::make_shared<Dummy>("child"), 1).error() ==
                  DeviceManagerError::unknown_parent);
        }
    };
    const auto device = std::make_shared<Curious>();
    device->manager = &manager;
    REQUIRE(manager.register_device(device) == 1);
    CHECK(manager.size() == 1);
    REQUIRE(manager.unregister_device(1));
    CHECK(device->calls == 2);
}

TEST_CASE("DeviceManager: one interface of its own, and the other through the manager",
          "[vmdevice][device_manager]") {
    struct Ports : Dummy, DevicePio {
        void pio_read(PioAddress, PioOffset offset, std::span<std::uint8_t> data) override {
            data[0] = static_cast<std::uint8_t>(0x10 + offset);
        }
        void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}
    };
    struct Memory : Dummy, DeviceMmio {
        void mmio_read(MmioAddress, MmioOffset offset, std::span<std::uint8_t> data) override {
            data[0] = static_cast<std::uint8_t>(0x20 + offset);
        }
        void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t>) override {}
    };
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto ports = std::make_shared<Ports>();
    const auto memory = std::make_shared<Memory>();
    const std::vector<ResourceConstraint> both = {PioConstraint{.size = 8}, MmioConstraint{.size = 0x1000}};
    REQUIRE(manager.register_device(ports, std::nullopt, both));
    REQUIRE(manager.register_device(memory, std::nullopt, both));
    std::array<std::uint8_t, 1> data{};
    CHECK(manager.read(0x101, data, IoType::pio));
    CHECK(data[0] == 0x11);
    CHECK(manager.read(0xC000'0002, data, IoType::mmio));
    CHECK(data[0] == 0x5A);
    CHECK(manager.read(0x109, data, IoType::pio));
    CHECK(data[0] == 0x5A);
    CHECK(manager.read(0xC000'1002, data, IoType::mmio));
    CHECK(data[0] == 0x22);
    CHECK(ports->accesses == std::vector<Access>{{0xC000'0002, 1, IoType::mmio, false}});
    CHECK(memory->accesses == std::vector<Access>{{0x109, 1, IoType::pio, false}});
}

TEST_CASE("DeviceManager: its end gives the resources back", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    for (int i = 0; i < 3; ++i) {
        DeviceManager manager(allocator);
        CHECK(manager.register_device(std::make_shared<Dummy>(), std::nullopt,
                                      {PioConstraint{.size = 0xF00}, LegacyIrqConstraint{.irq = 7}}) == 1);
    }
    CHECK(allocator.allocate_irq(7) == 7);
}

TEST_CASE("DeviceManagerError: every error has words of its own", "[vmdevice][error]") {
    const auto all = {DeviceManagerError::no_device,
                      DeviceManagerError::unknown_device,
                      DeviceManagerError::unknown_parent,
                      DeviceManagerError::has_children,
                      DeviceManagerError::resource_unavailable,
                      DeviceManagerError::bus_conflict};
    CHECK(to_string(static_cast<DeviceManagerError>(0xFF)) == "unknown device manager error");
    for (const auto a : all) {
        for (const auto b : all) {
            CHECK((to_string(a) == to_string(b)) == (a == b));
        }
    }
}
