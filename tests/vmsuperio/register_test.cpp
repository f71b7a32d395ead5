// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <cstdint>

#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/registers/register.hpp>
#include <vmsuperio/registers/uart16550.hpp>

#include "catch.hpp"

namespace {

struct Sample : vmsuperio::Register<Sample, std::uint8_t, 0x3F> {
    using Register::Register;
    static constexpr Field<0, 1> mode{};
    static constexpr Bit<3> enable{};
    static constexpr Field<4, 7> level{};
};

struct Wide : vmsuperio::Register<Wide, std::uint32_t> {
    using Register::Register;
    static constexpr Field<0, 31> all{};
    static constexpr Bit<31> top{};
};

}  // namespace

TEST_CASE("Register: fields read and write their own bits and no others", "[register]") {
    Sample sample(0xA9);
    CHECK(sample[Sample::mode] == 1);
    CHECK(sample[Sample::enable]);
    CHECK(sample[Sample::level] == 0xA);

    sample.set(Sample::mode, 2).clear(Sample::enable);
    CHECK(sample.value() == 0xA2);
    sample.set(Sample::level, 0xF5);
    CHECK(sample.value() == 0x52);
    sample.set(Sample::enable);
    CHECK(sample.value() == 0x5A);
}

TEST_CASE("Register: a guest write changes the bits of the guest mask only", "[register]") {
    for (unsigned before = 0; before < 256; ++before) {
        for (unsigned written = 0; written < 256; ++written) {
            Sample sample(static_cast<std::uint8_t>(before));
            sample.guest_write(static_cast<std::uint8_t>(written));
            REQUIRE(sample.value() == ((before & 0xC0U) | (written & 0x3FU)));
        }
    }
}

TEST_CASE("Register: a field may span the whole register", "[register]") {
    Wide wide(0x80000001U);
    CHECK(wide[Wide::all] == 0x80000001U);
    CHECK(wide[Wide::top]);
    wide.set(Wide::all, 0xFFFFFFFFU);
    CHECK(wide.value() == 0xFFFFFFFFU);
    CHECK(wide == Wide(0xFFFFFFFFU));
}

TEST_CASE("Register: the names of the modem status are the datasheet's bits", "[register]") {
    using vmsuperio::uart16550::ModemStatus;
    CHECK(ModemStatus::delta_clear_to_send.mask == 0x01);
    CHECK(ModemStatus::delta_data_set_ready.mask == 0x02);
    CHECK(ModemStatus::clear_to_send.mask == 0x10);
    CHECK(ModemStatus::data_set_ready.mask == 0x20);
    CHECK(ModemStatus::ring_indicator.mask == 0x40);
    CHECK(ModemStatus::data_carrier_detect.mask == 0x80);
}

TEST_CASE("Register: the CMOS places of memory sizes follow one another", "[register]") {
    namespace mc146818 = vmsuperio::mc146818;
    CHECK(mc146818::memory_above_4g_low == 0x5B);
    CHECK(mc146818::memory_above_4g_middle == 0x5C);
    CHECK(mc146818::memory_above_4g_high == 0x5D);
}
