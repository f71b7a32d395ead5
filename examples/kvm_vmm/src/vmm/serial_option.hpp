// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <string>

#include "vmm/config.hpp"

namespace kvm_vmm {

/// Parses "stdio", "pty", "file=PATH", "unix=PATH" or "null"; otherwise returns the reason why it is invalid.
[[nodiscard]] std::expected<SerialConfig, std::string> parse_serial(const std::string& text);

}  // namespace kvm_vmm
