// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "memory/guest_memory.hpp"
#include "virtio/buffers.hpp"

namespace kvm_vmm::virtio {

/// Where a driver has put a split virtqueue (VIRTIO 1.2, 2.7): guest physical addresses, and how many
/// descriptors it has.
struct QueueLayout {
    std::uint64_t descriptors;
    std::uint64_t available;
    std::uint64_t used;
    std::uint16_t size;
};

/// The features of the device that concern its queues, as the driver has accepted them.
struct QueueFeatures {
    bool indirect_descriptors{false};  ///< VIRTIO_F_INDIRECT_DESC
    bool event_index{false};           ///< VIRTIO_F_EVENT_IDX
};

/// What is remembered of a queue between two calls, for a saved device. All counts are modulo 2^16.
struct QueueState {
    std::uint16_t next_available{0};  ///< entries that were taken from the available ring
    std::uint16_t next_used{0};       ///< entries that were put into the used ring
    /// `next_used` when the driver was last asked about an interrupt; nothing before the first time.
    std::optional<std::uint16_t> signalled;

    friend bool operator==(const QueueState&, const QueueState&) = default;
};

/// What a driver did wrong.
///
/// If it is not known which chains there are, or which descriptors a chain has, the queue is broken and the device has to
/// ask for a reset (DEVICE_NEEDS_RESET, 2.1.2): pop() returns the error. If a buffer cannot be used, only that request
/// fails: Chain::defect.
enum class QueueError : std::uint8_t {
    bad_size,             ///< 0, above 32768, or not a power of two
    misaligned_ring,      ///< an address that is not a multiple of 16, 2 or 4
    ring_outside_memory,  ///< a part of a ring is not RAM
    overlapping_rings,
    too_many_available,  ///< more entries are available than the queue has
    bad_head,            ///< a head that the queue does not have
    head_in_use,         ///< a head whose chain has not been returned yet
    bad_next,            ///< a next descriptor that the table does not have
    chain_too_long,      ///< a loop, or more descriptors than the queue has
    indirect_not_negotiated,
    nested_indirect,
    indirect_with_next,  ///< both flags in one descriptor
    bad_indirect_size,   ///< of a table: 0, or not a multiple of 16
    indirect_outside_memory,
    // Defects of a chain:
    buffer_outside_memory,  ///< a part of a buffer is not RAM
    too_many_bytes,         ///< a chain of more than 2^32 - 1 bytes in all
    readable_after_writable,
};
[[nodiscard]] std::string_view to_string(QueueError error) noexcept;

/// A request of the driver: the buffers of one descriptor chain.
struct Chain {
    std::uint16_t head;
    Buffers readable;  ///< what the driver sends
    Buffers writable;  ///< what the device may fill
    // NOLINTBEGIN(readability-redundant-member-init): GCC warns of initializers that leave a member without one out
    /// What is wrong with the first buffer that cannot be used. `readable` and `writable` end before the first such buffer
    /// of their direction, and the device can only return the chain.
    std::optional<QueueError> defect{};
    /// Of a chain with a defect: the buffer of its last descriptor, if the device may write it.
    Buffers::Piece last{};
    // NOLINTEND(readability-redundant-member-init)
};

/// The device's side of a split virtqueue. It knows neither KVM nor a transport.
///
/// The driver is not trusted: each field that it writes is read once, everything is checked before it is
/// used, and the work for one chain is bounded by the queue's size. After an error the queue is broken for
/// good: pop() returns the same error again.
///
/// Thread safety: one thread at a time, while the driver's CPUs run.
class SplitQueue {
public:
    static constexpr std::uint16_t max_size = 32768;

    /// `memory` must outlive the queue and keep its regions.
    [[nodiscard]] static std::expected<SplitQueue, QueueError> create(const GuestMemory& memory,
                                                                      const QueueLayout& layout,
                                                                      QueueFeatures features,
                                                                      const QueueState& state = {});

    /// The next chain that the driver has made available, with a defect or without; nothing if there is none.
    [[nodiscard]] std::expected<std::optional<Chain>, QueueError> pop();
    /// Gives back the chain taken last, as if pop() had not been called; no other one may have been taken
    /// since. For a device that cannot serve it now.
    void undo_pop(const Chain& chain) noexcept;

    /// Returns a chain that pop() gave to the driver, once. `written` is how many bytes of its writable
    /// buffers the device has filled, from their beginning on. The driver sees it after publish().
    void push(const Chain& chain, std::uint32_t written) noexcept;
    /// Lets the driver see all chains that were pushed. Returns whether it wants an interrupt for them.
    [[nodiscard]] bool publish() noexcept;

    /// Asks the driver to notify the device of the next chain. Returns whether there is one already, for
    /// which no notification may come: then pop() again.
    [[nodiscard]] bool enable_notifications() noexcept;
    /// Tells the driver that it need not notify the device, which calls pop() anyway.
    void disable_notifications() noexcept;

    /// The number of its descriptors.
    [[nodiscard]] std::uint16_t size() const noexcept { return size_; }
    /// How many chains were popped and not pushed yet.
    [[nodiscard]] std::size_t in_flight() const noexcept { return in_flight_count_; }
    /// To be saved when nothing is in flight and all is published.
    [[nodiscard]] const QueueState& state() const noexcept { return state_; }

private:
    struct Descriptor {
        std::uint64_t address;
        std::uint32_t length;
        std::uint16_t flags;
        std::uint16_t next;
    };
    static_assert(sizeof(Descriptor) == 16);
    using Ring = std::span<std::uint8_t>;

    SplitQueue(const GuestMemory& memory, Ring descriptors, Ring available, Ring used, std::uint16_t size,
               QueueFeatures features, const QueueState& state);

    [[nodiscard]] std::expected<Chain, QueueError> walk(std::uint16_t head) const;
    [[nodiscard]] std::uint16_t slot(std::uint16_t index) const noexcept {
        return static_cast<std::uint16_t>(index & (size_ - 1U));
    }
    [[nodiscard]] std::unexpected<QueueError> broken(QueueError error) noexcept;

    const GuestMemory* memory_;
    Ring descriptors_;
    Ring available_;
    Ring used_;
    std::uint16_t size_;
    QueueFeatures features_;
    QueueState state_;
    std::uint16_t published_;      // the index that the driver sees in the used ring
    std::vector<bool> in_flight_;  // of each head
    std::size_t in_flight_count_{0};
    std::optional<QueueError> error_;
};

}  // namespace kvm_vmm::virtio
