// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/registers/pl031.hpp>
#include <vmsuperio/rtc/rtc_pl031_core.hpp>
#include <vmsuperio/rtc/rtc_shell.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// The real-time clock of ARM machines: PrimeCell PL031 (ARM DDI 0224).
///
/// | offset | register | read | write |
/// |---|---|---|---|
/// | 0x000 | RTCDR | seconds counter | invalid |
/// | 0x004 | RTCMR | match value | match value |
/// | 0x008 | RTCLR | last load value | sets the counter |
/// | 0x00C | RTCCR | 1 | no effect |
/// | 0x010 | RTCIMSC | bit 0: interrupt enabled | the same |
/// | 0x014 | RTCRIS | bit 0: matched | invalid |
/// | 0x018 | RTCMIS | RTCRIS and RTCIMSC | invalid |
/// | 0x01C | RTCICR | invalid | bit 0 clears the match |
/// | 0xFE0-0xFFC | ids | one byte each | invalid |
///
/// Accesses are 4 bytes wide and aligned, as on the APB bus. Any other access, and any not in the table, is
/// invalid: it changes nothing, a read returns 0, and an event reports it.
///
/// Deviations: the counter runs from reset and starts with the clock's time (firmware would have set both),
/// so RTCCR reads 1 at once; a load or a match value takes effect at once and not at the next 1 Hz edge,
/// because drivers read back what they wrote; a match that a jump of the clock passed over counts as a match.
/// Not modelled: the test registers (0x080-0x08C), reset through RTCCR.
/// Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The default events type of the clock, which ignores all events. Each member of an events type is optional:
/// `invalid_read()`, `invalid_write()`: the guest made an invalid access; `time_changed(std::chrono::seconds
/// ahead)`: the guest set the time, which is `ahead` of the device's clock.
struct NoRtcPl031Events {};

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the
/// interrupt line will next rise; call `tick()` then. Guest accesses update the device implicitly. The epoch
/// of `C` is the Unix epoch in UTC.
///
/// The arguments are in the same order as for every device: trigger, events, clock. Each may be left out if
/// its type has a default.
///
/// `reset()` is the reset line of the bus (PRESETn): RTCMR, RTCLR, RTCIMSC and RTCRIS return to 0 (DDI 0224,
/// table 3-1) and the interrupt line falls. The counter is in the domain of the 1 Hz clock, which a battery
/// supplies: it continues with the time that the guest has set. For a power-on reset (nPOR), construct a new
/// device. `time_offset()` is the shorter distance around the 32-bit counter.
///
/// Errors: `write`, `tick` and `reset` return the result of the interrupt trigger. `host_errors().interrupt`,
/// which is also `interrupt_errors()`, counts all failures, including those in reads and in `from_state`.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcPl031Events, Clock C = SystemClock>
class RtcPl031 : public detail::RtcShell<detail::RtcPl031Core, T, Events, C> {
    using Shell = detail::RtcShell<detail::RtcPl031Core, T, Events, C>;
    static_assert(
        !requires { &Events::time_changed; } ||
            requires(Events& events) { events.time_changed(std::chrono::seconds{}); },
        "the event time_changed must take a std::chrono::seconds");
    static_assert(
        !requires { &Events::invalid_read; } || requires(Events& events) { events.invalid_read(); },
        "the event invalid_read must take no argument");
    static_assert(
        !requires { &Events::invalid_write; } || requires(Events& events) { events.invalid_write(); },
        "the event invalid_write must take no argument");

public:
    using error_type = typename Shell::error_type;

    using Shell::Shell;

    /// Restores a saved device. The time that has passed on `clock` since then has also passed for the
    /// device. The restored device is up to date with `clock`: its interrupt line is raised if it was high in
    /// the saved state or has become due since. A default-constructed state is a device that has just been
    /// reset at the start of 1970: when it is restored, it has the time of `clock`.
    [[nodiscard]] static constexpr std::expected<RtcPl031, StateError> from_state(const RtcPl031State& state,
                                                                                  T interrupt = T(),
                                                                                  Events events = Events(),
                                                                                  C clock = C()) {
        return Shell::template restored<RtcPl031>(state, std::move(interrupt), std::move(events),
                                                  std::move(clock), {});
    }

    /// A read by the guest.
    constexpr void read(std::uint64_t offset, std::span<std::uint8_t> bytes) {
        const auto [value, effects] = this->core().read(this->now(), offset, bytes.size());
        static_cast<void>(this->apply(effects));
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = value ? static_cast<std::uint8_t>(*value >> (8U * i)) : std::uint8_t{0};
        }
    }

    /// The register at `offset` without updating it, or nothing if no register can be read there.
    [[nodiscard]] constexpr std::optional<std::uint32_t> peek(std::uint64_t offset) const noexcept {
        return this->core().peek(offset);
    }

    /// A write by the guest.
    constexpr std::expected<void, error_type> write(std::uint64_t offset,
                                                    std::span<const std::uint8_t> bytes) {
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < bytes.size() && i < sizeof(value); ++i) {
            value |= static_cast<std::uint32_t>(bytes[i]) << (8U * i);
        }
        return this->apply(this->core().write(this->now(), offset, bytes.size(), value));
    }

    /// The device as text for people: the registers as the guest would read them, the guest's time as a date,
    /// then a line for each member of the state (see `inspect.hpp`).
    [[nodiscard]] std::string inspect() const {
        using namespace pl031;
        const auto value = [this](std::uint16_t offset) { return peek(offset).value_or(0); };
        const auto line = [](auto reg) { return vmsuperio::inspect(reg) + "\n"; };
        return line(Data(value(data))) + line(Match(value(match))) + line(Load(value(load))) +
               line(Control(value(control))) + line(InterruptMask(value(interrupt_mask))) +
               line(InterruptStatus(value(raw_interrupt))) +
               line(MaskedInterruptStatus(value(masked_interrupt))) +
               "time_of_day=" + detail::date_text(value(data)) + "\n" + Shell::inspect();
    }
};

// Deduces the parameters from the arguments of the constructors.
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcPl031Events, Clock C = SystemClock>
RtcPl031(T = {}, Events = {}, C = {}) -> RtcPl031<T, Events, C>;
template <Trigger T, Clock C>
RtcPl031(T, C) -> RtcPl031<T, NoRtcPl031Events, C>;
template <Clock C>
RtcPl031(C) -> RtcPl031<NullTrigger, NoRtcPl031Events, C>;

}  // namespace vmsuperio::inline v0_2
