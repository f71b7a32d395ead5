// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>

namespace kvm_vmm::virtio {

/// The register InterruptStatus (VIRTIO 1.2, 4.2.2): the causes of interrupts that the driver has not acknowledged.
///
/// An acknowledgement may arrive late, as long as it arrives before the next read: KVM may keep it in its ring of coalesced
/// writes, which is emptied before each read. It must not clear a cause that has arisen since the driver wrote it: the
/// driver looks at its queues only if there is a cause, and would miss what has been used. So a cause that arises while an
/// acknowledgement may be on its way is cleared only by one that follows a read. Other causes are cleared by the next
/// acknowledgement, as 4.2.2 says, whether the driver has read them or not.
///
/// Thread safety: all functions may be called from any thread, but raise() only by one thread at a time.
class InterruptCauses {
public:
    /// `causes` has bits of InterruptStatus only. `on_its_way()` returns whether an acknowledgement that the driver has
    /// written before the call may arrive after it. It must be a look at the ring, not at what was found earlier.
    template <class OnItsWay>
    void raise(std::uint32_t causes, OnItsWay&& on_its_way) {
        bits_.fetch_or(causes << kept_shift);
        // After the cause: if there is none now, every later acknowledgement was written when the driver could see what the
        // cause stands for.
        if (!on_its_way()) {
            std::uint32_t bits = bits_.load();
            while (!bits_.compare_exchange_weak(
                bits, (bits & ~(cause_bits << kept_shift)) | part(bits, kept_shift))) {
            }
        }
    }

    /// A read of InterruptStatus by the driver.
    [[nodiscard]] std::uint32_t read() noexcept {
        std::uint32_t bits = bits_.load();
        while (part(bits, kept_shift) != 0 && !bits_.compare_exchange_weak(bits, all(bits))) {
        }
        return all(bits);
    }

    /// A write to InterruptACK.
    void acknowledge(std::uint32_t causes) noexcept { bits_.fetch_and(~(causes & cause_bits)); }

    /// What read() would return, without its effect.
    [[nodiscard]] std::uint32_t peek() const noexcept { return all(bits_.load()); }
    /// As if `causes`, and no others, had just arisen, and no acknowledgement were on its way.
    void set(std::uint32_t causes) noexcept { bits_.store(causes); }

private:
    // The lower half has causes that an acknowledgement clears, the upper half those that a read moves there.
    static constexpr std::uint32_t cause_bits = 0xFFFF;
    static constexpr unsigned kept_shift = 16;

    [[nodiscard]] static constexpr std::uint32_t part(std::uint32_t bits, unsigned shift) noexcept {
        return bits >> shift & cause_bits;
    }
    [[nodiscard]] static constexpr std::uint32_t all(std::uint32_t bits) noexcept {
        return (bits | part(bits, kept_shift)) & cause_bits;
    }

    std::atomic<std::uint32_t> bits_{0};
};

}  // namespace kvm_vmm::virtio
