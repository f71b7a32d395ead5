// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Classes of vulnerabilities that other loaders of guest images have had.

#include <cstdint>
#include <string>
#include <vector>

#include "arch/x86_64/kernel_image.hpp"
#include "arch/x86_64/layout.hpp"
#include "boot_images.hpp"
#include "catch.hpp"

using namespace kvm_vmm;
using namespace boot_images;
using Catch::Matchers::Contains;

namespace {

constexpr std::uint64_t mib = 1U << 20U;

// Returns the loader's message. Checks that a refused image has not changed the guest's memory.
std::string refusal(const Bytes& image) {
    const MemoryFile file(image);
    GuestMemory memory(16 * mib);
    const std::string reason = error_of(ExitCode::bad_file, [&] {
        static_cast<void>(load_kernel(memory, ImageFile("kernel", file.path())));
    });
    CHECK(reason.find('\n') == std::string::npos);
    for (const std::uint64_t at : {std::uint64_t{0}, 16 * mib - 8}) {
        CHECK(memory.read_object<std::uint64_t>(at) == 0U);
    }
    return reason;
}

}  // namespace

TEST_CASE("CVE-2018-7550 class: a segment with more bytes in the file than in memory is not copied",
          "[boot][elf][cve]") {
    for (const std::uint64_t in_memory : {1ULL, 0x1FFULL}) {
        Elf64Parts parts = good_elf_parts();
        parts.segments[1].p_memsz = in_memory;
        CHECK_THAT(refusal(make_elf(parts)), Contains("more bytes in the file than in memory"));
    }
    // A segment that takes no memory is ignored: nothing of it is copied.
    {
        Elf64Parts parts = good_elf_parts();
        parts.segments[1].p_memsz = 0;
        const MemoryFile file(make_elf(parts));
        GuestMemory memory(16 * mib);
        const KernelImage kernel = load_kernel(memory, ImageFile("kernel", file.path()));
        CHECK(kernel.end == elf_physical + elf_code_size);
        CHECK(memory.read_object<std::uint64_t>(elf_data_physical) == 0U);
    }
    // The same for a bzImage whose header claims that it needs less memory than its code takes.
    setup_header header = good_setup_header();
    header.init_size = 1;
    const MemoryFile file(make_bzimage(header));
    GuestMemory memory(16 * mib);
    const KernelImage kernel = load_kernel(memory, ImageFile("kernel", file.path()));
    CHECK(kernel.end - kernel.begin >= bzimage_payload_size);
}

TEST_CASE("CVE-2017-14167 class: address plus size of a segment does not wrap around", "[boot][elf][cve]") {
    for (const std::uint64_t address : {~0ULL, ~0ULL - 0xFFF, ~0ULL - 0x4FFF, 1ULL << 63U}) {
        for (const std::uint64_t size : {0x5000ULL, ~0ULL, 1ULL << 63U, ~0ULL - 0x20'0000 + 1}) {
            Elf64Parts parts = good_elf_parts();
            parts.segments[1].p_paddr = address;
            parts.segments[1].p_memsz = size;
            CHECK_THAT(refusal(make_elf(parts)), Contains("does not fit"));
        }
    }
    for (const std::uint64_t offset : {~0ULL, ~0ULL - 0x1FF, 1ULL << 63U}) {
        Elf64Parts parts = good_elf_parts();
        parts.segments[1].p_offset = offset;
        CHECK_THAT(refusal(make_elf(parts)), Contains("is beyond its end"));
        parts = good_elf_parts();
        parts.header.e_phoff = offset;
        CHECK_THAT(refusal(make_elf(parts)), Contains("beyond its end"));
    }
}

TEST_CASE("CVE-2017-14167 class: the sizes in a bzImage's header do not wrap around",
          "[boot][bzimage][cve]") {
    for (const std::uint64_t address : {~0ULL, ~0ULL - 0x1F'FFFF, 1ULL << 63U}) {
        for (const std::uint32_t size : {0x40'0000U, ~0U}) {
            setup_header header = good_setup_header();
            header.pref_address = address;
            header.init_size = size;
            CHECK_FALSE(refusal(make_bzimage(header)) == "(no error)");
        }
    }
    setup_header header = good_setup_header();
    header.syssize = ~0U;
    CHECK_FALSE(refusal(make_bzimage(header)) == "(no error)");
}
