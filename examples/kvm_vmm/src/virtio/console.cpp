// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/console.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <sys/epoll.h>
#include <utility>

#include "memory/shared_copy.hpp"
#include "virtio/device_states.hpp"

namespace kvm_vmm::virtio {
namespace {

// How much output is handled before other devices have their turn.
constexpr std::size_t transmit_at_a_time = 256UL * 1024;
// How much of the output that the driver has offered is sent when the guest has ended.
constexpr std::size_t max_sent_last = 16UL * 1024 * 1024;
// How much of the last output is kept beyond the channel's queue. Linux waits for each buffer of a console, and
// so offers one page at most.
constexpr std::size_t max_last_output = 1024UL * 1024;

}  // namespace

Console::Console(std::string_view name, Counters& counters, EventManager& events, SerialBackend& backend,
                 ConsoleLine::CommandHandler on_command)
    : Device(name, counters),
      events_(events),
      backend_(backend),
      bytes_sent_(counters["bytes_sent"]),
      bytes_received_(counters["bytes_received"]),
      bytes_lost_(counters["bytes_lost"]),
      waits_(counters["waits_for_reader"]),
      has_terminal_(backend.terminal_size().has_value()),
      terminal_size_(backend.terminal_size().value_or(TerminalSize{})),
      line_(events, backend, *this, std::move(on_command)) {
    wake_subscription_ = events_.subscribe(wake_.fd(), EPOLLIN, "a console", [this](std::uint32_t) {
        wake_.clear();
        line_.update_watches();
    });
    line_.open();
}

Console::~Console() { events_.remove(wake_subscription_); }

// --- Configuration

void Console::on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const {
    const Config config{
        .columns = terminal_size_.columns, .rows = terminal_size_.rows, .max_ports = 1, .emergency_write = 0};
    copy_config(config, offset, data);
}

void Console::on_write_config(std::uint64_t offset, std::span<const std::uint8_t> data) {
    constexpr std::uint64_t register_offset = offsetof(Config, emergency_write);
    // The character is the low byte of the register.
    if (offset > register_offset || data.size() <= register_offset - offset) {
        return;
    }
    const auto sent = backend_.output().send(data.subspan(register_offset - offset, 1));
    if (!sent || sent->taken == 0) {
        bytes_lost_.add();
        return;
    }
    bytes_sent_.add();
    if (sent->waiting) {
        wake_.notify();
    }
}

void Console::terminal_resized() {
    const LockGuard lock(mutex());
    update_size();
}

void Console::update_size() {
    if (!has_terminal_) {
        return;
    }
    const TerminalSize before =
        std::exchange(terminal_size_, backend_.terminal_size().value_or(terminal_size_));
    if (terminal_size_ != before && (negotiated() & feature_size) != 0) {
        config_changed();
    }
}

// --- Queues

void Console::on_reset() {
    sent_of_chain_ = 0;
    transmit_waits_ = false;
    driver_takes_input_ = false;
}

void Console::on_queue_reset(std::size_t index) {
    if (index == transmit_queue) {
        sent_of_chain_ = 0;
        transmit_waits_ = false;
    } else {
        driver_takes_input_ = false;
    }
}

std::vector<std::uint8_t> Console::on_state() const {
    return vmsuperio::encode(ConsoleState{.columns = terminal_size_.columns,
                                          .rows = terminal_size_.rows,
                                          .sent_of_chain = static_cast<std::uint32_t>(sent_of_chain_)});
}

std::expected<void, std::string_view> Console::on_restore_state(std::span<const std::uint8_t> bytes,
                                                                std::uint64_t features) {
    const auto state = decode_state<ConsoleState>(bytes);
    if (!state) {
        return std::unexpected(state.error());
    }
    if ((features & feature_size) != 0) {
        terminal_size_ = {.columns = state->columns, .rows = state->rows};  // on_restored() compares it
    }
    sent_of_chain_ = state->sent_of_chain;
    return {};
}

void Console::on_notified(std::size_t index) {
    if (index == transmit_queue) {
        transmit();
    } else {
        receive();
    }
    line_.update_watches();
}

// What was sent of a chain says nothing about the next one: the driver may have changed a descriptor since.
void Console::on_defective(std::size_t index, const Chain& chain) {
    if (index == transmit_queue) {
        sent_of_chain_ = 0;
    }
    push(index, chain, 0);
}

// --- Output

void Console::transmit() {
    std::size_t budget = transmit_at_a_time;
    const bool waited = std::exchange(transmit_waits_, false);
    serve(transmit_queue, [this, &budget, waited](const Chain& chain) KVM_VMM_REQUIRES(mutex()) {
        if (send_chain(chain.readable, budget)) {
            finish_output(chain);
            return std::optional(std::uint32_t{0});  // nothing is written to the driver's buffers
        }
        if (budget == 0) {
            notify_self(transmit_queue);
        } else {
            transmit_waits_ = true;
            waits_.add(waited ? 0 : 1);
        }
        return std::optional<std::uint32_t>();
    });
}

// Once for each chain, however often it had to wait.
void Console::finish_output(const Chain& chain) {
    sent_of_chain_ = 0;
    if (!chain.writable.empty()) {
        count_bad_request();  // 5.3.6.1: only readable buffers
    }
}

// Sends a chain from sent_of_chain_ on. Returns whether all of it was sent.
bool Console::send_chain(const Buffers& buffers, std::size_t& budget) {
    const Buffers rest = buffers.part(sent_of_chain_, std::numeric_limits<std::uint64_t>::max());
    for (const Buffers::Piece piece : rest.pieces()) {
        const std::size_t wanted = std::min(piece.size(), budget);
        const std::size_t taken = wanted == 0 ? 0 : send(piece.first(wanted));
        sent_of_chain_ += taken;
        budget -= taken;
        if (taken < piece.size()) {
            return false;
        }
    }
    return true;
}

std::size_t Console::send(std::span<const std::uint8_t> bytes) {
    const auto sent = backend_.output().send(bytes);
    if (!sent) {
        // As at a serial port: the host's error is not the guest's, which continues.
        bytes_lost_.add(bytes.size());
        return bytes.size();
    }
    bytes_sent_.add(sent->taken);
    return sent->taken;
}

bool Console::output_waits() { return backend_.output().waiting(); }

void Console::resume_output(std::size_t lost) {
    const LockGuard lock(mutex());
    bytes_lost_.add(lost);
    if (!last_output_.empty()) {
        const std::size_t taken = send(last_output_);
        last_output_.erase(last_output_.begin(), last_output_.begin() + static_cast<std::ptrdiff_t>(taken));
    } else if (transmit_waits_) {
        transmit();
    }
}

void Console::take_last_output() {
    const LockGuard lock(mutex());
    std::size_t budget = max_sent_last;
    std::size_t chains =
        size_of_queue(transmit_queue);  // all that there can be: the guest's CPUs have stopped
    while (const std::optional<Chain> chain = pop(transmit_queue, chains)) {
        if (!send_chain(chain->readable, budget)) {
            const std::size_t room = max_last_output - last_output_.size();
            std::vector<std::uint8_t> rest(
                std::min<std::uint64_t>(room, chain->readable.size() - sent_of_chain_));
            chain->readable.read(sent_of_chain_, rest);
            bytes_lost_.add(chain->readable.size() - sent_of_chain_ - rest.size());
            last_output_.insert(last_output_.end(), rest.begin(), rest.end());
        }
        finish_output(*chain);
        push(transmit_queue, *chain, 0);
    }
    transmit_waits_ = false;
}

std::size_t Console::unsent() {
    const LockGuard lock(mutex());
    return backend_.output().unsent() + last_output_.size();
}

// --- Input

std::size_t Console::input_room() {
    constexpr std::size_t at_a_time = 4096;  // what the driver's buffers have no room for waits
    return driver_takes_input_ ? at_a_time : 0;
}

void Console::take_input(InputQueue& waiting) {
    const LockGuard lock(mutex());
    update_size();
    if (!waiting.empty() && driver_takes_input_) {
        receive();
    }
}

void Console::receive() {
    driver_takes_input_ = false;
    serve(receive_queue, [this](const Chain& chain) {
        if (backend_.read_ahead().empty()) {
            driver_takes_input_ = true;
            return std::optional<std::uint32_t>();
        }
        if (!chain.readable.empty() || chain.writable.empty()) {
            count_bad_request();  // 5.3.6.1: only writable buffers
        }
        const std::uint32_t count = fill(chain.writable);
        bytes_received_.add(count);
        return std::optional(count);
    });
}

std::uint32_t Console::fill(const Buffers& buffers) {
    InputQueue& waiting = backend_.read_ahead();
    std::uint32_t count = 0;
    for (const Buffers::Piece piece : buffers.pieces()) {
        for (std::uint8_t& byte : piece) {
            if (waiting.empty()) {
                return count;
            }
            const std::array<std::uint8_t, 1> next{waiting.front().byte};
            copy_to_guest(&byte, next);
            waiting.pop();
            ++count;
        }
    }
    return count;
}

}  // namespace kvm_vmm::virtio
