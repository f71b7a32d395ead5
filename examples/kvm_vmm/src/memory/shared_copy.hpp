// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

// ThreadSanitizer reports the races of a test whose drivers are threads of the same program.
#if defined(__SANITIZE_THREAD__)
#define KVM_VMM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KVM_VMM_TSAN 1
#endif
#endif

namespace kvm_vmm {

/// Copies bytes between memory of this program and guest RAM, which CPUs of the guest may access at the same time. What
/// they write meanwhile is copied in part, but a copy in this program does not change any more: the compiler does not read
/// guest memory a second time, so a value can be checked and then used.
///
/// The guest is not a thread of C++, for which these accesses would be data races. Where drivers are threads (tests under
/// ThreadSanitizer), each byte is copied as a relaxed atomic object, at a cost that nothing else should pay.
inline void copy_from_guest(std::span<std::uint8_t> to, const std::uint8_t* from) noexcept {
#ifdef KVM_VMM_TSAN
    for (std::size_t i = 0; i < to.size(); ++i) {
        // atomic_ref<const T> is of C++26
        to[i] =
            std::atomic_ref<std::uint8_t>(const_cast<std::uint8_t&>(from[i])).load(std::memory_order_relaxed);
    }
#else
    if (!to.empty()) {
        std::memcpy(to.data(), from, to.size());
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

/// See copy_from_guest().
inline void copy_to_guest(std::uint8_t* to, std::span<const std::uint8_t> from) noexcept {
#ifdef KVM_VMM_TSAN
    for (std::size_t i = 0; i < from.size(); ++i) {
        std::atomic_ref<std::uint8_t>(to[i]).store(from[i], std::memory_order_relaxed);
    }
#else
    if (!from.empty()) {
        std::memcpy(to, from.data(), from.size());
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

/// Writes zeros; see copy_from_guest().
inline void zero_guest(std::span<std::uint8_t> bytes) noexcept {
#ifdef KVM_VMM_TSAN
    for (std::uint8_t& byte : bytes) {
        std::atomic_ref<std::uint8_t>(byte).store(0, std::memory_order_relaxed);
    }
#else
    std::ranges::fill(bytes, std::uint8_t{0});
#endif
}

/// Appends `size` bytes of guest RAM to `to`, a container of bytes.
template <class Container>
void append_from_guest(Container& to, const std::uint8_t* from, std::size_t size) {
    const std::size_t before = to.size();
    to.resize(before + size);
    copy_from_guest(std::span<std::uint8_t>(to).subspan(before), from);
}

}  // namespace kvm_vmm
