// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// The client's side of FUSE, for tests: it composes requests as Linux does (fs/fuse), and others.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <linux/fuse.h>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "observe/counters.hpp"
#include "virtio/fuse_server.hpp"

namespace kvm_vmm::test {

using Bytes = std::vector<std::uint8_t>;

template <class T>
Bytes bytes_of(const T& object) {
    Bytes bytes(sizeof(T));
    std::memcpy(bytes.data(), &object, sizeof(T));
    return bytes;
}
inline Bytes operator+(Bytes one, const Bytes& other) {
    one.insert(one.end(), other.begin(), other.end());
    return one;
}
/// With the NUL that ends a name.
inline Bytes name_bytes(std::string_view name) {
    Bytes bytes(name.begin(), name.end());
    bytes.push_back(0);
    return bytes;
}

inline Bytes fuse_request(std::uint32_t opcode, std::uint64_t node, const Bytes& argument,
                          std::uint64_t unique = 1) {
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof(header) + argument.size());
    header.opcode = opcode;
    header.unique = unique;
    header.nodeid = node;
    return bytes_of(header) + argument;
}
inline Bytes fuse_init_argument(std::uint32_t major = FUSE_KERNEL_VERSION,
                                std::uint32_t minor = FUSE_KERNEL_MINOR_VERSION) {
    fuse_init_in in{};
    in.major = major;
    in.minor = minor;
    in.max_readahead = 128 << 10;
    in.flags = ~0U;
    return bytes_of(in);
}

/// An answer of the server.
struct FuseReply {
    std::size_t size;  ///< what handle() returned
    int error;         ///< errno
    Bytes data;        ///< without the header

    template <class T>
    [[nodiscard]] T as() const {
        REQUIRE(error == 0);
        REQUIRE(data.size() >= sizeof(T));
        T value;
        std::memcpy(&value, data.data(), sizeof(T));
        return value;
    }
};

struct ListedEntry {
    std::string name;
    std::uint64_t node;  ///< 0 without attributes
    std::uint32_t type;
    std::uint64_t inode;
};

/// A server of a directory, and its client.
class FuseClient {
public:
    explicit FuseClient(const std::string& directory, bool writable = true,
                        virtio::SharedDirectory::Limits limits = {})
        : root_(directory), server("share0", root_, writable, limits, counters) {
        REQUIRE(call(FUSE_INIT, 0, fuse_init_argument()).error == 0);
    }

    /// Sends exactly these bytes, in two pieces, with `room` bytes for the answer.
    FuseReply send(Bytes request, std::size_t room = 4096 + 16) {
        virtio::Buffers in;
        const std::size_t half = request.size() / 2;
        in.add(std::span(request).first(half));
        in.add(std::span(request).subspan(half));
        constexpr std::uint8_t untouched = 0xA5;
        Bytes reply(room + 64, untouched);
        virtio::Buffers out;
        out.add(std::span(reply).first(room / 2));
        out.add(std::span(reply).subspan(room / 2, room - room / 2));
        const std::size_t size = server.handle(in, out);
        REQUIRE(size <= room);
        REQUIRE(std::all_of(reply.begin() + static_cast<std::ptrdiff_t>(room), reply.end(),
                            [](std::uint8_t byte) { return byte == untouched; }));
        if (size == 0) {
            return {.size = 0, .error = 0, .data = {}};
        }
        fuse_out_header header{};
        REQUIRE(size >= sizeof(header));
        std::memcpy(&header, reply.data(), sizeof(header));
        REQUIRE(header.len == size);
        REQUIRE(header.error <= 0);
        REQUIRE(header.error > -512);
        REQUIRE((header.error == 0 || size == sizeof(header)));
        return {
            .size = size,
            .error = -header.error,
            .data = Bytes(reply.begin() + sizeof(header), reply.begin() + static_cast<std::ptrdiff_t>(size))};
    }
    FuseReply call(std::uint32_t opcode, std::uint64_t node, const Bytes& argument = {},
                   std::size_t room = 4096 + 16) {
        const std::uint64_t unique = ++unique_;
        return send(fuse_request(opcode, node, argument, unique), room);
    }

    FuseReply look_up(std::uint64_t parent, std::string_view name) {
        return call(FUSE_LOOKUP, parent, name_bytes(name));
    }
    /// The node at a path of names that must exist.
    std::uint64_t node(std::initializer_list<std::string_view> path) {
        std::uint64_t at = FUSE_ROOT_ID;
        for (const std::string_view name : path) {
            at = look_up(at, name).as<fuse_entry_out>().nodeid;
        }
        return at;
    }
    FuseReply open(std::uint64_t node, int flags = 0, std::uint32_t opcode = FUSE_OPEN) {
        return call(opcode, node,
                    bytes_of(fuse_open_in{.flags = static_cast<unsigned>(flags), .open_flags = 0}));
    }
    std::uint64_t open_handle(std::uint64_t node, int flags = 0, std::uint32_t opcode = FUSE_OPEN) {
        return open(node, flags, opcode).as<fuse_open_out>().fh;
    }
    FuseReply read(std::uint64_t node, std::uint64_t handle, std::uint64_t offset, std::uint32_t size) {
        fuse_read_in in{};
        in.fh = handle;
        in.offset = offset;
        in.size = size;
        return call(FUSE_READ, node, bytes_of(in), size + 16);
    }
    /// `flags` are those of the open file, and `write_flags` FUSE_WRITE_...
    FuseReply write(std::uint64_t node, std::uint64_t handle, std::uint64_t offset, std::string_view text,
                    int flags = 0, std::uint32_t write_flags = 0) {
        fuse_write_in in{};
        in.flags = static_cast<unsigned>(flags);
        in.write_flags = write_flags;
        in.fh = handle;
        in.offset = offset;
        in.size = static_cast<std::uint32_t>(text.size());
        return call(FUSE_WRITE, node, bytes_of(in) + Bytes(text.begin(), text.end()));
    }
    FuseReply create(std::uint64_t parent, std::string_view name, int flags, std::uint32_t mode) {
        fuse_create_in in{};
        in.flags = static_cast<unsigned>(flags);
        in.mode = mode;
        return call(FUSE_CREATE, parent, bytes_of(in) + name_bytes(name));
    }
    FuseReply set_attributes(std::uint64_t node, const fuse_setattr_in& in) {
        return call(FUSE_SETATTR, node, bytes_of(in));
    }
    FuseReply forget(std::uint64_t node, std::uint64_t count) {
        return call(FUSE_FORGET, node, bytes_of(fuse_forget_in{count}));
    }
    /// Reads a directory in parts of `size` bytes.
    std::vector<ListedEntry> list(std::uint64_t node, std::uint32_t opcode, std::uint32_t size = 4096) {
        fuse_read_in in{};
        in.fh = open_handle(node, 0, FUSE_OPENDIR);
        in.size = size;
        std::vector<ListedEntry> entries;
        for (;;) {
            const FuseReply reply = call(opcode, node, bytes_of(in), size + 16);
            REQUIRE(reply.error == 0);
            if (reply.data.empty()) {
                break;
            }
            std::span<const std::uint8_t> rest(reply.data);
            while (!rest.empty()) {
                fuse_entry_out entry{};
                std::size_t at = 0;
                if (opcode == FUSE_READDIRPLUS) {
                    std::memcpy(&entry, rest.data(), sizeof(entry));
                    at = sizeof(entry);
                }
                fuse_dirent head{};
                REQUIRE(rest.size() >= at + FUSE_NAME_OFFSET);
                std::memcpy(&head, rest.data() + at, FUSE_NAME_OFFSET);
                REQUIRE(rest.size() >= at + FUSE_NAME_OFFSET + head.namelen);
                entries.push_back(
                    {.name = std::string(reinterpret_cast<const char*>(rest.data()) + at + FUSE_NAME_OFFSET,
                                         head.namelen),
                     .node = entry.nodeid,
                     .type = head.type,
                     .inode = head.ino});
                in.offset = head.off;
                rest = rest.subspan(at + FUSE_REC_ALIGN(FUSE_NAME_OFFSET + head.namelen));
            }
        }
        fuse_release_in release{};
        release.fh = in.fh;
        REQUIRE(call(FUSE_RELEASEDIR, node, bytes_of(release)).error == 0);
        return entries;
    }
    std::uint64_t counter(std::string_view name) { return counters[name].value(); }

private:
    virtio::SharedRoot root_;
    std::uint64_t unique_{0};

public:
    Counters counters;
    virtio::FuseServer server;
};

}  // namespace kvm_vmm::test
