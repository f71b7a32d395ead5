// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "memory/guest_memory.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <string>
#include <sys/mman.h>
#include <utility>

#include "util/error.hpp"

namespace kvm_vmm {
namespace {

constexpr std::uint64_t huge_page = 2ULL << 20U;
constexpr std::uint64_t page_size = 4096;  // of x86_64

// Before and after each region: an access past its end ends this program instead of changing its data.
constexpr std::uint64_t guard = 4096;

// Maps RAM at a multiple of 2 MiB, like the guest addresses: only then can KVM map a huge page of the host as
// one of the guest.
std::span<std::uint8_t> map_ram(std::uint64_t size, bool huge_pages) {
    const std::uint64_t reserved = size + 2 * huge_page;
    void* const mapped =
        ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    auto* const start = static_cast<std::uint8_t*>(mapped);
    const std::uint64_t before =
        mapped == MAP_FAILED ? 0 : guard + -(std::bit_cast<std::uintptr_t>(start) + guard) % huge_page;
    if (mapped == MAP_FAILED || ::mprotect(start + before, size, PROT_READ | PROT_WRITE) != 0) {
        const int error_number = errno;
        if (mapped != MAP_FAILED) {
            ::munmap(mapped, reserved);
        }
        throw VmmError(ExitCode::vmm_error,
                       errno_message("cannot reserve " + std::to_string(size >> 20U) + " MiB of guest memory",
                                     error_number));
    }
    // What is left of the alignment; the guards stay.
    if (before > guard) {
        ::munmap(start, before - guard);
    }
    const std::uint64_t end = before + size + guard;
    ::munmap(start + end, reserved - end);
    // A core file serves to find faults of this program, and must not contain the guest's data.
    ::madvise(start + before, size, MADV_DONTDUMP);
    // One fault for each 2 MiB instead of 512, and as many fewer for the guest. An error means a kernel without
    // transparent huge pages, and has no other effect.
    if (huge_pages) {
        ::madvise(start + before, size, MADV_HUGEPAGE);
    }
    return {start + before, size};
}

void unmap_ram(std::span<std::uint8_t> ram) { ::munmap(ram.data() - guard, ram.size() + 2 * guard); }

}  // namespace

GuestMemory::GuestMemory(std::uint64_t size, bool huge_pages) : size_(size) {
    regions_.reserve(2);
    const std::uint64_t low = std::min(size, mmio_gap_start);
    regions_.push_back({0, map_ram(low, huge_pages)});
    if (size > low) {
        try {
            regions_.push_back({mmio_gap_end, map_ram(size - low, huge_pages)});
        } catch (...) {
            unmap_ram(regions_.front().host);
            throw;
        }
    }
}

GuestMemory::~GuestMemory() {
    for (const Region& region : regions_) {
        unmap_ram(region.host);
    }
}

GuestMemory::GuestMemory(GuestMemory&& other) noexcept
    : size_(std::exchange(other.size_, 0)), regions_(std::exchange(other.regions_, {})) {}

std::optional<std::span<std::uint8_t>> GuestMemory::slice(std::uint64_t address,
                                                          std::uint64_t length) const noexcept {
    for (const Region& region : regions_) {
        if (address >= region.guest_address && address - region.guest_address <= region.host.size()) {
            const std::uint64_t offset = address - region.guest_address;
            if (length <= region.host.size() - offset) {
                return region.host.subspan(offset, length);
            }
        }
    }
    return std::nullopt;
}

bool GuestMemory::write(std::uint64_t address, std::span<const std::uint8_t> bytes) noexcept {
    const auto target = slice(address, bytes.size());
    if (target) {
        copy_to_guest(target->data(), bytes);
    }
    return target.has_value();
}

bool GuestMemory::read(std::uint64_t address, std::span<std::uint8_t> bytes) const noexcept {
    const auto source = slice(address, bytes.size());
    if (source) {
        copy_from_guest(bytes, source->data());
    }
    return source.has_value();
}

std::optional<std::uint64_t> GuestMemory::discard(std::span<std::uint8_t> bytes) const noexcept {
    const auto inside = [bytes](const Region& region) {
        const auto first = std::bit_cast<std::uintptr_t>(region.host.data());
        const auto wanted = std::bit_cast<std::uintptr_t>(bytes.data());
        return wanted >= first && wanted - first <= region.host.size() &&
               bytes.size() <= region.host.size() - (wanted - first);
    };
    if (std::ranges::none_of(regions_, inside)) {
        return std::nullopt;
    }
    const std::uint64_t before = -std::bit_cast<std::uintptr_t>(bytes.data()) % page_size;
    if (bytes.size() < before + page_size) {
        return 0;
    }
    const std::uint64_t whole = (bytes.size() - before) / page_size * page_size;
    return ::madvise(bytes.data() + before, whole, MADV_DONTNEED) == 0 ? std::optional(whole) : std::nullopt;
}

bool GuestMemory::give_back() noexcept {
    return std::ranges::all_of(regions_, [](const Region& region) {
        return ::madvise(region.host.data(), region.host.size(), MADV_DONTNEED) == 0;
    });
}

}  // namespace kvm_vmm
