// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/input_descriptor.hpp"

#include <array>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <poll.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): posix_openpt is not in <cstdlib>
#include <string>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "catch.hpp"

using namespace kvm_vmm;

namespace {

/// A descriptor to read from, whose open file description is shared, and a descriptor to write to it.
struct Source {
    vmsuperio::UniqueFd reader;
    vmsuperio::UniqueFd writer;
};

Source make_pipe() {
    std::array<int, 2> fds{};
    REQUIRE(::pipe2(fds.data(), O_CLOEXEC) == 0);
    return {vmsuperio::UniqueFd(fds[0]), vmsuperio::UniqueFd(fds[1])};
}

Source make_fifo() {
    const std::string path =
        (std::filesystem::temp_directory_path() / ("kvm_vmm_fifo_" + std::to_string(::getpid()))).string();
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    vmsuperio::UniqueFd both(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    vmsuperio::UniqueFd reader(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    ::unlink(path.c_str());
    return {std::move(reader), std::move(both)};
}

Source make_socket() {
    std::array<int, 2> fds{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
    return {vmsuperio::UniqueFd(fds[0]), vmsuperio::UniqueFd(fds[1])};
}

Source make_terminal(bool read_master) {
    vmsuperio::UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(master);
    REQUIRE(::unlockpt(master.get()) == 0);
    std::array<char, 64> name{};
    REQUIRE(::ptsname_r(master.get(), name.data(), name.size()) == 0);
    vmsuperio::UniqueFd slave(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(slave);
    termios mode{};
    REQUIRE(::tcgetattr(slave.get(), &mode) == 0);
    ::cfmakeraw(&mode);
    REQUIRE(::tcsetattr(slave.get(), TCSANOW, &mode) == 0);
    return read_master ? Source{std::move(master), std::move(slave)}
                       : Source{std::move(slave), std::move(master)};
}

bool wait_readable(int fd) {
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    return ::poll(&entry, 1, 10'000) == 1;
}

std::string read_text(const InputDescriptor& input, std::size_t wanted) {
    std::string text;
    while (text.size() < wanted && wait_readable(input.fd())) {
        std::array<std::uint8_t, 64> bytes{};
        const auto count = input.read(bytes);
        if (!count) {
            REQUIRE(count.error() == std::errc::resource_unavailable_try_again);
            continue;
        }
        if (*count == 0) {
            break;
        }
        text.append(reinterpret_cast<const char*>(bytes.data()), *count);
    }
    return text;
}

}  // namespace

TEST_CASE("InputDescriptor: it never blocks, and other users of the descriptor see no change", "[console]") {
    const int kind = GENERATE(0, 1, 2, 3, 4);
    INFO("kind " << kind);
    std::optional<Source> source;
    switch (kind) {
        case 0:
            source = make_pipe();
            break;
        case 1:
            source = make_fifo();
            break;
        case 2:
            source = make_socket();
            break;
        case 3:
            source = make_terminal(false);
            break;
        default:
            source = make_terminal(true);
            break;
    }
    const int flags = ::fcntl(source->reader.get(), F_GETFL);
    REQUIRE((flags & O_NONBLOCK) == 0);
    const InputDescriptor input(source->reader.get());
    CHECK(input.is_terminal() == (kind >= 3));
    CHECK(::fcntl(source->reader.get(), F_GETFL) == flags);

    // This is the state after poll(2) has reported a byte that another process then read.
    std::array<std::uint8_t, 64> bytes{};
    auto count = input.read(bytes);
    REQUIRE_FALSE(count.has_value());
    CHECK(count.error() == std::errc::resource_unavailable_try_again);

    for (const std::string& text : {std::string("first"), std::string("second\n")}) {
        REQUIRE(::write(source->writer.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
        CHECK(read_text(input, text.size()) == text);
        count = input.read(bytes);
        REQUIRE_FALSE(count.has_value());
        CHECK(count.error() == std::errc::resource_unavailable_try_again);
    }
    CHECK(::fcntl(source->reader.get(), F_GETFL) == flags);

    // At the end: 0, or the error of a terminal whose other side is closed.
    source->writer.reset();
    if (kind != 1) {
        REQUIRE(wait_readable(input.fd()));
        count = input.read(bytes);
        CHECK((!count.has_value() || *count == 0));
        CHECK((count.has_value() || count.error() != std::errc::resource_unavailable_try_again));
    }
}

TEST_CASE("InputDescriptor: a regular file is read from its current position, and /dev/null ends at once",
          "[console]") {
    std::FILE* const file = std::tmpfile();
    REQUIRE(file != nullptr);
    REQUIRE(::write(::fileno(file), "skipped, read", 13) == 13);
    REQUIRE(::lseek(::fileno(file), 9, SEEK_SET) == 9);
    CHECK(read_text(InputDescriptor(::fileno(file)), 100) == "read");
    // The other users of the open file description see the new position.
    CHECK(::lseek(::fileno(file), 0, SEEK_CUR) == 13);
    (void)std::fclose(file);
    const vmsuperio::UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK(read_text(InputDescriptor(null.get()), 100).empty());
}

TEST_CASE("InputDescriptor: a descriptor that cannot be opened again or is already non-blocking is read too",
          "[console]") {
    SECTION("an eventfd") {
        const vmsuperio::UniqueFd counter(::eventfd(0, EFD_CLOEXEC));
        const InputDescriptor input(counter.get());
        std::array<std::uint8_t, 8> bytes{};
        REQUIRE_FALSE(input.read(bytes).has_value());
        const std::uint64_t one = 1;
        REQUIRE(::write(counter.get(), &one, sizeof(one)) == sizeof(one));
        CHECK(read_text(input, 8) == std::string("\1\0\0\0\0\0\0\0", 8));
    }
    SECTION("non-blocking") {
        const Source pipe = make_pipe();
        REQUIRE(::fcntl(pipe.reader.get(), F_SETFL, O_NONBLOCK) == 0);
        const InputDescriptor input(pipe.reader.get());
        CHECK(input.fd() == pipe.reader.get());
        REQUIRE(::write(pipe.writer.get(), "x", 1) == 1);
        CHECK(read_text(input, 1) == "x");
    }
    SECTION("none") { CHECK(InputDescriptor().fd() == -1); }
}

TEST_CASE("InputDescriptor: a thread that has to read stops while its input is not taken", "[console]") {
    const Source source = make_terminal(true);
    REQUIRE(::fcntl(source.writer.get(), F_SETFL, O_NONBLOCK) == 0);
    const InputDescriptor input(source.reader.get());
    std::string sent;
    const std::string chunk(1000, 'c');
    for (int idle = 0; idle < 50;) {
        const ssize_t count = ::write(source.writer.get(), chunk.data(), chunk.size());
        if (count > 0) {
            sent.append(chunk, 0, static_cast<std::size_t>(count));
            idle = 0;
        } else {
            ++idle;
            ::usleep(1000);
        }
        REQUIRE(sent.size() < 1'000'000);
    }
    CHECK((read_text(input, sent.size()) == sent));
}
