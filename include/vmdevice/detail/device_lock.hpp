// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The lock of a device, and the number of such locks that the calling thread holds.

#include <array>
#include <cassert>

#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/thread_annotations.hpp>
#include <vmdevice/detail/visibility.hpp>

namespace vmdevice::inline v0_2::detail {

/// How many locks of devices the calling thread holds. While it holds one, a thread that is inside the device
/// may be waiting for that lock, so the calling thread must not wait for that thread in turn (see
/// may_wait_for_readers()).
VMDEVICE_SHARED inline constinit thread_local unsigned held_device_locks = 0;

#if !defined(NDEBUG)
/// The mutexes that the calling thread holds, for an assertion; those beyond this many are not checked.
VMDEVICE_SHARED inline constinit thread_local std::array<const Mutex*, 16> held_mutexes{};

/// Locks the mutex. A thread that has locked it already would wait for itself for ever, which an assertion reports.
inline void lock_checked(Mutex& mutex) VMDEVICE_ACQUIRE(mutex) VMDEVICE_NO_ANALYSIS {
    // Parts of a program that are compiled with NDEBUG lock and unlock as well, and leave entries behind. So the list decides
    // only if the mutex is in use, and is cleared before the first lock that the thread takes.
    if (held_device_locks == 0) {
        held_mutexes.fill(nullptr);
    }
    if (!mutex.try_lock()) {
        for ([[maybe_unused]] const Mutex* const held : held_mutexes) {
            assert(held != &mutex &&
                   "this thread is inside the device, or has a guard of lock(): it would wait for itself");
        }
        mutex.lock();
    }
    for (const Mutex*& free : held_mutexes) {
        if (free == nullptr) {
            free = &mutex;
            break;
        }
    }
}
inline void unlock_checked(Mutex& mutex) VMDEVICE_RELEASE(mutex) VMDEVICE_NO_ANALYSIS {
    for (const Mutex*& held : held_mutexes) {
        if (held == &mutex) {
            held = nullptr;
        }
    }
    mutex.unlock();
}
#endif

/// Holds a device's mutex.
class VMDEVICE_SCOPED_CAPABILITY DeviceLock {
public:
    explicit DeviceLock(Mutex& mutex) VMDEVICE_ACQUIRE(mutex) : mutex_(mutex) {
#if defined(NDEBUG)
        mutex_.lock();
#else
        lock_checked(mutex_);
#endif
        ++held_device_locks;
    }
    DeviceLock(const DeviceLock&) = delete;
    DeviceLock& operator=(const DeviceLock&) = delete;
    ~DeviceLock() VMDEVICE_RELEASE() {
        --held_device_locks;
#if defined(NDEBUG)
        mutex_.unlock();
#else
        unlock_checked(mutex_);
#endif
    }

private:
    Mutex& mutex_;
};

}  // namespace vmdevice::inline v0_2::detail
