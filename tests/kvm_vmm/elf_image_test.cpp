// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/elf_image.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "boot_images.hpp"
#include "catch.hpp"

using namespace kvm_vmm;
using namespace boot_images;
using Catch::Matchers::Contains;

namespace {

constexpr std::uint64_t mib = 1U << 20U;

KernelImage load(GuestMemory& memory, const Bytes& image, BootProtocol wanted = BootProtocol::automatic) {
    const MemoryFile file(image);
    return load_kernel(memory, ImageFile("kernel", file.path()), wanted);
}

std::string refusal(const Bytes& image, BootProtocol wanted = BootProtocol::automatic,
                    std::uint64_t ram = 16 * mib) {
    GuestMemory memory(ram);
    return error_of(ExitCode::bad_file, [&] { static_cast<void>(load(memory, image, wanted)); });
}

std::string refusal_with(const std::function<void(Elf64Parts&)>& spoil) {
    Elf64Parts parts = good_elf_parts();
    spoil(parts);
    return refusal(make_elf(parts));
}

}  // namespace

TEST_CASE(
    "ELF: segments are loaded at their physical addresses, and parts that are not in the file stay zero",
    "[boot][elf]") {
    GuestMemory memory(16 * mib);
    const Bytes image = make_elf();
    const KernelImage kernel = load(memory, image);
    CHECK(kernel.format == KernelImage::Format::elf);
    CHECK(kernel.protocol == EntryPoint::Protocol::linux64);
    CHECK(kernel.entry == elf_physical + 0x40);
    CHECK(kernel.begin == elf_physical);
    CHECK(kernel.end == elf_data_physical + 0x5000);
    CHECK(kernel.command_line_limit == 2047);
    CHECK(kernel.setup_header.empty());
    const auto code = memory.slice(elf_physical, elf_code_size);
    const auto data = memory.slice(elf_data_physical, 0x200);
    REQUIRE((code && data));
    CHECK(std::equal(code->begin(), code->end(), image.begin() + elf_code_offset));
    CHECK(std::equal(data->begin(), data->end(), image.begin() + elf_code_offset + elf_code_size));
    CHECK(memory.read_object<std::uint64_t>(elf_physical + elf_code_size) == 0U);
    CHECK(memory.read_object<std::uint64_t>(elf_data_physical + 0x200) == 0U);
    CHECK(memory.read_object<std::uint64_t>(elf_physical - 8) == 0U);
}

TEST_CASE("ELF: a virtual entry point is translated to a physical one", "[boot][elf]") {
    GuestMemory memory(16 * mib);
    Elf64Parts parts = good_elf_parts();
    parts.header.e_entry = elf_virtual + 0x123;
    CHECK(load(memory, make_elf(parts)).entry == elf_physical + 0x123);
}

TEST_CASE("ELF: a 32-bit kernel is entered by the 32-bit protocol, or by PVH if it has the note",
          "[boot][elf]") {
    GuestMemory memory(16 * mib);
    const KernelImage kernel = load(memory, make_elf32());
    CHECK(kernel.protocol == EntryPoint::Protocol::linux32);
    CHECK(kernel.entry == 0x20'0010);
    GuestMemory second(16 * mib);
    const KernelImage pvh = load(second, make_elf32({pvh_note(0x20'0020)}));
    CHECK(pvh.protocol == EntryPoint::Protocol::pvh32);
    CHECK(pvh.entry == 0x20'0020);
}

TEST_CASE("PVH: the note is found among others, and preferred unless the Linux protocol is asked for",
          "[boot][elf][pvh]") {
    GuestMemory memory(16 * mib);
    const Bytes image = make_elf(good_elf_parts(), {{"GNU", 18, Bytes(7, 1)},
                                                    {"Xen", 6, {'l', 'i', 'n', 'u', 'x', 0}},
                                                    {"", 18, {}},
                                                    pvh_note(elf_physical + 0x80),
                                                    pvh_note(elf_physical + 0x90)});
    const KernelImage kernel = load(memory, image);
    CHECK(kernel.protocol == EntryPoint::Protocol::pvh32);
    CHECK(kernel.entry == elf_physical + 0x80);
    CHECK(load(memory, image, BootProtocol::pvh).entry == elf_physical + 0x80);
    const KernelImage direct = load(memory, image, BootProtocol::linux_boot);
    CHECK(direct.protocol == EntryPoint::Protocol::linux64);
    CHECK(direct.entry == elf_physical + 0x40);
}

TEST_CASE("PVH: an entry of eight bytes counts as well, any other size does not", "[boot][elf][pvh]") {
    GuestMemory memory(16 * mib);
    Note note = pvh_note(static_cast<std::uint32_t>(elf_physical));
    note.description.resize(8);
    CHECK(load(memory, make_elf(good_elf_parts(), {note})).entry == elf_physical);
    note.description.resize(6);
    CHECK_THAT(refusal(make_elf(good_elf_parts(), {note})), Contains("has 6 bytes, not 4 or 8"));
    note.description.clear();
    CHECK_THAT(refusal(make_elf(good_elf_parts(), {note})), Contains("has 0 bytes, not 4 or 8"));
}

TEST_CASE("PVH: an entry outside the kernel and malformed notes are refused", "[boot][elf][pvh]") {
    CHECK_THAT(refusal(make_elf(good_elf_parts(), {pvh_note(0x1000)})),
               Contains("PVH entry point 0x1000 is in no segment"));
    CHECK_THAT(refusal(make_elf(good_elf_parts(), {pvh_note(elf_data_physical + 0x200)})),  // in bss
               Contains("is in no segment"));
    CHECK_THAT(refusal(make_elf(), BootProtocol::pvh), Contains("no XEN_ELFNOTE_PHYS32_ENTRY"));

    Bytes image = make_elf(good_elf_parts(), {pvh_note(static_cast<std::uint32_t>(elf_physical))});
    put(image, elf_notes_offset, std::uint32_t{0xFFFF'FFFF});
    CHECK_THAT(refusal(image), Contains("malformed ELF note"));
    image = make_elf(good_elf_parts(), {pvh_note(static_cast<std::uint32_t>(elf_physical))});
    put(image, elf_notes_offset + 4, std::uint32_t{0xFFFF'FFFD});
    CHECK_THAT(refusal(image), Contains("malformed ELF note"));
    // They do not matter if PVH is not requested.
    CHECK(refusal(image, BootProtocol::linux_boot) == "(no error)");
}

TEST_CASE("ELF: each header field that is used is checked, and a bad one is refused with a clear line",
          "[boot][elf]") {
    CHECK(refusal_with([](Elf64Parts&) {}) == "(no error)");
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_ident[EI_MAG0] = 0; }),
               Contains("is not a kernel image"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_ident[EI_CLASS] = 9; }),
               Contains("unknown class 9"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_ident[EI_DATA] = ELFDATA2MSB; }),
               Contains("not little-endian"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_machine = EM_AARCH64; }), Contains("number 183"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_type = ET_REL; }), Contains("not an executable"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments.clear(); }),
               Contains("no usable ELF program headers"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_phentsize = 32; }),
               Contains("no usable ELF program headers"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_phoff = ~0ULL; }), Contains("beyond its end"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[0].p_offset = ~0ULL; }),
               Contains("is beyond its end"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[1].p_filesz = 0x10'0000; }),
               Contains("is beyond its end"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[1].p_memsz = 0x100; }),
               Contains("more bytes in the file"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[0].p_paddr = 0xF'FFFF; }),
               Contains("below 1 MiB"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[1].p_paddr = ~0ULL; }), Contains("does not fit"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[1].p_memsz = ~0ULL; }), Contains("does not fit"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[1].p_memsz = 13 * mib + 1; }),
               Contains("does not fit"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[1].p_paddr = elf_physical + elf_code_size - 1; }),
               Contains("segments overlap at 0x2007ff"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.header.e_entry = 0x10; }),
               Contains("entry point 0x10 is in no segment"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) { p.segments[2].p_offset = elf_file_size + 1; }),
               Contains("is beyond its end"));
    CHECK_THAT(refusal_with([](Elf64Parts& p) {
                   p.segments[0].p_type = PT_NULL;
                   p.segments[1].p_type = PT_NULL;
               }),
               Contains("no ELF segment to load"));
}

TEST_CASE("ELF: adjacent segments are loaded in any order, and one byte of overlap is refused",
          "[boot][elf]") {
    Elf64Parts parts = good_elf_parts();
    // The data is directly behind the code, and the code's memory extends exactly to the data.
    parts.segments[1].p_paddr = elf_physical + elf_code_size;
    std::swap(parts.segments[0], parts.segments[1]);
    GuestMemory memory(16 * mib);
    const Bytes image = make_elf(parts);
    const KernelImage kernel = load(memory, image);
    CHECK(kernel.begin == elf_physical);
    CHECK(kernel.end == elf_physical + elf_code_size + 0x5000);
    const auto loaded = memory.slice(elf_physical, elf_code_size + 0x200);
    REQUIRE(loaded);
    CHECK(std::equal(loaded->begin(), loaded->end(), image.begin() + elf_code_offset));
    parts.segments[1].p_memsz += 1;
    CHECK_THAT(refusal(make_elf(parts)), Contains("segments overlap at 0x200800"));
}

TEST_CASE("ELF: a segment that ends with the RAM fits, one byte more does not", "[boot][elf]") {
    Elf64Parts parts = good_elf_parts();
    parts.segments[1].p_memsz = 16 * mib - elf_data_physical;
    CHECK(refusal(make_elf(parts)) == "(no error)");
    parts.segments[1].p_memsz += 1;
    CHECK_THAT(refusal(make_elf(parts)), Contains("does not fit"));
}

TEST_CASE("PVH: the parts of a note are padded to 8 bytes in a segment aligned to 8, otherwise to 4",
          "[boot][elf][pvh]") {
    Elf64Parts parts = good_elf_parts();
    const std::vector<Note> notes{{"GNU", 3, Bytes(12, 1)}, pvh_note(elf_physical + 0x80)};
    // The name "GNU" ends at 16; 12 bytes of description end at 28, and the next note is at 32 or at 28.
    for (const std::uint64_t alignment : {8U, 4U}) {
        parts.segments[2].p_align = alignment;
        Bytes image = make_elf(parts, notes);
        if (alignment == 8) {
            const auto second = image.begin() + elf_notes_offset + 28;
            std::copy_backward(second, second + 20, second + 24);
            std::fill_n(second, 4, std::uint8_t{0});
            put(image, sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, p_filesz),
                std::uint64_t{52});
        }
        GuestMemory memory(16 * mib);
        CAPTURE(alignment);
        const KernelImage kernel = load(memory, image);
        CHECK(kernel.protocol == EntryPoint::Protocol::pvh32);
        CHECK(kernel.entry == elf_physical + 0x80);
    }
}

TEST_CASE("ELF: the work that headers can cause is limited, in their number and in total",
          "[boot][elf][limits]") {
    // 65,000 overlapping note segments.
    Elf64Parts parts = good_elf_parts();
    const auto image_with = [](Elf64Parts& wanted, std::size_t size) {
        wanted.header.e_phnum = static_cast<std::uint16_t>(wanted.segments.size());
        Bytes image(size);
        std::size_t at = sizeof(Elf64_Ehdr);
        for (const Elf64_Phdr& segment : wanted.segments) {
            put(image, at, segment);
            at += sizeof(segment);
        }
        put(image, 0, wanted.header);
        return image;
    };
    const Elf64_Phdr note{PT_NOTE, PF_R, 0x20'0000, 0, 0, mib, 0, 4};
    parts.segments.assign(65'000, note);
    CHECK_THAT(refusal(image_with(parts, 4 * mib)), Contains("has 65000 ELF program headers; at most 256"));
    // The number of headers is limited, whatever their type.
    parts.segments.assign(257, {PT_NULL, 0, 0, 0, 0, 0, 0, 0});
    CHECK_THAT(refusal(image_with(parts, 4 * mib)), Contains("has 257 ELF program headers"));
    parts = good_elf_parts();
    parts.segments.pop_back();
    parts.segments.resize(255, {PT_NULL, 0, 0, 0, 0, 0, 0, 0});
    parts.segments[0].p_offset = parts.segments[1].p_offset = 0x10'0000;
    parts.segments.push_back(note);
    CHECK(refusal(image_with(parts, 4 * mib)) == "(no error)");
    // Two segments of notes, at the same offset in the file, that are too large together.
    parts.segments[100] = note;
    CHECK_THAT(refusal(image_with(parts, 4 * mib)), Contains("has more than 1 MiB of ELF notes"));
    parts.segments[100].p_filesz = mib / 2;
    parts.segments[255].p_filesz = mib / 2;
    CHECK(refusal(image_with(parts, 4 * mib)) == "(no error)");
    parts.segments[255].p_filesz += 1;
    CHECK_THAT(refusal(image_with(parts, 4 * mib)), Contains("of ELF notes"));
}

TEST_CASE("ELF: a program of the host is refused as a kernel", "[boot][elf]") {
    GuestMemory memory(16 * mib);
    CHECK_THAT(
        error_of(ExitCode::bad_file,
                 [&] { static_cast<void>(load_kernel(memory, ImageFile("kernel", "/proc/self/exe"))); }),
        Contains("below 1 MiB: not a kernel"));
}

TEST_CASE("ELF: a file that is cut at any length is refused with one line", "[boot][elf]") {
    const Bytes image = make_elf(good_elf_parts(), {pvh_note(static_cast<std::uint32_t>(elf_physical))});
    for (std::size_t length = 1; length < elf_notes_offset; length += length < 300 ? 1 : 101) {
        const std::string line =
            refusal({image.begin(), image.begin() + static_cast<std::ptrdiff_t>(length)});
        CAPTURE(length, line);
        REQUIRE(line.starts_with("kernel '/proc/self/fd/"));
    }
}
