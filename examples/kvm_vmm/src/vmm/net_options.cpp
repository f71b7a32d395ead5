// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/net_options.hpp"

#include <arpa/inet.h>
#include <array>
#include <cstdint>
#include <limits>
#include <net/if.h>
#include <netinet/in.h>
#include <optional>
#include <span>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "virtio/mac_address.hpp"
#include "vmm/option_hints.hpp"
#include "vmm/option_list.hpp"

namespace kvm_vmm {
namespace {

using virtio::NetConfig;
using Error = std::unexpected<std::string>;

constexpr std::uint64_t max_rate = 1'000'000'000'000;
constexpr std::string_view networks = "tap=NAME, fd=N, passt, passt=SOCKET";
constexpr std::string_view options =
    "mac=ADDRESS, mtu=BYTES, rate=BYTES_PER_SECOND, forward=PROTOCOL:PORT:PORT";

/// The value of "name=value"; nothing if the name is another one.
std::optional<std::string> value_of(std::string_view part, std::string_view name) {
    return part.starts_with(name) && part.substr(name.size()).starts_with('=')
               ? std::optional(std::string(part.substr(name.size() + 1)))
               : std::nullopt;
}

std::optional<std::string> take_network(NetConfig& config, const std::string& part) {
    if (const auto name = value_of(part, "tap")) {
        if (name->empty() || name->size() >= IFNAMSIZ || name->find('/') != std::string::npos) {
            return quote(part) + ": an interface's name has 1 to " + std::to_string(IFNAMSIZ - 1) +
                   " bytes, without '/'";
        }
        config.kind = NetConfig::Kind::tap;
        config.target = *name;
        return std::nullopt;
    }
    if (const auto text = value_of(part, "fd")) {
        const auto fd = number_in<int>(*text, STDERR_FILENO + 1, std::numeric_limits<int>::max());
        if (!fd) {
            return quote(part) + ": an inherited descriptor is a number from 3 on";
        }
        config.kind = NetConfig::Kind::fd;
        config.fd = *fd;
        return std::nullopt;
    }
    if (part == "passt") {
        config.kind = NetConfig::Kind::passt;
        return std::nullopt;
    }
    if (const auto path = value_of(part, "passt")) {
        if (path->empty()) {
            return quote(part) + " lacks the path of a running passt's socket: passt=SOCKET, or passt";
        }
        config.kind = NetConfig::Kind::passt;
        config.target = *path;
        return std::nullopt;
    }
    constexpr std::array<std::string_view, 3> words{"tap=NAME", "fd=N", "passt"};
    return quote(part) + " is not one of " + std::string(networks) + suggestion(part, words);
}

// "tcp:2222:22" or "tcp:ADDRESS:2222:22": a port of the host, and the guest's port that it leads to.
std::optional<std::string> take_forward(NetConfig& config, const std::string& part, const std::string& text) {
    if (config.kind != NetConfig::Kind::passt || !config.target.empty()) {
        return quote(part) + ": only --net passt forwards ports";
    }
    const std::size_t protocol_end = text.find(':');
    const std::size_t guest_at = text.rfind(':');
    const std::string protocol = text.substr(0, protocol_end);
    const auto invalid = [&part] {
        return quote(part) + ": a forwarded port is such as forward=tcp:2222:22 or forward=udp:0.0.0.0:53:53";
    };
    if ((protocol != "tcp" && protocol != "udp") || guest_at == protocol_end) {
        return invalid();
    }
    const std::string middle = text.substr(protocol_end + 1, guest_at - protocol_end - 1);
    const std::size_t address_end = middle.rfind(':');
    std::string address = address_end == std::string::npos ? "127.0.0.1" : middle.substr(0, address_end);
    if (address.starts_with('[') && address.ends_with(']')) {
        address = address.substr(1, address.size() - 2);
    }
    const auto host = number_in<std::uint16_t>(
        middle.substr(address_end == std::string::npos ? 0 : address_end + 1), 1, 65535);
    const auto guest = number_in<std::uint16_t>(text.substr(guest_at + 1), 1, 65535);
    std::array<std::uint8_t, sizeof(in6_addr)> binary{};
    if (!host || !guest ||
        (::inet_pton(AF_INET, address.c_str(), binary.data()) != 1 &&
         ::inet_pton(AF_INET6, address.c_str(), binary.data()) != 1)) {
        return invalid();
    }
    (protocol == "tcp" ? config.tcp_ports : config.udp_ports)
        .push_back(address + "/" + std::to_string(*host) + ":" + std::to_string(*guest));
    return std::nullopt;
}

std::optional<std::string> take_option(NetConfig& config, const std::string& part) {
    if (const auto text = value_of(part, "mac")) {
        config.mac = virtio::parse_mac(*text);
        if (!config.mac) {
            return quote(part) + ": a MAC address is six bytes such as 52:54:00:12:34:56";
        }
        if (!virtio::is_unicast(*config.mac)) {
            return quote(part) +
                   " is not the address of an interface: the first byte must be even, and not all "
                   "bytes 0";
        }
        return std::nullopt;
    }
    if (const auto text = value_of(part, "mtu")) {
        config.mtu = number_in<std::uint16_t>(*text, virtio::min_mtu, virtio::max_mtu);
        return config.mtu ? std::nullopt
                          : std::optional(quote(part) + ": an MTU is " + std::to_string(virtio::min_mtu) +
                                          " to " + std::to_string(virtio::max_mtu) + " bytes");
    }
    if (const auto text = value_of(part, "rate")) {
        config.rate = parse_rate(*text, max_rate);
        return config.rate ? std::nullopt
                           : std::optional(quote(part) + ": a rate is 1 to " + std::to_string(max_rate) +
                                           " bytes per second, such as 1000000 or 20M");
    }
    if (const auto text = value_of(part, "forward")) {
        return take_forward(config, part, *text);
    }
    constexpr std::array<std::string_view, 4> words{"mac=ADDRESS", "mtu=BYTES", "rate=BYTES", "forward="};
    return quote(part) + " is not one of " + std::string(options) + suggestion(part, words);
}

}  // namespace

std::expected<NetConfig, std::string> parse_net(const std::string& text) {
    const std::vector<std::string> parts = split_at_commas(text);
    NetConfig config;
    config.text = parts.front();
    if (auto error = take_network(config, parts.front())) {
        return Error(std::move(*error));
    }
    for (const std::string& part : std::span(parts).subspan(1)) {
        if (auto error = take_option(config, part)) {
            return Error(std::move(*error));
        }
    }
    return config;
}

}  // namespace kvm_vmm
