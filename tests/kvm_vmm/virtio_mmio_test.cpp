// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The registers of virtio-mmio, against drivers that follow the order of VIRTIO 1.2, 3.1.1, and drivers that do not.
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "virtio/entropy.hpp"
#include "virtio/mmio_transport.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::DeviceRig;
using kvm_vmm::test::DriverQueue;

namespace {

constexpr std::uint32_t acknowledge = status::acknowledge;
constexpr std::uint32_t driver = status::driver;
constexpr std::uint32_t features_ok = status::features_ok;
constexpr std::uint32_t driver_ok = status::driver_ok;

/// A device that answers each request with the bytes of the request, and has a configuration space of 8 bytes.
class Echo final : public Device {
public:
    Echo(Counters& counters, EventManager& events) : Device("echo", counters), events_(events) {}

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::console; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return 1U << 5U; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes; }
    [[nodiscard]] EventManager& events() noexcept override { return events_; }

    void change_config() {
        const LockGuard lock(mutex());
        ++config_[0];
        config_changed();
    }

    bool keep{false};  // chains stay in progress
    int activations{0};
    int resets{0};
    std::vector<std::size_t> queue_resets;
    std::function<void()> during_queue_reset;
    std::uint64_t accepted{0};

private:
    static constexpr std::array<std::uint16_t, 2> sizes{8, 16};

    void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) override {
        copy_config(config_, offset, data);
    }
    void on_write_config(std::uint64_t offset, std::span<const std::uint8_t> data)
        KVM_VMM_REQUIRES(mutex()) override {
        for (std::size_t i = 0; i < data.size() && offset + i < config_.size(); ++i) {
            config_[offset + i] = data[i];
        }
    }
    void on_activate() KVM_VMM_REQUIRES(mutex()) override {
        ++activations;
        accepted = negotiated();
    }
    void on_reset() KVM_VMM_REQUIRES(mutex()) override { ++resets; }
    void on_queue_reset(std::size_t index) KVM_VMM_REQUIRES(mutex()) override {
        queue_resets.push_back(index);
        if (during_queue_reset) {
            during_queue_reset();
        }
    }
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override {
        if (keep) {
            std::size_t budget = size_of_queue(index);
            while (pop(index, budget)) {
            }
            return;
        }
        serve(index, [](const Chain& chain) {
            std::vector<std::uint8_t> bytes(chain.readable.size());
            chain.readable.read(0, bytes);
            return std::optional(static_cast<std::uint32_t>(chain.writable.write(0, bytes)));
        });
    }

    EventManager& events_;
    std::array<std::uint8_t, 8> config_{1, 2, 3, 4, 5, 6, 7, 8};
};

struct EchoRig {
    std::shared_ptr<Echo> echo;
    DeviceRig rig{[this](DeviceRig& r) { return echo = std::make_shared<Echo>(r.counters, r.events); }};
    DeviceRig* operator->() { return &rig; }
};

constexpr std::uint64_t needed = feature::version_1;

/// An honest request, after whatever the driver did before.
void check_echo(EchoRig& rig) {
    const auto used = rig->request(0, test::as_bytes("hello"), 8);
    REQUIRE(used);
    CHECK(used->written == 5);
}

}  // namespace

TEST_CASE("virtio-mmio: the registers identify the device", "[virtio][mmio]") {
    EchoRig rig;
    CHECK(rig->read(mmio::magic_value) == 0x7472'6976);
    CHECK(rig->read(mmio::version) == 2);
    CHECK(rig->read(mmio::device_id) == 3);
    CHECK(rig->read(mmio::vendor_id) != 0);
    CHECK(rig->status() == 0);
    CHECK(rig->read(mmio::interrupt_status) == 0);
    CHECK(rig->device_features() == (feature::version_1 | feature::event_index |
                                     feature::indirect_descriptors | feature::ring_reset | 1U << 5U));
    rig->write(mmio::device_features_sel, 2);
    CHECK(rig->read(mmio::device_features) == 0);
}

TEST_CASE("virtio-mmio: shared memory regions do not exist, so their lengths are all ones",
          "[virtio][mmio]") {
    EchoRig rig;
    for (const std::uint32_t region : {0U, 1U, 255U}) {
        rig->write(mmio::shm_sel, region);
        CHECK(rig->read(mmio::shm_len_low) == 0xFFFF'FFFF);
        CHECK(rig->read(mmio::shm_len_high) == 0xFFFF'FFFF);
    }
}

TEST_CASE("virtio-mmio: a driver goes through the steps, and gets its answers", "[virtio][mmio]") {
    EchoRig rig;
    rig->start();
    CHECK(rig->status() == (acknowledge | driver | features_ok | driver_ok));
    CHECK(rig.echo->activations == 1);
    CHECK(rig.echo->accepted == rig->device_features());
    CHECK(rig->read(mmio::interrupt_status) == 0);
    CHECK(rig->interrupts() == 0);
    const auto used = rig->request(1, test::as_bytes("hello"), 16);
    REQUIRE(used);
    CHECK(used->written == 5);
    CHECK(rig->received(5) == std::vector<std::uint8_t>{'h', 'e', 'l', 'l', 'o'});
    CHECK(rig->interrupts() == 1);
    CHECK(rig->take_interrupt_status() == interrupt_status::used_buffer);
    CHECK(rig->read(mmio::interrupt_status) == 0);
}

TEST_CASE("virtio-mmio: registers that are read only keep their values, those that are write only read as 0",
          "[virtio][mmio]") {
    EchoRig rig;
    rig->start();
    REQUIRE(rig->request(0, test::as_bytes("x"), 1));
    struct Fixed {
        std::uint64_t offset;
        std::uint32_t value;
    };
    rig->write(mmio::queue_sel, 1);
    rig->write(mmio::device_features_sel, 0);
    for (const auto& [offset, value] : std::to_array<Fixed>({
             {mmio::magic_value, 0x7472'6976},
             {mmio::version, 2},
             {mmio::device_id, 3},
             {mmio::vendor_id, rig->read(mmio::vendor_id)},
             {mmio::device_features, rig->read(mmio::device_features)},
             {mmio::queue_num_max, 16},
             {mmio::interrupt_status, interrupt_status::used_buffer},
             {mmio::shm_len_low, 0xFFFF'FFFF},
             {mmio::shm_len_high, 0xFFFF'FFFF},
             {mmio::shm_base_low, 0xFFFF'FFFF},
             {mmio::shm_base_high, 0xFFFF'FFFF},
             {mmio::config_generation, rig->read(mmio::config_generation)},
             // Write only.
             {mmio::device_features_sel, 0},
             {mmio::driver_features, 0},
             {mmio::driver_features_sel, 0},
             {mmio::queue_sel, 0},
             {mmio::queue_num, 0},
             {mmio::queue_notify, 0},
             {mmio::interrupt_ack, 0},
             {mmio::queue_desc_low, 0},
             {mmio::queue_driver_high, 0},
             {mmio::queue_device_low, 0},
             {mmio::queue_reset, 0},
             {mmio::shm_sel, 0},
         })) {
        CAPTURE(offset);
        CHECK(rig->read(offset) == value);
        if (offset <= mmio::queue_num_max &&
            (offset < mmio::device_features_sel || offset == mmio::queue_num_max)) {
            rig->write(offset, 0xFFFF'FFFF);
            CHECK(rig->read(offset) == value);
            rig->write(offset, 0);
            CHECK(rig->read(offset) == value);
        }
    }
    for (const std::uint64_t offset :
         {mmio::interrupt_status, mmio::shm_len_low, mmio::shm_base_high, mmio::config_generation}) {
        const std::uint32_t before = rig->read(offset);
        rig->write(offset, ~before);
        CHECK(rig->read(offset) == before);
    }
    CHECK(rig->request(1, test::as_bytes("y"), 1));
}

TEST_CASE("virtio-mmio: what is no register reads as 0 and has no effect", "[virtio][mmio]") {
    EchoRig rig;
    rig->start();
    for (std::uint64_t offset = 0; offset < mmio::config; offset += 4) {
        if (mmio_register_name(offset).empty()) {
            CAPTURE(offset);
            rig->write(offset, 0xFFFF'FFFF);
            CHECK(rig->read(offset) == 0);
        }
    }
    CHECK(rig->status() == (acknowledge | driver | features_ok | driver_ok));
    CHECK(rig->request(0, test::as_bytes("x"), 1));
    CHECK(rig->request(1, test::as_bytes("y"), 1));
}

TEST_CASE("virtio-mmio: pages of features that do not exist are empty, and cannot be written",
          "[virtio][mmio][features]") {
    EchoRig rig;
    rig->acknowledge();
    const std::uint64_t offered = rig->device_features();
    rig->write_driver_features(offered);
    for (const std::uint32_t page : {2U, 3U, 0x80U, 0x8000'0000U, 0xFFFF'FFFFU}) {
        rig->write(mmio::device_features_sel, page);
        CHECK(rig->read(mmio::device_features) == 0);
        rig->write(mmio::driver_features_sel, page);
        rig->write(mmio::driver_features, 0xFFFF'FFFF);
    }
    rig->add_status(features_ok);
    CHECK((rig->status() & features_ok) != 0);
    rig->add_status(driver_ok);
    CHECK(rig.echo->accepted == offered);
}

TEST_CASE("virtio-mmio: features that change how queues work are not offered unless they exist",
          "[virtio][mmio][features]") {
    EchoRig rig;
    // VIRTIO_F_ACCESS_PLATFORM, RING_PACKED, IN_ORDER, ORDER_PLATFORM, SR_IOV, NOTIFICATION_DATA,
    // NOTIF_CONFIG_DATA, ADMIN_VQ, and one that is reserved.
    for (const unsigned bit : {33U, 34U, 35U, 36U, 37U, 38U, 39U, 41U, 62U}) {
        CAPTURE(bit);
        const std::uint64_t feature = std::uint64_t{1} << bit;
        rig->reset();
        rig->acknowledge();
        CHECK((rig->device_features() & feature) == 0);
        rig->write_driver_features(rig->device_features() | feature);
        rig->add_status(features_ok);
        CHECK((rig->status() & features_ok) == 0);
    }
    rig->start();
    // Notification data (4.2.3.3) of a driver that has not negotiated it is the number of a queue that does not exist.
    rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
    rig->notify(1U << 16U);
    rig->run_events();
    CHECK_FALSE(rig->queues[0]->take_used());
    rig->notify(0);
    rig->run_events();
    CHECK(rig->queues[0]->take_used());
}

TEST_CASE("virtio-mmio: a status bit without the bits before it is refused", "[virtio][mmio][status]") {
    EchoRig rig;
    for (const std::uint32_t wrong :
         {driver, features_ok, driver_ok, acknowledge | driver | features_ok | driver_ok,
          acknowledge | features_ok}) {
        rig->write(mmio::status, wrong);
        CHECK(rig->status() == 0);
    }
    rig->write(mmio::status, acknowledge);
    rig->write(mmio::status, acknowledge | features_ok);
    CHECK(rig->status() == acknowledge);
    rig->write(mmio::status, acknowledge | driver);
    rig->write(mmio::status, acknowledge | driver | driver_ok);
    CHECK(rig->status() == (acknowledge | driver));
    CHECK(rig.echo->activations == 0);
}

TEST_CASE("virtio-mmio: a driver cannot clear a status bit, or set DEVICE_NEEDS_RESET",
          "[virtio][mmio][status]") {
    EchoRig rig;
    rig->acknowledge();
    rig->write(mmio::status, acknowledge);
    CHECK(rig->status() == (acknowledge | driver));
    rig->write(mmio::status, acknowledge | driver | status::needs_reset);
    CHECK(rig->status() == (acknowledge | driver));
    rig->write(mmio::status, 0xFFFF'FF10 | acknowledge | driver);  // bits that are reserved
    CHECK(rig->status() == (acknowledge | driver));
    rig->start();
    for (const std::uint32_t wrong :
         {acknowledge, acknowledge | driver | features_ok, driver_ok, features_ok | driver_ok,
          acknowledge | driver | driver_ok, status::needs_reset, status::failed, 0x100U}) {
        CAPTURE(wrong);
        rig->write(mmio::status, wrong);
        CHECK(rig->status() == (acknowledge | driver | features_ok | driver_ok));
        CHECK(rig->request(0, test::as_bytes("x"), 1));
    }
    CHECK(rig.echo->activations == 1);
    CHECK(rig.echo->resets == 0);
}

TEST_CASE("virtio-mmio: DRIVER_OK starts the device once, and not together with FAILED",
          "[virtio][mmio][status]") {
    EchoRig rig;
    rig->start();
    for (int i = 0; i < 3; ++i) {
        rig->write(mmio::status, acknowledge | driver | features_ok | driver_ok);
        CHECK(rig->request(0, test::as_bytes("x"), 1));
    }
    CHECK(rig.echo->activations == 1);

    rig->reset();
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    rig->set_up_queue(0);
    rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
    rig->add_status(driver_ok | status::failed);
    rig->notify(0);
    rig->run_events();
    CHECK(rig.echo->activations == 1);
    CHECK(rig->queues[0]->used_index() == 0);
    rig->start();
    CHECK(rig->request(0, test::as_bytes("x"), 1));
}

TEST_CASE("virtio-mmio: DRIVER_OK without a queue is a device that does nothing until its reset",
          "[virtio][mmio][status]") {
    EchoRig rig;
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    rig->add_status(driver_ok);
    CHECK(rig.echo->activations == 1);
    for (std::uint32_t queue = 0; queue < 3; ++queue) {
        rig->write(mmio::queue_sel, queue);
        rig->write_layout(DeviceRig::place_rings(queue, 8));
        rig->write(mmio::queue_ready, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
        rig->notify(queue);
    }
    rig->run_events();
    CHECK_FALSE(rig->needs_reset());
    CHECK(rig->interrupts() == 0);
    rig->start();
    CHECK(rig->request(0, test::as_bytes("x"), 1));
}

TEST_CASE("virtio-mmio: FAILED can be set at any time, and a reset clears it", "[virtio][mmio][status]") {
    EchoRig rig;
    rig->write(mmio::status, status::failed);
    CHECK(rig->status() == status::failed);
    rig->write(mmio::status, status::failed | acknowledge);
    CHECK(rig->status() == status::failed);
    for (int i = 0; i < 2; ++i) {
        rig->start();
        CHECK(rig->request(0, test::as_bytes("x"), 1));
        rig->add_status(status::failed);
        CHECK((rig->status() & status::failed) != 0);
        rig->reset();
        CHECK(rig->status() == 0);
    }
}

TEST_CASE("virtio-mmio: a driver that has failed may only reset the device", "[virtio][mmio][status]") {
    EchoRig rig;
    rig->acknowledge();
    rig->add_status(status::failed);
    CHECK(rig->status() == (acknowledge | driver | status::failed));
    CHECK_FALSE(rig->negotiate());
    rig->reset();
    CHECK(rig->status() == 0);
    rig->start();
    CHECK(rig.echo->activations == 1);
}

TEST_CASE("virtio-mmio: FEATURES_OK does not stay without VERSION_1, or with a feature that was not offered",
          "[virtio][mmio][features]") {
    EchoRig rig;
    rig->acknowledge();
    CHECK_FALSE(rig->negotiate(~needed));
    rig->write_driver_features(rig->device_features() | 1U << 6U);
    rig->add_status(features_ok);
    CHECK((rig->status() & features_ok) == 0);
    CHECK(rig->negotiate());
}

TEST_CASE("virtio-mmio: features cannot be changed after FEATURES_OK", "[virtio][mmio][features]") {
    EchoRig rig;
    rig->acknowledge();
    REQUIRE(rig->negotiate(needed));
    rig->write_driver_features(rig->device_features());
    rig->add_status(driver_ok);
    CHECK(rig.echo->accepted == needed);
}

TEST_CASE("virtio-mmio: a queue of a wrong size never becomes ready", "[virtio][mmio][queue]") {
    EchoRig rig;
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    rig->write(mmio::queue_sel, 0);
    for (const std::uint16_t size : std::initializer_list<std::uint16_t>{0, 3, 9, 16, 0x8000}) {
        rig->write_layout(DeviceRig::place_rings(0, size));
        rig->write(mmio::queue_ready, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
    }
    rig->write(mmio::queue_num, 0x1'0008);  // not cut off to 8
    rig->write(mmio::queue_ready, 1);
    CHECK(rig->read(mmio::queue_ready) == 0);
    rig->add_status(driver_ok);
    rig->notify(0);
    rig->run_events();
    CHECK_FALSE(rig->needs_reset());
    CHECK(rig->interrupts() == 0);
}

TEST_CASE("virtio-mmio: a queue with a ring outside of RAM never becomes ready", "[virtio][mmio][queue]") {
    EchoRig rig;
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    rig->write(mmio::queue_sel, 0);
    const std::uint64_t end = rig->memory.low_end();
    for (std::uint64_t QueueLayout::* const ring :
         {&QueueLayout::descriptors, &QueueLayout::available, &QueueLayout::used}) {
        for (const std::uint64_t wrong : {end, end - 16, ~std::uint64_t{0} - 15, std::uint64_t{0xD000'0000},
                                          std::uint64_t{0xFEE0'0000}, std::uint64_t{1} << 63U}) {
            CAPTURE(wrong);
            QueueLayout layout = DeviceRig::place_rings(0, 8);
            layout.*ring = wrong;
            rig->write_layout(layout);
            rig->write(mmio::queue_ready, 1);
            CHECK(rig->read(mmio::queue_ready) == 0);
        }
        for (const std::uint64_t odd : {1U, 8U}) {
            QueueLayout layout = DeviceRig::place_rings(0, 8);
            layout.*ring += odd;
            const bool fits = ring == &QueueLayout::descriptors ? false : odd == 8;
            rig->write_layout(layout);
            rig->write(mmio::queue_ready, 1);
            CHECK(rig->read(mmio::queue_ready) == (fits ? 1 : 0));
            rig->write(mmio::queue_ready, 0);
        }
    }
    QueueLayout layout = DeviceRig::place_rings(0, 8);
    layout.descriptors = end - 8 * 16;  // ends exactly where RAM does
    rig->write_layout(layout);
    rig->write(mmio::queue_ready, 1);
    CHECK(rig->read(mmio::queue_ready) == 1);
}

TEST_CASE("virtio-mmio: a queue whose rings overlap never becomes ready", "[virtio][mmio][queue]") {
    EchoRig rig;
    const std::uint64_t features = GENERATE(~std::uint64_t{0}, ~feature::event_index);
    rig->acknowledge();
    REQUIRE(rig->negotiate(features));
    rig->write(mmio::queue_sel, 0);
    rig->write(mmio::queue_num, 8);  // no addresses: all three at 0
    rig->write(mmio::queue_ready, 1);
    CHECK(rig->read(mmio::queue_ready) == 0);
    const auto accepted = [&](std::uint64_t descriptors, std::uint64_t available, std::uint64_t used) {
        rig->write_layout({.descriptors = descriptors, .available = available, .used = used, .size = 8});
        rig->write(mmio::queue_ready, 1);
        const bool ready = rig->read(mmio::queue_ready) == 1;
        rig->write(mmio::queue_ready, 0);
        return ready;
    };
    // 8 descriptors are 128 bytes, the available ring has 20 and 2, the used ring 68 and 2.
    CHECK(accepted(0x1000, 0x1080, 0x1098));
    CHECK_FALSE(accepted(0x1000, 0x107E, 0x1098));
    CHECK_FALSE(accepted(0x1000, 0x1000, 0x2000));
    CHECK_FALSE(accepted(0x1000, 0x2000, 0x1000));
    CHECK_FALSE(accepted(0x1000, 0x2000, 0x2000));
    CHECK_FALSE(accepted(0x1000, 0x2000, 0x1FC0));
    CHECK_FALSE(accepted(0x1000, 0x0FF0, 0x2000));
    // The event index is part of the available ring if it is used.
    CHECK(accepted(0x1000, 0x1080, 0x1094) == ((features & feature::event_index) == 0));
}

TEST_CASE("virtio-mmio: queues that do not exist have no size and no effect", "[virtio][mmio][queue]") {
    EchoRig rig;
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    for (const std::uint32_t index : {2U, 0xFFFFU, 0x1'0000U, 0x8000'0000U, 0xFFFF'FFFFU}) {
        rig->write(mmio::queue_sel, index);
        CHECK(rig->read(mmio::queue_num_max) == 0);
        rig->write_layout(DeviceRig::place_rings(0, 8));
        rig->write(mmio::queue_ready, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
        rig->notify(index);
    }
    rig->run_events();
    rig->write(mmio::queue_sel, 0);
    CHECK(rig->read(mmio::queue_ready) == 0);
    CHECK(rig->read(mmio::queue_num_max) == 8);
}

TEST_CASE("virtio-mmio: a queue cannot be changed before FEATURES_OK, while it is ready, or after DRIVER_OK",
          "[virtio][mmio][queue]") {
    EchoRig rig;
    rig->acknowledge();
    rig->write(mmio::queue_sel, 0);
    rig->write_layout(DeviceRig::place_rings(0, 8));
    rig->write(mmio::queue_ready, 1);
    CHECK(rig->read(mmio::queue_ready) == 0);

    rig->start();
    const QueueLayout other = DeviceRig::place_rings(5, 4);
    rig->write(mmio::queue_sel, 0);
    rig->write_layout(other);
    rig->write(mmio::queue_ready, 1);
    const auto used = rig->request(0, test::as_bytes("x"), 1);
    REQUIRE(used);
    CHECK(used->written == 1);
    CHECK(rig->memory.read_object<std::uint16_t>(other.used + 2) == 0);

    SECTION("QueueReady 0 stops the queue until a reset") {
        rig->write(mmio::queue_ready, 0);
        CHECK(rig->read(mmio::queue_ready) == 0);
        rig->write_layout(other);
        rig->write(mmio::queue_ready, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
        rig->offer(0, test::as_bytes("y"), std::array<std::uint32_t, 1>{1});
        rig->notify(0);
        rig->run_events();
        CHECK_FALSE(rig->queues[0]->take_used());
        // The other queue goes on.
        CHECK(rig->request(1, test::as_bytes("z"), 1));
    }
}

TEST_CASE("virtio-mmio: a device with fewer queues than it offers serves those", "[virtio][mmio][queue]") {
    EchoRig rig;
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    rig->set_up_queue(1);
    rig->add_status(driver_ok);
    rig->notify(0);
    CHECK(rig->request(1, test::as_bytes("z"), 1));
}

TEST_CASE("virtio-mmio: a notification before DRIVER_OK is not lost", "[virtio][mmio]") {
    EchoRig rig;
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    rig->set_up_queue(0);
    rig->offer(0, test::as_bytes("early"), std::array<std::uint32_t, 1>{8});
    rig->notify(0);
    rig->run_events();
    CHECK_FALSE(rig->queues[0]->take_used());
    rig->add_status(driver_ok);
    rig->run_events();
    CHECK(rig->queues[0]->take_used());
}

TEST_CASE("virtio-mmio: a reset clears all registers, and the device can be used again",
          "[virtio][mmio][reset]") {
    EchoRig rig;
    rig->start();
    REQUIRE(rig->request(0, test::as_bytes("x"), 1));
    rig->write(mmio::queue_sel, 1);
    rig->write(mmio::device_features_sel, 1);
    rig->reset();
    CHECK(rig.echo->resets == 1);
    CHECK(rig->status() == 0);
    CHECK(rig->read(mmio::interrupt_status) == 0);
    CHECK(rig->read(mmio::queue_num_max) == 8);  // queue 0 is selected
    CHECK((rig->read(mmio::device_features) & 1U << 5U) != 0);
    CHECK(rig->read(mmio::queue_ready) == 0);
    CHECK(rig->read(mmio::magic_value) == mmio::magic);
    CHECK(rig->read(mmio::version) == mmio::version_number);
    rig->notify(0);
    rig->run_events();
    CHECK(rig->interrupts() == 1);  // that of the request
    // The queue's size and addresses are gone, too.
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    rig->write(mmio::queue_ready, 1);
    CHECK(rig->read(mmio::queue_ready) == 0);
    rig->start(needed);
    CHECK(rig.echo->accepted == needed);
    CHECK(rig->request(0, test::as_bytes("y"), 1));
}

TEST_CASE("virtio-mmio: a reset leaves the used ring as it is, with requests in progress",
          "[virtio][mmio][reset]") {
    EchoRig rig;
    rig->start();
    rig.echo->keep = true;
    rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
    rig->notify(0);
    rig->run_events();
    DriverQueue queue = *rig->queues[0];
    rig->reset();
    CHECK(queue.used_index() == 0);
    CHECK(rig->interrupts() == 0);
}

TEST_CASE("virtio-mmio: a driver resets a queue, and sets it up again with another size",
          "[virtio][mmio][queue]") {
    EchoRig rig;
    rig->start();
    rig.echo->keep = true;
    rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
    rig->notify(0);
    rig->run_events();
    rig.echo->keep = false;
    DriverQueue old = *rig->queues[0];
    rig->write(mmio::queue_sel, 0);
    rig->write(mmio::queue_reset, 1);
    CHECK(rig->read(mmio::queue_reset) == 0);
    CHECK(rig->read(mmio::queue_ready) == 0);
    CHECK(rig->read(mmio::queue_num_max) == 8);
    CHECK(rig.echo->queue_resets == std::vector<std::size_t>{0});
    CHECK(rig.echo->resets == 0);
    CHECK(rig->status() == (acknowledge | driver | features_ok | driver_ok));
    // It executes nothing, writes nothing, and sends no interrupt; the other queue works.
    old.offer(1);
    rig->notify(0);
    rig->run_events();
    CHECK(old.used_index() == 0);
    CHECK(rig->interrupts() == 0);
    CHECK(rig->request(1, test::as_bytes("other"), 8));
    // Its registers are as after a reset of the device.
    rig->write(mmio::queue_ready, 1);
    CHECK(rig->read(mmio::queue_ready) == 0);
    for (const std::uint16_t size : {std::uint16_t{4}, std::uint16_t{1}, std::uint16_t{8}}) {
        CAPTURE(size);
        rig->set_up_queue(0, size);
        for (int i = 0; i < 10; ++i) {
            rig->offer(0, {}, std::array<std::uint32_t, 1>{1});
            rig->notify(0);
            rig->run_events();
            CHECK(rig->queues[0]->take_used());
        }
        CHECK(rig->queues[0]->used_index() == 10);
        rig->write(mmio::queue_reset, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
    }
    // What is available before the queue is ready, and notified, is served when it is ready.
    const QueueLayout layout = DeviceRig::place_rings(0, 8);
    REQUIRE(rig->memory.write(layout.descriptors, std::vector<std::uint8_t>(0x1'0000)));
    rig->queues[0].emplace(rig->memory, layout);
    rig->offer(0, test::as_bytes("early"), std::array<std::uint32_t, 1>{8});
    rig->notify(0);
    rig->run_events();
    CHECK_FALSE(rig->queues[0]->take_used());
    rig->write_layout(layout);
    rig->write(mmio::queue_ready, 1);
    CHECK(rig->read(mmio::queue_ready) == 1);
    rig->run_events();
    CHECK(rig->queues[0]->take_used());
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("virtio-mmio: QueueReset has an effect only on a queue that is enabled, if it was negotiated",
          "[virtio][mmio][queue]") {
    EchoRig rig;
    const auto reset_queue = [&](std::uint32_t queue, std::uint32_t value = 1) {
        rig->write(mmio::queue_sel, queue);
        rig->write(mmio::queue_reset, value);
        CHECK(rig->read(mmio::queue_reset) == 0);
    };
    SECTION("not negotiated") {
        rig->start(~feature::ring_reset);
        reset_queue(0);
        CHECK(rig->read(mmio::queue_ready) == 1);
        CHECK(rig.echo->queue_resets.empty());
        CHECK(rig->request(0, test::as_bytes("x"), 1));
    }
    SECTION("other values and queues") {
        rig->start();
        for (const std::uint32_t value : {0U, 2U, 0xFFFF'FFFEU}) {
            reset_queue(0, value);
        }
        for (const std::uint32_t queue : {2U, 0xFFFFU, 0xFFFF'FFFFU}) {
            reset_queue(queue);
        }
        CHECK(rig.echo->queue_resets.empty());
        CHECK(rig->request(0, test::as_bytes("x"), 1));
    }
    SECTION("before FEATURES_OK and DRIVER_OK") {
        reset_queue(0);
        rig->acknowledge();
        reset_queue(0);
        REQUIRE(rig->negotiate());
        reset_queue(0);
        rig->set_up_queue(0);
        reset_queue(0);
        CHECK(rig->read(mmio::queue_ready) == 0);
        rig->set_up_queue(0);
        rig->add_status(driver_ok);
        CHECK(rig.echo->queue_resets.empty());
        CHECK(rig->request(0, test::as_bytes("x"), 1));
    }
    SECTION("a queue that is not enabled cannot be set up after DRIVER_OK") {
        rig->acknowledge();
        REQUIRE(rig->negotiate());
        rig->set_up_queue(1);
        rig->add_status(driver_ok);
        reset_queue(0);
        rig->write_layout(DeviceRig::place_rings(0, 8));
        rig->write(mmio::queue_ready, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
        // Likewise one that was disabled by QueueReady.
        rig->write(mmio::queue_sel, 1);
        rig->write(mmio::queue_ready, 0);
        reset_queue(1);
        rig->write_layout(DeviceRig::place_rings(1, 8));
        rig->write(mmio::queue_ready, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
    }
    SECTION("invalid sizes and addresses, and FAILED") {
        rig->start();
        reset_queue(0);
        for (const std::uint16_t size : std::initializer_list<std::uint16_t>{0, 3, 16}) {
            rig->write_layout(DeviceRig::place_rings(0, size));
            rig->write(mmio::queue_ready, 1);
            CHECK(rig->read(mmio::queue_ready) == 0);
        }
        rig->add_status(status::failed);
        rig->write_layout(DeviceRig::place_rings(0, 8));
        rig->write(mmio::queue_ready, 1);
        CHECK(rig->read(mmio::queue_ready) == 0);
    }
    SECTION("a device that needs a reset stays so") {
        rig->start();
        rig->queues[0]->set_available_index(9);
        rig->notify(0);
        rig->run_events();
        REQUIRE(rig->needs_reset());
        reset_queue(0);
        rig->set_up_queue(0);
        rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
        rig->notify(0);
        rig->run_events();
        CHECK(rig->needs_reset());
        CHECK(rig->queues[0]->used_index() == 0);
    }
    rig->start();
    CHECK(rig->request(0, test::as_bytes("x"), 1));
    CHECK(rig->request(1, test::as_bytes("x"), 1));
}

TEST_CASE("virtio-mmio: QueueReset reads as 1 while the reset of the queue runs", "[virtio][mmio][queue]") {
    EchoRig rig;
    rig->start();
    std::uint32_t meanwhile = 0;
    rig.echo->during_queue_reset = [&] {
        std::thread other_cpu([&] { meanwhile = rig->read(mmio::queue_reset); });
        other_cpu.join();
    };
    rig->write(mmio::queue_sel, 1);
    CHECK(rig->read(mmio::queue_reset) == 0);
    rig->write(mmio::queue_reset, 1);
    CHECK(meanwhile == 1);
    CHECK(rig->read(mmio::queue_reset) == 0);
}

TEST_CASE("virtio-mmio: a saved state has the queues that were reset", "[virtio][mmio][state]") {
    EchoRig rig;
    rig->start();
    rig->write(mmio::queue_sel, 0);
    rig->write(mmio::queue_reset, 1);
    const MmioState saved = rig->transport->state();
    CHECK(saved.queues[0].reset);
    CHECK_FALSE(saved.queues[0].ready);
    CHECK((saved.driver_features & feature::ring_reset) != 0);

    const auto echo = std::make_shared<Echo>(rig->counters, rig->events);
    rig->transport =
        std::make_unique<MmioTransport>(rig->memory, echo, vmsuperio::EventFdTrigger::create().value());
    MmioState bad = saved;
    bad.queues[1].reset = true;
    CHECK(rig->transport->restore(bad).error() == "queues");
    bad = saved;
    bad.driver_features &= ~feature::ring_reset;
    CHECK(rig->transport->restore(bad).error() == "queues");
    REQUIRE(rig->transport->restore(saved).has_value());
    CHECK(rig->transport->state() == saved);
    rig->set_up_queue(0, 4);
    CHECK(rig->request(0, test::as_bytes("x"), 1));
    CHECK(rig->request(1, test::as_bytes("x"), 1));
    CHECK_FALSE(rig->transport->state().queues[0].reset);
}

TEST_CASE("virtio-mmio: after a corrupt ring the device asks for a reset and does nothing until then",
          "[virtio][mmio][hostile]") {
    EchoRig rig;
    rig->start();
    rig->queues[0]->set_available_index(9);
    rig->notify(0);
    rig->run_events();
    CHECK(rig->needs_reset());
    CHECK(rig->take_interrupt_status() == interrupt_status::configuration_change);
    CHECK(rig->interrupts() == 1);
    for (int i = 0; i < 10; ++i) {
        rig->notify(0);
        rig->notify(1);
        rig->run_events();
    }
    CHECK(rig->interrupts() == 0);
    CHECK(rig->counters["driver_errors"].value() == 1);
    rig->start();
    CHECK_FALSE(rig->needs_reset());
    CHECK(rig->request(0, test::as_bytes("x"), 1));
}

TEST_CASE("virtio-mmio: rings that cannot be followed need a reset, which mends the device",
          "[virtio][mmio][hostile]") {
    struct Case {
        std::string_view name;
        void (*corrupt)(DriverQueue& queue);
    };
    static constexpr std::uint64_t table = 0x50'0000;
    const auto cases = std::to_array<Case>({
        {"an index that jumps", [](DriverQueue& q) { q.set_available_index(9); }},
        {"an index that goes back", [](DriverQueue& q) { q.set_available_index(0xFFFF); }},
        {"a head that does not exist", [](DriverQueue& q) { q.offer(8); }},
        {"a head of all ones", [](DriverQueue& q) { q.offer(0xFFFF); }},
        {"a loop",
         [](DriverQueue& q) {
             q.set(0, {table, 4, DriverQueue::next, 0});
             q.offer(0);
         }},
        {"a next descriptor that does not exist",
         [](DriverQueue& q) {
             q.set(0, {table, 4, DriverQueue::next, 8});
             q.offer(0);
         }},
        {"all fields of all ones",
         [](DriverQueue& q) {
             q.set(0, {~std::uint64_t{0}, ~0U, 0xFFFF, 0xFFFF});
             q.offer(0);
         }},
        {"a table in a table",
         [](DriverQueue& q) {
             q.set(0, {table, 32, DriverQueue::indirect});
             q.set_in(table, 0, {table, 16, DriverQueue::indirect});
             q.offer(0);
         }},
        {"a table of the rings' own descriptors",
         [](DriverQueue& q) {
             q.set(0, {q.layout().descriptors, 8 * 16, DriverQueue::indirect});
             q.offer(0);
         }},
        {"two tables one after the other",
         [](DriverQueue& q) {
             q.set(0, {table, 16, DriverQueue::indirect | DriverQueue::next, 1});
             q.set(1, {table + 16, 16, DriverQueue::indirect});
             q.offer(0);
         }},
        {"a table with a loop",
         [](DriverQueue& q) {
             q.set(0, {table, 32, DriverQueue::indirect});
             q.set_in(table, 0, {table, 4, DriverQueue::next, 1});
             q.set_in(table, 1, {table, 4, DriverQueue::next, 0});
             q.offer(0);
         }},
        {"a table of 47 bytes",
         [](DriverQueue& q) {
             q.set(0, {table, 47, DriverQueue::indirect});
             q.offer(0);
         }},
        {"a table of 0 bytes",
         [](DriverQueue& q) {
             q.set(0, {table, 0, DriverQueue::indirect});
             q.offer(0);
         }},
        {"a table of 4 GiB",
         [](DriverQueue& q) {
             q.set(0, {table, 0xFFFF'FFF0, DriverQueue::indirect});
             q.offer(0);
         }},
        {"a table outside RAM",
         [](DriverQueue& q) {
             q.set(0, {0xD000'0000, 16, DriverQueue::indirect});
             q.offer(0);
         }},
    });
    EchoRig rig;
    for (const Case& each : cases) {
        CAPTURE(each.name);
        rig->start();
        const std::uint64_t errors = rig->counters["driver_errors"].value();
        each.corrupt(*rig->queues[0]);
        rig->notify(0);
        rig->run_events();
        CHECK(rig->needs_reset());
        CHECK(rig->counters["driver_errors"].value() == errors + 1);
        CHECK(rig->queues[0]->used_index() == 0);
        CHECK(rig->take_interrupt_status() == interrupt_status::configuration_change);
        rig->start();
        CHECK_FALSE(rig->needs_reset());
        check_echo(rig);
    }
}

TEST_CASE("virtio-mmio: a request whose buffers cannot be used is returned, and the device works on",
          "[virtio][mmio][hostile]") {
    EchoRig rig;
    rig->start(~feature::event_index);
    const std::uint64_t end = rig->memory.low_end();
    constexpr std::uint16_t in = DriverQueue::device_writes;
    const auto cases = std::to_array<std::vector<DriverQueue::Descriptor>>({
        {{end, 4}, {0x50'0000, 4, in}},
        {{0x50'0000, 4}, {end - 1, 4, in}},
        {{0x50'0000, 4}, {0xD000'0000, 4, in}},
        {{0x50'0000, 4}, {0xFFFF'FFFF'FFFF'F000, 0x2000, in}},
        {{0x50'0000, 4}, {0x50'0000, 0xFFFF'FFFF, in}, {0x50'0000, 1, in}},
        {{0x50'0000, 4, in}, {0x50'0000, 4}},
    });
    std::uint64_t errors = 0;
    for (const std::vector<DriverQueue::Descriptor>& descriptors : cases) {
        CAPTURE(errors);
        DriverQueue& queue = *rig->queues[0];
        const std::uint16_t before = queue.used_index();
        for (std::size_t i = 0; i < descriptors.size(); ++i) {
            DriverQueue::Descriptor descriptor = descriptors[i];
            descriptor.flags = static_cast<std::uint16_t>(
                descriptor.flags | (i + 1U < descriptors.size() ? DriverQueue::next : 0U));
            descriptor.next = static_cast<std::uint16_t>(i + 1);
            queue.set(static_cast<std::uint16_t>(i), descriptor);
        }
        (void)rig->interrupts();
        queue.offer(0);
        rig->notify(0);
        rig->run_events();
        CHECK(queue.used_index() == static_cast<std::uint16_t>(before + 1));
        CHECK(queue.take_used() == DriverQueue::Used{0, 0});
        CHECK(rig->interrupts() == 1);
        CHECK(rig->counters["driver_errors"].value() == ++errors);
        CHECK_FALSE(rig->needs_reset());
        check_echo(rig);
    }
}

TEST_CASE("virtio-mmio: a driver that only offers unusable requests does not keep the event loop busy",
          "[virtio][mmio][hostile]") {
    EchoRig rig;
    rig->start();
    rig->queues[0]->set(0, {rig->memory.low_end(), 1});
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 8; ++i) {
            rig->queues[0]->set(static_cast<std::uint16_t>(i), {rig->memory.low_end(), 1});
            rig->queues[0]->offer(static_cast<std::uint16_t>(i));
        }
        rig->notify(0);
        rig->events.run_once(0);
        CHECK(rig->queues[0]->used_index() == 8 * (round + 1));
    }
    // The device has notified itself, as after other requests, and comes to rest.
    rig->run_events();
    CHECK(rig->events.run_once(0) == 0);
    while (rig->queues[0]->take_used()) {
    }
    CHECK(rig->request(0, test::as_bytes("x"), 1));
}

TEST_CASE("virtio-mmio: flags of descriptors that are reserved mean nothing", "[virtio][mmio]") {
    EchoRig rig;
    rig->start();
    constexpr std::uint16_t reserved = 0xFFF8;
    rig->queues[0]->set(0, {0x50'0000, 4, reserved | DriverQueue::next, 1});
    rig->queues[0]->set(1, {0x51'0000, 4, reserved | DriverQueue::device_writes});
    rig->queues[0]->offer(0);
    rig->notify(0);
    rig->run_events();
    CHECK(rig->queues[0]->take_used() == DriverQueue::Used{0, 4});
}

TEST_CASE("virtio-mmio: interrupts that are not acknowledged do not stop the device",
          "[virtio][mmio][interrupt]") {
    EchoRig rig;
    rig->start(~feature::event_index);
    for (int i = 0; i < 20; ++i) {
        REQUIRE(rig->request(0, test::as_bytes("x"), 1));
        CHECK(rig->interrupts() == 1);
        CHECK(rig->read(mmio::interrupt_status) == interrupt_status::used_buffer);
    }
}

TEST_CASE("virtio-mmio: an acknowledgement clears its own bits only", "[virtio][mmio][interrupt]") {
    EchoRig rig;
    rig->start();
    rig.echo->change_config();
    REQUIRE(rig->request(0, test::as_bytes("x"), 1));
    CHECK(rig->read(mmio::interrupt_status) == 3);
    CHECK(rig->read(mmio::interrupt_status) == 3);  // reading has no effect
    rig->write(mmio::interrupt_ack, interrupt_status::used_buffer);
    CHECK(rig->read(mmio::interrupt_status) == interrupt_status::configuration_change);
    rig->write(mmio::interrupt_ack, ~interrupt_status::configuration_change);
    CHECK(rig->read(mmio::interrupt_status) == interrupt_status::configuration_change);
    rig->write(mmio::interrupt_ack, interrupt_status::configuration_change);
    CHECK(rig->read(mmio::interrupt_status) == 0);
}

TEST_CASE("virtio-mmio: a changed configuration has another generation, and an interrupt only for a driver",
          "[virtio][mmio][config]") {
    EchoRig rig;
    const std::uint32_t before = rig->read(mmio::config_generation);
    rig.echo->change_config();
    CHECK(rig->interrupts() == 0);
    rig->start();
    const std::uint32_t started = rig->read(mmio::config_generation);
    CHECK(started == before);
    rig.echo->change_config();
    CHECK(rig->read(mmio::config_generation) != started);
    CHECK(rig->interrupts() == 1);
    CHECK(rig->config<std::uint8_t>(0) == 3);
}

TEST_CASE("virtio-mmio: the configuration space has its bytes at any width, and zeros beyond its end",
          "[virtio][mmio][config]") {
    EchoRig rig;
    CHECK(rig->config<std::uint8_t>(7) == 8);
    CHECK(rig->config<std::uint16_t>(2) == 0x0403);
    CHECK(rig->config<std::uint64_t>(0) == 0x0807'0605'0403'0201);
    CHECK(rig->config<std::uint32_t>(6) == 0x0807);
    CHECK(rig->config<std::uint32_t>(8) == 0);
    CHECK(rig->config<std::uint64_t>(0xEF8) == 0);
    rig->write_as<std::uint32_t>(mmio::config + 6, 0xFFFF'FFFF);
    CHECK(rig->config<std::uint64_t>(0) == 0xFFFF'0605'0403'0201);
}

TEST_CASE("virtio-mmio: registers are accessed with 4 bytes at a multiple of 4", "[virtio][mmio]") {
    EchoRig rig;
    CHECK(rig->read_as<std::uint8_t>(mmio::magic_value) == 0);
    CHECK(rig->read_as<std::uint16_t>(mmio::version) == 0);
    CHECK(rig->read_as<std::uint64_t>(mmio::magic_value) == 0);
    CHECK(rig->read(mmio::magic_value + 2) == 0);
    rig->write_as<std::uint8_t>(mmio::status, 1);
    rig->write_as<std::uint64_t>(mmio::status, 1);
    CHECK(rig->status() == 0);
}

TEST_CASE("virtio-mmio: a driver that makes chains available for ever does not keep the event loop busy",
          "[virtio][mmio][hostile]") {
    EchoRig rig;
    rig->start();
    for (int i = 0; i < 8; ++i) {
        rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
    }
    rig->notify(0);
    rig->events.run_once(0);
    CHECK(rig->queues[0]->used_index() == 8);
    // The device looks at the queue again by itself, after the others had their turn.
    rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
    rig->run_events();
    CHECK(rig->queues[0]->used_index() == 9);
}

TEST_CASE("virtio-mmio: a saved transport goes on in another machine with the same memory",
          "[virtio][mmio][state]") {
    EchoRig rig;
    rig->start();
    REQUIRE(rig->request(1, test::as_bytes("one"), 4));
    rig.echo->change_config();
    const MmioState saved = rig->transport->state();
    CHECK(saved == rig->transport->state());

    const auto echo = std::make_shared<Echo>(rig->counters, rig->events);
    rig->transport =
        std::make_unique<MmioTransport>(rig->memory, echo, vmsuperio::EventFdTrigger::create().value());
    REQUIRE(rig->transport->restore(saved).has_value());
    CHECK(rig->transport->state() == saved);
    CHECK(rig->status() == (acknowledge | driver | features_ok | driver_ok));
    CHECK(rig->interrupts() == 1);  // InterruptStatus is not 0
    const auto used = rig->request(1, test::as_bytes("two"), 4);
    REQUIRE(used);
    CHECK(rig->received(3) == std::vector<std::uint8_t>{'t', 'w', 'o'});
}

TEST_CASE("virtio-mmio: a state that no transport can be in is refused with the name of the member",
          "[virtio][mmio][state]") {
    EchoRig rig;
    rig->start();
    const MmioState good = rig->transport->state();
    rig->reset();
    const MmioState before = rig->transport->state();
    const auto refused = [&](auto&& change) {
        MmioState bad = good;
        change(bad);
        const auto result = rig->transport->restore(bad);
        CHECK(rig->transport->state() == before);
        return result ? std::string("(accepted)") : std::string(result.error());
    };
    CHECK(refused([](MmioState& s) { s.status = driver_ok; }) == "status");
    CHECK(refused([](MmioState& s) { s.status |= 1U << 4U; }) == "status");
    CHECK(refused([](MmioState& s) { s.interrupt_status = 4; }) == "interrupt_status");
    CHECK(refused([](MmioState& s) { s.driver_features = 1; }) == "driver_features");
    CHECK(refused([](MmioState& s) { s.queues.pop_back(); }) == "queues");
    CHECK(refused([](MmioState& s) { s.queues[0].size = 1U << 20U; }) == "queues");
    CHECK(refused([](MmioState& s) { s.queues[0].size = 3; }) == "queues");
    CHECK(refused([](MmioState& s) { s.queues[0].used = ~std::uint64_t{0}; }) == "queues");
    CHECK(refused([](MmioState& s) { s.status = acknowledge | driver; }) == "queues");
}

TEST_CASE("virtio-mmio: a device that was shut down ignores its driver", "[virtio][mmio]") {
    EchoRig rig;
    rig->start();
    rig.echo->keep = true;
    rig->offer(0, test::as_bytes("x"), std::array<std::uint32_t, 1>{1});
    rig->notify(0);
    rig->transport->shut_down();
    CHECK(rig.echo->resets == 1);
    rig->run_events();
    CHECK(rig->queues[0]->used_index() == 0);
    CHECK(rig->interrupts() == 0);
}

TEST_CASE("virtio-mmio: every register has a name", "[virtio][mmio]") {
    CHECK(mmio_register_name(0x050) == "QueueNotify");
    CHECK(mmio_register_name(0x100) == "config+0x00");
    CHECK(mmio_register_name(0x123) == "config+0x23");
    CHECK(mmio_register_name(0x054).empty());
    CHECK(mmio_register_name(0x1000).empty());
}

TEST_CASE("virtio entropy: requests are filled, up to 64 KiB each", "[virtio][entropy]") {
    DeviceRig rig([](DeviceRig& r) { return std::make_shared<Entropy>("rng", r.counters, r.events); });
    rig.start();
    const auto used = rig.request(0, {}, 64);
    REQUIRE(used);
    CHECK(used->written == 64);
    CHECK(rig.received(64) != std::vector<std::uint8_t>(64));
    const auto large = rig.request(0, {}, 1U << 20U);
    REQUIRE(large);
    CHECK(large->written == 64 * 1024);
    CHECK(rig.counters["bytes"].value() == 64 + 64 * 1024);
    // Nothing to fill: answered all the same.
    const auto none = rig.request(0, test::as_bytes("x"), 0);
    REQUIRE(none);
    CHECK(none->written == 0);
}

TEST_CASE("virtio entropy: a source that has less fills what it has", "[virtio][entropy]") {
    DeviceRig rig([](DeviceRig& r) {
        return std::make_shared<Entropy>("rng", r.counters, r.events, [](std::span<std::uint8_t> bytes) {
            bytes[0] = 7;
            return std::size_t{1};
        });
    });
    rig.start();
    rig.offer(0, {}, std::array<std::uint32_t, 2>{4, 4});
    rig.notify(0);
    rig.run_events();
    const auto used = rig.queues[0]->take_used();
    REQUIRE(used);
    CHECK(used->written == 1);
    CHECK(rig.received(5) == std::vector<std::uint8_t>{7, 0, 0, 0, 0});
}
