// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <expected>

#include <vmsuperio/trigger.hpp>

#include "machine/end.hpp"

namespace kvm_vmm {

/// The CPU's reset line: triggering it ends the VM.
class ResetTrigger {
public:
    using error_type = vmsuperio::NoTriggerError;

    explicit ResetTrigger(EndLatch& end) noexcept : end_(&end) {}

    [[nodiscard]] std::expected<void, error_type> trigger() {
        end_->request(end::Reset{});
        return {};
    }

private:
    EndLatch* end_;
};
static_assert(vmsuperio::Trigger<ResetTrigger>);

}  // namespace kvm_vmm
