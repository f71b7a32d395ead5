// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The accesses of systems other than those in ps2_drivers_test.cpp to the controller and its devices, step by
// step as in their sources. A wait that the driver would spend in a loop is a failure here.
#include <cstdint>
#include <optional>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "catch.hpp"
#include "ps2_harness.hpp"

using ps2::Bytes;
using ps2::Pc;
using vmsuperio::I8042Options;
using vmsuperio::Key;

namespace {

/// The controller's answer to a command.
std::uint8_t ask(Pc& pc, std::uint8_t command) {
    REQUIRE((pc.status() & 0x02) == 0);
    REQUIRE(pc.command(command));
    const std::optional<std::uint8_t> answer = pc.next();
    REQUIRE(answer.has_value());
    return *answer;
}

/// One byte to a device and its first answer, which must come from that device.
std::uint8_t send_to(Pc& pc, bool mouse, std::uint8_t byte) {
    if (mouse) {
        REQUIRE(pc.command(0xD4));
    }
    REQUIRE(pc.put(byte));
    REQUIRE(pc.output_full());
    REQUIRE(pc.output_from_aux() == mouse);
    return pc.data();
}
/// Bytes that must all be acknowledged, then an answer.
void expect(Pc& pc, bool mouse, const Bytes& sent, const Bytes& answer = {}) {
    for (const std::uint8_t byte : sent) {
        REQUIRE(send_to(pc, mouse, byte) == 0xFA);
    }
    CHECK(pc.drain() == answer);
}

}  // namespace

namespace serenity {

/// Kernel/Arch/x86_64/ISABus/I8042Controller.cpp: I8042Controller::drain_output_buffer.
bool drain_output_buffer(Pc& pc) {
    for (int attempt = 0; attempt < 50; ++attempt) {
        if (!pc.output_full()) {
            return true;
        }
        pc.data();
    }
    return false;
}
/// I8042Controller::do_write_to_device: repeats the byte while the device requests that.
std::uint8_t write_to_device(Pc& pc, bool mouse, std::uint8_t byte) {
    for (int attempts = 0; attempts < 250; ++attempts) {
        const std::uint8_t response = send_to(pc, mouse, byte);
        if (response != 0xFE) {
            return response;
        }
    }
    return 0xFE;
}
/// I8042Controller::do_reset_device, and PS2MouseDevice::reset_device for the id.
bool reset_device(Pc& pc, bool mouse) {
    return write_to_device(pc, mouse, 0xFF) == 0xFA && pc.next() == 0xAA && (!mouse || pc.next() == 0x00);
}

}  // namespace serenity

TEST_CASE("I8042: SerenityOS finds both ports and a mouse with five buttons", "[i8042][serenity]") {
    for (const bool typed : {false, true}) {
        Pc pc;
        if (typed) {
            for (int i = 0; i < 40; ++i) {
                pc.dev.press(Key::a);
            }
        }
        // I8042Controller::check_existence_via_probing
        REQUIRE(serenity::drain_output_buffer(pc));
        std::uint8_t configuration = ask(pc, 0x20);
        REQUIRE(ask(pc, 0xAA) == 0x55);  // it reads the answer at once, without checking the status
        pc.set_ctr(configuration);
        // I8042Controller::detect_devices
        REQUIRE(serenity::drain_output_buffer(pc));
        pc.command(0xAD);
        pc.command(0xA7);
        configuration = ask(pc, 0x20);
        configuration = static_cast<std::uint8_t>((configuration & ~0x03) | 0x40);
        pc.set_ctr(configuration);
        REQUIRE(ask(pc, 0xAA) == 0x55);
        pc.set_ctr(configuration);
        REQUIRE((configuration & 0x20) != 0);  // "dual channel": the second port's clock is disabled
        REQUIRE(ask(pc, 0xAB) == 0x00);
        pc.command(0xAE);
        REQUIRE(serenity::drain_output_buffer(pc));
        REQUIRE(ask(pc, 0xA9) == 0x00);
        pc.command(0xA8);
        configuration = static_cast<std::uint8_t>((configuration | 0x03) & ~0x30);
        pc.set_ctr(configuration);
        // PS2KeyboardDevice::initialize, PS2MouseDevice::initialize
        REQUIRE(serenity::reset_device(pc, false));
        REQUIRE(serenity::reset_device(pc, true));
        const auto send = [&](std::uint8_t byte) { return serenity::write_to_device(pc, true, byte); };
        CHECK(send(0xF6) == 0xFA);
        CHECK(send(0xF4) == 0xFA);
        // It enables the stream before it knocks. A movement of the mouse must not send a packet between a
        // command and its parameter, because the driver would take a byte of the packet for the answer.
        const auto set_sample_rate = [&](std::uint8_t rate) {
            REQUIRE(send(0xF3) == 0xFA);
            pc.dev.move_mouse({.x = 1});
            REQUIRE(send(rate) == 0xFA);
        };
        const auto id = [&] {
            // The movement in between is queued after the answer to the last rate, and the next command drops
            // it, except the byte that the controller already holds.
            pc.drain();
            REQUIRE(send(0xF2) == 0xFA);
            return pc.next();
        };
        for (const std::uint8_t rate : Bytes{200, 100, 80}) {
            set_sample_rate(rate);
            pc.drain();
        }
        CHECK(id() == 0x03);
        for (const std::uint8_t rate : Bytes{200, 200, 80}) {
            set_sample_rate(rate);
            pc.drain();
        }
        CHECK(id() == 0x04);
        CHECK_FALSE(pc.output_full());
        // PS2MouseDevice::parse_data_packet
        pc.dev.move_mouse({.x = -3, .y = 2, .wheel = 1, .buttons = 0x11});
        CHECK(pc.drain() == Bytes{0x19, 0xFD, 0x02, 0x21});
        pc.dev.press(Key::enter);
        CHECK(pc.drain() == Bytes{0x1C});
        CHECK(pc.resets == 0);
        CHECK(pc.dev.counters().unknown_commands == 0);
    }
}

namespace bsd {

/// sys/dev/ic/pckbc.c of OpenBSD and NetBSD: pckbc_poll_cmd1. A byte that is refused is sent again, at most
/// five times per command; other bytes are lost.
bool poll_cmd(Pc& pc, bool mouse, const Bytes& command, std::size_t length, Bytes& response) {
    int retries = 0;
    for (std::size_t at = 0; at < command.size();) {
        if (mouse) {
            pc.command(0xD4);
        }
        pc.put(command[at]);
        const std::optional<std::uint8_t> answer = pc.next();
        if (!answer) {
            return false;
        }
        if (*answer == 0xFA) {
            ++at;
        } else if (*answer == 0xFE && retries++ >= 5) {
            return false;
        }
    }
    response.clear();
    while (response.size() < length) {
        const std::optional<std::uint8_t> answer = pc.next();
        if (!answer) {
            return false;
        }
        response.push_back(*answer);
    }
    return true;
}

}  // namespace bsd

TEST_CASE("I8042: OpenBSD's and NetBSD's pckbc and pms find the keyboard and a wheel mouse",
          "[i8042][netbsd][openbsd]") {
    Pc pc;
    const bool mouse = true;
    Bytes response;
    // pckbc_attach: flush, then a command byte of its own, everything off.
    pc.drain();
    pc.set_ctr(0x34);
    // pckbd_probe: reset, which must answer AA.
    REQUIRE(bsd::poll_cmd(pc, false, {0xFF}, 1, response));
    CHECK(response == Bytes{0xAA});
    // pckbc_xt_translation: set the bit, and read it back to be sure.
    pc.set_ctr(0x74);
    CHECK((pc.ctr() & 0x40) != 0);
    // KBC_AUXECHO must come back as the mouse's.
    pc.command(0xD3, 0x5A);
    CHECK(pc.output_from_aux());
    CHECK(pc.data() == 0x5A);
    pc.set_ctr(0x47);
    // pmsprobe
    REQUIRE(bsd::poll_cmd(pc, mouse, {0xFF}, 2, response));
    CHECK(response == Bytes{0xAA, 0x00});
    // pms_enable_intelli, pms_get_devid
    for (const std::uint8_t rate : Bytes{200, 100, 80}) {
        REQUIRE(bsd::poll_cmd(pc, mouse, {0xF3, rate}, 0, response));
    }
    REQUIRE(bsd::poll_cmd(pc, mouse, {0xF2}, 1, response));
    CHECK(response == Bytes{0x03});
    // synaptics_knock: four resolutions of 0, then the status; its second byte is no touchpad's 0x47.
    for (int i = 0; i < 4; ++i) {
        REQUIRE(bsd::poll_cmd(pc, mouse, {0xE8, 0x00}, 0, response));
    }
    REQUIRE(bsd::poll_cmd(pc, mouse, {0xE9}, 3, response));
    CHECK(response == Bytes{0x00, 0x00, 80});
    REQUIRE(bsd::poll_cmd(pc, mouse, {0xF4}, 0, response));
    // A parameter that no mouse accepts: the driver repeats that byte and finally gives up.
    CHECK_FALSE(bsd::poll_cmd(pc, mouse, {0xF3, 99}, 0, response));
    pc.drain();
    // pmsinput
    REQUIRE(bsd::poll_cmd(pc, mouse, {0xF3, 100}, 0, response));
    pc.dev.move_mouse({.x = 1, .y = -1, .wheel = -1, .buttons = 2});
    CHECK(pc.drain() == Bytes{0x2A, 0x01, 0xFF, 0xFF});
    // pckbd: the set is read back as translated.
    REQUIRE(bsd::poll_cmd(pc, false, {0xF0, 0x00}, 1, response));
    CHECK(response == Bytes{0x41});
    REQUIRE(bsd::poll_cmd(pc, false, {0xED, 0x02}, 0, response));
    CHECK(pc.dev.leds() == 0x02);
}

TEST_CASE("I8042: ReactOS' i8042prt finds the mouse, then the keyboard", "[i8042][reactos]") {
    Pc pc;
    // pnp.c: i8042BasicDetect
    pc.drain();
    const auto change_mode = [&pc](std::uint8_t off, std::uint8_t on) {
        pc.set_ctr(static_cast<std::uint8_t>((ask(pc, 0x20) & ~off) | on));
    };
    change_mode(0x03, 0x30);
    pc.drain();
    REQUIRE(ask(pc, 0xAA) == 0x55);
    // i8042DetectMouse
    REQUIRE(ask(pc, 0xA9) == 0x00);
    pc.drain();
    pc.command(0xD4, 0xFF);
    CHECK(pc.drain() == Bytes{0xFA, 0xAA, 0x00});
    // i8042DetectMouseType: IsrWritePort does not wait for an answer. The next byte drops the part of the
    // answer that has not been read, except the byte in the controller. MOU_NO_ERROR_REPORT is 0xC0, which is
    // not a command.
    for (const std::uint8_t byte : Bytes{0xEA, 0xC0, 0xF3, 0xC8, 0xF3, 0x64, 0xF3, 0x50, 0xF2}) {
        pc.command(0xD4, byte);
    }
    std::optional<std::uint8_t> type;
    for (int i = 0; i < 10 && type != 0x03 && type != 0x00; ++i) {
        type = pc.next();
        REQUIRE(type.has_value());
    }
    CHECK(type == 0x03);
    pc.command(0xD4, 0xF3);
    pc.command(0xD4, 0x64);
    pc.drain();
    // i8042DetectKeyboard
    expect(pc, false, {0xED, 0x00});
    change_mode(0x00, 0x44);
    // i8042ConnectKeyboardInterrupt, StartProcedure
    pc.command(0xAE);
    change_mode(0x30, 0x03);
    pc.dev.press(Key::a);
    CHECK(pc.irq1 > 0);
    CHECK(pc.drain() == Bytes{0x1E});
    CHECK(pc.dev.counters().unknown_commands == 0);
}

TEST_CASE("I8042: the mouse reset of Windows' and ReactOS' interrupt routine runs to its end",
          "[i8042][windows][reactos]") {
    // mouse.c: i8042MouResetIsr, the states of the i8042prt sample: each interrupt delivers one byte, and the
    // routine answers most of them with the next command byte.
    Pc pc({.command_byte = 0x47});
    const auto isr = [&pc](std::uint8_t expected, std::optional<std::uint8_t> then) {
        REQUIRE(pc.output_from_aux());
        REQUIRE(pc.data() == expected);
        if (then) {
            pc.command(0xD4, *then);
        }
    };
    const auto acknowledged = [&isr](const Bytes& next) {
        for (const std::uint8_t byte : next) {
            isr(0xFA, byte);
        }
    };
    pc.command(0xD4, 0xFF);
    isr(0xFA, std::nullopt);  // "Dropping extra ACK"
    isr(0xAA, std::nullopt);
    isr(0x00, 0xF2);
    isr(0xFA, std::nullopt);
    isr(0x00, 0xE8);
    acknowledged({0x00, 0xE6, 0xE6, 0xE6, 0xE9});
    isr(0xFA, std::nullopt);
    isr(0x00, std::nullopt);
    isr(0x00, std::nullopt);  // the second byte is 0: no Logitech mouse
    isr(0x64, 0xF3);
    acknowledged({0xC8, 0xF3, 0x64, 0xF3, 0x50, 0xF2});
    isr(0xFA, std::nullopt);
    isr(0x03, 0xF3);
    acknowledged({0xC8, 0xF3, 0xC8, 0xF3, 0x50, 0xF2});
    isr(0xFA, std::nullopt);
    isr(0x04, 0xF3);
    acknowledged({0x64, 0xE8, 0x03, 0xF4});
    isr(0xFA, std::nullopt);
    CHECK_FALSE(pc.output_full());
    pc.dev.move_mouse({.y = 1, .buttons = 0x08});
    CHECK(pc.drain() == Bytes{0x08, 0x00, 0x01, 0x10});
}

TEST_CASE("I8042: FreeBSD's psm distinguishes the mouse from a Logitech and leaves it disabled",
          "[i8042][freebsd]") {
    Pc pc;
    const bool mouse = true;
    // psm.c: psmprobe
    pc.drain();
    const std::uint8_t command_byte = ask(pc, 0x20);
    pc.set_ctr(static_cast<std::uint8_t>((command_byte & ~0x33) | 0x10));
    REQUIRE(ask(pc, 0xA9) == 0x00);
    expect(pc, mouse, {0xFF}, {0xAA, 0x00});
    expect(pc, mouse, {0xF4});
    expect(pc, mouse, {0xF5});
    expect(pc, mouse, {0xE9}, {0x00, 0x02, 0x64});
    expect(pc, mouse, {0xF2}, {0x00});
    // get_mouse_buttons: resolution 0, scaling 1:1 three times, then the status. A Logitech mouse has its
    // number of buttons in the second byte.
    expect(pc, mouse, {0xE8, 0x00, 0xE6, 0xE6, 0xE6});
    expect(pc, mouse, {0xE9}, {0x00, 0x00, 0x64});
    expect(pc, mouse, {0xF6});
    expect(pc, mouse, {0xE9}, {0x00, 0x02, 0x64});
    pc.set_ctr(static_cast<std::uint8_t>((command_byte & 0x51) | 0x20));
    // psmattach's reinitialize sets rate, resolution, scaling and stream mode.
    pc.set_ctr(static_cast<std::uint8_t>(command_byte & ~0x22));
    expect(pc, mouse, {0xF3, 100, 0xE8, 0x03, 0xE6, 0xEA});
    expect(pc, mouse, {0xE9}, {0x00, 0x03, 0x64});
}

TEST_CASE("I8042: xv6 reads keys by polling, and fake Shifts leave its Shift alone", "[i8042][xv6]") {
    // kbd.c: kbdgetc, with the bits of kbd.h and its shiftcode[] and togglecode[].
    Pc pc;
    unsigned shift = 0;
    constexpr unsigned shift_bit = 1;
    constexpr unsigned e0_bit = 0x40;
    const auto shift_code = [](unsigned code) { return code == 0x2A || code == 0x36 ? shift_bit : 0U; };
    const auto kbdgetc = [&]() -> int {
        if ((pc.status() & 0x01) == 0) {
            return -1;
        }
        unsigned data = pc.data();
        if (data == 0xE0) {
            shift |= e0_bit;
            return 0;
        }
        if ((data & 0x80) != 0) {
            data = (shift & e0_bit) != 0 ? data : data & 0x7F;
            shift &= ~(shift_code(data) | e0_bit);
            return 0;
        }
        if ((shift & e0_bit) != 0) {
            data |= 0x80;
            shift &= ~e0_bit;
        }
        shift |= shift_code(data);
        return static_cast<int>(data);
    };
    const auto typed = [&] {
        std::vector<int> codes;
        for (int code = kbdgetc(); code != -1; code = kbdgetc()) {
            if (code != 0) {
                codes.push_back(code);
            }
        }
        return codes;
    };
    pc.dev.press(Key::left_shift);
    CHECK(typed() == std::vector<int>{0x2A});
    pc.dev.press(Key::up);
    CHECK(typed() == std::vector<int>{0xC8});
    CHECK((shift & shift_bit) != 0);
    pc.dev.release(Key::up);
    typed();
    CHECK((shift & shift_bit) != 0);
    pc.dev.release(Key::left_shift);
    typed();
    CHECK((shift & shift_bit) == 0);
    pc.dev.press(Key::num_lock);
    pc.dev.release(Key::num_lock);
    typed();
    pc.dev.press(Key::up);
    CHECK(typed() == std::vector<int>{0xAA, 0xC8});
    CHECK((shift & shift_bit) == 0);
}

namespace seabios {

/// src/hw/ps2port.c: i8042_flush gives up after 16 bytes.
bool flush(Pc& pc) {
    for (int i = 0; i < 16; ++i) {
        if (!pc.output_full()) {
            return true;
        }
        pc.data();
    }
    return false;
}
/// __ps2_command: only the addressed port is enabled, and both interrupts are off. ps2_recvbyte discards
/// bytes of the other device and, while it waits for an acknowledgement, every other byte.
std::optional<Bytes> command(Pc& pc, std::uint8_t ctr, bool aux, const Bytes& sent, std::size_t length) {
    const auto off = static_cast<std::uint8_t>((ctr | 0x30) & ~0x03);
    pc.set_ctr(off);
    pc.set_ctr(static_cast<std::uint8_t>(off & ~(aux ? 0x20 : 0x10)));
    const auto receive = [&](bool acknowledgement) -> std::optional<std::uint8_t> {
        while (pc.output_full()) {
            const bool from_aux = pc.output_from_aux();
            const std::uint8_t byte = pc.data();
            if (from_aux == aux && (!acknowledgement || byte == 0xFA || byte == 0xFE)) {
                return byte;
            }
        }
        return std::nullopt;
    };
    Bytes answer;
    for (const std::uint8_t byte : sent) {
        if (aux) {
            pc.command(0xD4);
        }
        pc.put(byte);
        if (receive(true) != 0xFA) {
            return std::nullopt;
        }
    }
    while (answer.size() < length) {
        const auto byte = receive(false);
        if (!byte) {
            return std::nullopt;
        }
        answer.push_back(*byte);
    }
    pc.set_ctr(ctr);
    return answer;
}
/// ps2_keyboard_setup; returns false if it returns early.
bool keyboard_setup(Pc& pc) {
    if (!flush(pc) || ask(pc, 0xAA) != 0x55 || ask(pc, 0xAB) != 0x00) {
        return false;
    }
    if (command(pc, 0x30, false, {0xFF}, 1) != Bytes{0xAA} || !command(pc, 0x30, false, {0xF5}, 0) ||
        !command(pc, 0x30, false, {0xF0, 0x02}, 0)) {
        return false;
    }
    return command(pc, 0x61, false, {0xF4}, 0).has_value();
}

}  // namespace seabios

TEST_CASE("I8042: SeaBIOS sets the keyboard up after power-on, and after a user has typed",
          "[i8042][firmware]") {
    for (const bool cold : {true, false}) {
        Pc pc(cold ? I8042Options::power_on() : I8042Options{});
        for (int i = 0; i < 100; ++i) {
            pc.dev.press(Key::a);
            pc.dev.release(Key::a);
        }
        REQUIRE(seabios::keyboard_setup(pc));
        CHECK(pc.ctr() == 0x61);
        // handle_09
        const int before = pc.irq1;
        pc.dev.press(Key::f1);
        CHECK(pc.irq1 == before + 1);
        CHECK((pc.status() & 0x20) == 0);
        CHECK(pc.data() == 0x3B);
        pc.command(0xAE);
        // mouse.c: mouse_enable and friends go through ps2_mouse_command.
        const auto reset = seabios::command(pc, 0x61, true, {0xFF}, 2);
        CHECK(reset == Bytes{0xAA, 0x00});
        CHECK(seabios::command(pc, 0x61, true, {0xF4}, 0).has_value());
        // The mouse's port is disabled until the BIOS enables it.
        pc.dev.move_mouse({.x = 1});
        CHECK_FALSE(pc.output_full());
    }
}

TEST_CASE("I8042: Linux of the 2.6 series finds the controller after a user has typed", "[i8042][linux]") {
    // i8042_controller_check: "No controller found" if i8042_flush has read I8042_BUFFER_SIZE bytes.
    for (const bool direct : {false, true}) {
        Pc pc({.command_byte = static_cast<std::uint8_t>(direct ? 0x05 : 0x65)});
        for (int i = 0; i < 100; ++i) {
            pc.dev.press(Key::page_down);
            pc.dev.release(Key::page_down);
        }
        int read = 0;
        while (pc.output_full() && read < 16) {
            pc.data();
            ++read;
        }
        CHECK(read < 16);
        CHECK(read > 8);
    }
}
