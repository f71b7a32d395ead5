// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Does what BusyBox has no command for, inside the guest or beside kvm_vmm on its host. Prints the results;
// any failure is one line and status 1.
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/rtc.h>
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
    } else {
        std::fputs(
            "usage: guest_tool loopback TTY BYTES | rtc-alarm S | rtc-updates N | rtc-periodic HZ N |\n"
            "                  pausing-cat MARKER SECONDS | talk TTY|unix:PATH TEXT EXPECTED |\n"
            "                  visit TTY|unix:PATH MS\n",
            stderr);
        return 2;
    }
    return 0;
}
