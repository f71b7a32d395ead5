// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "virtio/net_backend.hpp"

namespace kvm_vmm::virtio {

/// What the user asked for with `--net`.
struct NetConfig {
    enum class Kind : std::uint8_t {
        tap,    ///< the interface `target`
        fd,     ///< the descriptor `fd`, inherited from the parent
        passt,  ///< the socket `target` of a running passt, or a passt of our own if that is empty
    };

    Kind kind{};
    std::string text;    ///< as the user wrote it, for messages
    std::string target;  ///< a name or path
    int fd{-1};
    /// Of a passt of our own, as it expects them after its options -t and -u.
    std::vector<std::string> tcp_ports;
    std::vector<std::string> udp_ports;
    std::optional<MacAddress> mac;
    std::optional<std::uint16_t> mtu;   ///< bytes
    std::optional<std::uint64_t> rate;  ///< bytes per second, of each direction
};

}  // namespace kvm_vmm::virtio
