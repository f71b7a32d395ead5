// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>

#include <vmsuperio/linux/unique_fd.hpp>

namespace kvm_vmm::sandbox {

/// What this process may do below a directory.
enum class PathUse : std::uint8_t {
    read,     ///< read files and directories
    write,    ///< read, and change all of it
    replace,  ///< create, write and remove files (a file that is replaced by a new one)
    remove,   ///< remove files
};

/// A directory of which a descriptor is open, and what may be done below it.
struct PathRule {
    int directory;
    PathUse use;
};

/// The version of Landlock's interface that the kernel offers; 0 if there is none (Linux before 5.13, or it
/// is not enabled).
[[nodiscard]] int landlock_version() noexcept;

/// A Landlock ruleset: after enter() a thread can open, create, remove or execute nothing in the file system
/// but what the rules allow, however a path is written; where the kernel can control that, it can also use no
/// TCP socket (version 4) and no abstract socket of, and send no signal to, other processes (version 6).
/// Descriptors that are already open keep their rights.
class Landlock {
public:
    /// Without Landlock in the kernel, the object does nothing. Throws VmmError(vmm_error) if a rule is
    /// refused.
    explicit Landlock(std::span<const PathRule> rules);

    [[nodiscard]] int version() const noexcept { return version_; }
    /// Applies the rules to the calling thread, for good, and to threads that it starts. Needs no_new_privs.
    /// Returns 0 or an error number.
    [[nodiscard]] int enter() const noexcept;

private:
    int version_;
    vmsuperio::UniqueFd ruleset_;
};

}  // namespace kvm_vmm::sandbox
