// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio_mmio.hpp"
#include "virtio/net.hpp"

namespace kvm_vmm {

/// Adds the interface for DeviceContext::nets[index]: the guest's eth0 is the first one.
inline void add_net_device(std::vector<VirtioDevice>& devices, std::size_t index) {
    devices.push_back({.name = "net" + std::to_string(index),
                       .title = "network interface",
                       .model = "virtio::Net",
                       .note = "one for each `--net`",
                       .create = [index](const DeviceContext& context, std::string_view name,
                                         Counters& counters) -> std::shared_ptr<virtio::Device> {
                           const virtio::NetTarget& target = context.nets[index];
                           return std::make_shared<virtio::Net>(name, counters, *target.backend,
                                                                target.settings);
                       }});
}

}  // namespace kvm_vmm
