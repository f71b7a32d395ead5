// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/loader.hpp"

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
    const std::uint64_t command_line = write_command_line(
        memory, layout::command_line_space, options.command_line, guest.kernel.command_line_limit);
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
