// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <utility>

#include <vmsuperio/callback.hpp>
#include <vmsuperio/detail/port_core.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// Everything that an ExitPort remembers.
struct ExitPortState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("EXIT"), .version = 1, .readable_since = 1};

    bool requested{};       ///< whether the guest has written a status
    std::uint8_t status{};  ///< the status, 0 to 255; 0 if the guest has written none

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [requested, status] = self;
        archive("requested", requested);
        archive("status", status);
    }
    friend constexpr bool operator==(const ExitPortState&, const ExitPortState&) = default;
};

/// Checks whether a port can be in this state. The error names "status" if there is one although no exit was
/// requested.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const ExitPortState& state) {
    if (!state.requested && state.status != 0) {
        return std::unexpected(StateError{"status"});
    }
    return {};
}

namespace detail {

class ExitPortCore : public PortCore<ExitPortState> {
public:
    using PortCore::PortCore;

    struct Effects : PortEffects {
        std::optional<std::uint8_t> requested;

        template <class Events>
        constexpr void report(Events& events) const {
            if (requested) {
                events.exit(*requested);
            }
        }
    };

    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        Effects effects;
        if (!state_.requested) {
            state_ = {.requested = true, .status = value};
            effects.requested = value;
        }
        return effects;
    }
    constexpr void reset() noexcept { state_ = {}; }
};

struct ExitPortEvents {
    Callback<void(std::uint8_t status)> on_exit;
    void exit(std::uint8_t status) {
        if (on_exit) {
            on_exit(status);
        }
    }
};

}  // namespace detail

/// A port through which a guest ends its machine with a status, for tests (QEMU calls its own
/// `isa-debug-exit`, at 0x501 by default).
///
/// The first byte written is the status, 0 to 255; later ones have no effect. QEMU's device ends the process
/// with `(status << 1) | 1` instead, so that no guest can fake a success: `qemu_status()` returns that
/// number. A read returns 0. Thread safety: none.
///
/// It may have up to four ports (QEMU's `iosize=0x04`), so that guests may write 32 bits: the lowest byte is
/// the status.
class ExitPort : public DeviceShell<detail::ExitPortCore, detail::ExitPortEvents> {
public:
    static constexpr std::size_t register_count = 4;

    /// `on_exit(status)` is called once, from within the guest's write. It must not block and must not throw.
    explicit ExitPort(Callback<void(std::uint8_t status)> on_exit = {})
        : ExitPort(detail::ExitPortCore(), std::move(on_exit)) {}

    // NOLINTNEXTLINE(readability-convert-member-functions-to-static): as in all devices
    /// Reads 0.
    std::uint8_t read(std::uint8_t = 0) { return 0; }

    /// The first byte that is written to offset 0 is the guest's exit status.
    void write(std::uint8_t offset, std::uint8_t value) {
        if (offset == 0) {
            apply(core().write(value));
        }
    }
    /// Many writes at once: the first byte is the status.
    void write_data(std::span<const std::uint8_t> bytes) {
        if (!bytes.empty()) {
            write(0, bytes.front());
        }
    }

    /// The exit status that the guest requested, if it has.
    [[nodiscard]] std::optional<std::uint8_t> status() const noexcept {
        const ExitPortState& state = core().state();
        return state.requested ? std::optional(state.status) : std::nullopt;
    }
    /// The exit status that QEMU would end with, 1 to 511, odd. A shell sees its low 8 bits.
    [[nodiscard]] static constexpr int qemu_status(std::uint8_t status) noexcept { return (status << 1) | 1; }

    /// Restores a saved port without calling `on_exit`.
    template <class Self = ExitPort>  // so that inclusion alone does not instantiate std::expected<ExitPort>
    [[nodiscard]] static std::expected<Self, StateError> from_state(
        const ExitPortState& state, Callback<void(std::uint8_t status)> on_exit = {}) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return Self(detail::ExitPortCore(state), std::move(on_exit));
    }
    /// A hardware reset: the next write requests an exit again.
    void reset() noexcept { core().reset(); }

private:
    ExitPort(const detail::ExitPortCore& core, Callback<void(std::uint8_t)> on_exit)
        : DeviceShell(core, {.on_exit = std::move(on_exit)}) {}
};

}  // namespace vmsuperio::inline v0_2
