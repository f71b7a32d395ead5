// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <system_error>

#include "console/output_channel.hpp"
#include "event/notifier.hpp"
#include "event/timer.hpp"

namespace kvm_vmm {

/// The writer of a UART (vmsuperio::Writer): sends to a channel, wakes the event loop when output begins to wait
/// there, and sets `join` when bytes may begin to wait for others (OutputChannel::end_join). It is called with the
/// UART's lock held, in the thread that accesses the UART.
class ChannelWriter {
public:
    /// All must outlive the writer.
    ChannelWriter(OutputChannel& channel, Notifier& wake, Timer& join) noexcept
        : channel_(&channel), wake_(&wake), join_(&join) {}

    [[nodiscard]] std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) {
        const auto sent = channel_->send(bytes, true);
        if (!sent) {
            return std::unexpected(sent.error());
        }
        if (sent->waiting && !waiting_) {
            waiting_ = true;
            wake_->notify();
        }
        if (sent->joins) {
            join_->set_after(OutputChannel::join_time);
        }
        return sent->taken;
    }

    /// Whether output waits now. If it does, the event loop need not be woken for it any more.
    [[nodiscard]] bool update_waiting() {
        waiting_ = channel_->waiting();
        return waiting_;
    }

private:
    OutputChannel* channel_;
    Notifier* wake_;
    Timer* join_;
    bool waiting_{false};  // output waits, and the event loop knows it
};

}  // namespace kvm_vmm
