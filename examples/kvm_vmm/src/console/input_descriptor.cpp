// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/input_descriptor.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <semaphore>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "console/raw_terminal.hpp"
#include "event/notifier.hpp"
#include "event/signals.hpp"
#include "sandbox/sandbox.hpp"
#include "util/error.hpp"

namespace kvm_vmm {
namespace {

bool is_pty_master(int fd) noexcept {
    unsigned number = 0;
    return ::isatty(fd) != 0 && ::ioctl(fd, TIOCGPTN, &number) == 0;
}

vmsuperio::UniqueFd open_again(int fd) {
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    return vmsuperio::UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

// A terminal cannot be read while another job is in the foreground (SIGTTIN is ignored, see util/process).
bool is_anothers_terminal(int fd) noexcept { return ::isatty(fd) != 0 && !RawTerminal::in_front(fd); }

}  // namespace

// Uses only the state that it shares with the object below: when that object is destroyed, the thread may be
// inside read(2), which returns only if input arrives.
class InputDescriptor::Thread {
public:
    Thread(int source, vmsuperio::UniqueFd sink)
        : shared_(std::make_shared<Shared>(source, std::move(sink))) {
        std::thread([shared = shared_] { pass_on(*shared); }).detach();
        // The sandbox may be closed next, and confines only threads that have entered their role by then.
        shared_->entered.acquire();
    }
    ~Thread() { shared_->stop.notify(); }
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;
    Thread(Thread&&) = delete;
    Thread& operator=(Thread&&) = delete;

private:
    struct Shared {
        Shared(int from, vmsuperio::UniqueFd to) : source(from), sink(std::move(to)) {}

        int source;
        vmsuperio::UniqueFd sink;
        Notifier stop;
        std::binary_semaphore entered{0};
    };

    static void pass_on(Shared& shared) {
        leave_signals_to_main_thread();
        sandbox::enter(sandbox::Role::input, "input");
        shared.entered.release();
        std::array<std::uint8_t, 1024> buffer{};
        for (;;) {
            std::array<pollfd, 2> entries{pollfd{.fd = shared.source, .events = POLLIN, .revents = 0},
                                          pollfd{.fd = shared.stop.fd(), .events = POLLIN, .revents = 0}};
            if (::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) {
                break;
            }
            if (entries[1].revents != 0) {
                break;
            }
            if (entries[0].revents == 0) {
                continue;
            }
            if (is_anothers_terminal(shared.source)) {
                constexpr int rest_ms = 200;
                ::poll(&entries[1], 1, rest_ms);
                continue;
            }
            const ssize_t count = ::read(shared.source, buffer.data(), buffer.size());
            if (count < 0 && (errno == EINTR || errno == EAGAIN ||
                              (errno == EIO && is_anothers_terminal(shared.source)))) {
                continue;
            }
            // Blocks while the guest does not read, so that the sender waits; fails after the object was
            // destroyed.
            if (count <= 0 ||
                !send_all(shared.sink.get(), {buffer.data(), static_cast<std::size_t>(count)})) {
                break;
            }
        }
        shared.sink.reset();
    }

    static bool send_all(int sink, std::span<const std::uint8_t> bytes) {
        while (!bytes.empty()) {
            const ssize_t count = ::send(sink, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (count < 0 && errno != EINTR) {
                return false;
            }
            bytes = bytes.subspan(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
        }
        return true;
    }

    std::shared_ptr<Shared> shared_;
};

InputDescriptor::InputDescriptor() = default;

InputDescriptor::InputDescriptor(int fd) : fd_(fd) {
    struct stat status{};
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fstat(fd, &status) != 0) {
        return;  // the first read will fail
    }
    is_terminal_ = ::isatty(fd) != 0;
    is_socket_ = S_ISSOCK(status.st_mode);
    const bool may_block = (flags & O_NONBLOCK) == 0 && !is_socket_ && !S_ISREG(status.st_mode) &&
                           !S_ISBLK(status.st_mode) && !S_ISDIR(status.st_mode);
    if (!may_block) {
        return;
    }
    if (!is_pty_master(fd)) {
        own_ = open_again(fd);
    }
    if (own_) {
        fd_ = own_.get();
    } else {
        read_in_thread(fd);
    }
}

InputDescriptor::~InputDescriptor() = default;

InputDescriptor::InputDescriptor(InputDescriptor&& other) noexcept
    : own_(std::move(other.own_)),
      fd_(std::exchange(other.fd_, -1)),
      is_socket_(other.is_socket_),
      is_terminal_(other.is_terminal_),
      thread_(std::move(other.thread_)) {}

void InputDescriptor::read_in_thread(int source) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        throw VmmError(ExitCode::vmm_error, errno_message("socketpair failed", errno));
    }
    own_ = vmsuperio::UniqueFd(ends[0]);
    vmsuperio::UniqueFd sink(ends[1]);
    // Bytes that do not fit stay with the sender. The kernel raises this to its minimum.
    const int least = 1;
    ::setsockopt(sink.get(), SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
    fd_ = own_.get();
    is_socket_ = true;
    thread_ = std::make_unique<Thread>(source, std::move(sink));
}

std::expected<std::size_t, std::error_code> InputDescriptor::read(std::span<std::uint8_t> bytes) const {
    for (;;) {
        const ssize_t count = is_socket_ ? ::recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT)
                                         : ::read(fd_, bytes.data(), bytes.size());
        if (count >= 0) {
            return static_cast<std::size_t>(count);
        }
        if (errno != EINTR) {
            return std::unexpected(std::error_code(errno, std::system_category()));
        }
    }
}

}  // namespace kvm_vmm
