// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "console/listening_socket.hpp"
#include "event/event_manager.hpp"
#include "event/event_thread.hpp"
#include "event/timer.hpp"
#include "virtio/device.hpp"
#include "virtio/vsock_connection.hpp"

namespace kvm_vmm::virtio {

/// The port of a line "CONNECT PORT\n", with which a program on the host asks for a connection to the guest.
/// The keyword may be in lower case. Nothing if the line is anything else.
[[nodiscard]] std::optional<std::uint32_t> parse_connect(std::string_view line);

/// Socket device: VIRTIO 1.2, section 5.10. Stream sockets between the guest and Unix sockets of the host, by
/// the convention that Firecracker introduced:
/// - A program on the host connects to the device's socket and sends a line "CONNECT PORT\n". When the guest
///   has accepted the connection to that port, the program gets "OK HOSTPORT\n" and the guest's bytes follow.
///   Otherwise its connection is closed without a text.
/// - A connection of the guest to CID 2, port P, leads to the socket at the path of the device's with "_P"
///   after it. If none listens there, the connection is refused.
///
/// A client that asks while no driver operates the device is refused too.
///
/// Not modelled: VIRTIO_VSOCK_F_SEQPACKET.
///
/// A connection has no state in common with others: one that nobody reads does not delay them. All are closed
/// when the driver resets the device; the listening socket remains.
///
/// The descriptors of connections are in an epoll instance of the device's own, within its event loop: the
/// event loop is for one thread only, but vCPUs' threads close connections when they reset the device.
class Vsock final : public Device {
public:
    /// Connections, with those that are being made or closed.
    static constexpr std::size_t max_connections = 1023;
    /// The longest "CONNECT PORT\n".
    static constexpr std::size_t longest_line = 32;
    /// The bytes that follow the device's path in names of sockets of the host: "_4294967295".
    static constexpr std::size_t longest_suffix = 11;
    /// The first port of the host for connections that the host makes.
    static constexpr std::uint32_t first_host_port = 1U << 30U;

    static constexpr std::chrono::seconds line_patience{5};
    /// For the answer to a request, and to a shutdown of both directions.
    static constexpr std::chrono::seconds answer_patience{2};
    /// For a program on the host that has not read all, after the guest has closed the connection: the time in which it
    /// takes nothing. Longer than the others, because its bytes are lost after it.
    static constexpr std::chrono::seconds drain_patience{30};

    /// In an event loop of the caller's. `socket` must listen, and must outlive the device. Throws VmmError.
    Vsock(std::string_view name, Counters& counters, EventManager& events, std::uint64_t guest_cid,
          const ListeningSocket& socket, std::chrono::milliseconds patience_to_drain = drain_patience);
    /// In a thread of its own: the amount of data is the guest's and the host's choice, and must not delay the
    /// events of other devices.
    Vsock(std::string_view name, Counters& counters, std::unique_ptr<EventThread> thread,
          std::uint64_t guest_cid, const ListeningSocket& socket);
    ~Vsock() override;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::vsock; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes; }
    [[nodiscard]] EventManager& events() noexcept override { return events_; }
    void start_events() override;
    void stop_events() noexcept override;

private:
    Vsock(std::string_view name, Counters& counters, std::unique_ptr<EventThread> thread,
          EventManager* events, std::uint64_t guest_cid, const ListeningSocket& socket,
          std::chrono::milliseconds patience_to_drain);

    static constexpr std::array<std::uint16_t, 3> sizes{256, 256, 64};
    static constexpr std::size_t receive_queue = 0;  // what the device sends
    static constexpr std::size_t transmit_queue = 1;
    static constexpr std::size_t event_queue = 2;

    using Clock = std::chrono::steady_clock;
    using Id = std::uint64_t;
    static constexpr Id listener_id = 0;  // in epoll_, beside the streams

    /// A connection, or a socket of the host on the way to or from being one.
    struct Stream {
        enum class Phase : std::uint8_t {
            greeting,   ///< the line of a program on the host is awaited
            open,       ///< requested or established
            draining,   ///< the guest has closed it, and the host has not yet taken all bytes
            resetting,  ///< closed on the host; the packet for the guest waits for a buffer
        };
        Phase phase{Phase::greeting};
        vmsuperio::UniqueFd fd;
        std::string line;
        std::uint32_t guest_port{0};
        std::uint32_t host_port{0};
        VsockConnection connection{VsockConnection::Origin::host};
        std::vector<std::uint8_t> pending;  ///< bytes of the guest that the host's socket had no room for
        std::size_t pending_from{0};
        int unread{0};  ///< while draining: bytes in the host's socket when the deadline was set
        bool readable{false};
        bool hung_up{false};
        bool scheduled{false};  ///< is in scheduled_
        bool waits_for_room{false};
        std::optional<Clock::time_point> deadline;
    };

    static std::uint64_t pair_of(std::uint32_t guest_port, std::uint32_t host_port) noexcept {
        return std::uint64_t{guest_port} << 32U | host_port;
    }

    void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) override;
    void on_reset() KVM_VMM_REQUIRES(mutex()) override;
    /// Connections and what they wait for do not belong to a queue's chains.
    void on_queue_reset(std::size_t) KVM_VMM_REQUIRES(mutex()) override {}
    [[nodiscard]] std::vector<std::uint8_t> on_state() const KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::expected<void, std::string_view> on_restore_state(std::span<const std::uint8_t> bytes,
                                                                         std::uint64_t features)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_restored() KVM_VMM_REQUIRES(mutex()) override;
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_defective(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex()) override;

    // Events of the host.
    void on_host_events();
    void on_time();
    void accept_clients() KVM_VMM_REQUIRES(mutex());
    void on_stream_events(Id id, Stream& stream, std::uint32_t events) KVM_VMM_REQUIRES(mutex());
    void notice_hangup(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void read_line(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void request(Id id, Stream& stream, std::uint32_t port) KVM_VMM_REQUIRES(mutex());
    void rest(int error_number) KVM_VMM_REQUIRES(mutex());

    // Packets of the guest.
    [[nodiscard]] std::optional<std::uint32_t> take_packet(const Chain& chain) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::optional<VsockHeader> take_header(const Chain& chain) KVM_VMM_REQUIRES(mutex());
    void take_packet(Id id, Stream& stream, const VsockHeader& header, const Buffers& payload)
        KVM_VMM_REQUIRES(mutex());
    void abort_connection_of(const Chain& chain) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] static bool is_for_us(const VsockHeader& header) noexcept;
    [[nodiscard]] std::optional<Id> connection_of(const VsockHeader& header) const KVM_VMM_REQUIRES(mutex());
    void connect_guest(const VsockHeader& header) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] vmsuperio::UniqueFd connect_host(std::uint32_t port) const;
    void greet(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void pass_on(Id id, Stream& stream, const Buffers& payload) KVM_VMM_REQUIRES(mutex());
    void follow_shutdown(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void refuse(const VsockHeader& header) KVM_VMM_REQUIRES(mutex());
    void count_malformed() noexcept {
        malformed_.add();
        count_bad_request();
    }

    // Packets for the guest.
    void send_packets() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::optional<std::uint32_t> fill(const Buffers& buffers) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::optional<std::uint32_t> fill(Id id, Stream& stream, const Buffers& buffers)
        KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::optional<std::uint32_t> fill_data(Id id, Stream& stream, const Buffers& buffers)
        KVM_VMM_REQUIRES(mutex());
    std::uint32_t put(const Buffers& buffers, const VsockHeader& header) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] VsockHeader header_for(const Stream& stream, std::uint16_t op) const
        KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::optional<std::uint32_t> send_control(Stream& stream, const Buffers& buffers)
        KVM_VMM_REQUIRES(mutex());

    // The life of streams.
    Stream* add(vmsuperio::UniqueFd fd, Id& id) KVM_VMM_REQUIRES(mutex());
    void flush(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void wait_for_room(Id id, Stream& stream, bool wait) const KVM_VMM_REQUIRES(mutex());
    void wait_for_reader(Stream& stream) KVM_VMM_REQUIRES(mutex());
    void host_receives_no_more(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void close_host(Id id, Stream& stream, std::uint32_t directions) KVM_VMM_REQUIRES(mutex());
    void discard_pending(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void schedule(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] static bool has_work(const Stream& stream) noexcept;
    void abort(Id id, Stream& stream) KVM_VMM_REQUIRES(mutex());
    void close_descriptor(Stream& stream) const KVM_VMM_REQUIRES(mutex());
    void listen_for_clients(bool listen) KVM_VMM_REQUIRES(mutex());
    void send_event() KVM_VMM_REQUIRES(mutex());
    void erase(Id id) KVM_VMM_REQUIRES(mutex());
    void set_deadline(Stream& stream, Clock::duration patience) KVM_VMM_REQUIRES(mutex());
    void set_timer(Clock::time_point time) KVM_VMM_REQUIRES(mutex());

    std::unique_ptr<EventThread> thread_;  // null: the event loop is another's
    EventManager& events_;
    std::uint64_t guest_cid_;
    const ListeningSocket& socket_;
    std::chrono::milliseconds patience_to_drain_;
    Counter& connections_;
    Counter& refused_;
    Counter& rx_bytes_;
    Counter& rx_packets_;
    Counter& tx_bytes_;
    Counter& tx_packets_;
    Counter& resets_sent_;
    Counter& malformed_;
    Counter& undelivered_bytes_;

    vmsuperio::UniqueFd epoll_;
    EventManager::SubscriptionId subscription_{};
    Timer timer_;
    std::optional<Clock::time_point> timer_set_;
    std::optional<Clock::time_point> rest_until_;  // no clients are accepted, for want of descriptors

    std::unordered_map<Id, Stream> streams_;
    std::unordered_map<std::uint64_t, Id> pairs_;  // those in Phase::open and resetting
    Id next_id_{1};
    std::uint32_t next_host_port_{first_host_port};
    std::deque<Id> scheduled_;          // streams that may have a packet for the guest; each once
    std::deque<VsockHeader> refusals_;  // VIRTIO_VSOCK_OP_RST for pairs that have no stream
    bool transmit_waits_{false};        // until there are fewer refusals
    bool announce_reset_{false};
};

}  // namespace kvm_vmm::virtio
