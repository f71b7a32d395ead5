// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// std::mutex and its guard with thread-safety annotations, which libstdc++ lacks.

#include <vmdevice/detail/config.hpp>

#include <mutex>

#include <vmdevice/detail/thread_annotations.hpp>

namespace vmdevice::inline v0_2::detail {

class VMDEVICE_CAPABILITY("mutex") Mutex {
public:
    void lock() VMDEVICE_ACQUIRE() { mutex_.lock(); }
    [[nodiscard]] bool try_lock() VMDEVICE_TRY_ACQUIRE(true) { return mutex_.try_lock(); }
    void unlock() VMDEVICE_RELEASE() { mutex_.unlock(); }

private:
    std::mutex mutex_;
};

class VMDEVICE_SCOPED_CAPABILITY LockGuard {
public:
    explicit LockGuard(Mutex& mutex) VMDEVICE_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;
    ~LockGuard() VMDEVICE_RELEASE() { mutex_.unlock(); }

private:
    Mutex& mutex_;
};

}  // namespace vmdevice::inline v0_2::detail
