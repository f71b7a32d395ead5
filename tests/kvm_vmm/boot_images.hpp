// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Creates small, valid kernel images in memory, which tests then corrupt.

#include <algorithm>
#include <asm/bootparam.h>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <elf.h>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <type_traits>
#include <unistd.h>
#include <vector>

#include "util/error.hpp"

namespace boot_images {

using Bytes = std::vector<std::uint8_t>;

template <class T>
void put(Bytes& image, std::size_t offset, T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (image.size() < offset + sizeof(T)) {
        image.resize(offset + sizeof(T));
    }
    std::memcpy(image.data() + offset, &value, sizeof(T));
}

/// A regular file without a name on disk. It can be opened by `path()` during the lifetime of this object.
class MemoryFile {
public:
    MemoryFile() : fd_(::memfd_create("kvm_vmm test image", MFD_CLOEXEC)) {
        if (fd_ < 0) {
            throw std::runtime_error("memfd_create failed");
        }
    }
    explicit MemoryFile(std::span<const std::uint8_t> content) : MemoryFile() { write(content); }
    ~MemoryFile() { ::close(fd_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    /// Replaces the content.
    void write(std::span<const std::uint8_t> content) {
        resize(0);
        if (::pwrite(fd_, content.data(), content.size(), 0) != static_cast<ssize_t>(content.size())) {
            throw std::runtime_error("writing a test image failed");
        }
    }
    void resize(std::size_t size) {
        if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) {
            throw std::runtime_error("resizing a test image failed");
        }
    }
    [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

private:
    int fd_;
};

inline constexpr std::size_t bzimage_setup_size = 1024;
inline constexpr std::size_t bzimage_payload_size = 4096;

/// The header of a typical current 64-bit kernel: relocatable, prefers 2 MiB, needs 4 MiB.
inline setup_header good_setup_header() {
    setup_header header{};
    header.setup_sects = 1;
    header.syssize = bzimage_payload_size / 16;
    header.boot_flag = 0xAA55;
    header.jump = 0x6AEB;  // the header ends at 0x202 + 0x6A
    header.header = 0x53726448;
    header.version = 0x020F;
    header.loadflags = LOADED_HIGH;
    header.code32_start = 0x10'0000;
    header.initrd_addr_max = 0x7FFF'FFFF;
    header.kernel_alignment = 0x20'0000;
    header.relocatable_kernel = 1;
    header.min_alignment = 21;
    header.xloadflags = XLF_KERNEL_64;
    header.cmdline_size = 2047;
    header.pref_address = 0x20'0000;
    header.init_size = 0x40'0000;
    return header;
}

/// The payload's byte at offset n is n * 7 mod 256, so that its position can be checked.
inline Bytes make_bzimage(const setup_header& header = good_setup_header()) {
    Bytes image(bzimage_setup_size + bzimage_payload_size);
    put(image, 0x1F1, header);
    for (std::size_t i = 0; i < bzimage_payload_size; ++i) {
        image[bzimage_setup_size + i] = static_cast<std::uint8_t>(i * 7);
    }
    return image;
}

struct Note {
    std::string name;  // without the NUL
    std::uint32_t type;
    Bytes description;
};

inline Note pvh_note(std::uint32_t entry) {
    Bytes description;
    put(description, 0, entry);
    return {"Xen", 18, description};
}

inline Bytes make_notes(const std::vector<Note>& notes) {
    Bytes bytes;
    const auto pad = [&bytes] { bytes.resize((bytes.size() + 3) / 4 * 4); };
    for (const Note& note : notes) {
        put(bytes, bytes.size(), static_cast<std::uint32_t>(note.name.size() + 1));
        put(bytes, bytes.size(), static_cast<std::uint32_t>(note.description.size()));
        put(bytes, bytes.size(), note.type);
        bytes.insert(bytes.end(), note.name.begin(), note.name.end());
        bytes.push_back(0);
        pad();
        bytes.insert(bytes.end(), note.description.begin(), note.description.end());
        pad();
    }
    return bytes;
}

struct Elf64Parts {
    Elf64_Ehdr header{};
    std::vector<Elf64_Phdr> segments;
};

inline constexpr std::uint64_t elf_physical = 0x20'0000;
inline constexpr std::uint64_t elf_virtual = 0xFFFF'FFFF'8020'0000;
inline constexpr std::uint64_t elf_code_offset = 0x1000;
inline constexpr std::uint64_t elf_code_size = 0x800;
inline constexpr std::uint64_t elf_data_physical = 0x30'0000;
inline constexpr std::uint64_t elf_notes_offset = 0x1C00;
inline constexpr std::size_t elf_file_size = 0x2000;

/// Headers of a kernel at 2 MiB: code, data followed by bss, notes.
inline Elf64Parts good_elf_parts() {
    Elf64Parts parts;
    std::memcpy(parts.header.e_ident, ELFMAG, SELFMAG);
    parts.header.e_ident[EI_CLASS] = ELFCLASS64;
    parts.header.e_ident[EI_DATA] = ELFDATA2LSB;
    parts.header.e_ident[EI_VERSION] = EV_CURRENT;
    parts.header.e_type = ET_EXEC;
    parts.header.e_machine = EM_X86_64;
    parts.header.e_version = EV_CURRENT;
    parts.header.e_entry = elf_physical + 0x40;
    parts.header.e_phoff = sizeof(Elf64_Ehdr);
    parts.header.e_ehsize = sizeof(Elf64_Ehdr);
    parts.header.e_phentsize = sizeof(Elf64_Phdr);
    parts.segments = {
        {PT_LOAD, PF_R | PF_X, elf_code_offset, elf_virtual, elf_physical, elf_code_size, elf_code_size,
         0x1000},
        {PT_LOAD, PF_R | PF_W, elf_code_offset + elf_code_size, elf_virtual + 0x10'0000, elf_data_physical,
         0x200, 0x5000, 0x1000},
        {PT_NOTE, PF_R, elf_notes_offset, 0, 0, 0, 0, 4},
    };
    return parts;
}

inline Bytes make_elf(Elf64Parts parts = good_elf_parts(), const std::vector<Note>& notes = {}) {
    Bytes image(elf_file_size);
    for (std::size_t i = 0; i < elf_code_size + 0x200; ++i) {
        image[elf_code_offset + i] = static_cast<std::uint8_t>(i * 5 + 1);
    }
    const Bytes note_bytes = make_notes(notes);
    std::ranges::copy(note_bytes, image.begin() + elf_notes_offset);
    parts.header.e_phnum = static_cast<std::uint16_t>(parts.segments.size());
    for (std::size_t i = 0; i < parts.segments.size(); ++i) {
        if (parts.segments[i].p_type == PT_NOTE && parts.segments[i].p_filesz == 0) {
            parts.segments[i].p_filesz = note_bytes.size();
        }
        put(image, sizeof(Elf64_Ehdr) + i * sizeof(Elf64_Phdr), parts.segments[i]);
    }
    put(image, 0, parts.header);
    return image;
}

/// A 32-bit kernel with one segment at 2 MiB.
inline Bytes make_elf32(const std::vector<Note>& notes = {}) {
    Bytes image(elf_file_size);
    const Bytes note_bytes = make_notes(notes);
    std::ranges::copy(note_bytes, image.begin() + elf_notes_offset);
    Elf32_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS32;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_386;
    header.e_entry = 0xC020'0010;
    header.e_phoff = sizeof(Elf32_Ehdr);
    header.e_phentsize = sizeof(Elf32_Phdr);
    header.e_phnum = 2;
    put(image, 0, header);
    put(image, sizeof(header),
        Elf32_Phdr{PT_LOAD, elf_code_offset, 0xC020'0000, 0x20'0000, elf_code_size, elf_code_size,
                   PF_R | PF_X, 0x1000});
    put(image, sizeof(header) + sizeof(Elf32_Phdr),
        Elf32_Phdr{PT_NOTE, elf_notes_offset, 0, 0, static_cast<Elf32_Word>(note_bytes.size()), 0, PF_R, 4});
    return image;
}

/// Runs `action`, which must throw a VmmError whose message is one line. Returns that line.
template <class Action>
std::string error_of(kvm_vmm::ExitCode code, Action action) {
    try {
        action();
    } catch (const kvm_vmm::VmmError& error) {
        const std::string text = error.what();
        if (error.code() != code) {
            return "(exit code " + std::to_string(static_cast<int>(error.code())) + ") " + text;
        }
        if (text.find('\n') != std::string::npos) {
            return "(more than one line) " + text;
        }
        return text;
    }
    return "(no error)";
}

}  // namespace boot_images
