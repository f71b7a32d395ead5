// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// What fork() must not break.
///
/// A child of fork() has one thread, the one that called it. What the others were doing stays half done in
/// the child's copy of memory: a mutex that one held stays locked, and a reader slot says for ever that a
/// thread is inside a device. So the mutexes that guard the buses are taken before the process is copied, and
/// the child empties the slots of the threads that it does not have. Where there is no fork(), nothing is
/// done.

#include <vmdevice/detail/memory.hpp>
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/visibility.hpp>
#include <vmdevice/dispatch/hazard_pointers.hpp>

#if (defined(__unix__) || defined(__APPLE__)) && __has_include(<pthread.h>)
#include <pthread.h>
#define VMDEVICE_HAS_FORK 1
#endif

namespace vmdevice::detail {

#if defined(VMDEVICE_HAS_FORK)

class ForkSafeMutex;

struct ForkSafeMutexes {
    Mutex mutex;
    ForkSafeMutex* head VMDEVICE_GUARDED_BY(mutex) = nullptr;
};
VMDEVICE_SHARED inline constinit ForkSafeMutexes fork_safe_mutexes;

/// A mutex that is not held by a thread that a child of fork() lacks. No thread may take a second one, make
/// or end one, or fork, while it holds one.
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
        // Where this throws, the next bus tries again.
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
            // Not lock(): the order of two of these means nothing, and a tool that watches orders would
            // object.
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

}  // namespace vmdevice::detail
