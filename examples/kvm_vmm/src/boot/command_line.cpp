// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "boot/command_line.hpp"

#include <algorithm>
#include <functional>
#include <optional>

#include "boot/layout.hpp"
#include "boot/text.hpp"
#include "error.hpp"

namespace kvm_vmm {
namespace {

[[noreturn]] void refuse(const std::string& reason) {
    throw VmmError(ExitCode::usage, "kernel command line: " + reason);
}

constexpr bool is_space(char c) noexcept { return c == ' ' || c == '\t'; }

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

void check_name(std::string_view name) {
    check_text(name);
    if (name.empty() || name.find_first_of(" \t\"=") != std::string_view::npos) {
        refuse("'" + std::string(name) + "' is not a parameter name");
    }
}

/// Calls `visit(parameter, start)` for each parameter until it returns false.
void for_each_parameter(std::string_view text,
                        const std::function<bool(std::string_view parameter, std::size_t start)>& visit) {
    std::size_t i = 0;
    while (i < text.size()) {
        if (is_space(text[i])) {
            ++i;
            continue;
        }
        const std::size_t start = i;
        for (bool quoted = false; i < text.size() && (quoted || !is_space(text[i])); ++i) {
            quoted = quoted != (text[i] == '"');
        }
        if (!visit(text.substr(start, i - start), start)) {
            return;
        }
    }
}

/// The name of a parameter as the kernel parses it, or nothing for the "--" that ends the kernel's part. A
/// quote before the parameter is removed together with the last one; any other quote is part of the name, and
/// so is a "=" at the very beginning.
std::optional<std::string_view> name_of(std::string_view parameter) {
    const bool quoted = parameter.front() == '"';
    if (quoted) {
        parameter.remove_prefix(1);
    }
    if (const std::size_t equals = parameter.find('=', 1); equals != std::string_view::npos) {
        return parameter.substr(0, equals);  // "--=x" is a parameter like any other
    }
    if (quoted && parameter.ends_with('"')) {
        parameter.remove_suffix(1);
    }
    return parameter == "--" ? std::nullopt : std::optional(parameter);
}

bool same_name(std::string_view a, std::string_view b) {
    const auto dashed = [](char c) { return c == '_' ? '-' : c; };
    return std::ranges::equal(a, b, {}, dashed, dashed);
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && is_space(text.front())) {
        text.remove_prefix(1);
    }
    while (!text.empty() && is_space(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}

}  // namespace

CommandLine& CommandLine::append(std::string_view text) {
    check_text(text);
    text = trim(text);
    if (!text.empty()) {
        if (!text_.empty()) {
            text_ += ' ';
        }
        text_ += text;
    }
    return *this;
}

CommandLine& CommandLine::add(std::string_view name) {
    check_name(name);
    if (name == "--") {
        refuse("'--' is not a parameter: it would hand to init what follows");
    }
    insert(std::string(name));
    return *this;
}

CommandLine& CommandLine::add(std::string_view name, std::string_view value) {
    check_name(name);
    if (value.find('"') != std::string_view::npos) {
        refuse("the value of " + std::string(name) +
               " holds a double quote, which the kernel cannot be given");
    }
    check_text(value);
    // The kernel removes the quotes around a value but keeps those inside, so quote all of it or nothing.
    const bool quote = value.find_first_of(" \t") != std::string_view::npos;
    const std::string mark = quote ? "\"" : "";
    insert(std::string(name) + '=' + mark + std::string(value) + mark);
    return *this;
}

bool CommandLine::contains(std::string_view name) const {
    bool found = false;
    for_each_parameter(text_, [&](std::string_view parameter, std::size_t) {
        const auto its_name = name_of(parameter);
        found = its_name && same_name(*its_name, name);
        return its_name && !found;
    });
    return found;
}

void CommandLine::insert(const std::string& parameter) {
    std::size_t place = std::string::npos;
    for_each_parameter(text_, [&](std::string_view other, std::size_t start) {
        if (!name_of(other)) {
            place = start;
        }
        return place == std::string::npos;
    });
    if (place == std::string::npos) {
        append(parameter);
    } else {
        text_.insert(place, parameter + ' ');
    }
}

std::uint64_t write_command_line(GuestMemory& memory, std::string_view text, std::uint32_t limit) {
    check_text(text);
    constexpr std::uint64_t space = layout::command_line_end - layout::command_line - 1;
    const std::uint64_t most = std::min<std::uint64_t>(limit, space);
    if (text.size() > most) {
        refuse(std::to_string(text.size()) + " bytes, but this kernel takes at most " + std::to_string(most));
    }
    const auto target = memory.slice(layout::command_line, text.size() + 1);
    if (!target) {
        throw VmmError(ExitCode::usage, "the guest has too little RAM for its command line");
    }
    *std::ranges::copy(text, target->begin()).out = 0;
    return layout::command_line;
}

}  // namespace kvm_vmm
