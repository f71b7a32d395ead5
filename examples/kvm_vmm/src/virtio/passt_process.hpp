// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "virtio/helper_launcher.hpp"
#include "virtio/stream_backend.hpp"

namespace kvm_vmm::virtio {

/// passt(1) as a process of its own, which gives the guest a network without privileges: it translates the
/// guest's connections to sockets of the host. It is started, and started again if it ends, by a launcher
/// that is made with the first connection, so also when this process is in its sandbox. It ends with this
/// process, and with this object. Its messages are logged.
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
    void stop_watching() noexcept;
    [[nodiscard]] std::string end_of_helper();

    std::vector<std::string> arguments_;
    std::string program_;
    std::optional<HelperLauncher> launcher_;
    bool started_before_{false};
    vmsuperio::UniqueFd messages_;
    std::string last_message_;
    EventManager* events_{};
    std::optional<EventManager::SubscriptionId> subscription_;
};

}  // namespace kvm_vmm::virtio
