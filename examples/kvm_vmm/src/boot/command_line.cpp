// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "boot/command_line.hpp"

#include <algorithm>
#include <string>

#include "util/error.hpp"
#include "util/text.hpp"

namespace kvm_vmm {
namespace {

[[noreturn]] void refuse(const std::string& reason) {
    throw VmmError(ExitCode::usage, "kernel command line: " + reason);
}

void check_text(std::string_view text) {
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '\n' || c == '\r') {
            refuse("a line break at byte " + std::to_string(i) + "; it must be one line");
        }
        if ((c < ' ' && c != '\t') || c > '~') {
            refuse("byte " + hex(static_cast<unsigned char>(c)) + " at " + std::to_string(i) +
                   " is not printable ASCII");
        }
        quoted = quoted != (c == '"');
    }
    if (quoted) {
        refuse("a double quote is never closed: " + std::string(text));
    }
}

// The length of the part that is for the kernel: up to the word "--", if there is one (kernel/params.c).
std::size_t kernel_part(std::string_view text) {
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const std::string_view rest = text.substr(i);
        const bool word_starts = !quoted && (i == 0 || text[i - 1] == ' ');
        if (word_starts && (rest == "--" || rest.starts_with("-- "))) {
            return i;
        }
        quoted = quoted != (text[i] == '"');
    }
    return text.size();
}

}  // namespace

bool has_parameter(std::string_view text, std::string_view parameter) {
    text = text.substr(0, kernel_part(text));
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        if (text.substr(0, end) == parameter) {
            return true;
        }
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return false;
}

std::string with_parameters(std::string_view text, std::string_view parameters) {
    if (parameters.empty()) {
        return std::string(text);
    }
    const std::size_t end = kernel_part(text);
    std::string result(text.substr(0, end));
    if (!result.empty() && result.back() != ' ') {
        result += ' ';
    }
    result += parameters;
    if (end != text.size()) {
        result += ' ';
        result += text.substr(end);
    }
    return result;
}

std::uint64_t write_command_line(GuestMemory& memory, GuestRange space, std::string_view text,
                                 std::uint32_t limit) {
    check_text(text);
    const std::uint64_t most = std::min<std::uint64_t>(limit, space.size - 1);
    if (text.size() > most) {
        refuse(std::to_string(text.size()) + " bytes, but this kernel takes at most " + std::to_string(most));
    }
    const auto target = memory.slice(space.address, text.size() + 1);
    if (!target) {
        throw VmmError(ExitCode::usage, "the guest has too little RAM for its command line");
    }
    *std::ranges::copy(text, target->begin()).out = 0;
    return space.address;
}

}  // namespace kvm_vmm
