// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/balloon_option.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/option_hints.hpp"
#include "vmm/option_list.hpp"

namespace kvm_vmm {
namespace {

using virtio::BalloonConfig;

using Error = std::optional<std::string>;  // the reason, or nothing

constexpr std::array<std::string_view, 3> keys{"target", "free-page-reporting", "deflate-on-oom"};

Error set_target(BalloonConfig& balloon, const std::string& text) {
    constexpr std::uint64_t unit = 4096;  // VIRTIO 1.2, 5.5.6
    const auto size = parse_size(text);
    if (!size) {
        return "target=" + quote(text) + " is not a size such as 512M or 2G";
    }
    if (*size % unit != 0) {
        return "target=" + quote(text) + " is not a multiple of 4 KiB";
    }
    balloon.target = *size;
    return std::nullopt;
}

Error set(BalloonConfig& balloon, std::string_view key, const std::string& value) {
    if (key == "target") {
        return set_target(balloon, value);
    }
    return choose(key == "deflate-on-oom" ? balloon.deflate_on_oom : balloon.free_page_reporting, key, value,
                  on_or_off_words);
}

}  // namespace

std::expected<BalloonConfig, std::string> parse_balloon(const std::string& text) {
    BalloonConfig balloon;
    if (text.empty()) {
        return balloon;
    }
    std::vector<std::string_view> given;
    for (const std::string& part : split_at_commas(text)) {
        const std::size_t equals = part.find('=');
        const std::string_view key = std::string_view(part).substr(0, equals);
        const auto* const known = std::ranges::find(keys, key);
        if (known == keys.end()) {
            return std::unexpected(
                quote(part) +
                " is not one of target=, free-page-reporting=, deflate-on-oom=" + suggestion(key, keys));
        }
        if (equals == std::string::npos) {
            return std::unexpected(quote(part) + " lacks its value: " + part +
                                   (key == "target" ? "=SIZE" : "=on"));
        }
        if (std::ranges::find(given, *known) != given.end()) {
            return std::unexpected(std::string(key) + "= is given twice in " + quote(text));
        }
        given.push_back(*known);
        if (auto error = set(balloon, key, part.substr(equals + 1))) {
            return std::unexpected(*std::move(error));
        }
    }
    return balloon;
}

}  // namespace kvm_vmm
