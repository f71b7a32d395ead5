// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <cstdint>
#include <expected>
#include <functional>
#include <string>
#include <vector>

#include <vmsuperio/callback.hpp>
#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/reset_control.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using recorders::CountingTrigger;
using recorders::RecordingLevel;
using vmsuperio::ResetControl;
using vmsuperio::ResetKind;
using vmsuperio::SystemControlPortA;

namespace {

struct ResetEvents {
    std::vector<ResetKind>* kinds;
    void reset_requested(ResetKind kind) { kinds->push_back(kind); }
};
struct GateEvents {
    std::vector<bool>* gate;
    void a20_changed(bool enabled) { gate->push_back(enabled); }
};

}  // namespace

TEST_CASE("ResetControl: only a change of RST_CPU from 0 to 1 resets", "[reset_control]") {
    for (unsigned before = 0; before <= 0xFF; ++before) {
        for (unsigned after = 0; after <= 0xFF; ++after) {
            int resets = 0;
            ResetControl port(CountingTrigger{&resets});
            REQUIRE(port.write(0, static_cast<std::uint8_t>(before)).has_value());
            REQUIRE(resets == ((before & 4) != 0 ? 1 : 0));
            REQUIRE(port.read(0) == (before & 0x0E));
            resets = 0;
            REQUIRE(port.write(0, static_cast<std::uint8_t>(after)).has_value());
            REQUIRE(resets == ((before & 4) == 0 && (after & 4) != 0 ? 1 : 0));
            REQUIRE(port.read(0) == (after & 0x0E));
        }
    }
}

TEST_CASE("ResetControl: the event reports the kind of the reset", "[reset_control]") {
    std::vector<ResetKind> kinds;
    int resets = 0;
    ResetControl port(CountingTrigger{&resets}, ResetEvents{&kinds});
    for (const int value : {0x04, 0x06, 0x0E, 0x0C}) {
        CHECK(port.write(0, 0x00).has_value());
        CHECK(port.write(0, static_cast<std::uint8_t>(value)).has_value());
    }
    CHECK(kinds == std::vector{ResetKind::soft, ResetKind::hard, ResetKind::full, ResetKind::soft});
    CHECK(resets == 4);
}

TEST_CASE("ResetControl: Linux's and EDK2's sequence resets once", "[reset_control]") {
    // Linux native_machine_emergency_restart, BOOT_CF9_FORCE: sets 0x02 and then 0x06 (or 0x0E) in the value
    // that it has read.
    int resets = 0;
    ResetControl port(CountingTrigger{&resets});
    const auto cf9 = static_cast<std::uint8_t>(port.read(0) & ~0x06);
    CHECK(port.write(0, cf9 | 0x02).has_value());
    CHECK(resets == 0);
    CHECK(port.write(0, cf9 | 0x06).has_value());
    CHECK(resets == 1);
}

TEST_CASE("ResetControl: other offsets, errors, reset and saved states", "[reset_control][snapshot]") {
    int resets = 0;
    ResetControl port(CountingTrigger{&resets, &recorders::always});
    CHECK(port.write(1, 0x06).has_value());
    CHECK(port.read(1) == 0xFF);
    CHECK(resets == 0);
    CHECK((port.write(0, 0x06) == std::unexpected(recorders::failure)));
    CHECK(port.read(0) == 0x06);  // the write has taken effect nevertheless
    const auto decoded = vmsuperio::decode<vmsuperio::ResetControlState>(vmsuperio::encode(port.state()));
    REQUIRE(decoded.has_value());
    const auto restored = ResetControl<CountingTrigger>::from_state(*decoded, CountingTrigger{&resets});
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), port.state());
    CHECK(resets == 1);
    for (unsigned value = 0; value <= 0xFF; ++value) {
        const auto made = ResetControl<CountingTrigger>::from_state({static_cast<std::uint8_t>(value)},
                                                                    CountingTrigger{&resets});
        REQUIRE(made.has_value() == ((value & ~0x0EU) == 0));
        REQUIRE((made.has_value() || made.error().field == "value"));
    }
    port.reset();
    CHECK_SAME_STATE(port.state(), vmsuperio::ResetControlState{});
    CHECK(resets == 1);
    std::vector<bool> levels;
    ResetControl level(RecordingLevel{&levels});
    CHECK(level.write(0, 0x06).has_value());
    CHECK(levels == std::vector<bool>{true, false});
    ResetControl<> unconnected;
    CHECK(unconnected.write(0, 0x06).has_value());
}

TEST_CASE("SystemControlPortA: bit 1 gates A20 and reads back, bit 0 resets when it rises",
          "[reset_control][port92]") {
    for (unsigned before = 0; before <= 0xFF; ++before) {
        for (unsigned after = 0; after <= 0xFF; ++after) {
            int resets = 0;
            std::vector<bool> gate;
            SystemControlPortA port(CountingTrigger{&resets}, GateEvents{&gate});
            REQUIRE(port.write(0, static_cast<std::uint8_t>(before)).has_value());
            gate.clear();
            resets = 0;
            REQUIRE(port.write(0, static_cast<std::uint8_t>(after)).has_value());
            REQUIRE(port.read(0) == (after & 3));
            REQUIRE(resets == ((before & 1) == 0 && (after & 1) != 0 ? 1 : 0));
            REQUIRE(port.a20_enabled() == ((after & 2) != 0));
            REQUIRE(gate.size() == ((before & 2) != (after & 2) ? 1U : 0U));
            REQUIRE((gate.empty() || gate.back() == ((after & 2) != 0)));
        }
    }
}

TEST_CASE("SystemControlPortA: Linux's fast A20 switches the gate and does not reset",
          "[reset_control][port92]") {
    // arch/x86/boot/a20.c, enable_a20_fast: bit 1 set, bit 0 cleared.
    int resets = 0;
    std::vector<bool> gate;
    SystemControlPortA port(CountingTrigger{&resets}, GateEvents{&gate});
    CHECK(port.write(0, static_cast<std::uint8_t>((port.read(0) | 0x02) & ~0x01)).has_value());
    CHECK(gate == std::vector<bool>{true});
    CHECK(resets == 0);
    port.reset();
    CHECK(gate == std::vector<bool>{true, false});
    port.reset();
    CHECK(gate.size() == 2);
    CHECK_SAME_STATE(port.state(), vmsuperio::SystemControlPortAState{});
}

TEST_CASE("SystemControlPortA: other offsets, errors and saved states", "[reset_control][port92][snapshot]") {
    int resets = 0;
    std::vector<bool> gate;
    SystemControlPortA port(CountingTrigger{&resets, &recorders::always}, GateEvents{&gate});
    CHECK(port.write(7, 0x03).has_value());
    CHECK(port.read(7) == 0xFF);
    CHECK((port.write(0, 0x03) == std::unexpected(recorders::failure)));
    CHECK(port.a20_enabled());
    using Port = SystemControlPortA<CountingTrigger, GateEvents>;
    const auto restored = Port::from_state(port.state(), CountingTrigger{&resets}, GateEvents{&gate});
    REQUIRE(restored.has_value());
    CHECK_SAME_STATE(restored->state(), port.state());
    CHECK(resets == 1);
    CHECK(gate.size() == 1);  // the restored device reports nothing
    CHECK(Port::from_state({0x04}, CountingTrigger{&resets}, GateEvents{&gate}).error().field == "value");
}

TEST_CASE("Reset ports: a reset trigger that fails is returned, counted and reported, once for each reset",
          "[reset_control][port92][host_errors]") {
    const auto check = [](auto make, std::uint8_t resets_with) {
        int resets = 0;
        std::vector<vmsuperio::HostErrorSource> errors;
        auto port = make(CountingTrigger{&resets, &recorders::always}, recorders::HostErrorEvents{&errors});
        CHECK((port.write(0, resets_with) == std::unexpected(recorders::failure)));
        CHECK(port.write(0, resets_with).has_value());  // no change from 0 to 1
        CHECK(port.write(3, resets_with).has_value());
        CHECK(port.read(0) == resets_with);
        CHECK(port.host_errors() == vmsuperio::HostErrors{.reset = 1});
        CHECK(errors == std::vector{vmsuperio::HostErrorSource::reset});
        port.reset();
        CHECK((port.write(0, resets_with) == std::unexpected(recorders::failure)));
        CHECK(port.host_errors() == vmsuperio::HostErrors{.reset = 2});
        CHECK(resets == 2);
        port.reset_evt().fails = nullptr;
        port.reset();
        CHECK(port.write(0, resets_with).has_value());
        CHECK(port.host_errors() == vmsuperio::HostErrors{.reset = 2});
        CHECK(resets == 3);
    };
    check([](auto trigger, auto events) { return ResetControl(trigger, events); }, 0x06);
    check([](auto trigger, auto events) { return SystemControlPortA(trigger, events); }, 0x01);
}

TEST_CASE("Reset ports: a constant expression can use them", "[reset_control][port92]") {
    STATIC_REQUIRE([] {
        ResetControl<> port;
        return port.write(0, 0x0E).has_value() && port.read() == 0x0E && port.state().value == 0x0E &&
               ResetControl<>::from_state(port.state()).has_value();
    }());
    STATIC_REQUIRE([] {
        SystemControlPortA<> port;
        return port.write(0, 0x02).has_value() && port.a20_enabled() &&
               SystemControlPortA<>::from_state({0x02}).has_value();
    }());
}

TEST_CASE("Callback: it holds, copies and moves callables, and can be empty", "[callback]") {
    using vmsuperio::Callback;
    Callback<int(int)> empty;
    CHECK_FALSE(static_cast<bool>(empty));
    CHECK_FALSE(static_cast<bool>(Callback<int(int)>(std::function<int(int)>())));
    CHECK_FALSE(static_cast<bool>(Callback<int(int)>(static_cast<int (*)(int)>(nullptr))));
    const std::string text(100, 'x');
    Callback<std::size_t(int)> size(
        [text](int more) { return text.size() + static_cast<std::size_t>(more); });
    Callback<std::size_t(int)> copy(size);
    Callback<std::size_t(int)> moved(std::move(size));
    CHECK(copy(1) == 101);
    CHECK(moved(2) == 102);
    copy = moved;
    CHECK(copy(3) == 103);
    copy = {};
    CHECK_FALSE(static_cast<bool>(copy));
    int calls = 0;
    Callback<void(int&)> result_ignored([&](int& value) { return value = ++calls; });
    int seen = 0;
    result_ignored(seen);
    CHECK(seen == 1);
    Callback<int(int)> from_function(std::function<int(int)>([](int value) { return value * 2; }));
    CHECK(from_function(21) == 42);
    // Each copy has its own state, as with std::function.
    Callback<int()> counter([count = 0]() mutable { return ++count; });
    CHECK(counter() == 1);
    Callback<int()> second(counter);
    CHECK(counter() == 2);
    CHECK(second() == 2);
}
