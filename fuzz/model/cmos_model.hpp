// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "support/world.hpp"

/// A second MC146818A with 128 bytes, written from the datasheet to be simple and slow: it counts every
/// second individually, byte by byte, and every tick of the 32.768 kHz chain for the periodic flag. It
/// follows the choices that the library states (Gregorian leap years, a century byte at 0x32, updates that
/// take no time).
///
/// The model leaves undefined what the datasheet does: if the chip must count from bytes that are not a
/// valid date (13 o'clock, 31 February, digits above 9), the model is lost and takes over the values of the
/// device.
namespace fuzz::model {

class CmosModel {
public:
    CmosModel(World& world, const std::array<std::uint8_t, 128>& bytes, std::int64_t part)
        : world_(world), bytes_(bytes), part_(part) {}

    void elapse(std::int64_t ns) {
        while (ns > 0) {
            // Never past the end of the running second.
            const std::int64_t step = ns < second - part_ ? ns : second - part_;
            ns -= step;
            if (!running()) {
                continue;
            }
            count_ticks(part_, part_ + step);
            part_ += step;
            if (part_ == second) {
                part_ = 0;
                update();
            }
        }
        wire();
    }

    std::uint8_t read_port(std::uint8_t port) {
        return port == 1 ? read_data() : port == 3 ? second_bank_[second_index_] : std::uint8_t{0xFF};
    }
    void write_port(std::uint8_t port, std::uint8_t value) {
        switch (port) {
            case 0:
                write_index(value);
                break;
            case 1:
                write_data(value);
                break;
            case 2:
                second_index_ = value & 0x7F;
                break;
            case 3:
                second_bank_[second_index_] = value;
                break;
            default:
                break;
        }
    }
    std::uint8_t read_data() {
        const std::uint8_t value = byte(index_ & 0x7F);
        if ((index_ & 0x7F) == 0x0C) {
            bytes_[0x0C] = 0;
        }
        wire();
        return value;
    }
    void write_index(std::uint8_t value) { index_ = value; }
    void write_data(std::uint8_t value) {
        const std::uint8_t at = index_ & 0x7F;
        switch (at) {
            case 0x0A: {
                const bool was_running = running();
                bytes_[at] = value & 0x7F;
                if (!running()) {
                    part_ = 0;
                } else if (!was_running) {
                    part_ = second / 2;  // "the first update cycle begins one-half second later"
                }
                break;
            }
            case 0x0B:
                if (((bytes_[at] | value) & 0x80) == 0) {
                    change_format(value);
                }
                bytes_[at] = (value & 0x80) != 0 ? value & 0xEF : value;  // SET clears UIE
                break;
            case 0x0C:
            case 0x0D:
                break;
            default:
                bytes_[at] = value;
                break;
        }
        wire();
    }

    /// Byte `at` as the guest would read it.
    [[nodiscard]] std::uint8_t byte(std::size_t at) const {
        if (at == 0x0A) {
            // UIP rises 244 us (8 ticks of the chain) before the update.
            const bool uip = running() && (bytes_[0x0B] & 0x80) == 0 && second - part_ <= 244'140;
            return static_cast<std::uint8_t>(bytes_[at] | (uip ? 0x80 : 0));
        }
        return bytes_[at];
    }

    void restore() {
        level_ = false;
        wire();
    }
    [[nodiscard]] bool level() const { return level_; }

    /// Whether an update or a change of the format encountered bytes that are not a valid date.
    [[nodiscard]] bool lost() const { return lost_; }
    void take_over(const std::array<std::uint8_t, 128>& bytes, bool level, std::uint64_t edges) {
        bytes_ = bytes;
        level_ = level;
        world_.edges = edges;
        lost_ = false;
    }

private:
    static constexpr std::int64_t second = 1'000'000'000;

    [[nodiscard]] bool running() const { return (bytes_[0x0A] & 0x70) <= 0x20; }
    [[nodiscard]] bool binary() const { return (bytes_[0x0B] & 0x04) != 0; }
    [[nodiscard]] bool hours_24() const { return (bytes_[0x0B] & 0x02) != 0; }

    // Table 5, with the 32.768 kHz time base: ticks of the chain between two periodic interrupts.
    [[nodiscard]] std::int64_t period() const {
        static constexpr std::array<std::int64_t, 16> ticks{0,   128, 256, 4,    8,    16,   32,   64,
                                                            128, 256, 512, 1024, 2048, 4096, 8192, 16384};
        return ticks[bytes_[0x0A] & 0x0F];
    }
    void count_ticks(std::int64_t from, std::int64_t to) {
        const std::int64_t every = period();
        for (std::int64_t tick = from * 32768 / second + 1; every != 0 && tick <= to * 32768 / second;
             ++tick) {
            if (tick % every == 0) {
                bytes_[0x0C] |= 0x40;
                return;
            }
        }
    }

    // The value of a byte, or -1 if it has digits that are not BCD.
    [[nodiscard]] int value(std::uint8_t byte) const {
        if (binary()) {
            return byte;
        }
        return (byte & 0x0F) > 9 || (byte >> 4) > 9 ? -1 : (byte >> 4) * 10 + (byte & 0x0F);
    }
    [[nodiscard]] std::uint8_t coded(int value) const {
        return static_cast<std::uint8_t>(binary() ? value : value / 10 % 10 * 16 + value % 10);
    }
    [[nodiscard]] bool between(std::uint8_t byte, int first, int last) const {
        return value(byte) >= first && value(byte) <= last;
    }
    [[nodiscard]] int days_of_month() const {
        static constexpr std::array<int, 13> days{0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
        const int month = value(bytes_[0x08]);
        const int year = value(bytes_[0x32]) * 100 + value(bytes_[0x09]);
        const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        return days[static_cast<std::size_t>(month)] + (month == 2 && leap ? 1 : 0);
    }
    [[nodiscard]] bool is_date() const {
        const std::uint8_t hour = bytes_[0x04];
        return between(bytes_[0x00], 0, 59) && between(bytes_[0x02], 0, 59) &&
               (hours_24() ? between(hour, 0, 23) : between(hour & 0x7F, 1, 12)) &&
               between(bytes_[0x06], 1, 7) && between(bytes_[0x08], 1, 12) && between(bytes_[0x09], 0, 99) &&
               between(bytes_[0x32], 0, 99) && between(bytes_[0x07], 1, days_of_month());
    }

    // DM or 24/12 changes while the clock runs: each byte of the time is converted.
    void change_format(std::uint8_t register_b) {
        if (((bytes_[0x0B] ^ register_b) & 0x06) == 0) {
            return;
        }
        if (!is_date()) {
            lost_ = true;
            return;
        }
        int hour = value(hours_24() ? bytes_[0x04] : bytes_[0x04] & 0x7F);
        if (!hours_24()) {
            hour = hour % 12 + ((bytes_[0x04] & 0x80) != 0 ? 12 : 0);
        }
        std::array<int, 6> values{};
        constexpr std::array<std::size_t, 6> places{0x00, 0x02, 0x06, 0x07, 0x08, 0x09};
        for (std::size_t i = 0; i < places.size(); ++i) {
            values[i] = value(bytes_[places[i]]);
        }
        const int century = value(bytes_[0x32]);
        bytes_[0x0B] = register_b;
        for (std::size_t i = 0; i < places.size(); ++i) {
            bytes_[places[i]] = coded(values[i]);
        }
        bytes_[0x32] = coded(century);
        bytes_[0x04] = hours_24()
                           ? coded(hour)
                           : static_cast<std::uint8_t>(coded((hour + 11) % 12 + 1) | (hour >= 12 ? 0x80 : 0));
    }

    // One update cycle: the time advances by a second, then it is compared with the alarm.
    void update() {
        if ((bytes_[0x0B] & 0x80) != 0) {
            return;
        }
        bytes_[0x0C] |= 0x10;
        if (!is_date()) {
            lost_ = true;
            return;
        }
        if (count_on(0x00, 59, 0) && count_on(0x02, 59, 0) && next_hour()) {
            count_on(0x06, 7, 1);
            if (count_on(0x07, days_of_month(), 1) && count_on(0x08, 12, 1) && count_on(0x09, 99, 0)) {
                bytes_[0x32] = binary() ? static_cast<std::uint8_t>(bytes_[0x32] + 1)
                                        : coded((value(bytes_[0x32]) + 1) % 100);
            }
        }
        const auto meets = [&](std::size_t alarm, std::size_t time) {
            return (bytes_[alarm] & 0xC0) == 0xC0 || bytes_[alarm] == bytes_[time];
        };
        if (meets(0x01, 0x00) && meets(0x03, 0x02) && meets(0x05, 0x04)) {
            bytes_[0x0C] |= 0x20;
        }
    }
    // Returns true if the byte wrapped from `last` to `first`.
    bool count_on(std::size_t at, int last, int first) {
        const bool over = value(bytes_[at]) == last;
        bytes_[at] = coded(over ? first : value(bytes_[at]) + 1);
        return over;
    }
    bool next_hour() {
        if (hours_24()) {
            return count_on(0x04, 23, 0);
        }
        // 12 AM, 1 AM ... 11 AM, 12 PM ... 11 PM, 12 AM
        const bool afternoon = (bytes_[0x04] & 0x80) != 0;
        const int hour = value(bytes_[0x04] & 0x7F);
        const bool turns = hour == 11;
        bytes_[0x04] =
            static_cast<std::uint8_t>(coded(hour == 12 ? 1 : hour + 1) | (afternoon != turns ? 0x80 : 0x00));
        return turns && afternoon;
    }

    void wire() {
        const bool level = (bytes_[0x0B] & bytes_[0x0C] & 0x70) != 0;
        bytes_[0x0C] = static_cast<std::uint8_t>((bytes_[0x0C] & 0x70) | (level ? 0x80 : 0));
        world_.edges += level && !level_ ? 1U : 0U;
        level_ = level;
    }

    World& world_;
    std::array<std::uint8_t, 128> bytes_;
    std::int64_t part_;  // of the running second, in ns
    std::uint8_t index_{0};
    std::array<std::uint8_t, 128> second_bank_{};
    std::uint8_t second_index_{0};
    bool level_{false};
    bool lost_{false};
};

}  // namespace fuzz::model
