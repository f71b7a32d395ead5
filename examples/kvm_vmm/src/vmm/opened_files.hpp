// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "boot/image_file.hpp"
#include "console/listening_socket.hpp"
#include "console/serial_backend.hpp"
#include "observe/observer.hpp"
#include "util/error.hpp"
#include "virtio/disk_image.hpp"
#include "virtio/net_target.hpp"
#include "virtio/shared_directory.hpp"
#include "vmm/config.hpp"

namespace kvm_vmm {

/// Everything that the user named by a path, opened. Only this part of the program opens paths, once per
/// process. A guest that is restarted gets the same files, whatever their paths refer to by then.
struct OpenedFiles {
    /// The reason why the guest cannot be started: a kernel, an initrd, a disk or the target of a port that cannot be
    /// opened. The log and the metrics are opened nevertheless, so that they can report it; nothing else is.
    std::optional<VmmError> error;

    std::optional<ImageFile> kernel;  ///< set unless `error` is
    std::optional<ImageFile> initrd;
    std::vector<SerialTarget> serials;   ///< one for each of VmmConfig::serials
    std::vector<SerialTarget> consoles;  ///< one for each of VmmConfig::consoles
    std::optional<SerialTarget> debug_console;
    std::vector<std::unique_ptr<virtio::DiskImage>> disks;  ///< one for each of VmmConfig::disks, locked
    std::vector<virtio::NetTarget> nets;                    ///< one for each of VmmConfig::nets
    std::vector<virtio::SharedRoot> shares;                 ///< one for each of VmmConfig::shares
    std::optional<ListeningSocket> vsock;
    Observer::Outputs observe;
};

/// Opens the files in a guaranteed order: inputs first, then outputs without changing them; then every file
/// is compared with all others, and with stdin, stdout and stderr, by device and inode; then sockets are
/// bound, which replaces sockets that were left behind; and only then are files truncated.
///
/// Two options that name the same regular file, block device or socket are refused, in any form (hard and
/// symbolic links, /dev/fd/N), except for inputs: a kernel that is also the initrd, a disk that is read-only
/// each time. Terminals, other character devices and FIFOs may be shared. A file may be shared with stdout or
/// stderr if it is the log, or if it is named as that descriptor (/dev/stdout): both then write through one
/// descriptor. Shared directories are not compared: two may be the same, and files that other options name may
/// be in them.
///
/// Throws VmmError(bad_file), which names both, for such a pair, or for a log, metrics or trace file that
/// cannot be opened. In that case no existing file has been changed, and files that were created here have
/// been removed.
[[nodiscard]] OpenedFiles open_files(const VmmConfig& config);

}  // namespace kvm_vmm
