// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "arch/x86_64/boot_cpu.hpp"
#include "kvm/kvm_vcpu.hpp"

namespace kvm_vmm {

/// Sets the registers of the boot CPU to the entry of the loaded guest.
void set_boot_registers(KvmVcpu& vcpu, const BootCpu& cpu);

}  // namespace kvm_vmm
