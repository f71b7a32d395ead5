// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <utility>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/file_identity.hpp"

namespace kvm_vmm {

/// An output at a path that the user specified: a regular file, a FIFO or a character device, such as a
/// terminal. Directories, sockets and block devices are refused.
///
/// Opening it does not change its content, so that its identity can first be compared with that of other
/// files. keep() then confirms that it will be used. The destructor removes a file that the constructor
/// created (with mode 0600) unless keep() was called; an existing file keeps its mode.
///
/// The descriptor is non-blocking and appends, so that it does not overwrite the output of other programs to
/// the same file. A path that names a descriptor of this process (/dev/stdout, /dev/fd/N, /proc/self/fd/N)
/// means exactly that descriptor: a regular file there is written from its current position, and never
/// truncated.
///
/// All failures are VmmError(bad_file) with a line of the form "log file 'PATH': REASON".
class OutputFile {
public:
    /// Whether keep() keeps or discards the existing content of a regular file.
    enum class Content { kept, discarded };

    /// `role` is the user's term for the file: "log file". Opening never blocks.
    OutputFile(std::string_view role, std::string path, Content content);
    ~OutputFile();
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;
    OutputFile(OutputFile&&) noexcept;
    OutputFile& operator=(OutputFile&&) = delete;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// role 'PATH'
    [[nodiscard]] const std::string& label() const noexcept { return label_; }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] FileIdentity identity() const noexcept { return identity_; }
    [[nodiscard]] bool is_regular() const noexcept { return regular_; }
    /// The descriptor of this process that the path names, if it does.
    [[nodiscard]] std::optional<int> named_descriptor() const noexcept { return named_; }

    /// From now on writes through `fd`, another descriptor of the same file, which the caller owns: the two
    /// share one position, so that neither overwrites the output of the other.
    void share(int fd);
    /// Confirms that the file will be used: it is not removed, and its content is discarded if that was
    /// specified.
    void keep();
    /// Passes ownership of the descriptor to the caller; call it after keep().
    [[nodiscard]] vmsuperio::UniqueFd take_descriptor() { return std::move(fd_); }

    [[noreturn]] void fail(const std::string& reason) const;

private:
    void refuse_unfit(mode_t mode) const;
    void open_descriptor(int fd);
    void open_path();
    [[nodiscard]] bool create();
    void set_identity();

    std::string path_;
    std::string label_;
    Content content_;
    vmsuperio::UniqueFd fd_;
    FileIdentity identity_;
    bool regular_{false};
    std::optional<int> named_;
    std::optional<std::string> created_;  // the path of a created file until keep()
};

/// The descriptor of this process that `path` names through /proc/self/fd or a link to it.
[[nodiscard]] std::optional<int> named_descriptor(const std::string& path);

}  // namespace kvm_vmm
