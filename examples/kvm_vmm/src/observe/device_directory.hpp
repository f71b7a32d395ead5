// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include <vmdevice/bus.hpp>
#include <vmdevice/device_info.hpp>

#include "observe/io_access.hpp"

namespace kvm_vmm {

/// Returns the name of the register that an access at `offset` of a device reaches, or an empty text if it
/// has none. It may lock the device, so the caller must not hold that lock. May be called from any thread.
using RegisterNamer = std::function<std::string(std::uint64_t offset, bool write)>;

/// The observed data of one device, which may have several ranges.
struct ObservedDevice {
    explicit ObservedDevice(std::string_view device_name) : name(device_name) {}

    std::string name;
    RegisterNamer register_name;  ///< set when the device is created; may be empty
    std::uint16_t port_origin{};  ///< the origin of register offsets: the start of the lowest range
    std::uint64_t mmio_origin{};
    std::atomic<std::uint64_t> mmio_reads{0};
    std::atomic<std::uint64_t> mmio_writes{0};
    std::atomic<std::uint64_t> errors{0};  ///< failures on the host's side of an access
};

/// The observed devices by name, and by their addresses in the most recent VM.
///
/// It is filled in while a VM is set up; from then on all threads may read it. The next VM of this process
/// continues the counts of the devices that have the same names.
class DeviceDirectory {
public:
    /// The device of that name, which is created if there is none. Valid while the directory exists.
    ObservedDevice& add(std::string_view name);
    /// Replaces the addresses: the devices that were added under these names answer at these resources, and
    /// no other device does.
    void place(std::span<const vmdevice::DeviceInfo> devices);

    /// The device that contains all of an access of `length` bytes; nullptr if there is none.
    [[nodiscard]] ObservedDevice* find_port(std::uint16_t port, std::size_t length) const noexcept;
    [[nodiscard]] ObservedDevice* find_mmio(std::uint64_t address, std::size_t length) const noexcept;

    /// The (first) register that an access reached, as "COM1.LSR", or "-" if no device contains all of it. If
    /// the name depends on the device's state, the present state is used.
    [[nodiscard]] std::string register_name(const IoAccess& access) const;

    [[nodiscard]] const std::deque<ObservedDevice>& devices() const noexcept { return devices_; }

private:
    std::deque<ObservedDevice> devices_;  // never moves its elements
    vmdevice::PioBus<ObservedDevice*> ports_;
    vmdevice::MmioBus<ObservedDevice*> mmio_;
};

}  // namespace kvm_vmm
