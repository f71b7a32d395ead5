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

#include <vmsuperio/registers/uart16550.hpp>

#include "console/input_queue.hpp"

namespace kvm_vmm {

/// A UART that loses none of the host's input, however early it comes.
///
/// A driver that opens a port clears the receiver's FIFO several times and reads RBR to discard old bytes.
/// What was typed until then, or piped in before the kernel was up, would go with it. So input waits until
/// the guest is seen to listen: it has receive interrupts on, or it polls LSR in a loop. A guest may listen
/// in ways that nobody sees, so input does not wait for ever: `presume_listening()` has it delivered all the
/// same, until the guest programs its FIFOs (FCR) again. And what a FIFO reset throws away unread comes back
/// to the front of the input, as if its sender had been a little slower.
///
/// A BREAK has its place among the bytes, and waits with them.
template <class Serial>
class ConsoleUart {
public:
    /// `input_wanted` is called, in the guest's access, when take_input() may get on again.
    ConsoleUart(Serial serial, std::function<void()> input_wanted)
        : serial_(std::move(serial)), input_wanted_(std::move(input_wanted)) {}

    [[nodiscard]] Serial& serial() noexcept { return serial_; }
    [[nodiscard]] const Serial& serial() const noexcept { return serial_; }

    std::uint8_t read(std::uint8_t offset) {
        const std::size_t before = queued();
        const std::uint8_t value = serial_.read(offset);
        if (queued() < before) {
            (void)fifo_.pop();
        }
        if (offset == vmsuperio::uart16550::offset::line_status) {
            note_poll(vmsuperio::uart16550::LineStatus(value));
        }
        wake_if_wanted();
        return value;
    }

    auto write(std::uint8_t offset, std::uint8_t value) {
        const std::size_t before = queued();
        auto result = serial_.write(offset, value);
        if (offset == vmsuperio::uart16550::offset::transmitter_holding) {
            idle_polls_ = 0;
            note_loopback(before);
        } else {
            note_set_up(offset, before);
        }
        wake_if_wanted();
        return result;
    }

    auto write_data(std::span<const std::uint8_t> bytes) {
        const std::size_t before = queued();
        idle_polls_ = 0;
        auto result = serial_.write_data(bytes);
        note_loopback(before);
        return result;
    }

    /// How many items take_input() would take now. With 0, `input_wanted` tells when to ask again.
    [[nodiscard]] std::size_t input_room() {
        redeliver();
        const std::size_t room = can_receive() && returned_.size() == 0 ? serial_.fifo_capacity() : 0;
        waiting_ = room == 0;
        return room;
    }

    /// Host input for the guest; tells how many items of it were taken.
    [[nodiscard]] std::size_t take_input(std::span<const InputItem> items) {
        std::size_t taken = 0;
        while (taken < items.size() && input_room() != 0) {
            const std::size_t count = deliver(items.subspan(taken));
            if (count == 0) {
                waiting_ = true;
                break;
            }
            taken += count;
        }
        return taken;
    }

    /// From now on input is delivered whether or not the guest is seen to listen, until it programs its
    /// FIFOs.
    void presume_listening() noexcept { presumed_ = true; }
    [[nodiscard]] bool is_presumed_listening() const noexcept { return presumed_; }
    /// When the guest programmed its FIFOs last; at first, when this object was made.
    [[nodiscard]] std::chrono::steady_clock::time_point fifo_programmed_at() const noexcept {
        return fifo_programmed_at_;
    }

private:
    static constexpr std::size_t capacity = Serial::receive_fifo_size;
    // A transmitter is waited for in one or two reads of LSR; a loop of this many is after input.
    static constexpr unsigned polling = 16;

    struct Entry {
        InputItem item;
        bool from_host;
    };
    class Queue {
    public:
        [[nodiscard]] std::size_t size() const noexcept { return size_; }
        void push(Entry entry) noexcept {
            if (size_ < capacity) {
                entries_[(head_ + size_++) % capacity] = entry;
            }
        }
        Entry pop() noexcept {
            const Entry entry = entries_[head_];
            if (size_ != 0) {
                head_ = (head_ + 1) % capacity;
                --size_;
            }
            return entry;
        }

    private:
        std::array<Entry, capacity> entries_{};
        std::size_t head_{0};
        std::size_t size_{0};
    };

    [[nodiscard]] std::size_t queued() const { return capacity - serial_.fifo_capacity(); }
    [[nodiscard]] bool listening() const noexcept {
        return receive_interrupt_ || idle_polls_ >= polling || presumed_;
    }
    // In loopback mode the line is disconnected.
    [[nodiscard]] bool can_receive() const {
        using namespace vmsuperio::uart16550;
        return listening() && !ModemControl(serial_.peek(offset::modem_control))[ModemControl::loopback];
    }

    // The bytes up to the next BREAK, or that BREAK, as far as there is room; tells how many items.
    std::size_t deliver(std::span<const InputItem> items) {
        std::array<std::uint8_t, capacity> bytes{};
        std::size_t count = 0;
        while (count < std::min(items.size(), capacity) && !items[count].is_break) {
            bytes[count] = items[count].byte;
            ++count;
        }
        if (count == 0) {
            count = serial_.fifo_capacity() != 0 ? 1 : 0;
            if (count != 0) {
                // An error is of the interrupt's trigger: the BREAK has arrived all the same.
                (void)serial_.send_break();
            }
        } else {
            const std::size_t before = queued();
            (void)serial_.enqueue_raw_bytes(std::span(bytes).first(count));
            count = queued() - before;
        }
        for (const InputItem item : items.first(count)) {
            fifo_.push({.item = item, .from_host = true});
        }
        return count;
    }

    void note_poll(vmsuperio::uart16550::LineStatus status) {
        using vmsuperio::uart16550::LineStatus;
        if (!status[LineStatus::data_ready] && status[LineStatus::thr_empty]) {
            idle_polls_ = std::min(idle_polls_ + 1, polling);
        }
    }

    // In loopback mode the guest's own bytes are in the FIFO, between those of the host.
    void note_loopback(std::size_t before) {
        for (std::size_t i = before; i < queued(); ++i) {
            fifo_.push({.item = {}, .from_host = false});
        }
    }

    void note_set_up(std::uint8_t offset, std::size_t before) {
        using namespace vmsuperio::uart16550;
        if (offset == offset::fifo_control) {
            fifo_programmed_at_ = std::chrono::steady_clock::now();
            // The owner has to see to it that the wait comes to its end again.
            if (std::exchange(presumed_, false)) {
                input_wanted_();
            }
        }
        if (!LineControl(serial_.peek(offset::line_control))[LineControl::divisor_latch_access]) {
            receive_interrupt_ =
                InterruptEnable(serial_.peek(offset::interrupt_enable))[InterruptEnable::received_data];
        }
        if (before != 0 && queued() == 0) {
            return_unread();
        }
    }

    void return_unread() {
        // What was returned earlier and not delivered again since is younger than what is in the FIFO.
        Queue all;
        for (Queue* const queue : {&fifo_, &returned_}) {
            while (queue->size() != 0) {
                if (const Entry entry = queue->pop(); entry.from_host) {
                    all.push(entry);
                }
            }
        }
        returned_ = all;
        waiting_ = waiting_ || returned_.size() != 0;
    }

    void redeliver() {
        while (returned_.size() != 0 && can_receive()) {
            Queue rest = returned_;
            const InputItem item = rest.pop().item;
            if (deliver({&item, 1}) == 0) {
                return;
            }
            returned_ = rest;
        }
    }

    // Any access may be the one that input waits for: the last byte read, loopback left, interrupts on.
    void wake_if_wanted() {
        if (waiting_ && can_receive() && (returned_.size() != 0 || queued() == 0)) {
            waiting_ = false;
            input_wanted_();
        }
    }

    Serial serial_;
    std::function<void()> input_wanted_;
    Queue fifo_;      // what the UART's receiver FIFO holds, and where that is from
    Queue returned_;  // thrown away unread
    unsigned idle_polls_{0};
    bool receive_interrupt_{false};
    bool presumed_{false};
    std::chrono::steady_clock::time_point fifo_programmed_at_{std::chrono::steady_clock::now()};
    bool waiting_{false};
};

}  // namespace kvm_vmm
