// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>

#include "virtio/net.hpp"
#include "virtio/net_backend.hpp"
#include "virtio/net_config.hpp"

namespace kvm_vmm::virtio {

/// A network of the host that was opened for the guest, and what the guest's interface is like.
struct NetTarget {
    std::unique_ptr<NetBackend> backend;
    Net::Settings settings;
};

/// Opens a network; `index` is that of the guest's interface. Throws VmmError(bad_file) if it cannot be used.
[[nodiscard]] NetTarget open_net(const NetConfig& config, std::size_t index);

}  // namespace kvm_vmm::virtio
