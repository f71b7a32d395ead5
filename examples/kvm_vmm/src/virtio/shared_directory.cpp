// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/shared_directory.hpp"

#include <cerrno>
#include <climits>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/quote.hpp"

namespace kvm_vmm::virtio {
namespace {

using vmsuperio::UniqueFd;

// Opens a name below a directory, on the same mount. Mounts are not entered because a process file system below
// the root would give the guest the memory of this process.
UniqueFd open_below(int directory, const char* name, int flags, mode_t mode = 0) noexcept {
    open_how how{};
    how.flags = static_cast<unsigned>(flags | O_NOFOLLOW | O_CLOEXEC);
    how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    return UniqueFd(static_cast<int>(::syscall(SYS_openat2, directory, name, &how, sizeof(how))));
}

FileResult<struct stat> status_at(int path) noexcept {
    struct stat status{};
    if (::fstatat(path, "", &status, AT_EMPTY_PATH) != 0) {
        return host_error();
    }
    return status;
}

// A file that the guest writes must not run with the rights of its owner. Without the privilege to keep these
// bits the kernel clears them at the first write itself.
// Returns whether the file has none now.
bool clear_set_id_bits(const UniqueFd& file) noexcept {
    struct stat status{};
    constexpr mode_t set_id = S_ISUID | S_ISGID;
    if (::fstat(file.get(), &status) != 0) {
        return false;
    }
    return (status.st_mode & set_id) == 0 || ::fchmod(file.get(), status.st_mode & 07777U & ~set_id) == 0;
}

}  // namespace

std::unexpected<FileError> host_error() noexcept { return std::unexpected(FileError{.number = errno}); }

int check_name(const std::string& name) noexcept {
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
        return EINVAL;
    }
    return name.size() > NAME_MAX ? ENAMETOOLONG : 0;
}

SharedRoot::SharedRoot(const std::string& path)
    : directory_(::open(path.c_str(), O_PATH | O_CLOEXEC)),
      descriptors_(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    const std::string label = "share " + in_quotes(path) + ": ";
    const auto fail = [&label](const std::string& reason) {
        throw VmmError(ExitCode::bad_file, label + reason);
    };
    const auto fail_by_errno = [&label](const std::string& what) {
        throw VmmError(ExitCode::bad_file, errno_message(label + what, errno));
    };
    if (!directory_) {
        fail_by_errno("cannot be opened");
    }
    const auto status = status_at(directory_.get());
    if (!status) {
        fail_by_errno("cannot be examined");
    }
    if (!S_ISDIR(status->st_mode)) {
        fail(std::string("is ") + file_kind(status->st_mode) + ", not a directory");
    }
    struct statfs system{};
    if (::fstatfs(directory_.get(), &system) == 0 && system.f_type == PROC_SUPER_MAGIC) {
        fail("is in /proc, which would give the guest this program's memory");
    }
    if (!UniqueFd(::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC))) {
        fail_by_errno("cannot be read");
    }
    if (!open_below(directory_.get(), ".", O_PATH)) {
        fail_by_errno("cannot be shared safely, because the host lacks openat2 (Linux 5.6)");
    }
    if (!descriptors_) {
        fail("cannot be shared, because /proc is not mounted");
    }
}

SharedDirectory::SharedDirectory(const SharedRoot& root, Limits limits) : root_(root), limits_(limits) {
    root_object_.id = root_id;
    root_object_.type = S_IFDIR;
    if (const auto status = status_at(root.directory())) {
        root_object_.identity = identity_of(*status);
    }
}

void SharedDirectory::clear() noexcept {
    handles_.clear();
    objects_.clear();
    ids_.clear();
}

FileResult<const SharedDirectory::Object*> SharedDirectory::object(std::uint64_t id) const {
    if (id == root_id) {
        return &root_object_;
    }
    const auto found = objects_.find(id);
    if (found == objects_.end()) {
        return refused(ESTALE);
    }
    return &found->second;
}

FileResult<const SharedDirectory::Object*> SharedDirectory::directory(std::uint64_t id) const {
    const auto found = object(id);
    if (found && (*found)->type != S_IFDIR) {
        return refused(ENOTDIR);
    }
    return found;
}

FileResult<struct stat> SharedDirectory::status_of(const Object& object) const {
    return status_at(path_of(object));
}

FileResult<SharedDirectory::Entry> SharedDirectory::look_up(const Object& parent, const std::string& name) {
    UniqueFd path = open_below(path_of(parent), name.c_str(), O_PATH);
    if (!path) {
        return host_error();
    }
    return enter_path(std::move(path));
}

FileResult<SharedDirectory::Entry> SharedDirectory::look_up_again(const Object& known) {
    const auto status = status_of(known);
    if (!status) {
        return std::unexpected(status.error());
    }
    if (known.id != root_id) {
        ++objects_.at(known.id).lookups;
    }
    return Entry{.id = known.id, .status = *status};
}

FileResult<SharedDirectory::Entry> SharedDirectory::enter(const UniqueFd& file) {
    UniqueFd path(::openat(descriptors(), std::to_string(file.get()).c_str(), O_PATH | O_CLOEXEC));
    if (!path) {
        return host_error();
    }
    return enter_path(std::move(path));
}

FileResult<SharedDirectory::Entry> SharedDirectory::enter_path(UniqueFd path) {
    const auto status = status_at(path.get());
    if (!status) {
        return std::unexpected(status.error());
    }
    const FileIdentity identity = identity_of(*status);
    if (const auto known = ids_.find(identity); known != ids_.end()) {
        ++objects_.at(known->second).lookups;
        return Entry{.id = known->second, .status = *status};
    }
    if (objects_.size() >= limits_.objects) {
        return refused(ENFILE);
    }
    const std::uint64_t id = next_id_++;
    objects_.emplace(id, Object{.id = id,
                                .path = std::move(path),
                                .identity = identity,
                                .type = status->st_mode & S_IFMT,
                                .lookups = 1});
    ids_.emplace(identity, id);
    return Entry{.id = id, .status = *status};
}

bool SharedDirectory::forget(std::uint64_t id, std::uint64_t count) noexcept {
    if (id == root_id) {
        return true;
    }
    const auto found = objects_.find(id);
    if (found == objects_.end()) {
        return false;
    }
    Object& object = found->second;
    if (count < object.lookups) {
        object.lookups -= count;
        return true;
    }
    const bool exact = count == object.lookups;
    ids_.erase(object.identity);
    objects_.erase(found);
    return exact;
}

FileResult<UniqueFd> SharedDirectory::open_file(const Object& file, int flags) const {
    switch (file.type) {
        case S_IFREG:
            break;
        case S_IFLNK:
            return refused(ELOOP);
        case S_IFDIR:
            return refused(EISDIR);
        default:
            return refused(EPERM);
    }
    constexpr int allowed = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC;
    // O_NONBLOCK: another process's lease of the file must not make this wait.
    const int how = (flags & allowed) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    UniqueFd opened(::openat(descriptors(), name_of(file).c_str(), how));
    bool append_only = false;
    if (!opened && errno == EPERM && (flags & O_APPEND) != 0) {
        // The host opens a file with the attribute of `chattr +a` for appending only.
        opened = UniqueFd(::openat(descriptors(), name_of(file).c_str(), how | O_APPEND));
        append_only = true;
    }
    if (!opened) {
        return host_error();
    }
    if ((flags & O_ACCMODE) != O_RDONLY && !clear_set_id_bits(opened) && append_only) {
        return refused(EPERM);  // that attribute also keeps the mode as it is
    }
    return opened;
}

FileResult<UniqueFd> SharedDirectory::open_directory(const Object& directory) const {
    UniqueFd opened = open_below(path_of(directory), ".", O_RDONLY | O_DIRECTORY);
    if (!opened) {
        return host_error();
    }
    return opened;
}

FileResult<UniqueFd> SharedDirectory::create_file(const Object& parent, const std::string& name, int flags,
                                                  mode_t mode) const {
    constexpr int allowed = O_ACCMODE | O_SYNC | O_DSYNC;
    // O_EXCL: what exists already may be a FIFO or a device, which must not be opened.
    UniqueFd created = open_below(path_of(parent), name.c_str(),
                                  (flags & allowed) | O_CREAT | O_EXCL | O_NONBLOCK | O_NOCTTY, mode & 0777U);
    if (!created) {
        return host_error();
    }
    // Whatever the umask of this process is: the guest has applied its own.
    [[maybe_unused]] const int result = ::fchmod(created.get(), mode & 0777U);
    return created;
}

FileResult<std::uint64_t> SharedDirectory::add_handle(UniqueFd file, std::uint64_t id, bool directory) {
    if (handles_.size() >= limits_.handles) {
        return refused(ENFILE);
    }
    const std::uint64_t number = next_handle_++;
    const bool append_only = (::fcntl(file.get(), F_GETFL) & O_APPEND) != 0;
    handles_.emplace(number, Handle{.file = std::move(file),
                                    .object = id,
                                    .directory = directory,
                                    .append_only = append_only,
                                    .position = 0});
    return number;
}

FileResult<SharedDirectory::Handle*> SharedDirectory::handle(std::uint64_t number, std::uint64_t id,
                                                             bool directory) {
    const auto found = handles_.find(number);
    if (found == handles_.end() || found->second.object != id || found->second.directory != directory) {
        return refused(EBADF);
    }
    return &found->second;
}

}  // namespace kvm_vmm::virtio
