// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>

#include <vmsuperio/rtc_cmos.hpp>

#include "devices/oscillator.hpp"

namespace kvm_vmm {

/// The state that a PC's battery keeps through a reset: the bytes of the CMOS, and the time to which the
/// guest has set its clock. It outlives the VM that is replaced when the guest is restarted in place.
struct Battery {
    std::optional<vmsuperio::RtcCmosState> cmos;  ///< nothing before the first VM
    /// The clock of the RTC. There is one for all VMs, because another one would start with the host's time
    /// at that moment.
    Oscillator<> oscillator;
};

}  // namespace kvm_vmm
