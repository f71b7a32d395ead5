// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <string>

#include "virtio/disk_config.hpp"

namespace kvm_vmm {

inline constexpr const char* disk_help =
    "A disk: a raw image file or a block device, then any of ,readonly=on ,id=SERIAL ,cache=writeback|direct "
    ",queues=N ,rate=BYTES (per second) ,iops=N (requests per second) ,engine=auto|io_uring|threads "
    ",format=raw (do not look for other formats). A comma in the path is written twice. May be repeated: the "
    "first is /dev/vda";

/// Parses the value of --disk: "PATH[,key=value...]" or "path=PATH[,...]". Two commas are one that belongs to
/// the value. The error is the reason without the name of the option.
[[nodiscard]] std::expected<virtio::DiskConfig, std::string> parse_disk(const std::string& text);

}  // namespace kvm_vmm
