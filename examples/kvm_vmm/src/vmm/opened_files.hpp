// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>
#include <vector>

#include "boot/image_file.hpp"
#include "console/serial_backend.hpp"
#include "observe/observer.hpp"
#include "util/error.hpp"
#include "vmm/config.hpp"

namespace kvm_vmm {

/// Everything that the user named by a path, opened: the one place of this program that does so, and once per
/// process. A guest that is restarted gets the same files, whatever lies at their paths by then.
struct OpenedFiles {
    /// Why the guest cannot be started: a kernel, an initrd or the target of a port that cannot be opened.
    /// The log and the metrics are opened all the same, so that they can tell of it; nothing else is.
    std::optional<VmmError> error;

    std::optional<ImageFile> kernel;  ///< there unless `error` is
    std::optional<ImageFile> initrd;
    std::vector<SerialTarget> serials;  ///< one for each of VmmConfig::serials
    std::optional<SerialTarget> debug_console;
    Observer::Outputs observe;
};

/// Opens the files. The order is the promise: inputs first, then outputs without a change to any; then every
/// file is compared with all others by device and inode, with stdin, stdout and stderr too; then sockets are
/// bound, which replaces one that was left behind; and only then files are truncated.
///
/// Two options that lead to the same regular file or socket are refused, whatever the spelling (hard and
/// symbolic links, /dev/fd/N), except for a kernel that is the initrd too. Terminals, other character devices
/// and FIFOs may be shared. With stdout and stderr a file may be shared that is the log, or that is named as
/// the descriptor which it is (/dev/stdout): both then write through one descriptor.
///
/// Throws VmmError(bad_file) for such a pair, with both named, or for a log, metrics or trace file that
/// cannot be opened. Then no existing file was changed, and none is left that was created here.
[[nodiscard]] OpenedFiles open_files(const VmmConfig& config);

}  // namespace kvm_vmm
