// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/detail/config.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_state.hpp>
#include <vmsuperio/uart/fifo.hpp>

namespace vmsuperio::detail {

/// The part of `Serial` that knows no world outside: registers, FIFOs, and what follows from them. Its public
/// members are part of `Serial`.
class SerialRegisters {
public:
    /// The device answers at offsets 0 to 7.
    static constexpr std::size_t register_count = uart16550::offset::count;
    static constexpr std::size_t receive_fifo_size = SerialReceiveFifo::capacity;
    /// The oscillator of a PC's UART, in Hz: the divisor 1 gives 115200 baud.
    static constexpr std::uint64_t clock_frequency = 1'843'200;

    /// What the guest would read at `offset`, with no side effect: for debuggers and tests.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const {
        using namespace uart16550;
        switch (offset) {
            case offset::receiver_buffer:
                return divisor_latch_access() ? divisor_low_ : receiver_buffer();
            case offset::interrupt_enable:
                return divisor_latch_access() ? divisor_high_ : interrupt_enable_.value();
            case offset::interrupt_identification:
                return interrupt_identification(highest_interrupt());
            case offset::line_control:
                return line_control_.value();
            case offset::modem_control:
                return modem_control_.value();
            case offset::line_status:
                return line_status();
            case offset::modem_status:
                return modem_status();
            case offset::scratch:
                return scratch_.value();
            default:
                return 0;
        }
    }

    /// How many bytes the receive FIFO has room for.
    [[nodiscard]] constexpr std::size_t fifo_capacity() const noexcept { return receive_.room(); }
    /// How many bytes the guest may send before one is lost, should the writer take nothing.
    [[nodiscard]] constexpr std::size_t transmit_capacity() const noexcept {
        const std::size_t depth = transmit_depth();
        return depth > transmit_.size() ? depth - transmit_.size() : 0;
    }
    /// Whether bytes wait for the writer, so that `resume_transmit()` has something to do.
    [[nodiscard]] constexpr bool transmit_pending() const noexcept { return !transmit_.empty(); }

    /// Whether `character_timeout()` would do anything.
    [[nodiscard]] constexpr bool character_timeout_armed() const noexcept {
        return fifo_enabled() && !receive_.empty() && !character_timeout_ &&
               receive_timeout_ == ReceiveTimeout::manual;
    }
    /// Changes whenever a byte arrives or is read, which starts the timeout anew.
    [[nodiscard]] constexpr std::uint32_t receive_activity() const noexcept { return receive_.position(); }
    /// Four character times, from LCR and the divisor. The divisor 0, which has no meaning, counts as 1.
    [[nodiscard]] constexpr std::chrono::nanoseconds character_timeout_length() const noexcept {
        using uart16550::LineControl;
        const std::uint64_t word = 5U + line_control_[LineControl::word_length];
        // Half bits: with 5 data bits the longer stop is 1.5.
        const std::uint64_t stop = !line_control_[LineControl::stop_bits] ? 2 : (word == 5 ? 3 : 4);
        const std::uint64_t half_bits =
            (2 * (1 + word + (line_control_[LineControl::parity_enable] ? 1 : 0))) + stop;
        const std::uint64_t clocks_per_bit = divisor() == 0 ? 1U : divisor();
        // 16 clocks a bit, 8 a half bit; four characters.
        return std::chrono::nanoseconds(4 * half_bits * 8 * clocks_per_bit * 1'000'000'000 / clock_frequency);
    }

    /// DTR, RTS, OUT1 and OUT2 as the outside sees them: in loopback all are off, and automatic flow control
    /// (TL16C750) takes RTS back while the receive FIFO is at its trigger level.
    [[nodiscard]] constexpr uart16550::ModemControl modem_outputs() const noexcept {
        using uart16550::ModemControl;
        if (modem_control_[ModemControl::loopback]) {
            return ModemControl();
        }
        ModemControl outputs = modem_control_;
        outputs.clear(ModemControl::auto_flow_control);
        if (auto_rts_held_) {
            outputs.clear(ModemControl::request_to_send);
        }
        return outputs;
    }

    [[nodiscard]] constexpr TransmitPolicy transmit_policy() const noexcept { return transmit_policy_; }
    [[nodiscard]] constexpr ReceiveTimeout receive_timeout() const noexcept { return receive_timeout_; }
    [[nodiscard]] constexpr InterruptGate interrupt_gate() const noexcept { return interrupt_gate_; }
    [[nodiscard]] constexpr std::uint16_t divisor() const noexcept {
        return static_cast<std::uint16_t>((static_cast<unsigned>(divisor_high_) << 8U) | divisor_low_);
    }
    [[nodiscard]] constexpr bool is_64_byte_fifo_allowed() const noexcept { return fifo_64_allowed_; }

    /// All that the device remembers. It may be taken at any time between two calls.
    [[nodiscard]] constexpr SerialState state() const {
        SerialState state;
        state.interrupt_enable = interrupt_enable_.value();
        state.fifo_control = fifo_control_.value();
        state.line_control = line_control_.value();
        state.modem_control = modem_control_.value();
        state.scratch = scratch_.value();
        state.divisor_low = divisor_low_;
        state.divisor_high = divisor_high_;
        state.line_errors = line_errors_;
        state.modem_inputs = modem_inputs_;
        state.modem_deltas = modem_deltas_;
        state.thr_empty_pending = thr_empty_pending_;
        state.character_timeout = character_timeout_;
        receive_.save(state.receive_count, state.receive_data, state.receive_parity_errors,
                      state.receive_framing_errors, state.receive_breaks);
        transmit_.save(state.transmit_count, state.transmit_data);
        state.fifo_64_allowed = fifo_64_allowed_;
        state.transmit_policy = transmit_policy_;
        state.receive_timeout = receive_timeout_;
        state.interrupt_gate = interrupt_gate_;
        state.auto_rts_held = auto_rts_held_;
        return state;
    }

protected:
    // The sources of interrupts, each where IER has its enable bit.
    static constexpr std::uint8_t received_data_source = uart16550::InterruptEnable::received_data.mask;
    static constexpr std::uint8_t thr_empty_source = uart16550::InterruptEnable::thr_empty.mask;
    static constexpr std::uint8_t line_status_source = uart16550::InterruptEnable::line_status.mask;
    static constexpr std::uint8_t modem_status_source = uart16550::InterruptEnable::modem_status.mask;

    SerialRegisters() = default;

    [[nodiscard]] constexpr bool divisor_latch_access() const noexcept {
        return line_control_[uart16550::LineControl::divisor_latch_access];
    }
    [[nodiscard]] constexpr bool fifo_enabled() const noexcept {
        return fifo_control_[uart16550::FifoControl::enable];
    }
    // Without FIFOs there is the holding register alone.
    [[nodiscard]] constexpr std::size_t transmit_depth() const noexcept {
        return !fifo_enabled() ? 1 : fifo_control_[uart16550::FifoControl::fifo_64] ? 64 : 16;
    }
    [[nodiscard]] constexpr bool looped() const noexcept {
        return modem_control_[uart16550::ModemControl::loopback];
    }

    // --- The TL16C750's automatic flow control (its data sheet, "Autoflow control").

    [[nodiscard]] constexpr bool auto_flow_control() const noexcept {
        return modem_control_[uart16550::ModemControl::auto_flow_control];
    }
    // Auto-CTS: the other side is not ready. In loopback there is no other side.
    [[nodiscard]] constexpr bool transmitter_stopped() const noexcept {
        return auto_flow_control() && !looped() &&
               (modem_inputs_ & uart16550::ModemStatus::clear_to_send.mask) == 0;
    }
    // Auto-RTS: off from the trigger level on until the FIFO is empty.
    constexpr void update_auto_rts() noexcept {
        const bool automatic =
            auto_flow_control() && modem_control_[uart16550::ModemControl::request_to_send];
        auto_rts_held_ =
            automatic && (receive_.size() >= receive_trigger_ || (auto_rts_held_ && !receive_.empty()));
    }

    // --- Interrupts: all follows from the registers, here and nowhere else.

    // The enabled sources that want an interrupt.
    [[nodiscard]] constexpr std::uint8_t pending_sources() const noexcept {
        const unsigned received =
            receive_.size() >= receive_interrupt_level_ || character_timeout_ ? received_data_source : 0U;
        const unsigned thr_empty = thr_empty_pending_ ? thr_empty_source : 0U;
        const unsigned line_status = line_errors_ != 0 ? line_status_source : 0U;
        const unsigned modem_status = modem_deltas_ != 0 ? modem_status_source : 0U;
        return static_cast<std::uint8_t>((received | thr_empty | line_status | modem_status) &
                                         interrupt_enable_.value());
    }

    // PC16550D table IV.
    [[nodiscard]] constexpr uart16550::InterruptId highest_interrupt() const noexcept {
        using uart16550::InterruptId;
        const std::uint8_t pending = pending_sources();
        if (pending == 0) [[likely]] {
            return InterruptId::none;
        }
        if ((pending & line_status_source) != 0) {
            return InterruptId::line_status;
        }
        if ((pending & received_data_source) != 0) {
            return receive_.size() >= receive_trigger_ ? InterruptId::received_data
                                                       : InterruptId::character_timeout;
        }
        return (pending & thr_empty_source) != 0 ? InterruptId::thr_empty : InterruptId::modem_status;
    }

    // --- What the registers read as

    // An empty FIFO repeats nothing: 0.
    [[nodiscard]] constexpr std::uint8_t receiver_buffer() const noexcept {
        return receive_.empty() ? std::uint8_t{0} : receive_.front();
    }
    [[nodiscard]] constexpr std::uint8_t interrupt_identification(uart16550::InterruptId id) const noexcept {
        using uart16550::FifoControl;
        const unsigned fifo = fifo_enabled() ? 0xC0U : 0U;
        const unsigned fifo_64 = fifo_control_[FifoControl::fifo_64] ? 0x20U : 0U;
        return static_cast<std::uint8_t>(fifo | fifo_64 | static_cast<unsigned>(id));
    }
    [[nodiscard]] constexpr std::uint8_t line_status() const noexcept {
        using uart16550::LineStatus;
        const unsigned ready = receive_.empty() ? 0U : LineStatus::data_ready.mask;
        const unsigned transmitter =
            transmit_.empty() ? unsigned{LineStatus::thr_empty.mask} | LineStatus::transmitter_empty.mask
                              : 0U;
        const unsigned status = ready | transmitter | line_errors_;
        if (((line_errors_ & LineStatus::character_errors.mask) != 0 || receive_.has_errors()) &&
            fifo_enabled()) [[unlikely]] {
            return static_cast<std::uint8_t>(status | LineStatus::fifo_error.mask);
        }
        return static_cast<std::uint8_t>(status);
    }

    // MSR bits 7:4. In loopback the four outputs are connected to the inputs (PC16550D 8.7, bit 4).
    [[nodiscard]] constexpr std::uint8_t modem_lines() const noexcept {
        using uart16550::ModemControl;
        using uart16550::ModemStatus;
        if (!modem_control_[ModemControl::loopback]) {
            return modem_inputs_;
        }
        const auto wire = [this](auto output, auto input) -> unsigned {
            return modem_control_[output] ? input.mask : 0U;
        };
        return static_cast<std::uint8_t>(
            wire(ModemControl::request_to_send, ModemStatus::clear_to_send) |
            wire(ModemControl::data_terminal_ready, ModemStatus::data_set_ready) |
            wire(ModemControl::out1, ModemStatus::ring_indicator) |
            wire(ModemControl::out2, ModemStatus::data_carrier_detect));
    }
    [[nodiscard]] constexpr std::uint8_t modem_status() const noexcept {
        return static_cast<std::uint8_t>(modem_lines() | modem_deltas_);
    }

    // --- What writing them does here

    constexpr void set_interrupt_enable(std::uint8_t value) noexcept {
        using uart16550::InterruptEnable;
        const bool was_enabled = interrupt_enable_[InterruptEnable::thr_empty];
        interrupt_enable_.guest_write(value);
        // Enabling THRE while the transmitter is empty interrupts at once; enabling it again does not.
        if (!was_enabled && interrupt_enable_[InterruptEnable::thr_empty] && transmit_.empty()) {
            thr_empty_pending_ = true;
        }
    }

    struct FifoReset {
        bool happened{false};
        std::size_t received_bytes_dropped{0};
        std::size_t sent_bytes_dropped{0};
    };
    constexpr FifoReset set_fifo_control(std::uint8_t value) noexcept {
        using uart16550::FifoControl;
        const FifoControl written(value);
        const bool enable = written[FifoControl::enable];
        const bool toggled = enable != fifo_enabled();
        const bool fifo_64 = divisor_latch_access() ? fifo_64_allowed_ && written[FifoControl::fifo_64]
                                                    : fifo_control_[FifoControl::fifo_64];
        // The other bits are programmed only together with bit 0 (PC16550D 8.4).
        fifo_control_ = FifoControl();
        if (enable) {
            fifo_control_.guest_write(value);
            fifo_control_.set(FifoControl::fifo_64, fifo_64);
        }
        update_receive_trigger();
        // To switch the FIFOs on or off clears both.
        FifoReset reset;
        if (toggled || (enable && written[FifoControl::transmitter_reset])) {
            reset.happened = true;
            reset.sent_bytes_dropped = clear_transmitter();
        }
        if (toggled || (enable && written[FifoControl::receiver_reset])) {
            reset.happened = true;
            reset.received_bytes_dropped = receive_.size();
            receive_.clear();
            character_timeout_ = false;
            // The errors shown belong to a byte that is gone; an overrun stays told.
            line_errors_ &= uart16550::LineStatus::overrun_error.mask;
        }
        return reset;
    }

    // Returns how many bytes were waiting.
    constexpr std::size_t clear_transmitter() noexcept {
        const std::size_t waiting = transmit_.size();
        if (waiting != 0) {
            transmit_.clear();
            thr_empty_pending_ = true;
        }
        return waiting;
    }

    constexpr void update_receive_trigger() noexcept {
        receive_trigger_ = receive_trigger_level(fifo_control_);
        // With the immediate timeout any byte interrupts: as "data available" or as the timeout.
        receive_interrupt_level_ =
            receive_timeout_ == ReceiveTimeout::immediate ? std::uint8_t{1} : receive_trigger_;
    }

    constexpr void set_modem_control(std::uint8_t value) noexcept {
        const std::uint8_t before = modem_lines();
        using uart16550::ModemControl;
        const bool automatic = fifo_64_allowed_ && ModemControl(value)[ModemControl::auto_flow_control];
        modem_control_.guest_write(value);
        modem_control_.set(ModemControl::auto_flow_control, automatic);
        note_modem_change(before);
    }
    constexpr void set_modem_inputs(std::uint8_t lines) noexcept {
        const std::uint8_t before = modem_lines();
        modem_inputs_ = lines & uart16550::ModemStatus::lines.mask;
        note_modem_change(before);
    }
    // The deltas: any change of CTS, DSR and DCD; only the end of a ring. With automatic flow control CTS is
    // the transmitter's affair (TL16C750, MSR bit 0).
    constexpr void note_modem_change(std::uint8_t before) noexcept {
        using uart16550::ModemStatus;
        const std::uint8_t after = modem_lines();
        const unsigned changed =
            (static_cast<unsigned>(before) ^ after) & ~unsigned{ModemStatus::ring_indicator.mask};
        const unsigned ring_ended =
            static_cast<unsigned>(before) & ~unsigned{after} & ModemStatus::ring_indicator.mask;
        const unsigned hidden = auto_flow_control() && !looped() ? ModemStatus::clear_to_send.mask : 0U;
        modem_deltas_ |=
            static_cast<std::uint8_t>(((changed & ~hidden) | ring_ended) >> ModemStatus::lines.shift);
    }

    // Loopback: what is sent is received at once (PC16550D 8.7, bit 4). Bytes that waited for the writer
    // when loopback began still go there. Returns how many bytes found no room.
    //
    // With the FIFOs on it holds no more than the chip would: guests count the bytes that fit to tell one
    // chip from another. Linux takes a 16550A that loops 64 bytes back for a U6_16550A, and then sends 64
    // at once into a transmit FIFO of 16 (8250_port.c, size_fifo).
    constexpr std::size_t receive_looped(std::span<const std::uint8_t> bytes) noexcept {
        const std::size_t depth = fifo_enabled() ? transmit_depth() : receive_fifo_size;
        const std::size_t room = depth > receive_.size() ? depth - receive_.size() : 0;
        const std::size_t lost = bytes.size() - receive_.push(bytes.first(smaller(bytes.size(), room)));
        if (lost != 0) {
            line_errors_ |= uart16550::LineStatus::overrun_error.mask;
        }
        thr_empty_pending_ = transmit_.empty();
        return lost;
    }

    // The state must be valid.
    constexpr void restore(const SerialState& state) noexcept {
        interrupt_enable_ = uart16550::InterruptEnable(state.interrupt_enable);
        fifo_control_ = uart16550::FifoControl(state.fifo_control);
        line_control_ = uart16550::LineControl(state.line_control);
        modem_control_ = uart16550::ModemControl(state.modem_control);
        scratch_ = uart16550::Scratch(state.scratch);
        divisor_low_ = state.divisor_low;
        divisor_high_ = state.divisor_high;
        line_errors_ = state.line_errors;
        modem_inputs_ = state.modem_inputs;
        modem_deltas_ = state.modem_deltas;
        thr_empty_pending_ = state.thr_empty_pending;
        character_timeout_ = state.character_timeout;
        receive_.restore(state.receive_count, state.receive_data, state.receive_parity_errors,
                         state.receive_framing_errors, state.receive_breaks);
        transmit_.restore(state.transmit_count, state.transmit_data);
        fifo_64_allowed_ = state.fifo_64_allowed;
        transmit_policy_ = state.transmit_policy;
        receive_timeout_ = state.receive_timeout;
        interrupt_gate_ = state.interrupt_gate;
        auto_rts_held_ = state.auto_rts_held;
        update_receive_trigger();
    }

    detail::SerialReceiveFifo receive_{};
    detail::SerialTransmitFifo transmit_{};
    uart16550::InterruptEnable interrupt_enable_{};
    uart16550::FifoControl fifo_control_{};
    uart16550::LineControl line_control_{0x03};
    uart16550::ModemControl modem_control_{0x08};
    uart16550::Scratch scratch_{};
    std::uint8_t divisor_low_{0x0C};
    std::uint8_t divisor_high_{0x00};
    std::uint8_t line_errors_{0};              // LSR bits 4:1
    std::uint8_t modem_inputs_{0xB0};          // MSR bits 7:4, from outside
    std::uint8_t modem_deltas_{0};             // MSR bits 3:0
    std::uint8_t receive_trigger_{1};          // bytes for "data available"; follows from FCR
    std::uint8_t receive_interrupt_level_{1};  // bytes for any receive interrupt before the timeout
    bool thr_empty_pending_{false};
    bool character_timeout_{false};
    bool fifo_64_allowed_{false};
    bool auto_rts_held_{false};
    TransmitPolicy transmit_policy_{TransmitPolicy::back_pressure};
    ReceiveTimeout receive_timeout_{ReceiveTimeout::immediate};
    InterruptGate interrupt_gate_{InterruptGate::out2};
};

}  // namespace vmsuperio::detail
