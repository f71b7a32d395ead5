// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "virtio/net_backend.hpp"

namespace kvm_vmm::virtio {

/// A tap interface of the host: each read and write of its descriptor is one frame behind a NetHeader
/// (https://docs.kernel.org/networking/tuntap.html).
class TapBackend final : public NetBackend {
public:
    /// Opens the interface `name`, which must exist. Throws VmmError(bad_file) with the reason if it cannot be
    /// used.
    [[nodiscard]] static std::unique_ptr<TapBackend> open(const std::string& name);
    /// Takes an open descriptor of a tap interface. `what` describes it in messages. Throws VmmError(bad_file)
    /// if it is none, or was opened with other flags than IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
    [[nodiscard]] static std::unique_ptr<TapBackend> adopt(vmsuperio::UniqueFd fd, const std::string& what);

    ~TapBackend() override;

    [[nodiscard]] NetOffloads offloads() const noexcept override {
        return {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true};
    }
    [[nodiscard]] std::optional<std::uint16_t> mtu() const noexcept override;
    [[nodiscard]] std::string identity() const override { return name_; }
    void set_offloads(NetOffloads offloads) noexcept override;

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
    TapBackend(vmsuperio::UniqueFd fd, std::string name, std::string what, bool named);
    [[nodiscard]] static std::unique_ptr<TapBackend> adopt_queue(vmsuperio::UniqueFd fd,
                                                                 const std::string& name,
                                                                 const std::string& what, bool named);

    void on_events(std::uint32_t events);
    void wait_for(std::uint32_t events);
    void lose();
    [[nodiscard]] std::span<const iovec> behind(iovec header, std::span<const iovec> pieces);

    vmsuperio::UniqueFd fd_;
    std::string name_;
    std::string what_;
    bool named_;
    std::atomic<bool> link_up_{true};
    EventManager* events_{};
    Client* client_{};
    EventManager::SubscriptionId subscription_{};
    std::uint32_t waits_for_{0};
    std::vector<iovec> pieces_;
};

}  // namespace kvm_vmm::virtio
