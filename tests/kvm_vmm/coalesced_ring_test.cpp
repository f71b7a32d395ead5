// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "catch.hpp"
#include "kernel_ring.hpp"
#include "vmm/drain_pace.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Run {
    bool pio;
    std::uint64_t address;
    std::size_t width;
    Bytes data;
    friend bool operator==(const Run&, const Run&) = default;
};

// Drains the ring. `valid` is the result of drain().
std::vector<Run> drain(CoalescedRing ring, bool valid = true) {
    std::vector<Run> runs;
    CHECK(ring.drain([&runs](const CoalescedRun& run) {
        runs.push_back({run.pio, run.address, run.width, Bytes(run.data.begin(), run.data.end())});
    }) == valid);
    return runs;
}

constexpr std::uint16_t com1 = 0x3F8;
constexpr std::uint16_t com2 = 0x2F8;

}  // namespace

TEST_CASE("Coalesced ring: runs to one port, in the order of the writes", "[coalesce]") {
    KernelRing kernel;
    CHECK(kernel.ring().empty());
    CHECK(drain(kernel.ring()).empty());
    for (const auto& [port, byte] : std::vector<std::pair<std::uint16_t, std::uint8_t>>{
             {com1, 'a'}, {com1, 'b'}, {com2, 'c'}, {com1, 'd'}, {0x70, 0x0A}}) {
        CHECK(kernel.write_port(port, byte));
    }
    CHECK_FALSE(kernel.ring().empty());
    CHECK(drain(kernel.ring()) == std::vector<Run>{{true, com1, 1, {'a', 'b'}},
                                                   {true, com2, 1, {'c'}},
                                                   {true, com1, 1, {'d'}},
                                                   {true, 0x70, 1, {0x0A}}});
    CHECK(kernel.ring().empty());
    CHECK(drain(kernel.ring()).empty());
}

TEST_CASE("Coalesced ring: writes of other widths and to memory", "[coalesce]") {
    KernelRing kernel;
    const Bytes bytes{1, 2, 3, 4, 5, 6, 7, 8};
    const auto add = [&](std::uint64_t address, std::size_t size, bool pio) {
        CHECK(kernel.add(address, std::span(bytes).first(size), pio));
    };
    add(com1, 2, true);
    add(com1, 2, true);
    add(com1, 1, true);
    add(com1, 3, true);  // not the width of a string instruction: each by itself
    add(com1, 3, true);
    add(0xD000'0000, 1, false);  // memory: each by itself
    add(0xD000'0000, 1, false);
    add(0xFFFF'FFFF'FFFF'FFF8, 8, false);
    CHECK(drain(kernel.ring()) == std::vector<Run>{{true, com1, 2, {1, 2, 1, 2}},
                                                   {true, com1, 1, {1}},
                                                   {true, com1, 3, {1, 2, 3}},
                                                   {true, com1, 3, {1, 2, 3}},
                                                   {false, 0xD000'0000, 1, {1}},
                                                   {false, 0xD000'0000, 1, {1}},
                                                   {false, 0xFFFF'FFFF'FFFF'FFF8, 8, bytes}});
}

TEST_CASE("Coalesced ring: full and around its end", "[coalesce]") {
    KernelRing kernel;
    std::uint8_t next = 0;
    for (std::size_t offset = 0; offset < 2 * CoalescedRing::entry_count; offset += 7) {
        Bytes written;
        while (kernel.write_port(com1, next)) {
            written.push_back(next++);
        }
        CHECK(written.size() == CoalescedRing::entry_count - 1);
        CHECK(drain(kernel.ring()) == std::vector<Run>{{true, com1, 1, written}});
        // Moves the start for the next round.
        for (int i = 0; i < 7; ++i) {
            CHECK(kernel.write_port(com1, 0));
        }
        CHECK(drain(kernel.ring()) == std::vector<Run>{{true, com1, 1, Bytes(7)}});
    }
}

TEST_CASE("Coalesced ring: a run leaves the ring after its delivery", "[coalesce]") {
    KernelRing kernel;
    CHECK(kernel.write_port(com1, 'a'));
    CHECK(kernel.write_port(com2, 'b'));
    std::vector<std::uint32_t> firsts;
    CHECK(kernel.ring().drain([&](const CoalescedRun&) {
        CHECK_FALSE(kernel.ring().empty());
        firsts.push_back(kernel.page.first);
    }));
    CHECK(firsts == std::vector<std::uint32_t>{0, 1});
    CHECK(kernel.page.first == 2);
}

TEST_CASE("Coalesced ring: writes that are added during a drain stay for the next", "[coalesce]") {
    KernelRing kernel;
    CHECK(kernel.write_port(com1, 'a'));
    int deliveries = 0;
    CHECK(kernel.ring().drain([&](const CoalescedRun&) {
        ++deliveries;
        CHECK(kernel.write_port(com1, 'b'));
    }));
    CHECK(deliveries == 1);
    CHECK(drain(kernel.ring()) == std::vector<Run>{{true, com1, 1, {'b'}}});
}

TEST_CASE("Coalesced ring: invalid indices and entries are refused", "[coalesce]") {
    constexpr std::uint32_t largest = std::numeric_limits<std::uint32_t>::max();
    for (const std::uint32_t bad : {CoalescedRing::entry_count, CoalescedRing::entry_count + 1, largest}) {
        KernelRing kernel;
        kernel.page.last = bad;
        CHECK(drain(kernel.ring(), false).empty());
        kernel.page = {};
        kernel.page.first = bad;
        CHECK(drain(kernel.ring(), false).empty());
        kernel.page.last = bad;  // equal, which is no valid empty ring
        CHECK(drain(kernel.ring(), false).empty());
    }
    // The largest valid indices.
    KernelRing kernel;
    kernel.page.first = kernel.page.last = CoalescedRing::entry_count - 1;
    CHECK(kernel.write_port(com1, 'x'));
    CHECK(drain(kernel.ring()) == std::vector<Run>{{true, com1, 1, {'x'}}});
    CHECK(kernel.page.first == 0);

    using Entry = CoalescedRing::Entry;
    for (const Entry& bad : {Entry{.address = com1, .length = 0, .pio = 1, .data = {}},
                             Entry{.address = com1, .length = 9, .pio = 1, .data = {}},
                             Entry{.address = com1, .length = largest, .pio = 1, .data = {}},
                             Entry{.address = com1, .length = 1, .pio = 2, .data = {}},
                             Entry{.address = 0x1'03F8, .length = 1, .pio = 1, .data = {}}}) {
        KernelRing ring;
        CHECK(ring.write_port(com2, 'y'));
        ring.page.entries.at(1) = bad;
        ring.page.last = 2;
        CHECK(drain(ring.ring(), false).size() <= 1);  // what precedes it may be delivered
    }
}

TEST_CASE("Coalesced ring: a thread that finds it empty sees what the deliveries did", "[coalesce]") {
    KernelRing kernel;
    std::uint64_t delivered = 0;  // not atomic: ThreadSanitizer checks the order
    constexpr std::uint64_t count = 20'000;
    std::jthread drainer([&] {
        std::uint64_t seen = 0;
        while (seen < count) {
            CHECK(kernel.ring().drain([&](const CoalescedRun& run) {
                delivered += run.data.size();
                seen += run.data.size();
            }));
        }
    });
    for (std::uint64_t written = 0; written < count;) {
        while (!kernel.write_port(com1, 0)) {
            std::this_thread::yield();
        }
        ++written;
        if (written % 97 == 0) {
            while (!kernel.ring().empty()) {
                std::this_thread::yield();
            }
            REQUIRE(delivered == written);
        }
    }
}

// --- DrainPace

namespace {

using std::chrono::microseconds;
using Action = DrainPace::Action;

// The time until the next look in us, and 0 if there is none of its own.
std::int64_t next_us(const DrainPace::Look& look) { return look.next ? look.next->count() : 0; }

}  // namespace

TEST_CASE("Drain pace: an idle guest causes no look", "[coalesce]") {
    DrainPace pace;
    for (int i = 0; i < 10; ++i) {
        const auto look = pace.look(false, 0);
        CHECK(look.action == Action::none);
        CHECK_FALSE(look.next.has_value());
    }
}

TEST_CASE("Drain pace: writes that no CPU delivers are delivered soon, and the looks end after them",
          "[coalesce]") {
    DrainPace pace;
    for (int i = 0; i < 3; ++i) {
        const auto look = pace.look(true, 0);
        CHECK(look.action == Action::deliver);
        CHECK(next_us(look) == 200);
    }
    std::vector<std::int64_t> times;
    do {
        const auto look = pace.look(false, 0);
        CHECK(look.action == Action::none);
        times.push_back(next_us(look));
    } while (times.back() != 0);
    CHECK(times == std::vector<std::int64_t>{400, 800, 1600, 3200, 6400, 12'800, 0});
}

TEST_CASE("Drain pace: CPUs that deliver their writes do not shorten the time", "[coalesce]") {
    DrainPace pace;
    std::uint64_t delivered = 0;
    std::int64_t looks = 0;
    std::int64_t time_us = 0;
    while (time_us < 1'000'000) {  // each look finds writes, of CPUs that deliver continuously
        const std::int64_t next = next_us(pace.look(true, delivered += 100));
        time_us += next == 0 ? 20'000 : next;
        ++looks;
    }
    CHECK(looks <= 100);  // 50 with the check for a halt, and at most one more for each
}

TEST_CASE("Drain pace: writes after those that a CPU delivered itself wait for the shortest time only",
          "[coalesce]") {
    // A handler that writes, reads a register, writes again and halts.
    DrainPace pace;
    for (std::uint64_t round = 1; round < 10; ++round) {
        const auto first = pace.look(true, round);
        CHECK(first.action == Action::none);
        CHECK(next_us(first) == 200);
        const auto second = pace.look(true, round);
        CHECK(second.action == Action::deliver);
        CHECK(next_us(second) == 200);
    }
}

TEST_CASE("Drain pace: no writes are left to the CPUs twice in a row", "[coalesce]") {
    DrainPace pace;
    std::uint64_t delivered = 0;
    for (int i = 0; i < 100; ++i) {
        const auto first = pace.look(true, ++delivered);
        const auto second = pace.look(true, ++delivered);
        CHECK((first.action == Action::deliver || second.action == Action::deliver));
    }
}
