// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/io_manager.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/acpi_pm.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/rtc_cmos.hpp>

#include "console/serial_backend.hpp"
#include "devices/irq_line.hpp"
#include "devices/oscillator.hpp"
#include "devices/reset_trigger.hpp"
#include "devices/timed_device.hpp"
#include "event/event_manager.hpp"
#include "event/timer.hpp"
#include "kvm/kvm_vm.hpp"
#include "machine/end.hpp"
#include "machine/platform.hpp"
#include "memory/guest_memory.hpp"
#include "observe/device_directory.hpp"
#include "vmm/battery.hpp"
#include "vmm/config.hpp"

namespace kvm_vmm {

/// The bus, and who is on it by name.
struct NamedBus {
    vmdevice::IoManager& io;
    DeviceDirectory& devices;
};

/// Puts `device` on the bus at `size` ports from `port` on. Throws VmmError where they are taken.
void register_port(NamedBus bus, std::uint16_t port, std::uint16_t size,
                   std::shared_ptr<vmdevice::DevicePio> device, std::string_view name);

/// An eventfd that is an edge on interrupt line `irq` each time it is triggered.
[[nodiscard]] vmsuperio::EventFdTrigger make_interrupt(KvmVm& vm, std::uint32_t irq);

/// What a PC has besides its serial ports: keyboard controller, clock, power management, debug ports.
class LegacyDevices {
public:
    /// All arguments must outlive the devices. `debug_console` is null for none.
    LegacyDevices(const VmmConfig& config, const GuestMemory& memory, KvmVm& vm, NamedBus bus,
                  EventManager& events, EndLatch& end, const Battery& battery, SerialBackend* debug_console);

    /// Types Ctrl-Alt-Del on the guest's keyboard. False where it has none, or does not read it.
    bool ctrl_alt_del();
    /// Presses the ACPI power button.
    void press_power_button();
    /// Resets what a battery feeds, and gives what it keeps. Only while no CPU runs.
    [[nodiscard]] Battery reset_battery_backed();

private:
    struct PowerEvents {
        EndLatch* end;
        void power_off() const { end->request(end::PoweredOff{}); }
    };

    using Interrupt = vmsuperio::EventFdTrigger;
    template <class Device>
    using OnBus = vmdevice::Locked<vmdevice::ByteDevice<Device>>;
    using Keyboard = OnBus<vmsuperio::I8042<ResetTrigger, Interrupt, Interrupt>>;
    using RealTimeClock = vmsuperio::RtcCmos<Interrupt, vmsuperio::NoRtcCmosEvents, Oscillator<>>;
    using Clock = OnBus<TimedDevice<RealTimeClock>>;
    using PowerManagement = vmsuperio::AcpiPm<IrqLine, PowerEvents>;
    using Power = OnBus<TimedDevice<PowerManagement>>;

    void add_i8042_device(const VmmConfig& config, KvmVm& vm, NamedBus bus, EndLatch& end);
    void add_rtc(const GuestMemory& memory, KvmVm& vm, NamedBus bus, EventManager& events,
                 const Battery& battery);
    void add_power_management(KvmVm& vm, NamedBus bus, EventManager& events, EndLatch& end);
    static void add_reset_and_panic_ports(NamedBus bus, EndLatch& end);
    static void add_debug_ports(const VmmConfig& config, NamedBus bus, EndLatch& end,
                                SerialBackend* debug_console);

    std::optional<Timer> clock_timer_;
    std::optional<Timer> power_timer_;
    std::shared_ptr<Keyboard> keyboard_;
    std::shared_ptr<Clock> clock_;
    std::shared_ptr<Power> power_;
};

}  // namespace kvm_vmm
