// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string_view>

namespace kvm_vmm {

/// Lets through a limited number of messages from each place of the source, and counts the others.
///
/// A guest can make a place log without end, and a flooded log hides important messages. A window begins with
/// the first message of a place, and `most` messages pass in it. The caller calls summarize() from time to
/// time, so that the number of suppressed messages is reported after the window has ended, whether or not
/// another message follows.
///
/// All members are atomic, and no function waits or allocates: any thread may call them, and so may a signal
/// handler that interrupts a call.
class MessageLimit {
public:
    using Time = std::chrono::steady_clock::time_point;

    static constexpr unsigned most = 10;
    static constexpr std::chrono::seconds window{5};
    /// Places beyond these are not limited.
    static constexpr std::size_t most_places = 64;
    static constexpr std::size_t sample_size = 96;

    /// Describes the messages that were suppressed in a window.
    struct Summary {
        std::uint32_t left_out;
        std::uint8_t level;       ///< as given to admit()
        std::string_view sample;  ///< the beginning of the window's first message
    };

    /// Whether the message may be written.
    [[nodiscard]] bool admit(const std::source_location& place, std::uint8_t level, std::string_view message,
                             Time now) noexcept {
        Place* const found = find(place);
        if (found == nullptr) {
            return true;
        }
        std::int64_t start = found->window_start.load(std::memory_order_acquire);
        const std::int64_t time = nanoseconds(now);
        if (start == none || time - start >= nanoseconds(window)) {
            // A window with suppressed messages ends with its summary; until then the place writes nothing.
            if (found->left_out.load(std::memory_order_acquire) == 0 &&
                found->window_start.compare_exchange_strong(start, time, std::memory_order_acq_rel)) {
                found->level.store(level, std::memory_order_relaxed);
                for (std::size_t i = 0; i < sample_size; ++i) {
                    found->sample[i].store(i < message.size() ? message[i] : '\0', std::memory_order_relaxed);
                }
                found->count.store(1, std::memory_order_release);
                return true;
            }
        }
        if (found->count.fetch_add(1, std::memory_order_acq_rel) < most) {
            return true;
        }
        found->left_out.fetch_add(1, std::memory_order_acq_rel);
        left_out_.store(true, std::memory_order_release);
        return false;
    }

    /// Calls `write(Summary)` for each window that has ended and in which messages were suppressed; with
    /// `all`, also for windows that have not ended.
    template <class Write>
    void summarize(Time now, bool all, Write&& write) noexcept {
        if (!left_out_.exchange(false, std::memory_order_acq_rel)) {
            return;
        }
        for (Place& place : places_) {
            if (place.left_out.load(std::memory_order_acquire) == 0) {
                continue;
            }
            if (!all &&
                nanoseconds(now) - place.window_start.load(std::memory_order_acquire) < nanoseconds(window)) {
                left_out_.store(true, std::memory_order_release);
                continue;
            }
            std::array<char, sample_size> sample{};
            std::size_t length = 0;
            for (; length < sample_size; ++length) {
                sample[length] = place.sample[length].load(std::memory_order_relaxed);
                if (sample[length] == '\0') {
                    break;
                }
            }
            const std::uint8_t level = place.level.load(std::memory_order_relaxed);
            if (const std::uint32_t count = place.left_out.exchange(0, std::memory_order_acq_rel);
                count != 0) {
                write(Summary{count, level, std::string_view(sample.data(), length)});
            }
        }
    }

    /// Resets the state: no window is open, and no message counts as suppressed.
    void forget() noexcept {
        for (Place& place : places_) {
            place.left_out.store(0, std::memory_order_relaxed);
            place.window_start.store(none, std::memory_order_release);
        }
    }

private:
    static constexpr std::int64_t none = INT64_MIN;

    struct Place {
        std::atomic<const char*> file{nullptr};
        std::atomic<std::uint64_t> line{0};  ///< with the column; 0 until it is known
        std::atomic<std::int64_t> window_start{none};
        std::atomic<std::uint32_t> count{0};
        std::atomic<std::uint32_t> left_out{0};
        std::atomic<std::uint8_t> level{0};
        std::array<std::atomic<char>, sample_size> sample{};
    };

    template <class Duration>
    [[nodiscard]] static std::int64_t nanoseconds(Duration duration) noexcept
        requires requires { duration.count(); }
    {
        return std::chrono::nanoseconds(duration).count();
    }
    [[nodiscard]] static std::int64_t nanoseconds(Time time) noexcept {
        return nanoseconds(time.time_since_epoch());
    }

    /// The entry of `place`, which is created if there is none yet; null if all entries are taken.
    [[nodiscard]] Place* find(const std::source_location& place) noexcept {
        const char* const file = place.file_name();
        const std::uint64_t line = std::uint64_t{place.line()} << 32U | place.column() | 1ULL << 63U;
        for (Place& entry : places_) {
            const char* owner = entry.file.load(std::memory_order_acquire);
            if (owner == nullptr) {
                if (entry.file.compare_exchange_strong(owner, file, std::memory_order_acq_rel)) {
                    entry.line.store(line, std::memory_order_release);
                    return &entry;
                }
            }
            // An entry that is being created has no line yet and is skipped: at worst the place gets two
            // entries.
            if (owner == file && entry.line.load(std::memory_order_acquire) == line) {
                return &entry;
            }
        }
        return nullptr;
    }

    std::array<Place, most_places> places_;
    std::atomic<bool> left_out_{false};
};

}  // namespace kvm_vmm
