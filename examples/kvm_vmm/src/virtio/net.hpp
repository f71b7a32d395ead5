// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <deque>
#include <expected>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <sys/uio.h>
#include <utility>
#include <vector>

#include "event/event_thread.hpp"
#include "event/timer.hpp"
#include "util/token_bucket.hpp"
#include "virtio/device.hpp"
#include "virtio/net_backend.hpp"

namespace kvm_vmm::virtio {

/// Feature bits of network devices (5.1.3).
namespace net_feature {
inline constexpr std::uint64_t checksum = 1ULL << 0U;            ///< VIRTIO_NET_F_CSUM
inline constexpr std::uint64_t guest_checksum = 1ULL << 1U;      ///< VIRTIO_NET_F_GUEST_CSUM
inline constexpr std::uint64_t mtu = 1ULL << 3U;                 ///< VIRTIO_NET_F_MTU
inline constexpr std::uint64_t mac = 1ULL << 5U;                 ///< VIRTIO_NET_F_MAC
inline constexpr std::uint64_t guest_tso4 = 1ULL << 7U;          ///< VIRTIO_NET_F_GUEST_TSO4
inline constexpr std::uint64_t guest_tso6 = 1ULL << 8U;          ///< VIRTIO_NET_F_GUEST_TSO6
inline constexpr std::uint64_t guest_ecn = 1ULL << 9U;           ///< VIRTIO_NET_F_GUEST_ECN
inline constexpr std::uint64_t host_tso4 = 1ULL << 11U;          ///< VIRTIO_NET_F_HOST_TSO4
inline constexpr std::uint64_t host_tso6 = 1ULL << 12U;          ///< VIRTIO_NET_F_HOST_TSO6
inline constexpr std::uint64_t host_ecn = 1ULL << 13U;           ///< VIRTIO_NET_F_HOST_ECN
inline constexpr std::uint64_t mergeable_buffers = 1ULL << 15U;  ///< VIRTIO_NET_F_MRG_RXBUF
inline constexpr std::uint64_t status = 1ULL << 16U;             ///< VIRTIO_NET_F_STATUS
}  // namespace net_feature

/// Network device: VIRTIO 1.2, section 5.1, with one receive and one transmit queue.
///
/// Not modelled: several pairs of queues (VIRTIO_NET_F_MQ), the control queue (VIRTIO_NET_F_CTRL_VQ), UDP
/// segmentation (UFO, USO). The driver gets all frames of the backend: there are no filters.
///
/// It runs in a thread of its own. Frames go from the backend into the driver's buffers, and back, without a copy
/// of their own if the backend can do so.
class Net final : public Device, private NetBackend::Client {
public:
    static constexpr std::size_t receive_queue = 0;
    static constexpr std::size_t transmit_queue = 1;
    /// How long a received frame waits for further buffers of the driver. A driver whose buffers are all too small, but
    /// already available, has none to offer, so that no notification would end the wait.
    static constexpr std::chrono::milliseconds longest_hold{100};
    /// The number of frames after which the device lets its driver see them, and has a look at the other queue.
    static constexpr std::size_t batch = 64;

    // NOLINTBEGIN(readability-redundant-member-init): GCC warns of initializers that leave a member without one out
    struct Settings {
        MacAddress mac;
        std::optional<std::uint16_t> mtu{};   ///< in bytes, without the Ethernet header
        std::optional<std::uint64_t> rate{};  ///< bytes per second, of each direction; a tenth of it at once
    };
    // NOLINTEND(readability-redundant-member-init)

    /// `backend` must outlive the device and have no other client. Throws VmmError if the system has no
    /// descriptor left. `external` is an event loop to use instead of a thread of its own, for tests.
    Net(std::string_view name, Counters& counters, NetBackend& backend, const Settings& settings,
        EventManager* external = nullptr);
    ~Net() override;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::network; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return features_; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes; }
    [[nodiscard]] EventManager& events() noexcept override;
    void start_events() override;
    void stop_events() noexcept override;

private:
    static constexpr std::array<std::uint16_t, 2> sizes{256, 256};

    // NetBackend::Client
    void frames_arrived() override;
    void room_is_free() override;
    void link_changed() override;

    void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) override;
    void on_activate() KVM_VMM_REQUIRES(mutex()) override;
    void on_reset() KVM_VMM_REQUIRES(mutex()) override;
    void on_queue_reset(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_defective(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex()) override;
    void on_drain() KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::vector<std::uint8_t> on_state() const KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::expected<void, std::string_view> on_restore_state(std::span<const std::uint8_t> bytes,
                                                                         std::uint64_t features)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_restored() KVM_VMM_REQUIRES(mutex()) override;
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;

    [[nodiscard]] bool accepted(std::uint64_t feature) const noexcept KVM_VMM_REQUIRES(mutex()) {
        return (negotiated() & feature) != 0;
    }

    /// A turn: serves the queues that may make progress, each at most as many chains as it has descriptors, and
    /// interrupts the driver once, and for each chain that is refused. `offered`: the driver has offered receive
    /// buffers since the last call, as many as it has.
    void exchange(bool receives, bool transmits, bool offered) KVM_VMM_REQUIRES(mutex());

    // Received frames.
    /// later: a timer or a notification of the device's own will follow.
    enum class Received : std::uint8_t { frame, none, no_buffers, later };
    /// Takes up to `batch` frames.
    [[nodiscard]] Received receive_frames() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] Received receive_frame() KVM_VMM_REQUIRES(mutex());
    void return_empty(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex());
    void forget_posted() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] Received want_of_buffers() const KVM_VMM_REQUIRES(mutex()) {
        return receive_budget_ == 0 ? Received::later : Received::no_buffers;
    }
    void post(std::uint64_t bytes) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool fits(std::size_t length) const KVM_VMM_REQUIRES(mutex());
    void deliver(std::size_t length) KVM_VMM_REQUIRES(mutex());
    void hold(std::size_t length) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool deliver_held() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool may_receive(NetHeader& header) const KVM_VMM_REQUIRES(mutex());
    void on_hold_expired();

    // Transmitted frames.
    void transmit_frames() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool transmit(const Chain& chain) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool may_transmit(const NetHeader& header) const KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] static NetHeader for_host(NetHeader header, std::size_t length) noexcept;

    /// The limit of one direction, and the timer that ends a wait for it.
    struct Limit {
        Limit(const TokenBucket& full, EventManager& events, std::function<void()> on_expired)
            : bucket(full), timer(events, CLOCK_MONOTONIC, std::move(on_expired)) {}
        TokenBucket bucket;
        Timer timer;
    };
    /// Returns whether it is not exceeded; otherwise sets its timer.
    [[nodiscard]] bool take(std::optional<Limit>& limit, std::size_t bytes) KVM_VMM_REQUIRES(mutex());

    NetBackend& backend_;
    Settings settings_;
    std::uint64_t features_;
    std::optional<EventThread> thread_;
    EventManager* events_;
    Counter& rx_frames_;
    Counter& rx_bytes_;
    Counter& rx_dropped_;
    Counter& rx_waits_;
    Counter& tx_frames_;
    Counter& tx_bytes_;
    Counter& tx_dropped_;
    Counter& tx_waits_;
    Counter& link_downs_;
    Counter& throttled_;

    /// Frames of the backend are waited for: there are buffers for them, and the limit is not exceeded.
    bool may_receive_ KVM_VMM_GUARDED_BY(mutex()){false};
    /// The next frame to transmit waits for room_is_free().
    bool transmit_waits_ KVM_VMM_GUARDED_BY(mutex()){false};
    /// How many more chains of the receive queue may be taken in this turn: a driver may offer them as fast as they
    /// are returned.
    std::size_t receive_budget_ KVM_VMM_GUARDED_BY(mutex()){0};
    /// Chains of the receive queue that were taken and not used yet, and their bytes.
    std::deque<Chain> posted_ KVM_VMM_GUARDED_BY(mutex());
    std::uint64_t posted_bytes_ KVM_VMM_GUARDED_BY(mutex()){0};
    bool skipped_ KVM_VMM_GUARDED_BY(mutex()){
        false};  // a later chain than a posted one was returned before it
    /// A frame that waits for buffers: it was taken from the backend, and the driver has too few. Its header is
    /// `header_`.
    std::vector<std::uint8_t> held_ KVM_VMM_GUARDED_BY(mutex());
    std::optional<Timer> hold_timer_;
    NetHeader header_ KVM_VMM_GUARDED_BY(mutex());
    /// Room for what does not fit into the driver's buffers.
    std::vector<std::uint8_t> overflow_ KVM_VMM_GUARDED_BY(mutex());
    std::vector<iovec> pieces_ KVM_VMM_GUARDED_BY(mutex());
    std::optional<Limit> receive_limit_ KVM_VMM_GUARDED_BY(mutex());
    std::optional<Limit> transmit_limit_ KVM_VMM_GUARDED_BY(mutex());
    /// What the driver of a saved state has read of the link.
    std::optional<bool> link_up_when_saved_ KVM_VMM_GUARDED_BY(mutex());
};

}  // namespace kvm_vmm::virtio
