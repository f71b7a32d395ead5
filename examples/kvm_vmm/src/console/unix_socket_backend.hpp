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

/// A serial port on a Unix stream socket that listens at a path. It serves one client at a time, and the next
/// one after that one has disconnected. OutputChannel describes the treatment of output while there is none.
///
/// The two directions are closed independently: a client that has shut down its sending side receives output
/// until it closes, and input of a client that has shut down its receiving side is read until then. Input
/// that a client sent before it disconnected is read.
///
/// The descriptor for a client is reserved from the start, so that a client is served even if the process has
/// no other left. If that is not sufficient, the client waits and is accepted in a later attempt, one per
/// second, which is logged.
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
    vmsuperio::UniqueFd spare_;  // reserved for the next client, closed just before it is accepted
    vmsuperio::UniqueFd client_;
    bool input_ended_{false};
    bool shortage_logged_{false};
};

}  // namespace kvm_vmm
