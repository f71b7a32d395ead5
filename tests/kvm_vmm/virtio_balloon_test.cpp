// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The virtio balloon (VIRTIO 1.2, 5.5): which memory returns to the host, and which never does.
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "virtio/balloon.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::DeviceRig;
using kvm_vmm::test::DriverQueue;

namespace {

constexpr std::uint64_t page = Balloon::page_size;

constexpr std::uint64_t everything = ~std::uint64_t{0};

DeviceRig make_rig(const BalloonConfig& config = {},
                   std::chrono::milliseconds stats_interval = std::chrono::hours(1)) {
    return DeviceRig([&](DeviceRig& r) {
        return std::make_shared<Balloon>("balloon0", r.counters, r.memory, r.events, config, stats_interval);
    });
}

std::span<const std::uint8_t> bytes_of(const std::vector<std::uint32_t>& numbers) {
    return {reinterpret_cast<const std::uint8_t*>(numbers.data()), numbers.size() * 4};
}

std::vector<std::uint8_t> stats_of(const std::vector<std::pair<std::uint16_t, std::uint64_t>>& entries) {
    std::vector<std::uint8_t> bytes(entries.size() * 10);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        std::memcpy(&bytes[i * 10], &entries[i].first, 2);
        std::memcpy(&bytes[i * 10 + 2], &entries[i].second, 8);
    }
    return bytes;
}

std::uint8_t first_byte(DeviceRig& rig, std::uint64_t number) {
    return rig.memory.read_object<std::uint8_t>(number * page).value();
}

}  // namespace

TEST_CASE("GuestMemory: whole pages are discarded, and nothing beside them", "[virtio][balloon]") {
    GuestMemory memory(1 << 20);
    const auto all = memory.slice(0, 1 << 20).value();
    std::ranges::fill(all, std::uint8_t{1});
    CHECK(memory.discard(all.subspan(100, 4 * page)) == 3 * page);
    CHECK(all[page - 1] == 1);
    CHECK(all[page] == 0);
    CHECK(all[4 * page - 1] == 0);
    CHECK(all[4 * page] == 1);
    CHECK(memory.discard(all.subspan(1, page)) == 0U);
    CHECK(memory.discard(all.last(page)) == page);
    std::vector<std::uint8_t> other(page);
    CHECK_FALSE(memory.discard(other).has_value());
}

TEST_CASE("virtio balloon: pages of the array return to the host, others do not; bad numbers are counted",
          "[virtio][balloon]") {
    DeviceRig rig = make_rig({.target = 8 << 20});
    rig.start();
    CHECK(rig.config<std::uint32_t>(0) == 2048);
    for (const std::uint64_t number : {2000U, 2001U, 2002U}) {
        REQUIRE(rig.memory.write_object<std::uint8_t>(number * page, 7));
    }
    const auto used =
        rig.request(Balloon::inflate_queue, bytes_of({2000, 2002, 4096, 0xC'0000, 0xFFFF'FFFF}), 0);
    REQUIRE(used.has_value());
    CHECK(used->written == 0);
    CHECK(first_byte(rig, 2000) == 0);
    CHECK(first_byte(rig, 2001) == 7);
    CHECK(first_byte(rig, 2002) == 0);
    CHECK(rig.counters["inflated_bytes"].value() == 2 * page);
    CHECK(rig.counters["ignored_pages"].value() == 3);
    CHECK_FALSE(rig.needs_reset());
    CHECK(rig.request(Balloon::deflate_queue, bytes_of({2000, 2002}), 0).has_value());
    CHECK(rig.counters["deflated_bytes"].value() == 2 * page);
}

TEST_CASE("virtio balloon: reported pages return to the host; the queue follows the negotiated features",
          "[virtio][balloon]") {
    // The number of 5.5.2, and those of Linux, which counts only the queues whose features were negotiated.
    const auto [with_stats, queue] =
        GENERATE(table<bool, std::uint32_t>({{true, 3}, {true, 4}, {false, 2}, {false, 4}}));
    CAPTURE(with_stats, queue);
    DeviceRig rig = make_rig();
    rig.start(with_stats ? everything : everything & ~Balloon::feature_stats);
    const std::array<std::uint32_t, 1> size{64 * 1024};
    rig.offer(queue, {}, size);
    const GuestRange range = rig.last_writable.front();
    const auto host = rig.memory.slice(range.address, range.size).value();
    std::ranges::fill(host, std::uint8_t{7});
    rig.notify(queue);
    rig.run_events();
    CHECK(rig.queues.at(queue)->take_used().has_value());
    CHECK(rig.counters["reported_bytes"].value() == 64 * 1024);
    CHECK(rig.counters["driver_errors"].value() == 0);
    CHECK(std::ranges::all_of(host, [](std::uint8_t byte) { return byte == 0; }));
}

TEST_CASE("virtio balloon: without the feature, the queue of reports is served to nobody",
          "[virtio][balloon]") {
    const std::uint32_t queue = GENERATE(3U, 4U);
    DeviceRig rig = make_rig();
    rig.start(everything & ~Balloon::feature_reporting);
    const std::array<std::uint32_t, 1> size{64 * 1024};
    rig.offer(queue, {}, size);
    rig.notify(queue);
    rig.run_events();
    CHECK_FALSE(rig.queues.at(queue)->take_used().has_value());
    CHECK(rig.counters["reported_bytes"].value() == 0);
    CHECK_FALSE(rig.needs_reset());
}

TEST_CASE("virtio balloon: without reporting its queue does not exist", "[virtio][balloon]") {
    DeviceRig rig = make_rig({.free_page_reporting = false, .deflate_on_oom = false});
    CHECK((rig.device_features() & 0xFF'FFFFU) == Balloon::feature_stats);
    rig.write(mmio::queue_sel, 3);
    CHECK(rig.read(mmio::queue_num_max) == 0);
    CHECK((make_rig({.deflate_on_oom = true}).device_features() & Balloon::feature_deflate_on_oom) != 0);
}

TEST_CASE("virtio balloon: statistics become counters, and are asked for again after the interval",
          "[virtio][balloon]") {
    DeviceRig rig = make_rig({}, std::chrono::milliseconds(50));
    rig.start();
    rig.offer(Balloon::stats_queue, stats_of({{4, 1000}, {5, 5000}, {99, 7}, {0xFFFF, 8}, {15, 9}}), {});
    rig.notify(Balloon::stats_queue);
    rig.events.run_once(0);
    CHECK(rig.counters["guest_free_bytes"].value() == 1000);
    CHECK(rig.counters["guest_total_bytes"].value() == 5000);
    CHECK(rig.counters["guest_direct_reclaim_bytes"].value() == 9);
    CHECK(rig.counters["guest_swap_in_bytes"].value() == 0);
    std::optional<kvm_vmm::test::DriverQueue::Used> used;
    const auto returned = [&] {
        return (used = rig.queues.at(Balloon::stats_queue)->take_used()).has_value();
    };
    REQUIRE(rig.run_until(returned));
    CHECK(used->written == 0);
    // Only one buffer is returned for each interval, and a value may fall.
    rig.offer(Balloon::stats_queue, stats_of({{4, 10}}), {});
    rig.notify(Balloon::stats_queue);
    rig.events.run_once(0);
    CHECK(rig.counters["guest_free_bytes"].value() == 10);
    CHECK(rig.counters["guest_total_bytes"].value() == 5000);
    REQUIRE(rig.run_until(returned));
    // The driver does not answer: nothing happens.
    CHECK_FALSE(rig.run_until(returned, std::chrono::milliseconds(200)));
    CHECK_FALSE(rig.needs_reset());
}

TEST_CASE("virtio balloon: a buffer of statistics is read up to a limit, whole entries only, and stays",
          "[virtio][balloon]") {
    DeviceRig rig = make_rig({}, std::chrono::hours(1));
    rig.start();
    std::vector<std::pair<std::uint16_t, std::uint64_t>> entries(64, {99, 1});
    entries.back() = {4, 64};
    entries.push_back({4, 65});
    rig.offer(Balloon::stats_queue, stats_of(entries), {});
    rig.notify(Balloon::stats_queue);
    rig.run_events();
    CHECK(rig.counters["guest_free_bytes"].value() == 64);
    rig.notify(Balloon::stats_queue);
    rig.run_events();
    CHECK_FALSE(rig.queues.at(Balloon::stats_queue)->take_used().has_value());

    rig.start();
    auto cut = stats_of({{4, 1}, {5, 2}});
    rig.offer(Balloon::stats_queue, std::span(cut).first(19), {});
    rig.notify(Balloon::stats_queue);
    rig.run_events();
    CHECK(rig.counters["guest_free_bytes"].value() == 1);
    CHECK(rig.counters["guest_total_bytes"].value() == 0);
}

TEST_CASE("virtio balloon: statistics are not asked for after a reset", "[virtio][balloon]") {
    DeviceRig rig = make_rig({}, std::chrono::milliseconds(20));
    rig.start();
    rig.offer(Balloon::stats_queue, stats_of({{4, 1}}), {});
    rig.notify(Balloon::stats_queue);
    rig.events.run_once(0);
    rig.write(mmio::status, 0);
    CHECK_FALSE(rig.run_until([&] { return rig.queues.at(Balloon::stats_queue)->take_used().has_value(); },
                              std::chrono::milliseconds(100)));
}

TEST_CASE("virtio balloon: the driver writes the actual size only", "[virtio][balloon]") {
    DeviceRig rig = make_rig({.target = 8 << 20});
    rig.start();
    rig.write(mmio::config, 5);
    rig.write(mmio::config + 4, 1234);
    rig.write(mmio::config + 8, 99);
    CHECK(rig.config<std::uint32_t>(0) == 2048);
    CHECK(rig.config<std::uint32_t>(4) == 1234);
    rig.reset();
    CHECK(rig.config<std::uint32_t>(4) == 0);
}

TEST_CASE("virtio balloon: a long array is served in parts, and beyond its limit ignored",
          "[virtio][balloon]") {
    DeviceRig rig = make_rig();
    rig.start();
    const std::vector<std::uint32_t> numbers(20'000, 2000);
    rig.offer(Balloon::inflate_queue, bytes_of(numbers), {});
    rig.notify(Balloon::inflate_queue);
    rig.events.run_once(0);
    CHECK(rig.counters["inflated_bytes"].value() <= 1024 * page);
    CHECK_FALSE(rig.queues.at(Balloon::inflate_queue)->take_used().has_value());
    rig.run_events();
    CHECK(rig.counters["inflated_bytes"].value() == 16'384 * page);
    CHECK(rig.queues.at(Balloon::inflate_queue)->take_used().has_value());
}

TEST_CASE(
    "virtio balloon: the chain behind one that was served in part, and is refused then, is served as a whole",
    "[virtio][balloon]") {
    const DriverQueue::Descriptor no_ram{.address = 0xD000'0000, .length = 64};
    DeviceRig rig = make_rig();
    rig.start();
    SECTION("inflated pages") {
        const std::vector<std::uint32_t> numbers(10'000, 2000);
        const std::uint16_t head = rig.offer(Balloon::inflate_queue, bytes_of(numbers), {});
        rig.notify(Balloon::inflate_queue);
        rig.events.run_once(0);
        const std::uint64_t served = rig.counters["inflated_bytes"].value();
        REQUIRE(served > 2 * page);
        REQUIRE_FALSE(rig.queues.at(Balloon::inflate_queue)->take_used().has_value());
        rig.queues.at(Balloon::inflate_queue)->set(head, no_ram);
        rig.offer(Balloon::inflate_queue, bytes_of({2000, 2002}), {});
        rig.run_events();
        CHECK(rig.counters["inflated_bytes"].value() == served + 2 * page);
        CHECK(rig.queues.at(Balloon::inflate_queue)->used_index() == 2);
    }
    SECTION("reported pages") {
        const std::vector<std::uint32_t> ranges(12, 8U << 20U);
        const std::uint16_t head = rig.offer(Balloon::reporting_queue, {}, ranges);
        rig.notify(Balloon::reporting_queue);
        rig.events.run_once(0);
        const std::uint64_t served = rig.counters["reported_bytes"].value();
        REQUIRE(served > 2 * page);
        REQUIRE_FALSE(rig.queues.at(Balloon::reporting_queue)->take_used().has_value());
        rig.queues.at(Balloon::reporting_queue)->set(head, no_ram);
        const std::array<std::uint32_t, 1> next{4 * page};
        rig.offer(Balloon::reporting_queue, {}, next);
        rig.run_events();
        CHECK(rig.counters["reported_bytes"].value() >=
              served + 3 * page);  // the buffer may begin within a page
        CHECK(rig.counters["reported_bytes"].value() <= served + 4 * page);
        CHECK(rig.queues.at(Balloon::reporting_queue)->used_index() == 2);
    }
    CHECK(rig.counters["driver_errors"].value() == 1);
    CHECK_FALSE(rig.needs_reset());
}

TEST_CASE("virtio balloon: a buffer of statistics that is refused when its time has come is forgotten",
          "[virtio][balloon]") {
    DeviceRig rig = make_rig({}, std::chrono::milliseconds(50));
    rig.start();
    const std::uint16_t head = rig.offer(Balloon::stats_queue, stats_of({{4, 1000}}), {});
    rig.notify(Balloon::stats_queue);
    rig.events.run_once(0);
    REQUIRE(rig.counters["guest_free_bytes"].value() == 1000);
    rig.queues.at(Balloon::stats_queue)->set(head, {.address = 0xD000'0000, .length = 64});
    REQUIRE(rig.run_until([&] { return rig.queues.at(Balloon::stats_queue)->take_used().has_value(); }));
    // The next buffer holds new statistics: they are taken before it is returned.
    rig.offer(Balloon::stats_queue, stats_of({{4, 2000}}), {});
    rig.notify(Balloon::stats_queue);
    rig.events.run_once(0);
    CHECK(rig.counters["guest_free_bytes"].value() == 2000);
}

TEST_CASE("virtio balloon: a bad array is one error, however often it has to wait", "[virtio][balloon]") {
    DeviceRig rig = make_rig();
    rig.start();
    // The first two use up a turn each, so that the third waits from its beginning.
    for (int i = 0; i < 2; ++i) {
        rig.offer(Balloon::inflate_queue, bytes_of(std::vector<std::uint32_t>(1024, 2000)), {});
    }
    rig.offer(Balloon::inflate_queue, std::array<std::uint8_t, 5>{}, {});
    rig.notify(Balloon::inflate_queue);
    rig.run_events();
    CHECK(rig.queues.at(Balloon::inflate_queue)->used_index() == 3);
    CHECK(rig.counters["driver_errors"].value() == 1);
}

TEST_CASE("virtio balloon: an array of another size is served as far as it has whole numbers",
          "[virtio][balloon]") {
    struct Case {
        const char* name;
        std::vector<std::uint8_t> array;
        std::uint64_t pages;
    };
    const std::vector<std::uint32_t> pages{2000, 2001};
    const auto both = bytes_of(pages);
    const std::array cases{
        Case{"3 bytes", {0, 0, 0}, 0},
        Case{"5 bytes", {both.begin(), both.begin() + 5}, 1},
        Case{"7 bytes", {both.begin(), both.begin() + 7}, 1},
    };
    DeviceRig rig = make_rig();
    rig.start();
    std::uint64_t served = 0;
    std::uint64_t errors = 0;
    for (const std::uint32_t queue : {0U, 1U}) {
        Counter& bytes = rig.counters[queue == Balloon::inflate_queue ? "inflated_bytes" : "deflated_bytes"];
        served = 0;
        for (const Case& one : cases) {
            INFO(one.name << ", queue " << queue);
            const auto used = rig.request(queue, one.array, 0);
            REQUIRE(used.has_value());
            CHECK(used->written == 0);
            served += one.pages * page;
            CHECK(bytes.value() == served);
            CHECK(rig.counters["driver_errors"].value() == ++errors);
        }
        CHECK(rig.request(queue, both, 0).has_value());
        CHECK(bytes.value() == served + 2 * page);
        CHECK(rig.counters["driver_errors"].value() == errors);
    }
    CHECK_FALSE(rig.needs_reset());
}

TEST_CASE("virtio balloon: a page that holds the rings of its queue may be given up", "[virtio][balloon]") {
    DeviceRig rig = make_rig();
    rig.start();
    const auto layout = rig.queues.at(Balloon::inflate_queue)->layout();
    const auto number = static_cast<std::uint32_t>(layout.used / page);
    rig.offer(Balloon::inflate_queue, bytes_of({number, number}), {});
    rig.notify(Balloon::inflate_queue);
    rig.run_events();
    CHECK(rig.counters["inflated_bytes"].value() == 2 * page);
    CHECK(rig.queues.at(Balloon::inflate_queue)->used_index() ==
          1);  // the ring was zeroed before the entry was written
    CHECK_FALSE(rig.needs_reset());
    CHECK(rig.request(Balloon::deflate_queue, bytes_of({number}), 0).has_value());
}

TEST_CASE("virtio balloon: statistics that were negotiated without their queue are not asked for",
          "[virtio][balloon]") {
    DeviceRig rig = make_rig({}, std::chrono::milliseconds(10));
    rig.acknowledge();
    REQUIRE(rig.negotiate());
    rig.set_up_queue(Balloon::inflate_queue);
    rig.set_up_queue(Balloon::deflate_queue);
    rig.add_status(status::driver_ok);
    rig.notify(Balloon::stats_queue);
    CHECK_FALSE(rig.run_until([&] { return rig.needs_reset(); }, std::chrono::milliseconds(50)));
    CHECK(rig.request(Balloon::inflate_queue, bytes_of({2000}), 0).has_value());
}
