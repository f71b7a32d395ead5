// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

namespace kvm_vmm::virtio {

/// What a balloon offers to its driver.
struct BalloonConfig {
    std::uint64_t target{0};         ///< bytes that the guest should give up, a multiple of 4 KiB
    bool free_page_reporting{true};  ///< the guest reports pages that it does not use
    bool deflate_on_oom{true};       ///< the guest may take pages back instead of killing a process
};

}  // namespace kvm_vmm::virtio
