// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Replaces the program's allocation functions with ones that count and that fail on demand. Include it in
/// one source of a program only, and not where a sanitizer replaces these functions as well.
///
/// What is counted and what fails belongs to the calling thread. glibc's calloc can fail as well, since
/// tables that start zeroed come from there, but only where a test asks for it: glibc ends the process where
/// it finds no memory for the destructor of a thread_local object.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "catch.hpp"

namespace test_support {

struct Allocations {
    /// Allocations that were asked for.
    std::uint64_t made = 0;
    /// Allocations that succeeded, less those given back. A thread that frees what another one allocated
    /// counts below zero.
    std::int64_t outstanding = 0;
    /// Of the allocations to come, the one that fails; 0 for none.
    std::uint64_t failing = 0;
    /// Whether calloc is one of them.
    bool calloc_fails = false;
};
inline constinit thread_local Allocations allocations;

/// Whether the allocation that is being asked for is to fail.
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

/// Does `operation` with its first allocation failing, then the second, until none fails. It returns whether
/// it succeeded, and fails by std::bad_alloc or by returning false. `unchanged()` is called after each
/// failure. Returns how many failures the operation met before it succeeded.
///
/// Room that a container has gained may stay behind a failure, so leaks are for the caller to find: compare
/// allocations.outstanding from before the object under test was made and after it was destroyed.
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
            // Also where it does without the allocation that failed.
            return failures;
        }
        // An operation that fails though no allocation did would fail for ever.
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
