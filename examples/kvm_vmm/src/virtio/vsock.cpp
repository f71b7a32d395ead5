// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/vsock.hpp"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <utility>

#include "util/error.hpp"
#include "virtio/device_states.hpp"

namespace kvm_vmm::virtio {
namespace {

constexpr std::size_t header_size = sizeof(VsockHeader);
// What one packet carries at most: a driver's buffers are smaller.
constexpr std::uint32_t max_payload = 64 * 1024;
// Refusals that wait for the driver's buffers. Then the driver's packets wait, too (5.10.6.1.1 lets a device
// keep a limited number outside of the queue).
constexpr std::size_t max_refusals = 256;

/// The first pieces of guest memory, for readv(2) and its like.
class Vectors {
public:
    explicit Vectors(const Buffers& buffers) {
        for (const Buffers::Piece piece : buffers.pieces()) {
            if (count_ == vectors_.size()) {
                break;
            }
            vectors_.at(count_++) = {.iov_base = piece.data(), .iov_len = piece.size()};
        }
    }
    [[nodiscard]] msghdr message() noexcept {
        msghdr result{};
        result.msg_iov = vectors_.data();
        result.msg_iovlen = count_;
        return result;
    }

private:
    std::array<iovec, 64> vectors_{};
    std::size_t count_{0};
};

}  // namespace

Vsock::Vsock(std::string_view name, Counters& counters, EventManager& events, std::uint64_t guest_cid,
             const ListeningSocket& socket, std::chrono::milliseconds patience_to_drain)
    : Vsock(name, counters, nullptr, &events, guest_cid, socket, patience_to_drain) {}

Vsock::Vsock(std::string_view name, Counters& counters, std::unique_ptr<EventThread> thread,
             std::uint64_t guest_cid, const ListeningSocket& socket)
    : Vsock(name, counters, std::move(thread), nullptr, guest_cid, socket, drain_patience) {}

Vsock::Vsock(std::string_view name, Counters& counters, std::unique_ptr<EventThread> thread,
             EventManager* events, std::uint64_t guest_cid, const ListeningSocket& socket,
             std::chrono::milliseconds patience_to_drain)
    : Device(name, counters),
      thread_(std::move(thread)),
      events_(events != nullptr ? *events : thread_->events()),
      guest_cid_(guest_cid),
      socket_(socket),
      patience_to_drain_(patience_to_drain),
      connections_(counters["connections"]),
      refused_(counters["refused"]),
      rx_bytes_(counters["rx_bytes"]),
      rx_packets_(counters["rx_packets"]),
      tx_bytes_(counters["tx_bytes"]),
      tx_packets_(counters["tx_packets"]),
      resets_sent_(counters["resets_sent"]),
      malformed_(counters["malformed"]),
      undelivered_bytes_(counters["undelivered_bytes"]),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      timer_(events_, CLOCK_MONOTONIC, [this] { on_time(); }) {
    epoll_event listener{.events = EPOLLIN, .data = {.u64 = listener_id}};
    if (!epoll_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket_.fd(), &listener) != 0) {
        throw VmmError(ExitCode::vmm_error,
                       errno_message(std::string(name) + ": cannot wait for clients", errno));
    }
    const auto subscription = events_.add(epoll_.get(), EPOLLIN, [this](std::uint32_t) { on_host_events(); });
    if (!subscription) {
        throw VmmError(ExitCode::vmm_error,
                       std::string(name) + ": cannot wait for clients: " + subscription.error().message());
    }
    subscription_ = *subscription;
}

Vsock::~Vsock() {
    Vsock::stop_events();
    events_.remove(subscription_);
}

void Vsock::start_events() {
    if (thread_) {
        thread_->start();
    }
}

void Vsock::stop_events() noexcept {
    if (thread_) {
        thread_->stop();
    }
}

void Vsock::on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const {
    copy_config(guest_cid_, offset, data);  // 5.10.4: the only field
}

void Vsock::on_reset() {
    std::erase_if(streams_, [](const auto& entry) { return entry.second.phase != Stream::Phase::greeting; });
    pairs_.clear();
    scheduled_.clear();
    refusals_.clear();
    transmit_waits_ = false;
    announce_reset_ = false;
}

std::vector<std::uint8_t> Vsock::on_state() const {
    return vmsuperio::encode(VsockState{.guest_cid = guest_cid_, .next_host_port = next_host_port_});
}

std::expected<void, std::string_view> Vsock::on_restore_state(std::span<const std::uint8_t> bytes,
                                                              std::uint64_t) {
    const auto state = decode_state<VsockState>(bytes);
    if (!state) {
        return std::unexpected(state.error());
    }
    if (state->guest_cid != guest_cid_) {
        return std::unexpected("guest_cid");
    }
    if (state->next_host_port < first_host_port || state->next_host_port >= 2 * first_host_port) {
        return std::unexpected("next_host_port");
    }
    // The guest may still know connections of the ports before it.
    next_host_port_ = state->next_host_port;
    return {};
}

void Vsock::on_restored() {
    // The connections stayed behind with the process that had them (5.10.6.7).
    announce_reset_ = true;
    notify_self(event_queue);
}

void Vsock::on_notified(std::size_t index) {
    switch (index) {
        case receive_queue:
            if (refusals_.empty() && scheduled_.empty()) {
                disable_notifications(receive_queue);
            }
            break;
        case transmit_queue:
            if (!transmit_waits_) {
                serve(transmit_queue,
                      [this](const Chain& chain) KVM_VMM_REQUIRES(mutex()) { return take_packet(chain); });
            }
            break;
        default:
            send_event();
            break;
    }
    send_packets();
}

// A packet whose data is not all there resets its connection: the stream must not continue without it.
void Vsock::on_defective(std::size_t index, const Chain& chain) {
    if (index == transmit_queue && refusals_.size() < max_refusals) {
        (void)take_packet(chain);
    } else if (index == transmit_queue) {
        abort_connection_of(chain);
    }
    push(index, chain, 0);
}

// For a packet that cannot wait until there is room for another refusal: it adds none.
void Vsock::abort_connection_of(const Chain& chain) {
    const std::optional<VsockHeader> header = take_header(chain);
    const std::optional<Id> id = header ? connection_of(*header) : std::nullopt;
    if (!id) {
        return;
    }
    Stream& stream = streams_.at(*id);
    if (header->op == vsock::op_rst) {
        take_packet(*id, stream, *header, {});
    } else if (stream.phase != Stream::Phase::resetting) {
        count_malformed();
        abort(*id, stream);
    }
}

void Vsock::send_event() {
    serve(event_queue, [this](const Chain& chain) KVM_VMM_REQUIRES(mutex()) -> std::optional<std::uint32_t> {
        if (!announce_reset_) {
            return std::nullopt;
        }
        const std::uint32_t id = vsock::event_transport_reset;
        if (chain.writable.size() < sizeof(id)) {
            count_malformed();
            return 0;  // the next buffer gets it
        }
        announce_reset_ = false;
        return static_cast<std::uint32_t>(
            chain.writable.write(0, {reinterpret_cast<const std::uint8_t*>(&id), sizeof(id)}));
    });
}

// Packets of the guest.

std::optional<std::uint32_t> Vsock::take_packet(const Chain& chain) {
    if (refusals_.size() >= max_refusals) {
        transmit_waits_ = true;
        return std::nullopt;
    }
    const std::optional<VsockHeader> header = take_header(chain);
    if (!header) {
        return 0;
    }
    const Buffers payload = chain.readable.part(header_size, header->len);
    if (const std::optional<Id> id = connection_of(*header)) {
        take_packet(*id, streams_.at(*id), *header, payload);
    } else if (is_for_us(*header) && header->op == vsock::op_request) {
        connect_guest(*header);
    } else {
        refuse(*header);
    }
    return 0;
}

// Counts the packet. Nothing if it has no whole header, or is not from this guest.
std::optional<VsockHeader> Vsock::take_header(const Chain& chain) {
    tx_packets_.add();
    VsockHeader header{};
    if (chain.readable.read(0, bytes_of(header)) != header_size || header.src_cid != guest_cid_) {
        count_malformed();
        return std::nullopt;
    }
    return header;
}

bool Vsock::is_for_us(const VsockHeader& header) noexcept {
    return header.dst_cid == vsock::host_cid && header.type == vsock::type_stream;
}

std::optional<Vsock::Id> Vsock::connection_of(const VsockHeader& header) const {
    const auto pair = pairs_.find(pair_of(header.src_port, header.dst_port));
    return is_for_us(header) && pair != pairs_.end() ? std::optional(pair->second) : std::nullopt;
}

void Vsock::take_packet(Id id, Stream& stream, const VsockHeader& header, const Buffers& payload) {
    if (stream.phase == Stream::Phase::resetting) {
        if (header.op == vsock::op_rst) {
            erase(id);
        }
        return;
    }
    if (header.op == vsock::op_rw && payload.size() != header.len) {
        count_malformed();
        abort(id, stream);
        return;
    }
    using enum VsockConnection::Reaction;
    switch (stream.connection.on_packet(header)) {
        case opened:
            greet(id, stream);
            break;
        case data:
            tx_bytes_.add(header.len);
            pass_on(id, stream, payload);
            return;
        case shutdown:
            follow_shutdown(id, stream);
            return;
        case closed:
            if (!stream.connection.established()) {
                refused_.add();
            }
            erase(id);
            return;
        case violation:
            count_malformed();
            abort(id, stream);
            return;
        case none:
            break;
    }
    schedule(id, stream);
}

void Vsock::greet(Id id, Stream& stream) {
    connections_.add();
    stream.deadline.reset();
    stream.readable = true;  // bytes after the line may have come long ago
    const std::string text = "OK " + std::to_string(stream.host_port) + '\n';
    // Nothing was written to this socket yet, so there is room.
    if (::send(stream.fd.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) !=
        static_cast<ssize_t>(text.size())) {
        host_receives_no_more(id, stream);
    }
}

void Vsock::connect_guest(const VsockHeader& header) {
    vmsuperio::UniqueFd fd;
    if (streams_.size() < max_connections) {
        fd = connect_host(header.dst_port);
    }
    Id id = 0;
    Stream* const stream = fd ? add(std::move(fd), id) : nullptr;
    if (stream == nullptr) {
        refuse(header);
        return;
    }
    connections_.add();
    stream->phase = Stream::Phase::open;
    stream->guest_port = header.src_port;
    stream->host_port = header.dst_port;
    stream->connection = VsockConnection(VsockConnection::Origin::guest, header);
    pairs_.emplace(pair_of(header.src_port, header.dst_port), id);
    schedule(id, *stream);
}

void Vsock::refuse(const VsockHeader& header) {
    if (header.op == vsock::op_rst) {
        return;  // an answer would be answered, too, or hit the next connection of these ports
    }
    if (header.op == vsock::op_request) {
        refused_.add();
    }
    refusals_.push_back({.src_cid = header.dst_cid,
                         .dst_cid = header.src_cid,
                         .src_port = header.dst_port,
                         .dst_port = header.src_port,
                         .len = 0,
                         .type = header.type,
                         .op = vsock::op_rst,
                         .flags = 0,
                         .buf_alloc = 0,
                         .fwd_cnt = 0});
}

void Vsock::pass_on(Id id, Stream& stream, const Buffers& payload) {
    const auto size = static_cast<std::uint32_t>(payload.size());
    if ((stream.connection.host_shutdown() & vsock::shutdown_receive) != 0) {
        stream.connection.forwarded(size);
        schedule(id, stream);
        return;
    }
    std::size_t done = 0;
    if (stream.pending.empty() && size != 0) {
        Vectors vectors(payload);
        const msghdr message = vectors.message();
        const ssize_t count = ::sendmsg(stream.fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno != EAGAIN) {
            stream.connection.forwarded(size);
            host_receives_no_more(id, stream);
            return;
        }
        done = static_cast<std::size_t>(std::max<ssize_t>(count, 0));
        stream.connection.forwarded(static_cast<std::uint32_t>(done));
    }
    if (done < size) {
        stream.pending.erase(stream.pending.begin(),
                             stream.pending.begin() + static_cast<std::ptrdiff_t>(stream.pending_from));
        stream.pending_from = 0;
        const std::size_t before = stream.pending.size();
        stream.pending.resize(before + size - done);
        payload.read(done, std::span(stream.pending).subspan(before));
        wait_for_room(id, stream, true);
    }
    schedule(id, stream);
}

void Vsock::follow_shutdown(Id id, Stream& stream) {
    const std::uint32_t closed = stream.connection.guest_shutdown();
    if ((closed & vsock::shutdown_receive) != 0) {
        ::shutdown(stream.fd.get(), SHUT_RD);
    }
    if (closed == vsock::shutdown_both) {
        // The guest has finished, and may use its port again after this answer.
        refusals_.push_back(header_for(stream, vsock::op_rst));
        pairs_.erase(pair_of(stream.guest_port, stream.host_port));
        if (stream.pending.empty()) {
            erase(id);
        } else {
            stream.phase = Stream::Phase::draining;
            wait_for_reader(stream);
        }
        return;
    }
    if ((closed & vsock::shutdown_send) != 0 && stream.pending.empty()) {
        ::shutdown(stream.fd.get(), SHUT_WR);
    }
    notice_hangup(id, stream);
    schedule(id, stream);
}

// Packets for the guest.

void Vsock::send_packets() {
    if (!refusals_.empty() || !scheduled_.empty()) {
        serve(receive_queue,
              [this](const Chain& chain) KVM_VMM_REQUIRES(mutex()) { return fill(chain.writable); });
    }
}

std::optional<std::uint32_t> Vsock::fill(const Buffers& buffers) {
    if (refusals_.empty() && scheduled_.empty()) {
        return std::nullopt;
    }
    if (buffers.size() < header_size) {
        count_malformed();
        return 0;
    }
    if (!refusals_.empty()) {
        const VsockHeader header = refusals_.front();
        refusals_.pop_front();
        if (transmit_waits_ && refusals_.size() <= max_refusals / 2) {
            transmit_waits_ = false;
            notify_self(transmit_queue);
        }
        return put(buffers, header);
    }
    while (!scheduled_.empty()) {
        const Id id = scheduled_.front();
        scheduled_.pop_front();
        const auto found = streams_.find(id);
        if (found == streams_.end()) {
            continue;
        }
        found->second.scheduled = false;
        if (const auto written = fill(id, found->second, buffers)) {
            if (const auto still = streams_.find(id); still != streams_.end()) {
                schedule(id, still->second);  // after the others
            }
            return written;
        }
    }
    return std::nullopt;
}

std::optional<std::uint32_t> Vsock::fill(Id id, Stream& stream, const Buffers& buffers) {
    if (stream.phase == Stream::Phase::resetting) {
        const VsockHeader header = header_for(stream, vsock::op_rst);
        erase(id);
        return put(buffers, header);
    }
    if (stream.phase != Stream::Phase::open) {
        return std::nullopt;
    }
    if (const auto written = send_control(stream, buffers)) {
        return written;
    }
    return fill_data(id, stream, buffers);
}

std::optional<std::uint32_t> Vsock::send_control(Stream& stream, const Buffers& buffers) {
    const auto op = stream.connection.next_control();
    if (!op) {
        return std::nullopt;
    }
    VsockHeader header = header_for(stream, *op);
    stream.connection.stamp(header);
    return put(buffers, header);
}

std::optional<std::uint32_t> Vsock::fill_data(Id id, Stream& stream, const Buffers& buffers) {
    if (!stream.readable || !stream.connection.may_send_data()) {
        return std::nullopt;
    }
    const std::uint32_t credit = stream.connection.credit();
    if (credit == 0) {
        stream.connection.miss_credit();
        return send_control(stream, buffers);
    }
    if (buffers.size() == header_size) {
        return 0;  // a buffer that has room for packets without data only
    }
    Vectors vectors(buffers.part(header_size, std::min(credit, max_payload)));
    msghdr message = vectors.message();
    const ssize_t count = ::recvmsg(stream.fd.get(), &message, MSG_DONTWAIT);
    if (count > 0) {
        VsockHeader header = header_for(stream, vsock::op_rw);
        header.len = static_cast<std::uint32_t>(count);
        stream.connection.stamp(header);
        stream.connection.sent(header.len);
        rx_bytes_.add(header.len);
        return put(buffers, header) + header.len;
    }
    stream.readable = false;
    if (count == 0) {
        // A peer that closes its socket, and does not only close one direction, also hangs up.
        pollfd entry{.fd = stream.fd.get(), .events = 0, .revents = 0};
        const bool gone = ::poll(&entry, 1, 0) > 0 && (entry.revents & POLLHUP) != 0;
        if (gone) {
            discard_pending(id, stream);
        }
        close_host(id, stream, gone ? vsock::shutdown_both : vsock::shutdown_send);
        return send_control(stream, buffers);
    }
    if (errno != EAGAIN) {
        abort(id, stream);  // the peer has lost bytes, so this is no proper end of the stream
    }
    return std::nullopt;
}

std::uint32_t Vsock::put(const Buffers& buffers, const VsockHeader& header) {
    rx_packets_.add();
    if (header.op == vsock::op_rst) {
        resets_sent_.add();
    }
    return static_cast<std::uint32_t>(buffers.write(0, bytes_of(header)));
}

VsockHeader Vsock::header_for(const Stream& stream, std::uint16_t op) const {
    return {.src_cid = vsock::host_cid,
            .dst_cid = guest_cid_,
            .src_port = stream.host_port,
            .dst_port = stream.guest_port,
            .len = 0,
            .type = vsock::type_stream,
            .op = op,
            .flags = 0,
            .buf_alloc = 0,
            .fwd_cnt = 0};
}

}  // namespace kvm_vmm::virtio
