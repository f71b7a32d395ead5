// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>

#include "util/mutex.hpp"

namespace kvm_vmm {

/// A number that any thread may change.
class Counter {
public:
    /// For a number that is known only as a whole, from the guest for instance.
    void set(std::uint64_t value) noexcept { value_.store(value, std::memory_order_relaxed); }
    void add(std::uint64_t count = 1) noexcept { value_.fetch_add(count, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

/// The named counters of one device. They outlive the VM, so that the next VM of this process continues them.
///
/// Thread safety: all functions may be called from any thread.
class Counters {
public:
    /// The counter of that name, which is created with the value 0 if there is none. Valid as long as this
    /// object.
    [[nodiscard]] Counter& operator[](std::string_view name) {
        const LockGuard lock(mutex_);
        for (Named& entry : entries_) {
            if (entry.name == name) {
                return entry.counter;
            }
        }
        return entries_.emplace_back(name).counter;
    }

    /// Calls `f(name, value)` for each counter, in the order in which they were created.
    template <class F>
    void for_each(F&& f) const {
        const LockGuard lock(mutex_);
        for (const Named& entry : entries_) {
            f(entry.name, entry.counter.value());
        }
    }

private:
    struct Named {
        explicit Named(std::string_view counter_name) : name(counter_name) {}
        std::string name;
        Counter counter;
    };

    mutable Mutex mutex_;
    std::deque<Named> entries_ KVM_VMM_GUARDED_BY(mutex_);  // never moves its elements
};

}  // namespace kvm_vmm
