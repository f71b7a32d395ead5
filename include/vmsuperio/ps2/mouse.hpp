// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include <vmsuperio/detail/clamp.hpp>
#include <vmsuperio/keys.hpp>
#include <vmsuperio/ps2/mouse_state.hpp>
#include <vmsuperio/ps2/port.hpp>
#include <vmsuperio/registers/ps2.hpp>

namespace vmsuperio::inline v0_2::detail {

/// A PS/2 mouse with the IntelliMouse and IntelliMouse Explorer extensions, at the end of its cable.
///
/// Source: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse protocol for
/// the wheel (sample rates 200, 100, 80 make it id 3; 200, 200, 80 make it id 4).
///
/// Not modelled: the effect of the sample rate. A packet is created as soon as something has changed that it
/// can show and there is room; while the guest does not read, motion adds up as in a mouse whose report is
/// held back.
class Ps2Mouse : public Ps2Port<Ps2Mouse, Ps2MouseState, ps2::MouseCommand> {
    using Command = ps2::MouseCommand;
    using Buttons = ps2::MouseButtons;
    friend Ps2Port;

public:
    using Ps2Port::Ps2Port;

    /// Queues the result of the self-test at power-on and the id.
    constexpr void power_on() noexcept { reply({}, {ps2::self_test_passed, state_.id}); }

    /// A byte from the host. It ends the packet that the mouse was sending; in wrap mode it is sent back.
    constexpr void receive(std::uint8_t byte) noexcept {
        const Command command{byte};
        const bool wrapped = state_.wrap && command != Command::reset_wrap && command != Command::reset;
        if (command == Command::resend && !wrapped) {
            return send_again();
        }
        abort_packet();
        if (wrapped) {
            state_.replies.clear();
            return reply({}, {byte});
        }
        Ps2Port::receive(byte);
        make_packet();
    }

    constexpr void move(const MouseMotion& motion) noexcept {
        state_.x = add(state_.x, motion.x);
        state_.y = add(state_.y, motion.y);
        if (has_wheel()) {
            state_.wheel = add(state_.wheel, motion.wheel);
        }
        state_.buttons = static_cast<std::uint8_t>(motion.buttons & Buttons::guest_mask());
        make_packet();
    }

private:
    static constexpr Command first_command = Command::scaling_1_1;
    // The largest numbers that a packet can contain.
    static constexpr std::int32_t max_motion = 255;
    static constexpr std::int32_t max_scaled_motion = 127;  // doubled by the scaling
    static constexpr std::int32_t max_wheel = 7;
    // The sequences of sample rates that enable the wheel, and the fourth and fifth button.
    static constexpr std::array<std::uint8_t, 3> wheel_knock{200, 100, 80};
    static constexpr std::array<std::uint8_t, 3> explorer_knock{200, 200, 80};

    [[nodiscard]] static constexpr const auto& unasked(const Ps2MouseState& state) noexcept {
        return state.packets;
    }
    /// The next byte of a packet.
    constexpr std::uint8_t send_unasked() noexcept {
        if (!packet_begun()) {
            state_.last_packet.clear();
            state_.last_packet.push(state_.packets.view(0, packet_size()));
        }
        const std::uint8_t byte = state_.packets.pop();
        if (!packet_begun()) {
            state_.reported_buttons = buttons_of(state_.last_packet.view(0, state_.last_packet.capacity()));
        }
        make_packet();
        return byte;
    }
    /// Resend sends a whole packet; `last_sent` is used only before there was one.
    [[nodiscard]] static constexpr bool can_resend(std::uint8_t) noexcept { return true; }

    [[nodiscard]] static constexpr std::int16_t add(std::int16_t count, std::int32_t more) noexcept {
        constexpr std::int64_t most = Ps2MouseState::max_count;
        const std::int64_t sum = std::int64_t{count} + more;
        return static_cast<std::int16_t>(clamp(sum, -most, most));
    }

    [[nodiscard]] constexpr bool has_wheel() const noexcept { return state_.id != ps2::standard_mouse; }
    [[nodiscard]] constexpr bool has_extra_buttons() const noexcept {
        return state_.id == ps2::explorer_mouse;
    }
    [[nodiscard]] constexpr std::size_t packet_size() const noexcept { return has_wheel() ? 4 : 3; }
    /// Whether the oldest packet has been sent in part. The queue contains whole packets after it.
    [[nodiscard]] constexpr bool packet_begun() const noexcept {
        return state_.packets.size() % packet_size() != 0;
    }
    /// The buttons that a packet shows.
    [[nodiscard]] constexpr std::uint8_t buttons_of(std::span<const std::uint8_t> packet) const noexcept {
        Buttons buttons;
        buttons.set(Buttons::standard, ps2::MousePacket(packet[0])[ps2::MousePacket::buttons]);
        if (has_extra_buttons()) {
            buttons.set(Buttons::extra, ps2::MouseExtra(packet[3])[ps2::MouseExtra::buttons]);
        }
        return buttons.value();
    }
    /// The buttons that the host will know after it has read all waiting bytes.
    [[nodiscard]] constexpr std::uint8_t shown_buttons() const noexcept {
        const std::size_t size = packet_size();
        if (state_.packets.size() >= size) {
            return buttons_of(state_.packets.view(state_.packets.size() - size, size));
        }
        return packet_begun() ? buttons_of(state_.last_packet.view(0, state_.last_packet.capacity()))
                              : state_.reported_buttons;
    }
    [[nodiscard]] constexpr bool has_report() const noexcept {
        const std::uint8_t visible =
            has_extra_buttons() ? Buttons::guest_mask() : decltype(Buttons::standard)::mask;
        return state_.buttons_changed || ((state_.buttons ^ shown_buttons()) & visible) != 0 ||
               state_.x != 0 || state_.y != 0 || (state_.wheel != 0 && has_wheel());
    }

    /// Queues an answer: the acknowledgement, if any, then the packet that resend sends again. For that
    /// command a packet is a movement packet, the three bytes of a status request, the two after a reset, or
    /// a single byte.
    constexpr void reply_bytes(std::initializer_list<std::uint8_t> first,
                               std::span<const std::uint8_t> packet) noexcept {
        state_.resend_failed = false;
        answer(first);
        answer_bytes(packet);
        state_.last_packet.clear();
        state_.last_packet.push(packet);
    }
    constexpr void reply(std::initializer_list<std::uint8_t> first,
                         std::initializer_list<std::uint8_t> packet) noexcept {
        reply_bytes(first, {packet.begin(), packet.size()});
    }
    constexpr void acknowledge() noexcept { reply({}, {ps2::acknowledge}); }

    /// The first invalid byte is answered with "resend" (true), a second in a row with "error".
    constexpr bool refuse() noexcept {
        if (state_.resend_failed) {
            reply({}, {ps2::error});
            return false;
        }
        // It is not stored for resend: the host can request the byte before a request to resend.
        answer({ps2::resend_request});
        state_.resend_failed = true;
        return true;
    }

    /// Drops the rest of a packet whose beginning has been sent.
    constexpr void abort_packet() noexcept {
        while (packet_begun()) {
            state_.packets.pop();
        }
    }
    /// Resend (0xFE): the last packet again, without an acknowledgement. The packets after it do not change.
    constexpr void send_again() noexcept {
        state_.replies.clear();
        if (packet_begun()) {
            abort_packet();
            state_.reported_buttons = buttons_of(state_.last_packet.view(0, state_.last_packet.capacity()));
        }
        if (state_.last_packet.empty()) {
            answer({state_.last_sent});
        } else {
            answer_bytes(state_.last_packet.view());
        }
    }

    constexpr void clear_motion() noexcept {
        state_.packets.clear();
        state_.x = 0;
        state_.y = 0;
        state_.wheel = 0;
    }
    constexpr void set_defaults() noexcept {
        state_.reporting = false;
        state_.remote = false;
        state_.scaling_2_1 = false;
        state_.resolution = Ps2MouseState{}.resolution;
        state_.sample_rate = Ps2MouseState{}.sample_rate;
    }

    constexpr void execute(Command command) noexcept {
        if (command < first_command) {
            refuse();
            return;
        }
        // Each command except this one drops motion that has not been reported.
        if (command != Command::read_data) {
            clear_motion();
        }
        switch (command) {
            case Command::scaling_1_1:
            case Command::scaling_2_1:
                state_.scaling_2_1 = command == Command::scaling_2_1;
                return acknowledge();
            case Command::set_resolution:
            case Command::set_sample_rate:
                wait_for_parameter(command);
                return acknowledge();
            case Command::status_request:
                return reply({ps2::acknowledge}, {status_byte(), state_.resolution, state_.sample_rate});
            case Command::set_stream:
                state_.remote = false;
                return acknowledge();
            case Command::read_data: {
                state_.packets.clear();
                const Packet packet = next_packet(false);
                state_.reported_buttons = buttons_of(packet.span());
                return reply_bytes({ps2::acknowledge}, packet.span());
            }
            case Command::reset_wrap:
                state_.wrap = false;
                return acknowledge();
            case Command::set_wrap:
                state_.wrap = true;
                return acknowledge();
            case Command::set_remote:
                state_.remote = true;
                return acknowledge();
            case Command::identify:
                return reply({ps2::acknowledge}, {state_.id});
            case Command::enable:
                // From now on changes are reported, so the present state of the buttons counts as reported.
                state_.reporting = true;
                state_.reported_buttons = state_.buttons;
                state_.buttons_changed = false;
                return acknowledge();
            case Command::disable:
                state_.reporting = false;
                return acknowledge();
            case Command::set_default:
                set_defaults();
                return acknowledge();
            case Command::reset:
                set_defaults();
                state_.wrap = false;
                state_.id = ps2::standard_mouse;
                state_.earlier_rates = {};
                return reply({ps2::acknowledge}, {ps2::self_test_passed, state_.id});
            default:
                refuse();
                return;
        }
    }

    /// Returns false if the command does not accept the value.
    constexpr bool parameter(Command command, std::uint8_t value) noexcept {
        if (command == Command::set_resolution) {
            if (value > ps2::finest_resolution) {
                return false;
            }
            state_.resolution = value;
        } else {
            if (!ps2::is_sample_rate(value)) {
                return false;
            }
            const std::array rates{state_.earlier_rates[0], state_.earlier_rates[1], value};
            if (rates == wheel_knock) {
                state_.id = ps2::wheel_mouse;
            } else if (rates == explorer_knock) {
                state_.id = ps2::explorer_mouse;
            }
            state_.earlier_rates = {state_.earlier_rates[1], value};
            state_.sample_rate = value;
        }
        acknowledge();
        return true;
    }

    [[nodiscard]] constexpr std::uint8_t status_byte() const noexcept {
        using Status = ps2::MouseStatus;
        const Buttons buttons(state_.buttons);
        return Status()
            .set(Status::left, buttons[Buttons::left])
            .set(Status::right, buttons[Buttons::right])
            .set(Status::middle, buttons[Buttons::middle])
            .set(Status::scaling_2_1, state_.scaling_2_1)
            .set(Status::reporting, state_.reporting)
            .set(Status::remote, state_.remote)
            .value();
    }

    struct Packet {
        std::array<std::uint8_t, 4> bytes{};
        std::uint8_t count{};
        [[nodiscard]] constexpr std::span<const std::uint8_t> span() const noexcept {
            return {bytes.data(), count};
        }
    };

    /// Scaling 2:1 as in the reference's table: 0 1 1 3 6 9, then twice the count.
    [[nodiscard]] static constexpr std::int32_t scale(std::int32_t count) noexcept {
        constexpr std::array<std::int32_t, 6> small{0, 1, 1, 3, 6, 9};
        const std::int32_t size = count < 0 ? -count : count;
        const std::int32_t scaled = size < 6 ? small[static_cast<std::size_t>(size)] : 2 * size;
        return count < 0 ? -scaled : scaled;
    }

    /// Takes as much of the counted motion as fits into one packet. The rest stays for the next packet, so
    /// the overflow bits are never needed.
    constexpr Packet next_packet(bool scaled) noexcept {
        const auto take = [](std::int16_t& count, std::int32_t most) {
            const auto part = static_cast<std::int32_t>(clamp(count, -most, most));
            count = static_cast<std::int16_t>(count - part);
            return part;
        };
        const std::int32_t most = scaled ? max_scaled_motion : max_motion;
        std::int32_t x = take(state_.x, most);
        std::int32_t y = take(state_.y, most);
        if (scaled) {
            x = scale(x);
            y = scale(y);
        }
        state_.buttons_changed = false;
        const Buttons buttons(state_.buttons);
        Packet packet;
        packet.bytes[0] = ps2::MousePacket()
                              .set(ps2::MousePacket::buttons, buttons[Buttons::standard])
                              .set(ps2::MousePacket::always_set)
                              .set(ps2::MousePacket::x_negative, x < 0)
                              .set(ps2::MousePacket::y_negative, y < 0)
                              .value();
        packet.bytes[1] = low_byte(x);
        packet.bytes[2] = low_byte(y);
        packet.count = static_cast<std::uint8_t>(packet_size());
        if (!has_wheel()) {
            state_.wheel = 0;
            return packet;
        }
        packet.bytes[3] = low_byte(take(state_.wheel, max_wheel));
        if (has_extra_buttons()) {
            packet.bytes[3] = ps2::MouseExtra()
                                  .set(ps2::MouseExtra::wheel, packet.bytes[3])
                                  .set(ps2::MouseExtra::buttons, buttons[Buttons::extra])
                                  .value();
        }
        return packet;
    }
    [[nodiscard]] static constexpr std::uint8_t low_byte(std::int32_t count) noexcept {
        return static_cast<std::uint8_t>(count & 0xFF);
    }

    constexpr void make_packet() noexcept {
        if (!state_.reporting || state_.remote || state_.wrap || state_.waiting_for != 0) {
            return;
        }
        while (state_.packets.free() >= packet_size() && has_report()) {
            state_.packets.push(next_packet(state_.scaling_2_1).span());
        }
    }
};

}  // namespace vmsuperio::inline v0_2::detail
