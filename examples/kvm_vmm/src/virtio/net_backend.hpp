// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <sys/uio.h>

#include "event/event_manager.hpp"
#include "virtio/mac_address.hpp"

namespace kvm_vmm::virtio {

/// The header before each frame: struct virtio_net_hdr of VIRTIO 1.2, 5.1.6, little-endian.
struct NetHeader {
    std::uint8_t flags{0};
    std::uint8_t gso_type{0};
    std::uint16_t header_length{0};
    std::uint16_t gso_size{0};
    std::uint16_t checksum_start{0};
    std::uint16_t checksum_offset{0};
    std::uint16_t buffers{0};  ///< num_buffers: only of a received frame
};
static_assert(sizeof(NetHeader) == 12);

namespace net_header {
inline constexpr std::uint8_t needs_checksum = 1;  ///< VIRTIO_NET_HDR_F_NEEDS_CSUM
inline constexpr std::uint8_t data_valid = 2;      ///< VIRTIO_NET_HDR_F_DATA_VALID
inline constexpr std::uint8_t gso_none = 0;
inline constexpr std::uint8_t gso_tcp4 = 1;
inline constexpr std::uint8_t gso_tcp6 = 4;
inline constexpr std::uint8_t gso_ecn = 0x80;
}  // namespace net_header

/// An Ethernet header, and the largest frame: that of 65535 bytes behind an Ethernet header and a VLAN tag
/// would be 65553, and 5.1.6.3.1 has drivers post buffers of 65562 bytes with the header, thus 65550.
inline constexpr std::size_t min_frame = 14;
inline constexpr std::size_t max_frame = 65550;
/// The range of an MTU (5.1.4.1).
inline constexpr std::uint16_t min_mtu = 68;
inline constexpr std::uint16_t max_mtu = 65535;

/// What one side may leave to the other side of a network interface.
struct NetOffloads {
    bool checksum{false};  ///< frames without their TCP or UDP checksum
    bool tso4{false};      ///< TCP segments over IPv4 that are larger than the MTU; likewise below
    bool tso6{false};
    bool ecn{false};  ///< such segments with ECN bits

    friend bool operator==(const NetOffloads&, const NetOffloads&) = default;
};

/// The host's end of a network interface: it moves Ethernet frames. It outlives the devices that use it, one
/// after the other.
///
/// Thread safety: from attach() to detach() only the thread of that event loop may use it, except that
/// set_offloads() may be called from any thread.
class NetBackend {
public:
    /// The device that uses the backend. Its functions are called in the event loop.
    class Client {
    public:
        Client() = default;
        Client(const Client&) = delete;
        Client& operator=(const Client&) = delete;
        virtual ~Client() = default;

        /// Frames may have arrived. Called repeatedly while want_frames() is in effect and there are some.
        virtual void frames_arrived() = 0;
        /// After want_room(): a frame can be sent again.
        virtual void room_is_free() = 0;
        /// link_up() has changed.
        virtual void link_changed() = 0;
    };

    enum class Sent : std::uint8_t {
        yes,
        not_now,  ///< there is no room; see want_room()
        refused,  ///< this frame cannot be sent
    };

    NetBackend() = default;
    NetBackend(const NetBackend&) = delete;
    NetBackend& operator=(const NetBackend&) = delete;
    virtual ~NetBackend() = default;

    /// What the backend can leave to its client, and accepts from it.
    [[nodiscard]] virtual NetOffloads offloads() const noexcept { return {}; }
    /// The largest packet (without the Ethernet header) that the host's end takes, in bytes, if it is known.
    [[nodiscard]] virtual std::optional<std::uint16_t> mtu() const noexcept { return std::nullopt; }
    /// What identifies the host's end, from one run of the program to the next: "tap0".
    [[nodiscard]] virtual std::string identity() const = 0;
    /// Which of offloads() it may leave to the client in frames that it receives.
    virtual void set_offloads(NetOffloads) noexcept {}

    /// From now on events are handled in `events`, and reported to `client`. Frames and room are not waited
    /// for yet. To be called before that loop runs, and by the thread that runs it afterwards. Throws VmmError
    /// if the system has no descriptor left.
    virtual void attach(EventManager& events, Client& client) = 0;
    /// To be called when the loop does not run any more. Does nothing if no client is attached.
    virtual void detach() noexcept = 0;

    /// Whether frames_arrived() is to be called. While it is not, the host is not polled.
    virtual void want_frames(bool wanted) = 0;
    /// Lets room_is_free() be called once.
    virtual void want_room() = 0;
    [[nodiscard]] virtual bool link_up() const noexcept = 0;

    /// Takes the next frame: fills `header`, and `pieces` with as much of the frame as they have room for.
    /// Returns the length of the frame; nothing if there is none.
    [[nodiscard]] virtual std::optional<std::size_t> receive(NetHeader& header,
                                                             std::span<const iovec> pieces) = 0;
    /// Sends one frame of `length` bytes, which are those of `pieces`: min_frame to max_frame.
    [[nodiscard]] virtual Sent send(const NetHeader& header, std::span<const iovec> pieces,
                                    std::size_t length) = 0;
};

}  // namespace kvm_vmm::virtio
