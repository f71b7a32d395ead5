// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/device_time.hpp>
#include <vmsuperio/detail/rtc_calendar.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// The real-time clock and CMOS memory of a PC: MC146818A with 128 bytes, ports 0x70 and 0x71, IRQ 8.
///
/// | port | offset | read | write |
/// |---|---|---|---|
/// | 0x70 | 0 | 0xFF: the index register is write only on a PC | bits 0-6 index, bit 7 masks NMI |
/// | 0x71 | 1 | the byte at the index | the byte at the index |
///
/// Models: the whole data sheet but for its pins: BCD and binary, 12 and 24 hours, alarm with wildcards,
/// periodic rates, update-ended, UIP, SET, the divider's reset, and the century byte at 0x32 that PCs added.
/// Not modelled: daylight savings (DSE is kept without effect), the square wave, RESET and standby pins, the
/// 1984 us that an update takes (it is done at once, when the UIP window ends), time bases other than 32.768
/// kHz (they run at the same rate), the bank at ports 0x72 and 0x73. Deviation: leap years are those of the
/// Gregorian calendar, with the century byte; the chip itself takes every fourth year. Ignored bits: register
/// A bit 7, registers C and D as a whole. Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio {

/// What the clock can tell its owner; each member is optional:
/// `time_changed(std::chrono::seconds ahead)`: the guest set the time, `ahead` of the clock that the device
/// was given; `shutdown_status(std::uint8_t code)`: the guest wrote CMOS byte 0x0F; `nmi_masked(bool
/// masked)`: bit 7 of the index register changed.
struct NoRtcCmosEvents {};

struct RtcCmosOptions {
    /// The guest's local time minus UTC, for guests that keep the clock in local time.
    std::chrono::seconds utc_offset{0};
};

/// The clock as plain data.
struct RtcCmosState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CMOS"), .version = 1, .readable_since = 1};

    std::array<std::uint8_t, 128> ram{};
    std::uint8_t index{};         ///< as last written to port 0x70, with the NMI bit
    std::int64_t second_start{};  ///< device time of the last second's start, in ns
    detail::DeviceTimeState time;

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        archive(self.ram, self.index, self.second_start);
        detail::DeviceTimeState::visit(self.time, archive);
    }
    friend constexpr bool operator==(const RtcCmosState&, const RtcCmosState&) = default;
};

/// Time is asked for, not run: `next_deadline()` tells when to call `tick()`. An access by the guest brings
/// the device up to date by itself. `C`'s epoch is the Unix epoch in UTC.
///
/// Errors: `write` and `tick` return what the interrupt trigger returned; a read counts it instead
/// (`interrupt_errors()`).
template <Trigger T = NullTrigger, Clock C = SystemClock, class Events = NoRtcCmosEvents>
class RtcCmos {
public:
    using error_type = typename T::error_type;
    static constexpr std::size_t register_count = 2;

    RtcCmos()
        requires std::default_initializable<T> && std::default_initializable<C> &&
                 std::default_initializable<Events>
        : RtcCmos(T(), C()) {}
    explicit RtcCmos(T interrupt)
        requires std::default_initializable<C> && std::default_initializable<Events>
        : RtcCmos(std::move(interrupt), C()) {}
    explicit RtcCmos(C clock)
        requires std::default_initializable<T> && std::default_initializable<Events>
        : RtcCmos(T(), std::move(clock)) {}

    /// `interrupt` is IRQ 8. The clock starts with the time of `clock`, in BCD and 24 hours, no interrupt
    /// enabled.
    RtcCmos(T interrupt, C clock, Events events = Events(), RtcCmosOptions options = {})
        : time_(std::move(clock)), line_(std::move(interrupt)), events_(std::move(events)) {
        ram_[mc146818::register_a] = 0x26;  // 32.768 kHz, 1024 Hz periodic: what a PC's firmware sets
        ram_[mc146818::register_b] = mc146818::RegisterB().set(mc146818::RegisterB::hours_24).value();
        ram_[mc146818::register_d] =
            mc146818::RegisterD().set(mc146818::RegisterD::valid_ram_and_time).value();
        second_start_ = detail::floor_second(time_.seen());
        store(detail::rtc_bytes(detail::saturating_add(second_start_ / detail::ns_per_second,
                                                       std::clamp<std::int64_t>(options.utc_offset.count(),
                                                                                -detail::seconds_per_day,
                                                                                detail::seconds_per_day)),
                                format()));
    }
    /// The device as it was saved; the time that passed on `clock` since then has passed for it too. An
    /// interrupt line that was high is raised again.
    [[nodiscard]] static std::expected<RtcCmos, StateError> from_state(const RtcCmosState& state,
                                                                       T interrupt = T(), C clock = C(),
                                                                       Events events = Events()) {
        if (const char* field = first_invalid(state); field != nullptr) {
            return std::unexpected(StateError{field});
        }
        RtcCmos device(state, std::move(interrupt), std::move(clock), std::move(events));
        device.count_error(device.drive_line());
        return device;
    }

    /// A read by the guest. Offsets other than 0 and 1 give 0xFF.
    std::uint8_t read(std::uint8_t offset) {
        if (offset != mc146818::data_offset) {
            return 0xFF;
        }
        count_error(tick());
        const std::uint8_t value = peek(offset);
        if (selected() == mc146818::register_c) {
            ram_[mc146818::register_c] = 0;
            count_error(drive_line());
        }
        return value;
    }

    /// What `read` would give, without its effects, as of the last access or `tick()`.
    [[nodiscard]] std::uint8_t peek(std::uint8_t offset) const noexcept {
        return offset == mc146818::data_offset ? cmos(selected()) : std::uint8_t{0xFF};
    }

    /// A write by the guest.
    std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        if (offset == mc146818::index_offset) {
            const bool was_masked = nmi_masked();
            index_ = mc146818::IndexRegister(value);
            if constexpr (requires { events_.nmi_masked(true); }) {
                if (nmi_masked() != was_masked) {
                    events_.nmi_masked(nmi_masked());
                }
            }
            return {};
        }
        if (offset != mc146818::data_offset) {
            return {};
        }
        advance();
        const std::uint8_t index = selected();
        switch (index) {
            case mc146818::seconds:
            case mc146818::minutes:
            case mc146818::hours:
            case mc146818::weekday:
            case mc146818::day:
            case mc146818::month:
            case mc146818::year:
            case mc146818::century:
                ram_[index] = value;
                if (!register_b()[mc146818::RegisterB::set_mode]) {
                    report_time();
                }
                break;
            case mc146818::register_a:
                write_register_a(value);
                break;
            case mc146818::register_b:
                write_register_b(value);
                break;
            case mc146818::register_c:
            case mc146818::register_d:
                break;
            case mc146818::shutdown_status:
                ram_[index] = value;
                if constexpr (requires { events_.shutdown_status(value); }) {
                    events_.shutdown_status(value);
                }
                break;
            default:
                ram_[index] = value;
                break;
        }
        return drive_line();
    }

    /// Brings the device up to date with its clock. To be called at the deadline; harmless at any other time.
    std::expected<void, error_type> tick() {
        advance();
        return drive_line();
    }

    /// When the interrupt line will next rise by itself, on the clock's own time line; nothing while no event
    /// can raise it. To be asked again after every access and every `tick()`.
    [[nodiscard]] std::optional<std::chrono::nanoseconds> next_deadline() const {
        if (line_level() || !running()) {
            return std::nullopt;  // a high line falls only by a read of register C
        }
        const mc146818::RegisterB control = register_b();
        std::optional<std::int64_t> earliest;
        const auto consider = [&](std::int64_t time) {
            earliest = earliest ? std::min(*earliest, time) : time;
        };
        if (const std::uint64_t every = period();
            every != 0 && control[mc146818::RegisterB::periodic_interrupt]) {
            const std::uint64_t ticks = (ticks_until(time_.seen()) / every + 1) * every;
            consider(detail::saturating_add(second_start_, static_cast<std::int64_t>(ns_of_ticks(ticks))));
        }
        if (!control[mc146818::RegisterB::set_mode]) {
            if (control[mc146818::RegisterB::update_ended_interrupt]) {
                consider(after_updates(1));
            }
            if (control[mc146818::RegisterB::alarm_interrupt]) {
                if (const auto seconds = seconds_to_alarm()) {
                    consider(after_updates(*seconds));
                }
            }
        }
        return earliest ? time_.on_clock(*earliest) : std::nullopt;
    }

    /// Byte `index` (0 to 127) of the CMOS as the guest would read it, without side effects.
    [[nodiscard]] std::uint8_t cmos(std::uint8_t index) const noexcept {
        index &= 0x7FU;
        if (index == mc146818::register_a) {
            return mc146818::RegisterA(ram_[index])
                .set(mc146818::RegisterA::update_in_progress, update_in_progress())
                .value();
        }
        return ram_[index];
    }
    /// Sets a byte as firmware would before the guest starts. The clock's own bytes (0x00 to 0x0D and 0x32)
    /// stay as they are; the checksum of 0x10 to 0x2D is kept right.
    void set_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        index &= 0x7FU;
        if (index <= mc146818::register_d || index == mc146818::century) {
            return;
        }
        ram_[index] = value;
        if (index >= mc146818::checksum_first && index <= mc146818::checksum_last) {
            std::uint32_t sum = 0;
            for (std::size_t i = mc146818::checksum_first; i <= mc146818::checksum_last; ++i) {
                sum += ram_[i];
            }
            ram_[mc146818::checksum_high] = static_cast<std::uint8_t>(sum >> 8U);
            ram_[mc146818::checksum_low] = static_cast<std::uint8_t>(sum);
        }
    }

    /// Tells the guest's firmware how much memory there is: bytes below 4 GiB (from address 0, holes
    /// included) and from 4 GiB on. Fills the bytes at 0x15-0x18, 0x30, 0x31, 0x34, 0x35 and 0x5B-0x5D.
    void set_memory_size(std::uint64_t below_4g, std::uint64_t above_4g = 0) noexcept {
        constexpr std::uint64_t kib = 1024;
        constexpr std::uint64_t mib = 1024 * kib;
        const auto above = [below_4g](std::uint64_t base) { return below_4g > base ? below_4g - base : 0; };
        const std::uint64_t base = std::min<std::uint64_t>(below_4g / kib, 640);
        const std::uint64_t extended = std::min<std::uint64_t>(above(mib) / kib, 0xFFFF);
        const std::uint64_t units = std::min<std::uint64_t>(above(16 * mib) / (64 * kib), 0xFFFF);
        const std::uint64_t high = std::min<std::uint64_t>(above_4g / (64 * kib), 0xFF'FFFF);
        const auto put = [this](std::uint8_t first, std::uint64_t value, std::uint8_t count) {
            for (std::uint8_t i = 0; i < count; ++i) {
                set_cmos(static_cast<std::uint8_t>(first + i), static_cast<std::uint8_t>(value >> (8U * i)));
            }
        };
        put(mc146818::base_memory_low, base, 2);
        put(mc146818::extended_memory_low, extended, 2);
        put(mc146818::extended_memory2_low, extended, 2);
        put(mc146818::memory_above_16m_low, units, 2);
        put(mc146818::memory_above_4g_low, high, 3);
    }

    /// How far the guest's clock is ahead of the clock that the device was given, as of the last access.
    [[nodiscard]] std::chrono::seconds time_offset() const noexcept {
        const auto host = time_.on_clock(second_start_);
        return std::chrono::seconds(detail::rtc_seconds(bytes(), format()) -
                                    detail::floor_div(host ? host->count() : 0, detail::ns_per_second));
    }
    [[nodiscard]] bool nmi_masked() const noexcept { return index_[mc146818::IndexRegister::nmi_masked]; }
    /// How often the interrupt trigger failed during a read.
    [[nodiscard]] std::uint64_t interrupt_errors() const noexcept { return interrupt_errors_; }

    [[nodiscard]] RtcCmosState state() const noexcept {
        return {.ram = ram_, .index = index_.value(), .second_start = second_start_, .time = time_.state()};
    }

    [[nodiscard]] const T& interrupt_evt() const noexcept { return line_.trigger(); }
    [[nodiscard]] T& interrupt_evt() noexcept { return line_.trigger(); }
    [[nodiscard]] const C& clock() const noexcept { return time_.clock(); }
    [[nodiscard]] C& clock() noexcept { return time_.clock(); }
    [[nodiscard]] const Events& events() const noexcept { return events_; }
    [[nodiscard]] Events& events() noexcept { return events_; }

private:
    static constexpr std::uint64_t ticks_per_second = 32768;
    /// UIP rises this long before an update: 8 ticks, 244 us (data sheet, "Update cycle").
    static constexpr std::uint64_t update_window = 244'140;

    RtcCmos(const RtcCmosState& state, T interrupt, C clock, Events events)
        : time_(state.time, std::move(clock)),
          line_(std::move(interrupt)),
          events_(std::move(events)),
          ram_(state.ram),
          index_(state.index),
          second_start_(state.second_start) {}

    [[nodiscard]] static constexpr const char* first_invalid(const RtcCmosState& state) noexcept {
        const std::uint8_t flags = state.ram[mc146818::register_c];
        const std::uint8_t enabled = flags & state.ram[mc146818::register_b] & mc146818::RegisterC::flags;
        const bool request = mc146818::RegisterC(flags)[mc146818::RegisterC::interrupt_request];
        if (mc146818::RegisterA(state.ram[mc146818::register_a])[mc146818::RegisterA::update_in_progress] ||
            request != (enabled != 0) || (flags & 0x0F) != 0 || state.ram[mc146818::register_d] != 0x80) {
            return "ram";
        }
        if (!detail::DeviceTime<C>::valid(state.time)) {
            return "time";
        }
        // Up to date means that the current second has begun and has not ended.
        if (state.second_start > state.time.seen ||
            detail::elapsed(state.second_start, state.time.seen) >= detail::ns_per_second) {
            return "second_start";
        }
        return nullptr;
    }

    [[nodiscard]] std::uint8_t selected() const noexcept { return index_[mc146818::IndexRegister::index]; }
    [[nodiscard]] mc146818::RegisterA register_a() const noexcept {
        return mc146818::RegisterA(ram_[mc146818::register_a]);
    }
    [[nodiscard]] mc146818::RegisterB register_b() const noexcept {
        return mc146818::RegisterB(ram_[mc146818::register_b]);
    }
    [[nodiscard]] detail::RtcFormat format() const noexcept {
        return {.binary = register_b()[mc146818::RegisterB::binary],
                .hours_24 = register_b()[mc146818::RegisterB::hours_24]};
    }
    /// Whether the divider chain counts: DV 0 to 2 select a time base, the others test or hold it in reset.
    [[nodiscard]] bool running() const noexcept { return register_a()[mc146818::RegisterA::divider] <= 2; }

    [[nodiscard]] detail::RtcBytes bytes() const noexcept {
        return {.second = ram_[mc146818::seconds],
                .minute = ram_[mc146818::minutes],
                .hour = ram_[mc146818::hours],
                .weekday = ram_[mc146818::weekday],
                .day = ram_[mc146818::day],
                .month = ram_[mc146818::month],
                .year = ram_[mc146818::year],
                .century = ram_[mc146818::century]};
    }
    void store(const detail::RtcBytes& bytes) noexcept {
        ram_[mc146818::seconds] = bytes.second;
        ram_[mc146818::minutes] = bytes.minute;
        ram_[mc146818::hours] = bytes.hour;
        ram_[mc146818::weekday] = bytes.weekday;
        ram_[mc146818::day] = bytes.day;
        ram_[mc146818::month] = bytes.month;
        ram_[mc146818::year] = bytes.year;
        ram_[mc146818::century] = bytes.century;
    }

    /// Ticks of the 32.768 kHz chain from one periodic interrupt to the next; 0 for none. Rates 1 and 2 are
    /// the same as 8 and 9 with this time base (data sheet, table 5).
    [[nodiscard]] std::uint64_t period() const noexcept {
        const unsigned rate = register_a()[mc146818::RegisterA::rate_select];
        if (rate == 0) {
            return 0;
        }
        return std::uint64_t{1} << ((rate <= 2 ? rate + 7 : rate) - 1U);
    }
    /// Whole ticks since the second's start; `time` is less than a second after that.
    [[nodiscard]] std::uint64_t ticks_until(std::int64_t time) const noexcept {
        return detail::elapsed(second_start_, time) * ticks_per_second / detail::ns_per_second;
    }
    /// The first nanosecond at which that many ticks are over.
    [[nodiscard]] static constexpr std::uint64_t ns_of_ticks(std::uint64_t ticks) noexcept {
        return (ticks * detail::ns_per_second + ticks_per_second - 1) / ticks_per_second;
    }
    [[nodiscard]] std::int64_t after_updates(std::int64_t count) const noexcept {
        return detail::saturating_add(second_start_, count * detail::ns_per_second);
    }
    [[nodiscard]] std::optional<std::int64_t> seconds_to_alarm() const noexcept {
        return detail::next_alarm(
            {.second = ram_[mc146818::seconds_alarm],
             .minute = ram_[mc146818::minutes_alarm],
             .hour = ram_[mc146818::hours_alarm]},
            format(), detail::floor_mod(detail::rtc_seconds(bytes(), format()), detail::seconds_per_day));
    }
    [[nodiscard]] bool update_in_progress() const noexcept {
        return running() && !register_b()[mc146818::RegisterB::set_mode] &&
               detail::elapsed(second_start_, time_.seen()) >= detail::ns_per_second - update_window;
    }

    /// Carries out what happened since the last look: updates, alarm, periodic flag. O(1) in the time passed.
    void advance() {
        const std::int64_t before = time_.seen();
        const std::int64_t now = time_.now();
        if (!running()) {
            second_start_ = now;
            return;
        }
        mc146818::RegisterC flags(ram_[mc146818::register_c]);
        const auto updates =
            static_cast<std::int64_t>(detail::elapsed(second_start_, now) / detail::ns_per_second);
        const std::uint64_t every = period();
        if (every != 0 && (updates > 0 || ticks_until(before) / every != ticks_until(now) / every)) {
            flags.set(mc146818::RegisterC::periodic);
        }
        if (updates > 0) {
            if (!register_b()[mc146818::RegisterB::set_mode]) {
                flags.set(mc146818::RegisterC::update_ended);
                if (const auto alarm = seconds_to_alarm(); alarm && *alarm <= updates) {
                    flags.set(mc146818::RegisterC::alarm);
                }
                store(detail::rtc_advance(bytes(), format(), updates));
            }
            second_start_ = detail::seconds_after(second_start_, static_cast<std::uint64_t>(updates));
        }
        ram_[mc146818::register_c] = flags.value();
    }

    void write_register_a(std::uint8_t value) {
        const bool was_running = running();
        mc146818::RegisterA a = register_a();
        a.guest_write(value);
        ram_[mc146818::register_a] = a.value();
        if (running() && !was_running) {
            // The first update comes half a second after the divider starts (data sheet, "Divider control").
            second_start_ = time_.seen() - detail::ns_per_second / 2;
        } else if (!running()) {
            second_start_ = time_.seen();
        }
    }

    void write_register_b(std::uint8_t value) {
        const bool was_set = register_b()[mc146818::RegisterB::set_mode];
        const detail::RtcFormat old_format = format();
        const detail::RtcBytes old_bytes = bytes();
        mc146818::RegisterB b(value);
        if (b[mc146818::RegisterB::set_mode]) {
            b.clear(mc146818::RegisterB::update_ended_interrupt);  // data sheet, "UIE": SET clears it
        }
        ram_[mc146818::register_b] = b.value();
        if (!was_set && !b[mc146818::RegisterB::set_mode] && format() != old_format) {
            // The data sheet leaves it to the guest to set the time anew ("DM"). Until it does, or if it
            // never does, the time is right in the new format, as QEMU has it. With SET the bytes are the
            // guest's.
            detail::RtcBytes converted =
                detail::rtc_bytes(detail::rtc_seconds(old_bytes, old_format), format());
            converted.weekday = format().encode(old_format.decode(old_bytes.weekday));
            store(converted);
        }
        if (was_set && !b[mc146818::RegisterB::set_mode]) {
            report_time();
        }
    }

    void report_time() {
        if constexpr (requires { events_.time_changed(std::chrono::seconds{}); }) {
            events_.time_changed(time_offset());
        }
    }

    [[nodiscard]] bool line_level() const noexcept {
        return (ram_[mc146818::register_b] & ram_[mc146818::register_c] & mc146818::RegisterC::flags) != 0;
    }
    /// IRQF and the line follow from the flags and their enables.
    std::expected<void, error_type> drive_line() {
        ram_[mc146818::register_c] = mc146818::RegisterC(ram_[mc146818::register_c])
                                         .set(mc146818::RegisterC::interrupt_request, line_level())
                                         .value();
        return line_.update(line_level());
    }
    void count_error(const std::expected<void, error_type>& result) noexcept {
        if (!result) {
            ++interrupt_errors_;
        }
    }

    detail::DeviceTime<C> time_;
    detail::InterruptLine<T> line_;
    [[no_unique_address]] Events events_;
    std::array<std::uint8_t, 128> ram_{};
    mc146818::IndexRegister index_{};
    std::int64_t second_start_{};
    std::uint64_t interrupt_errors_{};
};

RtcCmos() -> RtcCmos<>;
template <Clock C>
RtcCmos(C) -> RtcCmos<NullTrigger, C>;

}  // namespace vmsuperio
