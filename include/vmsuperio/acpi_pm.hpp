// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/registers/acpi_pm.hpp>
#include <vmsuperio/rtc/device_time.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// ACPI fixed hardware: the PM1a event and control registers with a power button, and the power management
/// timer, in one block of 12 ports.
///
/// | offset | register | read | write |
/// |---|---|---|---|
/// | 0, 1 | PM1_STS | status | each bit written as 1 is cleared |
/// | 2, 3 | PM1_EN | enables of the SCI | the same |
/// | 4, 5 | PM1_CNT | SCI_EN, BM_RLD, SLP_TYP | BM_RLD, SLP_TYP; SLP_EN requests the sleep state |
/// | 8-11 | PM_TMR | the timer | no effect |
///
/// Other offsets read 0 and ignore writes. Reading the timer's lowest byte latches the other three, so that
/// an access that is split into bytes reads a consistent value.
///
/// The machine is in ACPI mode from the start: SCI_EN reads 1 and the FADT names no SMI command port.
///
/// Source: ACPI 6.5, 4.8.3 (registers), 4.8.2.1 (timer), 4.8.2.2.1.1 (power button). Not modelled: the power
/// button override (4 seconds), the sleep button, wake events (WAK_STS), the global lock (GBL_RLS has no
/// effect), bus master status, legacy mode with its SMIs.
/// Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The events of the power management block. `sleep(std::uint8_t type)` is an optional member: the guest set
/// SLP_EN with another type than that of S5, which otherwise has no effect.
template <class E>
concept AcpiPmEvents = !Trigger<E> && !Clock<E> && requires(E& events) {
    events.power_off();  // the guest set SLP_EN with the type of S5, soft-off
};

/// The width of the power management timer, in bits: TMR_VAL_EXT of the FADT's flags.
enum class AcpiTimerWidth : std::uint8_t {
    bits_24 = 24,
    bits_32 = 32,
};

/// The values of the block in the firmware tables.
struct AcpiPmOptions {
    /// SLP_TYPx of soft-off, 0 to 7: the first element of the DSDT's \_S5.
    std::uint8_t sleep_type_s5{5};
    /// How many bits of the timer count; the FADT must say the same.
    AcpiTimerWidth timer_width{AcpiTimerWidth::bits_32};
};

/// Everything that an AcpiPm remembers; the default is a device that has just been reset.
struct AcpiPmState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("ACPM"), .version = 1, .readable_since = 1};

    std::uint16_t status{};  ///< PM1_STS
    std::uint16_t enable{};  ///< PM1_EN
    /// PM1_CNT.
    std::uint16_t control{Pm1Control().set(Pm1Control::sci_enable).value()};
    std::uint32_t held_timer{};  ///< the timer when its lowest byte was last read
    std::int64_t timer_start{};  ///< the device time at which the timer was 0, in ns
    DeviceTimeState time;        ///< the device's own time, from which the timer follows

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [status, enable, control, held_timer, timer_start, time] = self;
        archive("status", status, as<Pm1Status>);
        archive("enable", enable, as<Pm1Enable>);
        archive("control", control, as<Pm1Control>);
        archive("held_timer", held_timer);
        archive("timer_start", timer_start);
        archive("time", time);
    }
    friend constexpr bool operator==(const AcpiPmState&, const AcpiPmState&) = default;
};

namespace detail {

/// The number of timer ticks in `elapsed` nanoseconds, not reduced to the timer's width.
[[nodiscard]] constexpr std::uint64_t pm_timer_ticks(std::uint64_t elapsed) noexcept {
    // Whole seconds are converted separately, so that no product overflows.
    constexpr std::uint64_t second = ns_per_second;
    constexpr std::uint64_t frequency = acpi_pm::timer_frequency;
    return elapsed / second * frequency + elapsed % second * frequency / second;
}

/// The number of nanoseconds after which the timer has counted `ticks`, rounded up.
[[nodiscard]] constexpr std::uint64_t pm_timer_nanoseconds(std::uint64_t ticks) noexcept {
    constexpr std::uint64_t second = ns_per_second;
    constexpr std::uint64_t frequency = acpi_pm::timer_frequency;
    return ticks / frequency * second + (ticks % frequency * second + frequency - 1) / frequency;
}

/// The registers and the timer.
class AcpiPmCore {
public:
    struct Effects {
        static constexpr LinePulse pulse = LinePulse::none;
        bool power_off{};
        bool sleep{};
        std::uint8_t sleep_type{};

        template <class Events>
        constexpr void report(Events& events) const {
            if (power_off) {
                events.power_off();
            }
            if constexpr (requires { events.sleep(std::uint8_t{}); }) {
                if (sleep) {
                    events.sleep(sleep_type);
                }
            }
        }
    };

    /// A device that has just been reset, whose timer starts at `clock_ns`.
    constexpr AcpiPmCore(const AcpiPmOptions& options, std::int64_t clock_ns) : options_(options) {
        state_.time.seen = not_too_early(clock_ns);
        state_.timer_start = state_.time.seen;
    }
    /// `state` must be valid.
    constexpr AcpiPmCore(const AcpiPmState& state, const AcpiPmOptions& options)
        : options_(options), state_(state) {}

    [[nodiscard]] constexpr const AcpiPmState& state() const noexcept { return state_; }
    [[nodiscard]] constexpr const AcpiPmOptions& options() const noexcept { return options_; }
    /// The SCI.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t /*line*/ = 0) const noexcept {
        return (state_.status & state_.enable) != 0;
    }

    /// Updates the device to the clock's time: sets TMR_STS if the timer's most significant bit has changed
    /// at least once.
    constexpr void advance(std::int64_t clock_ns) {
        const std::uint64_t before = half_periods();
        look(state_.time, clock_ns);
        if (half_periods() != before) {
            state_.status = Pm1Status(state_.status).set(Pm1Status::timer).value();
        }
    }
    /// The value of PM_TMR at a time of the clock.
    [[nodiscard]] constexpr std::uint32_t timer_at(std::int64_t clock_ns) const {
        DeviceTimeState time = state_.time;
        return timer_after(elapsed(state_.timer_start, look(time, clock_ns)));
    }
    /// The time on the clock at which the SCI will next rise without an access.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const {
        if (!Pm1Enable(state_.enable)[Pm1Enable::timer] || interrupt_level()) {
            return std::nullopt;
        }
        const std::uint64_t change = pm_timer_nanoseconds((half_periods() + 1) << half_period_bits());
        const auto left = static_cast<std::int64_t>(change - elapsed_ns());  // less than 10 minutes
        return on_clock(state_.time, saturating_add(state_.time.seen, left));
    }

    /// The result of a read, without its effects.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        switch (offset & ~1U) {
            case acpi_pm::status_offset:
                return byte_of(state_.status, offset % 2U);
            case acpi_pm::enable_offset:
                return byte_of(state_.enable, offset % 2U);
            case acpi_pm::control_offset:
                return byte_of(state_.control, offset % 2U);
            case acpi_pm::timer_offset:
            case acpi_pm::timer_offset + 2U:
                return byte_of(
                    offset == acpi_pm::timer_offset ? timer_after(elapsed_ns()) : state_.held_timer,
                    offset - acpi_pm::timer_offset);
            default:
                return 0;
        }
    }
    constexpr std::uint8_t read(std::uint8_t offset) noexcept {
        if (offset == acpi_pm::timer_offset) {
            state_.held_timer = timer_after(elapsed_ns());
        }
        return peek(offset);
    }
    [[nodiscard]] constexpr Effects write(std::uint8_t offset, std::uint8_t value) noexcept {
        const unsigned byte = offset % 2U;
        switch (offset & ~1U) {
            case acpi_pm::status_offset: {
                Pm1Status status(state_.status);
                status.guest_write(in_byte(value, byte));
                state_.status = status.value();
                return {};
            }
            case acpi_pm::enable_offset: {
                Pm1Enable enable(state_.enable);
                enable.guest_write(replace_byte(state_.enable, value, byte));
                state_.enable = enable.value();
                return {};
            }
            case acpi_pm::control_offset:
                return write_control(replace_byte(state_.control, value, byte));
            default:
                return {};  // the timer is read-only
        }
    }
    constexpr void press_power_button() noexcept {
        state_.status = Pm1Status(state_.status).set(Pm1Status::power_button).value();
    }
    /// Resets everything except the timer, which continues.
    constexpr void reset() noexcept { state_ = {.timer_start = state_.timer_start, .time = state_.time}; }

private:
    [[nodiscard]] static constexpr std::uint8_t byte_of(std::uint32_t value, unsigned index) noexcept {
        return static_cast<std::uint8_t>(value >> (8U * index));
    }
    [[nodiscard]] static constexpr std::uint16_t in_byte(std::uint8_t value, unsigned index) noexcept {
        return static_cast<std::uint16_t>(value << (8U * index));
    }
    [[nodiscard]] static constexpr std::uint16_t replace_byte(std::uint16_t old, std::uint8_t value,
                                                              unsigned index) noexcept {
        return static_cast<std::uint16_t>((old & ~in_byte(0xFF, index)) | in_byte(value, index));
    }

    [[nodiscard]] constexpr std::uint64_t elapsed_ns() const noexcept {
        return elapsed(state_.timer_start, state_.time.seen);
    }
    /// The timer's most significant bit changes every two to the power of this number of ticks.
    [[nodiscard]] constexpr unsigned half_period_bits() const noexcept {
        return static_cast<unsigned>(options_.timer_width) - 1U;
    }
    [[nodiscard]] constexpr std::uint64_t half_periods() const noexcept {
        return pm_timer_ticks(elapsed_ns()) >> half_period_bits();
    }
    [[nodiscard]] constexpr std::uint32_t timer_after(std::uint64_t nanoseconds) const noexcept {
        const std::uint64_t mask = (std::uint64_t{2} << half_period_bits()) - 1;
        return static_cast<std::uint32_t>(pm_timer_ticks(nanoseconds) & mask);
    }

    constexpr Effects write_control(std::uint16_t written) noexcept {
        Pm1Control control(state_.control);
        control.guest_write(written);
        state_.control = control.value();
        const Pm1Control request(written);
        Effects effects;
        if (request[Pm1Control::sleep_enable]) {
            effects.sleep_type = static_cast<std::uint8_t>(request[Pm1Control::sleep_type]);
            effects.power_off = effects.sleep_type == options_.sleep_type_s5;
            effects.sleep = !effects.power_off;
        }
        return effects;
    }

    AcpiPmOptions options_;
    AcpiPmState state_;
};

}  // namespace detail

/// Checks whether a device with these options can be in this state; the error names the first invalid member.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const AcpiPmState& state,
                                                                 const AcpiPmOptions& options = {}) {
    constexpr unsigned possible_status =
        Pm1Status().set(Pm1Status::timer).set(Pm1Status::power_button).value();
    constexpr unsigned sci_enable = Pm1Control().set(Pm1Control::sci_enable).value();
    const char* field = nullptr;
    if ((state.status & ~possible_status) != 0) {
        field = "status";
    } else if ((state.enable & ~unsigned{Pm1Enable::guest_mask()}) != 0) {
        field = "enable";
    } else if ((state.control & ~unsigned{Pm1Control::guest_mask()}) != sci_enable) {
        field = "control";
    } else if (options.timer_width == AcpiTimerWidth::bits_24 && state.held_timer > 0xFF'FFFF) {
        field = "held_timer";
    } else if (!detail::valid_time(state.time)) {
        field = "time";
    } else if (state.timer_start > state.time.seen || state.timer_start < detail::earliest_device_time) {
        field = "timer_start";
    }
    if (field != nullptr) {
        return std::unexpected(StateError{field});
    }
    return {};
}

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the SCI
/// will next rise without an access; call `tick()` then. Guest accesses update the device implicitly. Device
/// time continues if the clock is set back, and follows the clock if it jumps ahead.
///
/// Arguments: the trigger of the system control interrupt, preferably a `LevelTrigger` because the SCI is
/// level triggered; events; clock; options.
///
/// Errors: `write`, `tick`, `reset` and `press_power_button` return the result of the interrupt trigger; all
/// failures, including those in reads, are counted in `host_errors().interrupt`.
template <Trigger T, AcpiPmEvents Events, Clock C = SteadyClock>
class AcpiPm : public DeviceShell<detail::AcpiPmCore, Events, T> {
    using Shell = DeviceShell<detail::AcpiPmCore, Events, T>;
    static_assert(
        !requires { &Events::sleep; } || requires(Events& events) { events.sleep(std::uint8_t{}); },
        "the event sleep must take a std::uint8_t");

public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using clock_type = C;
    static constexpr std::size_t register_count = acpi_pm::block_length;

    /// The timer starts at 0.
    constexpr AcpiPm(T sci, Events events, C clock = C(), AcpiPmOptions options = {})
        : AcpiPm(detail::AcpiPmCore(options, time_since_epoch(clock).count()), std::move(sci),
                 std::move(events), std::move(clock)) {}

    /// Restores a saved device. The time that has passed on `clock` since then has also passed for the
    /// device. So `clock` must have the same epoch as before: a steady clock counts from the start of its
    /// host, so a device that is restored on another host needs another clock. The restored device is up to
    /// date with `clock`: an SCI that was high, or is due by now, is raised. A default-constructed state is
    /// a device that has just been reset, whose timer was 0 at the clock's epoch.
    [[nodiscard]] static constexpr std::expected<AcpiPm, StateError> from_state(const AcpiPmState& state,
                                                                                T sci, Events events,
                                                                                C clock = C(),
                                                                                AcpiPmOptions options = {}) {
        if (const auto valid = validate(state, options); !valid) {
            return std::unexpected(valid.error());
        }
        AcpiPm device(detail::AcpiPmCore(state, options), std::move(sci), std::move(events),
                      std::move(clock));
        [[maybe_unused]] const auto ticked = device.tick();
        return device;
    }

    /// A read by the guest.
    constexpr std::uint8_t read(std::uint8_t offset) {
        (void)tick();
        return this->core().read(offset);
    }
    /// The result of `read` without its effects, as of the last access or `tick()`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        return this->core().peek(offset);
    }
    /// A write by the guest.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        advance();
        return this->apply(this->core().write(offset, value));
    }

    /// The user pressed the power button: the guest sees the event and decides what to do.
    constexpr std::expected<void, error_type> press_power_button() {
        advance();
        this->core().press_power_button();
        return this->update_interrupt();
    }

    /// Updates the device to its clock. Call it at the deadline; it is harmless at any other time.
    constexpr std::expected<void, error_type> tick() {
        advance();
        return this->update_interrupt();
    }
    /// The time on the device's clock at which the SCI will next rise without an access: the next change of
    /// the timer's most significant bit if TMR_EN is set and the SCI is low, otherwise nothing. Call it again
    /// after every access and every `tick()`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const {
        return this->core().next_deadline();
    }

    /// Restores the power-on state: the SCI falls and the guest's settings are cleared; the timer continues
    /// (4.8.3.3 does not specify that).
    constexpr std::expected<void, error_type> reset() {
        advance();
        this->core().reset();
        return this->update_interrupt();
    }

    /// The present value of the timer's register.
    [[nodiscard]] constexpr std::uint32_t timer() const { return this->core().timer_at(clock_ns()); }
    // As of the last access or `tick()`.
    /// PM1_STS, without side effects.
    [[nodiscard]] constexpr Pm1Status status() const noexcept {
        return Pm1Status(this->core().state().status);
    }
    /// PM1_EN.
    [[nodiscard]] constexpr Pm1Enable enable() const noexcept {
        return Pm1Enable(this->core().state().enable);
    }
    /// PM1_CNT.
    [[nodiscard]] constexpr Pm1Control control() const noexcept {
        return Pm1Control(this->core().state().control);
    }
    /// The level of the system control interrupt.
    [[nodiscard]] constexpr bool sci_level() const noexcept { return this->line().level(); }
    [[nodiscard]] constexpr const T& sci() const noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr T& sci() noexcept { return this->line().trigger(); }
    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }
    [[nodiscard]] constexpr C& clock() noexcept { return clock_; }
    [[nodiscard]] constexpr const AcpiPmOptions& options() const noexcept { return this->core().options(); }

private:
    // By reference, because the caller reads the clock to construct the core.
    constexpr AcpiPm(const detail::AcpiPmCore& core, T sci, Events events, C&& clock)
        : Shell(core, std::move(events), std::move(sci)), clock_(std::move(clock)) {}

    [[nodiscard]] constexpr std::int64_t clock_ns() const { return time_since_epoch(clock_).count(); }
    constexpr void advance() { this->core().advance(clock_ns()); }

    [[no_unique_address]] C clock_;
};

template <Trigger T, AcpiPmEvents Events>
AcpiPm(T, Events) -> AcpiPm<T, Events>;
template <Trigger T, AcpiPmEvents Events, Clock C>
AcpiPm(T, Events, C) -> AcpiPm<T, Events, C>;
template <Trigger T, AcpiPmEvents Events, Clock C>
AcpiPm(T, Events, C, AcpiPmOptions) -> AcpiPm<T, Events, C>;

}  // namespace vmsuperio::inline v0_2
