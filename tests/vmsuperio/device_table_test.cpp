// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// One table of all devices, and the behaviour that all of them share: states, restoring, reset, inspect() and
// failures of the host. A row specifies how a device is created and used.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using namespace vmsuperio;

namespace {

/// The host's side of a device.
struct Host {
    ManualClock clock;
    int calls{0};
    bool fails{false};
};
using Line = recorders::CountingTrigger;
Line line(Host& host) { return {&host.calls, &host.fails}; }
int error_of(const std::expected<void, int>& result) { return result ? 0 : result.error(); }

std::string_view field_of(const StateError& error) { return error.field; }
std::string_view field_of(const SerialError<int>& error) { return error.field(); }

/// A state that no device can be in, and the name under which it must be refused.
template <class State>
struct Wrong {
    State state;
    std::string_view field;
};
template <class State, class Change>
Wrong<State> wrong(std::string_view field, Change change) {
    Wrong<State> result{{}, field};
    change(result.state);
    return result;
}

/// Rows whose devices have ports of one byte.
struct PortRow {
    /// Bytes of the encoding that no text shows, because they are beyond the end of a buffer's contents.
    static constexpr std::size_t hidden = 0;

    static void read(auto& device, std::uint8_t offset) { static_cast<void>(device.read(offset)); }
};

struct PostCodeRow : PortRow {
    using State = DebugPortState;
    using Device = DebugPort;
    static Device make(Host&) { return DebugPort(); }
    static auto restore(const State& state, Host&) { return DebugPort::from_state(state); }
    static void use(Device& device, Host&) { device.write(0, 0x55); }
    static State after_reset(State used) {
        used.last = 0;
        return used;
    }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("dropped", [](State& state) { state.dropped = 1; }),
                wrong<State>("last", [](State& state) { state.last = 1; })};
    }
};
struct ConsoleRow : PostCodeRow {
    static Device make(Host& host) { return DebugPort::console(sink(host)); }
    static auto restore(const State& state, Host& host) {
        return DebugPort::from_state(state, sink(host), DebugPort::console_id);
    }

private:
    static DebugPort::Sink sink(Host& host) {
        return [&host](std::span<const std::uint8_t> bytes) {
            return host.fails ? std::nullopt : std::optional(bytes.size() / 2);
        };
    }
};
struct ExitPortRow : PortRow {
    using State = ExitPortState;
    using Device = ExitPort;
    static Callback<void(std::uint8_t)> count(Host& host) {
        return [&host](std::uint8_t) { ++host.calls; };
    }
    static Device make(Host& host) { return ExitPort(count(host)); }
    static auto restore(const State& state, Host& host) { return ExitPort::from_state(state, count(host)); }
    static void use(Device& device, Host&) { device.write(0, 3); }
    static State after_reset(const State&) { return {}; }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("status", [](State& state) { state.status = 1; })};
    }
};
struct PvpanicRow : PortRow {
    using State = PvpanicState;
    using Device = Pvpanic;
    static Callback<void(PvpanicEvent)> count(Host& host) {
        return [&host](PvpanicEvent) { ++host.calls; };
    }
    static Device make(Host& host) { return Pvpanic(count(host)); }
    static auto restore(const State& state, Host& host) { return Pvpanic::from_state(state, count(host)); }
    static void use(Device& device, Host&) { device.write(0, 5); }
    static State after_reset(const State&) { return {}; }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("seen", [](State& state) { state.seen = 8; })};
    }
};

template <class D, class S>
struct ResetPortRow : PortRow {
    using State = S;
    using Device = D;
    static Device make(Host& host) { return Device(line(host)); }
    static auto restore(const State& state, Host& host) { return Device::from_state(state, line(host)); }
    static void use(Device& device, Host&) { CHECK(device.write(0, 0x02).has_value()); }
    static State after_reset(const State&) { return {}; }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("value", [](State& state) { state.value = 0x80; })};
    }
};
using ResetControlRow = ResetPortRow<ResetControl<Line>, ResetControlState>;
using SystemControlRow = ResetPortRow<SystemControlPortA<Line>, SystemControlPortAState>;

struct AcpiPmRow : PortRow {
    struct Events {
        void power_off() { FAIL("nobody asked for that"); }
    };
    using State = AcpiPmState;
    using Device = AcpiPm<Line, Events, ClockRef<ManualClock>>;
    static Device make(Host& host) { return {line(host), Events{}, host.clock}; }
    static auto restore(const State& state, Host& host) {
        return Device::from_state(state, line(host), Events{}, host.clock);
    }
    static void use(Device& device, Host& host) {
        CHECK(device.write(2, 0x21).has_value());
        CHECK(device.write(5, 0x0C).has_value());
        CHECK(device.press_power_button().has_value());
        host.clock.advance(3s);
        device.read(8);
    }
    static State after_reset(const State& used) {
        State state;
        state.timer_start = used.timer_start;
        state.time = used.time;
        return state;
    }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("status", [](State& state) { state.status = 2; }),
                wrong<State>("enable", [](State& state) { state.enable = 2; }),
                wrong<State>("control", [](State& state) { state.control = 0; }),
                wrong<State>("timer_start", [](State& state) { state.timer_start = 1; }),
                wrong<State>("time", [](State& state) { state.time.shift = -1; })};
    }
    static void fail_in_write(Device& device, Host& host) {
        CHECK(device.press_power_button().has_value());
        host.fails = true;
        CHECK(error_of(device.write(3, 0x01)) == 7);
    }
    static void fail_in_read(Device& device, Host& host) {
        CHECK(device.write(2, 0x01).has_value());
        host.clock.advance(600s);
        host.fails = true;
        CHECK(device.read(0) == 0x01);
    }
};

struct I8042Row : PortRow {
    using State = I8042State;
    using Device = I8042<Line, Line, Line, NoI8042Events, ClockRef<ManualClock>>;
    static constexpr std::size_t hidden =
        decltype(State::keyboard.replies)::capacity() + decltype(State::keyboard.keys)::capacity() +
        decltype(State::mouse.replies)::capacity() + decltype(State::mouse.packets)::capacity() +
        decltype(State::mouse.last_packet)::capacity();
    static Device make(Host& host) {
        return {line(host), line(host), line(host), NoI8042Events(), host.clock, I8042Options()};
    }
    static auto restore(const State& state, Host& host) {
        return Device::from_state(state, line(host), line(host), line(host), {}, host.clock);
    }
    static void use(Device& device, Host&) {
        command_byte(device, 0x41);
        CHECK(device.press(Key::a));
        CHECK(device.release(Key::a));
    }
    static State after_reset(const State&) { return {}; }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("output_port", [](State& state) { state.output_port = 0; }),
                wrong<State>("output_flags", [](State& state) { state.output_flags = 0xFF; }),
                wrong<State>("keyboard.leds", [](State& state) { state.keyboard.leds = 0xFF; }),
                wrong<State>("mouse.id", [](State& state) { state.mouse.id = 0xFF; })};
    }
    static void fail_in_write(Device& device, Host& host) {
        command_byte(device, 0x41);
        host.fails = true;
        CHECK(device.write(4, 0xD2).has_value());  // the next byte comes back as if from the keyboard
        CHECK(device.write(0, 0x1E).has_value());
    }
    static void fail_in_read(Device& device, Host& host) {
        use(device, host);
        host.fails = true;
        CHECK(device.read(0) == 0x1E);  // the next byte comes, with its interrupt
    }

private:
    static void command_byte(Device& device, std::uint8_t value) {
        CHECK(device.write(4, 0x60).has_value());
        CHECK(device.write(0, value).has_value());
    }
};

struct RtcCmosRow : PortRow {
    using State = RtcCmosState;
    using Device = RtcCmos<Line, NoRtcCmosEvents, ClockRef<ManualClock>>;
    static Device make(Host& host) { return {line(host), ClockRef(host.clock)}; }
    static auto restore(const State& state, Host& host) {
        return Device::from_state(state, line(host), {}, host.clock);
    }
    static void use(Device& device, Host& host) {
        put(device, 0x0B, 0x12);  // the update interrupt
        put(device, 0x10, 0x5A);
        host.clock.advance(3s);
        device.read(1);
    }
    static State after_reset(State used) {
        used.ram[0x0B] = 0x02;
        used.ram[0x0C] = 0x00;
        return used;
    }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("time", [](State& state) { state.time.shift = -1; }),
                wrong<State>("second_start", [](State& state) { state.second_start = 1; })};
    }
    static void fail_in_write(Device& device, Host& host) {
        put(device, 0x0B, 0x12);
        host.clock.advance(1s);
        host.fails = true;
        CHECK(error_of(device.write(1, 0x12)) == 7);
    }
    static void fail_in_read(Device& device, Host& host) {
        put(device, 0x0B, 0x12);
        CHECK(device.write(0, 0x0A).has_value());
        host.clock.advance(1s);
        host.fails = true;
        CHECK(device.read(1) == 0x26);
    }

private:
    static void put(Device& device, std::uint8_t index, std::uint8_t value) {
        CHECK(device.write(0, index).has_value());
        CHECK(device.write(1, value).has_value());
    }
};

struct RtcPl031Row {
    using State = RtcPl031State;
    using Device = RtcPl031<Line, NoRtcPl031Events, ClockRef<ManualClock>>;
    static constexpr std::size_t hidden = 0;
    static Device make(Host& host) { return {line(host), ClockRef(host.clock)}; }
    static auto restore(const State& state, Host& host) {
        return Device::from_state(state, line(host), {}, host.clock);
    }
    static void read(Device& device, std::uint8_t offset) {
        for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{4}, std::size_t{8}}) {
            std::array<std::uint8_t, 8> bytes{};
            device.read(offset, std::span(bytes).first(size));
        }
    }
    static void use(Device& device, Host& host) {
        CHECK(put(device, 0x10, 1).has_value());
        CHECK(put(device, 0x08, 1000).has_value());
        CHECK(put(device, 0x04, 1002).has_value());
        host.clock.advance(3s);
        read(device, 0x00);
    }
    static State after_reset(State used) {
        used.match = 0;
        used.load = 0;
        used.interrupt_enabled = false;
        used.matched = false;
        return used;
    }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("time", [](State& state) { state.time.shift = -1; }),
                wrong<State>("second_start", [](State& state) { state.second_start = 1; })};
    }
    static void fail_in_write(Device& device, Host& host) {
        CHECK(put(device, 0x10, 1).has_value());
        host.fails = true;
        CHECK(error_of(put(device, 0x04, 0)) == 7);  // the counter's own value
    }
    static void fail_in_read(Device& device, Host& host) {
        CHECK(put(device, 0x10, 1).has_value());
        CHECK(put(device, 0x04, 1).has_value());
        host.clock.advance(1s);
        host.fails = true;
        std::array<std::uint8_t, 4> bytes{};
        device.read(0x00, bytes);
        CHECK(bytes[0] == 1);
    }

private:
    static std::expected<void, int> put(Device& device, std::uint64_t offset, std::uint32_t value) {
        const std::array<std::uint8_t, 4> bytes{
            static_cast<std::uint8_t>(value), static_cast<std::uint8_t>(value >> 8U),
            static_cast<std::uint8_t>(value >> 16U), static_cast<std::uint8_t>(value >> 24U)};
        return device.write(offset, bytes);
    }
};

struct SerialRow : PortRow {
    using State = SerialState;
    using Device = Serial<Line>;
    static constexpr std::size_t hidden = 2 * SerialState::fifo_size;
    static Device make(Host& host) { return {line(host), NullWriter{}}; }
    static auto restore(const State& state, Host& host) {
        return Device::from_state(state, line(host), NoEvents{}, NullWriter{});
    }
    static void use(Device& device, Host&) {
        CHECK(device.write(1, 0x01).has_value());
        CHECK(device.write(3, 0x1B).has_value());
        const std::array<std::uint8_t, 2> bytes{'a', 'b'};
        CHECK(device.enqueue_raw_bytes(bytes).has_value());
    }
    static State after_reset(const State&) { return {}; }
    static std::vector<Wrong<State>> wrong_states() {
        return {wrong<State>("interrupt_enable", [](State& state) { state.interrupt_enable = 0x80; }),
                wrong<State>("line_errors", [](State& state) { state.line_errors = 0x01; }),
                wrong<State>("modem_deltas", [](State& state) { state.modem_deltas = 0x10; })};
    }
    static void fail_in_write(Device& device, Host& host) {
        host.fails = true;
        const auto result = device.write(1, 0x02);  // the transmitter is empty
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().kind() == SerialErrorKind::trigger);
    }
    static void fail_in_read(Device& device, Host& host) {
        use(device, host);
        host.fails = true;
        CHECK(device.read(0) == 'a');  // the next byte interrupts in its turn
    }
};

#define ALL_DEVICES                                                                                 \
    SerialRow, PostCodeRow, ConsoleRow, ExitPortRow, PvpanicRow, ResetControlRow, SystemControlRow, \
        AcpiPmRow, I8042Row, RtcCmosRow, RtcPl031Row
#define DEVICES_WITH_INTERRUPT SerialRow, AcpiPmRow, I8042Row, RtcCmosRow, RtcPl031Row

}  // namespace

TEMPLATE_TEST_CASE("Every device: a new one has the default-constructed state", "[devices][snapshot]",
                   ALL_DEVICES) {
    using State = typename TestType::State;
    Host host;
    CHECK(TestType::make(host).state() == State{});
    CHECK(validate(State{}).has_value());
    auto restored = TestType::restore(State{}, host);
    REQUIRE(restored.has_value());
    CHECK(restored->state() == State{});
    CHECK(host.calls == 0);
}

TEMPLATE_TEST_CASE("Every device: a device that was used, saved and restored continues from the same state",
                   "[devices][snapshot]", ALL_DEVICES) {
    using State = typename TestType::State;
    Host host;
    auto device = TestType::make(host);
    TestType::use(device, host);
    const State used = device.state();
    REQUIRE(used != State{});
    CHECK(validate(used).has_value());
    const auto bytes = encode(used);
    const auto decoded = decode<State>(bytes);
    REQUIRE(decoded.has_value());
    CHECK(*decoded == used);
    CHECK(encode(*decoded) == bytes);
    auto restored = TestType::restore(*decoded, host);
    REQUIRE(restored.has_value());
    CHECK(restored->state() == used);
    CHECK(restored->inspect() == device.inspect());
    CHECK(restored->host_errors() == HostErrors{});
}

TEMPLATE_TEST_CASE("Every device: a state that no device can be in is refused with the name of its member",
                   "[devices][snapshot]", ALL_DEVICES) {
    Host host;
    const auto states = TestType::wrong_states();
    REQUIRE_FALSE(states.empty());
    for (const auto& [state, field] : states) {
        CAPTURE(field);
        const auto valid = validate(state);
        REQUIRE_FALSE(valid.has_value());
        CHECK(valid.error().field == field);
        const auto restored = TestType::restore(state, host);
        REQUIRE_FALSE(restored.has_value());
        CHECK(field_of(restored.error()) == field);
        CHECK(host.calls == 0);
    }
}

TEMPLATE_TEST_CASE("Every device: reset() keeps what a hardware reset keeps", "[devices][reset]",
                   ALL_DEVICES) {
    using State = typename TestType::State;
    Host host;
    auto device = TestType::make(host);
    static_cast<void>(device.reset());
    CHECK(device.state() == State{});  // the state after a reset
    TestType::use(device, host);
    const State used = device.state();
    static_cast<void>(device.reset());
    const State reset = device.state();
    CHECK(reset == TestType::after_reset(used));
    CHECK(reset != used);
    static_cast<void>(device.reset());
    CHECK(device.state() == reset);
    CHECK(TestType::restore(reset, host).has_value());
}

TEMPLATE_TEST_CASE("Every device: inspect() has no effect and shows every byte of the state",
                   "[devices][inspect]", ALL_DEVICES) {
    using State = typename TestType::State;
    Host host;
    auto device = TestType::make(host);
    TestType::use(device, host);
    const State used = device.state();
    const int calls = host.calls;
    const std::string text = device.inspect();
    CHECK(device.state() == used);
    CHECK(device.inspect() == text);
    CHECK(host.calls == calls);
    CHECK(text.ends_with(inspect(used)));
    // Change each byte of the encoding in turn: each change must be visible.
    constexpr std::size_t header = 12;
    const State plain;
    const auto bytes = encode(plain);
    std::size_t unseen = 0;
    for (std::size_t i = header; i < bytes.size(); ++i) {
        auto changed = bytes;
        changed[i] ^= 1U;
        const auto state = decode<State>(changed);
        REQUIRE(state.has_value());
        REQUIRE(*state != plain);
        unseen += inspect(*state) == inspect(plain) ? 1U : 0U;
        CHECK(difference(plain, *state).empty() == (inspect(*state) == inspect(plain)));
    }
    CHECK(unseen == TestType::hidden);
}

TEMPLATE_TEST_CASE("Every device: a read at any offset is harmless", "[devices]", ALL_DEVICES) {
    Host host;
    auto device = TestType::make(host);
    for (int round = 0; round < 2; ++round) {
        for (unsigned offset = 0; offset <= 0xFF; ++offset) {
            TestType::read(device, static_cast<std::uint8_t>(offset));
        }
        CHECK(validate(device.state()).has_value());
        CHECK(device.host_errors() == HostErrors{});
        TestType::use(device, host);
    }
    CHECK(TestType::restore(device.state(), host).has_value());
}

TEMPLATE_TEST_CASE("Every device: an interrupt trigger that fails is counted, in reads and in writes",
                   "[devices][host_errors]", DEVICES_WITH_INTERRUPT) {
    for (const auto fail : {&TestType::fail_in_write, &TestType::fail_in_read}) {
        Host host;
        auto device = TestType::make(host);
        fail(device, host);
        CHECK(device.host_errors() == HostErrors{.interrupt = 1});
        // It is not part of the state, and the device continues to work.
        host.fails = false;
        const auto restored = TestType::restore(device.state(), host);
        REQUIRE(restored.has_value());
        CHECK(restored->host_errors() == HostErrors{});
        static_cast<void>(device.reset());
        CHECK(device.host_errors() == HostErrors{.interrupt = 1});
    }
}

TEST_CASE("Every device: other failures of the host are counted by their kind", "[devices][host_errors]") {
    Host host;
    host.fails = true;
    auto reset_control = ResetControlRow::make(host);
    CHECK(error_of(reset_control.write(0, 0x06)) == 7);
    CHECK(reset_control.host_errors() == HostErrors{.reset = 1});
    auto system_control = SystemControlRow::make(host);
    CHECK(error_of(system_control.write(0, 0x01)) == 7);
    CHECK(system_control.host_errors() == HostErrors{.reset = 1});
    auto i8042 = I8042Row::make(host);
    CHECK(error_of(i8042.write(4, 0xFE)) == 7);
    CHECK(i8042.host_errors() == HostErrors{.reset = 1});
    auto console = ConsoleRow::make(host);
    console.write(0, 'x');
    CHECK(console.host_errors() == HostErrors{.output = 1});
    CHECK(console.dropped() == 1);
}
