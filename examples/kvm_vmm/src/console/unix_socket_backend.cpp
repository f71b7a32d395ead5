// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/unix_socket_backend.hpp"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <string>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "error.hpp"
#include "util/log.hpp"
#include "util/quote.hpp"

namespace kvm_vmm {
namespace {

constexpr std::chrono::seconds rest_time{1};

}  // namespace

UnixSocketBackend::UnixSocketBackend(ListeningSocket socket, EventManager& events)
    : events_(events),
      socket_(std::move(socket)),
      rest_(events, CLOCK_MONOTONIC, [this] { events_.modify(subscription_, EPOLLIN); }) {
    socket_.listen();
    set_aside();
    const auto id = events_.add(socket_.fd(), EPOLLIN, [this](std::uint32_t) { accept_client(); });
    if (!id) {
        socket_.fail("cannot wait for clients: " + id.error().message());
    }
    subscription_ = *id;
}

UnixSocketBackend::~UnixSocketBackend() { events_.remove(subscription_); }

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
    const int fd = accept_descriptor();
    if (fd >= 0) {
        serve(fd);
        return;
    }
    const int error_number = errno;
    set_aside();
    // The other errors are of the client, which has gone again; these are ours, and epoll would report the
    // client that still waits without end.
    if (error_number == EMFILE || error_number == ENFILE || error_number == ENOBUFS ||
        error_number == ENOMEM) {
        rest(error_number);
    }
}

int UnixSocketBackend::accept_descriptor() {
    spare_.reset();
    return ::accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void UnixSocketBackend::serve(int client) {
    FileDescriptor accepted(client);
    if (!take_output(client)) {
        const int error_number = errno;
        accepted.reset();
        set_aside();
        rest(error_number);
        return;
    }
    {
        const std::lock_guard lock(mutex_);
        client_ = vmsuperio::FdWriter::own(accepted.release());
    }
    shortage_logged_ = false;
    events_.modify(subscription_, 0);
    changed();
}

// Under the number that was set aside; that fails only where the limit has been lowered below it since.
bool UnixSocketBackend::take_output(int client) {
    if (output_ && ::dup3(client, output_.get(), O_CLOEXEC) >= 0) {
        return true;
    }
    output_ = FileDescriptor(::fcntl(client, F_DUPFD_CLOEXEC, 0));
    return static_cast<bool>(output_);
}

// Any descriptor that costs nothing else will do.
void UnixSocketBackend::set_aside() {
    if (!output_ || ::dup3(socket_.fd(), output_.get(), O_CLOEXEC) < 0) {
        output_ = FileDescriptor(::fcntl(socket_.fd(), F_DUPFD_CLOEXEC, 0));
    }
    if (!spare_) {
        spare_ = FileDescriptor(::fcntl(socket_.fd(), F_DUPFD_CLOEXEC, 0));
    }
}

void UnixSocketBackend::rest(int error_number) {
    if (!std::exchange(shortage_logged_, true)) {
        log(LogLevel::warning, errno_message("a client of serial socket " + quoted(socket_.path()) +
                                                 " cannot be served now, and another try follows each second",
                                             error_number));
    }
    events_.modify(subscription_, 0);
    rest_.set(std::chrono::steady_clock::now().time_since_epoch() + rest_time);
}

void UnixSocketBackend::on_hangup() {
    {
        const std::lock_guard lock(mutex_);
        client_.reset();
    }
    events_.modify(subscription_, EPOLLIN);
    changed();
    set_aside();  // closes the client's other descriptor, which nobody waits for any more
}

}  // namespace kvm_vmm
