// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/quote.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace kvm_vmm {
namespace {

constexpr std::size_t longest = 1024;

std::uint8_t byte_at(std::string_view text, std::size_t at) {
    return at < text.size() ? static_cast<std::uint8_t>(text[at]) : std::uint8_t{0};
}

void append_shown(std::string& result, std::string_view text) {
    constexpr std::string_view digits = "0123456789abcdef";
    while (!text.empty()) {
        const std::size_t length = shown_length(text);
        if (length != 0) {
            result += text.substr(0, length);
        } else {
            const std::uint8_t byte = byte_at(text, 0);
            result += "\\x";
            result += digits[byte >> 4U];
            result += digits[byte & 0xFU];
        }
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
}

}  // namespace

// The ranges of the second byte are those of RFC 3629, section 4, and leave out U+0080 to U+009F (C1
// controls).
std::size_t shown_length(std::string_view text) {
    const std::uint8_t first = byte_at(text, 0);
    if (first < 0x80) {
        return first < 0x20 || first == 0x7F ? 0 : 1;
    }
    std::size_t length = 0;
    std::uint8_t lowest = 0x80;
    std::uint8_t highest = 0xBF;
    if (first >= 0xC2 && first <= 0xDF) {
        length = 2;
        lowest = first == 0xC2 ? 0xA0 : 0x80;
    } else if (first >= 0xE0 && first <= 0xEF) {
        length = 3;
        lowest = first == 0xE0 ? 0xA0 : 0x80;
        highest = first == 0xED ? 0x9F : 0xBF;
    } else if (first >= 0xF0 && first <= 0xF4) {
        length = 4;
        lowest = first == 0xF0 ? 0x90 : 0x80;
        highest = first == 0xF4 ? 0x8F : 0xBF;
    }
    for (std::size_t i = 1; i < length; ++i) {
        const std::uint8_t next = byte_at(text, i);
        if (next < (i == 1 ? lowest : 0x80) || next > (i == 1 ? highest : 0xBF)) {
            return 0;
        }
    }
    return length;
}

std::string in_quotes(std::string_view text) {
    std::string result = "'";
    if (text.size() <= longest) {
        append_shown(result, text);
    } else {
        append_shown(result, text.substr(0, longest / 2));
        result += "[...]";
        append_shown(result, text.substr(text.size() - longest / 2));
    }
    result += '\'';
    return result;
}

}  // namespace kvm_vmm
