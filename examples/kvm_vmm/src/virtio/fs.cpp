// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/fs.hpp"

#include <algorithm>

#include "virtio/device_states.hpp"

namespace kvm_vmm::virtio {

FileSystem::FileSystem(std::string_view name, Counters& counters, const SharedRoot& root, bool writable,
                       std::string_view tag, SharedDirectory::Limits limits)
    : Device(name, counters),
      server_(name, root, writable, limits, counters),
      thread_(std::string(name.substr(0, 15)), sandbox::Role::share) {
    std::ranges::copy(tag.substr(0, max_tag), config_.tag.begin());
    config_.num_request_queues = 1;
}

void FileSystem::on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const {
    copy_config(config_, offset, data);
}

void FileSystem::on_notified(std::size_t index) {
    if (interruption_ != Interruption::none) {
        notify_self(index);  // again, when that is over
        return;
    }
    take_each(
        index, [this, index](const Chain& chain) KVM_VMM_REQUIRES(mutex()) { return process(index, chain); },
        [] {});  // process() publishes each answer
}

// Returns whether to go on with the next one.
bool FileSystem::process(std::size_t index, const Chain& chain) {
    busy_ = true;
    mutex().unlock();
    const std::size_t written = server_.handle(chain.readable, chain.writable);
    mutex().lock();
    busy_ = false;
    if (interruption_ == Interruption::discard) {
        idle_.notify_all();
        return false;
    }
    // At once, because the next request may take long.
    push(index, chain, static_cast<std::uint32_t>(written));
    publish(index);
    if (interruption_ == Interruption::complete) {
        notify_self(index);
        idle_.notify_all();
        return false;
    }
    return true;
}

void FileSystem::on_defective(std::size_t index, const Chain& chain) {
    push(index, chain, static_cast<std::uint32_t>(server_.refuse(chain.readable, chain.writable)));
}

void FileSystem::wait_until_idle(Interruption interruption) {
    interruption_ = interruption;
    while (busy_) {
        idle_.wait(mutex());
    }
    interruption_ = Interruption::none;
}

void FileSystem::on_reset() {
    wait_until_idle(Interruption::discard);
    server_.reset();
}

// The request in progress may be of the other queue.
void FileSystem::on_queue_reset(std::size_t) { wait_until_idle(Interruption::complete); }

std::vector<std::uint8_t> FileSystem::on_state() const {
    return vmsuperio::encode(FileSystemState{.tag = config_.tag, .mounted = server_.mounted()});
}

std::expected<void, std::string_view> FileSystem::on_restore_state(std::span<const std::uint8_t> bytes,
                                                                   std::uint64_t) {
    const auto state = decode_state<FileSystemState>(bytes);
    if (!state) {
        return std::unexpected(state.error());
    }
    if (state->tag != config_.tag) {
        return std::unexpected("tag");
    }
    if (state->mounted) {
        return std::unexpected("mounted");
    }
    return {};
}

void FileSystem::on_drain() { wait_until_idle(Interruption::complete); }

}  // namespace kvm_vmm::virtio
