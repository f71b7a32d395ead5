// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <string_view>

#include "util/quote.hpp"

namespace kvm_vmm {

/// One line of the log, composed on the stack without heap memory and without a lock, so that a signal
/// handler can log whatever it has interrupted. Text that does not fit is cut off and marked.
class LogLine {
public:
    /// The length of the longest line including its end, in bytes. A command line and two paths of the usual
    /// length fit.
    static constexpr std::size_t most = 8192;

    /// Adds `text` unchanged.
    LogLine& add(std::string_view text) noexcept {
        if (text.size() > room()) {
            cut_ = true;
            text = text.substr(0, room());
        }
        length_ =
            static_cast<std::size_t>(std::ranges::copy(text, bytes_.begin() + offset()).out - bytes_.begin());
        return *this;
    }

    /// Adds `text` with '?' for each control character and for each byte that is not UTF-8.
    LogLine& add_printable(std::string_view text) noexcept {
        while (!text.empty() && !cut_) {
            const std::size_t length = shown_length(text);
            if (length > room()) {
                cut_ = true;
                break;
            }
            add(length == 0 ? "?" : text.substr(0, length));
            text.remove_prefix(std::max<std::size_t>(length, 1));
        }
        return *this;
    }

    /// Adds `number` in decimal with at least `width` digits and leading zeros.
    LogLine& add_number(std::uint64_t number, std::size_t width = 1) noexcept {
        std::array<char, 20> digits{};
        std::size_t first = digits.size();
        while (first > 0 && (number != 0 || digits.size() - first < width)) {
            digits[--first] = static_cast<char>('0' + number % 10);
            number /= 10;
        }
        return add(std::string_view(digits.data() + first, digits.size() - first));
    }

    /// Adds "2026-01-31T23:59:59.123456Z ". (gmtime_r would take a lock of the C library.)
    LogLine& add_time(const timespec& since_epoch) noexcept {
        using namespace std::chrono;
        const sys_seconds time{seconds(since_epoch.tv_sec)};
        const auto day = floor<days>(time);
        const year_month_day date(day);
        const hh_mm_ss clock(time - day);
        add_number(static_cast<std::uint64_t>(static_cast<int>(date.year())), 4).add("-");
        add_number(static_cast<unsigned>(date.month()), 2).add("-");
        add_number(static_cast<unsigned>(date.day()), 2).add("T");
        add_number(static_cast<std::uint64_t>(clock.hours().count()), 2).add(":");
        add_number(static_cast<std::uint64_t>(clock.minutes().count()), 2).add(":");
        add_number(static_cast<std::uint64_t>(clock.seconds().count()), 2).add(".");
        return add_number(static_cast<std::uint64_t>(since_epoch.tv_nsec / 1000), 6).add("Z ");
    }

    /// The whole line with `end` ("\n" or "\r\n"), valid while this object exists.
    [[nodiscard]] std::string_view finish(std::string_view end) noexcept {
        const auto append = [this](std::string_view text) {
            length_ = static_cast<std::size_t>(std::ranges::copy(text, bytes_.begin() + offset()).out -
                                               bytes_.begin());
        };
        if (cut_) {
            append(mark);
        }
        append(end.substr(0, longest_end));
        return {bytes_.data(), length_};
    }

private:
    static constexpr std::string_view mark = " [...]";
    static constexpr std::size_t longest_end = 2;

    [[nodiscard]] std::ptrdiff_t offset() const noexcept { return static_cast<std::ptrdiff_t>(length_); }
    [[nodiscard]] std::size_t room() const noexcept { return most - mark.size() - longest_end - length_; }

    std::array<char, most> bytes_;  // not cleared: only written bytes are read
    std::size_t length_{0};
    bool cut_{false};
};

}  // namespace kvm_vmm
