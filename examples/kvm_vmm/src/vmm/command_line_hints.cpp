// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/command_line_hints.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "boot/command_line.hpp"
#include "vmm/option_list.hpp"

namespace kvm_vmm {
namespace {

std::string last_value(const VmmConfig& config, std::string_view name) {
    std::vector<std::string> values = parameter_values(config.cmdline, name);
    return values.empty() ? std::string() : std::move(values.back());
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The number in `text` after `prefix`, if nothing but "," and more follows.
std::optional<std::size_t> number_after(std::string_view text, std::string_view prefix) {
    text = text.substr(0, text.find(','));
    if (!text.starts_with(prefix)) {
        return std::nullopt;
    }
    text.remove_prefix(prefix.size());
    return number_in<std::size_t>(text, 0, 9999);
}

// The index of a disk by its name in Linux: a is 0, z 25, aa 26. A partition may follow.
std::optional<std::size_t> disk_index(std::string_view root) {
    constexpr std::string_view prefix = "/dev/vd";
    if (!root.starts_with(prefix)) {
        return std::nullopt;
    }
    root.remove_prefix(prefix.size());
    const auto digits = std::ranges::find_if(root, is_digit);
    const std::string_view letters(root.begin(), digits);
    constexpr std::size_t most_letters = 3;
    if (letters.empty() || letters.size() > most_letters ||
        !std::ranges::all_of(letters, [](char c) { return c >= 'a' && c <= 'z'; }) ||
        !std::all_of(digits, root.end(), is_digit)) {
        return std::nullopt;
    }
    std::size_t index = 0;
    for (const char c : letters) {
        index = index * 26 + static_cast<std::size_t>(c - 'a') + 1;
    }
    return index - 1;
}

std::string disk_name(std::size_t index) { return std::string("/dev/vd") + static_cast<char>('a' + index); }

// "no --disk", "1 --disk: /dev/vda"
std::string disks_of(const VmmConfig& config) {
    const std::size_t count = config.disks.size();
    if (count == 0) {
        return "no --disk";
    }
    return std::to_string(count) + " --disk: " + disk_name(0) +
           (count > 1 ? " to " + disk_name(count - 1) : "");
}

void look_at_root(const VmmConfig& config, std::vector<std::string>& lines) {
    const std::string root = last_value(config, "root");
    constexpr std::array<std::string_view, 5> other_disks{"/dev/sd", "/dev/hd", "/dev/xvd", "/dev/nvme",
                                                          "/dev/mmcblk"};
    const auto index = disk_index(root);
    if ((index && *index >= config.disks.size()) ||
        std::ranges::any_of(other_disks, [&root](std::string_view disk) { return root.starts_with(disk); })) {
        lines.push_back("root=" + root + " names a disk that this machine does not have; it has " +
                        disks_of(config));
    }
    if (last_value(config, "rootfstype") == "virtiofs" &&
        std::ranges::find(config.shares, root, &ShareConfig::tag) == config.shares.end()) {
        lines.push_back("root=" + root + " is not the tag of a shared directory (--share DIR,tag=NAME)");
    }
}

void look_at_consoles(const VmmConfig& config, std::vector<std::string>& lines) {
    for (const std::string& console : parameter_values(config.cmdline, "console")) {
        const auto look_at = [&](std::string_view prefix, std::size_t count, std::string_view what,
                                 std::string_view option) {
            if (const auto number = number_after(console, prefix); number && *number >= count) {
                lines.push_back("console=" + console + " names a " + std::string(what) +
                                " that this machine does not have; it has " + std::to_string(count) + " (" +
                                std::string(option) + ')');
            }
        };
        look_at("hvc", config.consoles.size(), "virtio console", "--console");
        look_at("ttyS", config.serials.size(), "serial port", "--serial");
    }
}

}  // namespace

std::optional<std::size_t> root_disk(const VmmConfig& config) {
    const auto index = disk_index(last_value(config, "root"));
    return index && *index < config.disks.size() ? index : std::nullopt;
}

std::vector<std::string> missing_devices(const VmmConfig& config) {
    std::vector<std::string> lines;
    look_at_root(config, lines);
    look_at_consoles(config, lines);
    return lines;
}

std::string unused_root(const VmmConfig& config, std::size_t disk) {
    return "the guest has not used its root disk" + std::to_string(disk) + " (" + disk_name(disk) +
           "): its kernel needs the drivers virtio_mmio and virtio_blk, built in or as modules that an "
           "initramfs loads (" +
           (config.initrd ? "--initrd " + *config.initrd : "there is no --initrd") + ')';
}

}  // namespace kvm_vmm
