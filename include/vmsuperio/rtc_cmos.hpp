// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/rtc/calendar.hpp>
#include <vmsuperio/rtc/device_time.hpp>
#include <vmsuperio/snapshot.hpp>
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
/// A machine that puts only two ports on its bus has the first bank alone.
///
/// Models: the whole data sheet but for its pins: BCD and binary, 12 and 24 hours, alarm with wildcards,
/// periodic rates, update-ended, UIP, SET, the divider's reset, and the century byte at 0x32 that PCs added;
/// on request an alarm on a day of the month and a month, at bytes that the FADT names (ACPI 4.8.2.4).
/// The periodic flag follows the divider chain, which only DV and the updates touch, as on the chip: after a
/// write of register A the first period may be shorter than the others, where QEMU starts a whole one.
/// Not modelled: daylight savings (DSE is kept without effect), the square wave, standby pins, the 1984 us
/// that an update takes (it is done at once, when the UIP window ends), time bases other than 32.768 kHz
/// (they run at the same rate). Deviation: leap years are those of the Gregorian calendar, with the century
/// byte; the chip itself takes every fourth year. Ignored bits: register A bit 7, registers C and D as a
/// whole (a day alarm at 0x0D has bits 5:0 there). Thread safety: none; one lock around the device, or one
/// thread.
namespace vmsuperio {

/// The events of a clock that nobody listens to. Each member of an events type is optional:
/// `time_changed(std::chrono::seconds ahead)`: the guest set the time, `ahead` of the clock that the device
/// was given; `shutdown_status(std::uint8_t code)`: the guest wrote CMOS byte 0x0F; `nmi_masked(bool
/// masked)`: bit 7 of the index register changed.
struct NoRtcCmosEvents {};

struct RtcCmosOptions {
    /// The guest's local time minus UTC, for guests that keep the clock in local time. At most a day.
    std::chrono::seconds utc_offset{0};
    /// The bytes that hold the alarm's day of the month and its month, as DAY_ALRM and MON_ALRM of the FADT
    /// name them; 0: none. Possible are 0x0D for the day (its bits 5:0, as on the PIIX4) and 0x0E to 0x7F
    /// for both (VIA's chipsets: 0x7D and 0x7E); other numbers count as 0. The guest writes 0, or a byte
    /// with both upper bits set, for any day or month (ACPI 4.8.2.4).
    std::uint8_t day_alarm{0};
    std::uint8_t month_alarm{0};
};

/// The clock as plain data. By default: a clock just reset that stood at 1970; restored, it has the time of
/// the clock that it is given.
struct RtcCmosState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CMOS"), .version = 2, .readable_since = 1};

    std::array<std::uint8_t, 128> ram{initial_ram()};
    std::uint8_t index{};         ///< as last written to port 0x70, with the NMI bit
    std::int64_t second_start{};  ///< device time of the last second's start, in ns
    detail::DeviceTimeState time;
    std::array<std::uint8_t, 128> extended_ram{};  ///< the second bank
    std::uint8_t extended_index{};                 ///< as last written to port 0x72

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [ram, index, second_start, time, extended_ram, extended_index] = self;
        archive("ram", ram);
        archive("index", index, as<mc146818::IndexRegister>);
        archive("second_start", second_start);
        archive("time", time);
        archive.since(2, "extended_ram", extended_ram);
        archive.since(2, "extended_index", extended_index);
    }
    friend constexpr bool operator==(const RtcCmosState&, const RtcCmosState&) = default;

private:
    // Thursday, 1970-01-01, 00:00:00, in BCD and 24 hours.
    [[nodiscard]] static constexpr std::array<std::uint8_t, 128> initial_ram() noexcept {
        std::array<std::uint8_t, 128> ram{};
        ram[mc146818::weekday] = 5;
        ram[mc146818::day] = 1;
        ram[mc146818::month] = 1;
        ram[mc146818::year] = 0x70;
        ram[mc146818::century] = 0x19;
        ram[mc146818::register_a] = 0x26;  // 32.768 kHz, 1024 Hz periodic: what a PC's firmware sets
        ram[mc146818::register_b] = mc146818::RegisterB().set(mc146818::RegisterB::hours_24).value();
        ram[mc146818::register_d] =
            mc146818::RegisterD().set(mc146818::RegisterD::valid_ram_and_time).value();
        return ram;
    }
};
static_assert(SnapshotState<RtcCmosState> && visits_every_member<RtcCmosState>());

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the
/// interrupt line will next rise; call `tick()` then. Guest accesses update the device implicitly. The epoch
/// of `C` is the Unix epoch in UTC.
///
/// Arguments come in one order, as for every device: trigger, events, clock, options. Each may be left out
/// where its type has a default.
///
/// Errors: `write`, `tick` and `reset` return what the interrupt trigger returned; a read counts it instead
/// (`interrupt_errors()`).
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcCmosEvents, Clock C = SystemClock>
class RtcCmos {
public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using events_type = Events;
    using clock_type = C;
    static constexpr std::size_t register_count = 4;

    RtcCmos()
        requires std::default_initializable<T> && std::default_initializable<Events> &&
                 std::default_initializable<C>
        : RtcCmos(T(), Events(), C()) {}
    explicit RtcCmos(T interrupt)
        requires std::default_initializable<Events> && std::default_initializable<C>
        : RtcCmos(std::move(interrupt), Events(), C()) {}
    explicit RtcCmos(C clock)
        requires std::default_initializable<T> && std::default_initializable<Events>
        : RtcCmos(T(), Events(), std::move(clock)) {}
    RtcCmos(T interrupt, C clock, RtcCmosOptions options = {})
        requires std::default_initializable<Events>
        : RtcCmos(std::move(interrupt), Events(), std::move(clock), options) {}
    RtcCmos(T interrupt, Events events)
        requires std::default_initializable<C>
        : RtcCmos(std::move(interrupt), std::move(events), C()) {}

    /// `interrupt` is IRQ 8. The clock starts with the time of `clock`, in BCD and 24 hours, no interrupt
    /// enabled.
    RtcCmos(T interrupt, Events events, C clock, RtcCmosOptions options = {})
        : line_(std::move(interrupt)),
          events_(std::move(events)),
          time_(std::move(clock)),
          day_alarm_(day_alarm_index(options)),
          month_alarm_(month_alarm_index(options)) {
        second_start_ = detail::floor_second(time_.seen());
        store(detail::rtc_bytes(
            detail::saturating_add(
                detail::floor_div(second_start_, detail::ns_per_second),
                std::clamp<std::int64_t>(options.utc_offset.count(), -detail::seconds_per_day,
                                         detail::seconds_per_day)),
            format()));
    }
    /// The device as it was saved; the time that passed on `clock` since then has passed for it too. An
    /// interrupt line that was high is raised again. The options must be those of the saved device; the
    /// `utc_offset` is in the saved time already and has no effect.
    [[nodiscard]] static std::expected<RtcCmos, StateError> from_state(const RtcCmosState& state,
                                                                       T interrupt = T(),
                                                                       Events events = Events(),
                                                                       C clock = C(),
                                                                       RtcCmosOptions options = {}) {
        if (const char* field = first_invalid(state, options); field != nullptr) {
            return std::unexpected(StateError{field});
        }
        RtcCmos device(state, std::move(interrupt), std::move(events), std::move(clock), options);
        device.count_error(device.drive_line());
        return device;
    }

    /// The RESET pin: PIE, AIE, UIE, SQWE and all flags of register C are cleared and the interrupt line
    /// falls (data sheet, "RESET"). Clock, calendar, alarm and memory stay, as the battery keeps them; so do
    /// the index registers, which are no part of the chip's reset.
    std::expected<void, error_type> reset() {
        advance();
        using mc146818::RegisterB;
        ram_[mc146818::register_b] = register_b()
                                         .clear(RegisterB::periodic_interrupt)
                                         .clear(RegisterB::alarm_interrupt)
                                         .clear(RegisterB::update_ended_interrupt)
                                         .clear(RegisterB::square_wave)
                                         .value();
        ram_[mc146818::register_c] = 0;
        return drive_line();
    }

    /// A read by the guest. The index registers, and offsets above 3, give 0xFF.
    std::uint8_t read(std::uint8_t offset) {
        if (offset != mc146818::data_offset) {
            return peek(offset);
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
        switch (offset) {
            case mc146818::data_offset:
                return cmos(selected());
            case mc146818::extended_data_offset:
                return extended_cmos(extended_index_);
            default:
                return 0xFF;
        }
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
        if (offset == mc146818::extended_index_offset) {
            extended_index_ = value;
            return {};
        }
        if (offset == mc146818::extended_data_offset) {
            set_extended_cmos(extended_index_, value);
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
                break;
            case mc146818::register_d:
                if (day_alarm_ == mc146818::register_d) {
                    mc146818::RegisterD d(ram_[index]);
                    ram_[index] = d.set(mc146818::RegisterD::day_alarm, value).value();
                }
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

    /// Byte `index` (0 to 127) of the second bank, at ports 0x72 and 0x73.
    [[nodiscard]] std::uint8_t extended_cmos(std::uint8_t index) const noexcept {
        return extended_ram_[index & 0x7FU];
    }
    void set_extended_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        extended_ram_[index & 0x7FU] = value;
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
        RtcCmosState state;
        state.ram = ram_;
        state.index = index_.value();
        state.second_start = second_start_;
        state.time = time_.state();
        state.extended_ram = extended_ram_;
        state.extended_index = extended_index_;
        return state;
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

    RtcCmos(const RtcCmosState& state, T interrupt, Events events, C clock, const RtcCmosOptions& options)
        : line_(std::move(interrupt)),
          events_(std::move(events)),
          time_(state.time, std::move(clock)),
          ram_(state.ram),
          extended_ram_(state.extended_ram),
          index_(state.index),
          extended_index_(state.extended_index),
          day_alarm_(day_alarm_index(options)),
          month_alarm_(month_alarm_index(options)),
          second_start_(state.second_start) {}

    /// 0 for none. The clock's own bytes cannot hold an alarm's date as well.
    [[nodiscard]] static constexpr std::uint8_t day_alarm_index(const RtcCmosOptions& options) noexcept {
        return options.day_alarm == mc146818::register_d ? options.day_alarm : free_byte(options.day_alarm);
    }
    [[nodiscard]] static constexpr std::uint8_t month_alarm_index(const RtcCmosOptions& options) noexcept {
        return free_byte(options.month_alarm);
    }
    [[nodiscard]] static constexpr std::uint8_t free_byte(std::uint8_t index) noexcept {
        return index > mc146818::register_d && index < 0x80 && index != mc146818::century ? index
                                                                                          : std::uint8_t{0};
    }

    [[nodiscard]] static constexpr const char* first_invalid(const RtcCmosState& state,
                                                             const RtcCmosOptions& options) noexcept {
        const unsigned day_alarm =
            day_alarm_index(options) == mc146818::register_d ? mc146818::RegisterD::day_alarm.mask : 0U;
        const std::uint8_t flags = state.ram[mc146818::register_c];
        const std::uint8_t enabled = flags & state.ram[mc146818::register_b] & mc146818::RegisterC::flags;
        const bool request = mc146818::RegisterC(flags)[mc146818::RegisterC::interrupt_request];
        if (mc146818::RegisterA(state.ram[mc146818::register_a])[mc146818::RegisterA::update_in_progress] ||
            request != (enabled != 0) || (flags & 0x0F) != 0 ||
            (state.ram[mc146818::register_d] & ~day_alarm) != mc146818::RegisterD::valid_ram_and_time.mask) {
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
        return detail::next_alarm({.second = ram_[mc146818::seconds_alarm],
                                   .minute = ram_[mc146818::minutes_alarm],
                                   .hour = ram_[mc146818::hours_alarm],
                                   .day = day_alarm_ != 0 ? ram_[day_alarm_] : std::uint8_t{0},
                                   .month = month_alarm_ != 0 ? ram_[month_alarm_] : std::uint8_t{0}},
                                  format(), detail::rtc_seconds(bytes(), format()));
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

    InterruptLine<T> line_;
    [[no_unique_address]] Events events_;
    detail::DeviceTime<C> time_;
    std::array<std::uint8_t, 128> ram_{RtcCmosState().ram};
    std::array<std::uint8_t, 128> extended_ram_{};
    mc146818::IndexRegister index_{};
    std::uint8_t extended_index_{};
    std::uint8_t day_alarm_;    // index of the byte, 0 for none
    std::uint8_t month_alarm_;  // index of the byte, 0 for none
    std::int64_t second_start_{};
    std::uint64_t interrupt_errors_{};
};

RtcCmos() -> RtcCmos<>;
template <Trigger T>
RtcCmos(T) -> RtcCmos<T>;
template <Clock C>
RtcCmos(C) -> RtcCmos<NullTrigger, NoRtcCmosEvents, C>;
template <Trigger T, Clock C>
RtcCmos(T, C, RtcCmosOptions = {}) -> RtcCmos<T, NoRtcCmosEvents, C>;
template <Trigger T, detail::RtcEvents Events>
RtcCmos(T, Events) -> RtcCmos<T, Events>;
template <Trigger T, detail::RtcEvents Events, Clock C>
RtcCmos(T, Events, C, RtcCmosOptions = {}) -> RtcCmos<T, Events, C>;

}  // namespace vmsuperio
