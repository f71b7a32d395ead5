// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/rtc/civil_date.hpp>
#include <vmsuperio/writer.hpp>

namespace vmsuperio::inline v0_2 {

/// How a `TimestampWriter` writes the time.
enum class TimestampFormat : std::uint8_t {
    elapsed,  ///< `[    1.234567] `: seconds since the writer was constructed, as in Linux's kernel log
    utc,      ///< `2026-03-14T15:09:26.535897Z `: ISO 8601, for a clock with the Unix epoch
};

/// Writes a timestamp before each line that it passes on: the time at which the line's first byte was
/// offered. A line ends with a line feed.
///
/// It takes as many bytes as the inner writer takes. If the sink is full within a timestamp, no byte of the
/// line is taken, and the next write continues the timestamp. Nothing is allocated. If the clock goes
/// backwards, so do the timestamps.
template <Writer W, Clock C = SteadyClock>
class TimestampWriter {
public:
    /// A clock of its own measures the time since now.
    explicit constexpr TimestampWriter(W writer, TimestampFormat format = TimestampFormat::elapsed)
        requires std::default_initializable<C>
        : TimestampWriter(std::move(writer), C{}, format) {}
    /// The given clock supplies the time.
    constexpr TimestampWriter(W writer, C clock, TimestampFormat format = TimestampFormat::elapsed)
        : writer_(std::move(writer)),
          clock_(std::move(clock)),
          start_(time_since_epoch(clock_)),
          format_(format) {}

    /// Writes the bytes with a time before each line. Returns how many of `bytes` were taken.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        std::size_t taken = 0;
        while (taken < bytes.size()) {
            if (at_line_start_) {
                make_stamp();
                at_line_start_ = false;
            }
            std::size_t wanted = stamp_size_ - stamp_sent_;
            if (wanted != 0) {
                const WriteResult sent = writer_.write({stamp_.data() + stamp_sent_, wanted});
                if (!sent) {
                    return failed(taken, sent);
                }
                stamp_sent_ += *sent < wanted ? *sent : wanted;
                if (*sent < wanted) {
                    return taken;
                }
                continue;
            }
            wanted = line_length({bytes.data() + taken, bytes.size() - taken});
            const WriteResult sent = writer_.write({bytes.data() + taken, wanted});
            if (!sent) {
                return failed(taken, sent);
            }
            taken += *sent < wanted ? *sent : wanted;
            if (*sent < wanted) {
                return taken;
            }
            at_line_start_ = bytes[taken - 1] == '\n';
        }
        return taken;
    }

    [[nodiscard]] constexpr const W& inner() const noexcept { return writer_; }
    [[nodiscard]] constexpr W& inner() noexcept { return writer_; }

private:
    // Return the bytes that were taken before the error; the next write returns the error.
    static constexpr WriteResult failed(std::size_t taken, const WriteResult& result) {
        return taken != 0 ? WriteResult(taken) : result;
    }
    // The length includes the line feed, if there is one.
    static constexpr std::size_t line_length(std::span<const std::uint8_t> bytes) noexcept {
        std::size_t length = 0;
        while (length < bytes.size()) {
            if (bytes[length++] == '\n') {
                break;
            }
        }
        return length;
    }

    constexpr void put(char character) noexcept {
        stamp_[stamp_size_++] = static_cast<std::uint8_t>(character);
    }
    // At least `width` characters, filled on the left.
    constexpr void put_number(std::uint64_t value, std::size_t width, char fill) noexcept {
        std::array<char, 20> digits{};
        std::size_t count = 0;
        do {
            digits[count++] = static_cast<char>('0' + value % 10);
            value /= 10;
        } while (value != 0);
        for (; width > count; --width) {
            put(fill);
        }
        while (count != 0) {
            put(digits[--count]);
        }
    }
    constexpr void make_stamp() {
        constexpr std::int64_t second = 1'000'000'000;
        const std::int64_t now = time_since_epoch(clock_).count();
        stamp_size_ = 0;
        stamp_sent_ = 0;
        if (format_ == TimestampFormat::elapsed) {
            // The distance of any two times fits an unsigned number.
            const std::int64_t start = start_.count();
            const std::uint64_t elapsed =
                now < start ? 0 : static_cast<std::uint64_t>(now) - static_cast<std::uint64_t>(start);
            put('[');
            put_number(elapsed / second, 5, ' ');
            put('.');
            put_number(elapsed % second / 1000, 6, '0');
            put(']');
        } else {
            const auto rest = static_cast<std::uint64_t>(detail::floor_mod(now, second));
            const std::int64_t seconds = detail::floor_div(now, second);
            const detail::CivilDate date = detail::civil_from_days(detail::floor_div(seconds, 86400));
            const auto of_day = static_cast<std::uint64_t>(detail::floor_mod(seconds, 86400));
            put_number(static_cast<std::uint64_t>(date.year), 4, '0');  // 1677 to 2262
            put('-');
            put_number(static_cast<std::uint64_t>(date.month), 2, '0');
            put('-');
            put_number(static_cast<std::uint64_t>(date.day), 2, '0');
            put('T');
            put_number(of_day / 3600, 2, '0');
            put(':');
            put_number(of_day / 60 % 60, 2, '0');
            put(':');
            put_number(of_day % 60, 2, '0');
            put('.');
            put_number(rest / 1000, 6, '0');
            put('Z');
        }
        put(' ');
    }

    W writer_;
    C clock_;
    std::chrono::nanoseconds start_;
    TimestampFormat format_;
    std::array<std::uint8_t, 48> stamp_{};
    std::size_t stamp_size_{0};
    std::size_t stamp_sent_{0};
    bool at_line_start_{true};
};
template <Writer W>
TimestampWriter(W) -> TimestampWriter<W>;
template <Writer W>
TimestampWriter(W, TimestampFormat) -> TimestampWriter<W>;

}  // namespace vmsuperio::inline v0_2
