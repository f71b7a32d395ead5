// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include <vmsuperio/serial_events.hpp>

namespace vmsuperio::inline v0_2 {

/// The counts of a `SerialMetrics` at one moment. Each number is correct, but an access in progress may be
/// included in some of them and not in others.
struct SerialCounts {
    std::uint64_t bytes_read{};        ///< received bytes that the guest read
    std::uint64_t bytes_written{};     ///< bytes that reached the writer
    std::uint64_t bytes_lost{};        ///< sent bytes that did not reach the writer
    std::uint64_t input_emptied{};     ///< times the receive FIFO was drained
    std::uint64_t overruns{};          ///< bytes lost because the receive FIFO was full
    std::uint64_t breaks{};            ///< breaks received
    std::uint64_t bytes_dropped{};     ///< bytes that the guest discarded by resetting a FIFO
    std::uint64_t fifo_resets{};       ///< resets of one or both FIFOs
    std::uint64_t invalid_accesses{};  ///< accesses to offsets above 7
    std::uint64_t interrupts{};        ///< rises of the interrupt line
    std::uint64_t trigger_failures{};  ///< failures of the trigger that were not returned to a caller

    friend constexpr bool operator==(const SerialCounts&, const SerialCounts&) = default;
};

/// Counts all events of one or more serial devices. Pass an `EventsRef<SerialMetrics>` to each device; the
/// counts may be read from any thread at any time.
class SerialMetrics {
public:
    SerialMetrics() = default;
    SerialMetrics(const SerialMetrics&) = delete;
    SerialMetrics& operator=(const SerialMetrics&) = delete;

    void buffer_read() noexcept { add(bytes_read_); }
    void out_byte() noexcept { add(bytes_written_); }
    void tx_lost_byte() noexcept { add(bytes_lost_); }
    void in_buffer_empty() noexcept { add(input_emptied_); }
    void overrun() noexcept { add(overruns_); }
    void break_received() noexcept { add(breaks_); }
    void dropped_bytes(std::size_t count) noexcept { add(bytes_dropped_, count); }
    void fifo_reset() noexcept { add(fifo_resets_); }
    void invalid_access() noexcept { add(invalid_accesses_); }
    void interrupt_raised() noexcept { add(interrupts_); }
    void trigger_failed() noexcept { add(trigger_failures_); }

    /// All counts at this moment; each is exact, but they are not of one instant.
    [[nodiscard]] SerialCounts counts() const noexcept {
        return {.bytes_read = get(bytes_read_),
                .bytes_written = get(bytes_written_),
                .bytes_lost = get(bytes_lost_),
                .input_emptied = get(input_emptied_),
                .overruns = get(overruns_),
                .breaks = get(breaks_),
                .bytes_dropped = get(bytes_dropped_),
                .fifo_resets = get(fifo_resets_),
                .invalid_accesses = get(invalid_accesses_),
                .interrupts = get(interrupts_),
                .trigger_failures = get(trigger_failures_)};
    }

private:
    // Replaces std::atomic<std::uint64_t>, which consists of these two operations of GCC and Clang but needs
    // a header that costs as much to compile as all devices.
    struct alignas(8) Counter {
        std::uint64_t value;
    };

    // Relaxed, because a count does not order other accesses.
    static void add(Counter& counter, std::uint64_t by = 1) noexcept {
        __atomic_fetch_add(&counter.value, by, __ATOMIC_RELAXED);
    }
    static std::uint64_t get(const Counter& counter) noexcept {
        return __atomic_load_n(&counter.value, __ATOMIC_RELAXED);
    }

    Counter bytes_read_{0};
    Counter bytes_written_{0};
    Counter bytes_lost_{0};
    Counter input_emptied_{0};
    Counter overruns_{0};
    Counter breaks_{0};
    Counter bytes_dropped_{0};
    Counter fifo_resets_{0};
    Counter invalid_accesses_{0};
    Counter interrupts_{0};
    Counter trigger_failures_{0};
};
static_assert(SerialEvents<SerialMetrics> && SerialEvents<EventsRef<SerialMetrics>>);

}  // namespace vmsuperio::inline v0_2
