// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/mptable.hpp"

#include <numeric>
#include <string>
#include <vector>

#include "arch/x86_64/layout.hpp"
#include "boot_images.hpp"
#include "catch.hpp"
#include "machines.hpp"

using namespace kvm_vmm;

namespace {

struct MpTable {
    boot_images::Bytes configuration;
    std::vector<boot_images::Bytes> entries;
};

int sum(std::span<const std::uint8_t> bytes) { return std::accumulate(bytes.begin(), bytes.end(), 0) & 0xFF; }

/// Finds the floating pointer as a kernel does: on a 16-byte boundary in the BIOS area, with a valid
/// checksum.
MpTable find(const GuestMemory& memory) {
    for (std::uint64_t at = 0xF0000; at < 0x100000; at += 16) {
        const auto pointer = memory.slice(at, 16);
        if (memory.read_object<std::uint32_t>(at) != 0x5F50'4D5FU || sum(*pointer) != 0) {
            continue;
        }
        CHECK((*pointer)[8] == 1);
        CHECK((*pointer)[11] == 0);  // a configuration table is present
        const std::uint64_t table = memory.read_object<std::uint32_t>(at + 4).value();
        const auto length = memory.read_object<std::uint16_t>(table + 4).value();
        const auto bytes = memory.slice(table, length);
        REQUIRE(bytes);
        MpTable result{{bytes->begin(), bytes->end()}, {}};
        for (std::size_t offset = 44; offset < length;) {
            const std::size_t size = (*bytes)[offset] == 0 ? 20 : 8;
            REQUIRE(offset + size <= length);
            const auto entry = bytes->subspan(offset, size);
            result.entries.emplace_back(entry.begin(), entry.end());
            offset += size;
        }
        return result;
    }
    FAIL("no MP floating pointer");
    return {};
}

MpTable table_of(const Platform& machine) {
    GuestMemory memory(1U << 20U);
    write_mptable(memory, machine);
    return find(memory);
}

std::vector<boot_images::Bytes> of_type(const MpTable& table, std::uint8_t type) {
    std::vector<boot_images::Bytes> found;
    for (const auto& entry : table.entries) {
        if (entry[0] == type) {
            found.push_back(entry);
        }
    }
    return found;
}

}  // namespace

TEST_CASE("MP table: a kernel's search finds it, with valid checksums and entry count", "[boot][mptable]") {
    for (const unsigned cpus : {1U, 2U, 64U, 254U}) {
        Platform machine = test::machine_with();
        machine.cpus = cpus;
        const MpTable table = table_of(machine);
        CHECK(sum(table.configuration) == 0);
        CHECK(std::string(table.configuration.begin(), table.configuration.begin() + 4) == "PCMP");
        CHECK(table.configuration[34] + 256U * table.configuration[35] == table.entries.size());
        // There is no OEM table (whose address and size these are) and there are no extended entries (MP
        // specification 1.4, 4.2).
        for (const std::size_t at : {28U, 29U, 30U, 31U, 32U, 33U, 40U, 41U, 42U, 43U}) {
            CHECK(table.configuration[at] == 0);
        }
        const auto processors = of_type(table, 0);
        REQUIRE(processors.size() == cpus);
        for (unsigned i = 0; i < cpus; ++i) {
            CHECK(processors[i][1] == i);                 // APIC id
            CHECK(processors[i][3] == (i == 0 ? 3 : 1));  // enabled; one boot CPU
        }
    }
}

TEST_CASE("MP table: one IOAPIC on the ISA bus with every interrupt except the cascade", "[boot][mptable]") {
    const MpTable table = table_of(test::machine_with());
    REQUIRE(of_type(table, 1).size() == 1);
    const auto io_apics = of_type(table, 2);
    REQUIRE(io_apics.size() == 1);
    CHECK(io_apics[0] == boot_images::Bytes{2, 0, 0x11, 1, 0x00, 0x00, 0xC0, 0xFE});
    const auto interrupts = of_type(table, 3);
    CHECK(interrupts.size() == 15);
    for (const auto& entry : interrupts) {
        CHECK(entry[5] != 2);
        CHECK(entry[7] == entry[5]);
        CHECK(entry[2] == (entry[5] == 9 ? 0x0D : 0));  // the SCI is level triggered, active high
    }
    Platform machine = test::machine_with();
    machine.devices.push_back(test::virtio_mmio(0, 0xD000'0000, 0x1000, 11));
    machine.devices.push_back(test::virtio_mmio(1, 0xD000'1000, 0x1000, 16, vmdevice::IrqSharing::edge));
    machine.devices.push_back(test::virtio_mmio(2, 0xD000'2000, 0x1000, 16, vmdevice::IrqSharing::edge));
    machine.devices.push_back(test::virtio_mmio(3, 0xD000'3000, 0x1000, 23));
    const auto more = of_type(table_of(machine), 3);
    REQUIRE(more.size() == 17);  // those of ISA, and each pin above them that has a device once
    CHECK(more[15] == boot_images::Bytes{3, 0, 0x05, 0, 0, 16, 0, 16});  // edge triggered, active high
    CHECK(more[16] == boot_images::Bytes{3, 0, 0x05, 0, 0, 23, 0, 23});
    const auto local = of_type(table, 4);
    REQUIRE(local.size() == 2);
    CHECK(local[0] == boot_images::Bytes{4, 3, 0, 0, 0, 0, 0, 0});     // ExtINT at LINT0 of the boot CPU
    CHECK(local[1] == boot_images::Bytes{4, 1, 0, 0, 0, 0, 0xFF, 1});  // NMI at LINT1 of all CPUs
}
