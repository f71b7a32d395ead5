// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>

#include "event/event_thread.hpp"
#include "virtio/device.hpp"
#include "virtio/fuse_server.hpp"

namespace kvm_vmm::virtio {

/// File system device (virtiofs): VIRTIO 1.2, section 5.11. A high priority queue and one request queue, both
/// served by a thread of the device; no notification queue and no shared memory region.
///
/// The lock is not held while a request waits for the host's file system, so that only a reset waits for it.
class FileSystem final : public Device {
public:
    /// The size of the tag in the configuration space (5.11.4).
    static constexpr std::size_t max_tag = 36;

    /// `tag`, of 1 to max_tag bytes, is the name by which the guest mounts it. `root` must outlive the device.
    FileSystem(std::string_view name, Counters& counters, const SharedRoot& root, bool writable,
               std::string_view tag, SharedDirectory::Limits limits);

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::file_system; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes; }
    [[nodiscard]] EventManager& events() noexcept override { return thread_.events(); }
    void start_events() override { thread_.start(); }
    void stop_events() noexcept override { thread_.stop(); }

private:
    // A request of 1 MiB has a descriptor for each page and four more (FUSE_HEADER_OVERHEAD in Linux).
    static constexpr std::array<std::uint16_t, 2> sizes{128, 1024};

    struct Config {
        std::array<char, max_tag> tag;
        std::uint32_t num_request_queues;
    };
    static_assert(sizeof(Config) == 40);

    void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) override;
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_reset() KVM_VMM_REQUIRES(mutex()) override;
    void on_queue_reset(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_defective(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex()) override;
    void on_drain() KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::vector<std::uint8_t> on_state() const KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::expected<void, std::string_view> on_restore_state(std::span<const std::uint8_t> bytes,
                                                                         std::uint64_t features)
        KVM_VMM_REQUIRES(mutex()) override;

    /// What a thread that waits for the request in progress wants to be done with it.
    enum class Interruption : std::uint8_t { none, complete, discard };
    void wait_until_idle(Interruption interruption) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool process(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex());

    Config config_{};
    // In use by the device's thread while busy_ is set, and otherwise with the mutex.
    FuseServer server_;
    bool busy_{false};
    Interruption interruption_{Interruption::none};
    std::condition_variable_any idle_;
    EventThread thread_;
};

}  // namespace kvm_vmm::virtio
