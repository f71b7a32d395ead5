// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// What the tables take from the allocator, and what happens where it has nothing left.

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include <vmdevice/detail/config.hpp>

namespace vmdevice::detail {

/// Memory has run out: std::bad_alloc, or the end of the process in a program built without exceptions.
[[noreturn]] inline void out_of_memory() {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
}

struct FreeMemory {
    void operator()(void* memory) const noexcept { std::free(memory); }
};

/// Zeroed memory for objects that need no construction. A large block comes from the kernel page by page as
/// it is touched, so the parts of a table that nothing uses cost nothing.
template <class T>
using ZeroedArray = std::unique_ptr<T[], FreeMemory>;

template <class T>
[[nodiscard]] ZeroedArray<T> make_zeroed(std::size_t count) {
    void* const memory = std::calloc(count, sizeof(T));
    if (memory == nullptr) {
        out_of_memory();
    }
    return ZeroedArray<T>(static_cast<T*>(memory));
}

}  // namespace vmdevice::detail
