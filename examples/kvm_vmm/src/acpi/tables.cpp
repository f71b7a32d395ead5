// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "acpi/tables.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>

#include "acpi/dsdt.hpp"
#include "util/error.hpp"

namespace kvm_vmm {
namespace {

constexpr std::string_view oem_id = "VMSUPR";
constexpr std::string_view oem_table_id = "KVMVMM  ";
constexpr std::string_view creator_id = "VMSP";
constexpr std::size_t header_length = 36;
constexpr std::size_t checksum_offset = 9;

/// Appends fields one after the other, little-endian, as the specification's tables list them.
class Fields {
public:
    Fields& text(std::string_view value) {
        bytes_.insert(bytes_.end(), value.begin(), value.end());
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
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    [[nodiscard]] std::vector<std::uint8_t> take() { return std::move(bytes_); }

private:
    Fields& integer(std::uint64_t value, unsigned bytes) {
        for (unsigned i = 0; i < bytes; ++i) {
            bytes_.push_back(static_cast<std::uint8_t>(value >> (8U * i)));
        }
        return *this;
    }

    std::vector<std::uint8_t> bytes_;
};

/// The value that makes all bytes add up to 0.
std::uint8_t checksum(std::span<const std::uint8_t> bytes) {
    return static_cast<std::uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0));
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
    table[checksum_offset] = checksum(table);
    return table;
}

AcpiTable make_dsdt(const Platform& platform) {
    constexpr std::uint8_t integers_have_64_bits = 2;
    return make_acpi_table("DSDT", integers_have_64_bits, dsdt_body(platform));
}

AcpiTable make_facs() {
    // 5.2.10: no checksum, no common header. All that firmware would use it for (waking from S3, the
    // global lock) never happens here.
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
    constexpr std::uint16_t no_c2 = 101;  // latencies beyond 100 and 1000 us mean: no such state
    constexpr std::uint16_t no_c3 = 1001;
    constexpr std::uint8_t century_in_cmos = 0x32;

    // Boot architecture flags, table 5.11.
    constexpr unsigned legacy_devices = 1U << 0U;
    constexpr unsigned has_8042 = 1U << 1U;
    constexpr unsigned vga_not_present = 1U << 2U;
    constexpr unsigned cmos_rtc_not_present = 1U << 5U;
    unsigned boot_flags = vga_not_present;
    if (!platform.serial_ports.empty() || platform.rtc) {
        boot_flags |= legacy_devices;
    }
    if (platform.i8042 == I8042Profile::keyboard || platform.i8042 == I8042Profile::keyboard_and_mouse) {
        boot_flags |= has_8042 | legacy_devices;
    }
    if (!platform.rtc) {
        boot_flags |= cmos_rtc_not_present;
    }

    // Feature flags, table 5.10. PWR_BUTTON (bit 4) stays 0: there is one, in PM1.
    constexpr std::uint32_t wbinvd = 1U << 0U;
    constexpr std::uint32_t c1_on_all_cpus = 1U << 2U;
    constexpr std::uint32_t no_fixed_sleep_button = 1U << 5U;
    constexpr std::uint32_t no_fixed_rtc_wake = 1U << 6U;
    constexpr std::uint32_t timer_has_32_bits = 1U << 8U;
    constexpr std::uint32_t reset_register = 1U << 10U;
    constexpr std::uint32_t flags = wbinvd | c1_on_all_cpus | no_fixed_sleep_button | no_fixed_rtc_wake |
                                    timer_has_32_bits | reset_register;

    // Access sizes of a Generic Address Structure.
    constexpr std::uint8_t access_byte = 1;
    constexpr std::uint8_t access_word = 2;
    constexpr std::uint8_t access_dword = 3;

    namespace at = kvm_vmm::platform;
    Fields body;
    body.u32(facs).u32(dsdt);
    body.u8(0).u8(0);  // reserved; preferred PM profile: unspecified
    body.u16(at::sci_irq);
    body.u32(0).u8(0).u8(0).u8(0).u8(0);     // SMI_CMD 0: always in ACPI mode
    body.u32(at::pm1a_event_port).u32(0);    // PM1a, PM1b event
    body.u32(at::pm1a_control_port).u32(0);  // PM1a, PM1b control
    body.u32(0);                             // PM2 control
    body.u32(at::pm_timer_port);
    body.u32(0).u32(0);  // GPE0, GPE1
    body.u8(at::pm1a_event_length).u8(at::pm1a_control_length).u8(0).u8(at::pm_timer_length);
    body.u8(0).u8(0).u8(0).u8(0);  // GPE0 length, GPE1 length and base, C-state control
    body.u16(no_c2).u16(no_c3);
    body.u16(0).u16(0).u8(0).u8(0);  // cache flush size and stride, duty offset and width
    const auto in_cmos = [&platform](std::uint8_t index) { return platform.rtc ? index : std::uint8_t{0}; };
    body.u8(in_cmos(at::cmos_day_alarm)).u8(in_cmos(at::cmos_month_alarm)).u8(in_cmos(century_in_cmos));
    body.u16(static_cast<std::uint16_t>(boot_flags)).u8(0);
    body.u32(flags);
    body.io_register(at::reset_port, 1, access_byte).u8(at::reset_value);
    body.u16(0);  // ARM boot flags
    body.u8(minor_revision);
    body.u64(0);  // X_FIRMWARE_CTRL: the 32-bit one counts
    body.u64(dsdt);
    body.io_register(at::pm1a_event_port, at::pm1a_event_length, access_word).io_register(0, 0, 0);
    body.io_register(at::pm1a_control_port, at::pm1a_control_length, access_word).io_register(0, 0, 0);
    body.io_register(0, 0, 0);  // PM2 control
    body.io_register(at::pm_timer_port, at::pm_timer_length, access_dword);
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
    if (platform.timer_pin != 0) {
        override_isa(0, platform.timer_pin, as_bus_does);
    }
    override_isa(kvm_vmm::platform::sci_irq, kvm_vmm::platform::sci_irq, active_high_level);
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
    rsdp[first_checksum] = checksum(std::span(rsdp).first(acpi_1_length));
    rsdp[extended_checksum] = checksum(rsdp);
    return rsdp;
}

namespace {

// AML has no words for some machines: 17 serial ports, an ISA interrupt above 15.
AcpiTable checked_dsdt(const Platform& platform) {
    try {
        return make_dsdt(platform);
    } catch (const std::logic_error& error) {
        throw VmmError(ExitCode::usage, error.what());
    }
}

}  // namespace

std::uint64_t write_acpi_tables(GuestMemory& memory, GuestRange space, const Platform& platform) {
    constexpr std::uint64_t alignment = 64;          // the FACS's; the others ask for less
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
