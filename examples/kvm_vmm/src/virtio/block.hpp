// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "event/event_thread.hpp"
#include "event/notifier.hpp"
#include "event/timer.hpp"
#include "util/token_bucket.hpp"
#include "virtio/device.hpp"
#include "virtio/disk_engine.hpp"
#include "virtio/disk_file.hpp"

namespace kvm_vmm::virtio {

/// Feature bits of block devices (5.2.3).
namespace block_feature {
inline constexpr std::uint64_t seg_max = 1ULL << 2U;
inline constexpr std::uint64_t read_only = 1ULL << 5U;
inline constexpr std::uint64_t block_size = 1ULL << 6U;
inline constexpr std::uint64_t flush = 1ULL << 9U;
inline constexpr std::uint64_t topology = 1ULL << 10U;
inline constexpr std::uint64_t config_wce = 1ULL << 11U;
inline constexpr std::uint64_t multi_queue = 1ULL << 12U;
inline constexpr std::uint64_t discard = 1ULL << 13U;
inline constexpr std::uint64_t write_zeroes = 1ULL << 14U;
}  // namespace block_feature

/// Types of requests (5.2.6).
namespace block_request {
inline constexpr std::uint32_t in = 0;
inline constexpr std::uint32_t out = 1;
inline constexpr std::uint32_t flush = 4;
inline constexpr std::uint32_t get_id = 8;
inline constexpr std::uint32_t discard = 11;
inline constexpr std::uint32_t write_zeroes = 13;
}  // namespace block_request

/// The answer in the last byte that the device writes (5.2.6).
enum class BlockStatus : std::uint8_t { ok = 0, io_error = 1, unsupported = 2 };

/// A disk: VIRTIO 1.2, section 5.2. Requests are taken from the queues in a thread of the device's own, and
/// performed by a DiskEngine. They may end in any order, as the standard allows.
///
/// An error of the host is the guest's I/O error, and counted; the device lives on. All bytes up to the
/// length in the used ring are written: what a failed read has not filled is 0.
class Block final : public Device {
public:
    // NOLINTBEGIN(readability-redundant-member-init): GCC warns of initializers that leave a member without one out
    struct Options {
        std::string id{};  ///< serial number; longer ones are cut to 20 bytes
        std::size_t queues{1};
        std::optional<std::uint64_t> bytes_per_second{};
        std::optional<std::uint64_t> requests_per_second{};
    };
    // NOLINTEND(readability-redundant-member-init)
    using MakeEngine = std::function<std::unique_ptr<DiskEngine>(DiskFile&)>;

    static constexpr std::uint16_t queue_size = 256;
    /// Linux puts the header and the status into descriptors of their own.
    static constexpr std::uint32_t max_segments = queue_size - 2;
    static constexpr std::uint32_t max_ranges = 16;                  ///< of a discard or write of zeros
    static constexpr std::uint32_t max_discard_sectors = 1U << 22U;  ///< 2 GiB
    /// 64 MiB: where the host cannot do it, this much is written.
    static constexpr std::uint32_t max_write_zeroes_sectors = 1U << 17U;

    /// `file` must outlive the device. Throws VmmError if the system has no descriptor or thread left.
    Block(std::string_view name, Counters& counters, DiskFile& file, Options options,
          const MakeEngine& make_engine);
    ~Block() override;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::block; }
    [[nodiscard]] std::uint64_t features() const noexcept override;
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes_; }
    [[nodiscard]] EventManager& events() noexcept override { return thread_.events(); }
    void start_events() override { thread_.start(); }
    void stop_events() noexcept override { thread_.stop(); }

    /// Lets the device's thread look at the size of the file again. If it has changed, the guest's driver is notified
    /// (5.2.4: capacity); if it cannot be the size of a disk, a line of the log says so. May be called from any thread.
    void check_size() noexcept { size_check_.notify(); }

    /// For tests and messages.
    [[nodiscard]] std::string_view engine_name() const noexcept { return engine_->name(); }

private:
    struct Config;
    struct Header {
        std::uint32_t type;
        std::uint32_t reserved;
        std::uint64_t sector;
    };
    struct RangeEntry {
        std::uint64_t sector;
        std::uint32_t sectors;
        std::uint32_t flags;
    };
    /// A request that the engine performs.
    struct Request;

    void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) override;
    void on_write_config(std::uint64_t offset, std::span<const std::uint8_t> data)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_activate() KVM_VMM_REQUIRES(mutex()) override;
    void on_reset() KVM_VMM_REQUIRES(mutex()) override;
    void on_queue_reset(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_drain() KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::vector<std::uint8_t> on_state() const KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::expected<void, std::string_view> on_restore_state(std::span<const std::uint8_t> bytes,
                                                                         std::uint64_t features)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_defective(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex()) override;

    void serve_queue(std::size_t index) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool admit(const Chain& chain) KVM_VMM_REQUIRES(mutex());
    void begin(std::size_t queue, Chain chain) KVM_VMM_REQUIRES(mutex());
    void begin_transfer(std::size_t queue, Chain chain, const Header& header) KVM_VMM_REQUIRES(mutex());
    void begin_ranges(std::size_t queue, Chain chain, std::uint32_t type) KVM_VMM_REQUIRES(mutex());
    void submit(std::size_t queue, Chain chain, DiskIo io) KVM_VMM_REQUIRES(mutex());
    void take_ended() KVM_VMM_REQUIRES(mutex());
    void wait_for_queue(std::size_t index) KVM_VMM_REQUIRES(mutex());
    void end(Request& request) KVM_VMM_REQUIRES(mutex());
    void answer(std::size_t queue, const Chain& chain, BlockStatus status, std::uint64_t filled)
        KVM_VMM_REQUIRES(mutex());
    void reject(std::size_t queue, const Chain& chain, BlockStatus status) KVM_VMM_REQUIRES(mutex());
    void log_error(const DiskIo& io) const;
    void on_engine_ready();
    void on_limit_passed();
    void on_size_check();

    [[nodiscard]] bool writes_through() const noexcept KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool inside(std::uint64_t sector, std::uint64_t bytes) const noexcept;
    [[nodiscard]] static std::chrono::nanoseconds now() noexcept;

    DiskFile& file_;
    Options options_;
    std::vector<std::uint16_t> sizes_;
    std::unique_ptr<DiskEngine> engine_;
    // Those in progress, by queue and head.
    std::vector<std::unique_ptr<Request>> requests_ KVM_VMM_GUARDED_BY(mutex());
    std::vector<std::size_t> in_progress_ KVM_VMM_GUARDED_BY(mutex());      // how many of each queue
    std::optional<std::size_t> stopped_queue_ KVM_VMM_GUARDED_BY(mutex());  // whose requests get no answer
    std::vector<DiskIo*> ended_ KVM_VMM_GUARDED_BY(mutex());
    bool writeback_ KVM_VMM_GUARDED_BY(mutex()){true};
    std::optional<TokenBucket> bytes_limit_ KVM_VMM_GUARDED_BY(mutex());
    std::optional<TokenBucket> requests_limit_ KVM_VMM_GUARDED_BY(mutex());
    std::vector<bool> throttled_ KVM_VMM_GUARDED_BY(mutex());  // queues that wait for the limits
    bool resized_before_start_ KVM_VMM_GUARDED_BY(mutex()){
        false};  // after the driver may have read the capacity

    Counter& reads_;
    Counter& writes_;
    Counter& flushes_;
    Counter& discards_;
    Counter& write_zeroes_;
    Counter& bytes_read_;
    Counter& bytes_written_;
    Counter& io_errors_;
    Counter& rejected_;
    Counter& throttles_;
    Counter& resizes_;

    EventThread thread_;
    std::optional<Timer> limit_timer_;
    EventManager::SubscriptionId engine_subscription_{};
    Notifier size_check_;
    EventManager::SubscriptionId size_check_subscription_{};
};

}  // namespace kvm_vmm::virtio
