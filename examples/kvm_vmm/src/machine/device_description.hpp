// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <vmdevice/resources.hpp>

/// The description of a device for everything except its own code: its registration on the buses, the
/// firmware tables, the traces and the manual are all derived from it.
namespace kvm_vmm {

/// Ports, memory and interrupts at fixed addresses.
using Resources = std::vector<vmdevice::ResourceConstraint>;

[[nodiscard]] constexpr vmdevice::ResourceConstraint ports(vmdevice::PioRange range) noexcept {
    return vmdevice::PioConstraint::at(range);
}
[[nodiscard]] constexpr vmdevice::ResourceConstraint mmio_window(vmdevice::MmioRange range) noexcept {
    return vmdevice::MmioConstraint::at(range);
}
/// `sharing` also determines how the line is triggered: by level for IrqSharing::level, otherwise by edge.
[[nodiscard]] constexpr vmdevice::ResourceConstraint interrupt(
    std::uint32_t gsi, vmdevice::IrqSharing sharing = vmdevice::IrqSharing::exclusive) noexcept {
    return vmdevice::LegacyIrqConstraint{.irq = gsi, .sharing = sharing};
}

// NOLINTBEGIN(readability-redundant-member-init): GCC warns of rows that leave a member without one out

/// A node of the ACPI namespace, below \_SB_.
struct AcpiNode {
    std::string name;  ///< four characters: "KBD_"
    /// An EISA id of seven characters ("PNP0303") or an ACPI id of eight ("QEMU0001").
    std::string hardware_id;
    std::optional<std::uint64_t> unique_id{};
    Resources resources{};     ///< those of the device's resources that the node lists in _CRS
    bool dma_coherent{false};  ///< whether the node has _CCA, as devices that read guest memory must
};

/// Hardware that operating systems find through the FADT instead of the namespace (ACPI 6.5, 4.8 and 5.2.9).
namespace fixed_hardware {

/// The event, control and timer registers in one block, as in vmsuperio::AcpiPm.
struct PowerManagement {
    std::uint16_t block_port;
    std::uint8_t sci_irq;        ///< level triggered, active high
    std::uint8_t sleep_type_s5;  ///< the value of SLP_TYP that powers off
};
struct ResetRegister {
    std::uint16_t port;
    std::uint8_t value;  ///< the value that resets the machine
};
/// Indices of CMOS bytes.
struct CmosClock {
    std::uint8_t day_alarm;
    std::uint8_t month_alarm;
    std::uint8_t century;
};
/// A keyboard controller that may be probed.
struct KeyboardController {};

}  // namespace fixed_hardware

using FixedHardware =
    std::variant<std::monostate, fixed_hardware::PowerManagement, fixed_hardware::ResetRegister,
                 fixed_hardware::CmosClock, fixed_hardware::KeyboardController>;

struct DeviceDescription {
    std::string name;    ///< in traces, counters and messages
    std::string title;   ///< for the manual: "keyboard controller"
    std::string model;   ///< for the manual: the class that emulates it
    std::string note{};  ///< for the manual, appended to the resources
    Resources resources{};
    std::vector<AcpiNode> acpi_nodes{};
    FixedHardware fixed_hardware{};
};

// NOLINTEND(readability-redundant-member-init)

/// `device` with an ACPI node that lists all of its resources.
[[nodiscard]] inline DeviceDescription with_acpi_node(DeviceDescription device, std::string name,
                                                      std::string hardware_id,
                                                      std::optional<std::uint64_t> unique_id = {}) {
    device.acpi_nodes.push_back({.name = std::move(name),
                                 .hardware_id = std::move(hardware_id),
                                 .unique_id = unique_id,
                                 .resources = device.resources});
    return device;
}

}  // namespace kvm_vmm
