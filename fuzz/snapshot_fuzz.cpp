// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Hostile saved states: whatever the bytes are, they are refused, or the restored device works.
//
// Input: one byte (bits 2:0 the device; bit 7: raw bytes instead of patches). Raw: the rest is decoded as it
// is. Patches: one byte says how many (modulo 16); each is a position of one byte and a value, put into the
// encoded state of a new device, where positions count from the end of the header, or from its start when bit
// 7 of the next byte is set. The rest are guest accesses to the restored device: 0o read, 1o vv write.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <vmsuperio/vmsuperio.hpp>

#include "support/check_state.hpp"
#include "support/target.hpp"
#include "support/world.hpp"

namespace fuzz {
namespace {

using namespace vmsuperio;
using Clock = ClockRef<ManualClock>;

constexpr std::size_t header_size = 12;

// How each device is restored and used.
struct SerialSubject {
    using State = SerialState;
    static constexpr const char* name = "SerialState";
    std::optional<Serial<Edge, Events, Sink>> device;

    bool restore(const State& state, World& world, ManualClock&) {
        auto made = Serial<Edge, Events, Sink>::from_state(state, Edge{&world}, Events{&world}, Sink{&world});
        check_equal(made.has_value(), vmsuperio::validate(state).has_value(),
                    "from_state refuses invalid states only");
        if (made) {
            device.emplace(std::move(*made));
        }
        return made.has_value();
    }
    [[nodiscard]] State state() const { return device->state(); }
    void read(std::uint8_t offset) { device->read(offset); }
    void write(std::uint8_t offset, std::uint8_t value) {
        static_cast<void>(device->write(offset, value));
        static_cast<void>(device->enqueue_raw_bytes(std::span(&value, 1)));
        check(device->receive_fifo_room() <= 64, "the FIFO's bounds");
    }
    // The bytes beyond the counts have no meaning and are not preserved.
    static void normalize(State& state) {
        for (std::size_t i = state.receive_count; i < state.receive_data.size(); ++i) {
            state.receive_data[i] = 0;
        }
        for (std::size_t i = state.transmit_count; i < state.transmit_data.size(); ++i) {
            state.transmit_data[i] = 0;
        }
    }
};

struct I8042Subject {
    using State = I8042State;
    static constexpr const char* name = "I8042State";
    using Device = I8042<Edge, Edge, Edge, vmsuperio::NoI8042Events, Clock>;
    std::optional<Device> device;

    bool restore(const State& state, World& world, ManualClock& clock) {
        auto made = Device::from_state(state, Edge{&world}, Edge{&world}, Edge{&world}, {}, Clock(clock),
                                       std::chrono::seconds(1));
        if (made) {
            // No sanitizer looks inside an object, so the bounds are checked here.
            check(state.keyboard.keys.count <= state.keyboard.keys.bytes.size() &&
                      state.keyboard.replies.count <= state.keyboard.replies.bytes.size() &&
                      state.mouse.replies.count <= state.mouse.replies.bytes.size(),
                  "no queue holds more than it has room for");
            device.emplace(std::move(*made));
        }
        return made.has_value();
    }
    [[nodiscard]] State state() const { return device->state(); }
    void read(std::uint8_t offset) { device->read(offset % 2 == 0 ? 0 : 4); }
    void write(std::uint8_t offset, std::uint8_t value) {
        static_cast<void>(device->write(offset % 2 == 0 ? 0 : 4, value));
        static_cast<void>(device->key(static_cast<Key>(value), offset < 8));
        device->move_mouse({.x = value * 100, .y = -value, .wheel = value, .buttons = value});
    }
    static void normalize(State& state) {
        state.keyboard.replies.normalize();
        state.keyboard.keys.normalize();
        state.mouse.replies.normalize();
        state.mouse.packets.normalize();
        state.mouse.last_packet.normalize();
    }
};

struct Pl031Subject {
    using State = RtcPl031State;
    static constexpr const char* name = "RtcPl031State";
    std::optional<RtcPl031<Edge, NoRtcPl031Events, Clock>> device;

    bool restore(const State& state, World& world, ManualClock& clock) {
        auto made =
            RtcPl031<Edge, NoRtcPl031Events, Clock>::from_state(state, Edge{&world}, {}, Clock(clock));
        if (made) {
            device.emplace(std::move(*made));
        }
        return made.has_value();
    }
    [[nodiscard]] State state() const { return device->state(); }
    void read(std::uint8_t offset) {
        std::array<std::uint8_t, 4> bytes{};
        device->read(offset * 4U, bytes);
        static_cast<void>(device->next_deadline());
        static_cast<void>(device->time_offset());
    }
    void write(std::uint8_t offset, std::uint8_t value) {
        const std::array<std::uint8_t, 4> bytes{value, 0, 0, value};
        static_cast<void>(device->write(offset * 4U, bytes));
    }
    static void normalize(State&) {}
};

struct CmosSubject {
    using State = RtcCmosState;
    static constexpr const char* name = "RtcCmosState";
    std::optional<RtcCmos<Edge, NoRtcCmosEvents, Clock>> device;

    bool restore(const State& state, World& world, ManualClock& clock) {
        auto made = RtcCmos<Edge, NoRtcCmosEvents, Clock>::from_state(state, Edge{&world}, {}, Clock(clock));
        if (made) {
            device.emplace(std::move(*made));
        }
        return made.has_value();
    }
    [[nodiscard]] State state() const { return device->state(); }
    void read(std::uint8_t offset) {
        static_cast<void>(device->write(0, offset));
        device->read(1);
        static_cast<void>(device->next_deadline());
        static_cast<void>(device->time_offset());
    }
    void write(std::uint8_t offset, std::uint8_t value) {
        static_cast<void>(device->write(0, offset));
        static_cast<void>(device->write(1, value));
    }
    // A clock whose divider is held (DV above 2) starts its second at each look.
    static void normalize(State& state) {
        if ((state.ram[0x0A] & 0x70) > 0x20) {
            state.second_start = state.time.seen;
        }
    }
};

struct AcpiPmSubject {
    struct PowerEvents {
        void power_off() {}
    };
    using State = AcpiPmState;
    static constexpr const char* name = "AcpiPmState";
    std::optional<AcpiPm<Edge, PowerEvents, Clock>> device;

    bool restore(const State& state, World& world, ManualClock& clock) {
        auto made = AcpiPm<Edge, PowerEvents, Clock>::from_state(state, Edge{&world}, {}, Clock(clock));
        check_equal(made.has_value(), vmsuperio::validate(state).has_value(),
                    "from_state refuses invalid states only");
        if (made) {
            device.emplace(std::move(*made));
        }
        return made.has_value();
    }
    [[nodiscard]] State state() const { return device->state(); }
    void read(std::uint8_t offset) {
        device->read(offset);
        const auto deadline = device->next_deadline();
        check(!deadline || !device->sci_level(), "there is a deadline only while the SCI is low");
    }
    void write(std::uint8_t offset, std::uint8_t value) {
        static_cast<void>(device->write(offset, value));
        static_cast<void>(device->press_power_button());
    }
    static void normalize(State&) {}
};

template <class S, class Device>
struct PortSubject {
    using State = S;
    static constexpr const char* name = "a port's state";
    std::optional<Device> device;

    bool restore(const State& state, World&, ManualClock&) {
        auto made = Device::from_state(state);
        check_equal(made.has_value(), vmsuperio::validate(state).has_value(),
                    "from_state refuses invalid states only");
        if (made) {
            device.emplace(std::move(*made));
        }
        return made.has_value();
    }
    [[nodiscard]] State state() const { return device->state(); }
    void read(std::uint8_t offset) { device->read(offset); }
    void write(std::uint8_t offset, std::uint8_t value) { static_cast<void>(device->write(offset, value)); }
    static void normalize(State&) {}
};

template <class Subject>
void run(Input& input, const Trace& trace, bool raw) {
    using State = typename Subject::State;
    std::vector<std::uint8_t> bytes;
    if (raw) {
        const auto rest = input.rest();
        bytes.assign(rest.begin(), rest.end());
    } else {
        bytes = encode(State{});
        for (std::size_t patches = input.byte() % 16U; patches != 0; --patches) {
            const std::size_t position = input.byte();
            const std::uint8_t where = input.byte();
            const std::size_t at = position + ((where & 0x80) != 0 ? 0 : header_size);
            bytes[at % bytes.size()] = input.byte();
        }
    }
    trace("auto state = vmsuperio::decode<vmsuperio::", Subject::name, ">(", Bytes{bytes}, ");");
    const auto decoded = decode<State>(bytes);
    if (!decoded) {
        return;
    }
    // An accepted state encodes to the same bytes, except for members that a newer version added.
    const auto again = encode(*decoded);
    const unsigned version = bytes[4] + 256U * bytes[5];
    if (version == State::snapshot_format.version) {
        check_equal(again.size(), bytes.size(), "the whole input was the state");
        for (std::size_t i = header_size; i < again.size(); ++i) {
            check_equal(again[i], bytes[i], "each byte of the input is in the state");
        }
    }
    World world;
    ManualClock clock{std::chrono::seconds(1'700'000'000)};
    if constexpr (requires { decoded->time.seen; }) {
        // The time of the last look, so that restoring, which looks again, changes nothing.
        clock.set(std::chrono::nanoseconds(
            vmsuperio::detail::saturating_subtract(decoded->time.seen, decoded->time.shift)));
    }
    Subject subject;
    if (!subject.restore(*decoded, world, clock)) {
        return;
    }
    trace("// restored; then:");
    State normal = *decoded;
    Subject::normalize(normal);
    check_same_state(subject.state(), normal, "the device has the state that it was given");
    while (!input.empty()) {
        const Op op = next_op(input);
        if (op.kind == OpKind::write) {
            const std::uint8_t value = input.byte();
            trace("device.write(", op.detail, ", ", Hex{value}, ");");
            subject.write(op.detail, value);
        } else {
            trace("device.read(", op.detail, ");");
            subject.read(op.detail);
        }
        Subject copy;
        World other;
        check(copy.restore(subject.state(), other, clock), "whatever the device becomes can be restored");
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    const std::uint8_t choice = input.byte();
    const bool raw = (choice & 0x80) != 0;
    switch (choice & 7) {
        case 0:
            return run<SerialSubject>(input, trace, raw);
        case 1:
            return run<I8042Subject>(input, trace, raw);
        case 2:
            return run<Pl031Subject>(input, trace, raw);
        case 3:
            return run<CmosSubject>(input, trace, raw);
        case 4:
            return run<PortSubject<DebugPortState, DebugPort>>(input, trace, raw);
        case 5:
            return run<PortSubject<ExitPortState, ExitPort>>(input, trace, raw);
        case 6:
            return run<PortSubject<PvpanicState, Pvpanic>>(input, trace, raw);
        default:
            return run<AcpiPmSubject>(input, trace, raw);
    }
}

}  // namespace fuzz
