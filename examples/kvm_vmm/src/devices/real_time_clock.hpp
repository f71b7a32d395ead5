// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>

#include <vmdevice/range.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/rtc_cmos.hpp>

#include "devices/interrupt.hpp"
#include "devices/machine_device.hpp"
#include "devices/oscillator.hpp"
#include "util/error.hpp"

namespace kvm_vmm {

/// The MC146818 with its CMOS memory: ports 0x70 and 0x71, and 0x72 and 0x73 for the second bank.
[[nodiscard]] inline MachineDevice real_time_clock() {
    static constexpr auto range = vmdevice::pio_range(0x70, 4);
    static constexpr std::uint8_t irq = 8;
    // The CMOS bytes of the alarm's day and month are those of VIA's chipsets.
    static constexpr fixed_hardware::CmosClock cmos{.day_alarm = 0x7D, .month_alarm = 0x7E, .century = 0x32};

    const auto create = [](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
        using Clock = vmsuperio::RtcCmos<vmsuperio::EventFdTrigger, vmsuperio::NoRtcCmosEvents, Oscillator<>>;
        // The state of the CMOS at the first start: the host's time, and the bytes that firmware writes.
        const auto first_state = [&context] {
            vmsuperio::RtcCmos clock(context.battery.oscillator);
            clock.set_memory_size(context.memory.low_end(), context.memory.size() - context.memory.low_end());
            return clock.state();
        };
        auto clock = Clock::from_state(context.battery.cmos ? *context.battery.cmos : first_state(),
                                       make_interrupt(context.vm, irq), {}, context.battery.oscillator,
                                       {.utc_offset = std::chrono::seconds(0),
                                        .day_alarm = cmos.day_alarm,
                                        .month_alarm = cmos.month_alarm});
        if (!clock) {
            throw VmmError(ExitCode::vmm_error,
                           "the clock's saved state is not valid: " + to_string(clock.error()));
        }
        const auto device = put_on_bus_timed(observed, context.events, BootClock::id, std::move(*clock));
        context.controls.reset_battery_backed = [device] {
            const auto locked = device->lock();
            Clock& rtc = locked->device();
            // The line has fallen before the state is saved, so that the next VM starts without an interrupt.
            (void)rtc.reset();
            return Battery{.cmos = rtc.state(), .oscillator = rtc.clock()};
        };
        return device;
    };
    return {.description = with_acpi_node({.name = "CMOS",
                                           .title = "clock and CMOS",
                                           .model = "vmsuperio::RtcCmos",
                                           .resources = {ports(range), interrupt(irq)},
                                           .fixed_hardware = cmos},
                                          "RTC_", "PNP0B00"),
            .create = create,
            // The index, which has no effect before the data port is accessed.
            .coalesced_ports = {range.base().value}};
}

}  // namespace kvm_vmm
