// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/bzimage.hpp"

#include <functional>
#include <string>

#include "arch/x86_64/initrd.hpp"
#include "boot_images.hpp"
#include "catch.hpp"

using namespace kvm_vmm;
using namespace boot_images;
using Catch::Matchers::Contains;

namespace {

constexpr std::uint64_t mib = 1U << 20U;

std::string refusal(const Bytes& image, std::uint64_t ram = 16 * mib) {
    const MemoryFile file(image);
    GuestMemory memory(ram);
    return error_of(ExitCode::bad_file,
                    [&] { static_cast<void>(load_kernel(memory, ImageFile("kernel", file.path()))); });
}

std::string refusal_with(const std::function<void(setup_header&)>& spoil, std::uint64_t ram = 16 * mib) {
    setup_header header = good_setup_header();
    spoil(header);
    return refusal(make_bzimage(header), ram);
}

KernelImage load(GuestMemory& memory, const Bytes& image) {
    const MemoryFile file(image);
    return load_kernel(memory, ImageFile("kernel", file.path()));
}

}  // namespace

TEST_CASE("bzImage: a 64-bit kernel is loaded at its preferred address and entered at +0x200",
          "[boot][bzimage]") {
    GuestMemory memory(16 * mib);
    const Bytes image = make_bzimage();
    const KernelImage kernel = load(memory, image);
    CHECK(kernel.format == KernelImage::Format::bzimage);
    CHECK(kernel.protocol == EntryPoint::Protocol::linux64);
    CHECK(kernel.begin == 2 * mib);
    CHECK(kernel.end == 6 * mib);
    CHECK(kernel.entry == 2 * mib + 0x200);
    CHECK(kernel.initrd_limit == 0x7FFF'FFFF);
    CHECK(kernel.command_line_limit == 2047);
    const auto loaded = memory.slice(2 * mib, bzimage_payload_size);
    REQUIRE(loaded);
    CHECK(std::equal(loaded->begin(), loaded->end(), image.begin() + bzimage_setup_size));
    // The memory before and behind it is untouched.
    CHECK(memory.read_object<std::uint64_t>(2 * mib - 8) == 0U);
    CHECK(memory.read_object<std::uint64_t>(2 * mib + bzimage_payload_size) == 0U);
}

TEST_CASE("bzImage: one without a 64-bit entry is entered by the 32-bit protocol at its start",
          "[boot][bzimage]") {
    GuestMemory first(16 * mib);
    setup_header header = good_setup_header();
    header.xloadflags = 0;
    CHECK(load(first, make_bzimage(header)).protocol == EntryPoint::Protocol::linux32);
    header.version = 0x020A;  // does not define xloadflags yet, so that field is ignored
    header.xloadflags = XLF_KERNEL_64;
    GuestMemory second(16 * mib);
    const KernelImage kernel = load(second, make_bzimage(header));
    CHECK(kernel.protocol == EntryPoint::Protocol::linux32);
    CHECK(kernel.entry == 2 * mib);
}

TEST_CASE("bzImage: setup_sects 0 means four", "[boot][bzimage]") {
    setup_header header = good_setup_header();
    header.setup_sects = 0;
    Bytes image = make_bzimage(header);
    image.insert(image.begin() + bzimage_setup_size, 3 * 512, 0xEE);
    GuestMemory memory(16 * mib);
    CHECK(load(memory, image).entry == 2 * mib + 0x200);
    CHECK(memory.read_object<std::uint16_t>(2 * mib) == 0x0700U);  // the payload's start, not the padding
}

TEST_CASE("bzImage: bytes behind the payload are not loaded, and the last paragraph need not be full",
          "[boot][bzimage]") {
    GuestMemory memory(16 * mib);
    Bytes image = make_bzimage();
    image.insert(image.end(), 1500, 0xEE);  // a signature, as in Debian's kernels
    static_cast<void>(load(memory, image));
    CHECK(memory.read_object<std::uint64_t>(2 * mib + bzimage_payload_size) == 0U);
    image = make_bzimage();
    image.resize(image.size() - 15);
    CHECK(load(memory, image).entry == 2 * mib + 0x200);
    image.pop_back();
    CHECK_THAT(refusal(image), Contains("is truncated"));
}

TEST_CASE("bzImage: a relocatable kernel runs at its preferred address aligned up, never below 1 MiB",
          "[boot][bzimage]") {
    GuestMemory memory(16 * mib);
    setup_header header = good_setup_header();
    header.pref_address = 3 * mib;  // not a multiple of 2 MiB
    CHECK(load(memory, make_bzimage(header)).begin == 4 * mib);
    header.pref_address = 0;
    header.kernel_alignment = 0x1000;
    CHECK(load(memory, make_bzimage(header)).begin == mib);
    header.relocatable_kernel = 0;
    header.kernel_alignment = 0;  // ignored, because this kernel is not relocated
    header.pref_address = mib;
    CHECK(load(memory, make_bzimage(header)).begin == mib);
}

TEST_CASE("bzImage: RAM up to the end of init_size is enough, a page less is not", "[boot][bzimage]") {
    GuestMemory memory(6 * mib);
    CHECK(load(memory, make_bzimage()).end == 6 * mib);
    CHECK_THAT(
        refusal(make_bzimage(), 6 * mib - 4096),
        Contains(
            "needs RAM up to 6 MiB (it runs at 2 MiB and needs 4 MiB from there); the guest has 6140 KiB"));
    // If init_size is smaller than the payload, the size of the payload counts.
    setup_header header = good_setup_header();
    header.init_size = 0;
    CHECK(load(memory, make_bzimage(header)).end == 2 * mib + bzimage_payload_size);
}

TEST_CASE("bzImage: each header field that is used is checked, and a bad one is refused with a clear line",
          "[boot][bzimage]") {
    CHECK_THAT(refusal_with([](setup_header& h) { h.boot_flag = 0; }), Contains("is not a kernel image"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.header ^= 1U; }), Contains("no HdrS signature"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.version = 0x0209; }),
               Contains("boot protocol 2.09 is too old; 2.10"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.jump = 0x10EB; }),
               Contains("too short for boot protocol 2.15"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.jump = 0xF0EB; }), Contains("beyond its place"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.loadflags = 0; }), Contains("zImage"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.syssize = 0; }), Contains("syssize is 0"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.syssize = 0x1000'0000; }), Contains("is truncated"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.setup_sects = 255; }),
               Contains("ends within the setup code"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.syssize = 0x20; }),
               Contains("64-bit entry point beyond its end"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.kernel_alignment = 0; }), Contains("not a power of two"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.kernel_alignment = 0x30'0000; }),
               Contains("not a power of two"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.pref_address = ~0ULL; }), Contains("beyond 4 GiB"));
    CHECK_THAT(refusal_with([](setup_header& h) {
                   h.relocatable_kernel = 0;
                   h.pref_address = 0x1000;
               }),
               Contains("below 1 MiB"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.init_size = 0xFFFF'FFFF; }), Contains("needs RAM up to"));
    CHECK_THAT(refusal_with([](setup_header& h) { h.kernel_alignment = 0x8000'0000; }),
               Contains("needs RAM up to"));
    CHECK(refusal_with([](setup_header&) {}) == "(no error)");
}

TEST_CASE("bzImage: a file that is cut at any length is refused with one line", "[boot][bzimage]") {
    const Bytes image = make_bzimage();
    for (std::size_t length = 1; length < image.size() - 15; length += length < 1100 ? 1 : 97) {
        const std::string line =
            refusal({image.begin(), image.begin() + static_cast<std::ptrdiff_t>(length)});
        CAPTURE(length, line);
        REQUIRE(line.starts_with("kernel '/proc/self/fd/"));
        REQUIRE((line.find("is truncated") != std::string::npos ||
                 line.find("is not a kernel image") != std::string::npos));
    }
}

TEST_CASE("bzImage: a request for PVH is refused, because a bzImage has no PVH entry", "[boot][bzimage]") {
    const MemoryFile file(make_bzimage());
    GuestMemory memory(16 * mib);
    CHECK_THAT(error_of(ExitCode::bad_file,
                        [&] {
                            static_cast<void>(
                                load_kernel(memory, ImageFile("kernel", file.path()), BootProtocol::pvh));
                        }),
               Contains("has no PVH entry"));
}

TEST_CASE("initrd: it is placed as high as RAM and the kernel allow, page aligned", "[boot][initrd]") {
    GuestMemory memory(16 * mib);
    KernelImage kernel;
    kernel.begin = 2 * mib;
    kernel.end = 6 * mib;
    kernel.initrd_limit = 0x7FFF'FFFF;
    const MemoryFile file(Bytes(5000, 0xA5));
    const auto place = [&] { return load_initrd(memory, ImageFile("initrd", file.path()), kernel); };
    const Initrd initrd = place();
    CHECK(initrd.address == 16 * mib - 8192);
    CHECK(initrd.size == 5000);
    CHECK(memory.read_object<std::uint8_t>(initrd.address) == 0xA5);
    CHECK(memory.read_object<std::uint8_t>(initrd.address + 4999) == 0xA5);
    CHECK(memory.read_object<std::uint8_t>(initrd.address + 5000) == 0);
    CHECK(memory.read_object<std::uint8_t>(initrd.address - 1) == 0);

    kernel.initrd_limit = 10 * mib - 1;  // the highest address that its last byte may have
    CHECK(place().address == 10 * mib - 8192);
    kernel.initrd_limit = 10 * mib - 2;
    CHECK(place().address + 5000 <= 10 * mib - 1);
    kernel.initrd_limit = 6 * mib + 8191;
    CHECK(place().address == kernel.end);
    kernel.initrd_limit = 6 * mib + 4096;
    CHECK_THAT(error_of(ExitCode::bad_file, place), Contains("does not fit"));
    kernel.initrd_limit = 0;
    CHECK_THAT(error_of(ExitCode::bad_file, place), Contains("does not fit"));
    kernel.initrd_limit = 0xFFFF'FFFF;
    kernel.end = 16 * mib;
    CHECK_THAT(error_of(ExitCode::bad_file, place), Contains("room for 0 bytes"));
}

TEST_CASE("initrd: in a guest with RAM above 4 GiB it is still placed below the MMIO gap", "[boot][initrd]") {
    GuestMemory memory(5ULL << 30U);
    KernelImage kernel;
    kernel.end = 6 * mib;
    kernel.initrd_limit = 0xFFFF'FFFF;
    const MemoryFile file(Bytes(4096, 1));
    CHECK(load_initrd(memory, ImageFile("initrd", file.path()), kernel).address ==
          GuestMemory::mmio_gap_start - 4096);
}

TEST_CASE("initrd: one larger than the guest's RAM is refused", "[boot][initrd]") {
    GuestMemory memory(16 * mib);
    KernelImage kernel;
    kernel.end = 6 * mib;
    kernel.initrd_limit = 0x7FFF'FFFF;
    MemoryFile file;
    file.resize(64 * mib);
    CHECK_THAT(
        error_of(ExitCode::bad_file,
                 [&] { static_cast<void>(load_initrd(memory, ImageFile("initrd", file.path()), kernel)); }),
        Contains("does not fit: it has 64 MiB"));
}
