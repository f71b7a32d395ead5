// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "devices/battery.hpp"
#include "devices/serial_console.hpp"
#include "virtio/console.hpp"

namespace kvm_vmm {

/// The operations of the host on the devices of a VM. Each device sets its own when it is created; a function
/// is empty if the machine has no such device.
struct HostControls {
    /// Types Ctrl-Alt-Del on the guest's keyboard. Returns false if the guest does not read it.
    std::function<bool()> ctrl_alt_del;
    /// Presses the ACPI power button.
    std::function<void()> press_power_button;
    /// Resets the devices that a battery supplies, and returns the state that it preserves. May be called
    /// only while no CPU runs.
    std::function<Battery()> reset_battery_backed;
    /// Each completes the requests in progress of a device that accesses guest memory by itself, and stops it. To be
    /// called when no CPU runs any more, and before guest memory changes in any other way.
    std::vector<std::function<void()>> shut_down;
    /// Each lets a disk look at the size of its file again.
    std::vector<std::function<void()>> check_disk_sizes;
    /// COM1 first.
    std::vector<std::unique_ptr<SerialConsole>> consoles;
    /// hvc0 first.
    std::vector<std::shared_ptr<virtio::Console>> virtio_consoles;
};

}  // namespace kvm_vmm
