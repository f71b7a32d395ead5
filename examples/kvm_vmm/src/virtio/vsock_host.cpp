// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The sockets of the host that a Vsock connects with the guest.
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <utility>

#include "util/error.hpp"
#include "util/log.hpp"
#include "util/quote.hpp"
#include "virtio/vsock.hpp"

namespace kvm_vmm::virtio {
namespace {

constexpr std::chrono::seconds rest_time{1};
constexpr std::uint32_t always_waited_for = EPOLLIN | EPOLLRDHUP | EPOLLET;

// What is in the socket for its peer.
int unread_bytes(int fd) {
    int bytes = 0;
    return ::ioctl(fd, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Takes the next word off `text`.
std::string_view take_word(std::string_view& text) {
    const auto begin = std::ranges::find_if_not(text, is_blank);
    const auto end = std::find_if(begin, text.end(), is_blank);
    const std::string_view word(begin, end);
    text = std::string_view(end, text.end());
    return word;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

std::optional<std::uint32_t> parse_connect(std::string_view line) {
    const std::string_view keyword = take_word(line);
    const std::string_view number = take_word(line);
    if (!std::ranges::equal(keyword, std::string_view("connect"), {}, lower) || !take_word(line).empty()) {
        return std::nullopt;
    }
    std::uint32_t port = 0;
    const char* const end = number.data() + number.size();
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the end is passed as well
    const auto [rest, error] = std::from_chars(number.data(), end, port);
    return error == std::errc{} && rest == end && !number.empty() ? std::optional(port) : std::nullopt;
}

// Events of the host.

void Vsock::on_host_events() {
    const LockGuard lock(mutex());
    std::array<epoll_event, 64> ready{};
    const int count = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), 0);
    for (int i = 0; i < count; ++i) {
        // Copies, because the structure is packed: a reference to its member would be misaligned.
        const epoll_event& event = ready.at(static_cast<std::size_t>(i));
        const std::uint64_t id = event.data.u64;
        const std::uint32_t events = event.events;
        if (id == listener_id) {
            accept_clients();
        } else if (const auto found = streams_.find(id); found != streams_.end()) {
            on_stream_events(found->first, found->second, events);
        }
    }
    send_packets();
}

void Vsock::accept_clients() {
    constexpr int most = 16;  // then others have their turn
    for (int i = 0; i < most; ++i) {
        vmsuperio::UniqueFd client(::accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!client) {
            // Other errors mean that there is no client, or that it has gone. These are errors of this process,
            // and epoll would report the waiting client endlessly.
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                rest(errno);
            }
            return;
        }
        Id id = 0;
        if (Stream* const stream = add(std::move(client), id)) {
            set_deadline(*stream, line_patience);
        } else {
            refused_.add();
        }
    }
}

void Vsock::listen_for_clients(bool listen) {
    epoll_event event{.events = listen ? EPOLLIN : 0U, .data = {.u64 = listener_id}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, socket_.fd(), &event);
}

void Vsock::rest(int error_number) {
    log(LogLevel::warning, errno_message(std::string(name()) + ": a client of " + in_quotes(socket_.path()) +
                                             " cannot be served now, and another try follows each second",
                                         error_number));
    listen_for_clients(false);
    rest_until_ = Clock::now() + rest_time;
    set_timer(*rest_until_);
}

void Vsock::on_stream_events(Id id, Stream& stream, std::uint32_t events) {
    if ((events & EPOLLHUP) != 0) {
        stream.hung_up = true;
    }
    if (stream.phase == Stream::Phase::greeting) {
        read_line(id, stream);
        return;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        stream.readable = true;
    }
    if (!stream.pending.empty() && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
        flush(id, stream);
        if (!streams_.contains(id)) {
            return;
        }
    }
    if (stream.phase == Stream::Phase::draining && stream.hung_up) {
        erase(id);
        return;
    }
    notice_hangup(id, stream);
    schedule(id, stream);
}

// Of a peer whose bytes are not read any more. Otherwise it is found after the last of them.
void Vsock::notice_hangup(Id id, Stream& stream) {
    if (stream.phase == Stream::Phase::open && stream.hung_up && stream.connection.established() &&
        !stream.connection.may_send_data()) {
        discard_pending(id, stream);
        close_host(id, stream, vsock::shutdown_both);
    }
}

void Vsock::read_line(Id id, Stream& stream) {
    for (;;) {
        // What follows the line belongs to the connection, so it is left in the socket.
        std::array<char, longest_line> bytes{};
        const std::size_t most = longest_line - stream.line.size();
        // NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): MSG_DONTWAIT
        ssize_t count = ::recv(stream.fd.get(), bytes.data(), most, MSG_PEEK | MSG_DONTWAIT);
        if (count < 0 && errno == EAGAIN) {
            return;
        }
        if (count <= 0) {
            erase(id);
            return;
        }
        const std::string_view peeked(bytes.data(), static_cast<std::size_t>(count));
        const std::size_t newline = peeked.find('\n');
        const std::size_t wanted = newline == std::string_view::npos ? peeked.size() : newline + 1;
        // NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): MSG_DONTWAIT
        count = ::recv(stream.fd.get(), bytes.data(), wanted, MSG_DONTWAIT);
        if (count != static_cast<ssize_t>(wanted)) {
            erase(id);  // nobody else reads this socket
            return;
        }
        stream.line += peeked.substr(0, wanted);
        if (newline != std::string_view::npos) {
            const auto port = parse_connect(stream.line);
            stream.line = {};
            if (port && active()) {
                request(id, stream, *port);
            } else {
                refused_.add();
                erase(id);
            }
            return;
        }
        if (stream.line.size() == longest_line) {
            refused_.add();
            erase(id);
            return;
        }
    }
}

void Vsock::request(Id id, Stream& stream, std::uint32_t port) {
    do {
        stream.host_port = next_host_port_;
        next_host_port_ = next_host_port_ == 2 * first_host_port - 1 ? first_host_port : next_host_port_ + 1;
    } while (pairs_.contains(pair_of(port, stream.host_port)));
    stream.phase = Stream::Phase::open;
    stream.guest_port = port;
    stream.connection = VsockConnection(VsockConnection::Origin::host);
    pairs_.emplace(pair_of(port, stream.host_port), id);
    set_deadline(stream, answer_patience);
    schedule(id, stream);
}

void Vsock::on_time() {
    const LockGuard lock(mutex());
    timer_set_.reset();
    const auto now = Clock::now();
    if (rest_until_ && *rest_until_ <= now) {
        rest_until_.reset();
        listen_for_clients(true);
    }
    std::vector<Id> expired;
    std::optional<Clock::time_point> next = rest_until_;
    for (const auto& [id, stream] : streams_) {
        if (stream.deadline && *stream.deadline <= now) {
            expired.push_back(id);
        } else if (stream.deadline && (!next || *stream.deadline < *next)) {
            next = stream.deadline;
        }
    }
    for (const Id id : expired) {
        Stream& stream = streams_.at(id);
        if (stream.phase == Stream::Phase::greeting) {
            refused_.add();
            erase(id);
        } else if (stream.phase == Stream::Phase::draining && unread_bytes(stream.fd.get()) < stream.unread) {
            wait_for_reader(stream);  // it reads, though there is no room yet
        } else if (stream.phase == Stream::Phase::draining) {
            undelivered_bytes_.add(stream.pending.size() - stream.pending_from);
            log(LogLevel::warning, std::string(name()) + ": a program has not read the last " +
                                       std::to_string(stream.pending.size() - stream.pending_from) +
                                       " bytes of a connection that the guest has closed");
            erase(id);
        } else {
            if (!stream.connection.established()) {
                refused_.add();
            }
            abort(id, stream);
        }
    }
    if (next) {
        set_timer(*next);
    }
    send_packets();
}

vmsuperio::UniqueFd Vsock::connect_host(std::uint32_t port) const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = socket_.path() + '_' + std::to_string(port);
    if (path.size() >= sizeof(address.sun_path)) {
        return {};
    }
    std::ranges::copy(path, address.sun_path);
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
        log(LogLevel::warning, errno_message(std::string(name()) + ": cannot make a socket", errno));
        return {};
    }
    // A full queue of the listener is EAGAIN, and a refusal like the others: the guest tries again.
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        if (errno != ENOENT && errno != ECONNREFUSED) {
            log(LogLevel::info, errno_message(std::string(name()) + ": " + in_quotes(path), errno));
        }
        return {};
    }
    return fd;
}

// The life of streams.

Vsock::Stream* Vsock::add(vmsuperio::UniqueFd fd, Id& id) {
    if (streams_.size() >= max_connections) {
        return nullptr;
    }
    id = next_id_++;
    epoll_event event{.events = always_waited_for, .data = {.u64 = id}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) {
        log(LogLevel::warning, errno_message(std::string(name()) + ": cannot wait for a connection", errno));
        return nullptr;
    }
    Stream& stream = streams_[id];
    stream.fd = std::move(fd);
    return &stream;
}

void Vsock::flush(Id id, Stream& stream) {
    while (stream.pending_from < stream.pending.size()) {
        const auto rest = std::span(stream.pending).subspan(stream.pending_from);
        const ssize_t count = ::send(stream.fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno == EAGAIN) {
            schedule(id, stream);
            return;
        }
        if (count < 0) {
            host_receives_no_more(id, stream);
            return;
        }
        stream.pending_from += static_cast<std::size_t>(count);
        stream.connection.forwarded(static_cast<std::uint32_t>(count));
        if (stream.phase == Stream::Phase::draining) {
            wait_for_reader(stream);
        }
    }
    discard_pending(id, stream);
    if (stream.phase == Stream::Phase::draining) {
        erase(id);
        return;
    }
    if ((stream.connection.guest_shutdown() & vsock::shutdown_send) != 0) {
        ::shutdown(stream.fd.get(), SHUT_WR);
    }
    schedule(id, stream);
}

// Also returns the memory: most connections never need it.
void Vsock::discard_pending(Id id, Stream& stream) {
    stream.connection.forwarded(static_cast<std::uint32_t>(stream.pending.size() - stream.pending_from));
    stream.pending = {};
    stream.pending_from = 0;
    wait_for_room(id, stream, false);
}

void Vsock::wait_for_room(Id id, Stream& stream, bool wait) const {
    if (std::exchange(stream.waits_for_room, wait) != wait) {
        epoll_event event{.events = always_waited_for | (wait ? EPOLLOUT : 0U), .data = {.u64 = id}};
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, stream.fd.get(), &event);
    }
}

void Vsock::host_receives_no_more(Id id, Stream& stream) {
    if (stream.phase == Stream::Phase::draining) {
        erase(id);
        return;
    }
    discard_pending(id, stream);
    close_host(id, stream, vsock::shutdown_receive);
}

void Vsock::wait_for_reader(Stream& stream) {
    stream.unread = unread_bytes(stream.fd.get());
    set_deadline(stream, patience_to_drain_);
}

void Vsock::close_host(Id id, Stream& stream, std::uint32_t directions) {
    const std::uint32_t before = stream.connection.host_shutdown();
    stream.connection.close_host(directions);
    if (before != vsock::shutdown_both && stream.connection.host_shutdown() == vsock::shutdown_both) {
        set_deadline(stream, answer_patience);
    }
    schedule(id, stream);
}

bool Vsock::has_work(const Stream& stream) noexcept {
    switch (stream.phase) {
        case Stream::Phase::open:
            return stream.connection.has_control() || (stream.readable && stream.connection.may_send_data());
        case Stream::Phase::resetting:
            return true;
        default:
            return false;
    }
}

void Vsock::schedule(Id id, Stream& stream) {
    if (!stream.scheduled && has_work(stream)) {
        stream.scheduled = true;
        scheduled_.push_back(id);
    }
}

void Vsock::abort(Id id, Stream& stream) {
    close_descriptor(stream);
    stream.pending = {};
    stream.phase = Stream::Phase::resetting;
    stream.deadline.reset();
    schedule(id, stream);
}

void Vsock::close_descriptor(Stream& stream) const {
    // A copy in a process that has just been forked would keep it in the epoll instance.
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, stream.fd.get(), nullptr);
    stream.fd.reset();
}

void Vsock::erase(Id id) {
    const auto found = streams_.find(id);
    Stream& stream = found->second;
    if (stream.phase == Stream::Phase::open || stream.phase == Stream::Phase::resetting) {
        pairs_.erase(pair_of(stream.guest_port, stream.host_port));
    }
    if (stream.fd) {
        close_descriptor(stream);
    }
    if (stream.scheduled) {
        std::erase(scheduled_, id);  // a guest without receive buffers must not make this grow
    }
    streams_.erase(found);
}

void Vsock::set_deadline(Stream& stream, Clock::duration patience) {
    stream.deadline = Clock::now() + patience;
    set_timer(*stream.deadline);
}

void Vsock::set_timer(Clock::time_point time) {
    if (!timer_set_ || time < *timer_set_) {
        timer_set_ = time;
        timer_.set(time.time_since_epoch());
    }
}

}  // namespace kvm_vmm::virtio
