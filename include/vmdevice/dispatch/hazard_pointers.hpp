// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Safe memory reclamation for lock-free dispatch, in the manner of hazard pointers (Michael, "Hazard
/// Pointers: Safe Memory Reclamation for Lock-Free Objects", 2004).
///
/// Each thread owns a *reader record* of *slots*, one for each nested dispatch. A slot holds 0 (empty), the
/// identity of a bus (the thread is searching that bus), or the identity of an entry (the thread is executing
/// in that entry's device). Only the owner writes its slots, except for the tag described below; it never
/// waits and never retries. Removal unpublishes the entry, waits for the *grace period* (the end of every
/// search that may have found the entry), and *retires* the entry until no slot protects it.
///
/// The order of events, and why it is sufficient:
///
///     dispatch                              removal
///     D1  slot = bus                        R1  unpublish the entry
///     D2  light fence                       R2  heavy fence
///     D3  look the entry up                 R3  read all slots
///     D4  slot = entry   (release)          R4  wait while a slot is the bus (set before R2) or the entry
///     D5  call the device                   R5  return, reuse or free (acquire, from R3 and R4)
///     D6  slot = 0       (release)
///
/// Either R3 sees D1, or D3 sees R1: by the fences of asymmetric_fence.hpp, or if those are not asymmetric,
/// because all four operations are sequentially consistent. (R2 is omitted if no other thread has a record. A
/// thread claims a record before D1 with a sequentially consistent exchange; R1 and the test for records are
/// sequentially consistent too. So if the test misses the thread, the thread's D3 sees R1.) In the second
/// case the dispatch does not find the entry. In the first case R4 waits until the search has ended and, if
/// the search found the entry, until D6. R4 reads what D4 or D6 released, so everything that the dispatch
/// read from the tables and did in the device happens before R5. No dispatch that starts later finds the
/// entry, so R4 terminates.
///
/// A slot that goes bus -> 0 -> bus between two polls of R4 is indistinguishable from one long search. The
/// waiter therefore sets the lowest bit of the slot, its tag; the search has ended once the tagged value is
/// gone.

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>
#if defined(__MINGW32__)
#include <cxxabi.h>
#endif

#include <vmdevice/detail/device_lock.hpp>
#include <vmdevice/detail/memory.hpp>
#include <vmdevice/detail/visibility.hpp>
#include <vmdevice/dispatch/asymmetric_fence.hpp>

namespace vmdevice::inline v0_2::detail {

/// The content of a slot; see above. An identity is the address of an object, whose lowest bit is 0.
using Identity = std::uintptr_t;
using ReaderSlot = std::atomic<Identity>;

inline constexpr Identity empty_slot = 0;
inline constexpr Identity waiter_tag = 1;

template <class T>
[[nodiscard]] Identity identity_of(const T* object) noexcept {
    static_assert(alignof(T) > 1);
    return reinterpret_cast<Identity>(object);
}

/// The depth to which dispatches may nest, as when a device accesses another one through the bus. If a guest
/// makes a device access itself, this limit is reached before the stack overflows.
inline constexpr std::size_t max_nesting = 64;

/// The slots of one thread. Records are reused and never freed, so that a waiter may read any record at any
/// time.
/// Aligned to two cache lines, which are fetched in pairs.
struct alignas(128) ReaderRecord {
    std::array<ReaderSlot, max_nesting> slots{};
    std::atomic<bool> claimed{false};
    ReaderRecord* next = nullptr;
};

/// All records: one list for the process, which a program and its shared libraries share (hence the
/// visibility). The list only grows, to the greatest number of threads that have dispatched at the same time.
/// Its first records are static, so that the first dispatch of a thread does not allocate.
struct ReaderRecordList {
    static constexpr std::size_t static_count = 64;

    std::array<ReaderRecord, static_count> first_ones{};
    std::atomic<std::size_t> static_used{0};
    std::atomic<ReaderRecord*> head{nullptr};
};
VMDEVICE_SHARED inline constinit ReaderRecordList reader_records;

/// The state of the calling thread. A trivial type, so that access needs no initialisation check.
struct ThreadState {
    /// The thread has a record, is in no dispatch, and needs no real fence as D2. One load tests for this
    /// common case. The flag is set and tested and never counted, so that a dispatch does not depend on a
    /// value that the dispatch before it stored.
    bool idle = false;
    /// Whether D2 needs a real fence.
    bool fenced = false;
    /// How many of the thread's exit handlers have run.
    unsigned exits = 0;
    /// The slot of a dispatch that begins when idle.
    ReaderSlot* first = nullptr;
    /// The slot of any other dispatch, and the end of the slots.
    ReaderSlot* top = nullptr;
    ReaderSlot* limit = nullptr;
    ReaderRecord* record = nullptr;

    /// Whether the thread is in a dispatch: the read-side critical section of RCU.
    [[nodiscard]] bool in_read_section() const noexcept {
        return record != nullptr && record->slots[0].load(std::memory_order_relaxed) != empty_slot;
    }
    /// Whether the thread is executing in the device of `entry`.
    [[nodiscard]] bool is_inside(Identity entry) const noexcept {
        for (std::size_t i = 0; record != nullptr && i < record->slots.size(); ++i) {
            const Identity seen = record->slots[i].load(std::memory_order_relaxed);
            if (seen == entry || seen == empty_slot) {
                return seen == entry;
            }
        }
        return false;
    }
};
VMDEVICE_SHARED inline constinit thread_local ThreadState thread_state;

/// Finds a free record, or allocates one if all static records are in use.
inline ReaderRecord* claim_record() {
    for (ReaderRecord* record = reader_records.head.load(std::memory_order_acquire); record != nullptr;
         record = record->next) {
        if (!record->claimed.load(std::memory_order_relaxed) &&
            !record->claimed.exchange(true, std::memory_order_seq_cst)) {
            return record;
        }
    }
    const std::size_t used = reader_records.static_used.load(std::memory_order_relaxed);
    ReaderRecord* fresh = nullptr;
    if (used < ReaderRecordList::static_count) {
        const std::size_t index = reader_records.static_used.fetch_add(1, std::memory_order_relaxed);
        if (index < ReaderRecordList::static_count) {
            fresh = &reader_records.first_ones[index];
        }
    }
    if (fresh == nullptr) {
        fresh = new (std::nothrow) ReaderRecord;
        if (fresh == nullptr) {
            out_of_memory();
        }
    }
    fresh->claimed.store(true, std::memory_order_relaxed);
    ReaderRecord* head = reader_records.head.load(std::memory_order_relaxed);
    do {
        fresh->next = head;
    } while (!reader_records.head.compare_exchange_weak(head, fresh, std::memory_order_seq_cst));
    return fresh;
}

#if defined(__MINGW32__)
// The address of this variable identifies the program or library that registers a destructor.
extern "C" char __dso_handle;  // NOLINT(bugprone-reserved-identifier)

#if defined(__i386__)
#define VMDEVICE_DESTRUCTOR __thiscall
#else
#define VMDEVICE_DESTRUCTOR
#endif
/// Makes the thread's record be released when the thread ends. MinGW-w64 frees a thread's variables before it
/// calls the destructors of some of them, so a destructor of ours would not find the record. This is how the compiler
/// registers a destructor (Itanium C++ ABI, 3.3.5.3), with the record as the object. It may be called again for a
/// record that the destructor of another variable has claimed.
inline void release_at_exit(ReaderRecord* record, unsigned /*exits*/) {
    struct Release {
        static void VMDEVICE_DESTRUCTOR run(void* object) noexcept {
            thread_state = ThreadState{};
            static_cast<ReaderRecord*>(object)->claimed.store(false, std::memory_order_release);
        }
    };
    // Without memory for it the thread keeps its record.
    (void)abi::__cxa_thread_atexit(&Release::run, record, &__dso_handle);
}
#undef VMDEVICE_DESTRUCTOR
#else
/// Releases the thread's record when the thread ends. The destructor of another thread-local object may
/// dispatch after that; the thread then claims a record again and arms the next one of these. A thread that
/// does so a fourth time keeps its record.
template <unsigned Nth>
struct ThreadExit {
    ThreadExit() = default;
    ThreadExit(const ThreadExit&) = delete;
    ThreadExit& operator=(const ThreadExit&) = delete;
    ~ThreadExit() {
        ThreadState& state = thread_state;
        ReaderRecord* const record = state.record;
        state = ThreadState{};
        state.exits = Nth + 1;
        // Null if the platform emulates thread-local variables and has freed them; the thread keeps its record.
        if (record != nullptr) {
            record->claimed.store(false, std::memory_order_release);
        }
    }
    /// Makes the destructor run at the end of the calling thread.
    static void arm() {
        static thread_local const ThreadExit at_exit;
        static_cast<void>(&at_exit);
    }
};
/// Makes the thread's record be released when the thread ends.
inline void release_at_exit(ReaderRecord* /*record*/, unsigned exits) {
    switch (exits) {
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
}
#endif

/// Claims a record for the calling thread. Returns false if the thread has one and all of its slots are in
/// use.
inline bool register_reader() {
    ThreadState& state = thread_state;
    if (state.record != nullptr) {
        return state.top != state.limit;
    }
    ReaderRecord* const record = claim_record();
    ReaderSlot* const slots = record->slots.data();
    state.record = record;
    state.fenced = !asymmetric_fences();
    state.first = slots;
    state.idle = !state.fenced;
    state.top = state.fenced ? slots : slots + 1;
    state.limit = slots + record->slots.size();
    // Arm the exit handler only now, when there is a record for it to release.
    release_at_exit(record, state.exits);
    return true;
}

/// A dispatch that begins while the thread is in no other. begin() is D1 and D2, enter() is D4; end() is D6,
/// after the call of the device or instead of it.
struct OutermostSection {
    void begin(Identity bus) noexcept {
        thread_state.idle = false;
        thread_state.first->store(bus, std::memory_order_relaxed);
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    void enter(Identity entry) noexcept { thread_state.first->store(entry, std::memory_order_release); }
    void end() noexcept {
        thread_state.first->store(empty_slot, std::memory_order_release);
        thread_state.idle = true;
    }
};

/// Any other dispatch: a nested one, or one that needs a real fence.
struct NestedSection {
    void begin(Identity bus) noexcept {
        slot = thread_state.top++;
        if (thread_state.fenced) {
            slot->store(bus, std::memory_order_seq_cst);
        } else {
            slot->store(bus, std::memory_order_relaxed);
            std::atomic_signal_fence(std::memory_order_seq_cst);
        }
    }
    void enter(Identity entry) noexcept { slot->store(entry, std::memory_order_release); }
    void end() noexcept {
        slot->store(empty_slot, std::memory_order_release);
        --thread_state.top;
    }

    ReaderSlot* slot = nullptr;
};

/// Ends a section, also if the device throws.
template <class Section>
class SectionEnd {
public:
    explicit SectionEnd(Section& section) noexcept : section_(section) {}
    SectionEnd(const SectionEnd&) = delete;
    SectionEnd& operator=(const SectionEnd&) = delete;
    [[gnu::always_inline]] ~SectionEnd() { section_.end(); }

private:
    Section& section_;
};

/// Yields the processor for an increasing time.
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

/// Whether a thread other than the calling one has a record.
[[nodiscard]] inline bool other_readers_exist() noexcept {
    for (const ReaderRecord* record = reader_records.head.load(std::memory_order_seq_cst); record != nullptr;
         record = record->next) {
        if (record != thread_state.record && record->claimed.load(std::memory_order_seq_cst)) {
            return true;
        }
    }
    return false;
}

/// R4, first half: the grace period. Returns when every search of `bus` that may have seen what was published
/// before R2 has ended. A search takes a few instructions, so the wait is short.
inline void wait_for_lookups(Identity bus) noexcept {
    for (ReaderRecord* record = reader_records.head.load(std::memory_order_seq_cst); record != nullptr;
         record = record->next) {
        for (ReaderSlot& slot : record->slots) {
            Identity seen = slot.load(std::memory_order_seq_cst);
            if (seen == empty_slot) {
                break;  // the slots after it are empty as well
            }
            if (seen == bus) {
                slot.compare_exchange_strong(seen, bus | waiter_tag, std::memory_order_acq_rel,
                                             std::memory_order_acquire);
                seen = slot.load(std::memory_order_acquire);
            }
            Backoff backoff;
            while (seen == (bus | waiter_tag)) {
                backoff.pause();
                seen = slot.load(std::memory_order_acquire);
            }
        }
    }
}

/// R4, second half, after wait_for_lookups(): whether a slot of any thread, the calling one included,
/// protects `entry`.
[[nodiscard]] inline bool is_protected(Identity entry) noexcept {
    for (const ReaderRecord* record = reader_records.head.load(std::memory_order_acquire); record != nullptr;
         record = record->next) {
        for (const ReaderSlot& slot : record->slots) {
            const Identity seen = slot.load(std::memory_order_acquire);
            if (seen == entry) {
                return true;
            }
            if (seen == empty_slot) {
                break;
            }
        }
    }
    return false;
}

/// Whether the calling thread may wait until others have left a device. Inside a device, or with a device's
/// lock held, it may not: one of the others may be waiting for that lock, or may be removing the device that
/// this thread is in. (In the terms of RCU: no synchronize_rcu() inside a read-side critical section.)
[[nodiscard]] inline bool may_wait_for_readers() noexcept {
    return !thread_state.in_read_section() && held_device_locks == 0;
}

/// In a child of fork(): the threads of the parent do not exist in the child and protect nothing there.
inline void forget_other_threads() noexcept {
    for (ReaderRecord* record = reader_records.head.load(std::memory_order_relaxed); record != nullptr;
         record = record->next) {
        if (record != thread_state.record) {
            for (ReaderSlot& slot : record->slots) {
                slot.store(empty_slot, std::memory_order_relaxed);
            }
            record->claimed.store(false, std::memory_order_relaxed);
        }
    }
}

}  // namespace vmdevice::inline v0_2::detail
