// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The saved states of all virtio devices: a device that is restored looks the same to its driver and serves it, and a
// state that is wrong, or of another device, is refused.
#include <algorithm>
#include <array>
#include <cstdint>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "util/log.hpp"
#include "virtio/device_states.hpp"
#include "virtio_device_table.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::DeviceHost;
using kvm_vmm::test::DeviceRig;
using kvm_vmm::test::DriverQueue;
using kvm_vmm::test::HonestRequest;
using kvm_vmm::test::HostFiles;

namespace {

constexpr std::uint64_t ram = 16U << 20U;
constexpr std::size_t config_size = 64;

class Machine {
public:
    explicit Machine(DeviceHost::Kind kind)
        : host(kind, files, true),
          rig([this](DeviceRig& r) { return host.make(r.counters, r.events, r.memory); }, ram) {
        // The messages about broken drivers are not of interest.
        open_log(vmsuperio::UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC)), LogLevel::error);
    }
    ~Machine() { close_log(); }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    /// The process that has saved the state has ended; another one has the same memory.
    void replace_device() {
        rig.transport.reset();
        rig.transport =
            std::make_unique<MmioTransport>(rig.memory, host.make(rig.counters, rig.events, rig.memory),
                                            vmsuperio::EventFdTrigger::create().value());
    }
    [[nodiscard]] std::optional<DriverQueue::Used> use() {
        const HonestRequest request = test::honest_request(host.kind());
        rig.offer(request.queue, request.sent, request.received);
        rig.notify(request.queue);
        std::optional<DriverQueue::Used> used;
        (void)rig.run_until([&] {
            used = rig.queues[request.queue]->take_used();
            return used.has_value() || rig.needs_reset();
        });
        return used;
    }
    /// Without what changes when it is read.
    [[nodiscard]] std::vector<std::uint32_t> registers() {
        std::vector<std::uint32_t> values;
        for (const std::uint64_t offset : {mmio::magic_value, mmio::version, mmio::device_id, mmio::vendor_id,
                                           mmio::status, mmio::interrupt_status, mmio::config_generation}) {
            values.push_back(rig.read(offset));
        }
        const std::uint64_t features = rig.device_features();
        values.push_back(static_cast<std::uint32_t>(features));
        values.push_back(static_cast<std::uint32_t>(features >> 32U));
        for (std::uint32_t i = 0; i <= rig.transport->device().queue_sizes().size(); ++i) {
            rig.write(mmio::queue_sel, i);
            values.push_back(rig.read(mmio::queue_num_max));
            values.push_back(rig.read(mmio::queue_ready));
        }
        return values;
    }
    [[nodiscard]] std::vector<std::uint8_t> config() {
        std::vector<std::uint8_t> bytes;
        for (std::size_t i = 0; i < config_size; ++i) {
            bytes.push_back(rig.config<std::uint8_t>(i));
        }
        return bytes;
    }
    template <class State>
    [[nodiscard]] State device_state() {
        return decode_state<State>(rig.transport->state().device).value();
    }
    /// Changes the device's part of a good state.
    template <class State>
    [[nodiscard]] std::string refusal(const MmioState& good, const std::function<void(State&)>& change) {
        MmioState bad = good;
        State state = decode_state<State>(good.device).value();
        change(state);
        bad.device = vmsuperio::encode(state);
        replace_device();
        const auto restored = rig.transport->restore(bad);
        CHECK(rig.status() == (restored ? good.status : 0));
        return restored ? std::string("(accepted)") : std::string(restored.error());
    }

    HostFiles files;
    DeviceHost host;
    DeviceRig rig;
};

}  // namespace

TEST_CASE("virtio state: a restored device has the same registers and configuration, and serves its driver",
          "[virtio][state]") {
    for (const DeviceHost::Kind kind : DeviceHost::all) {
        INFO(DeviceHost::name_of(kind));
        Machine machine(kind);
        machine.rig.start();
        // A share that is mounted is refused.
        if (kind != DeviceHost::Kind::file_system) {
            REQUIRE(machine.use());
        }
        const MmioState saved = machine.rig.transport->state();
        const auto registers = machine.registers();
        const auto config = machine.config();
        machine.replace_device();
        const auto restored = machine.rig.transport->restore(saved);
        INFO((restored ? "" : restored.error()));
        REQUIRE(restored);
        CHECK(machine.registers() == registers);
        CHECK(machine.config() == config);
        machine.rig.run_events();
        MmioState again = machine.rig.transport->state();
        // registers() has selected other pages and queues.
        again.device_features_sel = saved.device_features_sel;
        again.queue_sel = saved.queue_sel;
        CHECK(again == saved);
        CHECK(machine.use());
        CHECK_FALSE(machine.rig.needs_reset());
    }
}

TEST_CASE("virtio state: a device is restored before its driver has started it", "[virtio][state]") {
    for (const DeviceHost::Kind kind : DeviceHost::all) {
        INFO(DeviceHost::name_of(kind));
        Machine machine(kind);
        machine.rig.acknowledge();
        REQUIRE(machine.rig.negotiate());
        const MmioState saved = machine.rig.transport->state();
        machine.replace_device();
        REQUIRE(machine.rig.transport->restore(saved));
        CHECK(machine.rig.transport->state() == saved);
        machine.rig.start();
        CHECK(machine.use());
    }
}

TEST_CASE("virtio state: bytes that are wrong are refused, and never harm", "[virtio][state]") {
    for (const DeviceHost::Kind kind : DeviceHost::all) {
        INFO(DeviceHost::name_of(kind));
        Machine machine(kind);
        machine.rig.start();
        const MmioState good = machine.rig.transport->state();
        const auto restore = [&](const std::vector<std::uint8_t>& device) {
            MmioState state = good;
            state.device = device;
            machine.replace_device();
            const auto restored = machine.rig.transport->restore(state);
            if (!restored) {
                CHECK_FALSE(restored.error().empty());
                CHECK(machine.rig.status() == 0);
            }
            return restored.has_value();
        };
        std::vector<std::uint8_t> longer = good.device;
        longer.push_back(0);
        CHECK_FALSE(restore(longer));
        if (good.device.empty()) {
            continue;
        }
        for (std::size_t size = 0; size < good.device.size(); ++size) {
            CHECK_FALSE(
                restore({good.device.begin(), good.device.begin() + static_cast<std::ptrdiff_t>(size)}));
        }
        std::mt19937 random(1);
        for (std::size_t i = 0; i < good.device.size(); ++i) {
            std::vector<std::uint8_t> bytes = good.device;
            bytes[i] ^= static_cast<std::uint8_t>(1U << random() % 8);
            if (restore(bytes)) {
                machine.rig.run_events();
                machine.rig.reset();
                machine.rig.start();
                CHECK(machine.use());
            }
        }
        const bool disk = kind == DeviceHost::Kind::block_thread || kind == DeviceHost::Kind::block_uring;
        CHECK_FALSE(restore(disk ? vmsuperio::encode(NetState{}) : vmsuperio::encode(BlockState{})));
    }
}

TEST_CASE("virtio state: a disk keeps the cache mode, and must have the same size", "[virtio][state][blk]") {
    Machine machine(DeviceHost::Kind::block_thread);
    constexpr std::uint64_t writeback_offset = 32;  // of struct virtio_blk_config
    machine.rig.start();
    CHECK(machine.rig.config<std::uint8_t>(writeback_offset) == 1);
    machine.rig.write_as<std::uint8_t>(mmio::config + writeback_offset, 0);
    const MmioState saved = machine.rig.transport->state();
    CHECK_FALSE(machine.device_state<BlockState>().writeback);
    machine.replace_device();
    CHECK(machine.rig.config<std::uint8_t>(writeback_offset) == 1);
    REQUIRE(machine.rig.transport->restore(saved));
    CHECK(machine.rig.config<std::uint8_t>(writeback_offset) == 0);
    // And not beyond a reset.
    machine.rig.start();
    CHECK(machine.rig.config<std::uint8_t>(writeback_offset) == 1);

    CHECK(machine.refusal<BlockState>(saved, [](BlockState& s) { ++s.capacity; }) == "capacity");
    CHECK(machine.refusal<BlockState>(saved, [](BlockState& s) { s.block_size = 4096; }) == "block_size");
    CHECK(machine.refusal<BlockState>(saved, [](BlockState& s) { s.writeback = true; }) == "(accepted)");
    MmioState other = saved;
    other.driver_features &= ~std::uint64_t{1U << 11U};  // VIRTIO_BLK_F_CONFIG_WCE
    CHECK(machine.refusal<BlockState>(other, [](BlockState&) {}) == "writeback");
}

TEST_CASE("virtio state: an interface keeps its address, and a link that changed is announced",
          "[virtio][state][net]") {
    Machine machine(DeviceHost::Kind::network);
    machine.rig.start();
    MmioState saved = machine.rig.transport->state();
    NetState state = machine.device_state<NetState>();
    CHECK(state.link_up);
    state.mac = {0x52, 0x54, 0, 1, 2, 3};
    saved.device = vmsuperio::encode(state);
    machine.replace_device();
    REQUIRE(machine.rig.transport->restore(saved));
    CHECK(machine.rig.config<std::uint8_t>(0) == 0x52);
    CHECK(machine.rig.config<std::uint8_t>(5) == 3);
    CHECK(machine.rig.read(mmio::interrupt_status) == 0);

    state.link_up = false;
    saved.device = vmsuperio::encode(state);
    machine.replace_device();
    REQUIRE(machine.rig.transport->restore(saved));
    CHECK(machine.rig.read(mmio::interrupt_status) == interrupt_status::configuration_change);
    CHECK(machine.rig.read(mmio::config_generation) == saved.config_generation + 1);

    CHECK(machine.refusal<NetState>(saved, [](NetState& s) { s.mac = {1, 2, 3, 4, 5, 6}; }) == "mac");
    CHECK(machine.refusal<NetState>(saved, [](NetState& s) { s.mac = {}; }) == "mac");
}

TEST_CASE("virtio state: a balloon keeps its size and statistics, and a changed target is announced",
          "[virtio][state][balloon]") {
    Machine machine(DeviceHost::Kind::balloon);
    machine.rig.start();
    machine.rig.write(mmio::config + 4, 1);  // actual
    const std::array<std::uint8_t, 10> free_memory{4, 0, 0x40, 0, 0,
                                                   0, 0, 0,    0, 0};  // VIRTIO_BALLOON_S_MEMFREE
    machine.rig.offer(Balloon::stats_queue, free_memory, {});
    machine.rig.notify(Balloon::stats_queue);
    machine.rig.run_events();
    MmioState saved = machine.rig.transport->state();
    BalloonState state = machine.device_state<BalloonState>();
    CHECK(state.target_pages == 2);
    CHECK(state.actual_pages == 1);
    CHECK(state.statistics.at(4) == 0x40);

    state.statistics.at(5) = 77;
    state.target_pages = 3;
    saved.device = vmsuperio::encode(state);
    machine.replace_device();
    REQUIRE(machine.rig.transport->restore(saved));
    CHECK(machine.rig.config<std::uint32_t>(0) == 2);
    CHECK(machine.rig.config<std::uint32_t>(4) == 1);
    CHECK(machine.rig.counters["guest_total_bytes"].value() == 77);
    CHECK(machine.rig.read(mmio::interrupt_status) == interrupt_status::configuration_change);
    // The buffer of statistics, which was in the queue, is returned later, when they are asked for again.
    machine.rig.run_events();
    CHECK(machine.rig.counters["guest_free_bytes"].value() == 0x40);
    CHECK_FALSE(machine.rig.queues[Balloon::stats_queue]->take_used());
}

TEST_CASE("virtio state: a socket device announces that its connections are gone", "[virtio][state][vsock]") {
    Machine machine(DeviceHost::Kind::socket);
    machine.rig.start();
    const MmioState saved = machine.rig.transport->state();
    machine.replace_device();
    REQUIRE(machine.rig.transport->restore(saved));
    constexpr std::uint32_t event_queue = 2;
    machine.rig.offer(event_queue, {}, std::array<std::uint32_t, 1>{8});
    machine.rig.notify(event_queue);
    machine.rig.run_events();
    const auto used = machine.rig.queues[event_queue]->take_used();
    REQUIRE(used);
    CHECK(used->written == 4);
    // A bare start has no such event.
    machine.rig.start();
    machine.rig.offer(event_queue, {}, std::array<std::uint32_t, 1>{8});
    machine.rig.notify(event_queue);
    machine.rig.run_events();
    CHECK_FALSE(machine.rig.queues[event_queue]->take_used());

    CHECK(machine.refusal<VsockState>(saved, [](VsockState& s) { ++s.guest_cid; }) == "guest_cid");
    CHECK(machine.refusal<VsockState>(saved, [](VsockState& s) { s.next_host_port = 5; }) ==
          "next_host_port");
    CHECK(machine.refusal<VsockState>(saved, [](VsockState& s) { s.next_host_port = 0x8000'0000; }) ==
          "next_host_port");
}

TEST_CASE("virtio state: a share is restored unless it is mounted", "[virtio][state][share]") {
    Machine machine(DeviceHost::Kind::file_system);
    machine.rig.start();
    const MmioState before = machine.rig.transport->state();
    REQUIRE(machine.use());  // FUSE_INIT
    const MmioState mounted = machine.rig.transport->state();
    machine.replace_device();
    const auto restored = machine.rig.transport->restore(mounted);
    REQUIRE_FALSE(restored);
    CHECK(restored.error() == "mounted");
    CHECK(machine.refusal<FileSystemState>(before, [](FileSystemState& s) { s.tag[0] = 'x'; }) == "tag");
    CHECK(machine.refusal<FileSystemState>(before, [](FileSystemState&) {}) == "(accepted)");
}
