// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "memory/guest_memory.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <limits>
#include <string>
#include <unistd.h>

#include <vmsuperio/linux/unique_fd.hpp>

#include "catch.hpp"
#include "util/error.hpp"

using kvm_vmm::GuestMemory;

namespace {
constexpr std::uint64_t mib = 1ULL << 20U;
constexpr std::uint64_t gib = 1ULL << 30U;
}  // namespace

TEST_CASE("GuestMemory: small RAM is one region from 0", "[memory]") {
    const GuestMemory memory(4 * mib);
    REQUIRE(memory.regions().size() == 1);
    CHECK(memory.regions().front().guest_address == 0);
    CHECK(memory.low_end() == 4 * mib);
}

TEST_CASE("GuestMemory: RAM beyond the gap continues at 4 GiB", "[memory]") {
    const GuestMemory memory(5 * gib);
    REQUIRE(memory.regions().size() == 2);
    CHECK(memory.low_end() == GuestMemory::mmio_gap_start);
    CHECK(memory.regions()[1].guest_address == 4 * gib);
    CHECK(memory.regions()[1].host.size() == 2 * gib);
    CHECK(memory.size() == 5 * gib);
    CHECK(memory.slice(6 * gib - 1, 1).has_value());
    CHECK_FALSE(memory.slice(6 * gib, 1).has_value());
    CHECK_FALSE(memory.slice(GuestMemory::mmio_gap_start, 1).has_value());
    // No access spans the gap.
    CHECK_FALSE(memory.slice(GuestMemory::mmio_gap_start - 1, gib + 2).has_value());
}

TEST_CASE("GuestMemory: exactly as much RAM as fits below the gap is one region", "[memory]") {
    CHECK(GuestMemory(GuestMemory::mmio_gap_start).regions().size() == 1);
    CHECK(GuestMemory(GuestMemory::mmio_gap_start + 4096).regions().size() == 2);
}

TEST_CASE("GuestMemory: ranges are checked as a whole and without overflow", "[memory]") {
    GuestMemory memory(mib);
    constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
    CHECK(memory.slice(0, mib).has_value());
    CHECK_FALSE(memory.slice(0, mib + 1).has_value());
    CHECK_FALSE(memory.slice(1, mib).has_value());
    CHECK_FALSE(memory.slice(1, most).has_value());
    CHECK_FALSE(memory.slice(most, 2).has_value());
    CHECK_FALSE(memory.slice(most, most).has_value());

    const std::array<std::uint8_t, 4> bytes{1, 2, 3, 4};
    CHECK(memory.write(mib - 4, bytes));
    CHECK_FALSE(memory.write(mib - 3, bytes));
    std::array<std::uint8_t, 4> back{};
    CHECK(memory.read(mib - 4, back));
    CHECK(back == bytes);
    CHECK_FALSE(memory.read(mib - 3, back));
    CHECK(memory.read_object<std::uint32_t>(mib - 4) == 0x04030201U);
    CHECK_FALSE(memory.read_object<std::uint32_t>(mib - 3).has_value());
    CHECK_FALSE(memory.write_object(mib - 3, std::uint32_t{}));
}

TEST_CASE("GuestMemory: more than the address space is one clear error", "[memory]") {
    CHECK_THROWS_AS(GuestMemory(1ULL << 62U), kvm_vmm::VmmError);
}

TEST_CASE("GuestMemory: the host address of RAM is a multiple of 2 MiB", "[memory]") {
    for (const std::uint64_t size : {4096 * std::uint64_t{1}, 3 * mib, 128 * mib, 5 * gib}) {
        const GuestMemory memory(size);
        for (const GuestMemory::Region& region : memory.regions()) {
            CHECK(std::bit_cast<std::uintptr_t>(region.host.data()) % (2 * mib) == 0);
        }
    }
}

TEST_CASE("GuestMemory: memory that is given back reads as zero and can be used again", "[memory]") {
    GuestMemory memory(4UL << 20U);
    const std::array<std::uint8_t, 3> bytes{1, 2, 3};
    REQUIRE(memory.write(0, bytes));
    REQUIRE(memory.write((4UL << 20U) - 3, bytes));
    CHECK(memory.give_back());
    std::array<std::uint8_t, 3> read{9, 9, 9};
    for (const std::uint64_t address : {std::uint64_t{0}, (std::uint64_t{4} << 20U) - 3}) {
        REQUIRE(memory.read(address, read));
        CHECK(read == std::array<std::uint8_t, 3>{0, 0, 0});
    }
    REQUIRE(memory.write(0, bytes));
    REQUIRE(memory.read(0, read));
    CHECK(read == bytes);
}

TEST_CASE("GuestMemory: core files do not contain it", "[memory]") {
    const kvm_vmm::GuestMemory memory(16ULL << 20U);
    for (const auto& region : memory.regions()) {
        const auto start = reinterpret_cast<std::uintptr_t>(region.host.data());
        std::ifstream maps("/proc/self/smaps");
        bool inside = false;
        bool left_out = false;
        for (std::string line; std::getline(maps, line);) {
            unsigned long long from = 0;
            unsigned long long to = 0;
            if (std::sscanf(line.c_str(), "%llx-%llx ", &from, &to) == 2) {
                inside = from <= start && start < to;
            } else if (inside && line.starts_with("VmFlags:")) {
                left_out = line.find(" dd") != std::string::npos;
            }
        }
        CHECK(left_out);
    }
}

TEST_CASE("GuestMemory: nothing can be accessed before and after a region", "[memory]") {
    const GuestMemory memory(GuestMemory::mmio_gap_start + 4 * mib);
    REQUIRE(memory.regions().size() == 2);
    vmsuperio::UniqueFd source(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    const auto writable = [&](std::uint8_t* at) { return ::read(source.get(), at, 1) == 1; };
    for (const auto& region : memory.regions()) {
        std::uint8_t* const end = region.host.data() + region.host.size();
        CHECK(writable(region.host.data()));
        CHECK(writable(end - 1));
        for (std::uint8_t* const outside :
             {region.host.data() - 4096, region.host.data() - 1, end, end + 4095}) {
            CHECK_FALSE(writable(outside));
            CHECK(errno == EFAULT);
        }
    }
}
