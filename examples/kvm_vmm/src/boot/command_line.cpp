// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "boot/command_line.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
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

/// One word of the kernel's part of a command line: `name=value`, or `name` alone.
struct Parameter {
    std::string_view name;
    std::optional<std::string_view> value;
};

/// Reads the parameters of a command line as the kernel does (lib/cmdline.c, next_arg; kernel/params.c, parse_args).
class ParameterReader {
public:
    explicit ParameterReader(std::string_view text) noexcept : text_(text) {}

    /// The next parameter; nothing at the end of the kernel's part, which the word "--" ends as well.
    [[nodiscard]] std::optional<Parameter> next() noexcept {
        at_ = std::min(text_.find_first_not_of(spaces, at_), text_.size());
        std::size_t end = at_;
        for (bool quoted = false; end < text_.size() && (quoted || !spaces.contains(text_[end])); ++end) {
            quoted = quoted != (text_[end] == '"');
        }
        const Parameter parameter = parse(text_.substr(at_, end - at_));
        if (at_ == text_.size() || (parameter.name == "--" && !parameter.value)) {
            return std::nullopt;
        }
        at_ = end;
        return parameter;
    }

    /// After next() has returned nothing: the length of the kernel's part.
    [[nodiscard]] std::size_t end() const noexcept { return at_; }

private:
    static constexpr std::string_view spaces = " \t";

    // Quotes around the value or the whole word do not belong to it.
    static Parameter parse(std::string_view word) noexcept {
        bool quoted = word.starts_with('"');
        if (quoted) {
            word.remove_prefix(1);
        }
        const std::size_t equals = word.find('=', 1);
        std::string_view name = word.substr(0, equals);
        if (equals == std::string_view::npos) {
            remove_quote(name, quoted);
            return {.name = name, .value = std::nullopt};
        }
        std::string_view value = word.substr(equals + 1);
        if (value.starts_with('"')) {
            value.remove_prefix(1);
            quoted = true;
        }
        remove_quote(value, quoted);
        return {.name = name, .value = value};
    }
    static void remove_quote(std::string_view& text, bool quoted) noexcept {
        if (quoted && text.ends_with('"')) {
            text.remove_suffix(1);
        }
    }

    std::string_view text_;
    std::size_t at_{0};
};

std::size_t kernel_part(std::string_view text) {
    ParameterReader reader(text);
    while (reader.next()) {
    }
    return reader.end();
}

}  // namespace

bool has_parameter(std::string_view text, std::string_view name, std::optional<std::string_view> value) {
    ParameterReader reader(text);
    while (const auto parameter = reader.next()) {
        if (parameter->name == name && parameter->value && (!value || *parameter->value == *value)) {
            return true;
        }
    }
    return false;
}

std::vector<std::string> parameter_values(std::string_view text, std::string_view name) {
    std::vector<std::string> values;
    ParameterReader reader(text);
    while (const auto parameter = reader.next()) {
        if (parameter->name == name && parameter->value) {
            values.emplace_back(*parameter->value);
        }
    }
    return values;
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

std::size_t longest_command_line(GuestRange space, std::uint32_t limit) noexcept {
    return std::min<std::uint64_t>(limit, space.size - 1);
}

std::string without_pci(std::string_view text, std::size_t longest) {
    check_text(text);
    if (!has_parameter(text, "pci")) {
        if (std::string result = with_parameters(text, "pci=off"); result.size() <= longest) {
            return result;
        }
    }
    return std::string(text);
}

std::uint64_t write_command_line(GuestMemory& memory, GuestRange space, std::string_view text,
                                 std::uint32_t limit) {
    check_text(text);
    const std::size_t most = longest_command_line(space, limit);
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
