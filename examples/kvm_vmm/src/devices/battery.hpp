// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>

#include <vmsuperio/rtc_cmos.hpp>

#include "devices/oscillator.hpp"

namespace kvm_vmm {

/// What a PC's battery keeps through a reset: the bytes of the CMOS, and the time to which the guest has set
/// its clock. It outlives the VM that is replaced when the guest is restarted in place.
struct Battery {
    std::optional<vmsuperio::RtcCmosState> cmos;  ///< nothing before the first VM
    /// What the clock runs on. One for all VMs: another one would start with what the host's clock is set to
    /// by then.
    Oscillator<> oscillator;
};

}  // namespace kvm_vmm
