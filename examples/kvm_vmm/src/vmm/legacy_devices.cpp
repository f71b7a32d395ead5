// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/legacy_devices.hpp"

#include <chrono>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <vmdevice/port_view.hpp>
#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/exit_port.hpp>
#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/pvpanic.hpp>
#include <vmsuperio/reset_control.hpp>

#include "devices/register_names.hpp"
#include "observe/device_errors.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

constexpr std::uint16_t post_code_port = 0x80;
constexpr std::uint16_t bochs_debug_port = 0xE9;
constexpr std::uint16_t firmware_debug_port = 0x402;
constexpr std::uint16_t exit_port = 0x501;

constexpr std::string_view keyboard_name = "i8042";
constexpr std::string_view clock_name = "CMOS";
constexpr std::string_view power_name = "PM1a";
constexpr std::string_view post_code_name = "post_code";
constexpr std::string_view debug_console_name = "debug_console";
constexpr std::string_view exit_port_name = "exit_port";
constexpr std::string_view reset_name = "reset_control";
constexpr std::string_view system_control_name = "system_control";
constexpr std::string_view pvpanic_name = "pvpanic";

template <class Device>
std::shared_ptr<vmdevice::Locked<vmdevice::ByteDevice<Device>>> on_bus(NamedBus bus, std::string_view name,
                                                                       Device device) {
    auto shared = std::make_shared<vmdevice::Locked<vmdevice::ByteDevice<Device>>>(std::move(device));
    ObservedDevice& observed = bus.devices.add(name);
    observed.register_name = register_namer(shared);
    shared->with_lock(
        [log = DeviceErrorLog(observed)](auto& registers) { registers.set_error_handler(log); });
    return shared;
}

// At the first start: the host's time, and what firmware writes into the CMOS.
vmsuperio::RtcCmosState first_cmos(const GuestMemory& memory, const Oscillator<>& oscillator) {
    vmsuperio::RtcCmos clock(oscillator);
    clock.set_memory_size(memory.low_end(), memory.size() - memory.low_end());
    return clock.state();
}

// Only a panic is the end. The other events announce what comes: a crash kernel that saves a dump and then
// resets or powers off, or an orderly shutdown.
void on_panic_event(vmsuperio::PvpanicEvent event, EndLatch& end) {
    switch (event) {
        case vmsuperio::PvpanicEvent::panicked:
            end.request(end::Panicked{}, "the guest panicked");
            break;
        case vmsuperio::PvpanicEvent::crash_loaded:
            log(LogLevel::warning, "the guest panicked, and a crash kernel goes on");
            break;
        case vmsuperio::PvpanicEvent::shutdown:
            log(LogLevel::info, "the guest shuts down");
            break;
    }
}

}  // namespace

void register_port(NamedBus bus, std::uint16_t port, std::uint16_t size,
                   std::shared_ptr<vmdevice::DevicePio> device, std::string_view name) {
    const auto range = vmdevice::PioRange::create(vmdevice::PioAddress{port}, size);
    if (!range || !bus.io.register_pio(*range, std::move(device))) {
        throw VmmError(ExitCode::vmm_error, "two devices claim port " + std::to_string(port));
    }
    bus.devices.add_ports(name, port, size);
}

vmsuperio::EventFdTrigger make_interrupt(KvmVm& vm, std::uint32_t irq) {
    auto event_fd = vmsuperio::EventFdTrigger::create();
    if (!event_fd) {
        throw VmmError(ExitCode::vmm_error, "cannot create an eventfd: " + event_fd.error().message());
    }
    vm.register_irqfd(event_fd->fd(), irq);
    return std::move(*event_fd);
}

LegacyDevices::LegacyDevices(const VmmConfig& config, const GuestMemory& memory, KvmVm& vm, NamedBus bus,
                             EventManager& events, EndLatch& end, const Battery& battery,
                             SerialBackend* debug_console) {
    add_i8042_device(config, vm, bus, end);
    add_rtc(memory, vm, bus, events, battery);
    add_power_management(vm, bus, events, end);
    add_reset_and_panic_ports(bus, end);
    add_debug_ports(config, bus, end, debug_console);
}

void LegacyDevices::add_i8042_device(const VmmConfig& config, KvmVm& vm, NamedBus bus, EndLatch& end) {
    if (config.i8042 == vmsuperio::I8042Profile::absent) {
        return;  // ports that nothing claims read 0xFF
    }
    using Controller = vmsuperio::I8042<ResetTrigger, Interrupt, Interrupt>;
    keyboard_ = on_bus(bus, keyboard_name,
                       Controller(ResetTrigger(end), make_interrupt(vm, platform::keyboard_irq),
                                  make_interrupt(vm, platform::mouse_irq), {}, {.profile = config.i8042}));
    // Between the two ports lies 0x61, which is the PIT's.
    const auto view =
        std::make_shared<vmdevice::PortView>(vmdevice::PioAddress{platform::i8042_data_port}, keyboard_);
    register_port(bus, platform::i8042_data_port, 1, view, keyboard_name);
    register_port(bus, platform::i8042_command_port, 1, view, keyboard_name);
}

void LegacyDevices::add_rtc(const GuestMemory& memory, KvmVm& vm, NamedBus bus, EventManager& events,
                            const Battery& battery) {
    // The timer belongs to the loop, the device to whichever thread holds its lock.
    clock_timer_.emplace(events, BootClock::id,
                         [this] { clock_->with_lock([](auto& device) { device.device().expired(); }); });
    auto rtc =
        RealTimeClock::from_state(battery.cmos ? *battery.cmos : first_cmos(memory, battery.oscillator),
                                  make_interrupt(vm, platform::rtc_irq), {}, battery.oscillator,
                                  {.utc_offset = std::chrono::seconds(0),
                                   .day_alarm = platform::cmos_day_alarm,
                                   .month_alarm = platform::cmos_month_alarm});
    if (!rtc) {
        throw VmmError(ExitCode::vmm_error,
                       "the clock's state cannot be taken over: " + to_string(rtc.error()));
    }
    clock_ = on_bus(bus, clock_name, TimedDevice(std::move(*rtc), *clock_timer_));
    register_port(bus, platform::rtc_port, platform::rtc_port_count, clock_, clock_name);
}

void LegacyDevices::add_power_management(KvmVm& vm, NamedBus bus, EventManager& events, EndLatch& end) {
    // The steady clock, which the power management timer runs on.
    power_timer_.emplace(events, CLOCK_MONOTONIC,
                         [this] { power_->with_lock([](auto& device) { device.device().expired(); }); });
    const PowerManagement block(
        IrqLine(vm, platform::sci_irq), PowerEvents{&end}, vmsuperio::SteadyClock(),
        {.sleep_type_s5 = platform::sleep_type_s5, .timer_width = vmsuperio::AcpiTimerWidth::bits_32});
    power_ = on_bus(bus, power_name, TimedDevice(block, *power_timer_));
    register_port(bus, platform::pm_block_port, platform::pm_block_length, power_, power_name);
}

void LegacyDevices::add_reset_and_panic_ports(NamedBus bus, EndLatch& end) {
    register_port(bus, platform::reset_port, 1,
                  on_bus(bus, reset_name, vmsuperio::ResetControl(ResetTrigger(end))), reset_name);
    // KVM's CPUs have A20 on whatever the gate says, as guests since the 1990s expect.
    register_port(bus, platform::system_control_port, 1,
                  on_bus(bus, system_control_name, vmsuperio::SystemControlPortA(ResetTrigger(end))),
                  system_control_name);
    register_port(bus, platform::pvpanic_port, 1,
                  on_bus(bus, pvpanic_name, vmsuperio::Pvpanic([&end](vmsuperio::PvpanicEvent event) {
                             on_panic_event(event, end);
                         })),
                  pvpanic_name);
}

void LegacyDevices::add_debug_ports(const VmmConfig& config, NamedBus bus, EndLatch& end,
                                    SerialBackend* debug_console) {
    register_port(bus, post_code_port, 1, on_bus(bus, post_code_name, vmsuperio::DebugPort()),
                  post_code_name);
    if (debug_console != nullptr) {
        const auto console =
            on_bus(bus, debug_console_name,
                   vmsuperio::DebugPort::console([debug_console](std::span<const std::uint8_t> bytes) {
                       const auto taken = debug_console->write(bytes);
                       return taken ? std::optional(*taken) : std::nullopt;
                   }));
        register_port(bus, bochs_debug_port, 1, console, debug_console_name);
        register_port(bus, firmware_debug_port, 1, console, debug_console_name);
    }
    if (config.exit_port) {
        register_port(bus, exit_port, vmsuperio::ExitPort::register_count,
                      on_bus(bus, exit_port_name, vmsuperio::ExitPort([&end](std::uint8_t status) {
                                 end.request(end::ExitPort{status});
                             })),
                      exit_port_name);
    }
}

bool LegacyDevices::ctrl_alt_del() {
    return keyboard_ && keyboard_->with_lock([](auto& device) { return device.device().ctrl_alt_del(); });
}

Battery LegacyDevices::reset_battery_backed() {
    return clock_->with_lock([](auto& device) {
        RealTimeClock& clock = device.device().device();
        // The line has fallen before the state is saved, so that the next VM starts without its interrupt.
        (void)clock.reset();
        return Battery{.cmos = clock.state(), .oscillator = clock.clock()};
    });
}

void LegacyDevices::press_power_button() {
    power_->with_lock([](auto& device) { (void)device.device().device().press_power_button(); });
}

}  // namespace kvm_vmm
