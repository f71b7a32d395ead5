// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The faults that fuzz/serial_fuzz.cpp has found, with one test each.

#include <chrono>
#include <cstdint>
#include <optional>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/serial_timeout.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;

TEST_CASE("Serial: a looped-back byte causes a new edge if the write lowered THRE", "[serial][loopback]") {
    Machine m;
    m.out(ier, 0x03);
    m.out(mcr, out2 | loop);
    REQUIRE(m.world.take_edges() == 1);  // THRE, which is not acknowledged
    m.out(thr, 0x55);                    // THRE falls; then the byte arrives and THRE rises again
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x04);

    m.out(thr, 0x56);  // now "data available" holds the line up
    CHECK(m.world.take_edges() == 0);
}

TEST_CASE("Serial: an overrun in loopback causes a new edge if the write lowered THRE",
          "[serial][loopback]") {
    Machine m;
    m.out(mcr, out2 | loop);
    for (int i = 0; i < 64; ++i) {
        m.out(thr, 0x00);
    }
    m.out(ier, 0x06);
    REQUIRE(m.world.take_edges() == 1);
    m.out(thr, 0x00);
    CHECK(m.world.take_edges() == 1);
    CHECK(m.in(iir) == 0x06);
}

TEST_CASE("SerialTimeout: bytes that arrive after a FIFO reset start the timeout again",
          "[serial][timeout]") {
    vmsuperio::ManualClock clock;
    Machine m;
    vmsuperio::SerialTimeout timeout{vmsuperio::ClockRef(clock)};
    m.out(fcr, 0x81);  // trigger level 8
    m.out(ier, 0x01);
    const auto length = m.uart.character_timeout_length();
    m.type("ab");
    REQUIRE(timeout.poll(m.uart).value() == length);
    clock.advance(length - std::chrono::nanoseconds(1));
    m.out(fcr, 0x83);
    m.type("cd");
    REQUIRE(timeout.poll(m.uart).value() == length);
    clock.advance(std::chrono::nanoseconds(1));
    CHECK(timeout.poll(m.uart).value().has_value());
    CHECK(m.in(iir) == 0xC1);
    clock.advance(length);
    CHECK_FALSE(timeout.poll(m.uart).value().has_value());
    CHECK(m.in(iir) == 0xCC);
}

TEST_CASE("SerialTimeout: bytes that arrive after a device reset start the timeout again",
          "[serial][timeout]") {
    vmsuperio::ManualClock clock;
    Machine m;
    vmsuperio::SerialTimeout timeout{vmsuperio::ClockRef(clock)};
    m.out(fcr, 0x81);
    m.type("ab");
    const auto length = m.uart.character_timeout_length();
    REQUIRE(timeout.poll(m.uart).value() == length);
    clock.advance(length);
    REQUIRE(m.uart.reset());
    m.out(fcr, 0x81);
    m.type("cd");
    CHECK(timeout.poll(m.uart).value() == length);
    m.out(fcr, 0x81);
    m.out(ier, 0x01);
    CHECK(m.drain() == "cd");
}

TEST_CASE("Serial: errors stay with their bytes over a restore", "[serial][snapshot]") {
    Machine m;
    m.type("abc");
    m.drain();  // the next byte does not go to the first slot
    m.type("x");
    REQUIRE(m.uart.receive_with_errors('y', vmsuperio::uart16550::LineStatus(0x04)));
    auto restored = Serial<Edge, Events, Sink>::from_state(m.uart.state(), Edge{&m.world}, Events{&m.world},
                                                           Sink{&m.world});
    REQUIRE(restored);
    CHECK((restored->read(lsr) & 0x1E) == 0);
    CHECK(restored->read(rbr) == 'x');
    CHECK((restored->read(lsr) & 0x1E) == 0x04);
    CHECK(restored->read(rbr) == 'y');
}

TEST_CASE("SerialTimeout: one whose clock has no default constructor can be stored in an optional",
          "[serial][timeout]") {
    const vmsuperio::ManualClock clock;
    std::optional<vmsuperio::SerialTimeout<vmsuperio::ClockRef<vmsuperio::ManualClock>>> timeout(clock);
    Machine m;
    CHECK_FALSE(timeout->poll(m.uart).value().has_value());
}

TEST_CASE("SerialTimeout: a restored port waits the full time, whatever the clock shows",
          "[serial][timeout]") {
    vmsuperio::ManualClock clock;
    clock.set(std::chrono::hours(1));
    Machine m;
    m.out(fcr, 0x81);
    m.out(ier, 0x01);
    m.type("ab");
    auto restored = Serial<Edge, Events, Sink>::from_state(m.uart.state(), Edge{&m.world}, Events{&m.world},
                                                           Sink{&m.world});
    REQUIRE(restored);
    vmsuperio::SerialTimeout timeout{vmsuperio::ClockRef(clock)};
    CHECK(timeout.poll(*restored).value() == restored->character_timeout_length());
    CHECK(restored->read(iir) == 0xC1);
}

TEST_CASE("SerialTimeout: a time that was stopped starts again", "[serial][timeout]") {
    vmsuperio::ManualClock clock;
    clock.set(std::chrono::hours(1));
    Machine m;
    vmsuperio::SerialTimeout timeout{vmsuperio::ClockRef(clock)};
    m.out(fcr, 0x81);  // trigger level 8
    m.out(ier, 0x01);
    m.type("ab");
    const auto length = m.uart.character_timeout_length();
    REQUIRE(timeout.poll(m.uart).value() == length);
    clock.advance(length - std::chrono::nanoseconds(1));
    REQUIRE(m.uart.set_receive_timeout(vmsuperio::ReceiveTimeout::immediate));
    REQUIRE_FALSE(timeout.poll(m.uart).value().has_value());
    REQUIRE(m.uart.set_receive_timeout(vmsuperio::ReceiveTimeout::manual));
    CHECK(timeout.poll(m.uart).value() == length);
}
