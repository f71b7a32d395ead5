// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/output_file.hpp"

namespace kvm_vmm {

/// A regular file that is replaced as a whole each time: a reader finds the old content or the new one, never
/// a part. A symbolic link is kept, and the file to which it pointed when it was opened is replaced. The new
/// content is written to a file in the same directory, under a name that cannot be guessed. An existing file
/// keeps its permissions; a new one has mode 0600. If a file of another kind has replaced the regular file,
/// it is not changed.
///
/// Each content is written after the previous one if the output is not a regular file (a FIFO, a device) or
/// is a descriptor of this process.
class MetricsFile {
public:
    /// Finds the directory of `file`, whose path is not used any more after that. Throws VmmError(bad_file).
    explicit MetricsFile(OutputFile file);

    /// Throws VmmError(bad_file).
    void write(std::string_view content);

    /// The directory in which the file is replaced; none if it is written in place.
    [[nodiscard]] std::optional<int> directory() const noexcept {
        return directory_ ? std::optional(directory_.get()) : std::nullopt;
    }

private:
    void open_directory();
    void replace(std::string_view content);
    [[nodiscard]] mode_t mode_to_have() const;

    OutputFile file_;
    vmsuperio::UniqueFd directory_;  // none: written in place
    std::string name_;
};

}  // namespace kvm_vmm
