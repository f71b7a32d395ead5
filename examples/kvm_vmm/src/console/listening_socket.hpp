// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/file_identity.hpp"

namespace kvm_vmm {

/// A Unix stream socket that listens at a path of the user's, with mode 0600.
///
/// It takes the place of a socket that a program left behind, and of nothing else: a file of any other kind,
/// a symbolic link and a socket in use are refused. Whoever looks for a left-behind socket holds a lock
/// (flock(2)) on the directory until the new socket listens, so that programs which start at the same time do
/// not take each other's new socket for a left-behind one. In the end it removes the socket that it made, and
/// nothing else that may lie at the path by then.
///
/// All failures are VmmError(bad_file).
class ListeningSocket {
public:
    /// The place of a socket: two paths that name the same one have the same place.
    struct Place {
        FileIdentity directory;
        std::string name;

        bool operator==(const Place&) const = default;
    };

    /// Looks at what lies at `path`, and changes nothing.
    explicit ListeningSocket(std::string path);
    ~ListeningSocket();
    ListeningSocket(const ListeningSocket&) = delete;
    ListeningSocket& operator=(const ListeningSocket&) = delete;
    ListeningSocket(ListeningSocket&& other) noexcept;
    ListeningSocket& operator=(ListeningSocket&&) = delete;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] const Place& place() const noexcept { return place_; }

    /// Makes the socket, unless it is there already.
    void listen();
    /// Non-blocking; -1 before listen().
    [[nodiscard]] int fd() const noexcept { return listener_.get(); }

    /// Throws VmmError(bad_file, "serial socket 'PATH': REASON").
    [[noreturn]] void fail(const std::string& reason) const;

private:
    void open_directory();
    void refuse_what_is_no_socket() const;
    void bind_at_path(bool locked);
    void remove_left_behind(bool locked) const;

    std::string path_;
    vmsuperio::UniqueFd directory_;
    bool lockable_{false};
    Place place_;
    vmsuperio::UniqueFd listener_;
    std::optional<FileIdentity> bound_;
};

}  // namespace kvm_vmm
