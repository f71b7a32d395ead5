// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>

#include "util/file_descriptor.hpp"

namespace kvm_vmm {

enum class LogLevel : std::uint8_t { error, warning, info, debug };

/// "error", "warning", "info" or "debug".
[[nodiscard]] std::string_view log_level_name(LogLevel level) noexcept;

/// From now on, messages up to `level` are written to `file` with the time (UTC); without a file they go to
/// stderr. With no level: info in a file, warning on stderr.
void open_log(FileDescriptor file, std::optional<LogLevel> level) noexcept;
/// Likewise, with the file at a path, which is appended to. Throws VmmError(bad_file).
void open_log(const std::optional<std::string>& path, std::optional<LogLevel> level);
/// Back to stderr and warnings.
void close_log() noexcept;

namespace detail {
extern std::atomic<LogLevel> log_level;
}

/// Whether a message of this level goes anywhere: before a message that costs something to make.
[[nodiscard]] inline bool log_enabled(LogLevel level) noexcept {
    return level <= detail::log_level.load(std::memory_order_relaxed);
}

/// Writes one line; control characters in it, and bytes that are not UTF-8, become '?'. Never waits for a
/// slow reader of the log: the line is lost then. From each `place` of the source, ten messages are written
/// in five seconds; how many more there were is written when these have passed.
///
/// From any thread, and from a signal handler whatever it has interrupted: takes no lock and no memory.
void log(LogLevel level, std::string_view message,
         const std::source_location& place = std::source_location::current()) noexcept;

/// log() for messages whose number is bounded otherwise.
void log_unlimited(LogLevel level, std::string_view message) noexcept;

/// Writes how many messages log() has left out in the windows that are over, or with `all` in any. To be
/// called now and then, as the last message of a flood is followed by no other.
void summarize_log(bool all) noexcept;

/// What the user has to see: writes "kvm_vmm: MESSAGE" as one line to stderr, whatever mode the terminal is
/// in, and to the log file where there is one; characters as with log(). A stderr that nobody reads is waited
/// for a second at most, once. From any thread.
void report(std::string_view message) noexcept;

}  // namespace kvm_vmm
