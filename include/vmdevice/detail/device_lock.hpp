// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The lock of a device, and the number of such locks that the calling thread holds.

#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/visibility.hpp>

namespace vmdevice::inline v0_2::detail {

/// How many locks of devices the calling thread holds. While it holds one, a thread that is inside the device
/// may be waiting for that lock, so the calling thread must not wait for that thread in turn (see
/// may_wait_for_readers()).
VMDEVICE_SHARED inline constinit thread_local unsigned held_device_locks = 0;

/// Holds a device's mutex.
class VMDEVICE_SCOPED_CAPABILITY DeviceLock {
public:
    explicit DeviceLock(Mutex& mutex) VMDEVICE_ACQUIRE(mutex) : mutex_(mutex) {
        mutex_.lock();
        ++held_device_locks;
    }
    DeviceLock(const DeviceLock&) = delete;
    DeviceLock& operator=(const DeviceLock&) = delete;
    ~DeviceLock() VMDEVICE_RELEASE() {
        --held_device_locks;
        mutex_.unlock();
    }

private:
    Mutex& mutex_;
};

}  // namespace vmdevice::inline v0_2::detail
