// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The information that a DeviceManager has about a device, and the reasons for which it refuses one.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <vmdevice/device.hpp>
#include <vmdevice/resources.hpp>

namespace vmdevice::inline v0_2 {

/// Which bus an access came from.
enum class IoType : std::uint8_t { pio, mmio };

/// A device that has a name, is notified of its resources, and receives accesses at guest addresses; or a
/// bus, which is a device that others name as their parent. A device that is a DevicePio or a DeviceMmio does
/// not need this interface: DeviceManager registers it under a name that the caller supplies.
///
/// Thread safety: several vCPUs may call `read` and `write` at the same time.
class Device {
public:
    Device() = default;
    Device(const Device&) = default;
    Device(Device&&) = default;
    Device& operator=(const Device&) = default;
    Device& operator=(Device&&) = default;
    virtual ~Device() = default;

    /// A name for people, which need not be unique.
    [[nodiscard]] virtual std::string name() const = 0;
    /// An access at a guest address inside one of the device's ranges. If the class is also a DevicePio or a
    /// DeviceMmio, and is registered by a pointer whose type shows that, it is called through that interface
    /// on the bus in question.
    virtual void read(std::uint64_t address, std::span<std::uint8_t> data, IoType type) = 0;
    /// A write of 1 to 8 bytes, or more from a string instruction, at a guest address inside one of the
    /// device's ranges.
    virtual void write(std::uint64_t address, std::span<const std::uint8_t> data, IoType type) = 0;
    /// Called with the assigned resources before the device becomes reachable there, at a registration and at
    /// a move, and with an empty set after it has become unreachable. It runs on the thread that called the
    /// manager, while the manager holds no lock. An exception makes a registration or a move fail, and the
    /// function is then called again with the resources that the device keeps; exceptions during a removal
    /// are ignored.
    virtual void set_resources(const DeviceResources& resources) = 0;
};

/// Identifies a device as long as it is registered.
using InstanceId = std::uint32_t;

/// Why an operation of DeviceManager failed.
enum class DeviceManagerError : std::uint8_t {
    /// The pointer to the device is empty.
    no_device,
    /// No device has this id, or none is at this address.
    unknown_device,
    /// The parent is not registered.
    unknown_parent,
    /// Other devices name it as their parent.
    has_children,
    /// A resource is not available.
    resource_unavailable,
    /// A range of the device overlaps one that was registered on the bus directly.
    bus_conflict,
    /// The device requests a range on a bus for which it has no interface.
    no_interface,
    /// The device is being moved by another call.
    busy,
    /// The manager is being destroyed.
    ending,
};

/// The text of the error, for a message.
[[nodiscard]] constexpr std::string_view to_string(DeviceManagerError error) noexcept {
    switch (error) {
        case DeviceManagerError::no_device:
            return "no device given";
        case DeviceManagerError::unknown_device:
            return "no device has this instance id or address";
        case DeviceManagerError::unknown_parent:
            return "the parent bus is not registered";
        case DeviceManagerError::has_children:
            return "the bus still has devices";
        case DeviceManagerError::resource_unavailable:
            return "a resource is not available";
        case DeviceManagerError::bus_conflict:
            return "an address range is taken on the bus";
        case DeviceManagerError::no_interface:
            return "the device has no interface for the bus of one of its ranges";
        case DeviceManagerError::busy:
            return "the device is being moved";
        case DeviceManagerError::ending:
            return "the device manager is being destroyed";
    }
    return "unknown device manager error";
}

/// An error with its details. It converts to its kind, so that it can be compared with one and used in a
/// switch.
struct DeviceManagerFailure {
    DeviceManagerError kind;  ///< why the operation failed
    /// The resource and its holder: "IRQ 4 is held by COM1". Empty if the kind is sufficient.
    std::string detail;

    // NOLINTNEXTLINE(google-explicit-constructor): a failure can be compared with a kind
    /// The kind alone, for comparisons.
    operator DeviceManagerError() const noexcept { return kind; }
};
/// "a resource is not available: IRQ 4 is held by COM1".
[[nodiscard]] inline std::string to_string(const DeviceManagerFailure& failure) {
    std::string text(to_string(failure.kind));
    if (!failure.detail.empty()) {
        text += ": ";
        text += failure.detail;
    }
    return text;
}

/// A registered device as plain data, for the saved state of a machine.
struct DeviceRecord {
    InstanceId id{};                   ///< the id that the device keeps when it is restored
    std::string name;                  ///< the device's name
    std::optional<InstanceId> parent;  ///< the id of the device whose child it is
    DeviceResources resources;         ///< what it was assigned
    friend bool operator==(const DeviceRecord&, const DeviceRecord&) = default;
};

/// One registered device.
struct DeviceInfo {
    InstanceId id{};                   ///< the id of the device
    std::string name;                  ///< the device's name
    std::optional<InstanceId> parent;  ///< the id of the device whose child it is
    DeviceResources resources;         ///< what it is assigned
    /// The device, if it is a Device.
    std::shared_ptr<Device> device;
    /// Its bus interfaces, if it implements them itself.
    std::shared_ptr<DevicePio> pio;
    std::shared_ptr<DeviceMmio> mmio;  ///< the device on the memory bus, if it is on that

    /// What to save of the device, for DeviceManager::restore_device.
    [[nodiscard]] DeviceRecord record() const { return {id, name, parent, resources}; }
};

}  // namespace vmdevice::inline v0_2
