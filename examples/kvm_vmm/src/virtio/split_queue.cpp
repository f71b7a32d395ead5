// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/split_queue.hpp"

#include <atomic>
#include <bit>
#include <limits>
#include <utility>

#include "memory/shared_copy.hpp"

namespace kvm_vmm::virtio {
namespace {

static_assert(std::endian::native == std::endian::little, "rings are little-endian");

// Flags of a descriptor (2.7.5).
constexpr unsigned has_next = 1;
constexpr unsigned device_writes = 2;
constexpr unsigned indirect = 4;

// Flags of the rings (2.7.6, 2.7.8).
constexpr std::uint16_t no_interrupt = 1;
constexpr std::uint16_t no_notify = 1;

// Offsets in the rings. The event index follows the entries.
constexpr std::size_t flags_offset = 0;
constexpr std::size_t index_offset = 2;
constexpr std::size_t entries_offset = 4;
constexpr std::size_t descriptor_size = 16;
constexpr std::size_t available_entry_size = 2;
constexpr std::size_t used_entry_size = 8;
constexpr std::size_t event_size = 2;

// A field that the driver's CPUs access at the same time, and that is never seen in halves.
template <class T>
std::atomic_ref<T> field(std::span<std::uint8_t> ring, std::size_t offset) {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(ring.subspan(offset, sizeof(T)).data()));
}

// Whether the event index `event` was passed when an index moved from `before` to `now` (2.7.7.1).
constexpr bool passed(std::uint16_t event, std::uint16_t before, std::uint16_t now) noexcept {
    return static_cast<std::uint16_t>(now - event - 1U) < static_cast<std::uint16_t>(now - before);
}

// Of ranges in RAM, so that no sum overflows.
constexpr bool overlap(const GuestRange& one, const GuestRange& other) noexcept {
    return one.address < other.address + other.size && other.address < one.address + one.size;
}

// Collects the buffers of a chain in the order of its descriptors.
class Collector {
public:
    Collector(const GuestMemory& memory, std::uint16_t head)
        : memory_(memory), chain_{.head = head, .readable = {}, .writable = {}} {}

    void add(std::uint64_t address, std::uint32_t length, bool writable) {
        const auto buffer = length == 0 ? std::optional(Buffers::Piece()) : memory_.slice(address, length);
        last_ = {};
        bool& ended = writable ? writable_ended_ : readable_ended_;
        if (const auto defect = defect_of(buffer, writable)) {
            chain_.defect = chain_.defect ? chain_.defect : defect;
            ended = true;
        } else {
            if (!ended) {
                (writable ? chain_.writable : chain_.readable).add(*buffer);
            }
            total_ += length;
            last_ = writable ? *buffer : Buffers::Piece();
        }
        writes_ = writes_ || (writable && length != 0);
    }
    Chain take() {
        if (chain_.defect) {
            chain_.last = last_;
        }
        return std::move(chain_);
    }

private:
    [[nodiscard]] std::optional<QueueError> defect_of(const std::optional<Buffers::Piece>& buffer,
                                                      bool writable) const noexcept {
        if (!buffer) {
            return QueueError::buffer_outside_memory;
        }
        if (total_ + buffer->size() > std::numeric_limits<std::uint32_t>::max()) {
            return QueueError::too_many_bytes;
        }
        return !writable && writes_ ? std::optional(QueueError::readable_after_writable) : std::nullopt;
    }

    const GuestMemory& memory_;
    Chain chain_;
    Buffers::Piece last_;
    std::uint64_t total_{0};  // bytes of the buffers that can be used
    bool writes_{false};      // a writable buffer was seen
    bool readable_ended_{false};
    bool writable_ended_{false};
};

}  // namespace

std::string_view to_string(QueueError error) noexcept {
    switch (error) {
        case QueueError::bad_size:
            return "the queue's size is not a power of two up to 32768";
        case QueueError::misaligned_ring:
            return "a ring is not aligned";
        case QueueError::ring_outside_memory:
            return "a ring is not in RAM";
        case QueueError::overlapping_rings:
            return "the rings overlap";
        case QueueError::too_many_available:
            return "more chains are available than the queue has descriptors";
        case QueueError::bad_head:
            return "a chain begins with a descriptor that the queue does not have";
        case QueueError::head_in_use:
            return "a chain is made available again before it was returned";
        case QueueError::bad_next:
            return "a chain continues with a descriptor that its table does not have";
        case QueueError::chain_too_long:
            return "a chain has more descriptors than the queue";
        case QueueError::buffer_outside_memory:
            return "a buffer is not in RAM";
        case QueueError::too_many_bytes:
            return "a chain has more than 4 GiB";
        case QueueError::readable_after_writable:
            return "a readable buffer follows a writable one";
        case QueueError::indirect_not_negotiated:
            return "a descriptor is indirect, which was not negotiated";
        case QueueError::nested_indirect:
            return "an indirect descriptor is in an indirect table";
        case QueueError::indirect_with_next:
            return "an indirect descriptor has a next one";
        case QueueError::bad_indirect_size:
            return "an indirect table is not a number of descriptors";
        case QueueError::indirect_outside_memory:
            return "an indirect table is not in RAM";
    }
    return "unknown queue error";
}

std::expected<SplitQueue, QueueError> SplitQueue::create(const GuestMemory& memory, const QueueLayout& layout,
                                                         QueueFeatures features, const QueueState& state) {
    if (layout.size > max_size || !std::has_single_bit(layout.size)) {
        return std::unexpected(QueueError::bad_size);
    }
    // 2.7, table of alignments.
    if (layout.descriptors % 16 != 0 || layout.available % 2 != 0 || layout.used % 4 != 0) {
        return std::unexpected(QueueError::misaligned_ring);
    }
    const std::size_t size = layout.size;
    const auto descriptors = memory.slice(layout.descriptors, size * descriptor_size);
    const auto available =
        memory.slice(layout.available, entries_offset + size * available_entry_size + event_size);
    const auto used = memory.slice(layout.used, entries_offset + size * used_entry_size + event_size);
    if (!descriptors || !available || !used) {
        return std::unexpected(QueueError::ring_outside_memory);
    }
    // Also what a driver gets that sets a size and no addresses. An event index that is not used may be anywhere.
    const std::size_t unused = features.event_index ? 0 : event_size;
    const GuestRange descriptor_range{layout.descriptors, descriptors->size()};
    const GuestRange available_range{layout.available, available->size() - unused};
    const GuestRange used_range{layout.used, used->size() - unused};
    if (overlap(descriptor_range, available_range) || overlap(descriptor_range, used_range) ||
        overlap(available_range, used_range)) {
        return std::unexpected(QueueError::overlapping_rings);
    }
    return SplitQueue(memory, *descriptors, *available, *used, layout.size, features, state);
}

SplitQueue::SplitQueue(const GuestMemory& memory, Ring descriptors, Ring available, Ring used,
                       std::uint16_t size, QueueFeatures features, const QueueState& state)
    : memory_(&memory),
      descriptors_(descriptors),
      available_(available),
      used_(used),
      size_(size),
      features_(features),
      state_(state),
      published_(state.next_used),
      in_flight_(size) {}

std::unexpected<QueueError> SplitQueue::broken(QueueError error) noexcept {
    error_ = error;
    return std::unexpected(error);
}

std::expected<std::optional<Chain>, QueueError> SplitQueue::pop() {
    if (error_) {
        return std::unexpected(*error_);
    }
    // Acquire: the entry and the descriptors were written before the index (2.7.13.2).
    const auto index = field<std::uint16_t>(available_, index_offset).load(std::memory_order_acquire);
    const auto waiting = static_cast<std::uint16_t>(index - state_.next_available);
    if (waiting == 0) {
        return std::nullopt;
    }
    if (waiting > size_) {
        return broken(QueueError::too_many_available);
    }
    const std::size_t entry = entries_offset + slot(state_.next_available) * available_entry_size;
    const auto head = field<std::uint16_t>(available_, entry).load(std::memory_order_relaxed);
    if (head >= size_) {
        return broken(QueueError::bad_head);
    }
    if (in_flight_[head]) {
        return broken(QueueError::head_in_use);
    }
    auto chain = walk(head);
    if (!chain) {
        return broken(chain.error());
    }
    ++state_.next_available;
    in_flight_[head] = true;
    ++in_flight_count_;
    return std::optional(std::move(*chain));
}

std::expected<Chain, QueueError> SplitQueue::walk(std::uint16_t head) const {
    Collector buffers(*memory_, head);
    Ring table = descriptors_;
    bool in_indirect_table = false;
    std::size_t index = head;
    // A chain has at most as many buffers as the queue has descriptors, wherever they are (2.7.5.3.1); the
    // descriptor of an indirect table is none.
    for (std::size_t count = 0; count < size_;) {
        Descriptor descriptor{};
        copy_from_guest({reinterpret_cast<std::uint8_t*>(&descriptor), sizeof(descriptor)},
                        table.data() + index * descriptor_size);
        if ((descriptor.flags & indirect) != 0) {
            if (!features_.indirect_descriptors) {
                return std::unexpected(QueueError::indirect_not_negotiated);
            }
            if (in_indirect_table) {
                return std::unexpected(QueueError::nested_indirect);
            }
            if ((descriptor.flags & has_next) != 0) {
                return std::unexpected(QueueError::indirect_with_next);
            }
            if (descriptor.length == 0 || descriptor.length % descriptor_size != 0) {
                return std::unexpected(QueueError::bad_indirect_size);
            }
            const auto indirect_table = memory_->slice(descriptor.address, descriptor.length);
            if (!indirect_table) {
                return std::unexpected(QueueError::indirect_outside_memory);
            }
            table = *indirect_table;
            in_indirect_table = true;
            index = 0;
            continue;
        }
        buffers.add(descriptor.address, descriptor.length, (descriptor.flags & device_writes) != 0);
        if ((descriptor.flags & has_next) == 0) {
            return buffers.take();
        }
        index = descriptor.next;
        if (index >= table.size() / descriptor_size) {
            return std::unexpected(QueueError::bad_next);
        }
        ++count;
    }
    return std::unexpected(QueueError::chain_too_long);
}

void SplitQueue::undo_pop(const Chain& chain) noexcept {
    --state_.next_available;
    in_flight_[chain.head] = false;
    --in_flight_count_;
}

void SplitQueue::push(const Chain& chain, std::uint32_t written) noexcept {
    const std::size_t entry = entries_offset + slot(state_.next_used) * used_entry_size;
    field<std::uint32_t>(used_, entry).store(chain.head, std::memory_order_relaxed);
    field<std::uint32_t>(used_, entry + 4).store(written, std::memory_order_relaxed);
    ++state_.next_used;
    in_flight_[chain.head] = false;
    --in_flight_count_;
}

bool SplitQueue::publish() noexcept {
    if (published_ == state_.next_used) {
        return false;
    }
    published_ = state_.next_used;
    // Release: the entries and the buffers are seen before the index.
    field<std::uint16_t>(used_, index_offset).store(published_, std::memory_order_release);
    const auto before = std::exchange(state_.signalled, published_);
    // The index is seen before the driver's wish is read; the driver orders the two the other way around.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!features_.event_index) {
        return (field<std::uint16_t>(available_, flags_offset).load(std::memory_order_relaxed) &
                no_interrupt) == 0;
    }
    const std::size_t event = entries_offset + size_ * available_entry_size;
    return !before || passed(field<std::uint16_t>(available_, event).load(std::memory_order_relaxed), *before,
                             state_.next_used);
}

bool SplitQueue::enable_notifications() noexcept {
    if (features_.event_index) {
        field<std::uint16_t>(used_, entries_offset + size_ * used_entry_size)
            .store(state_.next_available, std::memory_order_relaxed);
    } else {
        field<std::uint16_t>(used_, flags_offset).store(0, std::memory_order_relaxed);
    }
    // The wish is seen before the index is read again; the driver orders the two the other way around.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return field<std::uint16_t>(available_, index_offset).load(std::memory_order_relaxed) !=
           state_.next_available;
}

void SplitQueue::disable_notifications() noexcept {
    // With event indices the index asked for last stays behind, and asks for nothing until it is written
    // again.
    if (!features_.event_index) {
        field<std::uint16_t>(used_, flags_offset).store(no_notify, std::memory_order_relaxed);
    }
}

}  // namespace kvm_vmm::virtio
