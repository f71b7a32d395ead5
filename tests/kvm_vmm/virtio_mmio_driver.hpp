// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// The driver's side of a whole device, for tests: it operates the registers of the MMIO transport as Linux does
// (drivers/virtio/virtio_mmio.c), and has a queue of buffers for each virtqueue.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vmsuperio/linux/eventfd.hpp>

#include "catch.hpp"
#include "event/event_manager.hpp"
#include "memory/guest_memory.hpp"
#include "observe/counters.hpp"
#include "virtio/mmio_transport.hpp"
#include "virtio_driver.hpp"

namespace kvm_vmm::test {

/// A machine of one device: RAM, an event loop, counters, and the driver of the device.
///
/// ```cpp
/// DeviceRig rig([](DeviceRig& r) { return std::make_shared<virtio::Entropy>("rng", r.counters, r.events); });
/// rig.start();
/// const auto used = rig.request(0, {}, 16);   // one buffer of 16 bytes that the device may write
/// CHECK(used->written == 16);
/// ```
class DeviceRig {
public:
    using Make = std::function<std::shared_ptr<virtio::Device>(DeviceRig&)>;
    using Text = std::span<const std::uint8_t>;

    explicit DeviceRig(const Make& make, std::uint64_t ram = 16U << 20U,
                       std::function<bool()> writes_on_their_way = {})
        : memory(ram),
          transport(std::make_unique<virtio::MmioTransport>(memory, make(*this),
                                                            vmsuperio::EventFdTrigger::create().value(),
                                                            std::move(writes_on_their_way))) {}

    // Registers.

    [[nodiscard]] std::uint32_t read(std::uint64_t offset) { return read_as<std::uint32_t>(offset); }
    template <class T>
    [[nodiscard]] T read_as(std::uint64_t offset) {
        std::array<std::uint8_t, sizeof(T)> bytes{};
        transport->mmio_read({0}, offset, bytes);
        T value;
        std::memcpy(&value, bytes.data(), sizeof(T));
        return value;
    }
    void write(std::uint64_t offset, std::uint32_t value) { write_as(offset, value); }
    template <class T>
    void write_as(std::uint64_t offset, T value) {
        std::array<std::uint8_t, sizeof(T)> bytes{};
        std::memcpy(bytes.data(), &value, sizeof(T));
        transport->mmio_write({0}, offset, bytes);
    }
    template <class T>
    [[nodiscard]] T config(std::uint64_t offset) {
        return read_as<T>(virtio::mmio::config + offset);
    }
    [[nodiscard]] std::uint32_t status() { return read(virtio::mmio::status); }
    [[nodiscard]] bool needs_reset() { return (status() & virtio::status::needs_reset) != 0; }
    [[nodiscard]] std::uint64_t device_features() {
        write(virtio::mmio::device_features_sel, 1);
        const std::uint64_t high = read(virtio::mmio::device_features);
        write(virtio::mmio::device_features_sel, 0);
        return high << 32U | read(virtio::mmio::device_features);
    }
    void write_driver_features(std::uint64_t features) {
        write(virtio::mmio::driver_features_sel, 1);
        write(virtio::mmio::driver_features, static_cast<std::uint32_t>(features >> 32U));
        write(virtio::mmio::driver_features_sel, 0);
        write(virtio::mmio::driver_features, static_cast<std::uint32_t>(features));
    }

    // The steps of a driver (VIRTIO 1.2, 3.1.1).

    void reset() {
        write(virtio::mmio::status, 0);
        queues.clear();
    }
    void acknowledge() {
        write(virtio::mmio::status, virtio::status::acknowledge);
        write(virtio::mmio::status, virtio::status::acknowledge | virtio::status::driver);
    }
    /// Accepts `wanted` of what is offered. Returns whether the device agrees.
    bool negotiate(std::uint64_t wanted = ~std::uint64_t{0}) {
        write_driver_features(device_features() & wanted);
        add_status(virtio::status::features_ok);
        return (status() & virtio::status::features_ok) != 0;
    }
    void add_status(std::uint32_t bit) { write(virtio::mmio::status, status() | bit); }
    /// Places a queue of the device's largest size, or of `size`, in RAM and enables it.
    void set_up_queue(std::uint32_t index, std::uint16_t size = 0) {
        write(virtio::mmio::queue_sel, index);
        REQUIRE(read(virtio::mmio::queue_ready) == 0);
        const std::uint32_t most = read(virtio::mmio::queue_num_max);
        REQUIRE(most != 0);
        const auto used_size = static_cast<std::uint16_t>(size != 0 ? size : std::min(most, 256U));
        const virtio::QueueLayout layout = place_rings(index, used_size);
        write_layout(layout);
        REQUIRE(memory.write(layout.descriptors, std::vector<std::uint8_t>(0x1'0000)));
        write(virtio::mmio::queue_ready, 1);
        REQUIRE(read(virtio::mmio::queue_ready) == 1);
        queues.resize(std::max<std::size_t>(queues.size(), index + 1));
        queues[index].emplace(memory, layout);
    }
    [[nodiscard]] static virtio::QueueLayout place_rings(std::uint32_t index, std::uint16_t size) {
        const std::uint64_t start = 0x1'0000 + std::uint64_t{index} * 0x1'0000;
        return {.descriptors = start, .available = start + 0x8000, .used = start + 0xA000, .size = size};
    }
    void write_layout(const virtio::QueueLayout& layout) {
        using namespace virtio::mmio;
        write(queue_num, layout.size);
        for (const auto& [low, address] :
             {std::pair(queue_desc_low, layout.descriptors), std::pair(queue_driver_low, layout.available),
              std::pair(queue_device_low, layout.used)}) {
            write(low, static_cast<std::uint32_t>(address));
            write(low + 4, static_cast<std::uint32_t>(address >> 32U));
        }
    }
    /// All steps, with all queues.
    void start(std::uint64_t wanted = ~std::uint64_t{0}) {
        reset();
        acknowledge();
        REQUIRE(negotiate(wanted));
        for (std::uint32_t i = 0; i < transport->device().queue_sizes().size(); ++i) {
            set_up_queue(i);
        }
        add_status(virtio::status::driver_ok);
        run_events();
    }

    // Interrupts and notifications.

    void notify(std::uint32_t queue) { write(virtio::mmio::queue_notify, queue); }
    /// Runs the event loop until nothing is ready.
    void run_events() {
        for (int i = 0; i < 10000 && events.run_once(0) != 0; ++i) {
        }
    }
    /// Runs the event loop until `condition` holds; false if that takes longer than `limit`.
    template <class Condition>
    [[nodiscard]] bool run_until(Condition&& condition,
                                 std::chrono::milliseconds limit = std::chrono::seconds(10)) {
        const auto end = std::chrono::steady_clock::now() + limit;
        while (!condition()) {
            if (std::chrono::steady_clock::now() >= end) {
                return false;
            }
            events.run_once(2);
        }
        return true;
    }
    /// How many edges there were since the last call.
    [[nodiscard]] std::uint64_t interrupts() { return transport->interrupt().take().value(); }
    /// Reads and acknowledges InterruptStatus, as a driver's handler does.
    std::uint32_t take_interrupt_status() {
        const std::uint32_t causes = read(virtio::mmio::interrupt_status);
        write(virtio::mmio::interrupt_ack, causes);
        return causes;
    }

    // Requests.

    /// Offers a chain: `sent` in one readable buffer (none if it is empty), then writable buffers of the sizes
    /// `received`. Returns the head. Buffers are at new addresses each time, until 0x2000 descriptors were used.
    std::uint16_t offer(std::uint32_t queue, Text sent, std::span<const std::uint32_t> received) {
        DriverQueue& driver = *queues.at(queue);
        std::vector<DriverQueue::Descriptor> chain;
        if (!sent.empty()) {
            const std::uint64_t at = allocate(sent.size());
            REQUIRE(memory.write(at, sent));
            chain.push_back({.address = at, .length = static_cast<std::uint32_t>(sent.size())});
        }
        last_writable.clear();
        for (const std::uint32_t size : received) {
            const std::uint64_t at = allocate(size);
            chain.push_back({.address = at, .length = size, .flags = DriverQueue::device_writes});
            last_writable.push_back({at, size});
        }
        const auto size = driver.layout().size;
        const auto head = static_cast<std::uint16_t>(next_descriptor_ % size);
        for (std::size_t i = 0; i < chain.size(); ++i) {
            const auto index = static_cast<std::uint16_t>(next_descriptor_++ % size);
            if (i + 1 < chain.size()) {
                chain[i].flags = static_cast<std::uint16_t>(chain[i].flags | DriverQueue::next);
                chain[i].next = static_cast<std::uint16_t>(next_descriptor_ % size);
            }
            driver.set(index, chain[i]);
        }
        driver.offer(head);
        return head;
    }
    /// Offers a chain with one writable buffer (none if `received` is 0), notifies the device and waits for the
    /// answer.
    std::optional<DriverQueue::Used> request(std::uint32_t queue, Text sent, std::uint32_t received) {
        const std::array<std::uint32_t, 1> sizes{received};
        offer(queue, sent,
              received != 0 ? std::span<const std::uint32_t>(sizes) : std::span<const std::uint32_t>());
        notify(queue);
        std::optional<DriverQueue::Used> used;
        (void)run_until([&] { return (used = queues.at(queue)->take_used()).has_value(); });
        return used;
    }
    /// The first `size` bytes of the writable buffers of the chain offered last.
    [[nodiscard]] std::vector<std::uint8_t> received(std::size_t size) {
        std::vector<std::uint8_t> bytes;
        for (const GuestRange& range : last_writable) {
            std::vector<std::uint8_t> part(std::min<std::size_t>(range.size, size - bytes.size()));
            REQUIRE(memory.read(range.address, part));
            bytes.insert(bytes.end(), part.begin(), part.end());
        }
        return bytes;
    }
    /// A part of RAM for a buffer, which is reused after a few MiB.
    std::uint64_t allocate(std::uint64_t size) {
        constexpr std::uint64_t first = 0x40'0000;
        if (next_buffer_ + size > memory.low_end()) {
            next_buffer_ = first;
        }
        return std::exchange(next_buffer_, (next_buffer_ + size + 15) & ~std::uint64_t{15});
    }

    // In the order of their destruction, reversed.
    GuestMemory memory;
    EventManager events;
    Counters counters;
    std::unique_ptr<virtio::MmioTransport> transport;
    std::vector<std::optional<DriverQueue>> queues;
    std::vector<GuestRange> last_writable;

private:
    std::uint64_t next_buffer_{0x40'0000};
    std::uint32_t next_descriptor_{0};
};

inline std::span<const std::uint8_t> as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace kvm_vmm::test
