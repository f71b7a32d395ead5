// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/loader.hpp"

#include <atomic>
#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/memory_map.hpp"
#include "arch/x86_64/pvh.hpp"
#include "arch/x86_64/zero_page.hpp"
#include "boot_images.hpp"
#include "catch.hpp"
#include "machines.hpp"

using namespace kvm_vmm;
using namespace boot_images;
using Catch::Matchers::Contains;
using Type = MemoryRange::Type;

namespace {

constexpr std::uint64_t mib = 1U << 20U;
constexpr std::uint64_t gib = 1U << 30U;

boot_params zero_page(const GuestMemory& memory) {
    const auto page = memory.read_object<boot_params>(layout::zero_page);
    REQUIRE(page);
    return *page;
}

std::string text_at(const GuestMemory& memory, std::uint64_t address) {
    std::string text;
    for (auto c = memory.read_object<char>(address); c && *c != 0; c = memory.read_object<char>(++address)) {
        text += *c;
    }
    return text;
}

std::string open_error(const std::string& path) {
    return error_of(ExitCode::bad_file, [&] { const ImageFile file("kernel", path); });
}

}  // namespace

TEST_CASE("ImageFile: a file that cannot be a kernel is refused when it is opened, without waiting",
          "[boot][file]") {
    const std::filesystem::path directory =
        std::filesystem::temp_directory_path() / ("kvm_vmm_loader_test." + std::to_string(::getpid()));
    std::filesystem::create_directory(directory);
    const std::string fifo = directory / "fifo";
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    CHECK(open_error(fifo) == "kernel '" + fifo + "': is a FIFO or pipe, not a regular file");
    CHECK(open_error(directory) == "kernel '" + directory.string() + "': is a directory, not a regular file");
    CHECK(open_error(directory / "none") ==
          "kernel '" + (directory / "none").string() + "': cannot be opened: No such file or directory");
    CHECK_THAT(open_error(fifo + "/x"), Contains("cannot be opened: Not a directory"));
    CHECK(open_error("/dev/null") == "kernel '/dev/null': is a device, not a regular file");
    CHECK_THAT(open_error("/dev/zero"), Contains("is a device"));
    CHECK_THAT(open_error(""), Contains("kernel '': cannot be opened"));
    CHECK_THAT(open_error(directory / std::string(256, 'n')),
               Contains("File name too long (a path has at most 4095 bytes, each name in it at most 255)"));
    const MemoryFile empty;
    CHECK_THAT(open_error(empty.path()), Contains("is empty"));
    std::filesystem::remove_all(directory);
}

TEST_CASE("load_guest: virtio devices are named on the command line only if the kernel does not read ACPI",
          "[boot][virtio]") {
    Platform machine = test::machine_with();
    test::remove_device(machine, "rng");
    machine.devices.push_back(test::virtio_mmio(0, 0xD000'0000, 0x1000, 5));
    machine.devices.push_back(test::virtio_mmio(1, 0xD000'1000, 0x200, 16));
    const MemoryFile kernel(make_bzimage());
    const auto line_for = [&](const std::string& command_line) {
        GuestMemory memory(64 * mib);
        [[maybe_unused]] const LoadedGuest guest = load_guest(memory,
                                                              {.kernel_path = kernel.path(),
                                                               .initrd_path = {},
                                                               .command_line = command_line,
                                                               .protocol = BootProtocol::automatic,
                                                               .checkpoint = {}},
                                                              machine);
        return text_at(memory, zero_page(memory).hdr.cmd_line_ptr);
    };
    CHECK(line_for("quiet") == "quiet pci=off");
    CHECK(line_for("acpi=off -- single") ==
          "acpi=off virtio_mmio.device=0x1000@0xd0000000:5 virtio_mmio.device=0x200@0xd0001000:16 pci=off "
          "-- single");
}

TEST_CASE("ImageFile: a read past the end, or of a file that has shrunk, is an error that says so",
          "[boot][file]") {
    MemoryFile content(Bytes(100, 7));
    const ImageFile file("initrd", content.path());
    CHECK(file.size() == 100);
    CHECK(file.contains(100, 0));
    CHECK_FALSE(file.contains(101, 0));
    CHECK_FALSE(file.contains(1, ~0ULL));
    CHECK(file.read_object<std::uint8_t>(99) == 7);
    CHECK_THAT(error_of(ExitCode::bad_file, [&] { static_cast<void>(file.read_object<std::uint16_t>(99)); }),
               Contains("is truncated: 0x2 bytes are needed at offset 0x63, the file ends at 0x64"));
    content.resize(50);
    CHECK_THAT(error_of(ExitCode::bad_file, [&] { static_cast<void>(file.read_object<std::uint16_t>(98)); }),
               Contains("became shorter while it was read"));
    GuestMemory memory(mib);
    CHECK_THAT(error_of(ExitCode::bad_file, [&] { file.read_into(memory, mib - 1, 0, 2); }),
               Contains("where the guest has none"));
}

TEST_CASE("ImageFile: a FIFO's writer does not notice that it was checked", "[boot][file]") {
    const std::filesystem::path fifo =
        std::filesystem::temp_directory_path() / ("kvm_vmm_fifo_test." + std::to_string(::getpid()));
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    std::atomic<bool> opened{false};
    std::thread writer([&] {
        const int fd = ::open(fifo.c_str(), O_WRONLY);  // waits for a reader
        opened = true;
        ::close(fd);
    });
    CHECK_THAT(open_error(fifo), Contains("is a FIFO"));
    CHECK_FALSE(opened);
    const int reader = ::open(fifo.c_str(), O_RDONLY | O_NONBLOCK);
    writer.join();
    CHECK(opened);
    ::close(reader);
    std::filesystem::remove(fifo);
}

TEST_CASE("ImageFile: pseudo files are refused, and of a growing file only the initial size is read",
          "[boot][file]") {
    // They have no size, although something can be read from them.
    CHECK_THAT(open_error("/proc/version"), Contains("is empty"));
    CHECK_THAT(open_error("/proc/self/mem"), Contains("is empty"));
    MemoryFile content(Bytes(100, 7));
    const ImageFile file("kernel", content.path());
    content.resize(1000);
    CHECK(file.size() == 100);
    CHECK_FALSE(file.contains(99, 2));
}

TEST_CASE("ImageFile: a long read calls the checkpoint regularly, and can be aborted there", "[boot][file]") {
    MemoryFile content;
    content.resize(10 * mib + 1);
    std::atomic<unsigned> calls = 0;
    const ImageFile file("initrd", content.path(), [&calls] { ++calls; });
    GuestMemory memory(16 * mib);
    file.read_into(memory, mib, 0, 10 * mib + 1);
    CHECK(calls == 4);  // for two parts, in steps of at most 4 MiB
    calls = 0;
    file.read_into(memory, mib, 0, 1);
    CHECK(calls == 1);

    std::atomic<unsigned> left = 1;
    const ImageFile given_up("initrd", content.path(), [&left] {
        if (left-- == 0) {
            throw VmmError(ExitCode::signal_base, "enough");
        }
    });
    CHECK(error_of(ExitCode::signal_base, [&] { given_up.read_into(memory, mib, 0, 10 * mib); }) == "enough");
}

TEST_CASE("load_guest: kernel and initrd are both loaded in steps, and loading can be aborted between them",
          "[boot][file]") {
    const MemoryFile kernel(make_bzimage());
    MemoryFile initrd;
    initrd.resize(9 * mib);
    std::atomic<unsigned> calls = 0;
    const auto load = [&](unsigned give_up_at) {
        calls = 0;
        GuestMemory memory(32 * mib);
        static_cast<void>(load_guest(memory,
                                     {.kernel_path = kernel.path(),
                                      .initrd_path = initrd.path(),
                                      .command_line = {},
                                      .checkpoint =
                                          [&] {
                                              if (++calls == give_up_at) {
                                                  throw VmmError(ExitCode::signal_base, "given up");
                                              }
                                          }},
                                     {}));
    };
    load(0);
    const unsigned all = calls;
    CHECK(all >= 4);
    for (unsigned at = 1; at <= all; ++at) {
        CAPTURE(at);
        CHECK(error_of(ExitCode::signal_base, [&] { load(at); }) == "given up");
        // The other thread may be between two steps.
        CHECK(calls >= at);
        CHECK(calls <= at + 1);
    }
}

TEST_CASE("load_initrd: an initrd that fits to the byte is loaded, one byte more is refused",
          "[boot][initrd]") {
    constexpr std::uint64_t kernel_end = 6 * mib;  // where the good header's init_size ends
    MemoryFile initrd;
    const auto load = [&](std::uint64_t size, std::uint64_t limit, std::uint64_t ram) -> std::string {
        setup_header header = good_setup_header();
        header.initrd_addr_max = static_cast<std::uint32_t>(limit);
        const MemoryFile kernel(make_bzimage(header));
        initrd.resize(size);
        GuestMemory memory(ram);
        return error_of(ExitCode::bad_file, [&] {
            const LoadedGuest guest = load_guest(
                memory, {.kernel_path = kernel.path(), .initrd_path = initrd.path(), .command_line = {}}, {});
            CHECK(guest.initrd->address >= kernel_end);
            CHECK(guest.initrd->address % 4096 == 0);
            CHECK(guest.initrd->address + size <= std::min(limit + 1, ram));
        });
    };
    // Limited by RAM.
    CHECK(load(10 * mib, 0x7FFF'FFFF, 16 * mib) == "(no error)");
    CHECK_THAT(load(10 * mib + 1, 0x7FFF'FFFF, 16 * mib), Contains("there is room for 10 MiB"));
    // Limited by the kernel's highest address, which may still be used.
    CHECK(load(8192, kernel_end + 8191, 16 * mib) == "(no error)");
    CHECK_THAT(load(8193, kernel_end + 8191, 16 * mib), Contains("does not fit"));
    CHECK_THAT(load(8192, kernel_end + 8190, 16 * mib), Contains("does not fit"));
    // An initrd that ends with a partial page still starts at a page.
    CHECK(load(4097, kernel_end + 8191, 16 * mib) == "(no error)");
    CHECK(load(1, kernel_end, 16 * mib) == "(no error)");
    CHECK_THAT(load(1, kernel_end - 1, 16 * mib), Contains("there is room for 0 bytes"));
    CHECK_THAT(load(1, 0, 16 * mib), Contains("does not fit"));
    // RAM above 4 GiB is not used, and a limit of all ones means no limit.
    CHECK(load(1, 0xFFFF'FFFF, 16 * mib) == "(no error)");
}

TEST_CASE("load_guest: the fields that a loader fills in are set, whatever the image contains there",
          "[boot][zero_page]") {
    setup_header header = good_setup_header();
    header.type_of_loader = 0x21;
    header.ext_loader_ver = 0x22;
    header.ext_loader_type = 0x23;
    header.vid_mode = 0x0317;
    header.loadflags = LOADED_HIGH | CAN_USE_HEAP | QUIET_FLAG | KEEP_SEGMENTS;
    header.heap_end_ptr = 0x2425;
    header.code32_start = 0x26'0000;
    header.cmd_line_ptr = 0x27'0000;
    header.setup_data = 0x28'0000;
    header.ramdisk_image = 0x29'0000;
    header.ramdisk_size = 0x2A'0000;
    header.hardware_subarch = 2;
    header.hardware_subarch_data = 0x2B'0000;
    const MemoryFile kernel(make_bzimage(header));
    GuestMemory memory(16 * mib);
    static_cast<void>(
        load_guest(memory, {.kernel_path = kernel.path(), .initrd_path = {}, .command_line = "x"}, {}));
    const boot_params page = zero_page(memory);
    CHECK(page.hdr.type_of_loader == 0xFF);
    CHECK(page.hdr.ext_loader_ver == 0);
    CHECK(page.hdr.ext_loader_type == 0);
    CHECK(std::uint16_t{page.hdr.vid_mode} == 0xFFFF);
    CHECK(page.hdr.loadflags == LOADED_HIGH);
    CHECK(std::uint16_t{page.hdr.heap_end_ptr} == 0);
    CHECK(std::uint32_t{page.hdr.code32_start} == 2 * mib);
    CHECK(std::uint32_t{page.hdr.cmd_line_ptr} == layout::command_line);
    CHECK(std::uint64_t{page.hdr.setup_data} == 0);
    CHECK(std::uint32_t{page.hdr.ramdisk_image} == 0);
    CHECK(std::uint32_t{page.hdr.ramdisk_size} == 0);
    CHECK(std::uint32_t{page.hdr.hardware_subarch} == 0);  // a PC
    CHECK(std::uint64_t{page.hdr.hardware_subarch_data} == 0);
    CHECK(page.ext_cmd_line_ptr == 0);
    CHECK(page.ext_ramdisk_image == 0);
    CHECK(page.ext_ramdisk_size == 0);
}

TEST_CASE("memory_map: low memory, the firmware area, and RAM on both sides of the MMIO gap",
          "[boot][e820]") {
    const std::vector<MemoryRange> small{{0, 0x9FC00, Type::ram},
                                         {0x9FC00, 0x400, Type::reserved},
                                         {0xE0000, 0x20000, Type::reserved},
                                         {mib, 127 * mib, Type::ram}};
    CHECK(memory_map(GuestMemory(128 * mib)) == small);

    auto large = small;
    large.back().size = 3 * gib - mib;
    CHECK(memory_map(GuestMemory(3 * gib)) == large);
    large.push_back({4 * gib, 2 * gib, Type::ram});
    CHECK(memory_map(GuestMemory(5 * gib)) == large);

    // With 1 MiB of RAM there is no range above it, not even an empty one.
    CHECK(memory_map(GuestMemory(mib)).size() == 3);
}

TEST_CASE("load_guest: the zero page of a bzImage with initrd describes all of it", "[boot][zero_page]") {
    GuestMemory memory(5 * gib);
    const MemoryFile kernel(make_bzimage());
    const MemoryFile initrd(Bytes(5000, 0xA5));
    const LoadedGuest guest = load_guest(
        memory, {.kernel_path = kernel.path(), .initrd_path = initrd.path(), .command_line = "console=ttyS0"},
        {});
    CHECK(guest.entry == EntryPoint{EntryPoint::Protocol::linux64, 2 * mib + 0x200, layout::zero_page});

    const boot_params page = zero_page(memory);
    const setup_header original = good_setup_header();
    CHECK(std::uint32_t{page.hdr.header} == 0x53726448U);
    CHECK(std::uint16_t{page.hdr.version} == std::uint16_t{original.version});
    CHECK(std::uint32_t{page.hdr.init_size} == std::uint32_t{original.init_size});
    CHECK(std::uint64_t{page.hdr.pref_address} == std::uint64_t{original.pref_address});
    CHECK(page.hdr.type_of_loader == 0xFF);
    CHECK(std::uint16_t{page.hdr.vid_mode} == 0xFFFF);
    CHECK(page.hdr.loadflags == LOADED_HIGH);
    CHECK(std::uint32_t{page.hdr.code32_start} == 2 * mib);
    CHECK(std::uint64_t{page.hdr.setup_data} == 0);
    CHECK(text_at(memory, page.hdr.cmd_line_ptr) == "console=ttyS0 pci=off");
    REQUIRE(guest.initrd);
    CHECK(std::uint32_t{page.hdr.ramdisk_image} == guest.initrd->address);
    CHECK(std::uint32_t{page.hdr.ramdisk_size} == 5000);
    CHECK(memory.read_object<std::uint64_t>(std::uint64_t{page.acpi_rsdp_addr}) ==
          0x2052'5450'2044'5352U);  // "RSD PTR "
    CHECK(page.sentinel == 0);
    CHECK(page.screen_info.orig_video_isVGA == 0);
    CHECK(page.screen_info.orig_video_lines == 0);

    const auto map = memory_map(memory);
    REQUIRE(page.e820_entries == map.size());
    for (std::size_t i = 0; i < map.size(); ++i) {
        boot_e820_entry entry{};
        std::memcpy(&entry, &page.e820_table[i], sizeof(entry));
        CHECK(MemoryRange{entry.addr, entry.size, Type{entry.type}} == map[i]);
    }
}

TEST_CASE("load_guest: a header that is longer than the known fields is copied completely",
          "[boot][zero_page]") {
    setup_header header = good_setup_header();
    header.jump = 0x8EEB;  // to 0x290, the end of its place
    Bytes image = make_bzimage(header);
    image[0x28F] = 0x77;
    image[0x290] = 0x88;
    const MemoryFile kernel(image);
    GuestMemory memory(16 * mib);
    static_cast<void>(
        load_guest(memory, {.kernel_path = kernel.path(), .initrd_path = {}, .command_line = {}}, {}));
    CHECK(memory.read_object<std::uint8_t>(layout::zero_page + 0x28F) == 0x77);
    CHECK(memory.read_object<std::uint8_t>(layout::zero_page + 0x290) == 0);
}

TEST_CASE("load_guest: without an initrd the zero page contains none", "[boot][zero_page]") {
    GuestMemory memory(16 * mib);
    const MemoryFile kernel(make_bzimage());
    const LoadedGuest guest =
        load_guest(memory, {.kernel_path = kernel.path(), .initrd_path = {}, .command_line = {}}, {});
    CHECK_FALSE(guest.initrd);
    const boot_params page = zero_page(memory);
    CHECK(std::uint32_t{page.hdr.ramdisk_image} == 0);
    CHECK(std::uint32_t{page.hdr.ramdisk_size} == 0);
    CHECK(std::uint64_t{page.acpi_rsdp_addr} == layout::acpi);
}

TEST_CASE("load_guest: for a vmlinux the header in the zero page is made by the loader",
          "[boot][zero_page][elf]") {
    GuestMemory memory(16 * mib);
    const MemoryFile kernel(make_elf());
    const LoadedGuest guest =
        load_guest(memory, {.kernel_path = kernel.path(), .initrd_path = {}, .command_line = "quiet"}, {});
    CHECK(guest.entry == EntryPoint{EntryPoint::Protocol::linux64, elf_physical + 0x40, layout::zero_page});
    const boot_params page = zero_page(memory);
    CHECK(std::uint32_t{page.hdr.header} == 0x53726448U);
    CHECK(std::uint16_t{page.hdr.boot_flag} == 0xAA55);
    CHECK(page.hdr.type_of_loader == 0xFF);
    CHECK(text_at(memory, page.hdr.cmd_line_ptr) == "quiet pci=off");
    CHECK(guest.command_line == "quiet pci=off");
    CHECK(page.e820_entries == 4);
}

TEST_CASE("load_guest: a PVH kernel gets start info, module list and memory map", "[boot][pvh]") {
    GuestMemory memory(5 * gib);
    const MemoryFile kernel(make_elf(good_elf_parts(), {pvh_note(static_cast<std::uint32_t>(elf_physical))}));
    const MemoryFile initrd(Bytes(5000, 0xA5));
    const LoadedGuest guest = load_guest(
        memory, {.kernel_path = kernel.path(), .initrd_path = initrd.path(), .command_line = "console=ttyS0"},
        {});
    CHECK(guest.entry == EntryPoint{EntryPoint::Protocol::pvh32, elf_physical, layout::pvh_info});

    const auto u32 = [&](std::uint64_t offset) {
        return memory.read_object<std::uint32_t>(layout::pvh_info + offset).value();
    };
    const auto u64 = [&](std::uint64_t address) {
        return memory.read_object<std::uint64_t>(address).value();
    };
    CHECK(u32(0) == 0x336EC578U);
    CHECK(u32(4) == 1);  // version
    CHECK(u32(8) == 0);  // flags
    REQUIRE(u32(12) == 1);
    const std::uint64_t module = u64(layout::pvh_info + 16);
    CHECK(u64(module) == guest.initrd->address);
    CHECK(u64(module + 8) == 5000);
    CHECK(u64(module + 16) == 0);
    CHECK(text_at(memory, u64(layout::pvh_info + 24)) == "console=ttyS0 pci=off");
    CHECK(u64(u64(layout::pvh_info + 32)) == 0x2052'5450'2044'5352U);
    const auto map = memory_map(memory);
    REQUIRE(u32(48) == map.size());
    for (std::size_t i = 0; i < map.size(); ++i) {
        const std::uint64_t entry = u64(layout::pvh_info + 40) + i * 24;
        CHECK(MemoryRange{u64(entry), u64(entry + 8), Type{static_cast<std::uint32_t>(u64(entry + 16))}} ==
              map[i]);
    }
    // The Linux boot parameters are absent.
    CHECK(u64(layout::zero_page + 0x1F0) == 0);
}

TEST_CASE("setup_boot_cpu: the 64-bit state has the prescribed selectors and an identity map of 4 GiB",
          "[boot][cpu]") {
    GuestMemory memory(mib);
    const BootCpu cpu = setup_boot_cpu(memory, {EntryPoint::Protocol::linux64, 0x200200, 0x7000});
    CHECK(cpu.rip == 0x200200);
    CHECK(cpu.rsi == 0x7000);
    CHECK(cpu.rbx == 0);
    CHECK(cpu.rflags == 2);  // interrupts off
    CHECK(cpu.code.selector == 0x10);
    CHECK(cpu.data.selector == 0x18);
    CHECK(cpu.code.long_mode);
    CHECK_FALSE(cpu.code.default_32);
    CHECK(cpu.cr0 == 0x8000'0011U);
    CHECK(cpu.cr4 == 0x20);
    CHECK(cpu.efer == 0x500);

    // Intel SDM: flat 64-bit code, flat data, 64-bit busy TSS of 0x68 bytes.
    CHECK(memory.read_object<std::uint64_t>(cpu.gdt.base) == 0U);
    CHECK(memory.read_object<std::uint64_t>(cpu.gdt.base + 0x10) == 0x00AF'9B00'0000'FFFFU);
    CHECK(memory.read_object<std::uint64_t>(cpu.gdt.base + 0x18) == 0x00CF'9300'0000'FFFFU);
    CHECK(memory.read_object<std::uint64_t>(cpu.gdt.base + 0x20) == 0x0000'8B00'0000'0067U);
    CHECK(cpu.gdt.limit == 0x2F);

    const auto walk = [&](std::uint64_t address) -> std::uint64_t {
        const auto entry = [&](std::uint64_t table, unsigned shift) {
            const auto value =
                memory.read_object<std::uint64_t>((table & ~0xFFFULL) + ((address >> shift) & 0x1FFU) * 8);
            return value && (*value & 3U) == 3U ? *value : 0;
        };
        const std::uint64_t pdpt = entry(cpu.cr3, 39);
        const std::uint64_t directory = pdpt == 0 ? 0 : entry(pdpt, 30);
        const std::uint64_t page = directory == 0 ? 0 : entry(directory, 21);
        return (page & 0x80U) == 0 ? ~0ULL : (page & ~0x1F'FFFFULL) + (address & 0x1F'FFFFU);
    };
    for (const std::uint64_t address : {0ULL, 0x7000ULL, 0x20'0200ULL, 0x3FFF'FFFFULL, 0x4000'0000ULL,
                                        0xBFFF'F000ULL, 0xFEE0'0020ULL, 0xFFFF'FFFFULL}) {
        CHECK(walk(address) == address);
    }
    CHECK(walk(0x1'0000'0000) == ~0ULL);
}

TEST_CASE("setup_boot_cpu: 32-bit protocols get flat segments, no paging, and their own register",
          "[boot][cpu]") {
    GuestMemory memory(mib);
    for (const auto protocol : {EntryPoint::Protocol::linux32, EntryPoint::Protocol::pvh32}) {
        const BootCpu cpu = setup_boot_cpu(memory, {protocol, 0x100000, 0x6000});
        CHECK(cpu.cr0 == 0x11);
        CHECK(cpu.cr3 == 0);
        CHECK(cpu.cr4 == 0);
        CHECK(cpu.efer == 0);
        CHECK(cpu.code.default_32);
        CHECK_FALSE(cpu.code.long_mode);
        CHECK(cpu.task.limit == 0x67);
        CHECK(cpu.rsi == (protocol == EntryPoint::Protocol::linux32 ? 0x6000U : 0U));
        CHECK(cpu.rbx == (protocol == EntryPoint::Protocol::pvh32 ? 0x6000U : 0U));
        CHECK(memory.read_object<std::uint64_t>(cpu.gdt.base + 0x10) == 0x00CF'9B00'0000'FFFFU);
    }
    CHECK(memory.read_object<std::uint64_t>(layout::page_tables) == 0U);
}

TEST_CASE("load_guest: too little RAM or too many CPUs is reported as wrong usage", "[boot]") {
    const MemoryFile kernel(make_bzimage());
    const BootOptions options{.kernel_path = kernel.path(), .initrd_path = {}, .command_line = {}};
    for (const std::uint64_t ram : {4096ULL, 0x10000ULL, 0xFF000ULL}) {
        GuestMemory memory(ram);
        CHECK_THAT(error_of(ExitCode::usage, [&] { static_cast<void>(load_guest(memory, options, {})); }),
                   Contains("at least 1 MiB of RAM"));
    }
    GuestMemory memory(16 * mib);
    Platform machine;
    machine.cpus = 0;
    CHECK_THAT(error_of(ExitCode::usage, [&] { static_cast<void>(load_guest(memory, options, machine)); }),
               Contains("must be 1 to 254"));
    machine.cpus = 255;
    CHECK_THAT(error_of(ExitCode::usage, [&] { static_cast<void>(load_guest(memory, options, machine)); }),
               Contains("must be 1 to 254"));
    machine.cpus = 254;
    CHECK(load_guest(memory, options, machine).entry.rip == 2 * mib + 0x200);
}

TEST_CASE("load_guest: the error for a command line longer than the kernel's limit names --cmdline",
          "[boot]") {
    setup_header header = good_setup_header();
    header.cmdline_size = 10;
    const MemoryFile kernel(make_bzimage(header));
    GuestMemory memory(16 * mib);
    BootOptions options{.kernel_path = kernel.path(), .initrd_path = {}, .command_line = "0123456789"};
    static_cast<void>(load_guest(memory, options, {}));
    options.command_line += 'x';
    CHECK(error_of(ExitCode::usage, [&] { static_cast<void>(load_guest(memory, options, {})); }) ==
          "kernel command line: 11 bytes, but this kernel takes at most 10");
}

TEST_CASE("load_guest: two guests loaded from the same files have identical memory", "[boot]") {
    const MemoryFile kernel(make_elf(good_elf_parts(), {pvh_note(static_cast<std::uint32_t>(elf_physical))}));
    const BootOptions options{.kernel_path = kernel.path(), .initrd_path = {}, .command_line = "a b"};
    const auto loaded = [&] {
        GuestMemory memory(8 * mib);
        static_cast<void>(load_guest(memory, options, {}));
        const auto bytes = memory.slice(0, memory.low_end());
        return Bytes(bytes->begin(), bytes->end());
    };
    CHECK(loaded() == loaded());
}
