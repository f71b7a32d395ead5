// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Interrupts: priorities, set and clear conditions, the line, edges and levels, the character timeout.
#include <array>
#include <chrono>

#include <vmsuperio/serial.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;
using vmsuperio::ReceiveTimeout;
using vmsuperio::uart16550::LineStatus;

namespace {

// Makes each of the sources in `sources` (as IER bits) pending, with the interrupts off.
template <class M>
void raise(M& m, unsigned sources) {
    m.out(ier, 0x00);
    if ((sources & 0x01) != 0) {
        m.type("x");
    }
    if ((sources & 0x02) != 0) {
        m.out(thr, 'o');
    }
    if ((sources & 0x04) != 0) {
        REQUIRE(m.uart.receive_with_errors('e', LineStatus(0x08)).has_value());
        if ((sources & 0x01) != 0) {
            static_cast<void>(m.in(rbr));  // 'e' is now the oldest
        }
    }
    if ((sources & 0x08) != 0) {
        REQUIRE(m.uart.set_clear_to_send(false).has_value());
    }
}

}  // namespace

TEST_CASE("Serial: IIR names the highest enabled source and never two at once",
          "[serial][interrupt][peers]") {
    // PEERS 1.1: all 16 sets of pending sources x 16 values of IER, in both modes.
    for (const bool fifo : {false, true}) {
        for (unsigned raised = 0; raised < 16; ++raised) {
            for (unsigned enabled = 0; enabled < 16; ++enabled) {
                Machine m;
                m.out(fcr, fifo ? 0x01 : 0x00);
                raise(m, raised);
                // A line error belongs to a byte, which is data as well. Enabling THRE on an empty
                // transmitter raises it.
                const unsigned pending =
                    (raised | ((raised & 0x04) != 0 ? 0x01U : 0U) | ((enabled & 0x02) != 0 ? 0x02U : 0U)) &
                    enabled;
                m.world.edges = 0;
                m.out(ier, static_cast<std::uint8_t>(enabled));
                const unsigned expected = (pending & 0x04) != 0   ? 0x06
                                          : (pending & 0x01) != 0 ? 0x04
                                          : (pending & 0x02) != 0 ? 0x02
                                          : (pending & 0x08) != 0 ? 0x00
                                                                  : 0x01;
                CAPTURE(fifo, raised, enabled);
                REQUIRE(m.uart.peek(iir) == (expected | (fifo ? 0xC0U : 0U)));
                REQUIRE(m.uart.interrupt_line() == (pending != 0));
                REQUIRE(m.world.edges == (pending != 0 ? 1 : 0));
            }
        }
    }
}

TEST_CASE("Serial: each source is cleared by its own action and by no other", "[serial][interrupt][peers]") {
    // PEERS 1.1: with all four pending, serve them by priority; each must still be pending in its turn.
    Machine m;
    m.enable_fifo();
    raise(m, 0x0C);
    m.out(ier, 0x0F);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0xC6);
    CHECK(m.in(iir) == 0xC6);  // reading IIR acknowledges nothing but THRE
    CHECK((m.in(lsr) & 0x08) != 0);
    CHECK(m.in(iir) == 0xC4);
    static_cast<void>(m.in(msr));  // clears MS out of turn
    CHECK(m.in(iir) == 0xC4);
    CHECK(m.in(iir) == 0xC4);
    CHECK(m.in(rbr) == 'e');
    CHECK(m.in(iir) == 0xC2);  // acknowledged by this read
    CHECK(m.in(iir) == 0xC1);
    CHECK_FALSE(m.uart.interrupt_line());
    REQUIRE(m.uart.set_clear_to_send(true).has_value());
    CHECK(m.in(iir) == 0xC0);
    CHECK(m.in(iir) == 0xC0);
    static_cast<void>(m.in(lsr));
    static_cast<void>(m.in(rbr));
    CHECK(m.in(iir) == 0xC0);
    static_cast<void>(m.in(msr));
    CHECK(m.in(iir) == 0xC1);
}

TEST_CASE("Serial: RDA stays while data remains", "[serial][interrupt][peers]") {  // PEERS 1.2
    for (const bool fifo : {false, true}) {
        Machine m;
        m.out(fcr, fifo ? 0x01 : 0x00);
        m.out(ier, 0x01);
        m.type("abc");
        for (const std::uint8_t expected : bytes("abc")) {
            CHECK((m.in(iir) & 0x0F) == 0x04);
            CHECK(m.uart.interrupt_line());
            CHECK(m.in(rbr) == expected);
        }
        CHECK((m.in(iir) & 0x0F) == 0x01);
        CHECK_FALSE(m.uart.interrupt_line());
    }
}

TEST_CASE("Serial: without FIFOs each further byte causes an edge of its own", "[serial][interrupt][edge]") {
    // The chip has one holding register: reading it lowers the interrupt, and the next byte raises it. A
    // driver that reads one byte per interrupt depends on that.
    Machine m;
    m.out(ier, 0x01);
    m.type("abc");
    CHECK(m.world.take_edges() == 1);
    static_cast<void>(m.in(rbr));
    CHECK(m.world.take_edges() == 1);
    static_cast<void>(m.in(rbr));
    CHECK(m.world.take_edges() == 1);
    static_cast<void>(m.in(rbr));
    CHECK(m.world.take_edges() == 0);

    Machine<Level> level;
    level.out(ier, 0x01);
    level.type("abc");
    level.drain();
    CHECK(level.world.levels == std::vector<bool>{true, false});
    CHECK(level.world.edges == 0);
}

TEST_CASE("Serial: data that waits when its interrupt is enabled interrupts at once",
          "[serial][interrupt][peers]") {
    // PEERS 1.3: input during a printk, which runs with the interrupts off.
    for (const bool fifo : {false, true}) {
        Machine m;
        m.out(fcr, fifo ? 0x01 : 0x00);
        m.out(ier, 0x05);
        for (int round = 0; round < 10; ++round) {
            m.out(ier, 0x00);
            m.out(thr, 'p');
            m.type("ls\n");
            CHECK(m.world.take_edges() == 0);
            m.out(ier, 0x05);
            CHECK(m.world.take_edges() == 1);
            CHECK(m.drain() == "ls\n");
            m.world.edges = 0;
        }
    }
}

TEST_CASE("Serial: enabling THRE again asserts it again", "[serial][interrupt][thre][peers]") {  // PEERS 1.4
    Machine m;
    m.out(ier, 0x02);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x02);
    CHECK(m.in(iir) == 0x01);
    m.out(ier, 0x00);
    m.out(ier, 0x02);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x02);
}

TEST_CASE("Serial: THRE that was acknowledged is not set again by rewriting IER",
          "[serial][interrupt][thre][peers]") {
    Machine m;  // PEERS 1.5
    m.out(ier, 0x02);
    CHECK(m.in(iir) == 0x02);
    m.world.edges = 0;
    for (const int value : {0x02, 0x03, 0x07, 0x0F, 0x02}) {
        m.out(ier, static_cast<std::uint8_t>(value));
        CHECK(m.in(iir) == 0x01);
        CHECK(m.world.edges == 0);
    }
}

TEST_CASE("Serial: a byte that is sent at once acknowledges THRE and raises it again",
          "[serial][interrupt][thre][edge]") {
    Machine m;
    m.out(ier, 0x02);
    CHECK(m.world.take_edges() == 1);
    m.out(thr, 'a');  // not acknowledged before: the line falls and rises at once
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x02);
    CHECK_FALSE(m.uart.interrupt_line());
    m.out(thr, 'b');
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x02);
    REQUIRE(m.uart.write_data(bytes("cdefgh")).has_value());
    CHECK(m.world.take_edges() == 1);  // one for all
    m.out(ier, 0x00);
    m.out(thr, 'i');
    CHECK(m.world.take_edges() == 0);
    // While another source keeps the line high it does not fall, and there is no edge.
    m.type("x");
    m.out(ier, 0x03);
    CHECK(m.world.take_edges() == 1);
    m.out(thr, 'j');
    CHECK(m.world.take_edges() == 0);
    CHECK(m.in(iir) == 0x04);
    CHECK(m.in(rbr) == 'x');
    CHECK(m.in(iir) == 0x02);
}

TEST_CASE("Serial: reading IIR acknowledges THRE only if IIR reports it", "[serial][interrupt][thre]") {
    Machine m;
    m.type("x");
    m.out(ier, 0x03);
    CHECK(m.in(iir) == 0x04);
    CHECK(m.in(iir) == 0x04);
    CHECK(m.in(rbr) == 'x');
    CHECK(m.in(iir) == 0x02);
    CHECK(m.in(iir) == 0x01);
    // Disabled, it is not reported and so not acknowledged.
    m.out(ier, 0x00);
    m.out(thr, 'o');
    CHECK(m.in(iir) == 0x01);
    m.out(ier, 0x02);
    CHECK(m.in(iir) == 0x02);
}

TEST_CASE("Serial: MCR.OUT2 gates the line and not IIR", "[serial][interrupt][peers]") {  // PEERS 1.8
    for (const std::uint8_t other : {std::uint8_t{0x00}, loop}) {
        Machine m;
        m.out(mcr, other);
        static_cast<void>(m.in(msr));
        m.out(ier, 0x02);
        CHECK(m.uart.peek(iir) == 0x02);
        CHECK_FALSE(m.uart.interrupt_line());
        CHECK(m.world.edges == 0);
        m.out(mcr, static_cast<std::uint8_t>(other | out2));
        CHECK(m.uart.interrupt_line());
        CHECK(m.world.take_edges() == 1);
        m.out(mcr, other);
        CHECK_FALSE(m.uart.interrupt_line());
        CHECK(m.in(iir) == 0x02);
        m.out(mcr, static_cast<std::uint8_t>(other | out2));
        CHECK(m.world.take_edges() == 0);  // it was acknowledged meanwhile
    }
}

TEST_CASE("Serial: modem interrupts in loopback come from MCR", "[serial][interrupt][loopback]") {
    Machine m;
    m.out(mcr, loop | out2);
    static_cast<void>(m.in(msr));
    m.out(ier, 0x08);
    CHECK(m.world.take_edges() == 0);
    m.out(mcr, loop | out2 | 0x02);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x00);
    CHECK(m.in(msr) == 0x91);
    CHECK(m.in(iir) == 0x01);
    REQUIRE(m.uart.set_data_carrier_detect(false).has_value());
    CHECK(m.in(iir) == 0x01);
}

TEST_CASE("Serial: a level trigger receives each change of the line once", "[serial][interrupt][level]") {
    Machine<Level> m;
    m.out(ier, 0x03);
    m.type("ab");
    m.out(thr, 'o');
    CHECK(m.world.levels == std::vector<bool>{true});
    m.drain();
    CHECK(m.world.levels == std::vector<bool>{true});
    CHECK(m.in(iir) == 0x02);
    CHECK(m.world.levels == std::vector<bool>{true, false});
    m.out(thr, 'o');
    m.out(thr, 'o');
    m.out(mcr, 0x00);
    m.out(mcr, out2);
    CHECK(m.world.levels == std::vector<bool>{true, false, true, false, true});
    CHECK(m.world.edges == 0);
}

TEST_CASE("Serial: a failing trigger is reported and changes nothing else", "[serial][interrupt][error]") {
    Machine m;
    m.world.trigger_fails = true;
    const auto enabled = m.uart.write(ier, 0x03);
    REQUIRE_FALSE(enabled.has_value());
    CHECK(enabled.error().kind() == SerialErrorKind::trigger);
    CHECK(enabled.error().trigger_error() == 7);
    const auto sent = m.uart.write(thr, 'x');
    REQUIRE_FALSE(sent.has_value());
    CHECK(sent.error() == SerialErrorKind::trigger);
    CHECK(m.world.output == "x");
    CHECK(m.in(iir) == 0x02);
    const auto received = m.uart.enqueue_raw_bytes(bytes("ab"));
    REQUIRE_FALSE(received.has_value());
    CHECK(received.error().kind() == SerialErrorKind::trigger);
    CHECK(m.uart.receive_fifo_room() == 62);
    CHECK(m.world.failed_triggers == 0);
    CHECK(m.in(rbr) == 'a');  // an edge for 'b', within a read
    CHECK(m.world.failed_triggers == 1);
    CHECK(m.in(iir) == 0x04);
    m.world.trigger_fails = false;
    CHECK(m.in(rbr) == 'b');
    CHECK(m.in(iir) == 0x01);
}

TEST_CASE("Serial: bytes below the trigger level wait for the character timeout",
          "[serial][interrupt][timeout]") {
    Machine m;
    m.enable_fifo(0x80);
    m.out(ier, 0x01);
    m.type("abc");
    CHECK(m.in(iir) == 0xC1);
    CHECK(m.world.edges == 0);
    CHECK(m.uart.character_timeout_armed());
    REQUIRE(m.uart.character_timeout().has_value());
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0xCC);
    CHECK(m.in(iir) == 0xCC);
    CHECK_FALSE(m.uart.character_timeout_armed());
    CHECK(m.in(rbr) == 'a');
    CHECK(m.in(iir) == 0xC1);  // any read of RBR clears it, and starts it again
    CHECK(m.uart.character_timeout_armed());
    CHECK(m.world.edges == 0);
    REQUIRE(m.uart.character_timeout().has_value());
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(rbr) == 'b');
    CHECK(m.in(rbr) == 'c');
    REQUIRE(m.uart.character_timeout().has_value());  // nothing waits
    CHECK(m.world.edges == 0);
    CHECK(m.in(iir) == 0xC1);
    // RDA has priority over it.
    m.type("abcdefgh");
    REQUIRE(m.uart.character_timeout().has_value());
    CHECK(m.in(iir) == 0xC4);
    CHECK(m.in(rbr) == 'a');
    CHECK(m.in(iir) == 0xC1);
}

TEST_CASE("Serial: there is no character timeout without FIFOs", "[serial][interrupt][timeout]") {
    Machine m;
    m.type("a");
    CHECK_FALSE(m.uart.character_timeout_armed());
    REQUIRE(m.uart.character_timeout().has_value());
    m.out(ier, 0x01);
    CHECK(m.in(iir) == 0x04);
    CHECK(m.in(rbr) == 'a');
    CHECK(m.in(iir) == 0x01);
}

TEST_CASE("Serial: with the immediate timeout no byte waits below the trigger level",
          "[serial][interrupt][timeout]") {
    Machine m;
    REQUIRE(m.uart.set_receive_timeout(ReceiveTimeout::immediate).has_value());
    m.enable_fifo(0x80);
    m.out(ier, 0x01);
    m.type("a");
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0xCC);
    m.type("bcdefgh");
    CHECK(m.in(iir) == 0xC4);
    CHECK(m.world.take_edges() == 0);
    CHECK(m.in(rbr) == 'a');
    CHECK(m.in(iir) == 0xCC);
    CHECK(m.world.take_edges() == 1);  // the timeout fell and rose again
    for (const std::uint8_t expected : bytes("bcdefg")) {
        CHECK(m.in(rbr) == expected);
        CHECK(m.in(iir) == 0xCC);
        CHECK(m.world.take_edges() == 1);
    }
    CHECK(m.in(rbr) == 'h');
    CHECK(m.in(iir) == 0xC1);
    CHECK(m.world.take_edges() == 0);
    // Raising the trigger level and enabling the policy also affect bytes that already wait.
    m.enable_fifo(0x00);
    m.type("a");
    m.world.edges = 0;
    m.out(fcr, 0x81);
    CHECK(m.in(iir) == 0xCC);
    REQUIRE(m.uart.set_receive_timeout(ReceiveTimeout::manual).has_value());
    CHECK(m.in(rbr) == 'a');
    m.type("b");
    CHECK(m.in(iir) == 0xC1);
    REQUIRE(m.uart.set_receive_timeout(ReceiveTimeout::immediate).has_value());
    CHECK(m.in(iir) == 0xCC);
    // Looped-back bytes count like any others.
    CHECK(m.in(rbr) == 'b');
    m.out(mcr, loop | out2);
    m.out(thr, 'l');
    CHECK(m.in(iir) == 0xCC);
}

TEST_CASE("Serial: the character timeout takes four characters of the line's format",
          "[serial][timeout][peers]") {
    using std::chrono::nanoseconds;
    Machine m;
    // 9600 baud, 8N1: 40 bits.
    CHECK(m.uart.character_timeout_length() == nanoseconds(40 * 1'000'000'000LL / 9600));
    m.out(lcr, 0x1B);  // 8E1: 44 bits
    CHECK(m.uart.character_timeout_length() == nanoseconds(44 * 1'000'000'000LL / 9600));
    m.out(lcr, 0x04);  // 5N1.5: 7.5 bits each
    CHECK(m.uart.character_timeout_length() == nanoseconds(30 * 1'000'000'000LL / 9600));
    m.out(lcr, 0x87);  // 8N2
    m.out(dll, 0x01);
    CHECK(m.uart.character_timeout_length() == nanoseconds(44 * 1'000'000'000LL / 115200));
    m.out(dll, 0x00);  // PEERS 1.13: the divisor 0 divides nothing
    CHECK(m.uart.character_timeout_length() == nanoseconds(44 * 1'000'000'000LL / 115200));
    m.out(dlm, 0xFF);
    m.out(dll, 0xFF);
    CHECK(m.uart.character_timeout_length() == nanoseconds(44ULL * 65535 * 1'000'000'000 / 115200));
}

TEST_CASE("Serial: reading an empty RBR fires nothing", "[serial][events][peers]") {  // PEERS 1.12
    Machine m;
    m.out(ier, 0x0F);
    static_cast<void>(m.in(iir));
    const SerialState before = m.uart.state();
    m.world.edges = 0;
    for (int i = 0; i < 1000; ++i) {
        REQUIRE(m.in(rbr) == 0x00);
    }
    CHECK(m.world.buffer_reads == 0);
    CHECK(m.world.emptied == 0);
    CHECK(m.world.edges == 0);
    CHECK_SAME_STATE(m.uart.state(), before);
}
