// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/coalesced_writes.hpp"

#include <expected>

namespace kvm_vmm {

std::optional<std::chrono::microseconds> CoalescedWrites::look() {
    const DrainPace::Look look =
        pace_.look(ring_.holds_port_write(), delivered_by_cpus_.load(std::memory_order_relaxed));
    if (look.action == DrainPace::Action::deliver) {
        deliver_by_host();
    }
    return look.next;
}

void CoalescedWrites::deliver_found(bool by_cpu) {
    // Another thread may deliver these writes now: this one must wait for that, because its CPU's next access
    // must not overtake them.
    const LockGuard lock(mutex_);
    deliver_locked(by_cpu);
}

void CoalescedWrites::try_to_deliver() {
    if (mutex_.try_lock()) {
        const LockGuard lock(mutex_, std::adopt_lock);
        deliver_locked(false);
    }
}

void CoalescedWrites::deliver_locked(bool by_cpu) {
    if (broken_ || ring_.empty()) {
        return;
    }
    if (by_cpu && ring_.holds_port_write()) {
        delivered_by_cpus_.fetch_add(1, std::memory_order_relaxed);
    }
    if (!ring_.drain([this](const CoalescedRun& run) { deliver_run(run); })) {
        broken_ = true;
        end_.request(end::Failed{ExitCode::unhandled_exit}, "KVM's ring of coalesced writes is not valid");
    }
}

void CoalescedWrites::deliver_run(const CoalescedRun& run) const {
    using vmdevice::MmioAddress;
    using vmdevice::PioAddress;
    const PioAddress port{static_cast<std::uint16_t>(run.address)};
    const auto answered = !run.pio                      ? io_.mmio_write(MmioAddress{run.address}, run.data)
                          : run.data.size() > run.width ? io_.pio_write_repeated(port, run.width, run.data)
                                                        : io_.pio_write(port, run.data);
    observer_.count_coalesced(run.data.size() / run.width);
    // Each write is recorded by itself, as if it had returned from KVM_RUN.
    for (std::span<const std::uint8_t> rest = run.data; !rest.empty(); rest = rest.subspan(run.width)) {
        observer_.record({.bus = run.pio ? IoAccess::Bus::pio : IoAccess::Bus::mmio,
                          .write = true,
                          .cpu = cpu_.value_or(IoAccess::unknown_cpu),
                          .address = run.address,
                          .width = run.width,
                          .data = rest.first(run.width)},
                         answered.has_value());
    }
}

}  // namespace kvm_vmm
