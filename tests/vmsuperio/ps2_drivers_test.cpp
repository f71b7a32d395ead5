// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The accesses of drivers that detect the controller, its keyboard and its mouse.
#include <array>
#include <cstdint>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "catch.hpp"
#include "ps2_harness.hpp"

using ps2::Bytes;
using ps2::Pc;
using vmsuperio::Key;

namespace {

/// drivers/input/serio/i8042.c: the accesses of each step, and its condition for success. A wait that would
/// take the real driver half a second is a failure here.
struct LinuxController {
    Pc& pc;
    std::uint8_t ctr{};
    std::uint8_t initial_ctr{};

    bool flush() {
        int count = 0;
        while (pc.output_full()) {
            if (count++ >= 16) {
                return false;
            }
            pc.data();
        }
        return true;
    }
    /// One command with its parameters, then its answers; the number of each is in the command's upper bits.
    bool command(Bytes& param, unsigned code) {
        const unsigned send = (code >> 12U) & 0xFU;
        const unsigned receive = (code >> 8U) & 0xFU;
        if ((pc.status() & 0x02) != 0) {
            return false;
        }
        pc.command(static_cast<std::uint8_t>(code));
        for (unsigned i = 0; i < send; ++i) {
            if ((pc.status() & 0x02) != 0) {
                return false;
            }
            pc.put(param.at(i));
        }
        for (unsigned i = 0; i < receive; ++i) {
            if (!pc.output_full()) {
                return false;
            }
            if ((code & 0xFFU) == 0xD3 && !pc.output_from_aux()) {
                return false;
            }
            param.resize(receive);
            param[i] = pc.data();
        }
        return true;
    }
    bool read_ctr() {
        Bytes param(1);
        if (!command(param, 0x0120)) {
            return false;
        }
        ctr = param[0];
        return true;
    }
    bool write_ctr() {
        Bytes param{ctr};
        return command(param, 0x1060);
    }
    bool selftest() {
        Bytes param(1);
        return command(param, 0x01AA) && param[0] == 0x55;
    }
    bool loop(std::uint8_t value, std::uint8_t& answer) {
        Bytes param{value};
        const bool done = command(param, 0x11D3);
        answer = param[0];
        return done;
    }

    /// i8042_controller_check, _selftest and _init.
    bool init() {
        if (!flush() || !selftest()) {
            return false;
        }
        // It reads the command byte until two readings agree.
        if (!read_ctr()) {
            return false;
        }
        const std::uint8_t first = ctr;
        if (!read_ctr() || ctr != first) {
            return false;
        }
        initial_ctr = ctr;
        ctr = static_cast<std::uint8_t>((ctr | 0x10) & ~0x01);
        if ((pc.status() & 0x10) == 0) {
            return false;  // "Keylock active"
        }
        return write_ctr() && flush();
    }
    /// i8042_check_aux, with the interrupt test.
    bool check_aux() {
        if (!flush()) {
            return false;
        }
        std::uint8_t answer = 0;
        if (!loop(0x5A, answer) || answer != 0x5A) {
            return false;
        }
        Bytes none;
        const auto toggled = [&](bool on) {
            if (!command(none, on ? 0x00A8 : 0x00A7)) {
                return false;
            }
            for (int i = 0; i < 100; ++i) {
                if (!read_ctr()) {
                    return false;
                }
                if (((ctr & 0x20) == 0) == on) {
                    return true;
                }
            }
            return false;
        };
        if (!toggled(false) || !toggled(true)) {
            return false;
        }
        ctr = static_cast<std::uint8_t>((ctr & ~0x20) | 0x02);
        if (!write_ctr()) {
            return false;
        }
        const int before = pc.irq12;
        Bytes param{0xA5};
        if (!command(param, 0x10D3) || pc.irq12 != before + 1 || !pc.output_from_aux() || pc.data() != 0xA5) {
            return false;
        }
        ctr = static_cast<std::uint8_t>((ctr | 0x20) & ~0x02);
        return write_ctr();
    }
    /// i8042_set_mux_mode: returns true if the controller claims to be a multiplexer.
    bool is_mux() {
        std::uint8_t answer = 0;
        if (!flush() || !loop(0xF0, answer) || answer != 0xF0 || !loop(0x56, answer) || answer != 0x56) {
            return false;
        }
        return loop(0xA4, answer) && answer != 0xA4;
    }
};

/// libps2: send a byte, take the acknowledgement from the interrupt, then the answer.
bool device_command(Pc& pc, bool aux, const Bytes& sent, const Bytes& answer) {
    for (const std::uint8_t byte : sent) {
        const int before = aux ? pc.irq12 : pc.irq1;
        if (aux) {
            pc.command(0xD4);
        }
        pc.put(byte);
        const int edges = (aux ? pc.irq12 : pc.irq1) - before;
        if (edges != 1 || !pc.output_full() || pc.output_from_aux() != aux || pc.data() != 0xFA) {
            return false;
        }
    }
    for (const std::uint8_t expected : answer) {
        if (!pc.output_full() || pc.output_from_aux() != aux || pc.data() != expected) {
            return false;
        }
    }
    return !pc.output_full();
}

}  // namespace

TEST_CASE("I8042: Linux finds the controller and its AUX port, without a mux, an error or a wait",
          "[i8042][linux]") {
    Pc pc;
    LinuxController driver{pc};
    REQUIRE(driver.init());
    REQUIRE(driver.check_aux());
    REQUIRE_FALSE(driver.is_mux());
    CHECK(pc.resets == 0);
    CHECK(pc.dev.counters().unknown_commands == 0);
    // Shutting down restores the original command byte.
    driver.ctr = driver.initial_ctr;
    REQUIRE(driver.write_ctr());
    CHECK(pc.ctr() == 0x65);
}

TEST_CASE("I8042: Linux finds the controller after a user has typed into it before it booted",
          "[i8042][linux]") {
    Pc pc;
    for (int i = 0; i < 100; ++i) {
        pc.dev.press(Key::a);
        pc.dev.release(Key::a);
    }
    LinuxController driver{pc};
    CHECK(driver.init());
}

TEST_CASE("I8042: Linux's atkbd finds a translated keyboard", "[i8042][linux]") {
    Pc pc;
    LinuxController driver{pc};
    REQUIRE(driver.init());
    REQUIRE(driver.check_aux());
    driver.ctr = static_cast<std::uint8_t>((driver.ctr & ~0x10) | 0x01);
    REQUIRE(driver.write_ctr());
    const bool aux = false;
    CHECK(device_command(pc, aux, {0xF2}, {0xAB, 0x41}));
    CHECK(device_command(pc, aux, {0xF5}, {}));
    CHECK(device_command(pc, aux, {0xED, 0x00}, {}));
    CHECK(device_command(pc, aux, {0xF3, 0x00}, {}));
    CHECK(device_command(pc, aux, {0xF4}, {}));
    CHECK(device_command(pc, aux, {0xFF}, {0xAA}));
    CHECK(device_command(pc, aux, {0xED, 0x02}, {}));
    CHECK(pc.dev.leds() == 0x02);
    pc.dev.press(Key::enter);
    pc.dev.release(Key::enter);
    CHECK(pc.drain() == Bytes{0x1C, 0x9C});
}

TEST_CASE("I8042: Linux's atkbd finds an untranslated keyboard", "[i8042][linux]") {
    Pc pc({.command_byte = 0x05});
    CHECK(device_command(pc, false, {0xF2}, {0xAB, 0x83}));
    CHECK(device_command(pc, false, {0xF0, 0x02}, {}));
    CHECK(device_command(pc, false, {0xF0, 0x00}, {0x02}));
    pc.dev.press(Key::up);
    pc.dev.release(Key::up);
    CHECK(pc.drain() == Bytes{0xE0, 0x75, 0xE0, 0xF0, 0x75});
}

TEST_CASE("I8042: Linux's psmouse finds an IntelliMouse Explorer", "[i8042][linux]") {
    Pc pc;
    LinuxController driver{pc};
    REQUIRE(driver.init());
    driver.ctr = static_cast<std::uint8_t>((driver.ctr & ~0x20) | 0x02);
    REQUIRE(driver.write_ctr());
    const bool aux = true;
    CHECK(device_command(pc, aux, {0xF2}, {0x00}));
    CHECK(device_command(pc, aux, {0xF5}, {}));
    // Probes for other makes: none of them may recognise this mouse, and each must be answered.
    CHECK(device_command(pc, aux, {0xE8, 0x00, 0xE6, 0xE6, 0xE6}, {}));
    CHECK(device_command(pc, aux, {0xE9}, {0x00, 0x00, 0x64}));
    CHECK(device_command(pc, aux, {0xE8, 0x03, 0xE7, 0xE7, 0xE7}, {}));
    CHECK(device_command(pc, aux, {0xE9}, {0x10, 0x03, 0x64}));
    CHECK(device_command(pc, aux, {0xF6}, {}));
    CHECK(device_command(pc, aux, {0xFF}, {0xAA, 0x00}));
    CHECK(device_command(pc, aux, {0xF3, 200, 0xF3, 100, 0xF3, 80}, {}));
    CHECK(device_command(pc, aux, {0xF2}, {0x03}));
    CHECK(device_command(pc, aux, {0xF3, 200, 0xF3, 200, 0xF3, 80}, {}));
    CHECK(device_command(pc, aux, {0xF2}, {0x04}));
    CHECK(device_command(pc, aux, {0xF3, 100}, {}));
    CHECK(device_command(pc, aux, {0xE8, 0x03}, {}));
    CHECK(device_command(pc, aux, {0xE6}, {}));
    CHECK(device_command(pc, aux, {0xEA}, {}));
    CHECK(device_command(pc, aux, {0xF4}, {}));
    pc.dev.move_mouse({.x = 3, .y = -2, .wheel = 1, .buttons = 0x09});
    CHECK(pc.drain() == Bytes{0x29, 0x03, 0xFE, 0x11});
}

TEST_CASE("I8042: SeaBIOS sets the keyboard up", "[i8042][firmware]") {
    Pc pc({.command_byte = 0x00});
    pc.drain();
    pc.command(0xAA);
    CHECK(pc.drain() == Bytes{0x55});
    pc.command(0xAB);
    CHECK(pc.drain() == Bytes{0x00});
    pc.set_ctr(0x30);
    // Each keyboard command is sent with only the keyboard's port on and both interrupts off.
    const auto send = [&](const Bytes& bytes, const Bytes& answer) {
        pc.set_ctr(0x20);
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            pc.put(bytes[i]);
            REQUIRE(pc.next() == 0xFA);
        }
        CHECK(pc.drain() == answer);
        pc.set_ctr(0x30);
    };
    send({0xFF}, {0xAA});
    send({0xF5}, {});
    send({0xF0, 0x02}, {});
    send({0xF4}, {});
    pc.set_ctr(0x61);
    CHECK(pc.irq1 == 0);
    pc.dev.press(Key::f1);
    CHECK(pc.irq1 == 1);
    CHECK(pc.drain() == Bytes{0x3B});
}

TEST_CASE("I8042: FreeBSD's atkbdc, atkbd and psm find their devices", "[i8042][freebsd]") {
    Pc pc;
    CHECK(pc.ctr() == 0x65);
    pc.set_ctr(0x34);
    pc.command(0xAA);
    CHECK(pc.drain() == Bytes{0x55});
    pc.command(0xAB);
    CHECK(pc.drain() == Bytes{0x00});
    CHECK(pc.keyboard({0xFF}) == Bytes{0xFA, 0xAA});
    CHECK(pc.keyboard({0xF2}) == Bytes{0xFA, 0xAB, 0x83});
    pc.command(0xA9);
    CHECK(pc.drain() == Bytes{0x00});
    pc.command(0xA8);
    CHECK(pc.mouse({0xFF}) == Bytes{0xFA, 0xAA, 0x00});
    CHECK(pc.mouse({0xF2}) == Bytes{0xFA, 0x00});
    CHECK(pc.mouse({0xF4}) == Bytes{0xFA});
    CHECK(pc.mouse({0xE9}) == Bytes{0xFA, 0x20, 0x02, 0x64});
    CHECK(pc.mouse({0xF5}) == Bytes{0xFA});
}

TEST_CASE("I8042: Ctrl-Alt-Del from the host arrives as make and break codes", "[i8042][linux]") {
    SECTION("translated to set 1") {
        Pc pc;
        CHECK(pc.dev.ctrl_alt_del());
        CHECK(pc.drain() == Bytes{0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D});
        CHECK(pc.irq1 == 8);
    }
    SECTION("as set 2") {
        Pc pc({.command_byte = 0x05});
        CHECK(pc.dev.ctrl_alt_del());
        CHECK(pc.drain() == Bytes{0x14, 0x11, 0xE0, 0x71, 0xE0, 0xF0, 0x71, 0xF0, 0x11, 0xF0, 0x14});
    }
    SECTION("completely or not at all") {
        Pc pc;
        pc.command(0xAD);
        for (int i = 0; i < 4; ++i) {
            CHECK(pc.dev.press(Key::a));
        }
        CHECK_FALSE(pc.dev.ctrl_alt_del());
        pc.command(0xAE);
        CHECK(pc.drain() == Bytes{0x1E, 0x1E, 0x1E, 0x1E});
        CHECK(pc.dev.ctrl_alt_del());
        CHECK(pc.drain().size() == 8);
    }
}
