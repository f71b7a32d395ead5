// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// Runs kvm_vmm as a process, if necessary in a terminal of its own.
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <poll.h>
#include <pty.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "catch.hpp"
#include "child.hpp"
#include "scratch_directory.hpp"
#include "small_guest.hpp"

namespace kvm_vmm::test {

struct Result {
    int exit_code;  ///< or 128 + the signal
    std::string output;
    std::string errors;
};

inline int exit_code_of(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

[[noreturn]] inline void exec(const std::vector<std::string>& arguments,
                              std::string program = KVM_VMM_PROGRAM) {
    std::vector<char*> argv;
    argv.push_back(program.data());
    std::vector<std::string> copy = arguments;
    for (std::string& argument : copy) {
        argv.push_back(argument.data());
    }
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
}

/// Runs kvm_vmm until it ends. `input` is the file for stdin, or "-" to close stdin. `prepare` is called in
/// the new process.
inline Result run(const ScratchDirectory& directory, const std::vector<std::string>& arguments,
                  const std::string& input = "/dev/null", const std::function<void()>& prepare = {}) {
    const pid_t child = fork_child();
    if (child == 0) {
        if (input == "-") {
            ::close(STDIN_FILENO);
        } else {
            ::dup2(::open(input.c_str(), O_RDONLY), STDIN_FILENO);
        }
        ::dup2(::open((directory / "out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
        ::dup2(::open((directory / "err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
        ::alarm(30);
        if (prepare) {
            prepare();
        }
        exec(arguments);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return {exit_code_of(status), slurp(directory / "out"), slurp(directory / "err")};
}

inline std::size_t line_count(const std::string& text) {
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

/// A bzImage with `code` at its 64-bit entry point, as small as the boot protocol allows.
inline std::string make_bzimage(const std::vector<std::uint8_t>& code) {
    std::string image(std::size_t{5} * 512 + 4096, '\0');
    const auto put = [&](std::size_t offset, std::uint64_t value, std::size_t width) {
        std::memcpy(image.data() + offset, &value, width);
    };
    put(0x1F1, 4, 1);           // setup_sects
    put(0x1F4, 4096 / 16, 4);   // syssize
    put(0x1FE, 0xAA55, 2);      // boot_flag
    put(0x200, 0x66EB, 2);      // jump over the header: its end is 0x202 + 0x66
    put(0x202, 0x53726448, 4);  // "HdrS"
    put(0x206, 0x020F, 2);      // version 2.15
    put(0x211, 0x01, 1);        // loadflags: loaded high
    put(0x214, 0x100000, 4);    // code32_start
    put(0x22C, 0x7FFFFFFF, 4);  // initrd_addr_max
    put(0x230, 0x200000, 4);    // kernel_alignment
    put(0x234, 1, 1);           // relocatable_kernel
    put(0x236, 0x03, 2);        // xloadflags: 64-bit entry
    put(0x238, 2047, 4);        // cmdline_size
    put(0x258, 0x1000000, 8);   // pref_address
    put(0x260, 0x100000, 4);    // init_size
    std::memcpy(image.data() + 5 * 512 + 0x200, code.data(), code.size());
    return image;
}

// jmp to itself
inline const std::vector<std::uint8_t> spin_code{0xEB, 0xFE};
// mov dx, 0x3F8; mov al, '!'; out dx, al; mov al, 0xFE; out 0x64, al; hlt
inline const std::vector<std::uint8_t> reset_code{0x66, 0xBA, 0xF8, 0x03, 0xB0, '!',
                                                  0xEE, 0xB0, 0xFE, 0xE6, 0x64, 0xF4};

/// kvm_vmm in a terminal.
class Terminal {
public:
    explicit Terminal(const std::vector<std::string>& arguments) {
        REQUIRE(::openpty(&master_, &slave_, nullptr, nullptr, nullptr) == 0);
        REQUIRE(::tcgetattr(slave_, &before_) == 0);
        child_ = fork_child();
        if (child_ == 0) {
            ::setsid();
            ::ioctl(slave_, TIOCSCTTY, 0);  // kvm_vmm is its foreground job
            for (const int fd : {0, 1, 2}) {
                ::dup2(slave_, fd);
            }
            ::close(master_);
            ::close(slave_);
            ::alarm(60);
            exec(arguments);
        }
    }
    ~Terminal() {
        if (child_ > 0) {
            ::kill(child_, SIGKILL);
            ::waitpid(child_, nullptr, 0);
        }
        ::close(master_);
        ::close(slave_);
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    [[nodiscard]] termios mode() const {
        termios mode{};
        REQUIRE(::tcgetattr(slave_, &mode) == 0);
        return mode;
    }
    /// Waits until the terminal is in raw mode, which means that the VM runs.
    void wait_until_raw() const {
        for (int i = 0; i < 2000 && (mode().c_lflag & ICANON) != 0; ++i) {
            ::usleep(10'000);
        }
        REQUIRE((mode().c_lflag & (ICANON | ECHO | ISIG)) == 0);
    }
    void type(const std::string& keys) const {
        REQUIRE(::write(master_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
    }
    void send(int signal) const { REQUIRE(::kill(child_, signal) == 0); }
    int wait() { return exit_code_of(wait_status()); }
    /// The status that waitpid(2) returned.
    int wait_status() {
        int status = 0;
        REQUIRE(::waitpid(child_, &status, 0) == child_);
        child_ = -1;
        return status;
    }
    [[nodiscard]] pid_t pid() const { return child_; }
    [[nodiscard]] bool ended() const {
        siginfo_t info{};
        REQUIRE(::waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOHANG | WNOWAIT) == 0);
        return info.si_pid != 0;
    }
    /// Everything that has appeared on the screen so far.
    std::string output() {
        std::array<char, 4096> buffer{};
        pollfd entry{.fd = master_, .events = POLLIN, .revents = 0};
        while (::poll(&entry, 1, 0) > 0 && (entry.revents & POLLIN) != 0) {
            const ssize_t count = ::read(master_, buffer.data(), buffer.size());
            if (count <= 0) {
                break;
            }
            output_.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return output_;
    }
    /// A descriptor of the open file description that is kvm_vmm's stdin, stdout and stderr.
    [[nodiscard]] int descriptor() const { return slave_; }
    [[nodiscard]] bool restored() const {
        const termios now = mode();
        return now.c_iflag == before_.c_iflag && now.c_oflag == before_.c_oflag &&
               now.c_cflag == before_.c_cflag && now.c_lflag == before_.c_lflag &&
               std::memcmp(now.c_cc, before_.c_cc, sizeof(now.c_cc)) == 0;
    }

private:
    int master_{-1};
    int slave_{-1};
    termios before_{};
    pid_t child_{-1};
    std::string output_;
};

/// A process of kvm_vmm whose stdout is a pipe.
class Job {
public:
    explicit Job(const std::vector<std::string>& arguments, const std::function<void()>& prepare = {},
                 int stderr_fd = -1) {
        std::array<int, 2> ends{};
        REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
        child_ = fork_child();
        if (child_ == 0) {
            const int null = ::open("/dev/null", O_RDWR);
            ::dup2(null, STDIN_FILENO);
            ::dup2(ends[1], STDOUT_FILENO);
            ::dup2(stderr_fd >= 0 ? stderr_fd : null, STDERR_FILENO);
            ::close(null);
            ::alarm(60);
            if (prepare) {
                prepare();
            }
            exec(arguments);
        }
        ::close(ends[1]);
        output_ = vmsuperio::UniqueFd(ends[0]);
    }
    ~Job() {
        if (child_ > 0) {
            ::kill(child_, SIGKILL);
            ::waitpid(child_, nullptr, 0);
        }
    }
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;

    [[nodiscard]] pid_t pid() const { return child_; }
    void send(int signal) const { REQUIRE(::kill(child_, signal) == 0); }
    /// The next byte that the guest sends, or 0 if none arrives in time.
    [[nodiscard]] char next_byte(int timeout_ms = 20'000) const {
        pollfd entry{.fd = output_.get(), .events = POLLIN, .revents = 0};
        char byte = 0;
        return ::poll(&entry, 1, timeout_ms) == 1 && ::read(output_.get(), &byte, 1) == 1 ? byte : '\0';
    }
    /// The next `size` bytes of output, or fewer if it ends, or if nothing arrives for 20 s.
    [[nodiscard]] std::string read(std::size_t size) const {
        std::string text;
        while (text.size() < size) {
            pollfd entry{.fd = output_.get(), .events = POLLIN, .revents = 0};
            std::array<char, 4096> buffer{};
            if (::poll(&entry, 1, 20'000) != 1) {
                break;
            }
            const ssize_t count =
                ::read(output_.get(), buffer.data(), std::min(buffer.size(), size - text.size()));
            if (count <= 0) {
                break;
            }
            text.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return text;
    }
    /// The output until its end, however long that takes.
    [[nodiscard]] std::string rest() const {
        std::string text;
        std::array<char, 4096> buffer{};
        for (ssize_t count = 0; (count = ::read(output_.get(), buffer.data(), buffer.size())) > 0;) {
            text.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return text;
    }
    int wait_status() {
        int status = 0;
        REQUIRE(::waitpid(std::exchange(child_, -1), &status, 0) != 0);
        return status;
    }
    int wait() { return exit_code_of(wait_status()); }

private:
    pid_t child_;
    vmsuperio::UniqueFd output_;
};

/// Arguments for a guest of 64 MiB that runs `code`, followed by `more`.
inline std::vector<std::string> with_kernel(const ScratchDirectory& directory,
                                            const std::vector<std::uint8_t>& code,
                                            const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"--kernel", directory.write("kernel", make_bzimage(code)).string(),
                                       "--memory", "64M"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

}  // namespace kvm_vmm::test
