// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <utility>

#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/trigger.hpp>

#include "kvm/kvm_vm.hpp"
#include "util/error.hpp"

namespace kvm_vmm {

/// An edge-triggered interrupt line of the guest: each trigger() of the eventfd is an edge. Throws VmmError.
[[nodiscard]] inline vmsuperio::EventFdTrigger make_interrupt(KvmVm& vm, std::uint32_t gsi) {
    auto event_fd = vmsuperio::EventFdTrigger::create();
    if (!event_fd) {
        throw VmmError(ExitCode::vmm_error, "cannot create an eventfd: " + event_fd.error().message());
    }
    vm.register_irqfd(event_fd->fd(), gsi);
    return std::move(*event_fd);
}

/// A level-triggered interrupt line of the guest.
class IrqLine {
public:
    using error_type = ExitCode;

    IrqLine(KvmVm& vm, std::uint32_t gsi) noexcept : vm_(&vm), gsi_(gsi) {}

    [[nodiscard]] std::expected<void, error_type> trigger() {
        auto raised = set_level(true);
        return raised ? set_level(false) : raised;
    }
    [[nodiscard]] std::expected<void, error_type> set_level(bool asserted) {
        try {
            vm_->set_irq_line(gsi_, asserted);
            return {};
        } catch (const VmmError& error) {
            return std::unexpected(error.code());
        }
    }

private:
    KvmVm* vm_;
    std::uint32_t gsi_;
};
static_assert(vmsuperio::LevelTrigger<IrqLine>);

}  // namespace kvm_vmm
