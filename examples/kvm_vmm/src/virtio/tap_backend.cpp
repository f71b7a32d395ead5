// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/tap_backend.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <memory>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <utility>

#include "util/error.hpp"
#include "util/log.hpp"
#include "util/quote.hpp"

namespace kvm_vmm::virtio {
namespace {

constexpr const char* device_path = "/dev/net/tun";
constexpr short interface_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

[[noreturn]] void refuse(const std::string& what, const std::string& reason) {
    throw VmmError(ExitCode::bad_file, what + ": " + reason);
}

ifreq request_for(const std::string& name) {
    ifreq request{};
    std::ranges::copy(name, std::begin(request.ifr_name));
    return request;
}

bool set_non_blocking(int fd) {
    const int flags = ::fcntl(fd, F_GETFL);
    return flags >= 0 && ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

vmsuperio::UniqueFd attach_queue(const std::string& name, const std::string& what) {
    vmsuperio::UniqueFd fd(::open(device_path, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) {
        refuse(what,
               errno_message(device_path, errno) +
                   (errno == ENOENT || errno == ENODEV ? " (the kernel's module tun provides it)" : ""));
    }
    // An interface that was made for several queues can be opened only as such.
    for (const short queues : {short{0}, short{IFF_MULTI_QUEUE}}) {
        ifreq request = request_for(name);
        request.ifr_flags = static_cast<short>(interface_flags | queues);
        if (::ioctl(fd.get(), TUNSETIFF, &request) == 0) {
            return fd;
        }
        if (errno != EINVAL) {
            break;
        }
    }
    switch (errno) {
        case EBUSY:
            refuse(what, "the interface is in use by another process");
        case EPERM:
            refuse(what,
                   "the interface belongs to another user; this one may use it after: ip tuntap add dev " +
                       name + " mode tap user $USER");
        case EINVAL:
            refuse(what, "the interface is not a tap");
        default:
            refuse(what, errno_message("the interface cannot be opened", errno));
    }
}

}  // namespace

std::unique_ptr<TapBackend> TapBackend::open(const std::string& name) {
    const std::string what = "--net tap=" + in_quotes(name);
    // TUNSETIFF would create it, for as long as this process runs.
    if (::if_nametoindex(name.c_str()) == 0) {
        refuse(what, "there is no such interface; this makes one: ip tuntap add dev " + name +
                         " mode tap user $USER");
    }
    return adopt_queue(attach_queue(name, what), name, what, true);
}

std::unique_ptr<TapBackend> TapBackend::adopt(vmsuperio::UniqueFd fd, const std::string& what) {
    ifreq request{};
    if (::ioctl(fd.get(), TUNGETIFF, &request) != 0) {
        refuse(what, "the descriptor is not that of a tap interface");
    }
    const auto flags = static_cast<unsigned short>(request.ifr_flags);
    if ((flags & IFF_TAP) == 0) {
        refuse(what,
               "the descriptor is that of a tun interface, which has no Ethernet frames: a tap is needed");
    }
    if ((flags & IFF_NO_PI) == 0 || (flags & IFF_VNET_HDR) == 0) {
        refuse(what, "the tap must have been opened with IFF_NO_PI and IFF_VNET_HDR");
    }
    if (!set_non_blocking(fd.get())) {
        refuse(what, errno_message("the descriptor cannot be used", errno));
    }
    const std::string name(std::begin(request.ifr_name), std::ranges::find(request.ifr_name, '\0'));
    return adopt_queue(std::move(fd), name, what, false);
}

std::unique_ptr<TapBackend> TapBackend::adopt_queue(vmsuperio::UniqueFd fd, const std::string& name,
                                                    const std::string& what, bool named) {
    int header_size = sizeof(NetHeader);
    if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_size) != 0) {
        refuse(what, errno_message("the size of the header cannot be set", errno));
    }
    std::unique_ptr<TapBackend> backend(new TapBackend(std::move(fd), name, what, named));
    backend->set_offloads({});
    return backend;
}

TapBackend::TapBackend(vmsuperio::UniqueFd fd, std::string name, std::string what, bool named)
    : fd_(std::move(fd)), name_(std::move(name)), what_(std::move(what)), named_(named) {}

TapBackend::~TapBackend() { TapBackend::detach(); }

std::optional<std::uint16_t> TapBackend::mtu() const noexcept {
    if (!named_) {
        return std::nullopt;  // the interface may be in another network namespace
    }
    const vmsuperio::UniqueFd any_socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request = request_for(name_);
    if (!any_socket || ::ioctl(any_socket.get(), SIOCGIFMTU, &request) != 0 || request.ifr_mtu < min_mtu ||
        request.ifr_mtu > max_mtu) {
        return std::nullopt;
    }
    return static_cast<std::uint16_t>(request.ifr_mtu);
}

void TapBackend::set_offloads(NetOffloads offloads) noexcept {
    unsigned flags = 0;
    flags |= offloads.checksum ? TUN_F_CSUM : 0U;
    flags |= offloads.tso4 ? TUN_F_TSO4 : 0U;
    flags |= offloads.tso6 ? TUN_F_TSO6 : 0U;
    flags |= offloads.ecn ? TUN_F_TSO_ECN : 0U;
    if (::ioctl(fd_.get(), TUNSETOFFLOAD, flags) != 0 && link_up()) {
        // The host then completes each frame itself.
        log(LogLevel::warning, errno_message(what_ + ": the offloads cannot be set", errno));
    }
}

void TapBackend::attach(EventManager& events, Client& client) {
    const auto subscription = events.add(fd_.get(), EventManager::hangup_only,
                                         [this](std::uint32_t occurred) { on_events(occurred); });
    if (!subscription) {
        throw VmmError(ExitCode::vmm_error, what_ + ": " + subscription.error().message());
    }
    events_ = &events;
    client_ = &client;
    subscription_ = *subscription;
    waits_for_ = 0;
}

void TapBackend::detach() noexcept {
    if (events_ != nullptr) {
        events_->remove(subscription_);
        events_ = nullptr;
        client_ = nullptr;
    }
}

void TapBackend::wait_for(std::uint32_t events) {
    if (waits_for_ != events) {
        waits_for_ = events;
        events_->modify(subscription_, events != 0 ? events : EventManager::hangup_only);
    }
}

void TapBackend::want_frames(bool wanted) {
    wait_for(wanted && link_up() ? waits_for_ | EPOLLIN : waits_for_ & ~std::uint32_t{EPOLLIN});
}

void TapBackend::want_room() {
    if (link_up()) {
        wait_for(waits_for_ | EPOLLOUT);
    }
}

void TapBackend::on_events(std::uint32_t events) {
    // The interface was deleted.
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        lose();
        return;
    }
    if ((events & EPOLLOUT) != 0) {
        wait_for(waits_for_ & ~std::uint32_t{EPOLLOUT});
        client_->room_is_free();
    }
    if ((events & EPOLLIN) != 0) {
        client_->frames_arrived();
    }
}

void TapBackend::lose() {
    wait_for(0);
    // The descriptor reports it for ever: also to a further device, before its driver waits for frames.
    if (link_up_.exchange(false)) {
        log(LogLevel::warning, what_ + ": the interface was deleted; the guest has no link any more");
        client_->link_changed();
    }
}

std::span<const iovec> TapBackend::behind(iovec header, std::span<const iovec> pieces) {
    pieces_.assign(1, header);
    pieces_.insert(pieces_.end(), pieces.begin(), pieces.end());
    return pieces_;
}

std::optional<std::size_t> TapBackend::receive(NetHeader& header, std::span<const iovec> pieces) {
    const auto all = behind({.iov_base = &header, .iov_len = sizeof(header)}, pieces);
    for (;;) {
        const ssize_t got = ::readv(fd_.get(), all.data(), static_cast<int>(all.size()));
        if (got >= static_cast<ssize_t>(sizeof(header))) {
            header.buffers = 0;
            return static_cast<std::size_t>(got) - sizeof(header);
        }
        if (got >= 0 || errno != EINTR) {
            return std::nullopt;
        }
    }
}

NetBackend::Sent TapBackend::send(const NetHeader& header, std::span<const iovec> pieces,
                                  std::size_t length) {
    NetHeader sent = header;
    const auto all = behind({.iov_base = &sent, .iov_len = sizeof(sent)}, pieces);
    for (;;) {
        const ssize_t written = ::writev(fd_.get(), all.data(), static_cast<int>(all.size()));
        if (written == static_cast<ssize_t>(sizeof(sent) + length)) {
            return Sent::yes;
        }
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0 && errno == EAGAIN) {
            return Sent::not_now;
        }
        // The interface was deleted. The kernel wakes only those up who wait for EPOLLIN; with this the event loop looks
        // for EPOLLERR again.
        if (written < 0 && errno == EBADFD) {
            events_->modify(subscription_, waits_for_ != 0 ? waits_for_ : EventManager::hangup_only);
        }
        // Anything else concerns this frame: EIO is an interface that is down.
        return Sent::refused;
    }
}

}  // namespace kvm_vmm::virtio
