// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

#include <vmsuperio/detail/config.hpp>

namespace vmsuperio {

/// The keys of a 105-key PC keyboard. The numbers are those of Linux's evdev interface
/// (`<linux/input-event-codes.h>`), so that `static_cast<Key>(event.code)` is right; a number that is not
/// listed is a key that this keyboard does not have.
enum class Key : std::uint16_t {
    esc = 1,
    digit_1 = 2,
    digit_2 = 3,
    digit_3 = 4,
    digit_4 = 5,
    digit_5 = 6,
    digit_6 = 7,
    digit_7 = 8,
    digit_8 = 9,
    digit_9 = 10,
    digit_0 = 11,
    minus = 12,
    equal = 13,
    backspace = 14,
    tab = 15,
    q = 16,
    w = 17,
    e = 18,
    r = 19,
    t = 20,
    y = 21,
    u = 22,
    i = 23,
    o = 24,
    p = 25,
    left_brace = 26,
    right_brace = 27,
    enter = 28,
    left_ctrl = 29,
    a = 30,
    s = 31,
    d = 32,
    f = 33,
    g = 34,
    h = 35,
    j = 36,
    k = 37,
    l = 38,
    semicolon = 39,
    apostrophe = 40,
    grave = 41,
    left_shift = 42,
    backslash = 43,
    z = 44,
    x = 45,
    c = 46,
    v = 47,
    b = 48,
    n = 49,
    m = 50,
    comma = 51,
    dot = 52,
    slash = 53,
    right_shift = 54,
    keypad_asterisk = 55,
    left_alt = 56,
    space = 57,
    caps_lock = 58,
    f1 = 59,
    f2 = 60,
    f3 = 61,
    f4 = 62,
    f5 = 63,
    f6 = 64,
    f7 = 65,
    f8 = 66,
    f9 = 67,
    f10 = 68,
    num_lock = 69,
    scroll_lock = 70,
    keypad_7 = 71,
    keypad_8 = 72,
    keypad_9 = 73,
    keypad_minus = 74,
    keypad_4 = 75,
    keypad_5 = 76,
    keypad_6 = 77,
    keypad_plus = 78,
    keypad_1 = 79,
    keypad_2 = 80,
    keypad_3 = 81,
    keypad_0 = 82,
    keypad_dot = 83,
    key_102nd = 86,
    f11 = 87,
    f12 = 88,
    keypad_enter = 96,
    right_ctrl = 97,
    keypad_slash = 98,
    print_screen = 99,
    right_alt = 100,
    home = 102,
    up = 103,
    page_up = 104,
    left = 105,
    right = 106,
    end = 107,
    down = 108,
    page_down = 109,
    insert = 110,
    del = 111,
    pause = 119,
    left_meta = 125,
    right_meta = 126,
    menu = 127,
};

/// What moved since the last report to the guest. `x` grows to the right, `y` upwards, `wheel` towards the
/// user, in counts. Buttons: bit 0 left, 1 right, 2 middle, 3 fourth, 4 fifth (see
/// `ps2::MouseButtons`).
struct MouseMotion {
    std::int32_t x{};
    std::int32_t y{};
    std::int32_t wheel{};
    std::uint8_t buttons{};
};

}  // namespace vmsuperio
