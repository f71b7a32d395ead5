// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The guarantees of next_deadline(), tick(), state() and from_state(), for every device with time in one
// harness (tests/support/timed_device.hpp).

#include "timed_device.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <expected>

#include <vmsuperio/acpi_pm.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/rtc_cmos.hpp>
#include <vmsuperio/rtc_pl031.hpp>

#include "catch.hpp"

using namespace timed_device;
using vmsuperio::StateError;

namespace {

template <class Device>
std::uint64_t port_access(Device& device, std::uint8_t offset, bool write, Random& random) {
    if (write) {
        static_cast<void>(device.write(offset, static_cast<std::uint8_t>(random())));
        return 0;
    }
    return device.read(offset);
}

struct CmosSubject {
    using Device = vmsuperio::RtcCmos<Wire, vmsuperio::NoRtcCmosEvents, ClockRef>;
    using State = vmsuperio::RtcCmosState;
    static constexpr const char* name = "RtcCmos";
    static constexpr vmsuperio::RtcCmosOptions options{
        .utc_offset = std::chrono::hours(1), .day_alarm = 0x7D, .month_alarm = 0x7E};

    static Device make(Line& line, const ManualClock& clock) {
        return Device(Wire{&line}, {}, ClockRef(clock), options);
    }
    static std::expected<Device, StateError> restore(const State& state, Line& line,
                                                     const ManualClock& clock) {
        return Device::from_state(state, Wire{&line}, {}, ClockRef(clock), options);
    }
    static std::expected<void, StateError> valid(const State& state) { return validate(state, options); }
    static bool line(const Device& device) { return (device.cmos(0x0C) & 0x80) != 0; }
    static bool happened(const Device& device) { return line(device); }
    static std::uint64_t access(Device& device, Random& random) {
        const auto kind = random() % 16;
        if (kind == 0) {
            return port_access(device, static_cast<std::uint8_t>(random() % 6), random() % 2 == 0, random);
        }
        if (kind == 1) {
            static_cast<void>(device.write(0, 0x0C));
            return device.read(1);
        }
        if (kind == 2) {  // an alarm with small numbers, so that it occurs
            static_cast<void>(device.write(0, static_cast<std::uint8_t>(random() % 3 * 2 + 1)));
            static_cast<void>(
                device.write(1, random() % 2 == 0 ? 0xFF : static_cast<std::uint8_t>(random())));
            return 0;
        }
        if (kind < 6) {  // a clock that runs, with some interrupts on
            static_cast<void>(device.write(0, 0x0A));
            static_cast<void>(device.write(1, static_cast<std::uint8_t>(0x20 + random() % 16)));
            static_cast<void>(device.write(0, 0x0B));
            static_cast<void>(device.write(1, static_cast<std::uint8_t>(random() & 0x77)));
            return 0;
        }
        if (random() % 64 == 0) {
            static_cast<void>(device.reset());
            return 0;
        }
        static_cast<void>(device.write(0, static_cast<std::uint8_t>(random() % 16)));
        return port_access(device, 1, random() % 4 == 0, random);
    }
};

struct Pl031Subject {
    using Device = vmsuperio::RtcPl031<Wire, vmsuperio::NoRtcPl031Events, ClockRef>;
    using State = vmsuperio::RtcPl031State;
    static constexpr const char* name = "RtcPl031";

    static Device make(Line& line, const ManualClock& clock) { return {Wire{&line}, ClockRef(clock)}; }
    static std::expected<Device, StateError> restore(const State& state, Line& line,
                                                     const ManualClock& clock) {
        return Device::from_state(state, Wire{&line}, {}, ClockRef(clock));
    }
    static std::expected<void, StateError> valid(const State& state) { return validate(state); }
    static bool line(const Device& device) { return device.peek(0x18) == 1U; }
    static bool happened(const Device& device) { return line(device); }
    static void put(Device& device, std::uint64_t offset, std::uint64_t value) {
        const std::array<std::uint8_t, 4> bytes{
            static_cast<std::uint8_t>(value), static_cast<std::uint8_t>(value >> 8U),
            static_cast<std::uint8_t>(value >> 16U), static_cast<std::uint8_t>(value >> 24U)};
        static_cast<void>(device.write(offset, bytes));
    }
    static std::uint64_t access(Device& device, Random& random) {
        switch (random() % 8) {
            case 0:
                put(device, 0x10, random() % 4 == 0 ? 0 : 1);
                return 0;
            case 1:
                put(device, 0x1C, 1);
                return 0;
            case 2:
            case 3:  // a match in the future or in the past
                put(device, 0x04, device.peek(0).value_or(0) + random() % 64 - 4);
                return 0;
            case 4:
                put(device, random() % 10 * 4, random());
                return 0;
            case 5:
                if (random() % 32 == 0) {
                    static_cast<void>(device.reset());
                }
                return 0;
            default: {
                std::array<std::uint8_t, 4> bytes{};
                device.read(random() % 10 * 4, bytes);
                return bytes[0] + 256U * bytes[1];
            }
        }
    }
};

struct PmSubject {
    struct Events {
        void power_off() {}
    };
    using Device = vmsuperio::AcpiPm<Wire, Events, ClockRef>;
    using State = vmsuperio::AcpiPmState;
    static constexpr const char* name = "AcpiPm";

    static Device make(Line& line, const ManualClock& clock) {
        return Device(Wire{&line}, Events{}, ClockRef(clock));
    }
    static std::expected<Device, StateError> restore(const State& state, Line& line,
                                                     const ManualClock& clock) {
        return Device::from_state(state, Wire{&line}, Events{}, ClockRef(clock));
    }
    static std::expected<void, StateError> valid(const State& state) { return validate(state); }
    static bool line(const Device& device) {
        return ((device.peek(0) & device.peek(2)) | (device.peek(1) & device.peek(3))) != 0;
    }
    static bool happened(const Device& device) { return line(device); }
    static std::uint64_t access(Device& device, Random& random) {
        if (random() % 16 == 0) {
            static_cast<void>(device.press_power_button());
            return 0;
        }
        if (random() % 4 == 0) {  // the timer's interrupt on, its status cleared
            static_cast<void>(device.write(2, random() % 4 == 0 ? 0 : 1));
            static_cast<void>(device.write(0, 1));
            static_cast<void>(device.write(1, 1));
            return 0;
        }
        if (random() % 64 == 0) {
            static_cast<void>(device.reset());
            return 0;
        }
        return port_access(device, static_cast<std::uint8_t>(random() % 12), random() % 2 == 0, random);
    }
};

struct I8042Subject {
    using Device = vmsuperio::I8042<vmsuperio::NullTrigger, Wire, vmsuperio::NullTrigger,
                                    vmsuperio::NoI8042Events, ClockRef>;
    using State = vmsuperio::I8042State;
    static constexpr const char* name = "I8042";
    static constexpr std::chrono::nanoseconds hold_off{1'000'000};

    static Device make(Line& line, const ManualClock& clock) {
        return Device({}, Wire{&line}, {}, {}, ClockRef(clock), {.hold_off = hold_off});
    }
    static std::expected<Device, StateError> restore(const State& state, Line& line,
                                                     const ManualClock& clock) {
        return Device::from_state(state, {}, Wire{&line}, {}, {}, ClockRef(clock), hold_off);
    }
    static std::expected<void, StateError> valid(const State& state) { return validate(state); }
    /// IRQ 1: a byte that is not the mouse's, with its interrupt on.
    static bool line(const Device& device) {
        return (device.peek(4) & 0x21) == 0x01 && (device.state().ram[0] & 0x01) != 0;
    }
    static bool happened(const Device& device) { return (device.peek(4) & 0x01) != 0; }
    static std::uint64_t access(Device& device, Random& random) {
        switch (random() % 8) {
            case 0:
            case 1:
            case 2:
                static_cast<void>(device.key(vmsuperio::Key::a, random() % 2 == 0));
                return 0;
            case 3:
                return port_access(device, random() % 2 == 0 ? 0 : 4, random() % 2 == 0, random);
            case 4:
                return device.read(4);
            default:
                return device.read(0);
        }
    }
};

}  // namespace

TEMPLATE_TEST_CASE("Timed devices: a deadline is neither earlier nor later than its event",
                   "[devices][time][property]", CmosSubject, Pl031Subject, PmSubject, I8042Subject) {
    deadlines_are_exact<TestType>(11, 200);
}

TEMPLATE_TEST_CASE("Timed devices: a device saved in the middle and restored continues like the original",
                   "[devices][time][snapshot][property]", CmosSubject, Pl031Subject, PmSubject,
                   I8042Subject) {
    restored_continues<TestType>(12, 2'000);
}

TEST_CASE("Timed devices: restored on a clock that is behind, a device has the right deadline at once",
          "[devices][time][snapshot]") {
    using namespace std::chrono_literals;
    Bench<CmosSubject> saved(1'000'000s);
    static_cast<void>(saved.device.write(0, 0x0B));
    static_cast<void>(saved.device.write(1, 0x12));  // an interrupt each second
    saved.tick_at(1'000'000s + 250ms);
    REQUIRE(saved.device.next_deadline() == 1'000'001s);

    Bench<CmosSubject> behind(5s, saved.device.state());
    CHECK(behind.device.next_deadline() == 5s + 750ms);
    CHECK_FALSE(behind.line.level);
    // On a clock that is ahead, what was due by then has happened.
    Bench<CmosSubject> ahead(1'000'002s, saved.device.state());
    CHECK(ahead.line.level);
    CHECK(ahead.line.rises == 1);
    CHECK_FALSE(ahead.device.next_deadline().has_value());

    Bench<PmSubject> timer(1'000'000s);
    static_cast<void>(timer.device.write(2, 0x01));  // TMR_EN
    const auto deadline = timer.device.next_deadline();
    REQUIRE(deadline.has_value());
    Bench<PmSubject> timer_behind(5s, timer.device.state());
    CHECK(timer_behind.device.next_deadline() == *deadline - 1'000'000s + 5s);
}

TEMPLATE_TEST_CASE("Timed devices: each hostile state is refused by name, or restores a device that works",
                   "[devices][time][snapshot][property]", CmosSubject, Pl031Subject, PmSubject,
                   I8042Subject) {
    hostile_states_are_refused_or_work<TestType>(13, 10'000);
}
