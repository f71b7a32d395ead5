// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// Puts a kernel command line together, by the rules of the kernel's parser (lib/cmdline.c, next_arg):
/// parameters are separated by white space; double quotes keep white space together and cannot be
/// escaped; what follows a parameter "--" (quoted or not, without "=") is for init.
///
/// Text that the kernel would not see as it was meant is refused with VmmError(ExitCode::usage): bytes
/// outside printable ASCII (tab excepted), or a quote that is never closed.
class CommandLine {
public:
    CommandLine() = default;
    explicit CommandLine(std::string_view text) { append(text); }

    /// Adds text that is in the kernel's syntax already. After a "--" it goes to init.
    CommandLine& append(std::string_view text);

    /// Adds one parameter for the kernel, in front of "--" where there is one.
    CommandLine& add(std::string_view name);
    /// Adds name=value, quoted where the value holds white space. A value with a quote cannot be expressed.
    CommandLine& add(std::string_view name, std::string_view value);

    /// Whether a parameter for the kernel is named `name`; dashes and underscores are the same.
    [[nodiscard]] bool contains(std::string_view name) const;

    [[nodiscard]] const std::string& text() const noexcept { return text_; }

private:
    void insert(const std::string& parameter);

    std::string text_;
};

/// What the kernel takes where its image does not tell: COMMAND_LINE_SIZE of x86, less the final NUL.
inline constexpr std::uint32_t default_command_line_limit = 2047;

/// Checks `text` as CommandLine does, and its length against `limit` bytes without the NUL; then writes it
/// to its place in guest memory. Returns that address.
std::uint64_t write_command_line(GuestMemory& memory, std::string_view text, std::uint32_t limit);

}  // namespace kvm_vmm
