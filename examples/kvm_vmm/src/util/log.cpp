// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/log.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <optional>
#include <poll.h>
#include <span>
#include <string>
#include <unistd.h>
#include <utility>

#include <vmsuperio/linux/fd_writer.hpp>

#include "util/error.hpp"
#include "util/log_line.hpp"
#include "util/message_limit.hpp"
#include "util/output_file.hpp"
#include "util/terminal_mode.hpp"

namespace kvm_vmm {

std::atomic<LogLevel> detail::log_level{LogLevel::warning};

namespace {

constexpr std::array<std::string_view, 4> level_names{"error", "warning", "info", "debug"};

std::atomic<int> log_file{-1};
std::atomic<bool> write_failed{false};

// Limits the messages that each place of the source may write.
MessageLimit limit;

// Lines of several threads do not mix, because each is a single write.
bool write_line(int fd, std::string_view line) noexcept {
    ssize_t written = 0;
    do {
        written = ::write(fd, line.data(), line.size());
    } while (written < 0 && errno == EINTR);
    return written == static_cast<ssize_t>(line.size());
}

// Long enough for a reader that is only slow, and short enough for a program that is ending.
constexpr std::chrono::milliseconds stderr_patience{1000};

// Whether a line was abandoned because stderr is not read. Later lines do not wait again.
std::atomic<bool> stderr_is_stuck{false};

vmsuperio::FdWriter open_stderr() noexcept {
    auto writer = vmsuperio::FdWriter::create(STDERR_FILENO);
    return writer ? std::move(*writer) : vmsuperio::FdWriter::borrow(STDERR_FILENO);
}

// Not changed while there are several threads.
std::optional<vmsuperio::FdWriter> kept_stderr;

// Never waits longer than `patience`: stderr may be a pipe or a terminal that is not read.
void write_stderr(LogLine& line, std::chrono::milliseconds patience) {
    using std::chrono::steady_clock;
    // In raw mode a newline alone does not return to the first column.
    const std::string_view text =
        line.finish(terminal_is_raw.load(std::memory_order_relaxed) ? "\r\n" : "\n");
    std::optional<vmsuperio::FdWriter> made;
    if (!kept_stderr) {
        made.emplace(open_stderr());
    }
    vmsuperio::FdWriter* const writer = kept_stderr ? &*kept_stderr : &*made;
    std::span<const std::uint8_t> rest(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
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

void write_file(int fd, LogLevel level, std::string_view message) noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    LogLine line;
    line.add_time(now).add(log_level_name(level)).add(": ").add_printable(message);
    if (write_line(fd, line.finish("\n"))) {
        return;
    }
    // A failure to write the log is reported once, and not in the log itself.
    if (const int error_number = errno; error_number != EAGAIN && !write_failed.exchange(true)) {
        LogLine warning;
        const char* const reason = ::strerrordesc_np(error_number);
        warning.add("kvm_vmm: warning: cannot write the log: ")
            .add(reason != nullptr ? reason : "unknown error");
        write_stderr(warning, std::chrono::milliseconds(0));
    }
}

void write_message(LogLevel level, std::string_view message) noexcept {
    if (const int fd = log_file.load(std::memory_order_relaxed); fd >= 0) {
        write_file(fd, level, message);
        return;
    }
    LogLine line;
    line.add("kvm_vmm: ").add(log_level_name(level)).add(": ").add_printable(message);
    // Does not wait, because the caller may be a CPU's thread.
    write_stderr(line, std::chrono::milliseconds(0));
}

void write_summaries(bool all) noexcept {
    limit.summarize(std::chrono::steady_clock::now(), all, [](const MessageLimit::Summary& summary) {
        LogLine text;
        text.add_number(summary.left_out).add(" more like this left out: ").add(summary.sample);
        write_message(static_cast<LogLevel>(summary.level), text.finish(""));
    });
}

/// Restores errno, so that a signal handler can log without affecting the code that it interrupted.
class KeepErrno {
public:
    KeepErrno() noexcept = default;
    ~KeepErrno() { errno = saved_; }
    KeepErrno(const KeepErrno&) = delete;
    KeepErrno& operator=(const KeepErrno&) = delete;

private:
    int saved_{errno};
};

}  // namespace

std::string_view log_level_name(LogLevel level) noexcept {
    return level_names.at(static_cast<std::size_t>(level));
}

void open_log(vmsuperio::UniqueFd file, std::optional<LogLevel> level) noexcept {
    close_log();
    detail::log_level.store(level.value_or(file ? LogLevel::info : LogLevel::warning));
    log_file.store(file.release());
}

void open_log(const std::optional<std::string>& path, std::optional<LogLevel> level) {
    if (!path) {
        open_log(vmsuperio::UniqueFd(), level);
        return;
    }
    OutputFile file("log file", *path, OutputFile::Content::kept);
    file.keep();
    open_log(file.take_descriptor(), level);
}

void keep_stderr_open() noexcept { kept_stderr.emplace(open_stderr()); }

void close_log() noexcept {
    write_summaries(true);
    limit.forget();
    detail::log_level.store(LogLevel::warning);
    write_failed.store(false);
    if (const int fd = log_file.exchange(-1); fd >= 0) {
        ::close(fd);
    }
}

void log(LogLevel level, std::string_view message, const std::source_location& place) noexcept {
    if (!log_enabled(level)) {
        return;
    }
    const KeepErrno keep;
    write_summaries(false);
    if (limit.admit(place, static_cast<std::uint8_t>(level), message, std::chrono::steady_clock::now())) {
        write_message(level, message);
    }
}

void log_unlimited(LogLevel level, std::string_view message) noexcept {
    if (log_enabled(level)) {
        const KeepErrno keep;
        write_message(level, message);
    }
}

void summarize_log(bool all) noexcept {
    const KeepErrno keep;
    write_summaries(all);
}

void report(std::string_view message) noexcept {
    const KeepErrno keep;
    LogLine line;
    line.add("kvm_vmm: ").add_printable(message);
    write_stderr(line, stderr_patience);
    if (const int fd = log_file.load(std::memory_order_relaxed); fd >= 0) {
        write_file(fd, LogLevel::info, message);
    }
}

}  // namespace kvm_vmm
