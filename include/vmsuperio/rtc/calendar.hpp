// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include <vmsuperio/rtc/civil_date.hpp>
#include <vmsuperio/rtc/device_time.hpp>

/// The calendar of the MC146818A: its bytes in BCD or binary and in 12 or 24 hours, how they advance, and
/// when they match an alarm. No function loops over time: a jump of centuries costs the same as one second.
namespace vmsuperio::inline v0_2::detail {

inline constexpr std::int64_t seconds_per_day = 86400;

/// The format of the bytes: bits DM and 24/12 of register B.
struct RtcFormat {
    bool binary{};
    bool hours_24{};

    friend constexpr bool operator==(const RtcFormat&, const RtcFormat&) = default;

    /// 0 to 99 (BCD) or 0 to 255.
    [[nodiscard]] constexpr std::uint8_t encode(std::int64_t value) const noexcept {
        if (binary) {
            return static_cast<std::uint8_t>(value & 0xFF);
        }
        return static_cast<std::uint8_t>(((floor_mod(value, 100) / 10) << 4) | floor_mod(value, 10));
    }
    /// Every byte is converted to some number: a guest may write digits that are not BCD.
    [[nodiscard]] constexpr std::int64_t decode(std::uint8_t byte) const noexcept {
        return binary ? std::int64_t{byte} : std::int64_t{byte >> 4} * 10 + (byte & 0x0F);
    }
    /// In 12-hour mode midnight is 12 AM, noon is 12 PM, and bit 7 means PM.
    [[nodiscard]] constexpr std::uint8_t encode_hour(std::int64_t hour) const noexcept {
        if (hours_24) {
            return encode(hour);
        }
        const std::int64_t half = hour % 12 == 0 ? 12 : hour % 12;
        return static_cast<std::uint8_t>(encode(half) | (hour >= 12 ? 0x80 : 0x00));
    }
    [[nodiscard]] constexpr std::int64_t decode_hour(std::uint8_t byte) const noexcept {
        if (hours_24) {
            return decode(byte);
        }
        return decode(byte & 0x7F) % 12 + ((byte & 0x80) != 0 ? 12 : 0);
    }
};

/// The calendar bytes of the chip.
struct RtcBytes {
    std::uint8_t second{};
    std::uint8_t minute{};
    std::uint8_t hour{};
    std::uint8_t weekday{};  // 1 is Sunday
    std::uint8_t day{};
    std::uint8_t month{};
    std::uint8_t year{};
    std::uint8_t century{};
};

/// The time of the bytes, in seconds since 1970-01-01 00:00. Numbers beyond their range carry into the next
/// field.
[[nodiscard]] constexpr std::int64_t rtc_seconds(const RtcBytes& bytes, RtcFormat format) noexcept {
    const std::int64_t month = format.decode(bytes.month) - 1;
    const std::int64_t year =
        format.decode(bytes.century) * 100 + format.decode(bytes.year) + floor_div(month, 12);
    const std::int64_t days =
        days_from_civil({year, floor_mod(month, 12) + 1, 1}) + format.decode(bytes.day) - 1;
    return days * seconds_per_day + format.decode_hour(bytes.hour) * 3600 + format.decode(bytes.minute) * 60 +
           format.decode(bytes.second);
}

/// The bytes for a time. Years beyond 9999 (BCD) lose their upper digits.
[[nodiscard]] constexpr RtcBytes rtc_bytes(std::int64_t seconds, RtcFormat format) noexcept {
    const std::int64_t day_number = floor_div(seconds, seconds_per_day);
    const std::int64_t of_day = floor_mod(seconds, seconds_per_day);
    const CivilDate date = civil_from_days(day_number);
    return {.second = format.encode(of_day % 60),
            .minute = format.encode(of_day / 60 % 60),
            .hour = format.encode_hour(of_day / 3600),
            .weekday = format.encode(floor_mod(day_number + 4, 7) + 1),  // 1970-01-01 was a Thursday
            .day = format.encode(date.day),
            .month = format.encode(date.month),
            .year = format.encode(floor_mod(date.year, 100)),
            .century = format.encode(floor_div(date.year, 100))};
}

/// The bytes `count` seconds later. The day of the week only advances: the chip does not derive it from the
/// date, and keeps the value that the guest has set.
[[nodiscard]] constexpr RtcBytes rtc_advance(const RtcBytes& bytes, RtcFormat format,
                                             std::int64_t count) noexcept {
    const std::int64_t before = rtc_seconds(bytes, format);
    RtcBytes after = rtc_bytes(before + count, format);
    const std::int64_t days = floor_div(before + count, seconds_per_day) - floor_div(before, seconds_per_day);
    after.weekday =
        days == 0 ? bytes.weekday : format.encode(floor_mod(format.decode(bytes.weekday) - 1 + days, 7) + 1);
    return after;
}

/// The alarm bytes of the chip. Day and month are 0 if it has none.
struct RtcAlarm {
    std::uint8_t second{};
    std::uint8_t minute{};
    std::uint8_t hour{};
    std::uint8_t day{};
    std::uint8_t month{};
};

/// The first day after `today` on which the alarm's day and month match, as the number of days after it, or
/// nothing if there is none. 29 February may be eight years away, across a year like 2100.
[[nodiscard]] constexpr std::optional<std::int64_t> next_alarm_day(
    std::int64_t today, std::optional<std::int64_t> day, std::optional<std::int64_t> month) noexcept {
    CivilDate at = civil_from_days(today);
    ++at.day;  // the first day that may match
    for (int i = 0; i <= 8 * 12; ++i) {
        const std::int64_t match = day ? *day : at.day;
        if ((!month || *month == at.month) && match >= at.day && match <= days_of_month(at.year, at.month)) {
            return days_from_civil({at.year, at.month, match}) - today;
        }
        at = at.month == 12 ? CivilDate{at.year + 1, 1, 1} : CivilDate{at.year, at.month + 1, 1};
    }
    return std::nullopt;
}

/// The seconds from a time (since 1970) to the next match of the alarm, at least 1, or nothing if it can
/// never match. A byte with its two upper bits set matches every value; so does a day or a month of 0.
[[nodiscard]] constexpr std::optional<std::int64_t> next_alarm(const RtcAlarm& alarm, RtcFormat format,
                                                               std::int64_t time) noexcept {
    struct Match {
        bool any;
        std::int64_t value;
        [[nodiscard]] constexpr bool operator()(std::int64_t v) const noexcept { return any || v == value; }
    };
    const auto wildcard = [](std::uint8_t byte) { return (byte & 0xC0) == 0xC0; };
    const Match hour{wildcard(alarm.hour), format.decode_hour(alarm.hour)};
    const Match minute{wildcard(alarm.minute), format.decode(alarm.minute)};
    const Match second{wildcard(alarm.second), format.decode(alarm.second)};
    // The chip compares bytes, so a byte that does not occur in a valid time never matches.
    if ((!hour.any && (hour.value > 23 || format.encode_hour(hour.value) != alarm.hour)) ||
        (!minute.any && (minute.value > 59 || format.encode(minute.value) != alarm.minute)) ||
        (!second.any && (second.value > 59 || format.encode(second.value) != alarm.second))) {
        return std::nullopt;
    }
    // In register D the day has six bits, so that "any" is 0x3F there. Its upper bits otherwise have no
    // meaning (ACPI 4.8.2.4).
    const std::uint8_t day_bits = alarm.day & 0x3FU;
    const bool any_day = day_bits == 0 || day_bits == 0x3F || wildcard(alarm.day);
    const bool any_month = alarm.month == 0 || wildcard(alarm.month);
    const std::optional<std::int64_t> day = any_day ? std::nullopt : std::optional(format.decode(day_bits));
    const std::optional<std::int64_t> month =
        any_month ? std::nullopt : std::optional(format.decode(alarm.month));
    if ((day && format.encode(*day) != day_bits) || (month && format.encode(*month) != alarm.month)) {
        return std::nullopt;
    }
    // At most 24 + 60 + 60 steps: every level has a match.
    constexpr std::int64_t none = seconds_per_day;
    const auto first_from = [&](std::int64_t start) {
        for (std::int64_t h = start / 3600; h < 24; ++h) {
            if (!hour(h)) {
                continue;
            }
            const std::int64_t hour_start = h * 3600 > start ? h * 3600 : start;
            for (std::int64_t m = hour_start / 60 % 60; m < 60; ++m) {
                if (!minute(m)) {
                    continue;
                }
                const std::int64_t minute_start = h * 3600 + m * 60;
                for (std::int64_t s = minute_start >= start ? 0 : start - minute_start; s < 60; ++s) {
                    if (second(s)) {
                        return minute_start + s;
                    }
                }
            }
        }
        return none;
    };
    const std::int64_t of_day = floor_mod(time, seconds_per_day);
    const std::int64_t today = floor_div(time, seconds_per_day);
    const CivilDate date = civil_from_days(today);
    if ((!day || *day == date.day) && (!month || *month == date.month)) {
        if (const std::int64_t found = first_from(of_day + 1); found != none) {
            return found - of_day;
        }
    }
    const auto days = next_alarm_day(today, day, month);
    if (!days) {
        return std::nullopt;
    }
    return *days * seconds_per_day + first_from(0) - of_day;
}

}  // namespace vmsuperio::inline v0_2::detail
