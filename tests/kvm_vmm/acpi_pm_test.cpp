// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/acpi_pm.hpp"

#include <chrono>
#include <vector>

#include "catch.hpp"

using namespace kvm_vmm;
using namespace std::chrono_literals;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;

namespace {

struct LineRecorder {
    using error_type = vmsuperio::NoTriggerError;
    std::vector<bool>* levels;
    [[nodiscard]] std::expected<void, error_type> trigger() { return {}; }
    [[nodiscard]] std::expected<void, error_type> set_level(bool asserted) {
        levels->push_back(asserted);
        return {};
    }
};
static_assert(vmsuperio::LevelTrigger<LineRecorder>);

struct PowerOffs {
    int* count;
    void power_off() { ++*count; }
};

struct Harness {
    ManualClock clock{5s};
    std::vector<bool> levels;
    int power_offs{0};
    AcpiPm<LineRecorder, PowerOffs, ClockRef<ManualClock>> pm{LineRecorder{&levels}, PowerOffs{&power_offs},
                                                              ClockRef(clock)};

    unsigned read(std::uint8_t offset, unsigned bytes) {
        unsigned value = 0;
        for (unsigned i = 0; i < bytes; ++i) {
            value |= static_cast<unsigned>(pm.read(static_cast<std::uint8_t>(offset + i))) << (8U * i);
        }
        return value;
    }
    void write16(std::uint8_t offset, unsigned value) {
        pm.write(offset, static_cast<std::uint8_t>(value));
        pm.write(static_cast<std::uint8_t>(offset + 1), static_cast<std::uint8_t>(value >> 8U));
    }
};

constexpr std::uint8_t status = 0;
constexpr std::uint8_t enable = 2;
constexpr std::uint8_t control = 4;
constexpr std::uint8_t timer = 8;

}  // namespace

TEST_CASE("AcpiPm: reset values, and nothing asserted", "[acpi_pm]") {
    Harness h;
    CHECK(h.read(status, 2) == 0);
    CHECK(h.read(enable, 2) == 0);
    CHECK(h.read(control, 2) == 1);  // SCI_EN: ACPI mode from the start
    CHECK(h.read(timer, 4) == 0);
    CHECK(h.read(6, 2) == 0);
    CHECK(h.pm.read(200) == 0);
    CHECK(h.levels.empty());
    CHECK(h.power_offs == 0);
}

TEST_CASE("AcpiPm: writable masks", "[acpi_pm]") {
    Harness h;
    h.write16(enable, 0xFFFF);
    CHECK(h.read(enable, 2) == 0x0521);  // timer, global lock, power button, RTC: they must stick
    h.write16(enable, 0);
    CHECK(h.read(enable, 2) == 0);
    h.write16(control, 0x1C02);
    CHECK(h.read(control, 2) == 0x1C03);
    h.write16(control, 0x0004);  // GBL_RLS reads 0; SCI_EN stays
    CHECK(h.read(control, 2) == 1);
    h.write16(status, 0xFFFF);  // only clears
    CHECK(h.read(status, 2) == 0);
    for (std::uint8_t offset = 6; offset < 12; ++offset) {
        h.pm.write(offset, 0xFF);
    }
    CHECK(h.read(timer, 4) == 0);
    CHECK(h.power_offs == 0);
}

TEST_CASE("AcpiPm: SLP_EN with the S5 type powers off, once; other types and the type alone do not",
          "[acpi_pm]") {
    Harness h;
    h.write16(control, 5U << 10U);
    CHECK(h.power_offs == 0);
    for (unsigned type = 0; type < 8; ++type) {
        if (type != 5) {
            h.write16(control, type << 10U | 1U << 13U);
        }
    }
    CHECK(h.power_offs == 0);
    h.write16(control, 5U << 10U | 1U << 13U);
    CHECK(h.power_offs == 1);
    CHECK((h.read(control, 2) & 1U << 13U) == 0);
    h.pm.write(control, 0);  // the low byte alone does not ask again
    CHECK(h.power_offs == 1);
}

TEST_CASE("AcpiPm: the power button raises the SCI while enabled, until its status is cleared", "[acpi_pm]") {
    Harness h;
    h.pm.press_power_button();
    CHECK(h.read(status, 2) == 0x100);
    CHECK(h.levels.empty());  // not enabled
    h.write16(enable, 0x100);
    CHECK(h.levels == std::vector{true});
    h.pm.press_power_button();
    CHECK(h.levels == std::vector{true});
    h.write16(status, 0x0001);  // another bit
    CHECK(h.pm.sci_level());
    h.write16(status, 0x0100);
    CHECK(h.levels == std::vector{true, false});
    CHECK(h.read(status, 2) == 0);
    h.pm.press_power_button();
    CHECK(h.levels == std::vector{true, false, true});
    h.write16(enable, 0);
    CHECK(h.levels == std::vector{true, false, true, false});
    CHECK(h.read(status, 2) == 0x100);
}

TEST_CASE("AcpiPm: the timer counts 3.579545 MHz in 32 bits", "[acpi_pm]") {
    Harness h;
    h.clock.advance(1s);
    CHECK(h.read(timer, 4) == 3'579'545);
    h.clock.advance(1ms);
    CHECK(h.read(timer, 4) == 3'583'124);  // 3579.545 ticks in a ms, rounded down
    h.clock.set(5s + std::chrono::hours(24 * 365));
    CHECK(h.read(timer, 4) == static_cast<std::uint32_t>(3'579'545ULL * 3600 * 24 * 365));
    h.clock.set(4s);  // backwards: some value, no harm
    static_cast<void>(h.read(timer, 4));
}

TEST_CASE("AcpiPm: a timer read split into bytes shows one moment", "[acpi_pm]") {
    Harness h;
    h.clock.advance(18308ns);  // 65 ticks
    h.clock.advance(18309ns);
    const unsigned low = h.pm.read(timer);
    h.clock.advance(1h);
    CHECK((low | static_cast<unsigned>(h.pm.read(timer + 1)) << 8U) == 131);
    CHECK(h.pm.read(timer + 2) == 0);
    CHECK(h.pm.read(timer + 3) == 0);
    CHECK(h.pm.read(timer) != low);
}

TEST_CASE("AcpiPm: TMR_STS comes with each change of the timer's top bit", "[acpi_pm]") {
    Harness h;
    h.write16(enable, 1);
    h.clock.advance(599s);
    CHECK(h.read(status, 2) == 0);
    h.clock.advance(2s);  // 2^31 ticks take 599.9 s
    CHECK(h.read(status, 2) == 1);
    CHECK(h.levels == std::vector{true});
    h.write16(status, 1);
    CHECK(h.levels == std::vector{true, false});
    CHECK(h.read(status, 2) == 0);
    h.clock.advance(600s);
    CHECK(h.read(status, 2) == 1);
}

TEST_CASE("AcpiPm: reset() lowers the SCI and forgets the guest's settings", "[acpi_pm]") {
    Harness h;
    h.write16(enable, 0x100);
    h.write16(control, 0x1C02);
    h.pm.press_power_button();
    h.pm.reset();
    CHECK(h.levels == std::vector{true, false});
    CHECK(h.read(status, 2) == 0);
    CHECK(h.read(enable, 2) == 0);
    CHECK(h.read(control, 2) == 1);
    CHECK(h.power_offs == 0);
}
