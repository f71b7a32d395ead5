// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <string>

#include "virtio/balloon_config.hpp"

namespace kvm_vmm {

/// Parses the value of `--balloon`: parts of the form key=value with commas between them, or nothing.
/// Otherwise returns the reason why it is invalid.
[[nodiscard]] std::expected<virtio::BalloonConfig, std::string> parse_balloon(const std::string& text);

}  // namespace kvm_vmm
