// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_events.hpp>

#include "console/input_queue.hpp"

namespace kvm_vmm {

/// The events of a console's UART. They keep the host's input that a FIFO reset discards, and pass all other
/// events to `Metrics`.
template <class Metrics>
class ConsoleEvents : public vmsuperio::EventsRef<Metrics> {
public:
    using vmsuperio::EventsRef<Metrics>::EventsRef;

    void buffer_read() {
        looped_back_ >>= 1U;
        vmsuperio::EventsRef<Metrics>::buffer_read();
    }
    void characters_dropped(const vmsuperio::ReceivedCharacters& characters) {
        for (const vmsuperio::ReceivedCharacter& character : characters) {
            if ((std::exchange(looped_back_, looped_back_ >> 1U) & 1U) == 0) {
                using vmsuperio::uart16550::LineStatus;
                discarded_.push_back(
                    {.byte = character.byte, .is_break = character.errors[LineStatus::break_interrupt]});
            }
        }
    }

    /// The guest sent `count` characters to itself, in loopback mode: they are in the FIFO behind `queued`
    /// others, and are not the host's input.
    void note_loopback(std::size_t queued, std::size_t count) noexcept {
        for (std::size_t i = queued; i < queued + count; ++i) {
            looped_back_ |= std::uint64_t{1} << i;
        }
    }

    /// The host's input that FIFO resets have discarded, oldest first.
    [[nodiscard]] bool has_discarded() const noexcept { return !discarded_.empty(); }
    [[nodiscard]] std::vector<InputItem> take_discarded() noexcept { return std::exchange(discarded_, {}); }

private:
    std::uint64_t looped_back_{0};  // bit n: the n-th character in the receive FIFO came from loopback
    std::vector<InputItem> discarded_;
};

/// Decides when the host's input may be delivered to the guest.
///
/// A driver that opens a port clears the receive FIFO several times and reads RBR to discard old characters,
/// and earlier input would be lost. So input waits until the guest is recognised as listening: it has enabled
/// receive interrupts, or it polls LSR in a loop. Because a guest may listen in ways that cannot be
/// recognised, input waits no longer than `patience` after the guest has last programmed its FIFOs (FCR), and
/// no longer than `patience_limit` times that if it programs them repeatedly.
class ListeningGuest {
public:
    using Clock = std::chrono::steady_clock;
    static constexpr int patience_limit = 10;

    explicit ListeningGuest(std::chrono::milliseconds patience) : patience_(patience) {}

    [[nodiscard]] bool is_listening() const noexcept {
        return receive_interrupt_ || idle_polls_ >= polling || presumed_;
    }
    /// The time at which to presume that the guest listens, unless it programs its FIFOs again before.
    [[nodiscard]] Clock::time_point deadline() const noexcept {
        return std::min(programmed_at_ + patience_, programming_since_ + patience_limit * patience_);
    }
    /// Presumes that the guest listens if the deadline has passed. Returns whether input must continue to
    /// wait.
    bool must_wait(Clock::time_point now) noexcept {
        presumed_ = presumed_ || deadline() <= now;
        return !presumed_;
    }

    void note_line_status(vmsuperio::uart16550::LineStatus status) noexcept {
        using vmsuperio::uart16550::LineStatus;
        if (!status[LineStatus::data_ready] && status[LineStatus::thr_empty]) {
            idle_polls_ = std::min(idle_polls_ + 1, polling);
        }
    }
    void note_output() noexcept { idle_polls_ = 0; }
    void note_interrupt_enable(vmsuperio::uart16550::InterruptEnable enable) noexcept {
        receive_interrupt_ = enable[vmsuperio::uart16550::InterruptEnable::received_data];
    }
    void note_fifo_control(Clock::time_point now) noexcept {
        if (now - programmed_at_ >= patience_) {
            programming_since_ = now;
        }
        programmed_at_ = now;
        presumed_ = false;
    }

private:
    // A driver that waits for the transmitter reads LSR once or twice; this many reads are a wait for input.
    static constexpr unsigned polling = 16;

    std::chrono::milliseconds patience_;
    Clock::time_point programmed_at_{Clock::now()};        // last write to FCR; initially the creation
    Clock::time_point programming_since_{programmed_at_};  // first of those with pauses below `patience_`
    unsigned idle_polls_{0};
    bool receive_interrupt_{false};
    bool presumed_{false};
};

/// A UART that loses none of the host's input, however early it arrives: it takes input when the guest
/// listens, and returns input that the guest discards unread to the queue, to be delivered again.
///
/// A BREAK keeps its position among the bytes and waits with them.
template <class Serial>
class ConsoleUart {
public:
    /// `input_wanted` is called, in the guest's access, when take_input() may take more than before.
    ConsoleUart(Serial serial, std::chrono::milliseconds patience, std::function<void()> input_wanted)
        : serial_(std::move(serial)), guest_(patience), input_wanted_(std::move(input_wanted)) {}

    [[nodiscard]] Serial& serial() noexcept { return serial_; }
    [[nodiscard]] const Serial& serial() const noexcept { return serial_; }
    [[nodiscard]] ListeningGuest& guest() noexcept { return guest_; }

    std::uint8_t read(std::uint8_t offset) {
        const std::uint8_t value = serial_.read(offset);
        if (offset == vmsuperio::uart16550::offset::line_status) {
            guest_.note_line_status(vmsuperio::uart16550::LineStatus(value));
        }
        wake_if_wanted();
        return value;
    }

    auto write(std::uint8_t offset, std::uint8_t value) {
        const std::size_t queued_before = queued();
        auto result = serial_.write(offset, value);
        if (offset == vmsuperio::uart16550::offset::transmitter_holding) {
            note_output(queued_before);
        } else {
            note_set_up(offset);
        }
        wake_if_wanted();
        return result;
    }

    auto write_data(std::span<const std::uint8_t> bytes) {
        const std::size_t queued_before = queued();
        auto result = serial_.write_data(bytes);
        note_output(queued_before);
        return result;
    }

    /// How many items take_input() would take now. If it is 0, `input_wanted` is called when that may have
    /// changed.
    [[nodiscard]] std::size_t input_room() {
        const std::size_t room = can_receive() ? serial_.receive_fifo_room() : 0;
        waiting_ = room == 0;
        return room;
    }

    /// Delivers host input from the front of `queue` to the guest. Before that, it puts back into `queue` the
    /// input that the guest has discarded unread.
    void take_input(InputQueue& queue) {
        queue.put_back(serial_.events().take_discarded());
        while (!queue.empty() && input_room() != 0) {
            deliver(queue);
        }
    }

private:
    [[nodiscard]] std::size_t queued() const noexcept {
        return Serial::receive_fifo_size - serial_.receive_fifo_room();
    }
    // In loopback mode the line is disconnected.
    [[nodiscard]] bool looped() const {
        using namespace vmsuperio::uart16550;
        return ModemControl(serial_.peek(offset::modem_control))[ModemControl::loopback];
    }
    [[nodiscard]] bool can_receive() const {
        return guest_.is_listening() && !serial_.events().has_discarded() && !looped();
    }

    // Delivers the bytes up to the next BREAK, or that BREAK. There must be room for one item. An error can
    // only be that of the interrupt trigger, which is counted: the input has arrived nevertheless.
    void deliver(InputQueue& queue) {
        if (queue.front().is_break) {
            queue.pop();
            (void)serial_.send_break();
            return;
        }
        std::array<std::uint8_t, Serial::receive_fifo_size> bytes{};
        std::size_t count = 0;
        for (const std::size_t room = serial_.receive_fifo_room();
             count < room && !queue.empty() && !queue.front().is_break; ++count) {
            bytes.at(count) = queue.front().byte;
            queue.pop();
        }
        (void)serial_.enqueue_raw_bytes(std::span(bytes).first(count));
    }

    void note_output(std::size_t queued_before) {
        guest_.note_output();
        // Only in loopback mode does a write fill the receive FIFO.
        serial_.events().note_loopback(queued_before, queued() - queued_before);
    }

    void note_set_up(std::uint8_t offset) {
        using namespace vmsuperio::uart16550;
        if (offset == offset::fifo_control) {
            guest_.note_fifo_control(ListeningGuest::Clock::now());
            // The wait has a new deadline now, and there may be discarded input to deliver again.
            waiting_ = false;
            input_wanted_();
        }
        if (!LineControl(serial_.peek(offset::line_control))[LineControl::divisor_latch_access]) {
            guest_.note_interrupt_enable(InterruptEnable(serial_.peek(offset::interrupt_enable)));
        }
    }

    // Any access may be the one for which input waits: one that reads the last character, leaves loopback
    // mode or enables interrupts.
    void wake_if_wanted() {
        if (waiting_ && queued() == 0 && can_receive()) {
            waiting_ = false;
            input_wanted_();
        }
    }

    Serial serial_;
    ListeningGuest guest_;
    std::function<void()> input_wanted_;
    bool waiting_{false};
};

}  // namespace kvm_vmm
