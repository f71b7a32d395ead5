// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "virtio/stream_backend.hpp"

namespace kvm_vmm::virtio {

/// passt(1) as a child process, which gives the guest a network without privileges: it translates the guest's
/// connections to sockets of the host. It ends with this process, because its socket is then closed, and with
/// this object. Its messages are logged.
class PasstProcess final : public StreamPeer {
public:
    /// `arguments` are appended to those that the connection needs. `program` is looked up in PATH.
    explicit PasstProcess(std::vector<std::string> arguments, std::string program = "passt");
    ~PasstProcess() override;

    /// Starts it. Does not wait until it serves the connection.
    [[nodiscard]] std::expected<vmsuperio::UniqueFd, std::string> connect() override;
    [[nodiscard]] std::string on_lost() override;
    void attach(EventManager& events) override;
    void detach() noexcept override;

private:
    /// Waits until it reads from the connection, for the first start: it then has opened all that it needs.
    [[nodiscard]] std::optional<std::string> wait_until_ready(int fd);
    void read_messages();
    void watch_messages();
    [[nodiscard]] bool signal_child(int signal) const noexcept;
    [[maybe_unused]] std::optional<int> end() noexcept;

    std::vector<std::string> arguments_;
    std::string program_;
    pid_t child_{-1};
    vmsuperio::UniqueFd child_descriptor_;
    bool started_before_{false};
    vmsuperio::UniqueFd messages_;
    std::string last_message_;
    EventManager* events_{};
    std::optional<EventManager::SubscriptionId> subscription_;
};

}  // namespace kvm_vmm::virtio
