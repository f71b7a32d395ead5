// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// One bus of IoManager: the ordered registrations, guarded by a mutex, and the table that dispatch reads.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/bus.hpp>
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/dispatch/bus_tables.hpp>
#include <vmdevice/dispatch/hazard_pointers.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/range.hpp>

namespace vmdevice::inline v0_2::detail {

/// The functions that take a LockGuard are for writers: IoManager's mutex must be locked. None of them waits
/// or calls a device.
template <class Device, class Table>
class SharedBus {
public:
    using Address = typename Table::Address;
    using Range = BusRange<Address>;
    using Entry = typename Table::Entry;

private:
    struct Registration {
        std::shared_ptr<Device> device;
        /// Null until the entry is published.
        Entry* entry;
        std::uint64_t id;
    };

public:
    SharedBus() = default;
    SharedBus(const SharedBus&) = delete;
    SharedBus& operator=(const SharedBus&) = delete;

    /// The value of a reader slot while its thread searches this bus.
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

    /// Moves from `device` only if it succeeds.
    std::expected<void, BusError> add(const LockGuard&, Range range, std::shared_ptr<Device>&& device) {
        if (!device) {
            return std::unexpected(BusError::device_not_found);
        }
        if (bus_.overlaps(range)) {
            return std::unexpected(BusError::device_overlap);
        }
        insert(range, std::move(device));
        return {};
    }

    /// Whether each of `ranges` is registered with exactly these bounds.
    [[nodiscard]] bool has_all(const LockGuard&, std::span<const Range> ranges) const {
        for (const Range& range : ranges) {
            const auto found = bus_.device(range.base());
            if (!found || found->range != range) {
                return false;
            }
        }
        return true;
    }

    /// The addition of a device at several ranges. It is visible at none of them before commit(); without
    /// that, everything is undone. The mutex must be locked throughout.
    class Addition {
    public:
        explicit Addition(const LockGuard&, SharedBus& bus) noexcept : bus_(bus) {}
        Addition(const Addition&) = delete;
        Addition& operator=(const Addition&) = delete;
        ~Addition() {
            for (std::size_t i = 0; i < ranges_.size(); ++i) {
                if (i < entries_.size()) {
                    bus_.table_.discard(entries_[i]);
                }
                if (i < registered_) {
                    static_cast<void>(bus_.bus_.deregister(ranges_[i].base()));
                }
            }
        }

        /// May be called once. If it fails, this object must be destroyed before the mutex is unlocked.
        std::expected<void, BusError> prepare(std::span<const Range> ranges,
                                              const std::shared_ptr<Device>& device) {
            if (!device && !ranges.empty()) {
                return std::unexpected(BusError::device_not_found);
            }
            ranges_.assign(ranges.begin(), ranges.end());
            entries_.reserve(ranges.size());
            // Register the ranges without an entry first, so that a table that is rebuilt in between does not
            // contain them.
            for (const Range& range : ranges) {
                if (!bus_.bus_.register_device(range, bus_.registration(device))) {
                    return std::unexpected(BusError::device_overlap);
                }
                ++registered_;
            }
            for (const Range& range : ranges) {
                entries_.push_back(bus_.allocate(range, device.get()));
            }
            return {};
        }
        void commit() noexcept {
            for (Entry* const entry : entries_) {
                bus_.bus_.device(Address{entry->base})->device.entry = entry;
                bus_.table_.publish(*entry);
            }
            ranges_.clear();
        }

    private:
        SharedBus& bus_;
        std::vector<Range> ranges_;
        std::vector<Entry*> entries_;
        std::size_t registered_ = 0;
    };

    /// An entry that was unpublished and may still be protected by a slot. It keeps the device alive.
    struct Retired {
        Entry* entry = nullptr;
        std::shared_ptr<Device> device;
        /// Increases by one with each retired entry.
        std::uint64_t serial = 0;
        /// The number of the registration to which the entry belonged, or of the removal if the device was
        /// removed.
        std::uint64_t owner = 0;
        typename Table::Retired tables;
        Retired* next = nullptr;
    };
    /// A list of retired entries. Destroy it without the lock, because that may destroy devices.
    class RetiredList {
    public:
        RetiredList() = default;
        RetiredList(RetiredList&& other) noexcept : first_(std::exchange(other.first_, nullptr)) {}
        RetiredList& operator=(RetiredList&& other) noexcept {
            std::swap(first_, other.first_);
            return *this;
        }
        ~RetiredList() {
            while (first_ != nullptr) {
                delete pop();
            }
        }

        [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
        /// The first entry; `next` leads to the others.
        [[nodiscard]] Retired* first() const noexcept { return first_; }
        /// Allocates an entry and adds it.
        void push_new() { push(new Retired); }
        void push(Retired* retired) noexcept {
            retired->next = first_;
            first_ = retired;
        }
        /// Removes the first entry and passes its ownership to the caller.
        [[nodiscard]] Retired* pop() noexcept { return std::exchange(first_, first_->next); }
        /// Moves the entries for which `is_finished` returns true to `finished`.
        template <class IsFinished>
        void split(RetiredList& finished, IsFinished is_finished) noexcept {
            for (Retired** link = &first_; *link != nullptr;) {
                Retired* const at = *link;
                if (is_finished(*at)) {
                    *link = at->next;
                    finished.push(at);
                } else {
                    link = &at->next;
                }
            }
        }

    private:
        Retired* first_ = nullptr;
    };

    /// What a removal or a move still has to do without the lock.
    struct Ticket {
        /// The last entry that was retired.
        std::uint64_t serial = 0;
        /// The number of the removal; 0 for a move, which waits only for the last entry.
        std::uint64_t removal = 0;
        /// The caller does not wait for the end of this operation, so later ones may share its grace period.
        bool deferrable = false;
    };
    struct Removed {
        std::pair<Range, std::shared_ptr<Device>> registration;
        Ticket ticket;
    };

    std::optional<Removed> remove(const LockGuard& guard, Address address) {
        const auto found = bus_.device(address);
        if (!found) {
            return std::nullopt;
        }
        RetiredList room;
        room.push_new();
        Removed removed{{found->range, found->device.device}, {}};
        removed.ticket = take_out(guard, std::span(&found->range, 1), room);
        return removed;
    }

    /// Allocates the memory that the removal of `ranges` needs.
    [[nodiscard]] static RetiredList prepare_removal(std::span<const Range> ranges) {
        RetiredList room;
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            room.push_new();
        }
        return room;
    }
    /// Removes the registrations at `ranges`; has_all() must have returned true. A range that is named twice
    /// is removed once.
    Ticket take_out(const LockGuard&, std::span<const Range> ranges, RetiredList& room) noexcept {
        Ticket ticket{0, ++last_serial_, !may_wait_for_readers() && backlog_ < max_backlog};
        for (const Range& range : ranges) {
            const auto found = bus_.device(range.base());
            if (!found) {
                continue;
            }
            const Registration& registration = found->device;
            // The wait covers threads that entered the device through a former range.
            for (Retired* at = retired_.first(); at != nullptr; at = at->next) {
                at->owner = at->owner == registration.id ? ticket.removal : at->owner;
            }
            table_.unpublish(*registration.entry);
            // A device that its own handler removes cannot be released now, so the caller does not wait.
            ticket.deferrable = ticket.deferrable && is_inside(registration);
            ticket.serial = retire(room.pop(), registration.entry, registration.device, ticket.removal);
            static_cast<void>(bus_.deregister(range.base()));
        }
        return ticket;
    }

    std::expected<Ticket, BusError> move(const LockGuard&, Address address, Range to) {
        const auto found = bus_.device(address);
        if (!found) {
            return std::unexpected(BusError::device_not_found);
        }
        Registration& registration = found->device;
        RetiredList room;
        room.push_new();
        Allocation allocation(*this, to, registration.device.get());
        if (const auto moved = bus_.move_range(address, to); !moved) {
            return std::unexpected(moved.error());
        }
        Entry* const old = std::exchange(registration.entry, std::exchange(allocation.entry, nullptr));
        table_.publish(*registration.entry);
        table_.unpublish(*old);
        const std::uint64_t serial = retire(room.pop(), old, registration.device, registration.id);
        return Ticket{serial, 0, !may_wait_for_readers() && backlog_ < max_backlog};
    }

    /// Records that a grace period has passed since the entry with this serial was unpublished: no lookup
    /// finds this entry or an earlier one any more.
    void grace_period_ended(const LockGuard&, std::uint64_t serial) noexcept {
        if (serial > graced_) {
            graced_ = serial;
            backlog_ = 0;
            for (const Retired* at = retired_.first(); at != nullptr; at = at->next) {
                backlog_ += at->serial > graced_ ? 1 : 0;
            }
        }
    }
    /// The serial of the last entry for which no grace period has passed yet, or 0 if there is none.
    [[nodiscard]] std::uint64_t awaiting_grace_period(const LockGuard&) const noexcept {
        return backlog_ == 0 ? 0 : retired_.first()->serial;
    }
    /// Whether no thread is in a device through an entry that the operation of this ticket removed.
    [[nodiscard]] bool all_left(const LockGuard&, const Ticket& ticket) noexcept {
        for (const Retired* at = retired_.first(); at != nullptr; at = at->next) {
            if (at->serial == ticket.serial || at->owner == ticket.removal) {
                return false;
            }
        }
        return true;
    }

    /// The retired entries that no slot protects; their table entries are recycled.
    [[nodiscard]] RetiredList take_finished(const LockGuard&) noexcept {
        RetiredList finished;
        retired_.split(finished, [this](const Retired& retired) {
            if (retired.serial > graced_ || is_protected(identity_of(retired.entry))) {
                return false;
            }
            table_.recycle(retired.entry);
            return true;
        });
        return finished;
    }

    /// The registrations and retired entries that are left when the bus is destroyed and no thread uses it.
    /// Destroy them without the lock. After take_remains() no address is owned, and the bus remains usable.
    struct Remains {
        Bus<Address, Registration> registrations;
        RetiredList retired;
        [[nodiscard]] bool empty() const noexcept { return registrations.empty() && retired.empty(); }
    };
    [[nodiscard]] Remains take_remains(const LockGuard&) noexcept {
        for (const auto& found : bus_) {
            table_.unpublish(*found.device.entry);
            table_.recycle(found.device.entry);
        }
        return {std::move(bus_), std::move(retired_)};
    }

private:
    /// How many entries may wait for one grace period.
    static constexpr std::size_t max_backlog = 64;

    [[nodiscard]] Registration registration(std::shared_ptr<Device> device) noexcept {
        return Registration{std::move(device), nullptr, ++last_serial_};
    }

    std::uint64_t retire(Retired* retired, Entry* entry, std::shared_ptr<Device> device,
                         std::uint64_t owner) noexcept {
        retired->entry = entry;
        retired->device = std::move(device);
        retired->serial = ++last_serial_;
        retired->owner = owner;
        retired->tables = table_.take_retired();
        retired_.push(retired);
        ++backlog_;
        return last_serial_;
    }

    /// Whether the calling thread is executing in the device, either through this range or through a range
    /// that the device had before.
    [[nodiscard]] bool is_inside(const Registration& registration) noexcept {
        if (thread_state.is_inside(identity_of(registration.entry))) {
            return true;
        }
        for (const Retired* at = retired_.first(); at != nullptr; at = at->next) {
            if (at->device == registration.device && thread_state.is_inside(identity_of(at->entry))) {
                return true;
            }
        }
        return false;
    }

    /// An entry from the table's pool, to which the destructor returns it unless it was used.
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

    /// Adds a device at a range that is free.
    void insert(Range range, std::shared_ptr<Device>&& device) {
        Allocation allocation(*this, range, device.get());
        Registration fresh = registration(std::move(device));
        fresh.entry = allocation.entry;
        static_cast<void>(bus_.register_device(range, std::move(fresh)));
        table_.publish(*std::exchange(allocation.entry, nullptr));
    }

    [[nodiscard]] Entry* allocate(Range range, Device* device) {
        return table_.allocate(range, device, [this](auto visit) {
            for (const auto& found : std::as_const(bus_)) {
                if (found.device.entry != nullptr) {
                    visit(std::as_const(*found.device.entry));
                }
            }
        });
    }

    Table table_;
    Bus<Address, Registration> bus_;
    /// Entries that were unpublished and cannot be reused yet.
    RetiredList retired_;
    /// The last number that was assigned to a registration, a retired entry or a removal.
    std::uint64_t last_serial_ = 0;
    /// A grace period has passed for the entries up to this serial, and has not for `backlog_` retired
    /// entries.
    std::uint64_t graced_ = 0;
    std::size_t backlog_ = 0;
};

}  // namespace vmdevice::inline v0_2::detail
