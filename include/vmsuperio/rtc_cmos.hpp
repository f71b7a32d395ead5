// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/rtc/rtc_cmos_core.hpp>
#include <vmsuperio/rtc/rtc_shell.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// The real-time clock and CMOS memory of a PC: MC146818A with 128 bytes, ports 0x70 and 0x71, IRQ 8; and a
/// second bank of 128 bytes at ports 0x72 and 0x73, as chipsets since the PIIX4 have it (Intel ICH9
/// datasheet, 13.6).
///
/// | port | offset | read | write |
/// |---|---|---|---|
/// | 0x70 | 0 | 0xFF: the index register is write only on a PC | bits 0-6 index, bit 7 masks NMI |
/// | 0x71 | 1 | the byte at the index | the byte at the index |
/// | 0x72 | 2 | 0xFF, as 0x70 | bits 0-6 index in the second bank; bit 7 is ignored |
/// | 0x73 | 3 | the second bank's byte at its index | the same |
///
/// A machine with only two ports on its bus has only the first bank.
///
/// Models: the whole datasheet except its pins: BCD and binary, 12 and 24 hours, alarm with wildcards,
/// periodic rates, update-ended, UIP, SET, the divider's reset, and the century byte at 0x32 that PCs added;
/// on request an alarm on a day of the month and a month, at bytes that the FADT names (ACPI 4.8.2.4). The
/// periodic flag follows the divider chain, which only DV and the updates touch, as on the chip: after a
/// write of register A the first period may be shorter than the others, where QEMU starts a whole one.
/// Not modelled: daylight savings (DSE is kept without effect), the square wave, standby pins, the 1984 us
/// that an update takes (it is done at once, when the UIP window ends), time bases other than 32.768 kHz
/// (they run at the same rate).
/// Deviation: leap years are those of the Gregorian calendar, with the century byte; for the chip itself
/// every fourth year is a leap year.
/// Ignored bits: register A bit 7, registers C and D as a whole (a day alarm at 0x0D has bits 5:0 there).
/// Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The default events type of the clock, which ignores all events. Each member of an events type is optional:
/// `time_changed(std::chrono::seconds ahead)`: the guest set the time, which is `ahead` of the device's
/// clock; `shutdown_status(std::uint8_t code)`: the guest wrote CMOS byte 0x0F; `nmi_masked(bool masked)`:
/// bit 7 of the index register changed.
struct NoRtcCmosEvents {};

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the
/// interrupt line will next rise; call `tick()` then. Guest accesses update the device implicitly. The epoch
/// of `C` is the Unix epoch in UTC.
///
/// The arguments are in the same order as for every device: trigger, events, clock, options. Each may be left
/// out if its type has a default. The trigger is IRQ 8. The clock starts with the time of `C`, in BCD and 24
/// hours, no interrupt enabled.
///
/// `reset()` is the RESET pin: PIE, AIE, UIE, SQWE and all flags of register C are cleared and the interrupt
/// line falls (datasheet, "RESET"). Clock, calendar, alarm and memory stay, as the battery keeps them; so do
/// the index registers, which are not part of the chip's reset.
///
/// Errors: `write`, `tick` and `reset` return the result of the interrupt trigger. `host_errors().interrupt`,
/// which is also `interrupt_errors()`, counts all failures, including those in reads and in `from_state`.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcCmosEvents, Clock C = SystemClock>
class RtcCmos : public detail::RtcShell<detail::RtcCmosCore, T, Events, C> {
    using Shell = detail::RtcShell<detail::RtcCmosCore, T, Events, C>;
    static_assert(
        !requires { &Events::time_changed; } ||
            requires(Events& events) { events.time_changed(std::chrono::seconds{}); },
        "the event time_changed must take a std::chrono::seconds");
    static_assert(
        !requires { &Events::shutdown_status; } ||
            requires(Events& events) { events.shutdown_status(std::uint8_t{}); },
        "the event shutdown_status must take a std::uint8_t");
    static_assert(
        !requires { &Events::nmi_masked; } || requires(Events& events) { events.nmi_masked(bool{}); },
        "the event nmi_masked must take a bool");

public:
    using error_type = typename Shell::error_type;
    static constexpr std::size_t register_count = 4;

    using Shell::Shell;

    /// Restores a saved device. The time that has passed on `clock` since then has also passed for the
    /// device. The restored device is up to date with `clock`: its interrupt line is raised if it was high in
    /// the saved state or has become due since. The options must be those of the saved device; `utc_offset`
    /// has no effect, because the saved time includes it.
    [[nodiscard]] static constexpr std::expected<RtcCmos, StateError> from_state(
        const RtcCmosState& state, T interrupt = T(), Events events = Events(), C clock = C(),
        RtcCmosOptions options = {}) {
        return Shell::template restored<RtcCmos>(state, std::move(interrupt), std::move(events),
                                                 std::move(clock), options);
    }

    /// A read by the guest. The index registers, and offsets above 3, return 0xFF.
    constexpr std::uint8_t read(std::uint8_t offset) {
        if (offset != mc146818::data_offset) {
            return peek(offset);
        }
        // An interrupt that is due is raised before the read clears its flag.
        const std::int64_t now = this->now();
        this->core().advance(now);
        static_cast<void>(this->update_interrupt());
        const std::uint8_t value = this->core().read_data(now);
        static_cast<void>(this->update_interrupt());
        return value;
    }

    /// The result of `read` without its effects, as of the last access or `tick()`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        return this->core().peek(offset);
    }

    /// A write by the guest.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        return this->apply(offset == mc146818::data_offset ? this->core().write_data(this->now(), value)
                                                           : this->core().write_port(offset, value));
    }

    /// Byte `index` (0 to 127) of the CMOS as the guest would read it, without side effects.
    [[nodiscard]] constexpr std::uint8_t cmos(std::uint8_t index) const noexcept {
        return this->core().cmos(index);
    }
    /// Sets a byte as firmware would before the guest starts. The clock's own bytes (0x00 to 0x0D and 0x32)
    /// do not change; the checksum of 0x10 to 0x2D is updated.
    constexpr void set_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        this->core().set_cmos(index, value);
    }

    /// Byte `index` (0 to 127) of the second bank, at ports 0x72 and 0x73.
    [[nodiscard]] constexpr std::uint8_t extended_cmos(std::uint8_t index) const noexcept {
        return this->core().extended_cmos(index);
    }
    /// Sets a byte of the second bank (ports 0x72 and 0x73), index 0x80 to 0xFF.
    constexpr void set_extended_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        this->core().set_extended_cmos(index, value);
    }

    /// Stores the memory sizes for the guest's firmware: bytes below 4 GiB (from address 0, holes included)
    /// and from 4 GiB on. Fills the bytes at 0x15-0x18, 0x30, 0x31, 0x34, 0x35 and 0x5B-0x5D.
    constexpr void set_memory_size(std::uint64_t below_4g, std::uint64_t above_4g = 0) noexcept {
        this->core().set_memory_size(below_4g, above_4g);
    }

    /// Whether the guest masks NMI (bit 7 of the last write to port 0x70).
    [[nodiscard]] constexpr bool nmi_masked() const noexcept { return this->core().nmi_masked(); }

    /// The device as text for people: registers A to D as the guest would read them, the guest's time of day,
    /// then a line for each member of the state (see `inspect.hpp`).
    [[nodiscard]] std::string inspect() const {
        using namespace mc146818;
        const auto line = [](auto reg) { return vmsuperio::inspect(reg) + "\n"; };
        return line(RegisterA(cmos(register_a))) + line(RegisterB(cmos(register_b))) +
               line(RegisterC(cmos(register_c))) + line(RegisterD(cmos(register_d))) +
               "time_of_day=" + detail::date_text(this->core().time_of_day()) + "\n" + Shell::inspect();
    }
};

// Deduces the parameters from the arguments of the constructors.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcCmosEvents, Clock C = SystemClock>
RtcCmos(T = {}, Events = {}, C = {}, RtcCmosOptions = {}) -> RtcCmos<T, Events, C>;
template <Trigger T, Clock C>
RtcCmos(T, C, RtcCmosOptions = {}) -> RtcCmos<T, NoRtcCmosEvents, C>;
template <Clock C>
RtcCmos(C) -> RtcCmos<NullTrigger, NoRtcCmosEvents, C>;

}  // namespace vmsuperio::inline v0_2
