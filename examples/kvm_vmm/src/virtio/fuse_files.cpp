// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The operations of FuseServer on open files and directories.
#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <span>
#include <string>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "virtio/fuse_request.hpp"
#include "virtio/fuse_server.hpp"

namespace kvm_vmm::virtio {
namespace {

using vmsuperio::UniqueFd;

// Calls f(iovecs, count, offset) as preadv or pwritev2 until all bytes were transferred, it returns 0, or fails.
// Returns how many were; an error only if there were none.
template <class F>
FileResult<std::size_t> transfer(const Buffers& buffers, std::uint64_t offset, F&& f) {
    std::size_t done = 0;
    std::vector<iovec> parts;
    while (done < buffers.size()) {
        parts.clear();
        const Buffers rest = buffers.part(done, buffers.size() - done);
        for (const Buffers::Piece piece :
             rest.pieces().first(std::min<std::size_t>(rest.pieces().size(), IOV_MAX))) {
            parts.push_back({.iov_base = piece.data(), .iov_len = piece.size()});
        }
        const ssize_t count =
            f(parts.data(), static_cast<int>(parts.size()), static_cast<off_t>(offset + done));
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (done == 0) {
                return host_error();
            }
            break;
        }
        if (count == 0) {
            break;
        }
        done += static_cast<std::size_t>(count);
    }
    return done;
}

// How to write, by the guest's open file as it is now: fcntl(F_SETFL) changes O_APPEND. Pages that the guest has mapped
// come with any file that is open for writing, and belong where they are.
int flags_of_write(const fuse_write_in& in) noexcept {
    if ((in.write_flags & FUSE_WRITE_CACHE) != 0) {
        return 0;
    }
    const auto flags = static_cast<int>(in.flags);
    const int synchronous = (flags & O_SYNC) == O_SYNC ? RWF_SYNC : (flags & O_DSYNC) != 0 ? RWF_DSYNC : 0;
    return synchronous | ((flags & O_APPEND) != 0 ? RWF_APPEND : 0);
}

// One entry of a directory as getdents64 returns it.
struct HostEntry {
    std::uint64_t inode{};
    std::uint64_t offset{};  ///< where the next entry is
    std::uint16_t length{};  ///< of this record
    std::uint8_t type{};
    std::string_view name;
};
HostEntry parse_entry(std::span<const std::uint8_t> record) noexcept {
    // The kernel's struct linux_dirent64 has no padding between its members.
    HostEntry entry;
    std::memcpy(&entry.inode, record.data(), sizeof(entry.inode));
    std::memcpy(&entry.offset, record.data() + 8, sizeof(entry.offset));
    std::memcpy(&entry.length, record.data() + 16, sizeof(entry.length));
    entry.type = record[18];
    entry.name = reinterpret_cast<const char*>(record.data() + 19);
    return entry;
}

// How many bytes of the host's entries to read, so that all of them fit in `room` as the guest gets them: an
// entry of n bytes (24 at least) becomes one of n + 8 bytes, or n + 136 with attributes. Entries that do not fit
// would have to be read again, and on some file systems (tmpfs) an offset is a number of entries, which is
// another entry when some were removed meanwhile.
constexpr std::size_t bytes_to_list(std::size_t room, bool plus) noexcept {
    return plus ? room / 160 * 24 : room / 32 * 24;
}

}  // namespace

// Files.

FuseServer::Answer FuseServer::answer_handle(const Request& request, UniqueFd file, std::uint64_t id,
                                             bool directory) {
    const auto number = files_.add_handle(std::move(file), id, directory);
    if (!number) {
        return error_of(number.error());
    }
    fuse_open_out out{};
    out.fh = *number;
    return request.answer(out);
}

FuseServer::Answer FuseServer::open(const Request& request) {
    auto flags = static_cast<int>(request.as<fuse_open_in>().flags);
    if ((flags & O_ACCMODE) == O_ACCMODE) {
        return refused(EINVAL);  // Linux opens such a file for ioctl only
    }
    if (!writable_ && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0)) {
        return refused(EROFS);
    }
    const auto object = files_.object(request.header.nodeid);
    if (!object) {
        return error_of(object.error());
    }
    if ((flags & O_ACCMODE) == O_RDONLY) {
        flags &= ~O_TRUNC;
    }
    auto file = files_.open_file(**object, flags);
    if (!file) {
        return error_of(file.error());
    }
    return answer_handle(request, std::move(*file), request.header.nodeid, false);
}

FileResult<UniqueFd> FuseServer::open_or_create(const Request& request, const SharedDirectory::Object& parent,
                                                int flags, mode_t mode) {
    auto created = files_.create_file(parent, request.name, flags, mode);
    if (created || created.error().number != EEXIST || (flags & O_EXCL) != 0) {
        return created;
    }
    const auto known = files_.look_up(parent, request.name);
    if (!known) {
        return error_of(known.error());
    }
    auto opened = files_.open_file(**files_.object(known->id), flags);
    files_.forget(known->id, 1);
    return opened;
}

FuseServer::Answer FuseServer::create(const Request& request) {
    const auto in = request.as<fuse_create_in>();
    const auto parent = files_.directory(request.header.nodeid);
    if (!parent) {
        return error_of(parent.error());
    }
    const auto flags = static_cast<int>(in.flags);
    if ((flags & O_ACCMODE) == O_ACCMODE) {
        return refused(EINVAL);
    }
    auto file = open_or_create(request, **parent, flags, in.mode);
    if (!file) {
        return error_of(file.error());
    }
    const auto entry = files_.enter(*file);
    if (!entry) {
        return error_of(entry.error());
    }
    const auto number = files_.add_handle(std::move(*file), entry->id, false);
    if (!number) {
        files_.forget(entry->id, 1);
        return error_of(number.error());
    }
    // The last member has another name in the headers of newer kernels.
    struct {
        fuse_entry_out entry{};
        fuse_open_out open{};
    } out;
    out.entry = entry_of(*entry);
    out.open.fh = *number;
    return request.answer(out);
}

FuseServer::Answer FuseServer::read(const Request& request) {
    const auto in = request.as<fuse_read_in>();
    const auto handle = files_.handle(in.fh, request.header.nodeid, false);
    if (!handle) {
        return error_of(handle.error());
    }
    if (in.size > max_data || in.size > request.room() || in.offset > max_offset - in.size) {
        return refused(EINVAL);
    }
    reads_.add();
    const int file = (*handle)->file.get();
    const Answer done = transfer(
        request.reply.part(out_header_size, in.size), in.offset,
        [file](const iovec* parts, int count, off_t offset) { return ::preadv(file, parts, count, offset); });
    bytes_read_.add(done.value_or(0));
    return done;
}

FuseServer::Answer FuseServer::write(const Request& request) {
    const auto in = request.as<fuse_write_in>();
    const auto handle = files_.handle(in.fh, request.header.nodeid, false);
    if (!handle) {
        return error_of(handle.error());
    }
    if (in.size > max_data || in.size > request.data.size() || in.offset > max_offset - in.size) {
        return refused(EINVAL);
    }
    writes_.add();
    const int file = (*handle)->file.get();
    const int flags = flags_of_write(in);
    if ((*handle)->append_only && (flags & RWF_APPEND) == 0) {
        return refused(EPERM);  // the host would append what belongs elsewhere
    }
    const Answer done = transfer(request.data.part(0, in.size), in.offset,
                                 [file, flags](const iovec* parts, int count, off_t offset) {
                                     return ::pwritev2(file, parts, count, offset, flags);
                                 });
    if (!done) {
        return done;
    }
    bytes_written_.add(*done);
    fuse_write_out out{};
    out.size = static_cast<std::uint32_t>(*done);
    return request.answer(out);
}

FuseServer::Answer FuseServer::release(const Request& request) {
    const std::uint64_t number = request.as<fuse_release_in>().fh;
    if (const auto handle = files_.handle(number, request.header.nodeid, false); !handle) {
        return error_of(handle.error());
    }
    files_.close_handle(number);
    return 0;
}

FuseServer::Answer FuseServer::flush(const Request& request) {
    const auto handle = files_.handle(request.as<fuse_flush_in>().fh, request.header.nodeid, false);
    if (!handle) {
        return error_of(handle.error());
    }
    // Some file systems report a failed write when a descriptor is closed.
    auto copy = UniqueFd::duplicate((*handle)->file.get());
    if (!copy) {
        return std::unexpected(FileError{.number = copy.error().value()});
    }
    return result_of(::close(copy->release()));
}

FuseServer::Answer FuseServer::synchronize(const Request& request) {
    const auto in = request.as<fuse_fsync_in>();
    const auto handle = files_.handle(in.fh, request.header.nodeid, false);
    if (!handle) {
        return error_of(handle.error());
    }
    const int file = (*handle)->file.get();
    return result_of((in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0 ? ::fdatasync(file) : ::fsync(file));
}

FuseServer::Answer FuseServer::synchronize_directory(const Request& request) {
    const auto handle = files_.handle(request.as<fuse_fsync_in>().fh, request.header.nodeid, true);
    if (!handle) {
        return error_of(handle.error());
    }
    return result_of(::fsync((*handle)->file.get()));
}

FuseServer::Answer FuseServer::synchronize_file_system(const Request&) {
    if (!writable_) {
        return 0;
    }
    const auto root = files_.open_directory(**files_.object(SharedDirectory::root_id));
    if (!root) {
        return error_of(root.error());
    }
    return result_of(::syncfs(root->get()));
}

FuseServer::Answer FuseServer::seek(const Request& request) {
    const auto in = request.as<fuse_lseek_in>();
    const auto handle = files_.handle(in.fh, request.header.nodeid, false);
    if (!handle) {
        return error_of(handle.error());
    }
    if ((in.whence != SEEK_DATA && in.whence != SEEK_HOLE) || in.offset > max_offset) {
        return refused(EINVAL);
    }
    const off_t offset =
        ::lseek((*handle)->file.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
    if (offset < 0) {
        return host_error();
    }
    return request.answer(fuse_lseek_out{.offset = static_cast<std::uint64_t>(offset)});
}

FuseServer::Answer FuseServer::allocate(const Request& request) {
    const auto in = request.as<fuse_fallocate_in>();
    const auto handle = files_.handle(in.fh, request.header.nodeid, false);
    if (!handle) {
        return error_of(handle.error());
    }
    constexpr std::uint32_t keep = FALLOC_FL_KEEP_SIZE;
    constexpr std::array<std::uint32_t, 5> modes{0, keep, FALLOC_FL_PUNCH_HOLE | keep, FALLOC_FL_ZERO_RANGE,
                                                 FALLOC_FL_ZERO_RANGE | keep};
    if (std::ranges::find(modes, in.mode) == modes.end()) {
        return refused(EOPNOTSUPP);
    }
    if (in.length > max_offset || in.offset > max_offset - in.length) {
        return refused(EFBIG);
    }
    return result_of(::fallocate((*handle)->file.get(), static_cast<int>(in.mode),
                                 static_cast<off_t>(in.offset), static_cast<off_t>(in.length)));
}

FuseServer::Answer FuseServer::copy_range(const Request& request) {
    const auto in = request.as<fuse_copy_file_range_in>();
    const auto from = files_.handle(in.fh_in, request.header.nodeid, false);
    if (!from) {
        return error_of(from.error());
    }
    const auto to = files_.handle(in.fh_out, in.nodeid_out, false);
    if (!to) {
        return error_of(to.error());
    }
    if (in.flags != 0 || in.off_in > max_offset || in.off_out > max_offset) {
        return refused(EINVAL);
    }
    auto from_offset = static_cast<off_t>(in.off_in);
    auto to_offset = static_cast<off_t>(in.off_out);
    const ssize_t done = ::copy_file_range((*from)->file.get(), &from_offset, (*to)->file.get(), &to_offset,
                                           static_cast<std::size_t>(std::min(in.len, max_copy)), 0);
    if (done < 0) {
        return host_error();
    }
    fuse_write_out out{};
    out.size = static_cast<std::uint32_t>(done);
    return request.answer(out);
}

// Directories.

FuseServer::Answer FuseServer::open_directory(const Request& request) {
    const auto directory = files_.directory(request.header.nodeid);
    if (!directory) {
        return error_of(directory.error());
    }
    auto opened = files_.open_directory(**directory);
    if (!opened) {
        return error_of(opened.error());
    }
    return answer_handle(request, std::move(*opened), request.header.nodeid, true);
}

FuseServer::Answer FuseServer::release_directory(const Request& request) {
    const std::uint64_t number = request.as<fuse_release_in>().fh;
    if (const auto handle = files_.handle(number, request.header.nodeid, true); !handle) {
        return error_of(handle.error());
    }
    files_.close_handle(number);
    return 0;
}

FuseServer::Answer FuseServer::read_directory(const Request& request) { return list(request, false); }
FuseServer::Answer FuseServer::read_directory_plus(const Request& request) { return list(request, true); }

FuseServer::Answer FuseServer::list(const Request& request, bool plus) {
    const auto in = request.as<fuse_read_in>();
    const auto found = files_.handle(in.fh, request.header.nodeid, true);
    if (!found) {
        return error_of(found.error());
    }
    SharedDirectory::Handle& handle = **found;
    const auto directory = files_.directory(request.header.nodeid);
    if (!directory) {
        return error_of(directory.error());
    }
    if (in.size > max_data || in.size > request.room() || in.offset > max_offset) {
        return refused(EINVAL);
    }
    if (handle.position != in.offset) {
        handle.position.reset();
        if (::lseek(handle.file.get(), static_cast<off_t>(in.offset), SEEK_SET) < 0) {
            return host_error();
        }
    }
    const long got = ::syscall(SYS_getdents64, handle.file.get(), entries_.data(),
                               std::min(entries_.size(), bytes_to_list(in.size, plus)));
    if (got < 0) {
        return host_error();
    }
    handle.position = in.offset;
    std::size_t written = 0;
    std::span<const std::uint8_t> rest(entries_.data(), static_cast<std::size_t>(got));
    while (!rest.empty()) {
        HostEntry entry = parse_entry(rest);
        rest = rest.subspan(entry.length);
        handle.position = entry.offset;
        fuse_direntplus record{};
        const bool dots = entry.name == "." || entry.name == "..";
        if (dots && request.header.nodeid == SharedDirectory::root_id) {
            entry.inode = (*directory)->identity.inode;  // what is above the root is not the guest's business
        }
        if (plus && !dots) {
            lookups_.add();
            // If this fails, the guest gets the name alone, and looks it up when it needs it.
            if (const auto known = files_.look_up(**directory, std::string(entry.name))) {
                record.entry_out = entry_of(*known);
            }
        }
        record.dirent.ino = entry.inode;
        record.dirent.off = entry.offset;
        record.dirent.namelen = static_cast<std::uint32_t>(entry.name.size());
        record.dirent.type = entry.type;
        const std::span<const std::uint8_t> head =
            bytes_of(std::as_const(record)).subspan(plus ? 0 : sizeof(record.entry_out));
        written += request.reply.write(out_header_size + written, head);
        written += request.reply.write(
            out_header_size + written,
            {reinterpret_cast<const std::uint8_t*>(entry.name.data()), entry.name.size()});
        constexpr std::array<std::uint8_t, 8> padding{};
        written += request.reply.write(out_header_size + written,
                                       std::span(padding).first(FUSE_REC_ALIGN(written) - written));
    }
    return written;
}

}  // namespace kvm_vmm::virtio
