// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The register file: reset values, masks, aliasing, FIFOs, errors, modem lines, loopback.
#include <algorithm>
#include <array>
#include <memory>
#include <string_view>
#include <type_traits>
#include <vector>

#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;

TEST_CASE("Serial: every register has its reset value", "[serial][reset]") {
    Machine m;
    const std::array<std::uint8_t, 8> expected{0x00, 0x00, 0x01, 0x03, 0x08, 0x60, 0xB0, 0x00};
    for (std::uint8_t offset = 0; offset < 8; ++offset) {
        CAPTURE(int{offset});
        CHECK(m.uart.peek(offset) == expected[offset]);
        CHECK(m.in(offset) == expected[offset]);
    }
    m.out(lcr, 0x83);
    CHECK(m.in(dll) == 0x0C);
    CHECK(m.in(dlm) == 0x00);
    CHECK(m.uart.receive_fifo_room() == 64);
    CHECK(m.uart.state().line_control == 0x83);
    CHECK(m.world.edges == 0);
    CHECK(m.world.buffer_reads == 0);
    CHECK(m.world.emptied == 0);
}

TEST_CASE("Serial: each register keeps exactly its writable bits", "[serial][mask]") {
    struct Row {
        std::uint8_t offset;
        std::uint8_t mask;
        std::uint8_t fixed;
    };
    // IER 7:4 and MCR 7:5 read 0; LSR and MSR are read only.
    for (const Row row :
         {Row{ier, 0x0F, 0}, Row{lcr, 0xFF, 0}, Row{mcr, 0x1F, 0}, Row{lsr, 0, 0x60}, Row{scr, 0xFF, 0}}) {
        for (unsigned value = 0; value <= 0xFF; ++value) {
            Machine m;
            m.out(row.offset, static_cast<std::uint8_t>(value));
            CAPTURE(int{row.offset}, value);
            REQUIRE(m.in(row.offset) == ((value & row.mask) | row.fixed));
        }
    }
    for (unsigned value = 0; value <= 0xFF; ++value) {
        Machine m;
        m.out(msr, static_cast<std::uint8_t>(value));
        REQUIRE(m.in(msr) == 0xB0);
        m.out(lcr, dlab);
        m.out(dll, static_cast<std::uint8_t>(value));
        m.out(dlm, static_cast<std::uint8_t>(~value));
        REQUIRE(m.in(dll) == value);
        REQUIRE(m.in(dlm) == (~value & 0xFF));
    }
}

TEST_CASE("Serial: FCR reads back through IIR only", "[serial][mask][fifo]") {
    for (unsigned value = 0; value <= 0xFF; ++value) {
        Machine m;
        m.out(fcr, static_cast<std::uint8_t>(value));
        CAPTURE(value);
        REQUIRE(m.in(iir) == ((value & 1) != 0 ? 0xC1 : 0x01));
        // The reset bits clear themselves; without bit 0 nothing is programmed.
        REQUIRE(m.uart.state().fifo_control == ((value & 1) != 0 ? value & 0xC9 : 0));
    }
}

TEST_CASE("Serial: DLAB moves offsets 0 and 1 to the divisor and leaves the others", "[serial][dlab]") {
    Machine m;
    m.out(ier, 0x05);
    m.out(lcr, 0x83);
    m.out(0, 0x34);
    m.out(1, 0x12);
    CHECK(m.world.output.empty());
    CHECK(m.in(0) == 0x34);
    CHECK(m.in(1) == 0x12);
    m.out(fcr, 0x01);
    CHECK(m.in(iir) == 0xC1);
    m.out(scr, 0xA5);
    CHECK(m.in(scr) == 0xA5);
    CHECK(m.in(lcr) == 0x83);
    CHECK(m.in(lsr) == 0x60);
    CHECK(m.type("x") == 1);
    CHECK(m.in(0) == 0x34);  // this did not read RBR: the byte is still there
    CHECK(m.world.buffer_reads == 0);
    m.out(lcr, 0x03);
    CHECK(m.in(ier) == 0x05);
    CHECK(m.in(rbr) == 'x');
    m.out(thr, 'y');
    CHECK(m.world.output == "y");
    m.out(lcr, 0x83);
    CHECK(m.in(0) == 0x34);
    CHECK(m.uart.write_data(bytes("ab")).has_value());
    CHECK(m.in(0) == 'b');
    CHECK(m.world.output == "y");
}

TEST_CASE("Serial: offsets above 7 read 0, ignore writes, and are reported", "[serial]") {
    Machine m;
    const SerialState before = m.uart.state();
    for (unsigned offset = 8; offset <= 0xFF; ++offset) {
        REQUIRE(m.in(static_cast<std::uint8_t>(offset)) == 0);
        REQUIRE(m.uart.peek(static_cast<std::uint8_t>(offset)) == 0);
        m.out(static_cast<std::uint8_t>(offset), 0xFF);
    }
    CHECK(m.world.invalid == 2 * 248);
    CHECK_SAME_STATE(m.uart.state(), before);
    CHECK(m.world.output.empty());
}

TEST_CASE("Serial: peek has no side effect if read has one", "[serial][peek]") {
    Machine m;
    m.enable_fifo();
    m.out(ier, 0x0F);
    m.type("ab");
    REQUIRE(m.uart.send_break().has_value());
    REQUIRE(m.uart.set_clear_to_send(false).has_value());
    static_cast<void>(m.in(rbr));
    static_cast<void>(m.in(rbr));
    const SerialState before = m.uart.state();
    const int edges = m.world.edges;
    for (int round = 0; round < 2; ++round) {
        CHECK(m.uart.peek(rbr) == 0x00);
        CHECK(m.uart.peek(iir) == 0xC6);
        CHECK(m.uart.peek(lsr) == 0xF1);
        CHECK(m.uart.peek(msr) == 0xA1);
    }
    CHECK_SAME_STATE(m.uart.state(), before);
    CHECK(m.world.edges == edges);
    for (std::uint8_t offset = 0; offset < 8; ++offset) {
        const std::uint8_t peeked = m.uart.peek(offset);
        CHECK(m.in(offset) == peeked);
    }
}

TEST_CASE("Serial: reading RBR clears LSR.data_ready", "[serial][fifo]") {
    Machine m;
    REQUIRE(m.uart.enqueue_raw_bytes(bytes("ab")) == std::size_t{2});
    CHECK(m.in(lsr) == 0x61);
    CHECK(m.in(rbr) == 'a');
    CHECK(m.in(lsr) == 0x61);
    CHECK(m.world.emptied == 0);
    CHECK(m.in(rbr) == 'b');
    CHECK(m.in(lsr) == 0x60);
    CHECK(m.world.emptied == 1);
    CHECK(m.world.buffer_reads == 2);
}

TEST_CASE("Serial: input that does not fit into the FIFO is not taken, and not lost", "[serial][fifo]") {
    Machine m;
    const std::string text(100, 'x');
    REQUIRE(m.uart.enqueue_raw_bytes({}) == std::size_t{0});
    REQUIRE(m.uart.enqueue_raw_bytes(bytes(text)) == std::size_t{64});
    CHECK(m.uart.receive_fifo_room() == 0);
    const auto full = m.uart.enqueue_raw_bytes(bytes("y"));
    REQUIRE_FALSE(full.has_value());
    CHECK(full.error().kind() == SerialErrorKind::full_fifo);
    CHECK(m.uart.enqueue_raw_bytes({}) == std::size_t{0});
    CHECK((m.in(lsr) & 0x02) == 0);  // no overrun: the host keeps its bytes
    CHECK(m.in(rbr) == 'x');
    CHECK(m.uart.receive_fifo_room() == 1);
    REQUIRE(m.uart.enqueue_raw_bytes(bytes("yz")) == std::size_t{1});
    const std::string rest(63, 'x');
    CHECK(m.drain() == rest + "y");
    CHECK(m.uart.receive_fifo_room() == 64);
}

TEST_CASE("Serial: fifo_capacity() is the free room of the receive FIFO, not its size", "[serial][fifo]") {
    Machine m;
    for (std::size_t held = 0; held <= 64; ++held) {
        CHECK(m.uart.receive_fifo_room() == 64 - held);
        CHECK(m.uart.fifo_capacity() == 64 - held);
        CHECK(m.uart.enqueue_raw_bytes(bytes("x")).has_value() == (held < 64));
    }
    m.in(rbr);
    CHECK(m.uart.receive_fifo_room() == 1);
    CHECK(m.uart.fifo_capacity() == 1);

    // Neither the FIFO mode nor loopback changes the size that the room is counted from.
    m.out(fcr, 0x07);
    CHECK(m.uart.receive_fifo_room() == 64);
    m.out(mcr, 0x10);
    CHECK(m.uart.enqueue_raw_bytes(bytes("x")) == std::size_t{0});
    CHECK(m.uart.receive_fifo_room() == 64);
    CHECK(m.uart.fifo_capacity() == 64);
    m.out(thr, 'y');
    CHECK(m.uart.receive_fifo_room() == 63);
}

TEST_CASE("Serial: bytes keep their order across the end of the receive buffer", "[serial][fifo]") {
    Machine m;
    std::string sent;
    std::string got;
    for (int round = 0; round < 40; ++round) {
        const std::string chunk(static_cast<std::size_t>(round % 13) + 1,
                                static_cast<char>('a' + (round % 26)));
        REQUIRE(m.type(chunk) == chunk.size());
        sent += chunk;
        for (int i = 0; i < 3 && m.uart.receive_fifo_room() < 64; ++i) {
            got += static_cast<char>(m.in(rbr));
        }
        if (m.uart.receive_fifo_room() < 20) {
            got += m.drain();
        }
    }
    got += m.drain();
    CHECK(got == sent);
}

TEST_CASE("Serial: switching the FIFOs on or off clears both", "[serial][fifo]") {
    for (const bool on : {true, false}) {
        Machine m;
        m.out(fcr, on ? 0x00 : 0x01);
        m.world.resets = 0;
        m.type("abc");
        m.world.room = 0;
        m.out(thr, 'x');
        m.out(ier, 0x02);
        CHECK(m.in(lsr) == 0x01);
        m.out(fcr, on ? 0x01 : 0x00);
        CHECK(m.in(lsr) == 0x60);
        CHECK(m.uart.receive_fifo_room() == 64);
        CHECK(m.world.resets == 1);
        CHECK(m.world.dropped == 4);
        CHECK(m.world.emptied == 1);       // the host may send again
        CHECK(m.world.take_edges() == 1);  // the transmitter became empty
        m.world.room = 10;
        REQUIRE(m.uart.resume_transmit().has_value());
        CHECK(m.world.output.empty());
        CHECK(m.world.lost_bytes == 0);  // discarded because the guest requested it
    }
}

TEST_CASE("Serial: FCR resets one FIFO and leaves the other", "[serial][fifo]") {
    Machine m;
    m.enable_fifo();
    m.world.room = 0;
    m.type("abc");
    m.out(thr, 'x');
    m.out(fcr, 0x03);  // the receiver
    CHECK(m.in(lsr) == 0x00);
    CHECK(m.uart.transmit_pending());
    m.type("abc");
    m.out(fcr, 0x05);  // the transmitter
    CHECK(m.in(lsr) == 0x61);
    CHECK(m.drain() == "abc");
    const int emptied = m.world.emptied;
    m.out(fcr, 0x07);  // nothing to clear
    CHECK(m.world.emptied == emptied);
    CHECK(m.world.dropped == 4);
    // Without bit 0 the reset bits have no effect.
    Machine off;
    off.type("abc");
    off.out(fcr, 0x06);
    CHECK(off.drain() == "abc");
    CHECK(off.world.resets == 0);
}

TEST_CASE("Serial: writing LCR does not reset the FIFOs", "[serial][fifo][peers]") {  // PEERS 1.14
    Machine m;
    m.enable_fifo();
    m.world.room = 0;
    m.type("abc");
    m.out(thr, 'x');
    for (const int value : {0x06, 0x02, 0x04, 0x86, 0x03}) {
        m.out(lcr, static_cast<std::uint8_t>(value));
    }
    CHECK(m.drain() == "abc");
    CHECK(m.uart.transmit_pending());
    CHECK(m.world.resets == 1);  // from enabling them
    m.out(fcr, 0x07);
    CHECK(m.in(lsr) == 0x60);
}

TEST_CASE("Serial: the receive trigger level determines when data is available",
          "[serial][fifo][interrupt]") {
    const std::array<std::size_t, 4> levels{1, 4, 8, 14};
    for (unsigned i = 0; i < 4; ++i) {
        Machine m;
        m.enable_fifo(static_cast<std::uint8_t>(i << 6));
        m.out(ier, 0x01);
        for (std::size_t n = 1; n < levels[i]; ++n) {
            m.type("x");
            REQUIRE(m.in(iir) == 0xC1);
        }
        CHECK(m.world.edges == 0);
        m.type("x");
        CHECK(m.in(iir) == 0xC4);
        CHECK(m.world.take_edges() == 1);
        m.type("xx");
        CHECK(m.world.edges == 0);  // the line is high already
        for (int n = 0; n < 2; ++n) {
            static_cast<void>(m.in(rbr));
            CHECK(m.in(iir) == 0xC4);
        }
        static_cast<void>(m.in(rbr));  // below the level
        CHECK(m.in(iir) == 0xC1);
        CHECK_FALSE(m.uart.interrupt_line());
        CHECK(m.world.edges == 0);
    }
}

TEST_CASE("Serial: changing the trigger level re-evaluates the interrupt", "[serial][fifo][interrupt]") {
    Machine m;
    m.enable_fifo(0x80);
    m.out(ier, 0x01);
    m.type("abcd");
    CHECK(m.in(iir) == 0xC1);
    m.out(fcr, 0x41);
    CHECK(m.in(iir) == 0xC4);
    CHECK(m.world.take_edges() == 1);
    m.out(fcr, 0x81);
    CHECK(m.in(iir) == 0xC1);
    CHECK_FALSE(m.uart.interrupt_line());
}

TEST_CASE("Serial: the 64-byte mode exists only if the host allows it", "[serial][fifo]") {
    Machine m;
    m.out(lcr, 0x83);
    m.out(fcr, 0xE1);
    CHECK(m.in(iir) == 0xC1);
    CHECK(m.uart.transmit_capacity() == 16);
    REQUIRE(m.uart.allow_64_byte_fifo(true).has_value());
    m.out(lcr, 0x03);
    m.out(fcr, 0xE1);  // protected by DLAB
    CHECK(m.in(iir) == 0xC1);
    m.out(lcr, 0x83);
    m.out(fcr, 0xE1);
    CHECK(m.in(iir) == 0xE1);
    m.out(lcr, 0x03);
    m.out(fcr, 0x81);  // and kept by it
    CHECK(m.in(iir) == 0xE1);
    CHECK(m.uart.transmit_capacity() == 64);
    const std::array<std::size_t, 4> levels{1, 16, 32, 56};
    for (unsigned i = 0; i < 4; ++i) {
        m.out(fcr, static_cast<std::uint8_t>(0x03 | (i << 6)));
        m.out(ier, 0x01);
        m.type(std::string(levels[i] - 1, 'x'));
        CHECK(m.in(iir) == 0xE1);
        m.type("x");
        CHECK(m.in(iir) == 0xE4);
    }
    REQUIRE(m.uart.allow_64_byte_fifo(false).has_value());
    CHECK(m.in(iir) == 0xC4);
    CHECK(m.uart.transmit_capacity() == 16);
}

TEST_CASE("Serial: the errors of a byte appear in LSR when it becomes the oldest", "[serial][errors]") {
    using vmsuperio::uart16550::LineStatus;
    Machine m;
    m.enable_fifo();
    m.out(ier, 0x04);
    m.type("a");
    REQUIRE(m.uart.receive_with_errors('b', LineStatus(0x04)).has_value());
    REQUIRE(m.uart.receive_with_errors('c', LineStatus(0x08)).has_value());
    m.type("d");
    CHECK(m.in(lsr) == 0xE1);  // an error is in the FIFO, but not at its top
    CHECK(m.world.edges == 0);
    CHECK(m.in(rbr) == 'a');
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0xC6);
    CHECK(m.in(lsr) == 0xE5);
    CHECK(m.in(iir) == 0xC1);
    CHECK(m.in(lsr) == 0xE1);  // bits 4:1 were cleared; 'c' keeps bit 7 set
    CHECK(m.in(rbr) == 'b');
    CHECK(m.in(lsr) == 0xE9);
    CHECK(m.in(lsr) == 0x61);
    CHECK(m.in(rbr) == 'c');
    CHECK(m.in(lsr) == 0x61);
    CHECK(m.in(rbr) == 'd');
    CHECK(m.in(lsr) == 0x60);
}

TEST_CASE("Serial: LSR bit 7 exists in FIFO mode only", "[serial][errors]") {
    Machine m;
    REQUIRE(m.uart.send_break().has_value());
    CHECK(m.in(lsr) == 0x71);
    m.enable_fifo();
    REQUIRE(m.uart.send_break().has_value());
    CHECK(m.in(lsr) == 0xF1);
    CHECK(m.in(lsr) == 0x61);
}

TEST_CASE("Serial: a break is a zero byte with LSR.break_interrupt", "[serial][errors][break]") {
    Machine m;
    m.enable_fifo();
    m.out(ier, 0x04);
    m.type("a");
    REQUIRE(m.uart.send_break().has_value());
    m.type("b");
    CHECK(m.world.breaks == 1);
    CHECK(m.in(rbr) == 'a');
    CHECK(m.world.take_edges() == 1);
    CHECK((m.in(lsr) & 0x1F) == 0x11);
    CHECK(m.in(rbr) == 0x00);
    CHECK(m.in(rbr) == 'b');
    CHECK(m.world.edges == 0);
    m.type(std::string(64, 'x'));
    const auto full = m.uart.send_break();
    REQUIRE_FALSE(full.has_value());
    CHECK(full.error().kind() == SerialErrorKind::full_fifo);
    CHECK(m.world.breaks == 1);
}

TEST_CASE("Serial: clearing the receive FIFO clears the errors of its bytes", "[serial][errors][fifo]") {
    Machine m;
    m.enable_fifo();
    m.out(ier, 0x04);
    REQUIRE(m.uart.send_break().has_value());
    REQUIRE(m.uart.send_break().has_value());
    CHECK(m.uart.interrupt_line());
    m.out(fcr, 0x03);
    CHECK_FALSE(m.uart.interrupt_line());
    CHECK(m.in(lsr) == 0x60);
    m.type("a");
    CHECK(m.in(lsr) == 0x61);
}

TEST_CASE("Serial: the guest's own break is reported", "[serial][break]") {
    Machine m;
    m.out(lcr, 0x43);
    m.out(lcr, 0x43);
    m.out(lcr, 0x03);
    CHECK(m.world.break_control == std::vector<bool>{true, false});
}

TEST_CASE("Serial: each modem line sets its delta, reading MSR clears them", "[serial][modem]") {
    Machine m;
    m.out(ier, 0x08);
    REQUIRE(m.uart.set_clear_to_send(false).has_value());
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x00);
    CHECK(m.in(msr) == 0xA1);
    CHECK(m.in(msr) == 0xA0);
    CHECK(m.in(iir) == 0x01);
    REQUIRE(m.uart.set_clear_to_send(false).has_value());  // no change
    CHECK(m.in(msr) == 0xA0);
    REQUIRE(m.uart.set_data_set_ready(false).has_value());
    CHECK(m.in(msr) == 0x82);
    REQUIRE(m.uart.set_data_carrier_detect(false).has_value());
    CHECK(m.in(msr) == 0x08);
    REQUIRE(m.uart.set_ring_indicator(true).has_value());
    CHECK(m.in(msr) == 0x40);  // only the end of a ring sets a delta
    REQUIRE(m.uart.set_ring_indicator(false).has_value());
    CHECK(m.in(msr) == 0x04);
    REQUIRE(m.uart.set_modem_lines(vmsuperio::uart16550::ModemStatus(0xFF)).has_value());
    CHECK(m.in(msr) == 0xFB);
    CHECK(m.world.take_edges() == 4);  // the edge of CTS was earlier
}

TEST_CASE("Serial: loopback connects the modem outputs to the inputs", "[serial][loopback][modem]") {
    struct Row {
        std::uint8_t output;
        std::uint8_t input;
    };
    for (const Row row : {Row{0x01, 0x20}, Row{0x02, 0x10}, Row{0x04, 0x40}, Row{0x08, 0x80}}) {
        Machine m;
        m.out(mcr, loop);
        static_cast<void>(m.in(msr));
        CHECK(m.in(msr) == 0x00);
        m.out(mcr, static_cast<std::uint8_t>(loop | row.output));
        CHECK((m.in(msr) & 0xF0) == row.input);
        m.out(mcr, loop);
        CHECK((m.in(msr) & 0x0F) == (row.input >> 4));
        // The host's lines are disconnected, and connected again afterwards.
        REQUIRE(m.uart.set_clear_to_send(false).has_value());
        CHECK(m.in(msr) == 0x00);
        m.out(mcr, 0x08);
        CHECK((m.in(msr) & 0xF0) == 0xA0);
    }
}

TEST_CASE("Serial: the outside sees the modem outputs, and none of them in loopback",
          "[serial][loopback][modem]") {
    Machine m;
    m.out(mcr, 0x0F);
    CHECK(m.uart.modem_outputs().value() == 0x0F);
    m.out(mcr, 0x1F);
    CHECK(m.uart.modem_outputs().value() == 0x00);
    CHECK(m.in(mcr) == 0x1F);
}

TEST_CASE("Serial: loopback returns the bytes that are sent, and the host receives nothing",
          "[serial][loopback]") {
    Machine m;
    m.out(mcr, loop | out2);
    m.out(ier, 0x03);
    m.world.edges = 0;
    m.out(thr, 'a');
    m.out(thr, 'b');
    m.out(thr, 'c');
    CHECK(m.world.output.empty());
    CHECK(m.world.writer_calls == 0);
    CHECK(m.world.out_bytes == 0);
    CHECK(m.uart.interrupt_line());
    CHECK(m.in(iir) == 0x04);
    CHECK(m.drain() == "abc");
    REQUIRE(m.uart.enqueue_raw_bytes(bytes("x")) == std::size_t{0});
    REQUIRE(m.uart.send_break().has_value());
    CHECK(m.in(lsr) == 0x60);
    CHECK(m.world.resumed == 0);
    m.out(mcr, out2);
    CHECK(m.world.resumed == 1);
    CHECK(m.type("x") == 1);
    m.out(thr, 'o');
    CHECK(m.world.output == "o");
}

TEST_CASE("Serial: loopback beyond the receive FIFO sets LSR.overrun_error",
          "[serial][loopback][errors][peers]") {
    // PEERS 1.7. Without FIFOs the whole buffer of 64 takes part; with them, what a 16550A or TL16C750 has.
    struct Row {
        bool fifo;
        bool fifo_64;
        unsigned depth;
    };
    for (const Row row : {Row{false, false, 64}, Row{true, false, 16}, Row{true, true, 64}}) {
        CAPTURE(row.fifo, row.fifo_64);
        Machine m;
        REQUIRE(m.uart.allow_64_byte_fifo(row.fifo_64).has_value());
        m.out(lcr, 0x83);
        m.out(fcr, row.fifo ? 0x21 : 0x00);
        m.out(lcr, 0x03);
        m.out(ier, 0x04);
        m.out(mcr, loop | out2);
        for (unsigned i = 0; i < row.depth; ++i) {
            m.out(thr, static_cast<std::uint8_t>(i));
            REQUIRE((m.in(lsr) & 0x02) == 0);
        }
        CHECK(m.world.edges == 0);
        m.out(thr, 0xEE);
        CHECK(m.world.take_edges() == 1);
        CHECK((m.in(iir) & 0x0F) == 0x06);
        CHECK(m.world.overruns == 1);
        CHECK(m.in(lsr) == 0x63);  // an overrun is not an error of a byte in the FIFO
        CHECK(m.in(lsr) == 0x61);
        for (unsigned i = 0; i < row.depth; ++i) {
            REQUIRE(m.in(rbr) == i);
        }
        CHECK(m.in(lsr) == 0x60);
        REQUIRE(m.uart.write_data(std::vector<std::uint8_t>(70, 1)).has_value());
        CHECK(m.world.overruns == 1 + static_cast<int>(70 - row.depth));
    }
}

TEST_CASE("Serial: bytes that wait when loopback begins still reach the writer", "[serial][loopback]") {
    Machine m;
    m.enable_fifo();
    m.world.room = 0;
    m.out(thr, 'a');
    m.out(mcr, loop | out2);
    m.out(thr, 'b');
    CHECK(m.in(lsr) == 0x01);
    m.world.room = 10;
    REQUIRE(m.uart.resume_transmit().has_value());
    CHECK(m.world.output == "a");
    CHECK(m.in(lsr) == 0x61);
    CHECK(m.in(rbr) == 'b');
}

TEST_CASE("Serial: a reset restores the reset values and keeps the host's settings", "[serial][reset]") {
    Machine m;
    m.enable_fifo(0x80);
    for (const std::uint8_t offset : {ier, lcr, mcr, scr}) {
        m.out(offset, 0x1F);
    }
    REQUIRE(m.uart.set_clear_to_send(false).has_value());
    REQUIRE(m.uart.allow_64_byte_fifo(true).has_value());
    m.out(mcr, out2);
    m.type("abc");
    m.world.emptied = 0;
    REQUIRE(m.uart.reset().has_value());
    SerialState expected;
    expected.modem_inputs = 0xA0;
    expected.fifo_64_allowed = true;
    expected.receive_timeout = vmsuperio::ReceiveTimeout::manual;
    CHECK_SAME_STATE(m.uart.state(), expected);
    CHECK(m.world.emptied == 1);
    CHECK(m.world.break_control.empty());
    CHECK_FALSE(m.uart.interrupt_line());
}

TEST_CASE("Serial: a reset ends a break that the guest sends", "[serial][reset]") {
    Machine m;
    m.out(lcr, 0x43);
    REQUIRE(m.uart.reset().has_value());
    CHECK(m.world.break_control == std::vector<bool>{true, false});
    REQUIRE(m.uart.reset().has_value());
    CHECK(m.world.break_control.size() == 2);
}

TEST_CASE("Serial: class template arguments are deduced, and the parts are accessible", "[serial][api]") {
    vmsuperio::Serial plain(vmsuperio::NullTrigger{}, vmsuperio::BufferWriter{});
    static_assert(
        std::is_same_v<decltype(plain), vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents,
                                                          vmsuperio::BufferWriter>>);
    REQUIRE(plain.write(thr, 'x').has_value());
    CHECK(std::as_const(plain).writer().text() == "x");
    plain.writer().clear();
    REQUIRE(plain.write(thr, 'y').has_value());
    const vmsuperio::BufferWriter taken = std::move(plain).into_writer();
    CHECK(taken.text() == "y");

    World world;
    Events events{&world};
    Sink sink{&world};
    vmsuperio::Serial shared(Edge{&world}, vmsuperio::EventsRef(events), vmsuperio::WriterRef(sink));
    REQUIRE(shared.write(thr, 'z').has_value());
    CHECK(world.output == "z");
    CHECK(world.out_bytes == 1);
    static_cast<void>(shared.read(9));
    CHECK(world.invalid == 1);
    CHECK(shared.interrupt_evt().edges == &world.edges);
    static_assert(std::is_same_v<decltype(std::as_const(shared).interrupt_evt()), const Edge&>);
}

namespace {

struct MoveOnlyTrigger {
    using error_type = std::error_code;
    std::unique_ptr<int> count = std::make_unique<int>(0);
    std::expected<void, std::error_code> trigger() {
        ++*count;
        return {};
    }
};

struct MoveOnlyWriter {
    std::unique_ptr<std::string> text = std::make_unique<std::string>();
    std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> data) {
        text->append(data.begin(), data.end());
        return data.size();
    }
};

}  // namespace

TEST_CASE("Serial: move-only triggers and writers work", "[serial][api]") {
    vmsuperio::Serial uart(MoveOnlyTrigger{}, MoveOnlyWriter{});
    REQUIRE(uart.write(ier, 0x02).has_value());
    REQUIRE(uart.write(thr, 'x').has_value());
    auto moved = std::move(uart);
    CHECK(*moved.interrupt_evt().count == 2);
    auto state = moved.state();
    auto back = decltype(moved)::from_state(state, MoveOnlyTrigger{}, {}, std::move(moved).into_writer());
    REQUIRE(back.has_value());
    CHECK(*back->writer().text == "x");
    CHECK(*back->interrupt_evt().count == 1);
}

TEST_CASE("Serial: it works at compile time", "[serial][api]") {
    constexpr auto echoed = [] {
        vmsuperio::Serial uart(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{});
        static_cast<void>(uart.write(fcr, 0x01));
        static_cast<void>(uart.write(mcr, loop));
        static_cast<void>(uart.write(thr, 0x42));
        return uart.read(rbr);
    }();
    static_assert(echoed == 0x42);
    CHECK(echoed == 0x42);
}

TEST_CASE("SerialError: every error has its own text", "[serial][error]") {
    std::vector<std::string_view> seen;
    for (const auto kind : {SerialErrorKind::trigger, SerialErrorKind::write, SerialErrorKind::full_fifo,
                            SerialErrorKind::invalid_state}) {
        const std::string_view text = to_string(kind);
        CHECK_FALSE(text.empty());
        CHECK(std::ranges::count(seen, text) == 0);
        CHECK(to_string(vmsuperio::SerialError<int>(kind)) == text);
        seen.push_back(text);
    }
    CHECK(to_string(static_cast<SerialErrorKind>(0xFF)) == "unknown serial error");
    CHECK_FALSE(to_string(vmsuperio::StateError{"ram"}).empty());
}

TEST_CASE("Serial: it behaves the same with and without events", "[serial]") {
    vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::BufferWriter> uart({}, {}, {});
    const std::array<std::uint8_t, 2> input{'i', 'n'};
    REQUIRE(uart.enqueue_raw_bytes(input) == std::size_t{2});
    CHECK(uart.read(rbr) == 'i');
    CHECK(uart.read(rbr) == 'n');
    CHECK((uart.read(lsr) & 0x01) == 0);
    REQUIRE(uart.write(thr, 'o').has_value());
    CHECK(uart.writer().text() == "o");
}

TEST_CASE("EventsRef: the guest's break is reported", "[serial]") {
    World world;
    Events events{&world};
    vmsuperio::Serial uart(Edge{&world}, vmsuperio::EventsRef(events), Sink{&world});
    REQUIRE(uart.write(lcr, 0x40).has_value());
    REQUIRE(uart.write(lcr, 0x00).has_value());
    CHECK(world.break_control == std::vector<bool>{true, false});
}

TEST_CASE("Serial: the host's settings can be read", "[serial]") {
    const vmsuperio::Serial fresh(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{});
    CHECK(fresh.transmit_policy() == vmsuperio::TransmitPolicy::back_pressure);
    CHECK(fresh.receive_timeout() == vmsuperio::ReceiveTimeout::immediate);
    CHECK(fresh.interrupt_gate() == vmsuperio::InterruptGate::out2);
    CHECK_FALSE(fresh.is_64_byte_fifo_allowed());
    Machine m;
    REQUIRE(m.uart.set_transmit_policy(vmsuperio::TransmitPolicy::drop_and_count).has_value());
    REQUIRE(m.uart.set_receive_timeout(vmsuperio::ReceiveTimeout::immediate).has_value());
    REQUIRE(m.uart.allow_64_byte_fifo(true).has_value());
    CHECK(m.uart.transmit_policy() == vmsuperio::TransmitPolicy::drop_and_count);
    CHECK(m.uart.receive_timeout() == vmsuperio::ReceiveTimeout::immediate);
    REQUIRE(m.uart.set_interrupt_gate(vmsuperio::InterruptGate::none).has_value());
    CHECK(m.uart.interrupt_gate() == vmsuperio::InterruptGate::none);
    CHECK(m.uart.is_64_byte_fifo_allowed());
}
