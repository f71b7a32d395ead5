// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/detail/copy_bytes.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_error.hpp>
#include <vmsuperio/serial_events.hpp>
#include <vmsuperio/serial_state.hpp>
#include <vmsuperio/trigger.hpp>
#include <vmsuperio/uart/serial_core.hpp>
#include <vmsuperio/writer.hpp>

namespace vmsuperio::inline v0_2 {

/// A 16550A UART (PC16550D datasheet) whose receive FIFO holds 64 bytes.
///
/// Models: every register with its masks, reset values and DLAB aliasing; both FIFOs, their resets and the
/// trigger levels; the five interrupts by priority; line errors per byte, break and overrun; modem lines
/// with deltas; loopback of data and modem lines; the character timeout, at once or driven by the caller; on
/// request a TL16C750 with its 64-byte mode and automatic flow control (MCR bit 5).
///
/// Not modelled: the time that sending a byte takes (it is sent as soon as the writer takes it), DMA mode,
/// words of 5 to 7 bits (all eight bits pass), parity generation. LCR and the divisor only determine the
/// length of the timeout.
///
/// Deviations: the receive FIFO holds 64 bytes in every mode, so that host input is not lost before the
/// guest enables the FIFOs; with FIFOs on, loopback holds as many bytes as the chip does. MCR and LCR reset
/// to 0x08 and 0x03, the divisor to 12, the modem lines are on: a guest that sets up nothing can use the
/// port.
///
/// The interrupt is wired as on a PC: MCR.OUT2 gates the line (not IIR). It does so in loopback as well,
/// where the chip itself would deassert the pin OUT2 (a deviation, because drivers test their interrupts in
/// loopback). Guests that were developed on QEMU, which has no such gate, may never set OUT2: see
/// `set_interrupt_gate`.
///
/// Thread safety: none. One thread at a time, or wrap it (`vmdevice::Locked`).
///
/// No function blocks, throws or allocates, provided that the trigger, the events and the writer do not.
template <Trigger T, SerialEvents E = NoEvents, Writer W = NullWriter>
class Serial : public DeviceShell<SerialCore, E, T> {
    using Shell = DeviceShell<SerialCore, E, T>;
    static_assert(detail::check_optional_serial_events<E>());

public:
    /// The error of this UART's functions.
    using Error = SerialError<typename T::error_type>;
    using trigger_type = T;
    using events_type = E;
    using writer_type = W;

    /// The device answers at offsets 0 to 7.
    static constexpr std::size_t register_count = uart16550::offset::count;
    /// How many received bytes the device holds.
    static constexpr std::size_t receive_fifo_size = SerialCore::receive_fifo_size;
    /// The oscillator of a PC's UART, in Hz: the divisor 1 means 115200 baud.
    static constexpr std::uint64_t clock_frequency = SerialCore::clock_frequency;

    /// A UART that has just been reset.
    constexpr Serial(T trigger, E given_events, W writer)
        : Serial(SerialCore(), std::move(trigger), std::move(given_events), std::move(writer)) {}
    /// A UART that has just been reset, without events.
    constexpr Serial(T trigger, W writer) : Serial(std::move(trigger), E{}, std::move(writer)) {}

    /// Restores a saved device. If an interrupt is pending, the trigger is called, so that an edge that had
    /// not been delivered when the state was saved is not lost. Bytes that waited for the writer still wait:
    /// call `resume_transmit()`. Errors: `invalid_state`, which names the field as `validate` does. A failure
    /// of the trigger is only counted in `host_errors()`, as in every device: the state is valid, and a VMM
    /// that lost its port because of one failed notification could not resume the guest.
    [[nodiscard]] static constexpr std::expected<Serial, Error> from_state(const SerialState& state,
                                                                           T trigger, E events, W writer) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(Error::from_state_error(valid.error()));
        }
        std::expected<Serial, Error> serial(
            Serial(SerialCore(state), std::move(trigger), std::move(events), std::move(writer)));
        static_cast<void>(serial->update_interrupt());
        return serial;
    }

    // --- The guest

    /// The guest reads the register at `offset`. Offsets above 7 return 0.
    constexpr std::uint8_t read(std::uint8_t offset) {
        using namespace uart16550;
        switch (offset) {
            case offset::receiver_buffer:
                return core().divisor_latch_access() ? core().divisor_low().value() : read_receiver_buffer();
            case offset::interrupt_identification:
                return read_interrupt_identification();
            case offset::line_status:
                return core().has_line_errors() ? read_line_errors() : core().line_status().value();
            case offset::modem_status:
                return core().has_modem_deltas() ? read_modem_deltas() : core().modem_status().value();
            default:
                return offset < offset::count ? peek(offset) : read_nothing();
        }
    }

    /// The guest writes the register at `offset`. Offsets above 7 have no effect. An error concerns only the
    /// host's side; the guest's access has taken effect nevertheless. Errors: `write`; `trigger`.
    constexpr std::expected<void, Error> write(std::uint8_t offset, std::uint8_t value) {
        if (offset == uart16550::offset::transmitter_holding && !core().divisor_latch_access()) [[likely]] {
            return transmit_byte(value);
        }
        return write_register(offset, value);
    }

    /// Has the effect of writing each byte to offset 0, with as few calls of the writer and the trigger as
    /// possible, for REP OUTSB and coalesced port I/O. Bytes that neither the writer nor the transmit FIFO
    /// takes are lost and counted, as with any guest that does not check LSR. Errors: as `write`.
    constexpr std::expected<void, Error> write_data(std::span<const std::uint8_t> bytes) {
        if (bytes.empty()) {
            return {};
        }
        if (core().divisor_latch_access()) {
            for (const std::uint8_t byte : bytes) {
                [[maybe_unused]] const auto written =
                    write_register(uart16550::offset::divisor_latch_low, byte);
            }
            return {};
        }
        return core().looped() ? loop_back(bytes) : transmit(bytes);
    }

    // --- The host

    /// Offers input to the guest, and returns how many bytes fitted. The result is 0 for empty input, and in
    /// loopback, in which the line is disconnected. Errors: `full_fifo`; `trigger`, in which case as many
    /// bytes have been taken as `receive_fifo_room()` was before the call, or all if fewer were offered.
    [[nodiscard]] constexpr std::expected<std::size_t, Error> enqueue_raw_bytes(
        std::span<const std::uint8_t> bytes) {
        if (bytes.empty() || core().looped()) {
            return 0;
        }
        SerialEffects effects;
        const std::size_t count = core().receive(bytes, effects);
        if (count == 0) {
            return std::unexpected(Error(SerialErrorKind::full_fifo));
        }
        if (auto applied = apply(effects); !applied) {
            return std::unexpected(std::move(applied.error()));
        }
        return count;
    }
    /// The free room of the receive FIFO, in bytes: 0 (full) to 64 (empty), in every mode. In loopback,
    /// `enqueue_raw_bytes` takes nothing although there may be room.
    [[nodiscard]] constexpr std::size_t receive_fifo_room() const noexcept { return core().receive_room(); }
    /// The same as `receive_fifo_room()`, under the name that vm-superio uses. It is not the FIFO's size.
    [[nodiscard]] constexpr std::size_t fifo_capacity() const noexcept { return receive_fifo_room(); }

    /// Offers the waiting bytes to the writer again. Errors: `write`, `trigger`.
    [[nodiscard]] constexpr std::expected<void, Error> resume_transmit() {
        return transmit_pending() ? finish({.transmitter_resumed = true}) : std::expected<void, Error>{};
    }
    /// Whether bytes wait for the writer, so that `resume_transmit()` has something to do.
    [[nodiscard]] constexpr bool transmit_pending() const noexcept { return !core().transmit_empty(); }
    /// How many bytes the guest may send before one is lost, if the writer takes nothing.
    [[nodiscard]] constexpr std::size_t transmit_capacity() const noexcept { return core().transmit_room(); }

    /// The host sends a break: a 0x00 byte with LSR.BI. In loopback nothing arrives.
    /// Errors: `full_fifo`; `trigger`.
    [[nodiscard]] constexpr std::expected<void, Error> send_break() {
        return receive_with_errors(0x00, uart16550::LineStatus(uart16550::LineStatus::break_interrupt.mask));
    }
    /// A byte arrives with any of PE, FE and BI, for tests and fault injection. Errors as `send_break`.
    [[nodiscard]] constexpr std::expected<void, Error> receive_with_errors(std::uint8_t byte,
                                                                           uart16550::LineStatus errors) {
        if (core().looped()) {
            return {};
        }
        if (receive_fifo_room() == 0) {
            return std::unexpected(Error(SerialErrorKind::full_fifo));
        }
        return finish(core().receive_with_errors(byte, errors));
    }

    /// Reports that the line was idle for four character times (PC16550D, "FIFO interrupt mode operation"):
    /// if the FIFOs are on and bytes wait, the character timeout interrupt becomes pending. For
    /// `ReceiveTimeout::manual`; with the other policy this has no effect. Errors: `trigger`.
    constexpr std::expected<void, Error> character_timeout() { return finish(core().character_timeout()); }
    /// Whether `character_timeout()` would have an effect.
    [[nodiscard]] constexpr bool character_timeout_armed() const noexcept {
        return core().character_timeout_armed();
    }
    /// Four character times, computed from LCR and the divisor. The divisor 0, which has no meaning, counts
    /// as 1.
    [[nodiscard]] constexpr std::chrono::nanoseconds character_timeout_length() const noexcept {
        return core().character_timeout_length();
    }
    /// Changes whenever a byte arrives or is read, either of which starts the timeout again.
    [[nodiscard]] constexpr std::uint32_t receive_activity() const noexcept {
        return core().receive_activity();
    }

    /// Sets the levels of CTS, DSR, RI and DCD, as bits 7:4 of MSR; other bits are ignored. In loopback the
    /// guest sees its own outputs instead. If the guest has enabled automatic flow control, deasserting CTS
    /// stops the transmitter, and asserting it sends the waiting bytes. Errors: `trigger`; `write`.
    constexpr std::expected<void, Error> set_modem_lines(uart16550::ModemStatus lines) {
        return finish(core().set_modem_inputs(lines));
    }
    /// Sets the modem input CTS (MSR bit 4). Returns the trigger's error.
    constexpr std::expected<void, Error> set_clear_to_send(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::clear_to_send, on));
    }
    /// Sets the modem input DSR (MSR bit 5). Returns the trigger's error.
    constexpr std::expected<void, Error> set_data_set_ready(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::data_set_ready, on));
    }
    /// Sets the modem input RI (MSR bit 6). Returns the trigger's error.
    constexpr std::expected<void, Error> set_ring_indicator(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::ring_indicator, on));
    }
    /// Sets the modem input DCD (MSR bit 7). Returns the trigger's error.
    constexpr std::expected<void, Error> set_data_carrier_detect(bool on) {
        return set_modem_lines(core().modem_inputs().set(uart16550::ModemStatus::data_carrier_detect, on));
    }
    /// DTR, RTS, OUT1 and OUT2 as driven on the pins: in loopback all are off, and automatic flow control
    /// (TL16C750) deasserts RTS from the time at which the receive FIFO reaches its trigger level until it is
    /// empty.
    [[nodiscard]] constexpr uart16550::ModemControl modem_outputs() const noexcept {
        return core().modem_outputs();
    }
    /// The baud rate is 115200 divided by the divisor.
    [[nodiscard]] constexpr std::uint16_t divisor() const noexcept { return core().divisor(); }

    /// Sets the policy. Waiting bytes are dropped and counted if the new policy does not let them wait.
    /// Errors, here and below: `trigger`.
    constexpr std::expected<void, Error> set_transmit_policy(TransmitPolicy policy) {
        return finish(core().set_transmit_policy(policy));
    }
    /// What happens to bytes that the writer does not take.
    [[nodiscard]] constexpr TransmitPolicy transmit_policy() const noexcept {
        return core().transmit_policy();
    }
    /// Sets when received bytes below the trigger level interrupt. Returns the trigger's error.
    constexpr std::expected<void, Error> set_receive_timeout(ReceiveTimeout policy) {
        return finish(core().set_receive_timeout(policy));
    }
    /// When received bytes below the trigger level interrupt.
    [[nodiscard]] constexpr ReceiveTimeout receive_timeout() const noexcept {
        return core().receive_timeout();
    }
    /// Selects whether the device is a TL16C750, on which the guest may enable the 64-byte mode (FCR bit 5
    /// while DLAB=1) and automatic flow control (MCR bit 5). By default it is a plain 16550A, whose MCR bits
    /// 7:5 read 0; disallowing the TL16C750 disables both. Errors also: `write`, for bytes that flow control
    /// held back.
    constexpr std::expected<void, Error> allow_64_byte_fifo(bool allow) {
        return finish(core().allow_64_byte_fifo(allow));
    }
    /// Whether the device is a TL16C750: 64-byte mode and automatic flow control.
    [[nodiscard]] constexpr bool is_64_byte_fifo_allowed() const noexcept { return core().fifo_64_allowed(); }
    /// Selects whether MCR.OUT2 gates the interrupt, as on a PC (the default), or nothing does.
    constexpr std::expected<void, Error> set_interrupt_gate(InterruptGate gate) {
        return finish(core().set_interrupt_gate(gate));
    }
    /// Whether OUT2 gates the interrupt.
    [[nodiscard]] constexpr InterruptGate interrupt_gate() const noexcept { return core().interrupt_gate(); }

    /// A hardware reset. The host's settings stay: policies and modem lines. Bytes in the FIFOs are dropped.
    constexpr std::expected<void, Error> reset() { return finish(core().reset()); }

    // --- Observation

    using Shell::events;       // the events that were passed to the constructor
    using Shell::host_errors;  // how often trigger and writer failed
    using Shell::state;        // the complete state, between any two calls

    /// The value that the guest would read at `offset`, without a side effect: for debuggers and tests.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const { return core().peek(offset); }
    /// The device as text for people: a line for each register as the guest sees it, whatever DLAB is, then
    /// a line for each member of the state; see `inspect.hpp`.
    [[nodiscard]] std::string inspect() const {
        std::string text;
        const auto line = [&text](auto reg) { text.append(vmsuperio::inspect(reg)).append("\n"); };
        line(core().receiver_buffer());
        line(core().interrupt_enable());
        line(core().interrupt_identification());
        line(core().fifo_control());
        line(core().line_control());
        line(core().modem_control());
        line(core().line_status());
        line(core().modem_status());
        line(core().scratch());
        line(core().divisor_low());
        line(core().divisor_high());
        return text.append(Shell::inspect());
    }
    /// Whether the interrupt line is high.
    [[nodiscard]] constexpr bool interrupt_line() const noexcept { return Shell::line().level(); }

    [[nodiscard]] constexpr const W& writer() const noexcept { return writer_; }
    [[nodiscard]] constexpr W& writer() noexcept { return writer_; }
    /// The writer, out of a device that is no longer used.
    [[nodiscard]] constexpr W into_writer() && { return std::move(writer_); }
    [[nodiscard]] constexpr const T& interrupt_evt() const noexcept { return Shell::line().trigger(); }
    [[nodiscard]] constexpr T& interrupt_evt() noexcept { return Shell::line().trigger(); }

private:
    using Shell::core;
    using Output = std::expected<void, std::error_code>;  // of the writer

    constexpr Serial(const SerialCore& restored, T trigger, E given_events, W writer)
        : Shell(restored, std::move(given_events), std::move(trigger)), writer_(std::move(writer)) {}

    // --- After each change of the core: output, then events, then the interrupt line

    [[gnu::always_inline]] constexpr std::expected<void, Error> finish(SerialEffects effects) {
        Output output;
        if (effects.transmitter_resumed) [[unlikely]] {
            output = send_waiting().note(effects);
        }
        return finish(effects, output);
    }
    // The writer's error has priority over the trigger's.
    [[gnu::always_inline]] constexpr std::expected<void, Error> finish(const SerialEffects& effects,
                                                                       const Output& output) {
        if (!output) [[unlikely]] {
            Shell::host_failed(HostErrorSource::output);
            [[maybe_unused]] const auto applied = apply(effects);
            return std::unexpected(Error::from_writer(output.error()));
        }
        return apply(effects);
    }
    [[gnu::always_inline]] constexpr std::expected<void, Error> apply(const SerialEffects& effects) {
        effects.report(events());
        return update_interrupt(effects.rearmed);
    }
    // A read cannot return an error.
    [[gnu::always_inline]] constexpr void apply_in_read(const SerialEffects& effects) {
        if (!apply(effects)) [[unlikely]] {
            calls().trigger_failed();
        }
    }
    // Sets the interrupt line to the level that follows from the core, at the end of an access in which the
    // sources `rearmed` were cleared at some moment. If no other source is pending and the line is high, an
    // edge trigger must see a new edge. The chip's line falls and rises then; a level trigger need not see
    // that, because nothing happens in between. The first test is a fast path for guests that poll, which
    // leave IER at zero.
    [[gnu::always_inline]] constexpr std::expected<void, Error> update_interrupt(std::uint8_t rearmed = 0) {
        if (!interrupt_line() && !core().interrupts_enabled()) [[likely]] {
            return {};
        }
        const unsigned sources = core().interrupt_sources();
        if (sources == 0) {
            return interrupt_line() ? drive_line<false>() : std::expected<void, Error>{};
        }
        if (interrupt_line() && (sources & ~unsigned{rearmed}) != 0) {
            return {};
        }
        return drive_line<true>();
    }
    // The rest of update_interrupt(), out of line to keep the common path short.
    template <bool Level>
    [[gnu::noinline]] constexpr std::expected<void, Error> drive_line() {
        if constexpr (Level) {
            calls().interrupt_raised();
        }
        auto driven =
            Shell::checked(HostErrorSource::interrupt, Shell::line().update(Level, LinePulse::again));
        if (!driven) [[unlikely]] {
            return std::unexpected(Error::from_trigger(std::move(driven.error())));
        }
        return {};
    }
    [[nodiscard]] constexpr detail::SerialEventCaller<E> calls() noexcept { return {events()}; }

    // --- Reads and writes outside the common path

    // Out of line, like the following functions, because each is a rare case of `read`.
    [[gnu::noinline]] constexpr std::uint8_t read_receiver_buffer() {
        if (core().receive_empty()) [[unlikely]] {
            return 0;
        }
        const std::uint8_t byte = core().read_receiver_buffer();
        if (core().only_byte_read()) [[likely]] {
            events().buffer_read();
        } else {
            note_byte_read();
        }
        return byte;
    }
    [[gnu::noinline]] constexpr void note_byte_read() { apply_in_read(core().note_byte_read()); }
    [[gnu::noinline]] constexpr std::uint8_t read_interrupt_identification() {
        const auto [id, acknowledged] = core().read_interrupt_identification();
        if (acknowledged) {
            update_interrupt_in_read();
        }
        return id.value();
    }
    [[gnu::noinline]] constexpr void update_interrupt_in_read() { apply_in_read({}); }
    [[gnu::noinline]] constexpr std::uint8_t read_line_errors() {
        const std::uint8_t status = core().read_line_status().value();
        update_interrupt_in_read();
        return status;
    }
    [[gnu::noinline]] constexpr std::uint8_t read_modem_deltas() {
        const std::uint8_t status = core().read_modem_status().value();
        update_interrupt_in_read();
        return status;
    }
    [[gnu::noinline]] constexpr std::uint8_t read_nothing() {
        apply_in_read({.invalid_access = true});
        return 0;
    }
    // Out of line, because nearly all writes are bytes to send.
    [[gnu::noinline]] constexpr std::expected<void, Error> write_register(std::uint8_t offset,
                                                                          std::uint8_t value) {
        using namespace uart16550;
        if (offset == offset::interrupt_enable && !core().divisor_latch_access()) {
            core().write_interrupt_enable(value);  // affects only the line
            return update_interrupt();
        }
        if (offset == offset::fifo_control) {
            return write_fifo_control(value);
        }
        if (offset == offset::modem_control) {
            return write_modem_control(value);
        }
        core().write_other_register(offset, value).report(events());
        return {};
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> write_modem_control(std::uint8_t value) {
        return finish(core().write_modem_control(value));
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> write_fifo_control(std::uint8_t value) {
        if constexpr (detail::SerialEventCaller<E>::wants_dropped_characters) {
            // The event gets the characters that a FIFO reset discards, so they are copied before it.
            const ReceivedCharacters received = core().received();
            const SerialEffects effects = core().write_fifo_control(value);
            if (effects.receive_emptied) {
                events().characters_dropped(received);
            }
            return apply(effects);
        } else {
            return apply(core().write_fifo_control(value));
        }
    }

    // --- Transmission

    [[gnu::always_inline]] constexpr std::expected<void, Error> transmit_byte(std::uint8_t value) {
        if (core().transmits_specially() || !core().transmit_empty()) [[unlikely]] {
            return core().looped() ? loop_back({&value, 1}) : transmit({&value, 1});
        }
        const WriteResult taken = writer_.write(std::span<const std::uint8_t>(&value, 1));
        if (taken.has_value() && *taken != 0) [[likely]] {
            return apply(core().byte_sent());
        }
        return keep_or_lose({&value, 1}, taken);
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> loop_back(std::span<const std::uint8_t> bytes) {
        return finish(core().loop_back(bytes));
    }
    [[gnu::noinline]] constexpr std::expected<void, Error> transmit(std::span<const std::uint8_t> bytes) {
        SerialEffects effects;
        if (const Output output = send_waiting().note(effects); !output) {
            core().bytes_lost(bytes.size(), effects);
            return finish(effects, output);
        }
        WriteResult taken{0};
        while (core().transmit_empty() && !bytes.empty() && !core().transmitter_stopped()) {
            taken = writer_.write(bytes);
            if (!taken || *taken == 0) {
                break;
            }
            const std::size_t count = detail::smaller(*taken, bytes.size());
            effects.bytes_sent += count;
            bytes = bytes.subspan(count);
        }
        return keep_or_lose(bytes, taken, effects);
    }
    // Called when the writer takes no more of `bytes`.
    [[gnu::noinline]] constexpr std::expected<void, Error> keep_or_lose(std::span<const std::uint8_t> bytes,
                                                                        const WriteResult& taken,
                                                                        SerialEffects effects = {}) {
        core().keep_or_lose(bytes, taken.has_value(), effects);
        return finish(effects, taken ? Output{} : std::unexpected(taken.error()));
    }
    // The result of offering the waiting bytes. It is a separate type so that the `SerialEffects` of the
    // callers can stay in registers.
    struct Offered {
        Output output;
        std::size_t sent{0};
        std::size_t lost{0};

        constexpr Output note(SerialEffects& effects) const {
            effects.bytes_sent += sent;
            effects.bytes_lost += lost;
            return output;
        }
    };
    // Offers the waiting bytes until none is left or the writer is full.
    [[gnu::noinline]] constexpr Offered send_waiting() {
        Offered offered;
        while (!core().transmit_empty() && !core().transmitter_stopped()) {
            const std::span<const std::uint8_t> waiting = core().waiting();
            const WriteResult taken = writer_.write(waiting);
            if (!taken) {
                offered.lost = core().waiting_lost();
                offered.output = std::unexpected(taken.error());
                break;
            }
            if (*taken == 0) {
                break;
            }
            const std::size_t count = detail::smaller(*taken, waiting.size());
            core().waiting_sent(count);
            offered.sent += count;
        }
        return offered;
    }

    [[no_unique_address]] W writer_;
};

template <Trigger T, Writer W>
Serial(T, W) -> Serial<T, NoEvents, W>;
template <Trigger T, SerialEvents E, Writer W>
Serial(T, E, W) -> Serial<T, E, W>;

}  // namespace vmsuperio::inline v0_2
