// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <span>

#include "kvm/coalesced_ring.hpp"

namespace kvm_vmm::test {

/// A ring in plain memory, and the kernel's side of it.
class KernelRing {
public:
    [[nodiscard]] CoalescedRing ring() noexcept { return CoalescedRing(page); }

    /// A CPU's write to a coalesced port. Returns false if the ring is full, in which case KVM_RUN returns with it.
    bool write_port(std::uint16_t port, std::uint8_t value) {
        const std::array<std::uint8_t, 1> bytes{value};
        return add(port, bytes, true);
    }
    bool add(std::uint64_t address, std::span<const std::uint8_t> bytes, bool pio) {
        const std::lock_guard lock(mutex_);  // the kernel's ring_lock
        const std::uint32_t last = page.last;
        const std::uint32_t next = (last + 1) % CoalescedRing::entry_count;
        if (next == std::atomic_ref(page.first).load(std::memory_order_acquire)) {
            return false;
        }
        CoalescedRing::Entry& entry = page.entries.at(last);
        entry = {.address = address,
                 .length = static_cast<std::uint32_t>(bytes.size()),
                 .pio = pio ? 1U : 0U,
                 .data = {}};
        std::ranges::copy(bytes, entry.data.begin());
        std::atomic_ref(page.last).store(next, std::memory_order_release);
        return true;
    }

    CoalescedRing::Page page{};

private:
    std::mutex mutex_;
};

}  // namespace kvm_vmm::test
