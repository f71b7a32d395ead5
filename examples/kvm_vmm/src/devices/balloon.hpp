// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <memory>
#include <string_view>

#include "devices/virtio_mmio.hpp"
#include "virtio/balloon.hpp"

namespace kvm_vmm {

/// Returns memory that the guest does not need to the host.
[[nodiscard]] inline VirtioDevice balloon(const virtio::BalloonConfig& config) {
    return {.name = "balloon0",
            .title = "memory balloon",
            .model = "virtio::Balloon",
            .note = "with `--balloon`",
            .create = [config](const DeviceContext& context, std::string_view name,
                               Counters& counters) -> std::shared_ptr<virtio::Device> {
                return std::make_shared<virtio::Balloon>(name, counters, context.memory, context.events,
                                                         config);
            }};
}

}  // namespace kvm_vmm
