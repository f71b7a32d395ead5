// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/log.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <vmsuperio/linux/unique_fd.hpp>

#include "program.hpp"
#include "util/error.hpp"
#include "util/log_line.hpp"

using namespace kvm_vmm;
using kvm_vmm::test::line_count;
using kvm_vmm::test::ScratchDirectory;
using kvm_vmm::test::slurp;

namespace {

/// Returns what `calls` writes to stderr.
template <class F>
std::string stderr_of(const ScratchDirectory& directory, F&& calls) {
    const std::string path = (directory / "stderr").string();
    const vmsuperio::UniqueFd saved(::dup(STDERR_FILENO));
    {
        const vmsuperio::UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600));
        REQUIRE(::dup2(file.get(), STDERR_FILENO) == STDERR_FILENO);
    }
    calls();
    REQUIRE(::dup2(saved.get(), STDERR_FILENO) == STDERR_FILENO);
    return slurp(path);
}

struct CloseLog {
    ~CloseLog() { close_log(); }
};

void log_one_of_each() {
    log(LogLevel::error, "an error");
    log(LogLevel::warning, "a warning");
    log(LogLevel::info, "information");
    log(LogLevel::debug, "a detail");
}

}  // namespace

TEST_CASE("Log: without a file, only warnings and errors are written to stderr, one line each", "[log]") {
    const ScratchDirectory directory;
    CHECK(stderr_of(directory, log_one_of_each) == "kvm_vmm: error: an error\nkvm_vmm: warning: a warning\n");
}

TEST_CASE("Log: messages of the configured level and of graver levels are written", "[log]") {
    const ScratchDirectory directory;
    const CloseLog close;
    const std::array levels{LogLevel::error, LogLevel::warning, LogLevel::info, LogLevel::debug};
    for (std::size_t i = 0; i < levels.size(); ++i) {
        open_log(std::nullopt, levels.at(i));
        CHECK(line_count(stderr_of(directory, log_one_of_each)) == i + 1);
        for (std::size_t j = 0; j < levels.size(); ++j) {
            CHECK(log_enabled(levels.at(j)) == (j <= i));
        }
    }
}

TEST_CASE("Log: a file gets lines with time and level, information included, and stderr gets none", "[log]") {
    const ScratchDirectory directory;
    const CloseLog close;
    const std::string file = (directory / "log").string();
    open_log(file, std::nullopt);
    CHECK(stderr_of(directory, log_one_of_each).empty());
    const std::string text = slurp(file);
    CHECK(line_count(text) == 3);
    const std::string time = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z )";
    CHECK(std::regex_match(text, std::regex(time + "error: an error\n" + time + "warning: a warning\n" +
                                            time + "info: information\n")));
}

TEST_CASE("Log: a file is appended to", "[log]") {
    const ScratchDirectory directory;
    const CloseLog close;
    const std::string file = directory.write("log", "older\n").string();
    open_log(file, std::nullopt);
    log(LogLevel::info, "newer");
    close_log();
    log(LogLevel::info, "nowhere");
    CHECK_THAT(slurp(file), Catch::Matchers::StartsWith("older\n"));
    CHECK(line_count(slurp(file)) == 2);
}

TEST_CASE("Log: whatever a message contains, it stays one line without control characters", "[log]") {
    const ScratchDirectory directory;
    CHECK(stderr_of(directory, [] { log(LogLevel::error, "a\nb\x1B[2J\x7F"); }) ==
          "kvm_vmm: error: a?b?[2J?\n");
}

TEST_CASE("Log: reported errors are written to stderr and to the file", "[log]") {
    const ScratchDirectory directory;
    const CloseLog close;
    const std::string file = (directory / "log").string();
    open_log(file, std::nullopt);
    CHECK(stderr_of(directory, [] { report("the end"); }) == "kvm_vmm: the end\n");
    CHECK_THAT(slurp(file), Catch::Matchers::EndsWith("info: the end\n"));
}

TEST_CASE("Log: a file that cannot be opened is an error that names it", "[log]") {
    const ScratchDirectory directory;
    const std::string file = (directory / "no/such").string();
    try {
        open_log(file, std::nullopt);
        FAIL("no error");
    } catch (const VmmError& error) {
        CHECK(error.code() == ExitCode::bad_file);
        CHECK_THAT(error.what(), Catch::Matchers::Contains(file));
    }
}

TEST_CASE("Log: a file that cannot be written any more is reported once", "[log]") {
    const ScratchDirectory directory;
    const CloseLog close;
    open_log("/dev/full", std::nullopt);
    CHECK(line_count(stderr_of(directory, [] {
              log_one_of_each();
              log_one_of_each();
          })) == 1);
}

TEST_CASE("Log: a stderr that nobody reads blocks no thread", "[log]") {
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const vmsuperio::UniqueFd read_end(pipe[0]);
    const vmsuperio::UniqueFd write_end(pipe[1]);
    const vmsuperio::UniqueFd saved(::dup(STDERR_FILENO));
    REQUIRE(::dup2(write_end.get(), STDERR_FILENO) == STDERR_FILENO);
    // This is more than the pipe holds: without the check the test would hang here.
    for (int i = 0; i < 2000; ++i) {
        log_unlimited(LogLevel::error, std::string(100, 'x'));
    }
    REQUIRE(::dup2(saved.get(), STDERR_FILENO) == STDERR_FILENO);
    std::array<char, 8> first{};
    CHECK(::read(read_end.get(), first.data(), first.size()) == 8);
}

TEST_CASE("Log: lines of several threads do not mix", "[log]") {
    const ScratchDirectory directory;
    const CloseLog close;
    const std::string file = (directory / "log").string();
    open_log(file, std::nullopt);
    {
        std::vector<std::jthread> threads;
        for (const char c : {'a', 'b', 'c', 'd'}) {
            threads.emplace_back([c] {
                for (int i = 0; i < 200; ++i) {
                    log_unlimited(LogLevel::info, std::string(50, c));
                }
            });
        }
    }
    const std::string text = slurp(file);
    CHECK(line_count(text) == 800);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        REQUIRE(line.size() > 50);
        CHECK(line.find_first_not_of(line.back(), line.size() - 50) == std::string::npos);
    }
}

TEST_CASE(
    "Log: of a flood from one call, ten lines are written and the number of the others, at the latest when "
    "the log is closed",
    "[log][limit]") {
    const ScratchDirectory directory;
    const CloseLog close;
    const std::string file = (directory / "log").string();
    open_log(file, std::nullopt);
    for (int i = 0; i < 1000; ++i) {
        log(LogLevel::warning, "flood " + std::to_string(i));
    }
    log(LogLevel::info, "another place");
    close_log();
    const std::string text = slurp(file);
    CHECK(line_count(text) == 12);
    CHECK_THAT(text, Catch::Matchers::Contains("warning: flood 9\n"));
    CHECK(text.find("flood 10\n") == std::string::npos);
    CHECK_THAT(text, Catch::Matchers::Contains("info: another place\n"));
    CHECK_THAT(text, Catch::Matchers::EndsWith("warning: 990 more like this left out: flood 0\n"));
    // A log that is opened again starts with empty counts.
    open_log(file, std::nullopt);
    for (int i = 0; i < 10; ++i) {
        log(LogLevel::warning, "again");
    }
    close_log();
    CHECK(line_count(slurp(file)) == 22);
}

TEST_CASE("Log: a message longer than a line can be is cut and marked", "[log]") {
    const ScratchDirectory directory;
    const std::string text = stderr_of(directory, [] { log(LogLevel::error, std::string(100'000, 'x')); });
    CHECK(text.size() <= LogLine::most);
    CHECK(text.size() > 8000);
    CHECK_THAT(text, Catch::Matchers::EndsWith("xxx [...]\n"));
    // The message is not cut within a character.
    const std::string wide = stderr_of(directory, [] {
        std::string message = "a";
        for (int i = 0; i < 10'000; ++i) {
            message += "\u20AC";
        }
        log(LogLevel::error, message);
    });
    CHECK_THAT(wide, Catch::Matchers::EndsWith("\u20AC [...]\n"));
}

TEST_CASE("Log: times are right over days, months, years and leap days", "[log]") {
    const auto text = [](std::int64_t seconds, long nanoseconds) {
        LogLine line;
        timespec time{};
        time.tv_sec = static_cast<time_t>(seconds);
        time.tv_nsec = nanoseconds;
        return std::string(line.add_time(time).finish(""));
    };
    CHECK(text(0, 0) == "1970-01-01T00:00:00.000000Z ");
    CHECK(text(951'782'399, 999'999'999) == "2000-02-28T23:59:59.999999Z ");
    CHECK(text(951'782'400, 1'000) == "2000-02-29T00:00:00.000001Z ");
    CHECK(text(4'107'542'400, 0) == "2100-03-01T00:00:00.000000Z ");
}

TEST_CASE("Log: a signal handler logs whatever it interrupts, in the middle of an allocation or of logging",
          "[log][signals]") {
    const ScratchDirectory directory;
    const std::string file = (directory / "log").string();
    const pid_t child = kvm_vmm::test::fork_child();
    if (child == 0) {
        ::alarm(60);  // ends a deadlock
        open_log(file, std::nullopt);
        struct sigaction action{};
        action.sa_handler = [](int) {
            log(LogLevel::info, "from the handler");
            log_unlimited(LogLevel::info, "from the handler");
        };
        // The signal arrives after each 50 us of CPU time, wherever this thread is.
        const itimerval often{.it_interval = {0, 50}, .it_value = {0, 50}};
        ::sigaction(SIGPROF, &action, nullptr);
        ::setitimer(ITIMER_PROF, &often, nullptr);
        // An allocation that is not used may be optimized away.
        const auto look_at = [](const std::string& text) {
            asm volatile("" : : "r"(text.data()) : "memory");
        };
        std::size_t allocated = 0;
        // The timer's resolution is a tick of the kernel, so the loop is limited by time, not by rounds.
        const std::clock_t start = std::clock();
        for (int i = 0; std::clock() - start < CLOCKS_PER_SEC / 4; ++i) {
            const auto memory = std::make_unique<std::string>(static_cast<std::size_t>(i % 3000), 'x');
            log(LogLevel::info, *memory);
            errno = 1234;
            for (int k = 0; k < 100; ++k) {
                const std::string text(static_cast<std::size_t>(k * 7), 'y');
                look_at(text);
                allocated += text.size();
            }
            if (errno != 1234) {
                ::_exit(3);
            }
        }
        ::_exit(allocated != 0 ? 0 : 4);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(kvm_vmm::test::exit_code_of(status) == 0);
    std::istringstream lines(slurp(file));
    std::size_t from_handler = 0;
    for (std::string line; std::getline(lines, line);) {
        REQUIRE(line.starts_with("20"));
        from_handler += line.ends_with(": from the handler") ? 1U : 0U;
    }
    CHECK(from_handler > 10);
}
