// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "devices/virtio_mmio.hpp"
#include "virtio/console.hpp"

namespace kvm_vmm {

/// The guest's /dev/hvc(index).
[[nodiscard]] inline VirtioDevice virtio_console(std::size_t index) {
    return {.name = "console" + std::to_string(index),
            .title = "virtio console",
            .model = "virtio::Console",
            .note = "with `--console`",
            .create = [index](const DeviceContext& context, std::string_view name,
                              Counters& counters) -> std::shared_ptr<virtio::Device> {
                auto console = std::make_shared<virtio::Console>(
                    name, counters, context.events, *context.consoles[index], context.on_command);
                context.controls.virtio_consoles.push_back(console);
                context.controls.shut_down.emplace_back([console] { console->take_last_output(); });
                return console;
            }};
}

}  // namespace kvm_vmm
