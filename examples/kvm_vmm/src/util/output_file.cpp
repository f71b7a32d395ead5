// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/output_file.hpp"

#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "util/error.hpp"
#include "util/quote.hpp"

namespace kvm_vmm {
namespace {

namespace fs = std::filesystem;

constexpr int how = O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
constexpr mode_t mode_of_new_file = 0600;

std::optional<int> parse_number(const std::string& text) {
    int number = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || rest != end || text.empty() || number < 0) {
        return std::nullopt;
    }
    return number;
}

}  // namespace

std::optional<int> named_descriptor(const std::string& path) {
    std::error_code error;
    const fs::path descriptors = fs::canonical("/proc/self/fd", error);
    if (error) {
        return std::nullopt;
    }
    fs::path at = path;
    constexpr int most_links = 40;  // as many as Linux follows
    for (int i = 0; i < most_links; ++i) {
        const fs::path parent = at.has_parent_path() ? at.parent_path() : fs::path(".");
        const auto number = parse_number(at.filename().string());
        if (number && fs::canonical(parent, error) == descriptors && !error) {
            return number;
        }
        const fs::path target = fs::read_symlink(at, error);
        if (error) {
            return std::nullopt;
        }
        at = target.is_absolute() ? target : parent / target;
    }
    return std::nullopt;
}

OutputFile::OutputFile(std::string_view role, std::string path, Content content)
    : path_(std::move(path)), label_(std::string(role) + ' ' + in_quotes(path_)), content_(content) {
    struct stat status{};
    // Check the type before opening the file, because opening some devices has effects.
    if (::stat(path_.c_str(), &status) == 0) {
        refuse_unfit(status.st_mode);
    }
    named_ = kvm_vmm::named_descriptor(path_);
    if (named_ && ::fstat(*named_, &status) == 0 && S_ISREG(status.st_mode)) {
        open_descriptor(*named_);
    } else {
        open_path();
    }
    set_identity();
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      label_(std::move(other.label_)),
      content_(other.content_),
      fd_(std::move(other.fd_)),
      identity_(other.identity_),
      regular_(other.regular_),
      named_(other.named_),
      created_(std::exchange(other.created_, std::nullopt)) {}

OutputFile::~OutputFile() {
    struct stat status{};
    if (created_ && ::lstat(created_->c_str(), &status) == 0 && identity_of(status) == identity_ &&
        status.st_size == 0) {
        ::unlink(created_->c_str());
    }
}

void OutputFile::refuse_unfit(mode_t mode) const {
    if (S_ISDIR(mode)) {
        fail("is a directory");
    }
    if (S_ISSOCK(mode)) {
        fail("is a socket, which cannot be written to as a file");
    }
    if (S_ISBLK(mode)) {
        fail("is a block device");
    }
}

void OutputFile::open_descriptor(int fd) {
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_ACCMODE) == O_RDONLY) {
        fail("descriptor " + std::to_string(fd) + " is not open for writing");
    }
    share(fd);
}

void OutputFile::open_path() {
    constexpr int attempts = 3;  // other programs may create it, or remove it, at the same time
    for (int i = 0; i < attempts; ++i) {
        fd_ = vmsuperio::UniqueFd(::open(path_.c_str(), how));
        if (fd_) {
            return;
        }
        const int error_number = errno;
        struct stat status{};
        if (error_number == ENXIO && ::stat(path_.c_str(), &status) == 0 && S_ISFIFO(status.st_mode)) {
            fail("is a FIFO that no program reads; its reader has to be there first");
        }
        if (error_number != ENOENT) {
            fail(errno_message("cannot be opened", error_number));
        }
        if (create()) {
            return;
        }
    }
    fail("cannot be opened, because other programs create and remove it");
}

bool OutputFile::create() {
    fd_ = vmsuperio::UniqueFd(::open(path_.c_str(), how | O_CREAT | O_EXCL, mode_of_new_file));
    int error_number = fd_ ? 0 : errno;
    if (fd_) {
        created_ = path_;
    } else if (error_number == EEXIST && fs::is_symlink(fs::symlink_status(path_))) {
        // A dangling link: the file is created at its target, if the kernel follows the link.
        fd_ = vmsuperio::UniqueFd(::open(path_.c_str(), how | O_CREAT, mode_of_new_file));
        error_number = fd_ ? 0 : errno;
        std::error_code error;
        created_ = fs::read_symlink("/proc/self/fd/" + std::to_string(fd_.get()), error).string();
        if (!fd_ || error) {
            created_.reset();
        }
    }
    if (!fd_ && error_number != EEXIST) {
        fail(errno_message("cannot be created", error_number));
    }
    if (fd_) {
        ::fchmod(fd_.get(), mode_of_new_file);  // whatever the umask
    }
    return static_cast<bool>(fd_);
}

void OutputFile::set_identity() {
    struct stat status{};
    if (::fstat(fd_.get(), &status) != 0) {
        fail(errno_message("cannot be examined", errno));
    }
    refuse_unfit(status.st_mode);
    identity_ = identity_of(status);
    regular_ = S_ISREG(status.st_mode);
}

void OutputFile::share(int fd) {
    vmsuperio::UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy) {
        fail(errno_message("cannot be opened", errno));
    }
    fd_ = std::move(copy);
}

void OutputFile::keep() {
    if (content_ == Content::discarded && regular_ && !named_ && ::ftruncate(fd_.get(), 0) != 0) {
        fail(errno_message("cannot be truncated", errno));
    }
    created_.reset();
}

void OutputFile::fail(const std::string& reason) const {
    throw VmmError(ExitCode::bad_file, label_ + ": " + reason);
}

}  // namespace kvm_vmm
