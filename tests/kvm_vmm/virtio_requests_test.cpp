// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Requests that no driver should send, in rings that are in order: buffers that are empty, of the wrong direction or
// order, not RAM, in one-byte pieces, or as many as a queue has descriptors. Each queue of each device gets all of them.
// The device answers or keeps such a request, needs no reset, and serves the next request as if nothing had happened.
#include <array>
#include <cstdint>
#include <fcntl.h>
#include <optional>
#include <string>
#include <string_view>
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
using Kind = DeviceHost::Kind;

namespace {

constexpr std::uint64_t ram = 16U << 20U;
constexpr std::uint64_t buffer_at = 0x50'0000;
constexpr std::uint64_t writable_at = 0x60'0000;
constexpr std::uint64_t table_at = 0x70'0000;

/// Buffers, in their order. `count` 0 stands for as many as the queue has descriptors.
struct Part {
    std::uint32_t count;
    std::uint32_t size;
    bool writable;
    std::optional<std::uint64_t> address{};  ///< instead of a place for buffers
};
struct Shape {
    std::string_view name;
    std::vector<Part> parts;
    std::uint8_t content{0};  ///< each readable byte
    bool same_memory{false};  ///< the writable buffers are where the readable ones are
};

std::vector<Shape> shapes() {
    return {
        {"an empty readable buffer", {{1, 0, false}}},
        {"an empty writable buffer", {{1, 0, true}}},
        {"two empty buffers", {{1, 0, false}, {1, 0, true}}},
        {"one readable byte", {{1, 1, false}}, 0xFF},
        {"one writable byte", {{1, 1, true}}},
        {"one byte in each direction", {{1, 1, false}, {1, 1, true}}},
        {"a readable page of zeros", {{1, 4096, false}}},
        {"a readable page of ones", {{1, 4096, false}}, 0xFF},
        {"a writable page", {{1, 4096, true}}},
        {"a readable buffer of 256 KiB", {{1, 256U << 10U, false}}, 0x5A},
        {"a writable buffer of 256 KiB", {{1, 256U << 10U, true}}},
        {"bytes, as many as the queue has descriptors", {{0, 1, false}}, 0x01},
        {"writable bytes, as many as the queue has descriptors", {{0, 1, true}}},
        {"an empty buffer before each end", {{1, 0, false}, {1, 64, false}, {1, 64, true}, {1, 0, true}}},
        {"zeros in both directions", {{1, 64, false}, {1, 4096, true}}},
        {"ones in both directions", {{1, 64, false}, {1, 4096, true}}, 0xFF},
        {"the same memory in both directions", {{1, 64, false}, {1, 64, true}}, 0, true},
        {"a readable buffer behind the end of RAM", {{1, 64, false, ram}}},
        {"a writable buffer behind the end of RAM", {{1, 4096, true, ram}}},
        {"a readable buffer across the end of RAM", {{1, 4096, false, ram - 64}}},
        {"a writable buffer across the end of RAM", {{1, 4096, true, ram - 64}}},
        {"a readable buffer across the end of addresses", {{1, 4096, false, ~std::uint64_t{0} - 64}}},
        {"a writable buffer across the end of addresses", {{1, 4096, true, ~std::uint64_t{0} - 64}}},
        {"a buffer of 4 GiB", {{1, 64, false}, {1, 0xFFFF'FFFF, true, 0}}},
        {"a readable buffer behind a writable one", {{1, 64, true}, {1, 64, false}}},
        {"buffers of alternating directions", {{1, 64, false}, {1, 64, true}, {1, 64, false}, {1, 64, true}}},
    };
}

/// Whether the device may keep a buffer of this queue until it has something to put there, or to ask for.
bool keeps_buffers(Kind kind, std::uint32_t queue) {
    switch (kind) {
        case Kind::network:
        case Kind::console:
            return queue == 0;  // receive
        case Kind::socket:
            return queue != 1;  // receive, events
        case Kind::balloon:
            return queue == 2;  // statistics
        case Kind::file_system:
            return queue == 0;  // nothing is answered in the queue of requests that need no answer
        default:
            return false;
    }
}

class RequestRig {
public:
    RequestRig(Kind kind, const HostFiles& files)
        : host_(kind, files, true),
          rig_([this](DeviceRig& r) { return host_.make(r.counters, r.events, r.memory); }, ram) {}

    DeviceRig* operator->() { return &rig_; }

    /// Puts the shape into a queue, in its descriptors or in a table. Returns the size of its writable buffers.
    std::uint64_t offer(const Shape& shape, std::uint32_t index, bool in_table) {
        DriverQueue& queue = *rig_.queues.at(index);
        REQUIRE(rig_.memory.write(buffer_at, std::vector<std::uint8_t>(256U << 10U, shape.content)));
        std::vector<DriverQueue::Descriptor> chain;
        std::uint64_t readable = buffer_at;
        std::uint64_t writable = shape.same_memory ? buffer_at : writable_at;
        std::uint64_t room = 0;
        for (const Part& part : shape.parts) {
            for (std::uint32_t i = part.count != 0 ? part.count : queue.layout().size; i != 0; --i) {
                std::uint64_t& at = part.writable ? writable : readable;
                chain.push_back({.address = part.address.value_or(at),
                                 .length = part.size,
                                 .flags = part.writable ? DriverQueue::device_writes : std::uint16_t{0}});
                at += part.address ? 0 : part.size;
                room += part.writable ? part.size : 0;
            }
        }
        for (std::size_t i = 0; i < chain.size(); ++i) {
            if (i + 1 < chain.size()) {
                chain[i].flags = static_cast<std::uint16_t>(chain[i].flags | DriverQueue::next);
                chain[i].next = static_cast<std::uint16_t>(i + 1);
            }
            if (in_table) {
                queue.set_in(table_at, i, chain[i]);
            } else {
                queue.set(static_cast<std::uint16_t>(i), chain[i]);
            }
        }
        if (in_table) {
            queue.set(0, {.address = table_at,
                          .length = static_cast<std::uint32_t>(chain.size() * 16),
                          .flags = DriverQueue::indirect});
        }
        queue.offer(0);
        rig_.notify(index);
        return room;
    }

    /// The chain that the device has returned, if it does so within the time that it may need.
    std::optional<DriverQueue::Used> answer(std::uint32_t index, bool expected) {
        std::optional<DriverQueue::Used> used;
        const auto returned = [&] { return (used = rig_.queues.at(index)->take_used()).has_value(); };
        (void)rig_.run_until(returned, std::chrono::milliseconds(expected ? 10'000 : 2));
        return used;
    }

    void check_honest_request() {
        const HonestRequest request = test::honest_request(host_.kind());
        // Elsewhere than the descriptors of a shape that the device keeps: in a table of its own.
        DriverQueue& queue = *rig_.queues.at(request.queue);
        const std::uint64_t table = table_at + 0x8000;
        const std::uint64_t buffers = writable_at + 0x8'0000;
        std::uint64_t index = 0;
        std::uint64_t at = buffers;
        const auto last = request.received.size() + (request.sent.empty() ? 0 : 1) - 1;
        const auto add = [&](std::uint64_t size, std::uint16_t flags) {
            queue.set_in(
                table, index,
                {.address = at,
                 .length = static_cast<std::uint32_t>(size),
                 .flags = static_cast<std::uint16_t>(flags | (index < last ? DriverQueue::next : 0U)),
                 .next = static_cast<std::uint16_t>(index + 1)});
            ++index;
            at += size;
        };
        std::uint64_t room = 0;
        if (!request.sent.empty()) {
            REQUIRE(rig_.memory.write(at, request.sent));
            add(request.sent.size(), 0);
        }
        for (const std::uint32_t size : request.received) {
            add(size, DriverQueue::device_writes);
            room += size;
        }
        queue.set(1, {.address = table,
                      .length = static_cast<std::uint32_t>(index * 16),
                      .flags = DriverQueue::indirect});
        queue.offer(1);
        rig_.notify(request.queue);
        const auto used = answer(request.queue, true);
        REQUIRE(used.has_value());
        CHECK(used->id == 1);
        CHECK(used->written <= room);
        CHECK((used->written != 0) == (room != 0));
        CHECK_FALSE(rig_.needs_reset());
    }

private:
    DeviceHost host_;
    DeviceRig rig_;
};

}  // namespace

TEST_CASE("virtio: a request that makes no sense is answered alone, and needs no reset", "[requests]") {
    open_log(vmsuperio::UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC)), LogLevel::error);
    for (const Kind kind : DeviceHost::all) {
        const HostFiles files;
        RequestRig machine(kind, files);
        const auto queues = static_cast<std::uint32_t>(machine->transport->device().queue_sizes().size());
        for (std::uint32_t queue = 0; queue < queues; ++queue) {
            for (const Shape& shape : shapes()) {
                for (const bool in_table : {false, true}) {
                    INFO(DeviceHost::name_of(kind)
                         << ", queue " << queue << ": " << shape.name << (in_table ? ", in a table" : ""));
                    machine->start();
                    const std::uint64_t room = machine.offer(shape, queue, in_table);
                    const bool kept = keeps_buffers(kind, queue);
                    const auto used = machine.answer(queue, !kept);
                    CHECK((used.has_value() || kept));
                    if (used) {
                        CHECK(used->id == 0);
                        CHECK(used->written <= room);
                    }
                    CHECK_FALSE(machine->needs_reset());
                    machine.check_honest_request();
                }
            }
        }
    }
    close_log();
}
