// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include <vmsuperio/detail/byte_queue.hpp>

namespace vmsuperio {

/// What moved since the last report to the guest. `x` grows to the right, `y` upwards, `wheel` towards the
/// user, in counts. Buttons: bit 0 left, 1 right, 2 middle, 3 fourth, 4 fifth.
struct MouseMotion {
    std::int32_t x{};
    std::int32_t y{};
    std::int32_t wheel{};
    std::uint8_t buttons{};
};

/// A PS/2 mouse as plain data.
struct Ps2MouseState {
    std::uint8_t id{0};  ///< 0 three buttons, 3 with a wheel, 4 with a wheel and five buttons
    bool reporting{false};
    bool remote{false};
    bool wrap{false};
    bool scaling_2_1{false};
    std::uint8_t resolution{2};  ///< 2^n counts per mm
    std::uint8_t sample_rate{100};
    std::array<std::uint8_t, 2>
        earlier_rates{};         ///< the two set before, oldest first: the IntelliMouse knock
    std::uint8_t waiting_for{};  ///< the command whose parameter comes next, or 0
    bool resend_failed{false};   ///< the last byte was refused: the next refusal is 0xFC
    std::uint8_t last_sent{};
    std::uint8_t buttons{};
    bool buttons_changed{false};
    std::int16_t x{};  ///< counted and not yet in a packet
    std::int16_t y{};
    std::int16_t wheel{};
    detail::ByteQueue<6> replies;
    detail::ByteQueue<16> packets;

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        archive(self.id, self.reporting, self.remote, self.wrap, self.scaling_2_1, self.resolution,
                self.sample_rate, self.earlier_rates, self.waiting_for, self.resend_failed, self.last_sent,
                self.buttons, self.buttons_changed, self.x, self.y, self.wheel, self.replies.bytes,
                self.replies.count, self.packets.bytes, self.packets.count);
    }
    friend constexpr bool operator==(const Ps2MouseState&, const Ps2MouseState&) = default;
};

namespace detail {

/// A PS/2 mouse with the IntelliMouse and IntelliMouse Explorer extensions, seen from its cable.
///
/// Source: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse protocol for
/// the wheel (sample rates 200, 100, 80 make it id 3; 200, 200, 80 make it id 4).
///
/// Not modelled: the sample rate as a rate. A packet is made as soon as something changed and there is
/// room; while the guest does not read, motion adds up as in a mouse whose report is held back.
class Ps2Mouse {
public:
    constexpr Ps2Mouse() = default;
    explicit constexpr Ps2Mouse(const Ps2MouseState& state) : state_(state) {
        state_.replies.normalize();
        state_.packets.normalize();
    }

    [[nodiscard]] constexpr const Ps2MouseState& state() const noexcept { return state_; }

    [[nodiscard]] static constexpr bool valid(const Ps2MouseState& state) noexcept {
        const auto in_range = [](std::int16_t count) { return count >= -max_count && count <= max_count; };
        return (state.id == 0 || state.id == 3 || state.id == 4) && state.resolution <= 3 &&
               valid_rate(state.sample_rate) && state.buttons <= 0x1F && in_range(state.x) &&
               in_range(state.y) && in_range(state.wheel) && state.replies.valid() && state.packets.valid() &&
               (state.waiting_for == 0 || state.waiting_for == 0xE8 || state.waiting_for == 0xF3);
    }

    /// A byte from the host. It ends what the mouse was sending.
    constexpr void receive(std::uint8_t byte) noexcept {
        state_.replies.clear();
        if (state_.wrap && byte != 0xEC && byte != 0xFF) {
            return reply({byte});
        }
        const std::uint8_t command = std::exchange(state_.waiting_for, std::uint8_t{0});
        if (command != 0 && parameter(command, byte)) {
            return;
        }
        execute(byte);
    }

    [[nodiscard]] constexpr bool has_byte() const noexcept {
        return !state_.replies.empty() || !state_.packets.empty();
    }
    /// The next byte for the host; `has_byte()` must hold.
    constexpr std::uint8_t send() noexcept {
        if (!state_.replies.empty()) {
            state_.last_sent = state_.replies.pop();
        } else {
            state_.last_sent = state_.packets.pop();
            make_packet();
        }
        return state_.last_sent;
    }

    constexpr void move(const MouseMotion& motion) noexcept {
        state_.x = add(state_.x, motion.x);
        state_.y = add(state_.y, motion.y);
        state_.wheel = add(state_.wheel, motion.wheel);
        const auto buttons = static_cast<std::uint8_t>(motion.buttons & 0x1FU);
        state_.buttons_changed = state_.buttons_changed || buttons != state_.buttons;
        state_.buttons = buttons;
        make_packet();
    }

private:
    static constexpr std::uint8_t acknowledge = 0xFA;
    static constexpr std::uint8_t resend = 0xFE;
    static constexpr std::uint8_t error = 0xFC;
    static constexpr std::int16_t max_count = 0x7FFF;

    [[nodiscard]] static constexpr bool valid_rate(std::uint8_t rate) noexcept {
        constexpr std::array<std::uint8_t, 7> rates{10, 20, 40, 60, 80, 100, 200};
        return std::ranges::find(rates, rate) != rates.end();
    }
    [[nodiscard]] static constexpr std::int16_t add(std::int16_t count, std::int32_t more) noexcept {
        const std::int64_t sum = std::int64_t{count} + more;
        return static_cast<std::int16_t>(
            std::clamp<std::int64_t>(sum, -std::int64_t{max_count}, std::int64_t{max_count}));
    }

    constexpr void reply(std::initializer_list<std::uint8_t> bytes) noexcept {
        state_.resend_failed = false;
        state_.replies.push(std::span(bytes.begin(), bytes.size()));
    }
    /// The first invalid byte is answered with "resend", a second in a row with "error".
    constexpr void refuse() noexcept {
        const bool again = state_.resend_failed;
        reply({again ? error : resend});
        state_.resend_failed = !again;
    }

    constexpr void clear_motion() noexcept {
        state_.packets.clear();
        state_.x = 0;
        state_.y = 0;
        state_.wheel = 0;
        state_.buttons_changed = false;
    }
    constexpr void set_defaults() noexcept {
        state_.reporting = false;
        state_.remote = false;
        state_.scaling_2_1 = false;
        state_.resolution = 2;
        state_.sample_rate = 100;
    }

    constexpr void execute(std::uint8_t command) noexcept {
        if (command < 0xE6) {
            return refuse();
        }
        // Each command but these two drops what was counted and not yet reported.
        if (command != 0xEB && command != 0xFE) {
            clear_motion();
        }
        switch (command) {
            case 0xE6:  // scaling 1:1
            case 0xE7:  // scaling 2:1
                state_.scaling_2_1 = command == 0xE7;
                return reply({acknowledge});
            case 0xE8:  // set the resolution
            case 0xF3:  // set the sample rate
                state_.waiting_for = command;
                return reply({acknowledge});
            case 0xE9:  // status
                return reply({acknowledge, status_byte(), state_.resolution, state_.sample_rate});
            case 0xEA:  // stream mode
                state_.remote = false;
                return reply({acknowledge});
            case 0xEB: {  // read data
                state_.packets.clear();
                reply({acknowledge});
                const Packet packet = next_packet(false);
                state_.replies.push(packet.span());
                return;
            }
            case 0xEC:  // leave wrap mode
                state_.wrap = false;
                return reply({acknowledge});
            case 0xEE:  // enter wrap mode
                state_.wrap = true;
                return reply({acknowledge});
            case 0xF0:  // remote mode
                state_.remote = true;
                return reply({acknowledge});
            case 0xF2:  // identify
                return reply({acknowledge, state_.id});
            case 0xF4:  // enable reporting
            case 0xF5:  // disable reporting
                state_.reporting = command == 0xF4;
                return reply({acknowledge});
            case 0xF6:
                set_defaults();
                return reply({acknowledge});
            case 0xFE:  // send the last byte again
                return reply({state_.last_sent});
            case 0xFF:  // reset and test
                set_defaults();
                state_.wrap = false;
                state_.id = 0;
                state_.earlier_rates = {};
                return reply({acknowledge, 0xAA, state_.id});
            default:
                return refuse();
        }
    }

    /// False when the byte is a command of its own instead of the parameter.
    constexpr bool parameter(std::uint8_t command, std::uint8_t value) noexcept {
        if (command == 0xE8) {
            if (value > 3) {
                return false;
            }
            state_.resolution = value;
        } else {
            if (!valid_rate(value)) {
                return false;
            }
            if (state_.earlier_rates[0] == 200 && value == 80) {
                if (state_.earlier_rates[1] == 100) {
                    state_.id = 3;
                } else if (state_.earlier_rates[1] == 200) {
                    state_.id = 4;
                }
            }
            state_.earlier_rates = {state_.earlier_rates[1], value};
            state_.sample_rate = value;
        }
        reply({acknowledge});
        return true;
    }

    [[nodiscard]] constexpr std::uint8_t status_byte() const noexcept {
        const std::uint8_t buttons = state_.buttons;
        return static_cast<std::uint8_t>((buttons & 0x01U ? 0x04U : 0U) | (buttons & 0x02U ? 0x01U : 0U) |
                                         (buttons & 0x04U ? 0x02U : 0U) | (state_.scaling_2_1 ? 0x10U : 0U) |
                                         (state_.reporting ? 0x20U : 0U) | (state_.remote ? 0x40U : 0U));
    }

    struct Packet {
        std::array<std::uint8_t, 4> bytes{};
        std::uint8_t count{};
        [[nodiscard]] constexpr std::span<const std::uint8_t> span() const noexcept {
            return std::span(bytes).first(count);
        }
    };

    /// Scaling 2:1 as the reference's table has it: 0 1 1 3 6 9, then twice the count.
    [[nodiscard]] static constexpr std::int32_t scale(std::int32_t count) noexcept {
        constexpr std::array<std::int32_t, 6> small{0, 1, 1, 3, 6, 9};
        const std::int32_t size = count < 0 ? -count : count;
        const std::int32_t scaled = size < 6 ? small[static_cast<std::size_t>(size)] : 2 * size;
        return count < 0 ? -scaled : scaled;
    }

    /// Takes as much of the counted motion as one packet holds. The rest stays for the next one, so the
    /// overflow bits (7 and 6 of the first byte) are never needed.
    constexpr Packet next_packet(bool scaled) noexcept {
        const auto take = [](std::int16_t& count, std::int32_t most) {
            const std::int32_t part = std::clamp<std::int32_t>(count, -most, most);
            count = static_cast<std::int16_t>(count - part);
            return part;
        };
        const std::int32_t most = scaled ? 127 : 255;
        std::int32_t x = take(state_.x, most);
        std::int32_t y = take(state_.y, most);
        if (scaled) {
            x = scale(x);
            y = scale(y);
        }
        state_.buttons_changed = false;
        Packet packet;
        packet.bytes[0] = static_cast<std::uint8_t>((state_.buttons & 0x07U) | 0x08U | (x < 0 ? 0x10U : 0U) |
                                                    (y < 0 ? 0x20U : 0U));
        packet.bytes[1] = static_cast<std::uint8_t>(x & 0xFF);
        packet.bytes[2] = static_cast<std::uint8_t>(y & 0xFF);
        packet.count = 3;
        if (state_.id == 0) {
            state_.wheel = 0;
            return packet;
        }
        packet.count = 4;
        const std::int32_t wheel = take(state_.wheel, 7);
        if (state_.id == 3) {
            packet.bytes[3] = static_cast<std::uint8_t>(wheel & 0xFF);
        } else {
            // Four bits of wheel, then buttons 4 and 5.
            packet.bytes[3] = static_cast<std::uint8_t>((wheel & 0x0F) | ((state_.buttons & 0x18U) << 1U));
        }
        return packet;
    }

    constexpr void make_packet() noexcept {
        if (!state_.reporting || state_.remote || state_.wrap) {
            return;
        }
        const std::size_t size = state_.id == 0 ? 3 : 4;
        while (state_.packets.free() >= size && (state_.buttons_changed || state_.x != 0 || state_.y != 0 ||
                                                 (state_.wheel != 0 && state_.id != 0))) {
            state_.packets.push(next_packet(state_.scaling_2_1).span());
        }
    }

    Ps2MouseState state_;
};

}  // namespace detail
}  // namespace vmsuperio
