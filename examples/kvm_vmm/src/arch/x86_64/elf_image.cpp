// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/elf_image.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <elf.h>
#include <span>
#include <string>
#include <vector>

#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/pvh.hpp"
#include "util/text.hpp"

namespace kvm_vmm {
namespace {

/// For kernels that do not specify it: the limit that 64-bit Linux has always had (initrd_addr_max).
constexpr std::uint64_t default_initrd_limit = 0x7FFF'FFFF;

/// What the kernel takes if its image does not specify it: COMMAND_LINE_SIZE of x86, less the final NUL.
constexpr std::uint32_t default_command_line_limit = 2047;

/// A kernel has about ten. The limit bounds the work that a file can cause.
constexpr std::size_t most_program_headers = 256;

struct Elf32 {
    using Header = Elf32_Ehdr;
    using ProgramHeader = Elf32_Phdr;
    static constexpr std::uint16_t machine = EM_386;
};
struct Elf64 {
    using Header = Elf64_Ehdr;
    using ProgramHeader = Elf64_Phdr;
    static constexpr std::uint16_t machine = EM_X86_64;
};

constexpr bool contains(std::uint64_t start, std::uint64_t size, std::uint64_t address) noexcept {
    return address >= start && address - start < size;
}

void check_load(const ImageFile& file, const ElfSegment& segment, std::uint64_t ram_end) {
    const std::string where = "segment at " + hex(segment.physical_address);
    if (segment.file_size > segment.memory_size) {
        file.fail(where + " has more bytes in the file than in memory");
    }
    if (segment.physical_address < layout::high_memory) {
        file.fail(where + " is below 1 MiB: not a kernel that can be loaded");
    }
    if (segment.physical_address >= ram_end || segment.memory_size > ram_end - segment.physical_address) {
        file.fail(where + " with " + amount(segment.memory_size) +
                  " does not fit the guest's RAM, which ends at " + amount(ram_end));
    }
}

void check_overlap(const ImageFile& file, std::vector<ElfSegment>& loads) {
    std::ranges::sort(loads, {}, &ElfSegment::physical_address);
    const auto overlap = std::ranges::adjacent_find(loads, [](const ElfSegment& a, const ElfSegment& b) {
        return b.physical_address - a.physical_address < a.memory_size;
    });
    if (overlap != loads.end()) {
        file.fail("segments overlap at " + hex(std::next(overlap)->physical_address));
    }
}

template <class Elf>
ElfImage read_as(const ImageFile& file, std::uint64_t ram_end) {
    using ProgramHeader = typename Elf::ProgramHeader;
    const auto header = file.read_object<typename Elf::Header>(0);
    if (header.e_machine != Elf::machine) {
        file.fail("is an ELF file for another machine (number " + std::to_string(header.e_machine) +
                  "), not for x86");
    }
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
        file.fail("is an ELF file but not an executable (type " + std::to_string(header.e_type) + ")");
    }
    if (header.e_phnum == 0 || header.e_phnum == PN_XNUM || header.e_phentsize != sizeof(ProgramHeader)) {
        file.fail("has no usable ELF program headers (" + std::to_string(header.e_phnum) + " of " +
                  std::to_string(header.e_phentsize) + " bytes)");
    }
    if (header.e_phnum > most_program_headers) {
        file.fail("has " + std::to_string(header.e_phnum) + " ELF program headers; at most " +
                  std::to_string(most_program_headers) + " are read");
    }
    if (!file.contains(header.e_phoff, std::uint64_t{header.e_phnum} * sizeof(ProgramHeader))) {
        file.fail("is truncated: its ELF program headers are beyond its end");
    }

    ElfImage elf{.is_64 = sizeof(ProgramHeader) == sizeof(Elf64_Phdr),
                 .entry = header.e_entry,
                 .loads = {},
                 .notes = {}};
    std::vector<ProgramHeader> entries(header.e_phnum);
    const auto bytes = std::as_writable_bytes(std::span(entries));
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the bytes of trivial objects
    file.read(header.e_phoff, {reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size()});
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const ProgramHeader& entry = entries[i];
        if (entry.p_type != PT_LOAD && entry.p_type != PT_NOTE) {
            continue;
        }
        const ElfSegment segment{entry.p_offset, entry.p_vaddr, entry.p_paddr,
                                 entry.p_filesz, entry.p_memsz, entry.p_align};
        if (!file.contains(segment.offset, segment.file_size)) {
            file.fail("is truncated: segment " + std::to_string(i) + " (" +
                      std::to_string(segment.file_size) + " bytes at " + hex(segment.offset) +
                      ") is beyond its end");
        }
        if (entry.p_type == PT_NOTE) {
            elf.notes.push_back(segment);
        } else if (segment.memory_size != 0) {
            check_load(file, segment, ram_end);
            elf.loads.push_back(segment);
        }
    }
    if (elf.loads.empty()) {
        file.fail("has no ELF segment to load");
    }
    check_overlap(file, elf.loads);
    return elf;
}

}  // namespace

bool is_elf(const ImageFile& file) {
    return file.contains(0, EI_NIDENT) && file.read_object<std::uint32_t>(0) == 0x464C'457F;  // "\x7fELF"
}

ElfImage read_elf(const ImageFile& file, std::uint64_t ram_end) {
    const auto identification = file.read_object<std::array<std::uint8_t, EI_NIDENT>>(0);
    if (identification[EI_DATA] != ELFDATA2LSB || identification[EI_VERSION] != EV_CURRENT) {
        file.fail("is an ELF file for another machine (not little-endian)");
    }
    switch (identification[EI_CLASS]) {
        case ELFCLASS64:
            return read_as<Elf64>(file, ram_end);
        case ELFCLASS32:
            return read_as<Elf32>(file, ram_end);
        default:
            file.fail("is an ELF file of unknown class " + std::to_string(identification[EI_CLASS]));
    }
}

bool loads_physical(const ElfImage& elf, std::uint64_t address) noexcept {
    return std::ranges::any_of(elf.loads, [address](const ElfSegment& segment) {
        return contains(segment.physical_address, segment.file_size, address);
    });
}

std::uint64_t physical_entry(const ImageFile& file, const ElfImage& elf) {
    // Linux has a physical address there, other kernels a virtual one.
    if (loads_physical(elf, elf.entry)) {
        return elf.entry;
    }
    for (const ElfSegment& segment : elf.loads) {
        if (contains(segment.virtual_address, segment.file_size, elf.entry)) {
            return segment.physical_address + (elf.entry - segment.virtual_address);
        }
    }
    file.fail("its ELF entry point " + hex(elf.entry) + " is in no segment");
}

KernelImage load_elf(GuestMemory& memory, const ImageFile& file, BootProtocol wanted) {
    const ElfImage elf = read_elf(file, memory.low_end());
    KernelImage kernel;
    kernel.format = KernelImage::Format::elf;
    const auto pvh_entry = wanted == BootProtocol::linux_boot ? std::nullopt : find_pvh_entry(file, elf);
    if (pvh_entry) {
        kernel.protocol = EntryPoint::Protocol::pvh32;
        kernel.entry = *pvh_entry;
    } else if (wanted == BootProtocol::pvh) {
        file.fail("has no PVH entry point (no XEN_ELFNOTE_PHYS32_ENTRY note)");
    } else {
        kernel.protocol = elf.is_64 ? EntryPoint::Protocol::linux64 : EntryPoint::Protocol::linux32;
        kernel.entry = physical_entry(file, elf);
    }
    for (const ElfSegment& segment : elf.loads) {
        // The part of memory_size beyond file_size is zero already.
        file.read_into(memory, segment.physical_address, segment.offset, segment.file_size);
    }
    kernel.begin = elf.loads.front().physical_address;
    kernel.end = elf.loads.back().physical_address + elf.loads.back().memory_size;
    kernel.initrd_limit = default_initrd_limit;
    kernel.command_line_limit = default_command_line_limit;
    return kernel;
}

}  // namespace kvm_vmm
