// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "observe/io_access.hpp"

namespace kvm_vmm {

/// Gives the name of the register that an access at `offset` of a device went to; empty for one without a
/// name. May ask the device, whose lock must not be held. To be called from any thread.
using RegisterNamer = std::function<std::string(std::uint64_t offset, bool write)>;

/// What is observed of one device; it may answer at several ranges.
struct ObservedDevice {
    explicit ObservedDevice(std::string_view device_name) : name(device_name) {}

    std::string name;
    RegisterNamer register_name;  ///< set with the device's ranges; may be empty
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
    ObservedDevice& add(std::string_view name);
    /// The same, and that it answers at `size` ports from `first` on. What was at these ports before is there
    /// no more.
    ObservedDevice& add_ports(std::string_view name, std::uint16_t first, std::uint16_t size);
    ObservedDevice& add_mmio(std::string_view name, std::uint64_t first, std::uint64_t size);

    /// The device that an access of `length` bytes lies in as a whole; nullptr where there is none.
    [[nodiscard]] ObservedDevice* find_port(std::uint16_t port, std::size_t length) const noexcept;
    [[nodiscard]] ObservedDevice* find_mmio(std::uint64_t address, std::size_t length) const noexcept;

    /// The (first) register that an access went to, as "COM1.LSR"; "-" where no device owns all of it. Where
    /// the name depends on the device's state, that is its state now.
    [[nodiscard]] std::string register_name(const IoAccess& access) const;

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
