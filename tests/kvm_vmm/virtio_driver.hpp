// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// The driver's side of a split virtqueue, for tests: it writes guest memory as a driver does, or as a hostile
// one does, byte by byte.
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "memory/guest_memory.hpp"
#include "virtio/split_queue.hpp"

namespace kvm_vmm::test {

class DriverQueue {
public:
    static constexpr std::uint16_t next = 1;
    static constexpr std::uint16_t device_writes = 2;
    static constexpr std::uint16_t indirect = 4;

    struct Descriptor {
        std::uint64_t address;
        std::uint32_t length;
        std::uint16_t flags{0};
        std::uint16_t next{0};
    };
    struct Used {
        std::uint32_t id;
        std::uint32_t written;
        friend bool operator==(const Used&, const Used&) = default;
    };

    DriverQueue(GuestMemory& memory, virtio::QueueLayout layout) : memory_(memory), layout_(layout) {}

    [[nodiscard]] const virtio::QueueLayout& layout() const noexcept { return layout_; }

    void set(std::uint16_t index, const Descriptor& descriptor) {
        set_in(layout_.descriptors, index, descriptor);
    }
    /// A descriptor of a table anywhere.
    void set_in(std::uint64_t table, std::uint64_t index, const Descriptor& descriptor) {
        const std::uint64_t at = table + index * 16;
        poke(at, descriptor.address);
        poke(at + 8, descriptor.length);
        poke(at + 12, descriptor.flags);
        poke(at + 14, descriptor.next);
    }
    /// Makes the chain that begins at `head` available.
    void offer(std::uint16_t head) {
        poke(layout_.available + 4 + std::uint64_t{2} * (available_ % layout_.size), head);
        set_available_index(static_cast<std::uint16_t>(available_ + 1));
    }
    void set_available_index(std::uint16_t index) {
        available_ = index;
        word(layout_.available + 2).store(index, std::memory_order_release);
    }
    void set_available_flags(std::uint16_t flags) { word(layout_.available).store(flags); }
    void set_used_event(std::uint16_t index) {
        word(layout_.available + 4 + std::uint64_t{2} * layout_.size).store(index);
    }
    [[nodiscard]] std::uint16_t used_index() {
        return word(layout_.used + 2).load(std::memory_order_acquire);
    }
    [[nodiscard]] std::uint16_t used_flags() { return word(layout_.used).load(); }
    [[nodiscard]] std::uint16_t available_event() {
        return word(layout_.used + 4 + std::uint64_t{8} * layout_.size).load();
    }
    /// The next entry of the used ring that the driver has not seen.
    std::optional<Used> take_used() {
        if (used_index() == seen_) {
            return std::nullopt;
        }
        const std::uint64_t at = layout_.used + 4 + std::uint64_t{8} * (seen_++ % layout_.size);
        return Used{.id = *memory_.read_object<std::uint32_t>(at),
                    .written = *memory_.read_object<std::uint32_t>(at + 4)};
    }

    template <class T>
    void poke(std::uint64_t address, T value) {
        REQUIRE(memory_.write_object(address, value));
    }

private:
    std::atomic_ref<std::uint16_t> word(std::uint64_t address) {
        // NOLINTNEXTLINE(bugprone-unchecked-optional-access): the tests' rings are in RAM
        return std::atomic_ref<std::uint16_t>(
            *reinterpret_cast<std::uint16_t*>(memory_.slice(address, 2)->data()));
    }

    GuestMemory& memory_;
    virtio::QueueLayout layout_;
    std::uint16_t available_{0};
    std::uint16_t seen_{0};
};

}  // namespace kvm_vmm::test
