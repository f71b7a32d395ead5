// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/log.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <poll.h>
#include <span>
#include <string>
#include <unistd.h>

#include <vmsuperio/linux/fd_writer.hpp>

#include "console/raw_terminal.hpp"
#include "error.hpp"
#include "util/output_file.hpp"
#include "util/quote.hpp"

namespace kvm_vmm {

std::atomic<LogLevel> detail::log_level{LogLevel::warning};

namespace {

constexpr std::array<std::string_view, 4> level_names{"error", "warning", "info", "debug"};

std::atomic<int> log_file{-1};
std::atomic<bool> write_failed{false};

// Lines from several threads do not mix, as each is a single write.
bool write_line(int fd, const std::string& line) noexcept {
    ssize_t written = 0;
    do {
        written = ::write(fd, line.data(), line.size());
    } while (written < 0 && errno == EINTR);
    return written == static_cast<ssize_t>(line.size());
}

// Long enough for a reader that is only slow, short enough for the end of a program.
constexpr std::chrono::milliseconds stderr_patience{1000};

// Whether a line was given up because nobody reads stderr. The next ones do not wait for that again.
std::atomic<bool> stderr_is_stuck{false};

// Never waits longer than `patience`: stderr may be a pipe or a terminal that nobody reads.
void write_stderr(std::string line, std::chrono::milliseconds patience) {
    using std::chrono::steady_clock;
    // In raw mode a newline alone does not return to the first column.
    line += RawTerminal::active() ? "\r\n" : "\n";
    auto writer = vmsuperio::FdWriter::create(STDERR_FILENO);
    if (!writer) {
        return;
    }
    std::span<const std::uint8_t> rest(reinterpret_cast<const std::uint8_t*>(line.data()), line.size());
    const auto deadline = steady_clock::now() + patience;
    for (;;) {
        const auto written = writer->write(rest);
        if (!written) {
            return;
        }
        rest = rest.subspan(*written);
        if (rest.empty()) {
            stderr_is_stuck.store(false);
            return;
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
        if (left.count() <= 0 || stderr_is_stuck.load()) {
            stderr_is_stuck.store(true);
            return;
        }
        pollfd entry{.fd = writer->fd(), .events = POLLOUT, .revents = 0};
        (void)::poll(&entry, 1, static_cast<int>(left.count()));
    }
}

std::string timestamp() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    tm utc{};
    ::gmtime_r(&now.tv_sec, &utc);
    std::array<char, 40> date{};
    std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &utc);
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%s.%06ldZ", date.data(), now.tv_nsec / 1000);
    return text.data();
}

/// `message` with '?' for each control character and for each byte that is not UTF-8.
std::string printable(std::string_view message) {
    std::string text;
    text.reserve(message.size());
    while (!message.empty()) {
        const std::size_t length = shown_length(message);
        if (length == 0) {
            text += '?';
        } else {
            text += message.substr(0, length);
        }
        message.remove_prefix(std::max<std::size_t>(length, 1));
    }
    return text;
}

void write_file(int fd, LogLevel level, std::string_view message) {
    std::string line = timestamp();
    line += ' ';
    line += log_level_name(level);
    line += ": ";
    line += printable(message);
    line += '\n';
    // A log that cannot be written any more is told of once, and not by another line in the log.
    if (!write_line(fd, line) && errno != EAGAIN && !write_failed.exchange(true)) {
        write_stderr("kvm_vmm: warning: " + errno_message("cannot write the log", errno),
                     std::chrono::milliseconds(0));
    }
}

}  // namespace

std::string_view log_level_name(LogLevel level) noexcept {
    return level_names.at(static_cast<std::size_t>(level));
}

void open_log(FileDescriptor file, std::optional<LogLevel> level) noexcept {
    close_log();
    detail::log_level.store(level.value_or(file ? LogLevel::info : LogLevel::warning));
    log_file.store(file.release());
}

void open_log(const std::optional<std::string>& path, std::optional<LogLevel> level) {
    if (!path) {
        open_log(FileDescriptor(), level);
        return;
    }
    OutputFile file("log file", *path, OutputFile::Content::kept);
    file.keep();
    open_log(file.take_descriptor(), level);
}

void close_log() noexcept {
    detail::log_level.store(LogLevel::warning);
    write_failed.store(false);
    if (const int fd = log_file.exchange(-1); fd >= 0) {
        ::close(fd);
    }
}

void log(LogLevel level, std::string_view message) noexcept {
    if (!log_enabled(level)) {
        return;
    }
    try {
        if (const int fd = log_file.load(std::memory_order_relaxed); fd >= 0) {
            write_file(fd, level, message);
        } else {
            // A CPU's thread may be the caller.
            write_stderr("kvm_vmm: " + std::string(log_level_name(level)) + ": " + printable(message),
                         std::chrono::milliseconds(0));
        }
    } catch (...) {  // NOLINT(bugprone-empty-catch): no memory for a line, and nowhere to say so
    }
}

void report(std::string_view message) noexcept {
    try {
        write_stderr("kvm_vmm: " + printable(message), stderr_patience);
        if (const int fd = log_file.load(std::memory_order_relaxed); fd >= 0) {
            write_file(fd, LogLevel::info, message);
        }
    } catch (...) {  // NOLINT(bugprone-empty-catch): no memory for a line, and nowhere to say so
    }
}

}  // namespace kvm_vmm
