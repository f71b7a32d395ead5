// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// The driver's side of the socket device, for tests, and programs on the host.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "console/listening_socket.hpp"
#include "scratch_directory.hpp"
#include "virtio/vsock.hpp"
#include "virtio_mmio_driver.hpp"

namespace kvm_vmm::test {

using vmsuperio::UniqueFd;

inline sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof(address.sun_path));
    std::ranges::copy(path, address.sun_path);
    return address;
}

/// A program on the host that is connected to a path.
inline UniqueFd connect_unix(const std::string& path) {
    const sockaddr_un address = unix_address(path);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
}

inline UniqueFd listen_unix(const std::string& path, int backlog = 64) {
    const sockaddr_un address = unix_address(path);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    REQUIRE(::listen(fd.get(), backlog) == 0);
    return fd;
}

inline UniqueFd accept_unix(const UniqueFd& listener) {
    return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

/// What can be read at present. "<end>" and "<error>" stand for the end of the stream and for an error.
inline std::string read_all(const UniqueFd& fd, std::size_t most = ~std::size_t{0}) {
    std::string text;
    std::array<char, 4096> bytes{};
    while (text.size() < most) {
        const ssize_t count = ::recv(fd.get(), bytes.data(), std::min(bytes.size(), most - text.size()), 0);
        if (count <= 0) {
            return text + (count == 0 ? "<end>" : errno == EAGAIN ? "" : "<error>");
        }
        text.append(bytes.data(), static_cast<std::size_t>(count));
    }
    return text;
}

inline std::size_t write_some(const UniqueFd& fd, std::string_view text) {
    const ssize_t count = ::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
    return count > 0 ? static_cast<std::size_t>(count) : 0;
}

struct Packet {
    virtio::VsockHeader header;
    std::string data;
};

/// A guest with a socket device. It has 64 receive buffers of 4 KiB, and keeps the packets that it received.
class VsockGuest {
public:
    static constexpr std::uint64_t cid = 7;
    static constexpr std::uint32_t buffer_size = 4096;
    static constexpr std::uint16_t buffers = 64;
    static constexpr std::uint32_t default_buf_alloc = 256 * 1024;

    explicit VsockGuest(std::uint16_t receive_buffers = buffers,
                        std::chrono::milliseconds patience_to_drain = virtio::Vsock::drain_patience)
        : path((directory / "v.sock").string()),
          socket(path, {.name = "vsock socket", .longest_suffix = 11, .backlog = 2048}),
          receive_buffers_(receive_buffers) {
        socket.listen();
        rig.emplace([this, patience_to_drain](DeviceRig& r) {
            return std::make_shared<virtio::Vsock>("vsock0", r.counters, r.events, cid, socket,
                                                   patience_to_drain);
        });
        start();
    }

    void start() {
        rig->start();
        received.clear();
        next_sent_ = 0;
        for (std::uint16_t i = 0; i < receive_buffers_; ++i) {
            offer_buffer(i);
        }
        rig->notify(0);
        for (std::uint16_t i = 0; i < 4; ++i) {
            rig->queues[2]->set(i, {.address = 0x18'0000U + i * 16U, .length = 8, .flags = 2});
            rig->queues[2]->offer(i);
        }
        rig->notify(2);
        rig->run_events();
    }
    void offer_buffer(std::uint16_t index, std::uint32_t size = buffer_size) {
        rig->queues[0]->set(index, {.address = buffer_at(index), .length = size, .flags = 2});
        rig->queues[0]->offer(index);
    }

    /// Sends `bytes` as a packet, without a check.
    void send_raw(std::string_view bytes) {
        const std::uint16_t head = next_sent_;
        next_sent_ = static_cast<std::uint16_t>((next_sent_ + 1) % 256);
        const std::uint64_t at = 0x60'0000U + std::uint64_t{head} * 0x4000U;
        REQUIRE(bytes.size() <= 0x4000U);
        REQUIRE(rig->memory.write(at, as_bytes(bytes)));
        rig->queues[1]->set(head, {.address = at, .length = static_cast<std::uint32_t>(bytes.size())});
        rig->queues[1]->offer(head);
        rig->notify(1);
    }
    void send(const virtio::VsockHeader& header, std::string_view data = {}) {
        std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
        bytes += data;
        send_raw(bytes);
    }
    static virtio::VsockHeader header(std::uint16_t op, std::uint32_t guest_port, std::uint32_t host_port,
                                      std::uint32_t len = 0) {
        return {.src_cid = cid,
                .dst_cid = 2,
                .src_port = guest_port,
                .dst_port = host_port,
                .len = len,
                .type = 1,
                .op = op,
                .flags = 0,
                .buf_alloc = default_buf_alloc,
                .fwd_cnt = 0};
    }

    /// Handles events, and takes and returns the buffers that were used.
    void run() {
        for (;;) {
            rig->run_events();
            if (!take_used(true)) {
                return;
            }
        }
    }
    /// Takes the buffers that were used; offers them again if `again`. Returns whether there was one.
    bool take_used(bool again) {
        bool any = false;
        while (const auto used = rig->queues[0]->take_used()) {
            any = true;
            const auto index = static_cast<std::uint16_t>(used->id);
            std::string bytes(used->written, '\0');
            REQUIRE(rig->memory.read(buffer_at(index),
                                     {reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size()}));
            if (bytes.size() >= sizeof(virtio::VsockHeader)) {
                Packet packet{};
                std::memcpy(&packet.header, bytes.data(), sizeof(packet.header));
                packet.data = bytes.substr(sizeof(packet.header));
                CHECK(packet.header.len == packet.data.size());
                CHECK(packet.header.dst_cid == cid);
                received.push_back(packet);
            }
            if (again) {
                offer_buffer(index);
            }
        }
        if (any && again) {
            rig->notify(0);
        }
        return any;
    }
    /// The next packet that was received.
    std::optional<Packet> next() {
        run();
        if (received.empty()) {
            return std::nullopt;
        }
        const Packet packet = received.front();
        received.pop_front();
        return packet;
    }
    /// The operation of the next packet; 0 if there is none.
    std::uint16_t next_op() {
        const auto packet = next();
        return packet ? packet->header.op : std::uint16_t{0};
    }
    template <class Condition>
    bool run_until(Condition&& condition, std::chrono::milliseconds limit = std::chrono::seconds(20)) {
        return rig->run_until(
            [&] {
                run();
                return condition();
            },
            limit);
    }
    [[nodiscard]] std::uint64_t counter(std::string_view name) { return rig->counters[name].value(); }

    /// A connection that a program on the host has made to `port`; the line and its answer are done.
    struct Connected {
        UniqueFd client;
        std::uint32_t host_port;
    };
    Connected connect_from_host(std::uint32_t port, std::uint32_t buf_alloc = default_buf_alloc) {
        UniqueFd client = connect_unix(path);
        const std::string line = "CONNECT " + std::to_string(port) + "\n";
        REQUIRE(write_some(client, line) == line.size());
        const auto request = next();
        REQUIRE(request);
        REQUIRE(request->header.op == virtio::vsock::op_request);
        const std::uint32_t host_port = request->header.src_port;
        auto response = header(virtio::vsock::op_response, port, host_port);
        response.buf_alloc = buf_alloc;
        send(response);
        run();
        REQUIRE(read_all(client) == "OK " + std::to_string(host_port) + "\n");
        return {std::move(client), host_port};
    }
    /// A connection of the guest to `host_port`, where `listener` listens.
    UniqueFd connect_from_guest(std::uint32_t guest_port, std::uint32_t host_port, const UniqueFd& listener,
                                std::uint32_t buf_alloc = default_buf_alloc) {
        auto request = header(virtio::vsock::op_request, guest_port, host_port);
        request.buf_alloc = buf_alloc;
        send(request);
        REQUIRE(next_op() == virtio::vsock::op_response);
        UniqueFd server = accept_unix(listener);
        REQUIRE(server);
        return server;
    }

    ScratchDirectory directory;
    std::string path;
    ListeningSocket socket;
    std::optional<DeviceRig> rig;
    std::deque<Packet> received;

private:
    static std::uint64_t buffer_at(std::uint16_t index) {
        return 0x20'0000U + std::uint64_t{index} * buffer_size;
    }

    std::uint16_t receive_buffers_;
    std::uint16_t next_sent_{0};
};

}  // namespace kvm_vmm::test
