// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "catch.hpp"
#include "ps2_harness.hpp"

using ps2::Bytes;
using ps2::Pc;

TEST_CASE("Mouse: each command is answered as in the reference, and all other bytes are refused", "[mouse]") {
    for (int command = 0; command < 256; ++command) {
        Pc pc;
        pc.command(0xD4, static_cast<std::uint8_t>(command));
        Bytes expected;
        switch (command) {
            case 0xE9:
                expected = {0xFA, 0x00, 0x02, 0x64};
                break;
            case 0xEB:
                expected = {0xFA, 0x08, 0x00, 0x00};
                break;
            case 0xF2:
                expected = {0xFA, 0x00};
                break;
            case 0xFE:
                expected = {0x00};  // nothing was sent before
                break;
            case 0xFF:
                expected = {0xFA, 0xAA, 0x00};
                break;
            case 0xE6:
            case 0xE7:
            case 0xE8:
            case 0xEA:
            case 0xEC:
            case 0xEE:
            case 0xF0:
            case 0xF3:
            case 0xF4:
            case 0xF5:
            case 0xF6:
                expected = {0xFA};
                break;
            default:
                expected = {0xFE};
                break;
        }
        INFO("command " << command);
        CHECK(pc.output_from_aux());
        CHECK(pc.drain() == expected);
        CHECK(pc.irq1 == 0);
    }
}

TEST_CASE("Mouse: the second wrong byte in a row is an error", "[mouse]") {
    Pc pc;
    CHECK(pc.mouse({0x00, 0x00, 0x00, 0xE6, 0x00}) == Bytes{0xFE, 0xFC, 0xFE, 0xFA, 0xFE});
    CHECK(pc.mouse({0xE8, 0x04}) == Bytes{0xFA, 0xFE});
    CHECK(pc.mouse({0xF3, 99}) == Bytes{0xFA, 0xFE});
    CHECK(pc.dev.state().mouse.resolution == 2);
    CHECK(pc.dev.state().mouse.sample_rate == 100);
}

TEST_CASE("Mouse: its queues take a message completely or not at all", "[mouse]") {
    vmsuperio::detail::ByteQueue<3> queue;
    const std::array<std::uint8_t, 4> four{1, 2, 3, 4};
    CHECK_FALSE(queue.push(four));
    CHECK(queue.empty());
    CHECK(queue.push(std::span(four).first(2)));
    CHECK_FALSE(queue.push(std::span(four).first(2)));
    CHECK(queue.size() == 2);
    CHECK(queue.push(std::uint8_t{9}));
    CHECK_FALSE(queue.push(std::uint8_t{9}));
    CHECK(queue.free() == 0);
    CHECK(queue.back() == 9);
    CHECK(queue.pop() == 1);
    CHECK(queue.pop() == 2);
    CHECK(queue.pop() == 9);
    CHECK(queue == vmsuperio::detail::ByteQueue<3>{});
}

TEST_CASE("Mouse: nothing is reported until reporting is enabled", "[mouse]") {
    Pc pc;
    pc.command(0xA8);
    pc.dev.move_mouse({.x = 5, .y = 6, .buttons = 1});
    CHECK_FALSE(pc.output_full());
    CHECK(pc.mouse({0xF4}) == Bytes{0xFA});  // what was counted before is dropped
    pc.dev.move_mouse({.x = 5, .y = -6, .buttons = 1});
    CHECK(pc.output_from_aux());
    CHECK(pc.drain() == Bytes{0x29, 0x05, 0xFA});
    CHECK(pc.mouse({0xF5}) == Bytes{0xFA});
    pc.dev.move_mouse({.x = 1});
    CHECK_FALSE(pc.output_full());
}

TEST_CASE("Mouse: without a movement or a button there is no packet", "[mouse]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({});
    pc.dev.move_mouse({.wheel = 1});  // a mouse without a wheel
    CHECK_FALSE(pc.output_full());
    pc.dev.move_mouse({.buttons = 0x02});
    CHECK(pc.drain() == Bytes{0x0A, 0x00, 0x00});
    pc.dev.move_mouse({.buttons = 0x02});
    CHECK_FALSE(pc.output_full());
    pc.dev.move_mouse({.buttons = 0x00});
    CHECK(pc.drain() == Bytes{0x08, 0x00, 0x00});
}

TEST_CASE("Mouse: a long distance is reported in several packets, without overflow", "[mouse]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({.x = 600, .y = -256});
    CHECK(pc.drain() == Bytes{0x28, 0xFF, 0x01, 0x28, 0xFF, 0xFF, 0x08, 0x5A, 0x00});
}

TEST_CASE("Mouse: while the guest does not read, motion adds up and stays bounded", "[mouse]") {
    Pc pc;
    pc.mouse({0xF4});
    for (int i = 0; i < 1000; ++i) {
        pc.dev.move_mouse({.x = 0x7FFFFFFF, .y = -0x7FFFFFFF - 1, .wheel = 3});
    }
    CHECK(pc.dev.state().mouse.x == 0x7FFF);
    CHECK(pc.dev.state().mouse.y == -0x7FFF);
    CHECK(pc.dev.state().mouse.packets.size() == 14);  // five packets without the byte in the controller
}

TEST_CASE("Mouse: a click between two reads is not lost while there is room", "[mouse]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({.buttons = 1});
    pc.dev.move_mouse({.buttons = 0});
    CHECK(pc.drain() == Bytes{0x09, 0x00, 0x00, 0x08, 0x00, 0x00});
}

TEST_CASE("Mouse: a command ends the packet that was being sent", "[mouse]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({.x = 1});
    pc.dev.move_mouse({.x = 2});
    CHECK(pc.data() == 0x08);
    CHECK(pc.data() == 0x01);
    // One byte is already in the controller and cannot be removed.
    CHECK(pc.mouse({0xF2}) == Bytes{0x00, 0xFA, 0x00});
}

TEST_CASE("Mouse: remote mode reports on request only", "[mouse]") {
    Pc pc;
    CHECK(pc.mouse({0xF0, 0xF4}) == Bytes{0xFA, 0xFA});
    pc.dev.move_mouse({.x = 7, .y = 8, .buttons = 4});
    CHECK_FALSE(pc.output_full());
    CHECK(pc.mouse({0xEB}) == Bytes{0xFA, 0x0C, 0x07, 0x08});
    CHECK(pc.mouse({0xEB}) == Bytes{0xFA, 0x0C, 0x00, 0x00});
    CHECK(pc.mouse({0xE9}) == Bytes{0xFA, 0x62, 0x02, 0x64});
    CHECK(pc.mouse({0xEA}) == Bytes{0xFA});
    pc.dev.move_mouse({.x = 1, .buttons = 4});
    CHECK(pc.drain() == Bytes{0x0C, 0x01, 0x00});
}

TEST_CASE("Mouse: wrap mode echoes all bytes except its end and a reset", "[mouse]") {
    Pc pc;
    CHECK(pc.mouse({0xEE, 0xF2, 0x00, 0xFE, 0xF4}) == Bytes{0xFA, 0xF2, 0x00, 0xFE, 0xF4});
    CHECK(pc.mouse({0xEC, 0xF2}) == Bytes{0xFA, 0xFA, 0x00});
    CHECK(pc.mouse({0xEE, 0xFF, 0xF2}) == Bytes{0xFA, 0xFA, 0xAA, 0x00, 0xFA, 0x00});
}

TEST_CASE("Mouse: status shows buttons, scaling, reporting, resolution and rate", "[mouse]") {
    Pc pc;
    CHECK(pc.mouse({0xE7, 0xE8, 0x01, 0xF3, 40, 0xF4}) == Bytes(6, 0xFA));
    pc.dev.move_mouse({.buttons = 0x01});
    pc.drain();
    CHECK(pc.mouse({0xE9}) == Bytes{0xFA, 0x34, 0x01, 40});
    pc.dev.move_mouse({.buttons = 0x06});
    pc.drain();
    CHECK(pc.mouse({0xE9}) == Bytes{0xFA, 0x33, 0x01, 40});
    CHECK(pc.mouse({0xF6, 0xE9}) == Bytes{0xFA, 0xFA, 0x03, 0x02, 0x64});
}

TEST_CASE("Mouse: scaling 2:1 follows the reference's table in stream mode and not for read data",
          "[mouse]") {
    Pc pc;
    pc.mouse({0xE7, 0xF4});
    const int table[] = {0, 1, 1, 3, 6, 9, 12, 14};
    for (int count = 1; count < 8; ++count) {
        pc.dev.move_mouse({.x = count});
        CHECK(pc.drain() == Bytes{0x08, static_cast<std::uint8_t>(table[count]), 0x00});
        pc.dev.move_mouse({.y = -count});
        CHECK(pc.drain() == Bytes{0x28, 0x00, static_cast<std::uint8_t>(-table[count])});
    }
    pc.mouse({0xF0});
    pc.dev.move_mouse({.x = 5});
    CHECK(pc.mouse({0xEB}) == Bytes{0xFA, 0x08, 0x05, 0x00});
}

TEST_CASE("Mouse: only the exact IntelliMouse knock enables the wheel", "[mouse]") {
    Pc pc;
    pc.mouse({0xF3, 200, 0xF3, 100, 0xF3, 60});
    CHECK(pc.mouse({0xF2}) == Bytes{0xFA, 0x00});
    pc.mouse({0xF3, 200, 0xF3, 200, 0xF3, 100, 0xF3, 80});
    CHECK(pc.mouse({0xF2}) == Bytes{0xFA, 0x03});
    pc.mouse({0xF4});
    pc.dev.move_mouse({.x = 1, .wheel = -1});
    CHECK(pc.drain() == Bytes{0x08, 0x01, 0x00, 0xFF});
    pc.dev.move_mouse({.wheel = 9});
    CHECK(pc.drain() == Bytes{0x08, 0x00, 0x00, 0x07, 0x08, 0x00, 0x00, 0x02});
    CHECK(pc.mouse({0xEB}) == Bytes{0xFA, 0x08, 0x00, 0x00, 0x00});
    CHECK(pc.mouse({0xFF, 0xF2}) == Bytes{0xFA, 0xAA, 0x00, 0xFA, 0x00});
    // Only 100 or 200 in the middle is a knock.
    pc.mouse({0xF3, 200, 0xF3, 60, 0xF3, 80});
    CHECK(pc.mouse({0xF2}) == Bytes{0xFA, 0x00});
    // A reset in the middle of the knock ends it.
    pc.mouse({0xF3, 200, 0xF3, 100, 0xFF, 0xF3, 80});
    CHECK(pc.mouse({0xF2}) == Bytes{0xFA, 0x00});
}

TEST_CASE("Mouse: the Explorer knock adds two buttons", "[mouse]") {
    Pc pc;
    pc.mouse({0xF3, 200, 0xF3, 200, 0xF3, 80});
    CHECK(pc.mouse({0xF2}) == Bytes{0xFA, 0x04});
    pc.mouse({0xF4});
    pc.dev.move_mouse({.wheel = -1, .buttons = 0x10});
    CHECK(pc.drain() == Bytes{0x08, 0x00, 0x00, 0x2F});
    pc.dev.move_mouse({.buttons = 0x08});
    CHECK(pc.drain() == Bytes{0x08, 0x00, 0x00, 0x10});
}

TEST_CASE("Mouse: 0xFE sends the last packet again, without an acknowledgement", "[mouse][resend]") {
    SECTION("a movement packet of three bytes") {
        Pc pc;
        pc.mouse({0xF4});
        pc.dev.move_mouse({.x = 1, .y = -2, .buttons = 1});
        CHECK(pc.drain() == Bytes{0x29, 0x01, 0xFE});
        CHECK(pc.mouse({0xFE}) == Bytes{0x29, 0x01, 0xFE});
        CHECK(pc.mouse({0xFE}) == Bytes{0x29, 0x01, 0xFE});
        // The movement is reported only once.
        pc.dev.move_mouse({.x = 4, .buttons = 1});
        CHECK(pc.drain() == Bytes{0x09, 0x04, 0x00});
        CHECK(pc.mouse({0xFE}) == Bytes{0x09, 0x04, 0x00});
    }
    SECTION("a movement packet of four bytes") {
        Pc pc;
        pc.mouse({0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF3, 200, 0xF3, 200, 0xF3, 80, 0xF4});
        pc.dev.move_mouse({.x = 3, .wheel = -1, .buttons = 0x10});
        const Bytes packet = pc.drain();
        CHECK(packet == Bytes{0x08, 0x03, 0x00, 0x2F});
        CHECK(pc.mouse({0xFE}) == packet);
    }
    SECTION("answers: the bytes after the acknowledgement, or the acknowledgement alone") {
        Pc pc;
        CHECK(pc.mouse({0xE9, 0xFE}) == Bytes{0xFA, 0x00, 0x02, 0x64, 0x00, 0x02, 0x64});
        CHECK(pc.mouse({0xF2, 0xFE}) == Bytes{0xFA, 0x00, 0x00});
        CHECK(pc.mouse({0xE6, 0xFE}) == Bytes{0xFA, 0xFA});
        CHECK(pc.mouse({0xFF, 0xFE}) == Bytes{0xFA, 0xAA, 0x00, 0xAA, 0x00});
        CHECK(pc.mouse({0xEB, 0xFE}) == Bytes{0xFA, 0x08, 0x00, 0x00, 0x08, 0x00, 0x00});
    }
    SECTION("not its own request to resend, but the message before it") {
        Pc pc;
        CHECK(pc.mouse({0xF2}) == Bytes{0xFA, 0x00});
        CHECK(pc.mouse({0x05}) == Bytes{0xFE});
        CHECK(pc.mouse({0xFE}) == Bytes{0x00});
        CHECK(pc.mouse({0x05}) == Bytes{0xFC});
        CHECK(pc.mouse({0xFE}) == Bytes{0xFC});
    }
}

TEST_CASE("Mouse: 0xFE in the middle of a packet sends it from its beginning, and the next one after it",
          "[mouse][resend]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({.x = 1, .buttons = 1});
    pc.dev.move_mouse({.x = 2, .buttons = 1});
    CHECK(pc.data() == 0x09);
    pc.command(0xD4, 0xFE);
    // The second byte is already in the controller and cannot be removed.
    CHECK(pc.drain() == Bytes{0x01, 0x09, 0x01, 0x00, 0x09, 0x02, 0x00});
    // The guest already knows the state of the button: it alone causes no packet.
    pc.dev.move_mouse({.buttons = 1});
    CHECK_FALSE(pc.output_full());
}

TEST_CASE("Mouse: 0xFE does not answer a command that waits for its parameter", "[mouse][resend]") {
    Pc pc;
    CHECK(pc.mouse({0xE8, 0xFE, 0x01}) == Bytes{0xFA, 0xFA, 0xFA});
    CHECK(pc.dev.state().mouse.resolution == 1);
    CHECK(pc.mouse({0xF3, 0xFE, 0xFE, 40}) == Bytes{0xFA, 0xFA, 0xFA, 0xFA});
    CHECK(pc.dev.state().mouse.sample_rate == 40);
}

TEST_CASE("Mouse: the last packet is part of the saved state", "[mouse][resend][snapshot]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({.x = 1, .y = 2});
    pc.drain();
    const auto state = vmsuperio::decode<vmsuperio::I8042State>(vmsuperio::encode(pc.dev.state()));
    REQUIRE(state.has_value());
    auto restored = pc.restored(*state);
    REQUIRE(restored.has_value());
    CHECK(restored->write(4, 0xD4).has_value());
    CHECK(restored->write(0, 0xFE).has_value());
    for (const int expected : {0x08, 0x01, 0x02}) {
        CHECK(restored->read(0) == expected);
    }
    CHECK((restored->read(4) & 0x01) == 0);
}

TEST_CASE("Mouse: a wrong parameter may be sent again, once", "[mouse]") {
    Pc pc;
    CHECK(pc.mouse({0xE8, 0x04, 0x01}) == Bytes{0xFA, 0xFE, 0xFA});
    CHECK(pc.dev.state().mouse.resolution == 1);
    CHECK(pc.mouse({0xE8, 0x04, 0x04, 0x02}) == Bytes{0xFA, 0xFE, 0xFC, 0xFE});
    CHECK(pc.dev.state().mouse.resolution == 1);
    CHECK(pc.mouse({0xF3, 99, 0xF2}) == Bytes{0xFA, 0xFE, 0xFA, 0x00});
}

TEST_CASE("Mouse: a button that the protocol cannot show sends nothing", "[mouse][silent]") {
    for (const int id : {0, 3}) {
        Pc pc;
        if (id == 3) {
            pc.mouse({0xF3, 200, 0xF3, 100, 0xF3, 80});
        }
        pc.mouse({0xF4});
        for (const std::uint8_t buttons : Bytes{0x08, 0x18, 0x10, 0x00, 0x18}) {
            pc.dev.move_mouse({.buttons = buttons});
            CHECK_FALSE(pc.output_full());
        }
        CHECK(pc.irq12 == 0);
        // With a button that the protocol can show there is a packet, which does not contain the others.
        pc.dev.move_mouse({.buttons = 0x19});
        const Bytes packet = pc.drain();
        CHECK(packet == (id == 3 ? Bytes{0x09, 0x00, 0x00, 0x00} : Bytes{0x09, 0x00, 0x00}));
    }
}

TEST_CASE("Mouse: a wheel that the protocol cannot show is not kept for one that can", "[mouse][silent]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({.wheel = 5});
    CHECK_FALSE(pc.output_full());
    CHECK(pc.dev.state().mouse.wheel == 0);
    CHECK(pc.mouse({0xEB}) == Bytes{0xFA, 0x08, 0x00, 0x00});
    pc.mouse({0xF3, 200, 0xF3, 100, 0xF3});
    pc.dev.move_mouse({.wheel = 5});
    CHECK(pc.mouse({80}) == Bytes{0xFA});
    pc.dev.move_mouse({.wheel = 1});
    CHECK(pc.drain() == Bytes{0x08, 0x00, 0x00, 0x01});
}

TEST_CASE("Mouse: a button that is pressed and released while there is no room sends nothing",
          "[mouse][silent]") {
    Pc pc;
    pc.mouse({0xF4});
    for (int i = 0; i < 6; ++i) {
        pc.dev.move_mouse({.x = 1});
    }
    const Bytes before = pc.drain();
    CHECK(before.size() == 18);
    for (int i = 0; i < 5; ++i) {
        pc.dev.move_mouse({.x = 1});
    }
    pc.dev.move_mouse({.buttons = 1});
    pc.dev.move_mouse({.buttons = 0});
    const Bytes after = pc.drain();
    CHECK(after.size() == 15);
    for (std::size_t at = 0; at < after.size(); at += 3) {
        CHECK(after[at] == 0x08);
        CHECK(after[at + 1] == 0x01);
    }
}

TEST_CASE("Mouse: no protocol and mode sends a packet without new information", "[mouse][silent]") {
    for (const int id : {0, 3, 4}) {
        for (const bool scaled : {false, true}) {
            Pc pc;
            if (id != 0) {
                pc.mouse({0xF3, 200, 0xF3, 100, 0xF3, 80});
            }
            if (id == 4) {
                pc.mouse({0xF3, 200, 0xF3, 200, 0xF3, 80});
            }
            pc.mouse({static_cast<std::uint8_t>(scaled ? 0xE7 : 0xE6), 0xF4});
            const std::size_t size = id == 0 ? 3 : 4;
            unsigned random = 1;
            const auto next = [&random] {
                random = random * 1103515245U + 12345U;
                return random >> 16U;
            };
            int known = 0;
            int packets = 0;
            for (int step = 0; step < 3000; ++step) {
                const auto some = [&next](unsigned often) {
                    return next() % often == 0 ? static_cast<std::int32_t>(next() % 9) - 4 : 0;
                };
                pc.dev.move_mouse({.x = some(6),
                                   .y = some(6),
                                   .wheel = some(6),
                                   .buttons = static_cast<std::uint8_t>(next() % 3 == 0 ? next() : 0)});
                if (next() % 4 != 0) {
                    continue;
                }
                const Bytes bytes = pc.drain();
                REQUIRE(bytes.size() % size == 0);
                for (std::size_t at = 0; at < bytes.size(); at += size) {
                    const int extra = id == 4 ? (bytes[at + 3] >> 1) & 0x18 : 0;
                    const int buttons = (bytes[at] & 0x07) | extra;
                    const int wheel = id == 4 ? bytes[at + 3] & 0x0F : (id == 3 ? bytes[at + 3] : 0);
                    CHECK((bytes[at] & 0xC8) == 0x08);
                    if (buttons == known && bytes[at + 1] == 0 && bytes[at + 2] == 0 && wheel == 0) {
                        FAIL("an empty packet, id " << id << ", step " << step);
                    }
                    known = buttons;
                    ++packets;
                }
                const int visible = id == 4 ? 0x1F : 0x07;
                REQUIRE(known == (pc.dev.state().mouse.buttons & visible));
            }
            CHECK(packets > 100);
        }
    }
}

TEST_CASE("Mouse: no packet comes between a command and its parameter", "[mouse]") {
    Pc pc;
    pc.mouse({0xF4});
    for (const std::uint8_t command : Bytes{0xE8, 0xF3}) {
        CHECK(pc.mouse({command}) == Bytes{0xFA});
        pc.dev.move_mouse({.x = 5, .buttons = 1});
        pc.dev.move_mouse({.x = 5, .buttons = 0});
        CHECK_FALSE(pc.output_full());
        // The movement is reported after the answer.
        CHECK(pc.mouse({static_cast<std::uint8_t>(command == 0xE8 ? 2 : 100)}) ==
              Bytes{0xFA, 0x08, 0x0A, 0x00});
    }
    // The same applies after a wrong parameter.
    CHECK(pc.mouse({0xE8, 0x09}) == Bytes{0xFA, 0xFE});
    pc.dev.move_mouse({.x = 1});
    CHECK_FALSE(pc.output_full());
    CHECK(pc.mouse({0x03}) == Bytes{0xFA, 0x08, 0x01, 0x00});
}

TEST_CASE("Mouse: a byte from the host ends the packet that was being sent, whatever it is", "[mouse]") {
    for (const std::uint8_t byte : Bytes{0x00, 0xE6, 0xF2, 0xEB, 0xED}) {
        Pc pc;
        pc.mouse({0xF4});
        pc.dev.move_mouse({.x = 1});
        CHECK(pc.data() == 0x08);
        pc.command(0xD4, byte);
        const Bytes rest = pc.drain();
        // The byte that was in the controller, then the answer, and nothing of the following packet.
        REQUIRE(rest.size() >= 2);
        CHECK(rest[0] == 0x01);
        CHECK(rest[1] == (byte == 0x00 || byte == 0xED ? 0xFE : 0xFA));
        CHECK(rest.size() == (byte == 0xF2 ? 3U : byte == 0xEB ? 5U : 2U));
    }
}

TEST_CASE("Mouse: a release that a command dropped is reported after it", "[mouse]") {
    Pc pc;
    pc.mouse({0xF4});
    pc.dev.move_mouse({.buttons = 1});
    CHECK(pc.drain() == Bytes{0x09, 0x00, 0x00});
    pc.command(0xA7);
    pc.dev.move_mouse({.buttons = 0});
    // The command enables the port again, and drops the packet.
    CHECK(pc.mouse({0xE6}) == Bytes{0xFA, 0x08, 0x00, 0x00});
    pc.dev.move_mouse({.buttons = 0});
    CHECK_FALSE(pc.output_full());
}

TEST_CASE("Mouse: enabling reads the present state of the buttons", "[mouse]") {
    Pc pc;
    pc.dev.move_mouse({.buttons = 1});
    CHECK(pc.mouse({0xF4}) == Bytes{0xFA});
    pc.dev.move_mouse({.buttons = 1});
    CHECK_FALSE(pc.output_full());
    pc.dev.move_mouse({.buttons = 0});
    CHECK(pc.drain() == Bytes{0x08, 0x00, 0x00});
}
