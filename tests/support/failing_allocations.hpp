// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Replaces the program's allocation functions with ones that count and that fail on demand. Include it in
/// only one source file of a program, and not in builds in which a sanitizer replaces these functions as
/// well.
///
/// The counters and the failure belong to the calling thread. glibc's calloc can fail as well, because zeroed
/// tables are allocated with it, but only if a test requests that: glibc ends the process if it finds no
/// memory for the destructor of a thread_local object.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "catch.hpp"

namespace test_support {

struct Allocations {
    /// Allocations that were requested.
    std::uint64_t made = 0;
    /// Allocations that succeeded, less those that were freed. The number is negative for a thread that frees
    /// the allocations of another one.
    std::int64_t outstanding = 0;
    /// Which of the following allocations fails, counted from 1; 0 for none.
    std::uint64_t failing = 0;
    /// Whether calls of calloc count and fail as well.
    bool calloc_fails = false;
};
inline constinit thread_local Allocations allocations;

/// Whether the requested allocation must fail.
inline bool allocation_fails() noexcept {
    ++allocations.made;
    return allocations.failing != 0 && --allocations.failing == 0;
}

inline void* allocate(std::size_t size, std::size_t alignment) noexcept {
    if (allocation_fails()) {
        return nullptr;
    }
    void* const memory = alignment <= alignof(std::max_align_t)
                             ? std::malloc(size == 0 ? 1 : size)
                             : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    allocations.outstanding += memory != nullptr ? 1 : 0;
    return memory;
}
inline void* allocate_or_throw(std::size_t size, std::size_t alignment) {
    void* const memory = allocate(size, alignment);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return memory;
}
inline void release(void* memory) noexcept {
    allocations.outstanding -= memory != nullptr ? 1 : 0;
    std::free(memory);
}

/// Runs `operation` with its first allocation failing, then with the second, until none fails. It returns
/// whether it succeeded, and fails by std::bad_alloc or by returning false. `unchanged()` is called after
/// each failure. Returns how many failures the operation met before it succeeded.
///
/// A failure may leave capacity in a container, so the caller must check for leaks: compare
/// allocations.outstanding before the object under test was created and after it was destroyed.
template <class Operation, class Unchanged>
std::uint64_t fail_each_allocation(Operation operation, Unchanged unchanged) {
    std::uint64_t failures = 0;
    for (std::uint64_t n = 1;; ++n) {
        bool succeeded = false;
        bool thrown = false;
        allocations.failing = n;
        try {
            succeeded = operation();
        } catch (const std::bad_alloc&) {
            thrown = true;
        }
        const bool reached = allocations.failing == 0;
        allocations.failing = 0;
        if (succeeded) {
            // Also if it succeeds without the allocation that failed.
            return failures;
        }
        // An operation that fails although no allocation did would fail every time.
        REQUIRE((thrown || reached));
        ++failures;
        unchanged();
    }
}

}  // namespace test_support

void* operator new(std::size_t size) { return test_support::allocate_or_throw(size, 0); }
void* operator new[](std::size_t size) { return test_support::allocate_or_throw(size, 0); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return test_support::allocate(size, 0);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return test_support::allocate(size, 0);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return test_support::allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return test_support::allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return test_support::allocate(size, static_cast<std::size_t>(alignment));
}
// NOLINTBEGIN(clang-analyzer-cplusplus.NewDelete): these are the ones that free.
void operator delete(void* memory) noexcept { test_support::release(memory); }
void operator delete[](void* memory) noexcept { test_support::release(memory); }
void operator delete(void* memory, std::size_t) noexcept { test_support::release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { test_support::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { test_support::release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { test_support::release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { test_support::release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
    test_support::release(memory);
}
// NOLINTEND(clang-analyzer-cplusplus.NewDelete)

#if defined(__GLIBC__)
extern "C" void* __libc_calloc(std::size_t count, std::size_t size);
extern "C" void* calloc(std::size_t count, std::size_t size) {
    return test_support::allocations.calloc_fails && test_support::allocation_fails()
               ? nullptr
               : __libc_calloc(count, size);
}
#endif
