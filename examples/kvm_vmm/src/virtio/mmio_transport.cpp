// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/mmio_transport.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <sys/epoll.h>
#include <utility>

namespace kvm_vmm::virtio {
namespace {

constexpr std::uint32_t vendor = 0x4D53'4D56;  // "VMSM", as any that is not 0
constexpr std::uint32_t all_ones = ~std::uint32_t{0};
constexpr std::uint32_t driver_bits =
    status::acknowledge | status::driver | status::driver_ok | status::features_ok | status::failed;

constexpr void set_low(std::uint64_t& field, std::uint32_t value) noexcept {
    field = (field & ~std::uint64_t{all_ones}) | value;
}
constexpr void set_high(std::uint64_t& field, std::uint32_t value) noexcept {
    field = (field & all_ones) | std::uint64_t{value} << 32U;
}
// A page of 32 feature bits: 0 or 1; there are no others.
constexpr std::uint32_t page(std::uint64_t features, std::uint32_t selector) noexcept {
    return selector < 2 ? static_cast<std::uint32_t>(features >> (32U * selector)) : 0;
}

// The bits that must be set already when this one is added: the steps of 3.1.1 in their order.
constexpr std::uint32_t needed_for(std::uint32_t bit) noexcept {
    switch (bit) {
        case status::driver:
            return status::acknowledge;
        case status::features_ok:
            return status::acknowledge | status::driver;
        case status::driver_ok:
            return status::acknowledge | status::driver | status::features_ok;
        default:
            return 0;
    }
}

// Whether a driver may be in this status, apart from DEVICE_NEEDS_RESET.
constexpr bool possible_status(std::uint32_t status) noexcept {
    for (const std::uint32_t bit : {status::driver, status::features_ok, status::driver_ok}) {
        if ((status & bit) != 0 && (status & needed_for(bit)) != needed_for(bit)) {
            return false;
        }
    }
    return (status & ~(driver_bits | status::needs_reset)) == 0;
}

}  // namespace

MmioTransport::MmioTransport(const GuestMemory& memory, std::shared_ptr<Device> device,
                             vmsuperio::EventFdTrigger interrupt, std::function<bool()> writes_on_their_way)
    : memory_(memory),
      device_(std::move(device)),
      interrupt_(std::move(interrupt)),
      writes_on_their_way_(std::move(writes_on_their_way)) {
    for (const std::uint16_t size : device_->queue_sizes()) {
        queues_.push_back({.max_size = size, .set = {}});
        notifiers_.emplace_back();
    }
    for (std::size_t i = 0; i < notifiers_.size(); ++i) {
        // Each write to the eventfd is an event of its own, so its counter need not be read.
        subscriptions_.push_back(
            device_->events().subscribe(notifiers_[i].fd(), EPOLLIN | EPOLLET, "a device's driver",
                                        [this, i](std::uint32_t) { device_->notified(i); }));
    }
    device_->start_events();
}

void MmioTransport::shut_down() {
    device_->stop_events();
    [[maybe_unused]] const auto progress = device_->drain();
    device_->reset();
}

MmioTransport::~MmioTransport() {
    device_->stop_events();
    device_->reset();
    for (const EventManager::SubscriptionId subscription : subscriptions_) {
        device_->events().remove(subscription);
    }
}

void MmioTransport::raise(std::uint32_t cause) noexcept {
    // Before the edge: the driver's handler ignores an interrupt without a cause.
    interrupt_causes_.raise(cause, [this] { return writes_on_their_way_ && writes_on_their_way_(); });
    [[maybe_unused]] const auto triggered = interrupt_.trigger();
}

void MmioTransport::notify_used() noexcept { raise(interrupt_status::used_buffer); }

void MmioTransport::notify_config_changed() noexcept {
    config_generation_.fetch_add(1);
    raise(interrupt_status::configuration_change);
}

void MmioTransport::set_needs_reset() noexcept {
    if ((status_.fetch_or(status::needs_reset) & status::driver_ok) != 0) {
        raise(interrupt_status::configuration_change);
    }
}

void MmioTransport::notify_device(std::size_t queue) noexcept { notifiers_.at(queue).notify(); }

std::uint64_t MmioTransport::offered() const noexcept {
    return device_->features() | feature::version_1 | feature::event_index | feature::indirect_descriptors |
           feature::ring_reset;
}

bool MmioTransport::acceptable(std::uint64_t features) const noexcept {
    return (features & ~offered()) == 0 && (features & feature::version_1) != 0;
}

bool MmioTransport::may_set_features() const noexcept {
    const std::uint32_t now = status_.load();
    return (now & status::driver) != 0 && (now & (status::features_ok | status::failed)) == 0;
}

bool MmioTransport::may_set_queue(const Queue& queue) const noexcept {
    const std::uint32_t now = status_.load();
    return (now & status::features_ok) != 0 && (now & status::failed) == 0 && !queue.set.ready &&
           ((now & status::driver_ok) == 0 || queue.set.reset);
}

MmioTransport::Queue* MmioTransport::selected() noexcept {
    return queue_sel_ < queues_.size() ? &queues_[queue_sel_] : nullptr;
}

QueueLayout MmioTransport::layout_of(const MmioState::Queue& set) noexcept {
    return {.descriptors = set.descriptors,
            .available = set.available,
            .used = set.used,
            .size = static_cast<std::uint16_t>(set.size)};
}

QueueFeatures MmioTransport::queue_features(std::uint64_t features) noexcept {
    return {.indirect_descriptors = (features & feature::indirect_descriptors) != 0,
            .event_index = (features & feature::event_index) != 0};
}

void MmioTransport::mmio_read(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                              std::span<std::uint8_t> data) {
    if (offset >= mmio::config) {
        device_->read_config(offset - mmio::config, data);
        return;
    }
    std::uint32_t value = 0;
    if (data.size() == sizeof(value) && offset % sizeof(value) == 0) {
        // The interrupt handler's register: it does not wait for another CPU that resets the device.
        if (offset == mmio::interrupt_status) {
            value = interrupt_causes_.read();
        } else if (offset == mmio::queue_reset) {
            value = queue_reset_runs_.load() ? 1 : 0;
        } else {
            const LockGuard lock(mutex_);
            value = read_register(offset);
        }
    }
    std::ranges::fill(data, std::uint8_t{0});
    std::memcpy(data.data(), &value, std::min(data.size(), sizeof(value)));
}

std::uint32_t MmioTransport::read_register(std::uint64_t offset) {
    const Queue* const queue = selected();
    switch (offset) {
        case mmio::magic_value:
            return mmio::magic;
        case mmio::version:
            return mmio::version_number;
        case mmio::device_id:
            return static_cast<std::uint32_t>(device_->type());
        case mmio::vendor_id:
            return vendor;
        case mmio::device_features:
            return page(offered(), device_features_sel_);
        case mmio::queue_num_max:
            return queue != nullptr ? queue->max_size : 0;
        case mmio::queue_ready:
            return queue != nullptr && queue->set.ready ? 1 : 0;
        case mmio::status:
            return status_.load();
        case mmio::shm_len_low:
        case mmio::shm_len_high:
        case mmio::shm_base_low:
        case mmio::shm_base_high:
            return all_ones;  // no such region
        case mmio::config_generation:
            return config_generation_.load();
        default:
            return 0;  // write-only, or no register
    }
}

void MmioTransport::mmio_write(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                               std::span<const std::uint8_t> data) {
    if (offset >= mmio::config) {
        device_->write_config(offset - mmio::config, data);
        return;
    }
    std::uint32_t value = 0;
    if (data.size() != sizeof(value) || offset % sizeof(value) != 0) {
        return;
    }
    std::memcpy(&value, data.data(), sizeof(value));
    if (offset == mmio::interrupt_ack) {
        interrupt_causes_.acknowledge(value);
    } else if (offset == mmio::queue_notify) {
        if (value < notifiers_.size()) {
            notify_device(value);
        }
    } else {
        const LockGuard lock(mutex_);
        write_register(offset, value);
    }
}

void MmioTransport::write_register(std::uint64_t offset, std::uint32_t value) {
    switch (offset) {
        case mmio::device_features_sel:
            device_features_sel_ = value;
            break;
        case mmio::driver_features_sel:
            driver_features_sel_ = value;
            break;
        case mmio::driver_features:
            if (may_set_features() && driver_features_sel_ < 2) {
                (driver_features_sel_ == 0 ? set_low : set_high)(driver_features_, value);
            }
            break;
        case mmio::queue_sel:
            queue_sel_ = value;
            break;
        case mmio::status:
            write_status(value);
            break;
        default:
            write_queue_register(offset, value);
            break;
    }
}

void MmioTransport::write_status(std::uint32_t value) {
    if (value == 0) {
        reset();
        return;
    }
    const std::uint32_t now = status_.load();
    const std::uint32_t added = value & driver_bits & ~now;
    // The driver must not clear a bit (2.1.1), and takes one step at a time. FAILED may be set at any time.
    const std::uint32_t step = added & ~status::failed;
    if ((now & driver_bits & ~value) != 0 || (step != 0 && !std::has_single_bit(step)) ||
        (now & needed_for(step)) != needed_for(step) || (step != 0 && (now & status::failed) != 0)) {
        return;
    }
    if (step == status::features_ok && !acceptable(driver_features_)) {
        return;  // the driver reads the bit back (3.1.1, step 6)
    }
    status_.fetch_or(added);
    if (step == status::driver_ok && (added & status::failed) == 0) {
        activate();
    }
}

void MmioTransport::write_queue_register(std::uint64_t offset, std::uint32_t value) {
    Queue* const queue = selected();
    if (queue == nullptr) {
        return;
    }
    if (offset == mmio::queue_ready) {
        write_queue_ready(*queue, (value & 1U) != 0);
        return;
    }
    if (offset == mmio::queue_reset) {
        if ((value & 1U) != 0) {
            reset_queue(*queue);
        }
        return;
    }
    if (!may_set_queue(*queue)) {
        return;
    }
    MmioState::Queue& set = queue->set;
    switch (offset) {
        case mmio::queue_num:
            set.size = value;
            break;
        case mmio::queue_desc_low:
            set_low(set.descriptors, value);
            break;
        case mmio::queue_desc_high:
            set_high(set.descriptors, value);
            break;
        case mmio::queue_driver_low:
            set_low(set.available, value);
            break;
        case mmio::queue_driver_high:
            set_high(set.available, value);
            break;
        case mmio::queue_device_low:
            set_low(set.used, value);
            break;
        case mmio::queue_device_high:
            set_high(set.used, value);
            break;
        default:
            break;
    }
}

void MmioTransport::write_queue_ready(Queue& queue, bool ready) {
    if (!ready) {
        if (std::exchange(queue.set.ready, false)) {
            device_->stop_queue(queue_sel_);
        }
    } else if (may_set_queue(queue) && queue.set.size <= queue.max_size) {
        auto created = SplitQueue::create(memory_, layout_of(queue.set), queue_features(driver_features_));
        if (!created) {
            return;
        }
        queue.set.ready = true;
        queue.set.reset = false;
        if ((status_.load() & status::driver_ok) != 0) {
            device_->start_queue(queue_sel_, std::move(*created));
        }
    }
}

// 2.6.1.1, 4.2.2.1: the queue is as after a reset of the device, which is in operation.
void MmioTransport::reset_queue(Queue& queue) {
    if ((status_.load() & status::features_ok) == 0 || (driver_features_ & feature::ring_reset) == 0 ||
        !queue.set.ready) {
        return;
    }
    queue_reset_runs_.store(true);
    device_->stop_queue(queue_sel_);
    queue.set = {};
    queue.set.reset = true;
    queue_reset_runs_.store(false);
}

void MmioTransport::activate() {
    std::vector<std::optional<SplitQueue>> queues;
    for (const Queue& queue : queues_) {
        std::optional<SplitQueue>& added = queues.emplace_back();
        if (queue.set.ready) {
            if (auto created =
                    SplitQueue::create(memory_, layout_of(queue.set), queue_features(driver_features_))) {
                added.emplace(std::move(*created));
            }
        }
    }
    device_->activate(driver_features_, std::move(queues), *this);
}

void MmioTransport::reset() {
    device_->reset();
    for (Queue& queue : queues_) {
        queue.set = {};
    }
    device_features_sel_ = 0;
    driver_features_sel_ = 0;
    queue_sel_ = 0;
    driver_features_ = 0;
    interrupt_causes_.set(0);
    status_.store(0);
}

MmioState MmioTransport::state() {
    Device::Saved saved_device = device_->drain();
    const std::vector<std::optional<QueueState>>& progress = saved_device.queues;
    const LockGuard lock(mutex_);
    MmioState state{.status = status_.load(),
                    .interrupt_status = interrupt_causes_.peek(),
                    .config_generation = config_generation_.load(),
                    .device_features_sel = device_features_sel_,
                    .driver_features_sel = driver_features_sel_,
                    .queue_sel = queue_sel_,
                    .driver_features = driver_features_,
                    .queues = {},
                    .device = std::move(saved_device.state)};
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        MmioState::Queue& saved = state.queues.emplace_back(queues_[i].set);
        if (i < progress.size() && progress[i]) {
            saved.progress = *progress[i];
        }
    }
    return state;
}

std::expected<void, std::string_view> MmioTransport::restore(const MmioState& state) {
    constexpr std::uint32_t causes = interrupt_status::used_buffer | interrupt_status::configuration_change;
    if (!possible_status(state.status)) {
        return std::unexpected("status");
    }
    if ((state.interrupt_status & ~causes) != 0) {
        return std::unexpected("interrupt_status");
    }
    if ((state.status & status::features_ok) != 0 && !acceptable(state.driver_features)) {
        return std::unexpected("driver_features");
    }
    const LockGuard lock(mutex_);
    if (state.queues.size() != queues_.size()) {
        return std::unexpected("queues");
    }
    std::vector<std::optional<SplitQueue>> queues(queues_.size());
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        const MmioState::Queue& saved = state.queues[i];
        if (saved.reset && (saved.ready || (state.status & status::features_ok) == 0 ||
                            (state.driver_features & feature::ring_reset) == 0)) {
            return std::unexpected("queues");
        }
        if (!saved.ready) {
            continue;
        }
        auto created = SplitQueue::create(memory_, layout_of(saved), queue_features(state.driver_features),
                                          saved.progress);
        if (saved.size > queues_[i].max_size || !created || (state.status & status::features_ok) == 0) {
            return std::unexpected("queues");
        }
        queues[i].emplace(std::move(*created));
    }
    if (const auto restored = device_->restore_state(state.device, state.driver_features); !restored) {
        return restored;
    }
    device_features_sel_ = state.device_features_sel;
    driver_features_sel_ = state.driver_features_sel;
    queue_sel_ = state.queue_sel;
    driver_features_ = state.driver_features;
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        queues_[i].set = state.queues[i];
        queues_[i].set.progress = {};
    }
    config_generation_.store(state.config_generation);
    interrupt_causes_.set(state.interrupt_status);
    status_.store(state.status);
    if ((state.status & status::driver_ok) != 0 && (state.status & status::needs_reset) == 0) {
        device_->activate(driver_features_, std::move(queues), *this);
        device_->restored();
    }
    if (state.interrupt_status != 0) {
        // The edge may have been lost with the interrupt controller's state; one too many is harmless.
        [[maybe_unused]] const auto triggered = interrupt_.trigger();
    }
    return {};
}

}  // namespace kvm_vmm::virtio
