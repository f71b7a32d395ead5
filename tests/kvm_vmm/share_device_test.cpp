// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The file system device: a driver that mounts the directory, and the driver's resets.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <thread>

#include "catch.hpp"
#include "devices/shared_directory.hpp"
#include "fuse_client.hpp"
#include "scratch_directory.hpp"
#include "virtio/fs.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

constexpr std::uint32_t hiprio = 0;
constexpr std::uint32_t requests = 1;

struct ShareRig {
    ScratchDirectory scratch;
    fs::path file = scratch.write("file", "hello");
    virtio::SharedRoot root{(scratch / "").string()};
    std::shared_ptr<virtio::FileSystem> device;
    DeviceRig rig;

    explicit ShareRig(bool writable = false, const std::string& tag = "share0")
        : rig([&](DeviceRig& r) {
              return device = std::make_shared<virtio::FileSystem>("share0", r.counters, root, writable, tag,
                                                                   virtio::SharedDirectory::Limits{});
          }) {}
    DeviceRig* operator->() { return &rig; }

    FuseReply call(std::uint32_t opcode, std::uint64_t node, const Bytes& argument,
                   std::uint32_t room = 4096) {
        const auto used = rig.request(requests, fuse_request(opcode, node, argument), room);
        REQUIRE(used);
        const Bytes reply = rig.received(used->written);
        fuse_out_header header{};
        REQUIRE(reply.size() >= sizeof(header));
        std::memcpy(&header, reply.data(), sizeof(header));
        CHECK(header.len == reply.size());
        return {.size = reply.size(),
                .error = -header.error,
                .data = Bytes(reply.begin() + sizeof(header), reply.end())};
    }
    void mount() {
        rig.start();
        REQUIRE(call(FUSE_INIT, 0, fuse_init_argument()).error == 0);
    }
    std::uint64_t look_up(std::string_view name) {
        return call(FUSE_LOOKUP, FUSE_ROOT_ID, name_bytes(name)).as<fuse_entry_out>().nodeid;
    }
    std::uint64_t open(std::uint64_t node, int flags = O_RDONLY) {
        return call(FUSE_OPEN, node,
                    bytes_of(fuse_open_in{.flags = static_cast<unsigned>(flags), .open_flags = 0}))
            .as<fuse_open_out>()
            .fh;
    }
    static Bytes read_argument(std::uint64_t handle, std::uint32_t size) {
        fuse_read_in in{};
        in.fh = handle;
        in.size = size;
        return bytes_of(in);
    }
};

}  // namespace

TEST_CASE("virtio-fs: the configuration has the tag and one request queue", "[share]") {
    const std::string tag = GENERATE(std::string("share0"), std::string(36, 't'));
    ShareRig rig(false, tag);
    CHECK(rig->read(virtio::mmio::device_id) == 26);
    std::string bytes;
    for (std::uint64_t i = 0; i < 36; ++i) {
        bytes += static_cast<char>(rig->config<std::uint8_t>(i));
    }
    CHECK(bytes == tag + std::string(36 - tag.size(), '\0'));
    CHECK(rig->config<std::uint32_t>(36) == 1);
    CHECK(rig->config<std::uint32_t>(40) == 0);  // the end
    // Read-only for the driver.
    rig->write_as<std::uint8_t>(virtio::mmio::config, 'X');
    CHECK(rig->config<std::uint8_t>(0) == static_cast<std::uint8_t>(tag[0]));
    // Linux subtracts 4 from the size of the request queue: a READ of 1 MiB has 256 pages.
    rig->write(virtio::mmio::queue_sel, requests);
    CHECK(rig->read(virtio::mmio::queue_num_max) >= 260);
}

TEST_CASE("virtio-fs: a file is read and written through the queues", "[share]") {
    ShareRig rig(true);
    rig.mount();
    const std::uint64_t node = rig.look_up("file");
    const std::uint64_t handle = rig.open(node, O_RDWR);
    CHECK(rig.call(FUSE_READ, node, ShareRig::read_argument(handle, 100)).data ==
          Bytes{'h', 'e', 'l', 'l', 'o'});
    fuse_write_in in{};
    in.fh = handle;
    in.size = 3;
    CHECK(rig.call(FUSE_WRITE, node, bytes_of(in) + Bytes{'a', 'b', 'c'}).error == 0);
    CHECK(slurp(rig.file) == "abclo");
    CHECK(rig->counters["bytes_read"].value() == 5);
    CHECK(rig->counters["bytes_written"].value() == 3);
    // Forgetting has no answer, but its chain comes back.
    const auto used = rig->request(hiprio, fuse_request(FUSE_FORGET, node, bytes_of(fuse_forget_in{1})), 0);
    REQUIRE(used);
    CHECK(used->written == 0);
    CHECK(rig.call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})).error == ESTALE);
}

TEST_CASE("virtio-fs: a request without room for an answer, or without a header, comes back", "[share]") {
    ShareRig rig;
    rig.mount();
    for (const std::uint32_t queue : {hiprio, requests}) {
        for (const std::size_t size : {std::size_t{1}, std::size_t{39}, std::size_t{56}}) {
            const auto used = rig->request(queue, Bytes(size), 0);
            REQUIRE(used);
            CHECK(used->written == 0);
        }
        const auto used = rig->request(queue, {}, 100);
        REQUIRE(used);
        CHECK(used->written == 0);
    }
    CHECK_FALSE(rig->needs_reset());
    rig.look_up("file");
}

TEST_CASE("virtio-fs: a request with a buffer that cannot be used gets EIO, if there is room for an answer",
          "[share]") {
    ShareRig rig(true);
    rig.mount();
    const std::uint64_t node = rig.look_up("file");
    const std::uint64_t handle = rig.open(node, O_RDWR);
    DriverQueue& queue = *rig->queues[requests];
    constexpr std::uint16_t in = DriverQueue::device_writes;
    constexpr std::uint64_t device = 0xD000'0000;
    fuse_write_in argument{};
    argument.fh = handle;
    argument.size = 5;
    const Bytes write = fuse_request(FUSE_WRITE, node, bytes_of(argument) + Bytes{'H', 'E', 'L', 'L', 'O'});
    const auto send = [&](const Bytes& bytes, const std::vector<DriverQueue::Descriptor>& buffers) {
        REQUIRE(rig->memory.write(0x50'0000, bytes));
        REQUIRE(rig->memory.write(0x51'0000, Bytes(64)));
        for (std::size_t i = 0; i < buffers.size(); ++i) {
            DriverQueue::Descriptor descriptor = buffers[i];
            descriptor.next = static_cast<std::uint16_t>(i + 1);
            descriptor.flags = static_cast<std::uint16_t>(descriptor.flags |
                                                          (i + 1U < buffers.size() ? DriverQueue::next : 0U));
            queue.set(static_cast<std::uint16_t>(i), descriptor);
        }
        queue.offer(0);
        rig->notify(requests);
        std::optional<DriverQueue::Used> used;
        REQUIRE(rig->run_until([&] { return (used = queue.take_used()).has_value(); }));
        return used->written;
    };
    const auto size = static_cast<std::uint32_t>(write.size() - 5);
    // The data of a write is in a device.
    CHECK(send(write, {{0x50'0000, size}, {device, 5}, {0x51'0000, 16, in}, {0x51'0010, 8, in}}) == 16);
    CHECK(rig->memory.read_object<std::uint32_t>(0x51'0000) == 16);
    CHECK(rig->memory.read_object<std::int32_t>(0x51'0004) == -EIO);
    CHECK(rig->memory.read_object<std::uint64_t>(0x51'0008) ==
          reinterpret_cast<const fuse_in_header&>(write[0]).unique);
    CHECK(slurp(rig.file) == "hello");
    // The room for the data of a read is in a device.
    const Bytes read = fuse_request(FUSE_READ, node, ShareRig::read_argument(handle, 5));
    CHECK(send(read, {{0x50'0000, static_cast<std::uint32_t>(read.size())},
                      {0x51'0000, 16, in},
                      {device, 5, in}}) == 16);
    CHECK(rig->memory.read_object<std::int32_t>(0x51'0004) == -EIO);
    // The header, or the room for the answer.
    CHECK(send(write, {{device, 40}, {0x51'0000, 24, in}}) == 0);
    CHECK(send(write, {{0x50'0000, size}, {device, 16, in}, {0x51'0000, 24, in}}) == 0);
    const Bytes forget = fuse_request(FUSE_FORGET, node, bytes_of(fuse_forget_in{1}));
    CHECK(send(forget, {{0x50'0000, 40}, {device, 8}, {0x51'0000, 16, in}}) == 0);
    CHECK(rig->counters["driver_errors"].value() == 5);
    CHECK_FALSE(rig->needs_reset());
    CHECK(rig.call(FUSE_READ, node, ShareRig::read_argument(handle, 100)).data ==
          Bytes{'h', 'e', 'l', 'l', 'o'});
}

TEST_CASE("virtio-fs: more requests than the queue has descriptors are served in turns", "[share]") {
    ShareRig rig;
    rig.mount();
    const Bytes request = fuse_request(FUSE_GETATTR, FUSE_ROOT_ID, bytes_of(fuse_getattr_in{}));
    const std::array<std::uint32_t, 1> room{256};
    std::size_t served = 0;
    for (int round = 0; round < 20; ++round) {
        for (int i = 0; i < 100; ++i) {
            rig->offer(requests, request, room);
        }
        rig->notify(requests);
        REQUIRE(rig->run_until([&] {
            while (rig->queues[requests]->take_used()) {
                ++served;
            }
            return served == static_cast<std::size_t>(round + 1) * 100;
        }));
    }
}

TEST_CASE("virtio-fs: after a reset the driver mounts it again, and knows nothing of before", "[share]") {
    ShareRig rig;
    std::uint64_t last = 0;
    for (int i = 0; i < 5; ++i) {
        rig.mount();
        CHECK(rig.call(FUSE_GETATTR, last, bytes_of(fuse_getattr_in{})).error == ESTALE);
        last = rig.look_up("file");
        const std::uint64_t handle = rig.open(last);
        CHECK(rig.call(FUSE_READ, last, ShareRig::read_argument(handle, 5)).error == 0);
    }
}

TEST_CASE("virtio-fs: a reset waits for the request in progress, and writes nothing afterwards", "[share]") {
    ShareRig rig(true);
    constexpr std::uint64_t size = 16 << 20;  // takes milliseconds to copy
    std::ofstream(rig.file, std::ios::binary) << std::string(size, 'x');
    rig.scratch.write("copy", "");
    Counter& refused = rig->counters["refused"];
    int in_progress = 0;
    for (int round = 0; round < 50; ++round) {
        rig.mount();
        fuse_copy_file_range_in in{};
        const std::uint64_t node = rig.look_up("file");
        in.fh_in = rig.open(node);
        in.nodeid_out = rig.look_up("copy");
        in.fh_out = rig.open(in.nodeid_out, O_RDWR);
        in.len = size;
        const std::array<std::uint32_t, 1> room{100};
        // A request that is refused at once shows when the next one begins.
        const std::uint64_t refused_before = refused.value();
        rig->offer(requests, fuse_request(FUSE_GETATTR, 999, bytes_of(fuse_getattr_in{})), room);
        std::vector<GuestRange> buffers;
        for (int i = 0; i < 3; ++i) {
            rig->offer(requests, fuse_request(FUSE_COPY_FILE_RANGE, node, bytes_of(in)), room);
            buffers.push_back(rig->last_writable.front());
        }
        rig->notify(requests);
        while (refused.value() == refused_before) {
            std::this_thread::yield();
        }
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        rig->write(virtio::mmio::status, 0);
        // The memory belongs to the driver again: what it writes stays.
        const Bytes own(100, 'o');
        for (const GuestRange& buffer : buffers) {
            REQUIRE(rig->memory.write(buffer.address, own));
        }
        const std::uint64_t used_index = DeviceRig::place_rings(requests, 256).used + 2;
        const auto used = rig->memory.read_object<std::uint16_t>(used_index);
        REQUIRE(rig->status() == 0);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        for (const GuestRange& buffer : buffers) {
            Bytes now(own.size());
            REQUIRE(rig->memory.read(buffer.address, now));
            REQUIRE(now == own);
        }
        REQUIRE(rig->memory.read_object<std::uint16_t>(used_index) == used);
        in_progress += *used < 3 + 6 ? 1 : 0;  // of INIT, the look-ups and openings, and the refused one
    }
    CHECK(in_progress >= 5);  // on a busy computer the copies end before the reset
}

TEST_CASE("virtio-fs: draining completes the request in progress, and the rest follows", "[share]") {
    ShareRig rig;
    std::ofstream(rig.file, std::ios::binary) << std::string(1 << 20, 'x');
    rig.mount();
    const std::uint64_t node = rig.look_up("file");
    const std::uint64_t handle = rig.open(node);
    const std::array<std::uint32_t, 1> room{(1 << 20) + 16};
    std::size_t served = 0;
    for (int round = 0; round < 50; ++round) {
        for (int i = 0; i < 5; ++i) {
            rig->offer(requests, fuse_request(FUSE_READ, node, ShareRig::read_argument(handle, 1 << 20)),
                       room);
        }
        rig->notify(requests);
        std::this_thread::sleep_for(std::chrono::microseconds(round * 20));
        const auto states = rig.device->drain().queues;
        REQUIRE(states.size() == 2);
        REQUIRE(states[requests]);
        CHECK(states[requests]->next_used == states[requests]->next_available);
        REQUIRE(rig->run_until([&] {
            while (const auto used = rig->queues[requests]->take_used()) {
                CHECK(used->written == (1 << 20) + 16);
                ++served;
            }
            return served == static_cast<std::size_t>(round + 1) * 5;
        }));
    }
}

TEST_CASE("virtio-fs: descriptors are left for the rest of the process", "[share]") {
    for (const std::size_t descriptors : {256U, 1024U, 4096U, 1U << 20U}) {
        for (const std::size_t shares : {1U, 2U, 10U}) {
            const auto limits = share_limits(shares, descriptors);
            CHECK(limits.handles > 0);
            CHECK(limits.objects > limits.handles);
            CHECK((limits.handles + limits.objects) * shares <=
                  descriptors - std::min<std::size_t>(1024, descriptors / 2));
        }
    }
}
