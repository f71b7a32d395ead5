// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include <vmsuperio/keys.hpp>
#include <vmsuperio/ps2/scan_codes.hpp>
#include <vmsuperio/registers/ps2.hpp>

/// The keys whose codes depend on other keys and on Num Lock, in sets 1 and 2; in set 3 no code does.
///
/// Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)", the tables of sets
/// 1 and 2 after the list of keys with one code: key numbers 75, 76, 79 to 81, 83 to 86 and 89 (the ten grey
/// cursor keys), 95 (keypad /), 124 (Print Screen) and 126 (Pause).
///
/// | keys | alone | with Shift | with Num Lock | with Ctrl | with Alt |
/// |---|---|---|---|---|---|
/// | cursor | E0 70 | E0 F0 12, E0 70 | E0 12, E0 70 | as alone | as alone |
/// | keypad / | E0 4A | E0 F0 12, E0 4A | as alone | as alone | as alone |
/// | Print Screen | E0 12, E0 7C | E0 7C | as alone | E0 7C | 84 |
/// | Pause | E1 14 77 E1 F0 14 F0 77 | as alone | as alone | E0 7E, E0 F0 7E | as alone |
///
/// With both Shift and Num Lock the cursor keys send the same codes as alone. The right Shift is cancelled
/// with E0 F0 59, both Shifts with both codes. A break code mirrors its make code.
namespace vmsuperio::inline v0_2::detail {

/// The bit of a key on which the codes of other keys depend, or 0 for a key on which none depends.
[[nodiscard]] constexpr ps2::HeldKeys held_key(Key key) noexcept {
    using Held = ps2::HeldKeys;
    switch (key) {
        case Key::left_shift:
            return Held().set(Held::left_shift);
        case Key::right_shift:
            return Held().set(Held::right_shift);
        case Key::left_ctrl:
            return Held().set(Held::left_ctrl);
        case Key::right_ctrl:
            return Held().set(Held::right_ctrl);
        case Key::left_alt:
            return Held().set(Held::left_alt);
        case Key::right_alt:
            return Held().set(Held::right_alt);
        case Key::num_lock:
            return Held().set(Held::num_lock);
        default:
            return {};
    }
}

/// The form in which a key of the table above was pressed, as a bit mask. Its break code must match that
/// form, whatever has happened to the other keys since.
namespace key_form {
inline constexpr std::uint8_t up = 0x00;           ///< no make code was sent, or the break code as well
inline constexpr std::uint8_t down = 0x01;         ///< set in every form except `up`
inline constexpr std::uint8_t hides_left = 0x02;   ///< the left Shift was cancelled before the code
inline constexpr std::uint8_t hides_right = 0x04;  ///< the right Shift was cancelled before the code
inline constexpr std::uint8_t fakes_left = 0x08;   ///< a left Shift was added before the code
inline constexpr std::uint8_t alternate = 0x10;    ///< Print Screen as SysRq, Pause as Break

[[nodiscard]] constexpr bool valid(std::uint8_t form) noexcept {
    const bool hides = (form & (hides_left | hides_right)) != 0;
    const bool fakes = (form & fakes_left) != 0;
    const bool other = (form & alternate) != 0;
    return form == up || (form <= 0x1F && (form & down) != 0 && hides + fakes + other <= 1);
}

/// How many keys have forms.
inline constexpr std::size_t count = 13;

/// The index of a key among those that have forms, or `count` for all others.
[[nodiscard]] constexpr std::size_t index_of(Key key) noexcept {
    switch (key) {
        case Key::insert:
            return 0;
        case Key::del:
            return 1;
        case Key::home:
            return 2;
        case Key::end:
            return 3;
        case Key::page_up:
            return 4;
        case Key::page_down:
            return 5;
        case Key::up:
            return 6;
        case Key::down:
            return 7;
        case Key::left:
            return 8;
        case Key::right:
            return 9;
        case Key::keypad_slash:
            return 10;
        case Key::print_screen:
            return 11;
        case Key::pause:
            return 12;
        default:
            return count;
    }
}

/// The form of a key that is pressed while the keys of `modifiers` are held.
[[nodiscard]] constexpr std::uint8_t of(Key key, ps2::HeldKeys modifiers, bool num_lock) noexcept {
    using Held = ps2::HeldKeys;
    const bool shifted = modifiers[Held::shift] != 0;
    if (key == Key::pause) {
        return modifiers[Held::ctrl] != 0 ? down | alternate : down;
    }
    if (key == Key::print_screen) {
        if (modifiers[Held::alt] != 0) {
            return down | alternate;
        }
        return modifiers[Held::ctrl] != 0 || shifted ? down : down | fakes_left;
    }
    if (key != Key::keypad_slash && num_lock) {
        return shifted ? down : down | fakes_left;
    }
    return static_cast<std::uint8_t>(down | (modifiers[Held::left_shift] ? hides_left : 0U) |
                                     (modifiers[Held::right_shift] ? hides_right : 0U));
}
}  // namespace key_form

/// The codes of the keys that have forms, in one scan code set.
class FormedCodes {
public:
    explicit constexpr FormedCodes(std::uint8_t set) noexcept : set_(set) {}

    /// The make code, with the Shift codes before it.
    [[nodiscard]] constexpr ScanCode make(Key key, std::uint8_t form) const noexcept {
        ScanCode code;
        if (set_ != 3) {
            if ((form & key_form::hides_left) != 0) {
                shift(code, Key::left_shift, false);
            }
            if ((form & key_form::hides_right) != 0) {
                shift(code, Key::right_shift, false);
            }
            if ((form & key_form::fakes_left) != 0) {
                shift(code, Key::left_shift, true);
            }
        }
        code.append(bare(key, true, form));
        return code;
    }
    /// The make code alone, which a held key repeats.
    [[nodiscard]] constexpr ScanCode repeat(Key key, std::uint8_t form) const noexcept {
        return bare(key, true, form);
    }
    /// The break code, with the codes that restore the Shift keys: a Shift that was cancelled is restored
    /// only if it is still held, and one that was added is removed unless it has really been pressed.
    [[nodiscard]] constexpr ScanCode break_code(Key key, std::uint8_t form,
                                                ps2::HeldKeys modifiers) const noexcept {
        ScanCode code = bare(key, false, form);
        if (set_ == 3) {
            return code;
        }
        const bool left = modifiers[ps2::HeldKeys::left_shift];
        const bool right = modifiers[ps2::HeldKeys::right_shift];
        if ((form & key_form::hides_right) != 0 && right) {
            shift(code, Key::right_shift, true);
        }
        if ((form & key_form::hides_left) != 0 && left) {
            shift(code, Key::left_shift, true);
        }
        if ((form & key_form::fakes_left) != 0 && !left) {
            shift(code, Key::left_shift, false);
        }
        return code;
    }

private:
    static constexpr std::uint8_t extended = extended_prefix;
    static constexpr std::uint8_t release = release_prefix;

    constexpr void shift(ScanCode& code, Key key, bool down) const noexcept {
        code.push(extended);
        code.append(scan_code(key, down, set_));
    }
    [[nodiscard]] constexpr ScanCode bare(Key key, bool down, std::uint8_t form) const noexcept {
        if (set_ == 3) {
            return scan_code(key, down, set_);
        }
        const bool other = (form & key_form::alternate) != 0;
        if (key == Key::print_screen) {
            if (set_ == 1) {
                const auto code =
                    static_cast<std::uint8_t>((other ? 0x54U : 0x37U) | (down ? 0U : set1_release));
                return other ? ScanCode{code} : ScanCode{extended, code};
            }
            if (other) {
                return down ? ScanCode{0x84} : ScanCode{release, 0x84};
            }
            return down ? ScanCode{extended, 0x7C} : ScanCode{extended, release, 0x7C};
        }
        if (key == Key::pause && other) {
            if (!down) {
                return {};
            }
            return set_ == 1 ? ScanCode{extended, 0x46, extended, 0xC6}
                             : ScanCode{extended, 0x7E, extended, release, 0x7E};
        }
        return scan_code(key, down, set_);
    }

    std::uint8_t set_;
};

}  // namespace vmsuperio::inline v0_2::detail
