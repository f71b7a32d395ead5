// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// A bus: records which device owns which range of one address space.
///
/// Thread safety: none; IoManager is the bus that threads share.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <expected>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/detail/memory.hpp>
#include <vmdevice/dispatch/range_index.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/range.hpp>

namespace vmdevice::inline v0_2 {

/// One registration as a lookup sees it. `device` is a reference into the bus, valid until that device is
/// deregistered or the bus is destroyed; other registrations do not affect it.
template <BusAddress A, class Dev>
struct BusEntry {
    /// The device `found` at the range `at`.
    constexpr BusEntry(BusRange<A> at, Dev& found) noexcept : range(at), device(found) {}
    constexpr BusEntry(const BusEntry&) noexcept = default;
    /// Makes this entry refer to the same registration as `other`; the devices are not changed.
    constexpr BusEntry& operator=(const BusEntry& other) noexcept {
        if (this != &other) {
            std::construct_at(this, other);
        }
        return *this;
    }

    BusRange<A> range;  ///< the addresses of the device
    Dev& device;        ///< the device
};

/// Maps address ranges to devices of any type. `Dev` is the type that the bus stores: a value, a pointer, a
/// move-only handle.
///
/// Registration, removal and lookup take O(log n) comparisons. Overlapping ranges are refused. If a function
/// returns an error, nothing has changed.
template <BusAddress A, class Dev>
class Bus {
    struct Node {
        BusRange<A> range;
        Dev device;
    };
    using Index = detail::RangeIndex<OffsetOf<A>, Node>;

    template <class Entry>
    static Entry entry_of(Node& node) noexcept {
        return Entry(node.range, node.device);
    }

    template <class Device>
    class Iterator {
    public:
        using value_type = BusEntry<A, Device>;
        using difference_type = std::ptrdiff_t;
        using reference = value_type;
        using pointer = void;

        Iterator() = default;
        Iterator(const Index& index, typename Index::Position position)
            : index_(&index), position_(position) {}

        value_type operator*() const { return entry_of<value_type>(index_->at(position_)); }
        Iterator& operator++() {
            position_ = index_->next(position_);
            return *this;
        }
        Iterator operator++(int) {
            Iterator before = *this;
            ++*this;
            return before;
        }
        friend bool operator==(const Iterator& a, const Iterator& b) { return a.position_ == b.position_; }

    private:
        const Index* index_ = nullptr;
        typename Index::Position position_{};
    };

public:
    using address_type = A;
    using device_type = Dev;
    using range_type = BusRange<A>;
    /// What a search returns: a range and its device.
    using entry_type = BusEntry<A, Dev>;
    /// What a search of a const bus returns.
    using const_entry_type = BusEntry<A, const Dev>;
    /// Visits the entries in the order of their addresses.
    using iterator = Iterator<Dev>;
    /// Visits the entries of a const bus in the order of their addresses.
    using const_iterator = Iterator<const Dev>;

    /// Registers `device` at `range`. Returns `device_overlap` if any address of the range is taken. In this
    /// case, and if memory runs out (std::bad_alloc), `device` is unchanged, so that a move-only device is
    /// not lost.
    [[nodiscard]] std::expected<void, BusError> register_device(range_type range, Dev&& device) {
        if (taken(range)) {
            return std::unexpected(BusError::device_overlap);
        }
        // Allocate first, so that the caller keeps the device if memory runs out.
        index_.make_room(range.base().value);
        index_.insert(range.base().value, detail::Owned<Node>(new Node{range, std::move(device)}));
        return {};
    }
    [[nodiscard]] std::expected<void, BusError> register_device(range_type range, const Dev& device)
        requires std::is_copy_constructible_v<Dev>
    {
        if (taken(range)) {
            return std::unexpected(BusError::device_overlap);
        }
        index_.make_room(range.base().value);
        index_.insert(range.base().value, detail::Owned<Node>(new Node{range, device}));
        return {};
    }

    /// Removes and returns the device that owns `any_address_inside`, with its whole range, or nothing if
    /// there is none.
    std::optional<std::pair<range_type, Dev>> deregister(A any_address_inside) {
        const auto position = find(any_address_inside);
        if (position == index_.end()) {
            return std::nullopt;
        }
        const detail::Owned<Node> node = index_.extract(position);
        return std::pair<range_type, Dev>(node->range, std::move(node->device));
    }

    /// Assigns another range to the device that owns `any_address_inside`; it may overlap the old one.
    /// Returns `device_not_found` if there is no such device, and `device_overlap` if another device owns a
    /// part of the range; the device then keeps its old range.
    [[nodiscard]] std::expected<void, BusError> move_range(A any_address_inside, range_type to) {
        const auto position = find(any_address_inside);
        if (position == index_.end()) {
            return std::unexpected(BusError::device_not_found);
        }
        Node& node = index_.at(position);
        if (taken_by_other(to, node)) {
            return std::unexpected(BusError::device_overlap);
        }
        index_.rekey(node.range.base().value, to.base().value);
        node.range = to;
        return {};
    }

    /// The device that owns `address`: like std::optional, with `.range` and `.device`.
    [[nodiscard]] std::optional<const_entry_type> device(A address) const {
        return entry_at<const_entry_type>(address);
    }
    [[nodiscard]] std::optional<entry_type> device(A address) { return entry_at<entry_type>(address); }

    /// The device that owns all `length` bytes from `address` on. Returns `invalid_range` if length is 0, and
    /// `device_not_found` if no device owns the first byte or the access extends past the end of its range.
    [[nodiscard]] std::expected<const_entry_type, BusError> check_access(A address,
                                                                         std::size_t length) const {
        return checked_entry<const_entry_type>(address, length);
    }
    [[nodiscard]] std::expected<entry_type, BusError> check_access(A address, std::size_t length) {
        return checked_entry<entry_type>(address, length);
    }

    /// Whether any address of `range` belongs to a device.
    [[nodiscard]] bool overlaps(range_type range) const { return taken(range); }

    /// How many ranges are registered.
    [[nodiscard]] std::size_t size() const noexcept { return index_.size(); }
    [[nodiscard]] bool empty() const noexcept { return index_.size() == 0; }

    /// Iteration in ascending order of address. A change to the bus invalidates the iterators.
    [[nodiscard]] iterator begin() { return {index_, index_.begin()}; }
    [[nodiscard]] iterator end() { return {index_, index_.end()}; }
    [[nodiscard]] const_iterator begin() const { return {index_, index_.begin()}; }
    [[nodiscard]] const_iterator end() const { return {index_, index_.end()}; }

private:
    [[nodiscard]] typename Index::Position find(A address) const {
        const auto position = index_.floor(address.value);
        if (position == index_.end() || !index_.at(position).range.contains(address)) {
            return index_.end();
        }
        return position;
    }

    /// Whether any device owns an address of `range`. Ranges on the bus do not overlap each other, so the
    /// highest one that starts in or before `range` decides.
    [[nodiscard]] bool taken(range_type range) const {
        const auto position = index_.floor(range.last().value);
        return position != index_.end() && index_.at(position).range.overlaps(range);
    }
    /// The same for devices other than `except`: if that one is the highest, the one before it decides.
    [[nodiscard]] bool taken_by_other(range_type range, const Node& except) const {
        auto position = index_.floor(range.last().value);
        if (position != index_.end() && &index_.at(position) == &except) {
            const auto base = except.range.base().value;
            position = base == 0 ? index_.end() : index_.floor(static_cast<OffsetOf<A>>(base - 1));
        }
        return position != index_.end() && index_.at(position).range.overlaps(range);
    }

    template <class Entry>
    [[nodiscard]] std::optional<Entry> entry_at(A address) const {
        const auto position = find(address);
        if (position == index_.end()) {
            return std::nullopt;
        }
        return entry_of<Entry>(index_.at(position));
    }

    template <class Entry>
    [[nodiscard]] std::expected<Entry, BusError> checked_entry(A address, std::size_t length) const {
        if (length == 0) {
            return std::unexpected(BusError::invalid_range);
        }
        const auto position = index_.floor(address.value);
        if (position == index_.end() || !index_.at(position).range.contains_access(address, length)) {
            return std::unexpected(BusError::device_not_found);
        }
        return entry_of<Entry>(index_.at(position));
    }

    Index index_;
};

/// A bus of ports.
template <class Dev>
using PioBus = Bus<PioAddress, Dev>;
/// A bus of memory.
template <class Dev>
using MmioBus = Bus<MmioAddress, Dev>;

}  // namespace vmdevice::inline v0_2
