// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "event/timer.hpp"
#include "virtio/net_backend.hpp"

namespace kvm_vmm::virtio {

/// What a StreamBackend is connected to. Used by one thread at a time.
class StreamPeer {
public:
    StreamPeer() = default;
    StreamPeer(const StreamPeer&) = delete;
    StreamPeer& operator=(const StreamPeer&) = delete;
    virtual ~StreamPeer() = default;

    /// A new connection: a stream socket; or why there is none. Must not wait for the peer.
    [[nodiscard]] virtual std::expected<vmsuperio::UniqueFd, std::string> connect() = 0;
    /// Whether connect() may succeed again after the first time.
    [[nodiscard]] virtual bool can_reconnect() const noexcept { return true; }
    /// The connection has ended. Returns what is known about the reason, or an empty text.
    [[nodiscard]] virtual std::string on_lost() { return {}; }
    /// As NetBackend: the peer may watch descriptors in this event loop.
    virtual void attach(EventManager&) {}
    virtual void detach() noexcept {}
};

/// Frames over a stream socket: each is a length (32 bits, big-endian) and the frame, without a NetHeader. This
/// is the protocol of passt (passt(1)) and of QEMU's `-netdev stream`.
///
/// When the connection ends or the peer breaks the protocol, the link is down until a further connection was
/// made, which is tried with growing pauses.
class StreamBackend final : public NetBackend {
public:
    /// Lengths of frames outside of this range end the connection.
    static constexpr std::size_t least_length = min_frame;
    static constexpr std::size_t most_length = 65535;

    struct Pauses {
        std::chrono::milliseconds first{500};
        std::chrono::milliseconds longest{30'000};
    };

    /// Connects; throws VmmError(bad_file) if that fails. `what` describes the peer in messages.
    StreamBackend(std::unique_ptr<StreamPeer> peer, std::string what, std::string identity,
                  std::optional<std::uint16_t> mtu, Pauses pauses);
    StreamBackend(std::unique_ptr<StreamPeer> peer, std::string what, std::string identity,
                  std::optional<std::uint16_t> mtu = std::nullopt)
        : StreamBackend(std::move(peer), std::move(what), std::move(identity), mtu, Pauses{}) {}
    ~StreamBackend() override;

    [[nodiscard]] std::optional<std::uint16_t> mtu() const noexcept override { return mtu_; }
    [[nodiscard]] std::string identity() const override { return identity_; }

    void attach(EventManager& events, Client& client) override;
    void detach() noexcept override;
    void want_frames(bool wanted) override;
    void want_room() override;
    [[nodiscard]] bool link_up() const noexcept override { return link_up_.load(); }

    [[nodiscard]] std::optional<std::size_t> receive(NetHeader& header,
                                                     std::span<const iovec> pieces) override;
    [[nodiscard]] Sent send(const NetHeader& header, std::span<const iovec> pieces,
                            std::size_t length) override;

private:
    void use(vmsuperio::UniqueFd fd);
    void subscribe();
    void on_events(std::uint32_t events);
    void on_timer();
    void update_events();
    void fail(std::string reason);
    void lose();
    void reconnect();
    void retry_later();
    bool flush();

    std::unique_ptr<StreamPeer> peer_;
    std::string what_;
    std::string identity_;
    std::optional<std::uint16_t> mtu_;
    Pauses pauses_;
    std::chrono::milliseconds pause_;
    vmsuperio::UniqueFd fd_;
    std::atomic<bool> link_up_{false};
    std::optional<std::string> failure_;  // why the connection has to be closed, as soon as that is possible

    EventManager* events_{};
    Client* client_{};
    std::optional<Timer> timer_;
    std::optional<EventManager::SubscriptionId> subscription_;
    std::uint32_t waits_for_{0};
    bool frames_wanted_{false};
    bool room_wanted_{false};

    std::vector<std::uint8_t> input_;  // bytes [begin_, end_) were received
    std::size_t begin_{0};
    std::size_t end_{0};
    std::vector<std::uint8_t> unsent_;  // the rest of a frame
    std::vector<iovec> pieces_;
};

/// A Unix stream socket that another program listens on.
class SocketPeer final : public StreamPeer {
public:
    explicit SocketPeer(std::string path) : path_(std::move(path)) {}
    [[nodiscard]] std::expected<vmsuperio::UniqueFd, std::string> connect() override;

private:
    std::string path_;
};

/// A stream socket that is open already, once.
class SinglePeer final : public StreamPeer {
public:
    explicit SinglePeer(vmsuperio::UniqueFd fd) : fd_(std::move(fd)) {}
    [[nodiscard]] std::expected<vmsuperio::UniqueFd, std::string> connect() override;
    [[nodiscard]] bool can_reconnect() const noexcept override { return false; }

private:
    vmsuperio::UniqueFd fd_;
};

}  // namespace kvm_vmm::virtio
