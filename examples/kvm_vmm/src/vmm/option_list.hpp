// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/quote.hpp"
#include "vmm/option_hints.hpp"
#include "vmm/options.hpp"

/// What the parsers of options share.
namespace kvm_vmm {

/// The parts of a value between commas. Two commas stand for one that belongs to a part, as in QEMU.
[[nodiscard]] inline std::vector<std::string> split_at_commas(std::string_view text) {
    std::vector<std::string> parts(1);
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != ',') {
            parts.back() += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == ',') {
            parts.back() += text[i++];
        } else {
            parts.emplace_back();
        }
    }
    return parts;
}

/// The decimal number that `text` is; nothing if it is none, or not between `least` and `most`.
template <class Number>
[[nodiscard]] std::optional<Number> number_in(std::string_view text, Number least, Number most) {
    Number number{};
    const char* const end = std::to_address(text.end());
    const auto [rest, error] = std::from_chars(std::to_address(text.begin()), end, number);
    return error == std::errc{} && rest == end && number >= least && number <= most ? std::optional(number)
                                                                                    : std::nullopt;
}

/// A rate: a number of bytes per second, or a size with its unit (a number alone is not MiB here); nothing if it
/// is not between 1 and `most`.
[[nodiscard]] inline std::optional<std::uint64_t> parse_rate(const std::string& text, std::uint64_t most) {
    const bool plain = text.find_first_not_of("0123456789") == std::string::npos;
    const auto size = plain ? std::nullopt : parse_size(text);
    return plain ? number_in<std::uint64_t>(text, 1, most)
                 : (size && *size >= 1 && *size <= most ? size : std::nullopt);
}

/// Sets `target` to the value of the word `text`. Otherwise returns the reason: "key='text' is not a, b or c".
template <class Value, std::size_t size>
[[nodiscard]] std::optional<std::string> choose(
    Value& target, std::string_view key, const std::string& text,
    const std::array<std::pair<std::string_view, Value>, size>& choices) {
    std::string words;
    std::vector<std::string_view> names;
    for (std::size_t i = 0; i < size; ++i) {
        if (text == choices[i].first) {
            target = choices[i].second;
            return std::nullopt;
        }
        words += i == 0 ? "" : i + 1 == size ? " or " : ", ";
        words += choices[i].first;
        names.push_back(choices[i].first);
    }
    return std::string(key) + '=' + quote(text) + " is not " + words + suggestion(text, names);
}

/// The words of a switch.
inline constexpr std::array<std::pair<std::string_view, bool>, 2> on_or_off_words{
    {{"on", true}, {"off", false}}};

}  // namespace kvm_vmm
