// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio_mmio.hpp"
#include "virtio/block.hpp"
#include "virtio/disk_config.hpp"
#include "virtio/make_disk_engine.hpp"

namespace kvm_vmm {

/// Adds the disk number `index`, whose image is that of DeviceContext::disks.
inline void add_block_device(std::vector<VirtioDevice>& devices, std::size_t index,
                             const virtio::DiskConfig& config) {
    const auto create = [index, config](const DeviceContext& context, std::string_view name,
                                        Counters& counters) -> std::shared_ptr<virtio::Device> {
        auto disk = std::make_shared<virtio::Block>(
            name, counters, *context.disks[index],
            virtio::Block::Options{.id = config.id,
                                   .queues = config.queues,
                                   .bytes_per_second = config.bytes_per_second,
                                   .requests_per_second = config.requests_per_second},
            [name, kind = config.engine](virtio::DiskFile& file) {
                return virtio::make_disk_engine(kind, name, file);
            });
        context.controls.check_disk_sizes.emplace_back([disk] { disk->check_size(); });
        return disk;
    };
    devices.push_back({.name = "disk" + std::to_string(index),
                       .title = "disk",
                       .model = "virtio::Block",
                       .note = "one for each `--disk`",
                       .create = create});
}

}  // namespace kvm_vmm
