// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/vsock_connection.hpp"

namespace kvm_vmm::virtio {
namespace {

// The guest learns of the space that the host has made when it is a quarter of the buffer, so that a fast
// guest never waits and few packets are needed, ...
constexpr std::uint32_t update_after = VsockConnection::buffer_size / 4;
// ... or when it believes that less than this is left, so that a guest that waits is not forgotten.
constexpr std::uint32_t little_room = 4096;

}  // namespace

VsockConnection::VsockConnection(Origin origin, const VsockHeader& first) noexcept
    : state_(origin == Origin::guest ? State::established : State::requesting),
      owe_request_(origin == Origin::host),
      owe_response_(origin == Origin::guest),
      guest_forwarded_(first.fwd_cnt),
      guest_buffer_(first.buf_alloc) {}

VsockConnection::Reaction VsockConnection::on_packet(const VsockHeader& header) noexcept {
    if (header.op == vsock::op_rst) {
        return Reaction::closed;
    }
    guest_forwarded_ = header.fwd_cnt;
    guest_buffer_ = header.buf_alloc;
    if (credit() != 0) {
        credit_requested_ = false;
        owe_credit_request_ = false;
    }
    if (state_ == State::requesting) {
        // Before the guest has the request, nothing of it can belong to this connection.
        if (header.op != vsock::op_response || owe_request_) {
            return Reaction::violation;
        }
        state_ = State::established;
        return Reaction::opened;
    }
    switch (header.op) {
        case vsock::op_rw:
            // A guest may not send after it has closed that direction, nor more than it was allowed.
            if ((guest_shutdown_ & vsock::shutdown_send) != 0 || header.len > room()) {
                return Reaction::violation;
            }
            received_ += header.len;
            return Reaction::data;
        case vsock::op_shutdown:
            // The bits are permanent (5.10.6.5).
            guest_shutdown_ |= header.flags & vsock::shutdown_both;
            return Reaction::shutdown;
        case vsock::op_credit_update:
            return Reaction::none;
        case vsock::op_credit_request:
            owe_credit_update_ = true;
            return Reaction::none;
        default:
            return Reaction::violation;
    }
}

bool VsockConnection::may_send_data() const noexcept {
    return established() && (guest_shutdown_ & vsock::shutdown_receive) == 0 &&
           (host_shutdown_ & vsock::shutdown_send) == 0;
}

std::uint32_t VsockConnection::credit() const noexcept {
    // Wraps; a guest that claims to have taken more than it got has no credit.
    const std::uint32_t in_flight = sent_ - guest_forwarded_;
    return in_flight < guest_buffer_ ? guest_buffer_ - in_flight : 0;
}

void VsockConnection::miss_credit() noexcept {
    if (!credit_requested_) {
        credit_requested_ = true;
        owe_credit_request_ = true;
    }
}

bool VsockConnection::owes_credit_update() const noexcept {
    const std::uint32_t unknown = forwarded_ - announced_forwarded_;
    const std::uint32_t believed_room = buffer_size - (received_ - announced_forwarded_);
    const bool news = unknown >= update_after || (unknown != 0 && believed_room < little_room);
    return owe_credit_update_ || (news && (guest_shutdown_ & vsock::shutdown_send) == 0);
}

bool VsockConnection::has_control() const noexcept {
    if (!established()) {
        return owe_request_;
    }
    return owe_response_ || announced_shutdown_ != host_shutdown_ || owes_credit_update() ||
           owe_credit_request_;
}

std::optional<std::uint16_t> VsockConnection::next_control() noexcept {
    if (!has_control()) {
        return std::nullopt;
    }
    if (owe_request_) {
        owe_request_ = false;
        return vsock::op_request;
    }
    if (owe_response_) {
        owe_response_ = false;
        return vsock::op_response;
    }
    if (announced_shutdown_ != host_shutdown_) {
        announced_shutdown_ = host_shutdown_;
        return vsock::op_shutdown;
    }
    if (owes_credit_update()) {
        return vsock::op_credit_update;
    }
    owe_credit_request_ = false;
    return vsock::op_credit_request;
}

void VsockConnection::stamp(VsockHeader& header) noexcept {
    header.flags = header.op == vsock::op_shutdown ? announced_shutdown_ : 0;
    header.buf_alloc = buffer_size;
    header.fwd_cnt = forwarded_;
    announced_forwarded_ = forwarded_;
    owe_credit_update_ = false;
}

}  // namespace kvm_vmm::virtio
