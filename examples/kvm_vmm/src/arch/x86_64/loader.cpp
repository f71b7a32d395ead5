// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/loader.hpp"

#include <cstdint>
#include <string>
#include <variant>

#include <vmdevice/resources.hpp>

#include "acpi/tables.hpp"
#include "arch/x86_64/boot_info.hpp"
#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/memory_map.hpp"
#include "arch/x86_64/mptable.hpp"
#include "arch/x86_64/pvh.hpp"
#include "arch/x86_64/zero_page.hpp"
#include "boot/command_line.hpp"
#include "boot/image_file.hpp"
#include "util/error.hpp"
#include "util/text.hpp"

namespace kvm_vmm {
namespace {

// A kernel that does not read the ACPI tables finds virtio devices through its command line
// (Documentation/admin-guide/kernel-parameters.txt, virtio_mmio.device).
std::string device_parameters(const Platform& machine) {
    std::string parameters;
    for (const DeviceDescription& device : machine.devices) {
        for (const AcpiNode& node : device.acpi_nodes) {
            if (node.hardware_id != platform::virtio_mmio_hardware_id) {
                continue;
            }
            std::uint64_t base = 0;
            std::uint64_t size = 0;
            std::uint32_t irq = 0;
            for (const vmdevice::ResourceConstraint& resource : node.resources) {
                if (const auto* const window = std::get_if<vmdevice::MmioConstraint>(&resource)) {
                    base = window->base.value().value;
                    size = window->size;
                } else if (const auto* const line = std::get_if<vmdevice::LegacyIrqConstraint>(&resource)) {
                    irq = line->irq.value();
                }
            }
            parameters += (parameters.empty() ? "" : " ") + std::string("virtio_mmio.device=") + hex(size) +
                          '@' + hex(base) + ':' + std::to_string(irq);
        }
    }
    return parameters;
}

}  // namespace

LoadedGuest load_guest(GuestMemory& memory, const BootImages& images, const BootOptions& options,
                       const Platform& machine) {
    if (machine.cpus == 0 || machine.cpus > platform::max_local_apics) {
        throw VmmError(ExitCode::usage,
                       "the number of CPUs must be 1 to " + std::to_string(platform::max_local_apics));
    }
    // With less RAM there would be no room for the firmware tables; checked once here for all writers.
    if (memory.low_end() < layout::minimum_ram || !write_bios_data_area(memory)) {
        throw VmmError(ExitCode::usage,
                       "the guest needs at least " + amount(layout::minimum_ram) + " of RAM");
    }
    LoadedGuest guest;
    guest.kernel = load_kernel(memory, images.kernel, options.protocol);
    if (images.initrd != nullptr) {
        guest.initrd = load_initrd(memory, *images.initrd, guest.kernel);
    }
    const std::uint32_t limit = guest.kernel.command_line_limit;
    guest.command_line = has_parameter(options.command_line, "acpi", "off")
                             ? with_parameters(options.command_line, device_parameters(machine))
                             : options.command_line;
    guest.command_line =
        without_pci(guest.command_line, longest_command_line(layout::command_line_space, limit));
    const std::uint64_t command_line =
        write_command_line(memory, layout::command_line_space, guest.command_line, limit);
    const std::uint64_t rsdp = write_acpi_tables(memory, layout::acpi_tables, machine);
    write_mptable(memory, machine);
    guest.entry.protocol = guest.kernel.protocol;
    guest.entry.rip = guest.kernel.entry;
    const BootInfo info{.command_line = command_line, .initrd = guest.initrd, .acpi_rsdp = rsdp};
    guest.entry.boot_info = guest.kernel.protocol == EntryPoint::Protocol::pvh32
                                ? write_pvh_start_info(memory, info)
                                : write_zero_page(memory, guest.kernel, info);
    guest.boot_cpu = setup_boot_cpu(memory, guest.entry);
    return guest;
}

LoadedGuest load_guest(GuestMemory& memory, const BootOptions& options, const Platform& machine) {
    const ImageFile kernel("kernel", options.kernel_path, options.checkpoint);
    std::optional<ImageFile> initrd;
    if (options.initrd_path) {
        initrd.emplace("initrd", *options.initrd_path, options.checkpoint);
    }
    return load_guest(memory, {kernel, initrd ? &*initrd : nullptr}, options, machine);
}

}  // namespace kvm_vmm
