// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>

#include <vmsuperio/ps2/byte_queue.hpp>
#include <vmsuperio/registers/ps2.hpp>
#include <vmsuperio/snapshot.hpp>

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
    /// The two sample rates set before, oldest first: the IntelliMouse knock.
    std::array<std::uint8_t, 2> earlier_rates{};
    std::uint8_t waiting_for{};  ///< the command whose parameter comes next, or 0
    bool resend_failed{false};   ///< the last byte was refused: the next refusal is 0xFC
    std::uint8_t last_sent{};
    std::uint8_t buttons{};  ///< bit 0 left, 1 right, 2 middle, 3 fourth, 4 fifth
    bool buttons_changed{
        false};        ///< a report is due whatever the buttons are: version 1 kept no more than this
    std::int16_t x{};  ///< counted and not yet in a packet
    std::int16_t y{};
    std::int16_t wheel{};
    detail::ByteQueue<6> replies;
    detail::ByteQueue<16> packets;  ///< whole packets, but for what has been sent of the oldest
    // Since version 2.
    detail::ByteQueue<4> last_packet;  ///< what command 0xFE sends again; empty: last_sent
    std::uint8_t reported_buttons{};   ///< as the last packet that was sent shows them

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        visit_version(1, self, archive);
        visit_version(2, self, archive);
    }
    /// What came with one version: a controller's state has all of version 1 before what came later.
    template <class Self, class Archive>
    static constexpr void visit_version(int version, Self& self, Archive& archive) {
        auto& [id, reporting, remote, wrap, scaling_2_1, resolution, sample_rate, earlier_rates, waiting_for,
               resend_failed, last_sent, buttons, buttons_changed, x, y, wheel, replies, packets, last_packet,
               reported_buttons] = self;
        if (version == 1) {
            archive("id", id, decimal);
            archive("reporting", reporting);
            archive("remote", remote);
            archive("wrap", wrap);
            archive("scaling_2_1", scaling_2_1);
            archive("resolution", resolution, decimal);
            archive("sample_rate", sample_rate, decimal);
            archive("earlier_rates", earlier_rates);
            archive("waiting_for", waiting_for);
            archive("resend_failed", resend_failed);
            archive("last_sent", last_sent);
            archive("buttons", buttons);
            archive("buttons_changed", buttons_changed);
            archive("x", x);
            archive("y", y);
            archive("wheel", wheel);
            archive.bytes("replies", replies.bytes, replies.count);
            archive.bytes("packets", packets.bytes, packets.count);
        } else {
            archive.bytes_since(2, "last_packet", last_packet.bytes, last_packet.count);
            archive.since(2, "reported_buttons", reported_buttons);
        }
    }
    friend constexpr bool operator==(const Ps2MouseState&, const Ps2MouseState&) = default;
};

namespace detail {

/// A PS/2 mouse with the IntelliMouse and IntelliMouse Explorer extensions, seen from its cable.
///
/// Source: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse protocol for
/// the wheel (sample rates 200, 100, 80 make it id 3; 200, 200, 80 make it id 4).
///
/// Not modelled: the sample rate as a rate. A packet is made as soon as something changed that it can show
/// and there is room; while the guest does not read, motion adds up as in a mouse whose report is held back.
class Ps2Mouse {
    using Command = ps2::MouseCommand;

public:
    constexpr Ps2Mouse() = default;
    explicit constexpr Ps2Mouse(const Ps2MouseState& state) : state_(state) {
        state_.replies.normalize();
        state_.packets.normalize();
        state_.last_packet.normalize();
    }

    [[nodiscard]] constexpr const Ps2MouseState& state() const noexcept { return state_; }

    /// The name of the first member that no mouse can have; null where there is none.
    [[nodiscard]] static constexpr const char* first_invalid(const Ps2MouseState& state) noexcept {
        const auto in_range = [](std::int16_t count) { return count >= -max_count && count <= max_count; };
        if (state.id != 0 && state.id != 3 && state.id != 4) {
            return "mouse.id";
        }
        if (state.resolution > 3) {
            return "mouse.resolution";
        }
        if (!valid_rate(state.sample_rate)) {
            return "mouse.sample_rate";
        }
        if (state.waiting_for != 0 && !takes_parameter(Command{state.waiting_for})) {
            return "mouse.waiting_for";
        }
        if (state.buttons > all_buttons) {
            return "mouse.buttons";
        }
        if (!in_range(state.x)) {
            return "mouse.x";
        }
        if (!in_range(state.y)) {
            return "mouse.y";
        }
        if (!in_range(state.wheel)) {
            return "mouse.wheel";
        }
        if (!state.replies.valid()) {
            return "mouse.replies";
        }
        if (!state.packets.valid()) {
            return "mouse.packets";
        }
        if (!state.last_packet.valid()) {
            return "mouse.last_packet";
        }
        if (state.reported_buttons > all_buttons) {
            return "mouse.reported_buttons";
        }
        return nullptr;
    }

    /// The result of the self-test at power-on and the id wait to be fetched.
    constexpr void power_on() noexcept { reply({}, {ps2::self_test_passed, state_.id}); }

    /// A byte from the host. It ends what the mouse was sending.
    constexpr void receive(std::uint8_t byte) noexcept {
        const Command command{byte};
        const bool wrapped = state_.wrap && command != Command::reset_wrap && command != Command::reset;
        if (command == Command::resend && !wrapped) {
            return send_again();
        }
        state_.replies.clear();
        abort_packet();
        if (wrapped) {
            return reply({}, {byte});
        }
        const std::uint8_t waiting = std::exchange(state_.waiting_for, std::uint8_t{0});
        if (waiting == 0 || command >= first_command) {
            execute(command);
        } else if (!parameter(Command{waiting}, byte) && refuse()) {
            state_.waiting_for = waiting;  // the host may send the parameter again
        }
        make_packet();
    }

    [[nodiscard]] constexpr bool has_byte() const noexcept {
        // While it waits for a parameter the mouse sends no packet.
        return !state_.replies.empty() || (state_.waiting_for == 0 && !state_.packets.empty());
    }
    /// The next byte for the host; `has_byte()` must hold.
    constexpr std::uint8_t send() noexcept {
        if (!state_.replies.empty()) {
            state_.last_sent = state_.replies.pop();
            return state_.last_sent;
        }
        if (!packet_begun()) {
            state_.last_packet.clear();
            state_.last_packet.push(std::span(state_.packets.bytes).first(packet_size()));
        }
        state_.last_sent = state_.packets.pop();
        if (!packet_begun()) {
            state_.reported_buttons = buttons_of(state_.last_packet.bytes);
        }
        make_packet();
        return state_.last_sent;
    }

    constexpr void move(const MouseMotion& motion) noexcept {
        state_.x = add(state_.x, motion.x);
        state_.y = add(state_.y, motion.y);
        if (state_.id != 0) {
            state_.wheel = add(state_.wheel, motion.wheel);
        }
        state_.buttons = static_cast<std::uint8_t>(motion.buttons & all_buttons);
        make_packet();
    }

private:
    static constexpr Command first_command = Command::scaling_1_1;
    static constexpr std::int16_t max_count = 0x7FFF;
    static constexpr std::uint8_t all_buttons = 0x1F;

    [[nodiscard]] static constexpr bool takes_parameter(Command command) noexcept {
        return command == Command::set_resolution || command == Command::set_sample_rate;
    }
    [[nodiscard]] static constexpr bool valid_rate(std::uint8_t rate) noexcept {
        constexpr std::array<std::uint8_t, 7> rates{10, 20, 40, 60, 80, 100, 200};
        for (const std::uint8_t known : rates) {
            if (known == rate) {
                return true;
            }
        }
        return false;
    }
    [[nodiscard]] static constexpr std::int16_t add(std::int16_t count, std::int32_t more) noexcept {
        const std::int64_t sum = std::int64_t{count} + more;
        return static_cast<std::int16_t>(
            std::clamp<std::int64_t>(sum, -std::int64_t{max_count}, std::int64_t{max_count}));
    }

    [[nodiscard]] constexpr std::size_t packet_size() const noexcept { return state_.id == 0 ? 3 : 4; }
    /// Whether the oldest packet has been sent in part. The queue holds whole packets behind it.
    [[nodiscard]] constexpr bool packet_begun() const noexcept {
        return state_.packets.size() % packet_size() != 0;
    }
    /// What a packet says of the buttons.
    [[nodiscard]] constexpr std::uint8_t buttons_of(std::span<const std::uint8_t> packet) const noexcept {
        const unsigned extra = state_.id == 4 ? (packet[3] >> 1U) & 0x18U : 0U;
        return static_cast<std::uint8_t>((packet[0] & 0x07U) | extra);
    }
    /// What the host knows of the buttons once it has fetched all that waits for it.
    [[nodiscard]] constexpr std::uint8_t shown_buttons() const noexcept {
        const std::size_t size = packet_size();
        if (state_.packets.size() >= size) {
            return buttons_of(std::span(state_.packets.bytes).subspan(state_.packets.size() - size, size));
        }
        return packet_begun() ? buttons_of(state_.last_packet.bytes) : state_.reported_buttons;
    }
    [[nodiscard]] constexpr bool has_report() const noexcept {
        const std::uint8_t visible = state_.id == 4 ? all_buttons : std::uint8_t{0x07};
        return state_.buttons_changed || ((state_.buttons ^ shown_buttons()) & visible) != 0 ||
               state_.x != 0 || state_.y != 0 || (state_.wheel != 0 && state_.id != 0);
    }

    /// An answer: the acknowledgement, if any, then what 0xFE sends again. "Packet" means, for the command
    /// Resend, a movement packet, the three bytes of a status request, the two after a reset, or a single
    /// byte.
    constexpr void reply(std::initializer_list<std::uint8_t> first,
                         std::span<const std::uint8_t> packet) noexcept {
        state_.resend_failed = false;
        state_.replies.push(std::span(first.begin(), first.size()));
        state_.replies.push(packet);
        state_.last_packet.clear();
        state_.last_packet.push(packet);
    }
    constexpr void reply(std::initializer_list<std::uint8_t> first,
                         std::initializer_list<std::uint8_t> packet) noexcept {
        reply(first, std::span(packet.begin(), packet.size()));
    }
    constexpr void acknowledge() noexcept { reply({}, {ps2::acknowledge}); }

    /// The first invalid byte is answered with "resend" (true), a second in a row with "error".
    constexpr bool refuse() noexcept {
        if (state_.resend_failed) {
            reply({}, {ps2::error});
            return false;
        }
        // It is not kept for 0xFE: what stands before a request to resend is what the host can ask for.
        state_.replies.push(ps2::resend_request);
        state_.resend_failed = true;
        return true;
    }

    /// What is left of a packet whose beginning has been sent is not sent any more.
    constexpr void abort_packet() noexcept {
        while (packet_begun()) {
            state_.packets.pop();
        }
    }
    /// Command 0xFE: the last packet again. It is no answer to a command that waits for its parameter, is not
    /// acknowledged, and leaves alone what waits behind that packet.
    constexpr void send_again() noexcept {
        state_.replies.clear();
        if (packet_begun()) {
            abort_packet();
            state_.reported_buttons = buttons_of(state_.last_packet.bytes);
        }
        if (state_.last_packet.empty()) {
            state_.replies.push(state_.last_sent);
        } else {
            state_.replies.push(std::span(state_.last_packet.bytes).first(state_.last_packet.size()));
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
        state_.resolution = 2;
        state_.sample_rate = 100;
    }

    constexpr void execute(Command command) noexcept {
        if (command < first_command) {
            refuse();
            return;
        }
        // Each command but this one drops what was counted and not yet reported.
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
                state_.waiting_for = std::to_underlying(command);
                return acknowledge();
            case Command::status_request:
                return reply({ps2::acknowledge}, {status_byte(), state_.resolution, state_.sample_rate});
            case Command::set_stream:
                state_.remote = false;
                return acknowledge();
            case Command::read_data: {
                state_.packets.clear();
                const Packet packet = next_packet(false);
                state_.reported_buttons = buttons_of(packet.bytes);
                return reply({ps2::acknowledge}, packet.span());
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
                // From here on changes are reported, so what the buttons are now is none.
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
                state_.id = 0;
                state_.earlier_rates = {};
                return reply({ps2::acknowledge}, {ps2::self_test_passed, state_.id});
            default:
                refuse();
                return;
        }
    }

    /// False when the value is none that the command takes.
    constexpr bool parameter(Command command, std::uint8_t value) noexcept {
        if (command == Command::set_resolution) {
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
        acknowledge();
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
        if (!state_.reporting || state_.remote || state_.wrap || state_.waiting_for != 0) {
            return;
        }
        while (state_.packets.free() >= packet_size() && has_report()) {
            state_.packets.push(next_packet(state_.scaling_2_1).span());
        }
    }

    Ps2MouseState state_;
};

}  // namespace detail
}  // namespace vmsuperio
