// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <system_error>

#include <vmsuperio/serial_events.hpp>
#include <vmsuperio/trigger.hpp>
#include <vmsuperio/writer.hpp>

#include "support/check.hpp"

/// The host's side of a device under test. Regression tests made with `--replay` use these types too.
namespace fuzz {

/// Records the output of a device, and determines how its triggers and its writer behave.
struct World {
    // triggers
    std::uint64_t edges{0};  // calls of trigger()
    bool level{false};       // the last value passed to set_level()
    bool trigger_fails{false};
    std::uint64_t failures{0};
    // writer
    std::size_t room{unlimited};
    bool write_fails{false};
    std::uint64_t output_count{0};
    std::uint64_t output_hash{0};
    // events
    std::uint64_t buffer_reads{0};
    std::uint64_t out_bytes{0};
    std::uint64_t lost_bytes{0};
    std::uint64_t emptied{0};
    std::uint64_t overruns{0};
    std::uint64_t dropped{0};
    std::uint64_t raised{0};

    static constexpr std::size_t unlimited = SIZE_MAX;
    /// Output is compared by count and hash, so that a long run needs no memory.
    static constexpr std::uint64_t mix(std::uint64_t hash, std::uint8_t byte) noexcept {
        return (hash ^ byte) * 0x100000001B3U + 1;
    }
};

/// An edge trigger.
struct Edge {
    using error_type = int;
    World* world;

    std::expected<void, int> trigger() const {
        ++world->edges;
        if (world->trigger_fails) {
            ++world->failures;
            return std::unexpected(5);
        }
        return {};
    }
};
/// A level trigger, which checks that it is called only for changes.
struct Level {
    using error_type = int;
    World* world;

    std::expected<void, int> trigger() const {
        fail("a level trigger is never pulsed", std::source_location::current());
    }
    std::expected<void, int> set_level(bool asserted) const {
        check(asserted != world->level, "the level is reported once per change");
        world->level = asserted;
        if (world->trigger_fails) {
            ++world->failures;
            return std::unexpected(5);
        }
        return {};
    }
};
static_assert(vmsuperio::Trigger<Edge> && !vmsuperio::LevelTrigger<Edge> && vmsuperio::LevelTrigger<Level>);

/// A writer that takes what there is room for.
struct Sink {
    World* world;

    [[nodiscard]] vmsuperio::WriteResult write(std::span<const std::uint8_t> bytes) const {
        check(!bytes.empty(), "the writer is offered at least one byte");
        if (world->write_fails) {
            return std::unexpected(std::make_error_code(std::errc::io_error));
        }
        const std::size_t count = bytes.size() < world->room ? bytes.size() : world->room;
        for (const std::uint8_t byte : bytes.first(count)) {
            world->output_hash = World::mix(world->output_hash, byte);
        }
        world->output_count += count;
        world->room -= world->room == World::unlimited ? 0 : count;
        return count;
    }
};
static_assert(vmsuperio::Writer<Sink>);

struct Events {
    World* world;

    void buffer_read() const { ++world->buffer_reads; }
    void out_byte() const { ++world->out_bytes; }
    void tx_lost_byte() const { ++world->lost_bytes; }
    void in_buffer_empty() const { ++world->emptied; }
    void overrun() const { ++world->overruns; }
    void dropped_bytes(std::size_t count) const { world->dropped += count; }
    static void characters_dropped(const vmsuperio::ReceivedCharacters& characters) {
        check(characters.size() != 0 && characters.size() <= 64,
              "characters_dropped() reports at most a full FIFO");
    }
    void interrupt_raised() const { ++world->raised; }
};
static_assert(vmsuperio::SerialEvents<Events>);

}  // namespace fuzz
