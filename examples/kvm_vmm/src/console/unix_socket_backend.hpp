// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include <vmsuperio/linux/unique_fd.hpp>

#include "console/listening_socket.hpp"
#include "console/serial_backend.hpp"
#include "event/timer.hpp"

namespace kvm_vmm {

/// A serial port on a Unix stream socket that listens at a path: one client at a time, the next one when it
/// has gone. See OutputChannel for what the guest sends while there is none.
///
/// The two directions end apart: a client that has shut down its sending side gets output until it closes,
/// and one that has shut down its receiving side is heard until then. What a client sent before it went is
/// heard.
///
/// The descriptor of a client is set aside from the start, so that one is served where the process has no
/// other left. Where that is not enough, the client waits and is looked after once a second, which is logged.
class UnixSocketBackend final : public SerialBackend {
public:
    /// See ListeningSocket. Throws VmmError(bad_file).
    UnixSocketBackend(std::string path, EventManager& events)
        : UnixSocketBackend(ListeningSocket(std::move(path)), events) {}
    UnixSocketBackend(ListeningSocket socket, EventManager& events);
    ~UnixSocketBackend() override;

    [[nodiscard]] int input_fd() const noexcept override { return client_.get(); }
    [[nodiscard]] int output_fd() const noexcept override { return client_.get(); }
    [[nodiscard]] std::expected<std::size_t, std::error_code> read(std::span<std::uint8_t> bytes) override;
    void on_input_end() override { input_ended_ = true; }
    [[nodiscard]] bool input_ended() const noexcept override { return input_ended_; }
    [[nodiscard]] bool has_peers() const noexcept override { return true; }
    void on_hangup() override;

private:
    void accept_client();
    void set_aside();
    void rest(int error_number);
    void serve(vmsuperio::UniqueFd client);

    EventManager& events_;
    ListeningSocket socket_;
    Timer rest_;
    EventManager::SubscriptionId subscription_{};
    vmsuperio::UniqueFd spare_;  // kept for the next client, closed just before it is accepted
    vmsuperio::UniqueFd client_;
    bool input_ended_{false};
    bool shortage_logged_{false};
};

}  // namespace kvm_vmm
