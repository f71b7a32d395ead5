// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>

#include "memory/guest_memory.hpp"

/// The layout of guest memory. The loader's own data are below 1 MiB; the kernel and the initrd are above.
///
/// ```
/// 0x00400  BIOS data area: the two words that give the address of the EBDA
/// 0x00500  GDT, then an empty IDT
/// 0x06000  PVH start info, module list, memory map
/// 0x07000  Linux zero page (boot_params)
/// 0x08000  a stack for the first instructions
/// 0x09000  page tables: PML4, PDPT, 4 page directories
/// 0x20000  command line
/// 0x9fc00  EBDA, reserved
/// 0xa0000  hole (VGA on a PC)
/// 0xe0000  ACPI: RSDP first, where the search for it begins; then the tables. Reserved
/// 0xf0000  MP floating pointer and MP configuration table. Reserved
/// 0x100000 kernel and initrd from here
/// ```
namespace kvm_vmm::layout {

inline constexpr std::uint64_t page_size = 0x1000;

inline constexpr std::uint64_t bios_data_area = 0x400;
inline constexpr std::uint64_t gdt = 0x500;
inline constexpr std::uint64_t idt = 0x5F8;
inline constexpr std::uint64_t pvh_info = 0x6000;
inline constexpr std::uint64_t pvh_info_end = 0x7000;
inline constexpr std::uint64_t zero_page = 0x7000;
inline constexpr std::uint64_t stack_top = 0x8FF0;
inline constexpr std::uint64_t page_tables = 0x9000;
inline constexpr std::uint64_t page_tables_end = 0xF000;
inline constexpr std::uint64_t command_line = 0x2'0000;
inline constexpr std::uint64_t command_line_end = 0x3'0000;
inline constexpr GuestRange command_line_space{.address = command_line,
                                               .size = command_line_end - command_line};
inline constexpr std::uint64_t ebda = 0x9'FC00;
inline constexpr std::uint64_t low_memory_end = 0xA'0000;
inline constexpr std::uint64_t firmware = 0xE'0000;
inline constexpr std::uint64_t acpi = firmware;
inline constexpr std::uint64_t acpi_end = 0xF'0000;
/// For the ACPI tables, where BIOS searches find the RSDP.
inline constexpr GuestRange acpi_tables{.address = acpi, .size = acpi_end - acpi};
inline constexpr std::uint64_t mptable = 0xF'0000;
inline constexpr std::uint64_t mptable_end = 0x10'0000;
inline constexpr std::uint64_t high_memory = 0x10'0000;

/// The least RAM that load_guest() accepts; the kernel itself needs more.
inline constexpr std::uint64_t minimum_ram = high_memory;

}  // namespace kvm_vmm::layout
