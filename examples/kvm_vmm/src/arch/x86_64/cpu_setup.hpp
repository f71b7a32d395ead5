// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "kvm/kvm.hpp"
#include "kvm/kvm_vcpu.hpp"

namespace kvm_vmm {

/// The CPUID of CPU number `index` of `cpus`: the entries that KVM supports, with the topology filled in (one
/// socket, one thread per core, APIC id = index). Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E. KVM's own leaves
/// stay as they are. `tsc_khz` is the frequency of the time stamp counter, 0 if it is not known; the guest finds it in
/// leaf 0x4000'0010 if the counter is invariant.
[[nodiscard]] std::vector<kvm_cpuid_entry2> guest_cpuid(std::vector<kvm_cpuid_entry2> supported,
                                                        unsigned index, unsigned cpus,
                                                        bool tsc_deadline_timer, std::uint32_t tsc_khz = 0);

/// Sets a new vCPU to the state in which firmware would leave it: CPUID, MSRs, FPU, local APIC.
void set_up_cpu(KvmVcpu& vcpu, const Kvm& kvm, unsigned cpus);

}  // namespace kvm_vmm
