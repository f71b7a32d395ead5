// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "devices/battery.hpp"
#include "devices/serial_console.hpp"

namespace kvm_vmm {

/// What the host can do to the devices of a VM. Each device sets what it offers when it is created; a
/// function is empty if the machine has no such device.
struct HostControls {
    /// Types Ctrl-Alt-Del on the guest's keyboard. False if the guest does not read it.
    std::function<bool()> ctrl_alt_del;
    /// Presses the ACPI power button.
    std::function<void()> press_power_button;
    /// Resets what a battery feeds, and returns what it keeps. Only while no CPU runs.
    std::function<Battery()> reset_battery_backed;
    /// COM1 first.
    std::vector<std::unique_ptr<SerialConsole>> consoles;
};

}  // namespace kvm_vmm
