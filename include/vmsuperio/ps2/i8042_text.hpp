// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <vmsuperio/detail/state_text.hpp>
#include <vmsuperio/ps2/byte_queue.hpp>
#include <vmsuperio/ps2/i8042_core.hpp>

namespace vmsuperio::detail {

template <std::size_t N>
[[nodiscard]] std::span<const std::uint8_t> contents(const ByteQueue<N>& queue) noexcept {
    return std::span(queue.bytes).first(queue.size());
}

/// Each member is named by a structured binding, so that a new one cannot be forgotten.
inline void describe(StateText& text, const Ps2KeyboardState& keyboard) {
    const auto& [scanning, scan_code_set, leds, typematic, waiting_for, last_sent, replies, keys, modifiers,
                 num_lock_toggled, forms] = keyboard;
    text.add("keyboard.scanning", scanning);
    text.add("keyboard.scan_code_set", unsigned{scan_code_set});
    text.add("keyboard.leds", leds);
    text.add("keyboard.typematic", typematic);
    text.add("keyboard.waiting_for", waiting_for);
    text.add("keyboard.last_sent", last_sent);
    text.add("keyboard.replies", contents(replies));
    text.add("keyboard.keys", contents(keys));
    text.add("keyboard.modifiers", modifiers);
    text.add("keyboard.num_lock_toggled", num_lock_toggled);
    text.add("keyboard.forms", std::span<const std::uint8_t>(forms));
}

inline void describe(StateText& text, const Ps2MouseState& mouse) {
    const auto& [id, reporting, remote, wrap, scaling_2_1, resolution, sample_rate, earlier_rates,
                 waiting_for, resend_failed, last_sent, buttons, buttons_changed, x, y, wheel, replies,
                 packets, last_packet, reported_buttons] = mouse;
    text.add("mouse.id", unsigned{id});
    text.add("mouse.reporting", reporting);
    text.add("mouse.remote", remote);
    text.add("mouse.wrap", wrap);
    text.add("mouse.scaling_2_1", scaling_2_1);
    text.add("mouse.resolution", unsigned{resolution});
    text.add("mouse.sample_rate", unsigned{sample_rate});
    text.add("mouse.earlier_rates", std::span<const std::uint8_t>(earlier_rates));
    text.add("mouse.waiting_for", waiting_for);
    text.add("mouse.resend_failed", resend_failed);
    text.add("mouse.last_sent", last_sent);
    text.add("mouse.buttons", buttons);
    text.add("mouse.buttons_changed", buttons_changed);
    text.add("mouse.x", x);
    text.add("mouse.y", y);
    text.add("mouse.wheel", wheel);
    text.add("mouse.replies", contents(replies));
    text.add("mouse.packets", contents(packets));
    text.add("mouse.last_packet", contents(last_packet));
    text.add("mouse.reported_buttons", reported_buttons);
}

inline void describe(StateText& text, const I8042State& state) {
    const auto& [profile, keyboard_present, mouse_present, reset_command_byte, ram, output_port, waiting_for,
                 last_write_command, output_full, output_data, output_flags, response_waiting, response,
                 response_flags, keyboard, mouse, reset_a20, reset_self_tests, hold_left] = state;
    text.add("profile", profile == I8042Profile::full      ? "full"
                        : profile == I8042Profile::minimal ? "minimal"
                                                           : "absent");
    text.add("keyboard_present", keyboard_present);
    text.add("mouse_present", mouse_present);
    text.add("reset_command_byte", reset_command_byte);
    text.add("ram", std::span<const std::uint8_t>(ram));
    text.add("output_port", output_port);
    text.add("waiting_for", waiting_for);
    text.add("last_write_command", last_write_command);
    text.add("output_full", output_full);
    text.add("output_data", output_data);
    text.add("output_flags", output_flags);
    text.add("response_waiting", response_waiting);
    text.add("response", response);
    text.add("response_flags", response_flags);
    describe(text, keyboard);
    describe(text, mouse);
    text.add("reset_a20", reset_a20);
    text.add("reset_self_tests", reset_self_tests);
    text.add("hold_left", hold_left);
}

}  // namespace vmsuperio::detail
