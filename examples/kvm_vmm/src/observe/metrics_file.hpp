// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string>
#include <string_view>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/output_file.hpp"

namespace kvm_vmm {

/// A regular file that is replaced as a whole each time: whoever reads it finds the old content or the new
/// one, never a part. A symbolic link stays one, and what it pointed to when it was opened is replaced. The
/// new content is written beside the file, under a name that cannot be guessed. A file that was there keeps
/// its permissions; a new one has mode 0600. Where something else than a regular file has taken its place,
/// that is left alone.
///
/// What is no regular file (a FIFO, a device), and a descriptor of this process, is written to: one content
/// after the other.
class MetricsFile {
public:
    /// Finds the directory of `file`, whose path is not used any more after that. Throws VmmError(bad_file).
    explicit MetricsFile(OutputFile file);

    /// Throws VmmError(bad_file).
    void write(std::string_view content);

private:
    void open_directory();
    void replace(std::string_view content);
    [[nodiscard]] mode_t mode_to_have() const;

    OutputFile file_;
    vmsuperio::UniqueFd directory_;  // none: written in place
    std::string name_;
};

}  // namespace kvm_vmm
