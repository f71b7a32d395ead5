// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "support/world.hpp"

/// A second UART, written from the PC16550D datasheet (and the TL16C750's for the 64-byte mode) to be simple
/// and slow, as an oracle for `vmsuperio::Serial`. It shares no code and no representation with it: it has
/// queues of bytes, and a wire whose level is recomputed after every step of the chip.
///
/// If the library states a deviation or a choice of its own, the model follows it, and a comment says so.
namespace fuzz::model {

class SerialModel {
public:
    explicit SerialModel(World& world) : world_(world) {}

    // --- the guest

    std::uint8_t read(unsigned offset) {
        const std::uint8_t value = peek(offset);
        if (offset == 0 && !dlab() && !received_.empty()) {
            take_received();
        } else if (offset == 2 && (value & 0x0F) == 0x2) {  // "reading IIR if source of interrupt"
            thr_interrupt_ = false;
        } else if (offset == 5) {
            line_errors_ = 0;
        } else if (offset == 6) {
            deltas_ = 0;
        }
        wire();
        return value;
    }

    [[nodiscard]] std::uint8_t peek(unsigned offset) const {
        switch (offset) {
            case 0:
                return dlab() ? dll_ : received_.empty() ? std::uint8_t{0} : received_.front().byte;
            case 1:
                return dlab() ? dlm_ : ier_;
            case 2:
                return iir();
            case 3:
                return lcr_;
            case 4:
                return mcr_;
            case 5:
                return lsr();
            case 6:
                return static_cast<std::uint8_t>(lines() | deltas_);
            case 7:
                return scr_;
            default:
                return 0;
        }
    }

    void write(unsigned offset, std::uint8_t value) {
        switch (offset) {
            case 0:
                if (dlab()) {
                    dll_ = value;
                } else {
                    send({&value, 1});
                }
                break;
            case 1:
                if (dlab()) {
                    dlm_ = value;
                } else {
                    // Enabling the THRE interrupt while the THR is empty interrupts (all drivers rely on it).
                    if ((ier_ & 2) == 0 && (value & 2) != 0 && waiting_.empty()) {
                        thr_interrupt_ = true;
                    }
                    ier_ = value & 0x0F;
                }
                break;
            case 2:
                write_fcr(value);
                break;
            case 3:
                lcr_ = value;
                break;
            case 4: {
                const std::uint8_t before = lines();
                const bool was_stopped = stopped();
                mcr_ = static_cast<std::uint8_t>(value & (allow_64_ ? 0x3F : 0x1F));
                note_deltas(before);
                if (was_stopped && !stopped()) {
                    drain();
                }
                break;
            }
            case 7:
                scr_ = value;
                break;
            default:
                break;
        }
        wire();
    }

    void write_data(std::span<const std::uint8_t> bytes) {
        if (bytes.empty()) {
            return;
        }
        if (dlab()) {
            dll_ = bytes.back();
        } else {
            send(bytes);
        }
        wire();
    }

    // --- the host

    /// Returns how many bytes fitted, or nothing if the FIFO was full.
    std::optional<std::size_t> enqueue(std::span<const std::uint8_t> bytes) {
        if (bytes.empty() || loop()) {
            return 0;
        }
        if (received_.size() == 64) {
            return std::nullopt;
        }
        std::size_t count = 0;
        for (const std::uint8_t byte : bytes) {
            if (received_.size() == 64) {
                break;
            }
            receive(byte, 0);
            ++count;
        }
        wire();
        return count;
    }
    /// Returns false if the FIFO was full.
    bool receive_with_errors(std::uint8_t byte, std::uint8_t errors) {
        if (loop()) {
            return true;
        }
        if (received_.size() == 64) {
            return false;
        }
        receive(byte, errors & 0x1C);
        wire();
        return true;
    }
    void resume_transmit() {
        drain();
        wire();
    }
    void character_timeout() {
        if (timeout_armed()) {
            timeout_ = true;
        }
        wire();
    }
    void set_modem_lines(std::uint8_t value) {
        const std::uint8_t before = lines();
        const bool was_stopped = stopped();
        inputs_ = value & 0xF0;
        note_deltas(before);
        if (was_stopped && !stopped()) {
            drain();
        }
        wire();
    }
    void set_drop_policy(bool drop) {
        drop_ = drop;
        if (drop && !waiting_.empty()) {
            lose(waiting_.size());
            waiting_.clear();
            thr_interrupt_ = true;
        }
        wire();
    }
    void set_immediate_timeout(bool immediate) {
        immediate_ = immediate;
        wire();
    }
    void allow_64(bool allow) {
        allow_64_ = allow;
        if (!allow) {
            const bool was_stopped = stopped();
            fcr_ &= 0xDF;
            mcr_ &= 0xDF;
            if (was_stopped) {
                drain();
            }
        }
        wire();
    }
    void connect_always(bool always) {
        always_connected_ = always;
        wire();
    }
    /// A hardware reset: the host's settings stay.
    void reset() {
        if (!received_.empty()) {
            ++world_.emptied;
        }
        SerialModel fresh(world_);
        received_ = fresh.received_;
        waiting_ = fresh.waiting_;
        ier_ = fresh.ier_;
        fcr_ = fresh.fcr_;
        lcr_ = fresh.lcr_;
        mcr_ = fresh.mcr_;
        scr_ = fresh.scr_;
        dll_ = fresh.dll_;
        dlm_ = fresh.dlm_;
        line_errors_ = 0;
        deltas_ = 0;
        thr_interrupt_ = false;
        timeout_ = false;
        ++activity_;
        wire();
    }
    /// Saved and restored: the new wire starts low.
    void restore() {
        level_ = false;
        timer_started_.reset();
        wire();
    }

    /// The clock shows `now`. The character timeout occurs after four character times without a received or
    /// read byte. The timer runs from the poll that first detects the activity (stated by SerialTimeout).
    void poll(std::int64_t now) {
        if (!timeout_armed()) {
            timer_started_.reset();
            return;
        }
        if (!timer_started_ || timer_activity_ != activity_) {
            timer_started_ = now;
            timer_activity_ = activity_;
        }
        if (now < *timer_started_ || now - *timer_started_ >= timeout_length()) {
            timer_started_.reset();
            character_timeout();
        }
    }

    [[nodiscard]] bool level() const { return level_; }
    [[nodiscard]] std::size_t receive_room() const { return 64 - received_.size(); }
    [[nodiscard]] std::size_t transmit_room() const {
        return waiting_.size() < depth() ? depth() - waiting_.size() : 0;
    }
    [[nodiscard]] bool transmit_pending() const { return !waiting_.empty(); }
    /// The modem outputs are off in loopback; the TL16C750 deasserts RTS while its FIFO is full enough.
    [[nodiscard]] std::uint8_t outputs() const {
        return static_cast<std::uint8_t>(loop() ? 0 : mcr_ & (rts_held_ ? 0x0D : 0x0F));
    }

private:
    struct Received {
        std::uint8_t byte;
        std::uint8_t errors;  // PE, FE, BI
    };

    [[nodiscard]] bool dlab() const { return (lcr_ & 0x80) != 0; }
    [[nodiscard]] bool loop() const { return (mcr_ & 0x10) != 0; }
    // TL16C750, MCR bit 5: CTS stops the transmitter, the FIFO's level RTS.
    [[nodiscard]] bool automatic() const { return (mcr_ & 0x20) != 0; }
    [[nodiscard]] bool stopped() const { return automatic() && !loop() && (inputs_ & 0x10) == 0; }
    [[nodiscard]] bool fifo() const { return (fcr_ & 0x01) != 0; }
    [[nodiscard]] std::size_t depth() const { return !fifo() ? 1 : (fcr_ & 0x20) != 0 ? 64 : 16; }
    [[nodiscard]] std::size_t trigger_level() const {
        if (!fifo()) {
            return 1;
        }
        switch (fcr_ >> 6) {
            case 0:
                return 1;
            case 1:
                return (fcr_ & 0x20) != 0 ? 16 : 4;
            case 2:
                return (fcr_ & 0x20) != 0 ? 32 : 8;
            default:
                return (fcr_ & 0x20) != 0 ? 56 : 14;
        }
    }
    [[nodiscard]] bool timeout_armed() const {
        return fifo() && !received_.empty() && !timeout_ && !immediate_;
    }
    [[nodiscard]] std::int64_t timeout_length() const {
        const unsigned word = 5U + (lcr_ & 3U);
        const unsigned stop_half_bits = (lcr_ & 4U) == 0 ? 2 : word == 5 ? 3 : 4;
        const unsigned half_bits = 2U * (1U + word + ((lcr_ & 8U) != 0 ? 1U : 0U)) + stop_half_bits;
        const unsigned divisor = dlm_ * 256U + dll_;
        // Half bits of 8 clocks of 1.8432 MHz; the divisor 0 counts as 1 (a choice of the library).
        return static_cast<std::int64_t>(std::uint64_t{4} * half_bits * 8U * (divisor == 0 ? 1U : divisor) *
                                         1'000'000'000U / 1'843'200U);
    }

    // Table IV, from the highest priority down. `receiver_busy`: RBR is being read.
    [[nodiscard]] std::uint8_t interrupt_id(bool receiver_busy = false) const {
        if ((ier_ & 4) != 0 && line_errors_ != 0) {
            return 0x6;
        }
        if ((ier_ & 1) != 0 && !receiver_busy) {
            if (received_.size() >= trigger_level()) {
                return 0x4;
            }
            if (fifo() && !received_.empty() && (timeout_ || immediate_)) {
                return 0xC;
            }
        }
        if ((ier_ & 2) != 0 && thr_interrupt_) {
            return 0x2;
        }
        if ((ier_ & 8) != 0 && deltas_ != 0) {
            return 0x0;
        }
        return 0x1;
    }
    [[nodiscard]] std::uint8_t iir() const {
        return static_cast<std::uint8_t>((fifo() ? 0xC0 : 0) | (fcr_ & 0x20) | interrupt_id());
    }
    [[nodiscard]] std::uint8_t lsr() const {
        bool error_in_fifo = (line_errors_ & 0x1C) != 0;
        for (const Received& one : received_) {
            error_in_fifo = error_in_fifo || one.errors != 0;
        }
        return static_cast<std::uint8_t>((received_.empty() ? 0 : 0x01) | line_errors_ |
                                         (waiting_.empty() ? 0x60 : 0) |
                                         (fifo() && error_in_fifo ? 0x80 : 0));
    }
    [[nodiscard]] std::uint8_t lines() const {
        if (!loop()) {
            return inputs_;
        }
        return static_cast<std::uint8_t>(((mcr_ & 2) != 0 ? 0x10 : 0) |  // RTS to CTS
                                         ((mcr_ & 1) != 0 ? 0x20 : 0) |  // DTR to DSR
                                         ((mcr_ & 4) != 0 ? 0x40 : 0) |  // OUT1 to RI
                                         ((mcr_ & 8) != 0 ? 0x80 : 0));  // OUT2 to DCD
    }
    void note_deltas(std::uint8_t before) {
        const std::uint8_t after = lines();
        for (const unsigned line : {4U, 5U, 7U}) {
            if (line == 4U && automatic() && !loop()) {
                continue;  // "when autoflow control is enabled, no interrupt is generated"
            }
            if (((before >> line) & 1) != ((after >> line) & 1)) {
                deltas_ |= static_cast<std::uint8_t>(1U << (line - 4U));
            }
        }
        if ((before & 0x40) != 0 && (after & 0x40) == 0) {  // TERI: the trailing edge only
            deltas_ |= 0x04;
        }
    }

    // The wire, which a PC gates with OUT2.
    void wire(bool receiver_busy = false) {
        if (!automatic() || (mcr_ & 2) == 0 || received_.empty()) {
            rts_held_ = false;
        } else if (received_.size() >= trigger_level()) {
            rts_held_ = true;
        }
        const bool level = interrupt_id(receiver_busy) != 0x1 && ((mcr_ & 8) != 0 || always_connected_);
        if (level && !level_) {
            ++world_.edges;
        }
        level_ = level;
    }

    void show_errors_of_front() {
        if (!received_.empty()) {
            line_errors_ |= received_.front().errors;
            received_.front().errors = 0;
        }
    }
    void receive(std::uint8_t byte, std::uint8_t errors) {
        received_.push_back({byte, errors});
        ++activity_;
        if (received_.size() == 1) {
            show_errors_of_front();
        }
    }
    void take_received() {
        received_.pop_front();
        ++activity_;
        ++world_.buffer_reads;
        world_.emptied += received_.empty() ? 1U : 0U;
        timeout_ = false;
        show_errors_of_front();
        // In FIFO mode "data available" falls when the FIFO "drops below the trigger level"; without it, it
        // falls with every byte read, and rises with the next.
        if (!fifo() || received_.size() < trigger_level()) {
            wire(true);
        }
    }

    void write_fcr(std::uint8_t value) {
        const bool enable = (value & 1) != 0;
        const bool toggled = enable != fifo();
        const std::uint8_t mode_64 = dlab() ? (allow_64_ ? value & 0x20 : 0) : fcr_ & 0x20;
        fcr_ = enable ? static_cast<std::uint8_t>((value & 0xC9) | mode_64) : std::uint8_t{0};
        if (toggled || (enable && (value & 2) != 0)) {
            world_.emptied += received_.empty() ? 0U : 1U;
            world_.dropped += received_.size();
            received_.clear();
            ++activity_;
            timeout_ = false;
            line_errors_ &= 0x02;  // the errors were those of a byte that is gone
        }
        if (toggled || (enable && (value & 4) != 0)) {
            world_.dropped += waiting_.size();
            if (!waiting_.empty()) {
                waiting_.clear();
                thr_interrupt_ = true;
            }
        }
    }

    void lose(std::size_t count) { world_.lost_bytes += count; }

    // Returns true if the writer failed, and everything that waited is lost.
    bool drain() {
        while (!waiting_.empty() && !stopped() && (world_.room != 0 || world_.write_fails)) {
            const std::uint8_t byte = waiting_.front();
            const vmsuperio::WriteResult taken = Sink{&world_}.write({&byte, 1});
            if (!taken) {
                lose(waiting_.size());
                waiting_.clear();
                thr_interrupt_ = true;
                return true;
            }
            ++world_.out_bytes;
            waiting_.pop_front();
            thr_interrupt_ = thr_interrupt_ || waiting_.empty();
        }
        return false;
    }

    void send(std::span<const std::uint8_t> bytes) {
        thr_interrupt_ = false;  // "... or writing into the THR"
        wire();
        if (loop()) {
            // The chip's FIFO holds 16 or 64; without FIFOs the library keeps its 64 (stated there).
            const std::size_t room_for = fifo() ? depth() : 64;
            for (const std::uint8_t byte : bytes) {
                if (received_.size() < room_for) {
                    receive(byte, 0);
                } else {
                    line_errors_ |= 0x02;
                    ++world_.overruns;
                }
            }
            thr_interrupt_ = waiting_.empty();
            return;
        }
        bool failed = drain();
        for (const std::uint8_t byte : bytes) {
            if (failed) {
                lose(1);
            } else if (waiting_.empty() && !stopped() && (world_.room != 0 || world_.write_fails)) {
                failed = !Sink{&world_}.write({&byte, 1});
                if (failed) {
                    lose(1);
                } else {
                    ++world_.out_bytes;
                }
            } else if (!drop_ && waiting_.size() < depth()) {
                waiting_.push_back(byte);
            } else {
                lose(1);
            }
        }
        thr_interrupt_ = waiting_.empty();
    }

public:
    /// The complete state of the model except its clock, as bytes.
    [[nodiscard]] std::vector<std::uint8_t> fingerprint() const {
        std::vector<std::uint8_t> bytes{ier_, fcr_, lcr_,         mcr_,    scr_,
                                        dll_, dlm_, line_errors_, inputs_, deltas_};
        for (const bool flag :
             {thr_interrupt_, timeout_, allow_64_, drop_, immediate_, level_, rts_held_, always_connected_}) {
            bytes.push_back(flag ? 1 : 0);
        }
        bytes.push_back(static_cast<std::uint8_t>(received_.size()));
        for (const Received& one : received_) {
            bytes.push_back(one.byte);
            bytes.push_back(one.errors);
        }
        bytes.insert(bytes.end(), waiting_.begin(), waiting_.end());
        return bytes;
    }

private:
    World& world_;
    std::deque<Received> received_{};
    std::deque<std::uint8_t> waiting_{};
    std::uint8_t ier_{0};
    std::uint8_t fcr_{0};
    std::uint8_t lcr_{0x03};
    std::uint8_t mcr_{0x08};
    std::uint8_t scr_{0};
    std::uint8_t dll_{12};
    std::uint8_t dlm_{0};
    std::uint8_t line_errors_{0};
    std::uint8_t inputs_{0xB0};
    std::uint8_t deltas_{0};
    bool thr_interrupt_{false};
    bool timeout_{false};
    bool allow_64_{false};
    bool drop_{false};
    bool immediate_{false};
    bool level_{false};
    bool rts_held_{false};
    bool always_connected_{false};
    std::uint64_t activity_{0};
    std::uint64_t timer_activity_{0};
    std::optional<std::int64_t> timer_started_{};
};

}  // namespace fuzz::model
