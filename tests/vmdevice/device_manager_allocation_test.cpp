// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Every public operation of the allocators and of DeviceManager when memory runs out: each allocation fails
// in turn, and after each failure nothing has changed.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/device_manager.hpp>
#include <vmdevice/locked.hpp>

#include "failing_allocations.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::mmio;
using bus_tests::pio;
using test_support::allocations;
using test_support::fail_each_allocation;

namespace {

SystemAllocatorConfig small_machine() {
    return {.pio = pio(0x100, 0xF00),
            .mmio = mmio(0xC000'0000, 0x10'0000),
            .irq = *NumberRange::from_bounds(Number{4}, Number{9}),
            .msi = *NumberRange::from_bounds(Number{32}, Number{63}),
            .kvm_mem_slots = *NumberRange::from_bounds(Number{0}, Number{15})};
}

const std::array<ResourceConstraint, 8>& all_kinds() {
    static const std::array<ResourceConstraint, 8> all = {
        PioConstraint{.size = 8},
        PioConstraint::at(pio(0x400, 4)),
        MmioConstraint{.size = 0x1000},
        LegacyIrqConstraint{.count = 2},
        LegacyIrqConstraint{.irq = 9, .sharing = IrqSharing::level},
        MsiIrqConstraint{.type = MsiIrqType::pci_msix, .count = 4},
        MacAddressConstraint{},
        KvmMemSlotConstraint{.count = 3},
    };
    return all;
}

struct Registers {
    [[nodiscard]] std::uint8_t read(std::uint8_t offset) const {
        return static_cast<std::uint8_t>(0x40 + offset);
    }
    void write(std::uint8_t, std::uint8_t) {}
};
using Uart = Locked<ByteDevice<Registers>>;

// Copies its resources into a container of its own, so that set_resources may run out of memory as well.
struct Listener : Device {
    DeviceResources resources;
    [[nodiscard]] std::string name() const override {
        return "a name that is too long for the small buffer of a string";
    }
    void read(std::uint64_t, std::span<std::uint8_t> data, IoType) override {
        std::ranges::fill(data, std::uint8_t{0x5A});
    }
    void write(std::uint64_t, std::span<const std::uint8_t>, IoType) override {}
    void set_resources(const DeviceResources& now) override { resources = now; }
};

// The state of a machine that the guest and the host can observe.
struct View {
    SystemAllocatorState allocated;
    std::vector<DeviceRecord> devices;
    std::vector<PioRange> ports;
    std::vector<MmioRange> memory;
    std::vector<std::uint8_t> answers;
    friend bool operator==(const View&, const View&) = default;
};

struct Machine {
    SystemAllocator allocator{small_machine()};
    DeviceManager manager{allocator};
    std::shared_ptr<Listener> listener = std::make_shared<Listener>();
    std::shared_ptr<Uart> uart = std::make_shared<Uart>();

    [[nodiscard]] View view() {
        View view{
            allocator.state(), {}, manager.io_manager().pio_ranges(), manager.io_manager().mmio_ranges(), {}};
        for (const DeviceInfo& info : manager.list()) {
            view.devices.push_back(info.record());
        }
        const auto look = [&](std::uint64_t address, IoType type) {
            std::uint8_t byte = 0xFF;
            static_cast<void>(manager.read(address, {&byte, 1}, type));
            view.answers.push_back(byte);
        };
        for (std::uint64_t address = 0x100; address < 0x500; ++address) {
            look(address, IoType::pio);
        }
        for (std::uint64_t address = 0xC000'0000; address < 0xC000'8000; address += 0x800) {
            look(address, IoType::mmio);
        }
        return view;
    }
};

// Runs `operation` on the machine that `prepare` creates until no allocation fails. Checks that each failure
// changes nothing, that success changes something, and that all memory is freed.
template <class Prepare, class Operation>
void check_all_or_nothing(Prepare prepare, Operation operation) {
    const auto outstanding = allocations.outstanding;
    {
        Machine machine;
        prepare(machine);
        const View before = machine.view();
        const auto owners = machine.uart.use_count() + machine.listener.use_count();
        const auto failures = fail_each_allocation(
            [&] { return operation(machine); },
            [&] {
                REQUIRE(machine.view() == before);
                REQUIRE(machine.uart.use_count() + machine.listener.use_count() == owners);
            });
        CHECK(failures != 0);
        CHECK_FALSE(machine.view() == before);
    }
    CHECK(allocations.outstanding == outstanding);
}

// The same for operations that only read.
template <class Operation>
void check_unchanged(Machine& machine, Operation operation) {
    const View before = machine.view();
    CHECK(fail_each_allocation(operation, [&] { REQUIRE(machine.view() == before); }) != 0);
    CHECK(machine.view() == before);
}

void nothing(Machine&) {}

}  // namespace

TEST_CASE("RangeAllocator: if memory runs out nothing has changed, and freeing needs no memory",
          "[vmdevice][allocator][memory]") {
    const auto outstanding = allocations.outstanding;
    {
        RangeAllocator<MmioAddress> space(mmio(0x1000, 0x100'0000));
        std::vector<MmioRange> given;
        given.reserve(300);
        std::uint64_t failures = 0;
        for (unsigned i = 0; i < 300; ++i) {
            const auto before = space.allocations();
            failures += fail_each_allocation(
                [&] {
                    const auto range =
                        space.allocate(0x100, i % 3 == 0 ? 0x1000 : 0x100,
                                       i % 2 == 0 ? AllocPolicy::first_match : AllocPolicy::last_match);
                    if (range) {
                        given.push_back(*range);
                    }
                    return range.has_value();
                },
                [&] { REQUIRE(space.allocations() == before); });
        }
        CHECK(failures != 0);
        // Freeing works in a copy as well as in the original.
        RangeAllocator<MmioAddress> copy = space;
        const auto made = allocations.made;
        for (std::size_t i = 0; i < given.size(); ++i) {
            // In an order that leaves the greatest possible number of free parts.
            const MmioRange& range = given[i < 150 ? 2 * i : 2 * (i - 150) + 1];
            CHECK(copy.free(range));
            CHECK(space.free(range));
        }
        CHECK(allocations.made == made);
        CHECK(space.allocated() + copy.allocated() == 0);
        CHECK(space.is_free(mmio(0x1000, 0x100'0000)));

        const MmioRange from = *space.allocate(0x1000);
        const auto before = space.allocations();
        std::optional<RangeAllocator<MmioAddress>> fresh;
        fail_each_allocation(
            [&] {
                fresh.emplace(mmio(0x1000, 0x100'0000));
                static_cast<void>(fresh->allocate_exact(from.base(), from.size()));
                return fresh->begin_move(from, mmio(from.base().value + 0x800, 0x1000)).has_value();
            },
            [&] { REQUIRE(space.allocations() == before); });
        CHECK(fresh->allocated() == 2);
    }
    CHECK(allocations.outstanding == outstanding);
}

TEST_CASE("SystemAllocator: every operation is done completely or not at all if memory runs out",
          "[vmdevice][allocator][memory]") {
    const auto outstanding = allocations.outstanding;
    {
        SystemAllocator allocator(small_machine());
        REQUIRE(allocator.allocate_irq(8, IrqSharing::edge));
        SystemAllocatorState before = allocator.state();
        const auto check = [&](auto operation) {
            before = allocator.state();
            const auto failures = fail_each_allocation([&] { return operation(); },
                                                       [&] { REQUIRE(allocator.state() == before); });
            CHECK_FALSE(allocator.state() == before);
            return failures;
        };
        CHECK(check([&] { return allocator.allocate(all_kinds()).has_value(); }) != 0);
        CHECK(check([&] { return allocator.allocate_irqs(2).has_value(); }) != 0);
        CHECK(check([&] { return allocator.allocate_irq(std::nullopt, IrqSharing::level).has_value(); }) !=
              0);
        check([&] { return allocator.allocate_irq(9, IrqSharing::level).has_value(); });
        check([&] { return allocator.allocate_pio(8).has_value(); });
        check([&] { return allocator.allocate_mmio(8).has_value(); });
        check([&] { return allocator.allocate_msi(8).has_value(); });
        check([&] { return allocator.allocate_kvm_mem_slot().has_value(); });
        check([&] { return allocator.allocate_instance_id().has_value(); });
        // Refused after most of it was allocated.
        std::vector<ResourceConstraint> too_much = {
            PioConstraint{.size = 4}, KvmMemSlotConstraint{.count = 2}, MmioConstraint{.size = 0x20'0000}};
        before = allocator.state();
        fail_each_allocation([&] { return allocator.allocate(too_much).error() == AllocError::exhausted; },
                             [&] { REQUIRE(allocator.state() == before); });
        CHECK(allocator.state() == before);
    }
    CHECK(allocations.outstanding == outstanding);
}

TEST_CASE("SystemAllocator: a state is saved and restored completely or not at all if memory runs out",
          "[vmdevice][allocator][memory][state]") {
    const auto outstanding = allocations.outstanding;
    {
        SystemAllocator allocator(small_machine());
        REQUIRE(allocator.allocate(all_kinds()));
        const SystemAllocatorState state = allocator.state();
        const auto unchanged = [&] { REQUIRE(allocator.state() == state); };
        CHECK(fail_each_allocation([&] { return allocator.state() == state; }, unchanged) != 0);
        std::vector<std::uint8_t> bytes;
        CHECK(fail_each_allocation(
                  [&] {
                      bytes = encode(state);
                      return true;
                  },
                  unchanged) != 0);
        CHECK(fail_each_allocation([&] { return decode<SystemAllocatorState>(bytes) == state; }, unchanged) !=
              0);
        CHECK(fail_each_allocation(
                  [&] {
                      const auto restored = SystemAllocator::from_state(state);
                      return restored && restored->irq_holders(9) == 1;
                  },
                  unchanged) != 0);
    }
    CHECK(allocations.outstanding == outstanding);
}

TEST_CASE("DeviceManager: a registration is done completely or not at all if memory runs out",
          "[vmdevice][device_manager][memory]") {
    SECTION("of a Device") {
        check_all_or_nothing(nothing, [](Machine& machine) {
            const auto id = machine.manager.register_device(machine.listener, std::nullopt, all_kinds());
            return id.has_value() && machine.listener->resources.size() == 11;
        });
    }
    SECTION("of a ready device, with a parent") {
        check_all_or_nothing([](Machine& machine) { REQUIRE(machine.manager.reserve("bus") == 1); },
                             [](Machine& machine) {
                                 return machine.manager.register_device(
                                            "a name that is too long for the small buffer", machine.uart,
                                            all_kinds(), 1) == 2;
                             });
    }
    SECTION("beside a device that was registered directly") {
        check_all_or_nothing(
            [](Machine& machine) {
                REQUIRE(machine.manager.io_manager().register_pio(pio(0x104, 4), machine.uart));
                REQUIRE(machine.manager.io_manager().register_mmio(mmio(0xC000'0800, 4), machine.uart));
            },
            [](Machine& machine) {
                return machine.manager.register_device("uart", machine.uart, all_kinds()).has_value();
            });
    }
    SECTION("of a reservation") {
        check_all_or_nothing(nothing, [](Machine& machine) {
            return machine.manager.reserve("a name that is too long for the small buffer", all_kinds())
                .has_value();
        });
    }
    SECTION("of many") {
        check_all_or_nothing(
            [](Machine& machine) {
                for (std::uint16_t i = 0; i < 64; ++i) {
                    const auto base = static_cast<std::uint16_t>(0x200 + 2 * i);
                    REQUIRE(machine.manager.register_device("uart", machine.uart,
                                                            {PioConstraint::at(pio(base, 1))}));
                }
            },
            [](Machine& machine) {
                return machine.manager.register_device("uart", machine.uart, all_kinds()).has_value();
            });
    }
}

TEST_CASE("DeviceManager: a registration that is refused changes nothing if memory runs out",
          "[vmdevice][device_manager][memory]") {
    const auto outstanding = allocations.outstanding;
    {
        Machine machine;
        REQUIRE(machine.manager.register_device("COM1", machine.uart, {LegacyIrqConstraint{.irq = 4}}));
        REQUIRE(machine.manager.io_manager().register_pio(pio(0x104, 4), machine.uart));
        const auto refused = [&](std::vector<ResourceConstraint> wanted) {
            check_unchanged(machine, [&] {
                const auto result = machine.manager.register_device("x", machine.uart, wanted);
                return !result && !result.error().detail.empty();
            });
        };
        refused({PioConstraint{.size = 8}, LegacyIrqConstraint{.irq = 4}});
        refused({PioConstraint{.size = 8}, PioConstraint::at(pio(0x100, 8))});
        refused({MmioConstraint{.size = 0x20'0000}});
    }
    CHECK(allocations.outstanding == outstanding);
}

TEST_CASE("DeviceManager: a removal is done completely or not at all if memory runs out",
          "[vmdevice][device_manager][memory]") {
    const auto prepare = [](Machine& machine) {
        REQUIRE(machine.manager.register_device(machine.listener, std::nullopt, all_kinds()) == 1);
        REQUIRE(machine.manager.register_device("uart", machine.uart, {PioConstraint{.size = 8}}) == 2);
    };
    SECTION("of a Device") {
        check_all_or_nothing(
            prepare, [](Machine& machine) { return machine.manager.unregister_device(1).has_value(); });
    }
    SECTION("of a ready device") {
        check_all_or_nothing(
            prepare, [](Machine& machine) { return machine.manager.unregister_device(2).has_value(); });
    }
}

TEST_CASE("DeviceManager: a removal of a device that was moved directly can be tried again",
          "[vmdevice][device_manager][memory]") {
    const auto outstanding = allocations.outstanding;
    {
        Machine machine;
        const SystemAllocatorState before = machine.allocator.state();
        REQUIRE(machine.manager.register_device("uart", machine.uart, all_kinds()) == 1);
        REQUIRE(machine.manager.io_manager().move_pio(PioAddress{0x400}, pio(0x480, 4)));
        fail_each_allocation([&] { return machine.manager.unregister_device(1).has_value(); },
                             [&] { REQUIRE(machine.manager.size() == 1); });
        CHECK(machine.manager.io_manager().pio_size() + machine.manager.io_manager().mmio_size() == 0);
        CHECK(machine.allocator.state() == before);
    }
    CHECK(allocations.outstanding == outstanding);
}

TEST_CASE("DeviceManager: a move is done completely or not at all if memory runs out",
          "[vmdevice][device_manager][memory]") {
    const auto prepare = [](Machine& machine) {
        REQUIRE(machine.manager.register_device(machine.listener, std::nullopt, all_kinds()) == 1);
    };
    SECTION("of ports, to a range apart from the old one") {
        check_all_or_nothing(prepare, [](Machine& machine) {
            return machine.manager.move_pio(PioAddress{0x400}, pio(0x300, 4)).has_value();
        });
    }
    SECTION("of ports, to a range that overlaps the old one") {
        check_all_or_nothing(prepare, [](Machine& machine) {
            return machine.manager.move_pio(PioAddress{0x400}, pio(0x3FE, 8)).has_value();
        });
    }
    SECTION("of memory") {
        check_all_or_nothing(prepare, [](Machine& machine) {
            return machine.manager.move_mmio(MmioAddress{0xC000'0000}, mmio(0xC000'0800, 0x1000)).has_value();
        });
    }
}

TEST_CASE("DeviceManager: a device is restored completely or not at all if memory runs out",
          "[vmdevice][device_manager][memory][state]") {
    const auto outstanding = allocations.outstanding;
    {
        Machine saved;
        REQUIRE(saved.manager.register_device("uart", saved.uart, all_kinds()) == 1);
        const DeviceRecord record = saved.manager.find(1)->record();
        auto allocator = SystemAllocator::from_state(saved.allocator.state());
        REQUIRE(allocator);
        {
            DeviceManager manager(*allocator);
            CHECK(fail_each_allocation([&] { return manager.restore_device(record, saved.uart).has_value(); },
                                       [&] {
                                           REQUIRE(manager.size() == 0);
                                           REQUIRE(manager.io_manager().pio_size() == 0);
                                           REQUIRE(allocator->state() == saved.allocator.state());
                                       }) != 0);
            CHECK(manager.find(1)->record() == record);
        }
        CHECK(allocator->state() == SystemAllocator(small_machine()).state());
    }
    CHECK(allocations.outstanding == outstanding);
}

TEST_CASE("DeviceManager: reading the tree changes nothing if memory runs out",
          "[vmdevice][device_manager][memory]") {
    const auto outstanding = allocations.outstanding;
    {
        Machine machine;
        REQUIRE(machine.manager.register_device(machine.listener, std::nullopt, all_kinds()) == 1);
        DeviceManager& manager = machine.manager;
        check_unchanged(machine, [&] { return manager.list().size() == 1; });
        check_unchanged(machine, [&] { return manager.find(1).has_value(); });
        check_unchanged(machine, [&] { return manager.find(machine.listener->name()).has_value(); });
        check_unchanged(machine, [&] { return manager.owner(PioAddress{0x100}).has_value(); });
        check_unchanged(machine, [&] { return manager.owner(MmioAddress{0xC000'0000}).has_value(); });
        check_unchanged(machine, [&] { return manager.irq_owners(9).size() == 1; });
        check_unchanged(machine, [&] { return !manager.to_string().empty(); });
        const auto made = allocations.made;
        CHECK(manager.size() == 1);
        CHECK(allocations.made == made);
    }
    CHECK(allocations.outstanding == outstanding);
}

TEST_CASE("DeviceManager: its destructor needs no memory to free everything",
          "[vmdevice][device_manager][memory]") {
    for (std::uint64_t n = 1; n < 40; ++n) {
        const auto outstanding = allocations.outstanding;
        {
            auto machine = std::make_unique<Machine>();
            SystemAllocator allocator(small_machine());
            const SystemAllocatorState before = allocator.state();
            auto manager = std::make_unique<DeviceManager>(allocator);
            const std::weak_ptr<Uart> device = machine->uart;
            REQUIRE(manager->register_device("uart", machine->uart, all_kinds()));
            REQUIRE(manager->register_device(machine->listener, std::nullopt, {PioConstraint{.size = 8}}));
            machine.reset();
            REQUIRE_FALSE(device.expired());
            allocations.failing = n;
            manager.reset();
            allocations.failing = 0;
            CHECK(device.expired());
            CHECK(allocator.state() == before);
        }
        CHECK(allocations.outstanding == outstanding);
    }
}
