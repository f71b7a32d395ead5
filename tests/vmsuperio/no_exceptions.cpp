// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Compiled with -fno-exceptions and -fno-rtti: all headers of the library, and a use of each device.
#include <array>
#include <cstdint>
#include <cstdio>

#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/vmsuperio.hpp>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this is a test of a build without exceptions and without RTTI"
#endif

namespace {

int failures = 0;

void check(bool right, const char* what) {
    if (!right) {
        std::printf("failed: %s\n", what);
        ++failures;
    }
}

}  // namespace

int main() {
    using namespace vmsuperio;
    auto interrupt = EventFdTrigger::create();
    check(interrupt.has_value(), "an eventfd");
    if (!interrupt) {
        return 1;
    }
    auto mine = interrupt->duplicate();
    check(mine.has_value(), "its duplicate");
    if (!mine) {
        return 1;
    }
    Serial uart(std::move(*mine), TeeWriter(BufferWriter{}, RingWriter(16), TimestampWriter(BufferWriter{})));
    check(uart.write(1, 0x01).has_value(), "a write");
    const std::array<std::uint8_t, 3> bytes{'a', 'b', '\n'};
    check(uart.enqueue_raw_bytes(bytes) == 3U, "input");
    check(interrupt->take() == 1U, "its interrupt");
    check(uart.read(0) == 'a', "its first byte");
    check(uart.write_data(bytes).has_value(), "output");
    check(uart.writer().get<0>().text() == "ab\n", "what came out");
    const auto state = decode<SerialState>(encode(uart.state()));
    check(state && *state == uart.state(), "a snapshot");
    SerialState wrong;
    wrong.receive_count = 65;
    const auto refused = Serial<NullTrigger>::from_state(wrong, {}, {}, {});
    check(!refused && to_string(refused.error()) == "the saved serial state is invalid: receive_count",
          "a refusal");

    const ManualClock clock;
    RtcCmos cmos(NullTrigger{}, ClockRef(clock));
    check(cmos.write(0, 0x09).has_value() && cmos.read(1) == 0x70, "the CMOS clock");
    RtcPl031 pl031(NullTrigger{}, ClockRef(clock));
    check(pl031.reset().has_value() && pl031.peek(0) == 0U, "the PL031");
    I8042 keyboard(NullTrigger{});
    check(keyboard.write(4, 0xAA).has_value() && keyboard.read(0) == 0x55, "the keyboard controller");
    ResetControl reset_control(NullTrigger{});
    check(reset_control.write(0, 0x06).has_value(), "the reset port");
    SystemControlPortA port_92(NullTrigger{});
    check(port_92.write(0, 0x02).has_value() && port_92.a20_enabled(), "port 0x92");
    std::size_t reported = 0;
    DebugPort console = DebugPort::console([&](std::span<const std::uint8_t> text) {
        reported += text.size();
        return text.size();
    });
    console.write_data(bytes);
    check(reported == 3, "a debug console");
    ExitPort exit_port([&](std::uint8_t status) { reported = status; });
    exit_port.write(0, 7);
    check(reported == 7, "the exit port");
    Pvpanic panic;
    panic.write(0, 1);
    check(panic.seen(PvpanicEvent::panicked), "pvpanic");
    return failures == 0 ? 0 : 1;
}
