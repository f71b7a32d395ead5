// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

namespace kvm_vmm {

/// Identifies an object of the file system, whatever its name. The identity is not reused for another object
/// while a descriptor of this one is open.
struct FileIdentity {
    dev_t device{};
    ino_t inode{};

    bool operator==(const FileIdentity&) const = default;
};

[[nodiscard]] inline FileIdentity identity_of(const struct stat& status) noexcept {
    return {status.st_dev, status.st_ino};
}

/// With an article, for a message: "a directory", "a FIFO", ...
[[nodiscard]] inline const char* file_kind(mode_t mode) noexcept {
    switch (mode & S_IFMT) {
        case S_IFREG:
            return "a regular file";
        case S_IFDIR:
            return "a directory";
        case S_IFIFO:
            return "a FIFO or pipe";
        case S_IFCHR:
        case S_IFBLK:
            return "a device";
        case S_IFLNK:
            return "a symbolic link";
        case S_IFSOCK:
            return "a socket";
        default:
            return "a special file";
    }
}

}  // namespace kvm_vmm
