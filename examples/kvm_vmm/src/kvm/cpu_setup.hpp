// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vector>

#include "kvm/kvm.hpp"
#include "kvm/kvm_vcpu.hpp"

namespace kvm_vmm {

/// What CPU number `index` of `cpus` sees of itself: KVM's offer, with the topology (one socket, one
/// thread a core, APIC id = index) put in. Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E.
[[nodiscard]] std::vector<kvm_cpuid_entry2> guest_cpuid(std::vector<kvm_cpuid_entry2> supported,
                                                        unsigned index, unsigned cpus,
                                                        bool tsc_deadline_timer);

/// Gives a new vCPU the state that firmware would leave it in: CPUID, MSRs, FPU, local APIC.
void set_up_cpu(KvmVcpu& vcpu, const Kvm& kvm, unsigned cpus);

}  // namespace kvm_vmm
