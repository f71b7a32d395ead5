// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <utility>

#include <vmsuperio/callback.hpp>
#include <vmsuperio/detail/port_core.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/writer.hpp>

/// One-byte ports to which firmware and kernels write progress and text.
///
/// | port | use | a read returns |
/// |---|---|---|
/// | 0x80 | power-on self-test codes, and Linux's I/O delay | the last byte written |
/// | 0xE9 | Bochs' "port E9 hack": text | 0xE9, by which software detects it |
/// | 0x402 | the same, used by SeaBIOS and OVMF | 0xE9, like QEMU's `isa-debugcon` |
///
/// Port 0x80 reads back its last byte, like the latch of IBM's and Intel's DMA page register 0.
///
/// Sources: Bochs, "Advanced debugger usage" and `iodev/unmapped.cc`; QEMU `isa-debugcon` (property
/// `readback`). Not modelled: other bytes of the DMA page register file around port 0x80. Thread safety:
/// none.
namespace vmsuperio::inline v0_2 {

/// Everything that a DebugPort remembers.
struct DebugPortState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("DBGP"), .version = 1, .readable_since = 1};

    std::uint8_t last{};      ///< the last byte written
    std::uint64_t written{};  ///< how many bytes the guest has written
    std::uint64_t dropped{};  ///< how many of them the sink did not take

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [last, written, dropped] = self;
        archive("last", last);
        archive("written", written);
        archive("dropped", dropped);
    }
    friend constexpr bool operator==(const DebugPortState&, const DebugPortState&) = default;
};

/// Checks whether a port can be in this state. The error names the invalid member: "dropped" if more bytes
/// were dropped than written, "last" if there is a last byte although none was written.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const DebugPortState& state) {
    if (state.dropped > state.written) {
        return std::unexpected(StateError{"dropped"});
    }
    if (state.written == 0 && state.last != 0) {
        return std::unexpected(StateError{"last"});
    }
    return {};
}

namespace detail {

class DebugPortCore : public PortCore<DebugPortState> {
public:
    explicit constexpr DebugPortCore(std::optional<std::uint8_t> readback) : readback_(readback) {}
    constexpr DebugPortCore(const DebugPortState& state, std::optional<std::uint8_t> readback)
        : PortCore(state), readback_(readback) {}

    [[nodiscard]] constexpr std::uint8_t read() const noexcept { return readback_.value_or(state_.last); }
    /// `bytes` must not be empty.
    constexpr void write(std::span<const std::uint8_t> bytes) noexcept {
        state_.last = bytes.back();
        state_.written += bytes.size();
    }
    constexpr void drop(std::size_t count) noexcept { state_.dropped += count; }
    constexpr void reset() noexcept { state_.last = 0; }

private:
    std::optional<std::uint8_t> readback_;  // of a console; a POST code port has none
};

/// A debug port has no events, only output.
struct NoDebugPortEvents {};

}  // namespace detail

/// A debug port. Writes of the guest never fail: bytes that the sink does not take are dropped and counted.
/// If the sink itself fails, that is counted in `host_errors().output` as well.
class DebugPort : public DeviceShell<detail::DebugPortCore, detail::NoDebugPortEvents> {
public:
    static constexpr std::size_t register_count = 1;

    /// Takes bytes that the guest wrote, at least one at a time, and returns how many of them it took, or
    /// nothing if it failed. It may also return a plain number. It must not block and must not throw.
    using Sink = Callback<std::optional<std::size_t>(std::span<const std::uint8_t>)>;

    /// The value that debug consoles return when they are read.
    static constexpr std::uint8_t console_id = 0xE9;

    /// A POST code port: keeps the last byte, and passes each byte on to `sink` if there is one.
    explicit DebugPort(Sink sink = {}) : DebugPort(detail::DebugPortCore({}), std::move(sink)) {}

    /// A POST code port that calls `notify(code)` for each code.
    template <class Notify>
        requires std::invocable<Notify&, std::uint8_t>
    [[nodiscard]] static DebugPort post_code(Notify notify) {
        return DebugPort([notify = std::move(notify)](std::span<const std::uint8_t> codes) mutable {
            for (const std::uint8_t code : codes) {
                notify(code);
            }
            return codes.size();
        });
    }

    /// A debug console that reads back `readback`.
    [[nodiscard]] static DebugPort console(Sink sink, std::uint8_t readback = console_id) {
        return {detail::DebugPortCore(readback), std::move(sink)};
    }
    /// A debug console that writes to `writer`, a `Writer` that outlives the port.
    template <Writer W>
    [[nodiscard]] static DebugPort console(W& writer, std::uint8_t readback = console_id) {
        return console(Sink([&writer](std::span<const std::uint8_t> bytes) -> std::optional<std::size_t> {
                           const auto taken = writer.write(bytes);
                           return taken ? std::optional(static_cast<std::size_t>(*taken)) : std::nullopt;
                       }),
                       readback);
    }

    /// A read by the guest.
    std::uint8_t read(std::uint8_t offset = 0) { return peek(offset); }
    [[nodiscard]] std::uint8_t peek(std::uint8_t = 0) const noexcept { return core().read(); }

    /// A write by the guest.
    void write(std::uint8_t, std::uint8_t value) { write_data({&value, 1}); }

    /// Many writes to the port at once, as by REP OUTSB.
    void write_data(std::span<const std::uint8_t> bytes) {
        if (bytes.empty()) {
            return;
        }
        core().write(bytes);
        if (sink_) {
            const std::optional<std::size_t> answer = sink_(bytes);
            const std::size_t taken = answer.value_or(0);
            core().drop(taken < bytes.size() ? bytes.size() - taken : 0);
            if (!answer) {
                host_failed(HostErrorSource::output);
            }
        }
    }

    /// The last byte written, 0 before the first.
    [[nodiscard]] std::uint8_t last() const noexcept { return core().state().last; }
    /// Bytes written by the guest, and how many of them the sink did not take.
    [[nodiscard]] std::uint64_t written() const noexcept { return core().state().written; }
    /// How many bytes the sink did not take.
    [[nodiscard]] std::uint64_t dropped() const noexcept { return core().state().dropped; }

    /// Restores a saved port: a POST code port, or a console if there is a `readback`.
    template <class Self = DebugPort>  // so that inclusion alone does not instantiate std::expected
    [[nodiscard]] static std::expected<Self, StateError> from_state(
        const DebugPortState& state, Sink sink = {}, std::optional<std::uint8_t> readback = {}) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return Self(detail::DebugPortCore(state, readback), std::move(sink));
    }
    /// A hardware reset: sets the latch to 0. The counts are for the host and stay.
    void reset() noexcept { core().reset(); }

private:
    DebugPort(const detail::DebugPortCore& core, Sink sink) : DeviceShell(core, {}), sink_(std::move(sink)) {}

    Sink sink_;
};

}  // namespace vmsuperio::inline v0_2
