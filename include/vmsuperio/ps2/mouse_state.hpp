// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstdint>
#include <expected>

#include <vmsuperio/ps2/byte_queue.hpp>
#include <vmsuperio/registers/ps2.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// A PS/2 mouse as plain data.
struct Ps2MouseState {
    /// The limit of accumulated motion in each direction.
    static constexpr std::int16_t max_count = 0x7FFF;

    std::uint8_t id{
        ps2::standard_mouse};       ///< 0 three buttons, 3 with a wheel, 4 with a wheel and five buttons
    bool reporting{false};          ///< whether movements are sent without a request (0xF4)
    bool remote{false};             ///< remote mode: movements are sent on request only (0xF0)
    bool wrap{false};               ///< wrap mode: bytes are sent back (0xEE)
    bool scaling_2_1{false};        ///< scaling 2:1 (0xE7)
    std::uint8_t resolution{2};     ///< 2^n counts per mm
    std::uint8_t sample_rate{100};  ///< reports per second: 10, 20, 40, 60, 80, 100 or 200
    /// The two sample rates set before, oldest first: the IntelliMouse knock.
    std::array<std::uint8_t, 2> earlier_rates{};
    std::uint8_t waiting_for{};     ///< the command whose parameter comes next, or 0
    bool resend_failed{false};      ///< the last byte was refused: the next refusal is `ps2::error`
    std::uint8_t last_sent{};       ///< the last byte sent, for the command Resend
    std::uint8_t buttons{};         ///< see `ps2::MouseButtons`
    bool buttons_changed{false};    ///< a report is due whatever the buttons are; version 1 stored only this
    std::int16_t x{};               ///< counted and not yet in a packet
    std::int16_t y{};               ///< movement up that is not reported yet
    std::int16_t wheel{};           ///< turns of the wheel that are not reported yet
    detail::ByteQueue<6> replies;   ///< answers that wait to be read, the oldest first
    detail::ByteQueue<16> packets;  ///< whole packets, except the oldest, of which a part may have been sent
    // Since version 2.
    detail::ByteQueue<4> last_packet;  ///< the packet that resend sends again; if empty, last_sent
    std::uint8_t reported_buttons{};   ///< the buttons in the last packet that was sent

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        visit_version(1, self, archive);
        visit_version(2, self, archive);
    }
    /// Visits the members that one version added: a controller's state has all those of version 1 first.
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
            archive("waiting_for", waiting_for, as_command<ps2::MouseCommand>);
            archive("resend_failed", resend_failed);
            archive("last_sent", last_sent);
            archive("buttons", buttons, as<ps2::MouseButtons>);
            archive("buttons_changed", buttons_changed);
            archive("x", x);
            archive("y", y);
            archive("wheel", wheel);
            archive.bytes("replies", replies.bytes, replies.count);
            archive.bytes("packets", packets.bytes, packets.count);
        } else {
            archive.bytes_since(2, "last_packet", last_packet.bytes, last_packet.count);
            archive.since(2, "reported_buttons", reported_buttons, as<ps2::MouseButtons>);
        }
    }
    friend constexpr bool operator==(const Ps2MouseState&, const Ps2MouseState&) = default;
};

/// Checks whether a mouse can be in this state. The error names the member as in a controller's state:
/// "mouse.id".
[[nodiscard]] constexpr std::expected<void, StateError> validate(const Ps2MouseState& state) {
    constexpr auto in_range = [](std::int16_t count) {
        return count >= -Ps2MouseState::max_count && count <= Ps2MouseState::max_count;
    };
    if (state.id != ps2::standard_mouse && state.id != ps2::wheel_mouse && state.id != ps2::explorer_mouse) {
        return std::unexpected(StateError{"mouse.id"});
    }
    if (state.resolution > ps2::finest_resolution) {
        return std::unexpected(StateError{"mouse.resolution"});
    }
    if (!ps2::is_sample_rate(state.sample_rate)) {
        return std::unexpected(StateError{"mouse.sample_rate"});
    }
    if (state.waiting_for != 0 && !ps2::takes_parameter(ps2::MouseCommand{state.waiting_for})) {
        return std::unexpected(StateError{"mouse.waiting_for"});
    }
    if (state.buttons > ps2::MouseButtons::guest_mask()) {
        return std::unexpected(StateError{"mouse.buttons"});
    }
    if (!in_range(state.x)) {
        return std::unexpected(StateError{"mouse.x"});
    }
    if (!in_range(state.y)) {
        return std::unexpected(StateError{"mouse.y"});
    }
    if (!in_range(state.wheel)) {
        return std::unexpected(StateError{"mouse.wheel"});
    }
    if (!state.replies.valid()) {
        return std::unexpected(StateError{"mouse.replies"});
    }
    if (!state.packets.valid()) {
        return std::unexpected(StateError{"mouse.packets"});
    }
    if (!state.last_packet.valid()) {
        return std::unexpected(StateError{"mouse.last_packet"});
    }
    if (state.reported_buttons > ps2::MouseButtons::guest_mask()) {
        return std::unexpected(StateError{"mouse.reported_buttons"});
    }
    return {};
}

}  // namespace vmsuperio::inline v0_2
