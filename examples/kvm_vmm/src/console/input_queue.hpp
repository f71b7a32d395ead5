// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>

namespace kvm_vmm {

/// One thing that comes in on a serial line: a byte, or a BREAK.
struct InputItem {
    std::uint8_t byte{0};  ///< 0 for a BREAK
    bool is_break{false};

    friend constexpr bool operator==(const InputItem&, const InputItem&) = default;
};

/// What came from the host and waits for the guest: oldest first, a BREAK in its place among the bytes.
/// Linux takes the byte after a BREAK for a command, so their order counts.
class InputQueue {
public:
    static constexpr std::size_t capacity = std::size_t{1} << 20U;

    [[nodiscard]] bool empty() const noexcept { return items_.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return items_.size(); }
    [[nodiscard]] std::size_t room() const noexcept { return capacity - items_.size(); }

    /// False where there is no room.
    [[nodiscard]] bool push(InputItem item) {
        if (room() == 0) {
            return false;
        }
        items_.push_back(item);
        return true;
    }
    /// Puts items in front of all others that had been taken from here before. Their room is not asked for.
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
