// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The network device against drivers and hosts of our own: frames, offloads, full queues, and peers of passt's protocol
// that cut, break and end the stream.
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <memory>
#include <net/if.h>
#include <numeric>
#include <optional>
#include <poll.h>
#include <span>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "catch.hpp"
#include "scratch_directory.hpp"
#include "util/error.hpp"
#include "util/log.hpp"
#include "virtio/helper_launcher.hpp"
#include "virtio/mac_address.hpp"
#include "virtio/net.hpp"
#include "virtio/net_backend.hpp"
#include "virtio/net_target.hpp"
#include "virtio/passt_process.hpp"
#include "virtio/stream_backend.hpp"
#include "virtio/tap_backend.hpp"
#include "virtio_mmio_driver.hpp"
#include "vmm/net_options.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::DeviceRig;
using kvm_vmm::test::DriverQueue;
using vmsuperio::UniqueFd;
using Bytes = std::vector<std::uint8_t>;

namespace {

constexpr std::uint32_t rx = 0;
constexpr std::uint32_t tx = 1;
constexpr std::size_t header_size = 12;
constexpr MacAddress mac{0x02, 1, 2, 3, 4, 5};
constexpr std::uint64_t no_merge = ~net_feature::mergeable_buffers;

Bytes frame_of(std::size_t size, unsigned seed = 1) {
    Bytes frame(size);
    std::iota(frame.begin(), frame.end(), static_cast<std::uint8_t>(seed));
    return frame;
}

Bytes with_header(const Bytes& frame, const NetHeader& header = {}) {
    Bytes bytes(header_size);
    std::memcpy(bytes.data(), &header, header_size);
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    return bytes;
}

/// A host whose frames, room and link the test decides.
class ScriptedHost final : public NetBackend {
public:
    struct Frame {
        NetHeader header;
        Bytes bytes;
    };

    [[nodiscard]] NetOffloads offloads() const noexcept override { return can; }
    [[nodiscard]] std::string identity() const override { return "scripted"; }
    void set_offloads(NetOffloads offloads) noexcept override { set.push_back(offloads); }
    void attach(EventManager&, Client& its_client) override { client = &its_client; }
    void detach() noexcept override { client = nullptr; }
    void want_frames(bool wanted) override { polled = wanted; }
    void want_room() override { room_wanted = true; }
    [[nodiscard]] bool link_up() const noexcept override { return up; }
    [[nodiscard]] std::optional<std::size_t> receive(NetHeader& header,
                                                     std::span<const iovec> pieces) override {
        if (arrived.empty()) {
            return std::nullopt;
        }
        const Frame frame = arrived.front();
        arrived.pop_front();
        header = frame.header;
        std::span<const std::uint8_t> rest = frame.bytes;
        for (const iovec& piece : pieces) {
            const std::size_t count = std::min(piece.iov_len, rest.size());
            std::memcpy(piece.iov_base, rest.data(), count);
            rest = rest.subspan(count);
        }
        return frame.bytes.size();
    }
    [[nodiscard]] Sent send(const NetHeader& header, std::span<const iovec> pieces,
                            std::size_t length) override {
        if (room == 0) {
            return Sent::not_now;
        }
        --room;
        Frame frame{.header = header, .bytes = {}};
        for (const iovec& piece : pieces) {
            const auto* const bytes = static_cast<const std::uint8_t*>(piece.iov_base);
            frame.bytes.insert(frame.bytes.end(), bytes, bytes + piece.iov_len);
        }
        CHECK(frame.bytes.size() == length);
        if (header.checksum_start == 0xBAD) {
            return Sent::refused;
        }
        if (answers) {
            arrived.push_back(frame);
        }
        sent.push_back(std::move(frame));
        return Sent::yes;
    }

    void give(Bytes bytes, NetHeader header = {}) {
        arrived.push_back({header, std::move(bytes)});
        if (polled && client != nullptr) {
            client->frames_arrived();
        }
    }

    NetOffloads can{.checksum = true, .tso4 = true, .tso6 = true, .ecn = true};
    std::vector<NetOffloads> set;
    std::deque<Frame> arrived;
    std::vector<Frame> sent;
    std::size_t room{1000};
    bool polled{false};
    bool room_wanted{false};
    bool answers{false};  // each frame with itself
    bool up{true};
    Client* client{};
};

struct NetRig : DeviceRig {
    explicit NetRig(NetBackend& host, std::optional<std::uint16_t> mtu = std::nullopt)
        : DeviceRig([&host, mtu](DeviceRig& r) {
              return std::make_shared<Net>("net0", r.counters, host, Net::Settings{.mac = mac, .mtu = mtu},
                                           &r.events);
          }) {}

    [[nodiscard]] std::uint64_t count(std::string_view name) { return counters[name].value(); }
    void transmit(const Bytes& bytes) {
        offer(tx, bytes, {});
        notify(tx);
        run_events();
    }
    /// Offers receive buffers of these sizes, each a chain; returns where they are.
    std::vector<GuestRange> post(std::initializer_list<std::uint32_t> sizes) {
        std::vector<GuestRange> places;
        for (const std::uint32_t size : sizes) {
            const std::array<std::uint32_t, 1> one{size};
            offer(rx, {}, one);
            places.push_back(last_writable.front());
        }
        notify(rx);
        run_events();
        return places;
    }
    [[nodiscard]] Bytes at(const GuestRange& range, std::size_t size) {
        Bytes bytes(size);
        REQUIRE(memory.read(range.address, bytes));
        return bytes;
    }
    std::optional<std::uint32_t> taken(std::uint32_t queue) {
        const auto used = queues.at(queue)->take_used();
        return used ? std::optional(used->written) : std::nullopt;
    }
};

std::pair<UniqueFd, UniqueFd> socket_pair() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
    return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

/// The other end of a StreamBackend: each connection is a new socket pair.
struct PeerState {
    UniqueFd theirs;
    int connections{0};
    bool refuses{false};
};
class ScriptedPeer final : public StreamPeer {
public:
    explicit ScriptedPeer(PeerState& state) : state_(state) {}
    [[nodiscard]] std::expected<UniqueFd, std::string> connect() override {
        if (state_.refuses) {
            return std::unexpected("refused");
        }
        auto [ours, theirs] = socket_pair();
        state_.theirs = std::move(theirs);
        ++state_.connections;
        return std::move(ours);
    }

private:
    PeerState& state_;
};

struct StreamRig {
    PeerState peer;
    StreamBackend backend{std::make_unique<ScriptedPeer>(peer),
                          "peer",
                          "peer",
                          std::nullopt,
                          {.first = std::chrono::milliseconds(5), .longest = std::chrono::milliseconds(20)}};
    NetRig rig{backend};

    void write(std::span<const std::uint8_t> bytes) const {
        REQUIRE(::send(peer.theirs.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
                static_cast<ssize_t>(bytes.size()));
    }
    [[nodiscard]] static Bytes on_wire(const Bytes& frame) {
        const std::size_t n = frame.size();
        Bytes bytes{static_cast<std::uint8_t>(n >> 24U), static_cast<std::uint8_t>(n >> 16U),
                    static_cast<std::uint8_t>(n >> 8U), static_cast<std::uint8_t>(n)};
        bytes.insert(bytes.end(), frame.begin(), frame.end());
        return bytes;
    }
    [[nodiscard]] bool link() { return rig.config<std::uint16_t>(6) == 1; }
    /// How often something was ready in the event loop within 60 ms.
    [[nodiscard]] std::size_t events_while_idle() {
        std::size_t events = 0;
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(60);
        while (std::chrono::steady_clock::now() < end) {
            events += rig.events.run_once(5);
        }
        return events;
    }
};

/// A network whose driver refills its receive queue as fast as the device returns buffers: in each interrupt.
class RefillRig : private DriverLink {
public:
    static constexpr std::uint16_t size = 256;

    explicit RefillRig(std::uint64_t features) {
        std::vector<std::optional<SplitQueue>> rings;
        for (const std::uint32_t index : {rx, tx}) {
            rings.emplace_back(SplitQueue::create(memory, DeviceRig::place_rings(index, size), {}).value());
        }
        net.activate(features, std::move(rings), *this);
    }
    ~RefillRig() override { net.reset(); }
    RefillRig(const RefillRig&) = delete;
    RefillRig& operator=(const RefillRig&) = delete;

    /// Offers the buffers of the descriptors in turn, until `most` were offered in all.
    void refill() {
        while (offered < most && static_cast<std::uint16_t>(offered - queue.used_index()) < size) {
            queue.offer(next_head);
            ++offered;
            next_head = next_head + 1 == size ? first_head : static_cast<std::uint16_t>(next_head + 1);
        }
    }
    /// One notification. Returns how many buffers the device has returned.
    std::uint64_t turn() {
        asked_for_turn = false;
        const std::uint64_t before = count("requests");
        net.notified(rx);
        return count("requests") - before;
    }
    [[nodiscard]] std::uint64_t count(std::string_view name) { return counters[name].value(); }

    GuestMemory memory{16U << 20U};
    EventManager events;
    Counters counters;
    ScriptedHost host;
    Net net{"net0", counters, host, Net::Settings{.mac = mac}, &events};
    DriverQueue queue{memory, DeviceRig::place_rings(rx, size)};
    std::size_t offered{0};
    std::size_t most{0};
    std::uint16_t next_head{0};
    std::uint16_t first_head{0};  // after the last one
    bool asked_for_turn{false};
    bool needs_reset{false};

private:
    void notify_used() noexcept override { refill(); }
    void notify_config_changed() noexcept override {}
    void set_needs_reset() noexcept override { needs_reset = true; }
    void notify_device(std::size_t index) noexcept override { asked_for_turn |= index == rx; }
};

constexpr DriverQueue::Descriptor short_buffer{
    .address = 0x40'0000, .length = header_size - 1, .flags = DriverQueue::device_writes};
constexpr DriverQueue::Descriptor no_ram{
    .address = 0xD000'0000, .length = 2048, .flags = DriverQueue::device_writes};
constexpr DriverQueue::Descriptor good_buffer{
    .address = 0x50'0000, .length = 2048, .flags = DriverQueue::device_writes};

}  // namespace

TEST_CASE("Net: one turn is bounded, however fast the driver offers useless buffers again", "[net]") {
    const std::uint64_t features = GENERATE(std::uint64_t{0}, net_feature::mergeable_buffers);
    const int period =
        GENERATE(1, 2, 5, 256);  // each buffer of so many is outside of RAM, the others are too short
    const bool frames = GENERATE(false, true);
    CAPTURE(features, period, frames);
    RefillRig rig(features);
    for (std::uint16_t i = 0; i < RefillRig::size; ++i) {
        rig.queue.set(i, (i + 1) % period == 0 ? no_ram : short_buffer);
    }
    if (frames) {
        rig.host.give(frame_of(100));
    }
    rig.most = 20'000;
    rig.refill();
    for (std::uint64_t returned = 0; returned < rig.most;) {
        const std::uint64_t in_this_turn = rig.turn();
        REQUIRE(in_this_turn <= RefillRig::size);
        REQUIRE(in_this_turn != 0);
        returned += in_this_turn;
        REQUIRE((rig.asked_for_turn || returned == rig.most));
    }
    CHECK(rig.turn() == 0);
    CHECK_FALSE(rig.asked_for_turn);
    CHECK(rig.count("driver_errors") == rig.most);
    CHECK(rig.count("rx_dropped") == 0);
    CHECK(rig.host.arrived.size() == (frames ? 1U : 0U));
    // The next buffer receives the frame.
    if (!frames) {
        rig.host.arrived.push_back({.header = {}, .bytes = frame_of(100)});
    }
    rig.queue.set(rig.next_head, good_buffer);
    ++rig.most;
    rig.refill();
    CHECK(rig.turn() == 1);
    CHECK(rig.count("rx_frames") == 1);
    CHECK_FALSE(rig.needs_reset);
}

TEST_CASE("Net: a frame that waits for buffers is kept from one turn to the next", "[net]") {
    RefillRig rig(net_feature::mergeable_buffers);
    DriverQueue::Descriptor little = good_buffer;
    little.address = 0x60'0000;
    little.length = 500;
    rig.queue.set(0, little);
    rig.most = 1;
    rig.refill();
    CHECK(rig.turn() == 0);
    rig.host.give(frame_of(1000));
    REQUIRE(rig.host.arrived.empty());
    REQUIRE(rig.count("rx_frames") == 0);
    // More useless buffers than fit into one turn, and then a good one. The device keeps the first.
    rig.first_head = 1;
    for (std::uint16_t i = 1; i < RefillRig::size; ++i) {
        rig.queue.set(i, no_ram);
    }
    rig.most += 300;
    rig.refill();
    CHECK(rig.turn() == RefillRig::size);
    CHECK(rig.asked_for_turn);
    CHECK(rig.count("rx_dropped") == 0);
    rig.queue.set(rig.next_head, good_buffer);
    ++rig.most;
    rig.refill();
    CHECK(rig.turn() == 300 - RefillRig::size + 2);
    CHECK(rig.count("rx_frames") == 1);
    CHECK(rig.count("rx_dropped") == 0);
    const std::size_t first_part = little.length - header_size;
    Bytes received(1000);
    REQUIRE(rig.memory.read(little.address + header_size, std::span(received).first(first_part)));
    REQUIRE(rig.memory.read(good_buffer.address, std::span(received).subspan(first_part)));
    CHECK((received == frame_of(1000)));
    CHECK_FALSE(rig.needs_reset);
}

TEST_CASE("Net: configuration and features are those of the backend and the settings", "[net]") {
    ScriptedHost host;
    NetRig rig(host, 1400);
    CHECK(rig.read(mmio::device_id) == 1);
    for (std::size_t i = 0; i < mac.size(); ++i) {
        CHECK(rig.config<std::uint8_t>(i) == mac.at(i));
    }
    CHECK(rig.config<std::uint16_t>(6) == 1);
    CHECK(rig.config<std::uint16_t>(10) == 1400);
    CHECK(rig.config<std::uint32_t>(12) == 0);
    rig.write_as<std::uint8_t>(mmio::config, 0xEE);
    CHECK(rig.config<std::uint8_t>(0) == mac[0]);
    using namespace net_feature;
    constexpr std::uint64_t offloads =
        checksum | guest_checksum | guest_tso4 | guest_tso6 | guest_ecn | host_tso4 | host_tso6 | host_ecn;
    CHECK((rig.device_features() & 0xFF'FFFF) ==
          (offloads | net_feature::mac | net_feature::mtu | mergeable_buffers | net_feature::status));
    ScriptedHost plain;
    plain.can = {};
    NetRig plain_rig(plain);
    CHECK((plain_rig.device_features() & (offloads | net_feature::mtu)) == 0);
}

TEST_CASE("Net: a transmitted frame reaches the host, whatever the layout of its header", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    const NetHeader header{.flags = net_header::needs_checksum,
                           .gso_type = net_header::gso_tcp4,
                           .header_length = 54,
                           .gso_size = 1448,
                           .checksum_start = 34,
                           .checksum_offset = 16};
    const Bytes frame = frame_of(3000);
    rig.transmit(with_header(frame, header));
    REQUIRE(host.sent.size() == 1);
    CHECK(host.sent[0].bytes == frame);
    CHECK(std::memcmp(&host.sent[0].header, &header, header_size) == 0);
    CHECK(rig.taken(tx) == 0);
    CHECK(rig.interrupts() == 1);

    // One descriptor for each byte of the header, and the frame in two.
    const Bytes all = with_header(frame, header);
    const std::uint64_t place = rig.allocate(all.size());
    REQUIRE(rig.memory.write(place, all));
    for (std::uint16_t i = 0; i < 14; ++i) {
        const bool last = i == 13;
        const std::uint32_t length = i < 12    ? 1
                                     : i == 12 ? 100
                                               : static_cast<std::uint32_t>(frame.size() - 100);
        rig.queues[tx]->set(static_cast<std::uint16_t>(100 + i),
                            {.address = place + (i < 13 ? i : 112U),
                             .length = length,
                             .flags = last ? std::uint16_t{0} : DriverQueue::next,
                             .next = static_cast<std::uint16_t>(101 + i)});
    }
    rig.queues[tx]->offer(100);
    rig.notify(tx);
    rig.run_events();
    REQUIRE(host.sent.size() == 2);
    CHECK(host.sent[1].bytes == frame);
    CHECK(rig.count("tx_frames") == 2);
    CHECK(rig.count("tx_bytes") == 6000);
    CHECK(rig.count("tx_dropped") == 0);
}

TEST_CASE("Net: a frame that cannot be sent is dropped alone, and counted", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start(~net_feature::host_tso6);
    rig.transmit(Bytes(11));                             // less than a header
    rig.transmit(with_header(frame_of(13)));             // less than an Ethernet header
    rig.transmit(with_header(frame_of(max_frame + 1)));  // too long
    rig.transmit(with_header(frame_of(60), {.flags = 1, .checksum_start = 0xBAD}));  // refused by the host
    rig.transmit(with_header(frame_of(60), {.flags = 1, .gso_type = net_header::gso_tcp6}));  // not accepted
    rig.transmit(with_header(frame_of(60), {.gso_type = 3}));  // UFO is not offered
    CHECK(host.sent.empty());
    CHECK(rig.count("tx_dropped") == 6);
    CHECK(rig.count("driver_errors") == 5);  // all but the one that the host refused
    for (int i = 0; i < 6; ++i) {
        CHECK(rig.taken(tx) == 0);
    }
    rig.transmit(with_header(frame_of(14)));
    rig.transmit(with_header(frame_of(max_frame)));
    CHECK(host.sent.size() == 2);
    CHECK_FALSE(rig.needs_reset());
}

// 5.1.6.2.2 has the device ignore what the driver must not set or has not negotiated. A tap's kernel might know more flags
// than this device, and refuses a frame whose header is longer than the frame.
TEST_CASE("Net: what a device has to ignore in a header does not reach the host", "[net]") {
    struct Case {
        const char* name;
        NetHeader given;
        NetHeader expected;
    };
    using namespace net_header;
    const std::array cases{
        Case{"flags of received frames, and unknown ones", {.flags = 0xFE}, {}},
        Case{"the same with a checksum",
             {.flags = 0xFF, .checksum_start = 14, .checksum_offset = 16},
             {.flags = needs_checksum, .checksum_start = 14, .checksum_offset = 16}},
        Case{"a number of buffers", {.buffers = 42}, {}},
        Case{"a checksum without its flag", {.checksum_start = 34, .checksum_offset = 0xFFFF}, {}},
        Case{"sizes of segments without segmentation", {.header_length = 54, .gso_size = 1448}, {}},
        Case{"a header that is longer than its frame",
             {.flags = needs_checksum, .gso_type = gso_tcp4, .header_length = 0xFFFF, .gso_size = 1448},
             {.flags = needs_checksum, .gso_type = gso_tcp4, .header_length = 60, .gso_size = 1448}},
        Case{"no length of the header",
             {.flags = needs_checksum, .gso_type = gso_tcp6, .gso_size = 1448},
             {.flags = needs_checksum, .gso_type = gso_tcp6, .gso_size = 1448}},
        Case{"ECN",
             {.flags = needs_checksum, .gso_type = gso_tcp4 | gso_ecn, .header_length = 54, .gso_size = 1},
             {.flags = needs_checksum, .gso_type = gso_tcp4 | gso_ecn, .header_length = 54, .gso_size = 1}},
    };
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    for (const Case& one : cases) {
        INFO(one.name);
        rig.transmit(with_header(frame_of(60), one.given));
        REQUIRE(host.sent.size() == 1);
        CHECK(std::memcmp(&host.sent[0].header, &one.expected, header_size) == 0);
        CHECK(host.sent[0].bytes == frame_of(60));
        CHECK(rig.taken(tx) == 0);
        host.sent.clear();
    }
    CHECK(rig.count("tx_dropped") == 0);
    CHECK(rig.count("driver_errors") == 0);
}

TEST_CASE("Net: a header that was not negotiated drops its frame alone", "[net]") {
    struct Case {
        const char* name;
        NetHeader header;
        std::uint64_t features;
    };
    using namespace net_header;
    using namespace net_feature;
    constexpr std::uint64_t all = ~std::uint64_t{0};
    const std::array cases{
        Case{"a checksum", {.flags = needs_checksum}, all & ~checksum},
        Case{"TSO over IPv4",
             {.flags = needs_checksum, .gso_type = gso_tcp4, .gso_size = 1448},
             all & ~host_tso4},
        Case{"TSO over IPv6",
             {.flags = needs_checksum, .gso_type = gso_tcp6, .gso_size = 1448},
             all & ~host_tso6},
        Case{"ECN",
             {.flags = needs_checksum, .gso_type = gso_tcp4 | gso_ecn, .gso_size = 1448},
             all & ~host_ecn},
        Case{"ECN without segments", {.gso_type = gso_ecn}, all},
        Case{"TSO without a checksum", {.gso_type = gso_tcp4, .gso_size = 1448}, all},
        Case{"UFO", {.flags = needs_checksum, .gso_type = 3, .gso_size = 1448}, all},
        Case{"USO", {.flags = needs_checksum, .gso_type = 5, .gso_size = 1448}, all},
        Case{"a type that does not exist", {.flags = needs_checksum, .gso_type = 0x7F}, all},
        Case{"segments of a tunnel", {.flags = needs_checksum, .gso_type = 0x20 | gso_tcp4}, all},
    };
    for (const Case& one : cases) {
        INFO(one.name);
        ScriptedHost host;
        NetRig rig(host);
        rig.start(one.features);
        rig.transmit(with_header(frame_of(3000), one.header));
        CHECK(host.sent.empty());
        CHECK(rig.taken(tx) == 0);
        CHECK(rig.count("tx_dropped") == 1);
        CHECK(rig.count("driver_errors") == 1);
        CHECK_FALSE(rig.needs_reset());
        rig.transmit(with_header(frame_of(60)));
        CHECK(host.sent.size() == 1);
    }
}

TEST_CASE("Net: no received frame has a header that was not negotiated", "[net]") {
    using namespace net_header;
    using namespace net_feature;
    struct Case {
        const char* name;
        NetHeader header;
        std::uint64_t without;
    };
    const std::array cases{
        Case{"a checksum", {.flags = needs_checksum}, guest_checksum},
        Case{"TSO over IPv4", {.flags = needs_checksum, .gso_type = gso_tcp4, .gso_size = 1448}, guest_tso4},
        Case{"TSO over IPv6", {.flags = needs_checksum, .gso_type = gso_tcp6, .gso_size = 1448}, guest_tso6},
        Case{"ECN", {.flags = needs_checksum, .gso_type = gso_tcp4 | gso_ecn, .gso_size = 1448}, guest_ecn},
        Case{"UFO", {.flags = needs_checksum, .gso_type = 3, .gso_size = 1448}, 0},
        Case{"segments of a tunnel", {.flags = needs_checksum, .gso_type = 0x40 | gso_tcp4}, 0},
    };
    for (const Case& one : cases) {
        INFO(one.name);
        ScriptedHost host;
        NetRig rig(host);
        rig.start(~one.without);
        const auto places = rig.post({4096, 4096});
        host.give(frame_of(3000), one.header);
        CHECK_FALSE(rig.taken(rx).has_value());
        CHECK(rig.count("rx_dropped") == 1);
        // Flags that are unknown here are cleared.
        host.give(frame_of(60), {.flags = static_cast<std::uint8_t>(0xFF & ~needs_checksum)});
        CHECK(rig.taken(rx) == 72);
        const NetHeader expected{.flags = (one.without & guest_checksum) != 0 ? std::uint8_t{0} : data_valid,
                                 .buffers = 1};
        CHECK(rig.at(places[0], 72) == with_header(frame_of(60), expected));
    }
}

TEST_CASE("Net: while the host has no room frames wait, in their order", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    host.room = 1;
    for (unsigned i = 0; i < 4; ++i) {
        rig.offer(tx, with_header(frame_of(60, i)), {});
    }
    rig.notify(tx);
    rig.run_events();
    CHECK(host.sent.size() == 1);
    CHECK(host.room_wanted);
    CHECK(rig.taken(tx) == 0);
    CHECK_FALSE(rig.taken(tx).has_value());
    CHECK(rig.count("tx_waits") == 1);
    CHECK(rig.count("tx_dropped") == 0);
    host.room = 100;
    host.client->room_is_free();
    rig.run_events();
    REQUIRE(host.sent.size() == 4);
    for (unsigned i = 0; i < 4; ++i) {
        CHECK(host.sent[i].bytes == frame_of(60, i));
    }
    // Notifications are on again.
    rig.transmit(with_header(frame_of(60, 9)));
    CHECK(host.sent.size() == 5);
}

TEST_CASE("Net: a frame that waits for room is not tried with each frame that arrives", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    rig.post({2000, 2000, 2000});
    host.room = 0;
    rig.transmit(with_header(frame_of(60)));
    CHECK(rig.count("tx_waits") == 1);
    host.give(frame_of(100));
    host.give(frame_of(100));
    rig.run_events();
    CHECK(rig.count("rx_frames") == 2);
    CHECK(rig.count("tx_waits") == 1);
    host.room = 1;
    host.client->room_is_free();
    CHECK(host.sent.size() == 1);
    CHECK(rig.taken(tx) == 0);
}

TEST_CASE("Net: frames that wait for buffers, and frames of one notification, cause one interrupt",
          "[net][interrupt]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    SECTION("64 frames from the host") {
        for (unsigned i = 0; i < 64; ++i) {
            host.give(frame_of(100, i));
        }
        const std::array<std::uint32_t, 1> size{2000};
        for (unsigned i = 0; i < 64; ++i) {
            rig.offer(rx, {}, size);
        }
        CHECK(rig.interrupts() == 0);
        rig.notify(rx);
        rig.run_events();
        CHECK(rig.count("rx_frames") == 64);
    }
    SECTION("64 frames to the host") {
        for (unsigned i = 0; i < 64; ++i) {
            rig.offer(tx, with_header(frame_of(60, i)), {});
        }
        rig.notify(tx);
        rig.run_events();
        CHECK(host.sent.size() == 64);
    }
    CHECK(rig.interrupts() == 1);
    CHECK(rig.count("interrupts") == 1);
}

TEST_CASE("Net: the host's answer to a frame shares the interrupt of the frame", "[net][interrupt]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    rig.post({2000, 2000});
    CHECK(rig.interrupts() == 0);
    host.answers = true;
    rig.transmit(with_header(frame_of(60)));
    CHECK(host.sent.size() == 1);
    CHECK(rig.taken(tx) == 0);
    CHECK(rig.taken(rx) == header_size + 60);
    CHECK(rig.interrupts() == 1);
    // Without buffers for it there is the interrupt of the frame alone.
    rig.transmit(with_header(frame_of(60)));
    rig.transmit(with_header(frame_of(60)));
    CHECK(rig.taken(rx) == header_size + 60);
    CHECK_FALSE(rig.taken(rx).has_value());
    CHECK(rig.count("rx_waits") > 0);
    CHECK_FALSE(host.polled);
    rig.post({2000, 2000});
    CHECK(rig.taken(rx) == header_size + 60);
    CHECK(host.polled);
}

TEST_CASE("Net: a received frame is behind a header of 12 bytes, with or without merged buffers", "[net]") {
    const std::uint64_t features = GENERATE(~std::uint64_t{0}, no_merge);
    ScriptedHost host;
    NetRig rig(host);
    rig.start(features);
    const auto places = rig.post({2048, 2048});
    const NetHeader header{.flags = net_header::needs_checksum, .checksum_start = 34, .checksum_offset = 16};
    const Bytes frame = frame_of(1514);
    host.give(frame, header);
    CHECK(rig.taken(rx) == header_size + 1514);
    CHECK_FALSE(rig.taken(rx).has_value());
    NetHeader expected = header;
    expected.buffers = 1;
    CHECK(rig.at(places[0], header_size + 1514) == with_header(frame, expected));
    CHECK(rig.interrupts() >= 1);
    CHECK(rig.count("rx_frames") == 1);
    CHECK(rig.count("rx_bytes") == 1514);
}

TEST_CASE("Net: a large frame is spread over buffers that the driver sees all at once", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    const auto places = rig.post({100, 200, 300, 4096});
    const Bytes frame = frame_of(900);
    host.give(frame);
    CHECK(rig.queues[rx]->used_index() == 4);
    CHECK(rig.taken(rx) == 100);
    CHECK(rig.taken(rx) == 200);
    CHECK(rig.taken(rx) == 300);
    CHECK(rig.taken(rx) == header_size + 900 - 600);
    NetHeader header;
    header.buffers = 4;
    Bytes whole = rig.at(places[0], 100);
    for (const auto& [index, size] : {std::pair(1U, 200U), std::pair(2U, 300U), std::pair(3U, 312U)}) {
        const Bytes part = rig.at(places[index], size);
        whole.insert(whole.end(), part.begin(), part.end());
    }
    CHECK(whole == with_header(frame, header));
}

TEST_CASE("Net: a frame that does not fit into its buffer is dropped, and the buffer stays", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start(no_merge);
    const auto places = rig.post({100});
    host.give(frame_of(89));  // one byte more than there is room for
    CHECK_FALSE(rig.taken(rx).has_value());
    CHECK(rig.count("rx_dropped") == 1);
    host.give(frame_of(88, 7));
    CHECK(rig.taken(rx) == 100);
    NetHeader header;
    header.buffers = 1;
    CHECK(rig.at(places[0], 100) == with_header(frame_of(88, 7), header));
}

TEST_CASE("Net: a frame for which merged buffers are missing waits for the next ones, once", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    const auto first = rig.post({500});
    host.give(frame_of(1000));
    CHECK_FALSE(rig.taken(rx).has_value());
    CHECK_FALSE(host.polled);
    const auto second = rig.post({600});
    CHECK(rig.taken(rx) == 500);
    CHECK(rig.taken(rx) == header_size + 1000 - 500);
    NetHeader header;
    header.buffers = 2;
    Bytes whole = rig.at(first[0], 500);
    const Bytes rest = rig.at(second[0], 512);
    whole.insert(whole.end(), rest.begin(), rest.end());
    CHECK(whole == with_header(frame_of(1000), header));
    CHECK(rig.count("rx_dropped") == 0);

    rig.post({100});
    host.give(frame_of(1000));
    rig.post({100});  // still too few: the frame is dropped, and does not keep the next one from arriving
    CHECK(rig.count("rx_dropped") == 1);
    host.give(frame_of(60));
    CHECK(rig.taken(rx) == 72);
}

// Nothing would end the wait otherwise: the driver has no descriptor left for another buffer.
TEST_CASE("Net: a frame that is larger than all buffers that a queue can have is dropped", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    constexpr std::uint32_t small = 100;
    for (int i = 0; i < 256; ++i) {
        rig.offer(rx, {}, std::array{small});
    }
    rig.notify(rx);
    rig.run_events();
    host.give(frame_of(256UL * small));
    host.give(frame_of(60));
    CHECK(rig.count("rx_dropped") == 0);
    CHECK_FALSE(host.polled);
    const auto start = std::chrono::steady_clock::now();
    CHECK(rig.run_until([&] { return rig.count("rx_frames") == 1; }));
    CHECK(std::chrono::steady_clock::now() - start >= Net::longest_hold / 2);
    CHECK(rig.taken(rx) == 72);
    CHECK(rig.count("rx_dropped") == 1);
    CHECK(host.polled);
    // What fits is delivered as before, and the timer has no further effect.
    host.give(frame_of(200UL * small));
    CHECK(rig.count("rx_frames") == 2);
    CHECK_FALSE(rig.run_until([&] { return rig.count("rx_dropped") != 1; }, 2 * Net::longest_hold));
    CHECK_FALSE(rig.needs_reset());
}

TEST_CASE("Net: the wait for buffers ends with the driver", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    rig.post({100});
    host.give(frame_of(1000));
    rig.start();
    rig.post({2048});
    CHECK_FALSE(rig.run_until([&] { return rig.count("rx_dropped") != 0; }, 2 * Net::longest_hold));
    host.give(frame_of(60));
    CHECK(rig.taken(rx) == 72);
}

TEST_CASE("Net: without receive buffers the host is not polled until the driver offers some", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    for (unsigned i = 0; i < 5; ++i) {
        host.give(frame_of(60, i));
    }
    CHECK_FALSE(host.polled);  // before the driver is up
    rig.start();
    CHECK_FALSE(host.polled);
    CHECK(host.arrived.size() == 5);
    rig.post({2048, 2048, 2048});
    CHECK(host.arrived.size() == 2);  // drained as far as there are buffers
    CHECK_FALSE(host.polled);
    const auto places = rig.post({2048, 2048, 2048});
    CHECK(host.arrived.empty());
    CHECK(host.polled);
    for (int i = 0; i < 5; ++i) {
        CHECK(rig.taken(rx) == 72);
    }
    CHECK(rig.at(places[1], 72) == with_header(frame_of(60, 4), {.buffers = 1}));
    rig.reset();
    host.give(frame_of(60));
    CHECK_FALSE(host.polled);
}

TEST_CASE("Net: offloads follow the accepted features, and end with the driver", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    REQUIRE(host.set.size() == 1);
    CHECK(host.set.back() == NetOffloads{.checksum = true, .tso4 = true, .tso6 = true, .ecn = true});
    rig.reset();
    CHECK(host.set.back() == NetOffloads{});
    rig.start(~net_feature::guest_checksum);  // and so no segmentation
    CHECK(host.set.back() == NetOffloads{});
    rig.start(~(net_feature::checksum | net_feature::guest_tso6 | net_feature::guest_ecn));
    CHECK(host.set.back() == NetOffloads{.checksum = true, .tso4 = true});
}

TEST_CASE("Net: a driver without offloads gets only frames that are complete", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start(~(net_feature::guest_checksum | net_feature::guest_tso4 | net_feature::guest_tso6));
    const auto places = rig.post({2048});
    // Left over from a driver that had accepted more.
    host.give(frame_of(60), {.flags = net_header::needs_checksum});
    host.give(frame_of(4000), {.gso_type = net_header::gso_tcp4, .gso_size = 1448});
    CHECK_FALSE(rig.taken(rx).has_value());
    CHECK(rig.count("rx_dropped") == 2);
    host.give(frame_of(60), {.flags = net_header::data_valid});
    CHECK(rig.taken(rx) == 72);
    CHECK(rig.at(places[0], 72) == with_header(frame_of(60), {.buffers = 1}));
}

TEST_CASE("Net: a reset with buffers posted leaves the used ring as it is", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    rig.post({500});
    host.give(frame_of(1000));  // held
    const auto index = rig.queues[rx]->used_index();
    rig.write(mmio::status, 0);
    CHECK(rig.queues[rx]->used_index() == index);
    rig.start();
    rig.post({2048});
    CHECK_FALSE(rig.taken(rx).has_value());  // the frame was for the driver before
    host.give(frame_of(60));
    CHECK(rig.taken(rx) == 72);
}

TEST_CASE("Net: a receive buffer smaller than the header is returned empty", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    rig.post({11, 2048});
    host.give(frame_of(60));
    CHECK(rig.taken(rx) == 0);
    CHECK(rig.taken(rx) == 72);
    CHECK(rig.count("driver_errors") == 1);
    CHECK_FALSE(rig.needs_reset());
}

TEST_CASE("Net: buffers that cannot be used are returned empty, and the others are used", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    // Frames to the host: dropped.
    const std::uint16_t head = rig.offer(tx, with_header(frame_of(60)), {});
    rig.queues[tx]->set(head, {rig.memory.low_end(), 72});
    rig.notify(tx);
    rig.run_events();
    CHECK(rig.taken(tx) == 0);
    CHECK(host.sent.empty());
    CHECK(rig.count("tx_dropped") == 1);
    rig.transmit(with_header(frame_of(60)));
    CHECK(host.sent.size() == 1);
    // Buffers for frames to the guest.
    const bool outside = GENERATE(false, true);
    const std::array<std::uint32_t, 1> large{2048};
    const std::array<std::uint32_t, 1> small{11};
    const std::uint16_t first = rig.offer(rx, {}, large);
    const std::uint16_t bad = rig.offer(rx, {}, small);
    if (outside) {
        rig.queues[rx]->set(bad, {rig.memory.low_end(), 2048, DriverQueue::device_writes});
    }
    const std::uint16_t last = rig.offer(rx, {}, large);
    rig.notify(rx);
    rig.run_events();
    host.give(frame_of(60));
    CHECK(rig.queues[rx]->take_used() == DriverQueue::Used{bad, 0});
    CHECK(rig.queues[rx]->take_used() == DriverQueue::Used{first, 72});
    CHECK_FALSE(rig.needs_reset());
    CHECK(rig.count("driver_errors") == 2);
    const bool saved = GENERATE(false, true);
    if (saved) {
        // No chain is returned twice, or forgotten.
        const auto progress = rig.transport->state().queues.at(rx).progress;
        CHECK(progress.next_available == 3);
        CHECK(progress.next_used == 3);
        CHECK(rig.queues[rx]->take_used() == DriverQueue::Used{last, 0});
        rig.post({2048});
    }
    host.give(frame_of(60));
    CHECK(rig.taken(rx) == 72);
    CHECK_FALSE(rig.taken(rx));
}

TEST_CASE("Net: buffers that wait for frames are available again in a saved state", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    rig.post({2048, 2048, 2048});
    host.give(frame_of(60));
    CHECK(rig.taken(rx) == 72);
    const auto progress = rig.transport->state().queues.at(rx).progress;
    CHECK(progress.next_available == 1);
    CHECK(progress.next_used == 1);
    host.give(frame_of(60));
    CHECK(rig.taken(rx) == 72);
}

TEST_CASE("Net: a hostile receive ring needs a reset, and the host is left alone", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    rig.post({2048});
    rig.queues[rx]->set_available_index(1 + 257);
    rig.notify(rx);
    rig.run_events();
    host.give(frame_of(60));
    host.give(frame_of(60));
    CHECK(rig.needs_reset());
    CHECK_FALSE(host.polled);
    rig.start();
    rig.post({2048});
    host.give(frame_of(60));
    CHECK(rig.taken(rx).has_value());
}

TEST_CASE("Net: a change of the link is a configuration change, and frames are dropped meanwhile", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start();
    const auto generation = rig.read(mmio::config_generation);
    host.up = false;
    host.client->link_changed();
    CHECK((rig.take_interrupt_status() & interrupt_status::configuration_change) != 0);
    CHECK(rig.read(mmio::config_generation) != generation);
    CHECK(rig.config<std::uint16_t>(6) == 0);
    rig.transmit(with_header(frame_of(60)));
    CHECK(host.sent.empty());
    CHECK(rig.count("tx_dropped") == 1);
    CHECK(rig.count("link_downs") == 1);
    host.up = true;
    host.client->link_changed();
    CHECK(rig.config<std::uint16_t>(6) == 1);
    rig.transmit(with_header(frame_of(60)));
    CHECK(host.sent.size() == 1);
}

TEST_CASE("Net: the device works in a thread of its own", "[net]") {
    PeerState peer;
    StreamBackend backend(std::make_unique<ScriptedPeer>(peer), "peer", "peer");
    DeviceRig rig([&](DeviceRig& r) {
        return std::make_shared<Net>("net0", r.counters, backend, Net::Settings{.mac = mac});
    });
    rig.start();
    rig.offer(tx, with_header(frame_of(60)), {});
    rig.notify(tx);
    CHECK(rig.run_until([&] { return rig.counters["tx_frames"].value() == 1; }));
    for (int i = 0; i < 200; ++i) {
        rig.notify(rx);
        rig.notify(tx);
        rig.start();
    }
}

TEST_CASE("Net stream: frames that are cut at any byte are put together", "[net]") {
    StreamRig s;
    s.rig.start();
    const Bytes first = StreamRig::on_wire(frame_of(20));
    Bytes both = first;
    const Bytes second = StreamRig::on_wire(frame_of(30, 5));
    both.insert(both.end(), second.begin(), second.end());
    for (std::size_t cut = 1; cut < both.size(); ++cut) {
        CAPTURE(cut);
        const auto places = s.rig.post({2048, 2048});
        s.write(std::span(both).first(cut));
        s.rig.run_events();
        s.write(std::span(both).subspan(cut));
        s.rig.run_events();
        CHECK(s.rig.taken(rx) == header_size + 20);
        CHECK(s.rig.taken(rx) == header_size + 30);
        CHECK(s.rig.at(places[0], 32) == with_header(frame_of(20), {.buffers = 1}));
        CHECK(s.rig.at(places[1], 42) == with_header(frame_of(30, 5), {.buffers = 1}));
    }
    CHECK(s.link());
    CHECK(s.peer.connections == 1);
}

TEST_CASE("Net stream: a frame that the peer takes in parts is completed before the next one", "[net]") {
    StreamRig s;
    s.rig.start();
    constexpr unsigned frames = 40;  // more than the socket holds
    for (unsigned i = 0; i < frames; ++i) {
        s.rig.offer(tx, with_header(frame_of(60'000, i)), {});
    }
    s.rig.notify(tx);
    s.rig.run_events();
    CHECK(s.rig.count("tx_waits") >= 1);
    CHECK(s.events_while_idle() == 0);
    Bytes received;
    CHECK(s.rig.run_until([&] {
        std::array<std::uint8_t, 7777> part{};
        const ssize_t got = ::recv(s.peer.theirs.get(), part.data(), part.size(), MSG_DONTWAIT);
        received.insert(received.end(), part.begin(), part.begin() + std::max<ssize_t>(got, 0));
        return received.size() >= frames * 60'004UL;
    }));
    Bytes expected;
    for (unsigned i = 0; i < frames; ++i) {
        const Bytes one = StreamRig::on_wire(frame_of(60'000, i));
        expected.insert(expected.end(), one.begin(), one.end());
    }
    CHECK(received == expected);
    CHECK(s.rig.count("tx_dropped") == 0);
}

TEST_CASE("Net stream: a wrong length or the end of the peer takes the link down until it is back", "[net]") {
    const auto length = GENERATE(std::uint32_t{13}, std::uint32_t{65536}, std::uint32_t{0xFFFF'FFFF},
                                 std::uint32_t{0}, std::uint32_t{100});
    StreamRig s;
    s.rig.start();
    s.rig.post({2048, 2048});
    CHECK(s.link());
    s.peer.refuses = true;
    const Bytes field{static_cast<std::uint8_t>(length >> 24U), static_cast<std::uint8_t>(length >> 16U),
                      static_cast<std::uint8_t>(length >> 8U), static_cast<std::uint8_t>(length)};
    s.write(field);
    if (length == 100) {  // the end within a frame
        s.write(frame_of(50));
        s.rig.run_events();
        CHECK(s.link());
        s.peer.theirs = {};
    }
    CHECK(s.rig.run_until([&] { return !s.link(); }));
    CHECK((s.rig.take_interrupt_status() & interrupt_status::configuration_change) != 0);
    CHECK(s.events_while_idle() < 20);
    CHECK_FALSE(s.rig.taken(rx).has_value());
    s.rig.transmit(with_header(frame_of(60)));
    CHECK(s.rig.count("tx_dropped") == 1);
    s.peer.refuses = false;
    CHECK(s.rig.run_until([&] { return s.link(); }));
    CHECK(s.peer.connections == 2);
    s.write(StreamRig::on_wire(frame_of(60)));
    CHECK(s.rig.run_until([&] { return s.rig.count("rx_frames") == 1; }));
    CHECK(s.rig.taken(rx) == 72);
}

TEST_CASE("Net stream: what the peer sent before its end is delivered", "[net]") {
    StreamRig s;
    s.rig.start();
    s.rig.post({2048});
    s.write(StreamRig::on_wire(frame_of(60)));
    s.peer.refuses = true;
    s.peer.theirs = {};
    CHECK(s.rig.run_until([&] { return !s.link(); }));
    CHECK(s.rig.taken(rx) == 72);
}

TEST_CASE("Net stream: an inherited socket that has ended is not tried again", "[net]") {
    const test::ScratchDirectory directory;
    const std::string log_file = (directory / "log").string();
    open_log(UniqueFd(::open(log_file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), LogLevel::debug);
    auto [ours, theirs] = socket_pair();
    StreamBackend backend(std::make_unique<SinglePeer>(std::move(ours)), "fd", "fd", std::nullopt,
                          {.first = std::chrono::milliseconds(1), .longest = std::chrono::milliseconds(1)});
    const auto check_no_link = [](NetRig& rig) {
        CHECK(rig.run_until([&] { return rig.config<std::uint16_t>(6) == 0; }));
        rig.run_events();
        CHECK_FALSE(
            rig.run_until([&] { return rig.events.run_once(5) != 0; }, std::chrono::milliseconds(50)));
        rig.start();
        rig.transmit(with_header(frame_of(60)));
        CHECK(rig.count("tx_dropped") == 1);
    };
    {
        NetRig rig(backend);
        theirs = {};
        check_no_link(rig);
    }
    {
        NetRig after_restart(backend);
        check_no_link(after_restart);
    }
    close_log();
    std::ifstream file(log_file);
    std::string line;
    std::getline(file, line);
    CHECK_THAT(line, Catch::Matchers::Contains("the guest has no link any more"));
    CHECK_FALSE(std::getline(file, line));
}

TEST_CASE("Net stream: the end of the peer is noticed before there is a driver, and costs nothing", "[net]") {
    StreamRig s;
    s.peer.refuses = true;
    s.peer.theirs = {};
    CHECK(s.rig.run_until([&] { return !s.link(); }));
    CHECK(s.events_while_idle() < 20);
}

TEST_CASE("Net stream: a flood before the driver is up wakes nothing", "[net]") {
    StreamRig s;
    for (int i = 0; i < 50; ++i) {
        s.write(StreamRig::on_wire(frame_of(60)));
    }
    CHECK(s.events_while_idle() == 0);
    s.rig.start();
    CHECK(s.events_while_idle() == 0);
    for (int i = 0; i < 50; ++i) {
        s.rig.post({2048});
    }
    CHECK(s.rig.run_until([&] { return s.rig.count("rx_frames") == 50; }));
}

TEST_CASE("Net passt: a program that is missing, fails or does not react is one reason", "[net]") {
    const auto reason = [](std::vector<std::string> arguments, const std::string& program) {
        PasstProcess process(std::move(arguments), program);
        const auto connection = process.connect();
        REQUIRE_FALSE(connection.has_value());
        CHECK(connection.error().find('\n') == std::string::npos);
        return connection.error();
    };
    CHECK_THAT(reason({}, "no-such-passt"), Catch::Matchers::Contains("is not installed"));
    CHECK_THAT(reason({}, "/dev/null"), Catch::Matchers::Contains("Permission denied"));
    CHECK_THAT(reason({}, "false"), Catch::Matchers::Contains("exit code 1"));
    // What it has written is the reason only if it has ended by itself.
    const test::ScratchDirectory directory;
    const auto script = [&](const std::string& text) {
        const std::string path = (directory / "passt").string();
        std::ofstream(path) << "#!/bin/sh\necho a message >&2\n" << text << "\n";
        std::filesystem::permissions(path, std::filesystem::perms::owner_all);
        return path;
    };
    CHECK_THAT(reason({}, script("exit 3")), Catch::Matchers::Contains("a message"));
    CHECK_THAT(reason({}, script("kill -9 $$")),
               Catch::Matchers::Contains("signal 9") && !Catch::Matchers::Contains("a message"));
}

namespace {

/// A program in the place of passt that reads the first `bytes` of its socket, and then neither that nor signals.
class HangingPasst {
public:
    explicit HangingPasst(int bytes) {
        std::ofstream(path()) << "#!/bin/sh\n"
                                 "trap '' TERM\n"
                                 "while [ \"$1\" != --fd ]; do shift; done\n"
                                 "echo $$ >"
                              << pid_file()
                              << "\n"
                                 "head -c "
                              << bytes
                              << " <&$2 >/dev/null\n"
                                 "exec sleep 1000\n";
        std::filesystem::permissions(path(), std::filesystem::perms::owner_all);
    }
    [[nodiscard]] std::string path() const { return (directory_ / "passt").string(); }
    [[nodiscard]] bool runs() const {
        pid_t pid = 0;
        std::ifstream(pid_file()) >> pid;
        return pid != 0 && ::kill(pid, 0) == 0;
    }

private:
    [[nodiscard]] std::string pid_file() const { return (directory_ / "pid").string(); }
    test::ScratchDirectory directory_;
};

}  // namespace

TEST_CASE("Net passt: one that hangs delays neither the driver nor the end", "[net]") {
    const HangingPasst passt(18);  // the frame by which its start is noticed
    const auto start = std::chrono::steady_clock::now();
    {
        auto process = std::make_unique<PasstProcess>(std::vector<std::string>{}, passt.path());
        StreamBackend backend(std::move(process), "passt", "passt");
        NetRig rig(backend);
        rig.start();
        constexpr unsigned frames = 40;
        for (unsigned i = 0; i < frames; ++i) {
            rig.transmit(with_header(frame_of(60'000, i)));
        }
        // Some are in the socket, and the others wait in the driver's queue.
        CHECK(rig.count("tx_waits") >= 1);
        CHECK(rig.count("tx_frames") < frames);
        CHECK(rig.count("tx_dropped") == 0);
        CHECK(rig.events.run_once(20) == 0);
        rig.start();
        CHECK(rig.config<std::uint16_t>(6) == 1);
        CHECK(passt.runs());
    }
    CHECK_FALSE(passt.runs());
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
}

TEST_CASE("Net passt: its launcher starts one at a time, and kills what does not end", "[net]") {
    const HangingPasst passt(0);
    auto launcher = HelperLauncher::create({passt.path(), "--fd", "3"});
    REQUIRE(launcher);
    const auto first = launcher->start();
    REQUIRE(first);
    const auto runs = [&] {
        for (int i = 0; i < 500 && !passt.runs(); ++i) {
            ::usleep(10'000);
        }
        return passt.runs();
    };
    CHECK(runs());
    // The first does not react to the end of its connection or to SIGTERM: it is killed.
    const auto start = std::chrono::steady_clock::now();
    const auto second = launcher->start();
    REQUIRE(second);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
    pollfd entry{.fd = first->socket.get(), .events = POLLIN, .revents = 0};
    CHECK(::poll(&entry, 1, 0) == 1);
    CHECK((entry.revents & POLLHUP) != 0);
    CHECK(runs());
    CHECK_FALSE(launcher->end().has_value());  // it was asked to end
    CHECK_FALSE(passt.runs());
    CHECK_FALSE(launcher->end().has_value());
    // A program that ends by itself has a status.
    auto failing = HelperLauncher::create({"false"});
    REQUIRE(failing);
    REQUIRE(failing->start());
    const std::optional<int> status = failing->end();
    REQUIRE(status);
    CHECK(WEXITSTATUS(*status) == 1);
    CHECK(HelperLauncher::create({"no-such-program"})->start().error() == ENOENT);
}

TEST_CASE("Net passt: one that does not even begin is one reason, after 5 s", "[net][slow]") {
    const HangingPasst passt(0);
    {
        PasstProcess process({}, passt.path());
        const auto connection = process.connect();
        REQUIRE_FALSE(connection.has_value());
        CHECK_THAT(connection.error(), Catch::Matchers::Contains("does not serve its connection within 5 s"));
    }
    CHECK_FALSE(passt.runs());
}

namespace {

// As "ip link delete" (rtnetlink(7)).
void delete_interface(const std::string& name) {
    struct {
        nlmsghdr header;
        ifinfomsg interface;
    } request{};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = RTM_DELLINK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    request.interface.ifi_index = static_cast<int>(::if_nametoindex(name.c_str()));
    const UniqueFd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    REQUIRE(::send(netlink.get(), &request, sizeof(request), 0) == static_cast<ssize_t>(sizeof(request)));
    struct {
        nlmsghdr header;
        nlmsgerr error;
    } answer{};
    REQUIRE(::recv(netlink.get(), &answer, sizeof(answer), MSG_TRUNC) > 0);
    REQUIRE(answer.error.error == 0);
}

}  // namespace

namespace {

/// This thread has no CAP_NET_ADMIN, as the users for whom an administrator makes taps.
class WithoutNetAdmin {
public:
    WithoutNetAdmin() {
        REQUIRE(::syscall(SYS_capget, &header_, before_.data()) == 0);
        auto fewer = before_;
        fewer[0].effective &= ~(1U << CAP_NET_ADMIN);
        REQUIRE(::syscall(SYS_capset, &header_, fewer.data()) == 0);
    }
    ~WithoutNetAdmin() { ::syscall(SYS_capset, &header_, before_.data()); }
    WithoutNetAdmin(const WithoutNetAdmin&) = delete;
    WithoutNetAdmin& operator=(const WithoutNetAdmin&) = delete;

private:
    __user_cap_header_struct header_{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> before_{};
};

}  // namespace

TEST_CASE("Net tap: frames of a tap interface, until it is deleted", "[net]") {
    const std::string name = "kvmvmm" + std::to_string(::getpid() % 100000);
    UniqueFd owner(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    ifreq request{};
    std::ranges::copy(name, std::begin(request.ifr_name));
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (!owner || ::ioctl(owner.get(), TUNSETIFF, &request) != 0) {
        WARN("skipped: no tap interface can be made here: " << std::strerror(errno));
        return;
    }
    SECTION("a name without an interface, in use, or of another kind is refused") {
        const auto reason = [](const std::string& interface) -> std::string {
            try {
                (void)TapBackend::open(interface);
            } catch (const VmmError& error) {
                CHECK(error.code() == ExitCode::bad_file);
                return error.what();
            }
            return {};
        };
        CHECK_THAT(reason("kvmvmmnone"), Catch::Matchers::Contains("there is no such interface"));
        CHECK(::if_nametoindex("kvmvmmnone") == 0);
        CHECK_THAT(reason(name), Catch::Matchers::Contains("in use"));
        CHECK_THAT(reason("lo"), Catch::Matchers::Contains("not a tap"));
        REQUIRE(::ioctl(owner.get(), TUNSETOWNER, ::getuid() + 1234) == 0);
        REQUIRE(::ioctl(owner.get(), TUNSETPERSIST, 1) == 0);
        owner = {};
        {
            const WithoutNetAdmin user;
            CHECK_THAT(reason(name), Catch::Matchers::Contains("belongs to another user"));
        }
        CHECK(reason(name).empty());
        delete_interface(name);
    }
    SECTION("an interface for several queues serves one") {
        owner = {};
        UniqueFd several(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
        request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
        REQUIRE(::ioctl(several.get(), TUNSETIFF, &request) == 0);
        REQUIRE(::ioctl(several.get(), TUNSETPERSIST, 1) == 0);
        several = {};
        CHECK(TapBackend::open(name)->link_up());
        delete_interface(name);
    }
    SECTION("an MTU that the interface does not have is used, with a warning") {
        REQUIRE(::ioctl(owner.get(), TUNSETPERSIST, 1) == 0);
        owner = {};
        const test::ScratchDirectory directory;
        const std::string log_file = (directory / "log").string();
        const auto mtu_of = [&](const std::string& options) {
            const NetTarget target = open_net(parse_net("tap=" + name + options).value(), 0);
            return target.settings.mtu;
        };
        open_log(UniqueFd(::open(log_file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), LogLevel::warning);
        CHECK(mtu_of("") == 1500);
        CHECK(mtu_of(",mtu=1400") == 1400);
        CHECK(std::filesystem::is_empty(log_file));
        CHECK(mtu_of(",mtu=9000") == 9000);
        close_log();
        std::string line;
        std::getline(std::ifstream(log_file), line);
        CHECK_THAT(line,
                   Catch::Matchers::Contains("mtu=9000 is larger than the MTU of the host's end, 1500"));
        delete_interface(name);
    }
    SECTION("a deletion is noticed by a frame that is sent, too") {
        auto backend = TapBackend::adopt(std::move(owner), "tap");
        NetRig rig(*backend);
        rig.start();  // without receive buffers the tap is not polled
        delete_interface(name);
        rig.run_events();
        rig.transmit(with_header(frame_of(60)));
        CHECK(rig.run_until([&] { return rig.config<std::uint16_t>(6) == 0; }));
        CHECK(rig.count("link_downs") == 1);
        CHECK(rig.events.run_once(0) == 0);
        CHECK_FALSE(rig.needs_reset());
    }
    SECTION("an inherited descriptor works like a name") {
        auto backend = TapBackend::adopt(std::move(owner), "tap");
        CHECK(backend->identity() == name);
        NetRig rig(*backend);
        rig.start();
        CHECK(rig.config<std::uint16_t>(6) == 1);
        rig.transmit(with_header(frame_of(60)));
        CHECK(rig.count("tx_dropped") == 1);  // the interface is down
        const UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        REQUIRE(::ioctl(control.get(), SIOCGIFFLAGS, &request) == 0);
        request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
        REQUIRE(::ioctl(control.get(), SIOCSIFFLAGS, &request) == 0);
        rig.transmit(with_header(frame_of(60)));
        CHECK(rig.count("tx_frames") == 1);
        rig.transmit(with_header(frame_of(60), {.flags = 1, .checksum_start = 60000}));  // not in the frame
        CHECK(rig.count("tx_dropped") == 2);
        for (int i = 0; i < 20; ++i) {
            rig.post({2048});
        }
        // The host's own stack sends at least its IPv6 neighbour discovery when the interface comes up, if it
        // has IPv6: what arrives is counted, if anything does.
        CHECK(rig.count("rx_dropped") == 0);
        CHECK(rig.config<std::uint16_t>(6) == 1);

        // Down and up again: frames are lost meanwhile, and nothing else.
        for (const bool up : {false, true}) {
            request.ifr_flags =
                static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
            REQUIRE(::ioctl(control.get(), SIOCSIFFLAGS, &request) == 0);
            rig.run_events();
            CHECK(rig.events.run_once(0) == 0);
            rig.transmit(with_header(frame_of(60)));
            CHECK(rig.count("tx_frames") == (up ? 2 : 1));
            CHECK(rig.count("tx_dropped") == 3);
            CHECK(rig.config<std::uint16_t>(6) == 1);
        }

        delete_interface(name);
        CHECK(rig.run_until([&] { return rig.config<std::uint16_t>(6) == 0; }));
        CHECK(rig.count("link_downs") == 1);
        rig.run_events();
        CHECK(rig.events.run_once(0) == 0);  // the descriptor reports it for ever, and is not waited for
        rig.transmit(with_header(frame_of(60)));
        CHECK(rig.count("tx_dropped") == 4);
    }
}

TEST_CASE("MAC address: text is six bytes, and nothing else", "[net]") {
    CHECK(parse_mac("52:54:00:12:aB:cD") == MacAddress{0x52, 0x54, 0, 0x12, 0xAB, 0xCD});
    CHECK(parse_mac("52-54-00-12-34-56").has_value());
    for (const char* const text :
         {"", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:567", "5254.0012.3456",
          "52:54-00:12:34:56", "g2:54:00:12:34:56", "52:54:00:12:34:56 "}) {
        CHECK_FALSE(parse_mac(text).has_value());
    }
    CHECK_FALSE(is_unicast({1, 0, 0, 0, 0, 0}));
    CHECK_FALSE(is_unicast({}));
    const MacAddress derived = derive_mac("host 0 tap0");
    CHECK(derived == derive_mac("host 0 tap0"));
    CHECK(derived != derive_mac("host 1 tap0"));
    CHECK(is_unicast(derived));
    CHECK((derived[0] & 2U) != 0);
    CHECK(parse_mac(to_string(derived)) == derived);
}

TEST_CASE("Net: a rate limit delays frames in both directions, and loses none", "[net]") {
    ScriptedHost host;
    DeviceRig rig([&](DeviceRig& r) {
        return std::make_shared<Net>("net0", r.counters, host,
                                     Net::Settings{.mac = mac, .mtu = std::nullopt, .rate = 400'000},
                                     &r.events);
    });
    rig.start();
    constexpr unsigned frames = 8;  // 160 kB, of which 65,536 bytes pass at once
    const auto begin = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < frames; ++i) {
        host.arrived.push_back({.header = {}, .bytes = frame_of(20'000, i)});
        rig.offer(tx, with_header(frame_of(20'000, i)), {});
        rig.offer(rx, {}, std::array<std::uint32_t, 1>{20'012});
    }
    rig.notify(tx);
    rig.notify(rx);
    rig.run_events();
    CHECK(host.sent.size() < frames);
    CHECK_FALSE(host.arrived.empty());
    CHECK_FALSE(host.polled);
    CHECK(rig.counters["throttled"].value() >= 2);
    CHECK(rig.run_until([&] { return host.sent.size() == frames && host.arrived.empty(); }));
    CHECK(std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(150));
    for (unsigned i = 0; i < frames; ++i) {
        CHECK(host.sent[i].bytes == frame_of(20'000, i));
    }
    CHECK(rig.counters["tx_dropped"].value() + rig.counters["rx_dropped"].value() == 0);
}

TEST_CASE("Net: a frame that the host has no room for uses up nothing of the rate", "[net]") {
    ScriptedHost host;
    DeviceRig rig([&](DeviceRig& r) {
        return std::make_shared<Net>("net0", r.counters, host,
                                     Net::Settings{.mac = mac, .mtu = std::nullopt, .rate = 1000}, &r.events);
    });
    rig.start();
    host.room = 0;
    rig.offer(tx, with_header(frame_of(60'000)), {});
    rig.notify(tx);
    rig.run_events();
    CHECK(rig.counters["tx_waits"].value() == 1);
    host.room = 1;
    host.client->room_is_free();  // the burst is 65,536 bytes, and would be filled again in a minute
    CHECK(host.sent.size() == 1);
    CHECK(rig.counters["throttled"].value() == 0);
}

TEST_CASE("Net: a restored device leaves to the driver what it had accepted, and no more", "[net]") {
    ScriptedHost host;
    NetRig rig(host);
    rig.start(~(net_feature::guest_tso6 | net_feature::guest_ecn));
    const auto saved = rig.transport->state();
    ScriptedHost other;
    NetRig restored(other);
    REQUIRE(restored.transport->restore(saved));
    REQUIRE(other.set.size() == 1);
    CHECK(other.set.back() == NetOffloads{.checksum = true, .tso4 = true});
}
