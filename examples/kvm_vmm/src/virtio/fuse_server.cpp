// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/fuse_server.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <linux/fuse.h>
#include <span>
#include <string>
#include <system_error>

#include "util/log.hpp"
#include "virtio/fuse_request.hpp"

namespace kvm_vmm::virtio {
namespace {

constexpr std::size_t in_header_size = sizeof(fuse_in_header);
// The largest arguments with names: FUSE_SYMLINK's, whose target is a path, and FUSE_RENAME2's.
constexpr std::size_t max_text = (NAME_MAX + 1) + PATH_MAX;
constexpr std::size_t page_size = 4096;  // of the client

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

}  // namespace

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

std::size_t FuseServer::refuse(const Buffers& bytes, const Buffers& reply) {
    refused_.add();
    fuse_in_header request{};
    if (bytes.read(0, bytes_of(request)) < in_header_size || reply.size() < out_header_size) {
        return 0;
    }
    const Operation* const operation = find_operation(request.opcode);
    if (operation != nullptr && !operation->has_answer) {
        return 0;
    }
    const fuse_out_header header{.len = out_header_size, .error = -EIO, .unique = request.unique};
    return reply.write(0, bytes_of(header));
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
    constexpr std::uint32_t minor = 38;         // not the one of the headers, which may have more
    const auto in = request.as<fuse_init_in>();
    reset();
    fuse_init_out out{};
    out.major = FUSE_KERNEL_VERSION;
    out.minor = minor;
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

}  // namespace kvm_vmm::virtio
