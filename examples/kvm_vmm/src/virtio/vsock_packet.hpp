// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <cstring>
#include <span>

namespace kvm_vmm::virtio {

/// The header of a packet of the socket device (VIRTIO 1.2, 5.10.6). All fields are little-endian, as this
/// host is.
struct [[gnu::packed]] VsockHeader {
    std::uint64_t src_cid;
    std::uint64_t dst_cid;
    std::uint32_t src_port;
    std::uint32_t dst_port;
    std::uint32_t len;  ///< bytes of payload after the header
    std::uint16_t type;
    std::uint16_t op;
    std::uint32_t flags;
    std::uint32_t buf_alloc;  ///< the sender's buffer space for this connection
    std::uint32_t fwd_cnt;    ///< bytes that the sender has taken out of its buffer, modulo 2^32
};
static_assert(sizeof(VsockHeader) == 44);

/// The numbers of VIRTIO 1.2, 5.10.
namespace vsock {
inline constexpr std::uint64_t host_cid = 2;
inline constexpr std::uint64_t first_guest_cid = 3;
inline constexpr std::uint64_t last_guest_cid = 0xFFFF'FFFE;

inline constexpr std::uint16_t type_stream = 1;

inline constexpr std::uint16_t op_request = 1;
inline constexpr std::uint16_t op_response = 2;
inline constexpr std::uint16_t op_rst = 3;
inline constexpr std::uint16_t op_shutdown = 4;
inline constexpr std::uint16_t op_rw = 5;
inline constexpr std::uint16_t op_credit_update = 6;
inline constexpr std::uint16_t op_credit_request = 7;

// Of op_shutdown: what its sender does not do any more.
inline constexpr std::uint32_t shutdown_receive = 1;
inline constexpr std::uint32_t shutdown_send = 2;
inline constexpr std::uint32_t shutdown_both = shutdown_receive | shutdown_send;

inline constexpr std::uint32_t event_transport_reset = 0;
}  // namespace vsock

[[nodiscard]] inline std::span<std::uint8_t> bytes_of(VsockHeader& header) noexcept {
    return {reinterpret_cast<std::uint8_t*>(&header), sizeof(header)};
}
[[nodiscard]] inline std::span<const std::uint8_t> bytes_of(const VsockHeader& header) noexcept {
    return {reinterpret_cast<const std::uint8_t*>(&header), sizeof(header)};
}

}  // namespace kvm_vmm::virtio
