// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Requests and buffers of a file system device's driver that break the rules, or use their limits: each case ends
// with a file that is read.
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "catch.hpp"
#include "fuse_client.hpp"
#include "scratch_directory.hpp"
#include "virtio/fs.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

constexpr std::uint32_t hiprio = 0;
constexpr std::uint32_t requests = 1;
constexpr std::uint64_t root = FUSE_ROOT_ID;

/// A driver that has mounted a directory with a file "file", and has opened that.
struct Mounted {
    ScratchDirectory scratch;
    fs::path file = scratch.write("file", "hello");
    virtio::SharedRoot shared{(scratch / "").string()};
    DeviceRig rig{[this](DeviceRig& r) {
        return std::make_shared<virtio::FileSystem>("share0", r.counters, shared, true, "share0",
                                                    virtio::SharedDirectory::Limits{});
    }};
    std::uint64_t node{};
    std::uint64_t handle{};

    Mounted() { mount(); }

    void mount() {
        rig.start();
        REQUIRE(error_of(FUSE_INIT, 0, fuse_init_argument()) == 0);
        node = call(FUSE_LOOKUP, root, name_bytes("file")).as<fuse_entry_out>().nodeid;
        handle = call(FUSE_OPEN, node, bytes_of(fuse_open_in{.flags = O_RDWR, .open_flags = 0}))
                     .as<fuse_open_out>()
                     .fh;
    }
    // Sends these bytes. Returns how many bytes were written for an answer; nothing if the chain did not come back.
    std::optional<std::uint32_t> send(std::uint32_t queue, const Bytes& bytes, std::uint32_t room) {
        const auto used = rig.request(queue, bytes, room);
        return used ? std::optional(used->written) : std::nullopt;
    }
    FuseReply call(std::uint32_t opcode, std::uint64_t id, const Bytes& argument) {
        const auto written = send(requests, fuse_request(opcode, id, argument), 4096);
        REQUIRE(written);
        return answer(*written);
    }
    FuseReply answer(std::uint32_t written) {
        const Bytes reply = rig.received(written);
        fuse_out_header header{};
        REQUIRE(reply.size() >= sizeof(header));
        std::memcpy(&header, reply.data(), sizeof(header));
        CHECK(header.len == written);
        return {.size = written,
                .error = -header.error,
                .data = Bytes(reply.begin() + sizeof(header), reply.end())};
    }
    int error_of(std::uint32_t opcode, std::uint64_t id, const Bytes& argument) {
        return call(opcode, id, argument).error;
    }
    [[nodiscard]] Bytes read_argument(std::uint32_t size, std::uint64_t offset = 0) const {
        fuse_read_in in{};
        in.fh = handle;
        in.offset = offset;
        in.size = size;
        return bytes_of(in);
    }
    [[nodiscard]] Bytes write_argument(std::uint32_t size, std::uint64_t offset = 0) const {
        fuse_write_in in{};
        in.fh = handle;
        in.offset = offset;
        in.size = size;
        return bytes_of(in);
    }
    void check_works() {
        CHECK_FALSE(rig.needs_reset());
        CHECK(call(FUSE_READ, node, read_argument(100)).data == Bytes{'h', 'e', 'l', 'l', 'o'});
        CHECK(slurp(file) == "hello");
    }
};

constexpr int no_answer = -1;

}  // namespace

TEST_CASE("virtio-fs: requests that break the rules of FUSE get an error, or no answer", "[share][hostile]") {
    const std::uint32_t queue = GENERATE(requests, hiprio);
    Mounted mounted;
    struct Case {
        const char* title;
        std::uint32_t opcode;
        std::uint64_t node;
        Bytes argument;
        int error;  ///< errno, or no_answer
        std::uint32_t room{4096};
        std::optional<std::uint32_t> length{};  ///< in the header, if it is not the right one
    };
    const std::uint64_t file = mounted.node;
    const Bytes get_attributes = bytes_of(fuse_getattr_in{});
    const Bytes name = name_bytes("file");
    const auto many_to_forget = bytes_of(fuse_batch_forget_in{.count = ~0U, .dummy = 0});
    const std::vector<Case> cases{
        {"operation 0", 0, root, {}, ENOSYS},
        {"the last operation", ~0U, root, Bytes(100), ENOSYS},
        {"an operation that has no arguments", 7, root, {}, ENOSYS},
        {"a reply to a notification that was not sent", FUSE_NOTIFY_REPLY, root, Bytes(40), ENOSYS},
        {"a window of memory", FUSE_SETUPMAPPING, file, Bytes(40), ENOSYS},
        {"an unknown node", FUSE_GETATTR, 0xDEAD'BEEF, get_attributes, ESTALE},
        {"the last node", FUSE_LOOKUP, ~std::uint64_t{0}, name, ESTALE},
        {"node 0", FUSE_GETATTR, 0, get_attributes, ESTALE},
        {"a name in a file", FUSE_LOOKUP, file, name, ENOTDIR},
        {"a name of no bytes", FUSE_LOOKUP, root, {}, EINVAL},
        {"an empty name", FUSE_LOOKUP, root, name_bytes(""), EINVAL},
        {"a name without an end", FUSE_LOOKUP, root, Bytes(4, 'f'), EINVAL},
        {"bytes after a name", FUSE_LOOKUP, root, name + name, EINVAL},
        {"a name of 1 MiB", FUSE_LOOKUP, root, Bytes(1 << 20, 'f'), ENAMETOOLONG},
        {"no arguments", FUSE_READ, file, {}, EINVAL},
        {"a read of no bytes", FUSE_READ, file, mounted.read_argument(0), 0},
        {"a read beyond the room", FUSE_READ, file, mounted.read_argument(4081), EINVAL},
        {"a read of 32 bits of ones", FUSE_READ, file, mounted.read_argument(~0U), EINVAL},
        {"a read after the end", FUSE_READ, file, mounted.read_argument(10, 1 << 20), 0},
        {"a read at the last offset", FUSE_READ, file, mounted.read_argument(10, INT64_MAX), EINVAL},
        {"a read at 64 bits of ones", FUSE_READ, file, mounted.read_argument(10, ~std::uint64_t{0}), EINVAL},
        {"a read by a handle of another node", FUSE_READ, root, mounted.read_argument(5), EBADF},
        {"a directory's read by a handle of a file", FUSE_READDIR, file, mounted.read_argument(100), EBADF},
        {"a write of 32 bits of ones", FUSE_WRITE, file, mounted.write_argument(~0U) + Bytes(64), EINVAL},
        {"a write of more than there is", FUSE_WRITE, file, mounted.write_argument(65) + Bytes(64), EINVAL},
        {"a write of no bytes", FUSE_WRITE, file, mounted.write_argument(0), 0},
        {"a write at 64 bits of ones", FUSE_WRITE, file,
         mounted.write_argument(1, ~std::uint64_t{0}) + Bytes(1), EINVAL},
        {"all flags of an open file", FUSE_OPEN, file,
         bytes_of(fuse_open_in{.flags = ~0U, .open_flags = ~0U}), EINVAL},
        {"all flags but the access mode's", FUSE_OPEN, file,
         bytes_of(fuse_open_in{.flags = ~0U & ~3U & ~unsigned{O_TRUNC}, .open_flags = ~0U}), 0},
        {"an end of an open file that is not one", FUSE_RELEASE, file, bytes_of(fuse_release_in{}), EBADF},
        {"a length of no header", FUSE_GETATTR, root, get_attributes, EINVAL, 4096, 0},
        {"a length above what was sent", FUSE_LOOKUP, root, name, EINVAL, 4096, 4096},
        {"a length of 32 bits of ones", FUSE_LOOKUP, root, name, EINVAL, 4096, ~0U},
        {"a length that cuts the arguments", FUSE_GETATTR, root, get_attributes, EINVAL, 4096, 48},
        {"no room for an answer", FUSE_GETATTR, root, get_attributes, no_answer, 0},
        {"one byte for an answer", FUSE_READDIR, root, mounted.read_argument(1), no_answer, 1},
        {"room for the header of an answer", FUSE_GETATTR, root, get_attributes, EINVAL, 16},
        {"room for an answer but for one byte", FUSE_GETATTR, root, get_attributes, EINVAL,
         16 + sizeof(fuse_attr_out) - 1},
        {"nodes to forget that were never known", FUSE_FORGET, 0xDEAD'BEEF, bytes_of(fuse_forget_in{1}),
         no_answer},
        {"no nodes to forget", FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{.count = 0, .dummy = 0}),
         no_answer},
        {"more nodes to forget than are there", FUSE_BATCH_FORGET, 0, many_to_forget, no_answer},
        {"an interrupt of a request that is not there", FUSE_INTERRUPT, 0, bytes_of(fuse_interrupt_in{~0U}),
         no_answer},
        {"an interrupt without arguments", FUSE_INTERRUPT, 0, {}, no_answer},
    };
    for (const Case& each : cases) {
        CAPTURE(each.title, queue);
        Bytes bytes = fuse_request(each.opcode, each.node, each.argument);
        if (each.length) {
            std::memcpy(bytes.data(), &*each.length, sizeof(*each.length));
        }
        const auto written = mounted.send(queue, bytes, each.room);
        REQUIRE(written);
        if (each.error == no_answer) {
            CHECK(*written == 0);
        } else {
            CHECK(mounted.answer(*written).error == each.error);
            CHECK((*written == sizeof(fuse_out_header)) == (each.error != 0 || each.opcode == FUSE_READ));
        }
        mounted.check_works();
    }
    // A version that is not ours, by any queue, ends the session. Then the client begins again.
    const auto written = mounted.send(queue, fuse_request(FUSE_INIT, 0, fuse_init_argument(6)), 4096);
    REQUIRE(written);
    CHECK(mounted.answer(*written).error == EPROTO);
    mounted.mount();
    mounted.check_works();
}

TEST_CASE("virtio-fs: before FUSE_INIT, and after FUSE_DESTROY, nothing else is served", "[share][hostile]") {
    Mounted mounted;
    const std::uint32_t queue = GENERATE(requests, hiprio);
    const bool started = GENERATE(false, true);
    if (started) {
        CHECK(mounted.error_of(FUSE_DESTROY, 0, {}) == 0);
    } else {
        mounted.rig.start();
    }
    for (std::uint32_t opcode = 0; opcode < 60; ++opcode) {
        if (opcode == FUSE_INIT) {
            continue;
        }
        CAPTURE(opcode);
        const auto written = mounted.send(queue, fuse_request(opcode, root, Bytes(100)), 4096);
        REQUIRE(written);
        CHECK((*written == 0 || mounted.answer(*written).error != 0));
    }
    mounted.mount();
    mounted.check_works();
}

TEST_CASE("virtio-fs: a chain of the wrong form comes back, and needs no reset", "[share][hostile]") {
    struct Case {
        const char* title;
        std::vector<DriverQueue::Descriptor> chain;  // from descriptor 100 on
    };
    constexpr std::uint64_t in = 0x20'0000;
    constexpr std::uint64_t out = 0x21'0000;
    constexpr std::uint16_t writes = DriverQueue::device_writes;
    const auto size = static_cast<std::uint32_t>(sizeof(fuse_in_header) + sizeof(fuse_getattr_in));
    const std::vector<Case> cases{
        {"a buffer of no bytes", {{.address = in, .length = 0}}},
        {"no buffer for the answer", {{.address = in, .length = size}}},
        {"only a buffer for the answer", {{.address = out, .length = 4096, .flags = writes}}},
        {"the rest of RAM for the answer",
         {{.address = in, .length = size}, {.address = out, .length = (16U << 20U) - out, .flags = writes}}},
        {"the answer before the request",
         {{.address = out, .length = 4096, .flags = writes}, {.address = in, .length = size}}},
        {"a request outside of RAM",
         {{.address = 0xFFFF'FFFF'FFFF'0000, .length = 64},
          {.address = out, .length = 4096, .flags = writes}}},
        {"an answer that ends outside of RAM",
         {{.address = in, .length = size}, {.address = out, .length = 16U << 20U, .flags = writes}}},
        {"an answer in the registers of a device",
         {{.address = in, .length = size}, {.address = 0xD000'0000, .length = 64, .flags = writes}}},
        {"an answer at the end of all addresses",
         {{.address = in, .length = size},
          {.address = 0xFFFF'FFFF'FFFF'F000, .length = 0x2000, .flags = writes}}},
    };
    const std::uint32_t queue = GENERATE(requests, hiprio);
    for (const Case& each : cases) {
        CAPTURE(each.title, queue);
        Mounted mounted;
        DeviceRig& rig = mounted.rig;
        DriverQueue& driver = *rig.queues[queue];
        REQUIRE(rig.memory.write(in, fuse_request(FUSE_GETATTR, root, bytes_of(fuse_getattr_in{}))));
        constexpr std::uint16_t first = 100;
        for (std::uint16_t i = 0; i < each.chain.size(); ++i) {
            DriverQueue::Descriptor descriptor = each.chain[i];
            if (i + 1U < each.chain.size()) {
                descriptor.flags |= DriverQueue::next;
                descriptor.next = static_cast<std::uint16_t>(first + i + 1);
            }
            driver.set(static_cast<std::uint16_t>(first + i), descriptor);
        }
        const std::uint16_t used = driver.used_index();
        driver.offer(first);
        rig.notify(queue);
        CHECK(rig.run_until([&] { return driver.used_index() != used; }));
        CHECK_FALSE(rig.needs_reset());
        (void)driver.take_used();
        mounted.check_works();
    }
}

TEST_CASE("virtio-fs: a full queue of requests is answered, each once", "[share][hostile]") {
    Mounted mounted;
    DeviceRig& rig = mounted.rig;
    const std::uint16_t size = rig.queues[requests]->layout().size;
    const std::uint16_t used = rig.queues[requests]->used_index();
    const std::array<std::uint32_t, 1> room{256};
    for (std::uint16_t i = 0; i < size / 2; ++i) {
        rig.offer(requests, fuse_request(FUSE_GETATTR, root, bytes_of(fuse_getattr_in{}), i + 1U), room);
    }
    rig.notify(requests);
    CHECK(rig.run_until(
        [&] { return static_cast<std::uint16_t>(rig.queues[requests]->used_index() - used) == size / 2; }));
    while (const auto each = rig.queues[requests]->take_used()) {
        CHECK(each->written == sizeof(fuse_out_header) + sizeof(fuse_attr_out));
    }
    mounted.check_works();
}
