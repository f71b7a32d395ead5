// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The operations of FuseServer on names and attributes.
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <fcntl.h>
#include <linux/fuse.h>
#include <span>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "virtio/fuse_request.hpp"
#include "virtio/fuse_server.hpp"

namespace kvm_vmm::virtio {

// Names and attributes.

FuseServer::Answer FuseServer::answer_entry(const Request& request,
                                            const FileResult<SharedDirectory::Entry>& entry) {
    if (!entry) {
        return error_of(entry.error());
    }
    return request.answer(entry_of(*entry));
}

FuseServer::Answer FuseServer::answer_attributes(const Request& request,
                                                 const FileResult<struct stat>& status) {
    if (!status) {
        return error_of(status.error());
    }
    fuse_attr_out out{};
    out.attr_valid = cache_seconds;
    out.attr = attributes_of(*status);
    return request.answer(out);
}

FuseServer::Answer FuseServer::look_up(const Request& request) {
    lookups_.add();
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    return answer_entry(request, files_.look_up(**parent, request.name));
}

FuseServer::Answer FuseServer::get_attributes(const Request& request) {
    const auto object = files_.object(request.header.nodeid);
    if (!object) {
        // The client has forgotten a file that it still has open.
        const auto in = request.as<fuse_getattr_in>();
        if ((in.getattr_flags & FUSE_GETATTR_FH) != 0) {
            const auto handle = files_.handle(in.fh, request.header.nodeid, false);
            struct stat status{};
            if (handle && ::fstat((*handle)->file.get(), &status) == 0) {
                return answer_attributes(request, status);
            }
        }
        return error_of(object.error());
    }
    return answer_attributes(request, files_.status_of(**object));
}

int FuseServer::change_mode(const SharedDirectory::Object& object, mode_t mode) const {
    // On a directory the set-group-id bit gives no rights, but new files the directory's group.
    const mode_t allowed = object.type == S_IFDIR ? 0777U | S_ISVTX | S_ISGID : 0777U | S_ISVTX;
    return ::fchmodat(files_.descriptors(), files_.name_of(object).c_str(), mode & allowed, 0);
}

FuseServer::Answer FuseServer::truncate(const Request& request, const SharedDirectory::Object& object) {
    const auto in = request.as<fuse_setattr_in>();
    if (in.size > max_offset) {
        return refused(EFBIG);
    }
    if ((in.valid & FATTR_FH) != 0) {
        const auto handle = files_.handle(in.fh, object.id, false);
        if (!handle) {
            return error_of(handle.error());
        }
        return result_of(::ftruncate((*handle)->file.get(), static_cast<off_t>(in.size)));
    }
    const auto file = files_.open_file(object, O_WRONLY);
    if (!file) {
        return error_of(file.error());
    }
    return result_of(::ftruncate(file->get(), static_cast<off_t>(in.size)));
}

FuseServer::Answer FuseServer::set_attributes(const Request& request) {
    const auto in = request.as<fuse_setattr_in>();
    const auto found = files_.object(request.header.nodeid);
    if (!found) {
        return error_of(found.error());
    }
    const SharedDirectory::Object& object = **found;
    const bool link = object.type == S_IFLNK;
    if (!link && object.type != S_IFREG && object.type != S_IFDIR) {
        return refused(EPERM);
    }
    constexpr std::uint32_t nanoseconds = 1'000'000'000;
    const auto time = [&in](std::uint32_t set, std::uint32_t now, std::uint64_t seconds,
                            std::uint32_t fraction) {
        if ((in.valid & now) != 0) {
            return timespec{.tv_sec = 0, .tv_nsec = UTIME_NOW};
        }
        if ((in.valid & set) == 0) {
            return timespec{.tv_sec = 0, .tv_nsec = UTIME_OMIT};
        }
        return timespec{.tv_sec = static_cast<time_t>(seconds), .tv_nsec = static_cast<long>(fraction)};
    };
    if (((in.valid & FATTR_ATIME) != 0 && in.atimensec >= nanoseconds) ||
        ((in.valid & FATTR_MTIME) != 0 && in.mtimensec >= nanoseconds)) {
        return refused(EINVAL);
    }
    if ((in.valid & FATTR_MODE) != 0) {
        if (link) {
            return refused(EOPNOTSUPP);
        }
        if (change_mode(object, in.mode) != 0) {
            return host_error();
        }
    }
    if ((in.valid & (FATTR_UID | FATTR_GID)) != 0) {
        const uid_t user = (in.valid & FATTR_UID) != 0 ? in.uid : static_cast<uid_t>(-1);
        const gid_t group = (in.valid & FATTR_GID) != 0 ? in.gid : static_cast<gid_t>(-1);
        if (::fchownat(files_.path_of(object), "", user, group, AT_EMPTY_PATH) != 0) {
            return host_error();
        }
    }
    if ((in.valid & FATTR_SIZE) != 0) {
        if (const Answer done = truncate(request, object); !done) {
            return done;
        }
    }
    if ((in.valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)) != 0) {
        const std::array times{time(FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec),
                               time(FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec)};
        if (::utimensat(files_.path_of(object), "", times.data(), AT_EMPTY_PATH) != 0) {
            return host_error();
        }
    }
    return answer_attributes(request, files_.status_of(object));
}

FuseServer::Answer FuseServer::read_link(const Request& request) {
    const auto object = files_.object(request.header.nodeid);
    if (!object) {
        return error_of(object.error());
    }
    if ((*object)->type != S_IFLNK) {
        return refused(EINVAL);
    }
    std::array<std::uint8_t, PATH_MAX> target{};
    const ssize_t size =
        ::readlinkat(files_.path_of(**object), "", reinterpret_cast<char*>(target.data()), target.size());
    if (size < 0) {
        return host_error();
    }
    if (static_cast<std::uint64_t>(size) > request.room()) {
        return refused(ENAMETOOLONG);
    }
    return request.reply.write(out_header_size, std::span(target).first(static_cast<std::size_t>(size)));
}

FuseServer::Answer FuseServer::status_of_file_system(const Request& request) {
    struct statfs status{};
    if (::fstatfs(files_.path_of(**files_.object(SharedDirectory::root_id)), &status) != 0) {
        return host_error();
    }
    fuse_statfs_out out{};
    out.st.blocks = status.f_blocks;
    out.st.bfree = status.f_bfree;
    out.st.bavail = status.f_bavail;
    out.st.files = status.f_files;
    out.st.ffree = status.f_ffree;
    out.st.bsize = static_cast<std::uint32_t>(status.f_bsize);
    out.st.namelen = static_cast<std::uint32_t>(status.f_namelen);
    out.st.frsize = static_cast<std::uint32_t>(status.f_frsize);
    return request.answer(out);
}

FuseServer::Answer FuseServer::check_access(const Request& request) {
    const auto mask = static_cast<int>(request.as<fuse_access_in>().mask);
    const auto object = files_.object(request.header.nodeid);
    if (!object) {
        return error_of(object.error());
    }
    if ((mask & ~(R_OK | W_OK | X_OK)) != 0) {
        return refused(EINVAL);
    }
    if ((mask & W_OK) != 0 && !writable_) {
        return refused(EROFS);
    }
    // The function of the C library would emulate the flags on an old kernel, by the name.
    return result_of(static_cast<int>(
        ::syscall(SYS_faccessat2, files_.path_of(**object), "", mask, AT_EMPTY_PATH | AT_EACCESS)));
}

// Changes of directories.

FuseServer::Answer FuseServer::make_symbolic_link(const Request& request) {
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    if (::symlinkat(request.second_name.c_str(), files_.path_of(**parent), request.name.c_str()) != 0) {
        return host_error();
    }
    return answer_entry(request, files_.look_up(**parent, request.name));
}

FuseServer::Answer FuseServer::make_node(const Request& request) {
    const auto in = request.as<fuse_mknod_in>();
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    if ((in.mode & S_IFMT) != S_IFREG && (in.mode & S_IFMT) != 0) {
        return refused(EPERM);
    }
    const auto file = files_.create_file(**parent, request.name, O_WRONLY, in.mode);
    if (!file) {
        return error_of(file.error());
    }
    return answer_entry(request, files_.enter(*file));
}

FuseServer::Answer FuseServer::make_directory(const Request& request) {
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    const mode_t mode = request.as<fuse_mkdir_in>().mode & (0777U | S_ISVTX);
    if (::mkdirat(files_.path_of(**parent), request.name.c_str(), mode) != 0) {
        return host_error();
    }
    auto entry = files_.look_up(**parent, request.name);
    if (entry && S_ISDIR(entry->status.st_mode)) {
        // Whatever the umask of this process is, with the set-group-id bit that it has from its parent.
        const SharedDirectory::Object& made = **files_.object(entry->id);
        [[maybe_unused]] const int result = change_mode(made, mode | (entry->status.st_mode & S_ISGID));
        if (const auto status = files_.status_of(made)) {
            entry->status = *status;
        }
    }
    return answer_entry(request, entry);
}

FuseServer::Answer FuseServer::remove_file(const Request& request) {
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    return result_of(::unlinkat(files_.path_of(**parent), request.name.c_str(), 0));
}

FuseServer::Answer FuseServer::remove_directory(const Request& request) {
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    return result_of(::unlinkat(files_.path_of(**parent), request.name.c_str(), AT_REMOVEDIR));
}

FuseServer::Answer FuseServer::rename(const Request& request, std::uint64_t new_parent, unsigned flags) {
    const auto from = files_.directory(request.header.nodeid);
    if (!from) {
        return error_of(from.error());
    }
    const auto to = files_.directory(new_parent);
    if (!to) {
        return error_of(to.error());
    }
    // RENAME_WHITEOUT would create a device node.
    if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) {
        return refused(EINVAL);
    }
    return result_of(::renameat2(files_.path_of(**from), request.name.c_str(), files_.path_of(**to),
                                 request.second_name.c_str(), flags));
}

FuseServer::Answer FuseServer::rename(const Request& request) {
    return rename(request, request.as<fuse_rename_in>().newdir, 0);
}

FuseServer::Answer FuseServer::rename_with_flags(const Request& request) {
    const auto in = request.as<fuse_rename2_in>();
    return rename(request, in.newdir, in.flags);
}

FuseServer::Answer FuseServer::link(const Request& request) {
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    const auto old = files_.object(request.as<fuse_link_in>().oldnodeid);
    if (!old) {
        return error_of(old.error());
    }
    if ((*old)->type != S_IFREG && (*old)->type != S_IFLNK) {
        return refused(EPERM);
    }
    // The name in /proc leads to the object itself, also if that is a symbolic link.
    if (::linkat(files_.descriptors(), files_.name_of(**old).c_str(), files_.path_of(**parent),
                 request.name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
        return host_error();
    }
    return answer_entry(request, files_.look_up_again(**old));
}

}  // namespace kvm_vmm::virtio
