// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// Whether one of the kernel's parameters in the command line `text` is exactly `parameter` ("acpi=off"). What
/// follows " -- " is for the first process.
[[nodiscard]] bool has_parameter(std::string_view text, std::string_view parameter);
/// `text` with `parameters`, separated by spaces, as the last of the kernel's parameters.
[[nodiscard]] std::string with_parameters(std::string_view text, std::string_view parameters);

/// Writes `text` and a NUL to the beginning of `space`. `limit` is the longest text that the kernel takes, in
/// bytes without the NUL. Returns the address.
///
/// Throws VmmError(ExitCode::usage) if the text is longer than `limit` or `space` allows, or if the kernel's
/// parser (lib/cmdline.c, next_arg) would misread it: it contains bytes outside printable ASCII
/// (tab excepted), or a double quote that is never closed.
std::uint64_t write_command_line(GuestMemory& memory, GuestRange space, std::string_view text,
                                 std::uint32_t limit);

}  // namespace kvm_vmm
