// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The ordered index behind Bus: nodes sorted by the base of their range.

#include <vmdevice/detail/config.hpp>

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include <vmdevice/detail/memory.hpp>

namespace vmdevice::inline v0_2::detail {

/// Returns `yes` or `no`, selected without a branch. GCC compiles the conditional expression to a conditional
/// move. Clang emits a branch unless the origin of the mask is hidden from it.
template <class T>
[[nodiscard]] inline const T* select(bool condition, const T* yes, const T* no) noexcept {
#if defined(__clang__)
    // NOLINTNEXTLINE(misc-const-correctness): to the compiler, the asm statement may change it
    std::ptrdiff_t mask = -static_cast<std::ptrdiff_t>(condition);
    __asm__("" : "+r"(mask));
    return no + ((yes - no) & mask);
#else
    return condition ? yes : no;
#endif
}

/// Returns how many of the `count` ascending keys are not above `key`. The loop has no branch that depends on
/// the data: a mispredicted branch costs more than all the steps of a search in a leaf.
template <class Key>
[[nodiscard]] inline std::size_t count_not_above(const Key* keys, std::size_t count, Key key) noexcept {
    const Key* first = keys;
    while (count > 1) {
        const std::size_t half = count / 2;
        const Key* const upper = first + half;
        first = select(upper[-1] <= key, upper, first);
        count -= half;
    }
    return static_cast<std::size_t>(first - keys) + static_cast<std::size_t>(count == 1 && *first <= key);
}

/// A two-level B+ tree. The keys of a leaf are contiguous in a few cache lines, separate from the nodes; the
/// root is one sorted array of the leaves' first keys. An insertion moves the keys of at most one leaf (64),
/// and one in 32 insertions also moves those of the root, which is short: 300 keys for 10,000 ranges. Nodes
/// never move, so references to a device stay valid until it is removed.
template <class Key, class Node>
class RangeIndex {
public:
    /// A position in the index; for end(), `leaf` is the number of leaves.
    struct Position {
        std::size_t leaf;
        std::size_t slot;
        friend bool operator==(const Position&, const Position&) = default;
    };

    RangeIndex() = default;
    RangeIndex(RangeIndex&& other) noexcept
        : firsts_(std::exchange(other.firsts_, {})),
          leaves_(std::exchange(other.leaves_, {})),
          spare_(std::move(other.spare_)),
          size_(std::exchange(other.size_, 0)) {}
    RangeIndex& operator=(RangeIndex&& other) noexcept {
        firsts_ = std::exchange(other.firsts_, {});
        leaves_ = std::exchange(other.leaves_, {});
        spare_ = std::move(other.spare_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] Position begin() const noexcept { return {0, 0}; }
    [[nodiscard]] Position end() const noexcept { return {leaves_.size(), 0}; }
    [[nodiscard]] Position next(Position position) const noexcept {
        return position.slot + 1 < leaves_[position.leaf]->count ? Position{position.leaf, position.slot + 1}
                                                                 : Position{position.leaf + 1, 0};
    }
    [[nodiscard]] Node& at(Position position) const noexcept {
        return *leaves_[position.leaf]->nodes[position.slot];
    }

    /// The node with the highest key not above `key`, or end().
    [[nodiscard]] Position floor(Key key) const noexcept {
        const std::size_t leaf = count_not_above(firsts_.data(), firsts_.size(), key);
        if (leaf == 0) {
            return end();
        }
        const Leaf& found = *leaves_[leaf - 1];
        return {leaf - 1, count_not_above(found.keys.data(), found.count, key) - 1};
    }

    /// Makes room for a key that the index does not contain. If memory runs out, nothing has changed.
    void make_room(Key key) {
        if (leaves_.empty()) {
            firsts_.reserve(1);
            leaves_.reserve(1);
            if (!spare_) {
                spare_ = Owned<Leaf>(new Leaf);
            }
        } else if (const std::size_t index = leaf_for(key); leaves_[index]->count == leaf_capacity) {
            split(index, index + 1 == leaves_.size() && key > leaves_[index]->keys.back());
        }
    }
    /// Adds a node after make_room() was called with its key.
    void insert(Key key, Owned<Node> node) noexcept {
        place(key) = std::move(node);
        ++size_;
    }

    Owned<Node> extract(Position position) noexcept {
        Leaf& leaf = *leaves_[position.leaf];
        Owned<Node> node = std::move(leaf.nodes[position.slot]);
        erase(position);
        --size_;
        return node;
    }

    /// Changes the key of the node at `from` to one that the index does not contain, or to the same key. If
    /// memory runs out, nothing has changed.
    void rekey(Key from, Key to) {
        if (from == to) {
            return;
        }
        make_room(to);
        Owned<Node>& target = place(to);
        const Position source = floor(from);
        target = std::move(leaves_[source.leaf]->nodes[source.slot]);
        erase(source);
    }

private:
    static constexpr std::size_t leaf_capacity = 64;

    struct Leaf {
        std::size_t count = 0;
        std::array<Key, leaf_capacity> keys;
        std::array<Owned<Node>, leaf_capacity> nodes;
    };

    /// The leaf to which `key` belongs.
    [[nodiscard]] std::size_t leaf_for(Key key) const noexcept {
        const std::size_t not_above = count_not_above(firsts_.data(), firsts_.size(), key);
        return not_above == 0 ? 0 : not_above - 1;
    }

    /// Creates an empty entry for `key`, for which there must be room.
    Owned<Node>& place(Key key) noexcept {
        if (leaves_.empty()) {
            leaves_.push_back(std::move(spare_));
            firsts_.push_back(key);
        }
        const std::size_t index = leaf_for(key);
        Leaf& leaf = *leaves_[index];
        const std::size_t slot = count_not_above(leaf.keys.data(), leaf.count, key);
        for (std::size_t i = leaf.count; i > slot; --i) {
            leaf.keys[i] = leaf.keys[i - 1];
            leaf.nodes[i] = std::move(leaf.nodes[i - 1]);
        }
        leaf.keys[slot] = key;
        ++leaf.count;
        firsts_[index] = leaf.keys[0];
        return leaf.nodes[slot];
    }

    /// Moves the upper half of a full leaf into a new one; if the keys arrive in ascending order, only the
    /// last key, so that the leaves stay full.
    void split(std::size_t index, bool ascending) {
        auto fresh = Owned<Leaf>(new Leaf);
        firsts_.reserve(firsts_.size() + 1);
        leaves_.reserve(leaves_.size() + 1);
        Leaf& leaf = *leaves_[index];
        const std::size_t kept = ascending ? leaf_capacity - 1 : leaf_capacity / 2;
        fresh->count = leaf_capacity - kept;
        for (std::size_t i = kept; i < leaf_capacity; ++i) {
            fresh->keys[i - kept] = leaf.keys[i];
            fresh->nodes[i - kept] = std::move(leaf.nodes[i]);
        }
        leaf.count = kept;
        const auto after = static_cast<std::ptrdiff_t>(index) + 1;
        firsts_.insert(firsts_.begin() + after, fresh->keys[0]);
        leaves_.insert(leaves_.begin() + after, std::move(fresh));
    }

    /// Removes the entry at `position`, whose node has been moved out.
    void erase(Position position) noexcept {
        Leaf& leaf = *leaves_[position.leaf];
        for (std::size_t i = position.slot + 1; i < leaf.count; ++i) {
            leaf.keys[i - 1] = leaf.keys[i];
            leaf.nodes[i - 1] = std::move(leaf.nodes[i]);
        }
        --leaf.count;
        const auto at = static_cast<std::ptrdiff_t>(position.leaf);
        if (leaf.count == 0) {
            firsts_.erase(firsts_.begin() + at);
            leaves_.erase(leaves_.begin() + at);
        } else {
            firsts_[position.leaf] = leaf.keys[0];
        }
    }

    std::vector<Key> firsts_;
    std::vector<Owned<Leaf>> leaves_;
    /// The leaf that the index will use first.
    Owned<Leaf> spare_;
    std::size_t size_ = 0;
};

}  // namespace vmdevice::inline v0_2::detail
