// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <string>

#include "vmm/config.hpp"

namespace kvm_vmm {

/// Parses "cid=N,path=PATH" in any order, where two commas stand for one that belongs to the path; "uds_path=" is
/// the same as "path=". Otherwise returns the reason why it is invalid.
[[nodiscard]] std::expected<VsockConfig, std::string> parse_vsock(const std::string& text);

}  // namespace kvm_vmm
