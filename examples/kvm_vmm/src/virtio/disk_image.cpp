// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/disk_image.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <mutex>
#include <span>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <thread>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/log.hpp"
#include "util/quote.hpp"

namespace kvm_vmm::virtio {
namespace {

constexpr std::uint64_t sector = 512;
// Alignments that suit every file that can be used without the cache, where the kernel does not say.
constexpr std::uint32_t safe_alignment = 4096;

/// How an image of another format begins.
struct Format {
    std::string_view name;  // for qemu-img
    std::size_t offset;
    std::string_view magic;
};
constexpr auto formats = std::to_array<Format>({
    {"qcow2", 0, std::string_view("QFI\xFB", 4)},
    {"qed", 0, std::string_view("QED\0", 4)},
    {"vmdk", 0, "KDMV"},
    {"vmdk", 0, "COWD"},
    {"vmdk", 0, "# Disk DescriptorFile"},
    {"vhdx", 0, "vhdxfile"},
    {"vpc", 0, "conectix"},
    {"vdi", 64, std::string_view("\x7F\x10\xDA\xBE", 4)},
});

/// How a compressed file begins.
constexpr auto compressions = std::to_array<Format>({
    {"gzip", 0, "\x1F\x8B"},
    {"xz", 0,
     std::string_view("\xFD"
                      "7zXZ\0",
                      6)},
    {"zstd", 0, "\x28\xB5\x2F\xFD"},
    {"bzip2", 0, "BZh"},
    {"lz4", 0, "\x04\x22\x4D\x18"},
});

// The element of `known` with which the content begins.
const Format* recognise(std::span<const Format> known, std::string_view content) {
    const auto found = std::ranges::find_if(known, [&](const Format& format) {
        return content.size() >= format.offset && content.substr(format.offset).starts_with(format.magic);
    });
    return found == known.end() ? nullptr : &*found;
}

int negative_errno(int result) noexcept { return result == 0 ? 0 : -errno; }

bool unsupported(int error) noexcept {
    return error == -EOPNOTSUPP || error == -ENOSYS || error == -EINVAL || error == -ENODEV ||
           error == -ENOTTY;
}

// The kernel closes the files of an io_uring some time after the process that made it was killed. A VM that is
// started again at once must not fail because of that.
constexpr std::chrono::milliseconds lock_patience{1000};

// A number in a file of sysfs, of the queue of a block device or of the device that it is a partition of.
std::uint64_t queue_limit(dev_t device, std::string_view name) {
    const std::string base =
        "/sys/dev/block/" + std::to_string(::major(device)) + ':' + std::to_string(::minor(device));
    for (const std::string_view queue : {"/queue/", "/../queue/"}) {
        const std::string path = base + std::string(queue) + std::string(name);
        const vmsuperio::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        std::array<char, 32> text{};
        if (fd && ::read(fd.get(), text.data(), text.size() - 1) > 0) {
            return std::strtoull(text.data(), nullptr, 10);
        }
    }
    return 0;
}

// What statx() says about files without the cache (Linux 6.1), in a layout that older headers lack.
struct DirectAlignment {
    std::uint32_t memory{0};
    std::uint32_t offset{0};
};

DirectAlignment direct_alignment(int fd) {
#ifdef STATX_DIOALIGN
    struct statx status{};
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
        (status.stx_mask & STATX_DIOALIGN) != 0) {
        return {.memory = status.stx_dio_mem_align, .offset = status.stx_dio_offset_align};
    }
#endif
    std::ignore = fd;
    return {};
}

}  // namespace

DiskImage::DiskImage(const DiskConfig& config)
    : path_(config.path), label_("disk " + in_quotes(config.path) + ": ") {
    facts_.read_only = config.read_only;
    struct stat status{};
    const auto refuse_unfit = [&] {
        if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
            fail(std::string("is ") +
                 (S_ISCHR(status.st_mode) ? "a character device" : file_kind(status.st_mode)) +
                 ", not a file or a block device");
        }
    };
    // Before opening it: opening some devices has effects, and opening a FIFO wakes its writer.
    if (::stat(path_.c_str(), &status) == 0) {
        refuse_unfit();
        device_ = S_ISBLK(status.st_mode);
    }
    open_descriptors(DiskCache::writeback);
    if (::fstat(cached_fd_.get(), &status) != 0) {
        fail_with("cannot be examined", errno);
    }
    refuse_unfit();
    device_ = S_ISBLK(status.st_mode);
    if (!config.raw) {
        refuse_other_formats();
    }
    if (device_) {
        // No file has this pair: a file system's number is that of a device, or of none.
        identity_ = {~dev_t{0}, static_cast<ino_t>(status.st_rdev)};
        examine_device();
    } else {
        identity_ = identity_of(status);
        examine_file(static_cast<std::uint64_t>(status.st_size));
    }
    open_descriptors(config.cache);
    rlimit limit{};
    most_allowed_ = ::getrlimit(RLIMIT_FSIZE, &limit) == 0 ? limit.rlim_cur : 0;
}

void DiskImage::fail(const std::string& reason) const { throw VmmError(ExitCode::bad_file, label_ + reason); }

void DiskImage::fail_with(const std::string& what, int error_number) const {
    throw VmmError(ExitCode::bad_file, errno_message(label_ + what, error_number));
}

// First the descriptor with the cache, then the other one.
void DiskImage::open_descriptors(DiskCache cache) {
    const int access = facts_.read_only ? O_RDONLY : O_RDWR;
    if (cached_fd_ && cache == DiskCache::writeback) {
        auto copy = vmsuperio::UniqueFd::duplicate(cached_fd_.get());
        if (!copy) {
            fail_with("cannot be opened", copy.error().value());
        }
        fd_ = std::move(*copy);
        return;
    }
    if (cached_fd_) {
        // The file that is open, whatever its path refers to by now.
        const std::string opened = "/proc/self/fd/" + std::to_string(cached_fd_.get());
        fd_ = vmsuperio::UniqueFd(::open(opened.c_str(), access | O_DIRECT | O_CLOEXEC | O_NONBLOCK));
        if (!fd_) {
            if (errno == EINVAL) {
                fail("its file system needs the host's cache: cache=direct is not possible");
            }
            fail_with("cannot be opened for cache=direct", errno);
        }
        find_alignment();
        return;
    }
    // The exclusive use of a block device fails if it is mounted. O_NONBLOCK: what has become a FIFO meanwhile
    // must not block.
    const int exclusive = device_ && !facts_.read_only ? O_EXCL : 0;
    cached_fd_ =
        vmsuperio::UniqueFd(::open(path_.c_str(), access | exclusive | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (cached_fd_) {
        return;
    }
    const int error = errno;
    if (!facts_.read_only && (error == EACCES || error == EPERM || error == EROFS) &&
        ::access(path_.c_str(), R_OK) == 0) {
        fail_with("cannot be written; add ,readonly=on to use it as it is", error);
    }
    if (error == EBUSY && device_) {
        fail("is in use by the host, which has mounted it, for example");
    }
    fail_with("cannot be opened", error);
}

void DiskImage::examine_file(std::uint64_t size) {
    if (size == 0) {
        fail("is empty; truncate -s SIZE makes it a blank disk");
    }
    if (size % sector != 0) {
        if (const Format* compression = recognise(compressions, beginning())) {
            fail("is compressed by " + std::string(compression->name) + "; decompress it first");
        }
        fail("its size, " + std::to_string(size) +
             " bytes, is not a multiple of 512; truncate -s %512 appends the zeros that lack");
    }
    facts_.size = size;
    // Beyond the end, where there is nothing to lose. It fails where the file system has no holes.
    facts_.can_discard =
        !facts_.read_only && ::fallocate(cached_fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                         static_cast<off_t>(size), sector) == 0;
}

void DiskImage::examine_device() {
    std::uint64_t size = 0;
    int logical = 0;
    unsigned physical = 0;
    if (::ioctl(cached_fd_.get(), BLKGETSIZE64, &size) != 0 ||
        ::ioctl(cached_fd_.get(), BLKSSZGET, &logical) != 0 ||
        ::ioctl(cached_fd_.get(), BLKPBSZGET, &physical) != 0) {
        fail_with("its size cannot be read", errno);
    }
    facts_.size = size / sector * sector;
    if (facts_.size == 0) {
        fail("is empty: there may be no medium in it");
    }
    facts_.logical_block = static_cast<std::uint32_t>(std::max<int>(logical, sector));
    facts_.physical_block = std::max<std::uint32_t>(physical, facts_.logical_block);
    struct stat status{};
    if (!facts_.read_only && ::fstat(cached_fd_.get(), &status) == 0) {
        facts_.can_discard = queue_limit(status.st_rdev, "discard_max_bytes") != 0;
        facts_.discard_granularity =
            std::max(static_cast<std::uint32_t>(queue_limit(status.st_rdev, "discard_granularity")),
                     facts_.logical_block);
    }
}

std::string DiskImage::beginning() const {
    std::string content(128, '\0');
    const ssize_t got = ::pread(cached_fd_.get(), content.data(), content.size(), 0);
    content.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return content;
}

void DiskImage::refuse_other_formats() const {
    if (const Format* format = recognise(formats, beginning())) {
        const std::string name(format->name);
        std::string reason = "is an image in the format " + name;
        reason += ", which is not supported; convert it: qemu-img convert -f " + name;
        reason += " -O raw " + in_quotes(path_);
        reason += " NEW (or add ,format=raw to use its bytes as they are)";
        fail(reason);
    }
}

void DiskImage::find_alignment() {
    const DirectAlignment found = direct_alignment(fd_.get());
    // Also where the kernel knows: a page is what the cache and files without it have to agree about.
    facts_.offset_alignment =
        found.offset != 0 && found.offset <= sector ? sector : std::max(found.offset, safe_alignment);
    facts_.memory_alignment = found.memory != 0 ? found.memory : safe_alignment;
    if (device_ && found.offset == 0) {
        facts_.offset_alignment = facts_.logical_block <= sector ? sector : safe_alignment;
    }
}

void DiskImage::lock() const {
    struct flock lock{};
    lock.l_type = facts_.read_only ? F_RDLCK : F_WRLCK;
    lock.l_whence = SEEK_SET;
    // The bytes that exist, not all that may come: some network file systems make a lock of the whole file
    // mandatory.
    lock.l_len = static_cast<off_t>(facts_.size);
    const auto deadline = std::chrono::steady_clock::now() + lock_patience;
    for (;;) {
        if (::fcntl(cached_fd_.get(), F_OFD_SETLK, &lock) == 0) {
            return;
        }
        const bool held = errno == EAGAIN || errno == EACCES;
        if (errno != EINTR && (!held || std::chrono::steady_clock::now() >= deadline)) {
            break;
        }
        if (held) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
    if (errno == EAGAIN || errno == EACCES) {
        fail(std::string("is in use by another VM or program") +
             (facts_.read_only ? ", which may write it" : ", which has locked it"));
    }
    log(LogLevel::warning,
        errno_message(label_ + "cannot be locked, so that nothing keeps other VMs from using it", errno));
}

std::expected<std::uint64_t, std::string> DiskImage::find_size() {
    std::uint64_t size = 0;
    if (device_) {
        if (::ioctl(cached_fd_.get(), BLKGETSIZE64, &size) != 0) {
            return std::unexpected(errno_message(label_ + "its size cannot be read", errno));
        }
        size = size / sector * sector;
    } else {
        struct stat status{};
        if (::fstat(cached_fd_.get(), &status) != 0) {
            return std::unexpected(errno_message(label_ + "its size cannot be read", errno));
        }
        size = static_cast<std::uint64_t>(status.st_size);
    }
    const std::string unchanged = "; the guest's disk keeps " + std::to_string(facts_.size) + " bytes";
    if (size == 0) {
        return std::unexpected(label_ + "is empty now" + unchanged);
    }
    if (size % sector != 0) {
        return std::unexpected(label_ + "its new size, " + std::to_string(size) +
                               " bytes, is not a multiple of 512" + unchanged);
    }
    if (auto moved = move_lock(size); !moved) {
        return std::unexpected(moved.error() + unchanged);
    }
    allow_size(size);
    return size;
}

// Locks what has been added, or unlocks what has gone.
std::expected<void, std::string> DiskImage::move_lock(std::uint64_t size) const {
    const auto [first, end] = std::minmax(size, facts_.size);
    if (first == end) {
        return {};
    }
    struct flock lock{};
    lock.l_type = facts_.read_only ? F_RDLCK : F_WRLCK;
    if (size < facts_.size) {
        lock.l_type = F_UNLCK;
    }
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(first);
    lock.l_len = static_cast<off_t>(end - first);
    int error = 0;
    do {
        error = ::fcntl(cached_fd_.get(), F_OFD_SETLK, &lock) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == EAGAIN || error == EACCES) {
        return std::unexpected(label_ + "what was added is in use by another VM or program");
    }
    return {};  // a file system without locks was reported by lock()
}

// The sandbox does not let files grow beyond the largest disk (a soft limit).
void DiskImage::allow_size(std::uint64_t size) const noexcept {
    // The limit is that of the process, and the threads of several disks may raise it at the same time.
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    rlimit limit{};
    if (device_ || facts_.read_only || size > most_allowed_ || ::getrlimit(RLIMIT_FSIZE, &limit) != 0 ||
        limit.rlim_cur >= size) {
        return;
    }
    limit.rlim_cur = std::min<rlim_t>(size, limit.rlim_max);
    ::setrlimit(RLIMIT_FSIZE, &limit);
}

std::int64_t DiskImage::read(std::span<const iovec> memory, std::uint64_t offset, bool aligned) noexcept {
    const ssize_t count = ::preadv2(descriptor(aligned), memory.data(), static_cast<int>(memory.size()),
                                    static_cast<off_t>(offset), 0);
    return count < 0 ? -errno : count;
}

std::int64_t DiskImage::write(std::span<const iovec> memory, std::uint64_t offset, bool aligned,
                              bool durable) noexcept {
    const ssize_t count = ::pwritev2(descriptor(aligned), memory.data(), static_cast<int>(memory.size()),
                                     static_cast<off_t>(offset), durable ? RWF_DSYNC : 0);
    return count < 0 ? -errno : count;
}

int DiskImage::flush() noexcept { return negative_errno(::fdatasync(fd_.get())); }

int DiskImage::discard(std::uint64_t offset, std::uint64_t length) noexcept {
    if (!device_) {
        return negative_errno(::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                          static_cast<off_t>(offset), static_cast<off_t>(length)));
    }
    // Whole blocks only; the rest keeps its content, which is allowed.
    const std::uint64_t block = facts_.logical_block;
    const std::uint64_t first = (offset + block - 1) / block * block;
    const std::uint64_t end = (offset + length) / block * block;
    if (first >= end) {
        return 0;
    }
    std::array<std::uint64_t, 2> range{first, end - first};
    return negative_errno(::ioctl(fd_.get(), BLKDISCARD, range.data()));
}

int DiskImage::write_zeroes(std::uint64_t offset, std::uint64_t length, bool unmap) noexcept {
    if (device_) {
        std::array<std::uint64_t, 2> range{offset, length};
        const int error = negative_errno(::ioctl(fd_.get(), BLKZEROOUT, range.data()));
        return unsupported(error) ? write_zero_bytes(offset, length) : error;
    }
    int error = -EOPNOTSUPP;
    if (unmap && facts_.can_discard) {
        error = discard(offset, length);
    }
    if (unsupported(error)) {
        error = negative_errno(::fallocate(fd_.get(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                           static_cast<off_t>(offset), static_cast<off_t>(length)));
    }
    return unsupported(error) ? write_zero_bytes(offset, length) : error;
}

int DiskImage::write_zero_bytes(std::uint64_t offset, std::uint64_t length) noexcept {
    alignas(safe_alignment) static constexpr std::array<std::byte, 64U << 10U> zeros{};
    const bool aligned = offset % facts_.offset_alignment == 0 && length % facts_.offset_alignment == 0;
    while (length != 0) {
        const iovec piece{.iov_base = const_cast<std::byte*>(zeros.data()),  // NOLINT: only read
                          .iov_len = static_cast<std::size_t>(std::min<std::uint64_t>(length, zeros.size()))};
        const std::int64_t count = write(std::span(&piece, 1), offset, aligned, false);
        if (count == -EINTR) {
            continue;
        }
        if (count <= 0) {
            return count == 0 ? -EIO : static_cast<int>(count);
        }
        offset += static_cast<std::uint64_t>(count);
        length -= static_cast<std::uint64_t>(count);
    }
    return 0;
}

}  // namespace kvm_vmm::virtio
