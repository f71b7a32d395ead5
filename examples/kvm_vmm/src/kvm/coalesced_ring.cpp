// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm/coalesced_ring.hpp"

#include <algorithm>
#include <bit>

namespace kvm_vmm {
namespace {

bool is_valid(const CoalescedRing::Entry& entry) noexcept {
    return entry.length >= 1 && entry.length <= entry.data.size() && entry.pio <= 1 &&
           (entry.pio == 0 || entry.address <= 0xFFFF);
}

// Whether `entry` is one more access of a string instruction's kind.
bool continues(const CoalescedRun& run, const CoalescedRing::Entry& entry) noexcept {
    return run.pio && entry.pio == 1 && entry.address == run.address && entry.length == run.width &&
           std::has_single_bit(entry.length);
}

}  // namespace

bool CoalescedRing::holds_port_write() const noexcept {
    const std::uint32_t last = std::atomic_ref(page_->last).load(std::memory_order_acquire);
    std::uint32_t entry = std::atomic_ref(page_->first).load(std::memory_order_acquire);
    if (entry >= entry_count || last >= entry_count) {
        return true;  // for drain(), which reports it
    }
    for (; entry != last; entry = (entry + 1) % entry_count) {
        // Another thread may deliver the entry meanwhile, and KVM then use it for another write.
        if (std::atomic_ref(page_->entries.at(entry).pio).load(std::memory_order_relaxed) != 0) {
            return true;
        }
    }
    return false;
}

std::optional<CoalescedRun> CoalescedRing::take_run(std::uint32_t& first, std::uint32_t last,
                                                    RunData& data) const noexcept {
    std::size_t size = 0;
    CoalescedRun run{};
    while (first != last) {
        const Entry entry = page_->entries.at(first);  // copied once, and the copy is checked
        if (!is_valid(entry)) {
            return std::nullopt;
        }
        if (size == 0) {
            run = {.pio = entry.pio == 1, .address = entry.address, .width = entry.length, .data = {}};
        } else if (!continues(run, entry)) {
            break;
        }
        std::copy_n(entry.data.begin(), entry.length, data.begin() + static_cast<std::ptrdiff_t>(size));
        size += entry.length;
        first = (first + 1) % entry_count;
    }
    run.data = std::span(data).first(size);
    return run;
}

}  // namespace kvm_vmm
