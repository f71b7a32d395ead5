// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

/// The registers of the MC146818A real-time clock and the CMOS bytes that have a meaning on a PC.
///
/// Sources: Motorola MC146818A datasheet, "Address map", "Registers"; IBM PC/AT Technical Reference,
/// "Real-time clock/CMOS RAM information".
namespace vmsuperio::inline v0_2::mc146818 {

inline constexpr std::uint8_t index_offset = 0;           ///< port 0x70
inline constexpr std::uint8_t data_offset = 1;            ///< port 0x71
inline constexpr std::uint8_t extended_index_offset = 2;  ///< port 0x72, of the second bank
inline constexpr std::uint8_t extended_data_offset = 3;   ///< port 0x73

// The bytes by their index.
/// 0 to 59, in BCD or binary as register B says, like all of these.
inline constexpr std::uint8_t seconds = 0x00;
/// As seconds; 0xC0 and above match any.
inline constexpr std::uint8_t seconds_alarm = 0x01;
/// 0 to 59.
inline constexpr std::uint8_t minutes = 0x02;
/// As minutes; 0xC0 and above match any.
inline constexpr std::uint8_t minutes_alarm = 0x03;
/// 0 to 23, or 1 to 12 with bit 7 for the afternoon.
inline constexpr std::uint8_t hours = 0x04;
/// As hours; 0xC0 and above match any.
inline constexpr std::uint8_t hours_alarm = 0x05;
/// 1 to 7; 1 is Sunday.
inline constexpr std::uint8_t weekday = 0x06;
/// Of the month, 1 to 31.
inline constexpr std::uint8_t day = 0x07;
/// 1 to 12.
inline constexpr std::uint8_t month = 0x08;
/// Of the century, 0 to 99.
inline constexpr std::uint8_t year = 0x09;
/// Update in progress, divider, periodic rate.
inline constexpr std::uint8_t register_a = 0x0A;
/// Interrupt enables and formats.
inline constexpr std::uint8_t register_b = 0x0B;
/// Interrupt flags; a read clears them.
inline constexpr std::uint8_t register_c = 0x0C;
/// Valid RAM and time; the alarm's day in some chips.
inline constexpr std::uint8_t register_d = 0x0D;
inline constexpr std::uint8_t shutdown_status =
    0x0F;  ///< informs the firmware about the purpose of a CPU reset
inline constexpr std::uint8_t checksum_first = 0x10;   ///< the checksum covers 0x10 to 0x2D
inline constexpr std::uint8_t base_memory_low = 0x15;  ///< KiB below 640 KiB
/// Memory below 640 KiB in KiB, bits 15:8.
inline constexpr std::uint8_t base_memory_high = 0x16;
inline constexpr std::uint8_t extended_memory_low = 0x17;  ///< KiB above 1 MiB, at most 65535
/// Memory above 1 MiB in KiB, bits 15:8.
inline constexpr std::uint8_t extended_memory_high = 0x18;
/// The last byte that the checksum covers.
inline constexpr std::uint8_t checksum_last = 0x2D;
/// The checksum, bits 15:8.
inline constexpr std::uint8_t checksum_high = 0x2E;
/// The checksum, bits 7:0.
inline constexpr std::uint8_t checksum_low = 0x2F;
inline constexpr std::uint8_t extended_memory2_low = 0x30;  ///< as 0x17 and 0x18, found by the power-on test
/// The second copy of the extended memory, bits 15:8.
inline constexpr std::uint8_t extended_memory2_high = 0x31;
/// The century, in the format of the year.
inline constexpr std::uint8_t century = 0x32;
inline constexpr std::uint8_t memory_above_16m_low = 0x34;  ///< 64 KiB units between 16 MiB and 4 GiB
/// Memory above 16 MiB in units of 64 KiB, bits 15:8.
inline constexpr std::uint8_t memory_above_16m_high = 0x35;
inline constexpr std::uint8_t memory_above_4g_low = 0x5B;  ///< 64 KiB units above 4 GiB
/// Memory above 4 GiB in units of 64 KiB, bits 15:8.
inline constexpr std::uint8_t memory_above_4g_middle = 0x5C;
/// Memory above 4 GiB in units of 64 KiB, bits 23:16.
inline constexpr std::uint8_t memory_above_4g_high = 0x5D;

/// The name of a byte, for traces and debuggers; empty for plain memory. Bit 7 of the index, which masks NMI,
/// is ignored.
[[nodiscard]] constexpr std::string_view index_name(std::uint8_t index) noexcept {
    switch (index & 0x7FU) {
        case seconds:
            return "seconds";
        case seconds_alarm:
            return "seconds_alarm";
        case minutes:
            return "minutes";
        case minutes_alarm:
            return "minutes_alarm";
        case hours:
            return "hours";
        case hours_alarm:
            return "hours_alarm";
        case weekday:
            return "weekday";
        case day:
            return "day";
        case month:
            return "month";
        case year:
            return "year";
        case register_a:
            return "A";
        case register_b:
            return "B";
        case register_c:
            return "C";
        case register_d:
            return "D";
        case shutdown_status:
            return "shutdown_status";
        case base_memory_low:
            return "base_memory_low";
        case base_memory_high:
            return "base_memory_high";
        case extended_memory_low:
            return "extended_memory_low";
        case extended_memory_high:
            return "extended_memory_high";
        case checksum_high:
            return "checksum_high";
        case checksum_low:
            return "checksum_low";
        case extended_memory2_low:
            return "extended_memory2_low";
        case extended_memory2_high:
            return "extended_memory2_high";
        case century:
            return "century";
        case memory_above_16m_low:
            return "memory_above_16m_low";
        case memory_above_16m_high:
            return "memory_above_16m_high";
        case memory_above_4g_low:
            return "memory_above_4g_low";
        case memory_above_4g_middle:
            return "memory_above_4g_middle";
        case memory_above_4g_high:
            return "memory_above_4g_high";
        default:
            return {};
    }
}

/// Index register, port 0x70.
struct IndexRegister : Register<IndexRegister, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "index";
    static constexpr Field<0, 6> index{};
    static constexpr Bit<7> nmi_masked{};  // implemented on the PC's board, not in the chip
    static constexpr FieldInfo fields[]{{"index", index.bits}, {"nmi_masked", nmi_masked.bits}};
};

/// Register A. The guest cannot write UIP.
struct RegisterA : Register<RegisterA, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "A";
    static constexpr Field<0, 3> rate_select{};  // RS: the periodic interrupt's rate
    static constexpr Field<4, 6> divider{};      // DV: time base; 6 and 7 hold the divider in reset
    static constexpr Bit<7, Access::read_only> update_in_progress{};
    static constexpr FieldInfo fields[]{{"rate_select", rate_select.bits},
                                        {"divider", divider.bits},
                                        {"update_in_progress", update_in_progress.bits}};
};

/// Register B.
struct RegisterB : Register<RegisterB, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "B";
    static constexpr Bit<0> daylight_savings{};  // DSE: stored, without effect
    static constexpr Bit<1> hours_24{};          // 24/12
    static constexpr Bit<2> binary{};            // DM
    static constexpr Bit<3> square_wave{};       // SQWE: stored, without effect because there is no pin
    static constexpr Bit<4> update_ended_interrupt{};
    static constexpr Bit<5> alarm_interrupt{};
    static constexpr Bit<6> periodic_interrupt{};
    static constexpr Bit<7> set_mode{};                // SET: no updates, the guest sets the time
    static constexpr Field<4, 6> interrupt_enables{};  // UIE, AIE and PIE
    static constexpr FieldInfo fields[]{{"daylight_savings", daylight_savings.bits},
                                        {"hours_24", hours_24.bits},
                                        {"binary", binary.bits},
                                        {"square_wave", square_wave.bits},
                                        {"update_ended_interrupt", update_ended_interrupt.bits},
                                        {"alarm_interrupt", alarm_interrupt.bits},
                                        {"periodic_interrupt", periodic_interrupt.bits},
                                        {"set_mode", set_mode.bits}};
};

/// Register C: read only, cleared by a read.
struct RegisterC : Register<RegisterC, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "C";
    static constexpr Bit<4, Access::read_only> update_ended{};       // UF
    static constexpr Bit<5, Access::read_only> alarm{};              // AF
    static constexpr Bit<6, Access::read_only> periodic{};           // PF
    static constexpr Bit<7, Access::read_only> interrupt_request{};  // IRQF
    static constexpr Field<4, 6, Access::read_only> flags{};  // UF, AF and PF, in the order of their enables
    static constexpr FieldInfo fields[]{{"update_ended", update_ended.bits},
                                        {"alarm", alarm.bits},
                                        {"periodic", periodic.bits},
                                        {"interrupt_request", interrupt_request.bits}};
};

/// Register D: read only. Chips with an alarm on the day have it in bits 5:0 (Intel PIIX4 datasheet, RTC
/// register D), where the guest can write it.
struct RegisterD : Register<RegisterD, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "D";
    static constexpr Field<0, 5, Access::read_only> day_alarm{};
    static constexpr Bit<7, Access::read_only> valid_ram_and_time{};  // VRT
    static constexpr FieldInfo fields[]{{"day_alarm", day_alarm.bits},
                                        {"valid_ram_and_time", valid_ram_and_time.bits}};
};

/// The name of the port that an access reaches, for traces and debuggers; empty if there is none. The byte
/// behind a data port depends on the index that was written last.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset) noexcept {
    switch (offset) {
        case index_offset:
            return IndexRegister::name;
        case data_offset:
            return "data";
        case extended_index_offset:
            return "index2";
        case extended_data_offset:
            return "data2";
        default:
            return {};
    }
}

}  // namespace vmsuperio::inline v0_2::mc146818
