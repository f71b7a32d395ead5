// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Who is inside which device: what lets a device be taken out while other threads dispatch without a lock.
///
/// Each thread owns a record of *places*, one per nested dispatch. A place holds 0 (nobody there), the
/// identity of a bus (this thread is looking a device up on it), or the identity of an entry (it is inside
/// that entry's device). Only the owner writes it, but for the mark described below; it never waits and never
/// retries.
///
/// The order of events, and why it is enough:
///
///     dispatch                              removal
///     D1  place = bus                       R1  unpublish the entry
///     D2  light fence                       R2  heavy fence
///     D3  look the entry up                 R3  read all places
///     D4  place = entry   (release)         R4  wait while a place is the bus (of before R2) or the entry
///     D5  call the device                   R5  hand back, reuse or free (acquire, from R3/R4)
///     D6  place = 0       (release)
///
/// Either R3 sees D1, or D3 sees R1: by the fences of asymmetric_fence.hpp, or where those are not
/// asymmetric, because all four are sequentially consistent. (R2 is left out where no other thread has a
/// record. A thread takes one before D1 by a sequentially consistent exchange, R1 and the test of the records
/// are of that kind too; so if the test misses the thread, its D3 sees R1.) In the second case the dispatch
/// does not find the entry. In the first, R4 waits until the lookup has ended, and if it ended in the entry,
/// until D6. R4 reads what D4 or D6 released, so all that the dispatch read of the tables and did in the
/// device happens before R5. No dispatch that starts later finds the entry, so R4 ends.
///
/// A place that goes from `bus` to 0 and back to `bus` between two looks of R4 would look like one long
/// lookup. So the waiter sets the lowest bit of the word (the mark): it has ended when the marked word has
/// gone.

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>

#include <vmdevice/detail/asymmetric_fence.hpp>
#include <vmdevice/detail/mutex.hpp>

namespace vmdevice::detail {

/// What a place holds; see above. Identities are addresses of objects, whose lowest bit is 0.
using Identity = std::uintptr_t;
using Place = std::atomic<Identity>;

inline constexpr Identity nowhere = 0;
inline constexpr Identity waiter_mark = 1;

template <class T>
[[nodiscard]] Identity identity_of(const T* object) noexcept {
    static_assert(alignof(T) > 1);
    return reinterpret_cast<Identity>(object);
}

/// How deep dispatches may nest: a device that reaches another one through the bus, and so on. A guest that
/// points a device at itself meets this limit instead of the end of the stack.
inline constexpr std::size_t max_nesting = 64;

/// The places of one thread. Records are never freed, only reused, so that a waiter may read any at any time.
/// Aligned to two cache lines, which are fetched in pairs.
struct alignas(128) Visitor {
    std::array<Place, max_nesting> places{};
    std::atomic<bool> claimed{false};
    Visitor* next = nullptr;
};

/// All records, one list for the process (hence the visibility: a program and its shared libraries that each
/// include this share it). It only grows: as long as the greatest number of threads that dispatched at a
/// time. The first ones are static, so that a thread's first dispatch does not allocate.
struct VisitorList {
    static constexpr std::size_t static_count = 64;

    std::array<Visitor, static_count> first_ones{};
    std::atomic<std::size_t> static_used{0};
    std::atomic<Visitor*> head{nullptr};
};
[[gnu::visibility("default")]] inline constinit VisitorList visitors;

/// What a thread knows of itself. Trivial, so that reaching it needs no initialisation check.
struct ThreadState {
    /// The thread has a record, is in no dispatch, and needs no real fence as D2: the common case, told by
    /// one load. It is set and tested, never counted, so that no dispatch waits for a value which the one
    /// before stored.
    bool idle = false;
    /// Whether D2 needs a real fence.
    bool fenced = false;
    /// How many of the thread's exit handlers have run.
    unsigned exits = 0;
    /// The place of a dispatch that begins when idle.
    Place* first = nullptr;
    /// The place of any other dispatch, and where the places end.
    Place* top = nullptr;
    Place* limit = nullptr;
    Visitor* visitor = nullptr;

    /// Whether the thread is inside a device.
    [[nodiscard]] bool is_visiting() const noexcept {
        return visitor != nullptr && visitor->places[0].load(std::memory_order_relaxed) != nowhere;
    }
};
[[gnu::visibility("default")]] inline constinit thread_local ThreadState thread_state;

/// Finds a free record or makes one.
inline Visitor* claim_visitor() {
    for (Visitor* visitor = visitors.head.load(std::memory_order_acquire); visitor != nullptr;
         visitor = visitor->next) {
        if (!visitor->claimed.load(std::memory_order_relaxed) &&
            !visitor->claimed.exchange(true, std::memory_order_seq_cst)) {
            return visitor;
        }
    }
    const std::size_t used = visitors.static_used.load(std::memory_order_relaxed);
    Visitor* fresh = nullptr;
    if (used < VisitorList::static_count) {
        const std::size_t index = visitors.static_used.fetch_add(1, std::memory_order_relaxed);
        if (index < VisitorList::static_count) {
            fresh = &visitors.first_ones[index];
        }
    }
    if (fresh == nullptr) {
        fresh = new Visitor;
    }
    fresh->claimed.store(true, std::memory_order_relaxed);
    Visitor* head = visitors.head.load(std::memory_order_relaxed);
    do {
        fresh->next = head;
    } while (!visitors.head.compare_exchange_weak(head, fresh, std::memory_order_seq_cst));
    return fresh;
}

/// Gives the thread's record back when the thread ends. A destructor of another thread-local object may
/// dispatch later still; the thread then gets a record again and a further one of these. A thread that does
/// so for a fourth time keeps its record.
template <unsigned Nth>
struct ThreadExit {
    ThreadExit() = default;
    ThreadExit(const ThreadExit&) = delete;
    ThreadExit& operator=(const ThreadExit&) = delete;
    ~ThreadExit() {
        ThreadState& state = thread_state;
        Visitor* const visitor = state.visitor;
        state = ThreadState{};
        state.exits = Nth + 1;
        visitor->claimed.store(false, std::memory_order_release);
    }
    /// Makes the destructor run at the end of the calling thread.
    static void arm() {
        static thread_local const ThreadExit at_exit;
        static_cast<void>(&at_exit);
    }
};

/// Gives the calling thread a record; false where it has one already and its places are used up.
inline bool join_visitors() {
    ThreadState& state = thread_state;
    if (state.visitor != nullptr) {
        return state.top != state.limit;
    }
    switch (state.exits) {
        case 0:
            ThreadExit<0>::arm();
            break;
        case 1:
            ThreadExit<1>::arm();
            break;
        case 2:
            ThreadExit<2>::arm();
            break;
        default:
            break;
    }
    Visitor* const visitor = claim_visitor();
    Place* const places = visitor->places.data();
    state.visitor = visitor;
    state.fenced = !asymmetric_fences();
    state.first = places;
    state.idle = !state.fenced;
    state.top = state.fenced ? places : places + 1;
    state.limit = places + visitor->places.size();
    return true;
}

/// A dispatch that begins when the thread is idle. begin() is D1 and D2, enter() D4; end() is D6, after the
/// device or instead of it.
struct FirstVisit {
    void begin(Identity bus) noexcept {
        thread_state.idle = false;
        thread_state.first->store(bus, std::memory_order_relaxed);
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    void enter(Identity entry) noexcept { thread_state.first->store(entry, std::memory_order_release); }
    void end() noexcept {
        thread_state.first->store(nowhere, std::memory_order_release);
        thread_state.idle = true;
    }
};

/// Any other dispatch: a nested one, or one that needs a real fence.
struct FurtherVisit {
    void begin(Identity bus) noexcept {
        place = thread_state.top++;
        if (thread_state.fenced) {
            place->store(bus, std::memory_order_seq_cst);
        } else {
            place->store(bus, std::memory_order_relaxed);
            std::atomic_signal_fence(std::memory_order_seq_cst);
        }
    }
    void enter(Identity entry) noexcept { place->store(entry, std::memory_order_release); }
    void end() noexcept {
        place->store(nowhere, std::memory_order_release);
        --thread_state.top;
    }

    Place* place = nullptr;
};

/// Ends a visit also where the device throws.
template <class Visit>
class EndOfVisit {
public:
    explicit EndOfVisit(Visit& visit) noexcept : visit_(visit) {}
    EndOfVisit(const EndOfVisit&) = delete;
    EndOfVisit& operator=(const EndOfVisit&) = delete;
    [[gnu::always_inline]] ~EndOfVisit() { visit_.end(); }

private:
    Visit& visit_;
};

/// Yields the processor for longer and longer.
class Backoff {
public:
    void pause() noexcept {
        if (round_ < 16) {
            std::this_thread::yield();
        } else {
            const unsigned doublings = round_ - 16 < 5 ? round_ - 16 : 5;
            std::this_thread::sleep_for(std::chrono::microseconds(std::int64_t{32} << doublings));
        }
        ++round_;
    }

private:
    unsigned round_ = 0;
};

/// A thread that waits for another one while it is inside a device itself.
struct Waiter {
    const Visitor* self = nullptr;
    const Visitor* blocked_on = nullptr;
    const Place* place = nullptr;
    Identity identity = nowhere;
    Waiter* next = nullptr;
};

struct WaiterList {
    Mutex mutex;
    Waiter* head VMDEVICE_GUARDED_BY(mutex) = nullptr;

    /// Whether waiting on would be for ever: `waiter` waits for a thread that waits for ... the thread of
    /// `waiter`. Each thread waits for one place at a time, so the chain does not fork.
    bool in_a_circle(const Waiter& waiter) const VMDEVICE_REQUIRES(mutex) {
        std::size_t steps = 0;
        for (const Waiter* at = &waiter; at->place->load(std::memory_order_acquire) == at->identity;) {
            if (at->blocked_on == waiter.self) {
                return true;
            }
            const Waiter* following = head;
            while (following != nullptr && following->self != at->blocked_on) {
                following = following->next;
            }
            if (following == nullptr || ++steps > 1000) {
                return false;
            }
            at = following;
        }
        return false;
    }

    void remove(const Waiter& waiter) VMDEVICE_REQUIRES(mutex) {
        Waiter** link = &head;
        while (*link != &waiter) {
            link = &(*link)->next;
        }
        *link = waiter.next;
    }
};
[[gnu::visibility("default")]] inline constinit WaiterList waiters;

/// Waits until `place` of `visitor` no longer holds `identity`. False where that would be for ever, because
/// the other thread waits for this one.
inline bool wait_until_left(const Visitor& visitor, const Place& place, Identity identity) {
    Backoff backoff;
    const ThreadState& self = thread_state;
    if (!self.is_visiting()) {
        // Nobody waits for this thread.
        while (place.load(std::memory_order_acquire) == identity) {
            backoff.pause();
        }
        return true;
    }
    Waiter waiter{self.visitor, &visitor, &place, identity, nullptr};
    {
        const LockGuard guard(waiters.mutex);
        waiter.next = waiters.head;
        waiters.head = &waiter;
    }
    while (place.load(std::memory_order_acquire) == identity) {
        {
            const LockGuard guard(waiters.mutex);
            if (waiters.in_a_circle(waiter)) {
                waiters.remove(waiter);
                return false;
            }
        }
        backoff.pause();
    }
    const LockGuard guard(waiters.mutex);
    waiters.remove(waiter);
    return true;
}

/// Whether a thread other than this one has a record.
[[nodiscard]] inline bool others_may_visit() noexcept {
    for (const Visitor* visitor = visitors.head.load(std::memory_order_seq_cst); visitor != nullptr;
         visitor = visitor->next) {
        if (visitor != thread_state.visitor && visitor->claimed.load(std::memory_order_seq_cst)) {
            return true;
        }
    }
    return false;
}

/// R4, first half: returns when every lookup on `bus` that may have seen what was published before R2 has
/// ended. A lookup is a few instructions, so this is short.
inline void wait_for_lookups(Identity bus) {
    for (Visitor* visitor = visitors.head.load(std::memory_order_seq_cst); visitor != nullptr;
         visitor = visitor->next) {
        for (Place& place : visitor->places) {
            Identity seen = place.load(std::memory_order_seq_cst);
            if (seen == nowhere) {
                break;  // the places above are empty as well
            }
            if (seen == bus) {
                place.compare_exchange_strong(seen, bus | waiter_mark, std::memory_order_acq_rel,
                                              std::memory_order_acquire);
                seen = place.load(std::memory_order_acquire);
            }
            Backoff backoff;
            while (seen == (bus | waiter_mark)) {
                backoff.pause();
                seen = place.load(std::memory_order_acquire);
            }
        }
    }
}

/// Whether any thread, this one included, is inside `entry`.
[[nodiscard]] inline bool is_visited(Identity entry) noexcept {
    for (const Visitor* visitor = visitors.head.load(std::memory_order_acquire); visitor != nullptr;
         visitor = visitor->next) {
        for (const Place& place : visitor->places) {
            const Identity seen = place.load(std::memory_order_acquire);
            if (seen == entry) {
                return true;
            }
            if (seen == nowhere) {
                break;
            }
        }
    }
    return false;
}

/// R4, second half, after wait_for_lookups(): returns when no other thread is inside `entry`, or when waiting
/// on would be for ever. False where a thread, maybe this one, is still inside.
[[nodiscard]] inline bool wait_for_visits(Identity entry) {
    bool all_left = true;
    for (const Visitor* visitor = visitors.head.load(std::memory_order_acquire); visitor != nullptr;
         visitor = visitor->next) {
        for (const Place& place : visitor->places) {
            const Identity seen = place.load(std::memory_order_acquire);
            if (seen == nowhere) {
                break;
            }
            if (seen == entry &&
                (visitor == thread_state.visitor || !wait_until_left(*visitor, place, entry))) {
                all_left = false;
            }
        }
    }
    return all_left;
}

}  // namespace vmdevice::detail
