// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>
#include <thread>
#include <unistd.h>

#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/serial.hpp>

#include "catch.hpp"

using vmsuperio::FdWriter;
using vmsuperio::UniqueFd;

namespace {

std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

struct Ends {
    UniqueFd read;
    UniqueFd write;
};

Ends make_pipe(int flags) {
    std::array<int, 2> fds{};
    REQUIRE(::pipe2(fds.data(), flags | O_CLOEXEC) == 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Ends make_sockets() {
    std::array<int, 2> fds{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Ends make_terminal() {
    UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(master.get() >= 0);
    REQUIRE(::grantpt(master.get()) == 0);
    REQUIRE(::unlockpt(master.get()) == 0);
    std::array<char, 64> name{};
    REQUIRE(::ptsname_r(master.get(), name.data(), name.size()) == 0);
    UniqueFd slave(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(slave.get() >= 0);
    termios mode{};
    REQUIRE(::tcgetattr(slave.get(), &mode) == 0);
    ::cfmakeraw(&mode);
    REQUIRE(::tcsetattr(slave.get(), TCSANOW, &mode) == 0);
    return {std::move(master), std::move(slave)};
}

std::string read_some(int fd, std::size_t most = 1 << 20) {
    std::string text(most, '\0');
    const ssize_t count = ::read(fd, text.data(), text.size());
    text.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
    return text;
}

// Reads all of `size` bytes; a terminal may deliver them one by one.
std::string read_all(int fd, std::size_t size) {
    std::string text;
    while (text.size() < size) {
        const std::string part = read_some(fd);
        REQUIRE_FALSE(part.empty());
        text += part;
    }
    return text;
}

UniqueFd make_file() {
    std::string path = "/tmp/vmsuperio-fd-writer-XXXXXX";
    UniqueFd file(::mkstemp(path.data()));
    REQUIRE(file.get() >= 0);
    REQUIRE(::unlink(path.c_str()) == 0);
    return file;
}

bool is_blocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0; }

// Writes until the sink is full, and returns how many bytes it took. If a write blocked, the test would time
// out.
std::size_t fill(FdWriter& writer) {
    const std::vector<std::uint8_t> block(1'000'000, 'x');
    std::size_t total = 0;
    for (int i = 0; i < 100'000; ++i) {
        const auto taken = writer.write(block);
        REQUIRE(taken.has_value());
        if (*taken == 0) {
            return total;
        }
        total += *taken;
    }
    FAIL("the sink is never full");
    return total;
}

}  // namespace

TEST_CASE("FdWriter: written bytes arrive", "[fd_writer]") {
    for (const int flags : {0, O_NONBLOCK}) {
        auto ends = make_pipe(flags);
        FdWriter writer(ends.write.get());
        CHECK(writer.fd() == ends.write.get());
        CHECK(writer.write(bytes("hello")) == std::size_t{5});
        CHECK(writer.write({}) == std::size_t{0});
        CHECK(read_some(ends.read.get()) == "hello");
    }
}

TEST_CASE("FdWriter: it never blocks on a full sink and never sets O_NONBLOCK", "[fd_writer]") {
    enum class Kind { pipe, socket, terminal };
    for (const Kind kind : {Kind::pipe, Kind::socket, Kind::terminal}) {
        for (const bool borrowed : {true, false}) {
            CAPTURE(static_cast<int>(kind), borrowed);
            auto ends = kind == Kind::pipe     ? make_pipe(0)
                        : kind == Kind::socket ? make_sockets()
                                               : make_terminal();
            REQUIRE(is_blocking(ends.write.get()));
            auto created = FdWriter::create(ends.write.get());
            REQUIRE(created.has_value());
            // It has its own description if the file can be opened again: no poll(2), no writes of only a
            // page or a byte.
            CHECK(is_blocking(created->fd()) == (kind == Kind::socket));
            FdWriter writer = borrowed ? FdWriter::borrow(ends.write.get()) : std::move(*created);
            std::size_t total = fill(writer);
            CHECK(total > 0);
            CHECK(is_blocking(ends.write.get()));
            // The kernel forwards a terminal's bytes asynchronously, which may make room again.
            const auto further = writer.write(bytes("xxxx"));
            REQUIRE(further.has_value());
            CHECK((kind == Kind::terminal || *further == 0));
            total += *further;
            // It continues when the reader does, and loses nothing.
            CHECK(read_all(ends.read.get(), total) == std::string(total, 'x'));
            CHECK(writer.write(bytes("more")) == std::size_t{4});
            CHECK(read_all(ends.read.get(), 4) == "more");
        }
    }
}

TEST_CASE("FdWriter: a reader that has closed its end is an error and no signal", "[fd_writer]") {
    // SIGPIPE has its default action here, so receiving it would end the test.
    REQUIRE(std::signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    for (const bool socket : {true, false}) {
        for (const int flags : {0, O_NONBLOCK}) {
            CAPTURE(socket, flags);
            auto ends = socket ? make_sockets() : make_pipe(flags);
            FdWriter writer(ends.write.get());
            ends.read.reset();
            for (int i = 0; i < 3; ++i) {
                const auto result = writer.write(bytes("x"));
                REQUIRE_FALSE(result.has_value());
                CHECK(result.error() == std::errc::broken_pipe);
            }
        }
    }
}

TEST_CASE("FdWriter: a serial port works on after its reader has closed its end", "[fd_writer][serial]") {
    auto ends = make_pipe(0);
    vmsuperio::Serial uart(vmsuperio::NullTrigger{}, FdWriter(ends.write.get()));
    REQUIRE(uart.write(0, 'a').has_value());
    ends.read.reset();
    for (int i = 0; i < 100; ++i) {
        const auto result = uart.write(0, 'b');
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().kind() == vmsuperio::SerialErrorKind::write);
        CHECK(uart.read(5) == 0x60);
    }
}

TEST_CASE("FdWriter: each factory function determines the ownership", "[fd_writer]") {
    auto ends = make_pipe(O_NONBLOCK);
    const int fd = ends.write.get();
    {
        const FdWriter borrowed = FdWriter::borrow(fd);
    }
    CHECK(::fcntl(fd, F_GETFD) != -1);
    {
        auto created = FdWriter::create(fd);
        REQUIRE(created.has_value());
        CHECK(created->fd() != fd);
        CHECK((::fcntl(created->fd(), F_GETFD) & FD_CLOEXEC) != 0);
    }
    CHECK(::fcntl(fd, F_GETFD) != -1);
    {
        FdWriter owner = FdWriter::own(ends.write.release());
        FdWriter moved = std::move(owner);
        CHECK(moved.write(bytes("x")) == std::size_t{1});
    }
    CHECK(::fcntl(fd, F_GETFD) == -1);
}

TEST_CASE("FdWriter: the master of a pseudo-terminal is written, not opened again", "[fd_writer]") {
    const auto ends = make_terminal();
    auto writer = FdWriter::create(ends.read.get());
    REQUIRE(writer.has_value());
    const auto line = bytes("hi\n");
    std::size_t written = 0;
    for (int i = 0; i < 10 && written < line.size(); ++i) {
        const auto taken = writer->write(std::span(line).subspan(written));
        REQUIRE(taken.has_value());
        written += *taken;
    }
    REQUIRE(written == line.size());
    ::pollfd entry{.fd = ends.write.get(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&entry, 1, 5000) == 1);
    CHECK(read_all(ends.write.get(), line.size()) == "hi\n");
}

TEST_CASE("FdWriter: bad descriptors are errors", "[fd_writer]") {
    CHECK(FdWriter::create(-1).error() == std::errc::bad_file_descriptor);
    FdWriter writer(-1);
    CHECK(writer.write(bytes("x")).error() == std::errc::bad_file_descriptor);
    auto ends = make_pipe(0);
    const int closed = ::fcntl(ends.write.get(), F_DUPFD_CLOEXEC, 500);
    REQUIRE(closed >= 0);
    FdWriter closed_later = FdWriter::borrow(closed);
    REQUIRE(::close(closed) == 0);
    CHECK(FdWriter::create(closed).error() == std::errc::bad_file_descriptor);
    CHECK(closed_later.write(bytes("x")).error() == std::errc::bad_file_descriptor);
    FdWriter wrong_end(ends.read.get());
    const auto result = wrong_end.write(bytes("x"));
    CHECK((!result.has_value() || *result == 0));
}

TEST_CASE("FdWriter: regular files keep their offset and append mode", "[fd_writer]") {
    const UniqueFd file = make_file();
    REQUIRE(::write(file.get(), "head ", 5) == 5);
    auto writer = FdWriter::create(file.get());
    REQUIRE(writer.has_value());
    CHECK(writer->write(bytes("body ")) == std::size_t{5});
    REQUIRE(::write(file.get(), "tail", 4) == 4);
    std::array<char, 32> text{};
    CHECK(::pread(file.get(), text.data(), text.size(), 0) == 14);
    CHECK(std::string_view(text.data()) == "head body tail");
}

TEST_CASE("FdWriter: a full device is an error", "[fd_writer]") {
    const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
    if (full.get() < 0) {
        VMSUPERIO_SKIP("there is no /dev/full");
    }
    FdWriter writer(full.get());
    const auto result = writer.write(bytes("x"));
    REQUIRE_FALSE(result.has_value());
    CHECK(result.error() == std::errc::no_space_on_device);
}

TEST_CASE("FdWriter: an error is returned after the bytes that were written before it", "[fd_writer]") {
    const UniqueFd file = make_file();
    rlimit old{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
    rlimit small = old;
    small.rlim_cur = 10;
    const auto old_action = std::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    FdWriter writer(file.get());
    const auto first = writer.write(bytes("0123456789abc"));
    const auto second = writer.write(bytes("abc"));
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
    REQUIRE(std::signal(SIGXFSZ, old_action) != SIG_ERR);
    CHECK(first == std::size_t{10});
    REQUIRE_FALSE(second.has_value());
    CHECK(second.error() == std::errc::file_too_large);
}

TEST_CASE("FdWriter: signals do not disturb it", "[fd_writer]") {
    auto ends = make_sockets();
    struct sigaction action{};
    action.sa_handler = [](int) {};  // without SA_RESTART
    struct sigaction old{};
    REQUIRE(::sigaction(SIGALRM, &action, &old) == 0);
    const itimerval often{.it_interval = {0, 200}, .it_value = {0, 200}};
    REQUIRE(::setitimer(ITIMER_REAL, &often, nullptr) == 0);
    std::size_t written = 0;
    std::size_t read = 0;
    FdWriter writer(ends.write.get());
    std::vector<std::uint8_t> block(10'000, 'x');
    std::string buffer(100'000, '\0');
    bool failed = false;
    for (int i = 0; i < 2'000; ++i) {
        const auto taken = writer.write(block);
        failed = failed || !taken;
        written += taken.value_or(0);
        const ssize_t count = ::recv(ends.read.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        read += count > 0 ? static_cast<std::size_t>(count) : 0;
    }
    const itimerval off{};
    REQUIRE(::setitimer(ITIMER_REAL, &off, nullptr) == 0);
    REQUIRE(::sigaction(SIGALRM, &old, nullptr) == 0);
    while (true) {
        const ssize_t count = ::recv(ends.read.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (count <= 0) {
            break;
        }
        read += static_cast<std::size_t>(count);
    }
    CHECK_FALSE(failed);
    CHECK(written > 0);
    CHECK(read == written);
}

TEST_CASE("FdWriter: if no descriptor is left, create() returns an error", "[fd_writer]") {
    auto ends = make_pipe(O_NONBLOCK);
    auto terminal = make_pipe(0);
    rlimit old{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
    rlimit none = old;
    none.rlim_cur = 0;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    const auto duplicated = FdWriter::create(ends.write.get());
    const auto reopened = FdWriter::create(terminal.write.get());
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
    REQUIRE_FALSE(duplicated.has_value());
    REQUIRE_FALSE(reopened.has_value());
    // EMFILE, or EINVAL if the limit is below the number that the copy must have.
    CHECK((duplicated.error() == std::errc::too_many_files_open ||
           duplicated.error() == std::errc::invalid_argument));
    CHECK((reopened.error() == std::errc::too_many_files_open ||
           reopened.error() == std::errc::invalid_argument));
}
