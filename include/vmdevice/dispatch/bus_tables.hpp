// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Tables that map an address to the entry that owns it. Readers take no lock while a writer changes a table.
///
/// The entries of both tables never move. An entry is written before it is published, and is not written
/// again while a slot protects it (hazard_pointers.hpp), so its fields are not atomic. The words that refer
/// to it are atomic and written by one thread at a time (the caller holds a mutex). Loading such a word is D3
/// of hazard_pointers.hpp and clearing it is R1; both are sequentially consistent, as is necessary if the
/// fences are not asymmetric. On x86 such a load costs the same as an acquire load.

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/detail/memory.hpp>
#include <vmdevice/range.hpp>

namespace vmdevice::inline v0_2::detail {

/// One registration, as dispatch sees it.
template <BusAddress A, class Device>
struct TableEntry {
    Device* device;
    OffsetOf<A> base;
    /// Never 0, since a range is neither empty nor the whole space.
    OffsetOf<A> size;

    [[nodiscard]] OffsetOf<A> last() const noexcept { return static_cast<OffsetOf<A>>(base + (size - 1)); }
};

/// The port space: for each port, a word with the number of the entry that owns it. A lookup takes two loads,
/// whatever the number of devices. The table reserves 2.25 MiB of address space, of which a PC touches a few
/// pages.
template <class Device>
class PortTable {
public:
    using Address = PioAddress;
    using Entry = TableEntry<PioAddress, Device>;

    PortTable() : words_(make_zeroed<std::uint32_t>(port_count)), entries_(make_zeroed<Entry>(entry_count)) {}

    /// The entry that owns `port`, or nullptr.
    [[nodiscard]] const Entry* find(PioAddress port) const noexcept {
        const std::uint32_t number = std::atomic_ref(words_[port.value]).load(std::memory_order_seq_cst);
        return number == 0 ? nullptr : &entries_[number];
    }

    /// Returns an entry whose publication cannot fail. It must be published or discarded. `live`, which
    /// visits the published entries, is not used.
    template <class Live>
    [[nodiscard]] Entry* allocate(PioRange range, Device* device, const Live& /*live*/) {
        if (free_.capacity() <= used_) {
            free_.reserve(2 * free_.capacity() + 16);  // so that recycle() need not allocate
        }
        Entry* entry = nullptr;
        if (!free_.empty()) {
            entry = free_.back();
            free_.pop_back();
        } else if (used_ + 1 < entry_count) {
            entry = &entries_[++used_];
        } else {
            out_of_memory();
        }
        *entry = {device, range.base().value, range.size()};
        return entry;
    }
    void recycle(Entry* entry) noexcept { free_.push_back(entry); }
    /// Takes back an entry that was not published.
    void discard(Entry* entry) noexcept { recycle(entry); }

    void publish(const Entry& entry) noexcept {
        const auto number = static_cast<std::uint32_t>(&entry - entries_.get());
        for (std::uint32_t port = entry.base; port <= entry.last(); ++port) {
            std::atomic_ref(words_[port]).store(number, std::memory_order_release);
        }
    }
    /// Removes `entry` from the ports at which no other entry has been published since.
    void unpublish(const Entry& entry) noexcept {
        const auto number = static_cast<std::uint32_t>(&entry - entries_.get());
        for (std::uint32_t port = entry.base; port <= entry.last(); ++port) {
            const std::atomic_ref word(words_[port]);
            if (word.load(std::memory_order_relaxed) == number) {
                word.store(0, std::memory_order_seq_cst);
            }
        }
    }

    /// What must be kept until earlier lookups have ended: nothing, because this table is never replaced.
    struct Retired {};
    [[nodiscard]] Retired take_retired() noexcept { return {}; }

private:
    static constexpr std::size_t port_count = 0x10000;
    /// Number 0 stands for no entry. At most one entry per port is published, and as many again may be
    /// retired while a slot protects them.
    static constexpr std::size_t entry_count = 2 * port_count;

    ZeroedArray<std::uint32_t> words_;
    ZeroedArray<Entry> entries_;
    std::uint32_t used_ = 0;
    std::vector<Entry*> free_;
};

/// Memory: a hash table of blocks, so that a lookup costs the same for 1 and for 10,000 devices.
///
/// A range is entered under each block that it touches. A block is 2^k bytes large and aligned, where k is
/// the largest multiple of 4 for which 2^k does not exceed the size of the range. A range therefore touches 1
/// to 17 blocks; a page at a page boundary touches one. The table records which values of k occur, its
/// *classes*; a lookup tries the block of the address in each class. Virtual machines have one to four
/// classes: a page or a few per device, and some large windows.
///
/// Collisions are resolved by linear probing. An entry contains the range that it owns, so entries that share
/// a block, and classes that share the table, need nothing further. A slot changes from empty to an entry, to
/// the tombstone and to another entry; the value that one load returns is correct for the time of that load.
/// When slots run short or a class is new, a new table is built and published, and the old one is kept until
/// the lookups in it have ended.
template <class Device>
class AddressTable {
    struct Table;

public:
    using Address = MmioAddress;
    using Entry = TableEntry<MmioAddress, Device>;

    AddressTable() : current_(make_table(0, 0)) { table_.store(current_.get(), std::memory_order_release); }

    /// The entry that owns `address`, or nullptr.
    [[nodiscard]] const Entry* find(MmioAddress address) const noexcept {
        const Table& table = *table_.load(std::memory_order_seq_cst);
        const std::size_t slot = table.slot_of(address.value, table.block_classes[0]);
        const Entry* const entry = table.slots[slot].load(std::memory_order_seq_cst);
        // Nearly every lookup ends here, so this part is inline.
        if (address.value - entry->base < entry->size) [[likely]] {
            return entry;
        }
        return find_further(table, address.value, slot, entry);
    }

    /// Returns an entry whose publication cannot fail. It must be published or discarded. `live` calls its
    /// argument with each entry that is published now.
    template <class Live>
    [[nodiscard]] Entry* allocate(MmioRange range, Device* device, const Live& live) {
        if (free_.empty()) {
            grow_pool();
        }
        const unsigned shift = class_shift(range.base().value, range.last().value);
        const std::size_t blocks = block_count(range.base().value, range.last().value, shift);
        Table* table = current_.get();
        if ((table->classes & class_bit(shift)) == 0 ||
            (table->used + promised_ + blocks) * inverse_load > table->mask + 1) {
            rebuild(live, table_classes(live) | promised_classes_ | class_bit(shift), promised_ + blocks);
        }
        Entry* const entry = free_.back();
        free_.pop_back();
        *entry = {device, range.base().value, range.size()};
        promised_ += blocks;
        promised_classes_ |= class_bit(shift);
        return entry;
    }
    void recycle(Entry* entry) noexcept { free_.push_back(entry); }
    /// Takes back an entry that was not published.
    void discard(Entry* entry) noexcept {
        release_promise(*entry);
        recycle(entry);
    }

    void publish(const Entry& entry) noexcept {
        release_promise(entry);
        insert(*current_, entry);
    }

    void unpublish(const Entry& entry) noexcept {
        Table& table = *current_;
        const unsigned shift = class_shift(entry.base, entry.last());
        const BlockClass block_class = make_class(shift);
        for (std::uint64_t block = entry.base >> shift;; ++block) {
            std::size_t slot = table.slot_of(block << shift, block_class);
            while (table.slots[slot].load(std::memory_order_relaxed) != &entry) {
                slot = (slot + 1) & table.mask;
            }
            table.slots[slot].store(&tombstone, std::memory_order_seq_cst);
            // Tombstones at the end of a run have no purpose, because no search continues past them to an
            // entry.
            if (table.slots[(slot + 1) & table.mask].load(std::memory_order_relaxed) == &empty) {
                while (table.slots[slot].load(std::memory_order_relaxed) == &tombstone) {
                    table.slots[slot].store(&empty, std::memory_order_release);
                    --table.used;
                    slot = (slot - 1) & table.mask;
                }
            }
            if (block == entry.last() >> shift) {
                break;
            }
        }
    }

private:
    /// Continues where find() stopped: `entry`, in `slot` of the first class, does not own the address.
    [[gnu::noinline]] static const Entry* find_further(const Table& table, std::uint64_t address,
                                                       std::size_t slot, const Entry* entry) noexcept {
        for (unsigned i = 0;;) {
            while (entry != &empty) {
                slot = (slot + 1) & table.mask;
                entry = table.slots[slot].load(std::memory_order_seq_cst);
                if (address - entry->base < entry->size) {
                    return entry;
                }
            }
            if (++i >= table.class_count) {
                return nullptr;
            }
            slot = table.slot_of(address, table.block_classes[i]);
            entry = table.slots[slot].load(std::memory_order_seq_cst);
            if (address - entry->base < entry->size) {
                return entry;
            }
        }
    }

    struct BlockClass {
        /// Reduces an address to the beginning of its block.
        std::uint64_t mask;
        /// 2^64 / golden ratio / block size, which has the effect of multiplying the number of the block by
        /// 2^64 / golden ratio.
        std::uint64_t multiplier;
    };
    static constexpr BlockClass make_class(unsigned shift) noexcept {
        return {~std::uint64_t{0} << shift, (0x9E37'79B9'7F4A'7C15U >> shift) | 1};
    }

    struct Table {
        std::size_t mask = 0;
        unsigned hash_shift = 0;
        /// The first class can be looked up in an empty table as well.
        unsigned class_count = 0;
        std::array<BlockClass, 16> block_classes{};
        std::uint32_t classes = 0;
        /// The number of slots that are not empty. Only the writer uses it.
        std::size_t used = 0;
        std::unique_ptr<std::atomic<const Entry*>[]> slots;

        /// The top bits of a product with the golden ratio spread regular block numbers evenly.
        [[nodiscard]] std::size_t slot_of(std::uint64_t address,
                                          const BlockClass& block_class) const noexcept {
            return static_cast<std::size_t>(((address & block_class.mask) * block_class.multiplier) >>
                                            hash_shift);
        }
    };
    using TablePointer = Owned<Table>;

public:
    /// What must be kept until earlier lookups have ended.
    using Retired = std::vector<TablePointer>;
    [[nodiscard]] Retired take_retired() noexcept { return std::exchange(retired_, {}); }

private:
    /// At most one slot in this many is in use, so that most lookups end at the first one.
    static constexpr std::size_t inverse_load = 3;

    /// The contents of slots without an entry; neither owns an address. A search ends at an empty slot and
    /// continues past a tombstone.
    static constexpr Entry empty{nullptr, 0, 0};
    static constexpr Entry tombstone{nullptr, 0, 0};

    /// log2 of the block size of a range.
    static unsigned class_shift(std::uint64_t base, std::uint64_t last) noexcept {
        // The size is last - base + 1; it fits, because a range never covers the whole space.
        return (static_cast<unsigned>(std::bit_width(last - base + 1)) - 1) & ~3U;
    }
    static std::size_t block_count(std::uint64_t base, std::uint64_t last, unsigned shift) noexcept {
        return static_cast<std::size_t>((last >> shift) - (base >> shift) + 1);
    }
    static std::uint32_t class_bit(unsigned shift) noexcept {
        return std::uint32_t{1} << ((shift / 4) & 15U);
    }

    void release_promise(const Entry& entry) noexcept {
        promised_ -= block_count(entry.base, entry.last(), class_shift(entry.base, entry.last()));
        if (promised_ == 0) {
            promised_classes_ = 0;
        }
    }

    template <class Live>
    static std::uint32_t table_classes(const Live& live) noexcept {
        std::uint32_t classes = 0;
        live([&](const Entry& entry) { classes |= class_bit(class_shift(entry.base, entry.last())); });
        return classes;
    }

    static TablePointer make_table(std::size_t needed, std::uint32_t classes) {
        TablePointer table(new Table);
        const std::size_t size = std::bit_ceil(needed < 16 ? 16 : needed);
        table->mask = size - 1;
        table->hash_shift = 64 - static_cast<unsigned>(std::countr_zero(size));
        table->classes = classes;
        for (unsigned shift = 0; shift < 64; shift += 4) {
            if ((classes & class_bit(shift)) != 0) {
                table->block_classes[table->class_count++] = make_class(shift);
            }
        }
        table->slots = std::make_unique<std::atomic<const Entry*>[]>(size);
        for (std::size_t slot = 0; slot < size; ++slot) {
            table->slots[slot].store(&empty, std::memory_order_relaxed);
        }
        return table;
    }

    static void insert(Table& table, const Entry& entry) noexcept {
        const unsigned shift = class_shift(entry.base, entry.last());
        const BlockClass block_class = make_class(shift);
        for (std::uint64_t block = entry.base >> shift;; ++block) {
            std::size_t slot = table.slot_of(block << shift, block_class);
            const Entry* there = table.slots[slot].load(std::memory_order_relaxed);
            while (there != &empty && there != &tombstone) {
                slot = (slot + 1) & table.mask;
                there = table.slots[slot].load(std::memory_order_relaxed);
            }
            table.used += there == &empty ? 1 : 0;
            table.slots[slot].store(&entry, std::memory_order_release);
            if (block == entry.last() >> shift) {
                break;
            }
        }
    }

    /// Publishes a new table of the same entries with room for `blocks` more, and as much again.
    template <class Live>
    void rebuild(const Live& live, std::uint32_t classes, std::size_t blocks) {
        live([&](const Entry& entry) {
            blocks += block_count(entry.base, entry.last(), class_shift(entry.base, entry.last()));
        });
        TablePointer fresh = make_table(blocks * 2 * inverse_load, classes);
        live([&](const Entry& entry) { insert(*fresh, entry); });
        retired_.reserve(retired_.size() + 1);
        // No entry is removed here: a lookup in either table finds the same entries. But the old table is
        // freed after a heavy fence, so this store is R1 as well.
        table_.store(fresh.get(), std::memory_order_seq_cst);
        retired_.push_back(std::exchange(current_, std::move(fresh)));
    }

    /// Entries are allocated in blocks of growing size, so that those of a large bus are close together.
    void grow_pool() {
        const std::size_t count = pool_size_ < 16 ? 16 : pool_size_;
        free_.reserve(pool_size_ + count);  // so that recycle() need not allocate
        pool_.push_back(make_zeroed<Entry>(count));
        pool_size_ += count;
        for (std::size_t i = count; i-- > 0;) {
            free_.push_back(&pool_.back()[i]);
        }
    }

    std::atomic<const Table*> table_{nullptr};
    TablePointer current_;
    std::vector<TablePointer> retired_;
    std::vector<ZeroedArray<Entry>> pool_;
    std::size_t pool_size_ = 0;
    std::vector<Entry*> free_;
    /// Slots and classes that allocated entries will need when they are published.
    std::size_t promised_ = 0;
    std::uint32_t promised_classes_ = 0;
};

}  // namespace vmdevice::inline v0_2::detail
