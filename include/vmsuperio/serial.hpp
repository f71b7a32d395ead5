// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <system_error>
#include <utility>

#include <vmsuperio/detail/config.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_error.hpp>
#include <vmsuperio/serial_events.hpp>
#include <vmsuperio/serial_state.hpp>
#include <vmsuperio/trigger.hpp>
#include <vmsuperio/uart/serial_core.hpp>
#include <vmsuperio/writer.hpp>

namespace vmsuperio {

/// A 16550A UART (PC16550D datasheet) whose receive FIFO holds 64 bytes.
///
/// Models: every register with its masks, reset values and DLAB aliasing; both FIFOs, their resets and the
/// trigger levels; the five interrupts by priority; line errors per byte, break and overrun; modem lines
/// with deltas; loopback of data and modem lines; the character timeout, at once or driven by the caller; on
/// request a TL16C750 with its 64-byte mode and automatic flow control (MCR bit 5).
///
/// Not modelled: the time a byte takes (it is sent as soon as the writer takes it), DMA mode, 5 to 7 bit
/// words (bytes pass whole), parity generation. LCR and the divisor only set the timeout's length.
///
/// Deviations: the receive FIFO holds 64 bytes in every mode, so that host input is not lost before the
/// guest enables the FIFOs; looped-back bytes find the room that the chip has. MCR and LCR reset to 0x08 and
/// 0x03, the divisor to 12, the modem lines are on: a guest that sets up nothing can use the port.
///
/// The interrupt is on a PC's wiring: MCR.OUT2 gates the line (not IIR), in loopback too, where the chip
/// itself would take the pin OUT2 away (a deviation: drivers test their interrupts in loopback). Guests that
/// were written on QEMU, which has no such gate, may never set OUT2: see `set_interrupt_gate`.
///
/// Thread safety: none. One thread at a time, or wrap it (`vmdevice::Locked`).
///
/// Nothing here blocks, throws or allocates, as long as the trigger, the events and the writer do not.
template <Trigger T, SerialEvents E = NoEvents, Writer W = NullWriter>
class Serial : public detail::SerialRegisters {
public:
    using Error = SerialError<typename T::error_type>;
    using trigger_type = T;
    using events_type = E;
    using writer_type = W;

    constexpr Serial(T trigger, E events, W writer)
        : line_(std::move(trigger)), events_(std::move(events)), writer_(std::move(writer)) {}
    constexpr Serial(T trigger, W writer) : Serial(std::move(trigger), E{}, std::move(writer)) {}

    /// A device as it was saved. If an interrupt is due, the trigger is called: an edge that was on its way
    /// when the state was saved is not lost. Bytes that waited for the writer wait on: call
    /// `resume_transmit()`. Errors: `invalid_state`, naming the field; `trigger` if that call fails.
    [[nodiscard]] static constexpr std::expected<Serial, Error> from_state(const SerialState& state,
                                                                           T trigger, E events, W writer) {
        if (const char* const field = detail::first_invalid(state); field != nullptr) {
            return std::unexpected(Error::from_state_error(StateError{field}));
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

    /// The guest writes the register at `offset`; above 7 there is none. An error tells of the host's side
    /// only, and the guest's access has taken effect all the same.
    constexpr std::expected<void, Error> write(std::uint8_t offset, std::uint8_t value) {
        if (offset == uart16550::offset::transmitter_holding && !divisor_latch_access()) [[likely]] {
            return transmit_byte(value);
        }
        return write_register(offset, value);
    }

    /// As if each byte had been written to offset 0, with as few calls of the writer and the trigger as
    /// possible: for REP OUTSB and coalesced port I/O. What neither the writer nor the transmit FIFO takes
    /// is lost and counted, as with any guest that does not look at LSR.
    constexpr std::expected<void, Error> write_data(std::span<const std::uint8_t> bytes) {
        if (bytes.empty()) {
            return {};
        }
        if (divisor_latch_access()) {
            for (const std::uint8_t byte : bytes) {
                set_divisor(divisor_low_, byte);
            }
            return {};
        }
        if (looped()) {
            return loop_back(bytes);
        }
        return transmit(bytes);
    }

    /// Offers input to the guest, and returns how many bytes fitted. Empty input: 0. In loopback the line
    /// is disconnected: 0. Errors: `full_fifo`; `trigger`, the bytes being taken all the same.
    [[nodiscard]] constexpr std::expected<std::size_t, Error> enqueue_raw_bytes(
        std::span<const std::uint8_t> bytes) {
        if (bytes.empty() || looped()) {
            return 0;
        }
        const std::size_t count = receive_.push(bytes);
        if (count == 0) {
            return std::unexpected(Error(SerialErrorKind::full_fifo));
        }
        note_received();
        if (auto settled = settle(); !settled) {
            return std::unexpected(std::move(settled.error()));
        }
        return count;
    }

    /// Offers the waiting bytes to the writer again. Errors: `write`, `trigger`.
    [[nodiscard]] constexpr std::expected<void, Error> resume_transmit() {
        return transmit_.empty() ? std::expected<void, Error>{} : flush_and_settle();
    }

    /// The host sends a break: a 0x00 byte with LSR.BI. In loopback nothing arrives.
    /// Errors: `full_fifo`; `trigger`.
    [[nodiscard]] constexpr std::expected<void, Error> send_break() {
        return receive_with_errors(0x00, uart16550::LineStatus(uart16550::LineStatus::break_interrupt.mask));
    }

    /// A byte arrives with any of PE, FE and BI, for tests and fault injection. Errors as `send_break`.
    [[nodiscard]] constexpr std::expected<void, Error> receive_with_errors(std::uint8_t byte,
                                                                           uart16550::LineStatus errors) {
        using uart16550::LineStatus;
        if (looped()) {
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
        note_received();
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
    /// The levels of CTS, DSR, RI and DCD, as bits 7:4 of MSR; other bits are ignored. While the guest is
    /// in loopback it sees its own outputs instead. Where the guest has automatic flow control on, CTS stops
    /// the transmitter, and its return sends what waited. Errors: `trigger`; `write`.
    constexpr std::expected<void, Error> set_modem_lines(uart16550::ModemStatus lines) {
        const bool was_stopped = transmitter_stopped();
        set_modem_inputs(lines.value());
        return was_stopped && !transmitter_stopped() ? flush_and_settle() : settle();
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
    /// From now on; bytes that wait are dropped and counted when the policy no longer lets them wait.
    constexpr std::expected<void, Error> set_transmit_policy(TransmitPolicy policy) {
        transmit_policy_ = policy;
        if (policy == TransmitPolicy::drop_and_count) {
            calls().tx_lost_bytes(clear_transmitter());
        }
        return settle();
    }
    constexpr std::expected<void, Error> set_receive_timeout(ReceiveTimeout policy) {
        receive_timeout_ = policy;
        update_receive_trigger();
        return settle();
    }
    /// Whether it is a TL16C750: the guest may switch on the 64-byte mode (FCR bit 5 while DLAB=1) and
    /// automatic flow control (MCR bit 5). Off by default: then it is a plain 16550A, whose MCR bits 7:5 read
    /// 0, and what of the two was on is switched off.
    constexpr std::expected<void, Error> allow_64_byte_fifo(bool allow) {
        fifo_64_allowed_ = allow;
        if (!allow) {
            const uart16550::ModemControl outputs = modem_outputs();
            const bool was_stopped = transmitter_stopped();
            fifo_control_.clear(uart16550::FifoControl::fifo_64);
            modem_control_.clear(uart16550::ModemControl::auto_flow_control);
            update_receive_trigger();
            report_outputs(outputs);
            if (was_stopped) {
                return flush_and_settle();
            }
        }
        return settle();
    }
    /// Whether MCR.OUT2 enables the interrupt, as the wiring of a PC has it (the default), or nothing does.
    constexpr std::expected<void, Error> set_interrupt_gate(InterruptGate gate) {
        interrupt_gate_ = gate;
        return move_line(pending_sources(), 0);
    }
    /// A hardware reset. What the host has set stays: policies and modem lines. Bytes in the FIFOs are gone.
    constexpr std::expected<void, Error> reset() {
        const bool had_input = !receive_.empty();
        const bool was_looped = looped();
        const uart16550::LineControl format = line_control_;
        const std::uint16_t old_divisor = divisor();
        const uart16550::ModemControl outputs = modem_outputs();
        SerialState state;
        state.modem_inputs = modem_inputs_;
        state.fifo_64_allowed = fifo_64_allowed_;
        state.transmit_policy = transmit_policy_;
        state.receive_timeout = receive_timeout_;
        state.interrupt_gate = interrupt_gate_;
        restore(state);
        report_line_control(format);
        report_divisor(old_divisor);
        report_outputs(outputs);
        if (had_input) {
            events_.in_buffer_empty();
        }
        if (was_looped) {
            calls().input_resumed();
        }
        return settle();
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
    [[nodiscard]] constexpr detail::SerialEventCaller<E> calls() noexcept { return {events_}; }
    // Recomputes the interrupt line. Every register change must end here. `rearmed` holds the sources that
    // were cleared and set again during this access; unless another source kept the line asserted, an edge
    // trigger must see a new edge. MCR.OUT2 is checked only when the line may change, so code that writes MCR
    // must call `move_line` directly. The IER check is a fast path for polling guests, which leave IER zero.
    constexpr std::expected<void, Error> settle(std::uint8_t rearmed = 0) {
        if (!line_.level() && interrupt_enable_.value() == 0) [[likely]] {
            return {};
        }
        const std::uint8_t pending = pending_sources();
        if (line_stays(pending, rearmed)) [[likely]] {
            return {};
        }
        return move_line(pending, rearmed);
    }
    // The same within a read, which has nobody to return an error to.
    constexpr void settle_in_read(std::uint8_t rearmed = 0) {
        if (!line_.level() && interrupt_enable_.value() == 0) [[likely]] {
            return;
        }
        const std::uint8_t pending = pending_sources();
        if (!line_stays(pending, rearmed)) {
            move_line_in_read(pending, rearmed);
        }
    }
    // Low with nothing pending, or held high by a source that did not fall.
    [[nodiscard]] constexpr bool line_stays(std::uint8_t pending, std::uint8_t rearmed) const noexcept {
        return line_.level() ? (pending & static_cast<std::uint8_t>(~rearmed)) != 0 : pending == 0;
    }
    // Out of line, to keep the common path short.
    [[gnu::noinline]] constexpr std::expected<void, Error> move_line(std::uint8_t pending,
                                                                     std::uint8_t rearmed) {
        const bool level = pending != 0 && (modem_control_[uart16550::ModemControl::out2] ||
                                            interrupt_gate_ == InterruptGate::none);
        const bool pulse = rearmed != 0 && (pending & static_cast<std::uint8_t>(~rearmed)) == 0;
        if (level && (pulse || !line_.level())) {
            calls().interrupt_raised();
        }
        if (auto told = line_.update(level, pulse ? LinePulse::again : LinePulse::none); !told) [[unlikely]] {
            return std::unexpected(Error::from_trigger(std::move(told.error())));
        }
        return {};
    }
    [[gnu::noinline]] constexpr void move_line_in_read(std::uint8_t pending, std::uint8_t rearmed) {
        if (!move_line(pending, rearmed)) [[unlikely]] {
            calls().trigger_failed();
        }
    }

    // --- Reads

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
        note_received();
        // In FIFO mode "data available" stays up until the level falls below the trigger. Otherwise this read
        // took it down, and it comes up again with the next byte.
        const bool held = fifo_enabled() && receive_.size() >= receive_trigger_;
        settle_in_read(held ? std::uint8_t{0} : received_data_source);
        return byte;
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

    // --- Writes

    // Out of line, as what follows for most of them: nearly all writes are bytes to send.
    [[gnu::noinline]] constexpr std::expected<void, Error> write_register(std::uint8_t offset,
                                                                          std::uint8_t value) {
        using namespace uart16550;
        switch (offset) {
            case offset::divisor_latch_low:
                set_divisor(divisor_low_, value);
                return {};
            case offset::interrupt_enable:
                if (divisor_latch_access()) {
                    set_divisor(divisor_high_, value);
                    return {};
                }
                set_interrupt_enable(value);
                return settle();
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

    constexpr std::expected<void, Error> write_fifo_control(std::uint8_t value) {
        const FifoReset reset = set_fifo_control(value);
        if (reset.happened) {
            calls().fifo_reset();
            calls().dropped_bytes(reset.sent_bytes_dropped + reset.received_bytes_dropped);
            if (reset.received_bytes_dropped != 0) {
                events_.in_buffer_empty();
            }
        }
        note_received();
        return settle();
    }

    constexpr void write_line_control(std::uint8_t value) {
        const uart16550::LineControl before = line_control_;
        line_control_.guest_write(value);
        report_line_control(before);
    }

    constexpr std::expected<void, Error> write_modem_control(std::uint8_t value) {
        const uart16550::ModemControl outputs = modem_outputs();
        const bool was_looped = looped();
        const bool was_stopped = transmitter_stopped();
        set_modem_control(value);
        report_outputs(outputs);
        if (was_looped && !looped()) {
            calls().input_resumed();
        }
        std::expected<void, Error> flushed{};
        if (was_stopped && !transmitter_stopped()) {
            flushed = flush();
        }
        auto moved = move_line(pending_sources(), 0);
        return flushed ? moved : flushed;
    }

    constexpr void set_divisor(std::uint8_t& latch, std::uint8_t value) {
        const std::uint16_t before = divisor();
        latch = value;
        report_divisor(before);
    }

    // --- What the outside learns of the registers

    constexpr void report_line_control(uart16550::LineControl before) {
        using uart16550::LineControl;
        constexpr unsigned format = LineControl::format.mask;
        if (((static_cast<unsigned>(before.value()) ^ line_control_.value()) & format) != 0) {
            calls().line_format_changed(line_control_);
        }
        if (before[LineControl::set_break] != line_control_[LineControl::set_break]) {
            calls().break_control(line_control_[LineControl::set_break]);
        }
    }
    constexpr void report_divisor(std::uint16_t before) {
        if (before != divisor()) {
            calls().divisor_changed(divisor());
        }
    }
    // `before`: what the outside saw until now.
    constexpr void report_outputs(uart16550::ModemControl before) {
        using uart16550::ModemControl;
        update_auto_rts();
        const ModemControl after = modem_outputs();
        if (before[ModemControl::data_terminal_ready] != after[ModemControl::data_terminal_ready]) {
            calls().data_terminal_ready(after[ModemControl::data_terminal_ready]);
        }
        if (before[ModemControl::request_to_send] != after[ModemControl::request_to_send]) {
            calls().request_to_send(after[ModemControl::request_to_send]);
        }
    }
    // After any change of the receive FIFO or its trigger level.
    constexpr void note_received() {
        if (auto_flow_control()) [[unlikely]] {
            report_outputs(modem_outputs());
        }
    }

    constexpr std::expected<void, Error> set_modem_line(std::uint8_t mask, bool on) {
        return set_modem_lines(uart16550::ModemStatus(
            static_cast<std::uint8_t>(on ? modem_inputs_ | mask : modem_inputs_ & ~unsigned{mask})));
    }
    // --- Transmission

    [[gnu::always_inline]] constexpr std::expected<void, Error> transmit_byte(std::uint8_t value) {
        using uart16550::ModemControl;
        constexpr unsigned special = ModemControl::loopback.mask | ModemControl::auto_flow_control.mask;
        if ((modem_control_.value() & special) != 0) [[unlikely]] {
            return looped() ? loop_back({&value, 1}) : transmit({&value, 1});
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
            [[maybe_unused]] const auto settled = settle(thr_empty_source);
            return flushed;
        }
        WriteResult taken{0};
        while (transmit_.empty() && !bytes.empty() && !transmitter_stopped()) {
            taken = writer_.write(bytes);
            if (!taken || *taken == 0) {
                break;
            }
            const std::size_t count = detail::smaller(*taken, bytes.size());
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
        while (!transmit_.empty() && !transmitter_stopped()) {
            const WriteResult taken = writer_.write(transmit_.bytes());
            if (!taken) {
                calls().tx_lost_bytes(clear_transmitter());
                return std::unexpected(Error::from_writer(taken.error()));
            }
            if (*taken == 0) {
                return {};
            }
            const std::size_t count = detail::smaller(*taken, transmit_.size());
            calls().out_bytes(count);
            transmit_.drop_front(count);
            thr_empty_pending_ = transmit_.empty();
        }
        return {};
    }

    constexpr std::expected<void, Error> flush_and_settle() {
        auto flushed = flush();
        auto settled = settle();
        return flushed ? settled : flushed;
    }

    [[gnu::noinline]] constexpr std::expected<void, Error> loop_back(std::span<const std::uint8_t> bytes) {
        const unsigned before = pending_sources();
        for (std::size_t lost = receive_looped(bytes); lost != 0; --lost) {
            calls().overrun();
        }
        note_received();
        // The write took THRE down, and what these bytes brought came up after that.
        return settle(static_cast<std::uint8_t>(thr_empty_source | ~before));
    }

    InterruptLine<T> line_;
    [[no_unique_address]] E events_;
    [[no_unique_address]] W writer_;
};

template <Trigger T, Writer W>
Serial(T, W) -> Serial<T, NoEvents, W>;
template <Trigger T, SerialEvents E, Writer W>
Serial(T, E, W) -> Serial<T, E, W>;

}  // namespace vmsuperio
