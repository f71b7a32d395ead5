// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "acpi/aml.hpp"
#include "machine/platform.hpp"

namespace kvm_vmm {

/// The AML of the DSDT, without its header: the devices that cannot be enumerated, and S5.
[[nodiscard]] aml::Bytes dsdt_body(const Platform& platform);

}  // namespace kvm_vmm
