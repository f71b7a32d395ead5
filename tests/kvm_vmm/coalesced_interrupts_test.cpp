// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Drivers whose writes to InterruptACK KVM keeps in its ring: they read what drivers read whose writes return at once, and
// miss no interrupt.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <thread>

#include <vmdevice/device.hpp>
#include <vmdevice/io_manager.hpp>

#include "catch.hpp"
#include "kernel_ring.hpp"
#include "virtio/interrupt_causes.hpp"
#include "virtio_mmio_driver.hpp"
#include "vmm/coalesced_writes.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;
using namespace kvm_vmm::virtio;

namespace {

using vmdevice::MmioAddress;

/// A device that interrupts its driver when the test says so.
class Bell final : public Device {
public:
    Bell(Counters& counters, EventManager& events) : Device("bell", counters), events_(events) {}

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::console; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes; }
    [[nodiscard]] EventManager& events() noexcept override { return events_; }
    void ring() {
        const LockGuard lock(mutex());
        config_changed();
    }

private:
    static constexpr std::array<std::uint16_t, 1> sizes{8};

    void on_read_config(std::uint64_t, std::span<std::uint8_t>) const KVM_VMM_REQUIRES(mutex()) override {}
    void on_queue_reset(std::size_t) KVM_VMM_REQUIRES(mutex()) override {}
    void on_notified(std::size_t) KVM_VMM_REQUIRES(mutex()) override {}

    EventManager& events_;
};

/// The bus's share of a transport that the rig owns.
class OnBus final : public vmdevice::DeviceMmio {
public:
    explicit OnBus(MmioTransport& transport) : transport_(transport) {}
    void mmio_read(MmioAddress base, vmdevice::MmioOffset offset, std::span<std::uint8_t> data) override {
        transport_.mmio_read(base, offset, data);
    }
    void mmio_write(MmioAddress base, vmdevice::MmioOffset offset,
                    std::span<const std::uint8_t> data) override {
        transport_.mmio_write(base, offset, data);
    }

private:
    MmioTransport& transport_;
};

/// A driver of a bell: what its interrupt handler does, in steps.
class Driver {
public:
    static constexpr std::uint64_t base = 0xD000'0000;

    Driver() {
        REQUIRE(io.register_mmio(*vmdevice::MmioRange::create(MmioAddress{base}, mmio::window_size),
                                 std::make_shared<OnBus>(*rig.transport)));
        rig.start();
    }
    virtual ~Driver() = default;

    [[nodiscard]] virtual std::uint32_t read_status() {
        std::array<std::uint8_t, 4> bytes{};
        CHECK(io.mmio_read(MmioAddress{base + mmio::interrupt_status}, bytes));
        std::uint32_t value = 0;
        std::memcpy(&value, bytes.data(), bytes.size());
        return value;
    }
    virtual void acknowledge(std::uint32_t causes) {
        CHECK(io.mmio_write(MmioAddress{base + mmio::interrupt_ack}, bytes_of(causes)));
    }

    std::shared_ptr<Bell> bell;
    KernelRing kernel;
    DeviceRig rig{[this](DeviceRig& r) { return bell = std::make_shared<Bell>(r.counters, r.events); },
                  16U << 20U, [this] { return !kernel.ring().empty(); }};
    vmdevice::IoManager io;

protected:
    [[nodiscard]] static std::array<std::uint8_t, 4> bytes_of(std::uint32_t value) {
        std::array<std::uint8_t, 4> bytes{};
        std::memcpy(bytes.data(), &value, bytes.size());
        return bytes;
    }
};

/// The same whose acknowledgements are coalesced.
class CoalescedDriver final : public Driver {
public:
    [[nodiscard]] std::uint32_t read_status() override {
        writes.deliver();
        return Driver::read_status();
    }
    void acknowledge(std::uint32_t causes) override {
        if (!kernel.add(base + mmio::interrupt_ack, bytes_of(causes), false)) {
            writes.deliver();
            Driver::acknowledge(causes);
        }
    }

    EndLatch end;
    Observer observer;
    CoalescedWrites writes{kernel.ring(), io, end, observer, 0};
};

}  // namespace

TEST_CASE("Interrupt causes: an acknowledgement clears what is set, read or not", "[coalesce][interrupt]") {
    const auto none = [] { return false; };
    InterruptCauses causes;
    causes.raise(1, none);
    causes.raise(2, none);
    causes.acknowledge(1);
    CHECK(causes.read() == 2);
    causes.acknowledge(2);
    CHECK(causes.read() == 0);
    causes.set(3);
    causes.acknowledge(~1U);
    CHECK(causes.peek() == 1);
    CHECK(causes.read() == 1);
}

TEST_CASE("Interrupt causes: a late acknowledgement does not clear what has arisen since",
          "[coalesce][interrupt]") {
    bool late = true;
    const auto on_its_way = [&late] { return late; };
    InterruptCauses causes;
    causes.raise(1, on_its_way);
    causes.acknowledge(3);
    CHECK(causes.peek() == 1);
    CHECK(causes.read() == 1);
    causes.raise(2, on_its_way);
    causes.acknowledge(~1U);
    CHECK(causes.peek() == 3);
    causes.raise(1, on_its_way);  // a second time, before the acknowledgement of the first one
    causes.acknowledge(3);
    CHECK(causes.read() == 3);
    causes.acknowledge(3);
    CHECK(causes.read() == 0);
    // When nothing is on its way any more, that is true for what has arisen earlier, too.
    causes.raise(1, on_its_way);
    late = false;
    causes.raise(2, on_its_way);
    causes.acknowledge(3);
    CHECK(causes.read() == 0);
}

TEST_CASE("Coalesced acknowledgements: a driver that does not read the causes clears them",
          "[coalesce][interrupt]") {
    CoalescedDriver driver;
    driver.bell->ring();
    driver.acknowledge(3);
    CHECK(driver.read_status() == 0);
    // With one on its way, the cause stays: nothing says which of the two was first.
    driver.acknowledge(3);
    driver.bell->ring();
    CHECK(driver.read_status() == interrupt_status::configuration_change);
}

TEST_CASE("Coalesced acknowledgements: random steps read the same as without", "[coalesce][interrupt]") {
    Driver direct;
    CoalescedDriver coalesced;
    std::mt19937 random(7);
    std::uint32_t known = 0;
    std::size_t with_cause = 0;
    // A cause has arisen while an acknowledgement was on its way; the driver has acknowledged it without reading it.
    bool kept = false;
    bool blind = false;
    std::size_t blind_reads = 0;
    constexpr std::size_t steps = 300'000;
    for (std::size_t step = 0; step < steps; ++step) {
        switch (random() % 8) {
            case 0:
            case 1:
                kept = kept || !coalesced.kernel.ring().empty();
                direct.bell->ring();
                coalesced.bell->ring();
                break;
            case 2:
            case 3:
            case 4:
                // Of what was read last, too much, or too little; one or, at times, more than there is room for.
                for (unsigned i = random() % 64 == 0 ? 200 : 1; i != 0; --i) {
                    const std::uint32_t causes =
                        random() % 4 == 0 ? static_cast<std::uint32_t>(random()) : known;
                    direct.acknowledge(causes);
                    coalesced.acknowledge(causes);
                    blind = blind || (kept && causes != 0);
                }
                break;
            case 5:
            case 6: {
                known = direct.read_status();
                const std::uint32_t read = coalesced.read_status();
                with_cause += known != 0 ? 1 : 0;
                if (blind) {
                    // Too many causes are harmless, too few are not.
                    REQUIRE((known & ~read) == 0);
                    blind_reads += read != known ? 1 : 0;
                    direct.acknowledge(3);
                    coalesced.acknowledge(3);
                    known = 0;
                    REQUIRE(coalesced.read_status() == direct.read_status());
                } else {
                    REQUIRE(read == known);
                }
                kept = false;
                blind = false;
                break;
            }
            default:
                if (random() % 2 == 0) {
                    (void)coalesced.writes.look();
                } else {
                    coalesced.writes.deliver_by_host();
                }
                break;
        }
    }
    CHECK(with_cause > steps / 20);
    CHECK(with_cause < steps / 5);
    CHECK(blind_reads > steps / 1000);
    CHECK(blind_reads < steps / 10);
    CHECK(coalesced.observer.metrics().coalesced() > steps / 4);
    CHECK_FALSE(coalesced.end.requested());
}

TEST_CASE("Coalesced acknowledgements: the event loop does not look for them", "[coalesce][interrupt]") {
    CoalescedDriver driver;
    driver.bell->ring();
    CHECK(driver.read_status() == interrupt_status::configuration_change);
    driver.acknowledge(interrupt_status::configuration_change);
    for (int i = 0; i < 10; ++i) {
        CHECK_FALSE(driver.writes.look());
    }
    CHECK(driver.observer.metrics().coalesced() == 0);
    // Together with a write to a port they are delivered.
    REQUIRE(driver.kernel.write_port(0x3F8, 'x'));
    CHECK(driver.kernel.ring().holds_port_write());
    CHECK(driver.writes.look() == std::optional<std::chrono::microseconds>(DrainPace::shortest));
    CHECK(driver.observer.metrics().coalesced() == 2);
    CHECK(driver.read_status() == 0);
}

TEST_CASE("Coalesced acknowledgements: a driver that acts on interrupts alone misses nothing",
          "[coalesce][interrupt]") {
    CoalescedDriver driver;
    constexpr std::uint32_t rounds = 20'000;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const auto in_time = [limit] { return std::chrono::steady_clock::now() < limit; };
    std::atomic<std::uint32_t> made{0};  // what the device has put into the driver's memory
    std::atomic<std::uint32_t> seen{0};
    std::atomic<bool> done{false};
    const std::jthread device([&] {
        std::mt19937 random(3);
        for (std::uint32_t i = 0; i < rounds && in_time(); ++i) {
            made.store(i + 1);
            driver.bell->ring();
            // Most of the time nothing else happens until the driver has seen this.
            const bool waits = random() % 8 != 0;
            while (waits && seen.load() != i + 1 && in_time()) {
                std::this_thread::yield();
            }
        }
    });
    const std::jthread host([&] {
        while (!done) {
            driver.writes.deliver_by_host();
            std::this_thread::yield();
        }
    });
    while (seen.load() != rounds && in_time()) {
        if (driver.rig.interrupts() == 0) {
            std::this_thread::yield();
            continue;
        }
        const std::uint32_t causes = driver.read_status();
        driver.acknowledge(causes);
        // The handler of the edge before may have found this one's cause already, and what it was raised for.
        if (causes != 0) {
            seen.store(made.load());
        }
    }
    done = true;
    CHECK(seen.load() == rounds);
}
