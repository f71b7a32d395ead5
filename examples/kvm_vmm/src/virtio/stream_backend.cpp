// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/stream_backend.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <utility>

#include "memory/shared_copy.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm::virtio {
namespace {

using LengthField = std::array<std::uint8_t, 4>;

// Several of the largest frames, so that one system call receives many small ones.
constexpr std::size_t input_size = std::size_t{256} * 1024;
constexpr int socket_buffer = 1 << 20U;  // the host may allow less

constexpr LengthField length_field(std::size_t length) {
    return {static_cast<std::uint8_t>(length >> 24U), static_cast<std::uint8_t>(length >> 16U),
            static_cast<std::uint8_t>(length >> 8U), static_cast<std::uint8_t>(length)};
}

std::size_t length_in(std::span<const std::uint8_t> field) {
    std::size_t length = 0;
    for (const std::uint8_t byte : field.first<sizeof(LengthField)>()) {
        length = length << 8U | byte;
    }
    return length;
}

void copy_to(std::span<const iovec> pieces, std::span<const std::uint8_t> bytes) {
    for (const iovec& piece : pieces) {
        const std::size_t count = std::min(piece.iov_len, bytes.size());
        copy_to_guest(static_cast<std::uint8_t*>(piece.iov_base), bytes.first(count));
        bytes = bytes.subspan(count);
    }
}

}  // namespace

StreamBackend::StreamBackend(std::unique_ptr<StreamPeer> peer, std::string what, std::string identity,
                             std::optional<std::uint16_t> mtu, Pauses pauses)
    : peer_(std::move(peer)),
      what_(std::move(what)),
      identity_(std::move(identity)),
      mtu_(mtu),
      pauses_(pauses),
      pause_(pauses.first),
      input_(input_size) {
    auto connection = peer_->connect();
    if (!connection) {
        throw VmmError(ExitCode::bad_file, what_ + ": " + connection.error());
    }
    use(std::move(*connection));
}

StreamBackend::~StreamBackend() { StreamBackend::detach(); }

void StreamBackend::use(vmsuperio::UniqueFd fd) {
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &socket_buffer, sizeof(socket_buffer));
    fd_ = std::move(fd);
    begin_ = 0;
    end_ = 0;
    unsent_.clear();
    failure_.reset();
    link_up_ = true;
}

void StreamBackend::attach(EventManager& events, Client& client) {
    events_ = &events;
    client_ = &client;
    frames_wanted_ = false;
    room_wanted_ = false;
    timer_.emplace(events, CLOCK_MONOTONIC, [this] { on_timer(); });
    peer_->attach(events);
    if (fd_) {
        subscribe();
    }
    if ((!fd_ && peer_->can_reconnect()) || failure_) {
        timer_->set_after({});
    }
}

void StreamBackend::detach() noexcept {
    if (events_ == nullptr) {
        return;
    }
    if (subscription_) {
        events_->remove(*subscription_);
        subscription_.reset();
    }
    peer_->detach();
    timer_.reset();
    events_ = nullptr;
    client_ = nullptr;
}

void StreamBackend::subscribe() {
    waits_for_ = EventManager::hangup_only;
    const auto added =
        events_->add(fd_.get(), waits_for_, [this](std::uint32_t occurred) { on_events(occurred); });
    if (!added) {
        throw VmmError(ExitCode::vmm_error, what_ + ": " + added.error().message());
    }
    subscription_ = *added;
    update_events();
}

void StreamBackend::update_events() {
    std::uint32_t wanted = frames_wanted_ ? EPOLLIN : 0U;
    wanted |= room_wanted_ || !unsent_.empty() ? EPOLLOUT : 0U;
    wanted = wanted != 0 ? wanted : EventManager::hangup_only;
    if (subscription_ && wanted != waits_for_) {
        waits_for_ = wanted;
        events_->modify(*subscription_, wanted);
    }
}

void StreamBackend::want_frames(bool wanted) {
    frames_wanted_ = wanted;
    update_events();
}

void StreamBackend::want_room() {
    room_wanted_ = true;
    update_events();
}

void StreamBackend::on_events(std::uint32_t events) {
    if (!failure_ && (events & EPOLLOUT) != 0 && flush()) {
        const bool wanted = std::exchange(room_wanted_, false);
        update_events();
        if (wanted) {
            client_->room_is_free();
        }
    }
    if (!failure_ && (events & EPOLLIN) != 0) {
        client_->frames_arrived();
    }
    // What was received before the end is delivered first, if the driver waits for it.
    if (!failure_ && (events & (EPOLLHUP | EPOLLERR)) != 0 && !frames_wanted_) {
        failure_ = "the peer has closed the connection";
    }
    if (failure_) {
        lose();
    }
}

void StreamBackend::on_timer() {
    if (failure_) {
        lose();
    } else if (!fd_) {
        reconnect();
    }
}

// May be called by the client, which must not be called back now.
void StreamBackend::fail(std::string reason) {
    if (!failure_) {
        failure_ = std::move(reason);
        if (timer_) {
            timer_->set_after({});
        }
    }
}

void StreamBackend::lose() {
    const std::string reason = *std::exchange(failure_, std::nullopt);
    if (!subscription_) {
        return;
    }
    events_->remove(*subscription_);
    subscription_.reset();
    fd_ = {};
    link_up_ = false;
    unsent_.clear();
    begin_ = 0;
    end_ = 0;
    const std::string details = peer_->on_lost();
    const bool again = peer_->can_reconnect();
    log(LogLevel::warning, what_ + ": " + reason + (details.empty() ? "" : " (" + details + ")") +
                               (again ? "; the guest has no link until there is a new connection"
                                      : "; the guest has no link any more"));
    if (again) {
        retry_later();
    }
    client_->link_changed();
}

void StreamBackend::retry_later() {
    timer_->set_after(pause_);
    pause_ = std::min(2 * pause_, pauses_.longest);
}

void StreamBackend::reconnect() {
    auto connection = peer_->connect();
    if (!connection) {
        log(LogLevel::debug, what_ + ": " + connection.error());
        retry_later();
        return;
    }
    use(std::move(*connection));
    subscribe();
    log(LogLevel::warning, what_ + ": there is a new connection");
    client_->link_changed();
}

std::optional<std::size_t> StreamBackend::receive(NetHeader& header, std::span<const iovec> pieces) {
    header = {};
    while (fd_ && !failure_) {
        const std::span<const std::uint8_t> received =
            std::span<const std::uint8_t>(input_).subspan(begin_, end_ - begin_);
        if (received.size() >= sizeof(LengthField)) {
            const std::size_t length = length_in(received);
            if (length < least_length || length > most_length) {
                fail("the peer has sent a frame of " + std::to_string(length) + " bytes");
                return std::nullopt;
            }
            if (received.size() >= sizeof(LengthField) + length) {
                copy_to(pieces, received.subspan(sizeof(LengthField), length));
                begin_ += sizeof(LengthField) + length;
                pause_ = pauses_.first;
                return length;
            }
        }
        if (begin_ != 0) {
            std::memmove(input_.data(), received.data(), received.size());
            end_ -= std::exchange(begin_, 0);
        }
        const ssize_t got = ::recv(fd_.get(), input_.data() + end_, input_.size() - end_, MSG_DONTWAIT);
        if (got > 0) {
            end_ += static_cast<std::size_t>(got);
        } else if (got == 0) {
            fail(end_ == 0 ? "the peer has closed the connection"
                           : "the peer has closed the connection within a frame");
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            fail(errno_message("cannot receive", errno));
        }
    }
    return std::nullopt;
}

NetBackend::Sent StreamBackend::send(const NetHeader&, std::span<const iovec> pieces, std::size_t length) {
    if (length > most_length || !fd_ || failure_) {
        return Sent::refused;
    }
    if (!flush()) {
        return failure_ ? Sent::refused : Sent::not_now;
    }
    LengthField field = length_field(length);
    pieces_.assign(1, {.iov_base = field.data(), .iov_len = field.size()});
    pieces_.insert(pieces_.end(), pieces.begin(), pieces.end());
    msghdr message{};
    message.msg_iov = pieces_.data();
    message.msg_iovlen = pieces_.size();
    ssize_t sent = -1;
    do {
        sent = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        if (errno == EAGAIN) {
            return Sent::not_now;
        }
        fail(errno_message("cannot send", errno));
        return Sent::refused;
    }
    // The frame has to be completed before another one begins.
    auto skipped = static_cast<std::size_t>(sent);
    for (const iovec& piece : pieces_) {
        const std::size_t done = std::min(skipped, piece.iov_len);
        const auto* const bytes = static_cast<const std::uint8_t*>(piece.iov_base);
        append_from_guest(unsent_, bytes + done, piece.iov_len - done);
        skipped -= done;
    }
    update_events();
    return Sent::yes;
}

// Sends the rest of a frame. Returns whether nothing is left.
bool StreamBackend::flush() {
    std::size_t done = 0;
    while (done < unsent_.size()) {
        const ssize_t sent =
            ::send(fd_.get(), unsent_.data() + done, unsent_.size() - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            done += static_cast<std::size_t>(sent);
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            fail(errno_message("cannot send", errno));
            break;
        }
    }
    unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(done));
    return unsent_.empty();
}

std::expected<vmsuperio::UniqueFd, std::string> SocketPeer::connect() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof(address.sun_path)) {
        return std::unexpected("a socket's path has at most " + std::to_string(sizeof(address.sun_path) - 1) +
                               " bytes");
    }
    std::ranges::copy(path_, std::begin(address.sun_path));
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        switch (errno) {
            case ECONNREFUSED:
                return std::unexpected("no program listens there, or it is no socket");
            case EAGAIN:
                return std::unexpected("the program that listens there does not accept the connection");
            default:
                return std::unexpected(errno_message("cannot connect", errno));
        }
    }
    return fd;
}

std::expected<vmsuperio::UniqueFd, std::string> SinglePeer::connect() {
    if (!fd_) {
        return std::unexpected("the connection has ended");
    }
    return std::exchange(fd_, {});
}

}  // namespace kvm_vmm::virtio
