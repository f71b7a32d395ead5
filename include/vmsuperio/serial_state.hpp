// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <string_view>

#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// The treatment of bytes that the writer does not take at once.
enum class TransmitPolicy : std::uint8_t {
    back_pressure,   ///< they wait in the transmit FIFO, and LSR makes the guest wait too
    drop_and_count,  ///< they are lost and counted: the guest never waits
};

/// When the character timeout interrupt (CTI) occurs for received bytes below the trigger level.
enum class ReceiveTimeout : std::uint8_t {
    manual,     ///< when the caller reports that the time has passed: `character_timeout()`, `SerialTimeout`
    immediate,  ///< at once, the default: each received byte interrupts, whatever the trigger level is
};

/// What gates the interrupt between the UART and the interrupt controller.
enum class InterruptGate : std::uint8_t {
    out2,  ///< MCR.OUT2 enables it, as on a PC
    none,  ///< it is always connected, for guests that were developed on an emulator without this gate
};

[[nodiscard]] constexpr std::string_view to_string(TransmitPolicy policy) noexcept {
    switch (policy) {
        case TransmitPolicy::back_pressure:
            return "back_pressure";
        case TransmitPolicy::drop_and_count:
            return "drop_and_count";
    }
    return "unknown transmit policy";
}
[[nodiscard]] constexpr std::string_view to_string(ReceiveTimeout timeout) noexcept {
    switch (timeout) {
        case ReceiveTimeout::manual:
            return "manual";
        case ReceiveTimeout::immediate:
            return "immediate";
    }
    return "unknown receive timeout";
}
[[nodiscard]] constexpr std::string_view to_string(InterruptGate gate) noexcept {
    switch (gate) {
        case InterruptGate::out2:
            return "out2";
        case InterruptGate::none:
            return "none";
    }
    return "unknown interrupt gate";
}

/// The complete state of a `Serial`, as plain data. A default-constructed state is that of a device that has
/// just been reset. All other values (IIR, LSR, MSR, the interrupt line) follow from it and cannot contradict
/// it.
struct SerialState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("UART"), .version = 2, .readable_since = 1};
    static constexpr std::size_t fifo_size = 64;  ///< how many bytes each of the FIFOs can hold

    std::uint8_t interrupt_enable{0x00};  ///< IER
    std::uint8_t fifo_control{0x00};      ///< FCR without the reset bits
    std::uint8_t line_control{0x03};      ///< LCR
    std::uint8_t modem_control{0x08};     ///< MCR
    std::uint8_t scratch{0x00};           ///< SCR
    std::uint8_t divisor_low{0x0C};       ///< DLL
    std::uint8_t divisor_high{0x00};      ///< DLM
    std::uint8_t line_errors{0x00};       ///< LSR bits 4:1, not yet read
    std::uint8_t modem_inputs{0xB0};      ///< CTS, DSR, RI, DCD as the host drives them, as MSR bits 7:4
    std::uint8_t modem_deltas{0x00};      ///< MSR bits 3:0, not yet read
    bool thr_empty_pending{false};        ///< a THRE interrupt not yet acknowledged
    bool character_timeout{false};        ///< a CTI not yet served
    std::uint8_t receive_count{0};        ///< how many of them there are
    std::array<std::uint8_t, fifo_size> receive_data{};  ///< the oldest first
    std::uint64_t receive_parity_errors{
        0};  ///< bit n is for byte n; those of the oldest are in `line_errors`
    /// A bit for each byte of the receive FIFO: received with a framing error.
    std::uint64_t receive_framing_errors{0};
    std::uint64_t receive_breaks{0};  ///< a bit for each byte of the receive FIFO: a break
    std::uint8_t transmit_count{0};   ///< how many of them there are
    std::array<std::uint8_t, fifo_size> transmit_data{};  ///< the oldest first
    bool fifo_64_allowed{false};  ///< a TL16C750: the guest may use its 64-byte mode and flow control
    /// What happens to bytes that the writer does not take.
    TransmitPolicy transmit_policy{TransmitPolicy::back_pressure};
    /// When received bytes below the trigger level interrupt.
    ReceiveTimeout receive_timeout{ReceiveTimeout::immediate};
    InterruptGate interrupt_gate{InterruptGate::out2};  ///< whether OUT2 gates the interrupt
    bool auto_rts_held{false};  ///< automatic flow control holds RTS off until the receive FIFO is empty

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        using namespace uart16550;
        auto& [interrupt_enable, fifo_control, line_control, modem_control, scratch, divisor_low,
               divisor_high, line_errors, modem_inputs, modem_deltas, thr_empty_pending, character_timeout,
               receive_count, receive_data, receive_parity_errors, receive_framing_errors, receive_breaks,
               transmit_count, transmit_data, fifo_64_allowed, transmit_policy, receive_timeout,
               interrupt_gate, auto_rts_held] = self;
        archive("interrupt_enable", interrupt_enable, as<InterruptEnable>);
        archive("fifo_control", fifo_control, as<FifoControl>);
        archive("line_control", line_control, as<LineControl>);
        archive("modem_control", modem_control, as<ModemControl>);
        archive("scratch", scratch, as<Scratch>);
        archive("divisor_low", divisor_low);
        archive("divisor_high", divisor_high);
        archive("line_errors", line_errors, as<LineStatus>);
        archive("modem_inputs", modem_inputs, as<ModemStatus>);
        archive("modem_deltas", modem_deltas, as<ModemStatus>);
        archive("thr_empty_pending", thr_empty_pending);
        archive("character_timeout", character_timeout);
        archive.bytes("receive", receive_count, receive_data);
        archive("receive_parity_errors", receive_parity_errors);
        archive("receive_framing_errors", receive_framing_errors);
        archive("receive_breaks", receive_breaks);
        archive.bytes("transmit", transmit_count, transmit_data);
        archive("fifo_64_allowed", fifo_64_allowed);
        archive("transmit_policy", transmit_policy);
        archive("receive_timeout", receive_timeout);
        archive.since(2, "interrupt_gate", interrupt_gate);
        archive.since(2, "auto_rts_held", auto_rts_held);
    }
    friend constexpr bool operator==(const SerialState&, const SerialState&) = default;
};

namespace detail {

/// The number of received bytes at which data is available, according to FCR: the PC16550D's levels, or the
/// TL16C750's in its 64-byte mode; 1 with the FIFOs off.
[[nodiscard]] constexpr std::uint8_t receive_trigger_level(uart16550::FifoControl control) noexcept {
    using uart16550::FifoControl;
    constexpr std::uint8_t levels[2][4] = {{1, 4, 8, 14}, {1, 16, 32, 56}};
    return control[FifoControl::enable]
               ? levels[control[FifoControl::fifo_64] ? 1 : 0][control[FifoControl::receiver_trigger]]
               : std::uint8_t{1};
}

}  // namespace detail

/// Checks whether a `Serial` can be in this state. The bytes beyond the counts have no meaning. The error
/// names the first field whose value no device can have together with the others.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const SerialState& state) {
    using namespace uart16550;
    const auto only = [](std::uint8_t value, unsigned mask) { return (value & ~mask) == 0; };
    const FifoControl fifo_control(state.fifo_control);
    const bool fifo = fifo_control[FifoControl::enable];
    const bool fifo_64 = fifo_control[FifoControl::fifo_64];
    if (!only(state.interrupt_enable, InterruptEnable::guest_mask())) {
        return std::unexpected(StateError{"interrupt_enable"});
    }
    // FCR is 0 while the FIFOs are off.
    if (!only(state.fifo_control, FifoControl::guest_mask() | FifoControl::fifo_64.mask) ||
        (!fifo && state.fifo_control != 0) || (fifo_64 && !state.fifo_64_allowed)) {
        return std::unexpected(StateError{"fifo_control"});
    }
    const unsigned flow_control = state.fifo_64_allowed ? ModemControl::auto_flow_control.mask : 0U;
    if (!only(state.modem_control, ModemControl::guest_mask() | flow_control)) {
        return std::unexpected(StateError{"modem_control"});
    }
    if (!only(state.line_errors, LineStatus::errors.mask)) {
        return std::unexpected(StateError{"line_errors"});
    }
    if (!only(state.modem_inputs, ModemStatus::lines.mask)) {
        return std::unexpected(StateError{"modem_inputs"});
    }
    if (!only(state.modem_deltas, ModemStatus::deltas.mask)) {
        return std::unexpected(StateError{"modem_deltas"});
    }
    if (state.transmit_policy > TransmitPolicy::drop_and_count) {
        return std::unexpected(StateError{"transmit_policy"});
    }
    if (state.receive_timeout > ReceiveTimeout::immediate) {
        return std::unexpected(StateError{"receive_timeout"});
    }
    if (state.interrupt_gate > InterruptGate::none) {
        return std::unexpected(StateError{"interrupt_gate"});
    }
    if (state.receive_count > SerialState::fifo_size) {
        return std::unexpected(StateError{"receive_count"});
    }
    if (state.transmit_count > (fifo ? SerialState::fifo_size : 1U) ||
        (state.transmit_count != 0 && state.transmit_policy == TransmitPolicy::drop_and_count)) {
        return std::unexpected(StateError{"transmit_count"});
    }
    if (state.thr_empty_pending && state.transmit_count != 0) {
        return std::unexpected(StateError{"thr_empty_pending"});
    }
    if (state.character_timeout && (!fifo || state.receive_count == 0)) {
        return std::unexpected(StateError{"character_timeout"});
    }
    // Errors of absent bytes, or of the oldest byte, whose errors are in LSR already.
    const std::uint64_t held =
        state.receive_count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << state.receive_count) - 1;
    const std::uint64_t impossible = ~(held & ~std::uint64_t{1});
    if ((state.receive_parity_errors & impossible) != 0) {
        return std::unexpected(StateError{"receive_parity_errors"});
    }
    if ((state.receive_framing_errors & impossible) != 0) {
        return std::unexpected(StateError{"receive_framing_errors"});
    }
    if ((state.receive_breaks & impossible) != 0) {
        return std::unexpected(StateError{"receive_breaks"});
    }
    const ModemControl modem_control(state.modem_control);
    const bool auto_rts =
        modem_control[ModemControl::auto_flow_control] && modem_control[ModemControl::request_to_send];
    if (state.auto_rts_held
            ? !auto_rts || state.receive_count == 0
            : auto_rts && state.receive_count >= detail::receive_trigger_level(fifo_control)) {
        return std::unexpected(StateError{"auto_rts_held"});
    }
    return {};
}

}  // namespace vmsuperio::inline v0_2
