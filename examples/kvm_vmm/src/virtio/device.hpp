// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "event/event_manager.hpp"
#include "observe/counters.hpp"
#include "util/mutex.hpp"
#include "virtio/registers.hpp"
#include "virtio/split_queue.hpp"

namespace kvm_vmm::virtio {

/// What a device may send to its driver. Implemented by the transport; may be called from any thread.
class DriverLink {
public:
    DriverLink() = default;
    DriverLink(const DriverLink&) = delete;
    DriverLink& operator=(const DriverLink&) = delete;
    virtual ~DriverLink() = default;

    /// Used buffer notification (2.3): the driver should look at the used rings.
    virtual void notify_used() noexcept = 0;
    /// Configuration change notification: the driver should read the configuration space again.
    virtual void notify_config_changed() noexcept = 0;
    /// Sets DEVICE_NEEDS_RESET (2.1.2) and notifies the driver of it.
    virtual void set_needs_reset() noexcept = 0;
    /// Lets Device::notified(queue) be called soon, in the device's event loop.
    virtual void notify_device(std::size_t queue) noexcept = 0;
};

/// A device of virtio without its transport. It owns its queues while the driver operates it.
///
/// Thread safety: the transport calls activate(), reset() and the configuration functions from the vCPUs'
/// threads, and notified() from the device's event loop. All of a device's state is guarded by mutex(). The
/// on_...() functions are called with it locked, and must not block: except on_reset(), on_queue_reset() and
/// on_drain(), which wait for the requests that are in progress.
class Device {
public:
    /// `name` ("disk0") is used in messages. `counters` must outlive the device.
    Device(std::string_view name, Counters& counters);
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    virtual ~Device() = default;

    [[nodiscard]] virtual DeviceType type() const noexcept = 0;
    /// The feature bits of the device's type. The transport adds those that all devices have.
    [[nodiscard]] virtual std::uint64_t features() const noexcept { return 0; }
    /// The largest size of each queue: a power of two up to 32768.
    [[nodiscard]] virtual std::span<const std::uint16_t> queue_sizes() const noexcept = 0;
    /// The event loop in which notified() has to be called.
    [[nodiscard]] virtual EventManager& events() noexcept = 0;

    /// Starts and stops the thread of a device whose events() are not those of the main thread.
    virtual void start_events() {}
    virtual void stop_events() noexcept {}

    /// Fills `data` from byte `offset` of the configuration space on. What lies beyond its end reads as 0.
    void read_config(std::uint64_t offset, std::span<std::uint8_t> data) const;
    /// A write of the driver to the configuration space.
    void write_config(std::uint64_t offset, std::span<const std::uint8_t> data);

    /// The driver has set DRIVER_OK, and accepted `features`. A queue that it has not enabled is absent.
    /// `link` must stay valid until reset().
    void activate(std::uint64_t features, std::vector<std::optional<SplitQueue>> queues, DriverLink& link);
    /// Returns when the device will not access guest memory any more. Requests in progress are not completed:
    /// the used rings stay as they are (2.4.1). Does nothing if the device is not active.
    void reset();
    /// The device was activated with the queues of a saved state, while its driver was in operation.
    void restored();
    /// The driver resets a queue, or disables it. As reset(), for this queue: the other ones continue.
    void stop_queue(std::size_t index);
    /// The driver has enabled a queue again that it had reset. Does nothing if the device is not active.
    void start_queue(std::size_t index, SplitQueue queue);
    /// The driver has notified the device of available buffers. Ignored if that queue is not enabled.
    void notified(std::size_t index);

    struct Saved {
        std::vector<std::optional<QueueState>> queues;
        std::vector<std::uint8_t> state;  ///< the rest: see device_states.hpp. Empty if there is nothing
    };
    /// Completes the requests in progress, so that the device can be saved, and returns its state. The device goes
    /// on with the next notification.
    [[nodiscard]] Saved drain();

    /// To be called before activate(), for a driver that has accepted `features`. Returns which member of the state is
    /// invalid, or does not fit to this device; then nothing has changed.
    [[nodiscard]] std::expected<void, std::string_view> restore_state(std::span<const std::uint8_t> bytes,
                                                                      std::uint64_t features);

protected:
    [[nodiscard]] Mutex& mutex() const noexcept KVM_VMM_RETURNS(mutex_) { return mutex_; }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    [[nodiscard]] Counters& counters() noexcept { return counters_; }

    /// As read_config() and write_config().
    virtual void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) = 0;
    virtual void on_write_config(std::uint64_t, std::span<const std::uint8_t>) KVM_VMM_REQUIRES(mutex()) {}
    virtual void on_activate() KVM_VMM_REQUIRES(mutex()) {}
    /// Must return only when no request is in progress; push() has no effect meanwhile.
    virtual void on_reset() KVM_VMM_REQUIRES(mutex()) {}
    /// As on_reset(), for one queue: must return only when no request of it is in progress, and forget what is known of
    /// its chains, which the driver takes back. The other queues continue. The driver may set up the queue again, and then
    /// on_notified() is called as after on_activate().
    virtual void on_queue_reset(std::size_t index) KVM_VMM_REQUIRES(mutex()) = 0;
    virtual void on_drain() KVM_VMM_REQUIRES(mutex()) {}
    [[nodiscard]] virtual std::vector<std::uint8_t> on_state() const KVM_VMM_REQUIRES(mutex()) { return {}; }
    [[nodiscard]] virtual std::expected<void, std::string_view> on_restore_state(
        std::span<const std::uint8_t> bytes, std::uint64_t features) KVM_VMM_REQUIRES(mutex());
    /// After on_activate(), if the queues are those of a saved state.
    virtual void on_restored() KVM_VMM_REQUIRES(mutex()) {}
    virtual void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) = 0;
    /// A chain with a defect was taken from a queue: returns it to the driver by push(). The default writes nothing
    /// into it, and suits requests without a status.
    virtual void on_defective(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex()) {
        push(index, chain, 0);
    }

    /// Whether the driver operates the device: DRIVER_OK is set, and no error has occurred since.
    [[nodiscard]] bool active() const noexcept KVM_VMM_REQUIRES(mutex()) {
        return link_ != nullptr && !broken_;
    }
    /// The features that the driver has accepted, while active.
    [[nodiscard]] std::uint64_t negotiated() const noexcept KVM_VMM_REQUIRES(mutex()) { return negotiated_; }
    [[nodiscard]] bool has_queue(std::size_t index) const noexcept KVM_VMM_REQUIRES(mutex());
    /// The number of its descriptors; 0 without a queue.
    [[nodiscard]] std::size_t size_of_queue(std::size_t index) const noexcept KVM_VMM_REQUIRES(mutex());

    /// The next chain of a queue, which has no defect; nothing if there is none, or the queue is not enabled. After an
    /// error in the rings the device needs a reset, and there are no chains until then. Chains with a defect are returned
    /// to the driver.
    ///
    /// `budget` is how many chains the device may still take in this turn, with a defect or without; it begins with
    /// the queue's size, more than which only a driver that refills the ring meanwhile can offer. When it is used up,
    /// pop() notifies the device itself and returns nothing: the device has to let others have their turn.
    [[nodiscard]] std::optional<Chain> pop(std::size_t index, std::size_t& budget) KVM_VMM_REQUIRES(mutex());
    /// See SplitQueue. These do nothing if the queue is not enabled.
    void undo_pop(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex());
    void push(std::size_t index, const Chain& chain, std::uint32_t written) KVM_VMM_REQUIRES(mutex());
    /// Lets the driver see what was pushed, and interrupts it if it asked for that.
    void publish(std::size_t index) KVM_VMM_REQUIRES(mutex());
    /// The same for all queues, with one interrupt.
    void publish_all() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool enable_notifications(std::size_t index) KVM_VMM_REQUIRES(mutex());
    void disable_notifications(std::size_t index) KVM_VMM_REQUIRES(mutex());

    /// Takes chains until there is none: calls `take(chain)`, which returns whether to go on, and then `flush()`
    /// before notifications are enabled, or left off if `take` returned false. Bounded: after as many chains as the
    /// queue has descriptors the device notifies itself and lets others have their turn.
    template <class Take, class Flush>
    void take_each(std::size_t index, Take&& take, Flush&& flush) KVM_VMM_REQUIRES(mutex());
    /// As take_each(), for requests that are answered at once: calls `f(chain)`, which returns how many bytes it
    /// has written, or nothing if the chain cannot be served now; then it stays available.
    template <class F>
    void serve(std::size_t index, F&& f) KVM_VMM_REQUIRES(mutex());

    /// Sends a configuration change notification. Only for an active device does the driver get one.
    void config_changed() KVM_VMM_REQUIRES(mutex());
    /// The driver has broken a rule: the device needs a reset. `reason` is for the log.
    void fail(std::string_view reason) KVM_VMM_REQUIRES(mutex());
    /// A request breaks a rule of its device type. It alone is refused, and the queue continues: only an error in the
    /// rings themselves needs a reset (see fail()).
    void count_bad_request() noexcept { driver_errors_.add(); }
    /// See DriverLink::notify_device().
    void notify_self(std::size_t index) KVM_VMM_REQUIRES(mutex());

    /// For on_read_config(): copies from an object in the layout of the configuration space.
    template <class Layout>
        requires std::is_trivially_copyable_v<Layout>
    static void copy_config(const Layout& layout, std::uint64_t offset,
                            std::span<std::uint8_t> data) noexcept {
        if (offset < sizeof(Layout)) {
            const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&layout);
            std::memcpy(data.data(), bytes + offset,
                        std::min<std::uint64_t>(data.size(), sizeof(Layout) - offset));
        }
    }

private:
    [[nodiscard]] SplitQueue* queue(std::size_t index) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::optional<Chain> pop_any(std::size_t index) KVM_VMM_REQUIRES(mutex());
    void refuse(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex());

    std::string_view name_;
    Counters& counters_;
    Counter& notifications_;
    Counter& interrupts_;
    Counter& requests_;
    Counter& driver_errors_;
    Counter& resets_;
    mutable Mutex mutex_;
    std::vector<std::optional<SplitQueue>> queues_;
    DriverLink* link_{};
    std::uint64_t negotiated_{0};
    bool broken_{false};
};

template <class Take, class Flush>
void Device::take_each(std::size_t index, Take&& take, Flush&& flush) {
    if (!has_queue(index)) {
        return;
    }
    const std::size_t most = size_of_queue(index);
    std::size_t taken = 0;
    disable_notifications(index);
    do {
        while (taken < most) {
            std::optional<Chain> chain = pop_any(index);
            if (!chain) {
                break;
            }
            if (chain->defect) {
                refuse(index, *chain);
            } else if (!take(std::move(*chain))) {
                flush();
                return;
            }
            ++taken;
        }
        flush();
        if (taken == most) {
            notify_self(index);
            return;
        }
    } while (enable_notifications(index));
}

template <class F>
void Device::serve(std::size_t index, F&& f) {
    take_each(
        index,
        [this, index, &f](const Chain& chain) KVM_VMM_REQUIRES(mutex()) {
            const std::optional<std::uint32_t> written = f(chain);
            if (written) {
                push(index, chain, *written);
            } else {
                undo_pop(index, chain);
            }
            return written.has_value();
        },
        [this, index]() KVM_VMM_REQUIRES(mutex()) { publish(index); });
}

}  // namespace kvm_vmm::virtio
