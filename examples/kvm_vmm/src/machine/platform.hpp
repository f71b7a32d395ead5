// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include <vmsuperio/registers/acpi_pm.hpp>

/// What the machine consists of, as far as firmware tables tell it: the one place that the devices and
/// the tables take their addresses from.
namespace kvm_vmm {

/// How much of a keyboard controller the guest is told of.
enum class I8042Profile {
    absent,              ///< ports 0x60/0x64 are not to be probed
    reset_only,          ///< the reset command works; for probing it is absent
    keyboard,            ///< controller and keyboard (IRQ 1)
    keyboard_and_mouse,  ///< and a PS/2 mouse (IRQ 12)
};

struct SerialPort {
    std::uint16_t port;  ///< first of 8 I/O ports
    std::uint8_t irq;    ///< ISA interrupt; ports may share one
};

/// COM1 to COM4 where a PC has them.
inline constexpr SerialPort com1{0x3F8, 4};
inline constexpr SerialPort com2{0x2F8, 3};
inline constexpr SerialPort com3{0x3E8, 4};
inline constexpr SerialPort com4{0x2E8, 3};

struct VirtioMmio {
    std::uint32_t base;
    std::uint32_t size;
    std::uint32_t gsi;
    bool level_triggered{false};  ///< false: each interrupt is an edge, as an irqfd gives it
};

struct Platform {
    unsigned cpus{1};  ///< APIC ids 0 to cpus - 1
    std::vector<SerialPort> serial_ports{com1};
    I8042Profile i8042{I8042Profile::keyboard};
    bool rtc{true};  ///< MC146818 at 0x70, IRQ 8
    bool pvpanic{true};
    std::vector<VirtioMmio> virtio_mmio;
    /// IOAPIC pin of the PIT (ISA interrupt 0): 0 with the interrupt routing that KVM starts with. A PC has
    /// it at 2, which would take KVM_SET_GSI_ROUTING.
    std::uint8_t timer_pin{0};
    bool acpi{true};     ///< write ACPI tables
    bool mptable{true};  ///< write an MP table
};

namespace platform {

/// As many as an 8-bit APIC id tells apart; 0xFF is broadcast, and one is kept for the IOAPIC.
inline constexpr unsigned max_cpus = 254;

inline constexpr std::uint32_t lapic_address = 0xFEE0'0000;
inline constexpr std::uint32_t ioapic_address = 0xFEC0'0000;
inline constexpr std::uint8_t ioapic_id = 0;  // what KVM's IOAPIC reads after reset
inline constexpr std::uint32_t ioapic_pins = 24;

// ACPI fixed hardware (ACPI 6.5, 4.8.3), where vmsuperio::AcpiPm has its registers in one block.
inline constexpr std::uint16_t pm_block_port = 0x600;
inline constexpr std::uint16_t pm_block_length = vmsuperio::acpi_pm::block_length;
inline constexpr std::uint16_t pm1a_event_port = pm_block_port + vmsuperio::acpi_pm::status_offset;
inline constexpr std::uint8_t pm1a_event_length = vmsuperio::acpi_pm::event_length;  // status, enable
inline constexpr std::uint16_t pm1a_control_port = pm_block_port + vmsuperio::acpi_pm::control_offset;
inline constexpr std::uint8_t pm1a_control_length = vmsuperio::acpi_pm::control_length;
inline constexpr std::uint16_t pm_timer_port = pm_block_port + vmsuperio::acpi_pm::timer_offset;
inline constexpr std::uint8_t pm_timer_length = vmsuperio::acpi_pm::timer_length;
/// System control interrupt: level triggered, active high.
inline constexpr std::uint8_t sci_irq = 9;
inline constexpr std::uint8_t sleep_type_s5 = 5;

/// The reset control register of the PCI host bridges of PCs; writing this value resets the machine.
inline constexpr std::uint16_t reset_port = 0xCF9;
inline constexpr std::uint8_t reset_value = 0x06;

/// One byte: events written (bit 0 panic, bit 1 crash kernel loaded); reads give the bits understood.
inline constexpr std::uint16_t pvpanic_port = 0x505;

inline constexpr std::uint16_t i8042_data_port = 0x60;
inline constexpr std::uint16_t i8042_command_port = 0x64;
inline constexpr std::uint8_t keyboard_irq = 1;
inline constexpr std::uint8_t mouse_irq = 12;
inline constexpr std::uint16_t rtc_port = 0x70;  ///< and 0x71; 0x72 and 0x73 reach the second bank
inline constexpr std::uint16_t rtc_port_count = 4;
/// The CMOS bytes of the alarm's day and month, DAY_ALRM and MON_ALRM of the FADT: where VIA's chipsets have
/// them.
inline constexpr std::uint8_t cmos_day_alarm = 0x7D;
inline constexpr std::uint8_t cmos_month_alarm = 0x7E;
/// System control port A: fast reset and the A20 gate.
inline constexpr std::uint16_t system_control_port = 0x92;
inline constexpr std::uint8_t rtc_irq = 8;

}  // namespace platform
}  // namespace kvm_vmm
