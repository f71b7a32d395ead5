// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <sys/types.h>
#include <unordered_map>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/file_identity.hpp"

namespace kvm_vmm::virtio {

/// Why a request for a file failed.
struct FileError {
    int number;           ///< errno
    bool refused{false};  ///< by a rule of this program; otherwise by the host's system
};
template <class T>
using FileResult = std::expected<T, FileError>;

/// The request breaks a rule: the error that the guest gets.
[[nodiscard]] inline std::unexpected<FileError> refused(int number) noexcept {
    return std::unexpected(FileError{.number = number, .refused = true});
}
/// A system call of the host has just failed.
[[nodiscard]] std::unexpected<FileError> host_error() noexcept;

/// A directory of the host that the user shares. Opened once per process.
class SharedRoot {
public:
    /// Throws VmmError(bad_file) if `path` is no directory that can be read, if it is in /proc, or if the host
    /// cannot look a name up below a directory only (openat2, Linux 5.6).
    explicit SharedRoot(const std::string& path);

    [[nodiscard]] int directory() const noexcept { return directory_.get(); }
    /// /proc/self/fd
    [[nodiscard]] int descriptors() const noexcept { return descriptors_.get(); }

private:
    vmsuperio::UniqueFd directory_;
    vmsuperio::UniqueFd descriptors_;
};

/// The objects of a shared directory that a guest knows, and those that it has opened.
///
/// A guest names an object by its id, or by the id of a directory and a name in it. It can reach only what is
/// below the root, on the same mount:
/// - An object that the guest knows is an O_PATH descriptor, which refers to it wherever it is renamed to. A
///   name is a single component, and is never followed if it is a symbolic link.
/// - Only regular files and directories are opened. A file is opened through its O_PATH descriptor, so that
///   the type that was checked is that of the opened file.
///
/// Ids and handles are not reused. Not thread-safe.
class SharedDirectory {
public:
    /// How many descriptors the guest can make this process hold.
    struct Limits {
        std::size_t objects{std::size_t{1} << 18U};
        std::size_t handles{std::size_t{1} << 14U};
    };
    static constexpr std::uint64_t root_id = 1;

    struct Object {
        std::uint64_t id{};
        vmsuperio::UniqueFd path;  ///< O_PATH; the root has none of its own
        FileIdentity identity;
        mode_t type{};             ///< S_IFREG, S_IFDIR, ...
        std::uint64_t lookups{0};  ///< how often the guest was given the id, less what it has forgotten
    };
    struct Handle {
        vmsuperio::UniqueFd file;
        std::uint64_t object{};
        bool directory{};
        bool append_only{};  ///< see open_file()
        /// Of a directory: the position of its descriptor, by its last entry that was read; nothing if unknown.
        std::optional<std::uint64_t> position;
    };
    /// An object that the guest is given, and its attributes.
    struct Entry {
        std::uint64_t id{};
        struct stat status{};
    };

    /// `root` must outlive this object.
    SharedDirectory(const SharedRoot& root, Limits limits);

    /// Forgets all objects and closes all handles.
    void clear() noexcept;

    /// The object with that id, or ESTALE. Valid until it is forgotten.
    [[nodiscard]] FileResult<const Object*> object(std::uint64_t id) const;
    /// Likewise; ENOTDIR if it is no directory.
    [[nodiscard]] FileResult<const Object*> directory(std::uint64_t id) const;
    /// The descriptor of an object, for *at() functions with AT_EMPTY_PATH or, for a directory, a name.
    [[nodiscard]] int path_of(const Object& object) const noexcept {
        return object.id == root_id ? root_.directory() : object.path.get();
    }
    /// The object as a name in the directory /proc/self/fd, for functions that accept no O_PATH descriptor.
    [[nodiscard]] std::string name_of(const Object& object) const { return std::to_string(path_of(object)); }
    [[nodiscard]] int descriptors() const noexcept { return root_.descriptors(); }
    [[nodiscard]] FileResult<struct stat> status_of(const Object& object) const;

    /// Looks a name up, which must have passed check_name(), and counts that for the object.
    [[nodiscard]] FileResult<Entry> look_up(const Object& parent, const std::string& name);
    /// Counts one more lookup of a known object.
    [[nodiscard]] FileResult<Entry> look_up_again(const Object& known);
    /// The guest has forgotten `count` lookups; the object leaves with the last one. Returns false if there
    /// were not as many.
    bool forget(std::uint64_t id, std::uint64_t count) noexcept;

    /// Opens a regular file again, or a directory, with the access mode and O_TRUNC, O_SYNC and O_DSYNC of
    /// `flags`: not O_APPEND, with which the host would append pages that the guest has mapped, unless the host opens
    /// the file in no other way; then its handle is `append_only`. Other kinds of files are refused: ELOOP for a symbolic link, EISDIR and EPERM. If it is opened for writing, the file loses its
    /// set-user-id and set-group-id bits.
    [[nodiscard]] FileResult<vmsuperio::UniqueFd> open_file(const Object& file, int flags) const;
    [[nodiscard]] FileResult<vmsuperio::UniqueFd> open_directory(const Object& directory) const;
    /// Creates a regular file that did not exist (otherwise EEXIST), and opens it.
    [[nodiscard]] FileResult<vmsuperio::UniqueFd> create_file(const Object& parent, const std::string& name,
                                                              int flags, mode_t mode) const;
    /// The object of a file that was opened here, with one lookup.
    [[nodiscard]] FileResult<Entry> enter(const vmsuperio::UniqueFd& file);

    /// A handle for an opened file of the object `id`. ENFILE if there are too many.
    [[nodiscard]] FileResult<std::uint64_t> add_handle(vmsuperio::UniqueFd file, std::uint64_t id,
                                                       bool directory);
    /// The handle of that number, if it was opened for the object `id` as a file or as a directory; otherwise
    /// EBADF.
    [[nodiscard]] FileResult<Handle*> handle(std::uint64_t number, std::uint64_t id, bool directory);
    void close_handle(std::uint64_t number) noexcept { handles_.erase(number); }

    [[nodiscard]] std::size_t objects() const noexcept { return objects_.size(); }
    [[nodiscard]] std::size_t handles() const noexcept { return handles_.size(); }

private:
    struct IdentityHash {
        std::size_t operator()(const FileIdentity& identity) const noexcept {
            return std::hash<std::uint64_t>{}(identity.inode * 31U + identity.device);
        }
    };

    [[nodiscard]] FileResult<Entry> enter_path(vmsuperio::UniqueFd path);

    const SharedRoot& root_;
    Limits limits_;
    Object root_object_;
    std::unordered_map<std::uint64_t, Object> objects_;
    std::unordered_map<FileIdentity, std::uint64_t, IdentityHash> ids_;
    std::unordered_map<std::uint64_t, Handle> handles_;
    std::uint64_t next_id_{root_id + 1};
    std::uint64_t next_handle_{1};
};

/// 0 if `name` may be looked up or created: one component of a path, and neither "." nor "..". Otherwise EINVAL,
/// or ENAMETOOLONG above 255 bytes.
[[nodiscard]] int check_name(const std::string& name) noexcept;

}  // namespace kvm_vmm::virtio
