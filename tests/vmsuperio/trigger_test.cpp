// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <vector>

#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/trigger.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using recorders::CountingTrigger;
using recorders::RecordingLevel;
using vmsuperio::LinePulse;

TEST_CASE("InterruptLine: an edge trigger is called on each rise, and on a pulse while high", "[trigger]") {
    int count = 0;
    vmsuperio::InterruptLine line(CountingTrigger{&count});
    CHECK(line.update(false).has_value());
    CHECK(count == 0);
    CHECK(line.update(true).has_value());
    CHECK(count == 1);
    CHECK(line.update(true).has_value());
    CHECK(count == 1);
    CHECK(line.update(true, LinePulse::again).has_value());
    CHECK(count == 2);
    CHECK(line.update(true, LinePulse::dropped).has_value());
    CHECK(count == 3);
    CHECK(line.update(false, LinePulse::again).has_value());
    CHECK(line.update(false, LinePulse::dropped).has_value());
    CHECK(count == 3);
    // A rise is one edge, even with a pulse.
    CHECK(line.update(true, LinePulse::dropped).has_value());
    CHECK(count == 4);
    CHECK(line.update(false).has_value());
    CHECK_FALSE(line.level());
}

TEST_CASE("InterruptLine: a level trigger receives each change once and never an edge", "[trigger]") {
    std::vector<bool> levels;
    int edges = 0;
    vmsuperio::InterruptLine line(RecordingLevel{&levels, &edges});
    for (const bool level : {false, true, true, false, false, true}) {
        CHECK(line.update(level, LinePulse::again).has_value());
    }
    CHECK(levels == std::vector<bool>{true, false, true});
    CHECK(edges == 0);
}

TEST_CASE("InterruptLine: a level trigger sees a line that was low in between fall and rise", "[trigger]") {
    std::vector<bool> levels;
    int edges = 0;
    vmsuperio::InterruptLine line(RecordingLevel{&levels, &edges});
    CHECK(line.update(true, LinePulse::dropped).has_value());
    CHECK(levels == std::vector<bool>{true});
    CHECK(line.update(true, LinePulse::dropped).has_value());
    CHECK(levels == std::vector<bool>{true, false, true});
    CHECK(line.update(false, LinePulse::dropped).has_value());
    CHECK(levels == std::vector<bool>{true, false, true, false});
    CHECK(edges == 0);
}

TEST_CASE("InterruptLine: a failing trigger is reported and the level is kept", "[trigger]") {
    int count = 0;
    vmsuperio::InterruptLine line(CountingTrigger{&count, &recorders::always});
    const auto result = line.update(true);
    REQUIRE_FALSE(result.has_value());
    CHECK(result.error() == recorders::failure);
    CHECK(line.level());
}

TEST_CASE("TriggerRef: it is an edge or a level trigger like the one that it refers to", "[trigger]") {
    int count = 0;
    CountingTrigger edge{&count};
    vmsuperio::TriggerRef edge_ref(edge);
    static_assert(vmsuperio::Trigger<decltype(edge_ref)> && !vmsuperio::LevelTrigger<decltype(edge_ref)>);
    CHECK(edge_ref.trigger().has_value());
    CHECK(count == 1);
    edge.fails = &recorders::always;
    CHECK(edge_ref.trigger().error() == recorders::failure);

    std::vector<bool> levels;
    int edges = 0;
    RecordingLevel level{&levels, &edges};
    vmsuperio::TriggerRef level_ref(level);
    static_assert(vmsuperio::LevelTrigger<decltype(level_ref)>);
    vmsuperio::InterruptLine line(level_ref);
    CHECK(line.update(true).has_value());
    CHECK(levels == std::vector<bool>{true});
    CHECK(edges == 0);
}

TEST_CASE("pulse: an edge for an edge trigger, up and down for a level trigger", "[trigger]") {
    int count = 0;
    CountingTrigger edge{&count};
    CHECK(vmsuperio::pulse(edge).has_value());
    CHECK(count == 1);
    edge.fails = &recorders::always;
    CHECK(vmsuperio::pulse(edge).error() == recorders::failure);

    std::vector<bool> levels;
    int edges = 0;
    RecordingLevel level{&levels, &edges};
    CHECK(vmsuperio::pulse(level).has_value());
    CHECK(levels == std::vector<bool>{true, false});
    CHECK(edges == 0);
}
