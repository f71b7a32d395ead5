// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Does what BusyBox has no command for, inside the guest or beside kvm_vmm on its host. Prints the results;
// any failure is one line and status 1.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/rtc.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <poll.h>
#include <random>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "guest_tool: %s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

int open_device(const char* path) {
    const int fd = ::open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        fail(path);
    }
    return fd;
}

template <class Argument>
void control(int fd, unsigned long request, Argument argument, const char* name) {
    if (::ioctl(fd, request, argument) != 0) {
        fail(name);
    }
}

long long ms_since(Clock::time_point start) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
}

// Waits until `fd` is ready; a device that stays silent is a failure, not a hang.
void wait_for(int fd, short events, int timeout_ms, const char* what) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    if (::poll(&entry, 1, timeout_ms) != 1) {
        errno = ETIMEDOUT;
        fail(what);
    }
}

// Sends random bytes through a port in loopback mode (MCR.LOOP) and compares what comes back.
void loopback(const char* tty, std::size_t size) {
    const int fd = open_device(tty);
    termios mode{};
    if (::tcgetattr(fd, &mode) != 0) {
        fail("tcgetattr");
    }
    ::cfmakeraw(&mode);
    mode.c_cflag |= CLOCAL;
    mode.c_cflag &= ~CRTSCTS;
    ::cfsetspeed(&mode, B115200);
    if (::tcsetattr(fd, TCSAFLUSH, &mode) != 0) {
        fail("tcsetattr");
    }
    constexpr int modem_loop = 0x8000;  // TIOCM_LOOP of <asm/termios.h>, which does not go with <termios.h>
    const int lines = modem_loop;
    // Not TIOCMSET, which would turn OUT2 off and with it the port's interrupts.
    control(fd, TIOCMBIS, &lines, "TIOCMBIS");
    std::mt19937 random(16550);
    std::vector<std::uint8_t> block(256);
    std::vector<std::uint8_t> back(block.size());
    for (std::size_t done = 0; done < size; done += block.size()) {
        for (std::uint8_t& byte : block) {
            byte = static_cast<std::uint8_t>(random());
        }
        for (std::size_t sent = 0; sent < block.size();) {
            wait_for(fd, POLLOUT, 10'000, "write");
            const ssize_t count = ::write(fd, block.data() + sent, block.size() - sent);
            if (count < 0) {
                fail("write");
            }
            sent += static_cast<std::size_t>(count);
        }
        for (std::size_t read = 0; read < back.size();) {
            wait_for(fd, POLLIN, 10'000, "read");
            const ssize_t count = ::read(fd, back.data() + read, back.size() - read);
            if (count <= 0) {
                fail("read");
            }
            read += static_cast<std::size_t>(count);
        }
        if (back != block) {
            errno = EIO;
            fail("block at " + std::to_string(done) + " came back changed");
        }
    }
    control(fd, TIOCMBIC, &lines, "TIOCMBIC");
    std::printf("loopback of %zu bytes is right\n", size);
}

// An alarm of the clock's own, by interrupt.
void rtc_alarm(int seconds) {
    const int fd = open_device("/dev/rtc0");
    rtc_time now{};
    control(fd, RTC_RD_TIME, &now, "RTC_RD_TIME");
    std::tm time{};
    std::memcpy(&time, &now, sizeof(int) * 9);  // the same first nine fields, by rtc_time's definition
    const std::time_t at = ::timegm(&time) + seconds;
    ::gmtime_r(&at, &time);
    rtc_wkalrm alarm{};
    alarm.enabled = 1;
    std::memcpy(&alarm.time, &time, sizeof(int) * 9);
    const auto start = Clock::now();
    control(fd, RTC_WKALM_SET, &alarm, "RTC_WKALM_SET");
    wait_for(fd, POLLIN, (seconds + 10) * 1000, "alarm");
    unsigned long data = 0;
    if (::read(fd, &data, sizeof(data)) != sizeof(data) || (data & RTC_AF) == 0) {
        fail("alarm flag");
    }
    std::printf("alarm after %lld ms\n", ms_since(start));
}

// Interrupts once a second (RTC_UIE), which Linux makes of the clock's alarm.
void rtc_updates(int count) {
    const int fd = open_device("/dev/rtc0");
    control(fd, RTC_UIE_ON, 0, "RTC_UIE_ON");
    const auto start = Clock::now();
    for (int i = 0; i < count; ++i) {
        wait_for(fd, POLLIN, 10'000, "update");
        unsigned long data = 0;
        if (::read(fd, &data, sizeof(data)) != sizeof(data)) {
            fail("update");
        }
    }
    control(fd, RTC_UIE_OFF, 0, "RTC_UIE_OFF");
    std::printf("%d updates in %lld ms\n", count, ms_since(start));
}

void rtc_periodic(int frequency, int count) {
    const int fd = open_device("/dev/rtc0");
    control(fd, RTC_IRQP_SET, static_cast<unsigned long>(frequency), "RTC_IRQP_SET");
    control(fd, RTC_PIE_ON, 0, "RTC_PIE_ON");
    const auto start = Clock::now();
    for (int seen = 0; seen < count;) {
        wait_for(fd, POLLIN, 10'000, "periodic interrupt");
        unsigned long data = 0;
        if (::read(fd, &data, sizeof(data)) != sizeof(data)) {
            fail("periodic interrupt");
        }
        seen += static_cast<int>(data >> 8U);
    }
    control(fd, RTC_PIE_OFF, 0, "RTC_PIE_OFF");
    std::printf("%d interrupts in %lld ms\n", count, ms_since(start));
}

// Passes stdin on to stdout. Each time `marker` has come by, reads nothing for so many seconds. What waits in
// between is little more than the least that a pipe holds.
void pausing_cat(const std::string& marker, int seconds) {
    if (::fcntl(STDIN_FILENO, F_SETPIPE_SZ, 4096) < 0) {
        fail("stdin");
    }
    std::string seen;
    std::array<char, 4096> buffer{};
    for (ssize_t count = 0; (count = ::read(STDIN_FILENO, buffer.data(), buffer.size())) > 0;) {
        const auto size = static_cast<std::size_t>(count);
        if (::write(STDOUT_FILENO, buffer.data(), size) != count) {
            fail("stdout");
        }
        seen.append(buffer.data(), size);
        if (seen.find(marker) != std::string::npos) {
            seen.clear();
            ::sleep(static_cast<unsigned>(seconds));
        } else if (seen.size() > marker.size()) {
            seen.erase(0, seen.size() - marker.size());
        }
    }
}

int connect_to(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        fail(path);
    }
    return fd;
}

// Opens a terminal, or connects to a socket ("unix:PATH").
int open_target(const std::string& target) {
    constexpr std::string_view scheme = "unix:";
    return target.starts_with(scheme) ? connect_to(target.substr(scheme.size()))
                                      : open_device(target.c_str());
}

// Opens it, reads nothing for so many milliseconds, and leaves.
void visit(const std::string& target, unsigned milliseconds) {
    const int fd = open_target(target);
    ::usleep(milliseconds * 1000);
    ::close(fd);
}

// Opens it, sends `text`, and prints what comes back until `expected` is in it.
void talk(const std::string& target, const std::string& text, const std::string& expected) {
    const int fd = open_target(target);
    if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
        fail("write");
    }
    std::string heard;
    while (heard.find(expected) == std::string::npos) {
        wait_for(fd, POLLIN, 100'000, expected.c_str());
        std::array<char, 4096> buffer{};
        const ssize_t count = ::read(fd, buffer.data(), buffer.size());
        if (count <= 0) {
            fail("end of " + target);
        }
        std::fwrite(buffer.data(), 1, static_cast<std::size_t>(count), stdout);
        std::fflush(stdout);
        heard.append(buffer.data(), static_cast<std::size_t>(count));
    }
}

sockaddr_vm vsock_address(unsigned cid, unsigned port) {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = port;
    return address;
}

int vsock_socket() {
    const int fd = ::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        fail("AF_VSOCK");
    }
    return fd;
}

void send_all(int fd, const std::uint8_t* bytes, std::size_t size) {
    while (size != 0) {
        const ssize_t count = ::send(fd, bytes, size, MSG_NOSIGNAL);
        if (count <= 0) {
            fail("send");
        }
        bytes += count;
        size -= static_cast<std::size_t>(count);
    }
}

// Returns the bytes until the peer closes its direction.
std::size_t echo(int fd) {
    std::vector<std::uint8_t> bytes(64 * 1024);
    std::size_t total = 0;
    for (;;) {
        wait_for(fd, POLLIN, 30'000, "recv");
        const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), 0);
        if (count < 0) {
            fail("recv");
        }
        if (count == 0) {
            break;
        }
        send_all(fd, bytes.data(), static_cast<std::size_t>(count));
        total += static_cast<std::size_t>(count);
    }
    if (::shutdown(fd, SHUT_WR) != 0) {
        fail("shutdown");
    }
    return total;
}

// When exchange() closes its direction: after its last byte, or only after all of them have come back.
enum class Close { early, late };

// Sends random bytes while it compares what comes back, then closes its direction and expects the end.
void exchange(int fd, std::size_t size, Close close = Close::early) {
    std::mt19937 sent_random(5);
    std::mt19937 got_random(5);
    std::vector<std::uint8_t> block(64 * 1024);
    std::size_t sent = 0;
    std::size_t got = 0;
    std::size_t from = block.size();
    const auto start = Clock::now();
    for (bool open = true;;) {
        if (from == block.size() && sent < size) {
            for (std::uint8_t& byte : block) {
                byte = static_cast<std::uint8_t>(sent_random());
            }
            from = 0;
        }
        const std::size_t rest = std::min(block.size() - from, size - sent);
        if (open && rest == 0 && (close == Close::early || got == size)) {
            open = false;
            if (::shutdown(fd, SHUT_WR) != 0) {
                fail("shutdown");
            }
        }
        pollfd entry{
            .fd = fd, .events = static_cast<short>(rest != 0 ? POLLIN | POLLOUT : POLLIN), .revents = 0};
        if (::poll(&entry, 1, 30'000) != 1) {
            errno = ETIMEDOUT;
            fail("poll after " + std::to_string(sent) + " bytes sent and " + std::to_string(got) +
                 " received");
        }
        if (rest != 0 && (entry.revents & POLLOUT) != 0) {
            const ssize_t count = ::send(fd, block.data() + from, rest, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (count < 0 && errno != EAGAIN) {
                fail("send");
            }
            from += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
            sent += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
        }
        if ((entry.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            std::array<std::uint8_t, 16 * 1024> bytes{};
            const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
            if (count < 0 && errno != EAGAIN) {
                fail("recv");
            }
            if (count == 0) {
                break;
            }
            for (ssize_t i = 0; i < count; ++i, ++got) {
                if (bytes[static_cast<std::size_t>(i)] != static_cast<std::uint8_t>(got_random())) {
                    errno = EIO;
                    fail("byte " + std::to_string(got) + " came back changed");
                }
            }
        }
    }
    if (got != size) {
        errno = EIO;
        fail("the end came after " + std::to_string(got) + " bytes");
    }
    std::printf("exchanged %zu bytes in %lld ms\n", size, ms_since(start));
}

// Serves `connections` one after the other: everything comes back.
void serve_echo(int listener, const sockaddr* address, socklen_t size, int connections) {
    if (::bind(listener, address, size) != 0 || ::listen(listener, 8) != 0) {
        fail("listen");
    }
    std::printf("listening\n");
    std::fflush(stdout);
    for (int i = 0; i < connections; ++i) {
        wait_for(listener, POLLIN, 120'000, "accept");
        const int fd = ::accept(listener, nullptr, nullptr);
        if (fd < 0) {
            fail("accept");
        }
        std::printf("echoed %zu bytes\n", echo(fd));
        std::fflush(stdout);
        ::close(fd);
    }
}

void vsock_echo(unsigned port, int connections) {
    const sockaddr_vm address = vsock_address(VMADDR_CID_ANY, port);
    serve_echo(vsock_socket(), reinterpret_cast<const sockaddr*>(&address), sizeof(address), connections);
}

sockaddr_in tcp_address(const char* host, unsigned port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        errno = EINVAL;
        fail(host);
    }
    return address;
}

int tcp_socket() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        fail("AF_INET");
    }
    return fd;
}

void tcp_echo(unsigned port, int connections) {
    const sockaddr_in address = tcp_address("0.0.0.0", port);
    serve_echo(tcp_socket(), reinterpret_cast<const sockaddr*>(&address), sizeof(address), connections);
}

void tcp_exchange(const char* host, unsigned port, std::size_t size) {
    const int fd = tcp_socket();
    const sockaddr_in address = tcp_address(host, port);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        fail("connect");
    }
    // passt of Debian 12 ignores acknowledgements of a guest that has closed its direction, so that what is still to
    // come gets stuck.
    exchange(fd, size, Close::late);
    ::close(fd);
}

void vsock_exchange(unsigned cid, unsigned port, std::size_t size) {
    const int fd = vsock_socket();
    const sockaddr_vm address = vsock_address(cid, port);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        fail("connect");
    }
    exchange(fd, size);
    ::close(fd);
}

sockaddr_un unix_socket_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    return address;
}

void unix_echo(const std::string& path) {
    const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un address = unix_socket_address(path);
    if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(listener, 8) != 0) {
        fail(path);
    }
    wait_for(listener, POLLIN, 120'000, "accept");
    const int fd = ::accept(listener, nullptr, nullptr);
    if (fd < 0) {
        fail("accept");
    }
    std::printf("echoed %zu bytes\n", echo(fd));
    ::close(fd);
}

// Connects through the VMM's socket, again and again until the guest accepts.
void unix_exchange(const std::string& path, unsigned port, std::size_t size) {
    const auto start = Clock::now();
    for (;;) {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const sockaddr_un address = unix_socket_address(path);
        const std::string line = "CONNECT " + std::to_string(port) + "\n";
        if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 &&
            ::send(fd, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size())) {
            std::string answer;
            char byte = 0;
            while (::recv(fd, &byte, 1, 0) == 1 && byte != '\n') {
                answer += byte;
            }
            if (answer.rfind("OK ", 0) == 0) {
                std::printf("%s\n", answer.c_str());
                exchange(fd, size);
                ::close(fd);
                return;
            }
            if (!answer.empty()) {
                errno = EPROTO;
                fail("a text instead of OK: " + answer);
            }
        }
        ::close(fd);
        if (ms_since(start) > 120'000) {
            errno = ETIMEDOUT;
            fail(path);
        }
        ::usleep(100'000);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    if (words.size() == 3 && words[0] == "loopback") {
        loopback(words[1].c_str(), std::stoul(words[2]));
    } else if (words.size() == 2 && words[0] == "rtc-alarm") {
        rtc_alarm(std::stoi(words[1]));
    } else if (words.size() == 2 && words[0] == "rtc-updates") {
        rtc_updates(std::stoi(words[1]));
    } else if (words.size() == 3 && words[0] == "rtc-periodic") {
        rtc_periodic(std::stoi(words[1]), std::stoi(words[2]));
    } else if (words.size() == 3 && words[0] == "pausing-cat" && !words[1].empty()) {
        pausing_cat(words[1], std::stoi(words[2]));
    } else if (words.size() == 4 && words[0] == "talk") {
        talk(words[1], words[2], words[3]);
    } else if (words.size() == 3 && words[0] == "visit") {
        visit(words[1], static_cast<unsigned>(std::stoul(words[2])));
    } else if (words.size() == 3 && words[0] == "vsock-echo") {
        vsock_echo(static_cast<unsigned>(std::stoul(words[1])), std::stoi(words[2]));
    } else if (words.size() == 4 && words[0] == "vsock-exchange") {
        vsock_exchange(static_cast<unsigned>(std::stoul(words[1])),
                       static_cast<unsigned>(std::stoul(words[2])), std::stoul(words[3]));
    } else if (words.size() == 3 && words[0] == "tcp-echo") {
        tcp_echo(static_cast<unsigned>(std::stoul(words[1])), std::stoi(words[2]));
    } else if (words.size() == 4 && words[0] == "tcp-exchange") {
        tcp_exchange(words[1].c_str(), static_cast<unsigned>(std::stoul(words[2])), std::stoul(words[3]));
    } else if (words.size() == 2 && words[0] == "unix-echo") {
        unix_echo(words[1]);
    } else if (words.size() == 4 && words[0] == "unix-exchange") {
        unix_exchange(words[1], static_cast<unsigned>(std::stoul(words[2])), std::stoul(words[3]));
    } else {
        std::fputs(
            "usage: guest_tool loopback TTY BYTES | rtc-alarm S | rtc-updates N | rtc-periodic HZ N |\n"
            "                  pausing-cat MARKER SECONDS | talk TTY|unix:PATH TEXT EXPECTED |\n"
            "                  visit TTY|unix:PATH MS |\n"
            "                  vsock-echo PORT CONNECTIONS | vsock-exchange CID PORT BYTES |\n"
            "                  tcp-echo PORT CONNECTIONS | tcp-exchange ADDRESS PORT BYTES |\n"
            "                  unix-echo PATH | unix-exchange PATH PORT BYTES\n",
            stderr);
        return 2;
    }
    return 0;
}
