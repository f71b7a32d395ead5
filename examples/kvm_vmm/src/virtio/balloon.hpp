// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "event/timer.hpp"
#include "memory/guest_memory.hpp"
#include "virtio/balloon_config.hpp"
#include "virtio/device.hpp"

namespace kvm_vmm::virtio {

/// A memory balloon: VIRTIO 1.2, section 5.5. The guest gives pages up, whose memory returns to the host, until the
/// balloon has the size of the target; and with free page reporting, it reports pages that it does not use.
///
/// Pages that are not RAM are ignored and counted. The target does not change while the VM runs.
///
/// The counters whose names begin with `guest_` are the driver's latest statistics, for which the device asks in
/// regular intervals.
///
/// Not modelled: VIRTIO_BALLOON_F_FREE_PAGE_HINT, VIRTIO_BALLOON_F_PAGE_POISON.
class Balloon final : public Device {
public:
    /// Feature bits (5.5.3).
    static constexpr std::uint64_t feature_stats = 1U << 1U;           ///< VIRTIO_BALLOON_F_STATS_VQ
    static constexpr std::uint64_t feature_deflate_on_oom = 1U << 2U;  ///< VIRTIO_BALLOON_F_DEFLATE_ON_OOM
    static constexpr std::uint64_t feature_reporting = 1U << 5U;       ///< VIRTIO_BALLOON_F_PAGE_REPORTING
    static constexpr std::size_t inflate_queue = 0;
    static constexpr std::size_t deflate_queue = 1;
    /// With VIRTIO_BALLOON_F_STATS_VQ.
    static constexpr std::size_t stats_queue = 2;
    /// The number of the queue of reported pages in 5.5.2, whichever features were negotiated. Linux counts only the
    /// queues whose features were negotiated: 3, or 2 without VIRTIO_BALLOON_F_STATS_VQ. As there is no
    /// VIRTIO_BALLOON_F_FREE_PAGE_HINT, nothing else can have those numbers, and reports are taken from any of the three.
    static constexpr std::size_t reporting_queue = 4;
    /// How many tags have a counter: those of 5.5.6.3, and those that Linux 6.12 has added.
    static constexpr std::size_t known_tags = 16;
    /// The unit of page numbers and sizes (5.5.6), whatever the page size of the guest is.
    static constexpr std::uint64_t page_size = 4096;

    /// `memory` and `events` must outlive the device. `stats_interval` is the time between two requests for
    /// statistics.
    Balloon(std::string_view name, Counters& counters, const GuestMemory& memory, EventManager& events,
            const BalloonConfig& config, std::chrono::milliseconds stats_interval = std::chrono::seconds(10));

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::balloon; }
    [[nodiscard]] std::uint64_t features() const noexcept override {
        return feature_stats | (config_.deflate_on_oom ? feature_deflate_on_oom : 0) |
               (config_.free_page_reporting ? feature_reporting : 0);
    }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes_; }
    [[nodiscard]] EventManager& events() noexcept override { return events_; }

private:
    /// 5.5.4
    struct ConfigSpace {
        std::uint32_t target_pages;
        std::uint32_t actual_pages;
    };

    void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) override;
    void on_write_config(std::uint64_t offset, std::span<const std::uint8_t> data)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_activate() KVM_VMM_REQUIRES(mutex()) override;
    void on_queue_reset(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_reset() KVM_VMM_REQUIRES(mutex()) override;
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_defective(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::vector<std::uint8_t> on_state() const KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::expected<void, std::string_view> on_restore_state(std::span<const std::uint8_t> bytes,
                                                                         std::uint64_t features)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_restored() KVM_VMM_REQUIRES(mutex()) override;

    [[nodiscard]] bool inflate(const Buffers& pages, std::uint64_t& done, std::uint64_t& budget)
        KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool report(const Buffers& ranges, std::uint64_t& done, std::uint64_t& budget)
        KVM_VMM_REQUIRES(mutex());

    [[nodiscard]] bool is_stats_queue(std::size_t index) const KVM_VMM_REQUIRES(mutex());
    void count_bad_array(std::uint64_t size) noexcept;
    void take_stats(const Buffers& stats) KVM_VMM_REQUIRES(mutex());
    void serve_stats() KVM_VMM_REQUIRES(mutex());
    void arm_stats_timer() KVM_VMM_REQUIRES(mutex());
    void on_stats_interval();

    const GuestMemory& memory_;
    EventManager& events_;
    BalloonConfig config_;
    std::vector<std::uint16_t> sizes_;
    Counter& inflated_;
    Counter& deflated_;
    Counter& reported_;
    Counter& ignored_;
    Counter& failed_;
    std::array<Counter*, known_tags> stats_{};
    std::chrono::milliseconds stats_interval_;
    bool has_stats_{false};             // the driver's buffer is available, and its statistics were taken
    bool wants_stats_{false};           // that buffer must be returned, so that the driver fills it again
    std::uint32_t actual_pages_{0};     // as the driver says
    std::uint32_t restored_target_{0};  // what the driver of a saved state has read, in pages
    // How many bytes were served of the chain that is available next in each queue.
    std::array<std::uint64_t, reporting_queue + 1> done_of_chain_{};
    Timer stats_timer_;  // last, so that it expires no more before the rest is destroyed
};

}  // namespace kvm_vmm::virtio
