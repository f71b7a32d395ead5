// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvm_vmm {

/// Where the bytes of a serial port go to and come from.
struct SerialConfig {
    enum class Kind : std::uint8_t { stdio, file, null } kind{Kind::stdio};
    std::string path;  ///< of `file`
};

/// Everything that the user may choose.
struct VmmConfig {
    std::string kernel;
    std::optional<std::string> initrd;
    std::string cmdline{"console=ttyS0"};
    std::uint64_t memory{512ULL << 20U};  ///< bytes
    unsigned cpus{1};
    std::vector<SerialConfig> serials{SerialConfig{}};  ///< COM1, COM2, ...
};

inline constexpr unsigned max_cpus = 64;
inline constexpr std::size_t max_serials = 4;

}  // namespace kvm_vmm
