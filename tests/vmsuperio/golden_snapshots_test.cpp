// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Snapshots that earlier code wrote, decoded by the present code. The bytes never change: if a test fails
// here, users' snapshots can no longer be read.
//
// They were created as follows: the functions below, which set each member to a distinct value that a device
// can have, were compiled with the headers of commit f198aee, and the bytes of `encode` were printed. Those
// of version 1 come from the last commits that wrote it (SerialState, RtcCmosState: 44249c6; I8042State:
// 4ec10c7), by the same functions without the members that version 2 added.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"

using namespace vmsuperio;

namespace {

template <std::size_t N>
std::array<std::uint8_t, N> counted(std::uint8_t first, std::size_t count = N) {
    std::array<std::uint8_t, N> bytes{};
    for (std::size_t i = 0; i < count; ++i) {
        bytes[i] = static_cast<std::uint8_t>(first + i);
    }
    return bytes;
}

SerialState serial_state() {
    SerialState state;
    state.interrupt_enable = 0x0D;
    state.fifo_control = 0xA9;
    state.line_control = 0x9B;
    state.modem_control = 0x2B;
    state.scratch = 0x33;
    state.divisor_low = 0x11;
    state.divisor_high = 0x22;
    state.line_errors = 0x14;
    state.modem_inputs = 0xA0;
    state.modem_deltas = 0x05;
    state.thr_empty_pending = false;
    state.character_timeout = true;
    state.receive_count = 63;
    state.receive_data = counted<64>(0x40, 63);
    state.receive_parity_errors = 0x0123'4567'89AB'CDEE;
    state.receive_framing_errors = 0x4000'0000'0000'0002;
    state.receive_breaks = 0x0000'0001'0000'0000;
    state.transmit_count = 5;
    state.transmit_data = counted<64>(0x91, 5);
    state.fifo_64_allowed = true;
    state.transmit_policy = TransmitPolicy::back_pressure;
    state.receive_timeout = ReceiveTimeout::manual;
    state.interrupt_gate = InterruptGate::none;
    state.auto_rts_held = true;
    return state;
}

SerialState dropping_serial_state() {
    SerialState state;
    state.thr_empty_pending = true;
    state.transmit_policy = TransmitPolicy::drop_and_count;
    return state;
}

I8042State i8042_state() {
    I8042State state;
    state.profile = I8042Profile::full;
    state.keyboard_present = true;
    state.mouse_present = false;
    state.reset_command_byte = 0x30;
    state.ram = counted<32>(0x47);
    state.output_port = 0xC3;
    state.waiting_for = 0xD4;
    state.last_write_command = true;
    state.output_full = true;
    state.output_data = 0x1E;
    state.output_flags = 0x20;
    state.response_waiting = true;
    state.response = 0x55;
    state.response_flags = 0x40;
    state.keyboard.scanning = false;
    state.keyboard.scan_code_set = 3;
    state.keyboard.leds = 0x05;
    state.keyboard.typematic = 0x12;
    state.keyboard.waiting_for = 0xED;
    state.keyboard.last_sent = 0xFA;
    state.keyboard.replies.bytes = counted<4>(0xA1, 3);
    state.keyboard.replies.count = 3;
    state.keyboard.keys.bytes = counted<15>(0x21, 14);
    state.keyboard.keys.count = 14;
    state.keyboard.modifiers = 0x2A;
    state.keyboard.num_lock_toggled = true;
    state.keyboard.forms[0] = 1;
    state.keyboard.forms[12] = 1;
    state.mouse.id = 4;
    state.mouse.reporting = true;
    state.mouse.remote = true;
    state.mouse.wrap = false;
    state.mouse.scaling_2_1 = true;
    state.mouse.resolution = 3;
    state.mouse.sample_rate = 200;
    state.mouse.earlier_rates = {80, 60};
    state.mouse.waiting_for = 0xF3;
    state.mouse.resend_failed = true;
    state.mouse.last_sent = 0xFE;
    state.mouse.buttons = 0x15;
    state.mouse.buttons_changed = true;
    state.mouse.x = -258;
    state.mouse.y = 772;
    state.mouse.wheel = -3;
    state.mouse.replies.bytes = counted<6>(0xB1, 2);
    state.mouse.replies.count = 2;
    state.mouse.packets.bytes = {0x08, 0x01, 0x02, 0x00, 0x29, 0x03, 0x04, 0x11};
    state.mouse.packets.count = 8;
    state.mouse.last_packet.bytes = {0x18, 0xFF, 0x07, 0x01};
    state.mouse.last_packet.count = 4;
    state.mouse.reported_buttons = 0x0A;
    state.reset_a20 = false;
    state.reset_self_tests = true;
    state.hold_left = 987'654'321;
    return state;
}

RtcCmosState rtc_cmos_state() {
    RtcCmosState state;
    state.ram = counted<128>(0x80);
    // Registers A to D have values that a chip can have: UIP is never saved, IRQF follows from B and C, D is
    // VRT.
    state.ram[0x0A] = 0x26;
    state.ram[0x0B] = 0x72;
    state.ram[0x0C] = 0xF0;
    state.ram[0x0D] = 0x80;
    state.index = 0x8F;
    state.second_start = 1'700'000'000'000'000'000;
    state.time.seen = 1'700'000'000'123'456'789;
    state.time.shift = 3'600'000'000'000;
    state.extended_ram = counted<128>(0x01);
    state.extended_index = 0x7E;
    return state;
}

RtcPl031State rtc_pl031_state() {
    RtcPl031State state;
    state.count = 0x6554'3210;
    state.match = 0x8123'4567;
    state.load = 0x89AB'CDEF;
    state.interrupt_enabled = true;
    state.matched = true;
    state.second_start = -5'000'000'000;
    state.time.seen = -4'500'000'000;
    state.time.shift = 42;
    return state;
}

DebugPortState debug_port_state() {
    DebugPortState state;
    state.last = 0x5A;
    state.written = 0x0102'0304'0506'0708;
    state.dropped = 0xF1F2'F3F4'F5F6'F7F8;
    return state;
}

ExitPortState exit_port_state() {
    ExitPortState state;
    state.requested = true;
    state.status = 0x2A;
    return state;
}

PvpanicState pvpanic_state() {
    PvpanicState state;
    state.seen = 0x05;
    return state;
}

ResetControlState reset_control_state() {
    ResetControlState state;
    state.value = 0x0A;
    return state;
}

SystemControlPortAState system_control_port_a_state() {
    SystemControlPortAState state;
    state.value = 0x02;
    return state;
}

std::vector<std::uint8_t> bytes_of(std::string_view hexadecimal) {
    const auto digit = [](char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); };
    std::vector<std::uint8_t> bytes;
    for (std::size_t i = 0; i + 1 < hexadecimal.size(); i += 2) {
        bytes.push_back(static_cast<std::uint8_t>((digit(hexadecimal[i]) << 4U) | digit(hexadecimal[i + 1])));
    }
    return bytes;
}

/// The bytes of the present version: they are decoded to this state, and this state is encoded to them.
template <SnapshotState S>
void check_golden(std::string_view hexadecimal, const S& saved) {
    const auto bytes = bytes_of(hexadecimal);
    const auto state = decode<S>(bytes);
    REQUIRE(state.has_value());
    CHECK_SAME_STATE(*state, saved);
    CHECK(encode(saved) == bytes);
    CHECK_FALSE(saved == S{});  // otherwise a decoder that reads nothing would pass
}

/// The bytes of an earlier version.
template <SnapshotState S>
void check_golden_version_1(std::string_view hexadecimal, const S& saved) {
    const auto bytes = bytes_of(hexadecimal);
    REQUIRE(bytes.size() > 12);
    CHECK(bytes[4] == 1);
    const auto state = decode<S>(bytes);
    REQUIRE(state.has_value());
    CHECK_SAME_STATE(*state, saved);
}

/// Makes the state of the snapshots valid: it has queued bytes of a mouse, which must therefore be present.
I8042State with_mouse(I8042State state) {
    state.mouse_present = true;
    return state;
}

}  // namespace

TEST_CASE("Golden snapshots: a UART", "[snapshot][serial]") {
    check_golden(
        "5541525402000100ab0000000da99b2b33112214a00500013f404142434445464748494a4b4c4d4e4f50515253545556"
        "5758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e00eecdab89674523"
        "010200000000000040000000000100000005919293949500000000000000000000000000000000000000000000000000"
        "000000000000000000000000000000000000000000000000000000000000000000000100000101",
        serial_state());
    CHECK(Serial<NullTrigger>::from_state(serial_state(), {}, {}, {}).has_value());
    check_golden(
        "5541525402000100ab00000000000308000c0000b0000100000000000000000000000000000000000000000000000000"
        "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        "000000000000000000000000000000000000000000000000000000000000000000000001010000",
        dropping_serial_state());
    CHECK(Serial<NullTrigger>::from_state(dropping_serial_state(), {}, {}, {}).has_value());
}

TEST_CASE("Golden snapshots: a UART of version 1", "[snapshot][serial]") {
    SerialState saved = serial_state();
    saved.modem_control = 0x0B;  // there was no automatic flow control
    saved.interrupt_gate = InterruptGate::out2;
    saved.auto_rts_held = false;
    check_golden_version_1(
        "5541525401000100a90000000da99b0b33112214a00500013f404142434445464748494a4b4c4d4e4f50515253545556"
        "5758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e00eecdab89674523"
        "010200000000000040000000000100000005919293949500000000000000000000000000000000000000000000000000"
        "00000000000000000000000000000000000000000000000000000000000000000000010000",
        saved);
    CHECK(Serial<NullTrigger>::from_state(saved, {}, {}, {}).has_value());
}

TEST_CASE("Golden snapshots: a keyboard controller", "[snapshot][i8042]") {
    check_golden(
        "383034320200010093000000000100304748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60616263646566"
        "c3d401011e2001554000030512edfaa1a2a300032122232425262728292a2b2c2d2e000e040101000103c8503cf301fe"
        "1501fefe0403fdffb1b2000000000208010200290304110000000000000000082a010100000000000000000000000118"
        "ff0701040a0001b168de3a00000000",
        i8042_state());
    CHECK(I8042<NullTrigger>::from_state(with_mouse(i8042_state()), NullTrigger()).has_value());
}

TEST_CASE("Golden snapshots: a keyboard controller of version 1", "[snapshot][i8042]") {
    const I8042State fresh;
    I8042State saved = i8042_state();
    saved.keyboard.modifiers = 0;
    saved.keyboard.num_lock_toggled = false;
    saved.keyboard.forms = {};
    saved.mouse.last_packet = {};
    saved.mouse.reported_buttons = 0;
    saved.reset_a20 = fresh.reset_a20;
    saved.reset_self_tests = false;
    saved.hold_left = 0;
    check_golden_version_1(
        "383034320100010074000000000100304748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60616263646566"
        "c3d401011e2001554000030512edfaa1a2a300032122232425262728292a2b2c2d2e000e040101000103c8503cf301fe"
        "1501fefe0403fdffb1b200000000020801020029030411000000000000000008",
        saved);
    CHECK(I8042<NullTrigger>::from_state(with_mouse(saved), NullTrigger()).has_value());
}

TEST_CASE("Golden snapshots: a CMOS clock", "[snapshot][rtc]") {
    check_golden(
        "434d4f53020001001a010000808182838485868788892672f0808e8f909192939495969798999a9b9c9d9e9fa0a1a2a3"
        "a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3"
        "d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff8f00002a"
        "36fe9c971715cd853dfe9c971700a0b830460300000102030405060708090a0b0c0d0e0f101112131415161718191a1b"
        "1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b"
        "4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b"
        "7c7d7e7f807e",
        rtc_cmos_state());
    CHECK(RtcCmos<>::from_state(rtc_cmos_state()).has_value());
}

TEST_CASE("Golden snapshots: a CMOS clock of version 1", "[snapshot][rtc]") {
    RtcCmosState saved = rtc_cmos_state();
    saved.extended_ram = {};
    saved.extended_index = 0;
    check_golden_version_1(
        "434d4f530100010099000000808182838485868788892672f0808e8f909192939495969798999a9b9c9d9e9fa0a1a2a3"
        "a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3"
        "d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff8f00002a"
        "36fe9c971715cd853dfe9c971700a0b83046030000",
        saved);
    CHECK(RtcCmos<>::from_state(saved).has_value());
}

TEST_CASE("Golden snapshots: a PL031", "[snapshot][rtc]") {
    check_golden(
        "504c333101000100260000001032546567452381efcdab890101000efad5feffffff0073c7f3feffffff2a0000000000"
        "0000",
        rtc_pl031_state());
    CHECK(RtcPl031<>::from_state(rtc_pl031_state()).has_value());
}

TEST_CASE("Golden snapshots: small ports", "[snapshot]") {
    check_golden("4442475001000100110000005a0807060504030201f8f7f6f5f4f3f2f1", debug_port_state());
    check_golden("455849540100010002000000012a", exit_port_state());
    check_golden("50565043010001000100000005", pvpanic_state());
    check_golden("4346392001000100010000000a", reset_control_state());
    check_golden("50543932010001000100000002", system_control_port_a_state());
}
