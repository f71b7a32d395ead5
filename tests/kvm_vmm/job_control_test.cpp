// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// kvm_vmm as a job of a shell: in the foreground of a real controlling terminal, in the background, stopped
// and continued.
#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "program.hpp"

using namespace kvm_vmm::test;

namespace {

// Writes '.', and then echoes: waits for LSR.DR, reads, writes back.
const std::vector<std::uint8_t> echo_code{0x66, 0xBA, 0xF8, 0x03, 0xB0, '.',  0xEE, 0x66,
                                          0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB,
                                          0x66, 0xBA, 0xF8, 0x03, 0xEC, 0xEE, 0xEB, 0xEF};

bool same(const termios& a, const termios& b) {
    return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag &&
           a.c_lflag == b.c_lflag && std::memcmp(a.c_cc, b.c_cc, sizeof(a.c_cc)) == 0;
}

template <class Condition>
bool eventually(const Condition& condition) {
    for (int i = 0; i < 1500; ++i) {
        if (condition()) {
            return true;
        }
        ::usleep(10'000);
    }
    return false;
}

/// A shell with job control, as far as one job is concerned: a session with a terminal, whose foreground
/// process group it sets. It does not set the terminal's modes; the tests do that as shells would.
class Shell {
public:
    Shell(const std::vector<std::string>& arguments, bool in_front) {
        REQUIRE(::openpty(&master_, &slave_, nullptr, nullptr, nullptr) == 0);
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
        leader_ = fork_child();
        if (leader_ == 0) {
            ::close(ends[0]);
            ::close(master_);
            lead(ends[1], arguments, in_front);
        }
        ::close(ends[1]);
        control_ = ends[0];
        job_ = ask('p');
        REQUIRE(job_ > 0);
    }
    ~Shell() {
        ::kill(job_, SIGKILL);
        ::kill(leader_, SIGKILL);
        ::waitpid(leader_, nullptr, 0);
        for (const int fd : {control_, master_, slave_}) {
            ::close(fd);
        }
    }
    Shell(const Shell&) = delete;
    Shell& operator=(const Shell&) = delete;

    void bring_to_front() const { REQUIRE(ask('f') == 0); }
    void take_front() const { REQUIRE(ask('b') == 0); }
    void send(int signal) const { REQUIRE(::kill(job_, signal) == 0); }

    [[nodiscard]] termios mode() const {
        termios mode{};
        REQUIRE(::tcgetattr(slave_, &mode) == 0);
        return mode;
    }
    void set_mode(const termios& mode) const { REQUIRE(::tcsetattr(slave_, TCSANOW, &mode) == 0); }
    [[nodiscard]] bool raw() const { return (mode().c_lflag & (ICANON | ECHO | ISIG)) == 0; }
    void type(const std::string& keys) const {
        REQUIRE(::write(master_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
    }
    std::string& screen() {
        std::array<char, 4096> buffer{};
        pollfd entry{.fd = master_, .events = POLLIN, .revents = 0};
        while (::poll(&entry, 1, 0) > 0 && (entry.revents & POLLIN) != 0) {
            const ssize_t count = ::read(master_, buffer.data(), buffer.size());
            if (count <= 0) {
                break;
            }
            screen_.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return screen_;
    }
    bool shows(const std::string& text) {
        return eventually([&] { return screen().find(text) != std::string::npos; });
    }
    /// The next change of the job's status, as waitpid(2) returns it.
    std::optional<int> next_change() const {
        std::optional<int> change;
        eventually([&] {
            const int status = ask('w');
            if (status != nothing) {
                change = status;
            }
            return change.has_value();
        });
        return change;
    }
    [[nodiscard]] bool changed() const { return ask('w') != nothing; }
    /// The number of bytes that the shell could read from the terminal now.
    [[nodiscard]] int waiting_input() const {
        int count = 0;
        REQUIRE(::ioctl(slave_, FIONREAD, &count) == 0);
        return count;
    }

private:
    static constexpr int nothing = -1;

    [[noreturn]] void lead(int control, const std::vector<std::string>& arguments, bool in_front) const {
        std::signal(SIGTTOU, SIG_IGN);  // as in a shell, to set the foreground process group
        std::signal(SIGHUP, SIG_IGN);
        ::setsid();
        ::ioctl(slave_, TIOCSCTTY, 0);
        const pid_t job = fork_child();
        if (job == 0) {
            ::setpgid(0, 0);
            if (in_front) {
                std::signal(SIGTTOU, SIG_IGN);
                ::tcsetpgrp(slave_, ::getpgrp());
                std::signal(SIGTTOU, SIG_DFL);
            }
            for (const int fd : {0, 1, 2}) {
                ::dup2(slave_, fd);
            }
            ::alarm(60);
            exec(arguments);
        }
        ::setpgid(job, job);
        for (char command = 0; ::read(control, &command, 1) == 1;) {
            int answer = 0;
            if (command == 'p') {
                answer = job;
            } else if (command == 'f') {
                answer = ::tcsetpgrp(slave_, job);
            } else if (command == 'b') {
                answer = ::tcsetpgrp(slave_, ::getpgrp());
            } else if (::waitpid(job, &answer, WNOHANG | WUNTRACED | WCONTINUED) != job) {
                answer = nothing;
            }
            if (::write(control, &answer, sizeof(answer)) != sizeof(answer)) {
                break;
            }
        }
        ::_exit(0);
    }
    int ask(char command) const {
        int answer = 0;
        REQUIRE(::write(control_, &command, 1) == 1);
        REQUIRE(::read(control_, &answer, sizeof(answer)) == sizeof(answer));
        return answer;
    }

    int master_{-1};
    int slave_{-1};
    int control_{-1};
    pid_t leader_{-1};
    pid_t job_{-1};
    std::string screen_;
};

/// Modes that a user may have set, and that are neither the default nor raw.
termios changed_by_user(termios mode) {
    mode.c_lflag ^= ECHOK;
    mode.c_cc[VKILL] = 'K';
    return mode;
}

std::vector<std::string> with_echo(const ScratchDirectory& directory) {
    return {"--kernel", directory.write("echo", make_bzimage(echo_code)).string(), "--memory", "64M"};
}

void ends_by(const Shell& shell, int signal) {
    shell.send(signal);
    const std::optional<int> change = shell.next_change();
    REQUIRE(change);
    CHECK(WIFSIGNALED(*change));
    CHECK(WTERMSIG(*change) == signal);
}

}  // namespace

TEST_CASE("kvm_vmm: in the background it runs and does not touch the terminal or read its input",
          "[program][job]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Shell shell(with_echo(directory), false);
    const termios before = shell.mode();
    REQUIRE(shell.shows("."));
    shell.type("for the shell\n");
    ::usleep(600'000);  // longer than the interval at which it checks the terminal
    CHECK(same(shell.mode(), before));
    CHECK(shell.waiting_input() == 14);
    CHECK_FALSE(shell.changed());
    SECTION("and a signal ends it without touching the terminal") {
        const termios now = changed_by_user(before);
        shell.set_mode(now);
        ends_by(shell, GENERATE(SIGTERM, SIGALRM, SIGSEGV));
        CHECK(same(shell.mode(), now));
        CHECK(shell.waiting_input() == 14);
    }
    SECTION("and takes both when it is brought to the foreground, even without a signal") {
        shell.bring_to_front();
        REQUIRE(eventually([&] { return shell.raw(); }));
        REQUIRE(shell.shows("for the shell"));
        shell.type("\x01x");
        CHECK(shell.next_change() == 0);
        CHECK(same(shell.mode(), before));
    }
}

TEST_CASE("kvm_vmm: stopped by SIGTSTP it restores the terminal, and sets it again only in the foreground",
          "[program][job]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Shell shell(with_echo(directory), true);
    REQUIRE(shell.shows("."));
    REQUIRE(eventually([&] { return shell.raw(); }));
    const termios raw = shell.mode();
    shell.send(SIGTSTP);
    std::optional<int> change = shell.next_change();
    REQUIRE(change);
    REQUIRE(WIFSTOPPED(*change));
    CHECK(WSTOPSIG(*change) == SIGTSTP);
    CHECK_FALSE(shell.raw());
    CHECK_FALSE(same(shell.mode(), raw));
    shell.take_front();
    const termios user = changed_by_user(shell.mode());
    shell.set_mode(user);
    SECTION("fg") {
        shell.bring_to_front();
        shell.send(SIGCONT);
        REQUIRE(eventually([&] { return shell.raw(); }));
        shell.type("abc");
        CHECK(shell.shows("abc"));
        shell.type("\x01x");
        REQUIRE(shell.next_change().has_value());  // continued
        CHECK(shell.next_change() == 0);
        CHECK(same(shell.mode(), user));
    }
    SECTION("bg, and then fg") {
        shell.send(SIGCONT);
        change = shell.next_change();
        REQUIRE(change);
        CHECK(WIFCONTINUED(*change));
        shell.type("x\n");
        ::usleep(600'000);
        CHECK(same(shell.mode(), user));
        CHECK(shell.waiting_input() == 2);
        CHECK_FALSE(shell.changed());
        shell.bring_to_front();
        REQUIRE(eventually([&] { return shell.raw(); }));
        ends_by(shell, SIGTERM);
        CHECK(same(shell.mode(), user));
    }
}

TEST_CASE(
    "kvm_vmm: stopped by SIGSTOP while the terminal is raw, it later restores only modes that are still its "
    "own",
    "[program][job]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Shell shell(with_echo(directory), true);
    const termios before = shell.mode();
    REQUIRE(shell.shows("."));
    REQUIRE(eventually([&] { return shell.raw(); }));
    const termios raw = shell.mode();
    shell.send(SIGSTOP);
    std::optional<int> change = shell.next_change();
    REQUIRE(change);
    REQUIRE(WIFSTOPPED(*change));
    shell.take_front();
    SECTION("a shell that sets its own modes keeps them, whatever happens to the job") {
        const termios user = changed_by_user(before);
        shell.set_mode(user);
        shell.send(SIGCONT);
        REQUIRE(shell.next_change().has_value());
        ::usleep(600'000);
        CHECK(same(shell.mode(), user));
        ends_by(shell, SIGTERM);
        CHECK(same(shell.mode(), user));
    }
    SECTION("a shell that sets none gets the previous modes back") {
        shell.send(SIGCONT);
        CHECK(eventually([&] { return !shell.raw(); }));
        REQUIRE(shell.next_change().has_value());  // continued
        ends_by(shell, SIGTERM);
        CHECK_FALSE(shell.raw());
    }
    SECTION("a shell that restores the job's own raw modes with fg") {
        shell.set_mode(before);
        shell.set_mode(raw);
        shell.bring_to_front();
        shell.send(SIGCONT);
        REQUIRE(shell.next_change().has_value());
        shell.type("abc");
        CHECK(shell.shows("abc"));
        ends_by(shell, SIGTERM);
        CHECK_FALSE(shell.raw());
    }
}

TEST_CASE("kvm_vmm: another job that gets the terminal without a signal does not share it",
          "[program][job]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Shell shell(with_echo(directory), true);
    const termios before = shell.mode();
    REQUIRE(shell.shows("."));
    REQUIRE(eventually([&] { return shell.raw(); }));
    shell.take_front();
    const termios user = changed_by_user(before);
    shell.set_mode(user);
    // The input arrives at once, when kvm_vmm may not yet know that it is in the background.
    shell.type("mine\n");
    ::usleep(600'000);
    CHECK(same(shell.mode(), user));
    CHECK(shell.waiting_input() == 5);
    CHECK_FALSE(shell.changed());
    shell.bring_to_front();
    REQUIRE(eventually([&] { return shell.raw(); }));
    CHECK(eventually([&] { return shell.waiting_input() == 0; }));
    shell.type("again");
    CHECK(shell.shows("again"));
    ends_by(shell, SIGQUIT);
    CHECK(same(shell.mode(), user));
}

TEST_CASE("kvm_vmm: as a session leader, which nobody would continue, it is not stopped by its terminal",
          "[program][job]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    std::vector<std::string> arguments = with_echo(directory);
    // The terminal's modes are not changed, so that Ctrl-Z is a signal.
    arguments.insert(arguments.end(), {"--serial", "null"});
    Terminal terminal(arguments);
    ::usleep(500'000);
    terminal.type("\x1A");
    ::usleep(300'000);
    int status = 0;
    CHECK(::waitpid(terminal.pid(), &status, WNOHANG | WUNTRACED) == 0);
    terminal.send(SIGTERM);
    CHECK(terminal.wait() == 128 + SIGTERM);
}
