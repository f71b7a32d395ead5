// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Memory for the tables, and the handling of its exhaustion.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace vmdevice::inline v0_2::detail {

/// Throws std::bad_alloc, or ends the process in a program that is built without exceptions.
[[noreturn]] inline void out_of_memory() {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
}

/// Owns one object, with the members of std::unique_ptr that the tables need. A program that includes them
/// instantiates dozens of these, and std::unique_ptr costs ten times as much to instantiate.
template <class T>
class Owned {
public:
    Owned() = default;
    explicit Owned(T* object) noexcept : object_(object) {}
    Owned(Owned&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
    Owned& operator=(Owned&& other) noexcept {
        if (this != &other) {
            delete std::exchange(object_, std::exchange(other.object_, nullptr));
        }
        return *this;
    }
    ~Owned() { delete object_; }

    [[nodiscard]] T* get() const noexcept { return object_; }
    [[nodiscard]] T& operator*() const noexcept { return *object_; }
    [[nodiscard]] T* operator->() const noexcept { return object_; }
    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

private:
    T* object_ = nullptr;
};

/// Zeroed memory for objects that need no construction. The kernel provides a large block page by page as it
/// is touched, so unused parts of a table need no memory.
template <class T>
class ZeroedArray {
public:
    ZeroedArray() = default;
    explicit ZeroedArray(T* first) noexcept : first_(first) {}
    ZeroedArray(ZeroedArray&& other) noexcept : first_(std::exchange(other.first_, nullptr)) {}
    ZeroedArray& operator=(ZeroedArray&& other) noexcept {
        std::swap(first_, other.first_);
        return *this;
    }
    ~ZeroedArray() { std::free(first_); }

    [[nodiscard]] T* get() const noexcept { return first_; }
    [[nodiscard]] T& operator[](std::size_t index) const noexcept { return first_[index]; }

private:
    T* first_ = nullptr;
};

template <class T>
[[nodiscard]] ZeroedArray<T> make_zeroed(std::size_t count) {
    void* const memory = std::calloc(count, sizeof(T));
    if (memory == nullptr) {
        out_of_memory();
    }
    return ZeroedArray<T>(static_cast<T*>(memory));
}

}  // namespace vmdevice::inline v0_2::detail
