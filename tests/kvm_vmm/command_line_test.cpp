// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "boot/command_line.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "boot_images.hpp"
#include "catch.hpp"
#include "vmm/command_line_hints.hpp"

using namespace kvm_vmm;
using boot_images::error_of;
using Catch::Matchers::Contains;

namespace {

constexpr GuestRange space{.address = 0x2'0000, .size = 0x1'0000};

}  // namespace

TEST_CASE("write_command_line: text that the kernel would misread is refused with one clear line",
          "[boot][command_line]") {
    GuestMemory memory(1U << 20U);
    const auto refusal = [&memory](std::string_view text) {
        return error_of(ExitCode::usage, [&] { write_command_line(memory, space, text, 2047); });
    };
    CHECK_THAT(refusal("a\nb"), Contains("line break at byte 1"));
    CHECK_THAT(refusal("a\r"), Contains("line break"));
    CHECK_THAT(refusal(std::string_view("a\0b", 3)), Contains("byte 0x0 at 1"));
    CHECK_THAT(refusal("caf\xC3\xA9"), Contains("byte 0xc3 at 3"));
    CHECK_THAT(refusal("\x7F"), Contains("0x7f"));
    CHECK_THAT(refusal("\x1B[0m"), Contains("0x1b"));
    CHECK_THAT(refusal("a=\"b c"), Contains("never closed"));
    CHECK(memory.read_object<std::uint64_t>(space.address) == 0U);
    CHECK(refusal("tab\tis fine ~!") == "(no error)");
    CHECK(refusal("dyndbg=\"file a.c +p\" -- \"quoted word\"") == "(no error)");
}

TEST_CASE("parameter_values: all of them, in their order", "[boot][command_line]") {
    using Values = std::vector<std::string>;
    CHECK(parameter_values("console=ttyS0 root=/dev/vda console=\"hvc0\"", "console") ==
          Values{"ttyS0", "hvc0"});
    CHECK(parameter_values("root= root", "root") == Values{""});
    CHECK(parameter_values("quiet -- root=/dev/vda", "root").empty());
    CHECK(parameter_values("", "root").empty());
}

TEST_CASE("missing_devices: what the command line names and the machine does not have",
          "[boot][command_line]") {
    VmmConfig config;  // one serial port
    const auto lines = [&config](std::string text) {
        config.cmdline = std::move(text);
        return missing_devices(config);
    };
    const auto line = [&lines](std::string text) {
        const auto all = lines(std::move(text));
        return all.size() == 1 ? all.front() : std::to_string(all.size()) + " lines";
    };
    const auto disks = GENERATE(0U, 1U, 2U);
    config.disks.resize(disks);
    CAPTURE(disks);
    SECTION("disks") {
        CHECK(lines("console=ttyS0 quiet").empty());
        CHECK(lines("root=/dev/vda1 ro").empty() == (disks > 0));
        CHECK(lines("root=/dev/vdb ro").empty() == (disks > 1));
        CHECK_THAT(line("root=/dev/vdc2 ro"),
                   Contains("root=/dev/vdc2 names a disk that this machine does not have"));
        CHECK_THAT(line("root=/dev/vdaa"), Contains("/dev/vdaa"));
        CHECK_THAT(line("root=/dev/vdz"), Contains(disks == 0   ? "it has no --disk"
                                                   : disks == 1 ? "it has 1 --disk: /dev/vda"
                                                                : "it has 2 --disk: /dev/vda to /dev/vdb"));
        for (const char* const other :
             {"/dev/sda1", "/dev/nvme0n1p1", "/dev/hda", "/dev/xvda", "/dev/mmcblk0"}) {
            CHECK_THAT(line(std::string("root=") + other), Contains(other));
        }
        // The last one counts, and other names say nothing about the disks.
        CHECK_THAT(line("root=/dev/vda root=/dev/vdz"), Contains("/dev/vdz"));
        for (const char* const unknown :
             {"root=/dev/ram0", "root=UUID=1234", "root=LABEL=x", "root=PARTUUID=1-2", "root=/dev/nfs",
              "root=/dev/vd", "root=/dev/vd0", "root=/dev/vdA", "root=/dev/vda1p", "root=/dev/vdaaaa",
              "root=", "root", "root=/dev/mapper/vdz", "xroot=/dev/vdz", "quiet -- root=/dev/vdz",
              "root=/dev/disk/by-id/virtio-x"}) {
            CAPTURE(unknown);
            CHECK(lines(unknown).empty());
        }
        CHECK(root_disk(config) == std::nullopt);
        config.cmdline = "root=/dev/vdb3";
        CHECK(root_disk(config) == (disks > 1 ? std::optional<std::size_t>(1) : std::nullopt));
        config.cmdline = "root=/dev/vdb3 root=UUID=1234";
        CHECK(root_disk(config) == std::nullopt);
    }
    SECTION("consoles") {
        CHECK_THAT(line("console=hvc0"), Contains("console=hvc0 names a virtio console"));
        CHECK_THAT(line("console=ttyS1,115200n8"),
                   Contains("serial port that this machine does not have; it has 1 "));
        CHECK(
            lines("console=ttyS0,115200 console=tty0 console=ttyAMA0 console=hvc console=hvcx console=hvc0x")
                .empty());
        CHECK(lines("console=ttyS3 console=hvc1").size() == 2);
        config.consoles.resize(1);
        config.serials.resize(2);
        CHECK(lines("console=ttyS1 console=hvc0").empty());
        CHECK(lines("console=ttyS2 console=hvc1").size() == 2);
    }
    SECTION("shared directories") {
        CHECK_THAT(line("root=share0 rootfstype=virtiofs"), Contains("not the tag of a shared directory"));
        config.shares.push_back({.path = "/", .tag = "share0", .writable = false});
        CHECK(lines("root=share0 rootfstype=virtiofs").empty());
        CHECK(lines("root=share1 rootfstype=virtiofs").size() == 1);
        CHECK(lines("root=share1 rootfstype=ext4").empty());
    }
    CHECK_THAT(unused_root(config, 1), Contains("disk1 (/dev/vdb)") && Contains("there is no --initrd"));
    config.initrd = "initrd.img";
    CHECK_THAT(unused_root(config, 0), Contains("(--initrd initrd.img)"));
}

TEST_CASE("has_parameter: words, quotes and the end are those of the kernel's parser",
          "[boot][command_line]") {
    CHECK(has_parameter("acpi=off", "acpi", "off"));
    CHECK(has_parameter("console=ttyS0 acpi=off quiet", "acpi", "off"));
    CHECK(has_parameter("quiet  acpi=off", "acpi", "off"));
    CHECK(has_parameter("quiet\tacpi=off\tro", "acpi", "off"));
    CHECK(has_parameter("acpi=on acpi=off", "acpi", "off"));
    CHECK_FALSE(has_parameter("", "acpi", "off"));
    CHECK_FALSE(has_parameter("xacpi=off acpi=offx acpi=on", "acpi", "off"));

    CHECK(has_parameter("quiet acpi=on", "acpi"));
    CHECK(has_parameter("acpi=", "acpi"));
    CHECK_FALSE(has_parameter("acpi acpi_osi=Linux =acpi", "acpi"));

    CHECK(has_parameter("\"acpi=off\"", "acpi", "off"));
    CHECK(has_parameter("acpi=\"off\"", "acpi", "off"));
    CHECK(has_parameter("acpi=\"a b\" x", "acpi", "a b"));
    CHECK(has_parameter("\"acpi=a b\" x", "acpi", "a b"));
    CHECK_FALSE(has_parameter("x=\"a acpi=off b\"", "acpi"));
    CHECK_FALSE(has_parameter("\"x acpi=off\"", "acpi"));
    CHECK_FALSE(has_parameter("\"acpi\"=off", "acpi"));

    CHECK_FALSE(has_parameter("quiet -- acpi=off", "acpi"));
    CHECK_FALSE(has_parameter("quiet\t--\tacpi=off", "acpi"));
    CHECK_FALSE(has_parameter("quiet \"--\" acpi=off", "acpi"));
    CHECK(has_parameter("quiet --x --=1 x=\"a -- b\" acpi=off", "acpi"));
}

TEST_CASE("with_parameters: what is added comes before the arguments of the first process",
          "[boot][command_line]") {
    CHECK(with_parameters("", "a=1") == "a=1");
    CHECK(with_parameters("quiet", "a=1 b=2") == "quiet a=1 b=2");
    CHECK(with_parameters("quiet -- single", "a=1") == "quiet a=1 -- single");
    CHECK(with_parameters("-- single", "a=1") == "a=1 -- single");
    CHECK(with_parameters("quiet --", "a=1") == "quiet a=1 --");
    CHECK(with_parameters("x=\"a -- b\"", "a=1") == "x=\"a -- b\" a=1");
    CHECK(with_parameters("quiet -- single", "") == "quiet -- single");
}

TEST_CASE("without_pci: Linux is informed that there is no PCI, unless the user says something about it",
          "[boot][command_line]") {
    CHECK(without_pci("", 7) == "pci=off");
    CHECK(without_pci("quiet", 2047) == "quiet pci=off");
    CHECK(without_pci("quiet ", 2047) == "quiet pci=off");
    CHECK(without_pci("quiet -- single", 2047) == "quiet pci=off -- single");
    CHECK(without_pci("quiet -- pci=x", 2047) == "quiet pci=off -- pci=x");
    CHECK(without_pci("-- single", 2047) == "pci=off -- single");
    CHECK(without_pci("x=\"pci=conf1\" pci", 2047) == "x=\"pci=conf1\" pci pci=off");
    CHECK(without_pci("xpci=off pcie_aspm=off", 2047) == "xpci=off pcie_aspm=off pci=off");
    for (const std::string text :
         {"pci=off", "pci=conf1 quiet", "quiet \"pci=conf1\"", "pci=\"conf1\"", "pci="}) {
        CHECK(without_pci(text, 2047) == text);
    }
    // No room: the user's text remains.
    CHECK(without_pci("0123456789", 18) == "0123456789 pci=off");
    CHECK(without_pci("0123456789", 17) == "0123456789");
    CHECK(without_pci("", 6).empty());
    CHECK_THAT(error_of(ExitCode::usage, [] { (void)without_pci("a=\"b", 2047); }),
               Contains("never closed: a=\"b"));
    CHECK_THAT(error_of(ExitCode::usage, [] { (void)without_pci("a\nb", 2047); }), Contains("line break"));
}

TEST_CASE("write_command_line: the text and its NUL are in guest memory, up to the kernel's limit",
          "[boot][command_line]") {
    GuestMemory memory(1U << 20U);
    // The rest of a longer line that was there before must not appear behind the NUL.
    REQUIRE(memory.write_object(space.address + 4, std::uint32_t{0x41414141}));
    CHECK(write_command_line(memory, space, "abcd", 4) == space.address);
    CHECK(memory.read_object<std::uint64_t>(space.address) == 0x4141'4100'6463'6261U);
    CHECK_THAT(error_of(ExitCode::usage, [&] { write_command_line(memory, space, "abcde", 4); }),
               Contains("5 bytes, but this kernel takes at most 4"));
    CHECK_THAT(error_of(ExitCode::usage, [&] { write_command_line(memory, space, "x", 0); }),
               Contains("at most 0"));
    CHECK(write_command_line(memory, space, "", 0) == space.address);
}

TEST_CASE("write_command_line: the line does not leave its space, however high the kernel's limit is",
          "[boot][command_line]") {
    GuestMemory memory(1U << 20U);
    const std::string longest(space.size - 1, 'x');
    CHECK(write_command_line(memory, space, longest, 0xFFFF'FFFF) == space.address);
    CHECK(memory.read_object<std::uint16_t>(space.address + space.size - 2) == std::uint16_t{'x'});
    CHECK(memory.read_object<std::uint8_t>(space.address + space.size) == 0U);
    CHECK_THAT(
        error_of(ExitCode::usage, [&] { write_command_line(memory, space, longest + 'x', 0xFFFF'FFFF); }),
        Contains("at most 65535"));
}

TEST_CASE("write_command_line: a guest without RAM there is refused", "[boot][command_line]") {
    GuestMemory memory(1U << 20U);
    CHECK_THAT(error_of(ExitCode::usage,
                        [&] { write_command_line(memory, {.address = 1U << 20U, .size = 16}, "x", 15); }),
               Contains("too little RAM"));
}
