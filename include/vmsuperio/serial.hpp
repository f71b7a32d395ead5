// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <system_error>
#include <utility>

#include <vmsuperio/detail/config.hpp>
#include <vmsuperio/detail/serial_fifo.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_error.hpp>
#include <vmsuperio/serial_events.hpp>
#include <vmsuperio/serial_state.hpp>
#include <vmsuperio/trigger.hpp>
#include <vmsuperio/writer.hpp>

namespace vmsuperio {

/// A 16550A UART (PC16550D datasheet) whose receive FIFO holds 64 bytes.
///
/// Models: every register with its masks, reset values and DLAB aliasing; both FIFOs, their resets and the
/// trigger levels; the five interrupts by priority; line errors per byte, break and overrun; modem lines
/// with deltas; loopback of data and modem lines; the character timeout, which the caller drives; on
/// request the 64-byte mode of the TL16C750.
///
/// Not modelled: the time a byte takes (it is sent as soon as the writer takes it), DMA mode, 5 to 7 bit
/// words (bytes pass whole), parity generation. LCR and the divisor only set the timeout's length.
///
/// Deviations: the receive FIFO holds 64 bytes in every mode, so that host input is not lost before the
/// guest enables the FIFOs; looped-back bytes find the room that the chip has. MCR and LCR reset to 0x08 and
/// 0x03, the divisor to 12, the modem lines are on: a guest that sets up nothing can use the port.
///
/// The interrupt is on a PC's wiring: MCR.OUT2 gates the line (not IIR), in loopback too.
///
/// Thread safety: none. One thread at a time, or wrap it (`vmdevice::Locked`).
///
/// Nothing here blocks, throws or allocates, as long as the trigger, the events and the writer do not.
template <Trigger T, SerialEvents E = NoEvents, Writer W = NullWriter>
class Serial {
public:
    using Error = SerialError<typename T::error_type>;
    using trigger_type = T;
    using events_type = E;
    using writer_type = W;

    static constexpr std::size_t receive_fifo_size = detail::SerialReceiveFifo::capacity;
    /// The oscillator of a PC's UART, in Hz: the divisor 1 gives 115200 baud.
    static constexpr std::uint64_t clock_frequency = 1'843'200;

    constexpr Serial(T trigger, E events, W writer)
        : line_(std::move(trigger)), events_(std::move(events)), writer_(std::move(writer)) {}
    constexpr Serial(T trigger, W writer) : Serial(std::move(trigger), E{}, std::move(writer)) {}

    /// A device as it was saved. If an interrupt is due, the trigger is called: an edge that was on its way
    /// when the state was saved is not lost. Errors: `invalid_state`; `trigger` if that call fails.
    [[nodiscard]] static constexpr std::expected<Serial, Error> from_state(const SerialState& state,
                                                                           T trigger, E events, W writer) {
        if (!detail::is_valid(state)) {
            return std::unexpected(Error(SerialErrorKind::invalid_state));
        }
        std::expected<Serial, Error> serial(std::in_place, std::move(trigger), std::move(events),
                                            std::move(writer));
        serial->restore(state);
        if (auto raised = serial->settle(); !raised) {
            return std::unexpected(std::move(raised.error()));
        }
        return serial;
    }

    /// The guest reads the register at `offset`. Above 7 there is none: 0.
    constexpr std::uint8_t read(std::uint8_t offset) {
        using namespace uart16550;
        switch (offset) {
            case offset::receiver_buffer:
                return divisor_latch_access() ? divisor_low_ : read_receiver_buffer();
            case offset::interrupt_identification:
                return read_interrupt_identification();
            case offset::line_status:
                return line_errors_ == 0 ? line_status() : read_line_errors();
            case offset::modem_status:
                return modem_deltas_ == 0 ? modem_lines() : read_modem_deltas();
            default:
                if (offset >= offset::count) {
                    calls().invalid_access();
                }
                return peek(offset);
        }
    }

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

    /// The guest writes the register at `offset`; above 7 there is none. An error tells of the host's side
    /// only, and the guest's access has taken effect all the same.
    constexpr std::expected<void, Error> write(std::uint8_t offset, std::uint8_t value) {
        using namespace uart16550;
        switch (offset) {
            case offset::transmitter_holding:
                if (divisor_latch_access()) [[unlikely]] {
                    divisor_low_ = value;
                    return {};
                }
                return transmit_byte(value);
            case offset::interrupt_enable:
                if (divisor_latch_access()) {
                    divisor_high_ = value;
                    return {};
                }
                return write_interrupt_enable(value);
            case offset::fifo_control:
                return write_fifo_control(value);
            case offset::line_control:
                write_line_control(value);
                return {};
            case offset::modem_control:
                return write_modem_control(value);
            case offset::line_status:
            case offset::modem_status:
                return {};
            case offset::scratch:
                scratch_.guest_write(value);
                return {};
            default:
                calls().invalid_access();
                return {};
        }
    }

    /// As if each byte had been written to offset 0, with as few calls of the writer and the trigger as
    /// possible: for REP OUTSB and coalesced port I/O. What neither the writer nor the transmit FIFO takes
    /// is lost and counted, as with any guest that does not look at LSR.
    constexpr std::expected<void, Error> write_data(std::span<const std::uint8_t> bytes) {
        if (bytes.empty()) {
            return {};
        }
        if (divisor_latch_access()) {
            divisor_low_ = bytes.back();
            return {};
        }
        if (modem_control_[uart16550::ModemControl::loopback]) {
            return loop_back(bytes);
        }
        return transmit(bytes);
    }

    /// Offers input to the guest, and returns how many bytes fitted. Empty input: 0. In loopback the line
    /// is disconnected: 0. Errors: `full_fifo`; `trigger`, the bytes being taken all the same.
    constexpr std::expected<std::size_t, Error> enqueue_raw_bytes(std::span<const std::uint8_t> bytes) {
        if (bytes.empty() || modem_control_[uart16550::ModemControl::loopback]) {
            return 0;
        }
        const std::size_t count = receive_.push(bytes);
        if (count == 0) {
            return std::unexpected(Error(SerialErrorKind::full_fifo));
        }
        if (auto settled = settle(); !settled) {
            return std::unexpected(std::move(settled.error()));
        }
        return count;
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

    /// Offers the waiting bytes to the writer again. Errors: `write`, `trigger`.
    constexpr std::expected<void, Error> resume_transmit() {
        if (transmit_.empty()) {
            return {};
        }
        auto flushed = flush();
        auto settled = settle();
        return flushed ? settled : flushed;
    }

    /// The host sends a break: a 0x00 byte with LSR.BI. In loopback nothing arrives.
    /// Errors: `full_fifo`; `trigger`.
    constexpr std::expected<void, Error> send_break() {
        return receive_with_errors(0x00, uart16550::LineStatus(uart16550::LineStatus::break_interrupt.mask));
    }

    /// A byte arrives with any of PE, FE and BI, for tests and fault injection. Errors as `send_break`.
    constexpr std::expected<void, Error> receive_with_errors(std::uint8_t byte,
                                                             uart16550::LineStatus errors) {
        using uart16550::LineStatus;
        if (modem_control_[uart16550::ModemControl::loopback]) {
            return {};
        }
        if (receive_.room() == 0) {
            return std::unexpected(Error(SerialErrorKind::full_fifo));
        }
        receive_.push(byte, static_cast<std::uint8_t>(errors.value() & LineStatus::character_errors.mask));
        if (receive_.size() == 1) {
            line_errors_ |= receive_.take_front_errors();
        }
        if (errors[LineStatus::break_interrupt]) {
            calls().break_received();
        }
        return settle();
    }

    /// The line was idle for four character times (PC16550D, "FIFO interrupt mode operation"): with the
    /// FIFOs on and bytes waiting, the character timeout interrupt becomes pending. For
    /// `ReceiveTimeout::manual`; with the other policy there is nothing left to do.
    constexpr std::expected<void, Error> character_timeout() {
        if (!character_timeout_armed()) {
            return {};
        }
        character_timeout_ = true;
        return settle();
    }
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
        const std::uint64_t divisor =
            std::max(1U, (static_cast<unsigned>(divisor_high_) << 8U) | divisor_low_);
        // 16 clocks a bit, 8 a half bit; four characters.
        return std::chrono::nanoseconds(4 * half_bits * 8 * divisor * 1'000'000'000 / clock_frequency);
    }

    /// The levels of CTS, DSR, RI and DCD, as bits 7:4 of MSR; other bits are ignored. While the guest is
    /// in loopback it sees its own outputs instead.
    constexpr std::expected<void, Error> set_modem_lines(uart16550::ModemStatus lines) {
        const std::uint8_t before = modem_lines();
        modem_inputs_ = lines.value() & uart16550::ModemStatus::lines.mask;
        note_modem_change(before);
        return settle();
    }
    constexpr std::expected<void, Error> set_clear_to_send(bool on) {
        return set_modem_line(uart16550::ModemStatus::clear_to_send.mask, on);
    }
    constexpr std::expected<void, Error> set_data_set_ready(bool on) {
        return set_modem_line(uart16550::ModemStatus::data_set_ready.mask, on);
    }
    constexpr std::expected<void, Error> set_ring_indicator(bool on) {
        return set_modem_line(uart16550::ModemStatus::ring_indicator.mask, on);
    }
    constexpr std::expected<void, Error> set_data_carrier_detect(bool on) {
        return set_modem_line(uart16550::ModemStatus::data_carrier_detect.mask, on);
    }
    /// DTR, RTS, OUT1 and OUT2 as the outside sees them: in loopback all are off.
    [[nodiscard]] constexpr uart16550::ModemControl modem_outputs() const noexcept {
        using uart16550::ModemControl;
        return ModemControl(modem_control_[ModemControl::loopback] ? std::uint8_t{0}
                                                                   : modem_control_.value());
    }

    /// From now on; bytes that wait are dropped and counted when the policy no longer lets them wait.
    constexpr std::expected<void, Error> set_transmit_policy(TransmitPolicy policy) {
        transmit_policy_ = policy;
        if (policy == TransmitPolicy::drop_and_count && !transmit_.empty()) {
            lose_waiting();
        }
        return settle();
    }
    [[nodiscard]] constexpr TransmitPolicy transmit_policy() const noexcept { return transmit_policy_; }
    constexpr std::expected<void, Error> set_receive_timeout(ReceiveTimeout policy) {
        receive_timeout_ = policy;
        update_receive_trigger();
        return settle();
    }
    [[nodiscard]] constexpr ReceiveTimeout receive_timeout() const noexcept { return receive_timeout_; }
    /// Whether the guest may switch on the 64-byte mode (FCR bit 5 while DLAB=1), as on a TL16C750. Off by
    /// default: then it is a plain 16550A.
    constexpr std::expected<void, Error> allow_64_byte_fifo(bool allow) {
        fifo_64_allowed_ = allow;
        if (!allow) {
            fifo_control_.clear(uart16550::FifoControl::fifo_64);
            update_receive_trigger();
        }
        return settle();
    }
    [[nodiscard]] constexpr bool is_64_byte_fifo_allowed() const noexcept { return fifo_64_allowed_; }

    /// A hardware reset. What the host has set stays: policies and modem lines. Bytes in the FIFOs are gone.
    constexpr std::expected<void, Error> reset() {
        const bool had_input = !receive_.empty();
        const bool looped = modem_control_[uart16550::ModemControl::loopback];
        SerialState state;
        state.modem_inputs = modem_inputs_;
        state.fifo_64_allowed = fifo_64_allowed_;
        state.transmit_policy = transmit_policy_;
        state.receive_timeout = receive_timeout_;
        restore(state);
        if (had_input) {
            events_.in_buffer_empty();
        }
        if (looped) {
            calls().input_resumed();
        }
        return settle();
    }

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
        return state;
    }

    /// Whether the interrupt line is high.
    [[nodiscard]] constexpr bool interrupt_line() const noexcept { return line_.level(); }

    [[nodiscard]] constexpr const W& writer() const noexcept { return writer_; }
    [[nodiscard]] constexpr W& writer() noexcept { return writer_; }
    [[nodiscard]] constexpr W into_writer() && { return std::move(writer_); }
    [[nodiscard]] constexpr const T& interrupt_evt() const noexcept { return line_.trigger(); }
    [[nodiscard]] constexpr T& interrupt_evt() noexcept { return line_.trigger(); }
    [[nodiscard]] constexpr const E& events() const noexcept { return events_; }
    [[nodiscard]] constexpr E& events() noexcept { return events_; }

private:
    // The sources of interrupts, each where IER has its enable bit.
    static constexpr std::uint8_t received_data_source = uart16550::InterruptEnable::received_data.mask;
    static constexpr std::uint8_t thr_empty_source = uart16550::InterruptEnable::thr_empty.mask;
    static constexpr std::uint8_t line_status_source = uart16550::InterruptEnable::line_status.mask;
    static constexpr std::uint8_t modem_status_source = uart16550::InterruptEnable::modem_status.mask;

    [[nodiscard]] constexpr detail::SerialEventCaller<E> calls() noexcept { return {events_}; }
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

    // Brings the line in accord with the registers; every change of them ends here. `anew`: sources that
    // fell and came up again within this access, so that the line did the same unless another held it.
    constexpr std::expected<void, Error> settle(std::uint8_t anew = 0) {
        if (is_quiet()) [[likely]] {
            return {};
        }
        return move_line(anew);
    }
    constexpr void settle_in_read() {
        if (!is_quiet()) [[unlikely]] {
            move_line_in_read(0);
        }
    }
    // The line is low and stays so. The middle test is the last one's, made cheap for guests that poll.
    [[nodiscard]] constexpr bool is_quiet() const noexcept {
        return !line_.level() && (interrupt_enable_.value() == 0 || pending_sources() == 0);
    }
    // Out of line, to keep the common path short.
    [[gnu::noinline]] constexpr std::expected<void, Error> move_line(std::uint8_t anew) {
        const std::uint8_t pending = pending_sources();
        const bool level = pending != 0 && modem_control_[uart16550::ModemControl::out2];
        const bool pulse = anew != 0 && (pending & static_cast<std::uint8_t>(~anew)) == 0;
        if (level && (pulse || !line_.level())) {
            calls().interrupt_raised();
        }
        if (auto told = line_.update(level, pulse); !told) [[unlikely]] {
            return std::unexpected(Error::from_trigger(std::move(told.error())));
        }
        return {};
    }
    [[gnu::noinline]] constexpr void move_line_in_read(std::uint8_t anew) {
        if (!move_line(anew)) [[unlikely]] {
            calls().trigger_failed();
        }
    }

    // --- Reads

    // An empty FIFO repeats nothing: 0.
    [[nodiscard]] constexpr std::uint8_t receiver_buffer() const noexcept {
        return receive_.empty() ? std::uint8_t{0} : receive_.front();
    }

    constexpr std::uint8_t read_receiver_buffer() {
        if (receive_.empty()) [[unlikely]] {
            return 0;
        }
        const std::uint8_t byte = receive_.pop();
        if (receive_.has_errors()) [[unlikely]] {
            line_errors_ |= receive_.take_front_errors();
        }
        character_timeout_ = false;
        events_.buffer_read();
        if (receive_.empty()) {
            events_.in_buffer_empty();
        }
        if (!is_quiet()) {
            // In FIFO mode "data available" stays up until the level falls below the trigger. Otherwise this
            // read took it down, and it comes up again with the next byte.
            const bool held = fifo_enabled() && receive_.size() >= receive_trigger_;
            move_line_in_read(held ? std::uint8_t{0} : received_data_source);
        }
        return byte;
    }

    [[nodiscard]] constexpr std::uint8_t interrupt_identification(uart16550::InterruptId id) const noexcept {
        using uart16550::FifoControl;
        const unsigned fifo = fifo_enabled() ? 0xC0U : 0U;
        const unsigned fifo_64 = fifo_control_[FifoControl::fifo_64] ? 0x20U : 0U;
        return static_cast<std::uint8_t>(fifo | fifo_64 | static_cast<unsigned>(id));
    }

    constexpr std::uint8_t read_interrupt_identification() {
        const uart16550::InterruptId id = highest_interrupt();
        // Reading IIR acknowledges THRE, and only where it is what IIR reported.
        if (id == uart16550::InterruptId::thr_empty) {
            thr_empty_pending_ = false;
            settle_in_read();
        }
        return interrupt_identification(id);
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

    [[gnu::noinline]] constexpr std::uint8_t read_line_errors() {
        const std::uint8_t status = line_status();
        line_errors_ = 0;
        settle_in_read();
        return status;
    }
    [[gnu::noinline]] constexpr std::uint8_t read_modem_deltas() {
        const std::uint8_t status = modem_status();
        modem_deltas_ = 0;
        settle_in_read();
        return status;
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

    // --- Writes

    constexpr std::expected<void, Error> write_interrupt_enable(std::uint8_t value) {
        using uart16550::InterruptEnable;
        const bool was_enabled = interrupt_enable_[InterruptEnable::thr_empty];
        interrupt_enable_.guest_write(value);
        // Enabling THRE while the transmitter is empty interrupts at once; enabling it again does not.
        if (!was_enabled && interrupt_enable_[InterruptEnable::thr_empty] && transmit_.empty()) {
            thr_empty_pending_ = true;
        }
        return settle();
    }

    constexpr std::expected<void, Error> write_fifo_control(std::uint8_t value) {
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
        const bool reset_receiver = toggled || (enable && written[FifoControl::receiver_reset]);
        const bool reset_transmitter = toggled || (enable && written[FifoControl::transmitter_reset]);
        if (!reset_receiver && !reset_transmitter) {
            return settle();
        }
        calls().fifo_reset();
        if (reset_transmitter && !transmit_.empty()) {
            calls().dropped_bytes(transmit_.size());
            transmit_.clear();
            thr_empty_pending_ = true;
        }
        if (reset_receiver) {
            reset_receive_fifo();
        }
        return settle();
    }

    constexpr void reset_receive_fifo() {
        const std::size_t dropped = receive_.size();
        receive_.clear();
        character_timeout_ = false;
        // The errors shown belong to a byte that is gone; an overrun stays told.
        line_errors_ &= uart16550::LineStatus::overrun_error.mask;
        if (dropped != 0) {
            calls().dropped_bytes(dropped);
            events_.in_buffer_empty();
        }
    }

    constexpr void update_receive_trigger() noexcept {
        using uart16550::FifoControl;
        constexpr std::uint8_t levels[2][4] = {{1, 4, 8, 14}, {1, 16, 32, 56}};
        receive_trigger_ = fifo_enabled() ? levels[fifo_control_[FifoControl::fifo_64] ? 1 : 0]
                                                  [fifo_control_[FifoControl::receiver_trigger]]
                                          : std::uint8_t{1};
        // With the immediate timeout any byte interrupts: as "data available" or as the timeout.
        receive_interrupt_level_ =
            receive_timeout_ == ReceiveTimeout::immediate ? std::uint8_t{1} : receive_trigger_;
    }

    constexpr void write_line_control(std::uint8_t value) {
        using uart16550::LineControl;
        const bool was_break = line_control_[LineControl::set_break];
        line_control_.guest_write(value);
        if (const bool is_break = line_control_[LineControl::set_break]; is_break != was_break) {
            calls().break_control(is_break);
        }
    }

    constexpr std::expected<void, Error> write_modem_control(std::uint8_t value) {
        using uart16550::ModemControl;
        const std::uint8_t before = modem_lines();
        const bool looped = modem_control_[ModemControl::loopback];
        modem_control_.guest_write(value);
        note_modem_change(before);
        if (looped && !modem_control_[ModemControl::loopback]) {
            calls().input_resumed();
        }
        return settle();
    }

    constexpr std::expected<void, Error> set_modem_line(std::uint8_t mask, bool on) {
        return set_modem_lines(uart16550::ModemStatus(
            static_cast<std::uint8_t>(on ? modem_inputs_ | mask : modem_inputs_ & ~unsigned{mask})));
    }
    // The deltas: any change of CTS, DSR and DCD; only the end of a ring.
    constexpr void note_modem_change(std::uint8_t before) noexcept {
        using uart16550::ModemStatus;
        const std::uint8_t after = modem_lines();
        const unsigned changed =
            (static_cast<unsigned>(before) ^ after) & ~unsigned{ModemStatus::ring_indicator.mask};
        const unsigned ring_ended =
            static_cast<unsigned>(before) & ~unsigned{after} & ModemStatus::ring_indicator.mask;
        modem_deltas_ |= static_cast<std::uint8_t>((changed | ring_ended) >> ModemStatus::lines.shift);
    }

    // --- Transmission

    constexpr std::expected<void, Error> transmit_byte(std::uint8_t value) {
        if (modem_control_[uart16550::ModemControl::loopback]) [[unlikely]] {
            return loop_back({&value, 1});
        }
        if (transmit_.empty()) [[likely]] {
            const WriteResult taken = writer_.write(std::span<const std::uint8_t>(&value, 1));
            if (taken.has_value() && *taken != 0) [[likely]] {
                events_.out_byte();
                thr_empty_pending_ = true;
                return settle(thr_empty_source);
            }
            return keep_or_lose({&value, 1}, taken);
        }
        return transmit({&value, 1});
    }

    [[gnu::noinline]] constexpr std::expected<void, Error> transmit(std::span<const std::uint8_t> bytes) {
        if (auto flushed = flush(); !flushed) {
            calls().tx_lost_bytes(bytes.size());
            static_cast<void>(settle(thr_empty_source));
            return flushed;
        }
        WriteResult taken{0};
        while (transmit_.empty() && !bytes.empty()) {
            taken = writer_.write(bytes);
            if (!taken || *taken == 0) {
                break;
            }
            const std::size_t count = std::min(*taken, bytes.size());
            calls().out_bytes(count);
            bytes = bytes.subspan(count);
        }
        return keep_or_lose(bytes, taken);
    }

    // After the writer took no more of `bytes`: what becomes of them, and of the THRE interrupt.
    [[gnu::noinline]] constexpr std::expected<void, Error> keep_or_lose(std::span<const std::uint8_t> bytes,
                                                                        const WriteResult& taken) {
        std::size_t kept = 0;
        if (taken && transmit_policy_ == TransmitPolicy::back_pressure) {
            kept = transmit_.push(bytes, transmit_depth());
        }
        calls().tx_lost_bytes(bytes.size() - kept);
        thr_empty_pending_ = transmit_.empty();
        auto settled = settle(thr_empty_source);
        if (!taken) {
            return std::unexpected(Error::from_writer(taken.error()));
        }
        return settled;
    }

    // Offers what waits until nothing does or the writer is full. Does not settle.
    constexpr std::expected<void, Error> flush() {
        while (!transmit_.empty()) {
            const WriteResult taken = writer_.write(transmit_.bytes());
            if (!taken) {
                lose_waiting();
                return std::unexpected(Error::from_writer(taken.error()));
            }
            if (*taken == 0) {
                return {};
            }
            const std::size_t count = std::min(*taken, transmit_.size());
            calls().out_bytes(count);
            transmit_.drop_front(count);
            thr_empty_pending_ = transmit_.empty();
        }
        return {};
    }

    constexpr void lose_waiting() {
        calls().tx_lost_bytes(transmit_.size());
        transmit_.clear();
        thr_empty_pending_ = true;
    }

    // Loopback: what is sent is received at once (PC16550D 8.7, bit 4). Bytes that waited for the writer
    // when loopback began still go there.
    //
    // With the FIFOs on it holds no more than the chip would: guests count the bytes that fit to tell one
    // chip from another. Linux takes a 16550A that loops 64 bytes back for a U6_16550A, and then sends 64
    // at once into a transmit FIFO of 16 (8250_port.c, size_fifo).
    [[gnu::noinline]] constexpr std::expected<void, Error> loop_back(std::span<const std::uint8_t> bytes) {
        const std::size_t depth = fifo_enabled() ? transmit_depth() : receive_fifo_size;
        const std::size_t room = depth > receive_.size() ? depth - receive_.size() : 0;
        const std::size_t count = receive_.push(bytes.first(std::min(bytes.size(), room)));
        for (std::size_t lost = bytes.size() - count; lost != 0; --lost) {
            line_errors_ |= uart16550::LineStatus::overrun_error.mask;
            calls().overrun();
        }
        thr_empty_pending_ = transmit_.empty();
        return settle(thr_empty_source);
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
        update_receive_trigger();
    }

    detail::InterruptLine<T> line_;
    [[no_unique_address]] E events_;
    [[no_unique_address]] W writer_;
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
    TransmitPolicy transmit_policy_{TransmitPolicy::back_pressure};
    ReceiveTimeout receive_timeout_{ReceiveTimeout::manual};
};

template <Trigger T, Writer W>
Serial(T, W) -> Serial<T, NoEvents, W>;
template <Trigger T, SerialEvents E, Writer W>
Serial(T, E, W) -> Serial<T, E, W>;

}  // namespace vmsuperio
