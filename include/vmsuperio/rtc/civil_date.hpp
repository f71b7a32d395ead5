// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstdint>

/// The Gregorian calendar, without the rest of <chrono>.
namespace vmsuperio::inline v0_2::detail {

/// Divides rounding down. `b` is positive.
[[nodiscard]] constexpr std::int64_t floor_div(std::int64_t a, std::int64_t b) noexcept {
    return a / b - (a % b < 0 ? 1 : 0);
}
/// The remainder of `floor_div`, 0 to `b` - 1.
[[nodiscard]] constexpr std::int64_t floor_mod(std::int64_t a, std::int64_t b) noexcept {
    const std::int64_t rest = a % b;
    return rest < 0 ? rest + b : rest;
}

struct CivilDate {
    std::int64_t year{};
    std::int64_t month{};  // 1 to 12
    std::int64_t day{};    // 1 to 31

    friend constexpr bool operator==(const CivilDate&, const CivilDate&) = default;
};

// A year that begins in March has its leap day at the end, and its months before a given one have
// (153 * month + 2) / 5 days. 400 years have 146097 days, and 719468 lie between 0000-03-01 and 1970-01-01.

/// The days from 1970-01-01 to a date. Month and day must be in range; a day past the end of the month is one
/// of the next month.
[[nodiscard]] constexpr std::int64_t days_from_civil(const CivilDate& date) noexcept {
    const std::int64_t year = date.year - (date.month <= 2 ? 1 : 0);
    const std::int64_t era = floor_div(year, 400);
    const std::int64_t of_era = year - era * 400;
    const std::int64_t month = date.month > 2 ? date.month - 3 : date.month + 9;
    const std::int64_t of_year = (153 * month + 2) / 5 + date.day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/// The date that is `days` days after 1970-01-01.
[[nodiscard]] constexpr CivilDate civil_from_days(std::int64_t days) noexcept {
    const std::int64_t shifted = days + 719468;
    const std::int64_t era = floor_div(shifted, 146097);
    const std::int64_t of_era = shifted - era * 146097;
    const std::int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const std::int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    const std::int64_t month = (5 * of_year + 2) / 153;
    return {.year = year + era * 400 + (month >= 10 ? 1 : 0),
            .month = month < 10 ? month + 3 : month - 9,
            .day = of_year - (153 * month + 2) / 5 + 1};
}

[[nodiscard]] constexpr std::int64_t days_of_month(std::int64_t year, std::int64_t month) noexcept {
    return days_from_civil({month == 12 ? year + 1 : year, month == 12 ? 1 : month + 1, 1}) -
           days_from_civil({year, month, 1});
}

}  // namespace vmsuperio::inline v0_2::detail
