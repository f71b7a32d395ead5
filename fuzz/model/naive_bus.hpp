// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <vmdevice/error.hpp>

/// A bus as a list that is searched from one end to the other: the oracle for `Bus` and `IoManager`.
namespace fuzz::model {

class NaiveBus {
public:
    struct Entry {
        std::uint64_t first;
        std::uint64_t last;
        int device;
    };

    /// `maximum`: the last address of the space.
    explicit NaiveBus(std::uint64_t maximum) : maximum_(maximum) {}

    /// Whether `size` addresses from `first` on are a valid range.
    [[nodiscard]] bool is_range(std::uint64_t first, std::uint64_t size) const {
        return size != 0 && size - 1 <= maximum_ - first;
    }
    [[nodiscard]] std::optional<vmdevice::BusError> add(std::uint64_t first, std::uint64_t last, int device) {
        if (taken(first, last, nullptr)) {
            return vmdevice::BusError::device_overlap;
        }
        entries_.push_back({first, last, device});
        return std::nullopt;
    }
    std::optional<Entry> remove(std::uint64_t address) {
        for (auto it = entries_.begin(); it != entries_.end(); ++it) {
            if (it->first <= address && address <= it->last) {
                const Entry found = *it;
                entries_.erase(it);
                return found;
            }
        }
        return std::nullopt;
    }
    [[nodiscard]] std::optional<vmdevice::BusError> move(std::uint64_t address, std::uint64_t first,
                                                         std::uint64_t last) {
        for (Entry& entry : entries_) {
            if (entry.first <= address && address <= entry.last) {
                if (taken(first, last, &entry)) {
                    return vmdevice::BusError::device_overlap;
                }
                entry.first = first;
                entry.last = last;
                return std::nullopt;
            }
        }
        return vmdevice::BusError::device_not_found;
    }
    [[nodiscard]] std::optional<Entry> find(std::uint64_t address) const {
        for (const Entry& entry : entries_) {
            if (entry.first <= address && address <= entry.last) {
                return entry;
            }
        }
        return std::nullopt;
    }
    /// The entry that owns the whole access.
    [[nodiscard]] std::optional<Entry> owner(std::uint64_t address, std::uint64_t length) const {
        const auto entry = find(address);
        return entry && length != 0 && length - 1 <= entry->last - address ? entry : std::nullopt;
    }
    [[nodiscard]] bool taken(std::uint64_t first, std::uint64_t last, const Entry* except) const {
        return std::ranges::any_of(entries_, [&](const Entry& entry) {
            return &entry != except && entry.first <= last && first <= entry.last;
        });
    }
    /// In ascending order of address.
    [[nodiscard]] std::vector<Entry> sorted() const {
        std::vector<Entry> entries = entries_;
        std::ranges::sort(entries, {}, &Entry::first);
        return entries;
    }
    [[nodiscard]] std::size_t size() const { return entries_.size(); }

private:
    std::uint64_t maximum_;
    std::vector<Entry> entries_;
};

}  // namespace fuzz::model
