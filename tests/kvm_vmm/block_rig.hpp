// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// A virtio disk with its driver, for tests, and a disk whose host can be made to fail.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <expected>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "virtio/block.hpp"
#include "virtio/disk_file.hpp"
#include "virtio/make_disk_engine.hpp"
#include "virtio/uring_engine.hpp"
#include "virtio_mmio_driver.hpp"

namespace kvm_vmm::test {

using Bytes = std::vector<std::uint8_t>;

inline void append(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }

/// Bytes that differ from sector to sector.
inline Bytes pattern(std::size_t size, unsigned seed = 1) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<std::uint8_t>(i * 7 + i / 251 + seed * 31 + 1);
    }
    return bytes;
}

/// A disk in memory. What the host does with the next requests can be chosen.
class FakeDisk final : public virtio::DiskFile {
public:
    explicit FakeDisk(std::size_t size) : content(size), next_size(size) { facts_.size = size; }

    [[nodiscard]] const virtio::DiskFacts& facts() const noexcept override { return facts_; }
    [[nodiscard]] std::expected<std::uint64_t, std::string> find_size() override {
        const std::lock_guard lock(mutex_);
        ++size_checks;
        return next_size;
    }
    void set_size(std::uint64_t size) noexcept override { facts_.size = size; }
    [[nodiscard]] int descriptor(bool) const noexcept override { return -1; }

    [[nodiscard]] std::int64_t read(std::span<const iovec> memory, std::uint64_t offset,
                                    bool aligned) noexcept override {
        const std::unique_lock lock = enter(memory, offset, aligned);
        return transfer(memory, offset, [](std::byte* disk, std::byte* guest, std::size_t size) {
            std::memcpy(guest, disk, size);
        });
    }
    [[nodiscard]] std::int64_t write(std::span<const iovec> memory, std::uint64_t offset, bool aligned,
                                     bool durable) noexcept override {
        const std::unique_lock lock = enter(memory, offset, aligned);
        durable_writes += durable ? 1U : 0U;
        return transfer(memory, offset, [](std::byte* disk, std::byte* guest, std::size_t size) {
            std::memcpy(disk, guest, size);
        });
    }
    [[nodiscard]] int flush() noexcept override {
        const std::unique_lock lock = enter({}, 0, true);
        ++flushes;
        return static_cast<int>(next_result().value_or(0));
    }
    [[nodiscard]] int discard(std::uint64_t offset, std::uint64_t length) noexcept override {
        const std::unique_lock lock = enter({}, 0, true);
        discarded.emplace_back(offset, length);
        return static_cast<int>(next_result().value_or(0));
    }
    [[nodiscard]] int write_zeroes(std::uint64_t offset, std::uint64_t length, bool unmap) noexcept override {
        const std::unique_lock lock = enter({}, 0, true);
        (unmap ? unmapped : zeroed).emplace_back(offset, length);
        return static_cast<int>(next_result().value_or(0));
    }

    /// Requests of this offset and above wait from now on, until release().
    void hold(std::uint64_t from = 0) {
        const std::lock_guard lock(mutex_);
        held_from_ = from;
    }
    void release() {
        const std::lock_guard lock(mutex_);
        held_from_.reset();
        changed_.notify_all();
    }
    /// Waits until so many requests have begun, and returns whether they have.
    [[nodiscard]] bool wait_for_begun(std::size_t count) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return begun_ >= count; });
    }
    [[nodiscard]] std::size_t begun() {
        const std::lock_guard lock(mutex_);
        return begun_;
    }

    using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

    virtio::DiskFacts facts_;
    Bytes content;
    std::expected<std::uint64_t, std::string> next_size;  ///< what the host finds
    std::atomic<std::size_t> size_checks{0};
    /// What the next calls return: a number of bytes that is smaller than wanted, or an error.
    std::deque<std::int64_t> results;
    std::atomic<std::size_t> durable_writes{0};
    std::atomic<std::size_t> flushes{0};
    std::atomic<std::size_t> misaligned{0};  // calls with `aligned` that were not
    std::atomic<std::size_t> cached{0};      // calls without `aligned`
    Ranges discarded;
    Ranges zeroed;
    Ranges unmapped;

private:
    std::unique_lock<std::mutex> enter(std::span<const iovec> memory, std::uint64_t offset, bool aligned) {
        std::unique_lock lock(mutex_);
        ++begun_;
        changed_.notify_all();
        changed_.wait(lock, [this, offset] { return !held_from_ || offset < *held_from_; });
        if (!aligned) {
            ++cached;
            return lock;
        }
        const auto bad = [this](const iovec& piece) {
            return reinterpret_cast<std::uintptr_t>(piece.iov_base) % facts_.memory_alignment != 0 ||
                   piece.iov_len % facts_.offset_alignment != 0;
        };
        misaligned += offset % facts_.offset_alignment != 0 || std::ranges::any_of(memory, bad) ? 1U : 0U;
        return lock;
    }
    std::optional<std::int64_t> next_result() {
        if (results.empty()) {
            return std::nullopt;
        }
        const std::int64_t result = results.front();
        results.pop_front();
        return result;
    }
    template <class Copy>
    std::int64_t transfer(std::span<const iovec> memory, std::uint64_t offset, Copy copy) {
        std::size_t limit = content.size() - static_cast<std::size_t>(offset);
        if (const auto result = next_result()) {
            if (*result <= 0) {
                return *result;
            }
            limit = std::min(limit, static_cast<std::size_t>(*result));
        }
        std::size_t done = 0;
        for (const iovec& piece : memory) {
            const std::size_t size = std::min(piece.iov_len, limit - done);
            copy(reinterpret_cast<std::byte*>(content.data()) + offset + done,
                 static_cast<std::byte*>(piece.iov_base), size);
            done += size;
        }
        return static_cast<std::int64_t>(done);
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<std::uint64_t> held_from_;
    std::size_t begun_{0};
};

inline constexpr std::uint8_t no_status = 0xEE;

struct Answer {
    std::uint8_t status;    ///< 0xEE if the device has not written it
    std::uint32_t written;  ///< as in the used ring
    Bytes data;
    friend bool operator==(const Answer&, const Answer&) = default;
};

struct BlockRig {
    explicit BlockRig(virtio::DiskFile& file, virtio::Block::Options options = {.id = "serial"},
                      virtio::DiskEngineKind kind = virtio::DiskEngineKind::threads)
        : rig([&](DeviceRig& r) {
              return block = std::make_shared<virtio::Block>(
                         "disk0", r.counters, file, options,
                         [&](virtio::DiskFile& f) { return virtio::make_disk_engine(kind, "disk0", f); });
          }) {
        // Before the device can write there: the buffers of all requests (DeviceRig::allocate()).
        constexpr std::uint64_t first = 0x40'0000;
        REQUIRE(rig.memory.write(first, Bytes(rig.memory.low_end() - first, no_status)));
    }
    DeviceRig* operator->() { return &rig; }

    static Bytes header(std::uint32_t type, std::uint64_t sector) {
        Bytes bytes(16);
        std::memcpy(bytes.data(), &type, 4);
        std::memcpy(bytes.data() + 8, &sector, 8);
        return bytes;
    }
    static Bytes range(std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags = 0) {
        Bytes bytes(16);
        std::memcpy(bytes.data(), &sector, 8);
        std::memcpy(bytes.data() + 8, &sectors, 4);
        std::memcpy(bytes.data() + 12, &flags, 4);
        return bytes;
    }

    /// Offers a request with a header, `sent`, room for `received` bytes, and a status of its own.
    void offer(std::uint32_t type, std::uint64_t sector, const Bytes& sent, std::uint32_t received,
               std::uint32_t queue = 0) {
        Bytes all = header(type, sector);
        append(all, sent);
        std::vector<std::uint32_t> sizes;
        if (received != 0) {
            sizes.push_back(received);
        }
        sizes.push_back(1);
        rig.offer(queue, all, sizes);
    }
    Answer wait(std::uint32_t received, std::uint32_t queue = 0) {
        std::optional<DriverQueue::Used> used;
        REQUIRE(rig.run_until([&] { return (used = rig.queues.at(queue)->take_used()).has_value(); }));
        Bytes bytes = rig.received(received + 1);
        const std::uint8_t status = bytes.back();
        bytes.pop_back();
        return {.status = status, .written = used->written, .data = std::move(bytes)};
    }
    /// One request, from its begin to its end.
    Answer request(std::uint32_t type, std::uint64_t sector, const Bytes& sent, std::uint32_t received,
                   std::uint32_t queue = 0) {
        offer(type, sector, sent, received, queue);
        rig.notify(queue);
        return wait(received, queue);
    }
    Answer read(std::uint64_t sector, std::uint32_t size) {
        return request(virtio::block_request::in, sector, {}, size);
    }
    Answer write(std::uint64_t sector, const Bytes& data) {
        return request(virtio::block_request::out, sector, data, 0);
    }
    Answer flush() { return request(virtio::block_request::flush, 0, {}, 0); }

    [[nodiscard]] std::uint64_t counter(std::string_view name) { return rig.counters[name].value(); }

    std::shared_ptr<virtio::Block> block;
    DeviceRig rig;
};

inline constexpr std::uint8_t ok = 0;
inline constexpr std::uint8_t io_error = 1;
inline constexpr std::uint8_t unsupported = 2;

}  // namespace kvm_vmm::test
