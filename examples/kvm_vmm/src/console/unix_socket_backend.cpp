// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/unix_socket_backend.hpp"

#include <algorithm>
#include <cerrno>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "error.hpp"

namespace kvm_vmm {
namespace {

[[noreturn]] void fail(const std::string& path, int error_number) {
    throw VmmError(ExitCode::bad_file,
                   errno_message("cannot listen on serial socket '" + path + "'", error_number));
}

FileDescriptor make_socket(const std::string& path) {
    FileDescriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
        fail(path, errno);
    }
    return fd;
}

FileDescriptor listen_at(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        throw VmmError(ExitCode::bad_file, "cannot listen on serial socket '" + path + "': the path has " +
                                               std::to_string(path.size()) +
                                               " bytes, and a socket's path at most " +
                                               std::to_string(sizeof(address.sun_path) - 1));
    }
    std::ranges::copy(path, address.sun_path);
    const auto* const generic = reinterpret_cast<const sockaddr*>(&address);  // the socket API's own idiom

    FileDescriptor listener = make_socket(path);
    if (::bind(listener.get(), generic, sizeof(address)) != 0) {
        const int error_number = errno;
        // A socket that refuses connections was left by a process that is gone.
        const FileDescriptor probe = make_socket(path);
        if (error_number != EADDRINUSE || ::connect(probe.get(), generic, sizeof(address)) == 0 ||
            errno != ECONNREFUSED) {
            fail(path, error_number);
        }
        ::unlink(path.c_str());
        if (::bind(listener.get(), generic, sizeof(address)) != 0) {
            fail(path, errno);
        }
    }
    if (::listen(listener.get(), 4) != 0) {
        fail(path, errno);
    }
    return listener;
}

}  // namespace

UnixSocketBackend::UnixSocketBackend(std::string path, EventManager& events)
    : path_(std::move(path)), events_(events), listener_(listen_at(path_)) {
    const auto id = events_.add(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_client(); });
    if (!id) {
        fail(path_, id.error().value());
    }
    subscription_ = *id;
}

UnixSocketBackend::~UnixSocketBackend() {
    events_.remove(subscription_);
    ::unlink(path_.c_str());
}

std::expected<std::size_t, std::error_code> UnixSocketBackend::write(std::span<const std::uint8_t> bytes) {
    const std::lock_guard lock(mutex_);
    if (!client_) {
        return bytes.size();
    }
    const auto written = client_->write(bytes);
    // A client that has just gone away is no error: the event loop hears of it soon, and until then there is
    // none.
    if (!written &&
        (written.error() == std::errc::broken_pipe || written.error() == std::errc::connection_reset)) {
        return bytes.size();
    }
    return written;
}

void UnixSocketBackend::accept_client() {
    const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;  // the client has gone again
    }
    {
        const std::lock_guard lock(mutex_);
        client_ = vmsuperio::FdWriter::own(fd);
    }
    events_.modify(subscription_, 0);
    changed();
}

void UnixSocketBackend::on_hangup() {
    {
        const std::lock_guard lock(mutex_);
        client_.reset();
    }
    events_.modify(subscription_, EPOLLIN);
    changed();
}

}  // namespace kvm_vmm
