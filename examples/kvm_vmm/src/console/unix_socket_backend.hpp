// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include <vmsuperio/linux/fd_writer.hpp>

#include "console/serial_backend.hpp"
#include "util/file_descriptor.hpp"

namespace kvm_vmm {

/// A serial port on a Unix stream socket that listens at a path: one client at a time, the next one when it
/// has gone. While there is none, what the guest sends is dropped, as on a line with nothing at its end.
class UnixSocketBackend final : public SerialBackend {
public:
    /// Replaces a socket that a process left behind, but neither one in use nor any other file.
    UnixSocketBackend(std::string path, EventManager& events);
    ~UnixSocketBackend() override;

    [[nodiscard]] int input_fd() const noexcept override { return client_ ? client_->fd() : -1; }
    [[nodiscard]] int output_fd() const noexcept override { return input_fd(); }
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(
        std::span<const std::uint8_t> bytes) override;
    void on_hangup() override;

private:
    void accept_client();

    std::string path_;
    EventManager& events_;
    FileDescriptor listener_;
    EventManager::SubscriptionId subscription_{};
    std::mutex mutex_;  // guards the client against write() from another thread
    std::optional<vmsuperio::FdWriter> client_;
};

}  // namespace kvm_vmm
