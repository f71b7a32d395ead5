// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "memory/guest_memory.hpp"
#include "virtio/balloon_config.hpp"
#include "virtio/device.hpp"

namespace kvm_vmm::virtio {

/// A memory balloon: VIRTIO 1.2, section 5.5. The guest gives pages up, whose memory returns to the host, until the
/// balloon has the size of the target; and with free page reporting, it reports pages that it does not use.
///
/// Pages that are not RAM are ignored and counted. The target does not change while the VM runs.
///
/// Not modelled: the statistics queue, VIRTIO_BALLOON_F_FREE_PAGE_HINT, VIRTIO_BALLOON_F_PAGE_POISON.
class Balloon final : public Device {
public:
    /// Feature bits (5.5.3).
    static constexpr std::uint64_t feature_deflate_on_oom = 1U << 2U;  ///< VIRTIO_BALLOON_F_DEFLATE_ON_OOM
    static constexpr std::uint64_t feature_reporting = 1U << 5U;       ///< VIRTIO_BALLOON_F_PAGE_REPORTING
    static constexpr std::size_t inflate_queue = 0;
    static constexpr std::size_t deflate_queue = 1;
    /// The queues of features that were not offered do not exist, so this is the next one (5.5.2).
    static constexpr std::size_t reporting_queue = 2;
    /// The unit of page numbers and sizes (5.5.6), whatever the page size of the guest is.
    static constexpr std::uint64_t page_size = 4096;

    /// `memory` and `events` must outlive the device.
    Balloon(std::string_view name, Counters& counters, const GuestMemory& memory, EventManager& events,
            const BalloonConfig& config);

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::balloon; }
    [[nodiscard]] std::uint64_t features() const noexcept override {
        return (config_.deflate_on_oom ? feature_deflate_on_oom : 0) |
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
    void on_reset() KVM_VMM_REQUIRES(mutex()) override;
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;

    [[nodiscard]] bool inflate(const Buffers& pages, std::uint64_t& budget) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool report(const Buffers& ranges, std::uint64_t& budget) KVM_VMM_REQUIRES(mutex());

    const GuestMemory& memory_;
    EventManager& events_;
    BalloonConfig config_;
    std::vector<std::uint16_t> sizes_;
    Counter& inflated_;
    Counter& deflated_;
    Counter& reported_;
    Counter& ignored_;
    Counter& failed_;
    std::uint32_t actual_pages_{0};       // as the driver says
    std::uint64_t done_of_chain_{0};      // bytes of the chain that is available next in the inflate queue
    std::uint64_t reported_of_chain_{0};  // in the reporting queue
};

}  // namespace kvm_vmm::virtio
