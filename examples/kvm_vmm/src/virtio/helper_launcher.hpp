// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

namespace kvm_vmm::virtio {

/// A process that starts and ends one helper program for this one, which in its sandbox can do neither. It is
/// forked while this process has neither a VM nor a sandbox, and keeps nothing but its end of a socket pair
/// and /dev/null.
///
/// A request is one byte, and there are two: to start the program, in the way that was decided when the
/// launcher was made, and to end it. The answer of the first has a new connection to the program. So whoever
/// controls this process later gains nothing but the same program again, once at a time and a few times in a
/// second.
///
/// The launcher ends with this process. It has no_new_privs and a filter that refuses the system calls by
/// which a process affects others or the kernel (sandbox/launcher_filter.hpp); the program inherits both.
///
/// Used by one thread at a time.
class HelperLauncher {
public:
    /// The number that the program's end of the connection has.
    static constexpr int socket_of_helper = 3;

    /// What the program is connected with.
    struct Connection {
        vmsuperio::UniqueFd socket;    ///< a stream socket, the other end of which is socket_of_helper
        vmsuperio::UniqueFd messages;  ///< a pipe, not blocking: what the program writes to stderr
    };

    /// `words` are those of the program's command line; it is looked up in PATH. Returns the launcher, or an
    /// error number.
    [[nodiscard]] static std::expected<HelperLauncher, int> create(std::vector<std::string> words);
    /// Ends the program and the launcher.
    ~HelperLauncher();
    HelperLauncher(HelperLauncher&&) noexcept = default;
    HelperLauncher& operator=(HelperLauncher&&) = delete;

    /// Starts the program, after an earlier one was ended. Does not wait for the program itself. Returns an
    /// error number if it cannot be executed.
    [[nodiscard]] std::expected<Connection, int> start();
    /// Ends the program, which has half a second to react to the end of its connection and to SIGTERM.
    /// Returns its status (waitpid(2)) if it ended by itself.
    [[maybe_unused]] std::optional<int> end() noexcept;

private:
    explicit HelperLauncher(vmsuperio::UniqueFd control) noexcept : control_(std::move(control)) {}

    vmsuperio::UniqueFd control_;
};

}  // namespace kvm_vmm::virtio
