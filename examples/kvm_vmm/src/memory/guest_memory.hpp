// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "memory/shared_copy.hpp"

namespace kvm_vmm {

/// A part of the guest's physical address space.
struct GuestRange {
    std::uint64_t address;
    std::uint64_t size;  ///< bytes
};

/// The guest's RAM: one region below the MMIO gap and, if there is more RAM, one from 4 GiB up.
///
/// All accessors check bounds and work on whole ranges inside one region. In the host's address space a page that
/// cannot be accessed is before and after each region. Guest CPUs may write the same
/// bytes at the same time, so data read from here is read once, copied, and validated after that.
class GuestMemory {
public:
    /// The end of RAM below 4 GiB; LAPIC, IOAPIC and virtio-mmio are between this address and 4 GiB.
    static constexpr std::uint64_t mmio_gap_start = 0xC000'0000;
    static constexpr std::uint64_t mmio_gap_end = 0x1'0000'0000;

    struct Region {
        std::uint64_t guest_address;
        std::span<std::uint8_t> host;
    };

    /// Reserves `size` bytes of zeroed RAM, a multiple of the page size and not 0. Throws VmmError if the
    /// host refuses. With `huge_pages`, the host is asked to use pages of 2 MiB, which it does if it has them at the time
    /// of the first access.
    explicit GuestMemory(std::uint64_t size, bool huge_pages = true);
    ~GuestMemory();
    GuestMemory(const GuestMemory&) = delete;
    GuestMemory& operator=(const GuestMemory&) = delete;
    GuestMemory(GuestMemory&& other) noexcept;
    GuestMemory& operator=(GuestMemory&&) = delete;

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    [[nodiscard]] const std::vector<Region>& regions() const noexcept { return regions_; }
    /// End of the region that starts at 0.
    [[nodiscard]] std::uint64_t low_end() const noexcept { return regions_.front().host.size(); }

    /// The host bytes of [address, address + length), or nothing if a part of it is not RAM.
    [[nodiscard]] std::optional<std::span<std::uint8_t>> slice(std::uint64_t address,
                                                               std::uint64_t length) const noexcept;

    [[nodiscard]] bool write(std::uint64_t address, std::span<const std::uint8_t> bytes) noexcept;
    [[nodiscard]] bool read(std::uint64_t address, std::span<std::uint8_t> bytes) const noexcept;

    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] bool write_object(std::uint64_t address, const T& object) noexcept {
        const auto target = slice(address, sizeof(T));
        if (!target) {
            return false;
        }
        copy_to_guest(target->data(), {reinterpret_cast<const std::uint8_t*>(&object), sizeof(T)});
        return true;
    }
    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] std::optional<T> read_object(std::uint64_t address) const noexcept {
        const auto source = slice(address, sizeof(T));
        if (!source) {
            return std::nullopt;
        }
        T object;
        copy_from_guest({reinterpret_cast<std::uint8_t*>(&object), sizeof(T)}, source->data());
        return object;
    }

    /// Returns the whole pages among `bytes`, a part of RAM that slice() returned, to the host, after which they
    /// read as zero. Parts of pages at either end stay as they are. Returns the number of bytes, or nothing if
    /// `bytes` is no part of RAM or the host refuses. CPUs may run.
    [[nodiscard]] std::optional<std::uint64_t> discard(std::span<std::uint8_t> bytes) const noexcept;

    /// Returns all pages to the host, after which RAM reads as zero. No CPU may run any more. Returns false
    /// if the host refuses, as for locked memory.
    bool give_back() noexcept;

private:
    std::uint64_t size_;
    std::vector<Region> regions_;
};

}  // namespace kvm_vmm
