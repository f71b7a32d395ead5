// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/net.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <string>
#include <utility>

#include "memory/shared_copy.hpp"
#include "virtio/device_states.hpp"

namespace kvm_vmm::virtio {
namespace {

static_assert(std::endian::native == std::endian::little, "fields of virtio are little-endian");

/// The configuration space (5.1.4) up to the last field that a feature of this device has.
struct Config {
    MacAddress mac;
    std::uint16_t status;
    std::uint16_t max_queue_pairs;
    std::uint16_t mtu;
};
static_assert(sizeof(Config) == 12);
constexpr std::uint16_t status_link_up = 1;  // VIRTIO_NET_S_LINK_UP

constexpr std::uint16_t ethernet_mtu = 1500;
constexpr std::uint64_t min_burst = std::uint64_t{64} * 1024;  // about one of the largest frames

std::chrono::nanoseconds now() { return std::chrono::steady_clock::now().time_since_epoch(); }

constexpr std::uint16_t frame_overhead = 14 + 4;  // of an Ethernet header and a VLAN tag
// readv(2) takes 1024 pieces. A chain has at most as many as its queue has descriptors.
constexpr std::size_t most_pieces = 1024 - 256 - 2;

std::uint64_t features_of(const NetBackend& backend, const Net::Settings& settings) {
    using namespace net_feature;
    const NetOffloads offloads = backend.offloads();
    std::uint64_t features = mac | net_feature::status | mergeable_buffers;
    features |= settings.mtu ? mtu : 0;
    features |= offloads.checksum ? checksum | guest_checksum : 0;
    features |= offloads.tso4 ? host_tso4 | guest_tso4 : 0;
    features |= offloads.tso6 ? host_tso6 | guest_tso6 : 0;
    features |= offloads.ecn ? host_ecn | guest_ecn : 0;
    return features;
}

std::span<std::uint8_t> bytes_of(NetHeader& header) {
    return {reinterpret_cast<std::uint8_t*>(&header), sizeof(header)};
}

// Appends the bytes from `offset` on.
void append(std::vector<iovec>& pieces, const Buffers& buffers, std::uint64_t offset) {
    for (const Buffers::Piece piece : buffers.pieces()) {
        if (offset >= piece.size()) {
            offset -= piece.size();
            continue;
        }
        const Buffers::Piece rest = piece.subspan(static_cast<std::size_t>(offset));
        pieces.push_back({.iov_base = rest.data(), .iov_len = rest.size()});
        offset = 0;
    }
}

}  // namespace

Net::Net(std::string_view name, Counters& counters, NetBackend& backend, const Settings& settings,
         EventManager* external)
    : Device(name, counters),
      backend_(backend),
      settings_(settings),
      features_(features_of(backend, settings)),
      events_(external),
      rx_frames_(counters["rx_frames"]),
      rx_bytes_(counters["rx_bytes"]),
      rx_dropped_(counters["rx_dropped"]),
      rx_waits_(counters["rx_waits"]),
      tx_frames_(counters["tx_frames"]),
      tx_bytes_(counters["tx_bytes"]),
      tx_dropped_(counters["tx_dropped"]),
      tx_waits_(counters["tx_waits"]),
      link_downs_(counters["link_downs"]),
      throttled_(counters["throttled"]),
      overflow_(max_frame) {
    if (events_ == nullptr) {
        events_ = &thread_.emplace(std::string(name), sandbox::Role::net).events();
    }
    hold_timer_.emplace(*events_, CLOCK_MONOTONIC, [this] { on_hold_expired(); });
    if (settings_.rate) {
        const TokenBucket bucket(*settings_.rate, std::max(*settings_.rate / 10, min_burst), now());
        const LockGuard lock(mutex());
        receive_limit_.emplace(bucket, *events_, [this] { frames_arrived(); });
        transmit_limit_.emplace(bucket, *events_, [this] { room_is_free(); });
    }
    backend_.attach(*events_, *this);
}

Net::~Net() { Net::stop_events(); }

bool Net::take(std::optional<Limit>& limit, std::size_t bytes) {
    if (!limit || limit->bucket.try_take(bytes, now())) {
        return true;
    }
    throttled_.add();
    limit->timer.set(limit->bucket.next(now()));
    return false;
}

EventManager& Net::events() noexcept { return *events_; }

void Net::start_events() {
    if (thread_) {
        thread_->start();
    }
}

void Net::stop_events() noexcept {
    if (thread_) {
        thread_->stop();
    }
    backend_.detach();
}

void Net::frames_arrived() {
    const LockGuard lock(mutex());
    exchange(true, !transmit_waits_, false);
}

void Net::room_is_free() {
    const LockGuard lock(mutex());
    exchange(may_receive_, true, false);
}

void Net::link_changed() {
    const LockGuard lock(mutex());
    if (!backend_.link_up()) {
        link_downs_.add();
    }
    if (accepted(net_feature::status)) {
        config_changed();
    }
    // Frames that waited for room: they are dropped while the link is down.
    exchange(true, true, false);
}

void Net::on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const {
    copy_config(Config{.mac = settings_.mac,
                       .status = backend_.link_up() ? status_link_up : std::uint16_t{0},
                       .max_queue_pairs = 1,
                       .mtu = settings_.mtu.value_or(0)},
                offset, data);
}

void Net::on_activate() {
    // 5.1.3.1: segmentation needs checksums.
    const bool checksums = accepted(net_feature::guest_checksum);
    const NetOffloads offloads{.checksum = checksums,
                               .tso4 = checksums && accepted(net_feature::guest_tso4),
                               .tso6 = checksums && accepted(net_feature::guest_tso6),
                               .ecn = checksums && accepted(net_feature::guest_ecn) &&
                                      accepted(net_feature::guest_tso4 | net_feature::guest_tso6)};
    backend_.set_offloads(offloads);
}

void Net::on_reset() {
    forget_posted();
    held_.clear();
    may_receive_ = false;
    transmit_waits_ = false;
    // The backend is not polled any more after its next event: that is a matter of its event loop.
    backend_.set_offloads({});
}

void Net::on_queue_reset(std::size_t index) {
    if (index == receive_queue) {
        forget_posted();
    }
}

void Net::forget_posted() {
    posted_.clear();
    posted_bytes_ = 0;
    skipped_ = false;
}

void Net::on_drain() {
    if (skipped_) {
        // The saved position in the available ring cannot be before one of them and behind the other.
        for (const Chain& chain : posted_) {
            push(receive_queue, chain, 0);
        }
        publish(receive_queue);
        posted_.clear();
    }
    for (; !posted_.empty(); posted_.pop_back()) {
        undo_pop(receive_queue, posted_.back());
    }
    forget_posted();
}

std::vector<std::uint8_t> Net::on_state() const {
    return vmsuperio::encode(
        NetState{.mac = settings_.mac, .mtu = settings_.mtu.value_or(0), .link_up = backend_.link_up()});
}

std::expected<void, std::string_view> Net::on_restore_state(std::span<const std::uint8_t> bytes,
                                                            std::uint64_t features) {
    const auto state = decode_state<NetState>(bytes);
    if (!state) {
        return std::unexpected(state.error());
    }
    // The address is the guest's, wherever it continues. Frames of a larger MTU than the network's would be lost.
    if (!is_unicast(state->mac)) {
        return std::unexpected("mac");
    }
    if ((features & net_feature::mtu) != 0 &&
        (!settings_.mtu || state->mtu > *settings_.mtu || state->mtu < min_mtu)) {
        return std::unexpected("mtu");
    }
    settings_.mac = state->mac;
    if ((features & net_feature::mtu) != 0) {
        settings_.mtu = state->mtu;
    }
    link_up_when_saved_ = state->link_up;
    return {};
}

void Net::on_restored() {
    if (accepted(net_feature::status) && link_up_when_saved_ && *link_up_when_saved_ != backend_.link_up()) {
        config_changed();
    }
    link_up_when_saved_.reset();
}

void Net::on_notified(std::size_t index) {
    if (index == receive_queue) {
        exchange(true, !transmit_waits_, true);
    } else {
        exchange(may_receive_, true, false);
    }
}

void Net::on_defective(std::size_t index, const Chain& chain) {
    tx_dropped_.add(index == transmit_queue ? 1 : 0);
    return_empty(index, chain);
}

void Net::return_empty(std::size_t index, const Chain& chain) {
    skipped_ = skipped_ || (index == receive_queue && !posted_.empty());
    push(index, chain, 0);
}

// Takes buffers of the driver until there is room for `bytes`, or no more of them in this turn.
void Net::post(std::uint64_t bytes) {
    std::size_t pieces = 0;
    for (const Chain& chain : posted_) {
        pieces += chain.writable.pieces().size();
    }
    while (posted_bytes_ < bytes && pieces < most_pieces) {
        std::optional<Chain> chain = pop(receive_queue, receive_budget_);
        if (!chain) {
            return;
        }
        if (chain->writable.size() < sizeof(NetHeader)) {
            count_bad_request();  // 5.1.6.3.1 has the driver offer at least the header's size
            return_empty(receive_queue, *chain);
            continue;
        }
        pieces += chain->writable.pieces().size();
        posted_bytes_ += chain->writable.size();
        posted_.push_back(std::move(*chain));
    }
}

bool Net::fits(std::size_t length) const {
    const std::size_t total = sizeof(NetHeader) + length;
    if (accepted(net_feature::mergeable_buffers)) {
        return total <= posted_bytes_;
    }
    return !posted_.empty() && total <= posted_.front().writable.size();
}

// What is sent is often answered by the host at once, so both directions share an interrupt.
void Net::exchange(bool receives, bool transmits, bool offered) {
    receives = receives && has_queue(receive_queue);
    transmits = transmits && has_queue(transmit_queue);
    receive_budget_ = size_of_queue(receive_queue);
    if (offered && receives && !held_.empty() && !deliver_held() && receive_budget_ != 0) {
        held_.clear();  // it will never fit
        rx_dropped_.add();
    }
    if (transmits) {
        transmit_frames();
    }
    const Received last = receives ? receive_frames() : Received::none;
    publish_all();
    if (receives) {
        if (last == Received::frame) {
            notify_self(receive_queue);  // there may be more, even some that the backend has taken already
        }
        rx_waits_.add(last == Received::no_buffers ? 1 : 0);
        may_receive_ = last == Received::frame || last == Received::none;
    }
    may_receive_ = may_receive_ && has_queue(receive_queue);
    backend_.want_frames(may_receive_);
}

Net::Received Net::receive_frames() {
    disable_notifications(receive_queue);
    Received last = Received::frame;
    for (std::size_t i = 0; i < batch && last == Received::frame; ++i) {
        last = receive_frame();
        // The driver notifies the device of the next buffer, unless that became available just now.
        if (last == Received::no_buffers && enable_notifications(receive_queue)) {
            disable_notifications(receive_queue);
            last = Received::frame;
        }
    }
    return last;
}

Net::Received Net::receive_frame() {
    if (!held_.empty()) {
        return deliver_held() ? Received::frame : want_of_buffers();
    }
    const bool merge = accepted(net_feature::mergeable_buffers);
    const bool large = accepted(net_feature::guest_tso4 | net_feature::guest_tso6);
    // As much as a frame is expected to need: a larger one costs a copy.
    post(sizeof(NetHeader) + (large ? max_frame : settings_.mtu.value_or(ethernet_mtu) + frame_overhead));
    if (posted_.empty()) {
        return want_of_buffers();
    }
    if (!take(receive_limit_, 0)) {
        return Received::later;
    }
    pieces_.clear();
    std::uint64_t skipped = sizeof(NetHeader);
    for (const Chain& chain : posted_) {
        append(pieces_, chain.writable, skipped);
        skipped = 0;
        if (!merge) {
            break;
        }
    }
    pieces_.push_back({.iov_base = overflow_.data(), .iov_len = overflow_.size()});
    header_ = {};
    const std::optional<std::size_t> length = backend_.receive(header_, pieces_);
    if (!length) {
        return Received::none;
    }
    [[maybe_unused]] const bool taken = take(receive_limit_, *length);  // more than is there, at most once
    const bool valid = *length >= min_frame && *length <= max_frame && may_receive(header_);
    if (valid && fits(*length)) {
        deliver(*length);
    } else if (valid && merge) {
        hold(*length);
        return receive_frame();
    } else {
        rx_dropped_.add();  // 5.1.6.3.1: the driver has to offer buffers that are large enough
    }
    return Received::frame;
}

// The frame is in the driver's buffers, or will be when this function returns to deliver_held().
void Net::deliver(std::size_t length) {
    std::uint64_t left = sizeof(NetHeader) + length;
    header_.buffers = 0;
    for (auto chain = posted_.begin(); left != 0; ++chain) {
        left -= std::min(left, chain->writable.size());
        ++header_.buffers;
    }
    posted_.front().writable.write(0, bytes_of(header_));
    left = sizeof(NetHeader) + length;
    while (left != 0) {
        const Chain& chain = posted_.front();
        const std::uint64_t written = std::min(left, chain.writable.size());
        posted_bytes_ -= chain.writable.size();
        left -= written;
        push(receive_queue, chain, static_cast<std::uint32_t>(written));
        posted_.pop_front();
    }
    skipped_ = skipped_ && !posted_.empty();
    rx_frames_.add();
    rx_bytes_.add(length);
}

// Copies the frame that was received last out of the driver's buffers, which are too small, and the overflow.
void Net::hold(std::size_t length) {
    held_.clear();
    for (const iovec& piece : pieces_) {
        const auto* const bytes = static_cast<const std::uint8_t*>(piece.iov_base);
        append_from_guest(held_, bytes, std::min(piece.iov_len, length - held_.size()));
    }
    hold_timer_->set_after(longest_hold);
}

void Net::on_hold_expired() {
    const LockGuard lock(mutex());
    if (!held_.empty()) {
        held_.clear();
        rx_dropped_.add();
        exchange(true, !transmit_waits_, false);
    }
}

bool Net::deliver_held() {
    post(sizeof(NetHeader) + held_.size());
    if (!fits(held_.size())) {
        return false;
    }
    std::span<const std::uint8_t> rest = held_;
    std::uint64_t offset = sizeof(NetHeader);
    for (auto chain = posted_.begin(); !rest.empty(); ++chain) {
        rest = rest.subspan(chain->writable.write(offset, rest));
        offset = 0;
    }
    deliver(held_.size());
    held_.clear();
    return true;
}

// Frames that the backend took for a driver that had accepted more are not for this one.
bool Net::may_receive(NetHeader& header) const {
    using namespace net_header;
    if (!accepted(net_feature::guest_checksum)) {
        if ((header.flags & needs_checksum) != 0) {
            return false;
        }
        header.flags = 0;
    }
    header.flags &= needs_checksum | data_valid;
    const bool ecn = (header.gso_type & gso_ecn) != 0;
    switch (header.gso_type & ~gso_ecn) {
        case gso_none:
            return !ecn;
        case gso_tcp4:
            return accepted(net_feature::guest_tso4) && (!ecn || accepted(net_feature::guest_ecn));
        case gso_tcp6:
            return accepted(net_feature::guest_tso6) && (!ecn || accepted(net_feature::guest_ecn));
        default:
            return false;
    }
}

// Pushes what the device has finished with; exchange() publishes it.
void Net::transmit_frames() {
    transmit_waits_ = false;
    take_each(
        transmit_queue,
        [this](const Chain& chain) KVM_VMM_REQUIRES(mutex()) {
            if (!transmit(chain)) {
                undo_pop(transmit_queue, chain);
                transmit_waits_ = true;
                return false;
            }
            push(transmit_queue, chain, 0);
            return true;
        },
        [] {});
}

// Returns whether the device has finished with the frame, which may mean that it was dropped.
bool Net::transmit(const Chain& chain) {
    NetHeader header;
    const std::uint64_t size = chain.readable.size();
    if (chain.readable.read(0, bytes_of(header)) < sizeof(header) || size < sizeof(header) + min_frame ||
        size > sizeof(header) + max_frame || !may_transmit(header)) {
        count_bad_request();
        tx_dropped_.add();
        return true;
    }
    if (!backend_.link_up()) {
        tx_dropped_.add();
        return true;
    }
    const auto length = static_cast<std::size_t>(size - sizeof(header));
    if (!take(transmit_limit_, length)) {
        return false;
    }
    pieces_.clear();
    append(pieces_, chain.readable, sizeof(header));
    switch (backend_.send(for_host(header, length), pieces_, length)) {
        case NetBackend::Sent::yes:
            tx_frames_.add();
            tx_bytes_.add(length);
            return true;
        case NetBackend::Sent::not_now:
            tx_waits_.add();
            if (transmit_limit_) {
                transmit_limit_->bucket.give_back(length);
            }
            backend_.want_room();
            return false;
        case NetBackend::Sent::refused:
            if (transmit_limit_) {
                transmit_limit_->bucket.give_back(length);
            }
            tx_dropped_.add();
            return true;
    }
    return true;
}

// What the device has to ignore does not reach the host, whose kernel would refuse the frame, or might know more flags
// than were negotiated (5.1.6.2.2).
NetHeader Net::for_host(NetHeader header, std::size_t length) noexcept {
    header.flags &= net_header::needs_checksum;
    if (header.flags == 0) {
        header.checksum_start = 0;
        header.checksum_offset = 0;
    }
    if (header.gso_type == net_header::gso_none) {
        header.header_length = 0;
        header.gso_size = 0;
    }
    // Only a hint, which may be wrong.
    header.header_length = static_cast<std::uint16_t>(std::min<std::size_t>(header.header_length, length));
    header.buffers = 0;
    return header;
}

// 5.1.6.2.1: the driver uses only what it has accepted.
bool Net::may_transmit(const NetHeader& header) const {
    using namespace net_header;
    const bool checksum = (header.flags & needs_checksum) != 0;
    const bool ecn = (header.gso_type & gso_ecn) != 0;
    if ((checksum && !accepted(net_feature::checksum)) || (ecn && !accepted(net_feature::host_ecn))) {
        return false;
    }
    switch (header.gso_type & ~gso_ecn) {
        case gso_none:
            return !ecn;
        case gso_tcp4:
            return checksum && accepted(net_feature::host_tso4);
        case gso_tcp6:
            return checksum && accepted(net_feature::host_tso6);
        default:
            return false;
    }
}

}  // namespace kvm_vmm::virtio
