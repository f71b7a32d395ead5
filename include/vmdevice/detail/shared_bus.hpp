// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// One bus of IoManager: the ordered registrations, which a mutex guards, and the table that dispatch reads.

#include <algorithm>
#include <cstddef>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/bus.hpp>
#include <vmdevice/detail/bus_tables.hpp>
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/visitors.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/range.hpp>

namespace vmdevice::detail {

/// The functions that take a LockGuard are the writer's: they need IoManager's mutex held. None of them waits
/// or calls a device.
template <class Device, class Table>
class SharedBus {
public:
    using Address = typename Table::Address;
    using Range = BusRange<Address>;
    using Entry = typename Table::Entry;

    SharedBus() = default;
    SharedBus(const SharedBus&) = delete;
    SharedBus& operator=(const SharedBus&) = delete;

    /// What a place of a visitor holds while it looks something up here.
    [[nodiscard]] Identity identity() const noexcept { return identity_of(this); }
    [[nodiscard]] const Entry* find(Address address) const noexcept { return table_.find(address); }

    [[nodiscard]] std::size_t size(const LockGuard&) const noexcept { return bus_.size(); }
    [[nodiscard]] std::vector<Range> ranges(const LockGuard&) const {
        std::vector<Range> all;
        all.reserve(bus_.size());
        for (const auto& found : bus_) {
            all.push_back(found.range);
        }
        return all;
    }

    [[nodiscard]] std::optional<std::pair<Range, std::shared_ptr<Device>>> owner(const LockGuard&,
                                                                                 Address address) const {
        const auto found = bus_.device(address);
        if (!found) {
            return std::nullopt;
        }
        return std::pair(found->range, found->device.device);
    }

    /// Consumes `device` only where it succeeds.
    std::expected<void, BusError> add(const LockGuard&, Range range, std::shared_ptr<Device>&& device) {
        if (!device) {
            return std::unexpected(BusError::device_not_found);
        }
        if (bus_.overlaps(range)) {
            return std::unexpected(BusError::device_overlap);
        }
        place(range, std::move(device));
        return {};
    }

    /// Whether `ranges` are free and do not overlap each other.
    std::expected<void, BusError> check_all(const LockGuard&, std::span<const Range> ranges,
                                            bool has_device) const {
        Bus<Address, bool> together;
        for (const Range& range : ranges) {
            if (!has_device) {
                return std::unexpected(BusError::device_not_found);
            }
            if (bus_.overlaps(range) || !together.register_device(range, true)) {
                return std::unexpected(BusError::device_overlap);
            }
        }
        return {};
    }
    /// Whether `ranges` are registered, each as it is.
    [[nodiscard]] bool has_all(const LockGuard&, std::span<const Range> ranges) const {
        return std::ranges::all_of(ranges, [&](const Range& range) {
            const auto found = bus_.device(range.base());
            return found && found->range == range;
        });
    }

    /// A device on its way to several ranges. Nobody sees it at any of them before commit(); without that,
    /// all is taken back. The mutex must be held throughout.
    class Addition {
    public:
        explicit Addition(const LockGuard&, SharedBus& bus) noexcept : bus_(bus) {}
        Addition(const Addition&) = delete;
        Addition& operator=(const Addition&) = delete;
        ~Addition() {
            for (std::size_t i = 0; i < registered_; ++i) {
                static_cast<void>(bus_.bus_.deregister(Address{entries_[i]->base}));
            }
            for (Entry* const entry : entries_) {
                bus_.table_.discard(entry);
            }
        }

        /// After check_all(). Once.
        void prepare(std::span<const Range> ranges, const std::shared_ptr<Device>& device) {
            entries_.reserve(ranges.size());
            // The table first: it looks at what is registered.
            for (const Range& range : ranges) {
                entries_.push_back(bus_.allocate(range, device.get()));
            }
            for (const Range& range : ranges) {
                static_cast<void>(
                    bus_.bus_.register_device(range, Registration{device, entries_[registered_], {}}));
                ++registered_;
            }
        }
        void commit() noexcept {
            for (const Entry* const entry : entries_) {
                bus_.table_.publish(*entry);
            }
            entries_.clear();
            registered_ = 0;
        }

    private:
        SharedBus& bus_;
        std::vector<Entry*> entries_;
        std::size_t registered_ = 0;
    };

    /// A device taken out of the bus that threads may still be inside.
    struct Removal {
        std::pair<Range, std::shared_ptr<Device>> registration;
        std::vector<Entry*> entries;
        /// Freed with this, after the lookups have ended.
        typename Table::Retired retired;
    };

    std::optional<Removal> remove(const LockGuard& guard, Address address) {
        const auto found = bus_.device(address);
        if (!found) {
            return std::nullopt;
        }
        Removal removal{{found->range, nullptr}, {}, {}};
        reserve(guard, removal, found->device, 0);
        take_out(guard, removal);
        return removal;
    }

    /// The removals of what is registered at `ranges`, after has_all(), for take_out(). Nothing has changed
    /// yet.
    [[nodiscard]] std::vector<Removal> prepare_removals(const LockGuard& guard,
                                                        std::span<const Range> ranges) {
        std::vector<Removal> removals;
        removals.reserve(ranges.size());
        std::size_t entries = 0;
        for (const Range& range : ranges) {
            Removal& removal = removals.emplace_back(Removal{{range, nullptr}, {}, {}});
            entries = reserve(guard, removal, bus_.device(range.base())->device, entries);
        }
        return removals;
    }
    /// Does what was prepared while the mutex was held. A range that is named twice is taken out once.
    void take_out(const LockGuard& guard, std::span<Removal> removals) noexcept {
        for (Removal& removal : removals) {
            take_out(guard, removal);
        }
    }

    /// An old entry of a device that now has another one.
    struct Move {
        Entry* entry;
        typename Table::Retired retired;
    };

    std::expected<Move, BusError> move(const LockGuard&, Address address, Range to) {
        const auto found = bus_.device(address);
        if (!found) {
            return std::unexpected(BusError::device_not_found);
        }
        Registration& registration = found->device;
        Allocation allocation(*this, to, registration.device.get());
        registration.former.reserve(registration.former.size() + 1);
        if (const auto moved = bus_.move_range(address, to); !moved) {
            return std::unexpected(moved.error());
        }
        Entry* const old = std::exchange(registration.entry, std::exchange(allocation.entry, nullptr));
        table_.publish(*registration.entry);
        table_.unpublish(*old);
        // Until it is known that nobody is inside, whoever takes the device out waits for the old entry too.
        registration.former.push_back(old);
        return Move{old, table_.take_retired()};
    }

    /// The wait for a moved device's old entry is over; where `all_left`, it belongs to nobody.
    void finish_move(const LockGuard&, Address address, Entry* old, bool all_left) {
        const auto found = bus_.device(address);
        if (all_left && found && std::erase(found->device.former, old) != 0) {
            table_.recycle(old);
        }
    }

    /// The wait for a removed device is over. Where threads are still inside, the device is kept until they
    /// have left, whatever the caller does with the pointer that it gets.
    void finish_removal(const LockGuard&, const Removal& removal, bool all_left) noexcept {
        removing_ -= removal.entries.size();
        for (Entry* const entry : removal.entries) {
            if (all_left) {
                table_.recycle(entry);
            } else {
                unfinished_.push_back({entry, removal.registration.second});
            }
        }
    }

    /// Removals that have been finished since; to be destroyed without the lock.
    using Finished = std::vector<std::shared_ptr<Device>>;
    [[nodiscard]] Finished take_finished(const LockGuard&) {
        Finished finished;
        if (!unfinished_.empty()) {
            finished.reserve(unfinished_.size());
            std::erase_if(unfinished_, [&](Unfinished& unfinished) {
                if (is_visited(identity_of(unfinished.entry))) {
                    return false;
                }
                table_.recycle(unfinished.entry);
                finished.push_back(std::move(unfinished.device));
                return true;
            });
        }
        return finished;
    }

private:
    struct Registration {
        std::shared_ptr<Device> device;
        Entry* entry;
        /// Entries from before a move that somebody may still be inside.
        std::vector<Entry*> former;
    };

    /// Makes room for what take_out() is going to note. `entries`: of the other removals prepared together
    /// with this one; returns their number with this one.
    std::size_t reserve(const LockGuard&, Removal& removal, const Registration& registration,
                        std::size_t entries) {
        removal.entries.reserve(registration.former.size() + 1);
        entries += removal.entries.capacity();
        unfinished_.reserve(unfinished_.size() + removing_ + entries);
        return entries;
    }
    void take_out(const LockGuard&, Removal& removal) noexcept {
        const Address address = removal.registration.first.base();
        const auto found = bus_.device(address);
        if (!found) {
            return;
        }
        Registration& registration = found->device;
        removal.entries.assign(registration.former.begin(), registration.former.end());
        removal.entries.push_back(registration.entry);
        removing_ += removal.entries.size();
        table_.unpublish(*registration.entry);
        removal.retired = table_.take_retired();
        removal.registration.second = std::move(bus_.deregister(address)->second.device);
    }

    /// An entry taken from the table's pool, given back unless it was used.
    struct Allocation {
        Allocation(SharedBus& bus, Range range, Device* device)
            : table(bus.table_), entry(bus.allocate(range, device)) {}
        Allocation(const Allocation&) = delete;
        Allocation& operator=(const Allocation&) = delete;
        ~Allocation() {
            if (entry != nullptr) {
                table.discard(entry);
            }
        }
        Table& table;
        Entry* entry;
    };

    struct Unfinished {
        Entry* entry;
        std::shared_ptr<Device> device;
    };

    /// Adds a device at a range that is free.
    void place(Range range, std::shared_ptr<Device>&& device) {
        Allocation allocation(*this, range, device.get());
        static_cast<void>(bus_.register_device(range, Registration{std::move(device), allocation.entry, {}}));
        table_.publish(*std::exchange(allocation.entry, nullptr));
    }

    [[nodiscard]] Entry* allocate(Range range, Device* device) {
        return table_.allocate(range, device, [this](auto visit) {
            for (const auto& found : std::as_const(bus_)) {
                visit(std::as_const(*found.device.entry));
            }
        });
    }

    Table table_;
    Bus<Address, Registration> bus_;
    /// What a thread was still inside when the wait for it ended.
    std::vector<Unfinished> unfinished_;
    /// Entries that were taken out and whose removal is not finished; unfinished_ has room for them.
    std::size_t removing_ = 0;
};

}  // namespace vmdevice::detail
