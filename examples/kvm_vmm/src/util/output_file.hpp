// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <utility>

#include "util/file_descriptor.hpp"
#include "util/file_identity.hpp"

namespace kvm_vmm {

/// What is written to at a path of the user's: a regular file, a FIFO or a character device, such as a
/// terminal. Directories, sockets and block devices are refused.
///
/// It is opened without any change to what it holds, so that its identity can be compared with that of other
/// files first. keep() is the decision for it. A file that the constructor created, with mode 0600, is
/// removed again by the destructor unless it was kept; an existing file has the mode that it had.
///
/// The descriptor is non-blocking and appends, so that what other programs write to the same file is not
/// overwritten. A path that leads to a descriptor of this process (/dev/stdout, /dev/fd/N, /proc/self/fd/N)
/// means just that descriptor: a regular file there is written from where it stands, and never truncated.
///
/// All failures are VmmError(bad_file) with a line of the form "log file 'PATH': REASON".
class OutputFile {
public:
    /// What keep() does with what a regular file holds already.
    enum class Content { kept, discarded };

    /// `role` is what the user calls it: "log file". Opening never waits.
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
    /// The descriptor of this process that the path means.
    [[nodiscard]] std::optional<int> named_descriptor() const noexcept { return named_; }

    /// From now on writes through `fd`, which is another descriptor of the same file and stays the caller's:
    /// the two share one position, so that neither overwrites what the other writes.
    void share(int fd);
    /// It is to be used: it stays, and its content goes if so asked.
    void keep();
    /// After keep(): the descriptor becomes the caller's.
    [[nodiscard]] FileDescriptor take_descriptor() { return std::move(fd_); }

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
    FileDescriptor fd_;
    FileIdentity identity_;
    bool regular_{false};
    std::optional<int> named_;
    std::optional<std::string> created_;  // where, until it is kept
};

/// The descriptor of this process that `path` leads to through /proc/self/fd or a link to it.
[[nodiscard]] std::optional<int> named_descriptor(const std::string& path);

}  // namespace kvm_vmm
