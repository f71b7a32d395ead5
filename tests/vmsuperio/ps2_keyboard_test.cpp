// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <cstdint>
#include <set>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "catch.hpp"
#include "ps2_harness.hpp"

using ps2::Bytes;
using ps2::Pc;
using vmsuperio::Key;
using vmsuperio::detail::scan_code;
using vmsuperio::detail::translate_to_set1;

namespace {

constexpr vmsuperio::I8042Options untranslated{.command_byte = 0x05};

Bytes code(Key key, bool down, std::uint8_t set) {
    const auto scan = scan_code(key, down, set);
    return {scan.span().begin(), scan.span().end()};
}

std::vector<Key> all_keys() {
    std::vector<Key> keys;
    for (unsigned number = 0; number < 256; ++number) {
        if (scan_code(ps2::key_number(number), true, 2).count != 0) {
            keys.push_back(ps2::key_number(number));
        }
    }
    return keys;
}

/// The controller's translation of a whole sequence.
Bytes translated(const Bytes& set2) {
    Bytes result;
    std::uint8_t released = 0;
    for (const std::uint8_t byte : set2) {
        if (byte == 0xF0) {
            released = 0x80;
            continue;
        }
        result.push_back(static_cast<std::uint8_t>(translate_to_set1(byte) | released));
        released = 0;
    }
    return result;
}

}  // namespace

TEST_CASE("Keyboard: each command is answered as in the reference, and all other bytes are refused",
          "[keyboard]") {
    for (int command = 0; command < 256; ++command) {
        Pc pc(untranslated);
        pc.put(static_cast<std::uint8_t>(command));
        Bytes expected;
        switch (command) {
            case 0xEE:
                expected = {0xEE};
                break;
            case 0xF2:
                expected = {0xFA, 0xAB, 0x83};
                break;
            case 0xFE:
                expected = {0x00};  // nothing was sent before
                break;
            case 0xFF:
                expected = {0xFA, 0xAA};
                break;
            case 0xED:
            case 0xF0:
            case 0xF3:
            case 0xF4:
            case 0xF5:
            case 0xF6:
            case 0xF7:
            case 0xF8:
            case 0xF9:
            case 0xFA:
            case 0xFB:
            case 0xFC:
            case 0xFD:
                expected = {0xFA};
                break;
            default:
                expected = {0xFE};
                break;
        }
        INFO("command " << command);
        CHECK(pc.drain() == expected);
    }
}

TEST_CASE("Keyboard: parameters are taken, and a wrong one may be sent again", "[keyboard]") {
    Pc pc(untranslated);
    CHECK(pc.keyboard({0xED, 0x05}) == Bytes{0xFA, 0xFA});
    CHECK(pc.dev.leds() == 0x05);
    CHECK(pc.leds == Bytes{0x05});
    CHECK(pc.keyboard({0xED, 0x08, 0x02}) == Bytes{0xFA, 0xFE, 0xFA});
    CHECK(pc.leds == Bytes{0x05, 0x02});
    CHECK(pc.keyboard({0xF3, 0x80, 0x7F}) == Bytes{0xFA, 0xFE, 0xFA});
    CHECK(pc.dev.state().keyboard.typematic == 0x7F);
    CHECK(pc.keyboard({0xF0, 0x04, 0x03}) == Bytes{0xFA, 0xFE, 0xFA});
    CHECK(pc.keyboard({0xF0, 0x00}) == Bytes{0xFA, 0xFA, 0x03});
}

TEST_CASE("Keyboard: a command instead of a parameter is carried out", "[keyboard]") {
    Pc pc(untranslated);
    CHECK(pc.keyboard({0xED, 0xF2}) == Bytes{0xFA, 0xFA, 0xAB, 0x83});
    CHECK(pc.keyboard({0x05}) == Bytes{0xFE});
    CHECK(pc.dev.leds() == 0x00);
}

TEST_CASE("Keyboard: the list of keys for 0xFB to 0xFD ends at the next command", "[keyboard]") {
    Pc pc(untranslated);
    CHECK(pc.keyboard({0xFC, 0x1C, 0x32, 0x8B, 0xEE}) == Bytes{0xFA, 0xFA, 0xFA, 0xFA, 0xEE});
    CHECK(pc.keyboard({0x1C}) == Bytes{0xFE});
}

TEST_CASE("Keyboard: while it waits for a parameter it sends no scan code", "[keyboard]") {
    Pc pc(untranslated);
    CHECK(pc.keyboard({0xED}) == Bytes{0xFA});
    pc.dev.press(Key::a);
    CHECK_FALSE(pc.output_full());
    pc.put(0x00);
    CHECK(pc.drain() == Bytes{0xFA, 0x1C});
}

TEST_CASE("Keyboard: 0xFE sends the last byte again", "[keyboard]") {
    Pc pc(untranslated);
    CHECK(pc.keyboard({0xF2, 0xFE}) == Bytes{0xFA, 0xAB, 0x83, 0x83});
    pc.dev.press(Key::q);
    CHECK(pc.keyboard({0xFE}) == Bytes{0x15, 0x15});
}

TEST_CASE("Keyboard: after 0xFE the rest of the answer follows", "[keyboard][resend]") {
    Pc pc(untranslated);
    pc.put(0xF2);
    CHECK(pc.data() == 0xFA);
    // 0xAB is in the controller and is the last byte that the keyboard has sent.
    pc.put(0xFE);
    CHECK(pc.drain() == Bytes{0xAB, 0xAB, 0x83});
    CHECK(pc.keyboard({0xFE}) == Bytes{0x83});
    // However often 0xFE is sent before a byte is read, the answer is not lost.
    pc.put(0xF2);
    for (int i = 0; i < 10; ++i) {
        pc.put(0xFE);
    }
    const Bytes answer = pc.drain();
    CHECK(answer.back() == 0x83);
    CHECK(answer.size() <= 5);
}

TEST_CASE("Keyboard: 0xFE does not answer a command that waits for its parameter", "[keyboard][resend]") {
    Pc pc(untranslated);
    CHECK(pc.keyboard({0xED, 0xFE, 0x05}) == Bytes{0xFA, 0xFA, 0xFA});
    CHECK(pc.dev.leds() == 0x05);
    CHECK(pc.keyboard({0xF0, 0xFE, 0x00}) == Bytes{0xFA, 0xFA, 0xFA, 0x02});
    CHECK(pc.keyboard({0xF3, 0xFE, 0xFE, 0x11}) == Bytes{0xFA, 0xFA, 0xFA, 0xFA});
    CHECK(pc.dev.state().keyboard.typematic == 0x11);
    // Keys that are typed in between still wait.
    CHECK(pc.keyboard({0xED}) == Bytes{0xFA});
    pc.dev.press(Key::a);
    CHECK(pc.keyboard({0xFE}) == Bytes{0xFA});
    CHECK(pc.keyboard({0x00}) == Bytes{0xFA, 0x1C});
}

TEST_CASE("Keyboard: 0xFE after the keyboard's own 0xFE sends the byte before that", "[keyboard][resend]") {
    Pc pc(untranslated);
    CHECK(pc.keyboard({0xEE, 0x05, 0xFE}) == Bytes{0xEE, 0xFE, 0xEE});
    CHECK(pc.keyboard({0xED, 0x80, 0xFE, 0x01}) == Bytes{0xFA, 0xFE, 0xFA, 0xFA});
    CHECK(pc.dev.leds() == 0x01);
}

TEST_CASE("Keyboard: however much is typed, a guest can read 15 bytes at once and no more", "[keyboard]") {
    for (const bool translate : {true, false}) {
        Pc pc({.command_byte = static_cast<std::uint8_t>(translate ? 0x45 : 0x05)});
        int lost = 0;
        for (int i = 0; i < 100; ++i) {
            lost += pc.dev.press(Key::a) ? 0 : 1;
        }
        CHECK(lost == 86);
        const Bytes bytes = pc.drain();
        CHECK(bytes.size() == 15);
        CHECK(bytes.back() == (translate ? 0xFF : 0x00));
        // Typed while the port is disabled, which is then enabled.
        pc.command(0xAD);
        for (int i = 0; i < 100; ++i) {
            pc.dev.press(Key::up);
        }
        pc.command(0xAE);
        pc.dev.press(Key::a);
        CHECK(pc.drain().size() == 15);
    }
}

TEST_CASE("Keyboard: 0xF5 stops scanning, 0xF4 starts it, 0xF6 does not change it", "[keyboard]") {
    Pc pc(untranslated);
    pc.keyboard({0xF5});
    CHECK(pc.dev.press(Key::a));
    CHECK_FALSE(pc.output_full());
    pc.keyboard({0xF6});
    pc.dev.press(Key::a);
    CHECK_FALSE(pc.output_full());
    pc.keyboard({0xF4});
    pc.dev.press(Key::a);
    CHECK(pc.next() == 0x1C);
    pc.keyboard({0xF6});
    pc.dev.release(Key::a);
    CHECK(pc.drain() == Bytes{0xF0, 0x1C});
    CHECK(pc.dev.counters().keyboard_overruns == 0);
}

TEST_CASE("Keyboard: commands that set defaults drop what was typed; identify and LEDs do not",
          "[keyboard]") {
    for (const int command : {0xF4, 0xF5, 0xF6, 0xFF}) {
        Pc pc(untranslated);
        pc.command(0xAD);
        pc.dev.press(Key::a);
        pc.put(static_cast<std::uint8_t>(command));
        const Bytes answer = pc.drain();
        CHECK(answer.front() == 0xFA);
        CHECK(answer.back() != 0x1C);
    }
    for (const int command : {0xEE, 0xF2}) {
        Pc pc(untranslated);
        pc.command(0xAD);
        pc.dev.press(Key::a);
        pc.put(static_cast<std::uint8_t>(command));
        CHECK(pc.drain().back() == 0x1C);
    }
}

TEST_CASE("Keyboard: reset restores set 2, the typematic rate and the LEDs", "[keyboard]") {
    Pc pc(untranslated);
    pc.keyboard({0xF0, 0x03, 0xF3, 0x00, 0xED, 0x07, 0xFF});
    CHECK(pc.dev.state().keyboard.scan_code_set == 2);
    CHECK(pc.dev.state().keyboard.typematic == 0x2B);
    CHECK(pc.leds == Bytes{0x07, 0x00});
}

TEST_CASE("Keyboard: an answer is sent before keys that were typed earlier", "[keyboard]") {
    Pc pc(untranslated);
    pc.command(0xAD);
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    pc.put(0xF2);
    CHECK(pc.drain() == Bytes{0xFA, 0xAB, 0x83, 0x1C, 0x32});
}

TEST_CASE("Keyboard: codes of well-known keys in the three sets", "[keyboard][scancodes]") {
    struct Row {
        Key key;
        Bytes set1;
        Bytes set2;
        std::uint8_t set3;
    };
    const std::vector<Row> rows{
        {Key::esc, {0x01}, {0x76}, 0x08},
        {Key::digit_1, {0x02}, {0x16}, 0x16},
        {Key::a, {0x1E}, {0x1C}, 0x1C},
        {Key::z, {0x2C}, {0x1A}, 0x1A},
        {Key::p, {0x19}, {0x4D}, 0x4D},
        {Key::enter, {0x1C}, {0x5A}, 0x5A},
        {Key::space, {0x39}, {0x29}, 0x29},
        {Key::backspace, {0x0E}, {0x66}, 0x66},
        {Key::tab, {0x0F}, {0x0D}, 0x0D},
        {Key::left_ctrl, {0x1D}, {0x14}, 0x11},
        {Key::left_shift, {0x2A}, {0x12}, 0x12},
        {Key::right_shift, {0x36}, {0x59}, 0x59},
        {Key::left_alt, {0x38}, {0x11}, 0x19},
        {Key::caps_lock, {0x3A}, {0x58}, 0x14},
        {Key::backslash, {0x2B}, {0x5D}, 0x5C},
        {Key::key_102nd, {0x56}, {0x61}, 0x13},
        {Key::f1, {0x3B}, {0x05}, 0x07},
        {Key::f7, {0x41}, {0x83}, 0x37},
        {Key::f10, {0x44}, {0x09}, 0x4F},
        {Key::f11, {0x57}, {0x78}, 0x56},
        {Key::f12, {0x58}, {0x07}, 0x5E},
        {Key::num_lock, {0x45}, {0x77}, 0x76},
        {Key::scroll_lock, {0x46}, {0x7E}, 0x5F},
        {Key::keypad_7, {0x47}, {0x6C}, 0x6C},
        {Key::keypad_minus, {0x4A}, {0x7B}, 0x84},
        {Key::keypad_plus, {0x4E}, {0x79}, 0x7C},
        {Key::keypad_dot, {0x53}, {0x71}, 0x71},
        {Key::keypad_asterisk, {0x37}, {0x7C}, 0x7E},
        {Key::keypad_enter, {0xE0, 0x1C}, {0xE0, 0x5A}, 0x79},
        {Key::keypad_slash, {0xE0, 0x35}, {0xE0, 0x4A}, 0x77},
        {Key::right_ctrl, {0xE0, 0x1D}, {0xE0, 0x14}, 0x58},
        {Key::right_alt, {0xE0, 0x38}, {0xE0, 0x11}, 0x39},
        {Key::insert, {0xE0, 0x52}, {0xE0, 0x70}, 0x67},
        {Key::del, {0xE0, 0x53}, {0xE0, 0x71}, 0x64},
        {Key::home, {0xE0, 0x47}, {0xE0, 0x6C}, 0x6E},
        {Key::end, {0xE0, 0x4F}, {0xE0, 0x69}, 0x65},
        {Key::page_up, {0xE0, 0x49}, {0xE0, 0x7D}, 0x6F},
        {Key::page_down, {0xE0, 0x51}, {0xE0, 0x7A}, 0x6D},
        {Key::up, {0xE0, 0x48}, {0xE0, 0x75}, 0x63},
        {Key::down, {0xE0, 0x50}, {0xE0, 0x72}, 0x60},
        {Key::left, {0xE0, 0x4B}, {0xE0, 0x6B}, 0x61},
        {Key::right, {0xE0, 0x4D}, {0xE0, 0x74}, 0x6A},
        {Key::left_meta, {0xE0, 0x5B}, {0xE0, 0x1F}, 0x8B},
        {Key::right_meta, {0xE0, 0x5C}, {0xE0, 0x27}, 0x8C},
        {Key::menu, {0xE0, 0x5D}, {0xE0, 0x2F}, 0x8D},
    };
    for (const Row& row : rows) {
        INFO("key " << static_cast<int>(row.key));
        CHECK(code(row.key, true, 1) == row.set1);
        CHECK(code(row.key, true, 2) == row.set2);
        CHECK(code(row.key, true, 3) == Bytes{row.set3});
        CHECK(code(row.key, false, 3) == Bytes{0xF0, row.set3});
        Bytes released = row.set1;
        released.back() = static_cast<std::uint8_t>(released.back() | 0x80);
        CHECK(code(row.key, false, 1) == released);
        released = row.set2;
        released.insert(released.end() - 1, 0xF0);
        CHECK(code(row.key, false, 2) == released);
    }
}

TEST_CASE("Keyboard: Pause has a break code only in set 3, and Print Screen is sent with a Shift",
          "[keyboard][scancodes]") {
    CHECK(code(Key::pause, true, 1) == Bytes{0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5});
    CHECK(code(Key::pause, true, 2) == Bytes{0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77});
    CHECK(code(Key::pause, true, 3) == Bytes{0x62});
    CHECK(code(Key::pause, false, 1).empty());
    CHECK(code(Key::pause, false, 2).empty());
    CHECK(code(Key::pause, false, 3) == Bytes{0xF0, 0x62});
    CHECK(code(Key::print_screen, true, 1) == Bytes{0xE0, 0x2A, 0xE0, 0x37});
    CHECK(code(Key::print_screen, false, 1) == Bytes{0xE0, 0xB7, 0xE0, 0xAA});
    CHECK(code(Key::print_screen, true, 2) == Bytes{0xE0, 0x12, 0xE0, 0x7C});
    CHECK(code(Key::print_screen, false, 2) == Bytes{0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12});
    CHECK(code(Key::print_screen, true, 3) == Bytes{0x57});
}

TEST_CASE("Keyboard: the 105 keys have distinct codes, and set 2 translates to set 1",
          "[keyboard][scancodes]") {
    const std::vector<Key> keys = all_keys();
    CHECK(keys.size() == 105);
    for (std::uint8_t set = 1; set <= 3; ++set) {
        std::set<Bytes> seen;
        for (const Key key : keys) {
            const Bytes make = code(key, true, set);
            CHECK_FALSE(make.empty());
            CHECK(seen.insert(make).second);
            if (key != Key::pause || set == 3) {
                CHECK(seen.insert(code(key, false, set)).second);
            }
        }
    }
    for (const Key key : keys) {
        for (const bool down : {true, false}) {
            CHECK(translated(code(key, down, 2)) == code(key, down, 1));
        }
    }
}

TEST_CASE("Keyboard: the guest sees set 1 through the translation, for every key", "[keyboard][scancodes]") {
    for (const Key key : all_keys()) {
        Pc pc;
        pc.dev.press(key);
        CHECK(pc.drain() == code(key, true, 1));
        pc.dev.release(key);
        CHECK(pc.drain() == code(key, false, 1));
        Pc raw(untranslated);
        raw.keyboard({0xF0, 0x01});
        raw.dev.press(key);
        CHECK(raw.drain() == code(key, true, 1));
    }
}

TEST_CASE("Keyboard: translation passes answers and maps overrun to 0xFF", "[keyboard][scancodes]") {
    for (const int byte : {0xAA, 0xEE, 0xFA, 0xFE, 0xFC, 0xE0, 0xE1, 0xAB, 0xFF}) {
        CHECK(translate_to_set1(static_cast<std::uint8_t>(byte)) == byte);
    }
    CHECK(translate_to_set1(0x00) == 0xFF);
    CHECK(translate_to_set1(0x83) == 0x41);
    CHECK(translate_to_set1(0x84) == 0x54);
    CHECK(translate_to_set1(0x85) == 0x85);
    // No two codes below 0x80 become the same, except 0x02 and F7's 0x83, and 0x7F and SysRq's 0x84.
    std::set<std::uint8_t> seen;
    for (int byte = 0; byte < 0x80; ++byte) {
        CHECK(seen.insert(translate_to_set1(static_cast<std::uint8_t>(byte))).second);
    }
}

TEST_CASE("Keyboard: a key that does not exist sends nothing", "[keyboard]") {
    Pc pc;
    for (const unsigned number : {0U, 84U, 85U, 89U, 95U, 101U, 112U, 118U, 120U, 124U, 128U, 255U, 65535U}) {
        CHECK(pc.dev.press(ps2::key_number(number)));
        CHECK(pc.dev.release(ps2::key_number(number)));
    }
    CHECK_FALSE(pc.output_full());
    CHECK(pc.irq1 == 0);
}

TEST_CASE("Keyboard: a full buffer ends with one overrun code, and has room again once it is read",
          "[keyboard]") {
    Pc pc(untranslated);
    pc.command(0xAD);
    int taken = 0;
    for (int i = 0; i < 1000; ++i) {
        taken += pc.dev.press(Key::a) ? 1 : 0;
    }
    CHECK(taken == 14);
    CHECK(pc.dev.counters().keyboard_overruns == 986);
    pc.command(0xAE);
    Bytes expected(14, 0x1C);
    expected.push_back(0x00);
    CHECK(pc.drain() == expected);
    CHECK(pc.dev.press(Key::b));
    CHECK(pc.drain() == Bytes{0x32});
}

TEST_CASE("Keyboard: a code of several bytes is queued completely or not at all", "[keyboard]") {
    Pc pc(untranslated);
    pc.command(0xAD);
    for (int i = 0; i < 13; ++i) {
        CHECK(pc.dev.press(Key::a));
    }
    CHECK_FALSE(pc.dev.press(Key::up));
    CHECK_FALSE(pc.dev.release(Key::up));
    pc.command(0xAE);
    Bytes expected(13, 0x1C);
    expected.push_back(0x00);
    CHECK(pc.drain() == expected);
}

TEST_CASE("Keyboard: overrun reads 0xFF in set 1 and through the translation", "[keyboard]") {
    for (const bool translate : {true, false}) {
        Pc pc(translate ? vmsuperio::I8042Options{} : untranslated);
        if (!translate) {
            pc.keyboard({0xF0, 0x01});
        }
        pc.command(0xAD);
        for (int i = 0; i < 20; ++i) {
            pc.dev.press(Key::a);
        }
        pc.command(0xAE);
        CHECK(pc.drain().back() == 0xFF);
    }
}
