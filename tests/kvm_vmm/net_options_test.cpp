// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/net_options.hpp"

#include <array>
#include <fcntl.h>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "catch.hpp"
#include "util/error.hpp"
#include "virtio/net_target.hpp"
#include "vmm/machine_table.hpp"

using namespace kvm_vmm;
using virtio::NetConfig;

namespace {

std::string reason(const std::string& text) {
    const auto config = parse_net(text);
    REQUIRE_FALSE(config.has_value());
    CHECK(config.error().find('\n') == std::string::npos);
    return config.error();
}

std::string why_not_opened(const std::string& text) {
    try {
        (void)virtio::open_net(parse_net(text).value(), 0);
    } catch (const VmmError& error) {
        CHECK(error.code() == ExitCode::bad_file);
        return error.what();
    }
    return {};
}

}  // namespace

TEST_CASE("Net options: each kind of network, and its options", "[net][options]") {
    const NetConfig tap = parse_net("tap=tap0,mac=52:54:00:12:34:56,mtu=9000,rate=1000000").value();
    CHECK(tap.kind == NetConfig::Kind::tap);
    CHECK(tap.target == "tap0");
    CHECK(tap.mac == virtio::MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56});
    CHECK(tap.mtu == 9000);
    CHECK(tap.rate == 1'000'000);
    CHECK(parse_net("tap=tap0,rate=20M").value().rate == 20U << 20U);
    const NetConfig fd = parse_net("fd=7").value();
    CHECK(fd.kind == NetConfig::Kind::fd);
    CHECK(fd.fd == 7);
    CHECK_FALSE(fd.mac.has_value());
    const NetConfig socket = parse_net("passt=/tmp/a,,b c.socket,mtu=1500").value();
    CHECK(socket.kind == NetConfig::Kind::passt);
    CHECK(socket.target == "/tmp/a,b c.socket");
    const NetConfig passt =
        parse_net("passt,forward=tcp:2222:22,forward=udp:0.0.0.0:53:5353,forward=tcp:[::1]:80:8080").value();
    CHECK(passt.target.empty());
    CHECK(passt.tcp_ports == std::vector<std::string>{"127.0.0.1/2222:22", "::1/80:8080"});
    CHECK(passt.udp_ports == std::vector<std::string>{"0.0.0.0/53:5353"});
}

TEST_CASE("Net options: a mistake is one line that names it", "[net][options]") {
    using Catch::Matchers::Contains;
    CHECK_THAT(reason(""), Contains("is not one of"));
    CHECK_THAT(reason("user"), Contains("'user'") && Contains("passt"));
    CHECK_THAT(reason("tap="), Contains("1 to 15 bytes"));
    CHECK_THAT(reason("tap=0123456789abcdef"), Contains("1 to 15 bytes"));
    CHECK_THAT(reason("tap=a/b"), Contains("without '/'"));
    CHECK_THAT(reason("fd=2"), Contains("from 3 on"));
    CHECK_THAT(reason("fd=x"), Contains("from 3 on"));
    CHECK_THAT(reason("passt="), Contains("lacks the path"));
    CHECK_THAT(reason("tap=a,mac=52:54:00:12:34"), Contains("six bytes"));
    CHECK_THAT(reason("tap=a,mac=01:00:5e:00:00:01"), Contains("must be even"));
    CHECK_THAT(reason("tap=a,mtu=67"), Contains("68 to 65535"));
    CHECK_THAT(reason("tap=a,mtu=65536"), Contains("68 to 65535"));
    CHECK_THAT(reason("tap=a,rate=0"), Contains("bytes per second"));
    CHECK_THAT(reason("tap=a,rate=0M"), Contains("bytes per second"));
    CHECK_THAT(reason("tap=a,rate=20X"), Contains("bytes per second"));
    CHECK_THAT(reason("tap=a,rate=99999999999999"), Contains("bytes per second"));
    CHECK_THAT(reason("tap=a,speed=1"), Contains("'speed=1' is not one of"));
    CHECK_THAT(reason("tap=a,forward=tcp:1:2"), Contains("only --net passt"));
    CHECK_THAT(reason("passt=/s,forward=tcp:1:2"), Contains("only --net passt"));
    for (const char* const forward :
         {"tcp", "tcp:1", "tcp:0:1", "tcp:1:65536", "sctp:1:2", "tcp:x:1:2", "tcp:1:2:3", "tcp:-a:1:2"}) {
        CHECK_THAT(reason(std::string("passt,forward=") + forward), Contains("such as"));
    }
}

TEST_CASE("Net options: a network that cannot be used is one line", "[net]") {
    using Catch::Matchers::Contains;
    CHECK_THAT(why_not_opened("tap=kvmvmmnone"), Contains("there is no such interface"));
    CHECK_THAT(why_not_opened("passt=/nonexistent/socket"), Contains("cannot connect"));
    CHECK_THAT(why_not_opened("passt=/" + std::string(200, 'x')), Contains("at most 107 bytes"));
    CHECK_THAT(why_not_opened("passt=/dev/null"), Contains("it is no socket"));
    CHECK_THAT(why_not_opened("fd=777"), Contains("no such descriptor"));
}

TEST_CASE("Net options: an inherited descriptor that is no network is refused", "[net]") {
    using Catch::Matchers::Contains;
    const auto why = [](int fd) {
        REQUIRE(fd > 2);
        return why_not_opened("fd=" + std::to_string(fd));
    };
    const int file = ::open("/dev/null", O_RDONLY);  // NOLINT: as a shell leaves it to its children
    CHECK_THAT(why(file), Contains("not that of a tap"));
    CHECK_THAT(why(::socket(AF_UNIX, SOCK_DGRAM, 0)), Contains("no stream socket"));              // NOLINT
    CHECK_THAT(why(::socket(AF_UNIX, SOCK_STREAM, 0)), Contains("the socket is not connected"));  // NOLINT
    const int listening = ::socket(AF_UNIX, SOCK_STREAM, 0);                                      // NOLINT
    sockaddr_un address{};
    address.sun_family = AF_UNIX;  // Linux chooses the name
    REQUIRE(::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t)) == 0);
    REQUIRE(::listen(listening, 1) == 0);
    CHECK_THAT(why(listening), Contains("the socket is not connected"));
    // What this program has opened for another option stays open.
    const vmsuperio::UniqueFd own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK_THAT(why(own.get()), Contains("no such descriptor was inherited"));
    CHECK(::fcntl(own.get(), F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("Net options: an inherited socket serves one interface", "[net]") {
    using Catch::Matchers::Contains;
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);  // NOLINT
    const vmsuperio::UniqueFd other(ends[1]);
    const auto config = parse_net("fd=" + std::to_string(ends[0])).value();
    const virtio::NetTarget first = virtio::open_net(config, 0);
    CHECK(first.backend->link_up());
    CHECK(::fcntl(ends[0], F_GETFD) == FD_CLOEXEC);  // no program that this one starts inherits it
    CHECK_THAT(why_not_opened("fd=" + std::to_string(ends[0])), Contains("no such descriptor was inherited"));
    CHECK(::fcntl(ends[0], F_GETFD) == FD_CLOEXEC);  // open still
}

TEST_CASE("Net options: interfaces have the order of the options, before the other devices",
          "[net][machine]") {
    VmmConfig config;
    config.nets = {parse_net("tap=b").value(), parse_net("tap=a").value()};
    std::vector<std::string> names;
    for (const MachineDevice& row : machine_table(config)) {
        names.push_back(row.description.name);
    }
    REQUIRE(names.size() > 3);
    CHECK(std::vector(names.end() - 3, names.end()) == std::vector<std::string>{"net0", "net1", "rng"});
}
