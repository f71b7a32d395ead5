// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <utility>

#include <vmsuperio/callback.hpp>
#include <vmsuperio/registers/pvpanic.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio {

/// What a guest tells through pvpanic. The numbers are the bits of its register.
enum class PvpanicEvent : std::uint8_t {
    panicked = 0x01,      ///< the guest's kernel panicked and stops
    crash_loaded = 0x02,  ///< it panicked and goes on in a crash kernel, which will save a dump
    shutdown = 0x04,      ///< it shuts down in an orderly way
};

struct PvpanicState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PVPC"), .version = 1, .readable_since = 1};

    std::uint8_t seen{};  ///< the events told so far, as bits

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [seen] = self;
        archive("seen", seen, as<PvpanicEvents>);
    }
    friend constexpr bool operator==(const PvpanicState&, const PvpanicState&) = default;
};
static_assert(SnapshotState<PvpanicState> && visits_every_member<PvpanicState>());

/// The pvpanic ISA device: one byte, at port 0x505 by convention (the guest finds it by ACPI, QEMU0001).
///
/// A read gives the events that the device takes, a write tells one or more of them; bits that it does not
/// take are ignored. Source: QEMU, "PVPANIC DEVICE" specification. Thread safety: none.
class Pvpanic {
public:
    static constexpr std::size_t register_count = 1;
    static constexpr std::uint16_t default_port = 0x505;
    static constexpr std::uint8_t all_events = 0x07;

    /// `on_event` is called from within the guest's write, panicked first. Must not block and must not throw.
    /// `supported` is what the device takes, as bits.
    explicit Pvpanic(Callback<void(PvpanicEvent)> on_event = {}, std::uint8_t supported = all_events)
        : on_event_(std::move(on_event)), supported_(supported & all_events) {}

    std::uint8_t read(std::uint8_t = 0) { return supported_; }

    void write(std::uint8_t, std::uint8_t value) {
        constexpr std::array events{PvpanicEvent::panicked, PvpanicEvent::crash_loaded,
                                    PvpanicEvent::shutdown};
        const auto told = static_cast<std::uint8_t>(value & supported_);
        seen_ = static_cast<std::uint8_t>(seen_ | told);
        for (const PvpanicEvent event : events) {
            if ((told & static_cast<std::uint8_t>(event)) != 0 && on_event_) {
                on_event_(event);
            }
        }
    }
    void write_data(std::span<const std::uint8_t> bytes) {
        for (const std::uint8_t byte : bytes) {
            write(0, byte);
        }
    }

    /// Whether the guest has told `event` since construction or the last reset.
    [[nodiscard]] bool seen(PvpanicEvent event) const noexcept {
        return (seen_ & static_cast<std::uint8_t>(event)) != 0;
    }

    [[nodiscard]] PvpanicState state() const noexcept { return {.seen = seen_}; }
    /// The device as it was saved, without a call of `on_event`.
    template <class Self = Pvpanic>  // instantiated where it is called only
    [[nodiscard]] static std::expected<Self, StateError> from_state(
        const PvpanicState& state, Callback<void(PvpanicEvent)> on_event = {},
        std::uint8_t supported = all_events) {
        Self device(std::move(on_event), supported);
        if ((state.seen & ~unsigned{device.supported_}) != 0) {
            return std::unexpected(StateError{"seen"});
        }
        device.seen_ = state.seen;
        return device;
    }
    /// A hardware reset: what the guest has told is forgotten.
    void reset() noexcept { seen_ = 0; }
    /// Takes over a saved state, without a call of `on_event`. Bits that the device does not take are
    /// dropped.
    void restore(const PvpanicState& state) noexcept {
        seen_ = static_cast<std::uint8_t>(state.seen & supported_);
    }

private:
    Callback<void(PvpanicEvent)> on_event_;
    std::uint8_t supported_;
    std::uint8_t seen_{};
};

}  // namespace vmsuperio
