// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/metrics_file.hpp"

#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <sys/random.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/file_identity.hpp"

namespace kvm_vmm {
namespace {

constexpr mode_t mode_of_new_file = 0600;

int write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t written = ::write(fd, text.data(), text.size());
        if (written < 0 && errno != EINTR) {
            return errno;
        }
        text.remove_prefix(written < 0 ? 0 : static_cast<std::size_t>(written));
    }
    return 0;
}

std::string random_name() {
    std::uint64_t number = 0;
    while (::getrandom(&number, sizeof(number), 0) != static_cast<ssize_t>(sizeof(number))) {
    }
    std::array<char, 40> name{};
    std::snprintf(name.data(), name.size(), ".kvm_vmm-%016" PRIx64 ".tmp", number);
    return name.data();
}

}  // namespace

MetricsFile::MetricsFile(OutputFile file) : file_(std::move(file)) {
    if (file_.is_regular() && !file_.named_descriptor()) {
        open_directory();
    }
}

void MetricsFile::open_directory() {
    namespace fs = std::filesystem;
    std::error_code error;
    fs::path path = file_.path();
    if (fs::is_symlink(fs::symlink_status(path, error))) {
        path = fs::canonical(path, error);
    }
    const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
    name_ = path.filename().string();
    directory_ = vmsuperio::UniqueFd(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory_) {
        file_.fail(errno_message("its directory cannot be opened", errno));
    }
    struct stat status{};
    if (error || ::fstatat(directory_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        identity_of(status) != file_.identity()) {
        file_.fail("was moved while it was opened");
    }
}

void MetricsFile::write(std::string_view content) {
    if (directory_) {
        replace(content);
    } else if (const int error = write_all(file_.fd(), content); error != 0) {
        file_.fail(errno_message("cannot be written", error));
    }
}

mode_t MetricsFile::mode_to_have() const {
    struct stat status{};
    if (::fstatat(directory_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
        return mode_of_new_file;
    }
    if (!S_ISREG(status.st_mode)) {
        file_.fail(std::string("is ") + file_kind(status.st_mode) + " now; it is left as it is");
    }
    return status.st_mode & 0777U;
}

void MetricsFile::replace(std::string_view content) {
    const mode_t mode = mode_to_have();
    std::string temporary;
    vmsuperio::UniqueFd file;
    do {
        temporary = random_name();
        file = vmsuperio::UniqueFd(::openat(directory_.get(), temporary.c_str(),
                                            O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                            mode_of_new_file));
    } while (!file && errno == EEXIST);
    if (!file) {
        file_.fail(errno_message("cannot be written: no file can be created in its directory", errno));
    }
    int error = write_all(file.get(), content);
    if (error == 0 && ::fchmod(file.get(), mode) != 0) {
        error = errno;
    }
    file.reset();
    if (error == 0 && ::renameat(directory_.get(), temporary.c_str(), directory_.get(), name_.c_str()) != 0) {
        error = errno;
    }
    if (error != 0) {
        ::unlinkat(directory_.get(), temporary.c_str(), 0);
        file_.fail(errno_message("cannot be written", error));
    }
}

}  // namespace kvm_vmm
