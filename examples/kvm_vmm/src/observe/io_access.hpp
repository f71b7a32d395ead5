// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvm_vmm {

/// An access of a CPU to a port or to memory, after it has been answered.
struct IoAccess {
    /// For an access that KVM has kept in its ring (see CoalescedWrites) and of which it does not report the CPU.
    static constexpr unsigned unknown_cpu = ~0U;

    enum class Bus : std::uint8_t { pio, mmio } bus;
    bool write;
    unsigned cpu;
    std::uint64_t address;
    std::size_t width;  ///< bytes of one access, at least 1
    /// The data that were read or written. String I/O makes several accesses at the same port.
    std::span<const std::uint8_t> data;
};

}  // namespace kvm_vmm
