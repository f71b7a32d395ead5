// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "catch.hpp"
#include "ps2_harness.hpp"

using ps2::Bytes;
using ps2::Pc;
using vmsuperio::I8042;
using vmsuperio::I8042Profile;
using vmsuperio::I8042State;
using vmsuperio::Key;

namespace {

/// The answers of the commands that have one, on a new controller.
std::map<int, int> answers() {
    std::map<int, int> table{{0xA4, 0xF1}, {0xA9, 0x00}, {0xAA, 0x55}, {0xAB, 0x00},
                             {0xC0, 0x80}, {0xD0, 0xCF}, {0xE0, 0x01}};
    for (int ram = 0x20; ram <= 0x3F; ++ram) {
        table[ram] = ram == 0x20 ? 0x65 : 0x00;
    }
    return table;
}

bool takes_data(int command) {
    return (command >= 0x60 && command <= 0x7F) || (command >= 0xD1 && command <= 0xD4);
}

}  // namespace

TEST_CASE("I8042: a reset trigger alone is enough, and 0xFE on port 0x64 fires it once", "[i8042]") {
    int resets = 0;
    I8042 dev(ps2::CountingTrigger{&resets});
    STATIC_REQUIRE(std::is_same_v<decltype(dev), I8042<ps2::CountingTrigger>>);
    STATIC_REQUIRE(std::is_same_v<decltype(dev.write(4, 0xFE)), std::expected<void, int>>);
    CHECK(dev.reset_evt().edges == &resets);
    for (int value = 0; value < 0xF0; ++value) {
        CHECK(dev.write(4, static_cast<std::uint8_t>(value)).has_value());
    }
    CHECK(resets == 0);
    CHECK(dev.write(4, 0xFE).has_value());
    CHECK(resets == 1);
    for (int offset = 0; offset < 256; ++offset) {
        if (offset != 4) {
            CHECK(dev.write(static_cast<std::uint8_t>(offset), 0xFE).has_value());
        }
    }
    CHECK(resets == 1);
}

TEST_CASE("I8042: a reset line with a level trigger rises and falls, and sees no edge", "[i8042]") {
    std::vector<bool> levels;
    int edges = 0;
    I8042 dev(ps2::RecordingLevel{&levels, &edges});
    CHECK(dev.write(4, 0xFE).has_value());
    CHECK(levels == std::vector<bool>{true, false});
    CHECK(edges == 0);
}

TEST_CASE("I8042: the error of the reset trigger is the error of the write", "[i8042]") {
    Pc pc;
    pc.reset_fails = true;
    const auto result = pc.dev.write(4, 0xFE);
    REQUIRE_FALSE(result.has_value());
    CHECK(result.error() == 7);
    CHECK(pc.resets == 1);
    CHECK(pc.dev.write(4, 0xAA).has_value());
}

TEST_CASE("I8042: pulse commands reset the CPU when their bit 0 is 0, and answer nothing", "[i8042]") {
    for (int command = 0xF0; command <= 0xFF; ++command) {
        Pc pc;
        CHECK(pc.command(static_cast<std::uint8_t>(command)));
        CHECK(pc.resets == (command % 2 == 0 ? 1 : 0));
        CHECK_FALSE(pc.output_full());
    }
}

TEST_CASE("I8042: reset values of every offset", "[i8042]") {
    Pc pc;
    for (int offset = 0; offset < 256; ++offset) {
        // The system flag is set, as after a passed self-test, and the key lock is open.
        const int expected = offset == 4 ? 0x14 : 0x00;
        CHECK(pc.dev.peek(static_cast<std::uint8_t>(offset)) == expected);
        CHECK(pc.dev.read(static_cast<std::uint8_t>(offset)) == expected);
    }
    CHECK(pc.irq1 == 0);
    CHECK(pc.irq12 == 0);
    CHECK(pc.dev.a20_enabled());
}

TEST_CASE("I8042: every command byte has exactly the answer of the reference", "[i8042]") {
    const auto table = answers();
    for (int command = 0; command < 256; ++command) {
        Pc pc;
        const I8042State before = pc.dev.state();
        pc.command(static_cast<std::uint8_t>(command));
        INFO("command " << command);
        if (const auto found = table.find(command); found != table.end()) {
            REQUIRE(pc.output_full());
            CHECK_FALSE(pc.output_from_aux());
            CHECK(pc.data() == found->second);
            CHECK(pc.irq1 == 1);
        }
        CHECK_FALSE(pc.output_full());
        CHECK(pc.irq1 == (table.contains(command) ? 1 : 0));
        CHECK(pc.irq12 == 0);
        CHECK((pc.status() & 0x08) != 0);
        CHECK(pc.dev.state().waiting_for == (takes_data(command) ? command : 0));

        I8042State expected = before;
        expected.last_write_command = true;
        expected.waiting_for = pc.dev.state().waiting_for;
        expected.output_data = pc.dev.state().output_data;
        expected.response = pc.dev.state().response;
        switch (command) {
            case 0xA8:
                expected.ram[0] = 0x45;
                break;
            case 0xAD:
                expected.ram[0] = 0x75;
                break;
            case 0xDD:
                expected.output_port = 0xCD;
                break;
            default:
                break;
        }
        CHECK_SAME_STATE(pc.dev.state(), expected);
    }
}

TEST_CASE("I8042: unknown commands are counted and change nothing", "[i8042]") {
    Pc pc;
    pc.command(0x00);
    pc.command(0xBF);
    CHECK(pc.dev.counters().unknown_commands == 2);
    pc.command(0xAA);
    CHECK(pc.dev.counters().unknown_commands == 2);
}

TEST_CASE("I8042: the 31 bytes of RAM after the command byte hold any value", "[i8042]") {
    Pc pc;
    for (int i = 1; i < 32; ++i) {
        pc.command(static_cast<std::uint8_t>(0x60 + i), static_cast<std::uint8_t>(0xFF - i));
    }
    for (int i = 1; i < 32; ++i) {
        pc.command(static_cast<std::uint8_t>(0x20 + i));
        CHECK(pc.data() == 0xFF - i);
    }
    CHECK(pc.ctr() == 0x65);
}

TEST_CASE("I8042: the command byte keeps all bits but 7, and its system flag shows in the status",
          "[i8042]") {
    Pc pc;
    for (int value = 0; value < 256; ++value) {
        pc.set_ctr(static_cast<std::uint8_t>(value));
        CHECK(pc.ctr() == (value & 0x7F));
        CHECK(((pc.status() & 0x04) != 0) == ((value & 0x04) != 0));
    }
    pc.set_ctr(0x00);
    pc.command(0xAA);
    CHECK(pc.data() == 0x55);
    CHECK((pc.status() & 0x04) != 0);
}

TEST_CASE("I8042: enable and disable commands change the command byte's bits", "[i8042]") {
    Pc pc;
    pc.set_ctr(0x00);
    pc.command(0xA7);
    CHECK(pc.ctr() == 0x20);
    pc.command(0xAD);
    CHECK(pc.ctr() == 0x30);
    pc.command(0xE0);
    CHECK(pc.data() == 0x00);
    pc.command(0xA8);
    CHECK(pc.ctr() == 0x10);
    pc.command(0xAE);
    CHECK(pc.ctr() == 0x00);
    pc.command(0xE0);
    CHECK(pc.data() == 0x03);
}

TEST_CASE("I8042: a byte to a device enables its port", "[i8042]") {
    Pc pc;
    pc.set_ctr(0x30);
    pc.put(0xEE);
    CHECK(pc.next() == 0xEE);
    CHECK(pc.ctr() == 0x20);
    pc.command(0xD4, 0xF5);
    CHECK(pc.output_from_aux());
    CHECK(pc.data() == 0xFA);
    CHECK(pc.ctr() == 0x00);
}

TEST_CASE("I8042: status shows whether the last write went to 0x64 or 0x60, and is never busy", "[i8042]") {
    Pc pc;
    pc.command(0xD1);
    CHECK((pc.status() & 0x0A) == 0x08);
    pc.put(0xDF);
    CHECK((pc.status() & 0x0A) == 0x00);
}

TEST_CASE("I8042: the output port shows the output buffer's state and gates A20", "[i8042]") {
    Pc pc;
    CHECK(pc.dev.a20_enabled());
    pc.command(0xD1, 0xDD);
    CHECK_FALSE(pc.dev.a20_enabled());
    pc.command(0xD0);
    CHECK(pc.data() == 0xCD);
    pc.command(0xD1, 0xDD);
    CHECK(pc.a20 == std::vector<bool>{false});
    pc.command(0xD1, 0x03);
    CHECK(pc.a20 == std::vector<bool>{false, true});
    pc.command(0xD0);
    CHECK(pc.data() == 0x03);
    pc.command(0xDD);
    pc.command(0xDF);
    CHECK(pc.a20 == std::vector<bool>{false, true, false, true});
    CHECK(pc.resets == 0);
    // With a byte in the output buffer its interrupt source is visible.
    pc.dev.press(Key::a);
    pc.command(0xD0);
    CHECK(pc.data() == 0x1E);
    CHECK(pc.data() == (0x03 | 0x10));
    pc.command(0xD3, 0x00);
    pc.command(0xD0);
    CHECK(pc.data() == 0x00);
    CHECK(pc.data() == (0x03 | 0x20));
}

TEST_CASE("I8042: clearing bit 0 of the output port resets the CPU", "[i8042]") {
    Pc pc;
    pc.command(0xD1, 0xDE);
    CHECK(pc.resets == 1);
    CHECK(pc.dev.a20_enabled());
    pc.command(0xD0);
    CHECK((pc.data() & 0x01) == 1);
    pc.command(0xD1, 0x00);
    CHECK(pc.resets == 2);
    CHECK(pc.a20 == std::vector<bool>{false});
}

TEST_CASE("I8042: a command replaces one that still waits for its data", "[i8042]") {
    Pc pc;
    pc.command(0xD1);
    pc.command(0x60);
    pc.put(0x00);
    CHECK(pc.resets == 0);
    CHECK(pc.ctr() == 0x00);
    pc.command(0xD1);
    pc.command(0xAA);
    CHECK(pc.data() == 0x55);
    pc.put(0xEE);
    CHECK(pc.next() == 0xEE);
    CHECK(pc.resets == 0);
}

TEST_CASE("I8042: 0xD2 and 0xD3 loop a byte back as if a device had sent it", "[i8042]") {
    Pc pc;
    pc.set_ctr(0x47);
    for (int value = 0; value < 256; ++value) {
        pc.command(0xD2, static_cast<std::uint8_t>(value));
        CHECK((pc.status() & 0x21) == 0x01);
        CHECK(pc.data() == value);
        pc.command(0xD3, static_cast<std::uint8_t>(value));
        CHECK((pc.status() & 0x21) == 0x21);
        CHECK(pc.data() == value);
        CHECK_FALSE(pc.output_full());
    }
    CHECK(pc.irq1 == 256);
    CHECK(pc.irq12 == 256);
}

TEST_CASE("I8042: IRQ 1 and IRQ 12 follow the output buffer and their enables", "[i8042][irq]") {
    Pc pc;
    pc.set_ctr(0x00);
    pc.command(0xD2, 1);
    CHECK(pc.irq1 == 0);
    // Enabling the interrupt while a byte waits raises the line.
    pc.set_ctr(0x03);
    CHECK(pc.irq1 == 1);
    CHECK(pc.irq12 == 0);
    pc.data();
    CHECK(pc.irq1 == 1);
    pc.command(0xD3, 2);
    CHECK(pc.irq12 == 1);
    CHECK(pc.irq1 == 1);
    // Reading the status has no effect on the line.
    for (int i = 0; i < 10; ++i) {
        CHECK(pc.output_from_aux());
    }
    pc.set_ctr(0x01);
    pc.set_ctr(0x03);
    CHECK(pc.irq12 == 2);
    CHECK(pc.data() == 2);
    CHECK(pc.irq12 == 2);
    CHECK(pc.irq1 == 1);
}

TEST_CASE("I8042: after a byte is read the next one arrives, with its own edge", "[i8042][irq]") {
    Pc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    pc.dev.press(Key::c);
    CHECK(pc.irq1 == 1);
    CHECK(pc.data() == 0x1E);
    CHECK(pc.irq1 == 2);
    CHECK(pc.data() == 0x30);
    CHECK(pc.irq1 == 3);
    CHECK(pc.data() == 0x2E);
    CHECK(pc.irq1 == 3);
    // An empty output buffer shows the last byte again, which causes no interrupt.
    CHECK(pc.data() == 0x2E);
    CHECK(pc.irq1 == 3);
}

TEST_CASE("I8042: a level trigger receives each change of the line once, also a fall between two bytes",
          "[i8042][irq]") {
    std::vector<bool> levels;
    int edges = 0;
    int resets = 0;
    I8042 dev(ps2::CountingTrigger{&resets}, ps2::RecordingLevel{&levels, &edges});
    dev.press(Key::a);
    dev.press(Key::b);
    CHECK(levels == std::vector<bool>{true});
    dev.read(0);
    CHECK(levels == std::vector<bool>{true, false, true});
    dev.read(1);  // not a register: nothing changes
    CHECK(levels == std::vector<bool>{true, false, true});
    dev.read(0);
    CHECK(levels == std::vector<bool>{true, false, true, false});
    CHECK(edges == 0);
}

TEST_CASE("I8042: an interrupt trigger's error is counted, and the byte stays readable", "[i8042][irq]") {
    Pc pc;
    pc.irq_fails = true;
    CHECK(pc.dev.press(Key::a));
    CHECK(pc.command(0xAA));
    CHECK(pc.dev.counters().interrupt_errors == 1);
    CHECK(pc.data() == 0x1E);
    CHECK(pc.data() == 0x55);
}

TEST_CASE("I8042: the controller's answer comes after the byte in the buffer and before those of the devices",
          "[i8042]") {
    Pc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    pc.command(0xAA);
    CHECK(pc.drain() == Bytes{0x1E, 0x55, 0x30});
}

TEST_CASE("I8042: a disabled port holds back its bytes until it is enabled", "[i8042]") {
    Pc pc;
    pc.command(0xAD);
    pc.dev.press(Key::a);
    CHECK_FALSE(pc.output_full());
    pc.command(0xAE);
    CHECK(pc.next() == 0x1E);

    CHECK(pc.mouse({0xF4}) == Bytes{0xFA});
    pc.command(0xA7);
    pc.dev.move_mouse({.x = 1});
    CHECK_FALSE(pc.output_full());
    pc.command(0xA8);
    CHECK(pc.drain() == Bytes{0x08, 0x01, 0x00});
}

TEST_CASE("I8042: a device that is not plugged in times out with 0xFE", "[i8042]") {
    Pc pc({.keyboard = false, .mouse = false});
    pc.put(0xFF);
    CHECK((pc.status() & 0xE1) == 0x41);
    CHECK(pc.data() == 0xFE);
    CHECK((pc.status() & 0xE1) == 0x00);
    pc.command(0xD4, 0xFF);
    CHECK((pc.status() & 0xE1) == 0x61);
    CHECK(pc.data() == 0xFE);
    CHECK(pc.dev.press(Key::a));
    pc.dev.move_mouse({.x = 1});
    CHECK_FALSE(pc.output_full());
    // The interfaces themselves pass their tests nevertheless.
    pc.command(0xA9);
    CHECK(pc.data() == 0x00);
}

TEST_CASE("I8042: the minimal profile resets the CPU, reads 0 and does nothing else", "[i8042][profile]") {
    Pc pc({.profile = I8042Profile::minimal});
    const I8042State before = pc.dev.state();
    for (int offset = 0; offset < 256; ++offset) {
        for (int value = 0; value < 256; ++value) {
            if (offset != 4 || value != 0xFE) {
                CHECK(pc.dev.write(static_cast<std::uint8_t>(offset), static_cast<std::uint8_t>(value)));
            }
        }
        CHECK(pc.dev.read(static_cast<std::uint8_t>(offset)) == 0);
    }
    pc.dev.press(Key::a);
    pc.dev.move_mouse({.x = 1});
    CHECK(pc.dev.ctrl_alt_del());
    CHECK_SAME_STATE(pc.dev.state(), before);
    CHECK(pc.resets == 0);
    CHECK(pc.irq1 + pc.irq12 == 0);
    CHECK(pc.command(0xFE));
    CHECK(pc.resets == 1);
}

TEST_CASE("I8042: the absent profile reads 0xFF and does nothing", "[i8042][profile]") {
    Pc pc({.profile = I8042Profile::absent});
    for (int offset = 0; offset < 256; ++offset) {
        CHECK(pc.dev.write(static_cast<std::uint8_t>(offset), 0xFE));
        CHECK(pc.dev.read(static_cast<std::uint8_t>(offset)) == 0xFF);
        CHECK(pc.dev.peek(static_cast<std::uint8_t>(offset)) == 0xFF);
    }
    CHECK(pc.resets == 0);
    CHECK(pc.dev.ctrl_alt_del());
    CHECK(pc.irq1 == 0);
}

TEST_CASE("I8042: reset restores the power-on state and keeps the devices that are plugged in", "[i8042]") {
    Pc pc({.mouse = false, .command_byte = 0x45});
    const I8042State fresh = pc.dev.state();
    pc.keyboard({0xED, 0x07});
    pc.command(0xD1, 0xDD);
    pc.command(0x61, 0x12);
    pc.dev.press(Key::a);
    pc.dev.reset();
    CHECK_SAME_STATE(pc.dev.state(), fresh);
    CHECK(pc.a20 == std::vector<bool>{false, true});
    CHECK(pc.leds == Bytes{0x07, 0x00});
    CHECK(pc.resets == 0);
}

TEST_CASE("I8042: a default-constructed state is that of a device that has just been reset",
          "[i8042][snapshot]") {
    Pc pc;
    CHECK_SAME_STATE(pc.dev.state(), I8042State{});
    auto restored = pc.restored(I8042State{});
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), I8042State{});
    pc.keyboard({0xED, 0x07});
    pc.dev.press(Key::left_shift);
    pc.dev.press(Key::insert);
    pc.mouse({0xF4});
    pc.dev.move_mouse({.x = 1, .buttons = 1});
    pc.dev.reset();
    CHECK_SAME_STATE(pc.dev.state(), I8042State{});
    CHECK(pc.irq12 == 0);
}

TEST_CASE("I8042: inspect names each member of the state with its value, and has no effect", "[i8042]") {
    Pc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::up);
    pc.mouse({0xF4});
    pc.dev.move_mouse({.x = -5, .buttons = 1});
    const I8042State before = pc.dev.state();
    const std::string text = pc.dev.inspect();
    CHECK_SAME_STATE(pc.dev.state(), before);
    CHECK(text.starts_with("status=0x"));
    for (const std::string_view line :
         {"profile=full", "keyboard_present=yes",
          "output_port=0xCF [not_reset a20_gate aux_data aux_clock keyboard_clock keyboard_data]",
          "waiting_for=0x00", "keyboard.scan_code_set=2", "keyboard.replies=none", "mouse.reporting=yes",
          "mouse.x=0", "mouse.sample_rate=100", "mouse.buttons=0x01 [left]", "reset_a20=yes",
          "hold_left=0"}) {
        INFO(line);
        CHECK(text.find("\n" + std::string(line) + "\n") != std::string::npos);
    }
    CHECK(
        I8042(vmsuperio::NullTrigger{}, {.profile = I8042Profile::absent}).inspect().find("profile=absent") !=
        std::string::npos);
    pc.command(0xAD);
    pc.dev.press(Key::up);
    CHECK(pc.dev.inspect().find("keyboard.keys=E0 75\n") != std::string::npos);
}

TEST_CASE("I8042: inspect names the commands that wait for a parameter, and the bits of bytes", "[i8042]") {
    Pc pc;
    pc.keyboard({0xED, 0x02, 0xF3});
    pc.mouse({0xE8});
    pc.dev.press(Key::right_alt);
    pc.command(0xD4);
    const std::string text = pc.dev.inspect();
    for (const std::string_view line :
         {"waiting_for=0xD4 write_aux", "keyboard.waiting_for=0xF3 set_typematic",
          "keyboard.leds=0x02 [num_lock]", "keyboard.typematic=0x2B [rate=11 delay=1]",
          "keyboard.modifiers=0x20 [right_alt]", "mouse.waiting_for=0xE8 set_resolution"}) {
        INFO(line);
        CHECK(text.find("\n" + std::string(line) + "\n") != std::string::npos);
    }
    pc.command(0x61);
    CHECK(pc.dev.inspect().find("\nwaiting_for=0x61 write_ram\n") != std::string::npos);
}

TEST_CASE("I8042: each command byte has its name, and no other byte has one", "[i8042]") {
    using vmsuperio::i8042::Command;
    using vmsuperio::ps2::KeyboardCommand;
    using vmsuperio::ps2::MouseCommand;
    std::map<int, std::string_view> controller{
        {0xA4, "test_password"},    {0xA7, "disable_aux"},       {0xA8, "enable_aux"},
        {0xA9, "test_aux"},         {0xAA, "self_test"},         {0xAB, "test_keyboard"},
        {0xAD, "disable_keyboard"}, {0xAE, "enable_keyboard"},   {0xC0, "read_input_port"},
        {0xD0, "read_output_port"}, {0xD1, "write_output_port"}, {0xD2, "write_keyboard_output"},
        {0xD3, "write_aux_output"}, {0xD4, "write_aux"},         {0xDD, "disable_a20"},
        {0xDF, "enable_a20"},       {0xE0, "read_test_inputs"}};
    for (int operand = 0; operand < 0x20; ++operand) {
        controller[0x20 + operand] = "read_ram";
        controller[0x60 + operand] = "write_ram";
        controller[0xF0 + operand % 0x10] = "pulse_output";
    }
    const std::map<int, std::string_view> keyboard{
        {0xED, "set_leds"},        {0xEE, "echo"},           {0xF0, "scan_code_set"},
        {0xF2, "identify"},        {0xF3, "set_typematic"},  {0xF4, "enable"},
        {0xF5, "default_disable"}, {0xF6, "set_default"},    {0xF7, "all_typematic"},
        {0xF8, "all_make_break"},  {0xF9, "all_make"},       {0xFA, "all_typematic_make_break"},
        {0xFB, "key_typematic"},   {0xFC, "key_make_break"}, {0xFD, "key_make"},
        {0xFE, "resend"},          {0xFF, "reset"}};
    const std::map<int, std::string_view> mouse{
        {0xE6, "scaling_1_1"}, {0xE7, "scaling_2_1"}, {0xE8, "set_resolution"},  {0xE9, "status_request"},
        {0xEA, "set_stream"},  {0xEB, "read_data"},   {0xEC, "reset_wrap"},      {0xEE, "set_wrap"},
        {0xF0, "set_remote"},  {0xF2, "identify"},    {0xF3, "set_sample_rate"}, {0xF4, "enable"},
        {0xF5, "disable"},     {0xF6, "set_default"}, {0xFE, "resend"},          {0xFF, "reset"}};
    const auto name_in = [](const std::map<int, std::string_view>& names, int byte) {
        const auto found = names.find(byte);
        return found == names.end() ? std::string_view{} : found->second;
    };
    for (int byte = 0; byte <= 0xFF; ++byte) {
        CAPTURE(byte);
        const auto value = static_cast<std::uint8_t>(byte);
        CHECK(to_string(Command{value}) == name_in(controller, byte));
        CHECK(to_string(KeyboardCommand{value}) == name_in(keyboard, byte));
        CHECK(to_string(MouseCommand{value}) == name_in(mouse, byte));
        // The device does not know a command without a name.
        Pc pc;
        pc.command(value);
        CHECK((pc.dev.counters().unknown_commands == 0) == controller.contains(byte));
        CHECK((pc.dev.state().waiting_for != 0) == takes_data(Command{value}));
    }
}

TEST_CASE("I8042: all host errors are counted in one place and reported when they occur", "[i8042]") {
    using vmsuperio::HostErrorSource;
    std::vector<HostErrorSource> errors;
    int calls = 0;
    const bool fails = true;
    const ps2::CountingTrigger trigger{&calls, &fails};
    I8042 dev(trigger, trigger, trigger, recorders::HostErrorEvents{&errors});
    CHECK(dev.write(4, 0xAA).has_value());  // the interrupt of the answer fails, and the write does not
    CHECK(errors == std::vector{HostErrorSource::interrupt});
    dev.press(Key::a);
    dev.read(0);  // a read fails likewise
    CHECK(errors == std::vector{HostErrorSource::interrupt, HostErrorSource::interrupt});
    CHECK(dev.write(4, 0xFE) == std::expected<void, int>(std::unexpected(7)));
    CHECK(errors.back() == HostErrorSource::reset);
    CHECK(dev.host_errors() == vmsuperio::HostErrors{.interrupt = 2, .reset = 1});
    CHECK(dev.counters().interrupt_errors == 2);
    CHECK(calls == 3);
}

TEST_CASE("I8042: the device works at compile time", "[i8042]") {
    constexpr auto booted = [] {
        using Device = I8042<vmsuperio::NullTrigger, vmsuperio::NullTrigger, vmsuperio::NullTrigger,
                             vmsuperio::NoI8042Events, vmsuperio::ManualClock>;
        Device dev({}, {}, {}, {}, vmsuperio::ManualClock(), {});
        static_cast<void>(dev.write(4, 0xAA));
        const bool passed = dev.read(0) == 0x55;
        static_cast<void>(dev.write(4, 0xDD));
        dev.press(Key::a);
        dev.move_mouse({.x = 1});
        return passed && !dev.a20_enabled() && dev.read(0) == 0x1E &&
               Device::from_state(dev.state(), {}).has_value();
    };
    STATIC_REQUIRE(booted());
}

TEST_CASE("I8042: reset keeps the counters since construction", "[i8042]") {
    Pc pc;
    pc.command(0x00);
    pc.dev.reset();
    CHECK(pc.dev.counters().unknown_commands == 1);
}

TEST_CASE("I8042: after power-on A20 is low, the ports are disabled and the self-test results wait",
          "[i8042][cold]") {
    Pc pc(vmsuperio::I8042Options::power_on());
    const I8042State cold = pc.dev.state();
    CHECK_FALSE(pc.dev.a20_enabled());
    CHECK(pc.a20.empty());  // nothing has changed yet
    CHECK(pc.status() == 0x10);
    CHECK(pc.irq1 + pc.irq12 == 0);
    CHECK(pc.ctr() == 0x30);
    pc.command(0xD0);
    CHECK(pc.data() == 0xCD);
    pc.command(0xAA);
    CHECK(pc.data() == 0x55);
    CHECK((pc.status() & 0x04) != 0);
    // Each port delivers its result as soon as it is enabled.
    pc.command(0xAE);
    CHECK((pc.status() & 0x21) == 0x01);
    CHECK(pc.drain() == Bytes{0xAA});
    pc.command(0xA8);
    CHECK(pc.output_from_aux());
    CHECK(pc.drain() == Bytes{0xAA, 0x00});
    CHECK(pc.irq1 + pc.irq12 == 0);
    CHECK(pc.mouse({0xFE}) == Bytes{0xAA, 0x00});
    pc.command(0xD1, 0xDF);
    CHECK(pc.a20 == std::vector<bool>{true});
    pc.dev.reset();
    CHECK_SAME_STATE(pc.dev.state(), cold);
    CHECK(pc.a20 == std::vector<bool>{true, false});
    auto restored = pc.restored(cold);
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), cold);
}

TEST_CASE("I8042: after power-on an absent device has no result, and an absent controller none at all",
          "[i8042][cold]") {
    vmsuperio::I8042Options options = vmsuperio::I8042Options::power_on();
    options.keyboard = false;
    options.mouse = false;
    Pc pc(options);
    pc.command(0xAE);
    pc.command(0xA8);
    CHECK_FALSE(pc.output_full());
    for (const I8042Profile profile : {I8042Profile::minimal, I8042Profile::absent}) {
        vmsuperio::I8042Options none = vmsuperio::I8042Options::power_on();
        none.profile = profile;
        none.command_byte = 0x03;
        Pc other(none);
        CHECK(other.irq1 + other.irq12 == 0);
        CHECK(other.restored(other.dev.state()).has_value());
    }
}

TEST_CASE("I8042: a self-test result behind an enabled port raises its interrupt at once",
          "[i8042][cold][irq]") {
    Pc pc({.command_byte = 0x01, .self_tests = true});
    CHECK(pc.irq1 == 1);
    CHECK(pc.data() == 0xAA);
    CHECK(pc.irq1 == 1);
}

TEST_CASE("I8042: a state saved by version 1 is read, and the device continues from it",
          "[i8042][snapshot]") {
    // A wheel mouse whose first packet is half read and followed by a second one; an LED command that waits
    // for its parameter, followed by two keys: as the first version encoded it.
    const Bytes saved{
        0x38, 0x30, 0x34, 0x32, 0x01, 0x00, 0x01, 0x00, 0x74, 0x00, 0x00, 0x00, 0x00, 0x01, 0x01, 0x65,
        0x47, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0xCF, 0x00, 0x00, 0x01, 0x05, 0x20, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x2B, 0xED, 0x00, 0xFA,
        0x00, 0x00, 0x00, 0x01, 0x1C, 0xE0, 0x75, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x03, 0x03, 0x01, 0x00, 0x00, 0x00, 0x02, 0x50, 0x64, 0x50, 0x00, 0x00, 0x05,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFA,
        0x01, 0x08, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06};
    const auto state = vmsuperio::decode<I8042State>(saved);
    REQUIRE(state.has_value());
    CHECK(state->keyboard.modifiers == 0);
    CHECK(state->keyboard.forms == std::array<std::uint8_t, 13>{});
    CHECK(state->mouse.last_packet.empty());
    CHECK(state->mouse.reported_buttons == 0);
    CHECK(state->reset_a20);
    CHECK_FALSE(state->reset_self_tests);
    CHECK(state->hold_left == 0);
    // The present encoding contains its version, and a reader of version 1 may skip members that it does not
    // know.
    const Bytes now = vmsuperio::encode(*state);
    CHECK(now[4] == 2);
    CHECK(now[6] == 1);
    CHECK(std::vector(now.begin() + 12, now.begin() + 128) == std::vector(saved.begin() + 12, saved.end()));

    Pc pc;
    auto restored = pc.restored(*state);
    REQUIRE(restored.has_value());
    Bytes seen;
    while ((restored->read(4) & 0x01) != 0 && seen.size() < 100) {
        seen.push_back(restored->read(0));
    }
    CHECK(seen == Bytes{0x05, 0xFA, 0xFA, 0x01, 0x08, 0x07, 0x00, 0x00});
    CHECK(restored->write(0, 0x02).has_value());
    seen.clear();
    while ((restored->read(4) & 0x01) != 0 && seen.size() < 100) {
        seen.push_back(restored->read(0));
    }
    CHECK(seen == Bytes{0xFA, 0x1E, 0xE0, 0x48});
    CHECK(restored->leds() == 0x02);
}

TEST_CASE("I8042: a mouse saved by version 1 reports a change of buttons that was due", "[i8042][snapshot]") {
    Pc pc;
    I8042State state;
    state.ram[0] = 0x47;
    state.mouse.reporting = true;
    state.mouse.buttons_changed = true;  // released, and the packet had no room
    auto restored = pc.restored(state);
    REQUIRE(restored.has_value());
    restored->move_mouse({});
    CHECK(restored->read(0) == 0x08);
    CHECK(restored->read(0) == 0x00);
    CHECK(restored->read(0) == 0x00);
    restored->move_mouse({});
    CHECK((restored->read(4) & 0x01) == 0);
}

TEST_CASE("I8042: peek has no side effect", "[i8042]") {
    Pc pc;
    pc.dev.press(Key::a);
    pc.dev.press(Key::b);
    const I8042State before = pc.dev.state();
    for (int i = 0; i < 5; ++i) {
        CHECK(pc.dev.peek(0) == 0x1E);
        CHECK((pc.dev.peek(4) & 0x01) == 0x01);
    }
    CHECK_SAME_STATE(pc.dev.state(), before);
    CHECK(pc.irq1 == 1);
}

namespace {

/// A random access of a guest, or a key or mouse movement of the host.
void random_step(ps2::Device& dev, std::mt19937& random) {
    const auto byte = [&random] { return static_cast<std::uint8_t>(random()); };
    switch (random() % 8) {
        case 0:
        case 1:
            (void)dev.write(4, byte());
            break;
        case 2:
            (void)dev.write(0, byte());
            break;
        case 3:
            // Makes valid commands more frequent.
            (void)dev.write(4, 0xD4);
            (void)dev.write(0, static_cast<std::uint8_t>(0xE6 + random() % 26));
            break;
        case 4:
            dev.key(ps2::key_number(static_cast<unsigned>(random() % 140)), random() % 2 == 0);
            break;
        case 5:
            dev.move_mouse({.x = static_cast<std::int32_t>(random()),
                            .y = static_cast<std::int32_t>(random() % 1000) - 500,
                            .wheel = static_cast<std::int32_t>(random() % 20) - 10,
                            .buttons = byte()});
            break;
        case 6:
            (void)dev.write(byte(), byte());
            break;
        default:
            (void)dev.read(random() % 2 == 0 ? 0 : 4);
            break;
    }
}

}  // namespace

TEST_CASE("I8042: hostile sequences always lead to a valid state of constant size", "[i8042][fuzz]") {
    STATIC_REQUIRE(std::is_trivially_copyable_v<I8042State>);
    Pc pc;
    std::mt19937 random(20240611);
    for (int step = 0; step < 200'000; ++step) {
        random_step(pc.dev, random);
        const I8042State state = pc.dev.state();
        if (!vmsuperio::validate(state)) {
            FAIL("invalid state at step " << step);
        }
        // No byte may wait while the output buffer is empty, because the guest would never get it.
        const bool keyboard_on = (state.ram[0] & 0x10) == 0;
        const bool aux_on = (state.ram[0] & 0x20) == 0;
        const bool keyboard_waits =
            keyboard_on && (!state.keyboard.replies.empty() ||
                            (state.keyboard.waiting_for == 0 && !state.keyboard.keys.empty()));
        const bool aux_waits = aux_on && (!state.mouse.replies.empty() || !state.mouse.packets.empty());
        if (!state.output_full && (state.response_waiting || keyboard_waits || aux_waits)) {
            FAIL("a byte is stuck at step " << step);
        }
    }
    CHECK(pc.resets > 0);
    CHECK(pc.irq1 > 0);
    CHECK(pc.irq12 > 0);
}

TEST_CASE("I8042: a saved and restored device continues like the original, at every step",
          "[i8042][snapshot]") {
    Pc original;
    Pc other;
    std::mt19937 random(7);
    for (int round = 0; round < 2000; ++round) {
        for (int step = 0; step < 5; ++step) {
            random_step(original.dev, random);
        }
        const I8042State state = original.dev.state();
        const auto decoded = vmsuperio::decode<I8042State>(vmsuperio::encode(state));
        REQUIRE(decoded.has_value());
        REQUIRE_SAME_STATE(*decoded, state);
        other.irq1 = 0;
        other.irq12 = 0;
        auto restored = other.restored(*decoded);
        REQUIRE(restored.has_value());
        REQUIRE_SAME_STATE(restored->state(), state);
        // A line that was high is raised again, and only that one.
        const bool full = (state.output_full);
        const bool aux = (state.output_flags & 0x20) != 0;
        CHECK(other.irq1 == (full && !aux && (state.ram[0] & 0x01) != 0 ? 1 : 0));
        CHECK(other.irq12 == (full && aux && (state.ram[0] & 0x02) != 0 ? 1 : 0));
        std::mt19937 left(static_cast<unsigned>(round));
        std::mt19937 right(static_cast<unsigned>(round));
        for (int step = 0; step < 20; ++step) {
            random_step(original.dev, left);
            random_step(*restored, right);
        }
        REQUIRE_SAME_STATE(restored->state(), original.dev.state());
    }
}

TEST_CASE("I8042: from_state refuses each value that no controller can have", "[i8042][snapshot]") {
    Pc pc;
    const I8042State good = pc.dev.state();
    REQUIRE(pc.restored(good).has_value());
    for (const std::uint8_t id : {std::uint8_t{3}, std::uint8_t{4}}) {
        I8042State other_mouse = good;
        other_mouse.mouse.id = id;
        REQUIRE(pc.restored(other_mouse).has_value());
        CHECK_SAME_STATE(pc.restored(other_mouse)->state(), other_mouse);
    }
    const auto refuses = [&](auto change, std::string_view field) {
        I8042State bad = good;
        change(bad);
        const auto result = pc.restored(bad);
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().field == field);
    };
    // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): a saved state may contain it
    refuses([](I8042State& s) { s.profile = static_cast<I8042Profile>(3); }, "profile");
    refuses([](I8042State& s) { s.ram[0] = 0x80; }, "ram");
    refuses([](I8042State& s) { s.reset_command_byte = 0x80; }, "reset_command_byte");
    refuses([](I8042State& s) { s.output_port = 0xCE; }, "output_port");
    refuses([](I8042State& s) { s.output_port = 0xDF; }, "output_port");
    refuses([](I8042State& s) { s.output_port = 0xEF; }, "output_port");
    refuses([](I8042State& s) { s.waiting_for = 0xAA; }, "waiting_for");
    refuses([](I8042State& s) { s.output_flags = 0x20; }, "output_flags");
    refuses([](I8042State& s) { s.response_flags = 0x01; }, "response_flags");
    refuses([](I8042State& s) { s.keyboard.scan_code_set = 0; }, "keyboard.scan_code_set");
    refuses([](I8042State& s) { s.keyboard.scan_code_set = 4; }, "keyboard.scan_code_set");
    refuses([](I8042State& s) { s.keyboard.leds = 8; }, "keyboard.leds");
    refuses([](I8042State& s) { s.keyboard.typematic = 0x80; }, "keyboard.typematic");
    refuses([](I8042State& s) { s.keyboard.waiting_for = 0xF2; }, "keyboard.waiting_for");
    refuses([](I8042State& s) { s.keyboard.keys.count = 16; }, "keyboard.keys");
    refuses([](I8042State& s) { s.keyboard.replies.count = 255; }, "keyboard.replies");
    refuses([](I8042State& s) { s.mouse.id = 1; }, "mouse.id");
    refuses([](I8042State& s) { s.mouse.resolution = 4; }, "mouse.resolution");
    refuses([](I8042State& s) { s.mouse.sample_rate = 0; }, "mouse.sample_rate");
    refuses([](I8042State& s) { s.mouse.buttons = 0x20; }, "mouse.buttons");
    refuses([](I8042State& s) { s.mouse.x = -0x8000; }, "mouse.x");
    refuses([](I8042State& s) { s.mouse.y = -0x8000; }, "mouse.y");
    refuses([](I8042State& s) { s.mouse.wheel = -0x8000; }, "mouse.wheel");
    refuses([](I8042State& s) { s.mouse.id = 2; }, "mouse.id");
    refuses([](I8042State& s) { s.mouse.id = 5; }, "mouse.id");
    refuses([](I8042State& s) { s.mouse.waiting_for = 0xFF; }, "mouse.waiting_for");
    refuses([](I8042State& s) { s.mouse.packets.count = 17; }, "mouse.packets");
    refuses([](I8042State& s) { s.mouse.replies.count = 7; }, "mouse.replies");
    refuses([](I8042State& s) { s.keyboard.modifiers = 0x80; }, "keyboard.modifiers");
    for (std::size_t key = 0; key < good.keyboard.forms.size(); ++key) {
        for (const int form : {0x02, 0x04, 0x08, 0x10, 0x0B, 0x0D, 0x13, 0x15, 0x19, 0x21, 0x80}) {
            I8042State bad = good;
            bad.keyboard.forms[key] = static_cast<std::uint8_t>(form);
            const auto result = pc.restored(bad);
            REQUIRE_FALSE(result.has_value());
            CHECK(result.error().field == "keyboard.forms");
        }
    }
    refuses([](I8042State& s) { s.mouse.last_packet.count = 5; }, "mouse.last_packet");
    refuses([](I8042State& s) { s.mouse.reported_buttons = 0x20; }, "mouse.reported_buttons");
    refuses([](I8042State& s) { s.hold_left = 1'000'000'001; }, "hold_left");
}

TEST_CASE("I8042: a saved device that is absent and has queued bytes is refused",
          "[i8042][snapshot][hostile]") {
    const vmsuperio::I8042Options no_keyboard{.keyboard = false};
    const vmsuperio::I8042Options no_mouse{.mouse = false};
    const vmsuperio::I8042Options minimal{.profile = I8042Profile::minimal};
    const vmsuperio::I8042Options absent{.profile = I8042Profile::absent};
    const auto refused = [](const vmsuperio::I8042Options& options, auto change) {
        I8042State state = Pc(options).dev.state();
        REQUIRE(vmsuperio::validate(state).has_value());
        change(state);
        const auto valid = vmsuperio::validate(state);
        return valid ? std::string("accepted") : std::string(valid.error().field);
    };
    const auto reply = [](I8042State& s) { s.keyboard.replies.push(0xAA); };
    const auto key = [](I8042State& s) { s.keyboard.keys.push(0x1C); };
    const auto mouse_reply = [](I8042State& s) { s.mouse.replies.push(0xFA); };
    const auto packet = [](I8042State& s) { s.mouse.packets.push(0x08); };
    for (const vmsuperio::I8042Options& options : {no_keyboard, minimal, absent}) {
        CHECK(refused(options, reply) == "keyboard.replies");
        CHECK(refused(options, key) == "keyboard.keys");
    }
    for (const vmsuperio::I8042Options& options : {no_mouse, minimal, absent}) {
        CHECK(refused(options, mouse_reply) == "mouse.replies");
        CHECK(refused(options, packet) == "mouse.packets");
    }
    CHECK(refused(no_mouse, key) == "accepted");
    CHECK(refused(no_keyboard, packet) == "accepted");
}

TEST_CASE("I8042: restoring random bytes either fails or creates a device that works",
          "[i8042][snapshot][fuzz]") {
    Pc pc;
    std::mt19937 random(99);
    int accepted = 0;
    const Bytes good = vmsuperio::encode(pc.dev.state());
    for (int round = 0; round < 20'000; ++round) {
        Bytes bytes = good;
        for (int change = 0; change < 3; ++change) {
            bytes[12 + random() % (bytes.size() - 12)] = static_cast<std::uint8_t>(random());
        }
        const auto state = vmsuperio::decode<I8042State>(bytes);
        if (!state) {
            continue;
        }
        auto restored = pc.restored(*state);
        if (!restored) {
            continue;
        }
        ++accepted;
        for (int step = 0; step < 20; ++step) {
            random_step(*restored, random);
        }
        if (!vmsuperio::validate(restored->state())) {
            FAIL("invalid state in round " << round);
        }
    }
    CHECK(accepted > 100);
}

TEST_CASE("I8042: a saved state of the minimal profile that contains a keyboard's bytes raises no interrupt",
          "[i8042][hostile]") {
    I8042State state;
    state.profile = I8042Profile::minimal;
    state.hold_left = 1;
    state.keyboard.replies.push(0xAA);
    int interrupts = 0;
    const auto restored = I8042<vmsuperio::NullTrigger, ps2::CountingTrigger>::from_state(
        state, vmsuperio::NullTrigger{}, ps2::CountingTrigger{&interrupts});
    REQUIRE_FALSE(restored.has_value());
    CHECK(restored.error().field == "keyboard.replies");
    CHECK(interrupts == 0);
}
