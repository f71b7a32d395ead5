// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>

namespace kvm_vmm {

/// One item of the input of a serial line: a byte, or a BREAK.
struct InputItem {
    std::uint8_t byte{0};  ///< 0 for a BREAK
    bool is_break{false};

    friend constexpr bool operator==(const InputItem&, const InputItem&) = default;
};

/// Input of the host that waits for the guest, the oldest first, with each BREAK at its position among the
/// bytes. Linux treats the byte after a BREAK as a command, so their order matters.
class InputQueue {
public:
    static constexpr std::size_t capacity = std::size_t{1} << 20U;

    [[nodiscard]] bool empty() const noexcept { return items_.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return items_.size(); }
    [[nodiscard]] std::size_t room() const noexcept { return capacity - items_.size(); }

    /// Returns false if there is no room.
    [[nodiscard]] bool push(InputItem item) {
        if (room() == 0) {
            return false;
        }
        items_.push_back(item);
        return true;
    }
    /// Puts items that had been taken from the queue back to its front, whether or not there is room.
    void put_back(std::span<const InputItem> items) {
        items_.insert(items_.begin(), items.begin(), items.end());
    }
    /// The oldest item. There must be one.
    [[nodiscard]] InputItem front() const { return items_.front(); }
    void pop() { items_.pop_front(); }

private:
    std::deque<InputItem> items_;
};

}  // namespace kvm_vmm
