// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <system_error>

#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/writer.hpp>

#include "console/output_queue.hpp"
#include "sandbox/violation.hpp"
#include "util/mutex.hpp"

namespace kvm_vmm {

using sandbox::OutputLeft;

/// Carries a port's output from the guest to its reader. It may be used from any thread and never blocks.
///
/// Output that a slow reader has not taken yet is kept in an OutputQueue. The treatment of output while there
/// is no reader depends on the kind of channel:
///
/// - `Readers::one`: there is one reader throughout, as with a file or a pipe. Without one, output is taken
///   and dropped. A write that fails returns the error to the caller.
/// - `Readers::come_and_go`: the newest 64 KiB of the output while there is no reader are kept, and the next
///   reader receives them first, once. A write that fails means that the reader has disconnected.
///
/// Output that is queued for a reader that disconnects is dropped, because it is for no other reader.
///
/// Linux prints its own messages byte by byte, and a write for each of them would wake the reader as often. So with
/// `join`, a byte that follows another one within `join_time` waits for the end of the line, for more than one byte
/// at once, as programs' output arrives, or for the end of that time, whatever is first. A byte after a pause, such as
/// the echo of a key, is written at once. If the reader disconnects meanwhile, bytes that wait are for the next one, or
/// counted as dropped with `Readers::one`.
class OutputChannel {
public:
    enum class Readers : std::uint8_t { one, come_and_go };
    static constexpr std::size_t history_size = 64UL * 1024;

    struct Sent {
        std::size_t taken;  ///< fewer than offered if the queue is full
        bool waiting;       ///< whether flush() has something to do once the reader takes more
        bool joins;         ///< call end_join() after `join_time`: bytes may wait for that from now on
    };
    static constexpr std::chrono::milliseconds join_time{4};
    /// At most this many bytes wait.
    static constexpr std::size_t join_limit = 256;

    explicit OutputChannel(Readers readers);
    ~OutputChannel();
    OutputChannel(const OutputChannel&) = delete;
    OutputChannel& operator=(const OutputChannel&) = delete;
    explicit OutputChannel(vmsuperio::FdWriter reader) : OutputChannel(Readers::one) {
        reader_ = std::move(reader);
    }

    /// Adds a reader. Call flush() after that, which sends it the output that was kept.
    void attach(vmsuperio::FdWriter reader);
    /// Removes the reader. Its descriptor may be closed after that.
    void detach();

    /// Sends output of the guest. Bytes that the reader does not take are queued.
    [[nodiscard]] std::expected<Sent, std::error_code> send(std::span<const std::uint8_t> bytes,
                                                            bool join = false);
    /// Writes the bytes that wait for others. Returns whether to call this again after `join_time`.
    [[nodiscard]] bool end_join();
    /// The same without a queue: bytes that the reader does not take are not taken.
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes);
    /// Offers queued output to the reader again, a limited amount at a time. If that fails, it is dropped.
    void flush();

    /// Offers the queued output of all channels of this process to their readers. For a process that ends
    /// because one of its threads was stopped, whatever that thread was doing: waits for no lock, takes no
    /// memory, and may be called in the handler of that signal. Returns what is left.
    [[nodiscard]] static OutputLeft flush_all() noexcept;

    /// Whether anything is queued because the reader did not take it.
    [[nodiscard]] bool waiting() const {
        const LockGuard lock(mutex_);
        return !queue_.empty() && !held_;
    }
    [[nodiscard]] std::size_t unsent() const {
        const LockGuard lock(mutex_);
        return queue_.size();
    }
    /// How many queued bytes were dropped since the last call.
    [[nodiscard]] std::size_t take_dropped();

private:
    // A RingWriter of no bytes keeps nothing.
    static constexpr std::size_t history_size_of(Readers readers) noexcept {
        return readers == Readers::come_and_go ? history_size : 0;
    }
    void drop_queue() noexcept KVM_VMM_REQUIRES(mutex_);
    /// After a write that failed: the reader too, if others may follow.
    void forget_failed_reader() noexcept KVM_VMM_REQUIRES(mutex_);
    void flush_locked() KVM_VMM_REQUIRES(mutex_);
    [[nodiscard]] OutputLeft try_flush() noexcept;
    [[nodiscard]] std::expected<std::size_t, std::error_code> write_locked(
        std::span<const std::uint8_t> bytes) KVM_VMM_REQUIRES(mutex_);
    [[nodiscard]] std::expected<Sent, std::error_code> send_held(std::span<const std::uint8_t> bytes)
        KVM_VMM_REQUIRES(mutex_);

    bool forgets_failed_reader_;
    mutable Mutex mutex_;
    std::optional<vmsuperio::FdWriter> reader_ KVM_VMM_GUARDED_BY(mutex_);
    OutputQueue queue_ KVM_VMM_GUARDED_BY(mutex_);
    vmsuperio::RingWriter history_ KVM_VMM_GUARDED_BY(mutex_);
    std::size_t dropped_ KVM_VMM_GUARDED_BY(mutex_){0};
    // Whether end_join() will be called.
    bool joining_ KVM_VMM_GUARDED_BY(mutex_){false};
    // While joining_: whether the queue waits for bytes, and not for the reader.
    bool held_ KVM_VMM_GUARDED_BY(mutex_){false};
};

}  // namespace kvm_vmm
