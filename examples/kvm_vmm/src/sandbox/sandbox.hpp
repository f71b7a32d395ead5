// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/landlock.hpp"
#include "sandbox/privileges.hpp"
#include "sandbox/role.hpp"

/// The sandbox of this process, in two phases. First everything that needs rights is opened; then the sandbox
/// is closed, for good, and only then are the kernel's file and all that the guest does looked at.
///
/// The sandbox belongs to the process, like its terminal and its signals, so these are functions and no
/// class. Where it was not prepared (in programs that use single devices, as tests do) all of them do
/// nothing.
namespace kvm_vmm::sandbox {

enum class Mode : std::uint8_t {
    on,        ///< what the kernel offers; seccomp is required
    required,  ///< all of it is required
    log,  ///< reports system calls that would be stopped, and makes them; no Landlock, and capabilities are kept
    off,
};

/// Sanitizers need system calls that a filter cannot allow (their leak check starts processes that trace this
/// one), so programs that are built with them have no sandbox by default.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr Mode default_mode = Mode::off;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr Mode default_mode = Mode::off;
#else
inline constexpr Mode default_mode = Mode::on;
#endif
#else
inline constexpr Mode default_mode = Mode::on;
#endif

struct Plan {
    Mode mode{default_mode};
    FeatureSet features;
    std::vector<PathRule> paths;  ///< what stays reachable in the file system
    Limits limits;
    std::optional<std::string> root;  ///< the new root directory
    std::optional<UserId> user;       ///< the user to become
    bool isolate{false};              ///< namespaces of its own
};

/// First step, while this process has one thread: makes the filters, and installs the handler of SIGSYS.
/// Threads that are started after this can enter() their role, and must have done so before close() is
/// called: otherwise they would keep what close() gives up. Throws VmmError.
void prepare(const Plan& plan);

/// Second step, by the main thread, after everything has been opened: gives up privileges, and enters
/// Landlock and the filter of Role::set_up. Throws VmmError. Logs which layers the kernel lacks.
void close();

/// Confines the calling thread to `role` for good. If the kernel refuses, the process ends: the thread must
/// not run unconfined.
void enter(Role role);
/// The same, called first in a new thread, whose name (up to 15 bytes) it sets.
void enter(Role role, const char* name);

}  // namespace kvm_vmm::sandbox
