// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/helper_launcher.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <iterator>
#include <poll.h>
#include <span>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "sandbox/launcher_filter.hpp"

namespace kvm_vmm::virtio {
namespace {

using vmsuperio::UniqueFd;

constexpr char start_request = 's';
constexpr char end_request = 'e';

struct Answer {
    int error{0};       ///< why the program was not started
    bool ended{false};  ///< by itself
    int status{0};      ///< of its end
};

// Of the launcher: how long an answer may take it, and then some.
constexpr int answer_limit_ms = 3000;
constexpr int polite_ms = 20;
constexpr int end_limit_ms = 500;
// From one start to the next. StreamBackend waits longer between its attempts.
constexpr int least_pause_ms = 250;

void sleep_ms(long milliseconds) noexcept {
    const timespec time{.tv_sec = 0, .tv_nsec = milliseconds * 1'000'000};
    ::nanosleep(&time, nullptr);
}

/// The launcher's own code. After fork(2) of a process that may have had several threads, so it takes no
/// memory.
class Launcher {
public:
    Launcher(char* const* words, int null) noexcept : words_(words), null_(null) {}

    [[noreturn]] void run() noexcept {
        for (;;) {
            char request = 0;
            const ssize_t got = ::recv(control, &request, 1, 0);
            if (got < 0 && errno == EINTR) {
                continue;
            }
            if (got != 1 || (request != start_request && request != end_request)) {
                break;  // the other process has ended
            }
            Answer answer = end_helper();
            UniqueFd socket;
            UniqueFd messages;
            if (request == start_request) {
                pause_between_starts();
                answer.error = start_helper(socket, messages);
            }
            send(answer, socket.get(), messages.get());
        }
        std::ignore = end_helper();
        ::_exit(0);
    }

    static constexpr int control = 3;

private:
    void pause_between_starts() noexcept {
        timespec now{};
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        const long long time = now.tv_sec * 1000LL + now.tv_nsec / 1'000'000;
        const long long due = std::exchange(last_start_ms_, time) + least_pause_ms;
        if (due > time) {
            sleep_ms(static_cast<long>(due - time));
        }
    }

    [[nodiscard]] Answer end_helper() noexcept {
        Answer answer;
        int status = 0;
        bool asked = false;
        for (int time = 0; helper_ > 0; ++time) {
            if (::waitpid(helper_, &status, time < end_limit_ms ? WNOHANG : 0) == helper_) {
                answer.ended = !asked || !WIFSIGNALED(status);
                answer.status = status;
                helper_ = -1;
            } else if (time == polite_ms) {
                ::kill(helper_, SIGTERM);
                asked = true;
            } else if (time == end_limit_ms - 1) {
                ::kill(helper_, SIGKILL);
            } else {
                sleep_ms(1);
            }
        }
        return answer;
    }

    [[nodiscard]] int start_helper(UniqueFd& socket, UniqueFd& messages) noexcept {
        std::array<int, 2> sockets{};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
            return errno;
        }
        socket = UniqueFd(sockets[0]);
        const UniqueFd theirs(sockets[1]);
        constexpr int buffer = 1 << 20U;
        ::setsockopt(theirs.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
        std::array<int, 2> ends{};
        if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
            return errno;
        }
        messages = UniqueFd(ends[0]);
        const UniqueFd writer(ends[1]);
        error_ = 0;
        const pid_t child = spawn(theirs.get(), writer.get());
        if (child < 0) {
            return errno;
        }
        if (error_ != 0) {
            ::waitpid(child, nullptr, 0);
            return error_;
        }
        helper_ = child;
        return 0;
    }

    // vfork(), because the caller has to know whether the program was executed. A function of its own,
    // because the child may change local variables.
    // NOLINTBEGIN(clang-analyzer-security.insecureAPI.vfork,clang-analyzer-unix.Vfork,bugprone-unsafe-functions)
    [[gnu::noinline]] pid_t spawn(int socket, int messages) noexcept {
        const pid_t child = ::vfork();
        if (child == 0) {
            become_helper(socket, messages);
        }
        return child;
    }
    // NOLINTEND(clang-analyzer-security.insecureAPI.vfork,clang-analyzer-unix.Vfork,bugprone-unsafe-functions)

    // The child shares the memory of its parent, so it only makes system calls. All its descriptors above the
    // standard ones are closed by exec().
    [[noreturn]] void become_helper(int socket, int messages) noexcept {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::dup2(null_, STDIN_FILENO) >= 0 && ::dup2(null_, STDOUT_FILENO) >= 0 &&
            ::dup2(messages, STDERR_FILENO) >= 0 && ::dup2(socket, HelperLauncher::socket_of_helper) >= 0) {
            ::execvp(words_[0], words_);
        }
        error_ = errno;
        ::_exit(127);
    }

    static void send(const Answer& answer, int socket, int messages) noexcept {
        std::array<char, sizeof(Answer)> bytes{};
        std::memcpy(bytes.data(), &answer, sizeof(answer));
        iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
        msghdr message{};
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        const std::array<int, 2> descriptors{socket, messages};
        alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(descriptors))> control_data{};
        if (answer.error == 0 && socket >= 0) {
            message.msg_control = control_data.data();
            message.msg_controllen = control_data.size();
            cmsghdr* const header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(sizeof(descriptors));
            std::memcpy(CMSG_DATA(header), descriptors.data(), sizeof(descriptors));
        }
        while (::sendmsg(control, &message, MSG_NOSIGNAL) < 0 && errno == EINTR) {
        }
    }

    char* const* words_;
    int null_;
    pid_t helper_{-1};
    long long last_start_ms_{-least_pause_ms};
    volatile int error_{0};  // why the program was not executed
};

// In the new process: leaves nothing of the old one but `control` and `null`, which have numbers above those
// here.
[[noreturn]] void become_launcher(int control, int null, char* const* words, pid_t parent,
                                  bool die_with_thread, const sandbox::SeccompFilter& filter) noexcept {
    constexpr int null_here = Launcher::control + 1;
    // Not a job of the terminal: Ctrl-C and a hangup are for the VM, which then ends this process.
    ::setsid();
    ::prctl(PR_SET_NAME, "passt-launcher");
    for (int signal = 1; signal < NSIG; ++signal) {
        std::signal(signal, SIG_DFL);
    }
    sigset_t none{};
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    // This signal comes with the end of the thread that has forked, and only the main thread lasts as long as
    // its process. The end of the socket has the same effect, also if the process was not permitted to signal
    // this one when it ended, because it had become another user or had a Landlock domain.
    if (die_with_thread) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) {
            ::_exit(0);
        }
    }
    if (::dup2(control, Launcher::control) < 0 || ::dup2(null, null_here) < 0 ||
        ::fcntl(Launcher::control, F_SETFD, FD_CLOEXEC) != 0 ||
        ::fcntl(null_here, F_SETFD, FD_CLOEXEC) != 0) {
        ::_exit(1);
    }
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        ::dup2(null_here, standard);
    }
    // If the kernel is older than this call (5.9), the others have no names here, and are closed by exec().
    ::syscall(SYS_close_range, null_here + 1, ~0U, 0U);
    // Where the host refuses filters, the sandbox of the VM reports that.
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) {
        (void)filter.install();
    }
    Launcher(words, null_here).run();
}

// A copy with a number that the launcher does not use.
UniqueFd high_copy(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, Launcher::control + 2)); }

}  // namespace

std::expected<HelperLauncher, int> HelperLauncher::create(std::vector<std::string> words) {
    std::vector<char*> pointers;
    std::ranges::transform(words, std::back_inserter(pointers),
                           [](std::string& word) { return word.data(); });
    pointers.push_back(nullptr);
    const sandbox::SeccompFilter filter = sandbox::launcher_filter();
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        return std::unexpected(errno);
    }
    UniqueFd ours(ends[0]);
    const UniqueFd theirs(ends[1]);
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const UniqueFd high_control = high_copy(theirs.get());
    const UniqueFd high_null = high_copy(null.get());
    if (!null || !high_control || !high_null) {
        return std::unexpected(errno);
    }
    const pid_t parent = ::getpid();
    const bool die_with_thread = ::syscall(SYS_gettid) == parent;
    const pid_t child = ::fork();
    if (child < 0) {
        return std::unexpected(errno);
    }
    if (child == 0) {
        become_launcher(high_control.get(), high_null.get(), pointers.data(), parent, die_with_thread,
                        filter);
    }
    return HelperLauncher(std::move(ours));
}

HelperLauncher::~HelperLauncher() { end(); }

namespace {

// Sends a request; returns its answer, with the descriptors in `received`, or nothing if there is none in
// time.
std::optional<Answer> ask(int control, char request, std::array<UniqueFd, 2>& received) noexcept {
    if (::send(control, &request, 1, MSG_NOSIGNAL) != 1) {
        return std::nullopt;
    }
    pollfd entry{.fd = control, .events = POLLIN, .revents = 0};
    int ready = 0;
    do {
        ready = ::poll(&entry, 1, answer_limit_ms);
    } while (ready < 0 && errno == EINTR);
    if (ready != 1) {
        return std::nullopt;
    }
    std::array<char, sizeof(Answer)> bytes{};
    iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
    std::array<int, 2> descriptors{-1, -1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(descriptors))> control_data{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control_data.data();
    message.msg_controllen = control_data.size();
    if (::recvmsg(control, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != static_cast<ssize_t>(bytes.size())) {
        return std::nullopt;
    }
    const cmsghdr* const header = CMSG_FIRSTHDR(&message);
    if (header != nullptr && header->cmsg_len == CMSG_LEN(sizeof(descriptors))) {
        std::memcpy(descriptors.data(), CMSG_DATA(header), sizeof(descriptors));
        received = {UniqueFd(descriptors[0]), UniqueFd(descriptors[1])};
    }
    Answer answer;
    std::memcpy(&answer, bytes.data(), sizeof(answer));
    return answer;
}

}  // namespace

std::expected<HelperLauncher::Connection, int> HelperLauncher::start() {
    std::array<UniqueFd, 2> received;
    const auto answer = control_ ? ask(control_.get(), start_request, received) : std::nullopt;
    if (!answer) {
        control_ = {};  // a late answer would be taken for that of the next request
        return std::unexpected(ECONNRESET);
    }
    if (answer->error != 0 || !received[0] || !received[1]) {
        return std::unexpected(answer->error != 0 ? answer->error : EMFILE);
    }
    return Connection{.socket = std::move(received[0]), .messages = std::move(received[1])};
}

std::optional<int> HelperLauncher::end() noexcept {
    std::array<UniqueFd, 2> none;
    const auto answer = control_ ? ask(control_.get(), end_request, none) : std::nullopt;
    if (!answer) {
        control_ = {};
    }
    return answer && answer->ended ? std::optional(answer->status) : std::nullopt;
}

}  // namespace kvm_vmm::virtio
