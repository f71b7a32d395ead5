// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/listening_socket.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/quote.hpp"

namespace kvm_vmm {
namespace {

constexpr std::chrono::milliseconds lock_patience{2000};
constexpr std::chrono::milliseconds lock_patience_at_end{200};
constexpr std::size_t longest_path = sizeof(sockaddr_un::sun_path) - 1;

// The lock is held while the object exists.
class DirectoryLock {
public:
    enum class State { locked, held_by_another, unsupported };

    DirectoryLock(int directory, bool lockable, std::chrono::milliseconds patience) : directory_(directory) {
        if (!lockable) {
            return;
        }
        const auto deadline = std::chrono::steady_clock::now() + patience;
        while (::flock(directory_, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK) {
                state_ = State::held_by_another;
                if (std::chrono::steady_clock::now() >= deadline) {
                    return;
                }
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
            } else if (errno != EINTR) {
                state_ = State::unsupported;  // some network file systems
                return;
            }
        }
        state_ = State::locked;
    }
    ~DirectoryLock() {
        if (state_ == State::locked) {
            ::flock(directory_, LOCK_UN);
        }
    }
    DirectoryLock(const DirectoryLock&) = delete;
    DirectoryLock& operator=(const DirectoryLock&) = delete;

    [[nodiscard]] State state() const noexcept { return state_; }

private:
    int directory_;
    State state_{State::unsupported};
};

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::ranges::copy(path, address.sun_path);
    return address;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);  // the socket API's own idiom
}

vmsuperio::UniqueFd make_socket() {
    return vmsuperio::UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// bind(2) derives the mode of the socket only from the umask. Called before there are other threads.
int bind_private(int fd, const sockaddr_un& address) {
    const mode_t before = ::umask(0177);
    const int error = ::bind(fd, generic(address), sizeof(address)) == 0 ? 0 : errno;
    ::umask(before);
    return error;
}

}  // namespace

ListeningSocket::ListeningSocket(std::string path, const Use& use) : path_(std::move(path)), use_(use) {
    if (path_.size() > longest_path - use_.longest_suffix) {
        fail("the path has " + std::to_string(path_.size()) + " bytes, and " +
             (use_.longest_suffix == 0 ? "a socket's path at most " : "it may have at most ") +
             std::to_string(longest_path - use_.longest_suffix) +
             (use_.longest_suffix == 0 ? ""
                                       : ", because up to " + std::to_string(use_.longest_suffix) +
                                             " more are added for other sockets"));
    }
    open_directory();
    refuse_what_is_no_socket();
}

ListeningSocket::ListeningSocket(ListeningSocket&& other) noexcept
    : path_(std::move(other.path_)),
      use_(other.use_),
      directory_(std::move(other.directory_)),
      lockable_(other.lockable_),
      place_(std::move(other.place_)),
      listener_(std::move(other.listener_)),
      bound_(std::exchange(other.bound_, std::nullopt)) {}

ListeningSocket::~ListeningSocket() {
    if (!bound_) {
        return;
    }
    const DirectoryLock lock(directory_.get(), lockable_, lock_patience_at_end);
    struct stat status{};
    if (::fstatat(directory_.get(), place_.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        identity_of(status) == *bound_) {
        ::unlinkat(directory_.get(), place_.name.c_str(), 0);
    }
}

void ListeningSocket::open_directory() {
    const std::size_t slash = path_.rfind('/');
    place_.name = slash == std::string::npos ? path_ : path_.substr(slash + 1);
    if (place_.name.empty() || place_.name == "." || place_.name == "..") {
        fail("names a directory, not a socket");
    }
    const std::string parent =
        slash == std::string::npos ? "." : path_.substr(0, std::max<std::size_t>(slash, 1));
    int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    int error_number = fd < 0 ? errno : 0;
    lockable_ = error_number == 0;
    if (error_number == EACCES) {
        // The directory may be writable but not readable.
        fd = ::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
        error_number = fd < 0 ? errno : 0;
    }
    directory_ = vmsuperio::UniqueFd(fd);
    struct stat status{};
    if (error_number == 0 && ::fstat(directory_.get(), &status) != 0) {
        error_number = errno;
    }
    if (error_number != 0) {
        fail(errno_message("cannot open its directory", error_number));
    }
    place_.directory = identity_of(status);
}

void ListeningSocket::refuse_what_is_no_socket() const {
    struct stat status{};
    if (::fstatat(directory_.get(), place_.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!S_ISSOCK(status.st_mode)) {
            fail(std::string("is ") + file_kind(status.st_mode) + ", not a socket; it is left as it is");
        }
    } else if (errno != ENOENT) {
        fail(errno_message("cannot be examined", errno));
    }
}

void ListeningSocket::listen() {
    if (listener_) {
        return;
    }
    listener_ = make_socket();
    if (!listener_) {
        fail(errno_message("cannot be made", errno));
    }
    const DirectoryLock lock(directory_.get(), lockable_, lock_patience);
    if (lock.state() == DirectoryLock::State::held_by_another) {
        fail("another program holds the lock of its directory");
    }
    bind_at_path(lock.state() == DirectoryLock::State::locked);
    struct stat status{};
    if (::fstatat(directory_.get(), place_.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISSOCK(status.st_mode)) {
        fail("its directory was replaced");
    }
    bound_ = identity_of(status);
    if (::listen(listener_.get(), use_.backlog) != 0) {
        fail(errno_message("cannot listen", errno));
    }
}

void ListeningSocket::bind_at_path(bool locked) {
    const sockaddr_un address = address_of(path_);
    constexpr int attempts = 3;  // programs that take no lock may interfere
    for (int attempt = 1;; ++attempt) {
        const int error = bind_private(listener_.get(), address);
        if (error == 0) {
            return;
        }
        if (error != EADDRINUSE || attempt == attempts) {
            fail(errno_message("cannot be made", error));
        }
        remove_left_behind(locked);
    }
}

void ListeningSocket::remove_left_behind(bool locked) const {
    struct stat before{};
    if (::fstatat(directory_.get(), place_.name.c_str(), &before, AT_SYMLINK_NOFOLLOW) != 0) {
        return;  // gone
    }
    refuse_what_is_no_socket();
    const vmsuperio::UniqueFd probe = make_socket();
    const sockaddr_un address = address_of(path_);
    if (!probe) {
        fail(errno_message("cannot be examined", errno));
    }
    // EAGAIN means that a program listens and its queue is full.
    if (::connect(probe.get(), generic(address), sizeof(address)) == 0 || errno == EAGAIN) {
        fail("another program listens there");
    }
    if (errno == ENOENT) {
        return;
    }
    if (errno != ECONNREFUSED) {
        fail(errno_message("a socket is there already", errno));
    }
    if (!locked) {
        fail(
            "a program that is gone has left it behind; its directory cannot be locked, so it has to be "
            "removed by hand");
    }
    struct stat now{};
    if (::fstatat(directory_.get(), place_.name.c_str(), &now, AT_SYMLINK_NOFOLLOW) == 0 &&
        identity_of(now) == identity_of(before) &&
        ::unlinkat(directory_.get(), place_.name.c_str(), 0) != 0) {
        fail(errno_message("a program that is gone has left it behind, and it cannot be removed", errno));
    }
}

void ListeningSocket::fail(const std::string& reason) const {
    throw VmmError(ExitCode::bad_file, std::string(use_.name) + ' ' + in_quotes(path_) + ": " + reason);
}

}  // namespace kvm_vmm
