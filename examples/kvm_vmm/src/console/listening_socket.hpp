// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/file_identity.hpp"

namespace kvm_vmm {

/// A Unix stream socket that listens at a path that the user specified, with mode 0600.
///
/// It replaces a socket that another program left behind, and nothing else: a file of any other kind, a
/// symbolic link and a socket in use are refused. While it checks for a socket that was left behind, and
/// until the new socket listens, it holds a lock (flock(2)) on the directory, so that programs that start at
/// the same time do not mistake each other's new socket for one that was left behind. The destructor removes
/// the socket that was created here, and no other file that may be at the path by then.
///
/// All failures are VmmError(bad_file).
class ListeningSocket {
public:
    /// The location of a socket: two paths that name the same socket have the same location.
    struct Place {
        FileIdentity directory;
        std::string name;

        bool operator==(const Place&) const = default;
    };

    struct Use {
        std::string_view name{"serial socket"};  ///< for messages
        /// How many bytes the owner appends to the path at most, for the names of further sockets.
        std::size_t longest_suffix{0};
        int backlog{4};  ///< clients that wait
    };

    /// Checks the file at `path`, and changes nothing.
    explicit ListeningSocket(std::string path) : ListeningSocket(std::move(path), Use{}) {}
    ListeningSocket(std::string path, const Use& use);
    ~ListeningSocket();
    ListeningSocket(const ListeningSocket&) = delete;
    ListeningSocket& operator=(const ListeningSocket&) = delete;
    ListeningSocket(ListeningSocket&& other) noexcept;
    ListeningSocket& operator=(ListeningSocket&&) = delete;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::string_view name() const noexcept { return use_.name; }
    [[nodiscard]] const Place& place() const noexcept { return place_; }

    /// Creates the socket, unless it exists already.
    void listen();
    /// The directory of the path.
    [[nodiscard]] int directory() const noexcept { return directory_.get(); }
    /// Non-blocking; -1 before listen().
    [[nodiscard]] int fd() const noexcept { return listener_.get(); }

    /// Throws VmmError(bad_file, "NAME 'PATH': REASON").
    [[noreturn]] void fail(const std::string& reason) const;

private:
    void open_directory();
    void refuse_what_is_no_socket() const;
    void bind_at_path(bool locked);
    void remove_left_behind(bool locked) const;

    std::string path_;
    Use use_;
    vmsuperio::UniqueFd directory_;
    bool lockable_{false};
    Place place_;
    vmsuperio::UniqueFd listener_;
    std::optional<FileIdentity> bound_;
};

}  // namespace kvm_vmm
