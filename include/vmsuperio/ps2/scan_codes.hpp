// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include <vmsuperio/keys.hpp>

/// Scan codes of a 105-key PC keyboard in sets 1, 2 and 3.
///
/// Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)", tables of the
/// three sets; the controller's translation is the table in the 8042's own ROM as IBM lists it.
namespace vmsuperio::inline v0_2::detail {

inline constexpr std::uint8_t extended_prefix = 0xE0;
inline constexpr std::uint8_t release_prefix = 0xF0;  // of break codes in sets 2 and 3
inline constexpr std::uint8_t set1_release = 0x80;    // the bit of break codes in set 1

/// The controller's translation of a byte from the keyboard. 0xF0 is never passed to this function: the
/// controller removes it and sets bit 7 of the next byte. From 0x80 on only 0x83 (F7) and 0x84 (SysRq)
/// change, because replies (0xFA, 0xFE, 0xAA, 0xEE, ...) and prefixes (0xE0, 0xE1) must pass.
[[nodiscard]] constexpr std::uint8_t translate_to_set1(std::uint8_t code) noexcept {
    constexpr std::array<std::uint8_t, 0x85> table{
        0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,  // 00
        0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,  // 10
        0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,  // 20
        0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,  // 30
        0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,  // 40
        0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,  // 50
        0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,  // 60
        0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,  // 70
        0x80, 0x81, 0x82, 0x41, 0x54};                                                                   // 80
    return code < table.size() ? table[code] : code;
}

/// The bytes that the press or release of a key sends. The longest sequence is that of a key whose form
/// changes while it is held (key_forms.hpp): the break code of the old form and the make code of the new one,
/// 14 bytes.
struct ScanCode {
    std::array<std::uint8_t, 16> bytes{};
    std::uint8_t count{};

    constexpr ScanCode() = default;
    constexpr ScanCode(std::initializer_list<std::uint8_t> codes) {
        for (const std::uint8_t code : codes) {
            push(code);
        }
    }

    constexpr void push(std::uint8_t code) noexcept { bytes[count++] = code; }
    constexpr void append(const ScanCode& more) noexcept {
        for (std::size_t i = 0; i < more.count; ++i) {
            push(more.bytes[i]);
        }
    }
    [[nodiscard]] constexpr std::span<const std::uint8_t> span() const noexcept {
        return {bytes.data(), count};
    }
};

/// Key numbers 1 to 127 as (0xE0 prefix, set 1 code); 0 if there is no such key. Up to 88, Linux' key numbers
/// equal the codes of set 1, so only the later ones need a list.
struct Set1Code {
    bool extended{};
    std::uint8_t code{};
};
[[nodiscard]] constexpr Set1Code set1_code(Key key) noexcept {
    const auto number = static_cast<std::uint16_t>(key);
    if (number >= 1 && number <= 88 && number != 84 && number != 85) {
        return {false, static_cast<std::uint8_t>(number)};
    }
    switch (key) {
        case Key::keypad_enter:
            return {true, 0x1C};
        case Key::right_ctrl:
            return {true, 0x1D};
        case Key::keypad_slash:
            return {true, 0x35};
        case Key::print_screen:
            return {true, 0x37};
        case Key::right_alt:
            return {true, 0x38};
        case Key::home:
            return {true, 0x47};
        case Key::up:
            return {true, 0x48};
        case Key::page_up:
            return {true, 0x49};
        case Key::left:
            return {true, 0x4B};
        case Key::right:
            return {true, 0x4D};
        case Key::end:
            return {true, 0x4F};
        case Key::down:
            return {true, 0x50};
        case Key::page_down:
            return {true, 0x51};
        case Key::insert:
            return {true, 0x52};
        case Key::del:
            return {true, 0x53};
        case Key::left_meta:
            return {true, 0x5B};
        case Key::right_meta:
            return {true, 0x5C};
        case Key::menu:
            return {true, 0x5D};
        default:
            return {};
    }
}

/// The set 2 code that the controller would translate to a given set 1 code (below 0x80); 0 if none.
// Searched for: a table of the inverse would be computed by every compilation that includes this.
[[nodiscard]] constexpr std::uint8_t set2_from_set1(std::uint8_t set1) noexcept {
    // Two codes share these; the keyboard sends the higher one.
    if (set1 == 0x41) {
        return 0x83;  // F7
    }
    if (set1 == 0x54) {
        return 0x84;  // SysRq
    }
    std::uint8_t code = set1 < 0x80 ? 0x7F : 0;
    while (code != 0 && translate_to_set1(code) != set1) {
        --code;
    }
    return code;
}

/// In set 3 each key has one byte. The typewriter keys have their code of set 2; the others are listed.
[[nodiscard]] constexpr std::uint8_t set3_code(Key key) noexcept {
    switch (key) {
        case Key::esc:
            return 0x08;
        case Key::f1:
            return 0x07;
        case Key::f2:
            return 0x0F;
        case Key::f3:
            return 0x17;
        case Key::f4:
            return 0x1F;
        case Key::f5:
            return 0x27;
        case Key::f6:
            return 0x2F;
        case Key::f7:
            return 0x37;
        case Key::f8:
            return 0x3F;
        case Key::f9:
            return 0x47;
        case Key::f10:
            return 0x4F;
        case Key::f11:
            return 0x56;
        case Key::f12:
            return 0x5E;
        case Key::print_screen:
            return 0x57;
        case Key::scroll_lock:
            return 0x5F;
        case Key::pause:
            return 0x62;
        case Key::backslash:
            return 0x5C;
        case Key::key_102nd:
            return 0x13;
        case Key::caps_lock:
            return 0x14;
        case Key::left_ctrl:
            return 0x11;
        case Key::left_alt:
            return 0x19;
        case Key::right_alt:
            return 0x39;
        case Key::right_ctrl:
            return 0x58;
        case Key::left_meta:
            return 0x8B;
        case Key::right_meta:
            return 0x8C;
        case Key::menu:
            return 0x8D;
        case Key::insert:
            return 0x67;
        case Key::del:
            return 0x64;
        case Key::home:
            return 0x6E;
        case Key::end:
            return 0x65;
        case Key::page_up:
            return 0x6F;
        case Key::page_down:
            return 0x6D;
        case Key::up:
            return 0x63;
        case Key::left:
            return 0x61;
        case Key::down:
            return 0x60;
        case Key::right:
            return 0x6A;
        case Key::num_lock:
            return 0x76;
        case Key::keypad_slash:
            return 0x77;
        case Key::keypad_asterisk:
            return 0x7E;
        case Key::keypad_minus:
            return 0x84;
        case Key::keypad_plus:
            return 0x7C;
        case Key::keypad_enter:
            return 0x79;
        default: {
            const Set1Code code = set1_code(key);
            return code.extended ? std::uint8_t{0} : set2_from_set1(code.code);
        }
    }
}

/// The codes that a keyboard sends in scan code set `set` (1 to 3) when `key` is pressed or released and no
/// other key or lock affects it. Empty for a key that does not exist, and for the release of Pause in sets 1
/// and 2, which has no break code.
[[nodiscard]] constexpr ScanCode scan_code(Key key, bool down, std::uint8_t set) noexcept {
    constexpr std::uint8_t extended = extended_prefix;
    constexpr std::uint8_t release = release_prefix;
    if (set == 3) {
        const std::uint8_t code = set3_code(key);
        if (code == 0) {
            return {};
        }
        return down ? ScanCode{code} : ScanCode{release, code};
    }
    if (key == Key::pause) {
        if (!down) {
            return {};
        }
        return set == 1 ? ScanCode{0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5}
                        : ScanCode{0xE1, 0x14, 0x77, 0xE1, release, 0x14, release, 0x77};
    }
    // Print Screen is sent with a left Shift, as on the 83-key keyboard.
    if (key == Key::print_screen) {
        if (set == 1) {
            return down ? ScanCode{extended, 0x2A, extended, 0x37} : ScanCode{extended, 0xB7, extended, 0xAA};
        }
        return down ? ScanCode{extended, 0x12, extended, 0x7C}
                    : ScanCode{extended, release, 0x7C, extended, release, 0x12};
    }
    const Set1Code code = set1_code(key);
    if (code.code == 0) {
        return {};
    }
    if (set == 1) {
        const auto byte = static_cast<std::uint8_t>(code.code | (down ? 0U : set1_release));
        return code.extended ? ScanCode{extended, byte} : ScanCode{byte};
    }
    const std::uint8_t byte = set2_from_set1(code.code);
    if (code.extended) {
        return down ? ScanCode{extended, byte} : ScanCode{extended, release, byte};
    }
    return down ? ScanCode{byte} : ScanCode{release, byte};
}

}  // namespace vmsuperio::inline v0_2::detail
