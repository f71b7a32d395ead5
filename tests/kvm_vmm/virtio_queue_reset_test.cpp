// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// VIRTIO_F_RING_RESET (VIRTIO 1.2, 2.6.1): each queue of each device is reset while others are in use, and set up again.
#include <array>
#include <cstdint>
#include <fcntl.h>
#include <optional>
#include <span>
#include <vector>

#include "catch.hpp"
#include "util/log.hpp"
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

struct Machine {
    Machine(DeviceHost::Kind kind, const HostFiles& files)
        : host(kind, files, true),
          rig([this](DeviceRig& r) { return host.make(r.counters, r.events, r.memory); }) {}

    void check_honest_request() {
        const HonestRequest request = test::honest_request(host.kind());
        const std::uint16_t head = rig.offer(request.queue, request.sent, request.received);
        rig.notify(request.queue);
        std::optional<DriverQueue::Used> used;
        REQUIRE(rig.run_until([&] { return (used = rig.queues[request.queue]->take_used()).has_value(); }));
        CHECK(used->id == head);
        CHECK_FALSE(rig.needs_reset());
    }
    /// Buffers for what the device may send, in the queues that are not those of requests.
    void offer_buffers(std::uint32_t queue) {
        const std::array<std::uint32_t, 1> room{4096};
        for (int i = 0; i < 4; ++i) {
            rig.offer(queue, {}, room);
        }
        rig.notify(queue);
    }
    [[nodiscard]] std::vector<std::uint8_t> rings_of(std::uint32_t queue) {
        std::vector<std::uint8_t> bytes(0x1'0000);
        REQUIRE(rig.memory.read(DeviceRig::place_rings(queue, 1).descriptors, bytes));
        return bytes;
    }

    DeviceHost host;
    DeviceRig rig;
};

}  // namespace

TEST_CASE("virtio: each queue of each device can be reset alone, and set up again", "[queue_reset]") {
    open_log(vmsuperio::UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC)), LogLevel::error);
    for (const DeviceHost::Kind kind : DeviceHost::all) {
        const HostFiles files;
        Machine machine(kind, files);
        DeviceRig& rig = machine.rig;
        const auto queues = static_cast<std::uint32_t>(rig.transport->device().queue_sizes().size());
        const std::uint32_t serving = test::honest_request(kind).queue;
        for (std::uint32_t queue = 0; queue < queues; ++queue) {
            INFO(DeviceHost::name_of(kind) << ", queue " << queue);
            rig.start();
            CHECK((rig.device_features() & feature::ring_reset) != 0);
            for (std::uint32_t other = 0; other < queues; ++other) {
                if (other != serving) {
                    machine.offer_buffers(other);
                }
            }
            machine.check_honest_request();
            for (const std::uint16_t size : {std::uint16_t{64}, std::uint16_t{16}}) {
                CAPTURE(size);
                if (queue == serving) {  // requests may be in progress
                    const HonestRequest request = test::honest_request(kind);
                    rig.offer(queue, request.sent, request.received);
                    rig.notify(queue);
                }
                // A device that has no thread has not served all of them yet, and must not do so in the reset. Another
                // one returns requests at any time before it, and a shared directory also in it.
                const std::vector<std::uint8_t> before = machine.rings_of(queue);
                rig.write(mmio::queue_sel, queue);
                rig.write(mmio::queue_reset, 1);
                if (!machine.host.has_thread()) {
                    CHECK((machine.rings_of(queue) == before));
                }
                CHECK(rig.read(mmio::queue_reset) == 0);
                CHECK(rig.read(mmio::queue_ready) == 0);
                const std::vector<std::uint8_t> rings = machine.rings_of(queue);
                rig.notify(queue);
                if (queue != serving) {
                    machine.check_honest_request();
                    machine.check_honest_request();
                }
                (void)rig.run_until([] { return false; }, std::chrono::milliseconds(3));
                CHECK((machine.rings_of(queue) == rings));
                rig.set_up_queue(queue, size);
                if (queue != serving) {
                    machine.offer_buffers(queue);
                }
                machine.check_honest_request();
                machine.check_honest_request();
            }
            // The state of a device with a queue that was reset is one that can be restored.
            rig.write(mmio::queue_sel, queue);
            rig.write(mmio::queue_reset, 1);
            const MmioState state = rig.transport->state();
            CHECK(state.queues.at(queue).reset);
            CHECK_FALSE(state.queues.at(queue).ready);
        }
    }
    close_log();
}
