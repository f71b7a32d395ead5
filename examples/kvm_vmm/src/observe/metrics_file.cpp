// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/metrics_file.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "error.hpp"
#include "util/file_descriptor.hpp"

namespace kvm_vmm {
namespace {

[[noreturn]] void fail(const std::string& path, int error) {
    throw VmmError(ExitCode::bad_file, errno_message("cannot write '" + path + "'", error));
}

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

void write_in_place(const std::string& path, const std::string& content) {
    const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!file) {
        fail(path, errno);
    }
    if (const int error = write_all(file.get(), content); error != 0) {
        fail(path, error);
    }
}

}  // namespace

void replace_file(const std::string& path, const std::string& content) {
    struct stat status{};
    const bool exists = ::stat(path.c_str(), &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
        write_in_place(path, content);
        return;
    }
    // A symbolic link stays one: what it points to is replaced.
    std::error_code ignored;
    const std::string target = exists ? std::filesystem::canonical(path, ignored).string() : path;
    const std::string temporary =
        (target.empty() ? path : target) + "." + std::to_string(::getpid()) + ".tmp";
    FileDescriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                               exists ? status.st_mode & 0777U : 0644U));
    if (!file) {
        fail(path, errno);
    }
    int error = write_all(file.get(), content);
    file.reset();
    if (error == 0 && std::rename(temporary.c_str(), (target.empty() ? path : target).c_str()) != 0) {
        error = errno;
    }
    if (error != 0) {
        ::unlink(temporary.c_str());
        fail(path, error);
    }
}

}  // namespace kvm_vmm
