// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The host's view of the line and its settings: the default of the character timeout, the gate of the
// interrupt, changes of format, speed and modem outputs, automatic flow control, and the text of errors.
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_timeout.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;
using vmsuperio::InterruptGate;

namespace {

constexpr std::uint8_t rts = 0x02, dtr = 0x01, afe = 0x20;

struct Line {
    World world;
    std::vector<std::uint8_t> formats;
    std::vector<int> divisors;
    std::vector<std::string> outputs;
};

struct LineEvents : Events {
    Line* line;
    void line_format_changed(vmsuperio::uart16550::LineControl format) {
        line->formats.push_back(format.value());
    }
    void divisor_changed(std::uint16_t divisor) { line->divisors.push_back(divisor); }
    void data_terminal_ready(bool on) { line->outputs.emplace_back(on ? "DTR" : "dtr"); }
    void request_to_send(bool on) { line->outputs.emplace_back(on ? "RTS" : "rts"); }
};

struct Port {
    Line line;
    Serial<Edge, LineEvents, Sink> uart{Edge{&line.world}, LineEvents{{&line.world}, &line},
                                        Sink{&line.world}};

    Port() = default;
    Port(const Port&) = delete;
    Port& operator=(const Port&) = delete;

    void out(std::uint8_t offset, std::uint8_t value) { REQUIRE(uart.write(offset, value).has_value()); }
    std::uint8_t in(std::uint8_t offset) { return uart.read(offset); }
    std::size_t type(std::string_view text) { return uart.enqueue_raw_bytes(bytes(text)).value_or(0); }
    std::vector<std::string> take_outputs() { return std::exchange(line.outputs, {}); }
};

using Outputs = std::vector<std::string>;

/// What FIFO resets discarded: each byte, with the errors that the guest had not read.
struct DropEvents : Events {
    std::vector<std::string>* drops;
    void characters_dropped(const vmsuperio::ReceivedCharacters& characters) {
        std::string text;
        for (const auto& character : characters) {
            text += static_cast<char>(character.byte);
            text += character.errors.value() == 0 ? "" : '<' + std::to_string(character.errors.value()) + '>';
        }
        drops->push_back(text);
    }
};

}  // namespace

TEST_CASE("Serial: the characters that a FIFO reset discards are reported, with errors and in order",
          "[serial][fifo]") {
    using vmsuperio::uart16550::LineStatus;
    World world;
    std::vector<std::string> drops;
    Serial<Edge, DropEvents, Sink> uart{Edge{&world}, DropEvents{{&world}, &drops}, Sink{&world}};
    const auto out = [&uart](std::uint8_t offset, int value) {
        REQUIRE(uart.write(offset, static_cast<std::uint8_t>(value)).has_value());
    };
    const auto type = [&uart](std::string_view text) {
        return uart.enqueue_raw_bytes(bytes(text)).value_or(0);
    };
    constexpr std::uint8_t parity = LineStatus::parity_error.mask;
    constexpr std::uint8_t framing = LineStatus::framing_error.mask;
    out(fcr, 0x01);
    CHECK(drops.empty());  // switching the FIFOs on resets them, and there was nothing in them
    SECTION("bytes alone") {
        REQUIRE(type("abc") == 3);
        CHECK(uart.read(rbr) == 'a');
        out(fcr, 0x03);
        CHECK(drops == std::vector<std::string>{"bc"});
        CHECK(uart.fifo_capacity() == 64);
        CHECK(world.dropped == 2);
        out(fcr, 0x03);
        CHECK(drops.size() == 1);
    }
    SECTION("errors of each byte") {
        REQUIRE(uart.receive_with_errors('p', LineStatus(parity)).has_value());
        REQUIRE(type("x") == 1);
        REQUIRE(uart.receive_with_errors('f', LineStatus(framing)).has_value());
        REQUIRE(uart.send_break().has_value());
        out(fcr, 0x03);
        CHECK(drops == std::vector<std::string>{std::string("p<4>xf<8>\0<16>", 14)});
    }
    SECTION("an error that the guest has read is no longer there") {
        REQUIRE(uart.receive_with_errors('p', LineStatus(parity)).has_value());
        CHECK((uart.read(lsr) & parity) != 0);
        out(fcr, 0x03);
        CHECK(drops == std::vector<std::string>{"p"});
    }
    SECTION("a whole FIFO, wrapped around") {
        REQUIRE(type(std::string(40, 'x')) == 40);
        for (int i = 0; i < 40; ++i) {
            CHECK(uart.read(rbr) == 'x');
        }
        const std::string full = std::string(63, 'y') + 'z';
        REQUIRE(type(full) == 64);
        out(fcr, 0x00);  // switching the FIFOs off resets them as well
        CHECK(drops == std::vector<std::string>{full});
    }
    SECTION("not by other accesses, nor by the transmitter's reset, nor by the host") {
        REQUIRE(type("abc") == 3);
        out(fcr, 0x05);
        out(fcr, 0xC1);
        out(mcr, 0x10);
        out(mcr, 0x08);
        CHECK(drops.empty());
        REQUIRE(uart.reset().has_value());
        CHECK(drops.empty());
    }
    SECTION("through a reference to the events") {
        DropEvents events{{&world}, &drops};
        vmsuperio::Serial other(Edge{&world}, vmsuperio::EventsRef<DropEvents>(events), Sink{&world});
        REQUIRE(other.enqueue_raw_bytes(bytes("q")).has_value());
        REQUIRE(other.write(fcr, 0x01).has_value());
        CHECK(drops == std::vector<std::string>{"q"});
    }
}

TEST_CASE("Serial: each typed byte interrupts by default, whatever the trigger level", "[serial][timeout]") {
    for (const int trigger : {0x01, 0x41, 0x81, 0xC1, 0x00}) {
        CAPTURE(trigger);
        World world;
        Serial<Edge, Events, Sink> uart(Edge{&world}, Events{&world}, Sink{&world});
        REQUIRE(uart.write(fcr, static_cast<std::uint8_t>(trigger)).has_value());
        REQUIRE(uart.write(ier, 0x01).has_value());
        for (int i = 0; i < 20; ++i) {
            REQUIRE(uart.enqueue_raw_bytes(bytes("a")) == 1U);
            CHECK(world.take_edges() == 1);
            const int id = uart.read(iir) & 0x0F;
            CHECK((trigger <= 0x01 ? id == 0x04 : id == 0x0C));
            CHECK(uart.read(rbr) == 'a');
            CHECK(uart.read(iir) % 2 == 1);
        }
        CHECK(world.take_edges() == 0);
    }
}

TEST_CASE("Serial: with the manual timeout a byte below the trigger level waits for it",
          "[serial][timeout]") {
    World world;
    Serial<Edge, Events, Sink> uart(Edge{&world}, Events{&world}, Sink{&world});
    REQUIRE(uart.set_receive_timeout(vmsuperio::ReceiveTimeout::manual).has_value());
    REQUIRE(uart.write(fcr, 0x81).has_value());
    REQUIRE(uart.write(ier, 0x01).has_value());
    REQUIRE(uart.enqueue_raw_bytes(bytes("a")) == 1U);
    CHECK(world.edges == 0);
    REQUIRE(uart.character_timeout().has_value());
    CHECK(world.edges == 1);
}

TEST_CASE("Serial: OUT2 gates the interrupt unless the host connects it always", "[serial][interrupt]") {
    Port p;
    p.out(mcr, 0x00);
    p.out(ier, 0x01);
    p.type("a");
    CHECK(p.line.world.edges == 0);
    CHECK_FALSE(p.uart.interrupt_line());
    CHECK(p.in(iir) == 0x04);  // IIR is not gated
    REQUIRE(p.uart.set_interrupt_gate(InterruptGate::none).has_value());
    CHECK(p.line.world.take_edges() == 1);
    CHECK(p.uart.interrupt_line());
    p.in(rbr);
    p.type("b");
    CHECK(p.line.world.take_edges() == 1);
    // It survives a reset and a snapshot, like the other settings of the host.
    REQUIRE(p.uart.reset().has_value());
    CHECK(p.uart.interrupt_gate() == InterruptGate::none);
    const auto decoded = vmsuperio::decode<SerialState>(vmsuperio::encode(p.uart.state()));
    REQUIRE(decoded.has_value());
    CHECK(decoded->interrupt_gate == InterruptGate::none);
    p.out(mcr, 0x00);
    p.out(ier, 0x01);
    p.type("c");
    CHECK(p.line.world.take_edges() == 1);
    REQUIRE(p.uart.set_interrupt_gate(InterruptGate::out2).has_value());
    CHECK_FALSE(p.uart.interrupt_line());
    p.out(mcr, out2);
    CHECK(p.line.world.take_edges() == 1);
}

TEST_CASE("Serial: line format, divisor, DTR and RTS are reported when they change and only then",
          "[serial][events]") {
    Port p;
    p.out(lcr, 0x03);  // no change
    p.out(lcr, 0x83);  // DLAB is not part of the format
    CHECK(p.line.formats.empty());
    p.out(dll, 12);  // no change
    CHECK(p.line.divisors.empty());
    p.out(dll, 1);
    p.out(dlm, 1);
    CHECK(p.line.divisors == std::vector<int>{1, 0x101});
    CHECK(p.uart.divisor() == 0x101);
    p.out(lcr, 0x1A);
    p.out(lcr, 0x5A);  // a break is not part of the format
    CHECK(p.line.formats == std::vector<std::uint8_t>{0x1A});
    CHECK(p.line.world.break_control == std::vector<bool>{true});
    p.out(dll, 7);  // THR, as DLAB is 0
    CHECK(p.line.divisors.size() == 2);

    p.out(mcr, out2);
    CHECK(p.take_outputs().empty());
    p.out(mcr, out2 | dtr);
    CHECK(p.take_outputs() == Outputs{"DTR"});
    p.out(mcr, out2 | dtr | rts);
    CHECK(p.take_outputs() == Outputs{"RTS"});
    p.out(mcr, dtr | rts | 0x04);  // OUT1 and OUT2 are not reported
    CHECK(p.take_outputs().empty());
    p.out(mcr, dtr | rts | loop);  // the outputs are disconnected
    CHECK(p.take_outputs() == Outputs{"dtr", "rts"});
    p.out(mcr, loop);
    CHECK(p.take_outputs().empty());
    p.out(mcr, dtr);
    CHECK(p.take_outputs() == Outputs{"DTR"});
    p.line.formats.clear();
    p.line.divisors.clear();
    REQUIRE(p.uart.reset().has_value());
    CHECK(p.take_outputs() == Outputs{"dtr"});
    CHECK(p.line.formats == std::vector<std::uint8_t>{0x03});
    CHECK(p.line.divisors == std::vector<int>{12});
    CHECK(p.line.world.break_control == std::vector<bool>{true, false});
    REQUIRE(p.uart.reset().has_value());
    CHECK(p.line.formats.size() == 1);
    CHECK(p.take_outputs().empty());
}

TEST_CASE("Serial: many writes of the divisor at once report each change", "[serial][events]") {
    Port p;
    p.out(lcr, dlab);
    p.line.divisors.clear();
    REQUIRE(p.uart.write_data(std::vector<std::uint8_t>{1, 1, 2}).has_value());
    CHECK(p.line.divisors == std::vector<int>{1, 2});
}

TEST_CASE("Serial: a plain 16550A has no automatic flow control", "[serial][flow]") {
    Port p;
    for (unsigned value = 0; value <= 0xFF; ++value) {
        p.out(mcr, static_cast<std::uint8_t>(value));
        REQUIRE(p.in(mcr) == (value & 0x1F));
    }
    p.out(mcr, out2 | afe);
    p.in(msr);
    REQUIRE(p.uart.set_clear_to_send(false).has_value());
    p.out(thr, 'a');
    CHECK(p.line.world.output == "a");
    CHECK(p.in(msr) == 0xA1);  // DCTS
}

TEST_CASE("Serial: CTS stops the TL16C750's transmitter and starts it again", "[serial][flow]") {
    Port p;
    REQUIRE(p.uart.allow_64_byte_fifo(true).has_value());
    p.out(fcr, 0x01);
    p.out(mcr, out2 | afe);
    CHECK(p.in(mcr) == (out2 | afe));
    CHECK(p.uart.modem_outputs().value() == out2);  // AFE is not a pin
    p.out(ier, 0x0A);
    p.in(iir);
    p.line.world.take_edges();
    p.out(thr, 'a');
    CHECK(p.line.world.output == "a");
    REQUIRE(p.uart.set_clear_to_send(false).has_value());
    CHECK(p.in(msr) == 0xA0);  // no delta, no interrupt: the chip handles CTS itself
    p.line.world.take_edges();
    p.in(iir);
    REQUIRE(p.uart.write_data(bytes("bcd")).has_value());
    CHECK(p.line.world.output == "a");
    CHECK((p.in(lsr) & 0x60) == 0);
    REQUIRE(p.uart.resume_transmit().has_value());  // the writer can, the other side cannot
    CHECK(p.line.world.output == "a");
    CHECK(p.line.world.lost_bytes == 0);
    CHECK(p.line.world.take_edges() == 0);
    REQUIRE(p.uart.set_clear_to_send(true).has_value());
    CHECK(p.line.world.output == "abcd");
    CHECK(p.line.world.take_edges() == 1);  // THRE
    CHECK(p.in(iir) == 0xC2);
    // Disabling flow control starts the transmitter, too.
    REQUIRE(p.uart.set_clear_to_send(false).has_value());
    p.out(thr, 'e');
    CHECK(p.line.world.output == "abcd");
    p.out(mcr, out2);
    CHECK(p.line.world.output == "abcde");
    // A change while there is nothing to send is visible in MSR when flow control is off.
    CHECK(p.in(msr) == 0xA0);
    REQUIRE(p.uart.set_clear_to_send(true).has_value());
    CHECK(p.in(msr) == 0xB1);
    // Disallowing the profile starts it as well.
    p.out(mcr, out2 | afe);
    REQUIRE(p.uart.set_clear_to_send(false).has_value());
    p.out(thr, 'f');
    CHECK(p.line.world.output == "abcde");
    REQUIRE(p.uart.allow_64_byte_fifo(false).has_value());
    CHECK(p.line.world.output == "abcdef");
    CHECK(p.in(mcr) == out2);
}

TEST_CASE("Serial: the TL16C750 deasserts RTS at the trigger level until its FIFO is empty",
          "[serial][flow]") {
    Port p;
    REQUIRE(p.uart.allow_64_byte_fifo(true).has_value());
    p.out(fcr, 0x41);  // 4 bytes
    p.out(mcr, out2 | afe | rts);
    CHECK(p.take_outputs() == Outputs{"RTS"});
    p.type("abc");
    CHECK(p.take_outputs().empty());
    p.type("d");
    CHECK(p.take_outputs() == Outputs{"rts"});
    CHECK(p.uart.modem_outputs().value() == out2);
    CHECK((p.in(mcr)&rts) == rts);  // the register keeps the written value
    p.in(rbr);
    p.in(rbr);
    p.in(rbr);
    CHECK(p.take_outputs().empty());
    // The hold is part of the saved state, which is valid only if the hold is possible.
    const SerialState held = p.uart.state();
    CHECK(held.auto_rts_held);
    Line other;
    using Uart = Serial<Edge, LineEvents, Sink>;
    auto restored =
        Uart::from_state(held, Edge{&other.world}, LineEvents{{&other.world}, &other}, Sink{&other.world});
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), held);
    restored->read(rbr);
    CHECK(other.outputs == Outputs{"RTS"});
    for (SerialState wrong : {SerialState{}, held, held}) {
        wrong.auto_rts_held = true;
        wrong.modem_control = wrong.receive_count != 0 ? std::uint8_t{out2 | rts} : wrong.modem_control;
        const auto refused = Uart::from_state(wrong, Edge{&other.world}, LineEvents{{&other.world}, &other},
                                              Sink{&other.world});
        REQUIRE_FALSE(refused.has_value());
        CHECK(refused.error().field() == "auto_rts_held");
    }
    p.in(rbr);
    CHECK(p.take_outputs() == Outputs{"RTS"});
    p.type("abcde");
    CHECK(p.take_outputs() == Outputs{"rts"});
    p.out(fcr, 0x43);  // a reset of the FIFO empties it
    CHECK(p.take_outputs() == Outputs{"RTS"});
    p.type("abcde");
    p.out(mcr, out2 | rts);
    CHECK(p.take_outputs() == Outputs{"rts", "RTS"});
}

TEST_CASE("Serial: the text of an error names what failed and the reason", "[serial][errors]") {
    using vmsuperio::SerialError;
    using WithCode = SerialError<std::error_code>;
    CHECK(to_string(WithCode(SerialErrorKind::full_fifo)) == "the receive FIFO is full");
    const std::error_code broken = std::make_error_code(std::errc::broken_pipe);
    CHECK(to_string(WithCode::from_writer(broken)) == "the writer failed: " + broken.message());
    CHECK(to_string(WithCode::from_trigger(broken)) == "the interrupt trigger failed: " + broken.message());
    CHECK(to_string(SerialError<int>::from_trigger(7)) == "the interrupt trigger failed: 7");
    CHECK(to_string(SerialError<vmsuperio::NoTriggerError>::from_trigger({})) ==
          "the interrupt trigger failed");
    SerialState wrong;
    wrong.transmit_count = 65;
    const auto refused =
        Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::NullWriter>::from_state(wrong, {}, {},
                                                                                               {});
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error() == SerialErrorKind::invalid_state);
    CHECK(refused.error().field() == "transmit_count");
    CHECK(to_string(refused.error()) == "the saved serial state is invalid: transmit_count");
    CHECK(to_string(vmsuperio::StateError{"ram"}) ==
          "the saved state holds a value that the device cannot have: ram");
}

TEST_CASE("Serial: each impossible field of a saved state is named", "[serial][snapshot][errors]") {
    const auto field = [](auto change) {
        SerialState state;
        change(state);
        const auto valid = vmsuperio::validate(state);
        return std::string(valid ? "" : valid.error().field);
    };
    CHECK(field([](SerialState&) {}).empty());
    CHECK(field([](SerialState& s) { s.interrupt_enable = 0x10; }) == "interrupt_enable");
    CHECK(field([](SerialState& s) { s.fifo_control = 0x40; }) == "fifo_control");
    CHECK(field([](SerialState& s) { s.fifo_control = 0x21; }) == "fifo_control");
    CHECK(field([](SerialState& s) { s.modem_control = 0x20; }) == "modem_control");
    CHECK(field([](SerialState& s) { s.modem_control = 0x80; }) == "modem_control");
    CHECK(field([](SerialState& s) { s.line_errors = 0x20; }) == "line_errors");
    CHECK(field([](SerialState& s) { s.modem_inputs = 0x01; }) == "modem_inputs");
    CHECK(field([](SerialState& s) { s.modem_deltas = 0x10; }) == "modem_deltas");
    CHECK(field([](SerialState& s) { s.receive_count = 65; }) == "receive_count");
    CHECK(field([](SerialState& s) { s.transmit_count = 2; }) == "transmit_count");
    CHECK(field([](SerialState& s) { s.character_timeout = true; }) == "character_timeout");
    CHECK(field([](SerialState& s) { s.receive_parity_errors = 1; }) == "receive_parity_errors");
    CHECK(field([](SerialState& s) { s.receive_framing_errors = 1; }) == "receive_framing_errors");
    CHECK(field([](SerialState& s) { s.receive_breaks = 1; }) == "receive_breaks");
    CHECK(field([](SerialState& s) { s.interrupt_gate = static_cast<InterruptGate>(2); }) ==
          "interrupt_gate");
    CHECK(field([](SerialState& s) { s.receive_timeout = static_cast<vmsuperio::ReceiveTimeout>(2); }) ==
          "receive_timeout");
    CHECK(field([](SerialState& s) { s.transmit_policy = static_cast<vmsuperio::TransmitPolicy>(2); }) ==
          "transmit_policy");
    CHECK(field([](SerialState& s) {
              s.transmit_count = 1;
              s.thr_empty_pending = true;
          }) == "thr_empty_pending");
}
