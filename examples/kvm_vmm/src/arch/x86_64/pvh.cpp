// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/pvh.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/memory_map.hpp"
#include "util/error.hpp"
#include "util/text.hpp"

namespace kvm_vmm {
namespace {

constexpr std::uint32_t xen_elfnote_phys32_entry = 18;
constexpr std::uint64_t most_note_bytes = 1U << 20U;

// xen/include/public/arch-x86/hvm/start_info.h, little-endian, naturally aligned.
struct HvmStartInfo {
    std::uint32_t magic;
    std::uint32_t version;
    std::uint32_t flags;
    std::uint32_t module_count;
    std::uint64_t module_list;
    std::uint64_t command_line;
    std::uint64_t rsdp;
    std::uint64_t memory_map;  // from version 1 on
    std::uint32_t memory_map_entries;
    std::uint32_t reserved;
};
static_assert(sizeof(HvmStartInfo) == 56);

struct HvmModule {
    std::uint64_t address;
    std::uint64_t size;
    std::uint64_t command_line;
    std::uint64_t reserved;
};
static_assert(sizeof(HvmModule) == 32);

struct HvmMemoryMapEntry {
    std::uint64_t address;
    std::uint64_t size;
    std::uint32_t type;  // as in E820
    std::uint32_t reserved;
};
static_assert(sizeof(HvmMemoryMapEntry) == 24);

struct NoteHeader {
    std::uint32_t name_size;
    std::uint32_t description_size;
    std::uint32_t type;
};

struct NoteView {
    std::uint32_t type{};
    std::span<const std::uint8_t> name;
    std::span<const std::uint8_t> description;
};

/// Removes the first note from `rest`; returns nothing if it extends past the end. Padding counts from the
/// note's beginning: with an alignment of 8, the name "Xen" is followed by none (System V ABI, "Note
/// Section").
std::optional<NoteView> take_note(std::span<const std::uint8_t>& rest, std::uint64_t alignment) {
    NoteHeader header{};
    std::memcpy(&header, rest.data(), sizeof(header));
    const auto padded = [alignment](std::uint64_t size) {
        return (size + alignment - 1) / alignment * alignment;
    };
    const std::uint64_t description = padded(sizeof(header) + std::uint64_t{header.name_size});
    const std::uint64_t end = description + header.description_size;
    // A note with an empty description may end a segment without its padding.
    if (sizeof(header) + std::uint64_t{header.name_size} > rest.size() ||
        (end > rest.size() && header.description_size != 0)) {
        return std::nullopt;
    }
    NoteView note{
        .type = header.type, .name = rest.subspan(sizeof(header), header.name_size), .description = {}};
    if (header.description_size != 0) {
        note.description = rest.subspan(description, header.description_size);
    }
    rest = rest.subspan(std::min<std::uint64_t>(padded(end), rest.size()));
    return note;
}

std::optional<std::uint64_t> find_in(const ImageFile& file, std::span<const std::uint8_t> notes,
                                     std::uint64_t alignment) {
    constexpr std::array<std::uint8_t, 4> xen{'X', 'e', 'n', 0};
    while (notes.size() >= sizeof(NoteHeader)) {
        const auto note = take_note(notes, alignment);
        if (!note) {
            file.fail("has a malformed ELF note");
        }
        if (note->type == xen_elfnote_phys32_entry && std::ranges::equal(note->name, xen)) {
            const std::size_t size = note->description.size();
            if (size != 4 && size != 8) {
                file.fail("its PVH entry note has " + std::to_string(size) + " bytes, not 4 or 8");
            }
            std::uint64_t entry = 0;
            std::memcpy(&entry, note->description.data(), size);
            return entry;
        }
    }
    return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> find_pvh_entry(const ImageFile& file, const ElfImage& elf) {
    // The sum is limited: segments may overlap in the file, so that its size is no limit.
    std::uint64_t left = most_note_bytes;
    for (const ElfSegment& segment : elf.notes) {
        if (segment.file_size > left) {
            file.fail("has more than " + amount(most_note_bytes) + " of ELF notes");
        }
        left -= segment.file_size;
        std::vector<std::uint8_t> notes(segment.file_size);
        file.read(segment.offset, notes);
        if (const auto entry = find_in(file, notes, segment.alignment == 8 ? 8 : 4)) {
            if (!loads_physical(elf, *entry)) {
                file.fail("its PVH entry point " + hex(*entry) + " is in no segment");
            }
            return entry;
        }
    }
    return std::nullopt;
}

std::uint64_t write_pvh_start_info(GuestMemory& memory, const BootInfo& info) {
    constexpr std::uint32_t magic = 0x336E'C578;
    constexpr std::uint64_t module_list = layout::pvh_info + sizeof(HvmStartInfo);
    constexpr std::uint64_t map_start = module_list + sizeof(HvmModule);

    std::uint64_t next = map_start;
    bool written = true;
    std::uint32_t count = 0;
    for (const MemoryRange& range : memory_map(memory)) {
        const HvmMemoryMapEntry entry{range.address, range.size, static_cast<std::uint32_t>(range.type), 0};
        written = written && next + sizeof(entry) <= layout::pvh_info_end && memory.write_object(next, entry);
        next += sizeof(entry);
        ++count;
    }
    HvmStartInfo start{};
    start.magic = magic;
    start.version = 1;
    start.command_line = info.command_line;
    start.rsdp = info.acpi_rsdp;
    start.memory_map = map_start;
    start.memory_map_entries = count;
    if (info.initrd) {
        start.module_count = 1;
        start.module_list = module_list;
        written = written &&
                  memory.write_object(module_list, HvmModule{info.initrd->address, info.initrd->size, 0, 0});
    }
    if (!written || !memory.write_object(layout::pvh_info, start)) {
        throw VmmError(ExitCode::usage, "the guest has too little RAM for the boot parameters");
    }
    return layout::pvh_info;
}

}  // namespace kvm_vmm
