// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/rtc/calendar.hpp>
#include <vmsuperio/rtc/device_time.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// What a machine chooses when it makes an RtcCmos.
struct RtcCmosOptions {
    /// The guest's local time minus UTC, for guests that keep the clock in local time. At most a day.
    std::chrono::seconds utc_offset{0};
    /// The bytes that hold the alarm's day of the month and its month, as named by DAY_ALRM and MON_ALRM of
    /// the FADT; 0 for none. Valid are 0x0D for the day (its bits 5:0, as on the PIIX4) and 0x0E to 0x7F for
    /// both (VIA's chipsets: 0x7D and 0x7E); other numbers count as 0. The guest writes 0, or a byte with
    /// both upper bits set, for any day or month (ACPI 4.8.2.4).
    std::uint8_t day_alarm{0};
    /// The byte that holds the alarm's month, 0 if none does; the FADT's MON_ALRM.
    std::uint8_t month_alarm{0};
};

/// The clock as plain data. A default-constructed state is a device that was reset when its clock was at
/// 1970: once restored, it has the time of its new clock.
struct RtcCmosState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CMOS"), .version = 2, .readable_since = 1};

    /// The bytes of both banks: time, registers, memory.
    std::array<std::uint8_t, 128> ram{initial_ram()};
    std::uint8_t index{};                          ///< as last written to port 0x70, with the NMI bit
    std::int64_t second_start{};                   ///< device time of the last second's start, in ns
    DeviceTimeState time;                          ///< the device's own time
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
        ram[mc146818::register_a] =
            0x26;  // 32.768 kHz, 1024 Hz periodic: the value that a PC's firmware sets
        ram[mc146818::register_b] = mc146818::RegisterB().set(mc146818::RegisterB::hours_24).value();
        ram[mc146818::register_d] =
            mc146818::RegisterD().set(mc146818::RegisterD::valid_ram_and_time).value();
        return ram;
    }
};

namespace detail {

/// The indices of the alarm's date according to the options, or 0 for none. The clock's own bytes cannot be
/// used for it.
struct RtcAlarmDate {
    std::uint8_t day{};
    std::uint8_t month{};

    explicit constexpr RtcAlarmDate(const RtcCmosOptions& options) noexcept
        : day(options.day_alarm == mc146818::register_d ? options.day_alarm : free_byte(options.day_alarm)),
          month(free_byte(options.month_alarm)) {}

private:
    [[nodiscard]] static constexpr std::uint8_t free_byte(std::uint8_t index) noexcept {
        return index > mc146818::register_d && index < 0x80 && index != mc146818::century ? index
                                                                                          : std::uint8_t{0};
    }
};

/// IRQF and the interrupt line: a flag of register C whose enable in register B is set.
[[nodiscard]] constexpr bool rtc_interrupt(const std::array<std::uint8_t, 128>& ram) noexcept {
    using mc146818::RegisterB;
    using mc146818::RegisterC;
    return (RegisterB(ram[mc146818::register_b])[RegisterB::interrupt_enables] &
            RegisterC(ram[mc146818::register_c])[RegisterC::flags]) != 0;
}

}  // namespace detail

/// Checks whether a clock with these options can be in this state; the error names the first invalid member.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const RtcCmosState& state,
                                                                 const RtcCmosOptions& options = {}) {
    using namespace mc146818;
    const RegisterC flags(state.ram[register_c]);
    const unsigned alarm_bits =
        detail::RtcAlarmDate(options).day == register_d ? RegisterD::day_alarm.mask : 0U;
    if (RegisterA(state.ram[register_a])[RegisterA::update_in_progress] ||
        flags[RegisterC::interrupt_request] != detail::rtc_interrupt(state.ram) ||
        (flags.value() & ~RegisterC::mask_of(Access::read_only)) != 0 ||
        (state.ram[register_d] & ~alarm_bits) != RegisterD::valid_ram_and_time.mask) {
        return std::unexpected(StateError{"ram"});
    }
    return detail::validate_time(state);
}

namespace detail {

/// The effects of an access outside the clock. The interrupt line follows from the state; it never rises
/// again within one access.
struct RtcCmosEffects {
    bool time_changed{};             // by the guest; the device is now `ahead` of the host's clock
    bool shutdown_status_written{};  // with `shutdown_status`
    bool nmi_mask_changed{};         // to `nmi_masked`
    bool nmi_masked{};
    std::uint8_t shutdown_status{};
    std::chrono::seconds ahead{};
    static constexpr LinePulse pulse = LinePulse::none;

    template <class Events>
    constexpr void report(Events& events) const {
        if constexpr (requires { events.time_changed(ahead); }) {
            if (time_changed) {
                events.time_changed(ahead);
            }
        }
        if constexpr (requires { events.shutdown_status(shutdown_status); }) {
            if (shutdown_status_written) {
                events.shutdown_status(shutdown_status);
            }
        }
        if constexpr (requires { events.nmi_masked(nmi_masked); }) {
            if (nmi_mask_changed) {
                events.nmi_masked(nmi_masked);
            }
        }
    }
};

/// The chip and its memory without connections: `RtcCmos` connects it to a trigger, events and a clock. `now`
/// is the time of that clock, in ns since its epoch.
class RtcCmosCore : public SecondsCore<RtcCmosState> {
public:
    using options_type = RtcCmosOptions;

    constexpr RtcCmosCore(std::int64_t now, const RtcCmosOptions& options) noexcept
        : SecondsCore(now), alarm_date_(options) {
        std::int64_t ahead = options.utc_offset.count();
        ahead = ahead < -seconds_per_day ? -seconds_per_day : ahead;
        ahead = ahead > seconds_per_day ? seconds_per_day : ahead;
        store(rtc_bytes(saturating_add(floor_div(state_.second_start, ns_per_second), ahead), format()));
    }
    [[nodiscard]] static constexpr std::expected<void, StateError> validate(const RtcCmosState& state,
                                                                            const RtcCmosOptions& options) {
        return vmsuperio::validate(state, options);
    }

    /// The level of IRQ 8.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t = 0) const noexcept {
        return rtc_interrupt(state_.ram);
    }
    [[nodiscard]] constexpr bool nmi_masked() const noexcept {
        return mc146818::IndexRegister(state_.index)[mc146818::IndexRegister::nmi_masked];
    }

    /// Updates the state to `now`: updates of the time, alarm, periodic flag. O(1) in the time passed.
    constexpr void advance(std::int64_t now) noexcept {
        const std::int64_t before = state_.time.seen;
        const std::int64_t after = look(now);
        if (!running()) {
            state_.second_start = after;
            return;
        }
        if (after == before) {
            return;  // the second call within one access
        }
        using mc146818::RegisterC;
        RegisterC flags = register_c();
        const auto updates = static_cast<std::int64_t>(seconds_passed());
        const std::uint64_t every = period();
        if (every != 0 && (updates > 0 || ticks_until(before) / every != ticks_until(after) / every)) {
            flags.set(RegisterC::periodic);
        }
        if (updates > 0) {
            if (!register_b()[mc146818::RegisterB::set_mode]) {
                flags.set(RegisterC::update_ended);
                if (const auto alarm = seconds_to_alarm(); alarm && *alarm <= updates) {
                    flags.set(RegisterC::alarm);
                }
                store(rtc_advance(bytes(), format(), updates));
            }
            count_seconds(static_cast<std::uint64_t>(updates));
        }
        set_register_c(flags);
    }

    /// The RESET pin: PIE, AIE, UIE, SQWE and all flags of register C are cleared (datasheet, "RESET").
    /// Clock, calendar, alarm and memory stay, as the battery keeps them; so do the index registers, which
    /// are not part of the chip's reset.
    constexpr void reset(std::int64_t now) noexcept {
        advance(now);
        using mc146818::RegisterB;
        state_.ram[mc146818::register_b] =
            register_b().set(RegisterB::interrupt_enables, 0).clear(RegisterB::square_wave).value();
        set_register_c({});
    }

    /// The result of a read at a port's offset, as of the last `advance`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        switch (offset) {
            case mc146818::data_offset:
                return cmos(selected());
            case mc146818::extended_data_offset:
                return extended_cmos(state_.extended_index);
            default:
                return 0xFF;
        }
    }

    /// A read of the data port. It clears register C, so that the interrupt line may fall.
    constexpr std::uint8_t read_data(std::int64_t now) noexcept {
        advance(now);
        const std::uint8_t value = cmos(selected());
        if (selected() == mc146818::register_c) {
            set_register_c({});
        }
        return value;
    }

    /// A write to the data port.
    constexpr RtcCmosEffects write_data(std::int64_t now, std::uint8_t value) noexcept {
        advance(now);
        RtcCmosEffects effects;
        switch (const std::uint8_t index = selected(); index) {
            case mc146818::seconds:
            case mc146818::minutes:
            case mc146818::hours:
            case mc146818::weekday:
            case mc146818::day:
            case mc146818::month:
            case mc146818::year:
            case mc146818::century:
                state_.ram[index] = value;
                effects.time_changed = !register_b()[mc146818::RegisterB::set_mode];
                break;
            case mc146818::register_a:
                write_register_a(value);
                break;
            case mc146818::register_b:
                effects.time_changed = write_register_b(value);
                break;
            case mc146818::register_c:
                break;
            case mc146818::register_d:
                if (alarm_date_.day == mc146818::register_d) {
                    mc146818::RegisterD d(state_.ram[index]);
                    state_.ram[index] = d.set(mc146818::RegisterD::day_alarm, value).value();
                }
                break;
            case mc146818::shutdown_status:
                state_.ram[index] = value;
                effects.shutdown_status_written = true;
                effects.shutdown_status = value;
                break;
            default:
                state_.ram[index] = value;
                break;
        }
        if (effects.time_changed) {
            effects.ahead = time_offset();
        }
        return effects;
    }

    /// A write to any port except the data port. None of them depends on time.
    constexpr RtcCmosEffects write_port(std::uint8_t offset, std::uint8_t value) noexcept {
        RtcCmosEffects effects;
        switch (offset) {
            case mc146818::index_offset: {
                const bool was_masked = nmi_masked();
                state_.index = value;
                effects.nmi_masked = nmi_masked();
                effects.nmi_mask_changed = effects.nmi_masked != was_masked;
                break;
            }
            case mc146818::extended_index_offset:
                state_.extended_index = value;
                break;
            case mc146818::extended_data_offset:
                set_extended_cmos(state_.extended_index, value);
                break;
            default:
                break;
        }
        return effects;
    }

    /// The time on the clock at which the line will next rise without an access, as of the last `advance`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        if (interrupt_level() || !running()) {
            return std::nullopt;  // only an access lowers a high line
        }
        using mc146818::RegisterB;
        const RegisterB control = register_b();
        std::optional<std::int64_t> earliest;
        const auto consider = [&](std::int64_t time) {
            earliest = earliest && *earliest < time ? earliest : time;
        };
        if (const std::uint64_t every = period(); every != 0 && control[RegisterB::periodic_interrupt]) {
            const std::uint64_t ticks = (ticks_until(state_.time.seen) / every + 1) * every;
            consider(from_second_start(static_cast<std::int64_t>(ns_of_ticks(ticks))));
        }
        if (!control[RegisterB::set_mode]) {
            if (control[RegisterB::update_ended_interrupt]) {
                consider(from_second_start(ns_per_second));
            }
            if (control[RegisterB::alarm_interrupt]) {
                if (const auto seconds = seconds_to_alarm()) {
                    consider(from_second_start(*seconds * ns_per_second));
                }
            }
        }
        return earliest ? on_clock(*earliest) : std::nullopt;
    }

    [[nodiscard]] constexpr std::uint8_t cmos(std::uint8_t index) const noexcept {
        index &= 0x7FU;
        if (index == mc146818::register_a) {
            return register_a().set(mc146818::RegisterA::update_in_progress, update_in_progress()).value();
        }
        return state_.ram[index];
    }
    constexpr void set_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        index &= 0x7FU;
        if (index <= mc146818::register_d || index == mc146818::century) {
            return;
        }
        state_.ram[index] = value;
        if (index >= mc146818::checksum_first && index <= mc146818::checksum_last) {
            std::uint32_t sum = 0;
            for (std::size_t i = mc146818::checksum_first; i <= mc146818::checksum_last; ++i) {
                sum += state_.ram[i];
            }
            state_.ram[mc146818::checksum_high] = static_cast<std::uint8_t>(sum >> 8U);
            state_.ram[mc146818::checksum_low] = static_cast<std::uint8_t>(sum);
        }
    }
    [[nodiscard]] constexpr std::uint8_t extended_cmos(std::uint8_t index) const noexcept {
        return state_.extended_ram[index & 0x7FU];
    }
    constexpr void set_extended_cmos(std::uint8_t index, std::uint8_t value) noexcept {
        state_.extended_ram[index & 0x7FU] = value;
    }

    constexpr void set_memory_size(std::uint64_t below_4g, std::uint64_t above_4g) noexcept {
        constexpr std::uint64_t kib = 1024;
        constexpr std::uint64_t mib = 1024 * kib;
        // The size of the memory from `base` on, in units, limited to the range of the bytes.
        const auto from = [below_4g](std::uint64_t base, std::uint64_t unit, std::uint64_t most) {
            const std::uint64_t size = below_4g > base ? (below_4g - base) / unit : 0;
            return size < most ? size : most;
        };
        const std::uint64_t extended = from(mib, kib, 0xFFFF);
        const std::uint64_t high = above_4g / (64 * kib);
        put(mc146818::base_memory_low, from(0, kib, 640), 2);
        put(mc146818::extended_memory_low, extended, 2);
        put(mc146818::extended_memory2_low, extended, 2);
        put(mc146818::memory_above_16m_low, from(16 * mib, 64 * kib, 0xFFFF), 2);
        put(mc146818::memory_above_4g_low, high < 0xFF'FFFF ? high : 0xFF'FFFF, 3);
    }

    /// The guest's time of day as seconds since 1970-01-01 00:00, in the guest's time zone.
    [[nodiscard]] constexpr std::int64_t time_of_day() const noexcept {
        return rtc_seconds(bytes(), format());
    }
    [[nodiscard]] constexpr std::chrono::seconds time_offset() const noexcept {
        return std::chrono::seconds(time_of_day() - clock_seconds());
    }

private:
    static constexpr std::uint64_t ticks_per_second = 32768;
    /// The time from the rise of UIP to the update: 8 ticks, 244 us (datasheet, "Update cycle").
    static constexpr std::uint64_t update_window = 244'140;

    [[nodiscard]] constexpr std::uint8_t selected() const noexcept {
        return mc146818::IndexRegister(state_.index)[mc146818::IndexRegister::index];
    }
    [[nodiscard]] constexpr mc146818::RegisterA register_a() const noexcept {
        return mc146818::RegisterA(state_.ram[mc146818::register_a]);
    }
    [[nodiscard]] constexpr mc146818::RegisterB register_b() const noexcept {
        return mc146818::RegisterB(state_.ram[mc146818::register_b]);
    }
    [[nodiscard]] constexpr mc146818::RegisterC register_c() const noexcept {
        return mc146818::RegisterC(state_.ram[mc146818::register_c]);
    }
    /// Sets the flags; IRQF follows from them and from register B.
    constexpr void set_register_c(mc146818::RegisterC flags) noexcept {
        std::uint8_t& c = state_.ram[mc146818::register_c];
        c = flags.value();
        c = flags.set(mc146818::RegisterC::interrupt_request, rtc_interrupt(state_.ram)).value();
    }
    [[nodiscard]] constexpr RtcFormat format() const noexcept {
        return {.binary = register_b()[mc146818::RegisterB::binary],
                .hours_24 = register_b()[mc146818::RegisterB::hours_24]};
    }
    /// Whether the divider chain counts: DV 0 to 2 select a time base, the others test or hold it in reset.
    [[nodiscard]] constexpr bool running() const noexcept {
        return register_a()[mc146818::RegisterA::divider] <= 2;
    }

    [[nodiscard]] constexpr RtcBytes bytes() const noexcept {
        const auto& ram = state_.ram;
        return {.second = ram[mc146818::seconds],
                .minute = ram[mc146818::minutes],
                .hour = ram[mc146818::hours],
                .weekday = ram[mc146818::weekday],
                .day = ram[mc146818::day],
                .month = ram[mc146818::month],
                .year = ram[mc146818::year],
                .century = ram[mc146818::century]};
    }
    constexpr void store(const RtcBytes& bytes) noexcept {
        auto& ram = state_.ram;
        ram[mc146818::seconds] = bytes.second;
        ram[mc146818::minutes] = bytes.minute;
        ram[mc146818::hours] = bytes.hour;
        ram[mc146818::weekday] = bytes.weekday;
        ram[mc146818::day] = bytes.day;
        ram[mc146818::month] = bytes.month;
        ram[mc146818::year] = bytes.year;
        ram[mc146818::century] = bytes.century;
    }
    /// Stores a number of several bytes, the lowest first, as firmware does.
    constexpr void put(std::uint8_t first, std::uint64_t value, std::uint8_t count) noexcept {
        for (std::uint8_t i = 0; i < count; ++i) {
            set_cmos(static_cast<std::uint8_t>(first + i), static_cast<std::uint8_t>(value >> (8U * i)));
        }
    }

    /// Ticks of the 32.768 kHz chain from one periodic interrupt to the next; 0 for none. Rates 1 and 2 are
    /// the same as 8 and 9 with this time base (datasheet, table 5).
    [[nodiscard]] constexpr std::uint64_t period() const noexcept {
        const unsigned rate = register_a()[mc146818::RegisterA::rate_select];
        if (rate == 0) {
            return 0;
        }
        return std::uint64_t{1} << ((rate <= 2 ? rate + 7 : rate) - 1U);
    }
    /// Whole ticks since the second's start; `time` is less than a second after that.
    [[nodiscard]] constexpr std::uint64_t ticks_until(std::int64_t time) const noexcept {
        return elapsed(state_.second_start, time) * ticks_per_second / ns_per_second;
    }
    /// The first nanosecond at which that many ticks have passed.
    [[nodiscard]] static constexpr std::uint64_t ns_of_ticks(std::uint64_t ticks) noexcept {
        return (ticks * ns_per_second + ticks_per_second - 1) / ticks_per_second;
    }
    [[nodiscard]] constexpr std::optional<std::int64_t> seconds_to_alarm() const noexcept {
        const auto& ram = state_.ram;
        return next_alarm({.second = ram[mc146818::seconds_alarm],
                           .minute = ram[mc146818::minutes_alarm],
                           .hour = ram[mc146818::hours_alarm],
                           .day = alarm_date_.day != 0 ? ram[alarm_date_.day] : std::uint8_t{0},
                           .month = alarm_date_.month != 0 ? ram[alarm_date_.month] : std::uint8_t{0}},
                          format(), time_of_day());
    }
    [[nodiscard]] constexpr bool update_in_progress() const noexcept {
        return running() && !register_b()[mc146818::RegisterB::set_mode] &&
               elapsed(state_.second_start, state_.time.seen) >= ns_per_second - update_window;
    }

    constexpr void write_register_a(std::uint8_t value) noexcept {
        const bool was_running = running();
        mc146818::RegisterA a = register_a();
        a.guest_write(value);
        state_.ram[mc146818::register_a] = a.value();
        if (running() && !was_running) {
            // The first update occurs half a second after the divider starts (datasheet, "Divider control").
            state_.second_start = state_.time.seen - ns_per_second / 2;
        } else if (!running()) {
            state_.second_start = state_.time.seen;
        }
    }

    /// Returns whether the guest has set the time with this write.
    constexpr bool write_register_b(std::uint8_t value) noexcept {
        using mc146818::RegisterB;
        const bool was_set = register_b()[RegisterB::set_mode];
        const RtcFormat old_format = format();
        const RtcBytes old_bytes = bytes();
        RegisterB b(value);
        const bool set = b[RegisterB::set_mode];
        if (set) {
            b.clear(RegisterB::update_ended_interrupt);  // datasheet, "UIE": SET clears it
        }
        state_.ram[mc146818::register_b] = b.value();
        set_register_c(register_c());
        if (!was_set && !set && format() != old_format) {
            // According to the datasheet the guest has to set the time again ("DM"). Until it does, or if it
            // never does, the time is correct in the new format, as in QEMU. With SET the bytes are not
            // converted.
            RtcBytes converted = rtc_bytes(rtc_seconds(old_bytes, old_format), format());
            converted.weekday = format().encode(old_format.decode(old_bytes.weekday));
            store(converted);
        }
        return was_set && !set;
    }

    RtcAlarmDate alarm_date_;  // of the options
};

}  // namespace detail
}  // namespace vmsuperio::inline v0_2
