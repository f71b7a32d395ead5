// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <utility>

#include <vmsuperio/callback.hpp>
#include <vmsuperio/detail/port_core.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/registers/pvpanic.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// What a guest reports through pvpanic. The numbers are the bits of its register.
enum class PvpanicEvent : std::uint8_t {
    panicked = 0x01,      ///< the guest's kernel panicked and stops
    crash_loaded = 0x02,  ///< it panicked and continues in a crash kernel, which will save a dump
    shutdown = 0x04,      ///< it shuts down in an orderly way
};

/// Everything that a Pvpanic remembers.
struct PvpanicState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PVPC"), .version = 1, .readable_since = 1};

    std::uint8_t seen{};  ///< the events reported so far, as bits

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [seen] = self;
        archive("seen", seen, as<PvpanicEvents>);
    }
    friend constexpr bool operator==(const PvpanicState&, const PvpanicState&) = default;
};

namespace detail {

inline constexpr std::uint8_t all_pvpanic_events = PvpanicEvents::guest_mask();

}  // namespace detail

/// Checks whether a device that supports the events `supported` can be in this state. The error names "seen"
/// if that contains an event that the device does not support.
[[nodiscard]] constexpr std::expected<void, StateError> validate(
    const PvpanicState& state, std::uint8_t supported = detail::all_pvpanic_events) {
    if ((state.seen & ~(unsigned{supported} & detail::all_pvpanic_events)) != 0) {
        return std::unexpected(StateError{"seen"});
    }
    return {};
}

namespace detail {

class PvpanicCore : public PortCore<PvpanicState> {
public:
    explicit constexpr PvpanicCore(std::uint8_t supported, const PvpanicState& state = {})
        : PortCore(state), supported_(supported & all_pvpanic_events) {}

    struct Effects : PortEffects {
        std::uint8_t reported{};

        template <class Events>
        constexpr void report(Events& events) const {
            constexpr std::array in_order{PvpanicEvent::panicked, PvpanicEvent::crash_loaded,
                                          PvpanicEvent::shutdown};
            for (const PvpanicEvent event : in_order) {
                if ((reported & static_cast<std::uint8_t>(event)) != 0) {
                    events.happened(event);
                }
            }
        }
    };

    [[nodiscard]] constexpr std::uint8_t supported() const noexcept { return supported_; }
    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        Effects effects;
        effects.reported = value & supported_;
        state_.seen |= effects.reported;
        return effects;
    }
    constexpr void reset() noexcept { state_ = {}; }

private:
    std::uint8_t supported_;
};

struct PvpanicCallback {
    Callback<void(PvpanicEvent)> on_event;
    void happened(PvpanicEvent event) {
        if (on_event) {
            on_event(event);
        }
    }
};

}  // namespace detail

/// The pvpanic ISA device: one byte, at port 0x505 by convention (the guest finds it through ACPI, QEMU0001).
///
/// A read returns the events that the device supports; a write reports one or more of them, and other bits
/// are ignored. Not modelled: the PCI variant. Source: QEMU, "PVPANIC DEVICE" specification. Thread safety:
/// none.
class Pvpanic : public DeviceShell<detail::PvpanicCore, detail::PvpanicCallback> {
public:
    static constexpr std::size_t register_count = 1;
    /// The port that QEMU uses, and that guests find through ACPI.
    static constexpr std::uint16_t default_port = 0x505;
    /// All events that the port can support.
    static constexpr std::uint8_t all_events = detail::all_pvpanic_events;

    /// `on_event` is called from within the guest's write for each event, panicked first. It must not block
    /// and must not throw. `supported` has a bit for each supported event.
    explicit Pvpanic(Callback<void(PvpanicEvent)> on_event = {}, std::uint8_t supported = all_events)
        : Pvpanic(detail::PvpanicCore(supported), std::move(on_event)) {}

    /// The supported events, a bit for each.
    std::uint8_t read(std::uint8_t = 0) { return core().supported(); }

    /// Reports the events whose bits are set.
    void write(std::uint8_t, std::uint8_t value) { apply(core().write(value)); }
    /// Writes of a string instruction: reports the events of each byte.
    void write_data(std::span<const std::uint8_t> bytes) {
        for (const std::uint8_t byte : bytes) {
            write(0, byte);
        }
    }

    /// Whether the guest has reported `event` since construction or the last reset.
    [[nodiscard]] bool seen(PvpanicEvent event) const noexcept {
        return (core().state().seen & static_cast<std::uint8_t>(event)) != 0;
    }

    /// Restores a saved device without calling `on_event`.
    template <class Self = Pvpanic>  // so that inclusion alone does not instantiate std::expected<Pvpanic>
    [[nodiscard]] static std::expected<Self, StateError> from_state(
        const PvpanicState& state, Callback<void(PvpanicEvent)> on_event = {},
        std::uint8_t supported = all_events) {
        if (const auto valid = validate(state, supported); !valid) {
            return std::unexpected(valid.error());
        }
        return Self(detail::PvpanicCore(supported, state), std::move(on_event));
    }
    /// A hardware reset: clears the events that the guest has reported.
    void reset() noexcept { core().reset(); }

private:
    Pvpanic(const detail::PvpanicCore& core, Callback<void(PvpanicEvent)> on_event)
        : DeviceShell(core, {.on_event = std::move(on_event)}) {}
};

}  // namespace vmsuperio::inline v0_2
