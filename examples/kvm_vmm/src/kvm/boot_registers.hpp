// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "boot/boot_cpu.hpp"
#include "kvm/kvm_vcpu.hpp"

namespace kvm_vmm {

/// Puts the boot CPU where the loaded guest wants to be entered.
void set_boot_registers(KvmVcpu& vcpu, const BootCpu& cpu);

}  // namespace kvm_vmm
