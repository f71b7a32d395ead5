// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// What the parts of FuseServer share: a request as they get it, and forms of the answers.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <linux/fuse.h>
#include <span>
#include <string>
#include <sys/stat.h>

#include "virtio/fuse_server.hpp"

namespace kvm_vmm::virtio {

constexpr std::size_t out_header_size = sizeof(fuse_out_header);
constexpr std::size_t max_argument = sizeof(fuse_setattr_in);
constexpr std::uint64_t max_offset = INT64_MAX;

template <class T>
std::span<std::uint8_t> bytes_of(T& object) noexcept {
    return {reinterpret_cast<std::uint8_t*>(&object), sizeof(T)};
}
template <class T>
std::span<const std::uint8_t> bytes_of(const T& object) noexcept {
    return {reinterpret_cast<const std::uint8_t*>(&object), sizeof(T)};
}

inline fuse_attr attributes_of(const struct stat& status) noexcept {
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

inline fuse_entry_out entry_of(const SharedDirectory::Entry& entry) noexcept {
    fuse_entry_out out{};
    out.nodeid = entry.id;
    out.entry_valid = FuseServer::cache_seconds;
    out.attr_valid = FuseServer::cache_seconds;
    out.attr = attributes_of(entry.status);
    return out;
}

inline std::unexpected<FileError> error_of(const FileError& error) { return std::unexpected(error); }

inline FileResult<std::size_t> result_of(int result) noexcept {
    if (result != 0) {
        return host_error();
    }
    return std::size_t{0};
}

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

}  // namespace kvm_vmm::virtio
