// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Serial ports whose peers come and go: clients of a socket, programs at a pseudo-terminal, readers of a
// FIFO.
#include <algorithm>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): ptsname_r is not in <cstdlib>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "console/pty_backend.hpp"
#include "console/unix_socket_backend.hpp"
#include "serial_console_harness.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

std::string socket_path() {
    return (std::filesystem::temp_directory_path() / ("kvm_vmm_peers_" + std::to_string(::getpid())))
        .string();
}

/// A port to which peers can connect. The guest has not opened the port: it does not listen.
class Port {
public:
    enum class Kind { socket, terminal };

    explicit Port(Kind kind)
        : kind_(kind), harness([kind](EventManager& events) { return make(kind, events); }) {
        std::signal(SIGPIPE, SIG_DFL);
        harness.write(interrupt_enable, 0x00);
    }

    /// Connects a new peer, which the port may not have noticed yet.
    vmsuperio::UniqueFd come(int flags = O_RDWR) {
        if (kind_ == Kind::terminal) {
            std::array<char, 64> name{};
            REQUIRE(::ptsname_r(master(), name.data(), name.size()) == 0);
            vmsuperio::UniqueFd fd(::open(name.data(), flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
            REQUIRE(fd);
            return fd;
        }
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::ranges::copy(socket_path(), address.sun_path);
        vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
        return fd;
    }
    /// Waits until the port has noticed that a peer has connected, or that it has left.
    void notice(bool there) {
        for (int i = 0; i < 1000 && (harness.backend().input_fd() >= 0) != there; ++i) {
            harness.loop(10);
        }
        REQUIRE((harness.backend().input_fd() >= 0) == there);
    }
    vmsuperio::UniqueFd come_and_be_noticed() {
        vmsuperio::UniqueFd peer = come();
        notice(true);
        return peer;
    }
    /// Everything that the peer receives until nothing more arrives.
    std::string received(const vmsuperio::UniqueFd& peer) {
        std::string text;
        for (int idle = 0; idle < 5;) {
            const bool busy = harness.loop() != 0;
            const std::string more = read_all(peer.get());
            text += more;
            pollfd entry{.fd = peer.get(), .events = POLLIN, .revents = 0};
            idle = busy || !more.empty() ? 0 : idle + 1;
            (void)::poll(&entry, 1, idle == 0 ? 0 : 2);
        }
        return text;
    }
    /// Sends as a guest that waits for the transmitter, which must not stall.
    void send(const std::string& text) { REQUIRE(harness.send(text) == text.size()); }

private:
    static std::unique_ptr<SerialBackend> make(Kind kind, EventManager& events) {
        if (kind == Kind::terminal) {
            return std::make_unique<PtyBackend>(events);
        }
        return std::make_unique<UnixSocketBackend>(socket_path(), events);
    }
    // The descriptor of the newest pseudo-terminal of this process.
    static int master() {
        int found = -1;
        for (int fd = 3; fd < 256; ++fd) {
            unsigned number = 0;
            if (::isatty(fd) != 0 && ::ioctl(fd, TIOCGPTN, &number) == 0) {
                found = fd;
            }
        }
        REQUIRE(found >= 0);
        return found;
    }

    Kind kind_;

public:
    Harness harness;
};

// Text in which each part shows its position.
std::string numbered(std::size_t size) {
    std::string text;
    for (std::size_t i = 0; text.size() < size; ++i) {
        text += std::to_string(i) + '\n';
    }
    text.resize(size);
    return text;
}

constexpr std::size_t mebibyte = 1UL << 20U;
constexpr std::size_t history = OutputChannel::history_size;

const auto both_kinds = [] { return GENERATE(Port::Kind::socket, Port::Kind::terminal); };

}  // namespace

TEST_CASE(
    "Serial peers: before the first peer connects, the transmitter never stalls, and the first peer "
    "sees the last 64 KiB",
    "[console][peers]") {
    Port port(both_kinds());
    const std::string text =
        numbered(GENERATE(std::size_t{0}, std::size_t{10}, history - 1, history, history + 1, 3 * mebibyte));
    port.send(text);
    CHECK(port.harness.console().unsent() == 0);
    const vmsuperio::UniqueFd first = port.come_and_be_noticed();
    const std::string shown = text.substr(text.size() - std::min(text.size(), history));
    CHECK((port.received(first) == shown));
    port.send("live");
    CHECK(port.received(first) == "live");
    CHECK(port.harness.counts().bytes_lost == 0);
    CHECK(port.harness.counts().bytes_written == text.size() + 4);
}

TEST_CASE("Serial peers: output sent between two peers is delivered to the second one, once",
          "[console][peers]") {
    Port port(both_kinds());
    port.send("before");
    {
        const vmsuperio::UniqueFd first = port.come_and_be_noticed();
        CHECK(port.received(first) == "before");
        port.send("to the first");
        CHECK(port.received(first) == "to the first");
    }
    port.notice(false);
    port.send("between");
    {
        const vmsuperio::UniqueFd second = port.come_and_be_noticed();
        CHECK(port.received(second) == "between");
    }
    port.notice(false);
    const vmsuperio::UniqueFd third = port.come_and_be_noticed();
    CHECK(port.received(third).empty());
}

TEST_CASE("Serial peers: if a peer reads nothing and leaves, the output that waited for it is discarded",
          "[console][peers]") {
    Port port(both_kinds());
    vmsuperio::UniqueFd first = port.come_and_be_noticed();
    const std::string text = numbered(2 * mebibyte);
    const std::size_t sent = port.harness.send(text);
    CHECK(sent >= OutputQueue::capacity);  // the kernel keeps some as well
    REQUIRE(sent < text.size());
    REQUIRE(port.harness.console().unsent() > OutputQueue::capacity);
    port.harness.settle();  // the kernel may take some more
    const std::size_t waiting = port.harness.console().unsent();
    CHECK(waiting > OutputQueue::capacity / 2);
    // The guest does not listen, so nothing is read; even so, the peer's end is noticed, once.
    first.reset();
    port.notice(false);
    CHECK(port.harness.console().unsent() == 0);
    CHECK(port.harness.counts().bytes_lost >= waiting - 1);  // the UART's own byte is sent later
    for (int i = 0; i < 20; ++i) {
        CHECK(port.harness.loop() == 0);
    }
    // The transmitter continues. What is sent now is for the next peer, which gets no old output.
    port.send("between\n");
    CHECK(port.harness.console().unsent() == 0);
    const vmsuperio::UniqueFd second = port.come_and_be_noticed();
    port.send("live\n");
    std::string shown = port.received(second);
    // The UART's own FIFO still held the guest's latest bytes, which no peer had been offered.
    shown = shown.substr(shown.find("between"));
    CHECK(shown == "between\nlive\n");
}

TEST_CASE("Serial peers: the end of an idle peer is noticed, whatever the guest does", "[console][peers]") {
    Port port(both_kinds());
    port.harness.write(interrupt_enable, GENERATE(std::uint8_t{0x00}, std::uint8_t{0x01}));
    for (int round = 0; round < 3; ++round) {
        {
            const vmsuperio::UniqueFd peer = port.come_and_be_noticed();
            port.harness.settle();
        }
        port.notice(false);
        port.harness.settle();
    }
    const vmsuperio::UniqueFd peer = port.come_and_be_noticed();
    port.send("still here");
    CHECK(port.received(peer) == "still here");
}

TEST_CASE("Serial peers: with the receiver's FIFO full, the end of a peer is noticed", "[console][peers]") {
    Port port(both_kinds());
    port.harness.write(interrupt_enable, 0x01);
    const std::string typed = numbered(3000);
    {
        const vmsuperio::UniqueFd peer = port.come_and_be_noticed();
        REQUIRE(::write(peer.get(), typed.data(), typed.size()) == 3000);
        port.harness.settle();
    }
    port.notice(false);
    {
        const vmsuperio::UniqueFd next = port.come_and_be_noticed();
        port.send("for the next one");
        CHECK(port.received(next) == "for the next one");
        REQUIRE(::write(next.get(), "!", 1) == 1);
        port.harness.settle();
    }
    // The input of both peers arrives in order, although both have left.
    CHECK((port.harness.drain(4000) == typed + "!"));
}

TEST_CASE("Serial peers: the input of a peer that connects, writes and leaves at once arrives",
          "[console][peers]") {
    Port port(both_kinds());
    const bool listening = GENERATE(true, false);
    port.harness.write(interrupt_enable, listening ? 0x01 : 0x00);
    port.send("remembered");
    std::string expected;
    for (int i = 0; i < 3; ++i) {
        const std::string typed = "ls " + std::to_string(i) + '\n';
        expected += typed;
        {
            const vmsuperio::UniqueFd visitor = port.come(O_WRONLY);
            REQUIRE(::write(visitor.get(), typed.data(), typed.size()) == static_cast<ssize_t>(typed.size()));
        }
        for (int turn = 0; turn < 20; ++turn) {
            port.harness.loop(10);
        }
        if (listening) {
            CHECK((port.harness.read(line_status) & data_ready) != 0);
        }
    }
    port.harness.write(interrupt_enable, 0x01);
    CHECK(port.harness.drain(100) == expected);
    // These peers did not read: the remembered output is delivered to the first one that does.
    const vmsuperio::UniqueFd reader = port.come_and_be_noticed();
    CHECK(port.received(reader) == "remembered");
}

TEST_CASE("Serial peers: the kept input of peers that have left is bounded if the guest reads nothing",
          "[console][peers]") {
    Port port(Port::Kind::socket);
    const std::string typed(100'000, 't');
    for (int i = 0; i < 20; ++i) {
        {
            const vmsuperio::UniqueFd visitor = port.come();
            REQUIRE(::write(visitor.get(), typed.data(), typed.size()) > 0);
        }
        port.harness.settle();
    }
    CHECK(port.harness.backend().read_ahead().size() == InputQueue::capacity);
}

TEST_CASE("Serial peers: a client that has shut down one direction is served in the other",
          "[console][peers]") {
    Port port(Port::Kind::socket);
    port.harness.write(interrupt_enable, 0x01);
    vmsuperio::UniqueFd client = port.come_and_be_noticed();
    SECTION("its sending") {
        REQUIRE(::write(client.get(), "ls\n", 3) == 3);
        REQUIRE(::shutdown(client.get(), SHUT_WR) == 0);
        CHECK(port.harness.drain(3) == "ls\n");
        port.harness.settle();
        port.send("file\n");
        CHECK(port.received(client) == "file\n");
        // This is more than the kernel takes at once.
        const std::string text = numbered(mebibyte);
        port.send(text);
        CHECK((port.received(client) == text));
        client.reset();
        port.notice(false);
        CHECK(port.harness.counts().bytes_lost == 0);
    }
    SECTION("its sending, at once, while the guest does not listen") {
        port.harness.write(interrupt_enable, 0x00);
        REQUIRE(::write(client.get(), "ls\n", 3) == 3);
        REQUIRE(::shutdown(client.get(), SHUT_WR) == 0);
        port.harness.settle();
        port.send("booting\n");
        CHECK(port.received(client) == "booting\n");
        port.harness.write(interrupt_enable, 0x01);
        CHECK(port.harness.drain(3) == "ls\n");
        port.send("file\n");
        CHECK(port.received(client) == "file\n");
    }
    SECTION("its receiving") {
        REQUIRE(::shutdown(client.get(), SHUT_RD) == 0);
        port.harness.settle();
        port.send("kept for the next one");
        REQUIRE(::write(client.get(), "heard", 5) == 5);
        CHECK(port.harness.drain(5) == "heard");
        CHECK(port.harness.backend().input_fd() >= 0);
        client.reset();
        port.notice(false);
        const vmsuperio::UniqueFd next = port.come_and_be_noticed();
        CHECK(port.received(next) == "kept for the next one");
    }
    SECTION("both") {
        REQUIRE(::shutdown(client.get(), SHUT_RDWR) == 0);
        port.notice(false);
    }
}

TEST_CASE("Serial peers: a client that waits for its turn is served when the first one has left",
          "[console][peers]") {
    Port port(Port::Kind::socket);
    vmsuperio::UniqueFd first = port.come_and_be_noticed();
    const vmsuperio::UniqueFd second = port.come();
    {
        const vmsuperio::UniqueFd gone = port.come();
        REQUIRE(::write(gone.get(), "gone\n", 5) == 5);
    }
    port.harness.settle();
    port.send("first");
    CHECK(port.received(second).empty());
    CHECK(port.received(first) == "first");
    first.reset();
    port.notice(false);
    port.send("between");
    port.notice(true);
    CHECK(port.received(second) == "between");
    CHECK((port.harness.read(line_status) & data_ready) == 0);
}

TEST_CASE("Serial peers: a client that leaves with unread output causes an error, which ends nothing",
          "[console][peers]") {
    Port port(Port::Kind::socket);
    vmsuperio::UniqueFd client = port.come_and_be_noticed();
    REQUIRE(::write(client.get(), "typed", 5) == 5);
    port.send("unread");
    port.harness.settle();
    client.reset();  // resets the connection, as the client had not read
    // The guest's write detects it first.
    port.send("for the next one");
    port.notice(false);
    port.harness.write(interrupt_enable, 0x01);
    CHECK(port.harness.drain(5) == "typed");
    const vmsuperio::UniqueFd next = port.come_and_be_noticed();
    CHECK(port.received(next) == "for the next one");
    CHECK(port.harness.counts().bytes_lost == 0);
}

TEST_CASE("Serial peers: the next program at a terminal does not get output that the last one did not read",
          "[console][peers]") {
    Port port(Port::Kind::terminal);
    const std::size_t size = GENERATE(10U, 4096U, 8000U, 100'000U);
    vmsuperio::UniqueFd first = port.come_and_be_noticed();
    port.send(std::string(size, 'o'));
    port.harness.settle();
    first.reset();
    port.notice(false);
    const vmsuperio::UniqueFd second = port.come_and_be_noticed();
    CHECK(port.received(second).empty());
    port.send("new");
    CHECK(port.received(second) == "new");
}

TEST_CASE("Serial peers: the settings of a terminal stay as the last program left them", "[console][peers]") {
    Port port(Port::Kind::terminal);
    {
        const vmsuperio::UniqueFd program = port.come_and_be_noticed();
        termios mode{};
        REQUIRE(::tcgetattr(program.get(), &mode) == 0);
        CHECK((mode.c_lflag & (ICANON | ECHO)) == 0);
        ::cfsetspeed(&mode, B9600);
        REQUIRE(::tcsetattr(program.get(), TCSANOW, &mode) == 0);
    }
    port.notice(false);
    const vmsuperio::UniqueFd program = port.come_and_be_noticed();
    termios mode{};
    REQUIRE(::tcgetattr(program.get(), &mode) == 0);
    CHECK(::cfgetospeed(&mode) == B9600);
}

TEST_CASE("Serial peers: the reader of a FIFO given as a file may leave, and another one may open it",
          "[console][peers]") {
    std::signal(SIGPIPE, SIG_DFL);
    const std::string path = socket_path() + "_fifo";
    (void)::unlink(path.c_str());
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    vmsuperio::UniqueFd reader;
    const auto open_reader = [&] {
        reader = vmsuperio::UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        REQUIRE(reader);
    };
    open_reader();
    {
        Harness harness([&](EventManager& events) {
            SerialTarget target{.kind = SerialConfig::Kind::file, .file = {}, .socket = {}};
            target.file.emplace("serial file", path, OutputFile::Content::discarded).keep();
            return open_serial_backend(std::move(target), events);
        });
        const std::string text(mebibyte, 'f');
        REQUIRE(harness.send(text) == text.size());
        CHECK(harness.console().unsent() != 0);
        harness.settle();
        reader.reset();
        harness.settle();
        CHECK(harness.console().unsent() == 0);
        CHECK(harness.counts().bytes_lost > 0);
        REQUIRE(harness.send("nobody") == 6);
        CHECK(harness.console().unsent() == 0);
        open_reader();
        (void)read_all(reader.get());  // the bytes that the kernel kept
        REQUIRE(harness.send("again") == 5);
        harness.settle();
        CHECK(read_all(reader.get()) == "again");
    }
    ::unlink(path.c_str());
}

TEST_CASE("Serial peers: standard output may be a socket whose peer leaves", "[console][peers]") {
    std::signal(SIGPIPE, SIG_DFL);
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    const vmsuperio::UniqueFd ours(ends[0]);
    vmsuperio::UniqueFd peer(ends[1]);
    // Once as one descriptor for both directions, and once as a descriptor for each.
    const vmsuperio::UniqueFd copy(::fcntl(ours.get(), F_DUPFD_CLOEXEC, 0));
    Harness harness(ours.get(), GENERATE(true, false) ? ours.get() : copy.get());
    const std::string text(mebibyte, 's');
    REQUIRE(harness.send(text) == text.size());
    REQUIRE(::write(peer.get(), "typed", 5) == 5);
    CHECK(harness.drain(5) == "typed");
    // The end of one direction does not end the other.
    REQUIRE(::shutdown(peer.get(), SHUT_WR) == 0);
    harness.settle();
    CHECK(harness.console().unsent() != 0);
    peer.reset();
    harness.settle();
    CHECK(harness.console().unsent() == 0);
    REQUIRE(harness.send("nobody") == 6);
    CHECK(harness.console().unsent() == 0);
    harness.settle();
}

TEST_CASE("Serial peers: a terminal that hangs up ends the input, and the guest continues",
          "[console][peers]") {
    std::signal(SIGPIPE, SIG_DFL);
    vmsuperio::UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(master);
    REQUIRE(::unlockpt(master.get()) == 0);
    std::array<char, 64> name{};
    REQUIRE(::ptsname_r(master.get(), name.data(), name.size()) == 0);
    const vmsuperio::UniqueFd terminal(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(terminal);
    Harness harness(terminal.get(), terminal.get(), SerialBackend::Input::keyboard);
    const std::string text(mebibyte, 'x');
    CHECK(harness.send(text) > 0);
    harness.settle();
    master.reset();
    harness.settle();
    CHECK(harness.console().unsent() == 0);
    REQUIRE(harness.send("nobody") == 6);
    harness.settle();
}
