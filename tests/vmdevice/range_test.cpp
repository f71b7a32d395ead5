// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <compare>
#include <cstdint>

#include <vmdevice/address.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/range.hpp>

#include "catch.hpp"
#include "ranges.hpp"

using namespace vmdevice;
using bus_tests::mmio;
using bus_tests::pio;

namespace {

/// A third address space, as a user would define it.
struct ConfigAddress {
    std::uint32_t value;
};
static_assert(BusAddress<PioAddress> && BusAddress<MmioAddress> && BusAddress<ConfigAddress>);
static_assert(!BusAddress<int> && !BusAddress<std::uint64_t>);

struct SignedAddress {
    std::int32_t value;
};
static_assert(!BusAddress<SignedAddress>);

}  // namespace

TEST_CASE("Address: comparison is by value", "[vmdevice][address]") {
    CHECK(PioAddress{1} == PioAddress{1});
    CHECK(PioAddress{1} < PioAddress{2});
    CHECK(MmioAddress{0xFFFF'FFFF'FFFF'FFFF} > MmioAddress{0});
}

TEST_CASE("Address: checked_add refuses to leave the space", "[vmdevice][address]") {
    CHECK(checked_add(PioAddress{0xFFFE}, 1) == PioAddress{0xFFFF});
    CHECK_FALSE(checked_add(PioAddress{0xFFFF}, 1).has_value());
    CHECK(checked_add(PioAddress{5}, 10) == PioAddress{15});
    CHECK(checked_add(MmioAddress{5}, 10U) == MmioAddress{15});
    CHECK(checked_add(MmioAddress{0}, ~0ULL) == MmioAddress{~0ULL});
    CHECK_FALSE(checked_add(MmioAddress{1}, ~0ULL).has_value());
    CHECK(checked_add(ConfigAddress{7}, 1U)->value == 8);
    CHECK_FALSE(checked_add(ConfigAddress{~0U}, 1U).has_value());
}

TEST_CASE("Range: an empty range is refused", "[vmdevice][range]") {
    CHECK(PioRange::create(PioAddress{0x3F8}, 0).error() == BusError::invalid_range);
    CHECK(MmioRange::create(MmioAddress{0}, 0).error() == BusError::invalid_range);
}

TEST_CASE("Range: a range that wraps is refused and one that ends at the last address is not",
          "[vmdevice][range]") {
    CHECK(PioRange::create(PioAddress{0xFFF8}, 8)->last() == PioAddress{0xFFFF});
    CHECK(PioRange::create(PioAddress{0xFFF8}, 9).error() == BusError::invalid_range);
    CHECK(PioRange::create(PioAddress{0xFFFF}, 1)->last() == PioAddress{0xFFFF});
    CHECK(PioRange::create(PioAddress{0}, 0xFFFF)->last() == PioAddress{0xFFFE});
    CHECK(PioRange::create(PioAddress{1}, 0xFFFF)->last() == PioAddress{0xFFFF});
    CHECK(PioRange::create(PioAddress{2}, 0xFFFF).error() == BusError::invalid_range);
    CHECK(MmioRange::create(MmioAddress{~0ULL}, 1)->size() == 1);
    CHECK(MmioRange::create(MmioAddress{~0ULL}, 2).error() == BusError::invalid_range);
    CHECK(MmioRange::create(MmioAddress{1}, ~0ULL)->last() == MmioAddress{~0ULL});
    CHECK(MmioRange::create(MmioAddress{2}, ~0ULL).error() == BusError::invalid_range);
}

TEST_CASE("Range: from_bounds takes both ends and refuses the whole space", "[vmdevice][range]") {
    CHECK(PioRange::from_bounds(PioAddress{0x60}, PioAddress{0x64})->size() == 5);
    CHECK(PioRange::from_bounds(PioAddress{0x60}, PioAddress{0x60}) == PioRange::unit(PioAddress{0x60}));
    CHECK(PioRange::from_bounds(PioAddress{0x61}, PioAddress{0x60}).error() == BusError::invalid_range);
    CHECK(PioRange::from_bounds(PioAddress{0}, PioAddress{0xFFFF}).error() == BusError::invalid_range);
    CHECK(PioRange::from_bounds(PioAddress{0}, PioAddress{0xFFFE})->size() == 0xFFFF);
}

TEST_CASE("Range: unit covers one address, which may be the last one", "[vmdevice][range]") {
    constexpr auto range = PioRange::unit(PioAddress{0xFFFF});
    CHECK(range.base() == PioAddress{0xFFFF});
    CHECK(range.last() == PioAddress{0xFFFF});
    CHECK(range.size() == 1);
}

TEST_CASE("Range: overlap holds for shared addresses only", "[vmdevice][range]") {
    const auto range = *MmioRange::create(MmioAddress{0x1000}, 0x1000);
    CHECK(range.overlaps(range));
    CHECK(range.overlaps(MmioRange::unit(MmioAddress{0x1000})));
    CHECK(range.overlaps(MmioRange::unit(MmioAddress{0x1FFF})));
    CHECK_FALSE(range.overlaps(MmioRange::unit(MmioAddress{0x0FFF})));
    CHECK_FALSE(range.overlaps(MmioRange::unit(MmioAddress{0x2000})));
    CHECK(range.overlaps(*MmioRange::create(MmioAddress{0}, ~0ULL)));
}

TEST_CASE("Range: another one is inside when both its ends are", "[vmdevice][range]") {
    const auto range = *PioRange::create(PioAddress{0x10}, 0x10);
    CHECK(range.contains(range));
    CHECK(range.contains(*PioRange::create(PioAddress{0x14}, 4)));
    CHECK(range.contains(*PioRange::create(PioAddress{0x1F}, 1)));
    CHECK_FALSE(range.contains(*PioRange::create(PioAddress{0x0F}, 4)));
    CHECK_FALSE(range.contains(*PioRange::create(PioAddress{0x1E}, 4)));
    CHECK_FALSE(range.contains(*PioRange::create(PioAddress{0x0F}, 0x12)));
    CHECK_FALSE(range.contains(*PioRange::create(PioAddress{0x30}, 1)));
}

TEST_CASE("Range: an access is inside when all its bytes are", "[vmdevice][range]") {
    const auto range = *MmioRange::create(MmioAddress{~0ULL - 7}, 8);
    CHECK(range.contains_access(MmioAddress{~0ULL - 7}, 8));
    CHECK_FALSE(range.contains_access(MmioAddress{~0ULL - 7}, 9));
    CHECK(range.contains_access(MmioAddress{~0ULL}, 1));
    CHECK_FALSE(range.contains_access(MmioAddress{~0ULL}, 2));
    CHECK_FALSE(range.contains_access(MmioAddress{~0ULL}, SIZE_MAX));
    CHECK_FALSE(range.contains_access(MmioAddress{~0ULL}, 0));
    CHECK_FALSE(range.contains_access(MmioAddress{~0ULL - 8}, 1));
    CHECK(range.offset_of(MmioAddress{~0ULL}) == 7);
}

TEST_CASE("BusError: every error has its own text", "[vmdevice][error]") {
    const auto all = {BusError::device_not_found, BusError::device_overlap, BusError::invalid_access_length,
                      BusError::invalid_range};
    CHECK(to_string(static_cast<BusError>(0xFF)) == "unknown bus error");
    for (const BusError a : all) {
        CHECK_FALSE(to_string(a).empty());
        for (const BusError b : all) {
            CHECK((to_string(a) == to_string(b)) == (a == b));
        }
    }
}

TEST_CASE("Range: the order is that of the bases, then of the last addresses", "[vmdevice][range]") {
    CHECK(pio(1, 8) < pio(2, 1));
    CHECK(pio(1, 1) < pio(1, 2));
    CHECK(pio(0xFFFF, 1) > pio(0, 0xFFFF));
    CHECK((pio(3, 4) <=> pio(3, 4)) == std::strong_ordering::equal);
    CHECK(pio(3, 4) >= pio(3, 4));
    CHECK_FALSE(pio(3, 4) < pio(3, 4));
    // The order of 64-bit addresses does not wrap.
    CHECK(mmio(0, 1) < mmio(~0ULL, 1));
}

TEST_CASE("Range: the intersection contains the addresses that both cover, or is nothing",
          "[vmdevice][range]") {
    CHECK(pio(0x10, 0x10).intersection(pio(0x18, 0x10)) == pio(0x18, 8));
    CHECK(pio(0x18, 0x10).intersection(pio(0x10, 0x10)) == pio(0x18, 8));
    CHECK(pio(0x10, 0x10).intersection(pio(0x14, 2)) == pio(0x14, 2));
    CHECK(pio(0x14, 2).intersection(pio(0x10, 0x10)) == pio(0x14, 2));
    CHECK(pio(0x10, 0x10).intersection(pio(0x1F, 1)) == pio(0x1F, 1));
    CHECK_FALSE(pio(0x10, 0x10).intersection(pio(0x20, 1)));
    CHECK_FALSE(pio(0x20, 1).intersection(pio(0x10, 0x10)));
    CHECK(mmio(~0ULL - 1, 2).intersection(mmio(~0ULL, 1)) == mmio(~0ULL, 1));
    for (std::uint16_t base = 0; base < 12; ++base) {
        for (std::uint16_t size = 1; size < 12; ++size) {
            const PioRange a = pio(base, size);
            const PioRange b = pio(4, 5);
            const auto both = a.intersection(b);
            for (std::uint16_t at = 0; at < 32; ++at) {
                const PioAddress address{at};
                CHECK((both && both->contains(address)) == (a.contains(address) && b.contains(address)));
            }
        }
    }
}

TEST_CASE("Range: a split returns two parts that are not empty", "[vmdevice][range]") {
    const auto parts = pio(0x3F8, 8).split_at(PioAddress{0x3FC});
    REQUIRE(parts);
    CHECK(parts->first == pio(0x3F8, 4));
    CHECK(parts->second == pio(0x3FC, 4));
    CHECK(pio(0x3F8, 8).split_at(PioAddress{0x3FF})->second == pio(0x3FF, 1));
    CHECK(pio(0x3F8, 8).split_at(PioAddress{0x3F8}).error() == BusError::invalid_range);
    CHECK(pio(0x3F8, 8).split_at(PioAddress{0x400}).error() == BusError::invalid_range);
    CHECK(pio(0x3F8, 8).split_at(PioAddress{0}).error() == BusError::invalid_range);
    CHECK(pio(5, 1).split_at(PioAddress{5}).error() == BusError::invalid_range);
    CHECK(mmio(1, ~0ULL).split_at(MmioAddress{~0ULL})->second == mmio(~0ULL, 1));
}
