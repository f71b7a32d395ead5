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
#include <new>
#include <thread>

#include <vmdevice/detail/device_lock.hpp>
#include <vmdevice/detail/memory.hpp>
#include <vmdevice/detail/visibility.hpp>
#include <vmdevice/dispatch/asymmetric_fence.hpp>

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
VMDEVICE_SHARED inline constinit VisitorList visitors;

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
    /// Whether it is inside that entry's device.
    [[nodiscard]] bool is_inside(Identity entry) const noexcept {
        for (std::size_t i = 0; visitor != nullptr && i < visitor->places.size(); ++i) {
            const Identity seen = visitor->places[i].load(std::memory_order_relaxed);
            if (seen == entry || seen == nowhere) {
                return seen == entry;
            }
        }
        return false;
    }
};
VMDEVICE_SHARED inline constinit thread_local ThreadState thread_state;

/// Finds a free record or makes one, which needs memory where all static ones are taken.
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
        fresh = new (std::nothrow) Visitor;
        if (fresh == nullptr) {
            out_of_memory();
        }
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
    Visitor* const visitor = claim_visitor();
    Place* const places = visitor->places.data();
    state.visitor = visitor;
    state.fenced = !asymmetric_fences();
    state.first = places;
    state.idle = !state.fenced;
    state.top = state.fenced ? places : places + 1;
    state.limit = places + visitor->places.size();
    // Not before there is a record that the end of the thread can give back.
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
inline void wait_for_lookups(Identity bus) noexcept {
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

/// R4, second half, after wait_for_lookups(): whether any thread, this one included, is inside `entry`.
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

/// Whether the calling thread may wait until others have left a device. Inside a device, or with a device's
/// lock held, it may not: one of the others may be waiting for that lock, or may be taking out the device
/// that this thread is in. (In the terms of RCU: no synchronize_rcu() inside a read-side critical section.)
[[nodiscard]] inline bool may_wait_for_readers() noexcept {
    return !thread_state.is_visiting() && held_device_locks == 0;
}

/// In a child of fork(): the threads that it does not have are inside no device.
inline void forget_other_threads() noexcept {
    for (Visitor* visitor = visitors.head.load(std::memory_order_relaxed); visitor != nullptr;
         visitor = visitor->next) {
        if (visitor != thread_state.visitor) {
            for (Place& place : visitor->places) {
                place.store(nowhere, std::memory_order_relaxed);
            }
            visitor->claimed.store(false, std::memory_order_relaxed);
        }
    }
}

}  // namespace vmdevice::detail
