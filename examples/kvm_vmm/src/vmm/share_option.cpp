// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/share_option.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <vector>

#include "virtio/fs.hpp"
#include "vmm/option_hints.hpp"
#include "vmm/option_list.hpp"

namespace kvm_vmm {

std::expected<ShareConfig, std::string> parse_share(const std::string& text) {
    const std::vector<std::string> parts = split_at_commas(text);
    ShareConfig share{.path = parts.front(), .tag = {}, .writable = false};
    if (share.path.empty()) {
        return std::unexpected(quote(text) + " lacks the directory: DIR[,tag=NAME][,writable]");
    }
    for (const std::string& part : std::span(parts).subspan(1)) {
        constexpr std::string_view tag = "tag=";
        if (part == "writable") {
            share.writable = true;
        } else if (part.starts_with(tag)) {
            share.tag = part.substr(tag.size());
            const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7F'; };
            if (share.tag.empty() || share.tag.size() > virtio::FileSystem::max_tag ||
                std::ranges::any_of(share.tag, is_control)) {
                return std::unexpected("the tag " + quote(share.tag) + " is not a name of 1 to " +
                                       std::to_string(virtio::FileSystem::max_tag) + " bytes");
            }
        } else {
            constexpr std::array<std::string_view, 2> words{"writable", "tag=NAME"};
            return std::unexpected(quote(part) + " is not one of tag=NAME, writable" +
                                   suggestion(part, words) +
                                   " (a comma in the directory's name is written twice)");
        }
    }
    return share;
}

}  // namespace kvm_vmm
