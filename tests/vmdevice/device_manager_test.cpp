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
#include <vmdevice/locked.hpp>
#include <vmdevice/port_view.hpp>

#include "catch.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::mmio;
using bus_tests::pio;

namespace {

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
    std::vector<DeviceResources> received;

    [[nodiscard]] std::string name() const override { return called_; }
    void read(std::uint64_t address, std::span<std::uint8_t> data, IoType type) override {
        accesses.push_back({address, data.size(), type, false});
        std::ranges::fill(data, std::uint8_t{0x5A});
    }
    void write(std::uint64_t address, std::span<const std::uint8_t> data, IoType type) override {
        accesses.push_back({address, data.size(), type, true});
    }
    void set_resources(const DeviceResources& resources) override { received.push_back(resources); }

private:
    std::string called_;
};

}  // namespace

TEST_CASE("DeviceManager: a device gets its resources, is notified, and is reached",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Dummy>();
    const auto id = manager.register_device(device, std::nullopt,
                                            {PioConstraint{.size = 8, .base = PioAddress{0xCF8}},
                                             MmioConstraint{.size = 0x1000}, LegacyIrqConstraint{}});
    REQUIRE(id == 1);
    REQUIRE(device->received.size() == 1);
    CHECK(device->received[0].get_pio_address_ranges() == std::vector{pio(0xCF8, 8)});
    CHECK(device->received[0].get_mmio_address_ranges() == std::vector{mmio(0xC000'0000, 0x1000)});
    CHECK(device->received[0].get_legacy_irq() == 4);

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

TEST_CASE("DeviceManager: unregistering frees everything", "[vmdevice][device_manager]") {
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
        CHECK(device->received.back().empty());
        CHECK(manager.unregister_device(*id).error() == DeviceManagerError::unknown_device);
    }
    std::array<std::uint8_t, 1> data{};
    CHECK(manager.read(0x100, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(device->accesses.empty());
    CHECK(manager.size() == 0);
}

TEST_CASE("DeviceManager: a registration that fails is undone completely", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Dummy>();
    const auto blocker = std::make_shared<Dummy>("blocker");

    SECTION("no device") { CHECK(manager.register_device(nullptr).error() == DeviceManagerError::no_device); }
    SECTION("a resource that is not available") {
        CHECK(manager
                  .register_device(device, std::nullopt,
                                   {PioConstraint{.size = 8}, MmioConstraint{.size = 0x1000},
                                    LegacyIrqConstraint{}, LegacyIrqConstraint{.irq = 3}})
                  .error() == DeviceManagerError::resource_unavailable);
        CHECK(device->received.empty());
    }
    SECTION("an unknown parent") {
        CHECK(manager.register_device(device, 7).error() == DeviceManagerError::unknown_parent);
        CHECK(device->received.empty());
    }
    SECTION("a range at which another device was registered directly") {
        struct Other : DeviceMmio {
            void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t>) override {}
            void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t>) override {}
        };
        REQUIRE(manager.io_manager().register_mmio(mmio(0xC000'0800, 1), std::make_shared<Other>()));
        const auto refused =
            manager.register_device(device, std::nullopt,
                                    {PioConstraint{.size = 8, .base = PioAddress{0x200}},
                                     MmioConstraint{.size = 0x1000, .base = MmioAddress{0xC000'0000}},
                                     LegacyIrqConstraint{.irq = 4}});
        CHECK(refused.error() == DeviceManagerError::bus_conflict);
        CHECK(to_string(refused.error()) ==
              "an address range is taken on the bus: memory range 0xc0000000-0xc0000fff: "
              "0xc0000800-0xc0000800 is "
              "registered on the bus directly");
        CHECK(device->received.empty());
        manager.io_manager().deregister_mmio(MmioAddress{0xC000'0800});
    }
    SECTION("a device that throws when it is notified") {
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
        CHECK(thrower->received.back().empty());
    }

    std::array<std::uint8_t, 1> data{};
    CHECK(manager.read(0x200, data, IoType::pio).error() == BusError::device_not_found);
    CHECK(manager.size() == 0);
    CHECK(manager.register_device(blocker, std::nullopt,
                                  {PioConstraint{.size = 0xF00}, MmioConstraint{.size = 0x10'0000},
                                   LegacyIrqConstraint{.irq = 4}}) == 1);
}

TEST_CASE("DeviceManager: buses are devices, and cannot be removed while they have children",
          "[vmdevice][device_manager]") {
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

TEST_CASE("DeviceManager: a device may remove itself from the tree and add others in its handler",
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
    // The next change of the bus releases the device that the handler was still inside.
    CHECK(manager.register_device(std::make_shared<Dummy>(), std::nullopt, {PioConstraint{.size = 4}}));
    CHECK(observer.expired());
}

TEST_CASE("DeviceManager: a device that implements a bus interface is called through it",
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

TEST_CASE("DeviceManager: a device is not visible before it is registered and while it is removed",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    struct Curious : Dummy {
        DeviceManager* manager = nullptr;
        std::size_t calls = 0;
        void set_resources(const DeviceResources&) override {
            ++calls;
            // Its own id is 1, because it is the first device.
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

TEST_CASE("DeviceManager: a device may implement one bus interface and use the manager's for the other",
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

TEST_CASE("DeviceManager: its destructor frees the resources", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    for (int i = 0; i < 3; ++i) {
        DeviceManager manager(allocator);
        CHECK(manager.register_device(std::make_shared<Dummy>(), std::nullopt,
                                      {PioConstraint{.size = 0xF00}, LegacyIrqConstraint{.irq = 7}}) == 1);
    }
    CHECK(allocator.allocate_irq(7) == 7);
}

TEST_CASE("DeviceManagerError: every error has its own text", "[vmdevice][error]") {
    const auto all = {DeviceManagerError::no_device,
                      DeviceManagerError::unknown_device,
                      DeviceManagerError::unknown_parent,
                      DeviceManagerError::has_children,
                      DeviceManagerError::resource_unavailable,
                      DeviceManagerError::bus_conflict,
                      DeviceManagerError::no_interface,
                      DeviceManagerError::busy,
                      DeviceManagerError::ending};
    CHECK(to_string(static_cast<DeviceManagerError>(0xFF)) == "unknown device manager error");
    for (const auto a : all) {
        for (const auto b : all) {
            CHECK((to_string(a) == to_string(b)) == (a == b));
        }
    }
}

namespace {

struct Registers {
    std::uint8_t value = 0x40;
    [[nodiscard]] std::uint8_t read(std::uint8_t offset) const {
        return static_cast<std::uint8_t>(value + offset);
    }
    void write(std::uint8_t, std::uint8_t byte) { value = byte; }
};
using Uart = Locked<ByteDevice<Registers>>;

std::uint8_t port(DeviceManager& manager, std::uint16_t address) {
    std::uint8_t byte = 0xFF;
    static_cast<void>(manager.read(address, {&byte, 1}, IoType::pio));
    return byte;
}

template <class Result>
std::string why(const Result& result) {
    return result ? "no error" : to_string(result.error());
}

}  // namespace

TEST_CASE("DeviceManager: takes a device of the library under a name", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto com1 = std::make_shared<Uart>();
    REQUIRE(manager.register_device("COM1", com1,
                                    {PioConstraint::at(pio(0x3F8, 8)), LegacyIrqConstraint{.irq = 4}}) == 1);
    // One device at two ports, with the port of another device between them.
    const auto i8042 = std::make_shared<PortView>(PioAddress{0x160}, std::make_shared<Uart>());
    const auto isa = manager.reserve("isa");
    REQUIRE(manager.register_device("i8042", i8042,
                                    {PioConstraint::at(pio(0x160, 1)), PioConstraint::at(pio(0x164, 1))},
                                    *isa) == 3);
    CHECK(port(manager, 0x3FA) == 0x42);
    CHECK(port(manager, 0x164) == 0x44);
    CHECK(port(manager, 0x161) == 0xFF);
    CHECK(manager.to_string() ==
          "1 COM1  pio 0x3f8-0x3ff  irq 4\n"
          "2 isa\n"
          "  3 i8042  pio 0x160-0x160  pio 0x164-0x164\n");
    const auto found = manager.find("COM1");
    REQUIRE(found);
    CHECK(found->pio == com1);
    CHECK(found->mmio == com1);
    CHECK(found->device == nullptr);
    CHECK(manager.io_manager().pio_owner(PioAddress{0x3F8})->second == com1);
    CHECK(manager.unregister_device(1)->pio == com1);
    CHECK(port(manager, 0x3FA) == 0xFF);
    CHECK(com1.use_count() == 3);  // `found` has it twice
    CHECK(manager.register_device("none", std::shared_ptr<Uart>()).error() == DeviceManagerError::no_device);
}

TEST_CASE("DeviceManager: a device with the interface of one bus is not registered on the other",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    const SystemAllocatorState before = allocator.state();
    DeviceManager manager(allocator);
    const auto view = std::make_shared<PortView>(PioAddress{0x200}, std::make_shared<Uart>());
    const auto refused =
        manager.register_device("view", view, {PioConstraint{.size = 1}, MmioConstraint{.size = 0x1000}});
    CHECK(refused.error() == DeviceManagerError::no_interface);
    CHECK(why(refused) ==
          "the device has no interface for the bus of one of its ranges: 0x1000 bytes of memory");
    CHECK(allocator.state() == before);
    CHECK(manager.io_manager().pio_size() == 0);
}

TEST_CASE("DeviceManager: a bus device with set_resources is notified like a Device",
          "[vmdevice][device_manager]") {
    struct Listening : DevicePio {
        std::vector<DeviceResources> received;
        void pio_read(PioAddress, PioOffset, std::span<std::uint8_t>) override {}
        void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}
        void set_resources(const DeviceResources& resources) { received.push_back(resources); }
    };
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto device = std::make_shared<Listening>();
    REQUIRE(manager.register_device("listening", device, {PioConstraint::at(pio(0x200, 4))}) == 1);
    REQUIRE(manager.move_pio(PioAddress{0x200}, pio(0x300, 4)));
    REQUIRE(manager.unregister_device(1));
    CHECK(device->received ==
          std::vector<DeviceResources>{{PioResource{pio(0x200, 4)}}, {PioResource{pio(0x300, 4)}}, {}});
    // A Device under another name than its own.
    const auto dummy = std::make_shared<Dummy>("dummy");
    REQUIRE(manager.register_device("eth0", dummy, {PioConstraint{.size = 1}}));
    CHECK(manager.find("eth0")->device == dummy);
    CHECK(port(manager, 0x100) == 0x5A);
}

TEST_CASE("DeviceManager: an interrupt line is shared if all devices request the same kind of sharing",
          "[vmdevice][device_manager][irq]") {
    SystemAllocator allocator(small_machine());
    const SystemAllocatorState before = allocator.state();
    DeviceManager manager(allocator);
    const auto uart = std::make_shared<Uart>();
    const auto line = [&](const char* name, std::uint32_t irq, IrqSharing sharing) {
        return manager.register_device(name, uart, {LegacyIrqConstraint{.irq = irq, .sharing = sharing}});
    };
    REQUIRE(line("COM1", 4, IrqSharing::edge) == 1);
    REQUIRE(line("COM3", 4, IrqSharing::edge) == 2);
    REQUIRE(line("net", 5, IrqSharing::level) == 3);
    REQUIRE(line("disk", 5, IrqSharing::level) == 4);
    REQUIRE(line("rtc", 6, IrqSharing::exclusive) == 5);

    CHECK(why(line("x", 4, IrqSharing::exclusive)) ==
          "a resource is not available: IRQ 4 is held by COM1, which shares it as an edge-triggered line");
    CHECK(why(line("x", 4, IrqSharing::level)) ==
          "a resource is not available: IRQ 4 is held by COM1, which shares it as an edge-triggered line");
    CHECK(why(line("x", 5, IrqSharing::edge)) ==
          "a resource is not available: IRQ 5 is held by net, which shares it as a level-triggered line");
    CHECK(why(line("x", 6, IrqSharing::exclusive)) == "a resource is not available: IRQ 6 is held by rtc");
    CHECK(why(line("x", 6, IrqSharing::edge)) ==
          "a resource is not available: IRQ 6 is held by rtc, which does not share it");
    CHECK(manager.size() == 5);
    CHECK(manager.find("COM3")->resources == DeviceResources{LegacyIrqResource{4, IrqSharing::edge}});

    const auto names = [&](std::uint32_t irq) {
        std::string all;
        for (const DeviceInfo& info : manager.irq_owners(irq)) {
            all += info.name + " ";
        }
        return all;
    };
    CHECK(names(4) == "COM1 COM3 ");
    CHECK(names(5) == "net disk ");
    CHECK(names(6) == "rtc ");
    CHECK(names(7).empty());

    // A shared line is free after the last device that has it was unregistered.
    REQUIRE(manager.unregister_device(1));
    CHECK(names(4) == "COM3 ");
    CHECK(why(line("x", 4, IrqSharing::exclusive)) ==
          "a resource is not available: IRQ 4 is held by COM3, which shares it as an edge-triggered line");
    REQUIRE(manager.unregister_device(2));
    const auto alone = line("alone", 4, IrqSharing::exclusive);
    REQUIRE(alone);
    // A line that one device has exclusively is not shared.
    CHECK_FALSE(line("x", 4, IrqSharing::edge));
    for (const DeviceInfo& info : manager.list()) {
        CHECK(manager.unregister_device(info.id));
    }
    CHECK(allocator.state() == before);
}

TEST_CASE("DeviceManager: an error names the resource that is not available and its holder",
          "[vmdevice][device_manager][errors]") {
    SystemAllocatorConfig config = small_machine();
    config.msi = *NumberRange::from_bounds(Number{32}, Number{39});
    config.kvm_mem_slots = *NumberRange::from_bounds(Number{0}, Number{3});
    SystemAllocator allocator(config);
    DeviceManager manager(allocator);
    const auto uart = std::make_shared<Uart>();
    REQUIRE(manager.register_device(
        "COM1", uart,
        {PioConstraint::at(pio(0x3F8, 8)), MmioConstraint::at(mmio(0xC000'1000, 0x1000)),
         LegacyIrqConstraint{.irq = 4}, MsiIrqConstraint{.type = MsiIrqType::pci_msi, .count = 4, .base = 34},
         MacAddressConstraint{.address = MacAddress{0x52, 0x54, 0, 0, 0, 9}},
         KvmMemSlotConstraint{.count = 1, .slot = 2}}));
    REQUIRE(manager.reserve("PIC", {PioConstraint::at(pio(0x120, 2))}));
    REQUIRE(allocator.allocate_irq(7) == 7);
    const SystemAllocatorState before = allocator.state();
    const auto refused = [&](ResourceConstraint wanted) {
        const auto result = manager.register_device("x", uart, {LegacyIrqConstraint{}, wanted});
        CHECK(allocator.state() == before);
        CHECK(manager.size() == 2);
        REQUIRE_FALSE(result);
        CHECK(result.error() == DeviceManagerError::resource_unavailable);
        return result.error().detail;
    };
    CHECK(refused(PioConstraint::at(pio(0x3F8, 8))) == "port range 0x3f8-0x3ff is held by COM1");
    CHECK(refused(PioConstraint::at(pio(0x3FF, 2))) == "port range 0x3ff-0x400: 0x3f8-0x3ff is held by COM1");
    CHECK(refused(PioConstraint::at(pio(0x121, 1))) == "port range 0x121-0x121: 0x120-0x121 is held by PIC");
    CHECK(refused(PioConstraint::at(pio(0x10, 1))) == "port range 0x10-0x10: outside the managed range");
    CHECK(refused(PioConstraint{.size = 0xF00}) == "3840 ports: no free range is large enough");
    CHECK(refused(PioConstraint{.size = 0, .base = PioAddress{0x200}}) == "0 ports at 0x200: a size of 0");
    CHECK(refused(MmioConstraint::at(mmio(0xC000'1800, 1))) ==
          "memory range 0xc0001800-0xc0001800: 0xc0001000-0xc0001fff is held by COM1");
    CHECK(refused(MmioConstraint{.size = 0x10'0000}) ==
          "0x100000 bytes of memory: no free range is large enough");
    CHECK(refused(MmioConstraint{.size = 1, .align = 3}) ==
          "0x1 bytes of memory: the alignment is not a power of two, or the address does not have it");
    CHECK(refused(LegacyIrqConstraint{.irq = 4}) == "IRQ 4 is held by COM1");
    CHECK(refused(LegacyIrqConstraint{.irq = 4, .count = 2}) == "2 IRQs from 4: IRQ 4 is held by COM1");
    CHECK(refused(LegacyIrqConstraint{.irq = 3}) == "IRQ 3: outside the managed range");
    CHECK(refused(LegacyIrqConstraint{.irq = 7}) == "IRQ 7: already allocated");
    CHECK(refused(LegacyIrqConstraint{.count = 2}) == "2 IRQs: not so many are free");
    CHECK(refused(MsiIrqConstraint{.type = MsiIrqType::generic, .count = 2, .base = 33}) ==
          "2 MSIs from 33: msi 34+4 is held by COM1");
    CHECK(refused(MsiIrqConstraint{.type = MsiIrqType::generic, .count = 5}) ==
          "5 MSIs: not so many are free");
    CHECK(refused(MacAddressConstraint{.address = MacAddress{0x52, 0x54, 0, 0, 0, 9}}) ==
          "MAC address 52:54:00:00:00:09 is held by COM1");
    CHECK(refused(KvmMemSlotConstraint{.count = 2, .slot = 1}) ==
          "2 memory slots from 1: slot 2 is held by COM1");
}

TEST_CASE("DeviceManager: ranges that were registered directly are avoided", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto direct = std::make_shared<Uart>();
    IoManager& io = manager.io_manager();
    REQUIRE(io.register_mmio(mmio(0xC000'0800, 1), direct));
    REQUIRE(io.register_pio(pio(0x100, 4), direct));
    REQUIRE(io.register_pio(pio(0xFF, 1), direct));  // touches no managed port
    const auto device = std::make_shared<Dummy>();
    const std::vector<ResourceConstraint> wanted = {PioConstraint{.size = 8}, MmioConstraint{.size = 0x1000}};
    for (int i = 0; i < 3; ++i) {
        const auto id = manager.register_device(device, std::nullopt, wanted);
        REQUIRE(id);
        CHECK(device->received.back() ==
              DeviceResources{PioResource{pio(0x104, 8)}, MmioResource{mmio(0xC000'1000, 0x1000)}});
        REQUIRE(manager.unregister_device(*id));
    }
    CHECK(device->received.size() == 6);
    CHECK(manager.register_device(device, std::nullopt, {PioConstraint::at(pio(0x102, 8))}).error() ==
          DeviceManagerError::bus_conflict);
    CHECK(device->received.size() == 6);
    // The allocator has not kept any of that, and the direct registrations are as they were.
    CHECK(allocator.state() == SystemAllocator(small_machine()).state());
    CHECK(io.pio_owner(PioAddress{0x103})->second == direct);
    CHECK(io.deregister_mmio(MmioAddress{0xC000'0800}));
    CHECK(manager.register_device(device, std::nullopt, wanted));
    CHECK(device->received.back().get_mmio_address_ranges() == std::vector{mmio(0xC000'0000, 0x1000)});
    // A request for all ports is refused.
    CHECK(manager.register_device(device, std::nullopt, {PioConstraint{.size = 0xEF5}}).error() ==
          DeviceManagerError::resource_unavailable);
}

TEST_CASE("DeviceManager: a device whose ranges were moved or removed directly can be unregistered",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    IoManager& io = manager.io_manager();
    const auto uart = std::make_shared<Uart>();
    const auto other = std::make_shared<Uart>();
    const auto id =
        manager.register_device("uart", uart,
                                {PioConstraint::at(pio(0x200, 8)), PioConstraint::at(pio(0x300, 8)),
                                 MmioConstraint::at(mmio(0xC000'0000, 0x1000))});
    // The same device a second time: its other registration stays.
    const auto twin = manager.register_device("twin", uart, {PioConstraint::at(pio(0x500, 8))});
    REQUIRE(io.move_pio(PioAddress{0x200}, pio(0x400, 8)));
    REQUIRE(io.deregister_pio(PioAddress{0x300}));
    REQUIRE(io.register_pio(pio(0x300, 8), other));
    const auto gone = manager.unregister_device(*id);
    REQUIRE(gone);
    CHECK(port(manager, 0x400) == 0xFF);
    CHECK(io.mmio_size() == 0);
    CHECK(io.pio_ranges() == std::vector{pio(0x300, 8), pio(0x500, 8)});
    CHECK(io.pio_owner(PioAddress{0x300})->second == other);
    CHECK(port(manager, 0x502) == 0x42);
    CHECK(manager.unregister_device(*twin));
    CHECK(io.pio_size() == 1);
    CHECK(uart.use_count() == 3);  // `gone` has it twice
    CHECK(allocator.state() == SystemAllocator(small_machine()).state());
}

TEST_CASE("DeviceManager: returns the owner of an address", "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    REQUIRE(manager.register_device("uart", std::make_shared<Uart>(),
                                    {PioConstraint::at(pio(0x200, 8)), PioConstraint::at(pio(0x300, 8)),
                                     MmioConstraint::at(mmio(0xC000'0000, 0x1000))}));
    REQUIRE(manager.reserve("hypervisor", {PioConstraint::at(pio(0x120, 2))}));
    CHECK(manager.owner(PioAddress{0x200})->name == "uart");
    CHECK(manager.owner(PioAddress{0x307})->name == "uart");
    CHECK(manager.owner(MmioAddress{0xC000'0FFF})->name == "uart");
    CHECK(manager.owner(PioAddress{0x121})->name == "hypervisor");
    CHECK_FALSE(manager.owner(PioAddress{0x208}));
    CHECK_FALSE(manager.owner(MmioAddress{0x200}));
    CHECK_FALSE(manager.owner(MmioAddress{0xC000'1000}));
}

TEST_CASE("DeviceManager: a reservation holds resources and answers no access",
          "[vmdevice][device_manager]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    const auto pic =
        manager.reserve("PIC", {PioConstraint::at(pio(0x120, 2)), LegacyIrqConstraint{.irq = 5}});
    REQUIRE(pic == 1);
    CHECK(manager.io_manager().pio_size() == 0);
    CHECK(port(manager, 0x120) == 0xFF);
    CHECK(manager.move_pio(PioAddress{0x120}, pio(0x130, 2)).error() == DeviceManagerError::unknown_device);
    CHECK(manager.find("PIC")->resources.size() == 2);
    const auto child = manager.reserve("child", {}, *pic);
    REQUIRE(child);
    CHECK(manager.unregister_device(*pic).error() == DeviceManagerError::has_children);
    CHECK(manager.unregister_device(*child));
    CHECK(manager.unregister_device(*pic));
    CHECK(allocator.state() == SystemAllocator(small_machine()).state());
}

TEST_CASE("DeviceManager: a BAR moves, also to a range that overlaps it and from its own handler",
          "[vmdevice][device_manager][move]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    struct Bar : DeviceMmio {
        DeviceManager* manager = nullptr;
        MmioRange next = mmio(0xC000'8000, 0x1000);
        std::vector<DeviceResources> received;
        void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t> data) override {
            std::ranges::fill(data, std::uint8_t{0x33});
        }
        void mmio_write(MmioAddress base, MmioOffset, std::span<const std::uint8_t>) override {
            CHECK(manager->move_mmio(base, next));
        }
        void set_resources(const DeviceResources& resources) { received.push_back(resources); }
    };
    const auto bar = std::make_shared<Bar>();
    bar->manager = &manager;
    const auto blocker = std::make_shared<Uart>();
    REQUIRE(manager.register_device("bar", bar,
                                    {LegacyIrqConstraint{}, MmioConstraint::at(mmio(0xC000'0000, 0x2000))}));
    REQUIRE(manager.register_device("blocker", blocker, {MmioConstraint::at(mmio(0xC000'4000, 0x1000))}));
    const auto is_at = [&](MmioRange range) {
        std::uint8_t byte = 0;
        CHECK(manager.io_manager().mmio_ranges().front() == range);
        CHECK(manager.read(range.last().value, {&byte, 1}, IoType::mmio));
        CHECK(manager.owner(range.base())->name == "bar");
        CHECK(manager.find("bar")->resources == DeviceResources{LegacyIrqResource{4}, MmioResource{range}});
        CHECK(bar->received.back() == manager.find("bar")->resources);
        CHECK(allocator.state().mmio.front() == range);
        CHECK(allocator.state().mmio.size() == 2);
    };
    is_at(mmio(0xC000'0000, 0x2000));
    for (const MmioRange to :
         {mmio(0xC000'1000, 0x2000), mmio(0xC000'0800, 0x3000), mmio(0xC000'1000, 0x100),
          mmio(0xC000'1000, 0x100), mmio(0xC000'0000, 0x4000), mmio(0xC000'0000, 0x1000)}) {
        REQUIRE(manager.move_mmio(manager.find("bar")->resources.get_mmio_address_ranges()[0].last(), to));
        is_at(to);
    }
    const std::size_t received = bar->received.size();
    const auto refused = manager.move_mmio(MmioAddress{0xC000'0000}, mmio(0xC000'4FFF, 1));
    CHECK(why(refused) ==
          "a resource is not available: memory range 0xc0004fff-0xc0004fff: 0xc0004000-0xc0004fff is held by "
          "blocker");
    CHECK(manager.move_mmio(MmioAddress{0xC000'0000}, mmio(0xD000'0000, 1)).error() ==
          DeviceManagerError::resource_unavailable);
    CHECK(manager.move_mmio(MmioAddress{0xC000'3000}, mmio(0xC000'9000, 1)).error() ==
          DeviceManagerError::unknown_device);
    CHECK(bar->received.size() == received);
    is_at(mmio(0xC000'0000, 0x1000));
    // The range is taken on the bus only: the device is notified of its old resources again.
    REQUIRE(manager.io_manager().register_mmio(mmio(0xC000'A000, 1), blocker));
    CHECK(manager.move_mmio(MmioAddress{0xC000'0000}, mmio(0xC000'9000, 0x2000)).error() ==
          DeviceManagerError::bus_conflict);
    is_at(mmio(0xC000'0000, 0x1000));
    CHECK(bar->received.size() == received + 2);
    const std::array<std::uint8_t, 1> data{};
    REQUIRE(manager.write(0xC000'0000, data, IoType::mmio));
    CHECK(manager.owner(MmioAddress{0xC000'8FFF})->name == "bar");
    CHECK_FALSE(manager.write(0xC000'0000, data, IoType::mmio));
    // The guest may repeat this any number of times.
    for (int i = 0; i < 200; ++i) {
        bar->next = mmio(0xC000'8000 + (i % 2 == 0 ? 0x800 : 0), 0x1000);
        REQUIRE(manager.write(bar->received.back().get_mmio_address_ranges()[0].base().value, data,
                              IoType::mmio));
    }
    CHECK(allocator.state().mmio.size() == 2);
}

TEST_CASE("DeviceManager: other calls do not change a device that is being moved",
          "[vmdevice][device_manager][move]") {
    SystemAllocator allocator(small_machine());
    DeviceManager manager(allocator);
    struct Meddler : Dummy {
        DeviceManager* manager = nullptr;
        int moves = 0;
        void set_resources(const DeviceResources&) override {
            if (!manager->find(1)) {
                return;
            }
            ++moves;
            CHECK(manager->unregister_device(1).error() == DeviceManagerError::busy);
            CHECK(manager->move_pio(PioAddress{0x200}, pio(0x500, 4)).error() == DeviceManagerError::busy);
            CHECK(manager->size() == 1);
            // The old range and the new one are both allocated.
            CHECK_FALSE(manager->register_device(std::make_shared<Dummy>(), std::nullopt,
                                                 {PioConstraint::at(pio(0x200, 1))}));
            CHECK_FALSE(manager->register_device(std::make_shared<Dummy>(), std::nullopt,
                                                 {PioConstraint::at(pio(0x300, 1))}));
        }
    };
    const auto device = std::make_shared<Meddler>();
    device->manager = &manager;
    REQUIRE(manager.register_device(device, std::nullopt, {PioConstraint::at(pio(0x200, 4))}) == 1);
    REQUIRE(manager.move_pio(PioAddress{0x200}, pio(0x300, 4)));
    CHECK(device->moves == 1);
    CHECK(manager.unregister_device(1));
    CHECK(allocator.state() == SystemAllocator(small_machine()).state());
}

TEST_CASE("DeviceManager: the devices of a saved machine are restored with their ids and resources",
          "[vmdevice][device_manager][state]") {
    const auto uart = std::make_shared<Uart>();
    SystemAllocatorState saved;
    std::vector<DeviceRecord> records;
    std::string tree;
    {
        SystemAllocator allocator(small_machine());
        DeviceManager manager(allocator);
        REQUIRE(manager.reserve("gone"));
        const auto bus = manager.reserve("isa");
        const LegacyIrqConstraint line{.irq = 4, .sharing = IrqSharing::edge};
        REQUIRE(manager.register_device("COM1", uart, {PioConstraint::at(pio(0x3F8, 8)), line}, *bus));
        REQUIRE(manager.register_device("COM3", uart, {PioConstraint::at(pio(0x3E8, 8)), line}, *bus));
        REQUIRE(manager.unregister_device(1));
        for (const DeviceInfo& info : manager.list()) {
            records.push_back(info.record());
        }
        saved = allocator.state();
        tree = manager.to_string();
    }
    auto allocator = SystemAllocator::from_state(saved);
    REQUIRE(allocator);
    DeviceManager manager(*allocator);
    REQUIRE(manager.restore_reservation(records[0]) == 2);
    REQUIRE(manager.restore_device(records[1], uart) == 3);

    const auto refused = [&](DeviceRecord record) {
        const auto result = manager.restore_device(record, uart);
        CHECK(allocator->state() == saved);
        CHECK(manager.size() == 2);
        return why(result);
    };
    CHECK(refused(records[1]) == "a resource is not available: instance id 3");
    DeviceRecord record = records[2];
    record.id = 77;
    CHECK(refused(record) == "a resource is not available: instance id 77");
    record = records[2];
    record.resources = {PioResource{pio(0x3F8, 8)}};
    CHECK(refused(record) == "a resource is not available: pio 0x3f8-0x3ff");
    record.resources = {PioResource{pio(0x3E8, 4)}};
    CHECK(refused(record) == "a resource is not available: pio 0x3e8-0x3eb");
    record.resources = {LegacyIrqResource{4, IrqSharing::edge}, LegacyIrqResource{4, IrqSharing::edge}};
    CHECK(refused(record) == "a resource is not available: irq 4 (shared, edge)");
    record.resources = {LegacyIrqResource{4}};
    CHECK(refused(record) == "a resource is not available: irq 4");
    record = records[2];
    record.parent = 99;
    CHECK(refused(record) == "the parent bus is not registered");

    REQUIRE(manager.restore_device(records[2], uart) == 4);
    CHECK(manager.to_string() == tree);
    CHECK(allocator->state() == saved);
    CHECK(port(manager, 0x3EA) == 0x42);
    // They are devices like any others from now on.
    for (const InstanceId id : {4U, 3U, 2U}) {
        CHECK(manager.unregister_device(id));
    }
    CHECK(allocator->state() == SystemAllocator(small_machine()).state());
}
