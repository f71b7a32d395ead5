// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// Whether the kernel finds the parameter `name` with a value ("acpi=off"), with any if `value` is empty, in the command
/// line `text`. What follows the word "--" is for the first process.
[[nodiscard]] bool has_parameter(std::string_view text, std::string_view name,
                                 std::optional<std::string_view> value = std::nullopt);
/// The values of all parameters `name=VALUE` that the kernel finds there, in their order.
[[nodiscard]] std::vector<std::string> parameter_values(std::string_view text, std::string_view name);
/// `text` with `parameters`, separated by spaces, as the last of the kernel's parameters.
[[nodiscard]] std::string with_parameters(std::string_view text, std::string_view parameters);

/// The longest text in bytes, without its NUL, that fits into `space` and that the kernel takes (`limit`).
[[nodiscard]] std::size_t longest_command_line(GuestRange space, std::uint32_t limit) noexcept;

/// `text` with "pci=off", for a machine without PCI: Linux then does not look for it. Left as it is if it has a parameter
/// "pci" with a value already, or if it would be longer than `longest` bytes.
///
/// Throws like write_command_line() if the kernel's parser would misread `text`.
[[nodiscard]] std::string without_pci(std::string_view text, std::size_t longest);

/// Writes `text` and a NUL to the beginning of `space`. `limit` is the longest text that the kernel takes, in
/// bytes without the NUL. Returns the address.
///
/// Throws VmmError(ExitCode::usage) if the text is longer than `limit` or `space` allows, or if the kernel's
/// parser (lib/cmdline.c, next_arg) would misread it: it contains bytes outside printable ASCII
/// (tab excepted), or a double quote that is never closed.
std::uint64_t write_command_line(GuestMemory& memory, GuestRange space, std::string_view text,
                                 std::uint32_t limit);

}  // namespace kvm_vmm
