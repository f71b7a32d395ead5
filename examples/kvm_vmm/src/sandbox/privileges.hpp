// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <sys/types.h>

namespace kvm_vmm::sandbox {

/// The user that a process which was started by root becomes.
struct UserId {
    uid_t user;
    gid_t group;
};

/// Parses "UID[:GID]", two numbers above 0; the GID is the UID by default. Names are not looked up, because that
/// would load the system's name service into this process.
[[nodiscard]] std::expected<UserId, std::string> parse_user(const std::string& text);

/// Makes `directory` the root of the file system. Throws VmmError(bad_file).
void change_root(const std::string& directory);

/// Becomes `id` for good, without supplementary groups. Throws VmmError(vmm_error) if that is not permitted.
void become_user(UserId id);

/// Gives up all capabilities of the calling thread for good, and with no_new_privs the possibility to gain
/// others by executing a program. A process without capabilities is left as it is.
void drop_capabilities() noexcept;

/// Sets no_new_privs, which seccomp and Landlock need. Throws VmmError(vmm_error).
void forbid_new_privileges();

/// No core file unless `core_dumps`, and no more than `descriptors` open descriptors.
void limit_resources(std::uint64_t descriptors, bool core_dumps) noexcept;

}  // namespace kvm_vmm::sandbox
