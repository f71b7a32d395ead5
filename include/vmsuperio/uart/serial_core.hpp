// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_events.hpp>
#include <vmsuperio/serial_state.hpp>
#include <vmsuperio/uart/fifo.hpp>

namespace vmsuperio::inline v0_2 {

/// The effects of an access to a `SerialCore` other than the change of its state.
struct SerialEffects {
    std::size_t bytes_sent{0};              ///< to the writer
    std::size_t bytes_lost{0};              ///< sent by the guest, and lost
    std::size_t bytes_dropped{0};           ///< received bytes that were discarded
    std::size_t overruns{0};                ///< received bytes that found no room
    std::uint16_t divisor{0};               ///< the divisor, if it has changed
    uart16550::LineControl line_control{};  ///< LCR, if it has changed
    uart16550::ModemControl outputs{};      ///< MCR, if an output has changed
    std::uint8_t line_control_changes{0};   ///< the bits of LCR that changed
    std::uint8_t output_changes{0};         ///< the outputs that changed, as bits of MCR
    bool divisor_changed{false};            ///< whether the divisor has changed
    bool fifo_reset{false};                 ///< whether a FIFO has been cleared
    bool break_received{false};             ///< whether a break has been received
    bool byte_read{false};                  ///< whether RBR has returned a byte
    bool receive_emptied{false};            ///< whether the receive FIFO has become empty
    bool input_resumed{false};              ///< whether loopback has ended
    bool invalid_access{false};             ///< whether the offset does not exist
    /// The transmitter may send again: offer the waiting bytes to the writer. This is not an event.
    bool transmitter_resumed{false};
    /// The interrupt sources (bits of IER) that the access cleared, whether or not they were set again.
    std::uint8_t rearmed{0};

    /// Calls the events in a fixed order.
    template <SerialEvents E>
    [[gnu::always_inline]] constexpr void report(E& events) const {
        using uart16550::LineControl;
        using uart16550::ModemControl;
        const detail::SerialEventCaller<E> calls{events};
        if (invalid_access) {
            calls.invalid_access();
        }
        if ((line_control_changes & LineControl::format.mask) != 0) {
            calls.line_format_changed(line_control);
        }
        if ((line_control_changes & LineControl::set_break.mask) != 0) {
            calls.break_control(line_control[LineControl::set_break]);
        }
        if (divisor_changed) {
            calls.divisor_changed(divisor);
        }
        if (fifo_reset) {
            calls.fifo_reset();
        }
        if (bytes_dropped != 0) {
            calls.dropped_bytes(bytes_dropped);
        }
        calls.overruns(overruns);
        if (break_received) {
            calls.break_received();
        }
        if (byte_read) {
            events.buffer_read();
        }
        if (receive_emptied) {
            events.in_buffer_empty();
        }
        if ((output_changes & ModemControl::data_terminal_ready.mask) != 0) {
            calls.data_terminal_ready(outputs[ModemControl::data_terminal_ready]);
        }
        if ((output_changes & ModemControl::request_to_send.mask) != 0) {
            calls.request_to_send(outputs[ModemControl::request_to_send]);
        }
        if (input_resumed) {
            calls.input_resumed();
        }
        calls.out_bytes(bytes_sent);
        calls.tx_lost_bytes(bytes_lost);
    }
};

/// The core of `Serial`, which is independent of the host: registers, FIFOs, and the values that follow from
/// them. `Serial` documents the meaning of its members for the guest and the host.
class SerialCore {
public:
    /// How many received bytes the device holds.
    static constexpr std::size_t receive_fifo_size = detail::SerialReceiveFifo::capacity;
    /// The oscillator of a PC's UART, in Hz: the divisor 1 means 115200 baud.
    static constexpr std::uint64_t clock_frequency = 1'843'200;

    /// A device that has just been reset.
    constexpr SerialCore() = default;
    /// The state must be valid.
    explicit constexpr SerialCore(const SerialState& state) noexcept { restore(state); }

    /// The state in its saved form.
    [[nodiscard]] constexpr SerialState state() const noexcept {
        SerialState saved = state_;
        receive_.put_in_order(state_, saved);
        transmit_.put_in_order(state_, saved);
        return saved;
    }

    // --- The registers

    /// IER.
    [[nodiscard]] constexpr uart16550::InterruptEnable interrupt_enable() const noexcept {
        return uart16550::InterruptEnable(state_.interrupt_enable);
    }
    /// FCR, whose reset bits read 0.
    [[nodiscard]] constexpr uart16550::FifoControl fifo_control() const noexcept {
        return uart16550::FifoControl(state_.fifo_control);
    }
    /// LCR.
    [[nodiscard]] constexpr uart16550::LineControl line_control() const noexcept {
        return uart16550::LineControl(state_.line_control);
    }
    /// MCR.
    [[nodiscard]] constexpr uart16550::ModemControl modem_control() const noexcept {
        return uart16550::ModemControl(state_.modem_control);
    }
    /// SCR.
    [[nodiscard]] constexpr uart16550::Scratch scratch() const noexcept {
        return uart16550::Scratch(state_.scratch);
    }
    /// DLL.
    [[nodiscard]] constexpr uart16550::DivisorLatchLow divisor_low() const noexcept {
        return uart16550::DivisorLatchLow(state_.divisor_low);
    }
    /// DLM.
    [[nodiscard]] constexpr uart16550::DivisorLatchHigh divisor_high() const noexcept {
        return uart16550::DivisorLatchHigh(state_.divisor_high);
    }
    /// RBR, without reading the byte.
    [[nodiscard]] constexpr uart16550::ReceiverBuffer receiver_buffer() const noexcept {
        return uart16550::ReceiverBuffer(receive_empty() ? std::uint8_t{0} : receive_.front(state_));
    }
    /// IIR, without acknowledging the interrupt.
    [[nodiscard]] constexpr uart16550::InterruptIdentification interrupt_identification() const noexcept {
        return interrupt_identification(highest_interrupt());
    }
    /// LSR, without clearing its errors.
    [[nodiscard]] constexpr uart16550::LineStatus line_status() const noexcept {
        using uart16550::LineStatus;
        const unsigned ready = receive_empty() ? 0U : LineStatus::data_ready.mask;
        const unsigned transmitter =
            transmit_empty() ? unsigned{LineStatus::thr_empty.mask} | LineStatus::transmitter_empty.mask : 0U;
        const unsigned status = ready | transmitter | state_.line_errors;
        if (((state_.line_errors & LineStatus::character_errors.mask) != 0 || receive_.has_errors()) &&
            fifo_enabled()) [[unlikely]] {
            return LineStatus(static_cast<std::uint8_t>(status | LineStatus::fifo_error.mask));
        }
        return LineStatus(static_cast<std::uint8_t>(status));
    }
    /// MSR, without clearing its delta bits.
    [[nodiscard]] constexpr uart16550::ModemStatus modem_status() const noexcept {
        return uart16550::ModemStatus(static_cast<std::uint8_t>(modem_lines() | state_.modem_deltas));
    }

    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        using namespace uart16550;
        switch (offset) {
            case offset::receiver_buffer:
                return divisor_latch_access() ? state_.divisor_low : receiver_buffer().value();
            case offset::interrupt_enable:
                return divisor_latch_access() ? state_.divisor_high : state_.interrupt_enable;
            case offset::interrupt_identification:
                return interrupt_identification().value();
            case offset::line_control:
                return state_.line_control;
            case offset::modem_control:
                return state_.modem_control;
            case offset::line_status:
                return line_status().value();
            case offset::modem_status:
                return modem_status().value();
            case offset::scratch:
                return state_.scratch;
            default:
                return 0;
        }
    }

    // --- Values that follow from the registers

    /// LCR bit 7, DLAB.
    [[nodiscard]] constexpr bool divisor_latch_access() const noexcept {
        return line_control()[uart16550::LineControl::divisor_latch_access];
    }
    /// FCR bit 0.
    [[nodiscard]] constexpr bool fifo_enabled() const noexcept {
        return fifo_control()[uart16550::FifoControl::enable];
    }
    /// MCR bit 4, loopback.
    [[nodiscard]] constexpr bool looped() const noexcept {
        return modem_control()[uart16550::ModemControl::loopback];
    }
    /// The divisor: 115200 divided by it is the rate in baud.
    [[nodiscard]] constexpr std::uint16_t divisor() const noexcept {
        return static_cast<std::uint16_t>((static_cast<unsigned>(state_.divisor_high) << 8U) |
                                          state_.divisor_low);
    }
    /// DTR, RTS, OUT1 and OUT2 as driven on the pins.
    [[nodiscard]] constexpr uart16550::ModemControl modem_outputs() const noexcept {
        using uart16550::ModemControl;
        if (looped()) {
            return ModemControl();
        }
        ModemControl outputs = modem_control();
        outputs.clear(ModemControl::auto_flow_control);
        if (state_.auto_rts_held) {
            outputs.clear(ModemControl::request_to_send);
        }
        return outputs;
    }
    /// Whether LSR or MSR have bits that a read clears.
    [[nodiscard]] constexpr bool has_line_errors() const noexcept { return state_.line_errors != 0; }
    /// Whether a modem input has changed since MSR was read.
    [[nodiscard]] constexpr bool has_modem_deltas() const noexcept { return state_.modem_deltas != 0; }

    /// The contents of the receive FIFO.
    [[nodiscard]] constexpr ReceivedCharacters received() const noexcept {
        using uart16550::LineStatus;
        const SerialState saved = state();
        ReceivedCharacters characters;
        for (std::size_t i = 0; i < saved.receive_count; ++i) {
            const auto flag = [i](std::uint64_t errors, auto field) {
                return (errors >> i & 1U) != 0 ? unsigned{field.mask} : 0U;
            };
            // The errors of the oldest character are in LSR.
            const unsigned errors = i == 0
                                        ? saved.line_errors & LineStatus::character_errors.mask
                                        : flag(saved.receive_parity_errors, LineStatus::parity_error) |
                                              flag(saved.receive_framing_errors, LineStatus::framing_error) |
                                              flag(saved.receive_breaks, LineStatus::break_interrupt);
            characters.push_back(
                {.byte = saved.receive_data[i], .errors = LineStatus(static_cast<std::uint8_t>(errors))});
        }
        return characters;
    }

    /// Whether no received byte waits.
    [[nodiscard]] constexpr bool receive_empty() const noexcept { return receive_.empty(state_); }
    /// How many received bytes still fit.
    [[nodiscard]] constexpr std::size_t receive_room() const noexcept { return receive_.room(state_); }
    /// A number that changes when the receive FIFO does.
    [[nodiscard]] constexpr std::uint32_t receive_activity() const noexcept {
        return receive_.position(state_);
    }
    /// Whether the character timeout is running.
    [[nodiscard]] constexpr bool character_timeout_armed() const noexcept {
        return fifo_enabled() && !receive_empty() && !state_.character_timeout &&
               state_.receive_timeout == ReceiveTimeout::manual;
    }
    /// The time of four characters at the present rate and format.
    [[nodiscard]] constexpr std::chrono::nanoseconds character_timeout_length() const noexcept {
        using uart16550::LineControl;
        const LineControl control = line_control();
        const std::uint64_t word = 5U + control[LineControl::word_length];
        // Half bits: with 5 data bits the longer stop is 1.5.
        const std::uint64_t stop = !control[LineControl::stop_bits] ? 2 : (word == 5 ? 3 : 4);
        const std::uint64_t half_bits =
            (2 * (1 + word + (control[LineControl::parity_enable] ? 1 : 0))) + stop;
        const std::uint64_t clocks_per_bit = divisor() == 0 ? 1U : divisor();
        // 16 clocks a bit, 8 a half bit; four characters.
        return std::chrono::nanoseconds(4 * half_bits * 8 * clocks_per_bit * 1'000'000'000 / clock_frequency);
    }

    /// Whether no byte waits for the writer.
    [[nodiscard]] constexpr bool transmit_empty() const noexcept { return state_.transmit_count == 0; }
    /// How many bytes still fit into the transmit FIFO.
    [[nodiscard]] constexpr std::size_t transmit_room() const noexcept {
        const std::size_t depth = transmit_depth();
        return depth > state_.transmit_count ? depth - state_.transmit_count : 0;
    }
    /// Auto-CTS: whether the other side is not ready. In loopback there is no other side.
    [[nodiscard]] constexpr bool transmitter_stopped() const noexcept {
        return auto_flow_control() && !looped() &&
               (state_.modem_inputs & uart16550::ModemStatus::clear_to_send.mask) == 0;
    }
    /// Whether bytes may not simply go to the writer: loopback takes them, or flow control may stop them.
    [[nodiscard]] constexpr bool transmits_specially() const noexcept {
        using uart16550::ModemControl;
        constexpr unsigned special = ModemControl::loopback.mask | ModemControl::auto_flow_control.mask;
        return (state_.modem_control & special) != 0;
    }

    /// What happens to bytes that the writer does not take.
    [[nodiscard]] constexpr TransmitPolicy transmit_policy() const noexcept { return state_.transmit_policy; }
    /// When received bytes below the trigger level interrupt.
    [[nodiscard]] constexpr ReceiveTimeout receive_timeout() const noexcept { return state_.receive_timeout; }
    /// Whether OUT2 gates the interrupt.
    [[nodiscard]] constexpr InterruptGate interrupt_gate() const noexcept { return state_.interrupt_gate; }
    /// Whether the device is a TL16C750.
    [[nodiscard]] constexpr bool fifo_64_allowed() const noexcept { return state_.fifo_64_allowed; }
    /// CTS, DSR, RI and DCD as they come from outside.
    [[nodiscard]] constexpr uart16550::ModemStatus modem_inputs() const noexcept {
        return uart16550::ModemStatus(state_.modem_inputs);
    }

    // --- Interrupts: computed from the registers, only here.

    /// The sources that keep the interrupt line high, as their enable bits in IER: those that are enabled,
    /// pending and connected to the line. 0 if the line is low.
    [[nodiscard, gnu::always_inline]] constexpr std::uint8_t interrupt_sources() const noexcept {
        const bool connected =
            modem_control()[uart16550::ModemControl::out2] || state_.interrupt_gate == InterruptGate::none;
        return connected ? pending_sources() : std::uint8_t{0};
    }
    /// The level of the interrupt line.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t = 0) const noexcept {
        return interrupt_sources() != 0;
    }
    /// Whether any source may interrupt; if none may, the level is low.
    [[nodiscard]] constexpr bool interrupts_enabled() const noexcept { return state_.interrupt_enable != 0; }

    // --- The guest reads

    /// RBR. The FIFO must not be empty. If afterwards `only_byte_read()` is false, `note_byte_read()` must
    /// follow.
    constexpr std::uint8_t read_receiver_buffer() noexcept {
        state_.character_timeout = false;
        return receive_.pop(state_);
    }
    /// Whether the read of a byte changed only the level of the FIFO: "data available" stays set, so that
    /// neither the interrupt line nor RTS changes, and no remaining byte has errors that LSR may have to show.
    [[nodiscard]] constexpr bool only_byte_read() const noexcept {
        return state_.receive_count >= receive_hold_level_ && !receive_.has_errors();
    }
    /// The guest has read a byte of RBR: what follows from it.
    [[gnu::always_inline]] constexpr SerialEffects note_byte_read() noexcept {
        SerialEffects effects;
        if (receive_.has_errors()) [[unlikely]] {
            state_.line_errors |= receive_.take_front_errors(state_);
        }
        effects.byte_read = true;
        effects.receive_emptied = receive_empty();
        note_received(effects);
        if (state_.receive_count < receive_hold_level_) {
            effects.rearmed = received_data_source;
        }
        return effects;
    }
    /// IIR. Acknowledges THRE, but only if IIR reports it.
    struct InterruptRead {
        uart16550::InterruptIdentification id;  ///< IIR
        bool acknowledged;                      ///< whether the read has acknowledged THRE
    };
    /// The guest reads IIR, which acknowledges THRE if that is what it reports.
    constexpr InterruptRead read_interrupt_identification() noexcept {
        const uart16550::InterruptId id = highest_interrupt();
        const bool acknowledged = id == uart16550::InterruptId::thr_empty;
        if (acknowledged) {
            state_.thr_empty_pending = false;
        }
        return {.id = interrupt_identification(id), .acknowledged = acknowledged};
    }
    /// The guest reads LSR, which clears its error bits.
    constexpr uart16550::LineStatus read_line_status() noexcept {
        const uart16550::LineStatus status = line_status();
        state_.line_errors = 0;
        return status;
    }
    /// The guest reads MSR, which clears its delta bits.
    constexpr uart16550::ModemStatus read_modem_status() noexcept {
        const uart16550::ModemStatus status = modem_status();
        state_.modem_deltas = 0;
        return status;
    }

    // --- The guest writes

    /// IER.
    constexpr void write_interrupt_enable(std::uint8_t value) noexcept {
        using uart16550::InterruptEnable;
        const bool was_enabled = interrupt_enable()[InterruptEnable::thr_empty];
        guest_write<InterruptEnable>(state_.interrupt_enable, value);
        // Enabling THRE while the transmitter is empty interrupts at once; enabling it again does not.
        if (!was_enabled && interrupt_enable()[InterruptEnable::thr_empty] && transmit_empty()) {
            state_.thr_empty_pending = true;
        }
    }
    /// FCR.
    [[gnu::always_inline]] constexpr SerialEffects write_fifo_control(std::uint8_t value) noexcept {
        SerialEffects effects;
        const bool held_input = !receive_empty();
        set_fifo_control(value, effects);
        effects.receive_emptied = held_input && receive_empty();
        note_received(effects);
        return effects;
    }
    /// MCR.
    [[gnu::always_inline]] constexpr SerialEffects write_modem_control(std::uint8_t value) noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        set_modem_control(value);
        note_changes(before, effects);
        return effects;
    }
    /// All other registers: LCR, the divisor, SCR, and the read-only ones. No interrupt depends on them.
    [[gnu::always_inline]] constexpr SerialEffects write_other_register(std::uint8_t offset,
                                                                        std::uint8_t value) noexcept {
        using namespace uart16550;
        SerialEffects effects;
        switch (offset) {
            case offset::divisor_latch_low:
                effects.divisor_changed = state_.divisor_low != value;
                state_.divisor_low = value;
                break;
            case offset::divisor_latch_high:
                effects.divisor_changed = state_.divisor_high != value;
                state_.divisor_high = value;
                break;
            case offset::line_control: {
                const std::uint8_t before = state_.line_control;
                guest_write<LineControl>(state_.line_control, value);
                effects.line_control = line_control();
                effects.line_control_changes = changes(before, state_.line_control);
                break;
            }
            case offset::line_status:
            case offset::modem_status:
                break;
            case offset::scratch:
                guest_write<Scratch>(state_.scratch, value);
                break;
            default:
                effects.invalid_access = true;
        }
        effects.divisor = divisor();
        return effects;
    }

    /// In loopback the bytes that the guest sends are received at once (PC16550D 8.7, bit 4). Bytes that
    /// waited for the writer when loopback began still go to the writer.
    ///
    /// With the FIFOs on the receiver holds no more bytes than the chip, because guests count the bytes that
    /// fit to identify the chip. Linux identifies a 16550A that loops back 64 bytes as a U6_16550A, and then
    /// sends 64 bytes at once into a transmit FIFO of 16 (8250_port.c, size_fifo).
    constexpr SerialEffects loop_back(std::span<const std::uint8_t> bytes) noexcept {
        SerialEffects effects;
        const unsigned pending = pending_sources();
        const std::size_t depth = fifo_enabled() ? transmit_depth() : receive_fifo_size;
        const std::size_t held = state_.receive_count;
        const std::size_t room = depth > held ? depth - held : 0;
        effects.overruns =
            bytes.size() - receive_.push(state_, bytes.first(detail::smaller(bytes.size(), room)));
        if (effects.overruns != 0) {
            state_.line_errors |= uart16550::LineStatus::overrun_error.mask;
        }
        state_.thr_empty_pending = transmit_empty();
        note_received(effects);
        // The write cleared THRE, and the interrupts of these bytes were set after that.
        effects.rearmed = static_cast<std::uint8_t>(thr_empty_source | ~pending);
        return effects;
    }

    // --- Results of the writer for the bytes that the guest sent

    /// The writer took one byte at once, while no byte waited.
    [[gnu::always_inline]] constexpr SerialEffects byte_sent() noexcept {
        SerialEffects effects;
        effects.bytes_sent = 1;
        state_.thr_empty_pending = true;
        effects.rearmed = thr_empty_source;
        return effects;
    }
    /// The bytes that wait for the writer.
    [[nodiscard]] constexpr std::span<const std::uint8_t> waiting() const noexcept {
        return transmit_.bytes(state_);
    }
    /// The writer took `count` of the waiting bytes.
    constexpr void waiting_sent(std::size_t count) noexcept {
        transmit_.drop_front(state_, count);
        state_.thr_empty_pending = transmit_empty();
    }
    /// The writer failed: the waiting bytes are lost. Returns their number.
    constexpr std::size_t waiting_lost() noexcept {
        const std::size_t lost = state_.transmit_count;
        if (lost != 0) {
            transmit_.clear(state_);
            state_.thr_empty_pending = true;
        }
        return lost;
    }
    /// The writer took no more: of `bytes`, as many wait as may and fit; the others are lost.
    constexpr void keep_or_lose(std::span<const std::uint8_t> bytes, bool may_wait,
                                SerialEffects& effects) noexcept {
        std::size_t kept = 0;
        if (may_wait && state_.transmit_policy == TransmitPolicy::back_pressure) {
            kept = transmit_.push(state_, bytes, transmit_depth());
        }
        effects.bytes_lost += bytes.size() - kept;
        state_.thr_empty_pending = transmit_empty();
        effects.rearmed = thr_empty_source;
    }
    /// `count` bytes were lost after the writer failed.
    constexpr void bytes_lost(std::size_t count, SerialEffects& effects) const noexcept {
        effects.bytes_lost += count;
        effects.rearmed = thr_empty_source;
    }

    // --- The host

    /// Returns how many bytes fitted.
    [[gnu::always_inline]] constexpr std::size_t receive(std::span<const std::uint8_t> bytes,
                                                         SerialEffects& effects) noexcept {
        const std::size_t count = receive_.push(state_, bytes);
        note_received(effects);
        return count;
    }
    /// The FIFO must have room.
    constexpr SerialEffects receive_with_errors(std::uint8_t byte, uart16550::LineStatus errors) noexcept {
        using uart16550::LineStatus;
        SerialEffects effects;
        receive_.push(state_, byte,
                      static_cast<std::uint8_t>(errors.value() & LineStatus::character_errors.mask));
        if (state_.receive_count == 1) {
            state_.line_errors |= receive_.take_front_errors(state_);
        }
        effects.break_received = errors[LineStatus::break_interrupt];
        note_received(effects);
        return effects;
    }
    /// Four character times have passed.
    constexpr SerialEffects character_timeout() noexcept {
        if (character_timeout_armed()) {
            state_.character_timeout = true;
        }
        return {};
    }
    /// Sets CTS, DSR, RI and DCD.
    constexpr SerialEffects set_modem_inputs(uart16550::ModemStatus lines) noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        const std::uint8_t lines_before = modem_lines();
        state_.modem_inputs = lines.value() & uart16550::ModemStatus::lines.mask;
        note_modem_change(lines_before);
        note_changes(before, effects);
        return effects;
    }
    /// Sets what happens to bytes that the writer does not take.
    constexpr SerialEffects set_transmit_policy(TransmitPolicy policy) noexcept {
        SerialEffects effects;
        state_.transmit_policy = policy;
        if (policy == TransmitPolicy::drop_and_count) {
            effects.bytes_lost = waiting_lost();
        }
        return effects;
    }
    /// Sets when received bytes below the trigger level interrupt.
    constexpr SerialEffects set_receive_timeout(ReceiveTimeout policy) noexcept {
        state_.receive_timeout = policy;
        update_derived_values();
        return {};
    }
    /// Sets whether OUT2 gates the interrupt.
    constexpr SerialEffects set_interrupt_gate(InterruptGate gate) noexcept {
        state_.interrupt_gate = gate;
        return {};
    }
    /// Sets whether the device is a TL16C750.
    constexpr SerialEffects allow_64_byte_fifo(bool allow) noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        state_.fifo_64_allowed = allow;
        if (!allow) {
            state_.fifo_control = fifo_control().clear(uart16550::FifoControl::fifo_64).value();
            state_.modem_control = modem_control().clear(uart16550::ModemControl::auto_flow_control).value();
            update_derived_values();
        }
        note_changes(before, effects);
        return effects;
    }
    /// A hardware reset. The host's settings stay.
    constexpr SerialEffects reset() noexcept {
        SerialEffects effects;
        const Wiring before = wiring();
        const std::uint16_t divisor_before = divisor();
        const std::uint8_t line_control_before = state_.line_control;
        effects.receive_emptied = !receive_empty();
        SerialState fresh;
        fresh.modem_inputs = state_.modem_inputs;
        fresh.fifo_64_allowed = state_.fifo_64_allowed;
        fresh.transmit_policy = state_.transmit_policy;
        fresh.receive_timeout = state_.receive_timeout;
        fresh.interrupt_gate = state_.interrupt_gate;
        restore(fresh);
        note_changes(before, effects);
        effects.divisor = divisor();
        effects.divisor_changed = effects.divisor != divisor_before;
        effects.line_control = line_control();
        effects.line_control_changes = changes(line_control_before, state_.line_control);
        return effects;
    }
    /// The state must be valid.
    constexpr void restore(const SerialState& state) noexcept {
        state_ = state;
        receive_.restore(state_);
        transmit_.restore();
        update_derived_values();
    }

private:
    // The sources of interrupts, each as its enable bit in IER.
    static constexpr std::uint8_t received_data_source = uart16550::InterruptEnable::received_data.mask;
    static constexpr std::uint8_t thr_empty_source = uart16550::InterruptEnable::thr_empty.mask;
    static constexpr std::uint8_t line_status_source = uart16550::InterruptEnable::line_status.mask;
    static constexpr std::uint8_t modem_status_source = uart16550::InterruptEnable::modem_status.mask;

    // The enabled sources that are pending.
    [[nodiscard, gnu::always_inline]] constexpr std::uint8_t pending_sources() const noexcept {
        unsigned pending = state_.thr_empty_pending ? thr_empty_source : 0U;
        if (state_.receive_count >= receive_interrupt_level_ || state_.character_timeout) {
            pending |= received_data_source;
        }
        // One test for both, because they are rare.
        if ((state_.line_errors | state_.modem_deltas) != 0) [[unlikely]] {
            pending |= state_.line_errors != 0 ? line_status_source : 0U;
            pending |= state_.modem_deltas != 0 ? modem_status_source : 0U;
        }
        return static_cast<std::uint8_t>(pending & state_.interrupt_enable);
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
            return state_.receive_count >= receive_trigger_ ? InterruptId::received_data
                                                            : InterruptId::character_timeout;
        }
        return (pending & thr_empty_source) != 0 ? InterruptId::thr_empty : InterruptId::modem_status;
    }
    [[nodiscard]] constexpr uart16550::InterruptIdentification interrupt_identification(
        uart16550::InterruptId id) const noexcept {
        return uart16550::InterruptIdentification(
            static_cast<std::uint8_t>(identification_fifo_bits_ | static_cast<unsigned>(id)));
    }

    // MSR bits 7:4. In loopback the four outputs are connected to the inputs (PC16550D 8.7, bit 4).
    [[nodiscard]] constexpr std::uint8_t modem_lines() const noexcept {
        using uart16550::ModemControl;
        using uart16550::ModemStatus;
        if (!looped()) {
            return state_.modem_inputs;
        }
        const auto wire = [control = modem_control()](auto output, auto input) -> unsigned {
            return control[output] ? input.mask : 0U;
        };
        return static_cast<std::uint8_t>(
            wire(ModemControl::request_to_send, ModemStatus::clear_to_send) |
            wire(ModemControl::data_terminal_ready, ModemStatus::data_set_ready) |
            wire(ModemControl::out1, ModemStatus::ring_indicator) |
            wire(ModemControl::out2, ModemStatus::data_carrier_detect));
    }
    // Without FIFOs there is only the holding register.
    [[nodiscard]] constexpr std::size_t transmit_depth() const noexcept {
        return !fifo_enabled() ? 1 : fifo_control()[uart16550::FifoControl::fifo_64] ? 64 : 16;
    }

    // The values that follow from MCR and the modem inputs, to report the changes by an access.
    struct Wiring {
        uart16550::ModemControl outputs;
        bool looped;
        bool stopped;
    };
    [[nodiscard, gnu::always_inline]] constexpr Wiring wiring() const noexcept {
        return {.outputs = modem_outputs(), .looped = looped(), .stopped = transmitter_stopped()};
    }
    [[gnu::always_inline]] constexpr void note_changes(const Wiring& before,
                                                       SerialEffects& effects) noexcept {
        update_auto_rts();
        const Wiring after = wiring();
        effects.outputs = after.outputs;
        effects.output_changes = changes(before.outputs.value(), after.outputs.value());
        effects.input_resumed = before.looped && !after.looped;
        effects.transmitter_resumed = before.stopped && !after.stopped;
    }
    [[nodiscard]] static constexpr std::uint8_t changes(std::uint8_t before, std::uint8_t after) noexcept {
        return static_cast<std::uint8_t>(unsigned{before} ^ after);
    }
    // Called after bytes arrived or were read: automatic flow control may change RTS. It is inlined so that
    // the effects can stay in registers.
    [[gnu::always_inline]] constexpr void note_received(SerialEffects& effects) noexcept {
        if (auto_flow_control()) [[unlikely]] {
            const std::uint8_t before = modem_outputs().value();
            update_auto_rts();
            effects.outputs = modem_outputs();
            effects.output_changes = changes(before, effects.outputs.value());
        }
    }

    // --- The TL16C750's automatic flow control (its datasheet, "Autoflow control").

    [[nodiscard]] constexpr bool auto_flow_control() const noexcept {
        return modem_control()[uart16550::ModemControl::auto_flow_control];
    }
    // Auto-RTS: off from the trigger level on until the FIFO is empty.
    constexpr void update_auto_rts() noexcept {
        const bool automatic =
            auto_flow_control() && modem_control()[uart16550::ModemControl::request_to_send];
        state_.auto_rts_held = automatic && (state_.receive_count >= receive_trigger_ ||
                                             (state_.auto_rts_held && !receive_empty()));
    }

    // --- Effects of writes on the registers

    template <class R>
    static constexpr void guest_write(std::uint8_t& value, std::uint8_t written) noexcept {
        R reg(value);
        reg.guest_write(written);
        value = reg.value();
    }

    [[gnu::always_inline]] constexpr void set_fifo_control(std::uint8_t value,
                                                           SerialEffects& effects) noexcept {
        using uart16550::FifoControl;
        const FifoControl written(value);
        const bool enable = written[FifoControl::enable];
        const bool toggled = enable != fifo_enabled();
        const bool fifo_64 = divisor_latch_access() ? state_.fifo_64_allowed && written[FifoControl::fifo_64]
                                                    : fifo_control()[FifoControl::fifo_64];
        // The other bits are programmed only together with bit 0 (PC16550D 8.4).
        FifoControl control;
        if (enable) {
            control.guest_write(value);
            control.set(FifoControl::fifo_64, fifo_64);
        }
        state_.fifo_control = control.value();
        update_derived_values();
        // Enabling or disabling the FIFOs clears both.
        if (toggled || (enable && written[FifoControl::transmitter_reset])) {
            effects.fifo_reset = true;
            effects.bytes_dropped += state_.transmit_count;
            if (!transmit_empty()) {
                transmit_.clear(state_);
                state_.thr_empty_pending = true;
            }
        }
        if (toggled || (enable && written[FifoControl::receiver_reset])) {
            effects.fifo_reset = true;
            effects.bytes_dropped += state_.receive_count;
            receive_.clear(state_);
            state_.character_timeout = false;
            // These errors belong to a byte that was dropped; an overrun has still to be read.
            state_.line_errors &= uart16550::LineStatus::overrun_error.mask;
        }
    }

    constexpr void set_modem_control(std::uint8_t value) noexcept {
        using uart16550::ModemControl;
        const std::uint8_t lines_before = modem_lines();
        const bool automatic = state_.fifo_64_allowed && ModemControl(value)[ModemControl::auto_flow_control];
        ModemControl control = modem_control();
        control.guest_write(value);
        control.set(ModemControl::auto_flow_control, automatic);
        state_.modem_control = control.value();
        note_modem_change(lines_before);
    }
    // Sets the deltas: any change of CTS, DSR and DCD, and only the end of a ring. With automatic flow
    // control the transmitter handles CTS (TL16C750, MSR bit 0).
    constexpr void note_modem_change(std::uint8_t before) noexcept {
        using uart16550::ModemStatus;
        const std::uint8_t after = modem_lines();
        const unsigned changed = (unsigned{before} ^ after) & ~unsigned{ModemStatus::ring_indicator.mask};
        const unsigned ring_ended = unsigned{before} & ~unsigned{after} & ModemStatus::ring_indicator.mask;
        const unsigned hidden = auto_flow_control() && !looped() ? ModemStatus::clear_to_send.mask : 0U;
        state_.modem_deltas |=
            static_cast<std::uint8_t>(((changed & ~hidden) | ring_ended) >> ModemStatus::lines.shift);
    }
    // Called after FCR, the timeout's policy or the whole state changed.
    constexpr void update_derived_values() noexcept {
        const unsigned fifo_64 = fifo_control()[uart16550::FifoControl::fifo_64] ? 0x20U : 0U;
        identification_fifo_bits_ = static_cast<std::uint8_t>((fifo_enabled() ? 0xC0U : 0U) | fifo_64);
        receive_trigger_ = detail::receive_trigger_level(fifo_control());
        // With the FIFOs on, "data available" stays set until the level falls below the trigger. Otherwise
        // each read clears it, and the next byte sets it again.
        receive_hold_level_ =
            fifo_enabled() ? receive_trigger_ : static_cast<std::uint8_t>(receive_fifo_size + 1);
        // With the immediate timeout every byte interrupts, as "data available" or as the timeout.
        receive_interrupt_level_ =
            state_.receive_timeout == ReceiveTimeout::immediate ? std::uint8_t{1} : receive_trigger_;
    }

    SerialState state_;
    // Derived from the state; `restore` recomputes them.
    detail::SerialReceiveFifo receive_;
    detail::SerialTransmitFifo transmit_;
    std::uint8_t receive_trigger_{1};          // bytes for "data available"; follows from FCR
    std::uint8_t receive_interrupt_level_{1};  // bytes for any receive interrupt before the timeout
    // Bytes with which a read leaves "data available" set.
    std::uint8_t receive_hold_level_{receive_fifo_size + 1};
    std::uint8_t identification_fifo_bits_{0};  // IIR bits 7:5
};

}  // namespace vmsuperio::inline v0_2
