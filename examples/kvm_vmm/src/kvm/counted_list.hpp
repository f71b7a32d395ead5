// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "util/list_request.hpp"

namespace kvm_vmm {

/// The argument of ioctls that take a count and that many entries: kvm_cpuid2 and kvm_msrs.
///
/// The kernel's declarations of their C structures have another size in C++, so they are not used; the number of the
/// ioctl is that of list_request().
template <class Entry>
class CountedList {
public:
    explicit CountedList(std::size_t count) : bytes_(list_header_size + (count * sizeof(Entry))) {
        set_count(count);
    }
    explicit CountedList(std::span<const Entry> entries) : CountedList(entries.size()) {
        std::memcpy(bytes_.data() + list_header_size, entries.data(), entries.size_bytes());
    }

    [[nodiscard]] void* data() noexcept { return bytes_.data(); }

    /// The entries that the kernel wrote.
    [[nodiscard]] std::vector<Entry> entries() const {
        std::uint32_t count = 0;
        std::memcpy(&count, bytes_.data(), sizeof(count));
        std::vector<Entry> entries(count);
        std::memcpy(entries.data(), bytes_.data() + list_header_size, count * sizeof(Entry));
        return entries;
    }

private:
    void set_count(std::size_t count) noexcept {
        const auto number = static_cast<std::uint32_t>(count);
        std::memcpy(bytes_.data(), &number, sizeof(number));
    }

    std::vector<unsigned char> bytes_;
};

}  // namespace kvm_vmm
