// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Hostile kernel images (bzImage, ELF, PVH): each is loaded within bounds or refused with one clear line. The
// example VMM's loader is the target, with its command line, zero page, PVH and firmware tables.
//
// Input: one byte (bits 1:0 the image: bzImage, 64-bit ELF with notes, 32-bit ELF with a note, raw; bits 3:2
// the protocol wanted; bit 4: with an initrd; bits 7:5: 4 MiB of RAM and up in steps of 4). Raw: the
// rest is the image. Else patches of a good image until the input ends: width (1, 2, 4 or 8), 2 bytes of
// offset, the value; a width code of 4 to 7 cuts the image there instead.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../tests/kvm_vmm/boot_images.hpp"
#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/loader.hpp"
#include "memory/guest_memory.hpp"
#include "support/target.hpp"
#include "util/error.hpp"

namespace fuzz {
namespace {

using namespace kvm_vmm;
using boot_images::MemoryFile;
using Image = boot_images::Bytes;

Image image_of(Input& input, unsigned kind, const Trace& trace) {
    if (kind == 3) {
        const auto rest = input.rest();
        return {rest.begin(), rest.end()};
    }
    const std::vector<boot_images::Note> notes{{"GNU", 3, Image(20, 1)}, boot_images::pvh_note(0x20'0020)};
    Image image = kind == 0   ? boot_images::make_bzimage()
                  : kind == 1 ? boot_images::make_elf(boot_images::good_elf_parts(), notes)
                              : boot_images::make_elf32(notes);
    while (!input.empty() && !image.empty()) {
        const std::uint8_t what = input.byte();
        const std::size_t at = input.u16() % image.size();
        if ((what & 7U) >= 4) {
            trace("image.resize(", at, ");");
            image.resize(at);
            continue;
        }
        const std::size_t width = std::size_t{1} << (what & 3U);
        const std::uint64_t value = input.number(width);
        trace("put<std::uint", width * 8, "_t>(image, ", Hex{at}, ", ", Hex{value}, ");");
        for (std::size_t i = 0; i < width && at + i < image.size(); ++i) {
            image[at + i] = static_cast<std::uint8_t>(value >> (8U * i));
        }
    }
    return image;
}

void check_loaded(const GuestMemory& memory, const LoadedGuest& guest) {
    check(guest.kernel.begin >= layout::high_memory, "the kernel is above the loader's data");
    check(guest.kernel.begin < guest.kernel.end && guest.kernel.end <= memory.low_end(),
          "the kernel is in RAM");
    check(guest.entry.rip >= guest.kernel.begin && guest.entry.rip < guest.kernel.end, "so is its entry");
    if (guest.initrd) {
        check(guest.initrd->address >= guest.kernel.end &&
                  guest.initrd->address + guest.initrd->size <= memory.low_end(),
              "the initrd is in RAM behind the kernel");
        check(guest.initrd->address + guest.initrd->size - 1 <= guest.kernel.initrd_limit,
              "the initrd is below its limit");
    }
    check(memory.read_object<std::uint64_t>(layout::acpi) == 0x2052'5450'2044'5352U,
          "the RSDP is at the returned address");
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    // Opened once; the content is rewritten for each input.
    static MemoryFile kernel;
    static const MemoryFile initrd(Image(5000, 0xA5));
    const std::uint8_t options = input.byte();
    const Image image = image_of(input, options & 3U, trace);
    kernel.write(image);
    GuestMemory memory((std::uint64_t{4} + 4 * (options >> 5U)) << 20U);
    BootOptions boot{
        .kernel_path = kernel.path(), .initrd_path = std::nullopt, .command_line = "console=ttyS0"};
    boot.protocol = static_cast<BootProtocol>((options >> 2U & 3U) % 3U);
    if ((options & 0x10) != 0) {
        boot.initrd_path = initrd.path();
    }
    trace("load_guest(memory of ", memory.size() >> 20U, " MiB, image of ", image.size(), " bytes, protocol ",
          static_cast<unsigned>(boot.protocol), ")");
    try {
        check_loaded(memory, load_guest(memory, boot, {}));
        trace("// loaded");
    } catch (const VmmError& error) {
        const std::string_view text = error.what();
        trace("// refused: ", text);
        check(error.code() == ExitCode::bad_file || error.code() == ExitCode::usage,
              "the exit code is documented");
        check(text.find('\n') == std::string_view::npos && text.size() < 300, "one clear line");
        check(text.starts_with("kernel ") || text.starts_with("initrd ") || text.starts_with("guest"),
              "that says what it is about");
    }
}

}  // namespace fuzz
