// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/acpi_pm.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/registers/register.hpp>
#include <vmsuperio/registers/uart16550.hpp>

#include "catch.hpp"

namespace {

using vmsuperio::Access;

struct Sample : vmsuperio::Register<Sample, std::uint8_t> {
    using Register::Register;
    [[maybe_unused]] static constexpr std::string_view name = "SAMPLE";
    static constexpr Field<0, 1> mode{};
    static constexpr Bit<3> enable{};
    static constexpr Field<4, 7> level{};
    static constexpr Bit<2, Access::read_only> ready{};
    static constexpr vmsuperio::FieldInfo fields[]{
        {"mode", mode.bits}, {"ready", ready.bits}, {"enable", enable.bits}, {"level", level.bits}};
};

struct Flags : vmsuperio::Register<Flags, std::uint16_t> {
    using Register::Register;
    [[maybe_unused]] static constexpr std::string_view name = "FLAGS";
    static constexpr Bit<0, Access::write_one_to_clear> timer{};
    static constexpr Bit<8, Access::write_one_to_clear> button{};
    static constexpr Bit<9, Access::self_clearing> strobe{};
    static constexpr Bit<10> enable{};
    static constexpr Bit<11, Access::read_only> level{};
    static constexpr vmsuperio::FieldInfo fields[]{{"timer", timer.bits},
                                                   {"button", button.bits},
                                                   {"strobe", strobe.bits},
                                                   {"enable", enable.bits},
                                                   {"level", level.bits}};
};

struct Wide : vmsuperio::Register<Wide, std::uint32_t> {
    using Register::Register;
    static constexpr std::string_view name = "WIDE";
    static constexpr Field<0, 31> all{};
    static constexpr vmsuperio::FieldInfo fields[]{{"all", all.bits}};
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

TEST_CASE("Register: a guest write changes the writable fields only", "[register]") {
    for (unsigned before = 0; before < 256; ++before) {
        for (unsigned written = 0; written < 256; ++written) {
            Sample sample(static_cast<std::uint8_t>(before));
            sample.guest_write(static_cast<std::uint8_t>(written));
            REQUIRE(sample.value() == ((before & 0x04U) | (written & 0xFBU)));
        }
    }
}

TEST_CASE("Register: a guest's write affects each field according to its access", "[register]") {
    for (unsigned before = 0; before <= 0x0FFF; ++before) {
        for (const unsigned written : {0x0000U, 0x0001U, 0x0100U, 0x0200U, 0x0400U, 0x0800U, 0xFFFFU}) {
            Flags flags(static_cast<std::uint16_t>(before));
            flags.guest_write(static_cast<std::uint16_t>(written));
            const unsigned kept = before & ~0x0400U & ~(written & 0x0101U);
            REQUIRE(flags.value() == (kept | (written & 0x0400U)));
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

TEST_CASE("Register: the CMOS bytes of memory sizes are consecutive", "[register]") {
    namespace mc146818 = vmsuperio::mc146818;
    CHECK(mc146818::memory_above_4g_low == 0x5B);
    CHECK(mc146818::memory_above_4g_middle == 0x5C);
    CHECK(mc146818::memory_above_4g_high == 0x5D);
}

TEST_CASE("Register: names by offset and direction", "[register]") {
    using vmsuperio::uart16550::register_name;
    const std::array<std::array<std::string_view, 3>, 9> uart{{
        {"RBR", "THR", "DLL"},
        {"IER", "IER", "DLM"},
        {"IIR", "FCR", "IIR"},
        {"LCR", "LCR", "LCR"},
        {"MCR", "MCR", "MCR"},
        {"LSR", "LSR", "LSR"},
        {"MSR", "MSR", "MSR"},
        {"SCR", "SCR", "SCR"},
        {"", "", ""},
    }};
    for (std::size_t offset = 0; offset < uart.size(); ++offset) {
        CAPTURE(offset);
        CHECK(register_name(offset, false, false) == uart[offset][0]);
        CHECK(register_name(offset, true, false) == uart[offset][1]);
        CHECK(register_name(offset, false, true) == uart[offset][2]);
    }
    CHECK(register_name(0, true, true) == "DLL");
    CHECK(register_name(2, true, true) == "FCR");

    CHECK(vmsuperio::i8042::register_name(0, false) == "data");
    CHECK(vmsuperio::i8042::register_name(0, true) == "data");
    CHECK(vmsuperio::i8042::register_name(4, false) == "status");
    CHECK(vmsuperio::i8042::register_name(4, true) == "command");
    CHECK(vmsuperio::i8042::register_name(1, false).empty());

    CHECK(vmsuperio::mc146818::register_name(0) == "index");
    CHECK(vmsuperio::mc146818::register_name(1) == "data");
    CHECK(vmsuperio::mc146818::register_name(2) == "index2");
    CHECK(vmsuperio::mc146818::register_name(3) == "data2");
    CHECK(vmsuperio::mc146818::register_name(4).empty());

    const std::array<std::string_view, 14> power{"PM1_STS", "PM1_STS", "PM1_EN", "PM1_EN", "PM1_CNT",
                                                 "PM1_CNT", "",        "",       "PM_TMR", "PM_TMR",
                                                 "PM_TMR",  "PM_TMR",  "",       ""};
    for (std::size_t offset = 0; offset < power.size(); ++offset) {
        CAPTURE(offset);
        CHECK(vmsuperio::acpi_pm::register_name(offset) == power[offset]);
    }
}
