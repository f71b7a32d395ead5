// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <vmdevice/resources.hpp>

#include "devices/interrupt.hpp"
#include "devices/machine_device.hpp"
#include "event/notifier.hpp"
#include "machine/platform.hpp"
#include "virtio/device.hpp"
#include "virtio/mmio_transport.hpp"

namespace kvm_vmm {

/// A virtio device before it has an address: it becomes a row of the machine table when it is placed.
struct VirtioDevice {
    std::string name;   ///< in traces, counters and messages: "disk0"
    std::string title;  ///< for the manual
    std::string model;  ///< for the manual
    // NOLINTNEXTLINE(readability-redundant-member-init): GCC warns of rows that leave it out
    std::string note{};  ///< for the manual
    std::function<std::shared_ptr<virtio::Device>(const DeviceContext&, std::string_view name, Counters&)>
        create;
};

/// The addresses of virtio devices begin here; each has a page.
inline constexpr std::uint64_t first_virtio_window = 0xD000'0000;

/// The row of a device at a window and an interrupt line that other virtio devices may share: the transport
/// sends edges, and the drivers poll all devices of the line.
[[nodiscard]] inline MachineDevice virtio_mmio_device(VirtioDevice device, std::size_t index,
                                                      vmdevice::MmioRange window, std::uint32_t gsi) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    const std::string node{'V', 'R', digits.at(index / 16 % 16), digits.at(index % 16)};
    DeviceDescription description =
        with_acpi_node({.name = device.name,
                        .title = std::move(device.title),
                        .model = std::move(device.model),
                        .note = std::move(device.note),
                        .resources = {mmio_window(window), interrupt(gsi, vmdevice::IrqSharing::edge)}},
                       node, std::string(platform::virtio_mmio_hardware_id), index);
    description.acpi_nodes.front().dma_coherent = true;
    const auto create = [name = std::move(device.name), create = std::move(device.create), window, gsi](
                            const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
        auto transport = std::make_shared<virtio::MmioTransport>(
            context.memory, create(context, observed.name, context.observer.counters(name)),
            make_interrupt(context.vm, gsi), context.writes_on_their_way);
        std::uint32_t queue = 0;
        for (const Notifier& notifier : transport->notifiers()) {
            context.vm.register_ioeventfd(notifier.fd(), window.base().value + virtio::mmio::queue_notify,
                                          queue++);
        }
        context.controls.shut_down.emplace_back([transport] { transport->shut_down(); });
        observed.register_name = [](std::uint64_t offset, bool) {
            return virtio::mmio_register_name(offset);
        };
        return transport;
    };
    return {.description = std::move(description),
            .create = create,
            .coalesced_registers = {window.base().value + virtio::mmio::interrupt_ack}};
}

}  // namespace kvm_vmm
