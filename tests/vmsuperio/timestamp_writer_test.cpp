// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <vmsuperio/serial.hpp>
#include <vmsuperio/timestamp_writer.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using recorders::RecordingWriter;
using vmsuperio::BufferWriter;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;
using vmsuperio::TimestampFormat;
using vmsuperio::TimestampWriter;
using vmsuperio::WriteResult;
using vmsuperio::WriterRef;

namespace {

std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

}  // namespace

TEST_CASE("TimestampWriter: each line begins with the time of its first byte", "[writer][timestamp]") {
    ManualClock clock(100s);
    TimestampWriter writer(BufferWriter{}, ClockRef(clock));
    CHECK(writer.write(bytes("one\r\ntw")) == 7U);
    clock.advance(1'234'567'890ns);
    CHECK(writer.write(bytes("o\n")) == 2U);
    CHECK(writer.write(bytes("\nthree")) == 6U);
    clock.advance(100'000s);
    CHECK(writer.write({}) == 0U);
    CHECK(writer.write(bytes("\n")) == 1U);
    CHECK(writer.write(bytes("x")) == 1U);
    CHECK(writer.inner().text() ==
          "[    0.000000] one\r\n"
          "[    0.000000] two\n"
          "[    1.234567] \n"
          "[    1.234567] three\n"
          "[100001.234567] x");
}

TEST_CASE("TimestampWriter: UTC is written in ISO 8601", "[writer][timestamp]") {
    ManualClock clock(1'773'500'966s + 535'897'932ns);
    TimestampWriter writer(BufferWriter{}, ClockRef(clock), TimestampFormat::utc);
    CHECK(writer.write(bytes("a\n")) == 2U);
    clock.set(-1ns);
    CHECK(writer.write(bytes("b\n")) == 2U);
    clock.set(0ns);
    CHECK(writer.write(bytes("c\n")) == 2U);
    CHECK(writer.inner().text() ==
          "2026-03-14T15:09:26.535897Z a\n"
          "1969-12-31T23:59:59.999999Z b\n"
          "1970-01-01T00:00:00.000000Z c\n");
}

TEST_CASE("TimestampWriter: the output does not depend on how many bytes the sink takes at a time",
          "[writer][timestamp][property]") {
    const std::string text = "first\n\nthird line\r\nlast";
    std::string expected;
    for (std::size_t room = 1; room <= 60; ++room) {
        for (std::size_t offered = 1; offered <= text.size(); ++offered) {
            RecordingWriter sink;
            ManualClock clock;
            TimestampWriter writer(WriterRef{sink}, ClockRef(clock));
            std::size_t done = 0;
            unsigned calls = 0;
            while (done < text.size()) {
                sink.room_per_call = calls % 3 == 2 ? 0 : room;  // full now and then
                const auto taken = writer.write(bytes(std::string_view(text).substr(done, offered)));
                REQUIRE(taken.has_value());
                REQUIRE((sink.room_per_call != 0 || *taken == 0));
                done += *taken;
                REQUIRE(++calls < 500);
            }
            if (expected.empty()) {
                expected = sink.output;
            }
            REQUIRE(sink.output == expected);
            REQUIRE(sink.empty_calls == 0);
        }
    }
    CHECK(expected ==
          "[    0.000000] first\n[    0.000000] \n[    0.000000] third line\r\n[    0.000000] last");
}

TEST_CASE("TimestampWriter: an error is returned after the bytes that were taken before it",
          "[writer][timestamp]") {
    RecordingWriter sink{.writer_error = std::make_error_code(std::errc::broken_pipe)};
    ManualClock clock;
    TimestampWriter writer(WriterRef{sink}, ClockRef(clock));
    CHECK(writer.write(bytes("a\n")).error() == std::errc::broken_pipe);
    sink.writer_error.clear();
    CHECK(writer.write(bytes("b\n")) == 2U);
    CHECK(sink.output == "[    0.000000] b\n");

    struct FailsLater {
        int* calls;
        WriteResult write(std::span<const std::uint8_t> offered) {
            if (--*calls < 0) {
                return std::unexpected(std::make_error_code(std::errc::io_error));
            }
            return offered.size();
        }
    };
    int calls = 3;  // stamp, line, stamp
    TimestampWriter later(FailsLater{&calls}, ClockRef(clock));
    CHECK(later.write(bytes("a\nb\n")) == 2U);
    CHECK(later.write(bytes("b\n")).error() == std::errc::io_error);
}

TEST_CASE("TimestampWriter: it works with any clock", "[writer][timestamp][hostile]") {
    constexpr auto lowest = std::chrono::nanoseconds::min();
    constexpr auto highest = std::chrono::nanoseconds::max();
    for (const auto start : {lowest, lowest + 1ns, -1ns, 0ns, highest}) {
        for (const auto now : {lowest, lowest + 1ns, -1ns, 0ns, highest}) {
            for (const auto format : {TimestampFormat::elapsed, TimestampFormat::utc}) {
                ManualClock clock(start);
                TimestampWriter writer(BufferWriter{}, ClockRef(clock), format);
                clock.set(now);
                REQUIRE(writer.write(bytes("x")) == 1U);
                REQUIRE(writer.inner().text().size() >= 16);
                REQUIRE(writer.inner().text().size() <= 40);
            }
        }
    }
}

TEST_CASE("TimestampWriter: a serial port writes through it, on the steady clock by default",
          "[writer][timestamp][serial]") {
    vmsuperio::Serial uart(vmsuperio::NullTrigger{}, TimestampWriter(BufferWriter{}));
    CHECK(uart.write_data(bytes("hello\nworld\n")).has_value());
    const std::string text(uart.writer().inner().text());
    CHECK(text.find("] hello\n[") != std::string::npos);
    CHECK(text.find("] world\n") != std::string::npos);
    CHECK(text.front() == '[');
}
