// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/boot_cpu.hpp"

#include <array>

#include "arch/x86_64/layout.hpp"
#include "util/error.hpp"

namespace kvm_vmm {
namespace {

// Selectors that the Linux boot protocol prescribes (__BOOT_CS, __BOOT_DS); the TSS follows them.
constexpr std::uint16_t code_selector = 0x10;
constexpr std::uint16_t data_selector = 0x18;
constexpr std::uint16_t task_selector = 0x20;
constexpr std::uint32_t flat_limit = 0xFFFF'FFFF;
constexpr std::uint32_t tss_limit = 0x67;

constexpr std::uint64_t cr0_protection = 1U << 0U;
constexpr std::uint64_t cr0_extension_type = 1U << 4U;  // fixed to 1
constexpr std::uint64_t cr0_paging = 1U << 31U;
constexpr std::uint64_t cr4_physical_address_extension = 1U << 5U;
constexpr std::uint64_t efer_long_mode_enable = 1U << 8U;
constexpr std::uint64_t efer_long_mode_active = 1U << 10U;
constexpr std::uint64_t rflags_fixed = 1U << 1U;  // fixed to 1; interrupts are off

/// Intel SDM vol. 3, figure 3-8.
constexpr std::uint64_t descriptor(const BootSegment& segment) noexcept {
    const std::uint64_t limit = segment.granularity ? segment.limit >> 12U : segment.limit;
    const std::uint64_t base = segment.base;
    return (limit & 0xFFFFU) | (base & 0xFF'FFFFU) << 16U | std::uint64_t{segment.type} << 40U |
           std::uint64_t{segment.code_or_data} << 44U | std::uint64_t{segment.present} << 47U |
           (limit >> 16U & 0xFU) << 48U | std::uint64_t{segment.long_mode} << 53U |
           std::uint64_t{segment.default_32} << 54U | std::uint64_t{segment.granularity} << 55U |
           (base >> 24U & 0xFFU) << 56U;
}

void require(bool written) {
    if (!written) {
        throw VmmError(ExitCode::usage, "the guest has too little RAM to start a CPU in");
    }
}

/// PML4 -> PDPT -> 4 page directories of 2 MiB pages: 4 GiB, virtual = physical.
void write_identity_map(GuestMemory& memory) {
    constexpr std::uint64_t present_writable = 0x3;
    constexpr std::uint64_t large_page = 0x80;
    constexpr std::uint64_t entries = 512;
    constexpr std::uint64_t directories = 4;
    constexpr std::uint64_t pdpt = layout::page_tables + layout::page_size;
    constexpr std::uint64_t first_directory = pdpt + layout::page_size;
    static_assert(first_directory + directories * layout::page_size == layout::page_tables_end);

    require(memory.write_object(layout::page_tables, pdpt | present_writable));
    for (std::uint64_t i = 0; i < directories; ++i) {
        const std::uint64_t directory = first_directory + i * layout::page_size;
        require(memory.write_object(pdpt + i * 8, directory | present_writable));
        std::array<std::uint64_t, entries> pages{};
        for (std::uint64_t j = 0; j < entries; ++j) {
            pages.at(j) = ((i * entries + j) << 21U) | present_writable | large_page;
        }
        require(memory.write_object(directory, pages));
    }
}

}  // namespace

BootCpu setup_boot_cpu(GuestMemory& memory, const EntryPoint& entry) {
    const bool long_mode = entry.protocol == EntryPoint::Protocol::linux64;
    BootCpu cpu;
    // Types: code execute/read accessed, data read/write accessed, busy TSS.
    cpu.code = {.base = 0,
                .limit = flat_limit,
                .selector = code_selector,
                .type = 0xB,
                .code_or_data = true,
                .present = true,
                .default_32 = !long_mode,
                .long_mode = long_mode,
                .granularity = true};
    cpu.data = {.base = 0,
                .limit = flat_limit,
                .selector = data_selector,
                .type = 0x3,
                .code_or_data = true,
                .present = true,
                .default_32 = true,
                .long_mode = false,
                .granularity = true};
    cpu.task = {.base = 0,
                .limit = tss_limit,
                .selector = task_selector,
                .type = 0xB,
                .code_or_data = false,
                .present = true,
                .default_32 = false,
                .long_mode = false,
                .granularity = false};

    // A TSS descriptor takes two entries in long mode; the second one is the upper half of its base, 0.
    const std::array<std::uint64_t, 6> gdt{
        0, 0, descriptor(cpu.code), descriptor(cpu.data), descriptor(cpu.task), 0};
    static_assert(layout::gdt + sizeof(gdt) <= layout::idt);
    require(memory.write_object(layout::gdt, gdt));
    require(memory.write_object(layout::idt, std::uint64_t{0}));
    cpu.gdt = {layout::gdt, sizeof(gdt) - 1};
    cpu.idt = {layout::idt, sizeof(std::uint64_t) - 1};

    cpu.cr0 = cr0_protection | cr0_extension_type;
    if (long_mode) {
        write_identity_map(memory);
        cpu.cr0 |= cr0_paging;
        cpu.cr3 = layout::page_tables;
        cpu.cr4 = cr4_physical_address_extension;
        cpu.efer = efer_long_mode_enable | efer_long_mode_active;
    }
    cpu.rip = entry.rip;
    cpu.rsp = layout::stack_top;
    (entry.protocol == EntryPoint::Protocol::pvh32 ? cpu.rbx : cpu.rsi) = entry.boot_info;
    cpu.rflags = rflags_fixed;
    return cpu;
}

}  // namespace kvm_vmm
