// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The serial port as a device of the common shape: event handlers see the state after the access, host errors
// are counted in one place, inspect() shows registers and state, and its time is a deadline and a tick.
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_timeout.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;
using std::chrono::nanoseconds;
using vmsuperio::HostErrors;
using vmsuperio::HostErrorSource;

namespace {

/// Reads the state of the device within each event.
struct Curious {
    struct Seen {
        std::string event;
        SerialState state;
        std::uint8_t lsr;
        std::size_t room;
    };
    std::vector<Seen>* seen;
    std::function<void(const char*)>* look;

    void buffer_read() { (*look)("buffer_read"); }
    void out_byte() { (*look)("out_byte"); }
    void tx_lost_byte() { (*look)("tx_lost_byte"); }
    void in_buffer_empty() { (*look)("in_buffer_empty"); }
    void input_resumed() { (*look)("input_resumed"); }
    void overrun() { (*look)("overrun"); }
    void break_received() { (*look)("break_received"); }
    void break_control(bool) { (*look)("break_control"); }
    void line_format_changed(vmsuperio::uart16550::LineControl) { (*look)("line_format_changed"); }
    void divisor_changed(std::uint16_t) { (*look)("divisor_changed"); }
    void data_terminal_ready(bool) { (*look)("data_terminal_ready"); }
    void request_to_send(bool) { (*look)("request_to_send"); }
    void dropped_bytes(std::size_t) { (*look)("dropped_bytes"); }
    void fifo_reset() { (*look)("fifo_reset"); }
    void invalid_access() { (*look)("invalid_access"); }
};

struct CuriousMachine {
    World world;
    std::vector<Curious::Seen> seen;
    std::function<void(const char*)> look = [this](const char* event) {
        seen.push_back({event, uart.state(), uart.peek(lsr), uart.receive_fifo_room()});
    };
    Serial<Edge, Curious, Sink> uart{Edge{&world}, Curious{&seen, &look}, Sink{&world}};

    CuriousMachine() = default;
    CuriousMachine(const CuriousMachine&) = delete;
    CuriousMachine& operator=(const CuriousMachine&) = delete;

    /// The events of one access, each of which must have seen the present state.
    std::vector<std::string> take() {
        std::vector<std::string> names;
        for (const Curious::Seen& one : std::exchange(seen, {})) {
            CAPTURE(one.event);
            CHECK(one.state == uart.state());
            CHECK(one.lsr == uart.peek(lsr));
            CHECK(one.room == uart.receive_fifo_room());
            names.push_back(one.event);
        }
        return names;
    }
    void out(std::uint8_t offset, std::uint8_t value) { static_cast<void>(uart.write(offset, value)); }
};
using Names = std::vector<std::string>;

struct ErrorEvents : vmsuperio::NoEvents {
    std::vector<HostErrorSource>* errors;
    int* failed_reads;
    explicit ErrorEvents(std::vector<HostErrorSource>* list, int* reads)
        : errors(list), failed_reads(reads) {}
    void host_error(HostErrorSource source) const { errors->push_back(source); }
    void trigger_failed() const { ++*failed_reads; }
};

struct ErrorMachine {
    World world;
    std::vector<HostErrorSource> errors;
    int failed_reads{0};
    Serial<Edge, ErrorEvents, Sink> uart{Edge{&world}, ErrorEvents(&errors, &failed_reads), Sink{&world}};

    ErrorMachine() = default;
    ErrorMachine(const ErrorMachine&) = delete;
    ErrorMachine& operator=(const ErrorMachine&) = delete;
};

}  // namespace

TEST_CASE("Serial: an event handler sees the state after the access", "[serial][events]") {
    CuriousMachine m;
    m.out(thr, 'a');
    CHECK(m.take() == Names{"out_byte"});
    CHECK(m.uart.state().thr_empty_pending);

    CHECK(m.uart.enqueue_raw_bytes(bytes("xy")) == 2U);
    CHECK(m.take().empty());
    CHECK(m.uart.read(rbr) == 'x');
    CHECK(m.take() == Names{"buffer_read"});
    CHECK(m.uart.read(rbr) == 'y');
    CHECK(m.take() == Names{"buffer_read", "in_buffer_empty"});

    REQUIRE(m.uart.send_break());
    CHECK(m.take() == Names{"break_received"});
    m.out(fcr, 0x07);
    CHECK(m.take() == Names{"fifo_reset", "dropped_bytes", "in_buffer_empty"});

    m.out(lcr, 0xC0);
    CHECK(m.take() == Names{"line_format_changed", "break_control"});
    m.out(dll, 1);
    CHECK(m.take() == Names{"divisor_changed"});
    m.out(lcr, 0x03);
    CHECK(m.take() == Names{"line_format_changed", "break_control"});

    m.out(mcr, 0x03);
    CHECK(m.take() == Names{"data_terminal_ready", "request_to_send"});
    m.out(mcr, 0x13);
    CHECK(m.take() == Names{"data_terminal_ready", "request_to_send"});
    for (int i = 0; i < 17; ++i) {
        m.out(thr, 'l');
    }
    CHECK(m.take() == Names{"overrun"});
    m.out(mcr, 0x03);
    CHECK(m.take() == Names{"data_terminal_ready", "request_to_send", "input_resumed"});
    CHECK(m.uart.read(9) == 0);
    m.out(9, 0);
    CHECK(m.take() == Names{"invalid_access", "invalid_access"});
    REQUIRE(m.uart.reset());
    CHECK(m.take() == Names{"divisor_changed", "in_buffer_empty", "data_terminal_ready", "request_to_send"});
}

TEST_CASE("Serial: events of bytes that waited are reported after all have been offered",
          "[serial][events]") {
    CuriousMachine m;
    m.world.room = 0;
    m.out(fcr, 0x01);
    CHECK(m.take() == Names{"fifo_reset"});
    m.out(thr, 'a');
    m.out(thr, 'b');
    CHECK(m.take().empty());
    m.world.room = 9;
    REQUIRE(m.uart.resume_transmit());
    CHECK(m.take() == Names{"out_byte", "out_byte"});
    CHECK(m.world.output == "ab");

    // Automatic flow control: the write that ends it also sends the waiting bytes.
    REQUIRE(m.uart.allow_64_byte_fifo(true));
    REQUIRE(m.uart.set_clear_to_send(false));
    m.out(mcr, 0x22);
    CHECK(m.take() == Names{"request_to_send"});
    m.out(thr, 'c');
    CHECK(m.take().empty());
    m.out(mcr, 0x00);
    CHECK(m.take() == Names{"request_to_send", "out_byte"});
    CHECK(m.world.output == "abc");
    m.world.writer_error = std::make_error_code(std::errc::broken_pipe);
    m.out(thr, 'd');
    CHECK(m.take() == Names{"tx_lost_byte"});
}

TEST_CASE("Serial: host errors are counted in one place, in reads and in writes", "[serial][errors]") {
    ErrorMachine m;
    CHECK(m.uart.host_errors() == HostErrors{});
    m.world.writer_error = std::make_error_code(std::errc::broken_pipe);
    const auto lost = m.uart.write(thr, 'a');
    REQUIRE_FALSE(lost);
    CHECK(lost.error() == SerialErrorKind::write);
    CHECK(m.uart.host_errors() == HostErrors{.output = 1});
    CHECK(m.errors == std::vector{HostErrorSource::output});

    // If both fail, each is counted, and the writer's error is returned.
    REQUIRE(m.uart.write(fcr, 0x00));
    m.world.trigger_fails = true;
    REQUIRE_FALSE(m.uart.write(ier, 0x03));
    const auto both = m.uart.write(thr, 'b');
    REQUIRE_FALSE(both);
    CHECK(both.error() == SerialErrorKind::write);
    CHECK(m.uart.host_errors() == HostErrors{.interrupt = 2, .output = 2});
    CHECK(m.failed_reads == 0);

    // In a read with FIFOs off, the next byte interrupts again.
    m.world.writer_error.clear();
    m.errors.clear();
    REQUIRE(m.uart.read(iir) == 0x02);
    REQUIRE_FALSE(m.uart.enqueue_raw_bytes(bytes("xy")));
    CHECK(m.errors == std::vector{HostErrorSource::interrupt});
    CHECK(m.uart.read(rbr) == 'x');
    CHECK(m.errors == std::vector{HostErrorSource::interrupt, HostErrorSource::interrupt});
    CHECK(m.failed_reads == 1);
    CHECK(m.uart.host_errors() == HostErrors{.interrupt = 4, .output = 2});

    // A writer that is only full has not failed.
    m.world.room = 0;
    m.world.trigger_fails = false;
    REQUIRE(m.uart.write(thr, 'c'));
    CHECK(m.uart.transmit_pending());
    m.world.writer_error = std::make_error_code(std::errc::broken_pipe);
    REQUIRE_FALSE(m.uart.resume_transmit());
    CHECK(m.uart.host_errors() == HostErrors{.interrupt = 4, .output = 3});
}

TEST_CASE("EventsRef: host errors are reported to the shared events", "[serial][errors]") {
    World world;
    std::vector<HostErrorSource> errors;
    int failed_reads = 0;
    ErrorEvents events(&errors, &failed_reads);
    Serial uart(Edge{&world}, vmsuperio::EventsRef(events), Sink{&world});
    world.writer_error = std::make_error_code(std::errc::broken_pipe);
    CHECK_FALSE(uart.write(thr, 'a'));
    CHECK(errors == std::vector{HostErrorSource::output});

    vmsuperio::NoEvents none;
    Serial quiet(Edge{&world}, vmsuperio::EventsRef(none), Sink{&world});
    CHECK_FALSE(quiet.write(thr, 'a'));
    CHECK(quiet.host_errors().output == 1);
}

TEST_CASE("Serial: inspect() shows the registers without side effects, then the state", "[serial][inspect]") {
    Machine m;
    m.out(mcr, 0x0B);
    m.out(fcr, 0x81);
    m.out(ier, 0x07);
    REQUIRE(m.uart.receive_with_errors('A', vmsuperio::uart16550::LineStatus(0x04)));
    REQUIRE(m.uart.set_transmit_policy(vmsuperio::TransmitPolicy::drop_and_count));
    REQUIRE(m.uart.set_ring_indicator(true));
    REQUIRE(m.uart.set_clear_to_send(false));
    m.out(scr, 0x5A);
    m.out(lcr, 0x9B);  // independent of DLAB
    const SerialState before = m.uart.state();
    const std::string text = m.uart.inspect();
    CHECK(m.uart.state() == before);
    const std::string registers = text.substr(0, text.find("interrupt_enable="));
    CHECK(registers ==
          "RBR=0x41\n"
          "IER=0x07 [received_data thr_empty line_status]\n"
          "IIR=0xC6 [id=6 fifo_enabled=3]\n"
          "FCR=0x81 [enable receiver_trigger=2]\n"
          "LCR=0x9B [word_length=3 parity_enable even_parity divisor_latch_access]\n"
          "MCR=0x0B [data_terminal_ready request_to_send out2]\n"
          "LSR=0xE5 [data_ready parity_error thr_empty transmitter_empty fifo_error]\n"
          "MSR=0xE1 [delta_clear_to_send data_set_ready ring_indicator data_carrier_detect]\n"
          "SCR=0x5A\n"
          "DLL=0x0C\n"
          "DLM=0x00\n");
    CHECK(text.find("\ntransmit_policy=drop_and_count\n") != std::string::npos);
    CHECK(text.find("\nreceive_timeout=manual\n") != std::string::npos);
    CHECK(text.find("\ninterrupt_gate=out2\n") != std::string::npos);
    CHECK(text.find("\nreceive=41\n") != std::string::npos);
    for (std::uint8_t offset = 0; offset < 8; ++offset) {
        CHECK(m.uart.read(offset) == [&] {
            auto copy = vmsuperio::Serial<vmsuperio::NullTrigger>::from_state(before, {}, {}, {});
            return copy->peek(offset);
        }());
    }
}

TEST_CASE("Serial: settings have names", "[serial][inspect]") {
    using vmsuperio::InterruptGate;
    using vmsuperio::ReceiveTimeout;
    using vmsuperio::TransmitPolicy;
    CHECK(to_string(TransmitPolicy::back_pressure) == "back_pressure");
    CHECK(to_string(ReceiveTimeout::immediate) == "immediate");
    CHECK(to_string(InterruptGate::none) == "none");
    CHECK(to_string(static_cast<TransmitPolicy>(2)) == "unknown transmit policy");
    CHECK(to_string(static_cast<ReceiveTimeout>(2)) == "unknown receive timeout");
    CHECK(to_string(static_cast<InterruptGate>(2)) == "unknown interrupt gate");
    SerialState changed;
    changed.interrupt_gate = InterruptGate::none;
    CHECK(vmsuperio::difference(SerialState{}, changed) == "interrupt_gate: out2 -> none\n");
}

TEST_CASE("Serial: the saved form of the FIFOs does not depend on their positions", "[serial][snapshot]") {
    Machine moved;
    Machine fresh;
    // Advance the rings of one device many times; then both hold the same bytes.
    for (int i = 0; i < 37; ++i) {
        CHECK(moved.type("abc") == 3);
        CHECK(moved.drain() == "abc");
    }
    moved.world.room = 0;
    moved.enable_fifo();
    fresh.enable_fifo();
    for (const char c : std::string("0123456789")) {
        moved.out(thr, static_cast<std::uint8_t>(c));
    }
    moved.world.room = 7;
    REQUIRE(moved.uart.resume_transmit());
    fresh.world.room = 0;
    for (const char c : std::string("789")) {
        fresh.out(thr, static_cast<std::uint8_t>(c));
    }
    for (Machine<>* m : {&moved, &fresh}) {
        CHECK(m->type("hello") == 5);
        REQUIRE(m->uart.receive_with_errors('!', vmsuperio::uart16550::LineStatus(0x1C)));
    }
    CHECK(moved.uart.state() == fresh.uart.state());
    CHECK(fresh.uart.state().receive_breaks == 0x20);
    CHECK(vmsuperio::encode(moved.uart.state()) == vmsuperio::encode(fresh.uart.state()));
}

TEST_CASE("SerialTimeout: the next deadline is a time of its clock, at which tick() acts",
          "[serial][timeout]") {
    Machine m;
    vmsuperio::ManualClock clock(std::chrono::seconds(100));
    vmsuperio::SerialTimeout timeout{vmsuperio::ClockRef(clock)};
    m.enable_fifo(0x80);
    m.out(ier, 0x01);
    const nanoseconds length = m.uart.character_timeout_length();
    CHECK_FALSE(timeout.next_deadline(m.uart).has_value());
    CHECK(m.type("a") == 1);
    const nanoseconds deadline = std::chrono::seconds(100) + length;
    CHECK(timeout.next_deadline(m.uart) == deadline);
    clock.advance(length - nanoseconds(1));
    CHECK(timeout.next_deadline(m.uart) == deadline);  // calling it again does not change it
    REQUIRE(timeout.tick(m.uart));
    CHECK(m.world.edges == 0);
    CHECK(timeout.poll(m.uart).value() == nanoseconds(1));
    clock.advance(nanoseconds(1));
    REQUIRE(timeout.tick(m.uart));
    CHECK(m.world.edges == 1);
    CHECK((m.in(iir) & 0x0F) == 0x0C);
    CHECK_FALSE(timeout.next_deadline(m.uart).has_value());

    // A byte that arrives starts the time again; a clock that is set back ends it at once.
    CHECK(m.in(rbr) == 'a');
    CHECK(m.type("bc") == 2);
    CHECK(timeout.next_deadline(m.uart) == deadline + length);
    clock.set(std::chrono::seconds(50));
    CHECK(timeout.next_deadline(m.uart) == std::chrono::seconds(50));
    m.world.trigger_fails = true;
    CHECK_FALSE(timeout.tick(m.uart));
    CHECK(m.world.edges == 2);
    CHECK_FALSE(timeout.next_deadline(m.uart).has_value());

    // A deadline past the end of the clock's range does not exist.
    m.world.trigger_fails = false;
    CHECK(m.in(rbr) == 'b');
    clock.set(nanoseconds::max());
    CHECK_FALSE(timeout.next_deadline(m.uart).has_value());
    REQUIRE(timeout.tick(m.uart));
    CHECK(m.world.edges == 2);
}

TEST_CASE("TimedSerial: a port with its clock has the shape of all devices with time", "[serial][timeout]") {
    World world;
    vmsuperio::ManualClock clock;
    vmsuperio::TimedSerial uart(Serial(Edge{&world}, Events{&world}, Sink{&world}),
                                vmsuperio::ClockRef(clock));
    REQUIRE(uart.write(fcr, 0x81));
    REQUIRE(uart.write(ier, 0x01));
    CHECK_FALSE(uart.next_deadline().has_value());
    CHECK(uart.enqueue_raw_bytes(bytes("a")) == 1U);
    CHECK(world.edges == 0);
    const std::optional<nanoseconds> deadline = uart.next_deadline();
    REQUIRE(deadline == uart.character_timeout_length());
    clock.set(*deadline);
    REQUIRE(uart.tick());
    CHECK(world.edges == 1);
    CHECK_FALSE(uart.next_deadline().has_value());
    CHECK(vmsuperio::time_since_epoch(uart.clock()) == *deadline);
}
