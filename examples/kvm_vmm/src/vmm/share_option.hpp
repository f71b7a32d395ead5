// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <string>

#include "vmm/config.hpp"

namespace kvm_vmm {

/// Parses "DIR[,tag=NAME][,writable]", where two commas stand for one that belongs to a name; otherwise returns
/// the reason why it is invalid. The tag is empty if none is given.
[[nodiscard]] std::expected<ShareConfig, std::string> parse_share(const std::string& text);

}  // namespace kvm_vmm
