// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/unix_socket_backend.hpp"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include "catch.hpp"
#include "event/event_manager.hpp"
#include "sanitizer.hpp"
#include "scratch_directory.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

using namespace kvm_vmm;

namespace {

vmsuperio::UniqueFd connect_to(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof(address.sun_path));
    std::ranges::copy(path, address.sun_path);
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
}

std::string received(const vmsuperio::UniqueFd& fd) {
    std::array<char, 64> buffer{};
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    return {buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

std::size_t write(UnixSocketBackend& backend, std::string_view text) {
    backend.output().flush();
    const auto sent =
        backend.output().send({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    REQUIRE(sent.has_value());
    return sent->taken;
}

}  // namespace

TEST_CASE("UnixSocketBackend: clients connect and leave, and output written in between is for the next one",
          "[console]") {
    const std::string path =
        (std::filesystem::temp_directory_path() / ("kvm_vmm_socket_" + std::to_string(::getpid()))).string();
    EventManager events;
    {
        UnixSocketBackend backend(path, events);
        CHECK(write(backend, "nobody") == 6);

        vmsuperio::UniqueFd first = connect_to(path);
        events.run_once(0);
        CHECK(write(backend, "first") == 5);
        CHECK(received(first) == "nobodyfirst");

        // The next client waits until the first has left.
        const vmsuperio::UniqueFd second = connect_to(path);
        events.run_once(0);
        CHECK(write(backend, "still first") == 11);
        CHECK(received(second).empty());

        // The client has left, but the event loop does not know yet: this is not an error of the port.
        first.reset();
        CHECK(write(backend, "late") == 4);
        backend.on_hangup();
        events.run_once(0);
        CHECK(write(backend, "second") == 6);
        CHECK(received(second) == "latesecond");
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("Unix socket: a path may have at most 107 bytes, and the message says so", "[console]") {
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

namespace {

// Sets the limit of descriptors so that all open ones stay valid and no other can be opened.
class NoDescriptorLeft {
public:
    NoDescriptorLeft() {
        REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
        int highest = -1;
        do {
            fillers_.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
            REQUIRE(fillers_.back());
            highest = std::max(highest, fillers_.back().get());
        } while (fillers_.size() < 64);
        set(static_cast<rlim_t>(highest) + 1);
    }
    ~NoDescriptorLeft() { lift(); }
    NoDescriptorLeft(const NoDescriptorLeft&) = delete;
    NoDescriptorLeft& operator=(const NoDescriptorLeft&) = delete;

    void lift() { set(before_.rlim_cur); }
    void set(rlim_t limit) const {
        const rlimit limits{limit, before_.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &limits) == 0);
    }

private:
    rlimit before_{};
    std::vector<vmsuperio::UniqueFd> fillers_;
};

std::string socket_path(const kvm_vmm::test::ScratchDirectory& directory) {
    return (directory / "socket").string();
}

}  // namespace

TEST_CASE("UnixSocketBackend: a client is served when the process has no descriptor left", "[console]") {
    if (vmsuperio_test::sanitizer_needs_descriptors) {
        VMSUPERIO_SKIP("the sanitizer opens a pipe to look at an object");
    }
    const kvm_vmm::test::ScratchDirectory directory;
    EventManager events;
    UnixSocketBackend backend(ListeningSocket(socket_path(directory)), events);
    for (int round = 0; round < 3; ++round) {
        vmsuperio::UniqueFd client = connect_to(socket_path(directory));
        {
            const NoDescriptorLeft shortage;
            events.run_once(0);
        }
        REQUIRE(backend.input_fd() >= 0);
        CHECK(backend.output_fd() >= 0);
        CHECK(write(backend, "output") == 6);
        CHECK(received(client) == "output");
        REQUIRE(::write(client.get(), "input", 5) == 5);
        std::array<char, 8> buffer{};
        CHECK(::read(backend.input_fd(), buffer.data(), buffer.size()) == 5);
        client.reset();
        const NoDescriptorLeft shortage;
        backend.on_hangup();
        CHECK(backend.input_fd() == -1);
        CHECK(backend.output_fd() == -1);
    }
}

TEST_CASE(
    "UnixSocketBackend: a client sees the end of its connection at once, however many descriptors were used",
    "[console]") {
    const kvm_vmm::test::ScratchDirectory directory;
    EventManager events;
    UnixSocketBackend backend(ListeningSocket(socket_path(directory)), events);
    const vmsuperio::UniqueFd client = connect_to(socket_path(directory));
    events.run_once(0);
    backend.on_hangup();
    char byte = 0;
    CHECK(::read(client.get(), &byte, 1) == 0);
}

TEST_CASE("UnixSocketBackend: a client that cannot be served waits, is logged once, and is served later",
          "[console]") {
    if (vmsuperio_test::sanitizer_needs_descriptors) {
        VMSUPERIO_SKIP("the sanitizer opens a pipe to look at an object");
    }
    const kvm_vmm::test::ScratchDirectory directory;
    const std::string log_file = (directory / "log").string();
    open_log(log_file, std::nullopt);
    EventManager events;
    UnixSocketBackend backend(ListeningSocket(socket_path(directory)), events);
    const vmsuperio::UniqueFd client = connect_to(socket_path(directory));
    NoDescriptorLeft shortage;
    shortage.set(3);  // below every descriptor number that could become free
    for (int i = 0; i < 100; ++i) {
        events.run_once(0);
    }
    CHECK(backend.input_fd() == -1);
    shortage.lift();
    events.run_once(0);
    CHECK(backend.input_fd() == -1);  // it pauses instead of retrying in each turn of the event loop
    for (int i = 0; i < 10 && backend.input_fd() < 0; ++i) {
        events.run_once(2000);
    }
    REQUIRE(backend.input_fd() >= 0);
    CHECK(write(backend, "served") == 6);
    CHECK(received(client) == "served");
    close_log();
    const std::string text = kvm_vmm::test::slurp(log_file);
    CHECK(std::ranges::count(text, '\n') == 1);
    CHECK_THAT(text, Catch::Matchers::Contains("warning: a client of serial socket '" +
                                               socket_path(directory) + "' cannot be served now"));
}
