// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Keys whose codes depend on other keys: the tables of sets 1 and 2 in IBM's PS/2 Hardware Interface
// Technical Reference, "Keyboard (101- and 102-key)", key numbers 75 to 126.
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "catch.hpp"
#include "ps2_harness.hpp"

using ps2::Bytes;
using ps2::Pc;
using vmsuperio::Key;

namespace {

/// The codes that the guest reads: set 2 through the controller's translation, or one of the sets
/// untranslated.
enum class Ear { translated, set1, set2, set3 };

vmsuperio::I8042Options options_of(Ear ear) {
    return {.command_byte = static_cast<std::uint8_t>(ear == Ear::translated ? 0x45 : 0x05)};
}

struct Listener {
    Ear ear;
    Pc pc;

    explicit Listener(Ear how) : ear(how), pc(options_of(how)) {
        if (ear == Ear::set1 || ear == Ear::set3) {
            pc.keyboard({0xF0, static_cast<std::uint8_t>(ear == Ear::set1 ? 1 : 3)});
        }
    }
    Bytes press(Key key) {
        CHECK(pc.dev.press(key));
        return pc.drain();
    }
    Bytes release(Key key) {
        CHECK(pc.dev.release(key));
        return pc.drain();
    }
    void hold(std::initializer_list<Key> keys) {
        for (const Key key : keys) {
            press(key);
        }
    }
    void num_lock_led(bool on) { pc.keyboard({0xED, static_cast<std::uint8_t>(on ? 0x02 : 0x00)}); }
};

/// The ten cursor keys: (code in set 2, code in set 1).
struct Cursor {
    Key key;
    std::uint8_t set2;
    std::uint8_t set1;
    std::uint8_t set3;
};
const std::vector<Cursor> cursor_keys{{Key::insert, 0x70, 0x52, 0x67},    {Key::del, 0x71, 0x53, 0x64},
                                      {Key::left, 0x6B, 0x4B, 0x61},      {Key::home, 0x6C, 0x47, 0x6E},
                                      {Key::end, 0x69, 0x4F, 0x65},       {Key::up, 0x75, 0x48, 0x63},
                                      {Key::down, 0x72, 0x50, 0x60},      {Key::page_up, 0x7D, 0x49, 0x6F},
                                      {Key::page_down, 0x7A, 0x51, 0x6D}, {Key::right, 0x74, 0x4D, 0x6A}};

Bytes operator+(Bytes left, const Bytes& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

/// A make or break code with its prefix 0xE0, as the guest reads it.
Bytes grey(Ear ear, std::uint8_t set2, std::uint8_t set1, bool down) {
    if (ear == Ear::set2) {
        return down ? Bytes{0xE0, set2} : Bytes{0xE0, 0xF0, set2};
    }
    return {0xE0, static_cast<std::uint8_t>(down ? set1 : set1 | 0x80)};
}
Bytes left_shift(Ear ear, bool down) { return grey(ear, 0x12, 0x2A, down); }
Bytes right_shift(Ear ear, bool down) { return grey(ear, 0x59, 0x36, down); }

constexpr std::array prefixed_ears{Ear::translated, Ear::set1, Ear::set2};

}  // namespace

TEST_CASE("Key forms: Alt and Print Screen are SysRq", "[keyboard][forms]") {
    for (const Key alt : {Key::left_alt, Key::right_alt}) {
        for (const bool with_others : {false, true}) {
            for (const Ear ear : prefixed_ears) {
                Listener guest(ear);
                if (with_others) {
                    // Alt has priority over Ctrl and Shift.
                    guest.hold({Key::left_ctrl, Key::right_shift});
                }
                guest.hold({alt});
                const bool set2 = ear == Ear::set2;
                CHECK(guest.press(Key::print_screen) == (set2 ? Bytes{0x84} : Bytes{0x54}));
                CHECK(guest.release(Key::print_screen) == (set2 ? Bytes{0xF0, 0x84} : Bytes{0xD4}));
            }
        }
    }
    Listener third(Ear::set3);
    third.hold({Key::left_alt});
    CHECK(third.press(Key::print_screen) == Bytes{0x57});
    CHECK(third.release(Key::print_screen) == Bytes{0xF0, 0x57});
}

TEST_CASE("Key forms: Print Screen with Ctrl or Shift has no Shift of its own", "[keyboard][forms]") {
    for (const Key other : {Key::left_ctrl, Key::right_ctrl, Key::left_shift, Key::right_shift}) {
        for (const Ear ear : prefixed_ears) {
            Listener guest(ear);
            guest.hold({other});
            CHECK(guest.press(Key::print_screen) == grey(ear, 0x7C, 0x37, true));
            CHECK(guest.release(Key::print_screen) == grey(ear, 0x7C, 0x37, false));
            guest.release(other);
            // The key alone again, whatever the state of Num Lock.
            guest.num_lock_led(true);
            CHECK(guest.press(Key::print_screen) == left_shift(ear, true) + grey(ear, 0x7C, 0x37, true));
            CHECK(guest.release(Key::print_screen) == grey(ear, 0x7C, 0x37, false) + left_shift(ear, false));
        }
    }
}

TEST_CASE("Key forms: Ctrl and Pause send Break, the whole code when pressed", "[keyboard][forms]") {
    for (const Key ctrl : {Key::left_ctrl, Key::right_ctrl}) {
        Listener set2(Ear::set2);
        set2.hold({ctrl});
        CHECK(set2.press(Key::pause) == Bytes{0xE0, 0x7E, 0xE0, 0xF0, 0x7E});
        CHECK(set2.release(Key::pause).empty());
        for (const Ear ear : {Ear::translated, Ear::set1}) {
            Listener guest(ear);
            guest.hold({ctrl});
            CHECK(guest.press(Key::pause) == Bytes{0xE0, 0x46, 0xE0, 0xC6});
            CHECK(guest.release(Key::pause).empty());
            guest.release(ctrl);
            CHECK(guest.press(Key::pause) == Bytes{0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5});
        }
    }
    for (const Key other : {Key::left_shift, Key::left_alt}) {
        Listener guest(Ear::set2);
        guest.hold({other});
        CHECK(guest.press(Key::pause) == Bytes{0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77});
    }
    Listener third(Ear::set3);
    third.hold({Key::left_ctrl});
    CHECK(third.press(Key::pause) == Bytes{0x62});
    CHECK(third.release(Key::pause) == Bytes{0xF0, 0x62});
}

TEST_CASE("Key forms: Shift is cancelled around a cursor key", "[keyboard][forms]") {
    for (const Ear ear : prefixed_ears) {
        for (const Cursor& row : cursor_keys) {
            INFO("key " << static_cast<int>(row.key));
            const Bytes make = grey(ear, row.set2, row.set1, true);
            const Bytes broken = grey(ear, row.set2, row.set1, false);
            {
                Listener guest(ear);
                guest.hold({Key::left_shift});
                CHECK(guest.press(row.key) == left_shift(ear, false) + make);
                CHECK(guest.release(row.key) == broken + left_shift(ear, true));
            }
            {
                Listener guest(ear);
                guest.hold({Key::right_shift});
                CHECK(guest.press(row.key) == right_shift(ear, false) + make);
                CHECK(guest.release(row.key) == broken + right_shift(ear, true));
            }
            {
                Listener guest(ear);
                guest.hold({Key::left_shift, Key::right_shift});
                CHECK(guest.press(row.key) == left_shift(ear, false) + right_shift(ear, false) + make);
                CHECK(guest.release(row.key) == broken + right_shift(ear, true) + left_shift(ear, true));
            }
            for (const Key other : {Key::left_ctrl, Key::right_ctrl, Key::left_alt, Key::right_alt}) {
                Listener guest(ear);
                guest.hold({other});
                CHECK(guest.press(row.key) == make);
                CHECK(guest.release(row.key) == broken);
            }
        }
    }
}

TEST_CASE("Key forms: with Num Lock a Shift is added around a cursor key, with Shift held none",
          "[keyboard][forms]") {
    for (const Ear ear : prefixed_ears) {
        for (const Cursor& row : cursor_keys) {
            INFO("key " << static_cast<int>(row.key));
            const Bytes make = grey(ear, row.set2, row.set1, true);
            const Bytes broken = grey(ear, row.set2, row.set1, false);
            Listener guest(ear);
            guest.num_lock_led(true);
            CHECK(guest.press(row.key) == left_shift(ear, true) + make);
            CHECK(guest.release(row.key) == broken + left_shift(ear, false));
            guest.hold({Key::right_shift});
            CHECK(guest.press(row.key) == make);
            CHECK(guest.release(row.key) == broken);
            guest.release(Key::right_shift);
            guest.num_lock_led(false);
            CHECK(guest.press(row.key) == make);
            CHECK(guest.release(row.key) == broken);
        }
    }
}

TEST_CASE("Key forms: keypad / depends on Shift and not on Num Lock", "[keyboard][forms]") {
    for (const Ear ear : prefixed_ears) {
        const Bytes make = grey(ear, 0x4A, 0x35, true);
        const Bytes broken = grey(ear, 0x4A, 0x35, false);
        for (const bool num_lock : {false, true}) {
            Listener guest(ear);
            guest.num_lock_led(num_lock);
            CHECK(guest.press(Key::keypad_slash) == make);
            CHECK(guest.release(Key::keypad_slash) == broken);
            guest.hold({Key::left_shift});
            CHECK(guest.press(Key::keypad_slash) == left_shift(ear, false) + make);
            CHECK(guest.release(Key::keypad_slash) == broken + left_shift(ear, true));
        }
    }
}

TEST_CASE("Key forms: the other keys and set 3 do not depend on other keys", "[keyboard][forms]") {
    Listener third(Ear::set3);
    third.num_lock_led(true);
    third.hold({Key::left_shift, Key::left_ctrl, Key::left_alt});
    for (const Cursor& row : cursor_keys) {
        CHECK(third.press(row.key) == Bytes{row.set3});
        CHECK(third.release(row.key) == Bytes{0xF0, row.set3});
    }
    CHECK(third.press(Key::keypad_slash) == Bytes{0x77});
    Listener guest(Ear::set2);
    guest.num_lock_led(true);
    guest.hold({Key::left_shift, Key::right_ctrl, Key::left_alt});
    CHECK(guest.press(Key::keypad_7) == Bytes{0x6C});
    CHECK(guest.press(Key::keypad_enter) == Bytes{0xE0, 0x5A});
    CHECK(guest.press(Key::left_meta) == Bytes{0xE0, 0x1F});
    CHECK(guest.press(Key::scroll_lock) == Bytes{0x7E});
    CHECK(guest.press(Key::keypad_asterisk) == Bytes{0x7C});
}

TEST_CASE("Key forms: a break code matches the make code, whatever has been released since",
          "[keyboard][forms]") {
    Listener guest(Ear::set2);
    SECTION("Alt before Print Screen") {
        guest.hold({Key::left_alt});
        CHECK(guest.press(Key::print_screen) == Bytes{0x84});
        CHECK(guest.release(Key::left_alt) == Bytes{0xF0, 0x11});
        CHECK(guest.release(Key::print_screen) == Bytes{0xF0, 0x84});
        CHECK(guest.press(Key::print_screen) == Bytes{0xE0, 0x12, 0xE0, 0x7C});
    }
    SECTION("Print Screen before Alt") {
        guest.press(Key::print_screen);
        guest.hold({Key::left_alt});
        CHECK(guest.release(Key::print_screen) == Bytes{0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12});
    }
    SECTION("a Shift that was cancelled and released is not restored") {
        guest.hold({Key::left_shift});
        CHECK(guest.press(Key::insert) == Bytes{0xE0, 0xF0, 0x12, 0xE0, 0x70});
        CHECK(guest.release(Key::left_shift) == Bytes{0xF0, 0x12});
        CHECK(guest.release(Key::insert) == Bytes{0xE0, 0xF0, 0x70});
    }
    SECTION("of two Shifts that were cancelled the one that is held is restored") {
        guest.hold({Key::left_shift, Key::right_shift});
        guest.press(Key::insert);
        guest.release(Key::left_shift);
        CHECK(guest.release(Key::insert) == Bytes{0xE0, 0xF0, 0x70, 0xE0, 0x59});
    }
    SECTION("a Shift that was added is removed, although Num Lock is off by then") {
        guest.num_lock_led(true);
        CHECK(guest.press(Key::insert) == Bytes{0xE0, 0x12, 0xE0, 0x70});
        guest.num_lock_led(false);
        CHECK(guest.release(Key::insert) == Bytes{0xE0, 0xF0, 0x70, 0xE0, 0xF0, 0x12});
    }
    SECTION("a Shift that was added stays if it has really been pressed") {
        guest.num_lock_led(true);
        guest.press(Key::insert);
        guest.hold({Key::left_shift});
        CHECK(guest.release(Key::insert) == Bytes{0xE0, 0xF0, 0x70});
    }
    SECTION("a Shift that was pressed after the key has no effect") {
        guest.press(Key::insert);
        guest.hold({Key::left_shift});
        CHECK(guest.release(Key::insert) == Bytes{0xE0, 0xF0, 0x70});
    }
    SECTION("the set was changed") {
        guest.hold({Key::left_alt});
        guest.press(Key::print_screen);
        guest.pc.keyboard({0xF0, 0x01});
        CHECK(guest.release(Key::print_screen) == Bytes{0xD4});
    }
}

TEST_CASE("Key forms: the guest's state of the Shift keys is correct when all keys are up",
          "[keyboard][forms]") {
    // A guest that treats E0 12 and E0 59 as Shift keys, like BIOSes of the AT's time.
    const std::vector<Key> keys{Key::left_shift, Key::right_shift,  Key::left_ctrl,    Key::left_alt,
                                Key::insert,     Key::keypad_slash, Key::print_screen, Key::num_lock};
    Listener guest(Ear::set2);
    unsigned random = 7;
    const auto next = [&random] {
        random = random * 1103515245U + 12345U;
        return random >> 16U;
    };
    bool left = false;
    bool right = false;
    const auto hear = [&](const Bytes& bytes) {
        bool released = false;
        for (const std::uint8_t byte : bytes) {
            if (byte == 0xE0) {
                continue;
            }
            if (byte == 0xF0) {
                released = true;
                continue;
            }
            left = byte == 0x12 ? !released : left;
            right = byte == 0x59 ? !released : right;
            released = false;
        }
    };
    for (int round = 0; round < 300; ++round) {
        std::vector<bool> down(keys.size());
        for (int step = 0; step < 20; ++step) {
            const std::size_t which = next() % keys.size();
            down[which] = !down[which];
            hear(down[which] ? guest.press(keys[which]) : guest.release(keys[which]));
        }
        for (std::size_t which = 0; which < keys.size(); ++which) {
            if (down[which]) {
                hear(guest.release(keys[which]));
            }
        }
        INFO("round " << round);
        REQUIRE_FALSE(left);
        REQUIRE_FALSE(right);
    }
}

TEST_CASE("Key forms: a held key repeats its code without the Shift codes", "[keyboard][forms]") {
    Listener guest(Ear::set2);
    CHECK(guest.press(Key::print_screen) == Bytes{0xE0, 0x12, 0xE0, 0x7C});
    CHECK(guest.press(Key::print_screen) == Bytes{0xE0, 0x7C});
    CHECK(guest.press(Key::print_screen) == Bytes{0xE0, 0x7C});
    CHECK(guest.release(Key::print_screen) == Bytes{0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12});
    guest.hold({Key::left_shift});
    CHECK(guest.press(Key::up) == Bytes{0xE0, 0xF0, 0x12, 0xE0, 0x75});
    CHECK(guest.press(Key::up) == Bytes{0xE0, 0x75});
    CHECK(guest.release(Key::up) == Bytes{0xE0, 0xF0, 0x75, 0xE0, 0x12});
    CHECK(guest.press(Key::a) == Bytes{0x1C});
    CHECK(guest.press(Key::a) == Bytes{0x1C});
    guest.release(Key::left_shift);
    CHECK(guest.press(Key::pause).size() == 8);
    // On a real keyboard Pause does not repeat; here each press comes from the host.
    CHECK(guest.press(Key::pause).size() == 8);
    CHECK(guest.release(Key::pause).empty());
    Listener third(Ear::set3);
    CHECK(third.press(Key::pause) == Bytes{0x62});
    CHECK(third.press(Key::pause) == Bytes{0x62});
}

TEST_CASE("Key forms: a held key that is pressed again with other keys is released first",
          "[keyboard][forms]") {
    Listener guest(Ear::set2);
    guest.press(Key::print_screen);
    guest.hold({Key::left_alt});
    CHECK(guest.press(Key::print_screen) == Bytes{0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12, 0x84});
    CHECK(guest.release(Key::print_screen) == Bytes{0xF0, 0x84});
    guest.press(Key::pause);
    guest.hold({Key::left_ctrl});
    CHECK(guest.press(Key::pause) == Bytes{0xE0, 0x7E, 0xE0, 0xF0, 0x7E});
}

TEST_CASE("Key forms: the keyboard's Num Lock is toggled by its key and set by the LED",
          "[keyboard][forms]") {
    Listener guest(Ear::set2);
    CHECK(guest.press(Key::num_lock) == Bytes{0x77});
    CHECK(guest.press(Key::num_lock) == Bytes{0x77});  // a repeat is not a second press
    CHECK(guest.release(Key::num_lock) == Bytes{0xF0, 0x77});
    CHECK(guest.press(Key::left) == Bytes{0xE0, 0x12, 0xE0, 0x6B});
    guest.release(Key::left);
    guest.num_lock_led(true);  // the guest's reaction to that key
    CHECK(guest.press(Key::left) == Bytes{0xE0, 0x12, 0xE0, 0x6B});
    guest.release(Key::left);
    guest.num_lock_led(false);
    CHECK(guest.press(Key::left) == Bytes{0xE0, 0x6B});
    guest.release(Key::left);
    guest.press(Key::num_lock);
    guest.release(Key::num_lock);
    guest.pc.keyboard({0xFF});
    CHECK(guest.press(Key::left) == Bytes{0xE0, 0x6B});
    CHECK(guest.pc.dev.leds() == 0);
}

TEST_CASE("Key forms: keys that change while scanning is off take effect when it is on",
          "[keyboard][forms]") {
    Listener guest(Ear::set2);
    guest.pc.keyboard({0xF5});
    CHECK(guest.press(Key::left_shift).empty());
    guest.pc.keyboard({0xF4});
    CHECK(guest.press(Key::insert) == Bytes{0xE0, 0xF0, 0x12, 0xE0, 0x70});
    guest.pc.keyboard({0xF5});
    CHECK(guest.release(Key::insert).empty());
    CHECK(guest.release(Key::left_shift).empty());
    guest.pc.keyboard({0xF4});
    CHECK(guest.press(Key::insert) == Bytes{0xE0, 0x70});
}

TEST_CASE("Key forms: a key that was lost counts as not pressed", "[keyboard][forms]") {
    Listener guest(Ear::set2);
    guest.hold({Key::left_alt});
    guest.pc.command(0xAD);
    while (guest.pc.dev.press(Key::a)) {
    }
    CHECK_FALSE(guest.pc.dev.press(Key::print_screen));
    guest.pc.command(0xAE);
    guest.pc.drain();
    guest.release(Key::left_alt);
    // Its break code depends on the present state.
    CHECK(guest.release(Key::print_screen) == Bytes{0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12});
}

TEST_CASE("Key forms: Ctrl-Alt-Del fits whatever is held or locked", "[keyboard][forms]") {
    for (const bool num_lock : {false, true}) {
        for (const bool shift : {false, true}) {
            Listener guest(Ear::set2);
            guest.num_lock_led(num_lock);
            if (shift) {
                guest.hold({Key::left_shift, Key::right_shift});
            }
            CHECK(guest.pc.dev.ctrl_alt_del());
            CHECK(guest.pc.drain() ==
                  Bytes{0x14, 0x11, 0xE0, 0x71, 0xE0, 0xF0, 0x71, 0xF0, 0x11, 0xF0, 0x14});
            // The keys that the user holds have not changed.
            CHECK(guest.press(Key::keypad_slash).size() == (shift ? 8 : 2));
        }
    }
}

TEST_CASE("Key forms: a key that was down when the state was saved has its break code in the restored device",
          "[keyboard][forms][snapshot]") {
    Listener guest(Ear::set2);
    guest.hold({Key::left_alt});
    guest.press(Key::print_screen);
    guest.release(Key::left_alt);
    const auto state = vmsuperio::decode<vmsuperio::I8042State>(vmsuperio::encode(guest.pc.dev.state()));
    REQUIRE(state.has_value());
    auto restored = guest.pc.restored(*state);
    REQUIRE(restored.has_value());
    CHECK(restored->release(Key::print_screen));
    CHECK(restored->read(0) == 0xF0);
    CHECK(restored->read(0) == 0x84);
    CHECK((restored->read(4) & 0x01) == 0);
}
