// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <system_error>

#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/writer.hpp>

#include "console/output_queue.hpp"
#include "util/mutex.hpp"

namespace kvm_vmm {

/// The way of a port's output from the guest to its reader. From any thread; never blocks.
///
/// A reader that is slow has what it did not take yet kept in an OutputQueue. What becomes of output while
/// there is no reader depends on the kind of channel:
///
/// - `Readers::one`: the reader is there from beginning to end, as with a file or a pipe. Without one, output
///   is taken and goes nowhere. A write that fails is the caller's to report.
/// - `Readers::come_and_go`: the newest 64 KiB of what is sent while there is no reader are remembered, and
///   the next reader gets them first. They are shown once. A write that fails means that the reader has gone.
///
/// What was queued for a reader that has gone is dropped: it belongs to nobody else.
class OutputChannel {
public:
    enum class Readers : std::uint8_t { one, come_and_go };
    static constexpr std::size_t history_size = 64UL * 1024;

    struct Sent {
        std::size_t taken;  ///< fewer than offered where the queue is full
        bool waiting;       ///< whether flush() has something to do once the reader takes more
    };

    explicit OutputChannel(Readers readers)
        : forgets_failed_reader_(readers == Readers::come_and_go), history_(history_size_of(readers)) {}
    explicit OutputChannel(vmsuperio::FdWriter reader) : OutputChannel(Readers::one) {
        reader_ = std::move(reader);
    }

    /// A reader has come. Flush after that: it gets what was remembered.
    void attach(vmsuperio::FdWriter reader);
    /// The reader has gone. Its descriptor may be closed after that.
    void detach();

    /// Output of the guest. What does not fit into the reader is queued.
    [[nodiscard]] std::expected<Sent, std::error_code> send(std::span<const std::uint8_t> bytes);
    /// The same without a queue: what does not fit is not taken.
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes);
    /// Offers what is queued to the reader again, some of it where it is much. If that fails, it is dropped.
    void flush();

    /// Whether anything is queued for the reader.
    [[nodiscard]] bool waiting() const { return unsent() != 0; }
    [[nodiscard]] std::size_t unsent() const {
        const LockGuard lock(mutex_);
        return queue_.size();
    }
    /// How many queued bytes were dropped since the last call.
    [[nodiscard]] std::size_t take_dropped();

private:
    // A RingWriter of no bytes remembers nothing.
    static constexpr std::size_t history_size_of(Readers readers) noexcept {
        return readers == Readers::come_and_go ? history_size : 0;
    }
    void drop_queue() noexcept KVM_VMM_REQUIRES(mutex_);
    [[nodiscard]] std::expected<std::size_t, std::error_code> write_locked(
        std::span<const std::uint8_t> bytes) KVM_VMM_REQUIRES(mutex_);

    bool forgets_failed_reader_;
    mutable Mutex mutex_;
    std::optional<vmsuperio::FdWriter> reader_ KVM_VMM_GUARDED_BY(mutex_);
    OutputQueue queue_ KVM_VMM_GUARDED_BY(mutex_);
    vmsuperio::RingWriter history_ KVM_VMM_GUARDED_BY(mutex_);
    std::size_t dropped_ KVM_VMM_GUARDED_BY(mutex_){0};
};

}  // namespace kvm_vmm
