// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/zero_page.hpp"

#include <algorithm>
#include <asm/bootparam.h>
#include <cstring>
#include <type_traits>

#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/memory_map.hpp"
#include "util/error.hpp"

namespace kvm_vmm {
namespace {

static_assert(sizeof(boot_params) == layout::page_size);

/// A vmlinux has no setup header: this one has the fields that its entry point reads.
setup_header header_for_elf(const KernelImage& kernel) {
    setup_header header{};
    header.boot_flag = 0xAA55;
    header.header = 0x53726448;  // "HdrS"
    header.version = 0x020C;
    header.loadflags = LOADED_HIGH;
    header.initrd_addr_max = static_cast<std::uint32_t>(kernel.initrd_limit);
    header.cmdline_size = kernel.command_line_limit;
    header.kernel_alignment = 0x20'0000;
    header.xloadflags = kernel.protocol == EntryPoint::Protocol::linux64 ? XLF_KERNEL_64 : 0;
    return header;
}

}  // namespace

std::uint64_t write_zero_page(GuestMemory& memory, const KernelImage& kernel, const BootInfo& info) {
    constexpr std::uint8_t loader_without_id = 0xFF;
    constexpr std::uint16_t video_mode_normal = 0xFFFF;

    // All other fields stay 0. A zeroed screen_info means that there is no VGA text screen.
    boot_params page{};
    if (kernel.setup_header.empty()) {
        page.hdr = header_for_elf(kernel);
    } else {
        // A newer kernel's header may be longer than this struct: there is room for it until 0x290.
        constexpr std::size_t room = offsetof(boot_params, edd_mbr_sig_buffer) - offsetof(boot_params, hdr);
        const std::size_t length = std::min(kernel.setup_header.size(), room);
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): bytes of a trivial object
        std::memcpy(reinterpret_cast<std::uint8_t*>(&page) + offsetof(boot_params, hdr),
                    kernel.setup_header.data(), length);
    }
    page.hdr.type_of_loader = loader_without_id;
    page.hdr.ext_loader_ver = 0;
    page.hdr.ext_loader_type = 0;
    page.hdr.vid_mode = video_mode_normal;
    page.hdr.code32_start = static_cast<std::uint32_t>(kernel.begin);
    page.hdr.loadflags =
        static_cast<std::uint8_t>(page.hdr.loadflags & ~(CAN_USE_HEAP | QUIET_FLAG | KEEP_SEGMENTS));
    page.hdr.heap_end_ptr = 0;
    page.hdr.hardware_subarch = X86_SUBARCH_PC;
    page.hdr.hardware_subarch_data = 0;
    page.hdr.cmd_line_ptr = static_cast<std::uint32_t>(info.command_line);
    page.hdr.setup_data = 0;
    page.hdr.ramdisk_image = 0;
    page.hdr.ramdisk_size = 0;
    if (info.initrd) {
        page.hdr.ramdisk_image = static_cast<std::uint32_t>(info.initrd->address);
        page.hdr.ramdisk_size = static_cast<std::uint32_t>(info.initrd->size);
    }
    page.acpi_rsdp_addr = info.acpi_rsdp;

    for (const MemoryRange& range : memory_map(memory)) {
        // There are three fixed ranges and one for each region of GuestMemory, far fewer than fit into the
        // table.
        boot_e820_entry& entry = page.e820_table[page.e820_entries++];
        entry.addr = range.address;
        entry.size = range.size;
        entry.type = static_cast<std::uint32_t>(range.type);
    }
    if (!memory.write_object(layout::zero_page, page)) {
        throw VmmError(ExitCode::usage, "the guest has too little RAM for the boot parameters");
    }
    return layout::zero_page;
}

}  // namespace kvm_vmm
