// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include <vmsuperio/linux/fd_writer.hpp>

#include "console/listening_socket.hpp"
#include "console/serial_backend.hpp"
#include "event/timer.hpp"
#include "util/file_descriptor.hpp"

namespace kvm_vmm {

/// A serial port on a Unix stream socket that listens at a path: one client at a time, the next one when it
/// has gone. While there is none, what the guest sends is dropped, as on a line with nothing at its end.
///
/// The descriptors of a client are set aside from the start, so that one is served where the process has no
/// other left. Where that is not enough, the client waits and is looked after once a second, which is logged.
class UnixSocketBackend final : public SerialBackend {
public:
    /// See ListeningSocket. Throws VmmError(bad_file).
    UnixSocketBackend(std::string path, EventManager& events)
        : UnixSocketBackend(ListeningSocket(std::move(path)), events) {}
    UnixSocketBackend(ListeningSocket socket, EventManager& events);
    ~UnixSocketBackend() override;

    [[nodiscard]] int input_fd() const noexcept override { return client_ ? client_->fd() : -1; }
    /// Another one than that of the input, so that both can be waited for.
    [[nodiscard]] int output_fd() const noexcept override { return client_ ? output_.get() : -1; }
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(
        std::span<const std::uint8_t> bytes) override;
    void on_hangup() override;

private:
    void accept_client();
    [[nodiscard]] int accept_descriptor();
    [[nodiscard]] bool take_output(int client);
    void set_aside();
    void rest(int error_number);
    void serve(int client);

    EventManager& events_;
    ListeningSocket socket_;
    Timer rest_;
    EventManager::SubscriptionId subscription_{};
    FileDescriptor spare_;   // kept for the next client's input, closed just before it is accepted
    FileDescriptor output_;  // of the client; kept for one while there is none
    bool shortage_logged_{false};
    std::mutex mutex_;  // guards the client against write() from another thread
    std::optional<vmsuperio::FdWriter> client_;
};

}  // namespace kvm_vmm
