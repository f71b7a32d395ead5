// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vmdevice/allocator.hpp>
#include <vmdevice/text.hpp>

#include "catch.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::mmio;
using bus_tests::pio;

namespace {

SystemAllocator small_machine() {
    return SystemAllocator({.pio = pio(0x100, 0xF00),
                            .mmio = mmio(0xC000'0000, 0x1000'0000),
                            .irq = *NumberRange::from_bounds(Number{5}, Number{15}),
                            .msi = *NumberRange::from_bounds(Number{32}, Number{63}),
                            .kvm_mem_slots = *NumberRange::from_bounds(Number{2}, Number{9}),
                            .first_instance_id = 100});
}

}  // namespace

TEST_CASE("RangeAllocator: first_match chooses the lowest position and last_match the highest",
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

TEST_CASE("RangeAllocator: an exact request gets its range, or the error names the reason",
          "[vmdevice][allocator]") {
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

TEST_CASE("RangeAllocator: a size of 0 and an alignment that is not a power of two are refused",
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

TEST_CASE("RangeAllocator: only ranges that were allocated can be freed, with the same bounds",
          "[vmdevice][allocator]") {
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

TEST_CASE("SystemAllocator: any or a specific interrupt can be allocated, and again after it was freed",
          "[vmdevice][allocator]") {
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

TEST_CASE("SystemAllocator: ids, MSIs and slots are allocated in ascending order and reused",
          "[vmdevice][allocator]") {
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

TEST_CASE("SystemAllocator: nothing can be allocated in a space that was not configured",
          "[vmdevice][allocator]") {
    SystemAllocator machine({});
    CHECK(machine.allocate_pio(1).error() == AllocError::out_of_range);
    CHECK(machine.allocate_mmio(1).error() == AllocError::out_of_range);
    CHECK(machine.allocate_irq().error() == AllocError::out_of_range);
    CHECK(machine.free_irq(1).error() == AllocError::not_allocated);
    CHECK(machine.free_pio(pio(1, 1)).error() == AllocError::not_allocated);
    CHECK(machine.allocate_instance_id() == 1);
}

TEST_CASE("SystemAllocator: a device gets all resources that it requests, in that order",
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

TEST_CASE("SystemAllocator: a request that fails half way leaves nothing allocated",
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

TEST_CASE("SystemAllocator: an interrupt range that extends past the last number counts as not allocated",
          "[vmdevice][allocator]") {
    SystemAllocator machine = small_machine();
    CHECK(machine.free_msi(0xFFFF'FFFF, 2).error() == AllocError::not_allocated);
    CHECK(machine.free_msi(32, 0).error() == AllocError::not_allocated);
}

TEST_CASE("SystemAllocator: a MAC address of another vendor is accepted and not recorded",
          "[vmdevice][allocator][resources]") {
    SystemAllocator machine = small_machine();
    for (const MacAddress& foreign :
         {MacAddress{0x02, 0x54, 0x00, 0, 0, 0}, MacAddress{0x52, 0x55, 0x00, 0, 0, 0},
          MacAddress{0x52, 0x54, 0x01, 0, 0, 0}}) {
        // The allocator does not record this address, so it is not refused a second time, and freeing it
        // frees nothing.
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

TEST_CASE("Resources: two are equal if all their members are", "[vmdevice][resources]") {
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

TEST_CASE("AllocError: every error has its own text", "[vmdevice][error]") {
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

TEST_CASE("RangeAllocator: returns which ranges are allocated and which are free", "[vmdevice][allocator]") {
    RangeAllocator<PioAddress> ports(pio(0x100, 0x100));
    REQUIRE(ports.allocate_exact(PioAddress{0x180}, 0x10));
    REQUIRE(ports.allocate_exact(PioAddress{0x110}, 8));
    CHECK(ports.allocations() == std::vector{pio(0x110, 8), pio(0x180, 0x10)});
    CHECK(ports.allocation_at(PioAddress{0x117}) == pio(0x110, 8));
    CHECK_FALSE(ports.allocation_at(PioAddress{0x118}));
    CHECK_FALSE(ports.allocation_at(PioAddress{0x10F}));
    CHECK_FALSE(ports.allocation_at(PioAddress{0}));
    CHECK(ports.is_allocated(pio(0x110, 8)));
    CHECK_FALSE(ports.is_allocated(pio(0x110, 7)));
    CHECK_FALSE(ports.is_allocated(pio(0x111, 7)));
    CHECK(ports.first_free_in(pio(0x100, 0x100)) == pio(0x100, 0x10));
    CHECK(ports.first_free_in(pio(0x112, 0x100)) == pio(0x118, 0x68));
    CHECK(ports.first_free_in(pio(0x114, 8)) == pio(0x118, 4));
    CHECK(ports.first_free_in(pio(0x120, 4)) == pio(0x120, 4));
    CHECK_FALSE(ports.first_free_in(pio(0x182, 4)));
    CHECK_FALSE(ports.first_free_in(pio(0x200, 4)));
    CHECK_FALSE(ports.first_free_in(pio(0, 4)));
}

TEST_CASE("RangeAllocator: adjacent units are allocated together and freed one by one",
          "[vmdevice][allocator]") {
    RangeAllocator<Number> numbers(*NumberRange::from_bounds(Number{2}, Number{9}));
    REQUIRE(numbers.allocate_exact(Number{4}, 1));
    CHECK(numbers.allocate_units(3) == *NumberRange::create(Number{5}, 3));
    CHECK(numbers.allocate_units(2, Number{8}) == *NumberRange::create(Number{8}, 2));
    CHECK(numbers.allocate_units(3).error() == AllocError::exhausted);
    CHECK(numbers.allocate_units(2, Number{3}).error() == AllocError::taken);
    CHECK(numbers.allocate_units(0).error() == AllocError::invalid_size);
    CHECK(numbers.allocated() == 6);
    CHECK(numbers.free(*NumberRange::create(Number{5}, 3)).error() == AllocError::not_allocated);
    CHECK(numbers.free(NumberRange::unit(Number{6})));
    CHECK(numbers.allocate_units(1)->base() == Number{2});
}

TEST_CASE("RangeAllocator: both ranges of a move are allocated until it ends", "[vmdevice][allocator]") {
    // Every pair of ranges, compared with a list of single numbers.
    for (std::uint16_t from_base = 0; from_base < 8; ++from_base) {
        for (std::uint16_t to_base = 0; to_base < 12; ++to_base) {
            for (std::uint16_t size = 1; size < 8; ++size) {
                for (const bool finish : {true, false}) {
                    RangeAllocator<PioAddress> ports(pio(1, 14));
                    const PioRange from = pio(static_cast<std::uint16_t>(from_base + 1), 4);
                    const PioRange to = pio(to_base, size);
                    const PioRange other = pio(13, 1);
                    REQUIRE(ports.allocate_exact(from.base(), 4));
                    REQUIRE(ports.allocate_exact(other.base(), 1));
                    const auto before = ports.allocations();
                    const auto move = ports.begin_move(from, to);
                    const bool possible = pio(1, 14).contains(to) && !to.overlaps(other);
                    REQUIRE(move.has_value() == possible);
                    if (!move) {
                        CHECK(move.error() ==
                              (pio(1, 14).contains(to) ? AllocError::taken : AllocError::out_of_range));
                        CHECK(ports.allocations() == before);
                        continue;
                    }
                    for (std::uint16_t at = 1; at < 15; ++at) {
                        const PioAddress address{at};
                        CHECK(ports.is_free(PioRange::unit(address)) ==
                              !(from.contains(address) || to.contains(address) || other.contains(address)));
                    }
                    if (finish) {
                        ports.finish_move(*move);
                        CHECK(ports.allocations() == std::vector{to, other});
                        REQUIRE(ports.free(to));
                    } else {
                        ports.cancel_move(*move);
                        CHECK(ports.allocations() == before);
                        REQUIRE(ports.free(from));
                    }
                    REQUIRE(ports.free(other));
                    CHECK(ports.is_free(pio(1, 14)));
                }
            }
        }
    }
    RangeAllocator<PioAddress> ports(pio(1, 14));
    CHECK(ports.begin_move(pio(2, 2), pio(3, 2)).error() == AllocError::not_allocated);
}

TEST_CASE("SystemAllocator: one call allocates several interrupt lines, or none",
          "[vmdevice][allocator][irq]") {
    SystemAllocator machine = small_machine();
    REQUIRE(machine.allocate_irq(7) == 7);
    CHECK(machine.allocate_irqs(3) == std::vector<std::uint32_t>{5, 6, 8});
    CHECK(machine.allocate_irqs(2, 10) == std::vector<std::uint32_t>{10, 11});
    SystemAllocatorState before = machine.state();
    CHECK(machine.allocate_irqs(2, 9).error() == AllocError::taken);
    CHECK(machine.allocate_irqs(2, 15).error() == AllocError::out_of_range);
    CHECK(machine.allocate_irqs(2, 0xFFFF'FFFF).error() == AllocError::out_of_range);
    CHECK(machine.allocate_irqs(6).error() == AllocError::exhausted);
    CHECK(machine.allocate_irqs(0xFFFF'FFFF).error() == AllocError::exhausted);
    CHECK(machine.allocate_irqs(0).error() == AllocError::invalid_size);
    CHECK(SystemAllocator({}).allocate_irqs(1).error() == AllocError::out_of_range);
    CHECK(machine.state() == before);
    CHECK(machine.allocate_irqs(5) == std::vector<std::uint32_t>{9, 12, 13, 14, 15});
    const auto got = machine.allocate({LegacyIrqConstraint{.count = 0}});
    CHECK(got.error() == AllocError::invalid_size);
}

TEST_CASE("SystemAllocator: a line is shared only by devices that request the same kind of sharing",
          "[vmdevice][allocator][irq]") {
    SystemAllocator machine = small_machine();
    CHECK(machine.allocate_irq(5, IrqSharing::edge) == 5);
    CHECK(machine.allocate_irq(5, IrqSharing::edge) == 5);
    CHECK(machine.allocate_irq(5, IrqSharing::level).error() == AllocError::taken);
    CHECK(machine.allocate_irq(5).error() == AllocError::taken);
    CHECK(machine.allocate_irq(6) == 6);
    CHECK(machine.allocate_irq(6, IrqSharing::edge).error() == AllocError::taken);
    CHECK(machine.irq_holders(5) == 2);
    CHECK(machine.irq_holders(6) == 1);
    CHECK(machine.irq_holders(7) == 0);
    CHECK(machine.irq_holders(99) == 0);
    CHECK(machine.free_irq(5));
    CHECK(machine.allocate_irq(5).error() == AllocError::taken);
    CHECK(machine.free_irq(5));
    CHECK(machine.free_irq(5).error() == AllocError::not_allocated);
    CHECK(machine.allocate_irq(5) == 5);
    CHECK(machine.is_allocated(LegacyIrqResource{5}));
    CHECK_FALSE(machine.is_allocated(LegacyIrqResource{5, IrqSharing::edge}));
    CHECK_FALSE(machine.is_allocated(LegacyIrqResource{7}));
}

TEST_CASE("SystemAllocator: a device that permits sharing gets an unshared line as long as there is one",
          "[vmdevice][allocator][irq]") {
    SystemAllocator machine({.irq = *NumberRange::from_bounds(Number{16}, Number{18})});
    CHECK(machine.allocate_irq(16) == 16);
    CHECK(machine.allocate_irq(std::nullopt, IrqSharing::level) == 17);
    CHECK(machine.allocate_irq(std::nullopt, IrqSharing::level) == 18);
    // From here on the line with the fewest holders.
    CHECK(machine.allocate_irq(std::nullopt, IrqSharing::level) == 17);
    CHECK(machine.allocate_irq(std::nullopt, IrqSharing::level) == 18);
    CHECK(machine.allocate_irq(18, IrqSharing::level) == 18);
    CHECK(machine.allocate_irq(std::nullopt, IrqSharing::level) == 17);
    CHECK(machine.allocate_irq(std::nullopt, IrqSharing::edge).error() == AllocError::exhausted);
    CHECK(machine.allocate_irq().error() == AllocError::exhausted);
    // A request for several lines gets different ones.
    CHECK(machine.allocate_irqs(2, std::nullopt, IrqSharing::level) == std::vector<std::uint32_t>{17, 18});
    const SystemAllocatorState before = machine.state();
    CHECK(machine.allocate_irqs(3, std::nullopt, IrqSharing::level).error() == AllocError::exhausted);
    CHECK(machine.state() == before);
    CHECK(before.shared_irq == std::vector<SystemAllocatorState::SharedIrq>{{17, IrqSharing::level, 4},
                                                                            {18, IrqSharing::level, 4}});
}

TEST_CASE("SystemAllocator: the error of a request names the refused part", "[vmdevice][allocator]") {
    SystemAllocator machine = small_machine();
    const auto refused = machine.allocate(
        {PioConstraint{.size = 8}, MmioConstraint{.size = 0x1000}, LegacyIrqConstraint{.irq = 4}});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().index == 2);
    CHECK(refused.error().reason == AllocError::out_of_range);
    CHECK(machine.allocate({MsiIrqConstraint{.type = MsiIrqType::generic, .count = 2, .base = 40}})
              ->get_generic_msi_irqs() == DeviceResources::IrqRange{40, 2});
    CHECK(machine.allocate_msi(1, 41).error() == AllocError::taken);
}

TEST_CASE("SystemAllocator: avoided ranges are not allocated, and are free again afterwards",
          "[vmdevice][allocator]") {
    SystemAllocator machine = small_machine();
    REQUIRE(machine.allocate_pio(4) == pio(0x100, 4));
    const std::vector<ResourceConstraint> wanted = {PioConstraint{.size = 8}, MmioConstraint{.size = 0x1000}};
    // Partly taken already, partly outside the space.
    const std::vector<PioRange> ports = {pio(0xF0, 0x18), pio(0x110, 4)};
    const std::vector<MmioRange> memory = {mmio(0xBFFF'0000, 0x1'0800)};
    const auto got = machine.allocate(wanted, ports, memory);
    REQUIRE(got);
    CHECK(*got == DeviceResources{PioResource{pio(0x108, 8)}, MmioResource{mmio(0xC000'1000, 0x1000)}});
    const std::vector<ResourceConstraint> fixed = {PioConstraint::at(pio(0x112, 4))};
    CHECK(machine.allocate(fixed, ports, {}).error() == AllocError::taken);
    machine.free(*got);
    CHECK(machine.allocate(wanted)->get_pio_address_ranges() == std::vector{pio(0x104, 8)});
    CHECK(SystemAllocator({}).allocate({}, ports, memory)->empty());
}

namespace {

SystemAllocatorState used_machine() {
    SystemAllocator machine = small_machine();
    REQUIRE(machine.allocate({PioConstraint{.size = 8}, PioConstraint::at(pio(0x3F8, 8)),
                              MmioConstraint{.size = 0x1000}, LegacyIrqConstraint{.count = 2},
                              LegacyIrqConstraint{.irq = 12, .sharing = IrqSharing::level},
                              MsiIrqConstraint{.type = MsiIrqType::pci_msix, .count = 4},
                              MacAddressConstraint{}, KvmMemSlotConstraint{.count = 2}}));
    REQUIRE(machine.allocate_irq(12, IrqSharing::level));
    REQUIRE(machine.allocate_instance_id());
    REQUIRE(machine.allocate_instance_id());
    return machine.state();
}

}  // namespace

TEST_CASE("SystemAllocator: a restored allocator continues as the saved one would",
          "[vmdevice][allocator][state]") {
    const SystemAllocatorState state = used_machine();
    auto restored = SystemAllocator::from_state(state);
    REQUIRE(restored);
    CHECK(restored->state() == state);
    CHECK(restored->allocate_pio(8) == pio(0x108, 8));
    CHECK(restored->allocate_pio(8, 1, AllocPolicy::exact_match, PioAddress{0x3F0}) == pio(0x3F0, 8));
    CHECK(restored->allocate_pio(8, 1, AllocPolicy::exact_match, PioAddress{0x3FC}).error() ==
          AllocError::taken);
    CHECK(restored->allocate_mmio(0x1000)->base().value == 0xC000'1000);
    CHECK(restored->allocate_irq() == 7);
    CHECK(restored->irq_holders(12) == 2);
    CHECK(restored->free_irq(12));
    CHECK(restored->allocate_irq(12).error() == AllocError::taken);
    CHECK(restored->allocate_msi(1) == 36);
    CHECK(restored->allocate_kvm_mem_slot() == 4);
    CHECK(restored->allocate_instance_id() == 102);
    CHECK(restored->allocate({MacAddressConstraint{}})->get_mac_address()->back() == 1);
    // The default-constructed state is that of an allocator without any space.
    auto none = SystemAllocator::from_state(SystemAllocatorState{});
    REQUIRE(none);
    CHECK(none->state() == SystemAllocator({}).state());
    CHECK(none->allocate_instance_id() == 1);
    CHECK(none->allocate_pio(1).error() == AllocError::out_of_range);
}

TEST_CASE("SystemAllocator: an invalid state is refused, and the error names the member",
          "[vmdevice][allocator][state]") {
    const SystemAllocatorState good = used_machine();
    REQUIRE(SystemAllocator::from_state(good));
    const auto refused = [&](auto change) {
        SystemAllocatorState bad = good;
        change(bad);
        const auto restored = SystemAllocator::from_state(bad);
        return restored ? std::string("accepted") : std::string(restored.error().field);
    };
    using State = SystemAllocatorState;
    const auto number = [](std::uint32_t value) { return NumberRange::unit(Number{value}); };
    CHECK(refused([](State&) {}) == "accepted");
    // Outside the space, overlapping, out of order, twice, without a space.
    CHECK(refused([](State& s) { s.pio.push_back(pio(0xFFF, 2)); }) == "pio");
    CHECK(refused([](State& s) { s.pio.push_back(pio(0x3FF, 2)); }) == "pio");
    CHECK(refused([](State& s) { std::swap(s.pio[0], s.pio[1]); }) == "pio");
    CHECK(refused([](State& s) { s.pio.push_back(s.pio.back()); }) == "pio");
    CHECK(refused([](State& s) { s.config.pio.reset(); }) == "pio");
    CHECK(refused([](State& s) { s.mmio.push_back(mmio(0xCFFF'FFFF, 2)); }) == "mmio");
    CHECK(refused([](State& s) { s.config.mmio = mmio(0xC000'0001, 0x1000); }) == "mmio");
    CHECK(refused([&](State& s) { s.irq.push_back(number(16)); }) == "irq");
    CHECK(refused([&](State& s) { s.irq[0] = *NumberRange::create(Number{5}, 1); }) == "accepted");
    CHECK(refused([&](State& s) { s.irq.back() = *NumberRange::create(Number{12}, 2); }) == "irq");
    CHECK(refused([&](State& s) { s.msi.push_back(number(35)); }) == "msi");
    CHECK(refused([&](State& s) { s.kvm_mem_slots = {*NumberRange::create(Number{2}, 2)}; }) ==
          "kvm_mem_slots");
    CHECK(refused([&](State& s) { s.instance_ids.insert(s.instance_ids.begin(), number(99)); }) ==
          "instance_ids");
    CHECK(refused([&](State& s) { s.config.first_instance_id = 101; }) == "instance_ids");
    CHECK(refused([&](State& s) { s.mac_numbers.push_back(number(0x100'0000)); }) == "mac_numbers");
    // A shared line without holders, one that is not shared, one out of order, one of an unknown kind, and
    // one that is not allocated.
    CHECK(refused([](State& s) { s.shared_irq[0].holders = 0; }) == "shared_irq");
    CHECK(refused([](State& s) { s.shared_irq[0].sharing = IrqSharing::exclusive; }) == "shared_irq");
    CHECK(refused([](State& s) { s.shared_irq[0].sharing = static_cast<IrqSharing>(3); }) == "shared_irq");
    CHECK(refused([](State& s) { s.shared_irq[0].irq = 11; }) == "shared_irq");
    CHECK(refused([](State& s) { s.shared_irq.push_back(s.shared_irq[0]); }) == "shared_irq");
    CHECK(refused([](State& s) {
              s.config.irq.reset();
              s.irq.clear();
          }) == "shared_irq");
    CHECK(refused([](State& s) { s.shared_irq[0].holders = 0xFFFF'FFFF; }) == "accepted");
    CHECK(to_string(AllocatorStateError{"pio"}) ==
          "the saved state of the allocator holds an invalid value: pio");
    // As many holders as can be counted, and no more.
    State full = good;
    full.shared_irq[0].holders = 0xFFFF'FFFF;
    CHECK(SystemAllocator::from_state(full)->allocate_irq(12, IrqSharing::level).error() ==
          AllocError::exhausted);
}

TEST_CASE("SystemAllocator: a state is the same after encoding and decoding, and invalid bytes are refused",
          "[vmdevice][allocator][state]") {
    const SystemAllocatorState state = used_machine();
    const std::vector<std::uint8_t> bytes = encode(state);
    CHECK(decode<SystemAllocatorState>(bytes) == state);
    CHECK(decode<SystemAllocatorState>(encode(SystemAllocatorState{})) == SystemAllocatorState{});
    CHECK(std::vector(bytes.begin(), bytes.begin() + 6) ==
          std::vector<std::uint8_t>{'V', 'M', 'A', 'L', 1, 0});
    // Bytes that are truncated anywhere are refused, and so are trailing bytes.
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        CHECK_FALSE(decode<SystemAllocatorState>(std::span(bytes).first(size)));
    }
    const auto changed = [&](std::size_t at, std::uint8_t value) {
        std::vector<std::uint8_t> other = bytes;
        if (at == other.size()) {
            other.push_back(value);
        }
        other[at] = value;
        const auto decoded = decode<SystemAllocatorState>(other);
        return decoded ? std::string("accepted") : std::string(decoded.error().field);
    };
    CHECK(changed(bytes.size(), 0) == "header");
    CHECK(changed(0, 'X') == "header");
    CHECK(changed(4, 2) == "header");
    CHECK(changed(6, 2) == "config.pio");     // neither there nor not
    CHECK(changed(10, 1) == "config.pio");    // beyond the port space
    CHECK(changed(8, 0xFF) == "config.pio");  // ends before it begins
    // Whatever value one byte has, decoding ends, and from_state() checks the result.
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        for (const unsigned value : {0x00U, 0x01U, 0x7FU, 0x80U, 0xFFU}) {
            std::vector<std::uint8_t> other = bytes;
            other[at] = static_cast<std::uint8_t>(value);
            if (const auto decoded = decode<SystemAllocatorState>(other)) {
                CHECK(encode(*decoded) == other);
                if (const auto restored = SystemAllocator::from_state(*decoded)) {
                    CHECK(restored->state() == *decoded);
                }
            }
        }
    }
}

TEST_CASE("Text: ranges and resources as text", "[vmdevice][text]") {
    struct ThirdAddress {
        std::uint32_t value;
    };
    CHECK(to_string(pio(0x3F8, 8)) == "0x3f8-0x3ff");
    CHECK(to_string(pio(0, 1)) == "0x0-0x0");
    CHECK(to_string(mmio(~0ULL - 0xFFF, 0x1000)) == "0xfffffffffffff000-0xffffffffffffffff");
    CHECK(to_string(*NumberRange::from_bounds(Number{5}, Number{15})) == "5-15");
    CHECK(to_string(*BusRange<ThirdAddress>::create({0x10}, 0x10)) == "0x10-0x1f");
    CHECK(to_string(PioAddress{0xCF8}) == "0xcf8");
    CHECK(to_string(MmioAddress{0xFED0'0000}) == "0xfed00000");
    CHECK(to_string(Resource(LegacyIrqResource{4})) == "irq 4");
    CHECK(to_string(LegacyIrqResource{4, IrqSharing::edge}) == "irq 4 (shared, edge)");
    CHECK(to_string(LegacyIrqResource{10, IrqSharing::level}) == "irq 10 (shared, level)");
    CHECK(to_string(DeviceResources{PioResource{pio(0x60, 1)}, MsiIrqResource{MsiIrqType::pci_msix, 3, 2},
                                    MacAddressResource{{0x52, 0x54, 0, 0xA, 0, 0xFF}}}) ==
          "pio 0x60-0x60  msi-x 3+2  mac 52:54:00:0a:00:ff");
    CHECK(to_string(DeviceResources{}).empty());
    CHECK(to_string(ResourceConstraint(PioConstraint::at(pio(0x60, 1)))) == "port range 0x60-0x60");
    CHECK(to_string(PioConstraint{.size = 4, .base = PioAddress{0xFFFE}}) == "4 ports at 0xfffe");
    CHECK(to_string(MmioConstraint{.size = 0x1000}) == "0x1000 bytes of memory");
    CHECK(to_string(MmioConstraint{.size = 2, .base = MmioAddress{~0ULL}}) ==
          "0x2 bytes of memory at 0xffffffffffffffff");
    CHECK(to_string(LegacyIrqConstraint{.count = 3}) == "3 IRQs");
    CHECK(to_string(MacAddressConstraint{}) == "a MAC address");
}
