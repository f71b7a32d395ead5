// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/output_channel.hpp"

#include <algorithm>
#include <utility>

namespace kvm_vmm {

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

void OutputChannel::drop_queue() noexcept {
    dropped_ += queue_.size();
    queue_.clear();
}

std::expected<std::size_t, std::error_code> OutputChannel::write_locked(std::span<const std::uint8_t> bytes) {
    if (reader_) {
        const auto written = reader_->write(bytes);
        if (written || !forgets_failed_reader_) {
            return written;
        }
        drop_queue();
        reader_.reset();
    }
    (void)history_.write(bytes);
    return bytes.size();
}

std::expected<OutputChannel::Sent, std::error_code> OutputChannel::send(std::span<const std::uint8_t> bytes) {
    const LockGuard lock(mutex_);
    std::size_t taken = 0;
    if (queue_.empty()) {
        const auto written = write_locked(bytes);
        if (!written) {
            return std::unexpected(written.error());
        }
        taken = *written;
    }
    taken += queue_.push(bytes.subspan(taken));
    return Sent{.taken = taken, .waiting = !queue_.empty()};
}

std::expected<std::size_t, std::error_code> OutputChannel::write(std::span<const std::uint8_t> bytes) {
    const LockGuard lock(mutex_);
    return queue_.empty() ? write_locked(bytes) : std::expected<std::size_t, std::error_code>(0);
}

void OutputChannel::flush() {
    // A vCPU may wait for the lock, so write at most this many bytes at a time.
    constexpr std::size_t at_a_time = 64UL * 1024;
    const LockGuard lock(mutex_);
    if (queue_.empty() || !reader_) {
        return;
    }
    const auto bytes = queue_.bytes();
    const auto written = reader_->write(bytes.first(std::min(bytes.size(), at_a_time)));
    if (written) {
        queue_.drop_front(*written);
        return;
    }
    drop_queue();
    if (forgets_failed_reader_) {
        reader_.reset();
    }
}

std::size_t OutputChannel::take_dropped() {
    const LockGuard lock(mutex_);
    return std::exchange(dropped_, 0);
}

}  // namespace kvm_vmm
