// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/locked.hpp>

#include "console/escape.hpp"
#include "console/serial_backend.hpp"
#include "devices/battery.hpp"
#include "devices/host_controls.hpp"
#include "devices/register_names.hpp"
#include "devices/timed_device.hpp"
#include "event/event_manager.hpp"
#include "event/timer.hpp"
#include "kvm/kvm_vm.hpp"
#include "machine/device_description.hpp"
#include "machine/end.hpp"
#include "memory/guest_memory.hpp"
#include "observe/device_errors.hpp"
#include "observe/observer.hpp"
#include "virtio/disk_image.hpp"
#include "virtio/net_target.hpp"
#include "virtio/shared_directory.hpp"

namespace kvm_vmm {

/// The objects that a device may use when it is created. `vm`, `events`, `end`, `memory`, `serials`,
/// `consoles`, `debug_console`, `disks`, `nets`, `shares`, `vsock` and `observer` outlive the device. The context
/// itself, `battery`, `on_command`, `writes_on_their_way` and `controls` are for its creation only: a device copies
/// what it keeps.
struct DeviceContext {
    KvmVm& vm;
    EventManager& events;
    EndLatch& end;
    const GuestMemory& memory;
    const Battery& battery;                                    ///< from the previous VM, if any
    std::span<const std::unique_ptr<SerialBackend>> serials;   ///< one for each serial port
    std::span<const std::unique_ptr<SerialBackend>> consoles;  ///< one for each virtio console
    SerialBackend* debug_console;                              ///< null for none
    std::span<const std::unique_ptr<virtio::DiskImage>> disks;
    std::span<const virtio::NetTarget> nets;     ///< one for each network interface
    std::span<const virtio::SharedRoot> shares;  ///< directories of the host
    const ListeningSocket* vsock;                ///< null for none
    /// A command that the user typed on a console.
    std::function<void(ConsoleCommand)> on_command;
    /// Whether a write of the guest to one of MachineDevice's coalesced registers may arrive later. For any thread,
    /// while the guest runs.
    std::function<bool()> writes_on_their_way;
    Observer& observer;
    HostControls& controls;
};

/// A device on the port bus or on the memory bus. One that could be on both is on the port bus here.
class DevicePointer {
public:
    // NOLINTBEGIN(google-explicit-constructor,hicpp-explicit-conversions): a conversion, as between pointers
    template <std::derived_from<vmdevice::DevicePio> Device>
    DevicePointer(std::shared_ptr<Device> device)
        : bus_(std::shared_ptr<vmdevice::DevicePio>(std::move(device))) {}
    template <std::derived_from<vmdevice::DeviceMmio> Device>
        requires(!std::derived_from<Device, vmdevice::DevicePio>)
    DevicePointer(std::shared_ptr<Device> device)
        : bus_(std::shared_ptr<vmdevice::DeviceMmio>(std::move(device))) {}
    // NOLINTEND(google-explicit-constructor,hicpp-explicit-conversions)

    /// Calls `f` with the pointer to the DevicePio or DeviceMmio.
    template <class F>
    auto visit(F&& f) const {
        return std::visit(std::forward<F>(f), bus_);
    }

private:
    std::variant<std::shared_ptr<vmdevice::DevicePio>, std::shared_ptr<vmdevice::DeviceMmio>> bus_;
};

/// A row of the machine table: the description of a device, and the function that creates it.
struct MachineDevice {
    DeviceDescription description;
    /// Creates the device that answers at the description's ports or addresses. Each access has its offset in the range
    /// that it is in; to count offsets from the lowest port of several ranges, return a vmdevice::PortView.
    /// Empty for a device that KVM emulates, whose resources are only reserved. Throws VmmError.
    // NOLINTNEXTLINE(readability-redundant-member-init): GCC warns of rows that leave it out
    std::function<DevicePointer(const DeviceContext&, ObservedDevice&)> create{};
    /// Ports at which a write of one byte may reach the device later than the guest makes it, as long as no
    /// other access of the guest overtakes it and the host can wait for it. See CoalescedWrites.
    // NOLINTNEXTLINE(readability-redundant-member-init): as above
    std::vector<std::uint16_t> coalesced_ports{};
    /// Guest physical addresses at which a write of four bytes may reach the device later, as above, and for which the
    /// host can wait as long as there is no other access. It must not wait for a lock, because all CPUs would wait too.
    // NOLINTNEXTLINE(readability-redundant-member-init): as above
    std::vector<std::uint64_t> coalesced_registers{};
};

/// A device model with a lock, as the bus needs it.
template <class Model>
using OnBus = vmdevice::Locked<vmdevice::ByteDevice<Model>>;

template <class Model>
[[nodiscard]] std::shared_ptr<OnBus<Model>> put_on_bus(ObservedDevice& observed, Model model) {
    auto device = std::make_shared<OnBus<Model>>(std::move(model));
    observed.register_name = register_namer(device);
    device->with_lock(
        [log = DeviceErrorLog(observed)](auto& registers) { registers.set_error_handler(log); });
    return device;
}

/// Likewise for a model with deadlines, which gets its own timer on `clock`.
template <vmsuperio::Timed Model>
[[nodiscard]] std::shared_ptr<OnBus<TimedDevice<Model>>> put_on_bus_timed(ObservedDevice& observed,
                                                                          EventManager& events,
                                                                          clockid_t clock, Model model) {
    struct WithTimer {
        std::optional<Timer> timer;
        std::shared_ptr<OnBus<TimedDevice<Model>>> device;
    };
    auto owner = std::make_shared<WithTimer>();
    // The timer belongs to the event loop, the device to the thread that holds its lock.
    owner->timer.emplace(events, clock, [device = &owner->device] {
        (*device)->with_lock([](auto& registers) { registers.device().expired(); });
    });
    owner->device = put_on_bus(observed, TimedDevice(std::move(model), *owner->timer));
    return {owner, owner->device.get()};
}

}  // namespace kvm_vmm
