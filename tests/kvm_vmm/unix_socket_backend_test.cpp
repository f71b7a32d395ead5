// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/unix_socket_backend.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "catch.hpp"
#include "error.hpp"
#include "event/event_manager.hpp"

using namespace kvm_vmm;

namespace {

FileDescriptor connect_to(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof(address.sun_path));
    std::ranges::copy(path, address.sun_path);
    FileDescriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
}

std::string received(const FileDescriptor& fd) {
    std::array<char, 64> buffer{};
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    return {buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

std::size_t write(UnixSocketBackend& backend, std::string_view text) {
    const auto written = backend.write({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    REQUIRE(written.has_value());
    return *written;
}

}  // namespace

TEST_CASE("UnixSocketBackend: clients come and go, and what is written in between is thrown away",
          "[console]") {
    const std::string path =
        (std::filesystem::temp_directory_path() / ("kvm_vmm_socket_" + std::to_string(::getpid()))).string();
    EventManager events;
    {
        UnixSocketBackend backend(path, events);
        CHECK(write(backend, "nobody") == 6);

        FileDescriptor first = connect_to(path);
        events.run_once(0);
        CHECK(write(backend, "first") == 5);
        CHECK(received(first) == "first");

        // The next one waits until the first has gone.
        const FileDescriptor second = connect_to(path);
        events.run_once(0);
        CHECK(write(backend, "still first") == 11);
        CHECK(received(second).empty());

        // Gone, but the event loop has not heard of it: not an error of the port.
        first.reset();
        CHECK(write(backend, "late") == 4);
        backend.on_hangup();
        events.run_once(0);
        CHECK(write(backend, "second") == 6);
        CHECK(received(second) == "second");
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("Unix socket: a path of 107 bytes is the longest, and the message says so", "[console]") {
    EventManager events;
    std::string name = (std::filesystem::temp_directory_path() / "kvm_vmm_path_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    const std::filesystem::path directory(name);
    const std::string longest = name + '/' + std::string(107 - name.size() - 1, 's');
    {
        const UnixSocketBackend backend(longest, events);
        CHECK(std::filesystem::is_socket(longest));
        CHECK(connect_to(longest));
    }
    std::string error;
    try {
        const UnixSocketBackend backend(longest + 's', events);
    } catch (const VmmError& refused) {
        CHECK(refused.code() == ExitCode::bad_file);
        error = refused.what();
    }
    CHECK_THAT(error, Catch::Matchers::Contains("the path has 108 bytes, and a socket's path at most 107"));
    CHECK(std::filesystem::is_empty(directory));
    std::filesystem::remove_all(directory);
}
