// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "virtio/device.hpp"

namespace kvm_vmm::virtio {

/// Source of random bytes: VIRTIO 1.2, section 5.4. One queue, no features, no configuration.
class Entropy final : public Device {
public:
    /// The largest number of bytes that one request gets, so that no driver keeps the event loop busy.
    static constexpr std::size_t max_request = std::size_t{64} * 1024;

    /// Fills the bytes; returns how many are random, from the beginning on.
    using Source = std::function<std::size_t(std::span<std::uint8_t>)>;

    /// `source` should not block; the default is system_source().
    Entropy(std::string_view name, Counters& counters, EventManager& events, Source source = system_source);

    /// Bytes of the host's random number generator, getrandom(2). It waits only on a host that has just booted
    /// and has no entropy yet: Linux (5.4 or later) then collects it within about a second.
    static std::size_t system_source(std::span<std::uint8_t> bytes) noexcept;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::entropy; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes; }
    [[nodiscard]] EventManager& events() noexcept override { return events_; }

private:
    static constexpr std::array<std::uint16_t, 1> sizes{64};

    void on_read_config(std::uint64_t, std::span<std::uint8_t>) const KVM_VMM_REQUIRES(mutex()) override {}
    void on_queue_reset(std::size_t) KVM_VMM_REQUIRES(mutex()) override {
    }  // nothing is kept between two requests
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::uint32_t fill(const Buffers& buffers) const;

    EventManager& events_;
    Source source_;
    Counter& bytes_;
};

}  // namespace kvm_vmm::virtio
