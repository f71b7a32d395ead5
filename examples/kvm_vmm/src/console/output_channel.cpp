// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/output_channel.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

namespace kvm_vmm {
namespace {

// All channels, for flush_all(). More than a VM has; a channel that finds no place is left out.
constexpr std::size_t most_channels = 64;
std::array<std::atomic<OutputChannel*>, most_channels> channels{};

void replace_channel(OutputChannel* from, OutputChannel* to) noexcept {
    for (std::atomic<OutputChannel*>& place : channels) {
        OutputChannel* expected = from;
        if (place.compare_exchange_strong(expected, to)) {
            return;
        }
    }
}

}  // namespace

OutputChannel::OutputChannel(Readers readers)
    : forgets_failed_reader_(readers == Readers::come_and_go), history_(history_size_of(readers)) {
    replace_channel(nullptr, this);
}

OutputChannel::~OutputChannel() { replace_channel(this, nullptr); }

void OutputChannel::attach(vmsuperio::FdWriter reader) {
    const LockGuard lock(mutex_);
    drop_queue();
    reader_ = std::move(reader);
    (void)queue_.push(history_.bytes());
    history_.clear();
}

void OutputChannel::detach() {
    const LockGuard lock(mutex_);
    drop_queue();
    reader_.reset();
}

// The reader has gone. What it was not offered yet is for the next one.
void OutputChannel::drop_queue() noexcept {
    if (std::exchange(held_, false) && forgets_failed_reader_) {
        (void)history_.write(queue_.bytes());
    } else {
        dropped_ += queue_.size();
    }
    queue_.clear();
}

void OutputChannel::forget_failed_reader() noexcept {
    drop_queue();
    if (forgets_failed_reader_) {
        reader_.reset();
    }
}

std::expected<std::size_t, std::error_code> OutputChannel::write_locked(std::span<const std::uint8_t> bytes) {
    if (reader_) {
        const auto written = reader_->write(bytes);
        if (written || !forgets_failed_reader_) {
            return written;
        }
        forget_failed_reader();
    }
    (void)history_.write(bytes);
    return bytes.size();
}

std::expected<OutputChannel::Sent, std::error_code> OutputChannel::send(std::span<const std::uint8_t> bytes,
                                                                        bool join) {
    const LockGuard lock(mutex_);
    const bool alone = join && bytes.size() == 1 && bytes.front() != '\n';
    if (alone && joining_ && reader_ && (held_ || queue_.empty()) && queue_.size() < join_limit) {
        held_ = true;
        (void)queue_.push(bytes);
        return Sent{.taken = 1, .waiting = false, .joins = false};
    }
    if (held_) {
        return send_held(bytes);
    }
    std::size_t taken = 0;
    bool joins = false;
    if (queue_.empty()) {
        const auto written = write_locked(bytes);
        if (!written) {
            return std::unexpected(written.error());
        }
        taken = *written;
        joins = alone && taken == 1 && !joining_ && reader_.has_value();
        joining_ = joining_ || joins;
    }
    taken += queue_.push(bytes.subspan(taken));
    return Sent{.taken = taken, .waiting = !queue_.empty(), .joins = joins};
}

// With the bytes that wait for these.
std::expected<OutputChannel::Sent, std::error_code> OutputChannel::send_held(
    std::span<const std::uint8_t> bytes) {
    const std::size_t taken = queue_.push(bytes);
    const auto written = reader_->write(queue_.bytes());
    if (written) {
        held_ = false;
        queue_.drop_front(*written);
        return Sent{.taken = taken, .waiting = !queue_.empty(), .joins = false};
    }
    forget_failed_reader();
    if (!forgets_failed_reader_) {
        dropped_ -= taken;
        return std::unexpected(written.error());
    }
    return Sent{.taken = taken, .waiting = false, .joins = false};
}

bool OutputChannel::end_join() {
    const LockGuard lock(mutex_);
    joining_ = held_;
    if (held_) {
        flush_locked();
    }
    return joining_;
}

std::expected<std::size_t, std::error_code> OutputChannel::write(std::span<const std::uint8_t> bytes) {
    const LockGuard lock(mutex_);
    return queue_.empty() ? write_locked(bytes) : std::expected<std::size_t, std::error_code>(0);
}

void OutputChannel::flush() {
    const LockGuard lock(mutex_);
    joining_ = false;
    flush_locked();
}

OutputLeft OutputChannel::flush_all() noexcept {
    OutputLeft left = OutputLeft::none;
    for (const std::atomic<OutputChannel*>& place : channels) {
        if (OutputChannel* const channel = place.load(); channel != nullptr) {
            left = std::max(left, channel->try_flush());
        }
    }
    return left;
}

OutputLeft OutputChannel::try_flush() noexcept {
    // If this thread itself holds the lock, POSIX has it refused like any other lock that is held.
    if (!mutex_.try_lock()) {
        return OutputLeft::locked;
    }
    const LockGuard lock(mutex_, std::adopt_lock);
    std::size_t before = 0;
    do {
        before = queue_.size();
        flush_locked();
    } while (queue_.size() < before);
    return queue_.empty() || !reader_ ? OutputLeft::none : OutputLeft::some;
}

void OutputChannel::flush_locked() {
    // A vCPU may wait for the lock, so write at most this many bytes at a time.
    constexpr std::size_t at_a_time = 64UL * 1024;
    if (queue_.empty() || !reader_) {
        return;
    }
    const auto bytes = queue_.bytes();
    const auto written = reader_->write(bytes.first(std::min(bytes.size(), at_a_time)));
    if (written) {
        held_ = false;
        queue_.drop_front(*written);
        return;
    }
    forget_failed_reader();
}

std::size_t OutputChannel::take_dropped() {
    const LockGuard lock(mutex_);
    return std::exchange(dropped_, 0);
}

}  // namespace kvm_vmm
