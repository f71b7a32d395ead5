// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>

#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/registers/uart16550.hpp>

namespace vmsuperio::inline v0_2 {

/// A character in the receive FIFO.
struct ReceivedCharacter {
    std::uint8_t byte{0};            ///< the byte
    uart16550::LineStatus errors{};  ///< PE, FE and BI, without those that the guest has read from LSR
};

/// The characters of a receive FIFO, the oldest first.
class ReceivedCharacters {
public:
    static constexpr std::size_t capacity = 64;  ///< the most that there can be: a whole FIFO

    /// How many there are.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr const ReceivedCharacter* begin() const noexcept { return &characters_[0]; }
    [[nodiscard]] constexpr const ReceivedCharacter* end() const noexcept { return &characters_[0] + size_; }

    /// There must be room.
    constexpr void push_back(ReceivedCharacter character) noexcept { characters_[size_++] = character; }

private:
    // NOLINTNEXTLINE(*-avoid-c-arrays): cheaper to compile than std::array
    ReceivedCharacter characters_[capacity]{};
    std::size_t size_{0};
};

/// The events that a `Serial` reports to its owner, for flow control and metrics.
///
/// - `buffer_read()`: the guest read a received byte.
/// - `out_byte()`: a byte reached the writer.
/// - `tx_lost_byte()`: a byte that the guest sent is lost, because the writer failed, because the policy does
///   not let bytes wait, or because the guest wrote to a full transmitter.
/// - `in_buffer_empty()`: the receive FIFO has become empty: offer more input.
///
/// Further members are called if the type has them; a member with one of these names and another signature
/// does not compile:
/// - `input_resumed()`: loopback ended, so that `enqueue_raw_bytes` takes input again.
/// - `overrun()`: a byte was lost because the receive FIFO had no room (LSR.OE).
/// - `break_received()`: a break entered the receive FIFO.
/// - `break_control(bool on)`: the guest began or ended sending a break (LCR bit 6); a reset ends one.
/// - `line_format_changed(uart16550::LineControl format)`: the guest, or a reset, changed word length, stop
///   bits or parity (LCR bits 5:0).
/// - `divisor_changed(std::uint16_t divisor)`: the guest, or a reset, changed the divisor; the baud rate is
///   115200 divided by it. A driver writes its two bytes separately, which are two changes.
/// - `data_terminal_ready(bool on)`, `request_to_send(bool on)`: the pin DTR or RTS changed, by a write of
///   MCR, with loopback, by automatic flow control, or by a reset.
/// - `dropped_bytes(std::size_t count)`: a FIFO reset by the guest discarded that many bytes.
/// - `characters_dropped(const ReceivedCharacters& characters)`: the received characters among them, the
///   oldest first, so that a console can offer them again.
/// - `fifo_reset()`: the guest cleared one or both FIFOs.
/// - `invalid_access()`: the guest accessed an offset above 7.
/// - `interrupt_raised()`: the interrupt line rose, or fell and rose at once.
/// - `trigger_failed()`: the trigger failed within a read, which cannot return the error.
/// - `host_error(HostErrorSource source)`: the trigger or the writer failed, in reads and in writes alike.
///
/// Events are reported after the registers and FIFOs have changed; only the interrupt line changes later. So
/// an event handler may read the device (`state()`, `peek()` and all other `const` members) and sees the
/// state after the access, except for `interrupt_line()`, which still returns the earlier level. It must not
/// call members that change the device, must not block and must not throw. A writer is called in the middle
/// of an access and a trigger at its end: neither may call the device.
template <class E>
concept SerialEvents = requires(E events) {
    events.buffer_read();
    events.out_byte();
    events.tx_lost_byte();
    events.in_buffer_empty();
};

/// Events that do nothing.
struct NoEvents {
    static constexpr void buffer_read() noexcept {}
    static constexpr void out_byte() noexcept {}
    static constexpr void tx_lost_byte() noexcept {}
    static constexpr void in_buffer_empty() noexcept {}
};
static_assert(SerialEvents<NoEvents>);

namespace detail {

/// Calls the events, the optional ones only if they exist.
template <SerialEvents E>
struct SerialEventCaller {
    E& events;

    constexpr void out_bytes(std::size_t count) const {
        for (std::size_t i = 0; i < count; ++i) {
            events.out_byte();
        }
    }
    constexpr void tx_lost_bytes(std::size_t count) const {
        for (std::size_t i = 0; i < count; ++i) {
            events.tx_lost_byte();
        }
    }
    constexpr void input_resumed() const {
        if constexpr (requires { events.input_resumed(); }) {
            events.input_resumed();
        }
    }
    constexpr void overruns(std::size_t count) const {
        if constexpr (requires { events.overrun(); }) {
            for (std::size_t i = 0; i < count; ++i) {
                events.overrun();
            }
        }
    }
    constexpr void break_received() const {
        if constexpr (requires { events.break_received(); }) {
            events.break_received();
        }
    }
    constexpr void break_control(bool on) const {
        if constexpr (requires { events.break_control(on); }) {
            events.break_control(on);
        }
    }
    constexpr void line_format_changed(uart16550::LineControl format) const {
        if constexpr (requires { events.line_format_changed(format); }) {
            events.line_format_changed(format);
        }
    }
    constexpr void divisor_changed(std::uint16_t divisor) const {
        if constexpr (requires { events.divisor_changed(divisor); }) {
            events.divisor_changed(divisor);
        }
    }
    constexpr void data_terminal_ready(bool on) const {
        if constexpr (requires { events.data_terminal_ready(on); }) {
            events.data_terminal_ready(on);
        }
    }
    constexpr void request_to_send(bool on) const {
        if constexpr (requires { events.request_to_send(on); }) {
            events.request_to_send(on);
        }
    }
    constexpr void dropped_bytes(std::size_t count) const {
        if constexpr (requires { events.dropped_bytes(count); }) {
            events.dropped_bytes(count);
        }
    }
    static constexpr bool wants_dropped_characters =
        requires(E& e, const ReceivedCharacters& characters) { e.characters_dropped(characters); };
    constexpr void fifo_reset() const {
        if constexpr (requires { events.fifo_reset(); }) {
            events.fifo_reset();
        }
    }
    constexpr void invalid_access() const {
        if constexpr (requires { events.invalid_access(); }) {
            events.invalid_access();
        }
    }
    constexpr void interrupt_raised() const {
        if constexpr (requires { events.interrupt_raised(); }) {
            events.interrupt_raised();
        }
    }
    constexpr void trigger_failed() const {
        if constexpr (requires { events.trigger_failed(); }) {
            events.trigger_failed();
        }
    }
    constexpr void host_error(HostErrorSource source) const {
        if constexpr (requires { events.host_error(source); }) {
            events.host_error(source);
        }
    }
};

/// Refuses events with an optional member that would never be called because it has another signature.
template <class E>
consteval bool check_optional_serial_events() {
    static_assert(
        requires(E& events) { events.input_resumed(); } || !requires { &E::input_resumed; },
        "the event cannot be called as input_resumed()");
    static_assert(
        requires(E& events) { events.overrun(); } || !requires { &E::overrun; },
        "the event cannot be called as overrun()");
    static_assert(
        requires(E& events) { events.break_received(); } || !requires { &E::break_received; },
        "the event cannot be called as break_received()");
    static_assert(
        requires(E& events) { events.break_control(true); } || !requires { &E::break_control; },
        "the event cannot be called as break_control(bool)");
    static_assert(
        requires(E& events, uart16550::LineControl format) { events.line_format_changed(format); } ||
            !requires { &E::line_format_changed; },
        "the event cannot be called as line_format_changed(uart16550::LineControl)");
    static_assert(
        requires(E& events, std::uint16_t divisor) { events.divisor_changed(divisor); } ||
            !requires { &E::divisor_changed; },
        "the event cannot be called as divisor_changed(std::uint16_t)");
    static_assert(
        requires(E& events) { events.data_terminal_ready(true); } || !requires { &E::data_terminal_ready; },
        "the event cannot be called as data_terminal_ready(bool)");
    static_assert(
        requires(E& events) { events.request_to_send(true); } || !requires { &E::request_to_send; },
        "the event cannot be called as request_to_send(bool)");
    static_assert(
        requires(E& events, std::size_t count) {
            events.dropped_bytes(count);
        } || !requires { &E::dropped_bytes; }, "the event cannot be called as dropped_bytes(std::size_t)");
    static_assert(
        requires(E& events, const ReceivedCharacters& characters) {
            events.characters_dropped(characters);
        } || !requires { &E::characters_dropped; },
        "the event cannot be called as characters_dropped(const ReceivedCharacters&)");
    static_assert(
        requires(E& events) { events.fifo_reset(); } || !requires { &E::fifo_reset; },
        "the event cannot be called as fifo_reset()");
    static_assert(
        requires(E& events) { events.invalid_access(); } || !requires { &E::invalid_access; },
        "the event cannot be called as invalid_access()");
    static_assert(
        requires(E& events) { events.interrupt_raised(); } || !requires { &E::interrupt_raised; },
        "the event cannot be called as interrupt_raised()");
    static_assert(
        requires(E& events) { events.trigger_failed(); } || !requires { &E::trigger_failed; },
        "the event cannot be called as trigger_failed()");
    static_assert(
        requires(E& events, HostErrorSource source) {
            events.host_error(source);
        } || !requires { &E::host_error; }, "the event cannot be called as host_error(HostErrorSource)");
    return true;
}

}  // namespace detail

/// A reference to events, so that several devices can share them. The events must outlive every copy of the
/// reference.
template <SerialEvents E>
class EventsRef {
    static_assert(detail::check_optional_serial_events<E>());

public:
    // NOLINTNEXTLINE(google-explicit-constructor): a reference to events is events
    /// Refers to an object that takes events, which must outlive this one.
    constexpr EventsRef(E& events) noexcept : events_(&events) {}

    constexpr void buffer_read() { events_->buffer_read(); }
    constexpr void out_byte() { events_->out_byte(); }
    constexpr void tx_lost_byte() { events_->tx_lost_byte(); }
    constexpr void in_buffer_empty() { events_->in_buffer_empty(); }
    constexpr void input_resumed() { caller().input_resumed(); }
    constexpr void overrun() { caller().overruns(1); }
    constexpr void break_received() { caller().break_received(); }
    constexpr void break_control(bool on) { caller().break_control(on); }
    constexpr void line_format_changed(uart16550::LineControl format) {
        caller().line_format_changed(format);
    }
    constexpr void divisor_changed(std::uint16_t divisor) { caller().divisor_changed(divisor); }
    constexpr void data_terminal_ready(bool on) { caller().data_terminal_ready(on); }
    constexpr void request_to_send(bool on) { caller().request_to_send(on); }
    constexpr void dropped_bytes(std::size_t count) { caller().dropped_bytes(count); }
    constexpr void characters_dropped(const ReceivedCharacters& characters)
        requires detail::SerialEventCaller<E>::wants_dropped_characters
    {
        events_->characters_dropped(characters);
    }
    constexpr void fifo_reset() { caller().fifo_reset(); }
    constexpr void invalid_access() { caller().invalid_access(); }
    constexpr void interrupt_raised() { caller().interrupt_raised(); }
    constexpr void trigger_failed() { caller().trigger_failed(); }
    constexpr void host_error(HostErrorSource source) { caller().host_error(source); }

private:
    [[nodiscard]] constexpr detail::SerialEventCaller<E> caller() const { return {*events_}; }

    E* events_;
};
static_assert(SerialEvents<EventsRef<NoEvents>>);

}  // namespace vmsuperio::inline v0_2
