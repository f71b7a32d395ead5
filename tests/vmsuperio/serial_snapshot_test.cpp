// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Saving and restoring: including every latch, at any point, and safe with hostile states.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <functional>
#include <random>
#include <type_traits>

#include <vmsuperio/serial.hpp>
#include <vmsuperio/snapshot.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

#if __has_include(<nlohmann/json.hpp>)
#include <vmsuperio/serial_json.hpp>
#endif

using namespace serial_test;
using vmsuperio::HostErrors;
using vmsuperio::ReceiveTimeout;
using vmsuperio::TransmitPolicy;

namespace {

using Uart = Serial<Edge, Events, Sink>;

std::expected<Uart, Uart::Error> restore(const SerialState& state, World& world) {
    return Uart::from_state(state, Edge{&world}, Events{&world}, Sink{&world});
}

unsigned long size_from(const char* variable, unsigned long fallback) {
    const char* text = std::getenv(variable);
    return text == nullptr ? fallback : std::strtoul(text, nullptr, 10);
}

// A random operation on a device. Returns its observable result as a number.
std::uint64_t step(Uart& uart, World& world, std::mt19937& random) {
    const auto byte = [&random] { return static_cast<std::uint8_t>(random()); };
    const auto some = [&](std::size_t most) {
        std::vector<std::uint8_t> data(random() % (most + 1));
        std::generate(data.begin(), data.end(), byte);
        return data;
    };
    const auto seen = [](const auto& result) -> std::uint64_t {
        return result ? 0x100U : 0x200U + static_cast<unsigned>(result.error().kind());
    };
    switch (random() % 24) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
            return uart.read(static_cast<std::uint8_t>(random() % 9));
        case 6:
        case 7:
            return uart.read(rbr);
        case 8:
        case 9:
            return seen(uart.write(thr, byte()));
        case 10:
            return seen(uart.write(ier, static_cast<std::uint8_t>(random() % 4 == 0 ? byte() : 0x0F)));
        case 11:
            return seen(
                uart.write(fcr, random() % 3 == 0 ? byte() : static_cast<std::uint8_t>(byte() & 0xF9)));
        case 12:
            return seen(
                uart.write(lcr, random() % 4 == 0 ? byte() : static_cast<std::uint8_t>(byte() & 0x7F)));
        case 13:
            return seen(uart.write(mcr, random() % 2 == 0 ? out2 : byte()));
        case 14:
            return seen(uart.write(static_cast<std::uint8_t>(random() % 9), byte()));
        case 15:
            return seen(uart.write_data(some(40)));
        case 16:
        case 17: {
            const auto taken = uart.enqueue_raw_bytes(some(20));
            return taken ? *taken : seen(taken);
        }
        case 18:
            world.room = random() % 3 == 0 ? 0 : random() % 40;
            return seen(uart.resume_transmit());
        case 19:
            return seen(uart.receive_with_errors(byte(), vmsuperio::uart16550::LineStatus(byte())));
        case 20:
            return seen(uart.set_modem_lines(vmsuperio::uart16550::ModemStatus(byte())));
        case 21:
            return seen(uart.character_timeout());
        case 22:
            world.writer_error =
                random() % 8 == 0 ? std::make_error_code(std::errc::io_error) : std::error_code();
            return 0;
        default:
            switch (random() % 8) {
                case 0:
                    return seen(uart.set_receive_timeout(random() % 2 == 0 ? ReceiveTimeout::manual
                                                                           : ReceiveTimeout::immediate));
                case 1:
                    return seen(uart.set_transmit_policy(random() % 2 == 0 ? TransmitPolicy::back_pressure
                                                                           : TransmitPolicy::drop_and_count));
                case 2:
                    return seen(uart.allow_64_byte_fifo(random() % 2 == 0));
                case 3:
                    return seen(uart.reset());
                default:
                    return uart.read(lsr);
            }
    }
}

SerialState busy_state() {
    Machine m;
    REQUIRE(m.uart.allow_64_byte_fifo(true).has_value());
    m.out(lcr, 0x9B);
    m.out(dll, 0x11);
    m.out(dlm, 0x22);
    m.out(fcr, 0xA9);
    m.out(lcr, 0x1B);
    m.out(ier, 0x0D);
    m.out(mcr, 0x0F);
    m.out(scr, 0x33);
    m.type("abc");
    REQUIRE(m.uart.receive_with_errors('d', vmsuperio::uart16550::LineStatus(0x04)).has_value());
    REQUIRE(m.uart.receive_with_errors('e', vmsuperio::uart16550::LineStatus(0x08)).has_value());
    REQUIRE(m.uart.send_break().has_value());
    for (int i = 0; i < 3; ++i) {
        static_cast<void>(m.in(rbr));
    }
    REQUIRE(m.uart.character_timeout().has_value());
    REQUIRE(m.uart.set_clear_to_send(false).has_value());
    m.world.room = 0;
    m.out(thr, 'x');
    m.out(thr, 'y');
    return m.uart.state();
}

}  // namespace

TEST_CASE("Serial: a default-constructed state is that of a device that has just been reset",
          "[serial][snapshot]") {
    World world;
    const Uart fresh(Edge{&world}, Events{&world}, Sink{&world});
    CHECK_SAME_STATE(fresh.state(), SerialState{});
    const auto restored = restore(SerialState{}, world);
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), SerialState{});
    CHECK(world.edges == 0);
}

TEST_CASE("Serial: the saved state holds every latch", "[serial][snapshot]") {
    const SerialState state = busy_state();
    CHECK(state.interrupt_enable == 0x0D);
    CHECK(state.fifo_control == 0xA9);
    CHECK(state.line_control == 0x1B);
    CHECK(state.modem_control == 0x0F);
    CHECK(state.scratch == 0x33);
    CHECK(state.divisor_low == 0x11);
    CHECK(state.divisor_high == 0x22);
    CHECK(state.line_errors == 0x04);
    CHECK(state.modem_inputs == 0xA0);
    CHECK(state.modem_deltas == 0x01);
    CHECK(state.character_timeout);
    CHECK(state.receive_count == 3);
    CHECK(state.receive_data[0] == 'd');
    CHECK(state.receive_parity_errors == 0);
    CHECK(state.receive_framing_errors == 0x02);
    CHECK(state.receive_breaks == 0x04);
    CHECK(state.transmit_count == 2);
    CHECK(state.transmit_data[1] == 'y');
    CHECK(state.fifo_64_allowed);
    const auto decoded = vmsuperio::decode<SerialState>(vmsuperio::encode(state));
    REQUIRE(decoded.has_value());
    CHECK_SAME_STATE(*decoded, state);
    World world;
    const auto restored = restore(*decoded, world);
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), state);
    CHECK(world.output.empty());
}

TEST_CASE("Serial: the encoding of a state never changes for a version", "[serial][snapshot]") {
    const auto encoded = vmsuperio::encode(busy_state());
    // Header (tag, version 2, readable since 1, 171 bytes), then the registers.
    const std::vector<std::uint8_t> start{'U',  'A', 'R',  'T',  2,    0,    1,    0,    171,  0,
                                          0,    0,   0x0D, 0xA9, 0x1B, 0x0F, 0x33, 0x11, 0x22, 0x04,
                                          0xA0, 1,   0,    1,    3,    'd',  'e',  0};
    REQUIRE(encoded.size() == 12 + 171);
    CHECK(std::equal(start.begin(), start.end(), encoded.begin()));
    CHECK(encoded[12 + 13 + 64] == 0);         // receive_parity_errors
    CHECK(encoded[12 + 13 + 64 + 8] == 2);     // receive_framing_errors
    CHECK(encoded[12 + 13 + 64 + 16] == 4);    // receive_breaks
    CHECK(encoded[12 + 13 + 64 + 24] == 2);    // transmit_count
    CHECK(encoded[12 + 13 + 64 + 25] == 'x');  // transmit_data
    CHECK(encoded[12 + 168 - 2] == 1);         // fifo_64_allowed
    CHECK(encoded[12 + 169] == 0);             // interrupt_gate, since version 2
    CHECK(encoded[12 + 170] == 0);             // auto_rts_held, since version 2
}

TEST_CASE("Serial: a state of version 1 is read, and its policy is kept", "[serial][snapshot]") {
    SerialState saved = busy_state();
    saved.receive_timeout = ReceiveTimeout::manual;
    auto encoded = vmsuperio::encode(saved);
    encoded.resize(12 + 169);
    encoded[4] = 1;
    encoded[8] = 169;
    const auto decoded = vmsuperio::decode<SerialState>(encoded);
    REQUIRE(decoded.has_value());
    CHECK_SAME_STATE(*decoded, saved);
    World world;
    CHECK(restore(*decoded, world).has_value());
}

TEST_CASE("Serial: a restored device interrupts again for what was pending", "[serial][snapshot][peers]") {
    // PEERS 1.11: data is pending, IIR was already read, and the edge may have been lost in between.
    Machine m;
    m.out(ier, 0x01);
    m.type("a");
    static_cast<void>(m.in(iir));
    World world;
    auto restored = restore(m.uart.state(), world);
    REQUIRE(restored.has_value());
    CHECK(world.edges == 1);
    CHECK(restored->read(iir) == 0x04);
    CHECK(restored->read(lsr) == 0x61);  // data without LSR.DR cannot be expressed
    CHECK(restored->read(rbr) == 'a');
    CHECK(restored->read(iir) == 0x01);

    World quiet;
    m.out(mcr, 0x00);
    REQUIRE(restore(m.uart.state(), quiet).has_value());
    CHECK(quiet.edges == 0);

    m.out(mcr, out2);
    World level;
    auto leveled =
        Serial<Level, Events, Sink>::from_state(m.uart.state(), Level{&level}, Events{&level}, Sink{&level});
    REQUIRE(leveled.has_value());
    CHECK(level.levels == std::vector<bool>{true});
    static_cast<void>(leveled->read(rbr));
    CHECK(level.levels == std::vector<bool>{true, false});
}

TEST_CASE("Serial: a device saved while transmitting continues",
          "[serial][snapshot][transmit][peers]") {  // PEERS 1.10
    Machine m;
    m.enable_fifo();
    m.out(ier, 0x02);
    m.world.room = 0;
    m.out(thr, 'a');
    m.out(thr, 'b');
    World world;
    auto waiting = restore(m.uart.state(), world);
    REQUIRE(waiting.has_value());
    CHECK(waiting->read(lsr) == 0x00);
    REQUIRE(waiting->resume_transmit().has_value());
    CHECK(world.output == "ab");
    CHECK(world.edges == 1);
    CHECK(waiting->read(iir) == 0xC2);

    // The same after the byte has been sent, but before the guest has seen THRE.
    m.world.room = SIZE_MAX;
    REQUIRE(m.uart.resume_transmit().has_value());
    World idle;
    auto restored = restore(m.uart.state(), idle);
    REQUIRE(restored.has_value());
    CHECK(idle.edges == 1);
    CHECK(restored->read(iir) == 0xC2);
    CHECK(restored->read(iir) == 0xC1);
}

TEST_CASE("Serial: a trigger that fails while restoring is counted", "[serial][snapshot][error]") {
    Machine m;
    m.out(ier, 0x01);
    m.type("a");
    World world;
    world.trigger_fails = true;
    const auto restored = restore(m.uart.state(), world);
    REQUIRE(restored.has_value());
    CHECK(restored->host_errors() == HostErrors{.interrupt = 1});
    CHECK(restored->interrupt_line());
    CHECK_SAME_STATE(restored->state(), m.uart.state());
}

TEST_CASE("Serial: a state that no device can be in is refused", "[serial][snapshot][hostile][peers]") {
    // PEERS 1.11, 1.13
    const std::vector<std::function<void(SerialState&)>> mutations{
        [](SerialState& s) { s.interrupt_enable = 0x10; },
        [](SerialState& s) { s.fifo_control = 0xC0; },  // programmed while off
        [](SerialState& s) { s.fifo_control = 0x03; },  // a reset bit
        [](SerialState& s) { s.fifo_control = 0x11; },
        [](SerialState& s) { s.fifo_control = 0x21; },  // 64-byte mode, not allowed
        [](SerialState& s) { s.modem_control = 0x20; },
        [](SerialState& s) { s.line_errors = 0x01; },
        [](SerialState& s) { s.line_errors = 0x20; },
        [](SerialState& s) { s.modem_inputs = 0xB1; },
        [](SerialState& s) { s.modem_deltas = 0x10; },
        [](SerialState& s) { s.receive_count = 65; },
        [](SerialState& s) { s.receive_count = 255; },
        [](SerialState& s) { s.transmit_count = 2; },  // two bytes in THR
        [](SerialState& s) { s.transmit_count = 65, s.fifo_control = 0x01; },
        [](SerialState& s) { s.transmit_count = 1, s.thr_empty_pending = true; },
        [](SerialState& s) { s.transmit_count = 1, s.transmit_policy = TransmitPolicy::drop_and_count; },
        [](SerialState& s) { s.character_timeout = true; },
        [](SerialState& s) { s.character_timeout = true, s.receive_count = 1; },
        [](SerialState& s) { s.character_timeout = true, s.fifo_control = 0x01; },
        [](SerialState& s) { s.receive_breaks = 1, s.receive_count = 1; },  // shown in LSR already
        [](SerialState& s) { s.receive_breaks = 2, s.receive_count = 1; },
        [](SerialState& s) { s.receive_parity_errors = 2; },
        [](SerialState& s) { s.receive_framing_errors = std::uint64_t{1} << 63U, s.receive_count = 63; },
        [](SerialState& s) { s.transmit_policy = std::bit_cast<TransmitPolicy>(std::uint8_t{2}); },
        [](SerialState& s) { s.receive_timeout = std::bit_cast<ReceiveTimeout>(std::uint8_t{255}); },
    };
    for (std::size_t i = 0; i < mutations.size(); ++i) {
        CAPTURE(i);
        SerialState state;
        mutations[i](state);
        World world;
        const auto restored = restore(state, world);
        REQUIRE_FALSE(restored.has_value());
        CHECK(restored.error().kind() == SerialErrorKind::invalid_state);
        CHECK(world.edges == 0);
    }
}

TEST_CASE("Serial: the extremes of a valid state are accepted", "[serial][snapshot]") {
    SerialState full;
    full.fifo_control = 0xC9;
    full.receive_count = 64;
    full.receive_breaks = ~std::uint64_t{1};
    full.receive_parity_errors = ~std::uint64_t{1};
    full.line_errors = 0x1E;
    full.transmit_count = 64;
    full.character_timeout = true;
    World world;
    auto restored = restore(full, world);
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), full);
    CHECK(restored->receive_fifo_room() == 0);
    CHECK(restored->transmit_capacity() == 0);
    for (int i = 0; i < 64; ++i) {
        CHECK((restored->read(lsr) & 0x01) != 0);
        static_cast<void>(restored->read(rbr));
    }
    CHECK(restored->read(lsr) == 0x00);
    // Bytes beyond the counts are not part of the device.
    SerialState dusty;
    dusty.receive_data[5] = 1;
    dusty.transmit_data[5] = 1;
    auto clean = restore(dusty, world);
    REQUIRE(clean.has_value());
    CHECK_SAME_STATE(clean->state(), SerialState{});
}

TEST_CASE("Serial: a device saved and restored at any step of a trace continues in the same way",
          "[serial][snapshot][property]") {
    // Two devices run the same trace; one of them is saved, encoded, decoded and restored before every step.
    const unsigned long cuts = size_from("VMSUPERIO_SNAPSHOT_CUTS", 200'000);
    constexpr unsigned long trace_length = 2'000;
    unsigned long line_high = 0;
    unsigned long transmit_waiting = 0;
    for (unsigned long done = 0; done < cuts; done += trace_length) {
        Machine whole;
        World world;
        Uart cut(Edge{&world}, Events{&world}, Sink{&world});
        REQUIRE(cut.set_receive_timeout(ReceiveTimeout::manual).has_value());
        std::mt19937 random(static_cast<unsigned>(done) + 17);
        for (unsigned long i = 0; i < trace_length; ++i) {
            const auto decoded = vmsuperio::decode<SerialState>(vmsuperio::encode(cut.state()));
            REQUIRE(decoded.has_value());
            world.edges = 0;
            world.raised = 0;
            auto restored = restore(*decoded, world);
            REQUIRE(restored.has_value());
            cut = *restored;
            if (world.edges != (whole.uart.interrupt_line() ? 1 : 0)) {
                FAIL("the line came back otherwise at step " << i);
            }
            line_high += whole.uart.interrupt_line() ? 1U : 0U;
            transmit_waiting += whole.uart.transmit_pending() ? 1U : 0U;
            world.edges = 0;
            world.raised = 0;
            whole.world.edges = 0;
            whole.world.raised = 0;
            std::mt19937 same = random;
            const std::uint64_t expected = step(whole.uart, whole.world, random);
            const std::uint64_t found = step(cut, world, same);
            if (expected != found || whole.uart.state() != cut.state() || whole.world.edges != world.edges ||
                whole.world.raised != world.raised || whole.uart.interrupt_line() != cut.interrupt_line() ||
                whole.world.output.size() != world.output.size() ||
                whole.world.lost_bytes != world.lost_bytes || whole.world.emptied != world.emptied ||
                whole.world.overruns != world.overruns) {
                FAIL("the devices differ after step "
                     << i << " of trace " << done << "\n"
                     << test_support::state_difference(whole.uart.state(), cut.state()));
            }
        }
        REQUIRE(whole.world.output == world.output);
        REQUIRE(whole.world.dropped == world.dropped);
    }
    // The traces must have reached the interesting states.
    CHECK(line_high > cuts / 10);
    CHECK(transmit_waiting > cuts / 50);
}

TEST_CASE("Serial: invariants hold through any trace", "[serial][property]") {
    const unsigned long steps = size_from("VMSUPERIO_SNAPSHOT_CUTS", 200'000);
    Machine m;
    std::mt19937 random(99);
    for (unsigned long i = 0; i < steps; ++i) {
        if (i % 5'000 == 0) {
            m.world.output.clear();
        }
        static_cast<void>(step(m.uart, m.world, random));
        const SerialState state = m.uart.state();
        if (!vmsuperio::validate(state)) {
            FAIL("a device came into a state that it would refuse, at step " << i);
        }
        const std::uint8_t id = m.uart.peek(iir) & 0x0F;
        const bool line = id != 0x01 && (state.modem_control & out2) != 0;
        const std::uint8_t status = m.uart.peek(lsr);
        if (m.uart.interrupt_line() != line || ((status & 0x01) != 0) != (state.receive_count != 0) ||
            ((status & 0x60) == 0x60) != (state.transmit_count == 0) ||
            m.uart.receive_fifo_room() != 64U - state.receive_count) {
            FAIL("registers and state disagree at step " << i);
        }
    }
}

TEST_CASE("Serial: hostile states neither crash nor restore to nonsense",
          "[serial][snapshot][hostile][property]") {
    const unsigned long states = size_from("VMSUPERIO_HOSTILE_STATES", 1'000'000);
    std::mt19937 random(5);
    std::vector<std::vector<std::uint8_t>> seeds{vmsuperio::encode(SerialState{}),
                                                 vmsuperio::encode(busy_state())};
    {
        Machine m;
        for (int i = 0; i < 3'000; ++i) {
            static_cast<void>(step(m.uart, m.world, random));
            if (i % 100 == 0) {
                seeds.push_back(vmsuperio::encode(m.uart.state()));
            }
        }
    }
    unsigned long accepted = 0;
    unsigned long refused = 0;
    for (unsigned long i = 0; i < states; ++i) {
        auto bytes = seeds[random() % seeds.size()];
        // Mostly the registers and counts, because the data bytes may have any value.
        constexpr std::size_t interesting[] = {12, 13, 15, 19,  20,  21,  22,  23,
                                               24, 89, 97, 105, 113, 178, 179, 180};
        for (unsigned long mutations = 1 + (random() % 3); mutations != 0; --mutations) {
            const std::size_t at = random() % 4 == 0 ? 12 + (random() % (bytes.size() - 12))
                                                     : interesting[random() % std::size(interesting)];
            switch (random() % 3) {
                case 0:
                    bytes[at] = static_cast<std::uint8_t>(random());
                    break;
                case 1:
                    bytes[at] ^= static_cast<std::uint8_t>(1U << (random() % 8));
                    break;
                default:
                    bytes[at] = random() % 2 == 0 ? 0x00 : 0x01;
                    break;
            }
        }
        const auto state = vmsuperio::decode<SerialState>(bytes);
        if (!state) {
            continue;  // not a valid boolean
        }
        World world;
        auto uart = restore(*state, world);
        if (!uart) {
            ++refused;
            if (uart.error().kind() != SerialErrorKind::invalid_state || world.edges != 0) {
                FAIL("refused in a wrong way: state " << i);
            }
            continue;
        }
        ++accepted;
        const SerialState settled = uart->state();
        if (!vmsuperio::validate(settled)) {
            FAIL("accepted, but not valid: state " << i);
        }
        for (int n = 0; n < 4; ++n) {
            static_cast<void>(step(*uart, world, random));
        }
        if (!vmsuperio::validate(uart->state())) {
            FAIL("not valid after use: state " << i);
        }
    }
    CHECK(accepted > states / 20);
    CHECK(refused > states / 20);
}

#if __has_include(<nlohmann/json.hpp>)

TEST_CASE("Serial: a state is the same after conversion to JSON and back", "[serial][snapshot][json]") {
    const SerialState state = busy_state();
    const nlohmann::json json = state;
    CHECK(json.at("receive").size() == 3);
    CHECK(json.at("line_control") == 0x1B);
    const auto text = json.dump();
    CHECK(nlohmann::json::parse(text).get<SerialState>() == state);
    CHECK(nlohmann::json::object().get<SerialState>() == SerialState{});
    SerialState extreme = state;
    extreme.receive_breaks = ~std::uint64_t{0};
    extreme.receive_data[0] = 0xFF;
    CHECK(nlohmann::json::parse(nlohmann::json(extreme).dump()).get<SerialState>() == extreme);
}

TEST_CASE("Serial: hostile JSON is refused or harmless", "[serial][snapshot][json][hostile]") {
    for (const char* text : {
             R"({"interrupt_enable": 256})",
             R"({"interrupt_enable": -1})",
             R"({"interrupt_enable": 1.5})",
             R"({"interrupt_enable": "1"})",
             R"({"thr_empty_pending": 1})",
             R"({"receive": [256]})",
             R"({"receive": [-1]})",
             R"({"receive": "abc"})",
             R"({"receive": {}})",
             R"({"receive": null})",
             R"({"receive_breaks": 18446744073709551616})",
             R"({"transmit_policy": 256})",
         }) {
        CAPTURE(text);
        CHECK_THROWS(nlohmann::json::parse(text).get<SerialState>());
    }
    nlohmann::json long_array;
    long_array["transmit"] = std::vector<int>(65, 1);
    CHECK_THROWS(long_array.get<SerialState>());
    SerialState wild;
    wild.receive_count = 255;
    CHECK(nlohmann::json(wild).at("receive").size() == 64);
    // In range, but not valid for a device.
    const auto state = nlohmann::json::parse(R"({"transmit_policy": 7, "unknown": []})").get<SerialState>();
    World world;
    CHECK_FALSE(restore(state, world).has_value());
}

#endif
