// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include <vmdevice/allocator.hpp>

#include "catch.hpp"

using namespace vmdevice;

namespace {

PioRange pio(std::uint16_t base, std::uint16_t size) {
    return PioRange::create(PioAddress{base}, size).value();
}
MmioRange mmio(std::uint64_t base, std::uint64_t size) {
    return MmioRange::create(MmioAddress{base}, size).value();
}

SystemAllocator small_machine() {
    return SystemAllocator({.pio = pio(0x100, 0xF00),
                            .mmio = mmio(0xC000'0000, 0x1000'0000),
                            .irq = *NumberRange::from_bounds(Number{5}, Number{15}),
                            .msi = *NumberRange::from_bounds(Number{32}, Number{63}),
                            .kvm_mem_slots = *NumberRange::from_bounds(Number{2}, Number{9}),
                            .first_instance_id = 100});
}

}  // namespace

TEST_CASE("RangeAllocator: first_match takes the lowest place and last_match the highest",
          "[vmdevice][allocator]") {
    RangeAllocator<MmioAddress> space(mmio(0x1000, 0x9000));
    CHECK(space.allocate(0x1000)->base().value == 0x1000);
    CHECK(space.allocate(0x1000, 0x2000, AllocPolicy::last_match)->base().value == 0x8000);
    CHECK(space.allocate(0x1000, 1, AllocPolicy::last_match)->base().value == 0x9000);
    CHECK(space.allocate(0x1000, 0x4000)->base().value == 0x4000);
    CHECK(space.allocate(0x2000)->base().value == 0x2000);
    CHECK(space.allocate(0x4000).error() == AllocError::exhausted);
    CHECK(space.allocate(0x3000)->base().value == 0x5000);
    CHECK(space.allocate(1).error() == AllocError::exhausted);
    CHECK(space.allocated() == 6);
}

TEST_CASE("RangeAllocator: an exact request gets its place or says why not", "[vmdevice][allocator]") {
    RangeAllocator<PioAddress> ports(pio(0x100, 0x300));
    CHECK(*ports.allocate_exact(PioAddress{0x3F8}, 8) == pio(0x3F8, 8));
    CHECK(ports.allocate_exact(PioAddress{0x3F0}, 9).error() == AllocError::taken);
    CHECK(ports.allocate_exact(PioAddress{0x3FF}, 1).error() == AllocError::taken);
    CHECK(ports.allocate_exact(PioAddress{0xFF}, 1).error() == AllocError::out_of_range);
    CHECK(ports.allocate_exact(PioAddress{0xFFFF}, 2).error() == AllocError::out_of_range);
    CHECK(ports.allocate(1, 1, AllocPolicy::exact_match).error() == AllocError::out_of_range);
    CHECK(ports.allocate(1, 4, AllocPolicy::exact_match, std::nullopt, PioAddress{0x102}).error() ==
          AllocError::invalid_alignment);
    CHECK(*ports.allocate_exact(PioAddress{0x3F0}, 8) == pio(0x3F0, 8));
    CHECK(ports.allocated() == 2);
}

TEST_CASE("RangeAllocator: a request for nothing and a crooked alignment are refused",
          "[vmdevice][allocator]") {
    RangeAllocator<PioAddress> ports(pio(0, 0x100));
    CHECK(ports.allocate(0).error() == AllocError::invalid_size);
    CHECK(ports.allocate(1, 0).error() == AllocError::invalid_alignment);
    CHECK(ports.allocate(1, 3).error() == AllocError::invalid_alignment);
    CHECK(ports.allocate(0x101).error() == AllocError::exhausted);
    CHECK(ports.allocated() == 0);
}

TEST_CASE("RangeAllocator: works up to the last address of the space", "[vmdevice][allocator]") {
    RangeAllocator<MmioAddress> space(mmio(~0ULL - 0xFFF, 0x1000));
    CHECK(space.allocate(1, 0x2000).error() == AllocError::exhausted);
    CHECK(space.allocate(8, 8, AllocPolicy::last_match)->last().value == ~0ULL);
    CHECK(space.allocate(0xFF8)->base().value == ~0ULL - 0xFFF);
    CHECK(space.allocate(1).error() == AllocError::exhausted);
    RangeAllocator<PioAddress> ports(pio(1, 0xFFFF));
    CHECK(ports.allocate(0x8000, 0x8000)->last().value == 0xFFFF);
    CHECK(ports.allocate(0x8000, 0x8000).error() == AllocError::exhausted);
}

TEST_CASE("RangeAllocator: only what was handed out can be freed, as it was", "[vmdevice][allocator]") {
    RangeAllocator<PioAddress> ports(pio(0, 0x100));
    REQUIRE(ports.allocate_exact(PioAddress{0x10}, 0x10));
    CHECK(ports.free(pio(0x10, 8)).error() == AllocError::not_allocated);
    CHECK(ports.free(pio(0x18, 8)).error() == AllocError::not_allocated);
    CHECK(ports.free(pio(0, 0x10)).error() == AllocError::not_allocated);
    CHECK(ports.free(pio(0x10, 0x10)));
    CHECK(ports.free(pio(0x10, 0x10)).error() == AllocError::not_allocated);
    CHECK(ports.allocate(0x100)->size() == 0x100);
}

TEST_CASE("RangeAllocator: agrees with a naive model under random operations",
          "[vmdevice][allocator][property]") {
    for (unsigned round = 0; round < 20; ++round) {
        std::mt19937 random(round);
        const auto any = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random()) % n; };
        constexpr std::uint32_t size = 256;
        const std::uint32_t start = round % 2 == 0 ? 0xFF00 : 3;
        RangeAllocator<PioAddress> ports(pio(static_cast<std::uint16_t>(start), size));
        std::vector<bool> used(size);
        std::vector<PioRange> given;
        const auto is_free = [&](std::uint32_t base, std::uint32_t length) {
            for (std::uint32_t i = 0; i < length; ++i) {
                if (base + i < start || base + i >= start + size || used[base + i - start]) {
                    return false;
                }
            }
            return true;
        };
        for (int step = 0; step < 3000; ++step) {
            if (any(2) == 0 && !given.empty()) {
                const std::size_t which = any(static_cast<std::uint32_t>(given.size()));
                REQUIRE(ports.free(given[which]));
                for (std::uint32_t i = 0; i < given[which].size(); ++i) {
                    used[given[which].base().value + i - start] = false;
                }
                given.erase(given.begin() + static_cast<std::ptrdiff_t>(which));
                continue;
            }
            const std::uint32_t length = 1 + any(24);
            const std::uint32_t align = 1U << any(6);
            const std::uint32_t at = start + any(size);
            const auto policy = static_cast<AllocPolicy>(any(3));
            std::optional<PioRange> within;
            std::uint32_t low = start;
            std::uint32_t high = start + size - 1;
            if (any(4) == 0) {
                low = start + any(size / 2);
                high = low + any(start + size - low);
                within = PioRange::from_bounds(PioAddress{static_cast<std::uint16_t>(low)},
                                               PioAddress{static_cast<std::uint16_t>(high)})
                             .value();
            }
            std::optional<std::uint32_t> expected;
            for (std::uint32_t base = low; base + length - 1 <= high; ++base) {
                if (base % align == 0 && is_free(base, length) &&
                    (policy != AllocPolicy::exact_match || base == at)) {
                    if (!expected || policy == AllocPolicy::last_match) {
                        expected = base;
                    }
                }
            }
            const auto got =
                ports.allocate(static_cast<std::uint16_t>(length), static_cast<std::uint16_t>(align), policy,
                               within, PioAddress{static_cast<std::uint16_t>(at)});
            REQUIRE(got.has_value() == expected.has_value());
            if (got) {
                REQUIRE(got->base().value == *expected);
                REQUIRE(got->size() == length);
                for (std::uint32_t i = 0; i < length; ++i) {
                    used[*expected + i - start] = true;
                }
                given.push_back(*got);
            }
            REQUIRE(ports.allocated() == given.size());
        }
        for (const PioRange& range : given) {
            REQUIRE(ports.free(range));
        }
        REQUIRE(ports.allocate(size)->base().value == start);
    }
}

TEST_CASE("SystemAllocator: interrupts are any or a specific one, and come back", "[vmdevice][allocator]") {
    SystemAllocator machine = small_machine();
    CHECK(machine.allocate_irq(5) == 5);
    CHECK(machine.allocate_irq() == 6);
    CHECK(machine.allocate_irq(5).error() == AllocError::taken);
    CHECK(machine.allocate_irq(4).error() == AllocError::out_of_range);
    CHECK(machine.free_irq(5));
    CHECK(machine.free_irq(5).error() == AllocError::not_allocated);
    CHECK(machine.allocate_irq() == 5);
    for (int i = 7; i <= 15; ++i) {
        CHECK(machine.allocate_irq() == i);
    }
    CHECK(machine.allocate_irq().error() == AllocError::exhausted);
}

TEST_CASE("SystemAllocator: ids, messages and slots count up and are used again", "[vmdevice][allocator]") {
    SystemAllocator machine = small_machine();
    CHECK(machine.allocate_instance_id() == 100);
    CHECK(machine.allocate_instance_id() == 101);
    CHECK(machine.free_instance_id(100));
    CHECK(machine.free_instance_id(100).error() == AllocError::not_allocated);
    CHECK(machine.allocate_instance_id() == 100);
    CHECK(machine.allocate_msi(16) == 32);
    CHECK(machine.allocate_msi(17).error() == AllocError::exhausted);
    CHECK(machine.allocate_msi(0).error() == AllocError::invalid_size);
    CHECK(machine.allocate_msi(16) == 48);
    CHECK(machine.free_msi(32, 8).error() == AllocError::not_allocated);
    CHECK(machine.free_msi(32, 16));
    CHECK(machine.allocate_kvm_mem_slot() == 2);
    CHECK(machine.allocate_kvm_mem_slot(4) == 4);
    CHECK(machine.free_kvm_mem_slot(2));
}

TEST_CASE("SystemAllocator: a space that was not configured has nothing to give", "[vmdevice][allocator]") {
    SystemAllocator machine({});
    CHECK(machine.allocate_pio(1).error() == AllocError::out_of_range);
    CHECK(machine.allocate_mmio(1).error() == AllocError::out_of_range);
    CHECK(machine.allocate_irq().error() == AllocError::out_of_range);
    CHECK(machine.free_irq(1).error() == AllocError::not_allocated);
    CHECK(machine.free_pio(pio(1, 1)).error() == AllocError::not_allocated);
    CHECK(machine.allocate_instance_id() == 1);
}

TEST_CASE("SystemAllocator: a device gets all it asks for, in that order",
          "[vmdevice][allocator][resources]") {
    SystemAllocator machine = small_machine();
    const auto got = machine.allocate({
        PioConstraint{.size = 8, .align = 8},
        PioConstraint{.size = 8, .base = PioAddress{0x100}},
        MmioConstraint{.size = 0x1000},
        MmioConstraint{.size = 0x100, .align = 0x100, .within = mmio(0xC800'0010, 0x1000)},
        LegacyIrqConstraint{},
        LegacyIrqConstraint{.irq = 5},
        MsiIrqConstraint{.type = MsiIrqType::pci_msix, .count = 4},
        MsiIrqConstraint{.type = MsiIrqType::generic},
        MsiIrqConstraint{.type = MsiIrqType::pci_msi, .count = 2},
        MacAddressConstraint{},
        KvmMemSlotConstraint{.count = 2},
    });
    REQUIRE(got);
    CHECK(got->get_pio_address_ranges() == std::vector{pio(0x108, 8), pio(0x100, 8)});
    CHECK(got->get_mmio_address_ranges() == std::vector{mmio(0xC000'0000, 0x1000), mmio(0xC800'0100, 0x100)});
    CHECK(got->get_legacy_irq() == 6);
    CHECK(got->get_legacy_irqs() == std::vector<std::uint32_t>{6, 5});
    CHECK(got->get_pci_msix_irqs() == DeviceResources::IrqRange{32, 4});
    CHECK(got->get_generic_msi_irqs() == DeviceResources::IrqRange{36, 1});
    CHECK(got->get_pci_msi_irqs() == DeviceResources::IrqRange{37, 2});
    CHECK(got->get_mac_address() == MacAddress{0x52, 0x54, 0, 0, 0, 0});
    CHECK(got->get_kvm_mem_slots() == std::vector<std::uint32_t>{2, 3});
    CHECK(got->size() == 12);
    CHECK(got->get_all_resources()[0] == Resource(PioResource{pio(0x108, 8)}));

    const auto again =
        machine.allocate({MacAddressConstraint{.address = MacAddress{0x52, 0x54, 0, 0, 0, 0}}});
    CHECK(again.error() == AllocError::taken);
    machine.free(*got);
    CHECK(machine.allocate_irq() == 5);
    CHECK(machine.allocate_pio(8)->base().value == 0x100);
    CHECK(machine.allocate_kvm_mem_slot() == 2);
    CHECK(machine.allocate({MacAddressConstraint{}})->get_mac_address()->back() == 0);
    CHECK(machine.allocate({KvmMemSlotConstraint{}})->get_kvm_mem_slots().size() == 1);
}

TEST_CASE("SystemAllocator: a request that fails half way leaves nothing behind",
          "[vmdevice][allocator][resources]") {
    SystemAllocator machine = small_machine();
    REQUIRE(machine.allocate_irq(9));
    const std::vector<ResourceConstraint> wanted = {
        PioConstraint{.size = 0x100},
        MmioConstraint{.size = 0x1000},
        LegacyIrqConstraint{},
        MsiIrqConstraint{.type = MsiIrqType::generic, .count = 32},
        KvmMemSlotConstraint{.count = 8},
        MacAddressConstraint{},
        LegacyIrqConstraint{.irq = 9},
    };
    std::vector<ResourceConstraint> last_one_fails(wanted.begin(), wanted.end() - 1);
    last_one_fails.emplace_back(KvmMemSlotConstraint{.count = 1});
    for (int i = 0; i < 100; ++i) {
        REQUIRE(machine.allocate(wanted).error() == AllocError::taken);
        REQUIRE(machine.allocate(last_one_fails).error() == AllocError::exhausted);
    }
    CHECK(machine.allocate_pio(0xF00));
    CHECK(machine.allocate_mmio(0x1000'0000));
    CHECK(machine.allocate_irq() == 5);
    CHECK(machine.allocate_msi(32) == 32);
    CHECK(machine.allocate({KvmMemSlotConstraint{.count = 8}}));
    CHECK(machine.allocate({MacAddressConstraint{}})->get_mac_address()->back() == 0);
}

TEST_CASE("SystemAllocator: a fixed address need not be aligned, and must lie in the space",
          "[vmdevice][allocator][resources]") {
    SystemAllocator machine = small_machine();
    const auto fixed = machine.allocate({MmioConstraint{.size = 8, .base = MmioAddress{0xC000'0FF9}}});
    REQUIRE(fixed);
    CHECK(fixed->get_mmio_address_ranges() == std::vector{mmio(0xC000'0FF9, 8)});
    CHECK(machine.allocate({MmioConstraint{.size = 1, .base = MmioAddress{0xC000'1000}}}).error() ==
          AllocError::taken);
    CHECK(machine.allocate({MmioConstraint{.size = 1, .base = MmioAddress{0xBFFF'FFFF}}}).error() ==
          AllocError::out_of_range);
    CHECK(machine.allocate({PioConstraint{.size = 0x1000}}).error() == AllocError::exhausted);
    CHECK(machine.allocate({MsiIrqConstraint{.type = MsiIrqType::generic, .count = 33}}).error() ==
          AllocError::exhausted);
    CHECK(machine.allocate({LegacyIrqConstraint{.irq = 16}}).error() == AllocError::out_of_range);
}

TEST_CASE("SystemAllocator: an interrupt range that runs past the last number was never given",
          "[vmdevice][allocator]") {
    SystemAllocator machine = small_machine();
    CHECK(machine.free_msi(0xFFFF'FFFF, 2).error() == AllocError::not_allocated);
    CHECK(machine.free_msi(32, 0).error() == AllocError::not_allocated);
}

TEST_CASE("SystemAllocator: a MAC address of somebody else's is taken as it is",
          "[vmdevice][allocator][resources]") {
    SystemAllocator machine = small_machine();
    for (const MacAddress& foreign :
         {MacAddress{0x02, 0x54, 0x00, 0, 0, 0}, MacAddress{0x52, 0x55, 0x00, 0, 0, 0},
          MacAddress{0x52, 0x54, 0x01, 0, 0, 0}}) {
        // Nobody here knows who else has it, so it is not refused a second time, and giving it back frees
        // nothing.
        for (int i = 0; i < 2; ++i) {
            const auto got = machine.allocate({MacAddressConstraint{.address = foreign}});
            REQUIRE(got);
            CHECK(got->get_mac_address() == foreign);
            machine.free(*got);
        }
    }
    const auto ours = machine.allocate({MacAddressConstraint{.address = MacAddress{0x52, 0x54, 0, 0, 0, 1}}});
    REQUIRE(ours);
    CHECK(machine.allocate({MacAddressConstraint{}})->get_mac_address() ==
          MacAddress{0x52, 0x54, 0, 0, 0, 0});
    CHECK(machine.allocate({MacAddressConstraint{}})->get_mac_address() ==
          MacAddress{0x52, 0x54, 0, 0, 0, 2});
}

TEST_CASE("SystemAllocator: instance ids may start at 0", "[vmdevice][allocator]") {
    SystemAllocator machine({.first_instance_id = 0});
    CHECK(machine.allocate_instance_id() == 0);
    CHECK(machine.allocate_instance_id() == 1);
    CHECK(machine.free_instance_id(0));
    CHECK(machine.allocate_instance_id() == 0);
}

TEST_CASE("Resources: two are the same when all they say is", "[vmdevice][resources]") {
    const std::vector<Resource> all = {PioResource{pio(1, 2)},
                                       PioResource{pio(1, 3)},
                                       MmioResource{mmio(1, 2)},
                                       MmioResource{mmio(2, 2)},
                                       LegacyIrqResource{1},
                                       LegacyIrqResource{2},
                                       MsiIrqResource{MsiIrqType::pci_msi, 1, 2},
                                       MsiIrqResource{MsiIrqType::pci_msix, 1, 2},
                                       MsiIrqResource{MsiIrqType::pci_msi, 2, 2},
                                       MsiIrqResource{MsiIrqType::pci_msi, 1, 1},
                                       MacAddressResource{{1, 2, 3, 4, 5, 6}},
                                       MacAddressResource{{1, 2, 3, 4, 5, 7}},
                                       KvmMemSlotResource{1},
                                       KvmMemSlotResource{2}};
    for (std::size_t a = 0; a < all.size(); ++a) {
        for (std::size_t b = 0; b < all.size(); ++b) {
            CHECK((all[a] == all[b]) == (a == b));
        }
    }
}

TEST_CASE("DeviceResources: an empty set has nothing of any kind", "[vmdevice][resources]") {
    const DeviceResources none;
    CHECK(none.empty());
    CHECK(none.get_pio_address_ranges().empty());
    CHECK(none.get_mmio_address_ranges().empty());
    CHECK_FALSE(none.get_legacy_irq());
    CHECK_FALSE(none.get_pci_msi_irqs());
    CHECK_FALSE(none.get_pci_msix_irqs());
    CHECK_FALSE(none.get_generic_msi_irqs());
    CHECK_FALSE(none.get_mac_address());
    CHECK(none.get_kvm_mem_slots().empty());
    CHECK(none.get_all_resources().empty());
}

TEST_CASE("AllocError: every error has words of its own", "[vmdevice][error]") {
    const auto all = {AllocError::exhausted,         AllocError::taken,
                      AllocError::out_of_range,      AllocError::invalid_size,
                      AllocError::invalid_alignment, AllocError::not_allocated};
    CHECK(to_string(static_cast<AllocError>(0xFF)) == "unknown allocation error");
    for (const AllocError a : all) {
        for (const AllocError b : all) {
            CHECK((to_string(a) == to_string(b)) == (a == b));
        }
    }
}
