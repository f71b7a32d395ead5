// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace kvm_vmm {

/// Whose registers a device has, so that a transcript can name them.
enum class RegisterSet : std::uint8_t { none, uart16550, i8042, rtc_cmos, acpi_pm };

struct DeviceName {
    std::string name;
    RegisterSet registers{RegisterSet::none};
};

/// What is observed of one device; it may answer at several ranges.
struct ObservedDevice {
    std::string name;
    RegisterSet registers;
    std::size_t index;            ///< counts from 0 in a directory
    std::uint16_t port_origin{};  ///< where register offsets count from: the lowest of its ranges
    std::uint64_t mmio_origin{};
    std::atomic<std::uint64_t> mmio_reads{0};
    std::atomic<std::uint64_t> mmio_writes{0};
    std::atomic<std::uint64_t> errors{0};  ///< failures on the host's side of an access
};

/// Which device answers where, by name.
///
/// Filled in while a VM is set up; from then on it may be read by all threads. Another VM of this process
/// that puts devices of the same names at the same places goes on with their counts.
class DeviceDirectory {
public:
    /// The device of that name, a new one if need be. Valid as long as the directory.
    ObservedDevice& add(const DeviceName& name);
    /// The same, and that it answers at `size` ports from `first` on. Names what was named otherwise anew.
    ObservedDevice& add_ports(const DeviceName& name, std::uint16_t first, std::uint16_t size);
    ObservedDevice& add_mmio(const DeviceName& name, std::uint64_t first, std::uint64_t size);

    /// The device that an access of `length` bytes lies in as a whole; nullptr where there is none.
    [[nodiscard]] ObservedDevice* find_port(std::uint16_t port, std::size_t length) const noexcept;
    [[nodiscard]] ObservedDevice* find_mmio(std::uint64_t address, std::size_t length) const noexcept;

    [[nodiscard]] const std::deque<ObservedDevice>& devices() const noexcept { return devices_; }

private:
    struct Range {
        std::uint64_t first;
        std::uint64_t last;
        ObservedDevice* device;
    };
    using Ranges = std::vector<Range>;  // in order, without overlaps

    static void insert(Ranges& ranges, const Range& range);
    static ObservedDevice* find(const Ranges& ranges, std::uint64_t address, std::size_t length) noexcept;
    static std::uint64_t origin(const Ranges& ranges, const ObservedDevice& device) noexcept;

    std::deque<ObservedDevice> devices_;  // never moves its elements
    Ranges ports_;
    Ranges mmio_;
};

}  // namespace kvm_vmm
