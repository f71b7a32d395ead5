// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <iterator>
#include <string>
#include <type_traits>

#include <vmsuperio/inspect.hpp>
#include <vmsuperio/registers/acpi_pm.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/registers/pl031.hpp>
#include <vmsuperio/registers/ps2.hpp>
#include <vmsuperio/registers/pvpanic.hpp>
#include <vmsuperio/registers/reset_control.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_state.hpp>

#include "catch.hpp"

using namespace vmsuperio;

TEST_CASE("Inspect: a register names its bits that are set, and its fields that are not 0", "[inspect]") {
    CHECK(inspect(uart16550::InterruptEnable(0x05)) == "IER=0x05 [received_data line_status]");
    CHECK(inspect(uart16550::InterruptEnable()) == "IER=0x00");
    CHECK(inspect(uart16550::LineControl(0x83)) == "LCR=0x83 [word_length=3 divisor_latch_access]");
    CHECK(inspect(uart16550::Scratch(0x5A)) == "SCR=0x5A");
    CHECK(inspect(Pm1Control(0x1401)) == "PM1_CNT=0x1401 [sci_enable sleep_type=5]");
    CHECK(inspect(pl031::InterruptMask(1)) == "RTCIMSC=0x00000001 [match]");
    // Reserved bits have no name.
    CHECK(inspect(uart16550::InterruptEnable(0xF0)) == "IER=0xF0");
}

TEMPLATE_TEST_CASE("Register: the list of fields has each bit once, and each field has a unique name",
                   "[register]", uart16550::InterruptEnable, uart16550::InterruptIdentification,
                   uart16550::FifoControl, uart16550::LineControl, uart16550::ModemControl,
                   uart16550::LineStatus, uart16550::ModemStatus, uart16550::Scratch, i8042::Status,
                   i8042::CommandByte, i8042::OutputPort, i8042::InputPort, i8042::TestInputs, ps2::Leds,
                   ps2::Typematic, ps2::HeldKeys, ps2::MouseButtons, ps2::MouseStatus, ps2::MousePacket,
                   ps2::MouseExtra, mc146818::IndexRegister, mc146818::RegisterA, mc146818::RegisterB,
                   mc146818::RegisterC, mc146818::RegisterD, pl031::Control, pl031::InterruptMask,
                   pl031::InterruptStatus, Pm1Status, Pm1Enable, Pm1Control, PvpanicEvents,
                   ResetControlRegister, SystemControlA) {
    CHECK_FALSE(TestType::name.empty());
    std::uint64_t listed = 0;
    for (std::size_t i = 0; i < std::size(TestType::fields); ++i) {
        const FieldInfo& field = TestType::fields[i];
        CAPTURE(field.name);
        CHECK((listed & field.mask) == 0);
        listed |= field.mask;
        for (std::size_t j = 0; j < i; ++j) {
            CHECK(TestType::fields[j].name != field.name);
        }
        // If only this field is set, the text contains its name.
        const auto all = static_cast<typename TestType::value_type>(field.mask);
        if (std::size(TestType::fields) > 1) {
            CHECK(inspect(TestType(all)).find(field.name) != std::string::npos);
        }
    }
}

TEST_CASE("Inspect: the difference of two states names what changed and nothing else", "[inspect]") {
    SerialState before;
    CHECK(difference(before, before).empty());
    SerialState after;
    after.line_control = 0x83;
    after.thr_empty_pending = true;
    after.receive_count = 2;
    after.receive_data[0] = 0x41;
    CHECK(difference(before, after) ==
          "line_control: 0x03 [word_length=3] -> 0x83 [word_length=3 divisor_latch_access]\n"
          "thr_empty_pending: no -> yes\n"
          "receive: none -> 41 00\n");
}

namespace {

/// A user-defined state with arrays of numbers that are not bytes.
struct Counters {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CNTR"), .version = 1, .readable_since = 1};
    std::array<std::int16_t, 3> counts{1, -2, 300};
    std::array<std::array<bool, 2>, 2> flags{{{true, false}, {false, false}}};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [counts, flags] = self;
        archive("counts", counts);
        archive("flags", flags);
    }
    friend constexpr bool operator==(const Counters&, const Counters&) = default;
};
static_assert(SnapshotState<Counters> && visits_every_member<Counters>());

}  // namespace

TEST_CASE("Inspect: arrays are shown as lists of numbers", "[inspect]") {
    CHECK(inspect(Counters{}) == "counts=1 -2 300\nflags=yes no no no\n");
    Counters after;
    after.counts[1] = 4;
    CHECK(difference(Counters{}, after) == "counts: 1 -2 300 -> 1 4 300\n");
}

TEST_CASE("Inspect: a failing test shows states and registers as text, and the differences", "[inspect]") {
    CHECK(Catch::Detail::stringify(Counters{}) == "\ncounts=1 -2 300\nflags=yes no no no\n");
    CHECK(Catch::Detail::stringify(uart16550::InterruptEnable(0x05)) ==
          "IER=0x05 [received_data line_status]");
    SerialState state;
    CHECK_SAME_STATE(state, SerialState{});
    state.scratch = 0x5A;
    CHECK(test_support::state_difference(SerialState{}, state) == "scratch: 0x00 -> 0x5A\n");
    // States that differ in bytes that the text does not show.
    SerialState dusty;
    dusty.receive_data[5] = 1;
    CHECK(test_support::state_difference(SerialState{}, dusty) ==
          "bytes behind a count differ, which the text does not show\n");
}

namespace {

/// A state that binds a member and forgets to visit it.
struct Forgetful {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("FORG"), .version = 1, .readable_since = 1};
    std::uint8_t kept{};
    bool forgotten{};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [kept, forgotten] = self;
        archive("kept", kept);
    }
    friend constexpr bool operator==(const Forgetful&, const Forgetful&) = default;
};
static_assert(SnapshotState<Forgetful> && !visits_every_member<Forgetful>());

}  // namespace
