// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <unistd.h>

#include "acpi/tables.hpp"
#include "boot_images.hpp"
#include "catch.hpp"
#include "machines.hpp"

using namespace kvm_vmm;
using Catch::Matchers::Contains;

namespace {

std::string run(const std::string& command) {
    std::string output;
    // NOLINTNEXTLINE(cert-env33-c): the command is ours
    FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::array<char, 4096> buffer{};
    for (std::size_t got = 0; (got = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
        output.append(buffer.data(), got);
    }
    ::pclose(pipe);
    return output;
}

bool have_iasl() { return run("iasl -v").find("ASL+ Optimizing Compiler") != std::string::npos; }

AcpiTable read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Disassembles and recompiles one table. The result must be the same except for the compiler's identity.
void check_table(const std::filesystem::path& directory, const std::string& name, AcpiTable table) {
    CAPTURE(name);
    const std::filesystem::path file = directory / (name + ".dat");
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
    const std::string change = "cd '" + directory.string() + "' && ";
    const std::string disassembly = run(change + "iasl -d " + name + ".dat");
    CAPTURE(disassembly);
    REQUIRE_THAT(disassembly, Contains(name + ".dsl"));
    CHECK_THAT(disassembly, !Contains("rror") && !Contains("arning"));
    const std::string compilation = run(change + "iasl -we -p again " + name + ".dsl");
    CAPTURE(compilation);
    CHECK_THAT(compilation, Contains("0 Errors, 0 Warnings, 0 Remarks"));
    CHECK_THAT(compilation, !Contains("Optimizations") || Contains(" 0 Optimizations"));

    AcpiTable again = read_file(directory / "again.aml");
    REQUIRE(again.size() == table.size());
    if (name != "facs") {
        for (AcpiTable* const each : {&table, &again}) {
            (*each)[9] = 0;                                        // checksum
            std::fill(each->begin() + 28, each->begin() + 36, 0);  // creator and its revision
        }
    }
    CHECK(again == table);
}

void check_all(const Platform& machine) {
    const std::filesystem::path directory =
        std::filesystem::temp_directory_path() / ("kvm_vmm_iasl_test." + std::to_string(::getpid()));
    std::filesystem::create_directory(directory);
    check_table(directory, "dsdt", make_dsdt(machine));
    check_table(directory, "facp", make_fadt(machine, 0xE0040, 0xE0080));
    check_table(directory, "facs", make_facs());
    check_table(directory, "apic", make_madt(machine));
    check_table(directory, "xsdt", make_xsdt({0xE1000, 0xE2000}));
    std::filesystem::remove_all(directory);
}

}  // namespace

TEST_CASE("ACPI: iasl disassembles and recompiles the tables of an ordinary machine to the same bytes",
          "[acpi][iasl]") {
    if (!have_iasl()) {
        VMSUPERIO_SKIP("iasl is not installed (Debian package acpica-tools)");
    }
    check_all(test::machine_with());
}

TEST_CASE("ACPI: iasl disassembles and recompiles the tables of a full machine to the same bytes",
          "[acpi][iasl]") {
    if (!have_iasl()) {
        VMSUPERIO_SKIP("iasl is not installed (Debian package acpica-tools)");
    }
    Platform machine = test::machine_with(4);
    machine.cpus = 64;
    machine.devices.push_back(test::virtio_mmio(0, 0xD000'0000, 0x1000, 5));
    machine.devices.push_back(test::virtio_mmio(1, 0xD000'1000, 0x1000, 16));
    machine.devices.push_back(test::virtio_mmio(2, 0xD000'2000, 0x200, 23, vmdevice::IrqSharing::level));
    check_all(machine);
}

TEST_CASE("ACPI: iasl disassembles and recompiles the tables of a bare machine to the same bytes",
          "[acpi][iasl]") {
    if (!have_iasl()) {
        VMSUPERIO_SKIP("iasl is not installed (Debian package acpica-tools)");
    }
    VmmConfig config;
    config.i8042 = vmsuperio::I8042Profile::absent;
    Platform machine = test::machine_with(0, config);
    test::remove_device(machine, "CMOS");
    test::remove_device(machine, "pvpanic");
    check_all(machine);
}
