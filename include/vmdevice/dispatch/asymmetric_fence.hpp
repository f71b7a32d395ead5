// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// An asymmetric fence pair: close to free on the dispatch path, expensive on the removal path (compare
/// `folly::asymmetric_thread_fence_light` and `_heavy`, and the membarrier flavour of liburcu).
///
/// "Publish a slot, then read the table" against "change the table, then read the slots" needs a full fence
/// on both sides. Where Linux offers membarrier(2), the rare side issues a full fence on every CPU that runs
/// this process, and the frequent side only has to prevent reordering by the compiler. On other systems,
/// and under ThreadSanitizer, which cannot see membarrier, both sides use sequentially consistent operations.

#include <vmdevice/detail/config.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include <vmdevice/detail/visibility.hpp>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VMDEVICE_THREAD_SANITIZER 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define VMDEVICE_THREAD_SANITIZER 1
#endif

#if defined(__linux__) && !defined(VMDEVICE_THREAD_SANITIZER) && !defined(VMDEVICE_PORTABLE_FENCES) && \
    __has_include(<sys/syscall.h>) && __has_include(<unistd.h>)
#include <sys/syscall.h>
#include <unistd.h>
#if defined(SYS_membarrier)
#define VMDEVICE_HAS_MEMBARRIER 1
#endif
#endif

namespace vmdevice::inline v0_2::detail {

#if defined(VMDEVICE_HAS_MEMBARRIER)

/// membarrier(2) commands (Linux 4.14 and later).
enum class Membarrier : int { private_expedited = 1 << 3, register_private_expedited = 1 << 4 };

inline bool membarrier(Membarrier command) noexcept {
    return ::syscall(SYS_membarrier, static_cast<int>(command), 0, 0) == 0;
}

/// Whether the light side needs no fence. The first call decides this and registers the process with the
/// kernel.
inline bool asymmetric_fences() noexcept {
    static const bool available = membarrier(Membarrier::register_private_expedited);
    return available;
}

/// Limits the sustained rate of heavy_fence() to interruptions_per_second. Each call interrupts every
/// processor that runs this process, and a guest that makes the VMM plug devices or move PCI windows in a
/// loop must not slow down the other vCPUs in that way. A burst is not delayed; further callers wait for
/// their turn. (This is a leaky bucket, stored as the time at which it will be empty.)
class FencePace {
public:
    void wait_for_turn() noexcept {
        using namespace std::chrono;
        const auto now = duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
        std::int64_t empty_at = empty_at_.load(std::memory_order_relaxed);
        std::int64_t next = 0;
        do {
            next = (empty_at > now ? empty_at : now) + interval;
        } while (!empty_at_.compare_exchange_weak(empty_at, next, std::memory_order_relaxed));
        if (next - now > burst * interval) {
            std::this_thread::sleep_for(nanoseconds(next - now - burst * interval));
        }
    }

private:
    static constexpr std::int64_t interruptions_per_second = 5'000;
    static constexpr std::int64_t interval = 1'000'000'000 / interruptions_per_second;
    static constexpr std::int64_t burst = 1000;

    std::atomic<std::int64_t> empty_at_{0};
};
VMDEVICE_SHARED inline constinit FencePace fence_pace;

/// The expensive side. For every other thread that executes the light side, at least one of two things holds:
/// its loads after the light side see every store that this thread made before the call, or this thread sees,
/// after the call, every store that the other thread made before the light side.
inline void heavy_fence() noexcept {
    if (!asymmetric_fences()) {
        return;
    }
    fence_pace.wait_for_turn();
    if (membarrier(Membarrier::private_expedited)) {
        return;
    }
    // A child of fork() may have lost the registration.
    if (membarrier(Membarrier::register_private_expedited) && membarrier(Membarrier::private_expedited)) {
        return;
    }
    // A system call filter that was installed in the meantime forbids the call. The light side still relies
    // on this side, so wait for longer than any processor delays a store.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

#else

constexpr bool asymmetric_fences() noexcept { return false; }
/// Does nothing, because both sides use sequentially consistent loads and stores.
inline void heavy_fence() noexcept {}

#endif

}  // namespace vmdevice::inline v0_2::detail
