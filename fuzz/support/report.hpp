// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace fuzz {

/// Runs one input, with its trace on stdout if `traced`.
void run(std::span<const std::uint8_t> bytes, bool traced);

/// Sets the input to which later failures are attributed; `bytes` must live until the next call.
void set_current_input(std::span<const std::uint8_t> bytes);

[[nodiscard]] std::optional<std::vector<std::uint8_t>> file_bytes(const std::string& path);

/// Runs the input in a file with its trace, and returns the exit code.
[[nodiscard]] int replay(const std::string& path);

}  // namespace fuzz
