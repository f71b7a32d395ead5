// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>

#include <vmsuperio/linux/unique_fd.hpp>

namespace kvm_vmm {

enum class LogLevel : std::uint8_t { error, warning, info, debug };

/// "error", "warning", "info" or "debug".
[[nodiscard]] std::string_view log_level_name(LogLevel level) noexcept;

/// From now on, messages up to `level` are written to `file` with the time (UTC), or to stderr if there is no
/// file. The default level is info for a file and warning for stderr.
void open_log(vmsuperio::UniqueFd file, std::optional<LogLevel> level) noexcept;
/// Likewise, with the file at a path, to which messages are appended. Throws VmmError(bad_file).
void open_log(const std::optional<std::string>& path, std::optional<LogLevel> level);
/// Opens stderr for writing once and for all, because a process in a sandbox cannot do that for each message.
/// Call it while there is one thread.
void keep_stderr_open() noexcept;
/// Closes the file; from now on warnings are written to stderr.
void close_log() noexcept;

namespace detail {
extern std::atomic<LogLevel> log_level;
}

/// Whether a message of this level is written. Check this before composing a message that is expensive.
[[nodiscard]] inline bool log_enabled(LogLevel level) noexcept {
    return level <= detail::log_level.load(std::memory_order_relaxed);
}

/// Writes one line; control characters in it, and bytes that are not UTF-8, become '?'. Never waits for a
/// slow reader of the log; the line is lost in that case. From each `place` of the source, at most ten
/// messages are written in five seconds; the number of further ones is written after that time.
///
/// May be called from any thread, and from a signal handler whatever it has interrupted: takes no lock and
/// allocates no memory.
void log(LogLevel level, std::string_view message,
         const std::source_location& place = std::source_location::current()) noexcept;

/// Like log(), for messages whose number is limited in another way.
void log_unlimited(LogLevel level, std::string_view message) noexcept;

/// Writes how many messages log() has suppressed in the windows that have ended, or with `all` in every
/// window. Call it from time to time, because no further message follows the last one of a flood.
void summarize_log(bool all) noexcept;

/// Reports a message that the user has to see: writes "kvm_vmm: MESSAGE" as one line to stderr, whatever mode
/// the terminal is in, and to the log file if there is one, with the same replacement of characters as log().
/// If stderr is not read, this waits once, for at most a second. May be called from any thread.
void report(std::string_view message) noexcept;

}  // namespace kvm_vmm
