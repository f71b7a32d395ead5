// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include <vmdevice/io_manager.hpp>

#include "kvm/coalesced_ring.hpp"
#include "machine/end.hpp"
#include "observe/observer.hpp"
#include "util/mutex.hpp"
#include "vmm/drain_pace.hpp"

namespace kvm_vmm {

/// Delivers the writes in KVM's ring to the devices.
///
/// A CPU's thread calls deliver() after every return of KVM_RUN, before it handles the exit: so each access that
/// returns to this program finds the devices as if every write before it, of any CPU, had returned as well.
/// The event loop calls look() for CPUs that do not return, but not because of writes to memory: these are to registers
/// of virtio devices, which wait for the next access. It calls deliver() before it asks a device for something that
/// depends on the guest's writes.
///
/// Lock order: the lock here is taken before that of any device. So no device may call deliver(), and it must not
/// be called with a device's lock held.
class CoalescedWrites {
public:
    /// All must outlive this object. `cpu` is the CPU that is recorded as the source of the writes if there is only
    /// one: KVM does not report which one it was.
    CoalescedWrites(CoalescedRing ring, const vmdevice::IoManager& io, EndLatch& end, Observer& observer,
                    std::optional<unsigned> cpu)
        : ring_(ring), io_(io), end_(end), observer_(observer), cpu_(cpu) {}

    /// Delivers all writes that precede the call. For the CPUs' threads.
    void deliver() {
        if (!ring_.empty()) {
            deliver_found(true);
        }
    }
    /// The same for the event loop.
    void deliver_by_host() {
        if (!ring_.empty()) {
            deliver_found(false);
        }
    }

    /// The same, unless another thread holds the lock, which it may hold for good.
    void try_to_deliver();

    /// Whether all writes that precede the call have been delivered. For any thread.
    [[nodiscard]] bool has_delivered() const noexcept { return ring_.empty(); }

    /// For the event loop: delivers the writes of CPUs that do not do it themselves, if one is to a port. Returns
    /// the time until the next look, or nothing if there need be none for DrainPace::longest.
    [[nodiscard]] std::optional<std::chrono::microseconds> look();

private:
    void deliver_found(bool by_cpu);
    void deliver_locked(bool by_cpu) KVM_VMM_REQUIRES(mutex_);
    void deliver_run(const CoalescedRun& run) const;

    Mutex mutex_;
    CoalescedRing ring_;  // empty() needs no lock
    const vmdevice::IoManager& io_;
    EndLatch& end_;
    Observer& observer_;
    std::optional<unsigned> cpu_;
    bool broken_ KVM_VMM_GUARDED_BY(mutex_){false};
    std::atomic<std::uint64_t> delivered_by_cpus_{0};
    DrainPace pace_;  // for the event loop
};

}  // namespace kvm_vmm
