// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Images of disks, the --disk option, and the choice of the engine.
#include "virtio/disk_image.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <fcntl.h>
#include <filesystem>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "block_rig.hpp"
#include "catch.hpp"
#include "scratch_directory.hpp"
#include "util/error.hpp"
#include "util/log.hpp"
#include "virtio/make_disk_engine.hpp"
#include "vmm/disk_option.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using namespace kvm_vmm::test;
using Catch::Matchers::Contains;

namespace {

std::string refusal(const DiskConfig& config) {
    try {
        const DiskImage disk(config);
        disk.lock();
    } catch (const VmmError& error) {
        CHECK(error.code() == ExitCode::bad_file);
        const std::string text = error.what();
        CHECK(text.find('\n') == std::string::npos);
        return text;
    }
    return "none";
}

std::string sectors(std::string start, std::size_t count = 8) {
    start.resize(count * 512);
    return start;
}

}  // namespace

TEST_CASE("Disk image: what is no disk is refused with its reason", "[blk]") {
    const ScratchDirectory directory;
    CHECK_THAT(refusal({.path = directory / "missing"}), Contains("No such file"));
    CHECK_THAT(refusal({.path = directory.write("empty", "")}), Contains("is empty"));
    CHECK_THAT(refusal({.path = directory.write("odd", std::string(513, 'x'))}),
               Contains("513 bytes, is not a multiple of 512") && Contains("truncate"));
    CHECK_THAT(refusal({.path = directory.write("odd.gz", "\x1F\x8B\x08" + std::string(510, 'x'))}),
               Contains("is compressed by gzip; decompress it first"));
    CHECK_THAT(refusal({.path = directory / "."}), Contains("is a directory"));
    CHECK_THAT(refusal({.path = "/dev/null"}), Contains("is a character device"));
    REQUIRE(::mkfifo((directory / "fifo").c_str(), 0600) == 0);
    CHECK_THAT(refusal({.path = directory / "fifo"}), Contains("is a FIFO"));
    CHECK_THAT(refusal({.path = directory.write("with\nline", "")}), Contains("is empty"));
    CHECK(refusal({.path = directory.write("good", sectors(""))}) == "none");
    CHECK(refusal({.path = directory.write("a, b = c", sectors(""))}) == "none");
}

TEST_CASE("Disk image: images of other formats are refused with the command that converts them", "[blk]") {
    const ScratchDirectory directory;
    const std::string vdi = std::string(64, '<') + "\x7F\x10\xDA\xBE";
    const std::array<std::pair<std::string, std::string>, 6> formats{
        {{"qcow2", std::string("QFI\xFB\0\0\0\3", 8)},
         {"qed", std::string("QED\0", 4)},
         {"vmdk", "KDMV"},
         {"vhdx", "vhdxfile"},
         {"vpc", "conectix"},
         {"vdi", vdi}}};
    for (const auto& [name, start] : formats) {
        const auto path = directory.write("image", sectors(start));
        CHECK_THAT(refusal({.path = path}), Contains("qemu-img convert -f " + name + " -O raw '"));
        // The format is the reason, not the size that it leads to.
        CHECK_THAT(refusal({.path = directory.write("odd", sectors(start) + "x")}),
                   Contains("in the format " + name) && !Contains("multiple of 512"));
        // Raw means raw if the user says so: the guest may have written this.
        CHECK(refusal({.path = path, .raw = true}) == "none");
        const DiskImage disk({.path = path, .raw = true});
        CHECK(disk.facts().size == 8 * 512);
    }
}

TEST_CASE("Disk image: a disk is locked while it is used", "[blk]") {
    const ScratchDirectory directory;
    const std::string path = directory.write("disk", sectors(""));
    {
        const DiskImage writer({.path = path});
        writer.lock();
        CHECK_THAT(refusal({.path = path}), Contains("in use by another VM"));
        CHECK_THAT(refusal({.path = path, .read_only = true}), Contains("in use by another VM"));
    }
    {
        const DiskImage reader({.path = path, .read_only = true});
        reader.lock();
        CHECK(refusal({.path = path, .read_only = true}) == "none");
        CHECK_THAT(refusal({.path = path}), Contains("in use by another VM"));
    }
    CHECK(refusal({.path = path}) == "none");
    // Only the bytes of the disk are locked.
    const DiskImage writer({.path = path});
    writer.lock();
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct flock beyond{};
    beyond.l_type = F_WRLCK;
    beyond.l_whence = SEEK_SET;
    beyond.l_start = 8 * 512;
    CHECK(::fcntl(fd, F_OFD_SETLK, &beyond) == 0);
    beyond.l_start = 8 * 512 - 1;
    CHECK(::fcntl(fd, F_OFD_SETLK, &beyond) != 0);
    ::close(fd);
}

TEST_CASE("Disk image: a new size is found with its lock, and sizes that no disk has are refused", "[blk]") {
    const ScratchDirectory directory;
    const std::string path = directory.write("a disk", sectors(""));
    DiskImage disk({.path = path});
    disk.lock();
    const vmsuperio::UniqueFd other(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    const auto locked_at = [&](std::uint64_t offset) {
        struct flock lock{};
        lock.l_type = F_WRLCK;
        lock.l_whence = SEEK_SET;
        lock.l_start = static_cast<off_t>(offset);
        lock.l_len = 1;
        REQUIRE(::fcntl(other.get(), F_OFD_GETLK, &lock) == 0);
        return lock.l_type != F_UNLCK;
    };
    CHECK(disk.find_size() == 8U * 512);
    std::filesystem::resize_file(path, 20 * 512);
    CHECK_FALSE(locked_at(8 * 512));
    CHECK(disk.find_size() == 20U * 512);
    CHECK(disk.facts().size == 8 * 512);
    disk.set_size(20 * 512);
    CHECK(locked_at(0));
    CHECK(locked_at(20 * 512 - 1));
    CHECK_FALSE(locked_at(20 * 512));
    for (const auto& [size, reason] :
         {std::pair(0, "is empty now"), std::pair(1000, "its new size, 1000 bytes, is not")}) {
        std::filesystem::resize_file(path, static_cast<std::uintmax_t>(size));
        const auto found = disk.find_size();
        REQUIRE_FALSE(found.has_value());
        CHECK_THAT(found.error(),
                   Contains("disk '" + path + "': " + reason) && Contains("keeps 10240 bytes"));
        CHECK(locked_at(20 * 512 - 1));
    }
    std::filesystem::resize_file(path, 4 * 512);
    CHECK(disk.find_size() == 4U * 512);
    disk.set_size(4 * 512);
    CHECK(locked_at(4 * 512 - 1));
    CHECK_FALSE(locked_at(4 * 512));
    // Another program has locked what is added.
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = 6 * 512;
    lock.l_len = 512;
    REQUIRE(::fcntl(other.get(), F_OFD_SETLK, &lock) == 0);
    std::filesystem::resize_file(path, 8 * 512);
    CHECK_THAT(disk.find_size().error(),
               Contains("what was added is in use") && Contains("keeps 2048 bytes"));
    CHECK_FALSE(locked_at(4 * 512));
    lock.l_type = F_UNLCK;
    REQUIRE(::fcntl(other.get(), F_OFD_SETLK, &lock) == 0);
    CHECK(disk.find_size() == 8U * 512);
}

TEST_CASE("Disk image: files may grow to a new size, where the sandbox has set the limit", "[blk]") {
    const ScratchDirectory directory;
    const std::string path = directory.write("disk", sectors(""));
    DiskImage disk({.path = path});
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    rlimit limit = before;
    limit.rlim_cur = 8 * 512;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    limit.rlim_cur = before.rlim_cur;
    {
        const vmsuperio::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);  // another program enlarges the file
        REQUIRE(::ftruncate(fd.get(), 16384) == 0);
        limit.rlim_cur = 8 * 512;
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    Bytes data(512, 0x5A);
    const iovec piece{.iov_base = data.data(), .iov_len = data.size()};
    CHECK(disk.write(std::span(&piece, 1), 16384 - 512, false, false) == -EFBIG);
    CHECK(disk.find_size() == 16384U);
    CHECK(disk.write(std::span(&piece, 1), 16384 - 512, false, false) == 512);
    CHECK(disk.write(std::span(&piece, 1), 16384, false, false) == -EFBIG);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    std::signal(SIGXFSZ, old_handler);
}

TEST_CASE("Disk image: opening changes nothing", "[blk]") {
    const ScratchDirectory directory;
    const std::string path = directory.write("disk", sectors("content"));
    struct stat before{};
    REQUIRE(::stat(path.c_str(), &before) == 0);
    {
        const DiskImage disk({.path = path});
        disk.lock();
        CHECK(disk.facts().can_discard);
        CHECK(disk.facts().logical_block == 512);
        CHECK(disk.facts().offset_alignment == 1);
    }
    struct stat after{};
    REQUIRE(::stat(path.c_str(), &after) == 0);
    CHECK(after.st_size == before.st_size);
    CHECK(after.st_blocks == before.st_blocks);
    CHECK(slurp(path) == sectors("content"));
    const DiskImage read_only({.path = path, .read_only = true});
    CHECK_FALSE(read_only.facts().can_discard);
}

TEST_CASE("Disk option: the path and its options", "[blk][options]") {
    const auto plain = parse_disk("/a b/c=d.img");
    REQUIRE(plain);
    CHECK(plain->path == "/a b/c=d.img");
    CHECK_FALSE(plain->read_only);
    CHECK(plain->id.empty());
    CHECK(plain->queues == 1);
    CHECK(plain->cache == DiskCache::writeback);
    CHECK(plain->engine == DiskEngineKind::automatic);
    const auto all = parse_disk(
        "x,,y,,,readonly=on,id=vol-1,cache=direct,queues=4,rate=20M,iops=100,engine=threads,format=raw");
    REQUIRE(all);
    CHECK(all->path == "x,y,");
    CHECK(all->read_only);
    CHECK(all->id == "vol-1");
    CHECK(all->cache == DiskCache::direct);
    CHECK(all->queues == 4);
    CHECK(all->bytes_per_second == 20U << 20U);
    CHECK(all->requests_per_second == 100U);
    CHECK(all->engine == DiskEngineKind::threads);
    CHECK(all->raw);
    CHECK(parse_disk("id=a,path=b,readonly=off")->path == "b");
    CHECK(parse_disk("path=id=3")->path == "id=3");
    CHECK(parse_disk("a,rate=1000")->bytes_per_second == 1000U);
    CHECK(parse_disk("a,id=12345678901234567890")->id.size() == 20);
}

TEST_CASE("Disk option: each mistake is named", "[blk][options]") {
    const auto reason = [](const std::string& text) {
        const auto disk = parse_disk(text);
        return disk ? std::string("none") : disk.error();
    };
    CHECK_THAT(reason(""), Contains("lacks the path"));
    CHECK_THAT(reason("readonly=on"), Contains("lacks the path"));
    CHECK_THAT(reason("a,"), Contains("is not one of"));
    CHECK_THAT(reason("a,b.img"), Contains("'b.img'") && Contains("written twice"));
    CHECK_THAT(reason("a,readonly"), Contains("readonly=on"));
    CHECK_THAT(reason("a,ro"), Contains("did you mean readonly=on?"));
    CHECK_THAT(reason("a,serial=x"), Contains("did you mean id=?"));
    CHECK_THAT(reason("a,readonly=yes"), Contains("'yes' is not on or off"));
    CHECK_THAT(reason("a,cache=none"), Contains("'none' is not writeback or direct"));
    CHECK_THAT(reason("a,engine=aio"), Contains("is not auto, io_uring or threads"));
    CHECK_THAT(reason("a,format=qcow2"), Contains("is not raw"));
    CHECK_THAT(reason("a,queues=0"), Contains("from 1 to 16"));
    CHECK_THAT(reason("a,queues=17"), Contains("from 1 to 16"));
    CHECK_THAT(reason("a,rate=0"), Contains("bytes per second"));
    CHECK_THAT(reason("a,rate=-1"), Contains("bytes per second"));
    CHECK_THAT(reason("a,iops=1K"), Contains("requests per second"));
    CHECK_THAT(reason("a,id="), Contains("1 to 20"));
    CHECK_THAT(reason("a,id=123456789012345678901"), Contains("1 to 20"));
    CHECK_THAT(reason("a,id=a b"), Contains("1 to 20"));
    CHECK_THAT(reason("a,id=x,id=y"), Contains("given twice"));
    CHECK_THAT(reason("a,path=b"), Contains("given twice"));
}

TEST_CASE("Disk engine: threads are used where the host forbids io_uring", "[blk]") {
    const ScratchDirectory directory;
    DiskImage disk({.path = directory.write("disk", sectors(""))});
    const unsigned error = GENERATE(static_cast<unsigned>(EPERM), static_cast<unsigned>(ENOSYS));
    const std::string log_path = directory / "log";
    open_log(log_path, LogLevel::debug);
    std::string chosen;
    std::string refused;
    std::size_t lines = 0;
    // The filter is that of one thread, which ends here.
    std::thread([&] {
        std::array<sock_filter, 4> filter{{
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        }};
        const sock_fprog program{.len = filter.size(), .filter = filter.data()};
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
            return;
        }
        chosen = make_disk_engine(DiskEngineKind::automatic, "disk0", disk)->name();
        const std::string text = slurp(log_path);
        lines = static_cast<std::size_t>(std::ranges::count(text, '\n'));
        try {
            std::ignore = make_disk_engine(DiskEngineKind::io_uring, "disk0", disk);
        } catch (const VmmError& failure) {
            refused = failure.what();
        }
    }).join();
    close_log();
    CHECK(chosen == "threads");
    CHECK(lines == 1);
    CHECK_THAT(refused, Contains("disk0: io_uring is not available"));
}
