// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>

#include "kvm/vcpu_exit.hpp"

namespace kvm_vmm {

/// The accesses to one port, or all of one kind.
struct AccessCounts {
    std::uint64_t reads{};
    std::uint64_t writes{};
    std::uint64_t unclaimed{};  ///< those of both kinds that no device answered

    AccessCounts& operator+=(const AccessCounts& other) noexcept {
        reads += other.reads;
        writes += other.writes;
        unclaimed += other.unclaimed;
        return *this;
    }
    friend bool operator==(const AccessCounts&, const AccessCounts&) = default;
};

/// Counts the exits and accesses of the CPUs. Counting takes no lock and never waits. A port's counters are
/// allocated, for 256 ports at a time, when the guest first accesses one of them: at most 1.5 MiB in total,
/// whatever the guest does.
///
/// May be used from all threads. Each number is correct, but an access in progress may be included in some of
/// them and not in others.
class IoMetrics {
public:
    static constexpr std::size_t exit_kinds = std::variant_size_v<VcpuExit>;

    IoMetrics() = default;
    ~IoMetrics();
    IoMetrics(const IoMetrics&) = delete;
    IoMetrics& operator=(const IoMetrics&) = delete;

    /// `kind` is the index of the VcpuExit.
    void count_exit(std::size_t kind) noexcept { add(exits_[kind]); }
    /// Counts accesses that were answered without an exit of their own.
    void count_coalesced(std::uint64_t count) noexcept { add(coalesced_, count); }
    /// Counts `count` accesses at one port. Returns true if this is the first one there that no device
    /// answered.
    bool count_port(std::uint16_t port, bool write, std::uint64_t count, bool claimed) noexcept {
        Page* page = pages_[port / page_ports].load(std::memory_order_acquire);
        if (page == nullptr) [[unlikely]] {
            page = add_page(port / page_ports);
            if (page == nullptr) {
                return false;
            }
        }
        Counters& counters = (*page)[port % page_ports];
        add(write ? counters.writes : counters.reads, count);
        return !claimed && counters.unclaimed.fetch_add(count, std::memory_order_relaxed) == 0;
    }
    /// Counts one access to memory that no device answered. Returns true for the first one.
    bool count_unclaimed_mmio(bool write) noexcept {
        add(write ? unclaimed_mmio_.writes : unclaimed_mmio_.reads);
        return unclaimed_mmio_.unclaimed.fetch_add(1, std::memory_order_relaxed) == 0;
    }

    [[nodiscard]] std::uint64_t exits(std::size_t kind) const noexcept { return get(exits_.at(kind)); }
    [[nodiscard]] std::uint64_t coalesced() const noexcept { return get(coalesced_); }
    [[nodiscard]] static std::string_view exit_name(std::size_t kind) noexcept;
    [[nodiscard]] AccessCounts port(std::uint16_t port) const noexcept;
    [[nodiscard]] AccessCounts unclaimed_mmio() const noexcept { return counts(unclaimed_mmio_); }
    /// Calls f(port, counts) for each port that was accessed, in ascending order.
    template <class F>
    void for_each_port(F&& f) const {
        for (std::size_t i = 0; i < pages_.size(); ++i) {
            if (const Page* const page = pages_.at(i).load(std::memory_order_acquire)) {
                for (std::size_t j = 0; j < page_ports; ++j) {
                    if (const AccessCounts port = counts(page->at(j)); port != AccessCounts{}) {
                        f(static_cast<std::uint16_t>(i * page_ports + j), port);
                    }
                }
            }
        }
    }

private:
    using Counter = std::atomic<std::uint64_t>;
    struct Counters {
        Counter reads{0};
        Counter writes{0};
        Counter unclaimed{0};
    };
    static constexpr std::size_t page_ports = 256;
    using Page = std::array<Counters, page_ports>;

    // Relaxed, because a count does not order other accesses.
    static void add(Counter& counter, std::uint64_t count = 1) noexcept {
        counter.fetch_add(count, std::memory_order_relaxed);
    }
    static std::uint64_t get(const Counter& counter) noexcept {
        return counter.load(std::memory_order_relaxed);
    }
    static AccessCounts counts(const Counters& counters) noexcept {
        return {get(counters.reads), get(counters.writes), get(counters.unclaimed)};
    }
    Page* add_page(std::size_t index) noexcept;

    std::array<Counter, exit_kinds> exits_{};
    Counter coalesced_{0};
    std::array<std::atomic<Page*>, 0x10000 / page_ports> pages_{};
    Counters unclaimed_mmio_;
};

}  // namespace kvm_vmm
