// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "machine/device_description.hpp"

namespace kvm_vmm {

/// The parts of the machine that firmware tables describe.
struct Platform {
    unsigned cpus{1};  ///< APIC ids 0 to cpus - 1
    std::vector<DeviceDescription> devices;

    /// The first device of a kind of fixed hardware; null if there is none.
    template <class Kind>
    [[nodiscard]] const Kind* fixed_hardware() const noexcept {
        for (const DeviceDescription& device : devices) {
            if (const Kind* const found = std::get_if<Kind>(&device.fixed_hardware)) {
                return found;
            }
        }
        return nullptr;
    }
};

namespace platform {

/// The number of ids of 8 bits, without 0xFF (broadcast) and one that is kept for the IOAPIC.
inline constexpr unsigned max_local_apics = 254;

inline constexpr std::uint32_t lapic_address = 0xFEE0'0000;
inline constexpr std::uint32_t ioapic_address = 0xFEC0'0000;
inline constexpr std::uint8_t ioapic_id = 0;  ///< the value that KVM's IOAPIC has after reset
inline constexpr std::uint32_t ioapic_pins = 24;

/// The ACPI id by which drivers find virtio-mmio devices (Linux, drivers/virtio/virtio_mmio.c).
inline constexpr std::string_view virtio_mmio_hardware_id = "LNRO0005";

}  // namespace platform
}  // namespace kvm_vmm
