// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <string>

#include "virtio/net_config.hpp"

namespace kvm_vmm {

/// Parses the value of `--net`: what the network is, then options, with commas between them (two commas stand
/// for one that belongs to a name). Otherwise returns the reason why it is invalid.
[[nodiscard]] std::expected<virtio::NetConfig, std::string> parse_net(const std::string& text);

}  // namespace kvm_vmm
