// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "boot/command_line.hpp"

#include <string>

#include "boot/layout.hpp"
#include "boot_images.hpp"
#include "catch.hpp"

using namespace kvm_vmm;
using boot_images::error_of;
using Catch::Matchers::Contains;

TEST_CASE("CommandLine: parts are joined by one space and outer white space goes", "[boot][command_line]") {
    CommandLine line("  console=ttyS0\t");
    line.append("").append("   ").append("panic=-1 quiet ");
    CHECK(line.text() == "console=ttyS0 panic=-1 quiet");
    CHECK(CommandLine().text().empty());
}

TEST_CASE("CommandLine: a value with white space is quoted, others are not", "[boot][command_line]") {
    CommandLine line;
    line.add("init", "/bin/sh").add("dyndbg", "file a.c +p").add("quiet").add("empty", "");
    CHECK(line.text() == "init=/bin/sh dyndbg=\"file a.c +p\" quiet empty=");
}

TEST_CASE("CommandLine: parameters for the kernel go in front of a lone --", "[boot][command_line]") {
    CommandLine line("root=/dev/vda note=\"a -- b\" --x -- single user");
    line.add("rw").add("mem", "1G");
    CHECK(line.text() == "root=/dev/vda note=\"a -- b\" --x rw mem=1G -- single user");
    line.append("more");
    CHECK(line.text() == "root=/dev/vda note=\"a -- b\" --x rw mem=1G -- single user more");
}

TEST_CASE("CommandLine: a quoted -- is for the kernel what a plain one is, and --= is a parameter",
          "[boot][command_line]") {
    CommandLine quoted("a \"--\" b");
    quoted.add("quiet");
    CHECK(quoted.text() == "a quiet \"--\" b");
    CHECK_FALSE(quoted.contains("b"));
    CommandLine with_value("--=x b");
    with_value.add("--", "").add("c");
    CHECK(with_value.text() == "--=x b --= c");
    CHECK(with_value.contains("--"));
    CHECK(with_value.contains("b"));
    // It is "--" and no other spelling.
    CHECK(CommandLine("__ b").contains("b"));
    CHECK(CommandLine("\"\" b").contains("b"));
}

TEST_CASE("CommandLine: a quote inside a name is part of it", "[boot][command_line]") {
    const CommandLine line("acpi\"\"=off =b \"quiet\"");
    CHECK_FALSE(line.contains("acpi"));
    CHECK(line.contains("=b"));
    CHECK(line.contains("quiet"));
}

TEST_CASE("CommandLine: contains() knows names, quotes, dashes and the end of the kernel's part",
          "[boot][command_line]") {
    const CommandLine line("console=ttyS0 \"dyndbg=file a +p\" pci-off x=\"acpi=off\" -- reboot=k");
    CHECK(line.contains("console"));
    CHECK(line.contains("dyndbg"));
    CHECK(line.contains("pci_off"));
    CHECK_FALSE(line.contains("consol"));
    CHECK_FALSE(line.contains("acpi"));
    CHECK_FALSE(line.contains("reboot"));
    CHECK_FALSE(CommandLine().contains("x"));
}

TEST_CASE("CommandLine: text that the kernel would misread is refused with one clear line",
          "[boot][command_line]") {
    const auto refusal = [](std::string_view text) {
        return error_of(ExitCode::usage, [text] { CommandLine line(text); });
    };
    CHECK_THAT(refusal("a\nb"), Contains("line break at byte 1"));
    CHECK_THAT(refusal("a\r"), Contains("line break"));
    CHECK_THAT(refusal(std::string_view("a\0b", 3)), Contains("byte 0x0 at 1"));
    CHECK_THAT(refusal("caf\xC3\xA9"), Contains("byte 0xc3 at 3"));
    CHECK_THAT(refusal("\x7F"), Contains("0x7f"));
    CHECK_THAT(refusal("\x1B[0m"), Contains("0x1b"));
    CHECK_THAT(refusal("a=\"b c"), Contains("never closed"));
    CHECK(refusal("tab\tis fine ~!") == "(no error)");
    CHECK_THAT(error_of(ExitCode::usage, [] { CommandLine().add("x", "say \"hi\""); }),
               Contains("double quote"));
    CHECK_THAT(error_of(ExitCode::usage, [] { CommandLine().add("a b"); }), Contains("not a parameter name"));
    CHECK_THAT(error_of(ExitCode::usage, [] { CommandLine().add("--"); }), Contains("not a parameter"));
    CHECK_THAT(error_of(ExitCode::usage, [] { CommandLine().add("", "x"); }),
               Contains("not a parameter name"));
    CHECK_THAT(error_of(ExitCode::usage, [] { CommandLine().add("a=b", "x"); }),
               Contains("not a parameter name"));
}

TEST_CASE("write_command_line: the text and its NUL are in guest memory, up to the kernel's limit",
          "[boot][command_line]") {
    GuestMemory memory(1U << 20U);
    // What a longer line left there must not show behind the NUL.
    REQUIRE(memory.write_object(layout::command_line + 4, std::uint32_t{0x41414141}));
    CHECK(write_command_line(memory, "abcd", 4) == layout::command_line);
    CHECK(memory.read_object<std::uint64_t>(layout::command_line) == 0x4141'4100'6463'6261U);
    CHECK_THAT(error_of(ExitCode::usage, [&] { write_command_line(memory, "abcde", 4); }),
               Contains("5 bytes, but this kernel takes at most 4"));
    CHECK_THAT(error_of(ExitCode::usage, [&] { write_command_line(memory, "x", 0); }), Contains("at most 0"));
    CHECK(write_command_line(memory, "", 0) == layout::command_line);
}

TEST_CASE("write_command_line: a kernel's absurd limit does not let the line leave its place",
          "[boot][command_line]") {
    GuestMemory memory(1U << 20U);
    const std::string longest(layout::command_line_end - layout::command_line - 1, 'x');
    CHECK(write_command_line(memory, longest, 0xFFFF'FFFF) == layout::command_line);
    CHECK(memory.read_object<std::uint16_t>(layout::command_line_end - 2) == std::uint16_t{'x'});
    CHECK_THAT(error_of(ExitCode::usage, [&] { write_command_line(memory, longest + 'x', 0xFFFF'FFFF); }),
               Contains("at most 65535"));
}
