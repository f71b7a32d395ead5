// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "virtio/vsock_packet.hpp"

namespace kvm_vmm::virtio {

/// The protocol of one stream connection, from the device's side (VIRTIO 1.2, 5.10.6.3 to 5.10.6.5): its
/// states, both directions of credit, and half-close. It has no descriptors, buffers or time: the device tells
/// it what happens, and asks it which packet to send next.
class VsockConnection {
public:
    /// The space for bytes of the guest that the host has not taken yet.
    static constexpr std::uint32_t buffer_size = 64 * 1024;

    enum class Origin : std::uint8_t {
        guest,  ///< it has sent VIRTIO_VSOCK_OP_REQUEST, and a response is due
        host,   ///< a request is due
    };
    /// `first` is the guest's request if that is the origin.
    explicit VsockConnection(Origin origin, const VsockHeader& first = {}) noexcept;

    // What the guest sends.

    enum class Reaction : std::uint8_t {
        none,
        opened,    ///< the guest has accepted the host's request
        data,      ///< `len` bytes are to be passed on; they are within room()
        shutdown,  ///< the guest has closed a direction: see guest_shutdown()
        closed,    ///< the guest has reset the connection: forget it, without an answer
        violation  ///< reset the connection
    };
    /// A packet of this connection. `header.len` must be the size of its payload.
    [[nodiscard]] Reaction on_packet(const VsockHeader& header) noexcept;

    /// Bytes that the guest may still send before the host takes some: up to buffer_size.
    [[nodiscard]] std::uint32_t room() const noexcept { return buffer_size - (received_ - forwarded_); }
    /// The bits vsock::shutdown_... that the guest has sent so far.
    [[nodiscard]] std::uint32_t guest_shutdown() const noexcept { return guest_shutdown_; }

    // What the host does.

    /// It has taken `count` bytes that were received from the guest, or they were discarded.
    void forwarded(std::uint32_t count) noexcept { forwarded_ += count; }
    /// The host does this no more: vsock::shutdown_send after all of its bytes were sent to the guest.
    void close_host(std::uint32_t directions) noexcept { host_shutdown_ |= directions; }
    [[nodiscard]] std::uint32_t host_shutdown() const noexcept { return host_shutdown_; }

    // What the device may send to the guest.

    [[nodiscard]] bool established() const noexcept { return state_ == State::established; }
    /// Whether bytes of the host may be sent, as far as there is credit().
    [[nodiscard]] bool may_send_data() const noexcept;
    /// Bytes that the guest has buffer space for.
    [[nodiscard]] std::uint32_t credit() const noexcept;
    void sent(std::uint32_t count) noexcept { sent_ += count; }
    /// The host has bytes for the guest, but there is no credit. Asks for more once, until there is some.
    void miss_credit() noexcept;

    /// Whether next_control() would return something.
    [[nodiscard]] bool has_control() const noexcept;
    /// The operation of the packet without data that is to be sent before data; nothing if there is none. The
    /// caller has to send it.
    [[nodiscard]] std::optional<std::uint16_t> next_control() noexcept;
    /// Writes the fields of a packet that is about to be sent which depend on this object: `flags`, `buf_alloc`
    /// and `fwd_cnt`. Its `op` must be set.
    void stamp(VsockHeader& header) noexcept;

private:
    enum class State : std::uint8_t { requesting, established };

    [[nodiscard]] bool owes_credit_update() const noexcept;

    State state_;
    bool owe_request_;
    bool owe_response_;
    bool owe_credit_update_{false};
    bool owe_credit_request_{false};
    bool credit_requested_{false};
    std::uint32_t guest_shutdown_{0};
    std::uint32_t host_shutdown_{0};
    std::uint32_t announced_shutdown_{0};

    // Counts of bytes, modulo 2^32 (5.10.6.3).
    std::uint32_t received_{0};
    std::uint32_t forwarded_{0};
    std::uint32_t announced_forwarded_{0};  // as the guest knows it
    std::uint32_t sent_{0};
    std::uint32_t guest_forwarded_{0};
    std::uint32_t guest_buffer_{0};
};

}  // namespace kvm_vmm::virtio
