// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/listening_socket.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "child.hpp"
#include "scratch_directory.hpp"
#include "util/error.hpp"

using namespace kvm_vmm;
using kvm_vmm::test::ScratchDirectory;
using kvm_vmm::test::slurp;
namespace fs = std::filesystem;

namespace {

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof(address.sun_path));
    std::ranges::copy(path, address.sun_path);
    return address;
}

vmsuperio::UniqueFd socket_at(const std::string& path, int type = SOCK_STREAM) {
    const sockaddr_un address = address_of(path);
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    if (type == SOCK_STREAM) {
        REQUIRE(::listen(fd.get(), 4) == 0);
    }
    return fd;
}

// Whether a connection succeeds, or would if the queue were not full.
bool connects(const std::string& path) {
    const sockaddr_un address = address_of(path);
    const vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
           errno == EAGAIN;
}

struct stat status_of(const fs::path& path) {
    struct stat status{};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    return status;
}

// The line of the error if nothing can listen at `path`, otherwise empty.
std::string refusal(const std::string& path) {
    try {
        ListeningSocket socket(path);
        socket.listen();
        return {};
    } catch (const VmmError& error) {
        CHECK(error.code() == ExitCode::bad_file);
        return error.what();
    }
}

using Catch::Matchers::Contains;

}  // namespace

TEST_CASE("ListeningSocket: a path that is not a socket is refused and left as it is", "[socket][files]") {
    const ScratchDirectory directory;
    const fs::path file = directory.write("file", "precious");
    fs::permissions(file, fs::perms::owner_read);
    const fs::path fifo = directory / "fifo";
    REQUIRE(::mkfifo(fifo.c_str(), 0640) == 0);
    const fs::path folder = directory / "folder";
    fs::create_directory(folder);
    const fs::path link = directory / "link";
    fs::create_symlink("file", link);
    const fs::path dangling = directory / "dangling";
    fs::create_symlink("missing", dangling);
    const fs::path stale = directory / "stale";
    (void)socket_at(stale);
    const fs::path link_to_socket = directory / "link_to_socket";
    fs::create_symlink("stale", link_to_socket);
    std::vector<fs::path> paths{file, fifo, folder, link, dangling, link_to_socket};
    const fs::path device = directory / "device";
    if (::mknod(device.c_str(), S_IFCHR | 0600, 0x0103) == 0) {  // needs root
        paths.push_back(device);
    }
    for (const fs::path& path : paths) {
        INFO(path);
        const struct stat before = status_of(path);
        CHECK_THAT(refusal(path), Contains("'" + path.string() + "'") && Contains("not a socket"));
        const struct stat after = status_of(path);
        CHECK(after.st_ino == before.st_ino);
        CHECK(after.st_mode == before.st_mode);
        CHECK(after.st_ctim.tv_nsec == before.st_ctim.tv_nsec);
    }
    CHECK(slurp(file) == "precious");
    CHECK_FALSE(fs::exists(directory / "missing"));
    CHECK(S_ISSOCK(status_of(stale).st_mode));
    for (const char* const name : {"", ".", "..", "folder/", "/"}) {
        INFO(name);
        CHECK_THAT(refusal((directory / "x").parent_path().string() + "/" + name), Contains("directory"));
    }
}

TEST_CASE("ListeningSocket: a socket of any type that is in use is refused and keeps working",
          "[socket][files]") {
    const ScratchDirectory directory;
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
        const std::string path = (directory / ("socket" + std::to_string(type))).string();
        const vmsuperio::UniqueFd live = socket_at(path, type);
        const ino_t inode = status_of(path).st_ino;
        CHECK_FALSE(refusal(path).empty());
        CHECK(status_of(path).st_ino == inode);
        CHECK(connects(path) == (type == SOCK_STREAM));
    }
    // Its queue of clients is full.
    const std::string path = (directory / "busy").string();
    const vmsuperio::UniqueFd live = socket_at(path);
    REQUIRE(::listen(live.get(), 0) == 0);
    const sockaddr_un address = address_of(path);
    std::vector<vmsuperio::UniqueFd> clients;
    do {
        clients.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    } while (::connect(clients.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
             0);
    CHECK_THAT(refusal(path), Contains("another program listens there"));
    CHECK(S_ISSOCK(status_of(path).st_mode));
}

TEST_CASE("ListeningSocket: a socket that was left behind is replaced, and in the end the path is free",
          "[socket][files]") {
    const ScratchDirectory directory;
    const std::string path = (directory / "socket").string();
    (void)socket_at(path);
    REQUIRE_FALSE(connects(path));
    {
        ListeningSocket socket(path);
        CHECK_FALSE(connects(path));
        socket.listen();
        CHECK(connects(path));
    }
    CHECK_FALSE(fs::exists(fs::symlink_status(path)));
    // If listen() was never called, the existing socket stays.
    (void)socket_at(path);
    {
        const ListeningSocket socket(path);
    }
    CHECK(fs::is_socket(path));
}

TEST_CASE("ListeningSocket: in the end nothing is removed except the socket that was made",
          "[socket][files]") {
    const ScratchDirectory directory;
    const std::string path = (directory / "socket").string();
    SECTION("a file replaced it") {
        {
            ListeningSocket socket(path);
            socket.listen();
            fs::remove(path);
            directory.write("socket", "precious");
        }
        CHECK(slurp(path) == "precious");
    }
    SECTION("another program's socket replaced it") {
        auto socket = std::make_unique<ListeningSocket>(path);
        socket->listen();
        fs::remove(path);
        const vmsuperio::UniqueFd other = socket_at(path);
        socket.reset();
        CHECK(connects(path));
    }
    SECTION("it was moved away") {
        auto socket = std::make_unique<ListeningSocket>(path);
        socket->listen();
        fs::rename(path, directory / "elsewhere");
        socket.reset();
        CHECK(fs::is_socket(directory / "elsewhere"));
    }
    SECTION("its directory was renamed") {
        fs::create_directory(directory / "a");
        auto socket = std::make_unique<ListeningSocket>((directory / "a/socket").string());
        socket->listen();
        fs::rename(directory / "a", directory / "b");
        fs::create_directory(directory / "a");
        directory.write("a/socket", "precious");
        socket.reset();
        CHECK(slurp(directory / "a/socket") == "precious");
        CHECK(fs::is_empty(directory / "b"));
    }
}

TEST_CASE("ListeningSocket: a moved one is removed once, by its new owner", "[socket]") {
    const ScratchDirectory directory;
    const std::string path = (directory / "socket").string();
    auto first = std::make_unique<ListeningSocket>(path);
    first->listen();
    {
        const ListeningSocket second(std::move(*first));
        first.reset();
        CHECK(connects(path));
    }
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE("ListeningSocket: only its owner may connect, whatever the umask", "[socket][files]") {
    const ScratchDirectory directory;
    for (const mode_t mask : {0000U, 0022U, 0777U}) {
        const std::string path = (directory / "socket").string();
        const mode_t before = ::umask(mask);
        ListeningSocket socket(path);
        socket.listen();
        CHECK(::umask(before) == mask);
        CHECK((status_of(path).st_mode & 07777U) == 0600U);
    }
}

TEST_CASE("ListeningSocket: two spellings of a path are the same path, two names are not",
          "[socket][files]") {
    const ScratchDirectory directory;
    fs::create_directory(directory / "a");
    fs::create_symlink("a", directory / "b");
    const ListeningSocket first((directory / "a/socket").string());
    CHECK(ListeningSocket((directory / "a/../b/./socket").string()).place() == first.place());
    CHECK_FALSE(ListeningSocket((directory / "a/other").string()).place() == first.place());
    CHECK_FALSE(ListeningSocket((directory / "socket").string()).place() == first.place());
}

TEST_CASE("ListeningSocket: a path may have 107 bytes, and the message names the limit", "[socket][files]") {
    const ScratchDirectory directory;
    const std::string parent = (directory / "x").parent_path().string() + "/";
    const std::string longest = parent + std::string(107 - parent.size(), 'x');
    CHECK(refusal(longest).empty());
    CHECK_THAT(refusal(longest + "x"), Contains("108 bytes") && Contains("107"));
    CHECK_THAT(refusal(parent + "no/such"), Contains("No such file or directory"));
    CHECK_THAT(refusal(parent + "a\nb/c"), Contains("a\\x0ab/c'"));
}

TEST_CASE("ListeningSocket: of many that start at once exactly one listens, and its socket is at the path",
          "[socket][files]") {
    const ScratchDirectory directory;
    const std::string path = (directory / "socket").string();
    constexpr int programs = 6;
    for (int round = 0; round < 20; ++round) {
        (void)socket_at(path);  // left behind
        std::array<int, 2> start{};
        std::array<int, 2> result{};
        std::array<int, 2> end{};
        REQUIRE(::pipe2(start.data(), O_CLOEXEC) == 0);
        REQUIRE(::pipe2(result.data(), O_CLOEXEC) == 0);
        REQUIRE(::pipe2(end.data(), O_CLOEXEC) == 0);
        std::vector<pid_t> children;
        for (int i = 0; i < programs; ++i) {
            children.push_back(kvm_vmm::test::fork_child());
            if (children.back() == 0) {
                ::close(start[1]);
                ::close(end[1]);
                char byte = 0;
                (void)!::read(start[0], &byte, 1);
                std::optional<ListeningSocket> socket;
                try {
                    socket.emplace(path);
                    socket->listen();
                    byte = 'y';
                } catch (const VmmError&) {
                    byte = 'n';
                }
                (void)!::write(result[1], &byte, 1);
                (void)!::read(end[0], &byte, 1);
                socket.reset();
                ::_exit(0);
            }
        }
        ::close(start[1]);
        std::string results(programs, ' ');
        for (char& byte : results) {
            REQUIRE(::read(result[0], &byte, 1) == 1);
        }
        CHECK(std::ranges::count(results, 'y') == 1);
        CHECK(connects(path));
        ::close(end[1]);
        for (const pid_t child : children) {
            REQUIRE(::waitpid(child, nullptr, 0) == child);
        }
        CHECK_FALSE(fs::exists(path));
        for (const int fd : {start[0], result[0], result[1], end[0]}) {
            ::close(fd);
        }
        fs::remove(path);
    }
    CHECK(fs::is_empty(directory / "."));
}

TEST_CASE("ListeningSocket: if another program keeps a lock on the directory, the error is one line",
          "[socket]") {
    const ScratchDirectory directory;
    const vmsuperio::UniqueFd lock(::open((directory / ".").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(::flock(lock.get(), LOCK_SH) == 0);
    CHECK_THAT(refusal((directory / "socket").string()), Contains("lock of its directory"));
    CHECK(fs::is_empty(directory / "."));
}
