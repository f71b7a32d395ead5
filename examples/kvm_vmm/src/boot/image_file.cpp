// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "boot/image_file.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <fcntl.h>
#include <future>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/quote.hpp"
#include "util/text.hpp"

namespace kvm_vmm {
ImageFile::ImageFile(std::string_view role, const std::string& path, std::function<void()> checkpoint)
    : label_(std::string(role) + ' ' + in_quotes(path) + ": "), checkpoint_(std::move(checkpoint)) {
    struct stat status{};
    const auto refuse_special = [&] {
        if (!S_ISREG(status.st_mode)) {
            fail(std::string("is ") + file_kind(status.st_mode) + ", not a regular file");
        }
    };
    // Check the type before opening the file: opening some devices has effects (a tape rewinds, a watchdog
    // starts), and opening a FIFO wakes its writer.
    if (::stat(path.c_str(), &status) == 0) {
        refuse_special();
    }
    // O_NONBLOCK: opening a FIFO without a writer, or a modem line, must not block.
    fd_ = vmsuperio::UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!fd_) {
        throw VmmError(ExitCode::bad_file, errno_message(label_ + "cannot be opened", errno));
    }
    if (::fstat(fd_.get(), &status) != 0) {
        throw VmmError(ExitCode::bad_file, errno_message(label_ + "cannot be examined", errno));
    }
    refuse_special();
    if (status.st_size <= 0) {
        fail("is empty");
    }
    identity_ = identity_of(status);
    size_ = static_cast<std::uint64_t>(status.st_size);
}

void ImageFile::read(std::uint64_t offset, std::span<std::uint8_t> target) const {
    if (!contains(offset, target.size())) {
        fail("is truncated: " + hex(target.size()) + " bytes are needed at offset " + hex(offset) +
             ", the file ends at " + hex(size_));
    }
    // Most of the time is spent in the kernel on clearing pages and copying into them. The parts meet at a boundary of
    // huge pages, so that each of these is cleared once.
    constexpr std::size_t huge_page = std::size_t{2} << 20U;
    const std::size_t before = -std::bit_cast<std::uintptr_t>(target.data()) % huge_page;
    const std::size_t first = before + target.size() / 2 / huge_page * huge_page;
    std::atomic<bool> failed{false};
    if (target.size() < 4 * huge_page) {
        read_steps(offset, target, failed);
        return;
    }
    // By get() if the system allows no more threads.
    std::future<void> second = std::async(std::launch::async | std::launch::deferred,
                                          [&] { read_part(offset + first, target.subspan(first), failed); });
    read_part(offset, target.first(first), failed);
    second.get();
}

// One of several parts: if it fails, the others end at their next step.
void ImageFile::read_part(std::uint64_t offset, std::span<std::uint8_t> target,
                          std::atomic<bool>& failed) const {
    try {
        read_steps(offset, target, failed);
    } catch (...) {
        failed = true;
        throw;
    }
}

void ImageFile::read_steps(std::uint64_t offset, std::span<std::uint8_t> target,
                           const std::atomic<bool>& failed) const {
    constexpr std::size_t step = std::size_t{4} << 20U;
    while (!target.empty() && !failed) {
        if (checkpoint_) {
            checkpoint_();
        }
        const ssize_t got =
            ::pread(fd_.get(), target.data(), std::min(target.size(), step), static_cast<off_t>(offset));
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            // EFAULT means guest memory that the host cannot provide; its text is sufficient.
            throw VmmError(ExitCode::bad_file, errno_message(label_ + "cannot be read", errno));
        }
        if (got == 0) {
            fail("became shorter while it was read");
        }
        offset += static_cast<std::uint64_t>(got);
        target = target.subspan(static_cast<std::size_t>(got));
    }
}

void ImageFile::read_into(GuestMemory& memory, std::uint64_t address, std::uint64_t offset,
                          std::uint64_t length) const {
    const auto target = memory.slice(address, length);
    if (!target) {
        fail("needs RAM at " + hex(address) + " to " + hex(address + length) + ", where the guest has none");
    }
    read(offset, *target);
}

void ImageFile::fail(const std::string& reason) const { throw VmmError(ExitCode::bad_file, label_ + reason); }

}  // namespace kvm_vmm
