// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/log.hpp"

#include <array>
#include <fcntl.h>
#include <regex>
#include <thread>
#include <unistd.h>

#include "error.hpp"
#include "program.hpp"
#include "util/file_descriptor.hpp"

using namespace kvm_vmm;
using kvm_vmm::test::line_count;
using kvm_vmm::test::ScratchDirectory;
using kvm_vmm::test::slurp;

namespace {

/// What the calls write to stderr.
template <class F>
std::string stderr_of(const ScratchDirectory& directory, F&& calls) {
    const std::string path = (directory / "stderr").string();
    const FileDescriptor saved(::dup(STDERR_FILENO));
    {
        const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600));
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

TEST_CASE("Log: without a file, warnings and errors go to stderr, a line each, and nothing else does",
          "[log]") {
    const ScratchDirectory directory;
    CHECK(stderr_of(directory, log_one_of_each) == "kvm_vmm: error: an error\nkvm_vmm: warning: a warning\n");
}

TEST_CASE("Log: a level lets through itself and what is graver", "[log]") {
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

TEST_CASE("Log: what is reported is on stderr and in the file", "[log]") {
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

TEST_CASE("Log: a file that cannot be written any more is told of once", "[log]") {
    const ScratchDirectory directory;
    const CloseLog close;
    open_log("/dev/full", std::nullopt);
    CHECK(line_count(stderr_of(directory, [] {
              log_one_of_each();
              log_one_of_each();
          })) == 1);
}

TEST_CASE("Log: a stderr that nobody reads holds nobody", "[log]") {
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const FileDescriptor read_end(pipe[0]);
    FileDescriptor write_end(pipe[1]);
    const FileDescriptor saved(::dup(STDERR_FILENO));
    REQUIRE(::dup2(write_end.get(), STDERR_FILENO) == STDERR_FILENO);
    // More than the pipe holds: without the check this would hang here.
    for (int i = 0; i < 2000; ++i) {
        log(LogLevel::error, std::string(100, 'x'));
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
                    log(LogLevel::info, std::string(50, c));
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
