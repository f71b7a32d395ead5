// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Packets and buffers of a socket device's driver that break the rules, or use their limits: each case ends with
// connections that work.
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "virtio/vsock.hpp"
#include "vsock_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;
using namespace kvm_vmm::virtio;

namespace {

constexpr std::uint32_t guest_port = 52;
constexpr std::uint32_t host_port = 99;
constexpr std::uint16_t chain_next = DriverQueue::next;
constexpr std::uint16_t chain_write = DriverQueue::device_writes;

// A guest, a connection of its own to a program on the host, and one of the host to it.
struct Peers {
    VsockGuest guest;
    UniqueFd listener = listen_unix(guest.path + "_" + std::to_string(host_port));
    UniqueFd server = guest.connect_from_guest(guest_port, host_port, listener);

    VsockHeader header(std::uint16_t op, std::uint32_t len = 0) const {
        return VsockGuest::header(op, guest_port, host_port, len);
    }
    void send(VsockHeader header, const std::function<void(VsockHeader&)>& change,
              std::string_view data = {}) {
        change(header);
        guest.send(header, data);
    }
    // The operations of the packets that the guest has received.
    std::vector<std::uint16_t> answers() {
        std::vector<std::uint16_t> ops;
        while (const std::uint16_t op = guest.next_op()) {
            ops.push_back(op);
        }
        return ops;
    }
    // Bytes pass in both directions.
    void check_echo(const UniqueFd& host, std::uint32_t from_guest, std::uint32_t to_host) {
        guest.send(VsockGuest::header(vsock::op_rw, from_guest, to_host, 4), "ping");
        guest.run();
        CHECK(read_all(host) == "ping");
        REQUIRE(write_some(host, "pong") == 4);
        const auto packet = guest.next();
        REQUIRE(packet);
        CHECK(packet->header.op == vsock::op_rw);
        CHECK(packet->data == "pong");
    }
    void check_new_connections() {
        CHECK_FALSE(guest.rig->needs_reset());
        const UniqueFd accepted = guest.connect_from_guest(1000, host_port, listener);
        check_echo(accepted, 1000, host_port);
        const auto connected = guest.connect_from_host(2000);
        check_echo(connected.client, 2000, connected.host_port);
    }
};

const std::vector<std::uint16_t> no_answer;
const std::vector<std::uint16_t> reset_only{vsock::op_rst};
const std::vector<std::uint16_t> response_only{vsock::op_response};

}  // namespace

TEST_CASE("Vsock: packets whose addresses, type or operation break the rules", "[vsock][hostile]") {
    Peers peers;
    struct Case {
        const char* title;
        std::function<void(VsockHeader&)> change;  // of a request from port 60 to the listener
        const std::vector<std::uint16_t>& answers;
    };
    const std::vector<Case> cases{
        {"a header of zeros", [](VsockHeader& h) { h = {}; }, no_answer},
        {"from the hypervisor's address", [](VsockHeader& h) { h.src_cid = 0; }, no_answer},
        {"from the local address", [](VsockHeader& h) { h.src_cid = 1; }, no_answer},
        {"from the host's address", [](VsockHeader& h) { h.src_cid = 2; }, no_answer},
        {"from any address", [](VsockHeader& h) { h.src_cid = 0xFFFF'FFFF; }, no_answer},
        {"from 64 bits of ones", [](VsockHeader& h) { h.src_cid = ~std::uint64_t{0}; }, no_answer},
        {"to the hypervisor", [](VsockHeader& h) { h.dst_cid = 0; }, reset_only},
        {"to the local address", [](VsockHeader& h) { h.dst_cid = 1; }, reset_only},
        {"to itself", [](VsockHeader& h) { h.dst_cid = VsockGuest::cid; }, reset_only},
        {"to another guest", [](VsockHeader& h) { h.dst_cid = 8; }, reset_only},
        {"to any address", [](VsockHeader& h) { h.dst_cid = 0xFFFF'FFFF; }, reset_only},
        {"to 64 bits of ones", [](VsockHeader& h) { h.dst_cid = ~std::uint64_t{0}; }, reset_only},
        {"no type", [](VsockHeader& h) { h.type = 0; }, reset_only},
        {"SOCK_SEQPACKET, which is not offered", [](VsockHeader& h) { h.type = 2; }, reset_only},
        {"datagrams", [](VsockHeader& h) { h.type = 3; }, reset_only},
        {"the last type", [](VsockHeader& h) { h.type = 0xFFFF; }, reset_only},
        {"no operation", [](VsockHeader& h) { h.op = 0; }, reset_only},
        {"the last operation", [](VsockHeader& h) { h.op = 0xFFFF; }, reset_only},
        {"a response that nobody waits for", [](VsockHeader& h) { h.op = vsock::op_response; }, reset_only},
        {"data without a connection", [](VsockHeader& h) { h.op = vsock::op_rw; }, reset_only},
        {"a shutdown without a connection", [](VsockHeader& h) { h.op = vsock::op_shutdown; }, reset_only},
        {"credit without a connection", [](VsockHeader& h) { h.op = vsock::op_credit_update; }, reset_only},
        {"a wish for credit without a connection", [](VsockHeader& h) { h.op = vsock::op_credit_request; },
         reset_only},
        {"a reset without a connection", [](VsockHeader& h) { h.op = vsock::op_rst; }, no_answer},
        {"a reset of another type",
         [](VsockHeader& h) {
             h.op = vsock::op_rst;
             h.type = 2;
         },
         no_answer},
        {"port 0, where nobody listens", [](VsockHeader& h) { h.dst_port = 0; }, reset_only},
        {"the last port, where nobody listens", [](VsockHeader& h) { h.dst_port = ~0U; }, reset_only},
        {"from port 0", [](VsockHeader& h) { h.src_port = 0; }, response_only},
        {"from the last port", [](VsockHeader& h) { h.src_port = ~0U; }, response_only},
        {"a request with flags", [](VsockHeader& h) { h.flags = ~0U; }, response_only},
        {"a request with a length", [](VsockHeader& h) { h.len = 4096; }, response_only},
        {"a request with a length of 32 bits of ones", [](VsockHeader& h) { h.len = ~0U; }, response_only},
        {"a request without room for data", [](VsockHeader& h) { h.buf_alloc = 0; }, response_only},
        {"a request with all room", [](VsockHeader& h) { h.buf_alloc = ~0U; }, response_only},
        {"a request that has taken bytes already", [](VsockHeader& h) { h.fwd_cnt = ~0U; }, response_only},
    };
    for (const Case& each : cases) {
        CAPTURE(each.title);
        auto header = VsockGuest::header(vsock::op_request, 60, host_port);
        each.change(header);
        peers.guest.send(header);
        CHECK(peers.answers() == each.answers);
        if (&each.answers == &response_only) {
            const UniqueFd accepted = accept_unix(peers.listener);
            CHECK(accepted);
            header.op = vsock::op_rst;
            peers.guest.send(header);
            peers.guest.run();
        }
        // The connection that was there before is not affected.
        peers.check_echo(peers.server, guest_port, host_port);
    }
    peers.check_new_connections();
}

TEST_CASE("Vsock: sockets of the host at the first and the last port", "[vsock][hostile]") {
    Peers peers;
    std::vector<UniqueFd> open;  // a socket that is closed sends a packet
    for (const std::uint32_t port : {0U, ~0U}) {
        const UniqueFd listener = listen_unix(peers.guest.path + "_" + std::to_string(port));
        UniqueFd server = peers.guest.connect_from_guest(port, port, listener);
        peers.check_echo(server, port, port);
        auto connected = peers.guest.connect_from_host(port);
        peers.check_echo(connected.client, port, connected.host_port);
        open.push_back(std::move(server));
        open.push_back(std::move(connected.client));
    }
    peers.check_new_connections();
}

TEST_CASE("Vsock: packets of a connection that break the rules, or use their limits", "[vsock][hostile]") {
    Peers peers;
    struct Case {
        const char* title;
        std::function<void(Peers&)> send;
        std::vector<std::uint16_t> answers;
        bool alive;  // whether the connection works afterwards
    };
    const std::vector<Case> cases{
        {"a second request", [](Peers& p) { p.guest.send(p.header(vsock::op_request)); }, reset_only, false},
        {"a response", [](Peers& p) { p.guest.send(p.header(vsock::op_response)); }, reset_only, false},
        {"operation 0", [](Peers& p) { p.guest.send(p.header(0)); }, reset_only, false},
        {"operation 8", [](Peers& p) { p.guest.send(p.header(8)); }, reset_only, false},
        {"another type",
         [](Peers& p) { p.send(p.header(vsock::op_rw, 1), [](VsockHeader& h) { h.type = 2; }, "x"); },
         reset_only, true},
        {"a reset, then data",
         [](Peers& p) {
             p.guest.send(p.header(vsock::op_rst));
             p.guest.send(p.header(vsock::op_rw, 1), "x");
         },
         reset_only, false},
        {"two resets",
         [](Peers& p) {
             p.guest.send(p.header(vsock::op_rst));
             p.guest.send(p.header(vsock::op_rst));
         },
         no_answer, false},
        {"a shutdown of both directions, then a reset",
         [](Peers& p) {
             p.send(p.header(vsock::op_shutdown), [](VsockHeader& h) { h.flags = 3; });
             p.guest.send(p.header(vsock::op_rst));
         },
         reset_only, false},
        {"a shutdown with all flags",
         [](Peers& p) { p.send(p.header(vsock::op_shutdown), [](VsockHeader& h) { h.flags = ~0U; }); },
         reset_only, false},
        {"a shutdown without flags", [](Peers& p) { p.guest.send(p.header(vsock::op_shutdown)); }, no_answer,
         true},
        {"a shutdown with reserved flags only",
         [](Peers& p) {
             p.send(p.header(vsock::op_shutdown), [](VsockHeader& h) { h.flags = 0xFFFF'FFFC; });
         },
         no_answer, true},
        {"data after the shutdown of its direction",
         [](Peers& p) {
             p.send(p.header(vsock::op_shutdown), [](VsockHeader& h) { h.flags = vsock::shutdown_send; });
             p.guest.send(p.header(vsock::op_rw, 1), "x");
         },
         reset_only, false},
        {"data without bytes", [](Peers& p) { p.guest.send(p.header(vsock::op_rw)); }, no_answer, true},
        {"data with reserved flags",
         [](Peers& p) { p.send(p.header(vsock::op_rw), [](VsockHeader& h) { h.flags = ~0U; }); }, no_answer,
         true},
        {"a length above the data", [](Peers& p) { p.guest.send(p.header(vsock::op_rw, 5), "data"); },
         reset_only, false},
        {"a length of 32 bits of ones", [](Peers& p) { p.guest.send(p.header(vsock::op_rw, ~0U), "data"); },
         reset_only, false},
        {"bytes of which its length says nothing",
         [](Peers& p) { p.guest.send(p.header(vsock::op_credit_update), std::string(4096, 'x')); }, no_answer,
         true},
        {"no credit, then credit again",
         [](Peers& p) {
             p.send(p.header(vsock::op_credit_update), [](VsockHeader& h) { h.buf_alloc = 0; });
             p.guest.send(p.header(vsock::op_credit_update));
         },
         no_answer, true},
        {"all credit",
         [](Peers& p) {
             p.send(p.header(vsock::op_credit_update), [](VsockHeader& h) { h.buf_alloc = ~0U; });
         },
         no_answer, true},
        {"more bytes taken than there were, then a true count",
         [](Peers& p) {
             p.send(p.header(vsock::op_credit_update), [](VsockHeader& h) { h.fwd_cnt = 0x8000'0000; });
             p.guest.send(p.header(vsock::op_credit_update));
         },
         no_answer, true},
        {"a wish for credit",
         [](Peers& p) { p.guest.send(p.header(vsock::op_credit_request)); },
         {vsock::op_credit_update},
         true},
        {"two hundred wishes at once",
         [](Peers& p) {
             const std::uint16_t before = p.guest.rig->queues[1]->used_index();
             for (int i = 0; i < 200; ++i) {
                 p.guest.send(p.header(vsock::op_credit_request));
             }
             p.guest.rig->run_events();
             CHECK(static_cast<std::uint16_t>(p.guest.rig->queues[1]->used_index() - before) == 200);
         },
         {vsock::op_credit_update},
         true},
    };
    for (const Case& each : cases) {
        CAPTURE(each.title);
        Peers fresh;
        each.send(fresh);
        CHECK(fresh.answers() == each.answers);
        if (each.alive) {
            fresh.check_echo(fresh.server, guest_port, host_port);
        } else {
            CHECK(read_all(fresh.server).ends_with("<end>"));
        }
        fresh.check_new_connections();
    }
}

TEST_CASE("Vsock: a packet may be divided into buffers in any way", "[vsock][hostile]") {
    Peers peers;
    DriverQueue& transmit = *peers.guest.rig->queues[1];
    // From the guest: one byte in each descriptor, and descriptors of no bytes between them.
    std::string bytes(sizeof(VsockHeader), '\0');
    const VsockHeader header = peers.header(vsock::op_rw, 4);
    std::memcpy(bytes.data(), &header, sizeof(header));
    bytes += "ping";
    constexpr std::uint64_t at = 0x90'0000;
    REQUIRE(peers.guest.rig->memory.write(at, as_bytes(bytes)));
    std::uint16_t index = 10;
    const auto chain = [&](std::uint64_t address, std::uint32_t length) {
        const auto following = static_cast<std::uint16_t>(index + 1);
        transmit.set(index, {.address = address, .length = length, .flags = chain_next, .next = following});
        index = following;
    };
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        chain(at + i, 1);
        chain(at, 0);
    }
    transmit.set(index, {.address = at, .length = 0});
    transmit.offer(10);
    peers.guest.rig->notify(1);
    peers.guest.run();
    CHECK(read_all(peers.server) == "ping");

    // To the guest: the first buffer that it offers next is one of 100 descriptors.
    VsockGuest divided(0);
    DriverQueue& pieces = *divided.rig->queues[0];
    for (std::uint16_t i = 0; i < 100; ++i) {
        const bool last = i + 1 == 100;
        pieces.set(i, {.address = at + std::uint64_t{i} * 2,
                       .length = 1,
                       .flags = static_cast<std::uint16_t>(chain_write | (last ? 0 : chain_next)),
                       .next = static_cast<std::uint16_t>(i + 1)});
    }
    const UniqueFd client = connect_unix(divided.path);
    REQUIRE(write_some(client, "CONNECT 7\n") == 10);
    divided.rig->run_events();
    pieces.offer(0);
    divided.rig->notify(0);
    divided.rig->run_events();
    const auto used = pieces.take_used();
    REQUIRE(used);
    CHECK(used->written == sizeof(VsockHeader));
    VsockHeader request{};
    for (std::size_t i = 0; i < sizeof(request); ++i) {
        bytes_of(request)[i] = *divided.rig->memory.read_object<std::uint8_t>(at + i * 2);
        CHECK(*divided.rig->memory.read_object<std::uint8_t>(at + i * 2 + 1) == 0);
    }
    CHECK(request.op == vsock::op_request);
    CHECK(request.dst_port == 7);
    peers.check_new_connections();
}

TEST_CASE("Vsock: buffers of the wrong direction, or of no bytes, come back", "[vsock][hostile]") {
    Peers peers;
    constexpr std::uint64_t at = 0x90'0000;
    const std::uint64_t malformed = peers.guest.counter("malformed");
    // What the guest sends: nothing, a header that the device may write, and a header of which a byte is missing.
    const auto sent =
        std::to_array<DriverQueue::Descriptor>({{.address = at, .length = 0},
                                                {.address = at, .length = 44, .flags = chain_write},
                                                {.address = at, .length = 43}});
    DriverQueue& transmit = *peers.guest.rig->queues[1];
    const std::uint16_t used_before = transmit.used_index();
    std::uint16_t head = 100;
    for (const DriverQueue::Descriptor& each : sent) {
        transmit.set(head, each);
        transmit.offer(head++);
    }
    peers.guest.rig->notify(1);
    CHECK(peers.answers().empty());
    CHECK(transmit.used_index() == used_before + 3);
    CHECK(peers.guest.counter("malformed") == malformed + 3);
    CHECK(peers.guest.counter("driver_errors") == 3);
    peers.check_new_connections();

    // What it receives: the same. The packet waits for a buffer that has room.
    VsockGuest other(0);
    DriverQueue& receive = *other.rig->queues[0];
    const auto offered =
        std::to_array<DriverQueue::Descriptor>({{.address = at, .length = 0, .flags = chain_write},
                                                {.address = at, .length = 4096},
                                                {.address = at, .length = 43, .flags = chain_write},
                                                {.address = at, .length = 44, .flags = chain_write}});
    for (std::uint16_t i = 0; i < offered.size(); ++i) {
        receive.set(i, offered.at(i));
        receive.offer(i);
    }
    const UniqueFd client = connect_unix(other.path);
    REQUIRE(write_some(client, "CONNECT 7\n") == 10);
    other.rig->run_events();
    for (const std::uint32_t written : {0U, 0U, 0U, 44U}) {
        const auto used = receive.take_used();
        REQUIRE(used);
        CHECK(used->written == written);
    }
    CHECK(other.rig->memory.read_object<VsockHeader>(at)->op == vsock::op_request);
    CHECK_FALSE(other.rig->needs_reset());
}

TEST_CASE("Vsock: an event waits for a buffer that has room for it", "[vsock][hostile]") {
    VsockGuest guest(0);
    const MmioState saved = guest.rig->transport->state();
    guest.rig->transport.reset();
    guest.rig->transport = std::make_unique<MmioTransport>(
        guest.rig->memory,
        std::make_shared<Vsock>("vsock0", guest.rig->counters, guest.rig->events, VsockGuest::cid,
                                guest.socket),
        vmsuperio::EventFdTrigger::create().value());
    constexpr std::uint64_t at = 0x90'0000;
    constexpr std::uint32_t untouched = 0xA5A5'A5A5;
    REQUIRE(guest.rig->memory.write_object(at, untouched));
    REQUIRE(guest.rig->memory.write_object(at + 4, untouched));
    // VsockGuest has offered four buffers at the restore. Now they are too short, but for the last one.
    const auto buffers =
        std::to_array<DriverQueue::Descriptor>({{.address = at, .length = 3, .flags = chain_write},
                                                {.address = at, .length = 8},
                                                {.address = at, .length = 0, .flags = chain_write},
                                                {.address = at + 4, .length = 4, .flags = chain_write}});
    DriverQueue& events = *guest.rig->queues[2];
    for (std::uint16_t i = 0; i < buffers.size(); ++i) {
        events.set(i, buffers.at(i));
    }
    REQUIRE(guest.rig->transport->restore(saved));
    guest.rig->run_events();
    for (const std::uint32_t written : {0U, 0U, 0U, 4U}) {
        const auto used = events.take_used();
        REQUIRE(used);
        CHECK(used->written == written);
    }
    CHECK(*guest.rig->memory.read_object<std::uint32_t>(at) == untouched);
    CHECK(*guest.rig->memory.read_object<std::uint32_t>(at + 4) == vsock::event_transport_reset);
    CHECK_FALSE(guest.rig->needs_reset());
}

TEST_CASE("Vsock: data that is lost ends its stream, also while many refusals wait", "[vsock][hostile]") {
    Peers peers;
    DeviceRig& rig = *peers.guest.rig;
    // The guest has no more buffers for the answers to these packets, of which the device keeps 256.
    const std::uint64_t answered = peers.guest.counter("resets_sent");
    std::uint64_t sent = 0;
    while (sent - (peers.guest.counter("resets_sent") - answered) < 256) {
        peers.guest.send(VsockGuest::header(vsock::op_credit_update, 5000, 6000));
        ++sent;
        rig.run_events();
        REQUIRE(sent < 1000);
    }
    DriverQueue& transmit = *rig.queues[1];
    const std::uint16_t used = transmit.used_index();
    const std::uint64_t errors = peers.guest.counter("driver_errors");
    constexpr std::uint64_t at = 0xA0'0000;
    const auto head = static_cast<std::uint16_t>((sent + 100) % 256);
    const auto second = static_cast<std::uint16_t>((sent + 101) % 256);
    bool answers = true;
    SECTION("data") { REQUIRE(rig.memory.write_object(at, peers.header(vsock::op_rw, 64))); }
    SECTION("a reset, which has no answer") {
        REQUIRE(rig.memory.write_object(at, peers.header(vsock::op_rst)));
        answers = false;
    }
    transmit.set(head, {.address = at, .length = sizeof(VsockHeader), .flags = chain_next, .next = second});
    transmit.set(second, {.address = 0xD000'0000, .length = 64});
    transmit.offer(head);
    if (answers) {
        peers.guest.send(peers.header(vsock::op_rw, 4), "more");
    }
    rig.notify(1);
    rig.run_events();
    CHECK(transmit.used_index() == static_cast<std::uint16_t>(used + 1));
    CHECK(peers.guest.counter("driver_errors") > errors);
    CHECK(read_all(peers.server) == "<end>");
    peers.guest.run();
    std::size_t resets = 0;
    while (const auto packet = peers.guest.next()) {
        CHECK(packet->header.op == vsock::op_rst);
        resets += packet->header.src_port == host_port ? 1U : 0U;
    }
    CHECK((resets != 0) == answers);
    peers.check_new_connections();
}

TEST_CASE("Vsock: buffers outside of RAM come back, and only their packet is affected", "[vsock][hostile]") {
    const auto broken = GENERATE(DriverQueue::Descriptor{.address = 0xFFFF'FFFF'FFFF'F000, .length = 0x2000},
                                 DriverQueue::Descriptor{.address = 0xFFFF'FFFF'FFFF'0000, .length = 64},
                                 DriverQueue::Descriptor{.address = 0x90'0000, .length = 0xFFFF'FFFF},
                                 DriverQueue::Descriptor{.address = (16U << 20U) - 4, .length = 64},
                                 DriverQueue::Descriptor{.address = 0xD000'0000, .length = 64});
    CAPTURE(broken.address, broken.length);
    Peers peers;
    DeviceRig& rig = *peers.guest.rig;
    std::optional<VsockGuest::Connected> other;  // open until the end: a socket that is closed sends a packet
    constexpr std::uint16_t head = 63;           // of chains that VsockGuest does not make
    SECTION("a packet without a header is dropped") {
        const std::uint16_t used = rig.queues[1]->used_index();
        rig.queues[1]->set(head, broken);
        rig.queues[1]->offer(head);
        rig.notify(1);
        CHECK(peers.answers().empty());
        CHECK(rig.queues[1]->used_index() == used + 1);
        peers.check_echo(peers.server, guest_port, host_port);
    }
    SECTION("a packet without all of its data resets its connection, and no other") {
        other = peers.guest.connect_from_host(2001);
        constexpr std::uint64_t at = 0x90'0000;
        REQUIRE(rig.memory.write_object(at, peers.header(vsock::op_rw, 64)));
        rig.queues[1]->set(head - 1,
                           {.address = at, .length = sizeof(VsockHeader), .flags = chain_next, .next = head});
        rig.queues[1]->set(head, broken);
        rig.queues[1]->offer(head - 1);
        rig.notify(1);
        CHECK(peers.answers() == reset_only);
        CHECK(read_all(peers.server) == "<end>");
        peers.check_echo(other->client, 2001, other->host_port);
    }
    SECTION("packets for the guest wait for the next buffer") {
        VsockGuest bare(0);
        DriverQueue::Descriptor descriptor = broken;
        descriptor.flags = chain_write;
        bare.rig->queues[0]->set(1, descriptor);
        bare.rig->queues[0]->offer(1);
        bare.offer_buffer(2);
        const UniqueFd client = connect_unix(bare.path);
        REQUIRE(write_some(client, "CONNECT 7\n") == 10);
        bare.rig->run_events();
        const auto first = bare.rig->queues[0]->take_used();
        REQUIRE(first);
        CHECK(first->id == 1);
        CHECK(first->written == 0);
        CHECK(bare.rig->queues[0]->take_used()->written == sizeof(VsockHeader));
        CHECK_FALSE(bare.rig->needs_reset());
    }
    CHECK_FALSE(rig.needs_reset());
    CHECK(rig.queues[2]->used_index() == 0);  // nothing was said by events
    peers.check_new_connections();
}
