// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <sys/types.h>

namespace kvm_vmm::sandbox {

/// The user that a process which was started by root becomes.
struct UserId {
    uid_t user;
    gid_t group;
};

/// Parses "UID[:GID]", two numbers above 0; the GID is the UID by default. Names are not looked up, because
/// that would load the system's name service into this process.
[[nodiscard]] std::expected<UserId, std::string> parse_user(const std::string& text);

/// Makes `directory` the root of the file system. Throws VmmError(bad_file).
void change_root(const std::string& directory);

/// Moves this process, which has one thread, into namespaces of its own: of users (unless it may do without),
/// mounts, networks, System V IPC and host names. Needs no privileges where the host allows user namespaces.
/// Throws VmmError(vmm_error).
void unshare_namespaces();

/// After unshare_namespaces(): leaves nothing in the file system but an empty root directory. Descriptors
/// that are open keep working. Throws VmmError(vmm_error).
void empty_file_system();

/// The calling thread becomes `id` for good, without supplementary groups. Throws VmmError(vmm_error) if that
/// is not permitted. (The functions of the C library would interrupt the other threads to do the same, which
/// these cannot any more if they are confined.)
void become_user(UserId id);

/// Takes the calling thread the possibility to gain capabilities, whatever it becomes or executes. Call it
/// before become_user(), which gives up what this needs. A process without capabilities is left as it is.
void limit_capabilities() noexcept;

/// Gives up all capabilities of the calling thread for good.
void drop_capabilities() noexcept;

/// Sets no_new_privs, which seccomp and Landlock need. Throws VmmError(vmm_error).
void forbid_new_privileges();

/// The limits of a process in the sandbox.
struct Limits {
    std::uint64_t descriptors{0};            ///< the most that may be open
    std::optional<std::uint64_t> file_size;  ///< to which files can grow, in bytes (soft); none: no limit
    bool core_dumps{false};
};

/// Sets the limits, which this process cannot raise again. A lower limit that is there already stays.
void limit_resources(const Limits& limits) noexcept;

}  // namespace kvm_vmm::sandbox
