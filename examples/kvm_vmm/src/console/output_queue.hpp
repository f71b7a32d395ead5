// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvm_vmm {

/// Bytes that wait for a slow reader, the oldest first, at most 1 MiB.
///
/// A UART alone has room for 16 bytes, which is enough for a driver that waits for the transmitter's
/// interrupt. But Linux prints its own messages without interrupts and waits at most 10 ms for each byte: if
/// the reader paused, every message would be slow and most of it would be lost.
class OutputQueue {
public:
    static constexpr std::size_t capacity = std::size_t{1} << 20U;

    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size() - taken_; }
    [[nodiscard]] std::span<const std::uint8_t> bytes() const noexcept {
        return std::span(bytes_).subspan(taken_);
    }

    /// Appends as many bytes as there is room for, and returns their number.
    std::size_t push(std::span<const std::uint8_t> bytes) {
        const std::size_t count = std::min(bytes.size(), capacity - size());
        if (count != 0 && taken_ >= capacity) {
            // This is rare enough that it costs less than a copy of each byte.
            bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken_));
            taken_ = 0;
        }
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
        return count;
    }
    void drop_front(std::size_t count) noexcept {
        taken_ += std::min(count, size());
        if (empty()) {
            clear();
        }
    }
    void clear() noexcept {
        bytes_.clear();
        taken_ = 0;
    }

private:
    std::vector<std::uint8_t> bytes_;
    std::size_t taken_{0};
};

}  // namespace kvm_vmm
