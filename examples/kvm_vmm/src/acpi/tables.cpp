// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "acpi/tables.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>

#include <vmsuperio/registers/acpi_pm.hpp>

#include "acpi/dsdt.hpp"
#include "util/bytes.hpp"
#include "util/error.hpp"

namespace kvm_vmm {
namespace {

constexpr std::string_view oem_id = "VMSUPR";
constexpr std::string_view oem_table_id = "KVMVMM  ";
constexpr std::string_view creator_id = "VMSP";
constexpr std::size_t header_length = 36;
constexpr std::size_t checksum_offset = 9;

/// Appends fields one after the other, little-endian, in the order of the specification's tables.
class Fields {
public:
    Fields& text(std::string_view value) {
        append_text(bytes_, value);
        return *this;
    }
    Fields& u8(std::uint8_t value) { return integer(value, 1); }
    Fields& u16(std::uint16_t value) { return integer(value, 2); }
    Fields& u32(std::uint32_t value) { return integer(value, 4); }
    Fields& u64(std::uint64_t value) { return integer(value, 8); }
    Fields& zeros(std::size_t count) {
        bytes_.insert(bytes_.end(), count, 0);
        return *this;
    }
    /// Generic Address Structure (5.2.3.2) of a register in I/O space; port 0 means there is none.
    Fields& io_register(std::uint16_t port, std::uint8_t bytes, std::uint8_t access_size) {
        constexpr std::uint8_t system_io = 1;
        if (port == 0) {
            return zeros(12);
        }
        return u8(system_io).u8(static_cast<std::uint8_t>(bytes * 8)).u8(0).u8(access_size).u64(port);
    }
    Fields& append(std::span<const std::uint8_t> bytes) {
        append_bytes(bytes_, bytes);
        return *this;
    }
    [[nodiscard]] std::vector<std::uint8_t> take() { return std::move(bytes_); }

private:
    Fields& integer(std::uint64_t value, unsigned bytes) {
        append_integer(bytes_, value, bytes);
        return *this;
    }

    std::vector<std::uint8_t> bytes_;
};

/// The registers of power management, or zeros.
struct PowerRegisters {
    struct Block {
        std::uint16_t port{};
        std::uint8_t length{};
    };
    std::uint16_t sci_irq{};
    Block event;
    Block control;
    Block timer;

    explicit PowerRegisters(const fixed_hardware::PowerManagement* power) {
        namespace pm = vmsuperio::acpi_pm;
        if (power != nullptr) {
            const auto at = [power](std::size_t offset) {
                return static_cast<std::uint16_t>(power->block_port + offset);
            };
            sci_irq = power->sci_irq;
            event = {.port = at(pm::status_offset), .length = pm::event_length};
            control = {.port = at(pm::control_offset), .length = pm::control_length};
            timer = {.port = at(pm::timer_offset), .length = pm::timer_length};
        }
    }
};

/// Whether a device is one of a PC's ISA bus, which an operating system shows to its user (table 5.11).
bool is_legacy(const DeviceDescription& device) {
    return std::ranges::any_of(device.acpi_nodes,
                               [](const AcpiNode& node) { return node.hardware_id.starts_with("PNP"); });
}

}  // namespace

AcpiTable make_acpi_table(std::string_view signature, std::uint8_t revision,
                          const std::vector<std::uint8_t>& body) {
    constexpr std::uint32_t oem_revision = 1;
    constexpr std::uint32_t creator_revision = 1;
    AcpiTable table = Fields{}
                          .text(signature)
                          .u32(static_cast<std::uint32_t>(header_length + body.size()))
                          .u8(revision)
                          .u8(0)  // checksum, below
                          .text(oem_id)
                          .text(oem_table_id)
                          .u32(oem_revision)
                          .text(creator_id)
                          .u32(creator_revision)
                          .append(body)
                          .take();
    table[checksum_offset] = checksum_of(table);
    return table;
}

AcpiTable make_dsdt(const Platform& platform) {
    constexpr std::uint8_t integers_have_64_bits = 2;
    return make_acpi_table("DSDT", integers_have_64_bits, dsdt_body(platform));
}

AcpiTable make_facs() {
    // 5.2.10: no checksum, no common header. Everything for which firmware would use it (waking from S3, the
    // global lock) never occurs here.
    constexpr std::uint32_t length = 64;
    constexpr std::uint8_t version = 2;
    return Fields{}
        .text("FACS")
        .u32(length)
        .u32(0)  // hardware signature
        .u32(0)  // 32-bit waking vector
        .u32(0)  // global lock
        .u32(0)  // flags
        .u64(0)  // 64-bit waking vector
        .u8(version)
        .zeros(31)
        .take();
}

AcpiTable make_fadt(const Platform& platform, std::uint32_t facs, std::uint32_t dsdt) {
    constexpr std::uint8_t revision = 6;
    constexpr std::uint8_t minor_revision = 3;
    constexpr std::uint16_t no_c2 = 101;  // latencies beyond 100 and 1000 us mean that there is no such state
    constexpr std::uint16_t no_c3 = 1001;

    // Boot architecture flags, table 5.11.
    constexpr unsigned legacy_devices = 1U << 0U;
    constexpr unsigned has_8042 = 1U << 1U;
    constexpr unsigned vga_not_present = 1U << 2U;
    constexpr unsigned cmos_rtc_not_present = 1U << 5U;
    const auto* const power = platform.fixed_hardware<fixed_hardware::PowerManagement>();
    const auto* const reset = platform.fixed_hardware<fixed_hardware::ResetRegister>();
    const auto* const cmos = platform.fixed_hardware<fixed_hardware::CmosClock>();
    unsigned boot_flags = vga_not_present;
    if (std::ranges::any_of(platform.devices, is_legacy)) {
        boot_flags |= legacy_devices;
    }
    if (platform.fixed_hardware<fixed_hardware::KeyboardController>() != nullptr) {
        boot_flags |= has_8042;
    }
    if (cmos == nullptr) {
        boot_flags |= cmos_rtc_not_present;
    }

    // Feature flags, table 5.10. PWR_BUTTON (bit 4) stays 0: there is one, in PM1.
    constexpr std::uint32_t wbinvd = 1U << 0U;
    constexpr std::uint32_t c1_on_all_cpus = 1U << 2U;
    constexpr std::uint32_t no_fixed_sleep_button = 1U << 5U;
    constexpr std::uint32_t no_fixed_rtc_wake = 1U << 6U;
    constexpr std::uint32_t timer_has_32_bits = 1U << 8U;
    constexpr std::uint32_t reset_register = 1U << 10U;
    const std::uint32_t flags = wbinvd | c1_on_all_cpus | no_fixed_sleep_button | no_fixed_rtc_wake |
                                (power != nullptr ? timer_has_32_bits : 0U) |
                                (reset != nullptr ? reset_register : 0U);

    // Access sizes of a Generic Address Structure.
    constexpr std::uint8_t access_byte = 1;
    constexpr std::uint8_t access_word = 2;
    constexpr std::uint8_t access_dword = 3;

    const PowerRegisters registers(power);
    Fields body;
    body.u32(facs).u32(dsdt);
    body.u8(0).u8(0);  // reserved; preferred PM profile: unspecified
    body.u16(registers.sci_irq);
    body.u32(0).u8(0).u8(0).u8(0).u8(0);      // SMI_CMD 0: always in ACPI mode
    body.u32(registers.event.port).u32(0);    // PM1a, PM1b event
    body.u32(registers.control.port).u32(0);  // PM1a, PM1b control
    body.u32(0);                              // PM2 control
    body.u32(registers.timer.port);
    body.u32(0).u32(0);  // GPE0, GPE1
    body.u8(registers.event.length).u8(registers.control.length).u8(0).u8(registers.timer.length);
    body.u8(0).u8(0).u8(0).u8(0);  // GPE0 length, GPE1 length and base, C-state control
    body.u16(no_c2).u16(no_c3);
    body.u16(0).u16(0).u8(0).u8(0);  // cache flush size and stride, duty offset and width
    const auto indices = cmos != nullptr ? *cmos : fixed_hardware::CmosClock{};
    body.u8(indices.day_alarm).u8(indices.month_alarm).u8(indices.century);
    body.u16(static_cast<std::uint16_t>(boot_flags)).u8(0);
    body.u32(flags);
    if (reset != nullptr) {
        body.io_register(reset->port, 1, access_byte).u8(reset->value);
    } else {
        body.io_register(0, 0, 0).u8(0);
    }
    body.u16(0);  // ARM boot flags
    body.u8(minor_revision);
    body.u64(0);  // X_FIRMWARE_CTRL: the 32-bit field is used
    body.u64(dsdt);
    body.io_register(registers.event.port, registers.event.length, access_word).io_register(0, 0, 0);
    body.io_register(registers.control.port, registers.control.length, access_word).io_register(0, 0, 0);
    body.io_register(0, 0, 0);  // PM2 control
    body.io_register(registers.timer.port, registers.timer.length, access_dword);
    body.io_register(0, 0, 0).io_register(0, 0, 0);  // GPE0, GPE1
    body.io_register(0, 0, 0).io_register(0, 0, 0);  // sleep control and status: hardware-reduced ACPI only
    body.u64(0);                                     // hypervisor vendor identity
    return make_acpi_table("FACP", revision, body.take());
}

AcpiTable make_madt(const Platform& platform) {
    constexpr std::uint8_t revision = 5;
    constexpr std::uint32_t has_8259 = 1;
    constexpr std::uint32_t cpu_enabled = 1;
    constexpr std::uint8_t isa_bus = 0;
    constexpr std::uint16_t active_high_level = 0x000D;  // MPS INTI flags, table 5.26
    constexpr std::uint16_t as_bus_does = 0;
    constexpr std::uint8_t all_cpus = 0xFF;

    Fields body;
    body.u32(platform::lapic_address).u32(has_8259);
    for (unsigned i = 0; i < platform.cpus; ++i) {
        const auto id = static_cast<std::uint8_t>(i);
        body.u8(0).u8(8).u8(id).u8(id).u32(cpu_enabled);  // processor local APIC: UID, APIC id
    }
    body.u8(1).u8(12).u8(platform::ioapic_id).u8(0).u32(platform::ioapic_address).u32(0);  // I/O APIC
    const auto override_isa = [&body](std::uint8_t irq, std::uint32_t gsi, std::uint16_t flags) {
        body.u8(2).u8(10).u8(isa_bus).u8(irq).u32(gsi).u16(flags);
    };
    if (const auto* const power = platform.fixed_hardware<fixed_hardware::PowerManagement>()) {
        override_isa(power->sci_irq, power->sci_irq, active_high_level);
    }
    body.u8(4).u8(6).u8(all_cpus).u16(as_bus_does).u8(1);  // NMI at LINT1 of every local APIC
    return make_acpi_table("APIC", revision, body.take());
}

AcpiTable make_xsdt(const std::vector<std::uint64_t>& tables) {
    Fields body;
    for (const std::uint64_t address : tables) {
        body.u64(address);
    }
    return make_acpi_table("XSDT", 1, body.take());
}

AcpiTable make_rsdp(std::uint64_t xsdt) {
    constexpr std::size_t acpi_1_length = 20;
    constexpr std::size_t length = 36;
    constexpr std::uint8_t revision = 2;
    constexpr std::size_t first_checksum = 8;
    constexpr std::size_t extended_checksum = 32;
    AcpiTable rsdp = Fields{}
                         .text("RSD PTR ")
                         .u8(0)
                         .text(oem_id)
                         .u8(revision)
                         .u32(0)  // no RSDT
                         .u32(length)
                         .u64(xsdt)
                         .u8(0)
                         .zeros(3)
                         .take();
    rsdp[first_checksum] = checksum_of(std::span(rsdp).first(acpi_1_length));
    rsdp[extended_checksum] = checksum_of(rsdp);
    return rsdp;
}

namespace {

// AML cannot describe some devices: one with a malformed name, or with memory above 4 GiB.
AcpiTable checked_dsdt(const Platform& platform) {
    try {
        return make_dsdt(platform);
    } catch (const std::logic_error& error) {
        throw VmmError(ExitCode::usage, error.what());
    }
}

}  // namespace

std::uint64_t write_acpi_tables(GuestMemory& memory, GuestRange space, const Platform& platform) {
    constexpr std::uint64_t alignment = 64;          // that of the FACS; the others need less
    std::uint64_t next = space.address + alignment;  // after the RSDP
    const auto place = [&](const AcpiTable& table) {
        const std::uint64_t address = next;
        if (address + table.size() > space.address + space.size || !memory.write(address, table)) {
            throw VmmError(ExitCode::usage, "the ACPI tables do not fit: too many devices or too little RAM");
        }
        next = (address + table.size() + alignment - 1) & ~(alignment - 1);
        return address;
    };
    const std::uint64_t facs = place(make_facs());
    const std::uint64_t dsdt = place(checked_dsdt(platform));
    const std::uint64_t fadt =
        place(make_fadt(platform, static_cast<std::uint32_t>(facs), static_cast<std::uint32_t>(dsdt)));
    const std::uint64_t madt = place(make_madt(platform));
    const std::uint64_t xsdt = place(make_xsdt({fadt, madt}));
    next = space.address;
    return place(make_rsdp(xsdt));
}

}  // namespace kvm_vmm
