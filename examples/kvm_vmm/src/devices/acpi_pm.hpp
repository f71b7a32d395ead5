// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <expected>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/acpi_pm.hpp>
#include <vmsuperio/trigger.hpp>

#include "acpi/platform.hpp"

namespace kvm_vmm {

using vmsuperio::Pm1Control;
using vmsuperio::Pm1Enable;
using vmsuperio::Pm1Status;

/// What the power management block tells the VMM.
template <class E>
concept AcpiPmEvents = requires(E& events) {
    events.power_off();  // the guest asked for S5
};

/// ACPI fixed hardware: PM1a event and control registers, and the power management timer.
///
/// Source: ACPI 6.5, 4.8.3 (registers), 4.8.2.1 (timer), 4.8.2.2.1.1 (power button).
/// Ports, from platform::pm_block_port: +0 PM1_STS, +2 PM1_EN, +4 PM1_CNT, +8 PM_TMR.
///
/// Not modelled: sleep states other than S5 (asking for one does nothing); the sleep button; RTC wake;
/// an SCI from the timer at the moment it wraps: TMR_STS is brought up to date when a register is accessed.
/// Reading the timer's lowest byte holds the other three, so that an access split into bytes is whole.
///
/// Thread safety: none; put it behind a lock.
template <vmsuperio::Trigger Sci, AcpiPmEvents Events, vmsuperio::Clock TimeSource = vmsuperio::SteadyClock>
class AcpiPm {
public:
    static constexpr std::size_t register_count = platform::pm_block_length;
    static constexpr std::int64_t timer_frequency = 3'579'545;  ///< Hz

    /// `sci` best is a LevelTrigger: the system control interrupt is level triggered.
    AcpiPm(Sci sci, Events events, TimeSource clock = {})
        : sci_(std::move(sci)), events_(std::move(events)), clock_(std::move(clock)), start_(now()) {}

    std::uint8_t read(std::uint8_t offset) {
        update_timer_status();
        drive_sci();
        switch (offset) {
            case 0:
            case 1:
                return byte_of(status_.value(), offset);
            case 2:
            case 3:
                return byte_of(enable_.value(), offset - 2U);
            case 4:
            case 5:
                return byte_of(control_.value(), offset - 4U);
            case timer_offset:
                held_timer_ = timer();
                return byte_of(held_timer_, 0);
            case timer_offset + 1:
            case timer_offset + 2:
            case timer_offset + 3:
                return byte_of(held_timer_, offset - timer_offset);
            default:
                return 0;
        }
    }

    void write(std::uint8_t offset, std::uint8_t value) {
        update_timer_status();
        switch (offset) {
            case 0:
            case 1:
                status_.guest_write(in_byte(value, offset));
                break;
            case 2:
            case 3:
                enable_.guest_write(replace_byte(enable_.value(), value, offset - 2U));
                break;
            case 4:
            case 5:
                write_control(replace_byte(control_.value(), value, offset - 4U));
                break;
            default:
                break;  // the timer is read-only
        }
        drive_sci();
    }

    /// The user pressed the power button: the guest sees the event and decides what to do.
    void press_power_button() {
        status_.set(Pm1Status::power_button);
        drive_sci();
    }

    /// As after power-on; the timer goes on.
    void reset() {
        status_ = Pm1Status(0);
        enable_ = Pm1Enable(0);
        control_ = initial_control();
        last_half_ = timer() >> 31U;
        drive_sci();
    }

    /// What the timer's register shows.
    [[nodiscard]] std::uint32_t timer() const {
        constexpr std::int64_t second = 1'000'000'000;
        const std::int64_t elapsed = (now() - start_).count();
        // Whole seconds apart, so that no product overflows in the lifetime of the clock's own range.
        return static_cast<std::uint32_t>(elapsed / second * timer_frequency +
                                          elapsed % second * timer_frequency / second);
    }

    [[nodiscard]] Pm1Status status() const noexcept { return status_; }
    [[nodiscard]] Pm1Enable enable() const noexcept { return enable_; }
    [[nodiscard]] Pm1Control control() const noexcept { return control_; }
    [[nodiscard]] bool sci_level() const noexcept { return sci_.level(); }
    [[nodiscard]] Sci& sci() noexcept { return sci_.trigger(); }
    [[nodiscard]] Events& events() noexcept { return events_; }

private:
    static constexpr std::uint8_t timer_offset = platform::pm_timer_port - platform::pm_block_port;

    template <class Value>
    static constexpr std::uint8_t byte_of(Value value, unsigned index) noexcept {
        return static_cast<std::uint8_t>(value >> (8U * index));
    }
    static constexpr std::uint16_t in_byte(std::uint8_t value, unsigned index) noexcept {
        return static_cast<std::uint16_t>(value << (8U * index));
    }
    static constexpr std::uint16_t replace_byte(std::uint16_t old, std::uint8_t value,
                                                unsigned index) noexcept {
        return static_cast<std::uint16_t>((old & ~in_byte(0xFF, index)) | in_byte(value, index));
    }
    static constexpr Pm1Control initial_control() noexcept {
        Pm1Control control;
        control.set(Pm1Control::sci_enable);
        return control;
    }

    [[nodiscard]] std::chrono::nanoseconds now() const { return vmsuperio::time_since_epoch(clock_); }

    void update_timer_status() {
        // TMR_STS is set whenever the most significant bit changes; FADT says that the timer has 32 bits.
        const std::uint32_t half = timer() >> 31U;
        if (half != last_half_) {
            status_.set(Pm1Status::timer);
            last_half_ = half;
        }
    }

    void write_control(std::uint16_t written) {
        control_.guest_write(written);
        const Pm1Control request(written);
        if (request[Pm1Control::sleep_enable] && request[Pm1Control::sleep_type] == platform::sleep_type_s5) {
            events_.power_off();
        }
    }

    void drive_sci() {
        // The host's interrupt line failing is not the guest's doing, and there is nobody here to tell.
        [[maybe_unused]] const auto ignored = sci_.update((status_.value() & enable_.value()) != 0);
    }

    vmsuperio::InterruptLine<Sci> sci_;
    Events events_;
    TimeSource clock_;
    std::chrono::nanoseconds start_;
    Pm1Status status_{};
    Pm1Enable enable_{};
    Pm1Control control_{initial_control()};
    std::uint32_t held_timer_{0};
    std::uint32_t last_half_{0};
};

}  // namespace kvm_vmm
