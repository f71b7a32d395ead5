// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "devices/virtio_mmio.hpp"
#include "event/event_thread.hpp"
#include "virtio/vsock.hpp"

namespace kvm_vmm {

/// Sockets between the guest, whose address is `cid`, and the host.
[[nodiscard]] inline VirtioDevice socket_device(std::uint64_t cid) {
    return {.name = "vsock0",
            .title = "sockets between guest and host",
            .model = "virtio::Vsock",
            .note = "with `--vsock`",
            .create = [cid](const DeviceContext& context, std::string_view name,
                            Counters& counters) -> std::shared_ptr<virtio::Device> {
                return std::make_shared<virtio::Vsock>(
                    name, counters, std::make_unique<EventThread>(std::string(name), sandbox::Role::vsock),
                    cid, *context.vsock);
            }};
}

}  // namespace kvm_vmm
