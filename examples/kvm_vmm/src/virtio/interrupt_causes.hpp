// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>

namespace kvm_vmm::virtio {

/// The register InterruptStatus (VIRTIO 1.2, 4.2.2): the causes of interrupts that the driver has not acknowledged.
///
/// An acknowledgement clears only causes that the driver has read before. A cause that arises between a driver's
/// read and its acknowledgement stays, so the interrupt that follows finds it; and an acknowledgement may arrive late,
/// as long as it arrives before the next read: KVM may keep it in its ring of coalesced writes, which is emptied
/// before each read. If it cleared all causes that there are, it would clear one that has arisen since it was written,
/// and the driver, which looks at its queues only if there is a cause, would miss what has been used.
///
/// Thread safety: all functions may be called from any thread.
class InterruptCauses {
public:
    /// `causes` has bits of InterruptStatus only.
    void raise(std::uint32_t causes) noexcept { bits_.fetch_or(causes); }

    /// A read of InterruptStatus by the driver.
    [[nodiscard]] std::uint32_t read() noexcept {
        std::uint32_t bits = bits_.load();
        while ((bits & unread) != 0 && !bits_.compare_exchange_weak(bits, all(bits) << read_shift)) {
        }
        return all(bits);
    }

    /// A write to InterruptACK.
    void acknowledge(std::uint32_t causes) noexcept { bits_.fetch_and(~(causes << read_shift)); }

    /// What read() would return, without its effect.
    [[nodiscard]] std::uint32_t peek() const noexcept { return all(bits_.load()); }
    /// As if `causes`, and no others, had just arisen.
    void set(std::uint32_t causes) noexcept { bits_.store(causes); }

private:
    // The lower half has causes that the driver has not read, the upper half those that it has read.
    static constexpr unsigned read_shift = 16;
    static constexpr std::uint32_t unread = 0xFFFF;

    [[nodiscard]] static constexpr std::uint32_t all(std::uint32_t bits) noexcept {
        return (bits | bits >> read_shift) & unread;
    }

    std::atomic<std::uint32_t> bits_{0};
};

}  // namespace kvm_vmm::virtio
