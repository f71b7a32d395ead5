// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <memory>
#include <string_view>

#include "devices/virtio_mmio.hpp"
#include "virtio/entropy.hpp"

namespace kvm_vmm {

/// The guest's /dev/hwrng.
[[nodiscard]] inline VirtioDevice entropy_source() {
    return {.name = "rng",
            .title = "source of random numbers",
            .model = "virtio::Entropy",
            .note = "not with `--rng off`",
            .create = [](const DeviceContext& context, std::string_view name,
                         Counters& counters) -> std::shared_ptr<virtio::Device> {
                return std::make_shared<virtio::Entropy>(name, counters, context.events);
            }};
}

}  // namespace kvm_vmm
