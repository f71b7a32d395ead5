// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Mutexes and their guard with Clang's thread-safety annotations, which libstdc++ lacks: members declare
/// which mutex guards them, and -Wthread-safety reports an access without the lock.
/// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html

#include <mutex>

#if defined(__clang__)
#define KVM_VMM_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define KVM_VMM_THREAD_ATTRIBUTE(x)
#endif

#define KVM_VMM_GUARDED_BY(mutex) KVM_VMM_THREAD_ATTRIBUTE(guarded_by(mutex))
#define KVM_VMM_REQUIRES(mutex) KVM_VMM_THREAD_ATTRIBUTE(requires_capability(mutex))
#define KVM_VMM_RETURNS(mutex) KVM_VMM_THREAD_ATTRIBUTE(lock_returned(mutex))

namespace kvm_vmm {

/// A mutex of the standard library.
template <class StdMutex>
class KVM_VMM_THREAD_ATTRIBUTE(capability("mutex")) AnnotatedMutex {
public:
    void lock() KVM_VMM_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
    void unlock() KVM_VMM_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
    [[nodiscard]] bool try_lock() KVM_VMM_THREAD_ATTRIBUTE(try_acquire_capability(true)) {
        return mutex_.try_lock();
    }
    template <class Duration>
    [[nodiscard]] bool try_lock_for(Duration time) KVM_VMM_THREAD_ATTRIBUTE(try_acquire_capability(true)) {
        return mutex_.try_lock_for(time);
    }

private:
    StdMutex mutex_;
};
using Mutex = AnnotatedMutex<std::mutex>;
using TimedMutex = AnnotatedMutex<std::timed_mutex>;

/// Holds a mutex for its lifetime.
template <class AnyMutex>
class KVM_VMM_THREAD_ATTRIBUTE(scoped_lockable) LockGuard {
public:
    explicit LockGuard(AnyMutex& mutex) KVM_VMM_THREAD_ATTRIBUTE(acquire_capability(mutex)) : mutex_(mutex) {
        mutex_.lock();
    }
    /// For a mutex that this thread has locked already.
    LockGuard(AnyMutex& mutex, std::adopt_lock_t /*locked*/)
        KVM_VMM_THREAD_ATTRIBUTE(requires_capability(mutex))
        : mutex_(mutex) {}
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;
    ~LockGuard() KVM_VMM_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

private:
    AnyMutex& mutex_;
};

}  // namespace kvm_vmm
