// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

/// The fixed power management registers of ACPI (ACPI 6.5, 4.8.3).
namespace vmsuperio::inline v0_2 {

/// The block of registers of `AcpiPm`: PM1a_EVT_BLK, PM1a_CNT_BLK and PM_TMR_BLK of the FADT, one after the
/// other. Offsets and lengths are in bytes.
namespace acpi_pm {

inline constexpr std::uint8_t status_offset = 0;   // PM1_STS
inline constexpr std::uint8_t enable_offset = 2;   // PM1_EN
inline constexpr std::uint8_t control_offset = 4;  // PM1_CNT
inline constexpr std::uint8_t timer_offset = 8;    // PM_TMR
inline constexpr std::uint8_t event_length = 4;    // PM1_EVT_LEN: status and enable
inline constexpr std::uint8_t control_length = 2;  // PM1_CNT_LEN
inline constexpr std::uint8_t timer_length = 4;    // PM_TMR_LEN
/// How many ports the whole block has.
inline constexpr std::size_t block_length = 12;

inline constexpr std::int64_t timer_frequency = 3'579'545;  ///< Hz (ACPI 6.5, 4.8.2.1)

}  // namespace acpi_pm

/// PM1 Status, reset 0x0000 (ACPI 6.5, 4.8.3.1.1).
struct Pm1Status : Register<Pm1Status, std::uint16_t> {
    using Register::Register;
    static constexpr std::string_view name = "PM1_STS";
    static constexpr Bit<0, Access::write_one_to_clear> timer{};             // TMR_STS
    static constexpr Bit<4, Access::write_one_to_clear> bus_master{};        // BM_STS
    static constexpr Bit<5, Access::write_one_to_clear> global_lock{};       // GBL_STS
    static constexpr Bit<8, Access::write_one_to_clear> power_button{};      // PWRBTN_STS
    static constexpr Bit<9, Access::write_one_to_clear> sleep_button{};      // SLPBTN_STS
    static constexpr Bit<10, Access::write_one_to_clear> real_time_clock{};  // RTC_STS
    static constexpr Bit<15, Access::write_one_to_clear> wake{};             // WAK_STS
    static constexpr FieldInfo fields[]{{"timer", timer.bits},
                                        {"bus_master", bus_master.bits},
                                        {"global_lock", global_lock.bits},
                                        {"power_button", power_button.bits},
                                        {"sleep_button", sleep_button.bits},
                                        {"real_time_clock", real_time_clock.bits},
                                        {"wake", wake.bits}};
};

/// PM1 Enable, reset 0x0000 (ACPI 6.5, 4.8.3.1.2).
struct Pm1Enable : Register<Pm1Enable, std::uint16_t> {
    using Register::Register;
    static constexpr std::string_view name = "PM1_EN";
    static constexpr Bit<0> timer{};             // TMR_EN
    static constexpr Bit<5> global_lock{};       // GBL_EN
    static constexpr Bit<8> power_button{};      // PWRBTN_EN
    static constexpr Bit<10> real_time_clock{};  // RTC_EN
    static constexpr FieldInfo fields[]{{"timer", timer.bits},
                                        {"global_lock", global_lock.bits},
                                        {"power_button", power_button.bits},
                                        {"real_time_clock", real_time_clock.bits}};
};

/// PM1 Control (ACPI 6.5, 4.8.3.2.1). SCI_EN is read-only, because there is no SMI mode to return to.
struct Pm1Control : Register<Pm1Control, std::uint16_t> {
    using Register::Register;
    static constexpr std::string_view name = "PM1_CNT";
    static constexpr Bit<0, Access::read_only> sci_enable{};          // SCI_EN
    static constexpr Bit<1> bus_master_reload{};                      // BM_RLD
    static constexpr Bit<2, Access::self_clearing> global_release{};  // GBL_RLS
    static constexpr Field<10, 12> sleep_type{};                      // SLP_TYPx
    static constexpr Bit<13, Access::self_clearing> sleep_enable{};   // SLP_EN
    static constexpr FieldInfo fields[]{{"sci_enable", sci_enable.bits},
                                        {"bus_master_reload", bus_master_reload.bits},
                                        {"global_release", global_release.bits},
                                        {"sleep_type", sleep_type.bits},
                                        {"sleep_enable", sleep_enable.bits}};
};

namespace acpi_pm {

/// The name of the register that an access to the block reaches, for traces and debuggers; empty if there is
/// none.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset) noexcept {
    switch (offset & ~std::uint64_t{1}) {
        case status_offset:
            return Pm1Status::name;
        case enable_offset:
            return Pm1Enable::name;
        case control_offset:
            return Pm1Control::name;
        case timer_offset:
        case timer_offset + 2:
            return "PM_TMR";
        default:
            return {};
    }
}

}  // namespace acpi_pm

}  // namespace vmsuperio::inline v0_2
