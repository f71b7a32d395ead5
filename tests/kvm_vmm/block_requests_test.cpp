// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Requests to a disk that break a rule of VIRTIO 1.2, 5.2.6, or are odd but allowed, one after the other: each gets its
// own answer, no content is changed that should not be, and the next honest requests are served.
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "block_rig.hpp"
#include "catch.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using namespace kvm_vmm::test;

namespace {

constexpr std::size_t sector = 512;
constexpr std::uint64_t sectors = 64;

/// A descriptor. Those in RAM are placed by the test; the readable ones hold the header and the data, one after the
/// other, wherever they are divided.
struct Piece {
    enum class Kind : std::uint8_t { readable, writable } kind;
    std::uint32_t size;
    // NOLINTNEXTLINE(readability-redundant-member-init): GCC warns of initializers that leave it out
    std::optional<std::uint64_t> address{};  // if it is not placed by the test
};
constexpr Piece sends(std::uint32_t size) { return {.kind = Piece::Kind::readable, .size = size}; }
constexpr Piece receives(std::uint32_t size) { return {.kind = Piece::Kind::writable, .size = size}; }
constexpr Piece sends_at(std::uint64_t address, std::uint32_t size) {
    return {.kind = Piece::Kind::readable, .size = size, .address = address};
}
constexpr Piece receives_at(std::uint64_t address, std::uint32_t size) {
    return {.kind = Piece::Kind::writable, .size = size, .address = address};
}

struct Request {
    std::string_view name;
    std::uint32_t type;
    std::uint64_t sector;
    std::vector<Piece> pieces;
    std::optional<std::uint8_t> status;  ///< in the last writable byte; nothing if it is not written
    std::uint32_t written;               ///< in the used ring
};

constexpr std::uint64_t end_of_ram = 16U << 20U;  // of a DeviceRig
constexpr std::uint64_t gap = 0xD000'0000;        // registers of devices
constexpr std::uint64_t top = 0xFFFF'FFFF'FFFF'F000;
constexpr std::uint32_t in = block_request::in;
constexpr std::uint32_t out = block_request::out;

/// Sends the request, with `data` behind the header, and checks the answer.
void check(BlockRig& rig, const Request& request, const Bytes& data) {
    Bytes bytes = BlockRig::header(request.type, request.sector);
    append(bytes, data);
    bytes.resize(1U << 20U);
    std::vector<DriverQueue::Descriptor> chain;
    std::optional<std::uint64_t> status_at;
    std::size_t sent = 0;
    for (const Piece& piece : request.pieces) {
        const bool writable = piece.kind == Piece::Kind::writable;
        const std::uint64_t at = piece.address.value_or(rig->allocate(piece.size + 1));
        if (!piece.address) {
            const Bytes content = writable
                                      ? Bytes(piece.size + 1, no_status)
                                      : Bytes(bytes.begin() + static_cast<std::ptrdiff_t>(sent),
                                              bytes.begin() + static_cast<std::ptrdiff_t>(sent + piece.size));
            REQUIRE(rig->memory.write(at, content));
            sent += writable ? 0 : piece.size;
            if (writable && piece.size != 0) {
                status_at = at + piece.size - 1;
            }
        }
        chain.push_back({.address = at,
                         .length = piece.size,
                         .flags = static_cast<std::uint16_t>((writable ? DriverQueue::device_writes : 0U) |
                                                             DriverQueue::next),
                         .next = static_cast<std::uint16_t>(chain.size() + 1)});
    }
    chain.back().flags = static_cast<std::uint16_t>(chain.back().flags & ~unsigned{DriverQueue::next});
    DriverQueue& queue = *rig->queues[0];
    for (std::size_t i = 0; i < chain.size(); ++i) {
        queue.set(static_cast<std::uint16_t>(i), chain[i]);
    }
    queue.offer(0);
    rig->notify(0);
    std::optional<DriverQueue::Used> used;
    REQUIRE(rig->run_until([&] { return (used = queue.take_used()).has_value(); }));
    CHECK(*used == DriverQueue::Used{0, request.written});
    if (status_at) {
        CHECK(rig->memory.read_object<std::uint8_t>(*status_at) == request.status.value_or(no_status));
        CHECK(rig->memory.read_object<std::uint8_t>(*status_at + 1) == no_status);
    } else {
        CHECK_FALSE(request.status);
    }
    CHECK_FALSE(rig->needs_reset());
}

void check_works(BlockRig& rig, FakeDisk& disk) {
    const Bytes before = disk.content;
    const Bytes data = pattern(sector, 77);
    CHECK(rig.write(sectors - 1, data).status == ok);
    CHECK(rig.read(sectors - 1, sector) == Answer{ok, sector + 1, data});
    disk.content = before;
}

}  // namespace

TEST_CASE("Block: a request that breaks a rule fails alone", "[blk][hostile]") {
    FakeDisk disk(sectors * sector);
    disk.content = pattern(sectors * sector);
    disk.facts_.can_discard = true;
    BlockRig rig(disk);
    rig->start();
    const std::vector<Request> requests{
        // Data in the wrong direction: nothing was read or written, so this is no success.
        {"read, data readable", in, 0, {sends(16), sends(512), receives(1)}, io_error, 1},
        {"read, header too long", in, 0, {sends(32), receives(512), receives(1)}, io_error, 513},
        {"write, data writable", out, 0, {sends(16), receives(512), receives(1)}, io_error, 513},
        {"write, two statuses", out, 0, {sends(16), sends(512), receives(1), receives(1)}, io_error, 2},
        {"write, a status of 16 bytes", out, 0, {sends(16), sends(512), receives(16)}, io_error, 16},
        {"get id, data readable", block_request::get_id, 0, {sends(16), sends(20), receives(1)}, io_error, 1},
        // Lengths.
        {"read of 1 byte", in, 0, {sends(16), receives(1), receives(1)}, io_error, 2},
        {"read of 513 bytes", in, 0, {sends(16), receives(513), receives(1)}, io_error, 514},
        {"write of 513 bytes", out, 0, {sends(16), sends(513), receives(1)}, io_error, 1},
        {"read, a status of no bytes", in, 0, {sends(16), receives(512), receives(0)}, io_error, 512},
        {"read, a status of 16 bytes", in, 0, {sends(16), receives(512), receives(16)}, io_error, 528},
        {"header of 8 bytes", in, 0, {sends(8), receives(512), receives(1)}, io_error, 513},
        {"header of no bytes", in, 0, {sends(0), receives(512), receives(1)}, io_error, 513},
        {"no header", in, 0, {receives(16), receives(512), receives(1)}, io_error, 529},
        {"header alone", in, 0, {sends(16)}, std::nullopt, 0},
        {"write without status", out, 0, {sends(16), sends(512)}, std::nullopt, 0},
        {"write, status readable", out, 0, {sends(16), sends(512), sends(1)}, std::nullopt, 0},
        {"get id without status", block_request::get_id, 0, {sends(16), receives(0)}, std::nullopt, 0},
        {"flush without status", block_request::flush, 0, {sends(16)}, std::nullopt, 0},
        {"nothing at all", in, 0, {sends(0)}, std::nullopt, 0},
        // Sectors.
        {"read behind the end", in, sectors, {sends(16), receives(512), receives(1)}, io_error, 513},
        {"read across the end", in, sectors - 1, {sends(16), receives(1024), receives(1)}, io_error, 1025},
        {"write behind the end", out, sectors, {sends(16), sends(512), receives(1)}, io_error, 1},
        {"write across the end", out, sectors - 1, {sends(16), sends(1024), receives(1)}, io_error, 1},
        {"write to the last sector there is", out, ~0ULL, {sends(16), sends(512), receives(1)}, io_error, 1},
        {"read, * 512 is 0", in, 1ULL << 55U, {sends(16), receives(512), receives(1)}, io_error, 513},
        // Buffers that are not RAM: the request fails, whose status can be reached.
        {"read to a device", in, 0, {sends(16), receives_at(gap, 512), receives(1)}, io_error, 0},
        {"write from a device", out, 0, {sends(16), sends_at(gap, 512), receives(1)}, io_error, 0},
        {"read, across the end of RAM",
         in,
         0,
         {sends(16), receives_at(end_of_ram - 511, 512), receives(1)},
         io_error,
         0},
        {"read, wraps around", in, 0, {sends(16), receives_at(top, 0x2000), receives(1)}, io_error, 0},
        {"write, wraps around", out, 0, {sends(16), sends_at(top, 0x2000), receives(1)}, io_error, 0},
        {"read, wraps far", in, 0, {sends(16), receives_at(top, 0xFFFF'FFFF), receives(1)}, io_error, 0},
        {"read, second buffer wraps",
         in,
         0,
         {sends(16), receives(512), receives_at(top, 0x1000), receives(1)},
         io_error,
         0},
        {"read, the next buffer is where the first one wraps to",
         in,
         0,
         {sends(16), receives_at(top, 0x1200), receives_at(0x200, 512), receives(1)},
         io_error,
         0},
        {"header outside RAM", in, 0, {sends_at(gap, 16), receives(512), receives(1)}, io_error, 0},
        {"readable behind writable", out, 0, {sends(16), receives(1), sends(512), receives(1)}, io_error, 0},
        {"status outside RAM", in, 0, {sends(16), receives(512), receives_at(gap, 1)}, std::nullopt, 0},
        {"status at the end of RAM", in, 0, {sends(16), receives_at(end_of_ram, 1)}, std::nullopt, 0},
    };
    std::size_t count = 0;
    for (const Request& request : requests) {
        CAPTURE(request.name);
        const std::size_t begun = disk.begun();
        check(rig, request, pattern(1024, 5));
        CHECK(disk.begun() == begun);
        CHECK((disk.content == pattern(sectors * sector)));
        CHECK(rig.counter("rejected") == ++count);
        check_works(rig, disk);
    }
    CHECK(rig->config<std::uint64_t>(0) == sectors);
    CHECK(rig.counter("driver_errors") == count);
}

TEST_CASE("Block: a request that is odd but allowed is performed", "[blk]") {
    FakeDisk disk(sectors * sector);
    disk.content = pattern(sectors * sector);
    disk.facts_.can_discard = true;
    BlockRig rig(disk);
    rig->start();
    std::vector<Piece> many(16, sends(1));  // the header
    many.push_back(receives(512));
    many.push_back(receives(1));
    // As many descriptors as the queue has: 384 + 253 * 128 bytes are all sectors.
    std::vector<Piece> longest{sends(16), receives(384)};
    longest.resize(Block::queue_size - 1, receives(128));
    longest.push_back(receives(1));
    const std::vector<Request> requests{
        {"read of nothing", in, 5, {sends(16), receives(1)}, ok, 1},
        {"write of nothing", out, 5, {sends(16), receives(1)}, ok, 1},
        {"read, header in 16 pieces", in, 0, many, ok, 513},
        {"read, an empty buffer before the data",
         in,
         0,
         {sends(16), receives(0), receives(512), receives(1)},
         ok,
         513},
        {"read, the status with the data", in, 0, {sends(16), receives(513)}, ok, 513},
        {"read of all, in 256 descriptors", in, 0, longest, ok, sectors * sector + 1},
        {"write, header and data in one buffer", out, 0, {sends(16 + 1024), receives(1)}, ok, 1},
        {"flush of a sector", block_request::flush, 7, {sends(16), receives(1)}, ok, 1},
        {"flush of a sector that does not exist",
         block_request::flush,
         ~0ULL,
         {sends(16), receives(1)},
         ok,
         1},
        {"flush with data", block_request::flush, 0, {sends(16), sends(512), receives(1)}, ok, 1},
        {"get id of 0 bytes", block_request::get_id, 0, {sends(16), receives(1)}, ok, 1},
        {"get id in pieces",
         block_request::get_id,
         ~0ULL,
         {sends(16), receives(7), receives(13), receives(1)},
         ok,
         21},
        {"get id of 64 bytes", block_request::get_id, 0, {sends(16), receives(64), receives(1)}, ok, 65},
    };
    for (const Request& request : requests) {
        CAPTURE(request.name);
        check(rig, request, pattern(1024));  // what is there already
        CHECK((disk.content == pattern(sectors * sector)));
        check_works(rig, disk);
    }
    CHECK(rig.counter("rejected") == 0);
    CHECK(rig.counter("driver_errors") == 0);
}

TEST_CASE("Block: the reserved field of the header means nothing", "[blk]") {
    FakeDisk disk(sectors * sector);
    BlockRig rig(disk);
    rig->start();
    for (const std::uint32_t type :
         {block_request::in, block_request::out, block_request::flush, block_request::get_id}) {
        CAPTURE(type);
        Bytes sent = BlockRig::header(type, 1);
        std::fill_n(sent.begin() + 4, 4, std::uint8_t{0xFF});
        if (type == block_request::out) {
            append(sent, pattern(sector));
        }
        const std::vector<std::uint32_t> room{type == block_request::in       ? 513U
                                              : type == block_request::get_id ? 21U
                                                                              : 1U};
        rig->offer(0, sent, room);
        rig->notify(0);
        std::optional<DriverQueue::Used> used;
        REQUIRE(rig->run_until([&] { return (used = rig->queues[0]->take_used()).has_value(); }));
        CHECK(rig->received(room[0]).back() == ok);
    }
    CHECK(disk.flushes == 1);
}

TEST_CASE("Block: requests of features that were not accepted are unsupported", "[blk]") {
    FakeDisk disk(sectors * sector);
    disk.facts_.can_discard = true;
    BlockRig rig(disk);
    struct Case {
        std::uint32_t type;
        std::uint64_t feature;
    };
    for (const auto& [type, feature] :
         std::to_array<Case>({{block_request::discard, block_feature::discard},
                              {block_request::write_zeroes, block_feature::write_zeroes}})) {
        CAPTURE(type);
        rig->start(~feature);
        CHECK(rig.request(type, 0, BlockRig::range(0, 8), 0) == Answer{unsupported, 1, {}});
        CHECK(rig.read(0, sector).status == ok);
        rig->start();
        CHECK(rig.request(type, 0, BlockRig::range(0, 8), 0).status == ok);
    }
    CHECK(disk.discarded.size() == 1);
    CHECK(disk.zeroed.size() == 1);
    // Secure erase, lifetime, zones: neither offered nor performed.
    for (const unsigned bit : {16U, 15U, 17U}) {
        CHECK((rig->device_features() & std::uint64_t{1} << bit) == 0);
    }
    CHECK(rig.request(14, 0, BlockRig::range(0, 8), 0).status == unsupported);
    CHECK(rig.request(10, 0, {}, 24).status == unsupported);
}

TEST_CASE("Block: a read may be placed on the rings of another queue, which harms that queue only",
          "[blk][hostile]") {
    FakeDisk disk(sectors * sector);
    disk.content = Bytes(sectors * sector, 0xFF);
    BlockRig rig(disk, {.queues = 2});
    rig->start();
    const QueueLayout other = rig->queues[1]->layout();
    check(rig,
          {"onto the available ring",
           in,
           0,
           {sends(16), receives_at(other.available, 512), receives(1)},
           ok,
           513},
          {});
    CHECK(rig.read(0, sector).status == ok);
    rig->notify(1);
    CHECK(rig->run_until([&] { return rig->needs_reset(); }));  // its index is 0xFFFF
    rig->start();
    check(rig, {"onto the used ring", in, 0, {sends(16), receives_at(other.used, 512), receives(1)}, ok, 513},
          {});
    CHECK(rig.read(0, sector).status == ok);
    CHECK_FALSE(rig->needs_reset());
    rig->start();
    CHECK(rig.request(block_request::in, 0, {}, sector, 1).status == ok);
}

TEST_CASE("Block: a device that needs a reset because of one queue works after it, with all of them",
          "[blk][hostile]") {
    FakeDisk disk(sectors * sector);
    BlockRig rig(disk, {.queues = 4});
    rig->start();
    for (std::uint32_t queue = 0; queue < 4; ++queue) {
        rig->queues[queue]->set_available_index(1000);
        rig->notify(queue);
        CHECK(rig->run_until([&] { return rig->needs_reset(); }));
        rig->start();
        for (std::uint32_t each = 0; each < 4; ++each) {
            CHECK(rig.request(block_request::in, 0, {}, sector, each).status == ok);
        }
    }
}
