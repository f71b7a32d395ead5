// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/mptable.hpp"

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include <vmdevice/resources.hpp>

#include "arch/x86_64/layout.hpp"
#include "util/bytes.hpp"
#include "util/error.hpp"

namespace kvm_vmm {
namespace {

namespace at = platform;

constexpr std::uint8_t specification_1_4 = 4;
constexpr std::uint8_t lapic_version = 0x14;  // an integrated local APIC
constexpr std::uint8_t ioapic_version = 0x11;
constexpr std::uint8_t isa_bus = 0;
constexpr std::uint8_t isa_interrupts = 16;
constexpr std::uint8_t all_lapics = 0xFF;
constexpr std::size_t header_length = 44;

// Interrupt types, table 4-10.
enum class InterruptType : std::uint8_t { vectored = 0, nmi = 1, external = 3 };

// Flags, table 4-10: polarity in bits 0-1, trigger mode in bits 2-3.
constexpr std::uint16_t as_bus_does = 0;
constexpr std::uint16_t active_high_edge = 0x0005;
constexpr std::uint16_t active_high_level = 0x000D;

struct Entries {
    Bytes bytes;
    std::uint16_t count{0};

    void processor(std::uint8_t apic_id) {
        constexpr unsigned enabled = 1U << 0U;
        constexpr unsigned boot_cpu = 1U << 1U;
        constexpr std::uint32_t signature = 0x600;  // family 6; CPUID has the details
        constexpr std::uint32_t features = 0x201;   // FPU, APIC
        start(0);
        append_integer(bytes, apic_id, 1);
        append_integer(bytes, lapic_version, 1);
        append_integer(bytes, enabled | (apic_id == 0 ? boot_cpu : 0U), 1);
        append_integer(bytes, signature, 4);
        append_integer(bytes, features, 4);
        append_integer(bytes, 0, 8);
    }
    void bus(std::uint8_t id, std::string_view type) {
        start(1);
        append_integer(bytes, id, 1);
        append_text(bytes, type);
    }
    void io_apic() {
        constexpr std::uint8_t enabled = 1;
        start(2);
        append_integer(bytes, at::ioapic_id, 1);
        append_integer(bytes, ioapic_version, 1);
        append_integer(bytes, enabled, 1);
        append_integer(bytes, at::ioapic_address, 4);
    }
    void io_interrupt(InterruptType type, std::uint16_t flags, std::uint8_t irq, std::uint8_t pin) {
        start(3);
        interrupt(type, flags, irq, at::ioapic_id, pin);
    }
    void local_interrupt(InterruptType type, std::uint8_t apic_id, std::uint8_t pin) {
        start(4);
        interrupt(type, as_bus_does, 0, apic_id, pin);
    }

private:
    void start(std::uint8_t type) {
        append_integer(bytes, type, 1);
        ++count;
    }
    void interrupt(InterruptType type, std::uint16_t flags, std::uint8_t irq, std::uint8_t apic,
                   std::uint8_t pin) {
        append_integer(bytes, static_cast<std::uint8_t>(type), 1);
        append_integer(bytes, flags, 2);
        append_integer(bytes, isa_bus, 1);
        append_integer(bytes, irq, 1);
        append_integer(bytes, apic, 1);
        append_integer(bytes, pin, 1);
    }
};

Entries make_entries(const Platform& platform) {
    Entries entries;
    for (unsigned i = 0; i < platform.cpus; ++i) {
        entries.processor(static_cast<std::uint8_t>(i));
    }
    entries.bus(isa_bus, "ISA   ");
    entries.io_apic();
    const auto* const power = platform.fixed_hardware<fixed_hardware::PowerManagement>();
    for (std::uint8_t irq = 0; irq < isa_interrupts; ++irq) {
        // Interrupt 2 is the second 8259's. The timer is at pin 0, KVM's default routing, and not at pin 2.
        if (irq != 2) {
            const bool sci = power != nullptr && irq == power->sci_irq;
            entries.io_interrupt(InterruptType::vectored, sci ? active_high_level : as_bus_does, irq, irq);
        }
    }
    // The others have numbers that ISA does not have, and go to the pin of the same number.
    std::set<std::uint32_t> further;
    for (const DeviceDescription& device : platform.devices) {
        for (const vmdevice::ResourceConstraint& resource : device.resources) {
            const auto* const line = std::get_if<vmdevice::LegacyIrqConstraint>(&resource);
            if (line != nullptr && line->irq.value_or(0) >= isa_interrupts &&
                line->irq.value_or(0) < at::ioapic_pins) {
                further.insert(*line->irq);
            }
        }
    }
    for (const std::uint32_t irq : further) {
        const auto pin = static_cast<std::uint8_t>(irq);
        entries.io_interrupt(InterruptType::vectored, active_high_edge, pin, pin);
    }
    entries.local_interrupt(InterruptType::external, 0, 0);
    entries.local_interrupt(InterruptType::nmi, all_lapics, 1);
    return entries;
}

Bytes make_configuration(const Platform& platform) {
    constexpr std::size_t checksum_offset = 7;
    const Entries entries = make_entries(platform);
    Bytes table;
    append_text(table, "PCMP");
    append_integer(table, header_length + entries.bytes.size(), 2);
    append_integer(table, specification_1_4, 1);
    append_integer(table, 0, 1);  // checksum, below
    append_text(table, "VMSUPERI");
    append_text(table, "KVM VMM     ");
    append_integer(table, 0, 4);  // OEM table: none
    append_integer(table, 0, 2);
    append_integer(table, entries.count, 2);
    append_integer(table, at::lapic_address, 4);
    append_integer(table, 0, 4);  // no extended table
    table.insert(table.end(), entries.bytes.begin(), entries.bytes.end());
    table[checksum_offset] = checksum_of(table);
    return table;
}

Bytes make_floating_pointer(std::uint64_t configuration) {
    constexpr std::size_t checksum_offset = 10;
    Bytes pointer;
    append_text(pointer, "_MP_");
    append_integer(pointer, configuration, 4);
    append_integer(pointer, 1, 1);  // length in paragraphs of 16 bytes
    append_integer(pointer, specification_1_4, 1);
    append_integer(pointer, 0, 1);  // checksum, below
    append_integer(pointer, 0, 5);  // a configuration table is present; virtual wire mode
    pointer[checksum_offset] = checksum_of(pointer);
    return pointer;
}

}  // namespace

void write_mptable(GuestMemory& memory, const Platform& platform) {
    constexpr std::uint64_t configuration = layout::mptable + 16;
    const Bytes table = make_configuration(platform);
    if (configuration + table.size() > layout::mptable_end || !memory.write(configuration, table) ||
        !memory.write(layout::mptable, make_floating_pointer(configuration))) {
        throw VmmError(ExitCode::usage, "the MP table does not fit: too many CPUs or too little RAM");
    }
}

}  // namespace kvm_vmm
