// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace kvm_vmm {

/// Writes of the guest that KVM has kept in its ring: one, or several in succession of the same width to the same
/// port.
struct CoalescedRun {
    bool pio;               ///< to ports, not to memory
    std::uint64_t address;  ///< the port or the guest physical address
    std::size_t width;      ///< bytes of one write, 1 to 8
    std::span<const std::uint8_t> data;
};

/// The ring in which KVM keeps the guest's writes to coalesced zones, instead of returning from KVM_RUN for each of
/// them (KVM's API document, KVM_REGISTER_COALESCED_MMIO). There is one for each VM, in a page that is shared with the
/// kernel. While it is full, such writes return from KVM_RUN as all others.
///
/// The layout is declared here because some versions of linux/kvm.h declare the entries by a macro
/// (__DECLARE_FLEX_ARRAY) that in C++ adds 8 bytes before them.
///
/// The kernel adds entries at any time. empty() may be called from any thread; the caller of drain() must hold a
/// lock.
class CoalescedRing {
public:
    struct Entry {
        std::uint64_t address;
        std::uint32_t length;
        std::uint32_t pio;
        std::array<std::uint8_t, 8> data;
    };
    static constexpr std::size_t page_size = 4096;
    /// As many as fit into a page behind the two indices: KVM_COALESCED_MMIO_MAX. The kernel leaves one unused.
    static constexpr std::uint32_t entry_count = (page_size - 8) / sizeof(Entry);
    struct Page {
        std::uint32_t first;  ///< the oldest entry; the user of the ring advances it
        std::uint32_t last;   ///< behind the newest entry; the kernel advances it
        std::array<Entry, entry_count> entries;
    };
    static_assert(sizeof(Entry) == 24 && offsetof(Entry, length) == 8 && offsetof(Entry, pio) == 12 &&
                  offsetof(Entry, data) == 16);
    static_assert(offsetof(Page, last) == 4 && offsetof(Page, entries) == 8 && entry_count == 170 &&
                  sizeof(Page) <= page_size);

    /// `page` must outlive this object.
    explicit CoalescedRing(Page& page) noexcept : page_(&page) {}

    /// Whether every entry that KVM had added before the call has been delivered: what the deliveries did is visible to
    /// the caller then. May be false although that is so, if further entries are delivered meanwhile.
    [[nodiscard]] bool empty() const noexcept {
        // In this order: entries that are added after the first look do not matter.
        const std::uint32_t last = std::atomic_ref(page_->last).load(std::memory_order_acquire);
        return std::atomic_ref(page_->first).load(std::memory_order_acquire) == last;
    }

    /// Whether a write to a port is among the entries that have not been delivered. An entry that is added meanwhile may
    /// be overlooked.
    [[nodiscard]] bool holds_port_write() const noexcept;

    /// Calls deliver(const CoalescedRun&) for all entries that are in the ring now, in their order. Entries that are
    /// added meanwhile stay, so that a guest that writes all the time cannot keep the caller here; a write that
    /// came before the caller's exit is in the ring already.
    ///
    /// A run is removed from the ring after its delivery. In the other order another thread could find the ring empty
    /// before the bytes have reached the device, and its access would overtake them. `deliver` must not throw.
    ///
    /// Returns false, at the first error, if an index or an entry is not valid. The ring must not be used after that.
    template <class Deliver>
    [[nodiscard]] bool drain(Deliver&& deliver) {
        std::uint32_t first = std::atomic_ref(page_->first).load(std::memory_order_relaxed);
        const std::uint32_t last = std::atomic_ref(page_->last).load(std::memory_order_acquire);
        if (first >= entry_count || last >= entry_count) {
            return false;
        }
        RunData data{};
        while (first != last) {
            const std::optional<CoalescedRun> run = take_run(first, last, data);
            if (!run) {
                return false;
            }
            deliver(*run);
            std::atomic_ref(page_->first).store(first, std::memory_order_release);
        }
        return true;
    }

private:
    using RunData = std::array<std::uint8_t, std::size_t{entry_count} * 8>;

    // Copies the run that starts at `first` to `data`, and sets `first` to its end. Returns nothing if an entry is not
    // valid.
    [[nodiscard]] std::optional<CoalescedRun> take_run(std::uint32_t& first, std::uint32_t last,
                                                       RunData& data) const noexcept;

    Page* page_;
};

}  // namespace kvm_vmm
