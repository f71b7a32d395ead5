// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/device.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "util/log.hpp"

namespace kvm_vmm::virtio {

Device::Device(std::string_view name, Counters& counters)
    : name_(name),
      counters_(counters),
      notifications_(counters["notifications"]),
      interrupts_(counters["interrupts"]),
      requests_(counters["requests"]),
      driver_errors_(counters["driver_errors"]),
      resets_(counters["resets"]) {}

void Device::read_config(std::uint64_t offset, std::span<std::uint8_t> data) const {
    std::ranges::fill(data, std::uint8_t{0});
    const LockGuard lock(mutex_);
    on_read_config(offset, data);
}

void Device::write_config(std::uint64_t offset, std::span<const std::uint8_t> data) {
    const LockGuard lock(mutex_);
    on_write_config(offset, data);
}

void Device::activate(std::uint64_t features, std::vector<std::optional<SplitQueue>> queues,
                      DriverLink& link) {
    const LockGuard lock(mutex_);
    queues_ = std::move(queues);
    negotiated_ = features;
    broken_ = false;
    link_ = &link;
    on_activate();
    // A notification that the driver sent before the queues were here was ignored.
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        notify_self(i);
    }
}

void Device::reset() {
    const LockGuard lock(mutex_);
    if (link_ == nullptr) {
        return;
    }
    on_reset();
    queues_.clear();
    link_ = nullptr;
    negotiated_ = 0;
    broken_ = false;
    resets_.add();
}

void Device::restored() {
    const LockGuard lock(mutex_);
    if (active()) {
        on_restored();
    }
}

void Device::stop_queue(std::size_t index) {
    const LockGuard lock(mutex_);
    if (index < queues_.size() && queues_[index]) {
        on_queue_reset(index);
        queues_[index].reset();
    }
}

void Device::start_queue(std::size_t index, SplitQueue queue) {
    const LockGuard lock(mutex_);
    if (link_ != nullptr && index < queues_.size()) {
        queues_[index].emplace(std::move(queue));
        notify_self(index);
    }
}

void Device::notified(std::size_t index) {
    const LockGuard lock(mutex_);
    notifications_.add();
    if (has_queue(index)) {
        on_notified(index);
    }
}

Device::Saved Device::drain() {
    const LockGuard lock(mutex_);
    on_drain();
    Saved saved{.queues = {}, .state = on_state()};
    for (const std::optional<SplitQueue>& each : queues_) {
        saved.queues.push_back(each ? std::optional(each->state()) : std::nullopt);
    }
    return saved;
}

std::expected<void, std::string_view> Device::restore_state(std::span<const std::uint8_t> bytes,
                                                            std::uint64_t features) {
    const LockGuard lock(mutex_);
    return on_restore_state(bytes, features);
}

std::expected<void, std::string_view> Device::on_restore_state(std::span<const std::uint8_t> bytes,
                                                               std::uint64_t) {
    if (!bytes.empty()) {
        return std::unexpected("a device without a state");
    }
    return {};
}

SplitQueue* Device::queue(std::size_t index) {
    return active() && index < queues_.size() && queues_[index] ? &*queues_[index] : nullptr;
}

bool Device::has_queue(std::size_t index) const noexcept {
    return active() && index < queues_.size() && queues_[index].has_value();
}

std::size_t Device::size_of_queue(std::size_t index) const noexcept {
    return has_queue(index) ? queues_[index]->size() : 0;
}

std::optional<Chain> Device::pop(std::size_t index, std::size_t& budget) {
    while (budget != 0) {
        std::optional<Chain> chain = pop_any(index);
        if (!chain) {
            return std::nullopt;
        }
        --budget;
        if (!chain->defect) {
            return chain;
        }
        refuse(index, *chain);
    }
    notify_self(index);
    return std::nullopt;
}

// Returns a chain with a defect to the driver. Only this request fails: the driver may have been asked to transfer data
// from or to what is not RAM, such as the memory of another device.
void Device::refuse(std::size_t index, const Chain& chain) {
    driver_errors_.add();
    log(LogLevel::warning, std::string(name_) + ": queue " + std::to_string(index) +
                               ": a request is refused: " + std::string(to_string(*chain.defect)));
    on_defective(index, chain);
    publish(index);
}

std::optional<Chain> Device::pop_any(std::size_t index) {
    SplitQueue* const from = queue(index);
    if (from == nullptr) {
        return std::nullopt;
    }
    auto chain = from->pop();
    if (!chain) {
        fail("queue " + std::to_string(index) + ": " + std::string(to_string(chain.error())));
        return std::nullopt;
    }
    return std::move(*chain);
}

void Device::undo_pop(std::size_t index, const Chain& chain) {
    if (SplitQueue* const from = queue(index)) {
        from->undo_pop(chain);
    }
}

void Device::push(std::size_t index, const Chain& chain, std::uint32_t written) {
    if (SplitQueue* const to = queue(index)) {
        to->push(chain, written);
        requests_.add();
    }
}

void Device::publish(std::size_t index) {
    SplitQueue* const to = queue(index);
    if (to != nullptr && to->publish()) {
        interrupts_.add();
        link_->notify_used();
    }
}

void Device::publish_all() {
    bool interrupts = false;
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        SplitQueue* const to = queue(i);
        interrupts = (to != nullptr && to->publish()) || interrupts;
    }
    if (interrupts) {
        interrupts_.add();
        link_->notify_used();
    }
}

bool Device::enable_notifications(std::size_t index) {
    SplitQueue* const of = queue(index);
    return of != nullptr && of->enable_notifications();
}

void Device::disable_notifications(std::size_t index) {
    if (SplitQueue* const of = queue(index)) {
        of->disable_notifications();
    }
}

void Device::config_changed() {
    if (active()) {
        interrupts_.add();
        link_->notify_config_changed();
    }
}

void Device::fail(std::string_view reason) {
    if (active()) {
        broken_ = true;
        driver_errors_.add();
        log(LogLevel::warning,
            std::string(name_) + ": the device needs a reset by its driver: " + std::string(reason));
        link_->set_needs_reset();
    }
}

void Device::notify_self(std::size_t index) {
    if (has_queue(index)) {
        link_->notify_device(index);
    }
}

}  // namespace kvm_vmm::virtio
