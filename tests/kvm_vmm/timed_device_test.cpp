// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/timed_device.hpp"

#include <chrono>
#include <expected>
#include <optional>
#include <vector>

#include <vmsuperio/acpi_pm.hpp>
#include <vmsuperio/clock.hpp>

#include "catch.hpp"

using namespace kvm_vmm;
using namespace std::chrono_literals;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;

namespace {

struct RecordedTimer {
    std::vector<std::optional<std::chrono::nanoseconds>> deadlines;
    void set(std::optional<std::chrono::nanoseconds> deadline) { deadlines.push_back(deadline); }
};
struct Sci {
    using error_type = vmsuperio::NoTriggerError;
    std::vector<bool>* levels;
    [[nodiscard]] std::expected<void, error_type> trigger() { return {}; }
    [[nodiscard]] std::expected<void, error_type> set_level(bool asserted) {
        levels->push_back(asserted);
        return {};
    }
};
struct NoPowerOff {
    void power_off() { FAIL("nobody asked for that"); }
};
using PowerManagement = vmsuperio::AcpiPm<Sci, NoPowerOff, ClockRef<ManualClock>>;

constexpr std::uint8_t status = vmsuperio::acpi_pm::status_offset;
constexpr std::uint8_t enable = vmsuperio::acpi_pm::enable_offset;

}  // namespace

TEST_CASE("TimedDevice: the power management timer raises the SCI at the wrap, without an access",
          "[time][acpi_pm]") {
    ManualClock clock(1000s);
    RecordedTimer timer;
    std::vector<bool> sci;
    TimedDevice<PowerManagement, RecordedTimer> device(PowerManagement(Sci{&sci}, NoPowerOff{}, clock),
                                                       timer);
    CHECK(device.write(enable + 1, 0x01).has_value());  // of the power button, which needs no timer
    CHECK(timer.deadlines.empty());
    CHECK(device.write(enable, 0x01).has_value());
    REQUIRE(timer.deadlines.size() == 1);
    // 2^31 ticks of 3.579545 MHz on the device's own clock, on which the timer runs too.
    const std::chrono::nanoseconds wrap = 1000s + 599'932'015'941ns;
    CHECK(timer.deadlines.back() == wrap);
    clock.set(wrap - 1ns);
    device.expired();
    CHECK(sci.empty());
    CHECK(timer.deadlines.back() == wrap);  // the timer expired too early and is set again
    clock.set(wrap);
    device.expired();
    CHECK(sci == std::vector{true});
    CHECK(timer.deadlines.size() == 2);  // the timer has expired, and there is no further deadline
    CHECK(device.read(status) == 0x01);
    CHECK(device.write(status, 0x01).has_value());
    CHECK(sci == std::vector{true, false});
    CHECK(timer.deadlines.back() > wrap + 599s);
    CHECK(device.write(enable, 0x00).has_value());
    CHECK_FALSE(timer.deadlines.back().has_value());
}
