// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>
#include <memory>

#include "event/event_manager.hpp"
#include "util/file_descriptor.hpp"

namespace kvm_vmm {

/// The first signal other than `except` that is blocked and waits to be heard, or 0: for long work on the
/// event loop's thread, which hears nothing meanwhile.
[[nodiscard]] int pending_signal(std::initializer_list<int> except);

/// Brings signals to the event loop. The signals are blocked from construction on, in this thread and in all
/// that it starts later, and as before again after destruction.
class SignalEvents {
public:
    SignalEvents(EventManager& events, std::initializer_list<int> signals,
                 std::function<void(int signal)> handler);
    ~SignalEvents();
    SignalEvents(const SignalEvents&) = delete;
    SignalEvents& operator=(const SignalEvents&) = delete;

private:
    void read_signals();

    EventManager& events_;
    std::function<void(int)> handler_;
    sigset_t previous_{};
    FileDescriptor fd_;
    EventManager::SubscriptionId subscription_{};
};

}  // namespace kvm_vmm
