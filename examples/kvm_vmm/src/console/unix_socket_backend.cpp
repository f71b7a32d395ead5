// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/unix_socket_backend.hpp"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <string>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <vmsuperio/linux/fd_writer.hpp>

#include "util/error.hpp"
#include "util/log.hpp"
#include "util/quote.hpp"

namespace kvm_vmm {
namespace {

constexpr std::chrono::seconds rest_time{1};

}  // namespace

UnixSocketBackend::UnixSocketBackend(ListeningSocket socket, EventManager& events)
    : SerialBackend(OutputChannel::Readers::come_and_go),
      events_(events),
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

std::expected<std::size_t, std::error_code> UnixSocketBackend::read(std::span<std::uint8_t> bytes) {
    const ssize_t count = ::recv(client_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count < 0) {
        return std::unexpected(std::error_code(errno, std::system_category()));
    }
    return static_cast<std::size_t>(count);
}

void UnixSocketBackend::accept_client() {
    spare_.reset();
    const int fd = ::accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        shortage_logged_ = false;
        serve(vmsuperio::UniqueFd(fd));
        return;
    }
    const int error_number = errno;
    set_aside();
    // Other errors mean that the client has disconnected again. These are errors of this process, and epoll
    // would report the waiting client endlessly.
    if (error_number == EMFILE || error_number == ENFILE || error_number == ENOBUFS ||
        error_number == ENOMEM) {
        rest(error_number);
    }
}

void UnixSocketBackend::serve(vmsuperio::UniqueFd client) {
    client_ = std::move(client);
    input_ended_ = false;
    pollfd entry{.fd = client_.get(), .events = 0, .revents = 0};
    if (::poll(&entry, 1, 0) > 0 && (entry.revents & POLLHUP) != 0) {
        // The client disconnected while it waited for its turn: its input is read, but the output that was
        // kept is for a client that reads.
        keep_rest_of_input();
        client_.reset();
        set_aside();
    } else {
        events_.modify(subscription_, 0);
        output().attach(vmsuperio::FdWriter::borrow(client_.get()));
    }
    changed();
}

// Reserves a descriptor; any that needs no other resource is suitable.
void UnixSocketBackend::set_aside() {
    if (!spare_) {
        spare_ = vmsuperio::UniqueFd(::fcntl(socket_.fd(), F_DUPFD_CLOEXEC, 0));
    }
}

void UnixSocketBackend::rest(int error_number) {
    if (!std::exchange(shortage_logged_, true)) {
        log(LogLevel::warning,
            errno_message("a client of " + std::string(socket_.name()) + ' ' + in_quotes(socket_.path()) +
                              " cannot be served now, and another try follows each second",
                          error_number));
    }
    events_.modify(subscription_, 0);
    rest_.set_after(rest_time);
}

void UnixSocketBackend::on_hangup() {
    output().detach();
    keep_rest_of_input();
    client_.reset();
    set_aside();
    events_.modify(subscription_, EPOLLIN);
    changed();
}

}  // namespace kvm_vmm
