// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The virtio balloon (VIRTIO 1.2, 5.5): which memory returns to the host, and which never does.
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "catch.hpp"
#include "virtio/balloon.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::DeviceRig;

namespace {

constexpr std::uint64_t page = Balloon::page_size;

DeviceRig make_rig(const BalloonConfig& config = {}) {
    return DeviceRig([&](DeviceRig& r) {
        return std::make_shared<Balloon>("balloon0", r.counters, r.memory, r.events, config);
    });
}

std::span<const std::uint8_t> bytes_of(const std::vector<std::uint32_t>& numbers) {
    return {reinterpret_cast<const std::uint8_t*>(numbers.data()), numbers.size() * 4};
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
    for (const std::uint64_t number : {2000, 2001, 2002}) {
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

TEST_CASE("virtio balloon: reported pages return to the host; parts of pages do not", "[virtio][balloon]") {
    DeviceRig rig = make_rig();
    rig.start();
    const std::array<std::uint32_t, 1> size{64 * 1024};
    rig.offer(Balloon::reporting_queue, {}, size);
    const GuestRange range = rig.last_writable.front();
    const auto host = rig.memory.slice(range.address, range.size).value();
    std::ranges::fill(host, std::uint8_t{7});
    rig.notify(Balloon::reporting_queue);
    rig.run_events();
    CHECK(rig.queues.at(Balloon::reporting_queue)->take_used().has_value());
    CHECK(rig.counters["reported_bytes"].value() == 64 * 1024);
    CHECK(std::ranges::all_of(host, [](std::uint8_t byte) { return byte == 0; }));
}

TEST_CASE("virtio balloon: without reporting the queue does not exist", "[virtio][balloon]") {
    DeviceRig rig = make_rig({.free_page_reporting = false, .deflate_on_oom = false});
    CHECK((rig.device_features() & 0xFF'FFFFU) == 0);
    rig.write(mmio::queue_sel, Balloon::reporting_queue);
    CHECK(rig.read(mmio::queue_num_max) == 0);
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
