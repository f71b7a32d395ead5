// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The device's side of a split virtqueue, against drivers that keep the rules and drivers that do not.
#include "virtio/split_queue.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "virtio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::DriverQueue;

namespace {

constexpr std::uint64_t ram = 1U << 20U;
constexpr QueueLayout layout{.descriptors = 0x1000, .available = 0x2000, .used = 0x3000, .size = 8};
constexpr std::uint64_t buffers = 0x10000;
constexpr QueueFeatures all_features{.indirect_descriptors = true, .event_index = true};

struct Rig {
    explicit Rig(QueueFeatures features = {}, QueueLayout where = layout, const QueueState& state = {})
        : driver(memory, where), queue(SplitQueue::create(memory, where, features, state).value()) {}

    std::string pop_error() {
        const auto chain = queue.pop();
        return chain ? "(no error)" : std::string(to_string(chain.error()));
    }
    Chain pop() {
        auto chain = queue.pop();
        REQUIRE(chain.has_value());
        REQUIRE(chain->has_value());
        return **chain;
    }
    bool is_empty() {
        const auto chain = queue.pop();
        REQUIRE(chain.has_value());
        return !chain->has_value();
    }

    GuestMemory memory{ram};
    DriverQueue driver;
    SplitQueue queue;
};

std::string text_of(const Buffers& from, std::uint64_t offset = 0, std::size_t size = 1000) {
    std::vector<std::uint8_t> bytes(size);
    bytes.resize(from.read(offset, bytes));
    return {bytes.begin(), bytes.end()};
}

std::span<const std::uint8_t> bytes(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace

TEST_CASE("SplitQueue: a chain's buffers are those of the driver, and come back used", "[virtio]") {
    Rig rig;
    REQUIRE(rig.memory.write(buffers, bytes("hello, world")));
    rig.driver.set(3, {buffers, 5, DriverQueue::next, 1});
    rig.driver.set(1, {buffers + 7, 5, DriverQueue::next, 6});
    rig.driver.set(6, {buffers + 0x100, 4, DriverQueue::device_writes | DriverQueue::next, 2});
    rig.driver.set(2, {buffers + 0x200, 3, DriverQueue::device_writes});
    CHECK(rig.is_empty());
    rig.driver.offer(3);
    const Chain chain = rig.pop();
    CHECK(rig.is_empty());
    CHECK(chain.head == 3);
    CHECK(chain.readable.size() == 10);
    CHECK(text_of(chain.readable) == "helloworld");
    CHECK(text_of(chain.readable, 3, 4) == "lowo");
    CHECK(text_of(chain.readable, 10).empty());
    CHECK(chain.writable.size() == 7);
    CHECK(chain.writable.write(2, bytes("ABCDEFG")) == 5);
    CHECK(rig.memory.read_object<std::uint32_t>(buffers + 0x100) == 0x4241'0000U);
    CHECK(rig.memory.read_object<std::uint32_t>(buffers + 0x200) == 0x0045'4443U);
    CHECK(rig.queue.in_flight() == 1);
    rig.queue.push(chain, 7);
    CHECK_FALSE(rig.driver.take_used());  // not before publish()
    CHECK(rig.queue.publish());
    CHECK(rig.driver.take_used() == DriverQueue::Used{3, 7});
    CHECK_FALSE(rig.driver.take_used());
    CHECK(rig.queue.in_flight() == 0);
    CHECK_FALSE(rig.queue.publish());  // nothing new
}

TEST_CASE("SplitQueue: a batch is published at once, in the order of its return", "[virtio]") {
    Rig rig;
    for (std::uint16_t i = 0; i < 8; ++i) {
        rig.driver.set(i, {buffers + i, 1});
        rig.driver.offer(i);
    }
    std::vector<Chain> chains;
    for (int i = 0; i < 8; ++i) {
        chains.push_back(rig.pop());
    }
    CHECK(rig.is_empty());
    for (const int i : {7, 0, 3, 1}) {
        rig.queue.push(chains.at(static_cast<std::size_t>(i)), 0);
    }
    CHECK(rig.driver.used_index() == 0);
    CHECK(rig.queue.publish());
    CHECK(rig.driver.used_index() == 4);
    for (const std::uint32_t i : {7U, 0U, 3U, 1U}) {
        CHECK(rig.driver.take_used() == DriverQueue::Used{i, 0});
    }
    CHECK(rig.queue.in_flight() == 4);
    // Heads that were returned may be used again, the others not.
    rig.driver.offer(3);
    CHECK(rig.pop().head == 3);
    rig.driver.offer(2);
    CHECK(rig.pop_error() == to_string(QueueError::head_in_use));
}

TEST_CASE("SplitQueue: indices wrap around after 65536 chains", "[virtio]") {
    const auto features = GENERATE(QueueFeatures{}, all_features);
    Rig rig(features);
    rig.driver.set(0, {buffers, 4, DriverQueue::device_writes});
    for (unsigned i = 0; i < 70'000; ++i) {
        rig.driver.offer(0);
        rig.driver.set_used_event(static_cast<std::uint16_t>(i));
        const auto chain = rig.queue.pop();
        REQUIRE((chain && *chain));
        rig.queue.push(**chain, i);
        REQUIRE(rig.queue.publish());
        REQUIRE(rig.driver.take_used() == DriverQueue::Used{0, i});
    }
    CHECK(rig.queue.state().next_available == 70'000 % 65'536);
    CHECK(rig.queue.state().next_used == 70'000 % 65'536);
}

TEST_CASE("SplitQueue: rings that cannot be used are refused by name", "[virtio]") {
    const GuestMemory memory(ram);
    const auto refusal = [&memory](QueueLayout where) {
        const auto queue = SplitQueue::create(memory, where, {});
        return queue ? "(none)" : std::string(to_string(queue.error()));
    };
    CHECK(refusal(layout) == "(none)");
    for (const int size : {0, 3, 6, 12, 0x7FFF, 0x8001, 0xFFFF}) {
        CAPTURE(size);
        QueueLayout where = layout;
        where.size = static_cast<std::uint16_t>(size);
        CHECK(refusal(where) == to_string(QueueError::bad_size));
    }
    for (const auto& [descriptors, available, used] :
         std::vector<std::array<std::uint64_t, 3>>{{8, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 2}, {0, 0, 1}}) {
        CHECK(refusal({layout.descriptors + descriptors, layout.available + available, layout.used + used,
                       8}) == to_string(QueueError::misaligned_ring));
    }
    // To the last byte of RAM, and one unit of alignment more.
    QueueLayout where = layout;
    where.descriptors = ram - 8 * 16;
    CHECK(refusal(where) == "(none)");
    where.descriptors += 16;
    CHECK(refusal(where) == to_string(QueueError::ring_outside_memory));
    where = layout;
    where.available = ram - (6 + 2 * 8);
    CHECK(refusal(where) == "(none)");
    where.available += 2;
    CHECK(refusal(where) == to_string(QueueError::ring_outside_memory));
    where = layout;
    where.used = ram - 72;  // 70 bytes
    CHECK(refusal(where) == "(none)");
    where.used += 4;
    CHECK(refusal(where) == to_string(QueueError::ring_outside_memory));
    for (const std::uint64_t address :
         {~std::uint64_t{15}, std::uint64_t{1} << 63U, std::uint64_t{0xC000'0000}}) {
        CHECK(refusal({address, layout.available, layout.used, 8}) ==
              to_string(QueueError::ring_outside_memory));
        CHECK(refusal({layout.descriptors, address, layout.used, 8}) ==
              to_string(QueueError::ring_outside_memory));
        CHECK(refusal({layout.descriptors, layout.available, address, 8}) ==
              to_string(QueueError::ring_outside_memory));
    }
}

TEST_CASE("SplitQueue: a broken driver breaks its queue for good, and nothing else", "[virtio]") {
    Rig rig(all_features);
    const std::uint64_t table = buffers + 0x1000;
    rig.driver.set(0, {buffers, 16});
    std::string error;
    SECTION("the available index runs ahead") {
        rig.driver.set_available_index(9);
        error = to_string(QueueError::too_many_available);
    }
    SECTION("the available index goes back") {
        rig.driver.set_available_index(0xFFFF);
        error = to_string(QueueError::too_many_available);
    }
    SECTION("a head that is no descriptor") {
        rig.driver.offer(GENERATE(std::uint16_t{8}, std::uint16_t{0xFFFF}));
        error = to_string(QueueError::bad_head);
    }
    SECTION("a next descriptor that is none") {
        rig.driver.set(0, {buffers, 16, DriverQueue::next, 8});
        rig.driver.offer(0);
        error = to_string(QueueError::bad_next);
    }
    SECTION("a loop of one") {
        rig.driver.set(0, {buffers, 16, DriverQueue::next, 0});
        rig.driver.offer(0);
        error = to_string(QueueError::chain_too_long);
    }
    SECTION("a loop of three") {
        rig.driver.set(0, {buffers, 0, DriverQueue::next, 1});
        rig.driver.set(1, {buffers, 0, DriverQueue::next, 2});
        rig.driver.set(2, {buffers, 0, DriverQueue::next, 0});
        rig.driver.offer(0);
        error = to_string(QueueError::chain_too_long);
    }
    SECTION("an indirect table in an indirect table") {
        rig.driver.set(0, {table, 16, DriverQueue::indirect});
        rig.driver.set_in(table, 0, {table, 16, DriverQueue::indirect});
        rig.driver.offer(0);
        error = to_string(QueueError::nested_indirect);
    }
    SECTION("an indirect descriptor that goes on") {
        rig.driver.set(0, {table, 16, DriverQueue::indirect | DriverQueue::next, 1});
        rig.driver.offer(0);
        error = to_string(QueueError::indirect_with_next);
    }
    SECTION("an indirect table of no whole descriptors") {
        rig.driver.set(0, {table, GENERATE(0U, 8U, 17U, 0xFFFF'FFFFU), DriverQueue::indirect});
        rig.driver.offer(0);
        error = to_string(QueueError::bad_indirect_size);
    }
    SECTION("an indirect table outside RAM") {
        rig.driver.set(0, {GENERATE(ram - 16, ram, ~std::uint64_t{15}), 32, DriverQueue::indirect});
        rig.driver.offer(0);
        error = to_string(QueueError::indirect_outside_memory);
    }
    SECTION("an indirect table that is left") {
        rig.driver.set(0, {table, 32, DriverQueue::indirect});
        rig.driver.set_in(table, 0, {buffers, 16, DriverQueue::next, 2});
        rig.driver.offer(0);
        error = to_string(QueueError::bad_next);
    }
    SECTION("an indirect chain longer than the queue") {
        rig.driver.set(0, {table, 16 * 9, DriverQueue::indirect});
        for (std::uint16_t i = 0; i < 9; ++i) {
            rig.driver.set_in(table, i,
                              {buffers, 1, i < 8 ? DriverQueue::next : std::uint16_t{0},
                               static_cast<std::uint16_t>(i + 1)});
        }
        rig.driver.offer(0);
        error = to_string(QueueError::chain_too_long);
    }
    CHECK(rig.pop_error() == error);
    // Also when the driver has mended everything.
    rig.driver.set(0, {buffers, 16});
    rig.driver.set_available_index(1);
    CHECK(rig.pop_error() == error);
    CHECK(rig.driver.used_index() == 0);
}

TEST_CASE("SplitQueue: a buffer that cannot be used is a defect of its chain, and the queue works",
          "[virtio]") {
    struct Case {
        std::string_view name;
        std::vector<DriverQueue::Descriptor> chain;  // their flag for a next one is added
        QueueError defect;
        std::uint64_t readable;
        std::uint64_t writable;
        bool ends_writable;
    };
    constexpr std::uint16_t in = DriverQueue::device_writes;
    constexpr std::uint64_t end = ~std::uint64_t{0};
    constexpr auto outside = QueueError::buffer_outside_memory;
    constexpr auto order = QueueError::readable_after_writable;
    const auto cases = std::to_array<Case>({
        {"behind RAM", {{ram, 1}}, outside, 0, 0, false},
        {"across the end of RAM", {{buffers, 16}, {ram - 1, 2, in}, {buffers, 1, in}}, outside, 16, 0, true},
        {"across the end, readable",
         {{buffers, 16}, {ram - 511, 512}, {buffers, 1, in}},
         outside,
         16,
         1,
         true},
        {"the last address", {{end, 1}}, outside, 0, 0, false},
        {"wraps around", {{buffers, 16}, {end, 2, in}, {buffers, 1, in}}, outside, 16, 0, true},
        {"wraps far around",
         {{buffers, 4}, {end - 0xFFFF, 0xFFFF'FFFF}, {buffers, 1, in}},
         outside,
         4,
         1,
         true},
        {"longer than RAM", {{0, 0xFFFF'FFFF}}, outside, 0, 0, false},
        {"in the gap for devices", {{0xD000'0000, 512, in}, {buffers, 1, in}}, outside, 0, 0, true},
        {"the last one", {{buffers, 16}, {buffers, 512, in}, {0xFEE0'0000, 1, in}}, outside, 16, 512, false},
        {"readable behind writable", {{buffers, 16, in}, {buffers, 8}}, order, 0, 16, false},
        {"readable between writable", {{buffers, 3, in}, {buffers, 8}, {buffers, 1, in}}, order, 0, 4, true},
        {"two defects", {{end, 2}, {buffers, 16, in}, {buffers, 8}, {buffers, 1, in}}, outside, 0, 17, true},
        {"an empty one at the end", {{end, 2}, {buffers, 0, in}}, outside, 0, 0, false},
    });
    const bool indirect = GENERATE(false, true);
    for (const Case& each : cases) {
        CAPTURE(each.name, indirect);
        Rig rig(all_features);
        const std::uint64_t table = indirect ? buffers + 0x1000 : layout.descriptors;
        for (std::size_t i = 0; i < each.chain.size(); ++i) {
            DriverQueue::Descriptor descriptor = each.chain[i];
            descriptor.next = static_cast<std::uint16_t>(i + 1);
            const bool goes_on = i + 1 < each.chain.size();
            descriptor.flags =
                static_cast<std::uint16_t>(descriptor.flags | (goes_on ? DriverQueue::next : 0U));
            rig.driver.set_in(table, i, descriptor);
        }
        if (indirect) {
            const auto size = static_cast<std::uint32_t>(16 * each.chain.size());
            rig.driver.set(0, {table, size, DriverQueue::indirect});
        }
        rig.driver.offer(0);
        const Chain chain = rig.pop();
        CHECK(chain.head == 0);
        CHECK(chain.defect == each.defect);
        CHECK(chain.readable.size() == each.readable);
        CHECK(chain.writable.size() == each.writable);
        CHECK(chain.last.empty() != each.ends_writable);
        rig.queue.push(chain, 0);
        (void)rig.queue.publish();
        CHECK(rig.driver.take_used() == DriverQueue::Used{0, 0});
        // An honest request afterwards.
        rig.driver.set(1, {buffers, 5});
        rig.driver.offer(1);
        const Chain honest = rig.pop();
        CHECK_FALSE(honest.defect);
        CHECK(honest.readable.size() == 5);
        CHECK(honest.last.empty());
    }
}

TEST_CASE("SplitQueue: indirect descriptors are refused if they were not negotiated", "[virtio]") {
    Rig rig;
    rig.driver.set(0, {buffers, 16, DriverQueue::indirect});
    rig.driver.offer(0);
    CHECK(rig.pop_error() == to_string(QueueError::indirect_not_negotiated));
}

TEST_CASE("SplitQueue: the bytes of a chain are counted in 32 bits, and may not be more", "[virtio]") {
    // used.len has 32 bits (VIRTIO 1.2, 2.7.8). 8 buffers of 512 MiB are 4 GiB; one byte less is allowed.
    GuestMemory memory(513ULL << 20U);
    DriverQueue driver(memory, layout);
    const std::uint32_t less = GENERATE(0U, 1U);
    for (std::uint16_t i = 0; i < 8; ++i) {
        driver.set(i, {1U << 20U, (512U << 20U) - (i == 7 ? less : 0),
                       i < 7 ? DriverQueue::next : std::uint16_t{0}, static_cast<std::uint16_t>(i + 1)});
    }
    driver.offer(0);
    SplitQueue queue = SplitQueue::create(memory, layout, {}).value();
    const auto chain = queue.pop();
    REQUIRE((chain && *chain));
    if (less == 0) {
        CHECK((*chain)->defect == QueueError::too_many_bytes);
        CHECK((*chain)->readable.size() == std::uint64_t{7} << 29U);
    } else {
        CHECK_FALSE((*chain)->defect);
        CHECK((*chain)->readable.size() == 0xFFFF'FFFF);
    }
}

TEST_CASE("SplitQueue: what is odd but allowed is taken", "[virtio]") {
    Rig rig(all_features);
    SECTION("a chain as long as the queue") {
        for (std::uint16_t i = 0; i < 8; ++i) {
            rig.driver.set(i, {buffers + i, 1, i < 7 ? DriverQueue::next : std::uint16_t{0},
                               static_cast<std::uint16_t>(i + 1)});
        }
        rig.driver.offer(0);
        CHECK(rig.pop().readable.size() == 8);
    }
    SECTION("an indirect table larger than the queue, of which few descriptors are used") {
        rig.driver.set(0, {buffers + 1, 16 * 100, DriverQueue::indirect | DriverQueue::device_writes});
        rig.driver.set_in(buffers + 1, 0, {buffers + 0x1000, 5, DriverQueue::next, 99});
        rig.driver.set_in(buffers + 1, 99, {buffers + 0x2000, 6, DriverQueue::device_writes});
        rig.driver.offer(0);
        const Chain chain = rig.pop();
        CHECK(chain.readable.size() == 5);
        CHECK(chain.writable.size() == 6);
    }
    SECTION("an indirect table behind direct descriptors") {
        rig.driver.set(0, {buffers, 5, DriverQueue::next, 1});
        rig.driver.set(1, {buffers + 0x1000, 16, DriverQueue::indirect});
        rig.driver.set_in(buffers + 0x1000, 0, {buffers, 7});
        rig.driver.offer(0);
        CHECK(rig.pop().readable.size() == 12);
    }
    SECTION("empty buffers, wherever they point, and empty chains") {
        rig.driver.set(0, {~std::uint64_t{0}, 0, DriverQueue::next, 1});
        rig.driver.set(1, {0, 0, DriverQueue::device_writes});
        rig.driver.offer(0);
        const Chain chain = rig.pop();
        CHECK(chain.readable.empty());
        CHECK(chain.writable.empty());
        CHECK(chain.writable.write(0, bytes("x")) == 0);
    }
    SECTION("a buffer up to the last byte of RAM") {
        rig.driver.set(0, {ram - 4096, 4096});
        rig.driver.offer(0);
        CHECK(rig.pop().readable.size() == 4096);
    }
    SECTION("a chain that is put back comes again") {
        rig.driver.set(5, {buffers, 16});
        rig.driver.offer(5);
        const Chain chain = rig.pop();
        rig.queue.undo_pop(chain);
        CHECK(rig.queue.in_flight() == 0);
        CHECK(rig.pop().head == 5);
        CHECK(rig.is_empty());
    }
}

TEST_CASE("SplitQueue: without event indices the driver's flag decides about interrupts", "[virtio]") {
    Rig rig;
    rig.driver.set(0, {buffers, 16});
    const auto serve = [&rig] {
        rig.driver.offer(0);
        rig.queue.push(rig.pop(), 0);
        return rig.queue.publish();
    };
    CHECK(serve());
    rig.driver.set_available_flags(1);
    CHECK_FALSE(serve());
    rig.driver.set_available_flags(0);
    CHECK(serve());
    CHECK(rig.driver.used_flags() == 0);
    rig.queue.disable_notifications();
    CHECK(rig.driver.used_flags() == 1);
    CHECK_FALSE(rig.queue.enable_notifications());
    CHECK(rig.driver.used_flags() == 0);
    rig.driver.offer(0);
    CHECK(rig.queue.enable_notifications());
}

TEST_CASE("SplitQueue: an interrupt comes when, and only when, the driver's event index is passed",
          "[virtio]") {
    // Every position of the event index against every batch, around the wrap of 16 bits as well.
    for (const std::uint16_t start : std::array<std::uint16_t, 5>{0, 1, 0x7FFC, 0xFFF8, 0xFFFF}) {
        for (int event = -12; event < 12; ++event) {
            for (std::uint16_t batch = 1; batch <= 8; ++batch) {
                const QueueState state{.next_available = start, .next_used = start, .signalled = start};
                Rig rig(all_features, layout, state);
                rig.driver.set_available_index(start);
                for (std::uint16_t i = 0; i < batch; ++i) {
                    rig.driver.set(i, {buffers, 16});
                    rig.driver.offer(i);
                    rig.queue.push(rig.pop(), 0);
                }
                rig.driver.set_used_event(static_cast<std::uint16_t>(start + event));
                CAPTURE(start, event, batch);
                // The driver wants one when the entry of that index has been used.
                CHECK(rig.queue.publish() == (event >= 0 && event < batch));
            }
        }
    }
    // A queue that was restored without that memory has an interrupt too many rather than one too few.
    Rig rig(all_features, layout, {.next_available = 7, .next_used = 7, .signalled = std::nullopt});
    rig.driver.set_available_index(7);
    rig.driver.set_used_event(100);
    rig.driver.set(0, {buffers, 16});
    rig.driver.offer(0);
    rig.queue.push(rig.pop(), 0);
    CHECK(rig.queue.publish());
}

TEST_CASE("SplitQueue: with event indices the device asks for the next chain and no other", "[virtio]") {
    Rig rig(all_features);
    rig.driver.set(0, {buffers, 16});
    CHECK_FALSE(rig.queue.enable_notifications());
    CHECK(rig.driver.available_event() == 0);
    rig.driver.offer(0);
    CHECK(rig.queue.enable_notifications());
    const Chain chain = rig.pop();
    CHECK_FALSE(rig.queue.enable_notifications());
    CHECK(rig.driver.available_event() == 1);
    rig.queue.disable_notifications();
    CHECK(rig.driver.available_event() == 1);
    CHECK(rig.driver.used_flags() == 0);
    rig.queue.push(chain, 0);
}

TEST_CASE("SplitQueue: a driver and a device in two threads lose no chain and no interrupt",
          "[virtio][threads]") {
    // Each side sleeps only after it has asked the other for a wake-up; a lost one ends in a deadlock, which
    // the bound on the wait turns into a failure.
    const auto features = GENERATE(QueueFeatures{}, all_features);
    constexpr std::uint32_t chains = 200'000;
    Rig rig(features);
    std::atomic<std::uint32_t> notifications{0};
    std::atomic<std::uint32_t> interrupts{0};
    std::atomic<bool> stuck{false};
    const auto wait_for = [&stuck](std::atomic<std::uint32_t>& bell, std::uint32_t seen) {
        for (std::uint64_t spins = 0; bell.load() == seen && !stuck; ++spins) {
            if (spins > 50'000'000) {
                stuck = true;
            }
            std::this_thread::yield();
        }
    };
    for (std::uint16_t i = 0; i < 8; ++i) {
        rig.driver.set(i, {buffers + std::uint64_t{64} * i, 4});
    }
    std::uint32_t served = 0;
    bool wrong = false;
    std::jthread device([&] {
        while (served < chains && !stuck) {
            const std::uint32_t seen = notifications.load();
            rig.queue.disable_notifications();
            do {
                for (;;) {
                    const auto chain = rig.queue.pop();
                    if (!chain) {
                        wrong = stuck = true;
                        return;
                    }
                    if (!*chain) {
                        break;
                    }
                    std::array<std::uint8_t, 4> content{};
                    (void)(*chain)->readable.read(0, content);
                    std::uint32_t number = 0;
                    std::memcpy(&number, content.data(), 4);
                    wrong = wrong || number != served;
                    ++served;
                    rig.queue.push(**chain, number);
                    if (rig.queue.publish()) {
                        ++interrupts;
                    }
                }
            } while (rig.queue.enable_notifications());
            if (served < chains) {
                wait_for(notifications, seen);
            }
        }
    });
    std::uint32_t sent = 0;
    std::uint32_t returned = 0;
    std::uint16_t announced = 0;
    while (returned < chains && !stuck) {
        const std::uint32_t seen = interrupts.load();
        while (sent < chains && sent - returned < 8) {
            const auto slot = static_cast<std::uint16_t>(sent % 8);
            rig.driver.poke(buffers + std::uint64_t{64} * slot, sent);
            rig.driver.offer(slot);
            ++sent;
        }
        std::atomic_thread_fence(std::memory_order_seq_cst);
        const auto now = static_cast<std::uint16_t>(sent);
        const auto event = rig.driver.available_event();
        if (features.event_index
                ? static_cast<std::uint16_t>(now - event - 1U) < static_cast<std::uint16_t>(now - announced)
                : rig.driver.used_flags() == 0) {
            ++notifications;
        }
        announced = now;
        const std::uint32_t before = returned;
        while (const auto used = rig.driver.take_used()) {
            wrong = wrong || used->id != returned % 8 || used->written != returned;
            ++returned;
        }
        if (returned == before) {
            rig.driver.set_used_event(static_cast<std::uint16_t>(returned));
            std::atomic_thread_fence(std::memory_order_seq_cst);
            if (rig.driver.used_index() == static_cast<std::uint16_t>(returned)) {
                wait_for(interrupts, seen);
            }
        }
    }
    device.join();
    CHECK_FALSE(stuck);
    CHECK_FALSE(wrong);
    CHECK(returned == chains);
}
