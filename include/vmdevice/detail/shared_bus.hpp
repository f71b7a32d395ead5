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
    /// After check_all().
    void add_all(const LockGuard&, std::span<const Range> ranges, const std::shared_ptr<Device>& device) {
        for (const Range& range : ranges) {
            place(range, std::shared_ptr<Device>(device));
        }
    }
    /// Whether `ranges` are registered, each as it is.
    [[nodiscard]] bool has_all(const LockGuard&, std::span<const Range> ranges) const {
        return std::ranges::all_of(ranges, [&](const Range& range) {
            const auto found = bus_.device(range.base());
            return found && found->range == range;
        });
    }

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
        Removal removal{{found->range, nullptr}, std::move(found->device.former), {}};
        removal.entries.push_back(found->device.entry);
        reserve_unfinished(guard, removal.entries.size());
        table_.unpublish(*found->device.entry);
        removal.retired = table_.take_retired();
        removal.registration.second = std::move(bus_.deregister(address)->second.device);
        return removal;
    }

    /// After has_all(). A range that is named twice is taken out once.
    [[nodiscard]] std::vector<Removal> remove_all(const LockGuard& guard, std::span<const Range> ranges) {
        std::vector<Removal> removals;
        removals.reserve(ranges.size());
        for (const Range& range : ranges) {
            if (auto removal = remove(guard, range.base())) {
                removals.push_back(std::move(*removal));
            }
        }
        return removals;
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
    void finish_removal(const LockGuard&, const Removal& removal, bool all_left) {
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

    /// An entry taken from the table's pool, given back unless it was used.
    struct Allocation {
        Allocation(SharedBus& bus, Range range, Device* device) : table(bus.table_) {
            entry = table.allocate(range, device, [&bus](auto visit) {
                for (const auto& found : std::as_const(bus.bus_)) {
                    visit(std::as_const(*found.device.entry));
                }
            });
        }
        Allocation(const Allocation&) = delete;
        Allocation& operator=(const Allocation&) = delete;
        ~Allocation() {
            if (entry != nullptr) {
                table.recycle(entry);
            }
        }
        Table& table;
        Entry* entry = nullptr;
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

    void reserve_unfinished(const LockGuard&, std::size_t count) {
        unfinished_.reserve(unfinished_.size() + count);
    }

    Table table_;
    Bus<Address, Registration> bus_;
    /// What a thread was still inside when the wait for it ended.
    std::vector<Unfinished> unfinished_;
};

}  // namespace vmdevice::detail
