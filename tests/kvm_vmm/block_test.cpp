// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Disks (VIRTIO 1.2, 5.2): the requests of drivers, of drivers that do not keep to the rules, and hosts that fail.
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "block_rig.hpp"
#include "catch.hpp"
#include "event/notifier.hpp"
#include "scratch_directory.hpp"
#include "util/error.hpp"
#include "virtio/disk_image.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using namespace kvm_vmm::test;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t sector = 512;

std::filesystem::path image(const ScratchDirectory& directory, std::size_t size,
                            const std::string& name = "disk") {
    const Bytes content = pattern(size);
    return directory.write(name, std::string(content.begin(), content.end()));
}
Bytes content_of(const std::filesystem::path& path) {
    const std::string text = slurp(path);
    return {text.begin(), text.end()};
}
Bytes part(const Bytes& bytes, std::size_t offset, std::size_t size) {
    return {bytes.begin() + static_cast<std::ptrdiff_t>(offset),
            bytes.begin() + static_cast<std::ptrdiff_t>(offset + size)};
}
bool uring_allowed() {
    io_uring ring{};
    if (::io_uring_queue_init(2, &ring, 0) != 0) {
        return false;
    }
    ::io_uring_queue_exit(&ring);
    return true;
}
std::uint64_t allocated(const std::filesystem::path& path) {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

/// An image file with the bytes of pattern(), opened as a disk.
struct OpenedImage {
    explicit OpenedImage(std::size_t size) : path(image(directory, size)), disk({.path = path}) {}

    ScratchDirectory directory;
    std::filesystem::path path;
    DiskImage disk;
};

/// A driver that has started a disk of which all is on a file.
struct ImageRig : OpenedImage, BlockRig {
    ImageRig(std::size_t size, DiskEngineKind kind) : OpenedImage(size), BlockRig(disk, {}, kind) {
        rig.start();
    }
};

}  // namespace

#define BOTH_ENGINES(kind)                                                         \
    const auto kind = GENERATE(DiskEngineKind::threads, DiskEngineKind::io_uring); \
    if ((kind) == DiskEngineKind::io_uring && !uring_allowed()) {                  \
        VMSUPERIO_SKIP("the host does not allow io_uring");                        \
    }                                                                              \
    CAPTURE(kind)

TEST_CASE("Block: what is written is in the file, and what is in the file is read", "[blk]") {
    BOTH_ENGINES(kind);
    const ScratchDirectory directory;
    const auto path = image(directory, 64 * sector);
    DiskImage disk({.path = path});
    BlockRig rig(disk, {.id = "serial"}, kind);
    CHECK(rig.block->engine_name() == (kind == DiskEngineKind::threads ? "threads" : "io_uring"));
    rig->start();
    const Bytes before = content_of(path);
    CHECK(rig.read(0, sector) == Answer{ok, sector + 1, part(before, 0, sector)});
    CHECK(rig.read(63, sector) == Answer{ok, sector + 1, part(before, 63 * sector, sector)});
    CHECK(rig.read(0, 64 * sector).data == before);
    const Bytes data = pattern(3 * sector, 99);
    CHECK(rig.write(5, data) == Answer{ok, 1, {}});
    CHECK(rig.flush() == Answer{ok, 1, {}});
    Bytes after = before;
    std::ranges::copy(data, after.begin() + 5 * sector);
    CHECK(content_of(path) == after);
    CHECK(rig.read(4, 5 * sector).data == part(after, 4 * sector, 5 * sector));
    CHECK(rig.counter("reads") == 4);
    CHECK(rig.counter("writes") == 1);
    CHECK(rig.counter("flushes") == 1);
    CHECK(rig.counter("bytes_read") == (1 + 1 + 64 + 5) * sector);
    CHECK(rig.counter("bytes_written") == 3 * sector);
    CHECK(rig.counter("io_errors") == 0);
}

TEST_CASE("Block: many requests at once are all answered, once each", "[blk]") {
    BOTH_ENGINES(kind);
    ImageRig rig(256 * sector, kind);
    // More than the queue of submissions to io_uring holds would be 128 at once; each has 2 descriptors here.
    for (unsigned round = 0; round < 20; ++round) {
        std::vector<std::pair<GuestRange, std::uint64_t>> expected;
        for (unsigned i = 0; i < 80; ++i) {
            const std::uint64_t at = (i * 37 + round) % 256;
            rig.offer(block_request::in, at, {}, sector);
            expected.emplace_back(rig->last_writable.front(), at);
        }
        rig->notify(0);
        unsigned answers = 0;
        REQUIRE(rig->run_until([&] {
            while (rig->queues[0]->take_used()) {
                ++answers;
            }
            return answers == 80;
        }));
        for (const auto& [where, at] : expected) {
            Bytes got(sector);
            REQUIRE(rig->memory.read(where.address, got));
            CHECK(got == part(pattern(256 * sector), at * sector, sector));
        }
    }
    CHECK(rig.counter("requests") == 1600);
    CHECK(rig.counter("interrupts") <= 1600);
}

TEST_CASE("Block: the layout of the descriptors means nothing", "[blk]") {
    BOTH_ENGINES(kind);
    ImageRig rig(8 * sector, kind);
    const std::filesystem::path& path = rig.path;
    DriverQueue& queue = *rig->queues[0];
    const Bytes data = pattern(sector, 50);
    Bytes sent = BlockRig::header(block_request::out, 2);
    append(sent, data);
    SECTION("header and data in pieces of odd sizes, the status alone") {
        const std::array<std::uint16_t, 6> sizes{1, 6, 8, 2, 500, 11};
        std::uint64_t at = 0x50'0001;
        std::size_t done = 0;
        for (std::uint16_t i = 0; i < sizes.size(); ++i) {
            REQUIRE(rig->memory.write(at, part(sent, done, sizes[i])));
            queue.set(i, {.address = at,
                          .length = sizes[i],
                          .flags = DriverQueue::next,
                          .next = static_cast<std::uint16_t>(i + 1)});
            done += sizes[i];
            at += sizes[i] + 3U;
        }
        REQUIRE(done == sent.size());
        queue.set(6, {.address = at, .length = 1, .flags = DriverQueue::device_writes});
        REQUIRE(rig->memory.write(at, Bytes(2, no_status)));
        queue.offer(0);
        rig->notify(0);
        std::optional<DriverQueue::Used> used;
        REQUIRE(rig->run_until([&] { return (used = queue.take_used()).has_value(); }));
        CHECK(*used == DriverQueue::Used{0, 1});
        CHECK(*rig->memory.read_object<std::uint8_t>(at) == ok);
        CHECK(*rig->memory.read_object<std::uint8_t>(at + 1) == no_status);
        CHECK(part(content_of(path), 2 * sector, sector) == data);
    }
    SECTION("data and status in one buffer") {
        rig->offer(0, BlockRig::header(block_request::in, 3), std::array<std::uint32_t, 1>{sector + 1});
        rig->notify(0);
        std::optional<DriverQueue::Used> used;
        REQUIRE(rig->run_until([&] { return (used = queue.take_used()).has_value(); }));
        CHECK(used->written == sector + 1);
        Bytes got = rig->received(sector + 1);
        CHECK(got.back() == ok);
        got.pop_back();
        CHECK(got == part(pattern(8 * sector), 3 * sector, sector));
    }
}

TEST_CASE("Block: nothing outside the disk is accessed", "[blk]") {
    BOTH_ENGINES(kind);
    ImageRig rig(16 * sector, kind);
    const std::filesystem::path& path = rig.path;
    const Bytes four = pattern(4 * sector, 7);
    // Each descriptor would fit, the request does not.
    CHECK(rig.write(15, four) == Answer{io_error, 1, {}});
    CHECK(rig.write(13, four).status == io_error);
    CHECK(rig.write(16, pattern(sector)).status == io_error);
    CHECK(rig.write(~std::uint64_t{0}, pattern(sector)).status == io_error);
    CHECK(rig.write((std::uint64_t{1} << 55U) + 1, pattern(sector)).status == io_error);  // * 512 is 512
    CHECK(rig.read(16, sector) == Answer{io_error, sector + 1, Bytes(sector)});
    CHECK(rig.read(~std::uint64_t{0} - 3, 4 * sector).status == io_error);
    CHECK(rig.read(0, 511).status == io_error);
    CHECK(rig.write(0, pattern(511)).status == io_error);
    CHECK(rig.read(17, 0).status == io_error);
    CHECK(rig.read(16, 0) == Answer{ok, 1, {}});
    CHECK(content_of(path) == pattern(16 * sector));
    CHECK(rig.counter("rejected") == 10);
    CHECK(rig.counter("io_errors") == 0);
    CHECK(rig.write(12, four).status == ok);
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("Block: a request that lacks its header or its status does not stop the device", "[blk]") {
    FakeDisk disk(8 * sector);
    BlockRig rig(disk);
    rig->start();
    const auto used = rig->request(0, BlockRig::header(block_request::in, 0), 0);
    REQUIRE(used);
    CHECK(used->written == 0);
    const auto shorter = rig->request(0, Bytes(15), 1);
    REQUIRE(shorter);
    CHECK(shorter->written == 1);
    CHECK(rig->received(1) == Bytes{io_error});
    const auto none = rig->request(0, {}, 600);
    REQUIRE(none);
    CHECK(none->written == 600);
    Bytes expected(600);
    expected.back() = io_error;
    CHECK(rig->received(600) == expected);
    CHECK(disk.begun() == 0);
    CHECK(rig.read(0, sector).status == ok);
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("Block: the serial number has 20 bytes at most, and stays over a reset", "[blk]") {
    FakeDisk disk(8 * sector);
    const auto get = [](BlockRig& rig, std::uint32_t size) {
        return rig.request(block_request::get_id, 0, {}, size);
    };
    const auto padded = [](std::string text, std::size_t size) {
        text.resize(size);
        return Bytes(text.begin(), text.end());
    };
    BlockRig rig(disk, {.id = "vol-1"});
    for (int i = 0; i < 2; ++i) {
        rig->start();
        CHECK(get(rig, 20) == Answer{ok, 21, padded("vol-1", 20)});
        CHECK(get(rig, 3) == Answer{ok, 4, padded("vol", 3)});
        CHECK(get(rig, 40) == Answer{ok, 41, padded("vol-1", 40)});
        CHECK(get(rig, 0) == Answer{ok, 1, {}});
    }
    BlockRig full(disk, {.id = "12345678901234567890123"});
    full->start();
    CHECK(get(full, 20) == Answer{ok, 21, padded("12345678901234567890", 20)});
    CHECK(get(full, 21).data == padded("12345678901234567890", 21));
}

TEST_CASE("Block: unknown types of requests are unsupported", "[blk]") {
    FakeDisk disk(8 * sector);
    BlockRig rig(disk);
    rig->start();
    for (const std::uint32_t type : {2U, 3U, 5U, 9U, 10U, 12U, 14U, 16U, 0x8000'0000U, ~0U}) {
        CAPTURE(type);
        CHECK(rig.request(type, 0, Bytes(sector), 0) == Answer{unsupported, 1, {}});
    }
    CHECK(disk.begun() == 0);
}

TEST_CASE("Block: a disk that is read-only is not written, whatever the driver has accepted", "[blk]") {
    BOTH_ENGINES(kind);
    const ScratchDirectory directory;
    const auto path = image(directory, 16 * sector);
    DiskImage disk({.path = path, .read_only = true});
    BlockRig rig(disk, {}, kind);
    CHECK((rig->device_features() & block_feature::read_only) != 0);
    CHECK((rig->device_features() & (block_feature::discard | block_feature::write_zeroes)) == 0);
    rig->start(~block_feature::read_only);
    CHECK(rig.write(0, pattern(sector, 5)).status == io_error);
    CHECK(rig.request(block_request::discard, 0, BlockRig::range(0, 8), 0).status == io_error);
    CHECK(rig.request(block_request::write_zeroes, 0, BlockRig::range(0, 8), 0).status == io_error);
    CHECK(rig.flush().status == ok);
    CHECK(rig.read(0, 16 * sector).data == pattern(16 * sector));
    CHECK(content_of(path) == pattern(16 * sector));
}

TEST_CASE("Block: a flush reaches the storage, and its error the guest", "[blk]") {
    FakeDisk disk(8 * sector);
    BlockRig rig(disk);
    rig->start();
    CHECK(rig->config<std::uint8_t>(32) == 1);
    CHECK(rig.write(0, pattern(sector)).status == ok);
    CHECK(disk.durable_writes == 0);
    CHECK(disk.flushes == 0);
    CHECK(rig.flush().status == ok);
    CHECK(disk.flushes == 1);
    disk.results = {-EIO};
    CHECK(rig.flush().status == io_error);
    CHECK(rig.counter("io_errors") == 1);
    disk.results = {-EINTR, -EINTR};
    CHECK(rig.flush().status == ok);
    CHECK(disk.flushes == 5);
}

TEST_CASE("Block: without flushes each write is durable", "[blk]") {
    FakeDisk disk(64 * sector);
    disk.facts_.can_discard = true;
    BlockRig rig(disk);
    SECTION("the driver has not accepted flushes") {
        rig->start(~block_feature::flush);
        CHECK(rig->config<std::uint8_t>(32) == 0);
    }
    SECTION("the driver has turned the cache off") {
        rig->start();
        rig->write_as<std::uint8_t>(mmio::config + 32, 0);
        CHECK(rig->config<std::uint8_t>(32) == 0);
    }
    CHECK(rig.write(0, pattern(sector)).status == ok);
    CHECK(disk.durable_writes == 1);
    CHECK(rig.request(block_request::write_zeroes, 0, BlockRig::range(0, 8), 0).status == ok);
    CHECK(disk.flushes == 1);
    CHECK(rig.request(block_request::discard, 0, BlockRig::range(0, 8), 0).status == ok);
    CHECK(disk.flushes == 2);
    rig->write_as<std::uint8_t>(mmio::config + 32, 7);  // neither on nor off
    CHECK(rig->config<std::uint8_t>(32) == 0);
    rig->start();
    CHECK(rig->config<std::uint8_t>(32) == 1);
    CHECK(rig.write(0, pattern(sector)).status == ok);
    CHECK(disk.durable_writes == 1);
}

TEST_CASE("Block: the configuration can be changed only as negotiated", "[blk]") {
    FakeDisk disk(8 * sector);
    BlockRig rig(disk);
    rig->start(~block_feature::config_wce);
    const auto whole = [&] {
        Bytes bytes;
        for (std::uint64_t i = 0; i < 80; ++i) {
            bytes.push_back(rig->config<std::uint8_t>(i));
        }
        return bytes;
    };
    const Bytes before = whole();
    for (std::uint64_t i = 0; i < 80; ++i) {
        rig->write_as<std::uint8_t>(mmio::config + i, static_cast<std::uint8_t>(i == 32 ? 0 : 0x5A));
    }
    CHECK(whole() == before);
    CHECK(rig.write(0, pattern(sector)).status == ok);
    CHECK(disk.durable_writes == 0);
    rig->start();
    rig->write_as<std::uint32_t>(mmio::config + 30, 0);
    CHECK(rig->config<std::uint8_t>(32) == 0);
    rig->write_as<std::uint32_t>(mmio::config + 33, 0xFFFF'FFFF);
    CHECK(rig->config<std::uint8_t>(32) == 0);
}

TEST_CASE("Block: the configuration describes the disk", "[blk]") {
    FakeDisk disk(1000 * sector);
    disk.facts_.can_discard = true;
    disk.facts_.discard_granularity = 8192;
    BlockRig rig(disk);
    const auto features = rig->device_features();
    CHECK((features & block_feature::discard) != 0);
    CHECK((features & block_feature::write_zeroes) != 0);
    CHECK((features & block_feature::multi_queue) == 0);
    CHECK((features & block_feature::read_only) == 0);
    CHECK(rig->config<std::uint64_t>(0) == 1000);
    CHECK(rig->config<std::uint32_t>(12) == 254);
    CHECK(rig->config<std::uint32_t>(20) == 512);
    CHECK(rig->config<std::uint8_t>(24) == 3);
    CHECK(rig->config<std::uint16_t>(26) == 8);
    CHECK(rig->config<std::uint16_t>(34) == 1);
    CHECK(rig->config<std::uint32_t>(36) == Block::max_discard_sectors);
    CHECK(rig->config<std::uint32_t>(40) == 16);
    CHECK(rig->config<std::uint32_t>(44) == 16);
    CHECK(rig->config<std::uint32_t>(48) == Block::max_write_zeroes_sectors);
    CHECK(rig->config<std::uint32_t>(52) == 16);
    CHECK(rig->config<std::uint8_t>(56) == 1);
    CHECK(rig->config<std::uint32_t>(0xEFC) == 0);
    disk.facts_.can_discard = false;
    CHECK((rig->device_features() & block_feature::discard) == 0);
    CHECK(rig->config<std::uint8_t>(56) == 0);
    rig->start();
    CHECK(rig.request(block_request::discard, 0, BlockRig::range(0, 8), 0).status == unsupported);
    CHECK(disk.begun() == 0);
}

TEST_CASE("Block: discards and writes of zeros are checked as a whole", "[blk]") {
    FakeDisk disk(10'000'000ULL * sector / 1000);
    disk.facts_.size = 10'000'000ULL * sector;
    disk.facts_.can_discard = true;
    BlockRig rig(disk);
    rig->start();
    const auto type = GENERATE(block_request::discard, block_request::write_zeroes);
    const bool discards = type == block_request::discard;
    const std::uint32_t most = discards ? Block::max_discard_sectors : Block::max_write_zeroes_sectors;
    const auto send = [&](const Bytes& ranges) { return rig.request(type, 0, ranges, 0).status; };
    Bytes two = BlockRig::range(8, 8);
    append(two, BlockRig::range(0, 4));
    CHECK(send(two) == ok);
    const FakeDisk::Ranges expected{{8 * sector, 8 * sector}, {0, 4 * sector}};
    CHECK((discards ? disk.discarded : disk.zeroed) == expected);
    CHECK((discards ? disk.zeroed : disk.discarded).empty());
    CHECK(send(BlockRig::range(9'999'999, 1)) == ok);
    CHECK(send(BlockRig::range(0, most)) == ok);
    CHECK(send(BlockRig::range(0, 0)) == ok);
    const std::size_t begun = disk.begun();
    CHECK(begun == 4);
    CHECK(send(BlockRig::range(0, most + 1)) == io_error);
    CHECK(send(BlockRig::range(9'999'999, 2)) == io_error);
    CHECK(send(BlockRig::range(~std::uint64_t{0}, 1)) == io_error);
    CHECK(send(BlockRig::range(std::uint64_t{1} << 55U, 1)) == io_error);
    CHECK(send({}) == io_error);
    CHECK(send(Bytes(15)) == io_error);
    CHECK(send(Bytes(24)) == io_error);
    CHECK(send(Bytes(16 * 17)) == io_error);
    CHECK(send(BlockRig::range(0, 8, 2)) == unsupported);
    CHECK(send(BlockRig::range(0, 8, 0x8000'0000)) == unsupported);
    // One wrong range: none is done.
    Bytes second_wrong = BlockRig::range(0, 8);
    append(second_wrong, BlockRig::range(9'999'999, 2));
    CHECK(send(second_wrong) == io_error);
    if (discards) {
        CHECK(send(BlockRig::range(0, 8, 1)) == unsupported);
        CHECK(disk.begun() == begun);
    } else {
        CHECK(disk.begun() == begun);
        CHECK(send(BlockRig::range(0, 8, 1)) == ok);
        CHECK(disk.unmapped == FakeDisk::Ranges{{0, 8 * sector}});
    }
    disk.results = {-ENOSPC};
    CHECK(send(BlockRig::range(0, 8)) == io_error);
    CHECK(rig.counter("io_errors") == 1);
}

TEST_CASE("Block: discards and writes of zeros change the host's file", "[blk]") {
    BOTH_ENGINES(kind);
    // ext4 has both operations, tmpfs only holes.
    const bool in_memory = GENERATE(false, true);
    const ScratchDirectory scratch;
    const std::string shm = "/dev/shm/" + scratch.write("x", "").parent_path().filename().string();
    auto path = image(scratch, 4U << 20U);
    if (in_memory) {
        std::filesystem::create_directory(shm);
        std::filesystem::copy(path, shm + "/disk");
        path = shm + "/disk";
    }
    {
        DiskImage disk({.path = path});
        REQUIRE(disk.facts().can_discard);
        BlockRig rig(disk, {}, kind);
        rig->start();
        const std::uint64_t before = allocated(path);
        constexpr std::uint32_t mib = (1U << 20U) / sector;
        CHECK(rig.request(block_request::discard, 0, BlockRig::range(0, mib), 0).status == ok);
        CHECK(allocated(path) <= before - (1U << 20U));
        CHECK(rig.request(block_request::write_zeroes, 0, BlockRig::range(mib, mib, 1), 0).status == ok);
        CHECK(allocated(path) <= before - (2U << 20U));
        CHECK(rig.request(block_request::write_zeroes, 0, BlockRig::range(2 * mib + 1, mib), 0).status == ok);
        CHECK(allocated(path) >= before - (2U << 20U) - 4096);
        Bytes expected = pattern(4U << 20U);
        std::fill_n(expected.begin(), 2U << 20U, std::uint8_t{0});
        std::fill_n(expected.begin() + (2U << 20U) + sector, 1U << 20U, std::uint8_t{0});
        const Bytes now = content_of(path);
        CHECK((now == expected));
        CHECK(rig.read(2 * mib, sector).data == part(expected, 2U << 20U, sector));
        CHECK(rig.counter("discards") == 1);
        CHECK(rig.counter("write_zeroes") == 2);
    }
    std::filesystem::remove_all(shm);
}

TEST_CASE("Block: what the host does in parts is continued", "[blk]") {
    FakeDisk disk(64 * sector);
    disk.content = pattern(64 * sector);
    BlockRig rig(disk);
    rig->start();
    disk.results = {100, 1, -EINTR, 700, -EAGAIN, -EINTR};
    CHECK(rig.read(8, 4 * sector) ==
          Answer{ok, 4 * sector + 1, part(pattern(64 * sector), 8 * sector, 4 * sector)});
    CHECK(disk.results.empty());
    const Bytes data = pattern(3 * sector, 77);
    disk.results = {511, -EINTR, 2};
    CHECK(rig.write(20, data).status == ok);
    Bytes expected = pattern(64 * sector);
    std::ranges::copy(data, expected.begin() + 20 * sector);
    CHECK(disk.content == expected);
    CHECK(rig.counter("bytes_written") == 3 * sector);
}

TEST_CASE("Block: an error of the host is the guest's, and the next request is served", "[blk]") {
    FakeDisk disk(64 * sector);
    disk.content = pattern(64 * sector);
    BlockRig rig(disk);
    rig->start();
    for (const std::int64_t error : {-EIO, -ENOSPC, -EBADF, 0}) {
        CAPTURE(error);
        disk.results = {error};
        // What was not read is zeros, not what was in the buffer.
        CHECK(rig.read(1, 2 * sector) == Answer{io_error, 2 * sector + 1, Bytes(2 * sector)});
        disk.results = {error};
        CHECK(rig.write(1, pattern(sector)).status == io_error);
        CHECK(rig.read(1, sector) == Answer{ok, sector + 1, part(pattern(64 * sector), sector, sector)});
    }
    disk.results = {600, -EIO};
    Bytes first = part(pattern(64 * sector), 0, 600);
    first.resize(2 * sector);
    CHECK(rig.read(0, 2 * sector) == Answer{io_error, 2 * sector + 1, first});
    CHECK(rig.counter("io_errors") == 9);
    // An interruption that does not end is an error.
    disk.results.assign(5000, -EINTR);
    CHECK(rig.read(0, sector).status == io_error);
    disk.results.clear();
    CHECK(rig.read(0, sector).status == ok);
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("Block: a file that is truncated under the guest gives errors", "[blk]") {
    BOTH_ENGINES(kind);
    ImageRig rig(64 * sector, kind);
    const std::filesystem::path& path = rig.path;
    std::filesystem::resize_file(path, 10 * sector + 100);
    CHECK(rig.read(20, sector) == Answer{io_error, sector + 1, Bytes(sector)});
    Bytes part_of_it = part(pattern(64 * sector), 10 * sector, 100);
    part_of_it.resize(2 * sector);
    CHECK(rig.read(10, 2 * sector) == Answer{io_error, 2 * sector + 1, part_of_it});
    CHECK(rig.read(9, sector) == Answer{ok, sector + 1, part(pattern(64 * sector), 9 * sector, sector)});
    CHECK(rig.flush().status == ok);
    CHECK(rig.counter("io_errors") == 2);
}

TEST_CASE("Block: the guest is notified of another size of the file, and uses it", "[blk][resize]") {
    BOTH_ENGINES(kind);
    ImageRig rig(64 * sector, kind);
    const std::filesystem::path& path = rig.path;
    const auto generation = [&] { return rig->read(mmio::config_generation); };
    const auto resize_to = [&](std::uint64_t bytes) {
        const std::uint32_t before = generation();
        (void)rig->take_interrupt_status();
        (void)rig->interrupts();
        std::filesystem::resize_file(path, bytes);
        rig.block->check_size();
        REQUIRE(rig->run_until([&] { return generation() != before; }));
        CHECK(rig->run_until([&] { return rig->interrupts() == 1; }));
        CHECK(rig->take_interrupt_status() == interrupt_status::configuration_change);
        CHECK(rig->config<std::uint64_t>(0) == bytes / sector);
    };
    CHECK(rig.read(64, sector).status == io_error);
    resize_to(100 * sector);
    CHECK(rig.read(99, sector) == Answer{ok, sector + 1, Bytes(sector)});
    CHECK(rig.write(64, pattern(36 * sector, 3)).status == ok);
    CHECK(rig.read(99, 2 * sector).status == io_error);
    CHECK(part(content_of(path), 64 * sector, 36 * sector) == pattern(36 * sector, 3));
    resize_to(10 * sector);
    CHECK(rig.read(9, sector).status == ok);
    CHECK(rig.write(9, pattern(2 * sector)).status == io_error);
    CHECK(rig.write(64, pattern(sector)).status == io_error);
    CHECK(rig.request(block_request::write_zeroes, 0, BlockRig::range(10, 1), 0).status == io_error);
    CHECK(std::filesystem::file_size(path) == 10 * sector);
    CHECK(rig.counter("resizes") == 2);
    CHECK(rig.counter("io_errors") == 0);
    // A reset does not change it back, nor does a saved state.
    rig->start();
    CHECK(rig->config<std::uint64_t>(0) == 10);
    CHECK(rig->interrupts() == 0);
    const MmioState saved = rig->transport->state();
    rig->reset();
    CHECK(rig->transport->restore(saved).has_value());
}

TEST_CASE("Block: a size that no disk has is refused, and one that is the same is no news", "[blk][resize]") {
    FakeDisk disk(64 * sector);
    BlockRig rig(disk);
    rig->start();
    const std::uint32_t generation = rig->read(mmio::config_generation);
    for (std::size_t i = 1; i <= 4; ++i) {
        if (i % 2 == 0) {
            disk.next_size = std::unexpected("disk 'x': is empty now");
        } else {
            disk.next_size = 64 * sector;
        }
        rig.block->check_size();
        REQUIRE(rig->run_until([&] { return disk.size_checks == i; }));
        CHECK(rig.read(63, sector).status == ok);
    }
    CHECK(rig->config<std::uint64_t>(0) == 64);
    CHECK(rig->read(mmio::config_generation) == generation);
    CHECK((rig->take_interrupt_status() & interrupt_status::configuration_change) == 0);
    CHECK(rig.counter("resizes") == 0);
}

TEST_CASE("Block: a size that changes while the driver starts is announced when it has", "[blk][resize]") {
    FakeDisk disk(64 * sector);
    BlockRig rig(disk);
    const auto resize_to = [&](std::uint64_t sectors) {
        const std::uint64_t before = rig.counter("resizes");
        disk.next_size = sectors * sector;
        rig.block->check_size();
        REQUIRE(rig->run_until([&] { return rig.counter("resizes") == before + 1; }));
        CHECK(rig->run_until([&] { return rig->config<std::uint64_t>(0) == sectors; }));
    };
    rig->acknowledge();
    REQUIRE(rig->negotiate());
    CHECK(rig->config<std::uint64_t>(0) == 64);
    resize_to(32);
    rig->set_up_queue(0);
    CHECK(rig->interrupts() == 0);
    rig->add_status(status::driver_ok);
    CHECK(rig->take_interrupt_status() == interrupt_status::configuration_change);
    CHECK(rig->interrupts() == 1);
    CHECK(rig.read(32, sector).status == io_error);
    CHECK(rig.read(31, sector).status == ok);
    // Once.
    (void)rig->interrupts();
    rig->start();
    CHECK(rig->interrupts() == 0);
    CHECK(rig->take_interrupt_status() == 0);
}

TEST_CASE("Block: a size that changes with requests in progress does not disturb them", "[blk][resize]") {
    FakeDisk disk(64 * sector);
    disk.content = pattern(64 * sector);
    BlockRig rig(disk);
    rig->start();
    disk.hold();
    rig.offer(block_request::in, 60, {}, sector);
    rig->notify(0);
    REQUIRE(disk.wait_for_begun(1));
    std::thread host([&] {
        std::this_thread::sleep_for(10ms);
        disk.release();
    });
    disk.next_size = 32 * sector;
    rig.block->check_size();
    CHECK(rig.wait(sector) == Answer{ok, sector + 1, part(pattern(64 * sector), 60 * sector, sector)});
    host.join();
    CHECK(rig->run_until([&] { return rig.counter("resizes") == 1; }));
    CHECK(rig.read(60, sector).status == io_error);
    CHECK(rig.read(31, sector).status == ok);
}

TEST_CASE("Block: a host that refuses every write gives errors", "[blk]") {
    BOTH_ENGINES(kind);
    const ScratchDirectory directory;
    const auto path = image(directory, 64 * sector);
    DiskImage disk({.path = path, .read_only = true});  // its descriptor cannot be written: EBADF
    class Writable final : public DiskFile {
    public:
        explicit Writable(DiskImage& of) : of_(of), facts_(of.facts()) { facts_.read_only = false; }
        [[nodiscard]] const DiskFacts& facts() const noexcept override { return facts_; }
        [[nodiscard]] int descriptor(bool aligned) const noexcept override { return of_.descriptor(aligned); }
        std::int64_t read(std::span<const iovec> m, std::uint64_t o, bool a) noexcept override {
            return of_.read(m, o, a);
        }
        std::int64_t write(std::span<const iovec> m, std::uint64_t o, bool a, bool d) noexcept override {
            return of_.write(m, o, a, d);
        }
        int flush() noexcept override { return of_.flush(); }
        int discard(std::uint64_t o, std::uint64_t l) noexcept override { return of_.discard(o, l); }
        int write_zeroes(std::uint64_t o, std::uint64_t l, bool u) noexcept override {
            return of_.write_zeroes(o, l, u);
        }

    private:
        DiskImage& of_;
        DiskFacts facts_;
    } writable(disk);
    BlockRig rig(writable, {}, kind);
    rig->start();
    CHECK(rig.write(0, pattern(sector, 9)).status == io_error);
    CHECK(rig.request(block_request::write_zeroes, 0, BlockRig::range(0, 8), 0).status == io_error);
    CHECK(rig.read(0, sector).status == ok);
    CHECK(content_of(path) == pattern(64 * sector));
    CHECK(rig.counter("io_errors") == 2);
}

TEST_CASE("Block: a reset waits for the host, and leaves the rings as they are", "[blk]") {
    FakeDisk disk(64 * sector);
    disk.content = pattern(64 * sector);
    BlockRig rig(disk, {.id = "same"});
    rig->start();
    disk.hold();
    std::vector<GuestRange> buffers;
    for (std::uint64_t i = 0; i < 32; ++i) {
        rig.offer(block_request::in, i, {}, sector);
        buffers.insert(buffers.end(), rig->last_writable.begin(), rig->last_writable.end());
    }
    rig->notify(0);
    REQUIRE(disk.wait_for_begun(1));
    std::atomic<bool> reset{false};
    std::thread driver([&] {
        rig->write(mmio::status, 0);
        reset = true;
    });
    std::this_thread::sleep_for(50ms);
    CHECK_FALSE(reset);
    disk.release();
    driver.join();
    CHECK(rig->status() == 0);
    CHECK(rig->queues[0]->used_index() == 0);
    // The memory belongs to the next owner now.
    for (const GuestRange& buffer : buffers) {
        REQUIRE(rig->memory.write(buffer.address, Bytes(buffer.size, 0x77)));
    }
    const std::size_t begun = disk.begun();
    CHECK(begun < 32);  // those that had not begun are not performed any more
    std::this_thread::sleep_for(50ms);
    CHECK(disk.begun() == begun);
    for (const GuestRange& buffer : buffers) {
        Bytes now(buffer.size);
        REQUIRE(rig->memory.read(buffer.address, now));
        CHECK(now == Bytes(buffer.size, 0x77));
    }
    CHECK(rig->queues[0]->used_index() == 0);
    rig->start();
    CHECK(rig.request(block_request::get_id, 0, {}, 20).data.front() == 's');
    CHECK(rig.read(3, sector) == Answer{ok, sector + 1, part(pattern(64 * sector), 3 * sector, sector)});
}

namespace {

/// A disk that is the reading end of a pipe: io_uring's reads wait for what the test writes.
class PipeDisk final : public DiskFile {
public:
    PipeDisk() {
        REQUIRE(::pipe2(ends_.data(), O_CLOEXEC) == 0);
        facts_.size = 64 * sector;
        facts_.read_only = true;
    }
    ~PipeDisk() override {
        close_writer();
        ::close(ends_[0]);
    }
    void feed(const Bytes& bytes) const {
        REQUIRE(::write(ends_[1], bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    }
    void close_writer() {
        if (ends_[1] >= 0) {
            ::close(std::exchange(ends_[1], -1));
        }
    }
    [[nodiscard]] const DiskFacts& facts() const noexcept override { return facts_; }
    [[nodiscard]] int descriptor(bool) const noexcept override { return ends_[0]; }
    std::int64_t read(std::span<const iovec>, std::uint64_t, bool) noexcept override { return -ENOSYS; }
    std::int64_t write(std::span<const iovec>, std::uint64_t, bool, bool) noexcept override {
        return -ENOSYS;
    }
    int flush() noexcept override { return -ENOSYS; }
    int discard(std::uint64_t, std::uint64_t) noexcept override { return -ENOSYS; }
    int write_zeroes(std::uint64_t, std::uint64_t, bool) noexcept override { return -ENOSYS; }

private:
    std::array<int, 2> ends_{-1, -1};
    DiskFacts facts_;
};

}  // namespace

TEST_CASE("Block: io_uring continues what was read in part", "[blk]") {
    if (!uring_allowed()) {
        VMSUPERIO_SKIP("the host does not allow io_uring");
    }
    PipeDisk disk;
    BlockRig rig(disk, {}, DiskEngineKind::io_uring);
    rig->start();
    rig.offer(block_request::in, 0, {}, 2 * sector);
    rig->notify(0);
    const Bytes bytes = pattern(2 * sector);
    for (const auto& [from, count] : {std::pair<std::size_t, std::size_t>{0, 1}, {1, 600}, {601, 400}}) {
        disk.feed(part(bytes, from, count));
        std::this_thread::sleep_for(10ms);
        CHECK(rig->queues[0]->used_index() == 0);
    }
    disk.feed(part(bytes, 1001, 23));
    CHECK(rig.wait(2 * sector) == Answer{ok, 2 * sector + 1, bytes});
}

TEST_CASE("Block: a reset waits for io_uring", "[blk]") {
    if (!uring_allowed()) {
        VMSUPERIO_SKIP("the host does not allow io_uring");
    }
    PipeDisk disk;
    BlockRig rig(disk, {.id = "same"}, DiskEngineKind::io_uring);
    rig->start();
    for (std::uint64_t i = 0; i < 32; ++i) {
        rig.offer(block_request::in, i, {}, sector);
    }
    rig->notify(0);
    std::this_thread::sleep_for(20ms);
    std::atomic<bool> reset{false};
    std::thread driver([&] {
        rig->write(mmio::status, 0);
        reset = true;
    });
    std::this_thread::sleep_for(50ms);
    CHECK_FALSE(reset);
    disk.close_writer();  // each read ends, without a byte
    driver.join();
    CHECK(rig->status() == 0);
    CHECK(rig->queues[0]->used_index() == 0);
    rig->start();
    CHECK(rig.request(block_request::get_id, 0, {}, 20).data.front() == 's');
    CHECK(rig.read(0, sector).status == io_error);
}

TEST_CASE("Block: the same chain twice in progress breaks the device until its reset", "[blk]") {
    FakeDisk disk(64 * sector);
    BlockRig rig(disk);
    rig->start();
    disk.hold();
    rig.offer(block_request::in, 0, {}, sector);
    rig->notify(0);
    REQUIRE(disk.wait_for_begun(1));
    rig->queues[0]->offer(0);
    rig->notify(0);
    CHECK(rig->run_until([&] { return rig->needs_reset(); }));
    disk.release();
    std::this_thread::sleep_for(20ms);
    CHECK(rig->queues[0]->used_index() == 0);
    CHECK(rig.counter("driver_errors") == 1);
    rig->start();
    CHECK(rig.read(0, sector).status == ok);
}

TEST_CASE("Block: saving completes what is in progress", "[blk]") {
    BOTH_ENGINES(kind);
    ImageRig rig(64 * sector, kind);
    const std::filesystem::path& path = rig.path;
    for (std::uint64_t i = 0; i < 40; ++i) {
        rig.offer(block_request::out, i, pattern(sector, 200), 0);
    }
    rig->notify(0);
    REQUIRE(rig->run_until([&] { return rig.counter("writes") == 40; }));
    const auto state = rig->transport->state();
    CHECK(state.queues.front().progress.next_available == 40);
    CHECK(state.queues.front().progress.next_used == 40);
    CHECK(rig->queues[0]->used_index() == 40);
    CHECK(part(content_of(path), 39 * sector, sector) == pattern(sector, 200));
}

TEST_CASE("Block: the device can be destroyed while requests are in progress", "[blk]") {
    BOTH_ENGINES(kind);
    const ScratchDirectory directory;
    const auto path = image(directory, 8U << 20U);
    DiskImage disk({.path = path});
    for (int i = 0; i < 10; ++i) {
        BlockRig rig(disk, {}, kind);
        rig->start();
        for (std::uint64_t j = 0; j < 16; ++j) {
            rig.offer(j % 3 == 0 ? block_request::flush : block_request::in, j * 64, {}, 64 * sector);
        }
        rig->notify(0);
    }
    BlockRig rig(disk, {}, kind);
    rig->start();
    CHECK(rig.read(0, sector).status == ok);
}

TEST_CASE("Block: each of several queues is served, and one can be stopped", "[blk]") {
    FakeDisk disk(64 * sector);
    disk.content = pattern(64 * sector);
    BlockRig rig(disk, {.queues = 4});
    CHECK((rig->device_features() & block_feature::multi_queue) != 0);
    CHECK(rig->config<std::uint16_t>(34) == 4);
    rig->start();
    for (std::uint32_t queue = 0; queue < 4; ++queue) {
        CHECK(rig.request(block_request::in, queue, {}, sector, queue) ==
              Answer{ok, sector + 1, part(pattern(64 * sector), queue * sector, sector)});
    }
    disk.hold();
    rig.offer(block_request::in, 0, {}, sector, 1);
    rig.offer(block_request::in, 0, {}, sector, 2);
    rig->notify(1);
    rig->notify(2);
    REQUIRE(disk.wait_for_begun(6));
    std::thread driver([&] {
        rig->write(mmio::queue_sel, 1);
        rig->write(mmio::queue_ready, 0);
    });
    std::this_thread::sleep_for(20ms);
    disk.release();
    driver.join();
    CHECK(rig->queues[1]->used_index() == 1);  // only the first request
    CHECK(rig->run_until([&] { return rig->queues[2]->used_index() == 2; }));
    CHECK(rig.request(block_request::in, 5, {}, sector, 3).status == ok);
}

TEST_CASE("Block: the reset of a queue waits for its requests, and not for those of others", "[blk]") {
    FakeDisk disk(64 * sector);
    disk.content = pattern(64 * sector);
    BlockRig rig(disk, {.queues = 3});
    rig->start();
    const auto has_reset = [&] { return rig->read(mmio::queue_reset) == 0; };
    disk.hold(32 * sector);
    rig.offer(block_request::in, 40, {}, sector, 1);
    const std::vector<GuestRange> other = rig->last_writable;
    rig->notify(1);
    rig.offer(block_request::in, 3, {}, sector, 0);
    rig->notify(0);
    REQUIRE(rig->run_until([&] { return rig->queues[0]->take_used().has_value(); }));
    REQUIRE(disk.wait_for_begun(2));
    // Nothing of queue 0 is in progress: its reset does not wait, although the host does not answer queue 1.
    rig->write(mmio::queue_sel, 0);
    rig->write(mmio::queue_reset, 1);
    CHECK(has_reset());
    CHECK(rig->read(mmio::queue_ready) == 0);
    rig->set_up_queue(0, 16);
    CHECK(rig.request(block_request::in, 5, {}, sector, 0) ==
          Answer{ok, sector + 1, part(pattern(64 * sector), 5 * sector, sector)});
    CHECK(rig->queues[1]->used_index() == 0);
    // One of queue 2 is in progress.
    rig.offer(block_request::in, 41, {}, sector, 2);
    const std::vector<GuestRange> own = rig->last_writable;
    rig->notify(2);
    REQUIRE(disk.wait_for_begun(4));
    std::atomic<bool> done{false};
    std::thread driver([&] {
        rig->write(mmio::queue_sel, 2);
        rig->write(mmio::queue_reset, 1);
        done = true;
    });
    CHECK(rig->run_until([&] { return !has_reset(); }));
    std::this_thread::sleep_for(20ms);
    CHECK_FALSE(done);
    CHECK_FALSE(has_reset());
    disk.release();
    driver.join();
    CHECK(has_reset());
    CHECK(rig->read(mmio::queue_ready) == 0);
    CHECK(rig->queues[2]->used_index() == 0);  // its driver has taken the buffers back
    for (const GuestRange& buffer : own) {
        REQUIRE(rig->memory.write(buffer.address, Bytes(buffer.size, 0x77)));
    }
    CHECK(rig->run_until([&] { return rig->queues[1]->used_index() == 1; }));
    CHECK(rig->memory.read_object<std::uint8_t>(other[1].address) == ok);
    std::this_thread::sleep_for(20ms);
    for (const GuestRange& buffer : own) {
        Bytes now(buffer.size);
        REQUIRE(rig->memory.read(buffer.address, now));
        CHECK(now == Bytes(buffer.size, 0x77));
    }
    rig->set_up_queue(2, 8);
    for (int i = 0; i < 20; ++i) {
        CHECK(rig.request(block_request::in, 7, {}, sector, 2).status == ok);
    }
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("Block: the reset of a queue waits for io_uring, and ends a wait for a limit", "[blk]") {
    BOTH_ENGINES(kind);
    const ScratchDirectory directory;
    DiskImage disk({.path = image(directory, 8U << 20U)});
    BlockRig rig(disk, {.queues = 2, .requests_per_second = kind == DiskEngineKind::threads ? 20 : 100'000},
                 kind);
    rig->start();
    for (unsigned round = 0; round < 20; ++round) {
        const std::uint32_t queue = round % 2;
        for (std::uint64_t i = 0; i < 4; ++i) {
            rig.offer(i == 2 ? block_request::flush : block_request::in, i * 64, {}, 64 * sector, queue);
        }
        rig->notify(queue);
        rig->write(mmio::queue_sel, queue);
        rig->write(mmio::queue_reset, 1);
        const std::uint16_t used = rig->queues[queue]->used_index();
        CHECK(rig->read(mmio::queue_reset) == 0);
        CHECK(rig->read(mmio::queue_ready) == 0);
        std::this_thread::sleep_for(1ms);
        CHECK(rig->queues[queue]->used_index() == used);
        rig->set_up_queue(queue, static_cast<std::uint16_t>(16U << round % 3));
    }
    CHECK(rig.request(block_request::in, 0, {}, sector, 0).status == ok);
    CHECK(rig.request(block_request::in, 0, {}, sector, 1).status == ok);
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("Block: limits delay requests, and lose none", "[blk]") {
    FakeDisk disk(64 * sector);
    const bool by_bytes = GENERATE(false, true);
    Block::Options options;
    if (by_bytes) {
        options.bytes_per_second = 100 * sector;  // with a burst of 10 sectors
    } else {
        options.requests_per_second = 100;
    }
    BlockRig rig(disk, options);
    rig->start();
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < 40; ++i) {
        rig.offer(block_request::in, i, {}, sector);
    }
    rig->notify(0);
    std::size_t early = 0;
    REQUIRE(rig->run_until([&] {
        const auto used = rig->queues[0]->used_index();
        if (std::chrono::steady_clock::now() - begin < 50ms) {
            early = used;
        }
        return used == 40;
    }));
    const auto time = std::chrono::steady_clock::now() - begin;
    CHECK(time >= 280ms);
    CHECK(time < 5s);
    CHECK(early <= 17);
    CHECK(rig.counter("throttled") >= 1);
    CHECK(rig.counter("throttled") <= 40);
    // A reset while requests wait for the limit.
    for (std::uint64_t i = 0; i < 40; ++i) {
        rig.offer(block_request::in, i, {}, sector);
    }
    rig->notify(0);
    rig->start();
    const std::size_t begun = disk.begun();
    std::this_thread::sleep_for(60ms);
    CHECK(disk.begun() == begun);
    CHECK(rig.read(0, sector).status == ok);
}

TEST_CASE("Block: what needs no host is answered although the next request waits for a limit", "[blk]") {
    FakeDisk disk(64 * sector);
    BlockRig rig(disk, {.id = "x", .requests_per_second = 1});  // with a burst of 1
    rig->start();
    rig.offer(block_request::get_id, 0, {}, 20);
    rig.offer(block_request::in, 0, {}, sector);
    rig->notify(0);
    CHECK(rig->run_until([&] { return rig->queues[0]->used_index() == 1; }, 500ms));
    CHECK(disk.begun() == 0);
    CHECK(rig->run_until([&] { return rig->queues[0]->used_index() == 2; }));
}

TEST_CASE("Block: without the host's cache, memory is aligned by a copy", "[blk]") {
    FakeDisk disk(std::size_t{1} << 20U);
    disk.content = pattern(std::size_t{1} << 20U);
    disk.facts_.offset_alignment = GENERATE(512U, 4096U);
    disk.facts_.memory_alignment = GENERATE(1U, 4096U);
    BlockRig rig(disk);
    rig->start();
    DriverQueue& queue = *rig->queues[0];
    // 600 KiB in odd pieces, which does not fit in one bounce buffer.
    constexpr std::uint32_t size = 600U << 10U;
    constexpr std::uint64_t at = 0x60'0001;
    constexpr std::uint32_t first = 1001;
    const auto head = BlockRig::header(block_request::in, 8);
    REQUIRE(rig->memory.write(0x50'0000, head));
    queue.set(0, {.address = 0x50'0000, .length = 16, .flags = DriverQueue::next, .next = 1});
    queue.set(
        1,
        {.address = at, .length = first, .flags = DriverQueue::next | DriverQueue::device_writes, .next = 2});
    queue.set(2, {.address = at + first, .length = size - first + 1, .flags = DriverQueue::device_writes});
    disk.results = {700, 4096, 100'000};
    queue.offer(0);
    rig->notify(0);
    std::optional<DriverQueue::Used> used;
    REQUIRE(rig->run_until([&] { return (used = queue.take_used()).has_value(); }));
    CHECK(used->written == size + 1);
    Bytes got(size + 1);
    REQUIRE(rig->memory.read(at, got));
    CHECK(got.back() == ok);
    got.pop_back();
    CHECK((got == part(disk.content, 8 * sector, size)));
    // And back, to another place.
    const auto out = BlockRig::header(block_request::out, 16);
    REQUIRE(rig->memory.write(0x50'0000, out));
    queue.set(1, {.address = at, .length = first, .flags = DriverQueue::next, .next = 2});
    queue.set(2, {.address = at + first, .length = size - first, .flags = DriverQueue::next, .next = 3});
    queue.set(3, {.address = 0x50'0100, .length = 1, .flags = DriverQueue::device_writes});
    queue.offer(0);
    rig->notify(0);
    REQUIRE(rig->run_until([&] { return (used = queue.take_used()).has_value(); }));
    CHECK(*rig->memory.read_object<std::uint8_t>(0x50'0100) == ok);
    CHECK((part(disk.content, 16 * sector, size) == got));
    CHECK(disk.misaligned == 0);
    // One sector of a larger block goes through the cache.
    disk.cached = 0;
    CHECK(rig.write(3, pattern(sector, 3)).status == ok);
    CHECK(disk.cached == (disk.facts_.offset_alignment == 4096 ? 1U : 0U));
    CHECK(disk.misaligned == 0);
}

TEST_CASE("Block: a file without the host's cache", "[blk]") {
    BOTH_ENGINES(kind);
    const ScratchDirectory directory;
    const auto path = image(directory, 1U << 20U);
    std::unique_ptr<DiskImage> disk;
    try {
        disk = std::make_unique<DiskImage>(DiskConfig{.path = path, .cache = DiskCache::direct});
    } catch (const VmmError& error) {
        VMSUPERIO_SKIP(error.what());
    }
    CHECK(disk->facts().offset_alignment >= 512);
    BlockRig rig(*disk, {}, kind);
    rig->start();
    Bytes expected = pattern(1U << 20U);
    CHECK(rig.read(0, 8 * sector).data == part(expected, 0, 8 * sector));
    CHECK(rig.read(3, sector).data == part(expected, 3 * sector, sector));
    for (unsigned i = 0; i < 10; ++i) {
        const Bytes data = pattern((i + 1) * sector, 100 + i);
        CHECK(rig.write(i * 20 + i % 3, data).status == ok);
        std::ranges::copy(data, expected.begin() + static_cast<std::ptrdiff_t>((i * 20 + i % 3) * sector));
    }
    CHECK(rig.flush().status == ok);
    CHECK((content_of(path) == expected));
    CHECK((rig.read(0, 512 * sector).data == part(expected, 0, 512 * sector)));
    CHECK(rig.counter("io_errors") == 0);
}

namespace {

/// Ends requests when they start, or with release().
class PromptEngine final : public DiskEngine {
public:
    [[nodiscard]] std::string_view name() const noexcept override { return "prompt"; }
    [[nodiscard]] int fd() const noexcept override { return ended_some_.fd(); }
    void submit(DiskIo& io) override {
        const std::lock_guard lock(mutex_);
        waiting_.push_back(&io);
    }
    void start() override {
        if (!holds) {
            end_waiting();
        }
    }
    void take_ended(std::vector<DiskIo*>& ended) override {
        ended_some_.clear();
        const std::lock_guard lock(mutex_);
        ended.insert(ended.end(), ended_.begin(), ended_.end());
        ended_.clear();
    }
    void wait() override { end_waiting(); }
    void cancel_all() override {
        waiting_.clear();
        ended_.clear();
    }

    // For the test's thread.
    [[nodiscard]] std::size_t waiting() {
        const std::lock_guard lock(mutex_);
        return waiting_.size();
    }
    void release() {
        end_waiting();
        ended_some_.notify();
    }

    std::atomic<bool> holds{false};

private:
    void end_waiting() {
        const std::lock_guard lock(mutex_);
        for (DiskIo* const io : waiting_) {
            io->end(0);
            ended_.push_back(io);
        }
        waiting_.clear();
    }

    Notifier ended_some_;
    std::mutex mutex_;
    std::vector<DiskIo*> waiting_;
    std::vector<DiskIo*> ended_;
};

}  // namespace

TEST_CASE("Block: requests that end together cause one interrupt", "[blk][interrupt]") {
    FakeDisk disk(1U << 20U);
    PromptEngine* engine = nullptr;
    std::shared_ptr<Block> block;
    DeviceRig rig([&](DeviceRig& r) {
        const auto make = [&engine](DiskFile&) {
            auto made = std::make_unique<PromptEngine>();
            engine = made.get();
            return made;
        };
        return block = std::make_shared<Block>("disk0", r.counters, disk,
                                               Block::Options{.id = "", .queues = 2}, make);
    });
    rig.start();
    const std::array<std::uint32_t, 1> status_only{1};
    const auto offer = [&](std::uint32_t queue) {
        rig.offer(queue, BlockRig::header(block_request::flush, 0), status_only);
    };
    const auto answered = [&](std::uint32_t queue, std::uint16_t count) {
        return rig.run_until([&] { return rig.queues.at(queue)->used_index() == count; });
    };
    SECTION("16 of one notification") {
        for (int i = 0; i < 16; ++i) {
            offer(0);
        }
        rig.notify(0);
        CHECK(answered(0, 16));
    }
    SECTION("one of each queue, after a while") {
        engine->holds = true;
        offer(0);
        offer(1);
        rig.notify(0);
        rig.notify(1);
        CHECK(rig.run_until([&] { return engine->waiting() == 2; }));
        CHECK(rig.interrupts() == 0);
        engine->release();
        CHECK(answered(0, 1));
        CHECK(answered(1, 1));
    }
    (void)block->drain();  // returns when the device's thread has done what it is at
    CHECK(rig.interrupts() == 1);
    CHECK(rig.counters["interrupts"].value() == 1);
}
