// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include <vmsuperio/registers/uart16550.hpp>

namespace kvm_vmm {

/// A UART that loses none of the host's input, however early it comes.
///
/// A driver that opens a port clears the receiver's FIFO several times and reads RBR to be rid of old bytes.
/// What was typed until then, or piped in before the kernel was up, would go with it. So input is taken only
/// while the guest listens: it has receive interrupts on, or keeps polling LSR. And host bytes that a FIFO
/// reset throws away unread come back to the front of the input, as if their sender had been a little slower.
template <class Serial>
class ConsoleUart {
public:
    /// `input_wanted` is called, in the guest's access, when take_input() may get on again.
    ConsoleUart(Serial serial, std::function<void()> input_wanted)
        : serial_(std::move(serial)), input_wanted_(std::move(input_wanted)) {}

    [[nodiscard]] Serial& serial() noexcept { return serial_; }

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
            note_set_up(before);
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

    /// How many bytes take_input() would take now. With 0, `input_wanted` tells when to ask again.
    [[nodiscard]] std::size_t input_room() {
        redeliver();
        const std::size_t room = listening() && returned_.size() == 0 ? serial_.fifo_capacity() : 0;
        waiting_ = room == 0;
        return room;
    }

    /// Host input for the guest; tells how many bytes of it were taken.
    [[nodiscard]] std::size_t take_input(std::span<const std::uint8_t> bytes) {
        const auto taken = serial_.enqueue_raw_bytes(bytes.first(std::min(bytes.size(), input_room())));
        const std::size_t count = taken ? *taken : 0;
        for (const std::uint8_t byte : bytes.first(count)) {
            fifo_.push({byte, true});
        }
        waiting_ = waiting_ || count < bytes.size();
        return count;
    }

    void send_break() {
        const std::size_t before = queued();
        (void)serial_.send_break();
        if (queued() > before) {
            fifo_.push({0, false});
        }
    }

private:
    static constexpr std::size_t capacity = Serial::receive_fifo_size;
    // A transmitter is waited for in one or two reads of LSR; a loop of this many is after input.
    static constexpr unsigned polling = 16;

    struct Entry {
        std::uint8_t byte;
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
    [[nodiscard]] bool listening() const noexcept { return receive_interrupt_ || idle_polls_ >= polling; }

    void note_poll(vmsuperio::uart16550::LineStatus status) {
        using vmsuperio::uart16550::LineStatus;
        if (!status[LineStatus::data_ready] && status[LineStatus::thr_empty]) {
            idle_polls_ = std::min(idle_polls_ + 1, polling);
        }
    }

    // In loopback mode the guest's own bytes are in the FIFO, between those of the host.
    void note_loopback(std::size_t before) {
        for (std::size_t i = before; i < queued(); ++i) {
            fifo_.push({0, false});
        }
    }

    void note_set_up(std::size_t before) {
        using namespace vmsuperio::uart16550;
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
        while (returned_.size() != 0 && listening() && serial_.fifo_capacity() != 0) {
            Queue rest = returned_;
            const Entry entry = rest.pop();
            const auto taken = serial_.enqueue_raw_bytes({&entry.byte, 1});
            if (!taken || *taken == 0) {
                return;
            }
            fifo_.push(entry);
            returned_ = rest;
        }
    }

    // Any access may be the one that input waits for: the last byte read, loopback left, interrupts on.
    void wake_if_wanted() {
        if (waiting_ && listening() && (returned_.size() != 0 || queued() == 0)) {
            waiting_ = false;
            input_wanted_();
        }
    }

    Serial serial_;
    std::function<void()> input_wanted_;
    Queue fifo_;      // what the UART's receiver FIFO holds, and whose bytes these are
    Queue returned_;  // thrown away unread
    unsigned idle_polls_{0};
    bool receive_interrupt_{false};
    bool waiting_{false};
};

}  // namespace kvm_vmm
