// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Transmission: slow, full and failing sinks; the policies; many bytes at once; events and metrics.
#include <chrono>

#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_metrics.hpp>
#include <vmsuperio/serial_timeout.hpp>
#include <vmsuperio/writer.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;
using vmsuperio::TransmitPolicy;

TEST_CASE("Serial: if the sink is full, LSR makes the guest wait and nothing is lost",
          "[serial][transmit][peers]") {
    Machine m;  // PEERS 1.9
    m.enable_fifo();
    m.out(ier, 0x02);
    CHECK(m.in(iir) == 0xC2);
    m.world.edges = 0;
    m.world.room = 0;
    m.out(thr, '0');
    CHECK(m.in(lsr) == 0x00);
    CHECK(m.in(iir) == 0xC1);
    CHECK(m.world.edges == 0);
    CHECK(m.uart.transmit_pending());
    CHECK(m.uart.transmit_capacity() == 15);
    for (char c = '1'; c < '1' + 15; ++c) {
        m.out(thr, static_cast<std::uint8_t>(c));
    }
    CHECK(m.uart.transmit_capacity() == 0);
    CHECK(m.world.lost_bytes == 0);
    m.out(thr, 'X');  // a guest that does not check LSR loses this byte, and only this one
    CHECK(m.world.lost_bytes == 1);
    m.world.room = 5;
    REQUIRE(m.uart.resume_transmit().has_value());
    CHECK(m.world.output == "01234");
    CHECK(m.in(lsr) == 0x00);
    CHECK(m.in(iir) == 0xC1);
    CHECK(m.world.edges == 0);
    m.world.room = SIZE_MAX;
    m.world.writer_calls = 0;
    REQUIRE(m.uart.resume_transmit().has_value());
    CHECK(m.world.writer_calls == 1);
    CHECK(m.world.output == "0123456789:;<=>?");
    CHECK(m.world.out_bytes == 16);
    CHECK(m.in(lsr) == 0x60);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0xC2);
    CHECK_FALSE(m.uart.transmit_pending());
    REQUIRE(m.uart.resume_transmit().has_value());
    CHECK(m.world.writer_calls == 1);
    CHECK(m.world.edges == 0);
    CHECK(m.in(iir) == 0xC1);
}

TEST_CASE("Serial: without FIFOs one byte waits in THR", "[serial][transmit]") {
    Machine m;
    m.world.room = 0;
    CHECK(m.uart.transmit_capacity() == 1);
    m.out(thr, 'a');
    CHECK(m.in(lsr) == 0x00);
    CHECK(m.uart.transmit_capacity() == 0);
    m.out(thr, 'b');
    CHECK(m.world.lost_bytes == 1);
    m.world.room = 10;
    REQUIRE(m.uart.resume_transmit().has_value());
    CHECK(m.world.output == "a");
    CHECK(m.in(lsr) == 0x60);
}

TEST_CASE("Serial: enabling THRE while bytes wait interrupts only when they are gone",
          "[serial][transmit][thre]") {
    Machine m;
    m.world.room = 0;
    m.out(thr, 'a');
    m.out(ier, 0x02);
    CHECK(m.in(iir) == 0x01);
    CHECK(m.world.edges == 0);
    m.world.room = 1;
    REQUIRE(m.uart.resume_transmit().has_value());
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x02);
}

TEST_CASE("Serial: a write after the sink has room again keeps the order", "[serial][transmit]") {
    Machine m;
    m.enable_fifo();
    m.world.room = 0;
    m.out(thr, 'a');
    m.out(thr, 'b');
    m.world.room = SIZE_MAX;
    m.out(thr, 'c');
    CHECK(m.world.output == "abc");
    CHECK(m.in(lsr) == 0x60);
    CHECK(m.world.lost_bytes == 0);
    // Also when the FIFO was full.
    m.world.room = 0;
    for (int i = 0; i < 16; ++i) {
        m.out(thr, static_cast<std::uint8_t>('A' + i));
    }
    m.world.room = 3;
    m.out(thr, 'Q');
    CHECK(m.world.output == "abcABC");
    CHECK(m.uart.transmit_capacity() == 2);
    CHECK(m.world.lost_bytes == 0);
    m.world.room = SIZE_MAX;
    REQUIRE(m.uart.resume_transmit().has_value());
    CHECK(m.world.output == "abcABCDEFGHIJKLMNOPQ");
}

TEST_CASE("Serial: drop-and-count never makes the guest wait", "[serial][transmit][policy]") {
    Machine m;
    REQUIRE(m.uart.set_transmit_policy(TransmitPolicy::drop_and_count).has_value());
    m.enable_fifo();
    m.out(ier, 0x02);
    m.world.edges = 0;
    m.world.room = 2;
    for (const char c : std::string_view("abcdef")) {
        m.out(thr, static_cast<std::uint8_t>(c));
        CHECK(m.world.take_edges() == 1);
        CHECK(m.in(lsr) == 0x60);
        CHECK(m.in(iir) == 0xC2);
    }
    CHECK(m.world.output == "ab");
    CHECK(m.world.lost_bytes == 4);
    m.world.room = 2;
    REQUIRE(m.uart.write_data(bytes("ghij")).has_value());
    CHECK(m.world.output == "abgh");
    CHECK(m.world.lost_bytes == 6);
    CHECK(m.in(lsr) == 0x60);
}

TEST_CASE("Serial: switching to drop-and-count ends the guest's wait", "[serial][transmit][policy]") {
    Machine m;
    m.enable_fifo();
    m.out(ier, 0x02);
    m.world.room = 0;
    m.out(thr, 'a');
    m.out(thr, 'b');
    CHECK(m.in(iir) == 0xC1);
    m.world.edges = 0;
    REQUIRE(m.uart.set_transmit_policy(TransmitPolicy::drop_and_count).has_value());
    CHECK(m.world.lost_bytes == 2);
    CHECK(m.in(lsr) == 0x60);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0xC2);
}

TEST_CASE("Serial: a failing sink is reported, counted, and never makes the guest wait",
          "[serial][transmit][error][peers]") {
    Machine m;  // PEERS 1.9
    m.out(ier, 0x02);
    CHECK(m.in(iir) == 0x02);
    m.world.edges = 0;
    m.world.writer_error = std::make_error_code(std::errc::broken_pipe);
    for (int i = 1; i <= 3; ++i) {
        const auto sent = m.uart.write(thr, 'a');
        REQUIRE_FALSE(sent.has_value());
        CHECK(sent.error().kind() == SerialErrorKind::write);
        CHECK(sent.error().write_error() == std::errc::broken_pipe);
        CHECK(m.world.lost_bytes == i);
        CHECK(m.world.take_edges() == 1);
        CHECK(m.in(lsr) == 0x60);
        CHECK(m.in(iir) == 0x02);
    }
    const auto sent = m.uart.write_data(bytes("bcd"));
    REQUIRE_FALSE(sent.has_value());
    CHECK(sent.error().kind() == SerialErrorKind::write);
    CHECK(m.world.lost_bytes == 6);
    CHECK(m.world.out_bytes == 0);
    CHECK(m.in(iir) == 0x02);
    m.world.writer_error.clear();
    REQUIRE(m.uart.write(thr, 'z').has_value());
    CHECK(m.world.output == "z");
}

TEST_CASE("Serial: a sink that fails while bytes wait loses them and ends the guest's wait",
          "[serial][transmit][error]") {
    for (const bool by_resume : {true, false}) {
        Machine m;
        m.enable_fifo();
        m.out(ier, 0x02);
        m.world.room = 0;
        m.out(thr, 'a');
        m.out(thr, 'b');
        m.world.edges = 0;
        m.world.writer_error = std::make_error_code(std::errc::io_error);
        m.world.writer_calls = 0;
        const auto result = by_resume ? m.uart.resume_transmit() : m.uart.write(thr, 'c');
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().kind() == SerialErrorKind::write);
        CHECK(m.world.writer_calls == 1);
        CHECK(m.world.lost_bytes == (by_resume ? 2 : 3));
        CHECK(m.in(lsr) == 0x60);
        CHECK(m.world.take_edges() == 1);
        CHECK(m.in(iir) == 0xC2);
    }
}

TEST_CASE("Serial: if a writer claims to have taken more than it was offered, the number is limited to that",
          "[serial][transmit]") {
    struct Liar {
        std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t>) { return SIZE_MAX; }
    };
    World world;
    Serial<Edge, Events, Liar> uart(Edge{&world}, Events{&world}, Liar{});
    REQUIRE(uart.write(thr, 'a').has_value());
    REQUIRE(uart.write_data(bytes("bcd")).has_value());
    CHECK(world.out_bytes == 4);
    CHECK(uart.read(lsr) == 0x60);
}

TEST_CASE("Serial: many bytes are sent with one call of the writer", "[serial][transmit][bulk][peers]") {
    Machine m;  // PEERS 1.15, 1.16: REP OUTSB and coalesced port I/O
    m.out(ier, 0x02);
    m.world.edges = 0;
    const std::string text(4096, 'x');
    REQUIRE(m.uart.write_data(bytes(text)).has_value());
    CHECK(m.world.output == text);
    CHECK(m.world.writer_calls == 1);
    CHECK(m.world.out_bytes == 4096);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x02);
    REQUIRE(m.uart.write_data({}).has_value());
    CHECK(m.world.writer_calls == 1);
    CHECK(m.world.edges == 0);
    CHECK(m.in(iir) == 0x01);
    m.out(mcr, loop);
    REQUIRE(m.uart.write_data(bytes("loop")).has_value());
    CHECK(m.drain() == "loop");
    CHECK(m.world.output == text);
}

TEST_CASE("Serial: write_data keeps the bytes that the sink does not take, as far as they fit into the FIFO",
          "[serial][transmit][bulk]") {
    Machine m;
    m.enable_fifo();
    m.world.room = 10;
    std::string text;
    for (int i = 0; i < 40; ++i) {
        text += static_cast<char>('0' + i);
    }
    REQUIRE(m.uart.write_data(bytes(text)).has_value());
    CHECK(m.world.output == text.substr(0, 10));
    CHECK(m.uart.transmit_capacity() == 0);
    CHECK(m.world.lost_bytes == 14);
    m.world.room = 3;  // room again, but after the waiting bytes
    REQUIRE(m.uart.write_data(bytes("AB")).has_value());
    m.world.room = SIZE_MAX;
    REQUIRE(m.uart.write_data(bytes("CD")).has_value());
    CHECK(m.world.output == text.substr(0, 26) + "ABCD");
    CHECK(m.world.lost_bytes == 14);
}

TEST_CASE("Serial: write_data equals single writes except for the number of calls",
          "[serial][transmit][bulk]") {
    for (const std::size_t room :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{20}, SIZE_MAX}) {
        for (const std::uint8_t mode : {std::uint8_t{0x00}, std::uint8_t{0x01}}) {
            for (const std::uint8_t modem : {out2, static_cast<std::uint8_t>(out2 | loop)}) {
                Machine one;
                Machine many;
                for (auto* m : {&one, &many}) {
                    m->out(fcr, mode);
                    m->out(mcr, modem);
                    m->out(ier, 0x02);
                    m->world.room = room;
                }
                for (const char c : std::string_view("hello, world, how are you?")) {
                    one.out(thr, static_cast<std::uint8_t>(c));
                }
                REQUIRE(many.uart.write_data(bytes("hello, world, how are you?")).has_value());
                CHECK_SAME_STATE(one.uart.state(), many.uart.state());
                CHECK(one.world.output == many.world.output);
                CHECK(one.world.lost_bytes == many.world.lost_bytes);
                CHECK(one.world.out_bytes == many.world.out_bytes);
                CHECK(one.world.overruns == many.world.overruns);
                CHECK(one.uart.interrupt_line() == many.uart.interrupt_line());
            }
        }
    }
}

TEST_CASE("Serial: input is bounded whatever the guest does", "[serial][receive][peers]") {  // PEERS 1.13
    Machine m;
    std::size_t taken = 0;
    for (int i = 0; i < 1000; ++i) {
        taken += m.type("0123456789");
    }
    CHECK(taken == 64);
    static_assert(sizeof(m.uart) < 320);
}

TEST_CASE("Serial: the device is small and allocates no memory", "[serial][size]") {
    using Smallest = vmsuperio::Serial<vmsuperio::NullTrigger>;
    static_assert(sizeof(Smallest) <= 216);
    static_assert(std::is_trivially_copyable_v<Smallest>);
    SUCCEED();
}

TEST_CASE("Serial: metrics count every event", "[serial][metrics]") {
    vmsuperio::SerialMetrics metrics;
    World world;
    vmsuperio::Serial uart(Edge{&world}, vmsuperio::EventsRef(metrics), Sink{&world});
    CHECK(metrics.counts() == vmsuperio::SerialCounts{});
    REQUIRE(uart.write(fcr, 0x01).has_value());  // reset 1
    REQUIRE(uart.write(thr, 'a').has_value());
    REQUIRE(uart.write_data(bytes("bc")).has_value());
    world.room = 0;
    REQUIRE(uart.set_transmit_policy(TransmitPolicy::drop_and_count).has_value());
    REQUIRE(uart.write(thr, 'd').has_value());  // lost
    REQUIRE(uart.enqueue_raw_bytes(bytes("xyz")) == std::size_t{3});
    static_cast<void>(uart.read(rbr));
    REQUIRE(uart.write(fcr, 0x03).has_value());  // reset 2: drops two, empties
    REQUIRE(uart.send_break().has_value());
    static_cast<void>(uart.read(rbr));  // empties
    static_cast<void>(uart.read(99));
    REQUIRE(uart.write(ier, 0x03).has_value());  // interrupt: THRE
    REQUIRE(uart.write(mcr, loop | out2).has_value());
    REQUIRE(uart.write_data(std::vector<std::uint8_t>(20, 1))
                .has_value());                   // four overruns; interrupt: RDA, after THRE fell
    REQUIRE(uart.write(fcr, 0x00).has_value());  // reset 3: drops sixteen, empties
    REQUIRE(uart.write(mcr, out2).has_value());
    REQUIRE(uart.write(ier, 0x01).has_value());
    world.trigger_fails = true;
    static_cast<void>(uart.enqueue_raw_bytes(bytes("ab")));  // interrupt; returned to the caller
    static_cast<void>(uart.read(rbr));                       // interrupt; not returned
    const vmsuperio::SerialCounts expected{.bytes_read = 3,
                                           .bytes_written = 3,
                                           .bytes_lost = 1,
                                           .input_emptied = 3,
                                           .overruns = 4,
                                           .breaks = 1,
                                           .bytes_dropped = 18,
                                           .fifo_resets = 3,
                                           .invalid_accesses = 1,
                                           .interrupts = 4,
                                           .trigger_failures = 1};
    CHECK(metrics.counts().bytes_read == expected.bytes_read);
    CHECK(metrics.counts().input_emptied == expected.input_emptied);
    CHECK(metrics.counts().bytes_dropped == expected.bytes_dropped);
    CHECK(metrics.counts().interrupts == expected.interrupts);
    CHECK(metrics.counts() == expected);
}

TEST_CASE("SerialTimeout: the timeout occurs after four character times without a byte",
          "[serial][timeout]") {
    using std::chrono::nanoseconds;
    Machine m;
    vmsuperio::ManualClock clock;
    vmsuperio::SerialTimeout timeout{vmsuperio::ClockRef(clock)};
    m.enable_fifo(0x80);
    m.out(ier, 0x01);
    const nanoseconds length = m.uart.character_timeout_length();
    CHECK(timeout.poll(m.uart).value() == std::nullopt);
    m.type("a");
    CHECK(timeout.poll(m.uart).value() == length);
    clock.advance(length - nanoseconds(1));
    CHECK(timeout.poll(m.uart).value() == nanoseconds(1));
    CHECK(m.world.edges == 0);
    m.type("b");  // starts it again
    CHECK(timeout.poll(m.uart).value() == length);
    clock.advance(length);
    CHECK(timeout.poll(m.uart).value() == std::nullopt);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0xCC);
    CHECK(timeout.poll(m.uart).value() == std::nullopt);  // pending already
    CHECK(m.in(rbr) == 'a');
    CHECK(timeout.poll(m.uart).value() == length);
    clock.set(nanoseconds(-5));  // backwards: early is better than never
    CHECK(timeout.poll(m.uart).value() == std::nullopt);
    CHECK(m.in(iir) == 0xCC);
    CHECK(m.in(rbr) == 'b');
    CHECK(timeout.poll(m.uart).value() == std::nullopt);
    CHECK(m.in(iir) == 0xC1);
    m.type("c");
    m.world.trigger_fails = true;
    clock.set(nanoseconds::min());
    CHECK(timeout.poll(m.uart).value() == length);
    clock.set(nanoseconds::max());
    const auto failed = timeout.poll(m.uart);
    REQUIRE_FALSE(failed.has_value());
    CHECK(failed.error().kind() == SerialErrorKind::trigger);
}
