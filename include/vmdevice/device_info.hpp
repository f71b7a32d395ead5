// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// What a DeviceManager knows about a device, and why it refuses one.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <vmdevice/device.hpp>
#include <vmdevice/resources.hpp>

namespace vmdevice {

/// Which bus an access came from.
enum class IoType : std::uint8_t { pio, mmio };

/// A device that says its name, learns its resources, and takes accesses at guest addresses; or a bus, which
/// is a device that others name as their parent. A device that is a DevicePio or a DeviceMmio needs none of
/// this: DeviceManager takes it under a name that is given with it.
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

    /// What people call it. Need not be unique.
    [[nodiscard]] virtual std::string name() const = 0;
    /// An access at a guest address inside one of the device's ranges. A class that is also a DevicePio or a
    /// DeviceMmio, and is registered by a pointer of a type that shows it, is called through that interface
    /// on the bus in question.
    virtual void read(std::uint64_t address, std::span<std::uint8_t> data, IoType type) = 0;
    virtual void write(std::uint64_t address, std::span<const std::uint8_t> data, IoType type) = 0;
    /// Told what the device has got before it can be reached there, at a registration and at a move, and
    /// told an empty set when it can no longer be reached. It runs on the thread that called the manager,
    /// without a lock of the manager's. What it throws ends a registration or a move, and the device is then
    /// told what it has again; where there is nothing to end, it is dropped.
    virtual void set_resources(const DeviceResources& resources) = 0;
};

/// Identifies a device as long as it is registered.
using InstanceId = std::uint32_t;

enum class DeviceManagerError : std::uint8_t {
    /// The pointer to the device is empty.
    no_device,
    /// No device has this id, or none is at this address.
    unknown_device,
    /// The parent is not registered.
    unknown_parent,
    /// Other devices name it as their parent.
    has_children,
    /// A resource cannot be had.
    resource_unavailable,
    /// A range of the device is taken on the bus by what was registered there directly.
    bus_conflict,
    /// The device asks for a range on a bus that it has no interface for.
    no_interface,
    /// The device is being moved by another call.
    busy,
    /// The manager is being destroyed.
    ending,
};

/// The error in words, for a message.
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

/// An error with what it is about. It converts to its kind, so that it can be compared with one and used in
/// a switch.
struct DeviceManagerFailure {
    DeviceManagerError kind;
    /// Which resource, and who has it: "IRQ 4 is held by COM1". Empty where the kind says all.
    std::string detail;

    // NOLINTNEXTLINE(google-explicit-constructor): it stands for its kind
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

/// A registered device as plain data: what a saved machine keeps of it.
struct DeviceRecord {
    InstanceId id{};
    std::string name;
    std::optional<InstanceId> parent;
    DeviceResources resources;
    friend bool operator==(const DeviceRecord&, const DeviceRecord&) = default;
};

/// One registered device.
struct DeviceInfo {
    InstanceId id{};
    std::string name;
    std::optional<InstanceId> parent;
    DeviceResources resources;
    /// The device where it is a Device.
    std::shared_ptr<Device> device;
    /// Its bus interfaces where it has them itself.
    std::shared_ptr<DevicePio> pio;
    std::shared_ptr<DeviceMmio> mmio;

    [[nodiscard]] DeviceRecord record() const { return {id, name, parent, resources}; }
};

}  // namespace vmdevice
