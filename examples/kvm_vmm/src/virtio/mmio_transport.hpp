// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <vmdevice/device.hpp>
#include <vmsuperio/linux/eventfd.hpp>

#include "event/notifier.hpp"
#include "memory/guest_memory.hpp"
#include "util/mutex.hpp"
#include "virtio/device.hpp"
#include "virtio/interrupt_causes.hpp"

namespace kvm_vmm::virtio {

/// The saved state of a transport, and of the queues of its device.
struct MmioState {
    struct Queue {
        std::uint32_t size{0};
        bool ready{false};
        bool reset{
            false};  ///< the driver has reset it, and may set it up again although the device is in operation
        std::uint64_t descriptors{0};
        std::uint64_t available{0};
        std::uint64_t used{0};
        QueueState progress;
        friend bool operator==(const Queue&, const Queue&) = default;
    };

    std::uint32_t status{0};
    std::uint32_t interrupt_status{0};
    std::uint32_t config_generation{0};
    std::uint32_t device_features_sel{0};
    std::uint32_t driver_features_sel{0};
    std::uint32_t queue_sel{0};
    std::uint64_t driver_features{0};
    std::vector<Queue> queues;
    std::vector<std::uint8_t> device;  ///< see Device::Saved

    friend bool operator==(const MmioState&, const MmioState&) = default;
};

/// A virtio device on the memory bus: VIRTIO 1.2, section 4.2, version 2 of the registers.
///
/// The driver has to follow the order of section 3.1.1. A step that it skips or repeats has no effect: a status
/// bit without those before it, features after FEATURES_OK, queues outside of FEATURES_OK to DRIVER_OK or while
/// QueueReady is 1. QueueReady stays 0 for a queue whose size or addresses are invalid. With VIRTIO_F_RING_RESET a queue
/// that the driver has reset (2.6.1) may be set up after DRIVER_OK, too.
///
/// Not modelled: legacy devices (version 1), VIRTIO_F_NOTIFICATION_DATA, packed rings. Shared memory regions do not exist:
/// their lengths read as all ones.
///
/// A write to InterruptACK may arrive late, but before the next other access (see InterruptCauses). It takes no lock.
///
/// Ignored: accesses to registers (not to the configuration space) that are not 4 bytes at a multiple of 4; they
/// read as 0.
///
/// Thread safety: all functions may be called from any thread. A write of 0 to Status returns when the device
/// does not access guest memory any more, and a write of 1 to QueueReset when it does not access that queue any more.
/// Meanwhile, another CPU reads QueueReset as 1.
class MmioTransport final : public vmdevice::DeviceMmio, private DriverLink {
public:
    /// Starts the device's events. `memory` must outlive the transport. `interrupt` is triggered once for each
    /// interrupt. `writes_on_their_way` returns whether a write to InterruptACK that a CPU has made may arrive later; it is
    /// called by any thread while a driver operates the device, and empty if no write arrives late. Throws VmmError if the
    /// system has no descriptor or thread left.
    MmioTransport(const GuestMemory& memory, std::shared_ptr<Device> device,
                  vmsuperio::EventFdTrigger interrupt, std::function<bool()> writes_on_their_way = {});
    /// Stops the device's events. If they are those of the main thread, this must be called there.
    ~MmioTransport() override;

    /// The eventfds of the queues: a write to one has the effect of a write of the queue's number to
    /// QueueNotify, for an ioeventfd.
    [[nodiscard]] std::span<const Notifier> notifiers() const noexcept { return notifiers_; }
    /// The eventfd that the transport triggers for each interrupt.
    [[nodiscard]] const vmsuperio::EventFdTrigger& interrupt() const noexcept { return interrupt_; }
    [[nodiscard]] Device& device() noexcept { return *device_; }

    /// Completes the requests in progress and stops the device for good: it does not access guest memory any more.
    /// To be called when no CPU will run any more, by the thread that owns the device's events.
    void shut_down();

    void mmio_read(vmdevice::MmioAddress base, vmdevice::MmioOffset offset,
                   std::span<std::uint8_t> data) override;
    void mmio_write(vmdevice::MmioAddress base, vmdevice::MmioOffset offset,
                    std::span<const std::uint8_t> data) override;

    /// Completes the requests in progress and returns the state. No CPU may run meanwhile, and no write may be on its
    /// way.
    [[nodiscard]] MmioState state();
    /// Takes the place of a transport that state() was called for. To be called before the device is used.
    /// Returns the name of the first invalid member of a state that no transport can be in, or that does not fit to the
    /// device; then nothing has changed.
    [[nodiscard]] std::expected<void, std::string_view> restore(const MmioState& state);

private:
    struct Queue {
        std::uint16_t max_size;
        MmioState::Queue set;
    };

    // DriverLink
    void notify_used() noexcept override;
    void notify_config_changed() noexcept override;
    void set_needs_reset() noexcept override;
    void notify_device(std::size_t queue) noexcept override;

    [[nodiscard]] std::uint32_t read_register(std::uint64_t offset) KVM_VMM_REQUIRES(mutex_);
    void write_register(std::uint64_t offset, std::uint32_t value) KVM_VMM_REQUIRES(mutex_);
    void write_status(std::uint32_t value) KVM_VMM_REQUIRES(mutex_);
    void write_queue_register(std::uint64_t offset, std::uint32_t value) KVM_VMM_REQUIRES(mutex_);
    void write_queue_ready(Queue& queue, bool ready) KVM_VMM_REQUIRES(mutex_);
    void reset_queue(Queue& queue) KVM_VMM_REQUIRES(mutex_);
    void reset() KVM_VMM_REQUIRES(mutex_);
    void activate() KVM_VMM_REQUIRES(mutex_);
    void raise(std::uint32_t cause) noexcept;

    [[nodiscard]] bool may_set_features() const noexcept;
    [[nodiscard]] bool may_set_queue(const Queue& queue) const noexcept KVM_VMM_REQUIRES(mutex_);
    [[nodiscard]] std::uint64_t offered() const noexcept;
    [[nodiscard]] bool acceptable(std::uint64_t features) const noexcept;
    [[nodiscard]] Queue* selected() noexcept KVM_VMM_REQUIRES(mutex_);
    [[nodiscard]] static QueueLayout layout_of(const MmioState::Queue& set) noexcept;
    [[nodiscard]] static QueueFeatures queue_features(std::uint64_t features) noexcept;

    const GuestMemory& memory_;
    std::shared_ptr<Device> device_;
    vmsuperio::EventFdTrigger interrupt_;
    std::function<bool()> writes_on_their_way_;
    std::vector<Notifier> notifiers_;
    std::vector<EventManager::SubscriptionId> subscriptions_;

    // The device changes these without the mutex.
    std::atomic<std::uint32_t> status_{0};
    InterruptCauses interrupt_causes_;
    std::atomic<std::uint32_t> config_generation_{0};
    // Of the selected queue: QueueSel cannot change meanwhile.
    std::atomic<bool> queue_reset_runs_{false};

    Mutex mutex_;
    std::uint32_t device_features_sel_ KVM_VMM_GUARDED_BY(mutex_){0};
    std::uint32_t driver_features_sel_ KVM_VMM_GUARDED_BY(mutex_){0};
    std::uint32_t queue_sel_ KVM_VMM_GUARDED_BY(mutex_){0};
    std::uint64_t driver_features_ KVM_VMM_GUARDED_BY(mutex_){0};
    std::vector<Queue> queues_ KVM_VMM_GUARDED_BY(mutex_);
};

}  // namespace kvm_vmm::virtio
