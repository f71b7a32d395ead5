// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/vsock.hpp"

#include <chrono>
#include <random>
#include <thread>

#include "catch.hpp"
#include "sanitizer.hpp"
#include "util/error.hpp"
#include "util/log.hpp"
#include "vmm/opened_files.hpp"
#include "vsock_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;
using namespace kvm_vmm::virtio;
using namespace std::chrono_literals;

namespace {

std::string host_path(const VsockGuest& guest, std::uint32_t port) {
    return guest.path + "_" + std::to_string(port);
}

bool hung_up(const UniqueFd& fd) {
    pollfd entry{.fd = fd.get(), .events = 0, .revents = 0};
    return ::poll(&entry, 1, 0) > 0 && (entry.revents & POLLHUP) != 0;
}

VsockHeader shutdown_packet(std::uint32_t flags, std::uint32_t guest_port, std::uint32_t host_port) {
    auto header = VsockGuest::header(vsock::op_shutdown, guest_port, host_port);
    header.flags = flags;
    return header;
}

std::string pattern(std::size_t size, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::string text(size, '\0');
    for (char& c : text) {
        c = static_cast<char>(random());
    }
    return text;
}

}  // namespace

TEST_CASE("Vsock: the line that a program on the host sends", "[vsock]") {
    CHECK(parse_connect("CONNECT 52\n") == 52);
    CHECK(parse_connect("connect 52\n") == 52);
    CHECK(parse_connect("CoNnEcT\t0\r\n") == 0);
    CHECK(parse_connect("  CONNECT  4294967295  \n") == 0xFFFF'FFFF);
    for (const char* const wrong :
         {"", "\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "CONNECT +1\n",
          "CONNECT 4294967296\n", "CONNECT 5 2\n", "CONNECT 52x\n", "CONNECT52\n", "CONNECTED 52\n",
          "CONNEC 52\n", "GET / HTTP/1.1\n", "CONNECT 0x10\n", "CONNECT 1.5\n"}) {
        CAPTURE(wrong);
        CHECK_FALSE(parse_connect(wrong));
    }
    CHECK_FALSE(parse_connect(std::string_view("CONNECT 5\0\n", 11)));
}

TEST_CASE("Vsock: identity and configuration", "[vsock]") {
    VsockGuest guest;
    CHECK(guest.rig->read(mmio::device_id) == 19);
    CHECK(guest.rig->config<std::uint32_t>(0) == VsockGuest::cid);
    CHECK(guest.rig->config<std::uint32_t>(4) == 0);
    CHECK(guest.rig->config<std::uint32_t>(8) == 0);
    CHECK(guest.rig->transport->device().features() == 0);
    CHECK(guest.rig->transport->device().queue_sizes().size() == 3);
}

TEST_CASE("Vsock: a program on the host connects to the guest", "[vsock]") {
    VsockGuest guest;
    const UniqueFd client = connect_unix(guest.path);
    SECTION("at once") { write_some(client, "CONNECT 52\nDATA"); }
    SECTION("byte by byte, in lower case") {
        for (const char c : std::string("connect 52\nDATA")) {
            write_some(client, std::string_view(&c, 1));
            guest.run();
        }
    }
    SECTION("with blanks, up to the longest line") {
        write_some(client, "CONNECT \t" + std::string(19, ' ') + "52\r\nDATA");
    }
    const auto request = guest.next();
    REQUIRE(request);
    CHECK(request->header.src_cid == 2);
    CHECK(request->header.dst_cid == VsockGuest::cid);
    CHECK(request->header.src_port == Vsock::first_host_port);
    CHECK(request->header.dst_port == 52);
    CHECK(request->header.type == 1);
    CHECK(request->header.op == vsock::op_request);
    CHECK(request->header.len == 0);
    CHECK(request->header.flags == 0);
    CHECK(request->header.buf_alloc == 64 * 1024);
    CHECK(request->header.fwd_cnt == 0);
    CHECK_FALSE(guest.next());        // no data before the answer
    CHECK(read_all(client).empty());  // and no text

    const std::uint32_t port = request->header.src_port;
    guest.send(VsockGuest::header(vsock::op_response, 52, port));
    const auto data = guest.next();
    REQUIRE(data);
    CHECK(data->header.op == vsock::op_rw);
    CHECK(data->data == "DATA");
    CHECK(read_all(client) == "OK 1073741824\n");
    guest.send(VsockGuest::header(vsock::op_rw, 52, port, 5), "hello");
    guest.run();
    CHECK(read_all(client) == "hello");
    write_some(client, "world");
    CHECK(guest.next()->data == "world");
    CHECK_FALSE(guest.next());
    CHECK(guest.counter("connections") == 1);
    CHECK(guest.counter("rx_bytes") == 9);
    CHECK(guest.counter("tx_bytes") == 5);
    CHECK(guest.counter("refused") == 0);
    CHECK(guest.counter("resets_sent") == 0);

    const auto other = guest.connect_from_host(52);
    CHECK(other.host_port == Vsock::first_host_port + 1);
}

TEST_CASE("Vsock: what is no proper line is closed without a text", "[vsock]") {
    VsockGuest guest;
    const UniqueFd client = connect_unix(guest.path);
    SECTION("another keyword") { write_some(client, "HELLO 52\n"); }
    SECTION("no number") { write_some(client, "CONNECT ssh\n"); }
    SECTION("40 bytes") { write_some(client, "CONNECT 52                             \n"); }
    SECTION("33 bytes, the last one being the end of the line") {
        write_some(client, "CONNECT 52                      \n");
    }
    SECTION("32 bytes without an end") { write_some(client, std::string(32, ' ')); }
    SECTION("an end of the stream within the line") {
        write_some(client, "CONNECT 5");
        ::shutdown(client.get(), SHUT_WR);
    }
    guest.run();
    const std::string text = read_all(client);
    CHECK((text == "<end>" || text == "<error>"));
    CHECK_FALSE(guest.next());
    CHECK(guest.counter("connections") == 0);
}

TEST_CASE("Vsock: a line that does not end in time is closed", "[vsock][slow]") {
    VsockGuest guest;
    const UniqueFd client = connect_unix(guest.path);
    write_some(client, "CONNECT 52");
    const auto begin = std::chrono::steady_clock::now();
    REQUIRE(guest.run_until([&] { return hung_up(client); }));
    const auto took = std::chrono::steady_clock::now() - begin;
    CHECK(took >= 4900ms);
    CHECK(took < 12s);
    CHECK_FALSE(guest.next());
    CHECK(guest.counter("refused") == 1);
}

TEST_CASE("Vsock: the guest refuses, or does not answer", "[vsock]") {
    VsockGuest guest;
    const UniqueFd client = connect_unix(guest.path);
    write_some(client, "CONNECT 52\n");
    const auto request = guest.next();
    REQUIRE(request);
    SECTION("refuses") {
        guest.send(VsockGuest::header(vsock::op_rst, 52, request->header.src_port));
        guest.run();
        CHECK(read_all(client) == "<end>");
        CHECK_FALSE(guest.next());  // no reset in answer to a reset
    }
    SECTION("does not answer") {
        const auto begin = std::chrono::steady_clock::now();
        REQUIRE(guest.run_until([&] { return hung_up(client); }));
        CHECK(std::chrono::steady_clock::now() - begin >= 1900ms);
        CHECK(read_all(client) == "<end>");
        CHECK(guest.next_op() == vsock::op_rst);
    }
    SECTION("sends data instead") {
        guest.send(VsockGuest::header(vsock::op_rw, 52, request->header.src_port, 1), "x");
        guest.run();
        CHECK(read_all(client) == "<end>");
        CHECK(guest.next_op() == vsock::op_rst);
    }
    CHECK(guest.counter("connections") == 0);
}

TEST_CASE("Vsock: a client that asks while there is no driver is closed", "[vsock]") {
    VsockGuest guest;
    guest.rig->reset();
    const UniqueFd client = connect_unix(guest.path);
    write_some(client, "CONNECT 52\n");
    guest.rig->run_events();
    CHECK(read_all(client) == "<end>");
    CHECK(guest.counter("refused") == 1);
}

TEST_CASE("Vsock: the guest connects to a program on the host", "[vsock]") {
    VsockGuest guest;
    const UniqueFd listener = listen_unix(host_path(guest, 1234));
    const UniqueFd server = guest.connect_from_guest(5000, 1234, listener);
    guest.send(VsockGuest::header(vsock::op_rw, 5000, 1234, 4), "ping");
    guest.run();
    CHECK(read_all(server) == "ping");
    write_some(server, "pong");
    const auto packet = guest.next();
    REQUIRE(packet);
    CHECK(packet->data == "pong");
    CHECK(packet->header.src_port == 1234);
    CHECK(packet->header.dst_port == 5000);
    CHECK(packet->header.fwd_cnt == 4);
    SECTION("a second request of the same ports is an error of the driver") {
        guest.send(VsockGuest::header(vsock::op_request, 5000, 1234));
        CHECK(guest.next_op() == vsock::op_rst);
        CHECK(read_all(server) == "<end>");
        CHECK_FALSE(accept_unix(listener));
    }
    SECTION("other ports are another connection") {
        const UniqueFd other = guest.connect_from_guest(5001, 1234, listener);
        CHECK(guest.counter("connections") == 2);
        CHECK(read_all(server).empty());
    }
    SECTION("a reset closes it at once") {
        guest.send(VsockGuest::header(vsock::op_rst, 5000, 1234));
        guest.run();
        CHECK(read_all(server) == "<end>");
        CHECK_FALSE(guest.next());
    }
}

TEST_CASE("Vsock: the guest connects where nobody listens", "[vsock]") {
    VsockGuest guest;
    SECTION("no socket") {}
    SECTION("a file that is no socket") { (void)guest.directory.write("v.sock_99", "text"); }
    SECTION("a socket that was left behind") { (void)listen_unix(host_path(guest, 99)); }
    guest.send(VsockGuest::header(vsock::op_request, 5000, 99));
    const auto packet = guest.next();
    REQUIRE(packet);
    CHECK(packet->header.op == vsock::op_rst);
    CHECK(packet->header.src_cid == 2);
    CHECK(packet->header.src_port == 99);
    CHECK(packet->header.dst_port == 5000);
    CHECK_FALSE(guest.next());
    CHECK(guest.counter("refused") == 1);
    CHECK(guest.counter("connections") == 0);
}

TEST_CASE("Vsock: a listener whose queue is full is a refusal, not a wait", "[vsock]") {
    VsockGuest guest;
    const UniqueFd listener = listen_unix(host_path(guest, 99), 0);
    guest.send(VsockGuest::header(vsock::op_request, 1, 99));
    CHECK(guest.next_op() == vsock::op_response);
    guest.send(VsockGuest::header(vsock::op_request, 2, 99));
    CHECK(guest.next_op() == vsock::op_rst);
}

TEST_CASE("Vsock: the guest closes one direction", "[vsock]") {
    VsockGuest guest;
    auto [client, port] = guest.connect_from_host(52);
    SECTION("it sends no more: the host sees the end, and may send") {
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 4), "last");
        guest.send(shutdown_packet(vsock::shutdown_send, 52, port));
        guest.run();
        CHECK(read_all(client) == "last<end>");
        CHECK_FALSE(hung_up(client));
        write_some(client, "still");
        CHECK(guest.next()->data == "still");
        SECTION("data after that is an error") {
            guest.send(VsockGuest::header(vsock::op_rw, 52, port, 1), "x");
            CHECK(guest.next_op() == vsock::op_rst);
        }
        SECTION("then the host closes") {
            ::shutdown(client.get(), SHUT_WR);
            const auto packet = guest.next();
            REQUIRE(packet);
            CHECK(packet->header.op == vsock::op_shutdown);
            CHECK((packet->header.flags & vsock::shutdown_send) != 0);
            guest.send(VsockGuest::header(vsock::op_rst, 52, port));
            guest.run();
            CHECK(hung_up(client));
        }
    }
    SECTION("it receives no more: the host may not send, and gets what comes") {
        guest.send(shutdown_packet(vsock::shutdown_receive, 52, port));
        guest.run();
        CHECK(write_some(client, "x") == 0);
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 5), "still");
        guest.run();
        CHECK(read_all(client) == "still");
        CHECK_FALSE(guest.next());
        SECTION("then the host closes") {
            client.reset();
            const auto packet = guest.next();
            REQUIRE(packet);
            CHECK(packet->header.op == vsock::op_shutdown);
            CHECK(packet->header.flags == vsock::shutdown_both);
        }
    }
    SECTION("it closes both, in two steps") {
        guest.send(shutdown_packet(vsock::shutdown_receive, 52, port));
        guest.run();
        CHECK_FALSE(guest.next());
        guest.send(shutdown_packet(vsock::shutdown_send, 52, port));
        CHECK(guest.next_op() == vsock::op_rst);
        CHECK(read_all(client) == "<end>");
    }
    SECTION("it closes both at once, and the ports are free again") {
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 4), "last");
        guest.send(shutdown_packet(vsock::shutdown_both, 52, port));
        CHECK(guest.next_op() == vsock::op_rst);
        CHECK(read_all(client) == "last<end>");
        CHECK(hung_up(client));
        guest.send(VsockGuest::header(vsock::op_rst, 52, port));  // the driver's own, crossing ours
        guest.run();
        CHECK_FALSE(guest.next());
    }
}

TEST_CASE("Vsock: a program on the host closes", "[vsock]") {
    VsockGuest guest;
    auto [client, port] = guest.connect_from_host(52);
    SECTION("it sends no more: the guest may send") {
        write_some(client, "last");
        ::shutdown(client.get(), SHUT_WR);
        CHECK(guest.next()->data == "last");
        const auto packet = guest.next();
        REQUIRE(packet);
        CHECK(packet->header.op == vsock::op_shutdown);
        CHECK(packet->header.flags == vsock::shutdown_send);
        std::this_thread::sleep_for(2100ms);  // this direction has no time-out
        CHECK_FALSE(guest.next());
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 5), "still");
        guest.run();
        CHECK(read_all(client) == "still");
    }
    SECTION("it receives no more: the guest is informed, and the host may send") {
        ::shutdown(client.get(), SHUT_RD);
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 5), "heard");
        const auto packet = guest.next();
        REQUIRE(packet);
        CHECK(packet->header.op == vsock::op_shutdown);
        CHECK(packet->header.flags == vsock::shutdown_receive);
        CHECK(packet->header.fwd_cnt == 5);  // the space is free
        write_some(client, "still");
        CHECK(guest.next()->data == "still");
    }
    SECTION("it closes its socket: data first, then both directions") {
        write_some(client, "last");
        client.reset();
        CHECK(guest.next()->data == "last");
        const auto packet = guest.next();
        REQUIRE(packet);
        CHECK(packet->header.op == vsock::op_shutdown);
        CHECK(packet->header.flags == vsock::shutdown_both);
        SECTION("the guest answers") {
            guest.send(VsockGuest::header(vsock::op_rst, 52, port));
            guest.run();
            std::this_thread::sleep_for(2100ms);
            CHECK_FALSE(guest.next());
        }
        SECTION("the guest's data on the way is discarded, and it does not answer in time") {
            guest.send(VsockGuest::header(vsock::op_rw, 52, port, 4), "late");
            guest.run();
            CHECK(guest.received.empty());
            REQUIRE(guest.run_until([&] { return !guest.received.empty(); }));
            CHECK(guest.next_op() == vsock::op_rst);
            CHECK_FALSE(guest.next());
        }
        SECTION("the guest closes at the same time") {
            guest.send(shutdown_packet(vsock::shutdown_both, 52, port));
            CHECK(guest.next_op() == vsock::op_rst);
            CHECK_FALSE(guest.next());
        }
    }
    SECTION("it closes its socket with bytes that it has not read: those are lost, so it is a reset") {
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 6), "unread");
        guest.run();
        client.reset();
        CHECK(guest.next_op() == vsock::op_rst);
        CHECK_FALSE(guest.next());
    }
}

TEST_CASE("Vsock: packets that belong to no connection", "[vsock]") {
    VsockGuest guest;
    SECTION("are answered by a reset") {
        for (const std::uint16_t op :
             {vsock::op_response, vsock::op_shutdown, vsock::op_rw, vsock::op_credit_update,
              vsock::op_credit_request, std::uint16_t{0}, std::uint16_t{8}, std::uint16_t{0xFFFF}}) {
            CAPTURE(op);
            guest.send(VsockGuest::header(op, 52, 77));
            const auto packet = guest.next();
            REQUIRE(packet);
            CHECK(packet->header.op == vsock::op_rst);
            CHECK(packet->header.src_port == 77);
            CHECK(packet->header.dst_port == 52);
            CHECK_FALSE(guest.next());
        }
        CHECK(guest.counter("resets_sent") == 8);
    }
    SECTION("a reset is not answered") {
        guest.send(VsockGuest::header(vsock::op_rst, 52, 77));
        CHECK_FALSE(guest.next());
    }
    SECTION("another type, or another host, is answered by a reset of its kind") {
        auto header = VsockGuest::header(vsock::op_request, 52, 77);
        SECTION("type") { header.type = 2; }
        SECTION("the guest's own address") { header.dst_cid = VsockGuest::cid; }
        SECTION("the upper half of the address") { header.dst_cid = 0x1'0000'0002; }
        guest.send(header);
        const auto packet = guest.next();
        REQUIRE(packet);
        CHECK(packet->header.op == vsock::op_rst);
        CHECK(packet->header.type == header.type);
        CHECK(packet->header.src_cid == header.dst_cid);
        header.op = vsock::op_rst;
        guest.send(header);
        CHECK_FALSE(guest.next());
    }
    SECTION("without a full header, or from another guest's address, they are dropped") {
        guest.send_raw(std::string(43, '\1'));
        auto header = VsockGuest::header(vsock::op_request, 52, 77);
        header.src_cid = 8;
        guest.send(header);
        header.src_cid = 0x1'0000'0007;
        guest.send(header);
        CHECK_FALSE(guest.next());
        CHECK(guest.counter("malformed") == 3);
    }
    CHECK_FALSE(guest.rig->needs_reset());
}

TEST_CASE("Vsock: errors within a connection reset it, and no other", "[vsock]") {
    VsockGuest guest;
    auto [client, port] = guest.connect_from_host(52);
    auto other = guest.connect_from_host(53);
    SECTION("a length above what was sent") {
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 6), "short");
    }
    SECTION("a length near 2^32") {
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 0xFFFF'FFFF), "short");
    }
    SECTION("an operation that does not exist") { guest.send(VsockGuest::header(9, 52, port)); }
    SECTION("a second response") { guest.send(VsockGuest::header(vsock::op_response, 52, port)); }
    const auto packet = guest.next();
    REQUIRE(packet);
    CHECK(packet->header.op == vsock::op_rst);
    CHECK(packet->header.dst_port == 52);
    CHECK(read_all(client) == "<end>");
    CHECK_FALSE(guest.next());
    guest.send(VsockGuest::header(vsock::op_rw, 53, other.host_port, 2), "ok and what follows the length");
    guest.run();
    CHECK(read_all(other.client) == "ok");
    CHECK_FALSE(guest.rig->needs_reset());
}

TEST_CASE("Vsock: a peer that has gone is no signal", "[vsock]") {
    VsockGuest guest;
    auto [client, port] = guest.connect_from_host(52);
    client.reset();
    // Before the device notices: the first packet finds the closed socket.
    guest.send(VsockGuest::header(vsock::op_rw, 52, port, 4), "data");
    guest.rig->transport->device().notified(1);
    guest.run();
    CHECK(guest.next_op() == vsock::op_shutdown);
}

TEST_CASE("Vsock: the guest's credit is respected, and its updates are used", "[vsock]") {
    VsockGuest guest;
    auto [client, port] = guest.connect_from_host(52, 100);
    const std::string text = pattern(1000);
    REQUIRE(write_some(client, text) == text.size());
    const auto first = guest.next();
    REQUIRE(first);
    CHECK(first->data == text.substr(0, 100));
    CHECK(guest.next_op() == vsock::op_credit_request);
    CHECK_FALSE(guest.next());
    auto update = VsockGuest::header(vsock::op_credit_update, 52, port);
    update.buf_alloc = 100;
    SECTION("no news, no data, and no second request") {
        guest.send(update);
        CHECK_FALSE(guest.next());
    }
    SECTION("some bytes were taken") {
        update.fwd_cnt = 30;
        guest.send(update);
        CHECK(guest.next()->data == text.substr(100, 30));
        CHECK(guest.next_op() == vsock::op_credit_request);
        update.fwd_cnt = 130;
        update.buf_alloc = 10000;
        guest.send(update);
        CHECK(guest.next()->data == text.substr(130));
        CHECK_FALSE(guest.next());
    }
    SECTION("a buffer that shrinks, and a count above what was sent, allow nothing") {
        update.buf_alloc = 50;
        guest.send(update);
        update.buf_alloc = 100;
        update.fwd_cnt = 101;
        guest.send(update);
        CHECK_FALSE(guest.next());
    }
    SECTION("nothing spins while the guest has no room") {
        CHECK(guest.rig->events.run_once(20) == 0);
        CHECK(guest.rig->events.run_once(20) == 0);
    }
    SECTION("the host may hang up meanwhile") {
        client.reset();
        guest.run();
        CHECK(guest.rig->events.run_once(20) == 0);
        CHECK_FALSE(guest.next());
        update.fwd_cnt = 100;
        update.buf_alloc = 10000;
        guest.send(update);
        CHECK(guest.next()->data == text.substr(100));
        const auto end = guest.next();
        REQUIRE(end);
        CHECK(end->header.op == vsock::op_shutdown);
        CHECK(end->header.flags == vsock::shutdown_both);
    }
}

TEST_CASE("Vsock: a host that does not read", "[vsock]") {
    constexpr auto patience = 200ms;  // of a host that has all of the guest's bytes to take
    VsockGuest guest(VsockGuest::buffers, patience);
    auto [client, port] = guest.connect_from_host(52);
    // Fill the socket, then the device's buffer: what has left the buffer is in fwd_cnt.
    std::string sent;
    std::uint32_t forwarded = 0;
    for (unsigned i = 0; i < 10000 && sent.size() - forwarded < 64 * 1024; ++i) {
        const auto size = std::min<std::size_t>(4096, 64 * 1024 - (sent.size() - forwarded));
        const std::string part = pattern(size, i);
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, static_cast<std::uint32_t>(size)), part);
        sent += part;
        guest.send(VsockGuest::header(vsock::op_credit_request, 52, port));
        while (const auto packet = guest.next()) {
            REQUIRE(packet->header.op == vsock::op_credit_update);
            CHECK(packet->header.buf_alloc == 64 * 1024);
            forwarded = packet->header.fwd_cnt;
        }
    }
    REQUIRE(sent.size() - forwarded == 64 * 1024);
    SECTION("what the guest sends beyond its credit resets the connection") {
        guest.send(VsockGuest::header(vsock::op_rw, 52, port, 1), "x");
        CHECK(guest.next_op() == vsock::op_rst);
    }
    SECTION("the other direction is not affected") {
        write_some(client, "data");
        CHECK(guest.next()->data == "data");
    }
    SECTION("others are not affected, and nothing spins") {
        const auto other = guest.connect_from_host(53);
        guest.send(VsockGuest::header(vsock::op_rw, 53, other.host_port, 2), "ok");
        guest.run();
        CHECK(read_all(other.client) == "ok");
        CHECK(guest.rig->events.run_once(20) == 0);
        CHECK(guest.rig->events.run_once(20) == 0);
    }
    SECTION("when it reads, the guest learns of the room, and all bytes come") {
        std::string got;
        REQUIRE(guest.run_until([&] { return (got += read_all(client)).size() >= sent.size(); }));
        CHECK(got == sent);
        const auto packet = guest.next();
        REQUIRE(packet);
        CHECK(packet->header.op == vsock::op_credit_update);
        while (const auto more = guest.next()) {
            CHECK(more->header.op == vsock::op_credit_update);
        }
        guest.send(VsockGuest::header(vsock::op_credit_request, 52, port));
        CHECK(guest.next()->header.fwd_cnt == sent.size());
    }
    SECTION("the guest closes: the answer is immediate, and the host gets all bytes later") {
        guest.send(shutdown_packet(vsock::shutdown_both, 52, port));
        CHECK(guest.next_op() == vsock::op_rst);
        std::string got;
        REQUIRE(guest.run_until([&] { return (got += read_all(client)).ends_with("<end>"); }));
        CHECK(got == sent + "<end>");
        CHECK_FALSE(guest.next());
    }
    SECTION(
        "the guest closes, and the host reads nothing: it loses the rest, and the connection's place is "
        "free") {
        guest.send(shutdown_packet(vsock::shutdown_both, 52, port));
        CHECK(guest.next_op() == vsock::op_rst);
        // A host that takes something now and then has time.
        std::string got;
        for (int i = 0; i < 6; ++i) {
            guest.run_until([] { return false; }, patience / 4);
            got += read_all(client, 16 * 1024);
            CHECK_FALSE(hung_up(client));
        }
        CHECK(guest.run_until([&] { return hung_up(client); }, 20 * patience));
        got += read_all(client);
        CHECK(got.ends_with("<end>"));
        CHECK(got.size() < sent.size());
        CHECK(guest.rig->counters["undelivered_bytes"].value() == sent.size() + 5 - got.size());
        CHECK_FALSE(guest.next());
    }
    SECTION("the guest closes, and the host goes without reading") {
        guest.send(shutdown_packet(vsock::shutdown_both, 52, port));
        CHECK(guest.next_op() == vsock::op_rst);
        client.reset();
        CHECK_FALSE(guest.next());
    }
    SECTION("the guest closes the direction: the end comes after all bytes") {
        guest.send(shutdown_packet(vsock::shutdown_send, 52, port));
        std::string got;
        REQUIRE(guest.run_until([&] { return (got += read_all(client)).ends_with("<end>"); }));
        CHECK(got == sent + "<end>");
        write_some(client, "still");
        CHECK(guest.next()->data == "still");
    }
    SECTION("the guest resets: the rest is discarded") {
        guest.send(VsockGuest::header(vsock::op_rst, 52, port));
        std::string got;
        REQUIRE(guest.run_until([&] { return (got += read_all(client)).ends_with("<end>"); }));
        CHECK(got.size() < sent.size());
        CHECK_FALSE(guest.next());
    }
}

TEST_CASE("Vsock: without receive buffers nothing is lost, and nothing spins", "[vsock]") {
    VsockGuest guest(2);
    auto [client, port] = guest.connect_from_host(52);
    const std::string text = pattern(20000);
    REQUIRE(write_some(client, text) == text.size());
    guest.rig->run_events();
    CHECK(guest.rig->events.run_once(20) == 0);
    CHECK(guest.rig->events.run_once(20) == 0);
    guest.take_used(false);
    CHECK(guest.received.size() == 2);
    CHECK(guest.rig->events.run_once(20) == 0);
    guest.offer_buffer(0);
    guest.offer_buffer(1);
    guest.rig->notify(0);
    guest.run();
    std::string got;
    while (const auto packet = guest.next()) {
        got += packet->data;
    }
    CHECK(got == text);
}

TEST_CASE("Vsock: receive buffers that are too small are returned empty", "[vsock]") {
    VsockGuest guest(0);
    guest.offer_buffer(0, 43);
    guest.offer_buffer(1, 44);
    guest.offer_buffer(2, 45);
    guest.rig->notify(0);
    guest.send(VsockGuest::header(vsock::op_rw, 52, 77));
    guest.rig->run_events();
    const auto first = guest.rig->queues[0]->take_used();
    REQUIRE(first);
    CHECK(first->written == 0);
    const auto second = guest.rig->queues[0]->take_used();
    REQUIRE(second);
    CHECK(second->written == 44);
    CHECK_FALSE(guest.rig->queues[0]->take_used());
}

TEST_CASE("Vsock: a guest that provides no receive buffers cannot make the device's state grow", "[vsock]") {
    VsockGuest guest(0);
    SECTION("refusals: the packets wait, and all are answered in the end") {
        for (std::uint32_t i = 0; i < 256; ++i) {
            guest.send(VsockGuest::header(vsock::op_request, i, 77));
        }
        guest.rig->run_events();
        std::uint32_t taken = 0;
        while (guest.rig->queues[1]->take_used()) {
            ++taken;
        }
        CHECK(taken == 256);
        for (std::uint32_t i = 0; i < 200; ++i) {
            guest.send(VsockGuest::header(vsock::op_request, 256 + i, 77));
        }
        guest.rig->run_events();
        CHECK_FALSE(guest.rig->queues[1]->take_used());
        CHECK(guest.rig->events.run_once(20) == 0);
        for (std::uint16_t i = 0; i < VsockGuest::buffers; ++i) {
            guest.offer_buffer(i);
        }
        guest.rig->notify(0);
        guest.run();
        CHECK(guest.received.size() == 456);
        for (std::uint32_t i = 0; i < 456; ++i) {
            CHECK(guest.received.at(i).header.dst_port == i);
        }
    }
    SECTION("connections that are made and reset") {
        const UniqueFd listener = listen_unix(host_path(guest, 99), 4096);
        for (std::uint32_t i = 0; i < 3000; ++i) {
            guest.send(VsockGuest::header(vsock::op_request, i, 99));
            guest.send(VsockGuest::header(vsock::op_rst, i, 99));
            guest.rig->run_events();
            while (guest.rig->queues[1]->take_used()) {
            }
            (void)accept_unix(listener);
        }
        CHECK(guest.counter("connections") == 3000);
        CHECK(guest.counter("refused") == 0);
        guest.offer_buffer(0);
        guest.rig->notify(0);
        CHECK_FALSE(guest.next());
    }
}

TEST_CASE("Vsock: 1023 connections, and no more", "[vsock]") {
    rlimit files{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &files) == 0);
    const rlimit before = files;
    files.rlim_cur = std::min<rlim_t>(files.rlim_max, 8192);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &files) == 0);
    REQUIRE(files.rlim_cur >= 3000);
    {
        VsockGuest guest;
        const UniqueFd listener = listen_unix(host_path(guest, 99), 2048);
        std::vector<UniqueFd> peers;
        for (std::uint32_t i = 0; i < Vsock::max_connections - 1; ++i) {
            peers.push_back(guest.connect_from_guest(i, 99, listener));
        }
        auto last = guest.connect_from_host(52);
        const UniqueFd client = connect_unix(guest.path);
        guest.run();
        CHECK(read_all(client) == "<end>");
        guest.send(VsockGuest::header(vsock::op_request, 5000, 99));
        CHECK(guest.next_op() == vsock::op_rst);
        CHECK_FALSE(accept_unix(listener));
        CHECK(guest.counter("connections") == Vsock::max_connections);
        CHECK(guest.counter("refused") == 2);
        // One that ends makes room for another.
        guest.send(shutdown_packet(vsock::shutdown_both, 0, 99));
        CHECK(guest.next_op() == vsock::op_rst);
        const auto another = guest.connect_from_host(53);
        // All are closed by a reset, and the socket still listens.
        guest.rig->reset();
        for (const UniqueFd& peer : peers) {
            CHECK(read_all(peer) == "<end>");
        }
        CHECK(read_all(last.client) == "<end>");
        guest.start();
        (void)guest.connect_from_host(52);
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
}

TEST_CASE("Vsock: without descriptors clients wait, and the guest is refused", "[vsock]") {
    if (vmsuperio_test::sanitizer_needs_descriptors) {
        VMSUPERIO_SKIP("the sanitizer opens a pipe to look at an object");
    }
    VsockGuest guest;
    const UniqueFd listener = listen_unix(host_path(guest, 99));
    const UniqueFd client = connect_unix(guest.path);
    write_some(client, "CONNECT 52\n");
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    {
        std::vector<UniqueFd> all;
        const rlimit few{.rlim_cur = 64, .rlim_max = before.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
        while (all.emplace_back(::dup(listener.get()))) {
        }
        guest.send(VsockGuest::header(vsock::op_request, 5000, 99));
        CHECK(guest.next_op() == vsock::op_rst);
        CHECK_FALSE(guest.next());
        CHECK(guest.rig->events.run_once(20) == 0);  // no spin
        CHECK_FALSE(hung_up(client));
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    REQUIRE(guest.run_until([&] { return !guest.received.empty(); }));
    CHECK(guest.next_op() == vsock::op_request);
}

TEST_CASE("Vsock: after a restore the driver gets an event, and only then", "[vsock]") {
    VsockGuest guest;
    CHECK_FALSE(guest.rig->queues[2]->take_used());
    auto [client, port] = guest.connect_from_host(52);
    const MmioState saved = guest.rig->transport->state();
    guest.rig->transport.reset();
    CHECK(read_all(client) == "<end>");
    guest.rig->transport = std::make_unique<MmioTransport>(
        guest.rig->memory,
        std::make_shared<Vsock>("vsock0", guest.rig->counters, guest.rig->events, VsockGuest::cid,
                                guest.socket),
        vmsuperio::EventFdTrigger::create().value());
    REQUIRE(guest.rig->transport->restore(saved));
    guest.rig->run_events();
    const auto event = guest.rig->queues[2]->take_used();
    REQUIRE(event);
    CHECK(event->written == 4);
    CHECK(*guest.rig->memory.read_object<std::uint32_t>(0x18'0000) == vsock::event_transport_reset);
    CHECK_FALSE(guest.rig->queues[2]->take_used());
    // The old connection is unknown, and a new one works.
    guest.send(VsockGuest::header(vsock::op_rw, 52, port, 1), "x");
    CHECK(guest.next_op() == vsock::op_rst);
    (void)guest.connect_from_host(52);
}

TEST_CASE("Vsock: in a thread of its own, reset by another thread", "[vsock]") {
    VsockGuest guest;
    guest.rig->transport.reset();
    guest.rig->transport = std::make_unique<MmioTransport>(
        guest.rig->memory,
        std::make_shared<Vsock>("vsock0", guest.rig->counters,
                                std::make_unique<EventThread>("vsock0", sandbox::Role::vsock),
                                VsockGuest::cid, guest.socket),
        vmsuperio::EventFdTrigger::create().value());
    const UniqueFd listener = listen_unix(host_path(guest, 99));
    for (int i = 0; i < 50; ++i) {
        guest.start();
        auto request = VsockGuest::header(vsock::op_request, 5000, 99);
        guest.send(request);
        REQUIRE(guest.run_until([&] { return !guest.received.empty(); }));
        const UniqueFd server = accept_unix(listener);
        REQUIRE(server);
        const std::string text = pattern(100'000);
        std::size_t written = write_some(server, text);
        CHECK(written > 0);
        guest.rig->reset();  // while the thread is sending
        REQUIRE(guest.run_until([&] { return hung_up(server); }));
    }
}

namespace {

/// Random actions on both ends of one connection. The reference is the bytes that each side has sent, and the
/// guest's own account of the credit in both directions.
class RandomPeers {
public:
    explicit RandomPeers(unsigned seed) : random_(seed), buffer_(pick(1, 70'000)) {
        auto connected = guest_.connect_from_host(52, buffer_);
        client_ = std::move(connected.client);
        port_ = connected.host_port;
    }

    void run(int steps) {
        for (int i = 0; i < steps && !ended_; ++i) {
            step();
            look();
        }
        finish();
    }

private:
    std::uint32_t pick(std::uint32_t low, std::uint32_t high) {
        return std::uniform_int_distribution<std::uint32_t>(low, high)(random_);
    }

    unsigned seed() { return pick(0, 0xFFFF'FFFF); }
    void step() {
        switch (pick(0, 9)) {
            case 0:
            case 1:
            case 2:
                guest_sends(pick(1, 12'000));
                break;
            case 3:
            case 4:
                if (!host_closed_) {
                    const std::string text = pattern(pick(1, 30'000), seed());
                    host_sent_ += text.substr(0, write_some(client_, text));
                }
                break;
            case 5:
            case 6:
                from_guest_ += read_all(client_, pick(1, 40'000));
                break;
            case 7:
            case 8:
                guest_takes(pick(1, 40'000));
                break;
            default:
                rare();
                break;
        }
    }
    void rare() {
        switch (pick(0, 20)) {
            case 0:
                host_closes();
                break;
            case 1:
                guest_closes();
                break;
            default:
                guest_.send(stamped(vsock::op_credit_request));
                break;
        }
    }
    void host_closes() {
        if (!host_closed_) {
            host_closed_ = true;
            ::shutdown(client_.get(), SHUT_WR);
        }
    }
    void guest_closes() {
        if (!guest_closed_) {
            guest_closed_ = true;
            auto header = stamped(vsock::op_shutdown);
            header.flags = vsock::shutdown_send;
            guest_.send(header);
        }
    }
    VsockHeader stamped(std::uint16_t op, std::uint32_t len = 0) {
        auto header = VsockGuest::header(op, 52, port_, len);
        header.buf_alloc = buffer_;
        header.fwd_cnt = static_cast<std::uint32_t>(taken_);
        return header;
    }
    void guest_sends(std::size_t most) {
        const std::size_t room = device_buffer_ - (guest_sent_.size() - device_forwarded_);
        const std::string text = pattern(std::min(most, room), seed());
        if (!guest_closed_ && !text.empty()) {
            guest_.send(stamped(vsock::op_rw, static_cast<std::uint32_t>(text.size())), text);
            guest_sent_ += text;
        }
    }
    void guest_takes(std::size_t most) {
        taken_ += std::min(most, from_host_.size() - taken_);
        guest_.send(stamped(vsock::op_credit_update));
    }
    void look() {
        while (const auto packet = guest_.next()) {
            const VsockHeader& header = packet->header;
            REQUIRE(header.op != vsock::op_rst);
            // The device's account only moves on, and never beyond what it got.
            CHECK(header.fwd_cnt >= device_forwarded_);
            CHECK(header.fwd_cnt <= guest_sent_.size());
            device_forwarded_ = header.fwd_cnt;
            device_buffer_ = header.buf_alloc;
            if (header.op == vsock::op_rw) {
                REQUIRE_FALSE(device_closed_);
                from_host_ += packet->data;
                REQUIRE(from_host_.size() - taken_ <= buffer_);
            } else if (header.op == vsock::op_shutdown) {
                CHECK(host_closed_);
                CHECK(from_host_ == host_sent_);  // the end comes after all bytes
                CHECK((header.flags & vsock::shutdown_send) != 0);
                device_closed_ = true;
                ended_ = header.flags == vsock::shutdown_both;
            }
        }
    }
    void finish() {
        host_closes();
        CAPTURE(guest_closed_, device_closed_, ended_, host_sent_.size(), from_host_.size(), taken_,
                guest_sent_.size(), from_guest_.size(), device_forwarded_, buffer_);
        REQUIRE(guest_.run_until([&] {
            look();
            guest_takes(1'000'000);
            from_guest_ += read_all(client_);
            return device_closed_ && from_guest_.size() >= guest_sent_.size();
        }));
        guest_closes();
        guest_.run();
        from_guest_ += read_all(client_);
        if (from_guest_.ends_with("<end>")) {
            from_guest_.resize(from_guest_.find("<end>"));  // and as often as it was read
        }
        CHECK(from_host_ == host_sent_);
        CHECK(from_guest_ == guest_sent_);
    }

    VsockGuest guest_;
    std::mt19937 random_;
    std::uint32_t buffer_;
    UniqueFd client_;
    std::uint32_t port_{0};
    bool host_closed_{false};
    bool guest_closed_{false};
    bool device_closed_{false};
    bool ended_{false};
    std::string host_sent_, from_host_, guest_sent_, from_guest_;
    std::size_t taken_{0};
    std::size_t device_forwarded_{0};
    std::size_t device_buffer_{64 * 1024};
};

}  // namespace

TEST_CASE("Vsock: random actions on both ends lose and reorder nothing", "[vsock]") {
    constexpr unsigned seeds = 100;
    for (unsigned seed = 0; seed < seeds; ++seed) {
        CAPTURE(seed);
        RandomPeers(seed).run(300);
    }
}

TEST_CASE("Vsock: the path is opened once for all VMs, and only a socket left behind is replaced",
          "[vsock]") {
    const ScratchDirectory directory;
    VmmConfig config;
    config.kernel = directory.write("kernel", "kernel").string();
    config.serials = {{SerialConfig::Kind::null, {}}};
    const auto reason = [&](const std::string& path) -> std::string {
        config.vsock = VsockConfig{3, path};
        const OpenedFiles files = open_files(config);
        CHECK(files.vsock.has_value() != files.error.has_value());
        if (!files.error) {
            return {};
        }
        CHECK(files.error->code() == ExitCode::bad_file);
        return files.error->what();
    };
    const std::string path = (directory / "v.sock").string();
    SECTION("a socket that was left behind") {
        (void)listen_unix(path);
        CHECK(reason(path).empty());
        CHECK_FALSE(std::filesystem::exists(path));  // removed with its owner
    }
    SECTION("a socket in use") {
        const UniqueFd other = listen_unix(path);
        CHECK_THAT(reason(path), Catch::Matchers::Contains("another program listens there"));
        CHECK(std::filesystem::exists(path));
    }
    SECTION("another file") {
        (void)directory.write("v.sock", "precious");
        CHECK_THAT(reason(path), Catch::Matchers::Contains("not a socket; it is left as it is"));
        CHECK(slurp(path) == "precious");
    }
    SECTION("a path with its ports has to fit") {
        const std::size_t before = (directory / "").string().size();
        CHECK(reason((directory / std::string(96 - before, 'v')).string()).empty());
        const std::string text = reason((directory / std::string(97 - before, 'v')).string());
        CHECK_THAT(text, Catch::Matchers::StartsWith("vsock socket '"));
        CHECK_THAT(text, Catch::Matchers::Contains("the path has 97 bytes, and it may have at most 96"));
    }
    SECTION("the socket of a serial port") {
        config.serials = {{SerialConfig::Kind::unix_socket, path}};
        CHECK_THROWS_WITH(reason((directory / "." / "v.sock").string()),
                          Catch::Matchers::Contains("are the same file"));
        CHECK_FALSE(std::filesystem::exists(path));
    }
    SECTION("the kernel") {
        CHECK_THROWS_WITH(reason(config.kernel), Catch::Matchers::Contains("are the same file"));
        CHECK(slurp(config.kernel) == "kernel");
    }
}
