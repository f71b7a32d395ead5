// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Keeps the buses usable in a child of fork().
///
/// A child of fork() has one thread, the one that called it. The operations of the other threads are never
/// completed in the child's copy of the memory: a mutex that one of them held would stay locked, and a reader
/// slot would protect an entry permanently. So the mutexes that guard the buses are locked before the process
/// is copied, and the child clears the slots of the threads that it does not have. On platforms without
/// fork() nothing is done.

#include <vmdevice/detail/memory.hpp>
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/visibility.hpp>
#include <vmdevice/dispatch/hazard_pointers.hpp>

#if (defined(__unix__) || defined(__APPLE__)) && __has_include(<pthread.h>)
#include <pthread.h>
#define VMDEVICE_HAS_FORK 1
#endif

namespace vmdevice::inline v0_2::detail {

#if defined(VMDEVICE_HAS_FORK)

class ForkSafeMutex;

struct ForkSafeMutexes {
    Mutex mutex;
    ForkSafeMutex* head VMDEVICE_GUARDED_BY(mutex) = nullptr;
};
VMDEVICE_SHARED inline constinit ForkSafeMutexes fork_safe_mutexes;

/// A mutex that in a child of fork() is never held by a thread that the child does not have. A thread that
/// holds one must not lock, create or destroy another one, and must not fork.
class ForkSafeMutex : public Mutex {
public:
    ForkSafeMutex() {
        handle_forks();
        const LockGuard guard(fork_safe_mutexes.mutex);
        next_ = fork_safe_mutexes.head;
        fork_safe_mutexes.head = this;
    }
    ForkSafeMutex(const ForkSafeMutex&) = delete;
    ForkSafeMutex& operator=(const ForkSafeMutex&) = delete;
    ~ForkSafeMutex() {
        const LockGuard guard(fork_safe_mutexes.mutex);
        ForkSafeMutex** link = &fork_safe_mutexes.head;
        while (*link != this) {
            link = &(*link)->next_;
        }
        *link = next_;
    }

private:
    static void handle_forks() {
        // If this throws, the constructor of the next bus tries again.
        static const bool done = [] {
            if (::pthread_atfork(before_fork, after_fork, after_fork_in_child) != 0) {
                out_of_memory();
            }
            return true;
        }();
        static_cast<void>(done);
    }
    static void before_fork() VMDEVICE_NO_ANALYSIS {
        fork_safe_mutexes.mutex.lock();
        for (ForkSafeMutex* at = fork_safe_mutexes.head; at != nullptr; at = at->next_) {
            // try_lock() instead of lock(): the order in which these mutexes are locked does not matter, and
            // lock() would cause false reports from tools that check lock orders.
            Backoff backoff;
            while (!at->try_lock()) {
                backoff.pause();
            }
        }
    }
    static void after_fork() VMDEVICE_NO_ANALYSIS {
        for (ForkSafeMutex* at = fork_safe_mutexes.head; at != nullptr; at = at->next_) {
            at->unlock();
        }
        fork_safe_mutexes.mutex.unlock();
    }
    static void after_fork_in_child() {
        forget_other_threads();
        after_fork();
    }

    ForkSafeMutex* next_ = nullptr;
};

#else

using ForkSafeMutex = Mutex;

#endif

}  // namespace vmdevice::inline v0_2::detail
