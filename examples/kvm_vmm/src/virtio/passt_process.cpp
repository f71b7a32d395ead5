// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/passt_process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string_view>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "sandbox/sandbox.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm::virtio {
namespace {

using namespace std::chrono_literals;

constexpr int socket_in_child = 3;
constexpr auto start_limit = 5s;
constexpr auto end_limit = 500ms;

std::string not_started(const std::string& program, int error_number) {
    if (error_number == ENOENT) {
        return program + " is not installed (Debian's package is named passt)";
    }
    return errno_message(program + " cannot be started", error_number);
}

std::string how_it_ended(int status) {
    if (WIFSIGNALED(status)) {
        return "it was ended by signal " + std::to_string(WTERMSIG(status));
    }
    return "it has ended with exit code " + std::to_string(WEXITSTATUS(status));
}

struct ChildPlan {
    int socket;
    int messages;
    int null;
    const char* program;
    char* const* arguments;
    bool die_with_thread;
    volatile int error{0};  // out: why the program was not started
};

// Between vfork() and exec(): this process shares the memory of its parent, so it only makes system calls.
[[noreturn]] void become(ChildPlan& plan) noexcept {
    // Not a job of the terminal: Ctrl-C and a hangup are for the VM, which then ends this process.
    ::setsid();
    if (plan.die_with_thread) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    for (const int signal : {SIGPIPE, SIGXFSZ, SIGTTIN, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTOU}) {
        std::signal(signal, SIG_DFL);
    }
    sigset_t none{};
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    // The numbers of the descriptors are above those that they are copied to.
    if (::dup2(plan.null, STDIN_FILENO) >= 0 && ::dup2(plan.null, STDOUT_FILENO) >= 0 &&
        ::dup2(plan.messages, STDERR_FILENO) >= 0 && ::dup2(plan.socket, socket_in_child) >= 0) {
        // All other descriptors, if the kernel is older than this call, are closed by exec().
        ::syscall(SYS_close_range, socket_in_child + 1, ~0U, 0U);
        ::execvp(plan.program, plan.arguments);
    }
    plan.error = errno;
    ::_exit(127);
}

// fork() would copy the page tables of the guest's memory, and have each page of it copied when it is next
// written. A function of its own, because the child may change local variables.
// NOLINTBEGIN(clang-analyzer-security.insecureAPI.vfork,clang-analyzer-unix.Vfork,bugprone-unsafe-functions)
[[gnu::noinline]] pid_t start(ChildPlan& plan) noexcept {
    const pid_t child = ::vfork();
    if (child == 0) {
        become(plan);
    }
    return child;
}
// NOLINTEND(clang-analyzer-security.insecureAPI.vfork,clang-analyzer-unix.Vfork,bugprone-unsafe-functions)

// A copy with a number that the child does not use.
vmsuperio::UniqueFd above_child_range(int fd) {
    return vmsuperio::UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, socket_in_child + 2));
}

std::optional<std::pair<vmsuperio::UniqueFd, vmsuperio::UniqueFd>> make_pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
        return std::nullopt;
    }
    return std::pair(vmsuperio::UniqueFd(ends[0]), vmsuperio::UniqueFd(ends[1]));
}

// What passt writes to stderr when there is no system logger.
bool is_noise(std::string_view line) {
    return line.find_first_not_of(" \t") == std::string_view::npos ||
           (line.starts_with("Failed to send") && line.ends_with("to syslog"));
}

// A frame of the type for local experiments (IEEE 802, 88B5), which passt ignores.
constexpr std::array<std::uint8_t, 4 + 14> probe{0, 0, 0, 14, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xB5};

}  // namespace

PasstProcess::PasstProcess(std::vector<std::string> arguments, std::string program)
    : arguments_(std::move(arguments)), program_(std::move(program)) {}

PasstProcess::~PasstProcess() {
    PasstProcess::detach();
    end();
}

std::expected<vmsuperio::UniqueFd, std::string> PasstProcess::connect() {
    end();
    if (sandbox::is_closed()) {
        return std::unexpected(program_ + " cannot be started again in the sandbox");
    }
    std::array<int, 2> sockets{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
        return std::unexpected(errno_message("cannot create a socket", errno));
    }
    vmsuperio::UniqueFd ours(sockets[0]);
    const vmsuperio::UniqueFd theirs(sockets[1]);
    constexpr int buffer = 1 << 20U;
    ::setsockopt(theirs.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    auto messages = make_pipe();
    const vmsuperio::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!messages || !null) {
        return std::unexpected(errno_message("cannot start a process", errno));
    }
    const vmsuperio::UniqueFd child_socket = above_child_range(theirs.get());
    const vmsuperio::UniqueFd child_messages = above_child_range(messages->second.get());
    const vmsuperio::UniqueFd child_null = above_child_range(null.get());
    if (!child_socket || !child_messages || !child_null) {
        return std::unexpected(errno_message("cannot start a process", errno));
    }
    std::vector<std::string> words{program_,   "--foreground", "--quiet",
                                   "--stderr", "--fd",         std::to_string(socket_in_child)};
    words.insert(words.end(), arguments_.begin(), arguments_.end());
    std::vector<char*> pointers;
    std::ranges::transform(words, std::back_inserter(pointers),
                           [](std::string& word) { return word.data(); });
    pointers.push_back(nullptr);
    // PR_SET_PDEATHSIG refers to the thread that starts the process, and only the main thread lasts as long as
    // this process. The end of the socket has the same effect, unless the child does not run.
    ChildPlan plan{.socket = child_socket.get(),
                   .messages = child_messages.get(),
                   .null = child_null.get(),
                   .program = program_.c_str(),
                   .arguments = pointers.data(),
                   .die_with_thread = ::syscall(SYS_gettid) == ::getpid()};
    const pid_t child = start(plan);
    if (child < 0) {
        return std::unexpected(errno_message("cannot start a process", errno));
    }
    if (plan.error != 0) {
        ::waitpid(child, nullptr, 0);
        return std::unexpected(not_started(program_, plan.error));
    }
    child_ = child;
    child_descriptor_ = vmsuperio::UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0U)));
    messages_ = std::move(messages->first);
    last_message_.clear();
    watch_messages();
    if (!std::exchange(started_before_, true)) {
        if (auto reason = wait_until_ready(ours.get())) {
            end();
            return std::unexpected(*std::move(reason));
        }
    }
    return ours;
}

std::optional<std::string> PasstProcess::wait_until_ready(int fd) {
    if (::send(fd, probe.data(), probe.size(), MSG_NOSIGNAL) < 0) {
        return errno_message("cannot send to " + program_, errno);
    }
    const auto deadline = std::chrono::steady_clock::now() + start_limit;
    for (;;) {
        int unread = 0;
        int status = 0;
        if (::waitpid(child_, &status, WNOHANG) == child_) {
            child_ = -1;
            read_messages();
            return program_ + ": " + (last_message_.empty() ? how_it_ended(status) : last_message_);
        }
        if (::ioctl(fd, SIOCOUTQ, &unread) == 0 && unread == 0) {
            return std::nullopt;
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            return program_ + " does not serve its connection within " +
                   std::to_string(std::chrono::seconds(start_limit).count()) + " s";
        }
        std::this_thread::sleep_for(1ms);
    }
}

void PasstProcess::attach(EventManager& events) {
    events_ = &events;
    watch_messages();
}

void PasstProcess::detach() noexcept {
    if (subscription_) {
        events_->remove(*std::exchange(subscription_, std::nullopt));
    }
    events_ = nullptr;
}

void PasstProcess::watch_messages() {
    if (events_ != nullptr && messages_) {
        const auto added = events_->add(messages_.get(), EPOLLIN, [this](std::uint32_t) { read_messages(); });
        subscription_ = added ? std::optional(*added) : std::nullopt;
    }
}

// Logs each line, and remembers the last one.
void PasstProcess::read_messages() {
    std::array<char, 4096> text{};
    for (;;) {
        const ssize_t got = messages_ ? ::read(messages_.get(), text.data(), text.size()) : -1;
        if (got <= 0) {
            if (got == 0 && subscription_) {
                events_->remove(*std::exchange(subscription_, std::nullopt));
            }
            return;
        }
        std::string_view rest(text.data(), static_cast<std::size_t>(got));
        while (!rest.empty()) {
            const std::string_view line = rest.substr(0, rest.find('\n'));
            rest.remove_prefix(std::min(rest.size(), line.size() + 1));
            if (!is_noise(line)) {
                last_message_ = line.substr(0, 200);
                log(LogLevel::info, program_ + ": " + last_message_);
            }
        }
    }
}

std::string PasstProcess::on_lost() {
    if (child_ < 0) {
        return {};
    }
    const std::optional<int> status = end();
    read_messages();
    return status ? program_ + ": " + (last_message_.empty() ? how_it_ended(*status) : last_message_)
                  : std::string{};
}

// By a descriptor, because in the sandbox this process can signal no other by its number.
bool PasstProcess::signal_child(int signal) const noexcept {
    return child_descriptor_
               ? ::syscall(SYS_pidfd_send_signal, child_descriptor_.get(), signal, nullptr, 0U) == 0
               : !sandbox::is_closed() && ::kill(child_, signal) == 0;  // Linux before 5.3
}

// Returns how the child has ended, if it did so by itself.
std::optional<int> PasstProcess::end() noexcept {
    if (child_ < 0) {
        return std::nullopt;
    }
    // Its socket is closed, which it reacts to.
    std::optional<int> ended;
    const auto deadline = std::chrono::steady_clock::now() + end_limit;
    bool asked = false;
    for (int status = 0; child_ >= 0;) {
        const pid_t result = ::waitpid(child_, &status, WNOHANG);
        if (result == child_) {
            ended = asked ? std::nullopt : std::optional(status);
            child_ = -1;
        } else if (result < 0 && errno != EINTR) {
            child_ = -1;
        } else if (std::chrono::steady_clock::now() >= deadline) {
            // Without the capability to do so, a process of another user (passt started by root) is not reached.
            if (signal_child(SIGKILL)) {
                ::waitpid(child_, nullptr, 0);
            }
            child_ = -1;
        } else {
            if (std::chrono::steady_clock::now() >= deadline - end_limit + 20ms && !asked) {
                std::ignore = signal_child(SIGTERM);
                asked = true;
            }
            std::this_thread::sleep_for(1ms);
        }
    }
    return ended;
}

}  // namespace kvm_vmm::virtio
