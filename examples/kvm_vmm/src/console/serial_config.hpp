// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>

namespace kvm_vmm {

/// The target of a serial port or of a virtio console.
struct SerialConfig {
    enum class Kind : std::uint8_t {
        stdio,
        stdout_only,  ///< no input; not for the user
        file,
        pty,
        unix_socket,
        null,
    } kind{Kind::stdio};
    std::string path;  ///< of `file` and `unix_socket`
};

}  // namespace kvm_vmm
