// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <map>
#include <numeric>
#include <string>

#include "acpi/aml.hpp"
#include "acpi/tables.hpp"
#include "arch/x86_64/layout.hpp"
#include "boot_images.hpp"
#include "catch.hpp"
#include "machines.hpp"

using namespace kvm_vmm;
using boot_images::Bytes;
using kvm_vmm::test::machine_with;
using kvm_vmm::test::remove_device;
using kvm_vmm::test::virtio_mmio;

namespace {

int sum(std::span<const std::uint8_t> bytes) { return std::accumulate(bytes.begin(), bytes.end(), 0) & 0xFF; }

template <class T>
T at(std::span<const std::uint8_t> table, std::size_t offset) {
    REQUIRE(offset + sizeof(T) <= table.size());
    T value{};
    std::memcpy(&value, table.data() + offset, sizeof(T));
    return value;
}

Bytes table_at(const GuestMemory& memory, std::uint64_t address) {
    const auto length = memory.read_object<std::uint32_t>(address + 4);
    REQUIRE(length);
    REQUIRE(address >= layout::acpi);
    REQUIRE(address + *length <= layout::acpi_end);
    const auto bytes = memory.slice(address, *length);
    return {bytes->begin(), bytes->end()};
}

/// Follows RSDP, XSDT and FADT as an operating system does.
std::map<std::string, Bytes> walk(const GuestMemory& memory, std::uint64_t rsdp_address) {
    CHECK(rsdp_address % 16 == 0);
    CHECK((rsdp_address >= 0xE0000 && rsdp_address < 0x100000));  // the area that is searched for a BIOS
    const auto rsdp = memory.slice(rsdp_address, 36);
    REQUIRE(rsdp);
    CHECK(std::string(rsdp->begin(), rsdp->begin() + 8) == "RSD PTR ");
    CHECK(sum(rsdp->first(20)) == 0);
    CHECK(sum(*rsdp) == 0);
    CHECK(at<std::uint8_t>(*rsdp, 15) == 2);
    std::map<std::string, Bytes> tables;
    const Bytes xsdt = table_at(memory, at<std::uint64_t>(*rsdp, 24));
    CHECK(sum(xsdt) == 0);
    for (std::size_t offset = 36; offset < xsdt.size(); offset += 8) {
        const Bytes table = table_at(memory, at<std::uint64_t>(xsdt, offset));
        CHECK(sum(table) == 0);
        tables[std::string(table.begin(), table.begin() + 4)] = table;
    }
    const Bytes fadt = tables.at("FACP");
    tables["DSDT"] = table_at(memory, at<std::uint32_t>(fadt, 40));
    CHECK(sum(tables["DSDT"]) == 0);
    CHECK(at<std::uint64_t>(fadt, 140) == at<std::uint32_t>(fadt, 40));
    CHECK(at<std::uint32_t>(fadt, 36) % 64 == 0);
    tables["FACS"] = table_at(memory, at<std::uint32_t>(fadt, 36));
    return tables;
}

std::map<std::string, Bytes> tables_of(const Platform& machine) {
    GuestMemory memory(1U << 20U);
    return walk(memory, write_acpi_tables(memory, layout::acpi_tables, machine));
}

bool contains(const Bytes& table, std::span<const std::uint8_t> part) {
    return std::search(table.begin(), table.end(), part.begin(), part.end()) != table.end();
}
bool contains(const Bytes& table, std::string_view text) {
    return std::search(table.begin(), table.end(), text.begin(), text.end()) != table.end();
}
/// How often `part` occurs.
std::size_t count(std::span<const std::uint8_t> table, const Bytes& part) {
    std::size_t found = 0;
    for (auto at = table.begin();
         (at = std::search(at, table.end(), part.begin(), part.end())) != table.end(); ++at) {
        ++found;
    }
    return found;
}

/// The resource descriptors of the device `name` (four letters), without the end tag.
Bytes resources_of(const Bytes& dsdt, std::string_view name) {
    const auto device = std::search(dsdt.begin(), dsdt.end(), name.begin(), name.end());
    REQUIRE(device != dsdt.end());
    constexpr std::string_view crs = "_CRS";
    const auto list = std::search(device, dsdt.end(), crs.begin(), crs.end());
    REQUIRE(list != dsdt.end());
    // BufferOp, a package length of one byte, a size in a byte (0x0A), the bytes, end tag and its sum
    const auto head = list + 4;
    REQUIRE(*head == 0x11);
    REQUIRE(head[1] < 0x40);
    REQUIRE(head[2] == 0x0A);
    const auto first = head + 4;
    const auto last = first + head[3] - 2;
    REQUIRE(*last == 0x79);
    return {first, last};
}

bool contains_eisa(const Bytes& table, std::string_view id) { return contains(table, aml::eisa_id(id)); }

}  // namespace

TEST_CASE("ACPI: every table can be reached from the RSDP and has the right length and checksum", "[acpi]") {
    const auto tables = tables_of(machine_with());
    CHECK(tables.size() == 4);
    CHECK(tables.at("FACP").size() == 276);
    CHECK(tables.at("FACS").size() == 64);
    CHECK(std::string(tables.at("FACS").begin(), tables.at("FACS").begin() + 4) == "FACS");
    CHECK(tables.contains("APIC"));
}

TEST_CASE("ACPI: the FADT's ports are those of the devices", "[acpi][fadt]") {
    const Bytes fadt = tables_of(machine_with()).at("FACP");
    CHECK(at<std::uint16_t>(fadt, 46) == 9);      // SCI
    CHECK(at<std::uint32_t>(fadt, 48) == 0);      // no SMI command port: always ACPI mode
    CHECK(at<std::uint32_t>(fadt, 56) == 0x600);  // PM1a event
    CHECK(at<std::uint32_t>(fadt, 64) == 0x604);  // PM1a control
    CHECK(at<std::uint32_t>(fadt, 76) == 0x608);  // PM timer
    CHECK(at<std::uint8_t>(fadt, 88) == 4);
    CHECK(at<std::uint8_t>(fadt, 89) == 2);
    CHECK(at<std::uint8_t>(fadt, 91) == 4);
    CHECK(at<std::uint64_t>(fadt, 116 + 4) == 0xCF9);  // reset register and value
    CHECK(at<std::uint8_t>(fadt, 116) == 1);
    CHECK(at<std::uint8_t>(fadt, 128) == 6);
    // The 64-bit blocks must agree with the old fields; otherwise operating systems complain.
    CHECK(at<std::uint64_t>(fadt, 148 + 4) == 0x600);
    CHECK(at<std::uint8_t>(fadt, 148 + 1) == 32);
    CHECK(at<std::uint64_t>(fadt, 172 + 4) == 0x604);
    CHECK(at<std::uint8_t>(fadt, 172 + 1) == 16);
    CHECK(at<std::uint64_t>(fadt, 208 + 4) == 0x608);
    CHECK(at<std::uint8_t>(fadt, 208 + 1) == 32);
    const auto flags = at<std::uint32_t>(fadt, 112);
    CHECK((flags & (1U << 4U)) == 0);   // a fixed power button
    CHECK((flags & (1U << 5U)) != 0);   // no fixed sleep button
    CHECK((flags & (1U << 8U)) != 0);   // 32-bit timer
    CHECK((flags & (1U << 10U)) != 0);  // reset register
    CHECK((flags & (1U << 20U)) == 0);  // not hardware-reduced
}

TEST_CASE("ACPI: FADT boot flags and DSDT are right about i8042 and CMOS", "[acpi][fadt][dsdt]") {
    constexpr unsigned legacy = 1;
    constexpr unsigned has_8042 = 2;
    constexpr unsigned no_vga = 4;
    constexpr unsigned no_cmos = 32;
    struct Case {
        vmsuperio::I8042Profile i8042;
        bool rtc;
        unsigned boot_flags;
    };
    using vmsuperio::I8042Profile;
    for (const Case& c : {Case{I8042Profile::absent, false, legacy | no_vga | no_cmos},
                          Case{I8042Profile::minimal, true, legacy | no_vga},
                          Case{I8042Profile::full, true, legacy | has_8042 | no_vga},
                          Case{I8042Profile::full, false, legacy | has_8042 | no_vga | no_cmos}}) {
        VmmConfig config;
        config.i8042 = c.i8042;
        Platform machine = machine_with(1, config);
        if (!c.rtc) {
            remove_device(machine, "CMOS");
        }
        const auto tables = tables_of(machine);
        CHECK(at<std::uint16_t>(tables.at("FACP"), 109) == c.boot_flags);
        CHECK(at<std::uint8_t>(tables.at("FACP"), 106) == (c.rtc ? 0x7D : 0));  // DAY_ALRM
        CHECK(at<std::uint8_t>(tables.at("FACP"), 107) == (c.rtc ? 0x7E : 0));  // MON_ALRM
        CHECK((at<std::uint8_t>(tables.at("FACP"), 108) != 0) == c.rtc);        // century register
        const Bytes& dsdt = tables.at("DSDT");
        CHECK(contains_eisa(dsdt, "PNP0303") == ((c.boot_flags & has_8042) != 0));
        CHECK(contains_eisa(dsdt, "PNP0F13") == ((c.boot_flags & has_8042) != 0));
        CHECK(contains_eisa(dsdt, "PNP0B00") == c.rtc);
    }
    VmmConfig config;
    config.i8042 = I8042Profile::absent;
    Platform bare = machine_with(0, config);
    remove_device(bare, "CMOS");
    CHECK(at<std::uint16_t>(tables_of(bare).at("FACP"), 109) == (no_vga | no_cmos));
}

TEST_CASE("ACPI: without power management the tables have no SCI, no timer and no S5", "[acpi][fadt]") {
    const auto tables = tables_of(Platform{});
    const Bytes& fadt = tables.at("FACP");
    CHECK(at<std::uint16_t>(fadt, 46) == 0);
    CHECK(at<std::uint32_t>(fadt, 56) == 0);
    CHECK(at<std::uint8_t>(fadt, 88) == 0);
    const auto flags = at<std::uint32_t>(fadt, 112);
    CHECK((flags & (1U << 8U)) == 0);
    CHECK((flags & (1U << 10U)) == 0);
    CHECK(at<std::uint64_t>(fadt, 116 + 4) == 0);
    CHECK(at<std::uint8_t>(fadt, 128) == 0);
    CHECK_FALSE(contains(tables.at("DSDT"), "_S5_"));
    CHECK_FALSE(contains(tables.at("APIC"), Bytes{2, 10, 0, 9}));
}

TEST_CASE("ACPI: the MADT lists each CPU, the IOAPIC, and the interrupts that differ from the ISA bus",
          "[acpi][madt]") {
    Platform machine = machine_with();
    machine.cpus = 254;
    const Bytes madt = tables_of(machine).at("APIC");
    CHECK(at<std::uint32_t>(madt, 36) == 0xFEE0'0000U);
    CHECK(at<std::uint32_t>(madt, 40) == 1);  // 8259 pair as well
    std::map<unsigned, std::vector<Bytes>> entries;
    for (std::size_t offset = 44; offset < madt.size(); offset += madt[offset + 1]) {
        REQUIRE(madt[offset + 1] != 0);
        REQUIRE(offset + madt[offset + 1] <= madt.size());
        const auto entry = std::span(madt).subspan(offset, madt[offset + 1]);
        entries[entry[0]].emplace_back(entry.begin(), entry.end());
    }
    REQUIRE(entries[0].size() == 254);
    for (unsigned i = 0; i < 254; ++i) {
        const auto id = static_cast<std::uint8_t>(i);
        CHECK(entries[0][i] == Bytes{0, 8, id, id, 1, 0, 0, 0});
    }
    CHECK(entries[1] == std::vector<Bytes>{{1, 12, 0, 0, 0x00, 0x00, 0xC0, 0xFE, 0, 0, 0, 0}});
    // The SCI. The timer is at the pin that KVM uses, and needs no override.
    CHECK(entries[2] == std::vector<Bytes>{{2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0}});
    CHECK(entries[4] == std::vector<Bytes>{{4, 6, 0xFF, 0, 0, 1}});
    CHECK(entries.size() == 4);
}

TEST_CASE("ACPI: serial ports that share an interrupt are described as sharing it", "[acpi][dsdt]") {
    const Bytes two = tables_of(machine_with(2)).at("DSDT");
    CHECK(contains(two, "COM1"));
    CHECK(contains(two, "COM2"));
    CHECK_FALSE(contains(two, "COM3"));
    CHECK(contains(two, Bytes{0x47, 1, 0xF8, 0x03, 0xF8, 0x03, 1, 8, 0x22, 0x10, 0x00}));
    CHECK(contains(two, Bytes{0x47, 1, 0xF8, 0x02, 0xF8, 0x02, 1, 8, 0x22, 0x08, 0x00}));
    const Bytes four = tables_of(machine_with(4)).at("DSDT");
    CHECK(contains(four, Bytes{0x47, 1, 0xE8, 0x03, 0xE8, 0x03, 1, 8, 0x23, 0x10, 0x00, 0x11}));
    CHECK_FALSE(contains(four, Bytes{0x22, 0x10, 0x00}));
}

TEST_CASE("ACPI: each device has the ports and the interrupt of the machine, and no others", "[acpi][dsdt]") {
    const Bytes dsdt = tables_of(machine_with(4)).at("DSDT");
    // I/O port descriptor 0x47: 16-bit decoding, lowest, highest, alignment, length. IRQ descriptor 0x22:
    // edge, active high, exclusive; a bit for each line (ACPI 6.5, 6.4.2.1 and 6.4.2.5).
    CHECK(resources_of(dsdt, "KBD_") == Bytes{0x47, 1, 0x60, 0, 0x60, 0, 1, 1,  //
                                              0x47, 1, 0x64, 0, 0x64, 0, 1, 1,  //
                                              0x22, 0x02, 0x00});               // IRQ 1
    CHECK(resources_of(dsdt, "MOU_") == Bytes{0x22, 0x00, 0x10});               // IRQ 12
    CHECK(resources_of(dsdt, "RTC_") == Bytes{0x47, 1, 0x70, 0, 0x70, 0, 1, 4,  //
                                              0x22, 0x00, 0x01});               // IRQ 8
    CHECK(resources_of(dsdt, "PEVT") == Bytes{0x47, 1, 0x05, 0x05, 0x05, 0x05, 1, 1});
    // Shared lines have the long form; IRQ 4 and IRQ 3 in turn.
    const auto com = [](std::uint8_t low, std::uint8_t high, std::uint8_t irq_bit) {
        return Bytes{0x47, 1, low, high, low, high, 1, 8, 0x23, irq_bit, 0x00, 0x11};
    };
    CHECK(resources_of(dsdt, "COM1") == com(0xF8, 0x03, 0x10));
    CHECK(resources_of(dsdt, "COM2") == com(0xF8, 0x02, 0x08));
    CHECK(resources_of(dsdt, "COM3") == com(0xE8, 0x03, 0x10));
    CHECK(resources_of(dsdt, "COM4") == com(0xE8, 0x02, 0x08));
}

TEST_CASE("ACPI: the package of S5 is complete and contains the type that the hardware accepts",
          "[acpi][dsdt]") {
    // NameOp _S5_, PackageOp of 4 elements: SLP_TYPa, SLP_TYPb, two reserved (ACPI 6.5, 7.4.2). Some kernels
    // read beyond a shorter one.
    const Bytes dsdt = tables_of(machine_with()).at("DSDT");
    const Bytes type = aml::integer(5);
    Bytes elements = type;
    elements.insert(elements.end(), type.begin(), type.end());
    elements.insert(elements.end(), {0x00, 0x00});
    Bytes package{0x08, '_', 'S', '5', '_', 0x12, static_cast<std::uint8_t>(elements.size() + 2), 4};
    package.insert(package.end(), elements.begin(), elements.end());
    CHECK(count(dsdt, package) == 1);
}

TEST_CASE("ACPI: virtio-mmio devices have their window and interrupt", "[acpi][dsdt]") {
    Platform machine = machine_with();
    remove_device(machine, "pvpanic");
    machine.devices.push_back(virtio_mmio(0, 0xD000'0000, 0x1000, 16));
    machine.devices.push_back(virtio_mmio(1, 0xD000'1000, 0x1000, 17, vmdevice::IrqSharing::level));
    const Bytes dsdt = tables_of(machine).at("DSDT");
    CHECK(contains(dsdt, "LNRO0005"));
    CHECK(contains(dsdt, "VT01"));
    CHECK_FALSE(contains(dsdt, "QEMU0001"));
    CHECK(
        contains(dsdt, Bytes{0x86, 9, 0, 1, 0, 0, 0, 0xD0, 0, 0x10, 0, 0, 0x89, 6, 0, 0x03, 1, 16, 0, 0, 0}));
    CHECK(contains(dsdt,
                   Bytes{0x86, 9, 0, 1, 0, 0x10, 0, 0xD0, 0, 0x10, 0, 0, 0x89, 6, 0, 0x09, 1, 17, 0, 0, 0}));
    CHECK(contains(tables_of(machine_with()).at("DSDT"), "QEMU0001"));
}

TEST_CASE("ACPI: there may be as many devices as there are names; a device that does not fit is refused",
          "[acpi]") {
    Platform machine = machine_with(4);
    machine.cpus = 254;
    for (std::size_t i = 0; i < 256; ++i) {
        machine.devices.push_back(virtio_mmio(i, 0xD000'0000, 0x1000, 16));
    }
    CHECK(contains(tables_of(machine).at("DSDT"), "VTFF"));
    GuestMemory small(0xE1000);
    CHECK_THAT(boot_images::error_of(ExitCode::usage,
                                     [&] { write_acpi_tables(small, layout::acpi_tables, machine); }),
               Catch::Matchers::Contains("do not fit"));
}

TEST_CASE("ACPI: a machine that AML cannot describe is refused as wrong usage", "[acpi]") {
    GuestMemory memory(0x10'0000);
    const auto refusal = [&memory](const DeviceDescription& device) {
        Platform machine = machine_with();
        machine.devices.push_back(device);
        return boot_images::error_of(ExitCode::usage,
                                     [&] { write_acpi_tables(memory, layout::acpi_tables, machine); });
    };
    CHECK(refusal(virtio_mmio(0, 0xD000'0000, 0x1000, 16)) == "(no error)");
    DeviceDescription misnamed = virtio_mmio(0, 0xD000'0000, 0x1000, 16);
    misnamed.acpi_nodes.front().name = "1COM";
    CHECK_THAT(refusal(misnamed), Catch::Matchers::Contains("1COM"));
    // A port descriptor counts up to 255 ports, a fixed memory descriptor addresses 4 GiB.
    DeviceDescription wide{
        .name = "wide", .title = {}, .model = {}, .resources = {ports(vmdevice::pio_range(0x4000, 256))}};
    CHECK_THAT(refusal(with_acpi_node(wide, "WIDE", "TEST0001")), Catch::Matchers::Contains("does not fit"));
    wide.resources = {mmio_window(vmdevice::mmio_range(0x1'0000'0000, 0x1000))};
    CHECK_THAT(refusal(with_acpi_node(wide, "WIDE", "TEST0001")), Catch::Matchers::Contains("does not fit"));
    // A descriptor needs an address, which a device that may be placed anywhere does not have.
    wide.resources = {vmdevice::PioConstraint{.size = 8}};
    CHECK_THAT(refusal(with_acpi_node(wide, "WIDE", "TEST0001")), Catch::Matchers::Contains("no descriptor"));
}

TEST_CASE("AML: integers and package lengths have the shortest form that can represent them", "[acpi][aml]") {
    CHECK(aml::integer(0) == Bytes{0x00});
    CHECK(aml::integer(1) == Bytes{0x01});
    CHECK(aml::integer(2) == Bytes{0x0A, 2});
    CHECK(aml::integer(0x100) == Bytes{0x0B, 0x00, 0x01});
    CHECK(aml::integer(0x1'0000) == Bytes{0x0C, 0, 0, 1, 0});
    CHECK(aml::integer(0x1'0000'0000) == Bytes{0x0E, 0, 0, 0, 0, 1, 0, 0, 0});

    // A scope's content is its name (4 bytes) and one term of n bytes.
    const auto head = [](std::size_t n) {
        const Bytes scope = aml::scope("ABCD", {Bytes(n, 0xA3)});
        const auto name = std::search(scope.begin(), scope.end(), std::begin("ABCD"), std::begin("ABCD") + 4);
        return Bytes(scope.begin(), name);
    };
    CHECK(head(0x3F - 5) == Bytes{0x10, 0x3F});
    CHECK(head(0x3F - 4) == Bytes{0x10, 0x41, 0x04});  // 65, which includes the length itself
    CHECK(head(0xFFF - 6) == Bytes{0x10, 0x4F, 0xFF});
    CHECK(head(0xFFF - 5) == Bytes{0x10, 0x81, 0x00, 0x01});
    CHECK(head(0xF'FFFF - 7) == Bytes{0x10, 0x8F, 0xFF, 0xFF});
    CHECK(head(0xF'FFFF - 6) == Bytes{0x10, 0xC1, 0x00, 0x00, 0x01});
}

TEST_CASE("AML: names are padded, paths and EISA ids are encoded, invalid ones are refused", "[acpi][aml]") {
    CHECK(aml::name_string("RTC") == Bytes{'R', 'T', 'C', '_'});
    CHECK(aml::name_string("\\_SB.COM1") == Bytes{'\\', 0x2E, '_', 'S', 'B', '_', 'C', 'O', 'M', '1'});
    CHECK(aml::name_string("A.B.C") ==
          Bytes{0x2F, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_'});
    CHECK(aml::name_string("^^X") == Bytes{'^', '^', 'X', '_', '_', '_'});
    CHECK(aml::name_string("\\") == Bytes{'\\', 0});
    CHECK(aml::eisa_id("PNP0501") == Bytes{0x0C, 0x41, 0xD0, 0x05, 0x01});
    CHECK(aml::string("Hi") == Bytes{0x0D, 'H', 'i', 0});
    for (const char* const bad : {"", "1ABC", "TOOLONG", "A..B", "abc", "A.", "A-B"}) {
        CAPTURE(bad);
        CHECK_THROWS_AS(aml::name_string(bad), std::invalid_argument);
    }
    for (const char* const bad : {"", "PNP05010", "pnp0501", "PNP05G1"}) {
        CAPTURE(bad);
        CHECK_THROWS_AS(aml::eisa_id(bad), std::invalid_argument);
    }
    CHECK_THROWS_AS(aml::irq(16), std::invalid_argument);
}
