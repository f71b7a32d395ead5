// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/fuse_server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <span>
#include <string>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <utility>

#include "util/log.hpp"

namespace kvm_vmm::virtio {
namespace {

using vmsuperio::UniqueFd;

constexpr std::size_t in_header_size = sizeof(fuse_in_header);
constexpr std::size_t out_header_size = sizeof(fuse_out_header);
// The largest arguments with names: FUSE_SYMLINK's, whose target is a path, and FUSE_RENAME2's.
constexpr std::size_t max_text = (NAME_MAX + 1) + PATH_MAX;
constexpr std::size_t max_argument = sizeof(fuse_setattr_in);
constexpr std::size_t page_size = 4096;  // of the client
constexpr std::uint64_t max_offset = INT64_MAX;

template <class T>
std::span<std::uint8_t> bytes_of(T& object) noexcept {
    return {reinterpret_cast<std::uint8_t*>(&object), sizeof(T)};
}
template <class T>
std::span<const std::uint8_t> bytes_of(const T& object) noexcept {
    return {reinterpret_cast<const std::uint8_t*>(&object), sizeof(T)};
}

fuse_attr attributes_of(const struct stat& status) noexcept {
    fuse_attr attributes{};
    attributes.ino = status.st_ino;
    attributes.size = static_cast<std::uint64_t>(status.st_size);
    attributes.blocks = static_cast<std::uint64_t>(status.st_blocks);
    attributes.atime = static_cast<std::uint64_t>(status.st_atim.tv_sec);
    attributes.mtime = static_cast<std::uint64_t>(status.st_mtim.tv_sec);
    attributes.ctime = static_cast<std::uint64_t>(status.st_ctim.tv_sec);
    attributes.atimensec = static_cast<std::uint32_t>(status.st_atim.tv_nsec);
    attributes.mtimensec = static_cast<std::uint32_t>(status.st_mtim.tv_nsec);
    attributes.ctimensec = static_cast<std::uint32_t>(status.st_ctim.tv_nsec);
    attributes.mode = status.st_mode;
    attributes.nlink = static_cast<std::uint32_t>(status.st_nlink);
    attributes.uid = status.st_uid;
    attributes.gid = status.st_gid;
    attributes.rdev = static_cast<std::uint32_t>(status.st_rdev);
    attributes.blksize = static_cast<std::uint32_t>(status.st_blksize);
    return attributes;
}

fuse_entry_out entry_of(const SharedDirectory::Entry& entry) noexcept {
    fuse_entry_out out{};
    out.nodeid = entry.id;
    out.entry_valid = FuseServer::cache_seconds;
    out.attr_valid = FuseServer::cache_seconds;
    out.attr = attributes_of(entry.status);
    return out;
}

// Errors that come from the state of the host, and not from what the guest asked for.
bool is_host_trouble(int number) noexcept {
    switch (number) {
        case EIO:
        case ENOSPC:
        case EDQUOT:
        case ENFILE:
        case EMFILE:
        case ENOMEM:
        case EROFS:
        case ESTALE:
            return true;
        default:
            return false;
    }
}

// Calls f(iovecs, count, offset) as preadv or pwritev until all bytes were transferred, it returns 0, or fails.
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

std::unexpected<FileError> error_of(const FileError& error) { return std::unexpected(error); }

FileResult<std::size_t> result_of(int result) noexcept {
    if (result != 0) {
        return host_error();
    }
    return std::size_t{0};
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

/// A request whose header and arguments have been copied from the client's memory.
struct FuseServer::Request {
    fuse_in_header header{};
    std::array<std::uint8_t, max_argument> argument{};  // zeros follow those of the operation
    std::string name;                                   // checked
    std::string second_name;                            // checked, unless it is the target of a link
    Buffers data;                                       // what follows the arguments of one without names
    const Buffers& reply;

    template <class T>
    [[nodiscard]] T as() const noexcept {
        static_assert(sizeof(T) <= max_argument);
        T value;
        std::memcpy(&value, argument.data(), sizeof(T));
        return value;
    }
    /// How many bytes an answer may have, without its header.
    [[nodiscard]] std::uint64_t room() const noexcept { return reply.size() - out_header_size; }
    template <class T>
    Answer answer(const T& object) const noexcept {
        return reply.write(out_header_size, bytes_of(object));
    }
};

struct FuseServer::Operation {
    std::uint32_t opcode;
    Answer (FuseServer::*handler)(const Request&);
    std::size_t argument{0};  ///< the size of the structure at its beginning
    std::size_t answer{0};    ///< the room that the answer needs
    unsigned names{0};        ///< that follow the structure, each with a NUL
    bool changes{false};      ///< something in the directory
    bool has_answer{true};
    bool second_is_path{false};  ///< the second name is the target of a symbolic link
};

const FuseServer::Operation* FuseServer::find_operation(std::uint32_t opcode) noexcept {
    using Server = FuseServer;
    constexpr std::size_t entry = sizeof(fuse_entry_out);
    static constexpr auto operations = std::to_array<Operation>({
        {.opcode = FUSE_LOOKUP, .handler = &Server::look_up, .answer = entry, .names = 1},
        {.opcode = FUSE_FORGET,
         .handler = &Server::forget,
         .argument = sizeof(fuse_forget_in),
         .has_answer = false},
        {.opcode = FUSE_GETATTR,
         .handler = &Server::get_attributes,
         .argument = sizeof(fuse_getattr_in),
         .answer = sizeof(fuse_attr_out)},
        {.opcode = FUSE_SETATTR,
         .handler = &Server::set_attributes,
         .argument = sizeof(fuse_setattr_in),
         .answer = sizeof(fuse_attr_out),
         .changes = true},
        {.opcode = FUSE_READLINK, .handler = &Server::read_link},
        {.opcode = FUSE_SYMLINK,
         .handler = &Server::make_symbolic_link,
         .answer = entry,
         .names = 2,
         .changes = true,
         .second_is_path = true},
        {.opcode = FUSE_MKNOD,
         .handler = &Server::make_node,
         .argument = sizeof(fuse_mknod_in),
         .answer = entry,
         .names = 1,
         .changes = true},
        {.opcode = FUSE_MKDIR,
         .handler = &Server::make_directory,
         .argument = sizeof(fuse_mkdir_in),
         .answer = entry,
         .names = 1,
         .changes = true},
        {.opcode = FUSE_UNLINK, .handler = &Server::remove_file, .names = 1, .changes = true},
        {.opcode = FUSE_RMDIR, .handler = &Server::remove_directory, .names = 1, .changes = true},
        {.opcode = FUSE_RENAME,
         .handler = &Server::rename,
         .argument = sizeof(fuse_rename_in),
         .names = 2,
         .changes = true},
        {.opcode = FUSE_LINK,
         .handler = &Server::link,
         .argument = sizeof(fuse_link_in),
         .answer = entry,
         .names = 1,
         .changes = true},
        {.opcode = FUSE_OPEN,
         .handler = &Server::open,
         .argument = sizeof(fuse_open_in),
         .answer = sizeof(fuse_open_out)},
        {.opcode = FUSE_READ, .handler = &Server::read, .argument = sizeof(fuse_read_in)},
        {.opcode = FUSE_WRITE,
         .handler = &Server::write,
         .argument = sizeof(fuse_write_in),
         .answer = sizeof(fuse_write_out),
         .changes = true},
        {.opcode = FUSE_STATFS, .handler = &Server::status_of_file_system, .answer = sizeof(fuse_statfs_out)},
        {.opcode = FUSE_RELEASE, .handler = &Server::release, .argument = sizeof(fuse_release_in)},
        {.opcode = FUSE_FSYNC, .handler = &Server::synchronize, .argument = sizeof(fuse_fsync_in)},
        {.opcode = FUSE_FLUSH, .handler = &Server::flush, .argument = sizeof(fuse_flush_in)},
        // The client of a version before 7.36 sends 16 bytes.
        {.opcode = FUSE_INIT,
         .handler = &Server::initialize,
         .argument = 16,
         .answer = sizeof(fuse_init_out)},
        {.opcode = FUSE_OPENDIR,
         .handler = &Server::open_directory,
         .argument = sizeof(fuse_open_in),
         .answer = sizeof(fuse_open_out)},
        {.opcode = FUSE_READDIR, .handler = &Server::read_directory, .argument = sizeof(fuse_read_in)},
        {.opcode = FUSE_RELEASEDIR,
         .handler = &Server::release_directory,
         .argument = sizeof(fuse_release_in)},
        {.opcode = FUSE_FSYNCDIR,
         .handler = &Server::synchronize_directory,
         .argument = sizeof(fuse_fsync_in)},
        {.opcode = FUSE_ACCESS, .handler = &Server::check_access, .argument = sizeof(fuse_access_in)},
        {.opcode = FUSE_CREATE,
         .handler = &Server::create,
         .argument = sizeof(fuse_create_in),
         .answer = entry + sizeof(fuse_open_out),
         .names = 1,
         .changes = true},
        {.opcode = FUSE_INTERRUPT,
         .handler = &Server::interrupt,
         .argument = sizeof(fuse_interrupt_in),
         .has_answer = false},
        {.opcode = FUSE_DESTROY, .handler = &Server::destroy},
        {.opcode = FUSE_BATCH_FORGET,
         .handler = &Server::batch_forget,
         .argument = sizeof(fuse_batch_forget_in),
         .has_answer = false},
        {.opcode = FUSE_FALLOCATE,
         .handler = &Server::allocate,
         .argument = sizeof(fuse_fallocate_in),
         .changes = true},
        {.opcode = FUSE_READDIRPLUS,
         .handler = &Server::read_directory_plus,
         .argument = sizeof(fuse_read_in)},
        {.opcode = FUSE_RENAME2,
         .handler = &Server::rename_with_flags,
         .argument = sizeof(fuse_rename2_in),
         .names = 2,
         .changes = true},
        {.opcode = FUSE_LSEEK,
         .handler = &Server::seek,
         .argument = sizeof(fuse_lseek_in),
         .answer = sizeof(fuse_lseek_out)},
        {.opcode = FUSE_COPY_FILE_RANGE,
         .handler = &Server::copy_range,
         .argument = sizeof(fuse_copy_file_range_in),
         .answer = sizeof(fuse_write_out),
         .changes = true},
        {.opcode = FUSE_SYNCFS,
         .handler = &Server::synchronize_file_system,
         .argument = sizeof(fuse_syncfs_in)},
    });
    const auto* const found = std::ranges::find(operations, opcode, &Operation::opcode);
    return found != operations.end() ? found : nullptr;
}

FuseServer::FuseServer(std::string_view name, const SharedRoot& root, bool writable,
                       SharedDirectory::Limits limits, Counters& counters)
    : name_(name),
      files_(root, limits),
      writable_(writable),
      entries_(std::size_t{32} << 10U),
      lookups_(counters["lookups"]),
      reads_(counters["reads"]),
      writes_(counters["writes"]),
      bytes_read_(counters["bytes_read"]),
      bytes_written_(counters["bytes_written"]),
      refused_(counters["refused"]),
      errors_(counters["errors"]) {}

void FuseServer::reset() noexcept {
    files_.clear();
    initialized_ = false;
}

std::size_t FuseServer::handle(const Buffers& bytes, const Buffers& reply) {
    Request request{.header = {}, .argument = {}, .name = {}, .second_name = {}, .data = {}, .reply = reply};
    if (bytes.read(0, bytes_of(request.header)) < in_header_size) {
        refused_.add();
        return 0;  // there is no number to answer to
    }
    const Operation* const operation = find_operation(request.header.opcode);
    const bool answers = operation == nullptr || operation->has_answer;
    if (answers && reply.size() < out_header_size) {
        refused_.add();
        return 0;
    }
    Answer answer = std::unexpected(FileError{.number = ENOSYS});
    if (request.header.len < in_header_size || request.header.len > bytes.size()) {
        answer = refused(EINVAL);
    } else if (operation != nullptr) {
        request.data = bytes.part(in_header_size, request.header.len - in_header_size);
        answer = serve(request, *operation);
    }
    if (!answer) {
        count(answer.error(), request.header.opcode);
    }
    if (!answers) {
        return 0;
    }
    const std::size_t size = out_header_size + answer.value_or(0);
    const fuse_out_header header{.len = static_cast<std::uint32_t>(size),
                                 .error = answer ? 0 : -answer.error().number,
                                 .unique = request.header.unique};
    reply.write(0, bytes_of(header));
    return size;
}

FuseServer::Answer FuseServer::serve(const Request& received, const Operation& operation) {
    if (!initialized_ && operation.opcode != FUSE_INIT) {
        return refused(EPROTO);
    }
    if (operation.changes && !writable_) {
        return refused(EROFS);
    }
    if (received.data.size() < operation.argument ||
        (operation.has_answer && received.reply.size() < out_header_size + operation.answer)) {
        return refused(EINVAL);
    }
    Request request{.header = received.header,
                    .argument = {},
                    .name = {},
                    .second_name = {},
                    .data = received.data.part(operation.argument, received.data.size()),
                    .reply = received.reply};
    const std::size_t argument = operation.opcode == FUSE_INIT ? sizeof(fuse_init_in) : operation.argument;
    received.data.read(0, std::span(request.argument).first(argument));
    if (operation.names != 0) {
        if (request.data.size() > max_text) {
            return refused(ENAMETOOLONG);
        }
        std::string text(static_cast<std::size_t>(request.data.size()), '\0');
        request.data.read(0, {reinterpret_cast<std::uint8_t*>(text.data()), text.size()});
        // Each name ends with a NUL, and nothing follows the last one.
        if (std::ranges::count(text, '\0') != operation.names || text.back() != '\0') {
            return refused(EINVAL);
        }
        request.name = text.substr(0, text.find('\0'));
        if (const int error = check_name(request.name); error != 0) {
            return refused(error);
        }
        if (operation.names == 2) {
            request.second_name = text.c_str() + request.name.size() + 1;
            const int error = !operation.second_is_path                ? check_name(request.second_name)
                              : request.second_name.empty()            ? ENOENT
                              : request.second_name.size() >= PATH_MAX ? ENAMETOOLONG
                                                                       : 0;
            if (error != 0) {
                return refused(error);
            }
        }
    }
    return (this->*operation.handler)(request);
}

void FuseServer::count(const FileError& error, std::uint32_t opcode) {
    if (error.refused) {
        refused_.add();
    } else if (is_host_trouble(error.number)) {
        errors_.add();
        std::array<char, 160> text{};
        std::snprintf(text.data(), text.size(), "%.*s: request %u of the guest failed on the host: %s",
                      static_cast<int>(name_.size()), name_.data(), opcode,
                      std::generic_category().message(error.number).c_str());
        log(LogLevel::warning, text.data());
    }
}

// The session.

FuseServer::Answer FuseServer::initialize(const Request& request) {
    constexpr std::uint32_t oldest_minor = 23;  // the first with all of fuse_init_out
    const auto in = request.as<fuse_init_in>();
    reset();
    fuse_init_out out{};
    out.major = FUSE_KERNEL_VERSION;
    out.minor = FUSE_KERNEL_MINOR_VERSION;
    if (in.major > FUSE_KERNEL_VERSION) {
        return request.answer(out);  // the client sends FUSE_INIT again, with this version
    }
    if (in.major < FUSE_KERNEL_VERSION || in.minor < oldest_minor) {
        return refused(EPROTO);
    }
    constexpr std::uint32_t offered = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
                                      FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_PARALLEL_DIROPS |
                                      FUSE_MAX_PAGES;
    out.max_readahead = std::min(in.max_readahead, max_data);
    out.flags = in.flags & offered;
    out.max_background = 64;
    out.congestion_threshold = 48;
    out.max_write = max_data;
    out.time_gran = 1;
    out.max_pages = (out.flags & FUSE_MAX_PAGES) != 0 ? max_data / page_size : 0;
    initialized_ = true;
    return request.answer(out);
}

FuseServer::Answer FuseServer::destroy(const Request&) {
    reset();
    return 0;
}

FuseServer::Answer FuseServer::forget(const Request& request) {
    if (!files_.forget(request.header.nodeid, request.as<fuse_forget_in>().nlookup)) {
        return refused(EINVAL);
    }
    return 0;
}

FuseServer::Answer FuseServer::batch_forget(const Request& request) {
    const std::uint64_t count = request.as<fuse_batch_forget_in>().count;
    if (request.data.size() < count * sizeof(fuse_forget_one)) {
        return refused(EINVAL);
    }
    bool known = true;
    for (std::uint64_t i = 0; i < count; ++i) {
        fuse_forget_one one{};
        request.data.read(i * sizeof(one), bytes_of(one));
        known = files_.forget(one.nodeid, one.nlookup) && known;
    }
    if (!known) {
        return refused(EINVAL);
    }
    return 0;
}

// Requests are served one after the other: that to be interrupted has been answered already.
FuseServer::Answer FuseServer::interrupt(const Request&) { return 0; }

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
    if ((*old)->type != S_IFREG) {
        return refused(EPERM);
    }
    if (::linkat(files_.descriptors(), files_.name_of(**old).c_str(), files_.path_of(**parent),
                 request.name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
        return host_error();
    }
    return answer_entry(request, files_.look_up_again(**old));
}

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
    const Answer done = transfer(request.data.part(0, in.size), in.offset,
                                 [file](const iovec* parts, int count, off_t offset) {
                                     return ::pwritev(file, parts, count, offset);
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
