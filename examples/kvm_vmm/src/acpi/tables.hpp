// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "machine/platform.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// An ACPI table as it is in guest memory: header, body, length and checksum filled in.
using AcpiTable = std::vector<std::uint8_t>;

/// Adds a system description table header (ACPI 6.5, 5.2.6) before `body`.
[[nodiscard]] AcpiTable make_acpi_table(std::string_view signature, std::uint8_t revision,
                                        const std::vector<std::uint8_t>& body);

[[nodiscard]] AcpiTable make_dsdt(const Platform& platform);
[[nodiscard]] AcpiTable make_facs();
/// `facs` and `dsdt` are guest addresses below 4 GiB.
[[nodiscard]] AcpiTable make_fadt(const Platform& platform, std::uint32_t facs, std::uint32_t dsdt);
[[nodiscard]] AcpiTable make_madt(const Platform& platform);
[[nodiscard]] AcpiTable make_xsdt(const std::vector<std::uint64_t>& tables);
[[nodiscard]] AcpiTable make_rsdp(std::uint64_t xsdt);

/// Writes RSDP, XSDT, FADT, FACS, DSDT and MADT into `space`, the RSDP first, and returns the RSDP's address.
/// Throws VmmError(ExitCode::usage) if they do not fit (too many devices, or too little RAM), or if AML
/// cannot describe a device.
std::uint64_t write_acpi_tables(GuestMemory& memory, GuestRange space, const Platform& platform);

}  // namespace kvm_vmm
