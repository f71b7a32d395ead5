// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <linux/ioctl.h>
#include <span>
#include <vector>

namespace kvm_vmm {

/// The argument of ioctls that take a count and that many entries: kvm_cpuid2 and kvm_msrs.
///
/// Their C structures end in a flexible array, whose declaration in the kernel's headers (6.1 among them)
/// adds bytes to it in C++. So neither the structures nor the ioctl numbers made from their size are used.
template <class Entry>
class CountedList {
public:
    explicit CountedList(std::size_t count) : bytes_(header_size + (count * sizeof(Entry))) {
        set_count(count);
    }
    explicit CountedList(std::span<const Entry> entries) : CountedList(entries.size()) {
        std::memcpy(bytes_.data() + header_size, entries.data(), entries.size_bytes());
    }

    [[nodiscard]] void* data() noexcept { return bytes_.data(); }

    /// The entries that the kernel wrote.
    [[nodiscard]] std::vector<Entry> entries() const {
        std::uint32_t count = 0;
        std::memcpy(&count, bytes_.data(), sizeof(count));
        std::vector<Entry> entries(count);
        std::memcpy(entries.data(), bytes_.data() + header_size, count * sizeof(Entry));
        return entries;
    }

    /// `request` with the size of the structure in C.
    [[nodiscard]] static constexpr unsigned long ioctl_number(unsigned long request) noexcept {
        return (request & ~(static_cast<unsigned long>(_IOC_SIZEMASK) << _IOC_SIZESHIFT)) |
               (header_size << _IOC_SIZESHIFT);
    }

private:
    static constexpr std::size_t header_size = 8;  // count and padding

    void set_count(std::size_t count) noexcept {
        const auto number = static_cast<std::uint32_t>(count);
        std::memcpy(bytes_.data(), &number, sizeof(number));
    }

    std::vector<unsigned char> bytes_;
};

}  // namespace kvm_vmm
