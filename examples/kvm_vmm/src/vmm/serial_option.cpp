// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/serial_option.hpp"

#include <array>
#include <string_view>
#include <utility>

#include "vmm/option_hints.hpp"

namespace kvm_vmm {
namespace {

/// The equivalent of another program's name for a target.
std::string serial_suggestion(std::string_view text) {
    constexpr auto habits = std::to_array<std::pair<std::string_view, std::string_view>>({
        {"mon:stdio", "stdio"},
        {"tty", "stdio"},
        {"console", "stdio"},
        {"stdout", "stdio"},
        {"-", "stdio"},
        {"off", "null"},
        {"none", "null"},
    });
    constexpr auto prefixes = std::to_array<std::pair<std::string_view, std::string_view>>({
        {"file:", "file="},
        {"path=", "file="},
        {"unix:", "unix="},
        {"socket=", "unix="},
        {"/", "file=/"},
        {"./", "file=./"},
    });
    for (const auto& [theirs, ours] : habits) {
        if (text == theirs) {
            return "; did you mean " + std::string(ours) + "?";
        }
    }
    for (const auto& [theirs, ours] : prefixes) {
        if (text.starts_with(theirs)) {
            // QEMU's options after the path (",server=on") are not part of it.
            const std::string_view path = text.substr(theirs.size(), 80);
            return "; did you mean " + std::string(ours) + std::string(path.substr(0, path.find(','))) + "?";
        }
    }
    constexpr std::array<std::string_view, 3> words{"stdio", "pty", "null"};
    return suggestion(text, words);
}

}  // namespace

std::expected<SerialConfig, std::string> parse_serial(const std::string& text) {
    constexpr std::array<std::pair<std::string_view, SerialConfig::Kind>, 3> plain{{
        {"stdio", SerialConfig::Kind::stdio},
        {"null", SerialConfig::Kind::null},
        {"pty", SerialConfig::Kind::pty},
    }};
    constexpr std::array<std::pair<std::string_view, SerialConfig::Kind>, 2> with_path{{
        {"file=", SerialConfig::Kind::file},
        {"unix=", SerialConfig::Kind::unix_socket},
    }};
    for (const auto& [word, kind] : plain) {
        if (text == word) {
            return SerialConfig{kind, {}};
        }
    }
    for (const auto& [word, kind] : with_path) {
        if (text.starts_with(word) && text.size() > word.size()) {
            return SerialConfig{kind, text.substr(word.size())};
        }
        if (text == word || text + '=' == word) {
            return std::unexpected(quote(text) + " lacks the path: " + std::string(word) + "PATH");
        }
    }
    return std::unexpected(quote(text) + " is not one of stdio, pty, file=PATH, unix=PATH, null" +
                           serial_suggestion(text));
}

}  // namespace kvm_vmm
