// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/disk_option.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/option_hints.hpp"
#include "vmm/option_list.hpp"

namespace kvm_vmm {
namespace {

using virtio::DiskCache;
using virtio::DiskConfig;
using virtio::DiskEngineKind;

using Error = std::optional<std::string>;  // the reason, or nothing

constexpr std::array<std::string_view, 9> keys{"path", "readonly", "id",     "cache", "queues",
                                               "rate", "iops",     "engine", "format"};

Error set_id(DiskConfig& disk, const std::string& text) {
    const bool printable = std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~' && c != '/'; });
    if (text.empty() || text.size() > virtio::max_disk_id || !printable) {
        return "id=" + quote(text) + " is not a serial number of 1 to " +
               std::to_string(virtio::max_disk_id) + " printable ASCII characters without spaces and slashes";
    }
    disk.id = text;
    return std::nullopt;
}

Error set_queues(DiskConfig& disk, const std::string& text) {
    const auto number = number_in<std::size_t>(text, 1, virtio::max_disk_queues);
    if (!number) {
        return "queues=" + quote(text) + " is not a number from 1 to " +
               std::to_string(virtio::max_disk_queues);
    }
    disk.queues = *number;
    return std::nullopt;
}

constexpr std::uint64_t most_per_second = std::uint64_t{1} << 50U;

Error set_rate(DiskConfig& disk, const std::string& text) {
    disk.bytes_per_second = parse_rate(text, most_per_second);
    if (!disk.bytes_per_second) {
        return "rate=" + quote(text) + " is not a number of bytes per second such as 1000000 or 20M";
    }
    return std::nullopt;
}

Error set_iops(DiskConfig& disk, const std::string& text) {
    disk.requests_per_second = number_in<std::uint64_t>(text, 1, most_per_second);
    if (!disk.requests_per_second) {
        return "iops=" + quote(text) + " is not a number of requests per second, from 1 on";
    }
    return std::nullopt;
}

Error set(DiskConfig& disk, std::string_view key, const std::string& value) {
    using namespace std::string_view_literals;
    constexpr std::array caches{std::pair{"writeback"sv, DiskCache::writeback},
                                std::pair{"direct"sv, DiskCache::direct}};
    constexpr std::array engines{std::pair{"auto"sv, DiskEngineKind::automatic},
                                 std::pair{"io_uring"sv, DiskEngineKind::io_uring},
                                 std::pair{"threads"sv, DiskEngineKind::threads}};
    constexpr std::array formats{std::pair{"raw"sv, true}};
    if (key == "path") {
        disk.path = value;
        return std::nullopt;
    }
    if (key == "readonly") {
        return choose(disk.read_only, key, value, on_or_off_words);
    }
    if (key == "cache") {
        return choose(disk.cache, key, value, caches);
    }
    if (key == "engine") {
        return choose(disk.engine, key, value, engines);
    }
    if (key == "format") {
        return choose(disk.raw, key, value, formats);
    }
    if (key == "id") {
        return set_id(disk, value);
    }
    if (key == "queues") {
        return set_queues(disk, value);
    }
    return key == "rate" ? set_rate(disk, value) : set_iops(disk, value);
}

std::string explain_part(const std::string& part) {
    const std::string_view key = std::string_view(part).substr(0, part.find('='));
    // Other programs' names.
    constexpr auto habits = std::to_array<std::pair<std::string_view, std::string_view>>({
        {"ro", "readonly=on"},
        {"read_only", "readonly=on"},
        {"serial", "id="},
        {"file", "path="},
        {"direct", "cache=direct"},
        {"aio", "engine="},
        {"num_queues", "queues="},
        {"num-queues", "queues="},
    });
    if (std::ranges::find(keys, key) != keys.end()) {
        return quote(part) + " lacks its value: " + std::string(key) + '=' +
               (key == "readonly" ? "on" : "...");
    }
    for (const auto& [theirs, ours] : habits) {
        if (key == theirs) {
            return quote(part) + " is not understood; did you mean " + std::string(ours) + '?';
        }
    }
    return quote(part) + " is not one of readonly=, id=, cache=, queues=, rate=, iops=, engine=, format=" +
           suggestion(key, keys) + " (a comma in the path is written twice)";
}

}  // namespace

std::expected<DiskConfig, std::string> parse_disk(const std::string& text) {
    DiskConfig disk;
    std::vector<std::string_view> given;
    const std::vector<std::string> parts = split_at_commas(text);
    for (std::size_t i = 0; i < parts.size(); ++i) {
        const std::string& part = parts[i];
        const std::size_t equals = part.find('=');
        const std::string_view key = std::string_view(part).substr(0, equals);
        const auto known = std::ranges::find(keys, key);
        if (equals == std::string::npos || known == keys.end()) {
            if (i != 0) {
                return std::unexpected(explain_part(part));
            }
            disk.path = part;
            given.emplace_back("path");
            continue;
        }
        if (std::ranges::find(given, *known) != given.end()) {
            return std::unexpected(std::string(key) + "= is given twice in " + quote(text));
        }
        given.push_back(*known);
        if (auto error = set(disk, key, part.substr(equals + 1))) {
            return std::unexpected(*std::move(error));
        }
    }
    if (disk.path.empty()) {
        return std::unexpected(quote(text) + " lacks the path of the image: PATH[,readonly=on]...");
    }
    return disk;
}

}  // namespace kvm_vmm
