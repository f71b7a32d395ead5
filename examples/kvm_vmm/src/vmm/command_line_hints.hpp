// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "vmm/config.hpp"

namespace kvm_vmm {

/// The disk (its index in `config.disks`) that Linux calls by the last `root=` of the command line: /dev/vda, /dev/vdb2
/// and so on. Nothing if it is another parameter, or another disk.
[[nodiscard]] std::optional<std::size_t> root_disk(const VmmConfig& config);

/// What the command line names that the machine does not have: a line of text for each. These are no errors, because an
/// initramfs may ignore the parameters.
[[nodiscard]] std::vector<std::string> missing_devices(const VmmConfig& config);

/// What is likely at fault if a guest has ended that has never sent a request to `disk`, its root.
[[nodiscard]] std::string unused_root(const VmmConfig& config, std::size_t disk);

}  // namespace kvm_vmm
