// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "util/error.hpp"
#include "vmm/config.hpp"

namespace kvm_vmm {

/// The command line requested a text instead of a VM (--help, --version).
struct PrintAndExit {
    std::string text;
};

/// Reads the command line. Throws VmmError(usage) with one line that names the wrong word.
[[nodiscard]] std::variant<VmmConfig, PrintAndExit> parse_options(int argc, const char* const* argv);

/// Parses a size: digits and K, M, G or T (powers of 1024; an "iB" or "B" may follow), or MiB if no unit is
/// given. Returns nothing if it is not a size, or larger than 2^63.
[[nodiscard]] std::optional<std::uint64_t> parse_size(const std::string& text);

}  // namespace kvm_vmm
