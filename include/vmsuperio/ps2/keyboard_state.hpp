// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstdint>
#include <expected>

#include <vmsuperio/ps2/byte_queue.hpp>
#include <vmsuperio/ps2/key_forms.hpp>
#include <vmsuperio/registers/ps2.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// A PS/2 keyboard as plain data.
struct Ps2KeyboardState {
    bool scanning{true};            ///< key movements are sent (enable, default_disable)
    std::uint8_t scan_code_set{2};  ///< 1 to 3
    std::uint8_t leds{};            ///< see `ps2::Leds`
    /// The parameter of set_typematic, which has no effect. By default 10.9 per second, after 500 ms.
    std::uint8_t typematic{
        ps2::Typematic().set(ps2::Typematic::rate, 11).set(ps2::Typematic::delay, 1).value()};
    std::uint8_t waiting_for{};    ///< the command whose parameter comes next, or 0
    std::uint8_t last_sent{};      ///< the byte that resend sends again
    detail::ByteQueue<4> replies;  ///< answers that wait to be read, the oldest first
    /// 14 bytes of scan codes and one of overrun, one less while the controller's output buffer is full.
    /// Deviation: a real keyboard has 16 and the overrun code. A guest must be able to read fewer than 16
    /// bytes in a row: if a controller returns 16, SeaBIOS (ps2port.c, i8042_flush) and Linux 2.6 (i8042.c,
    /// i8042_controller_check) conclude that it is absent, so a user who types before the driver loads would
    /// lose the keyboard.
    detail::ByteQueue<15> keys;
    // Since version 2.
    std::uint8_t modifiers{};      ///< the held keys on which other codes depend, see `ps2::HeldKeys`
    bool num_lock_toggled{false};  ///< the keyboard's own Num Lock differs from the LED
    /// The form in which each of the cursor keys, keypad /, Print Screen and Pause was pressed; 0 if
    /// released.
    std::array<std::uint8_t, detail::key_form::count> forms{};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        visit_version(1, self, archive);
        visit_version(2, self, archive);
    }
    /// Visits the members that one version added: a controller's state has all those of version 1 first.
    template <class Self, class Archive>
    static constexpr void visit_version(int version, Self& self, Archive& archive) {
        auto& [scanning, scan_code_set, leds, typematic, waiting_for, last_sent, replies, keys, modifiers,
               num_lock_toggled, forms] = self;
        if (version == 1) {
            archive("scanning", scanning);
            archive("scan_code_set", scan_code_set, decimal);
            archive("leds", leds, as<ps2::Leds>);
            archive("typematic", typematic, as<ps2::Typematic>);
            archive("waiting_for", waiting_for, as_command<ps2::KeyboardCommand>);
            archive("last_sent", last_sent);
            archive.bytes("replies", replies.bytes, replies.count);
            archive.bytes("keys", keys.bytes, keys.count);
        } else {
            archive.since(2, "modifiers", modifiers, as<ps2::HeldKeys>);
            archive.since(2, "num_lock_toggled", num_lock_toggled);
            archive.since(2, "forms", forms);
        }
    }
    friend constexpr bool operator==(const Ps2KeyboardState&, const Ps2KeyboardState&) = default;
};

/// Checks whether a keyboard can be in this state. The error names the member as in a controller's state:
/// "keyboard.leds".
[[nodiscard]] constexpr std::expected<void, StateError> validate(const Ps2KeyboardState& state) {
    if (state.scan_code_set < 1 || state.scan_code_set > ps2::last_scan_code_set) {
        return std::unexpected(StateError{"keyboard.scan_code_set"});
    }
    if (state.leds > ps2::Leds::guest_mask()) {
        return std::unexpected(StateError{"keyboard.leds"});
    }
    if (state.typematic > ps2::Typematic::guest_mask()) {
        return std::unexpected(StateError{"keyboard.typematic"});
    }
    if (state.waiting_for != 0 && !ps2::takes_parameter(ps2::KeyboardCommand{state.waiting_for})) {
        return std::unexpected(StateError{"keyboard.waiting_for"});
    }
    if (!state.replies.valid()) {
        return std::unexpected(StateError{"keyboard.replies"});
    }
    if (!state.keys.valid()) {
        return std::unexpected(StateError{"keyboard.keys"});
    }
    if (state.modifiers > ps2::HeldKeys::guest_mask()) {
        return std::unexpected(StateError{"keyboard.modifiers"});
    }
    for (const std::uint8_t form : state.forms) {
        if (!detail::key_form::valid(form)) {
            return std::unexpected(StateError{"keyboard.forms"});
        }
    }
    return {};
}

}  // namespace vmsuperio::inline v0_2
