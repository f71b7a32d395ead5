// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// Builds a kernel command line by the rules of the kernel's parser (lib/cmdline.c, next_arg): parameters are
/// separated by white space; double quotes protect white space and cannot be escaped; everything after a
/// parameter "--" (quoted or not, without "=") is for init.
///
/// Text that the kernel would not parse as intended is refused with VmmError(ExitCode::usage): bytes outside
/// printable ASCII (except tab), or a quote that is never closed.
class CommandLine {
public:
    CommandLine() = default;
    explicit CommandLine(std::string_view text) { append(text); }

    /// Adds text that is already in the kernel's syntax. After a "--" it is for init.
    CommandLine& append(std::string_view text);

    /// Adds one parameter for the kernel, before "--" if there is one.
    CommandLine& add(std::string_view name);
    /// Adds name=value, quoted if the value contains white space. A value with a quote cannot be expressed.
    CommandLine& add(std::string_view name, std::string_view value);

    /// Whether a parameter for the kernel is named `name`; dashes and underscores are equivalent.
    [[nodiscard]] bool contains(std::string_view name) const;

    [[nodiscard]] const std::string& text() const noexcept { return text_; }

private:
    void insert(const std::string& parameter);

    std::string text_;
};

/// The limit if the kernel's image does not specify one: COMMAND_LINE_SIZE of x86 without the final NUL.
inline constexpr std::uint32_t default_command_line_limit = 2047;

/// Checks `text` as CommandLine does, and that its length does not exceed `limit` bytes without the NUL; then
/// writes it to its address in guest memory, which it returns.
std::uint64_t write_command_line(GuestMemory& memory, std::string_view text, std::uint32_t limit);

}  // namespace kvm_vmm
