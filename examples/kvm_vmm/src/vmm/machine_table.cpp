// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/machine_table.hpp"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <utility>
#include <variant>

#include <vmdevice/range.hpp>
#include <vmdevice/resources.hpp>

#include "devices/balloon.hpp"
#include "devices/block_device.hpp"
#include "devices/debug_ports.hpp"
#include "devices/entropy_source.hpp"
#include "devices/keyboard_controller.hpp"
#include "devices/kvm_devices.hpp"
#include "devices/network_interface.hpp"
#include "devices/panic_port.hpp"
#include "devices/power_management.hpp"
#include "devices/real_time_clock.hpp"
#include "devices/reset_ports.hpp"
#include "devices/serial_port.hpp"
#include "devices/shared_directory.hpp"
#include "devices/socket_device.hpp"
#include "devices/virtio_console.hpp"
#include "devices/virtio_mmio.hpp"
#include "util/error.hpp"

namespace kvm_vmm {
namespace {

void append(std::string& list, const std::string& item) {
    if (!item.empty()) {
        list += list.empty() ? item : ", " + item;
    }
}

std::string hex_range(std::uint64_t first, std::uint64_t size) {
    std::array<char, 48> text{};
    if (size == 1) {
        std::snprintf(text.data(), text.size(), "0x%" PRIX64, first);
    } else {
        std::snprintf(text.data(), text.size(), "0x%" PRIX64 " to 0x%" PRIX64, first, first + size - 1);
    }
    return text.data();
}

std::string where(const Resources& resources) {
    std::string addresses;
    std::string interrupts;
    for (const vmdevice::ResourceConstraint& resource : resources) {
        if (const auto* const io = std::get_if<vmdevice::PioConstraint>(&resource)) {
            append(addresses, hex_range(io->base.value().value, io->size));
        } else if (const auto* const window = std::get_if<vmdevice::MmioConstraint>(&resource)) {
            append(addresses, hex_range(window->base.value().value, window->size));
        } else if (const auto* const line = std::get_if<vmdevice::LegacyIrqConstraint>(&resource)) {
            append(interrupts, "IRQ " + std::to_string(line->irq.value()));
        }
    }
    append(addresses, interrupts);
    return addresses;
}

// The virtio devices of a machine, in the order in which the guest finds them.
std::vector<VirtioDevice> virtio_devices(const VmmConfig& config) {
    std::vector<VirtioDevice> devices;
    for (std::size_t i = 0; i < config.disks.size(); ++i) {
        add_block_device(devices, i, config.disks[i]);
    }
    for (std::size_t i = 0; i < config.nets.size(); ++i) {
        add_net_device(devices, i);
    }
    for (std::size_t i = 0; i < config.consoles.size(); ++i) {
        devices.push_back(virtio_console(i));
    }
    if (config.balloon) {
        devices.push_back(balloon(*config.balloon));
    }
    for (std::size_t i = 0; i < config.shares.size(); ++i) {
        devices.push_back(shared_directory(i, config.shares[i].writable, config.shares[i].tag));
    }
    if (config.vsock) {
        devices.push_back(socket_device(config.vsock->cid));
    }
    if (config.rng) {
        devices.push_back(entropy_source());
    }
    return devices;
}

}  // namespace

std::vector<MachineDevice> machine_table(const VmmConfig& config) {
    std::vector<MachineDevice> table;
    for (std::size_t i = 0; i < config.serials.size(); ++i) {
        table.push_back(serial_port(i, config.serials.size(), config.serial_overflow));
    }
    if (config.i8042 != vmsuperio::I8042Profile::absent) {
        table.push_back(keyboard_controller(config.i8042));
    }
    table.push_back(real_time_clock());
    table.push_back(power_management());
    table.push_back(reset_control());
    table.push_back(system_control_port_a());
    table.push_back(panic_port());
    table.push_back(post_code_port());
    if (config.debug_console) {
        table.push_back(debug_console());
    }
    if (config.exit_port) {
        table.push_back(exit_port());
    }
    table.push_back(interrupt_controllers());
    table.push_back(interval_timer());
    table.push_back(io_apic());
    table.push_back(local_apics());
    place_virtio_devices(virtio_devices(config), table);
    return table;
}

void place_virtio_devices(std::vector<VirtioDevice> devices, std::vector<MachineDevice>& table) {
    if (devices.size() > max_virtio_devices) {
        throw VmmError(ExitCode::usage, "more than " + std::to_string(max_virtio_devices) +
                                            " virtio devices (disks, networks, shares and others)");
    }
    vmdevice::SystemAllocator allocator = make_allocator();
    const auto allocate = [&allocator](const vmdevice::ResourceConstraint& wanted, const std::string& name) {
        auto allocated = allocator.allocate(std::span(&wanted, 1));
        if (!allocated) {
            throw VmmError(ExitCode::usage,
                           name + ": too many devices: " + std::string(to_string(allocated.error())));
        }
        return *std::move(allocated);
    };
    for (const MachineDevice& row : table) {
        for (vmdevice::ResourceConstraint resource : row.description.resources) {
            // A line that drivers of other kinds of devices use is not shared with them.
            if (auto* const line = std::get_if<vmdevice::LegacyIrqConstraint>(&resource)) {
                if (line->sharing == vmdevice::IrqSharing::edge) {
                    line->sharing = vmdevice::IrqSharing::level;
                }
            }
            [[maybe_unused]] const auto reserved = allocate(resource, row.description.name);
        }
    }
    std::size_t index = 0;
    for (VirtioDevice& device : devices) {
        const auto windows = vmdevice::mmio_range(first_virtio_window, 0x1000'0000);
        const auto window = allocate(
            vmdevice::MmioConstraint{.size = virtio::mmio::window_size, .within = windows}, device.name);
        const auto line =
            allocate(vmdevice::LegacyIrqConstraint{.sharing = vmdevice::IrqSharing::edge}, device.name);
        table.push_back(virtio_mmio_device(std::move(device), index++,
                                           window.get_mmio_address_ranges().front(),
                                           line.get_legacy_irq().value()));
    }
}

Platform platform_of(const VmmConfig& config, std::span<const MachineDevice> table) {
    Platform platform{.cpus = config.cpus, .devices = {}};
    for (const MachineDevice& row : table) {
        platform.devices.push_back(row.description);
    }
    return platform;
}

vmdevice::SystemAllocator make_allocator() {
    constexpr std::uint64_t device_memory = 0xC000'0000;  // where GuestMemory leaves its gap
    return vmdevice::SystemAllocator(
        // All ports but the last: a range cannot be a whole address space.
        {.pio = vmdevice::PioRange::create({0}, 0xFFFF).value(),
         .mmio = vmdevice::MmioRange::create({device_memory}, (1ULL << 32U) - device_memory).value(),
         .irq = vmdevice::NumberRange::create(vmdevice::Number{0}, platform::ioapic_pins).value()});
}

void create_devices(std::span<const MachineDevice> table, vmdevice::DeviceManager& manager,
                    const DeviceContext& context) {
    for (const MachineDevice& row : table) {
        const std::string& name = row.description.name;
        const Resources& resources = row.description.resources;
        const auto register_on_bus = [&](const auto& device) {
            return manager.register_device(name, device, resources);
        };
        auto registered =
            row.create ? row.create(context, context.observer.devices().add(name)).visit(register_on_bus)
                       : manager.reserve(name, resources);
        if (!registered) {
            throw VmmError(ExitCode::vmm_error, name + ": " + to_string(registered.error()));
        }
    }
    context.observer.devices().place(manager.list());
}

std::string to_markdown(std::span<const MachineDevice> table) {
    std::string text = "| device | name | where | emulated by |\n| --- | --- | --- | --- |\n";
    for (const MachineDevice& row : table) {
        const DeviceDescription& device = row.description;
        text += "| " + device.title + " | `" + device.name + "` | " + where(device.resources) +
                (device.note.empty() ? "" : "; " + device.note) + " | " +
                (row.create ? '`' + device.model + '`' : device.model) + " |\n";
    }
    return text;
}

}  // namespace kvm_vmm
