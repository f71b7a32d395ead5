// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/bzimage.hpp"

#include <algorithm>
#include <asm/bootparam.h>
#include <bit>
#include <cstddef>
#include <cstring>
#include <string>

#include "arch/x86_64/layout.hpp"
#include "util/text.hpp"

namespace kvm_vmm {
namespace {

constexpr std::uint64_t header_offset = 0x1F1;
constexpr std::uint64_t header_base = 0x202;      // the jump's displacement byte at 0x201 counts from here
constexpr std::uint64_t header_end_most = 0x290;  // where boot_params continues after the header
constexpr std::uint64_t sector = 512;
constexpr std::uint64_t paragraph = 16;
constexpr std::uint64_t entry_64_offset = 0x200;
constexpr std::uint16_t boot_mark = 0xAA55;
constexpr std::uint32_t signature = 0x53726448;  // "HdrS"
constexpr std::uint16_t version_with_init_size = 0x020A;
constexpr std::uint16_t version_with_xloadflags = 0x020C;

static_assert(offsetof(boot_params, hdr) == header_offset);
static_assert(header_offset + offsetof(setup_header, header) == header_base);

std::string version_text(std::uint16_t version) {
    const unsigned minor = version & 0xFFU;
    return std::to_string(version >> 8U) + '.' + (minor < 10 ? "0" : "") + std::to_string(minor);
}

/// The setup header with zeroes for the fields that the file's version does not have.
setup_header read_raw(const ImageFile& file, std::uint64_t setup_size, std::vector<std::uint8_t>& raw) {
    const std::uint64_t end = header_base + file.read_object<std::uint8_t>(0x201);
    if (end > header_end_most || end > setup_size) {
        file.fail("the setup header claims to end at " + hex(end) + ", beyond its place");
    }
    raw.resize(end - header_offset);
    file.read(header_offset, raw);
    setup_header header{};
    std::memcpy(&header, raw.data(), std::min(raw.size(), sizeof(header)));
    return header;
}

std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

/// The formula of the protocol document for the address at which the kernel will run (under init_size). A
/// relocatable kernel that is loaded below pref_address moves itself there, so loading it lower has no
/// advantage.
std::uint64_t runtime_start(const ImageFile& file, const setup_header& header) {
    const std::uint64_t preferred = header.pref_address;
    if (preferred >= GuestMemory::mmio_gap_end) {
        file.fail("pref_address " + hex(preferred) + " is beyond 4 GiB");
    }
    if (header.relocatable_kernel == 0) {
        if (preferred < layout::high_memory) {
            file.fail("pref_address " + hex(preferred) +
                      " is below 1 MiB, and the kernel is not relocatable");
        }
        return preferred;
    }
    const std::uint64_t alignment = header.kernel_alignment;
    if (!std::has_single_bit(alignment)) {
        file.fail("kernel_alignment " + hex(alignment) + " is not a power of two");
    }
    return align_up(std::max(preferred, layout::high_memory), alignment);
}

void set_payload(const ImageFile& file, const setup_header& header, BzImageHeader& result) {
    const std::uint64_t declared = std::uint64_t{header.syssize} * paragraph;
    if (declared == 0) {
        file.fail("syssize is 0: the image has no protected-mode code");
    }
    // syssize counts whole paragraphs; a file need not be padded to one.
    const std::uint64_t present = file.size() - result.setup_size;
    if (declared > present && declared - present >= paragraph) {
        file.fail("is truncated: the header promises " + std::to_string(result.setup_size + declared) +
                  " bytes, the file has " + std::to_string(file.size()));
    }
    result.payload_size = std::min(declared, present);
}

}  // namespace

bool is_bzimage(const ImageFile& file) {
    return file.contains(header_offset, sizeof(setup_header)) &&
           file.read_object<std::uint16_t>(header_offset + offsetof(setup_header, boot_flag)) == boot_mark &&
           file.read_object<std::uint32_t>(header_base) == signature;
}

BzImageHeader read_bzimage_header(const ImageFile& file) {
    BzImageHeader result;
    const auto sectors = file.read_object<std::uint8_t>(header_offset);
    result.setup_size = ((sectors == 0 ? 4U : sectors) + 1U) * sector;  // 0 means 4, for old images
    if (file.size() <= result.setup_size) {
        file.fail("is truncated: it ends within the setup code (" + std::to_string(result.setup_size) +
                  " bytes)");
    }
    const setup_header header = read_raw(file, result.setup_size, result.raw);

    result.version = header.version;
    if (result.version < version_with_init_size) {
        file.fail("boot protocol " + version_text(result.version) +
                  " is too old; 2.10 (Linux 2.6.31) or newer is needed");
    }
    const std::size_t needed = result.version >= version_with_xloadflags
                                   ? offsetof(setup_header, kernel_info_offset)
                                   : offsetof(setup_header, handover_offset);
    if (result.raw.size() < needed) {
        file.fail("the setup header ends at " + hex(header_offset + result.raw.size()) +
                  ", too short for boot protocol " + version_text(result.version));
    }
    if ((header.loadflags & LOADED_HIGH) == 0) {
        file.fail("is a zImage (loaded below 1 MiB); only bzImage is supported");
    }
    set_payload(file, header, result);

    result.entry_64 = result.version >= version_with_xloadflags && (header.xloadflags & XLF_KERNEL_64) != 0;
    if (result.entry_64 && result.payload_size <= entry_64_offset) {
        file.fail("claims a 64-bit entry point beyond its end");
    }
    result.runtime_start = runtime_start(file, header);
    result.runtime_size = std::max<std::uint64_t>(header.init_size, result.payload_size);
    result.initrd_limit = header.initrd_addr_max;
    result.command_line_limit = header.cmdline_size;
    return result;
}

KernelImage load_bzimage(GuestMemory& memory, const ImageFile& file) {
    BzImageHeader header = read_bzimage_header(file);
    const std::uint64_t end = header.runtime_start + header.runtime_size;
    if (end > memory.low_end()) {
        file.fail("needs RAM up to " + amount(end) + " (it runs at " + amount(header.runtime_start) +
                  " and needs " + amount(header.runtime_size) + " from there); the guest has " +
                  amount(memory.low_end()) + (memory.size() > memory.low_end() ? " below the MMIO gap" : ""));
    }
    file.read_into(memory, header.runtime_start, header.setup_size, header.payload_size);
    return {
        .format = KernelImage::Format::bzimage,
        .protocol = header.entry_64 ? EntryPoint::Protocol::linux64 : EntryPoint::Protocol::linux32,
        .entry = header.runtime_start + (header.entry_64 ? entry_64_offset : 0),
        .begin = header.runtime_start,
        .end = end,
        .initrd_limit = header.initrd_limit,
        .command_line_limit = header.command_line_limit,
        .setup_header = std::move(header.raw),
    };
}

}  // namespace kvm_vmm
