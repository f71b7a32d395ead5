// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/exit_port.hpp>
#include <vmsuperio/pvpanic.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using recorders::RecordingWriter;
using vmsuperio::DebugPort;
using vmsuperio::ExitPort;
using vmsuperio::Pvpanic;
using vmsuperio::PvpanicEvent;

namespace {

using Bytes = std::vector<std::uint8_t>;

const Bytes hello{'h', 'e', 'l', 'l', 'o'};

}  // namespace

TEST_CASE("DebugPort and Pvpanic are one port wide, ExitPort takes 32-bit writes",
          "[debug_port][exit_port][pvpanic]") {
    CHECK(std::size_t{DebugPort::register_count} == 1);
    CHECK(std::size_t{ExitPort::register_count} == 4);
    // OUT 0x12345610 to 0xF4 with ports 0xF4 to 0xF7, byte by byte as on the ISA bus.
    ExitPort port;
    for (const auto& [offset, byte] : {std::pair{0, 0x10}, {1, 0x56}, {2, 0x34}, {3, 0x12}}) {
        port.write(static_cast<std::uint8_t>(offset), static_cast<std::uint8_t>(byte));
    }
    CHECK(port.status() == 0x10);
    ExitPort untouched;
    untouched.write(1, 0x10);
    CHECK_FALSE(untouched.status());
    CHECK(std::size_t{Pvpanic::register_count} == 1);
}

TEST_CASE("DebugPort: a POST code port keeps the last byte", "[debug_port]") {
    DebugPort port;
    CHECK(port.read(0) == 0x00);
    for (int code = 0; code < 256; ++code) {
        port.write(0, static_cast<std::uint8_t>(code));
        CHECK(port.read(0) == code);
        CHECK(port.last() == code);
    }
    CHECK(port.written() == 256);
    CHECK(port.dropped() == 0);
}

TEST_CASE("DebugPort: each POST code is reported", "[debug_port]") {
    Bytes codes;
    DebugPort port = DebugPort::post_code([&codes](std::uint8_t code) { codes.push_back(code); });
    port.write(0, 0x55);
    port.write_data(Bytes{1, 2, 3});
    CHECK(codes == Bytes{0x55, 1, 2, 3});
    CHECK(port.read(0) == 3);
    port.read(0);
    CHECK(codes.size() == 4);
}

TEST_CASE("DebugPort: a console reads as its id, whatever was written", "[debug_port]") {
    RecordingWriter writer;
    DebugPort port = DebugPort::console(writer);
    CHECK(port.read(0) == 0xE9);
    port.write(0, 'x');
    CHECK(port.read(0) == 0xE9);
    CHECK(port.peek() == 0xE9);
    CHECK(writer.output == "x");
    DebugPort other = DebugPort::console(writer, 0x42);
    CHECK(other.read(0) == 0x42);
}

TEST_CASE("DebugPort: the bytes of a string instruction arrive completely and in order", "[debug_port]") {
    RecordingWriter writer;
    DebugPort port = DebugPort::console(writer);
    port.write_data(hello);
    port.write_data({});
    CHECK(writer.output == "hello");
    CHECK(port.written() == 5);
    CHECK(port.last() == 'o');
}

TEST_CASE("DebugPort: bytes that the sink does not take are dropped and counted", "[debug_port]") {
    RecordingWriter writer;
    writer.room_per_call = 2;
    DebugPort port = DebugPort::console(writer);
    port.write_data(hello);
    CHECK(writer.output == "he");
    CHECK(port.dropped() == 3);
    writer.writer_error = std::make_error_code(std::errc::io_error);
    port.write(0, '!');
    CHECK(port.dropped() == 4);
    CHECK(port.written() == 6);
    // If a sink claims to have taken more than it was given, the number is limited to that.
    DebugPort liar = DebugPort::console(DebugPort::Sink([](std::span<const std::uint8_t>) { return 100U; }));
    liar.write(0, 1);
    CHECK(liar.dropped() == 0);
}

TEST_CASE("DebugPort: failures of a sink are counted separately from a full sink", "[debug_port]") {
    bool fails = true;
    DebugPort port = DebugPort::console(
        DebugPort::Sink([&fails](std::span<const std::uint8_t> bytes) -> std::optional<std::size_t> {
            return fails ? std::nullopt : std::optional(bytes.size() / 2);
        }));
    port.write_data(Bytes{1, 2, 3, 4});
    CHECK(port.host_errors() == vmsuperio::HostErrors{.output = 1});
    CHECK(port.dropped() == 4);
    fails = false;
    port.write_data(Bytes{1, 2, 3, 4});
    CHECK(port.host_errors() == vmsuperio::HostErrors{.output = 1});
    CHECK(port.dropped() == 6);

    RecordingWriter broken{.writer_error = std::make_error_code(std::errc::broken_pipe)};
    DebugPort console = DebugPort::console(broken);
    console.write(0, 'x');
    CHECK(console.host_errors().output == 1);
    CHECK(console.host_errors().total() == 1);
    CHECK(console.dropped() == 1);
    CHECK(console.read() == DebugPort::console_id);
}

TEST_CASE("DebugPort: its state is saved and restored", "[debug_port][snapshot]") {
    DebugPort port;
    port.write_data(hello);
    const auto decoded = vmsuperio::decode<vmsuperio::DebugPortState>(vmsuperio::encode(port.state()));
    REQUIRE(decoded.has_value());
    auto other = DebugPort::from_state(*decoded);
    REQUIRE(other.has_value());
    CHECK(other->read(0) == 'o');
    CHECK(other->state() == port.state());
}

TEST_CASE("ExitPort: the first byte is the status, later ones have no effect", "[exit_port]") {
    std::vector<int> exits;
    ExitPort port([&exits](std::uint8_t status) { exits.push_back(status); });
    CHECK(port.read(0) == 0);
    CHECK_FALSE(port.status().has_value());
    CHECK(exits.empty());
    port.write(0, 0);
    CHECK(port.status() == 0);
    port.write(0, 5);
    port.write_data(Bytes{6, 7});
    CHECK(port.status() == 0);
    CHECK(exits == std::vector<int>{0});
    ExitPort silent;
    silent.write_data({});
    CHECK_FALSE(silent.status().has_value());
    silent.write_data(Bytes{9, 8});
    CHECK(silent.status() == 9);
}

TEST_CASE("ExitPort: QEMU's status is odd and never success", "[exit_port]") {
    CHECK(ExitPort::qemu_status(0) == 1);
    CHECK(ExitPort::qemu_status(0x10) == 33);
    CHECK(ExitPort::qemu_status(0xFF) == 511);
}

TEST_CASE("ExitPort: its state is saved and restored without another call", "[exit_port][snapshot]") {
    int calls = 0;
    ExitPort port([&calls](std::uint8_t) { ++calls; });
    const auto count = [&calls](std::uint8_t) { ++calls; };
    const auto unasked = ExitPort::from_state(port.state(), count);
    REQUIRE(unasked.has_value());
    CHECK_FALSE(unasked->status().has_value());
    port.write(0, 77);
    const auto decoded = vmsuperio::decode<vmsuperio::ExitPortState>(vmsuperio::encode(port.state()));
    REQUIRE(decoded.has_value());
    auto other = ExitPort::from_state(*decoded, count);
    REQUIRE(other.has_value());
    CHECK(other->status() == 77);
    CHECK(calls == 1);
    other->write(0, 78);
    CHECK(other->status() == 77);
    CHECK(calls == 1);
}

TEST_CASE("Pvpanic: a read returns the supported events, a write reports events", "[pvpanic]") {
    std::vector<PvpanicEvent> events;
    Pvpanic device([&events](PvpanicEvent event) { events.push_back(event); });
    CHECK(device.read(0) == 0x07);
    CHECK(events.empty());
    device.write(0, 0x01);
    device.write(0, 0x02);
    device.write(0, 0x04);
    CHECK(events == std::vector{PvpanicEvent::panicked, PvpanicEvent::crash_loaded, PvpanicEvent::shutdown});
    CHECK(device.seen(PvpanicEvent::panicked));
    CHECK(device.read(0) == 0x07);
}

TEST_CASE("Pvpanic: unknown bits and events that it does not support are ignored", "[pvpanic]") {
    std::vector<PvpanicEvent> events;
    Pvpanic device([&events](PvpanicEvent event) { events.push_back(event); }, 0xF3);
    CHECK(device.read(0) == 0x03);
    device.write(0, 0x00);
    device.write(0, 0xFC);
    CHECK(events.empty());
    CHECK_FALSE(device.seen(PvpanicEvent::shutdown));
    device.write_data(Bytes{0xFF});
    CHECK(events == std::vector{PvpanicEvent::panicked, PvpanicEvent::crash_loaded});
}

TEST_CASE("Pvpanic: without a callback it remembers the events as well", "[pvpanic]") {
    Pvpanic device;
    device.write(0, 0x03);
    CHECK(device.seen(PvpanicEvent::panicked));
    CHECK(device.seen(PvpanicEvent::crash_loaded));
    CHECK_FALSE(device.seen(PvpanicEvent::shutdown));
    device.write_data(Bytes{0x04});
    CHECK(device.seen(PvpanicEvent::shutdown));
}

TEST_CASE("Pvpanic: its state is saved and restored without another call", "[pvpanic][snapshot]") {
    int calls = 0;
    Pvpanic device([&calls](PvpanicEvent) { ++calls; });
    device.write(0, 0x05);
    const auto decoded = vmsuperio::decode<vmsuperio::PvpanicState>(vmsuperio::encode(device.state()));
    REQUIRE(decoded.has_value());
    // tag, version, oldest version that a reader must know, length; see snapshot.hpp
    CHECK(vmsuperio::encode(device.state())[4] == 1);
    const auto count = [&calls](PvpanicEvent) { ++calls; };
    const auto other = Pvpanic::from_state(*decoded, count, 0x05);
    REQUIRE(other.has_value());
    CHECK(other->seen(PvpanicEvent::panicked));
    CHECK_FALSE(other->seen(PvpanicEvent::crash_loaded));
    CHECK(other->seen(PvpanicEvent::shutdown));
    CHECK(calls == 2);
    CHECK(Pvpanic::from_state(*decoded, count, 0x01).error().field == "seen");
}
