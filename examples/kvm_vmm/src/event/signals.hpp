// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>
#include <memory>

#include <vmsuperio/linux/unique_fd.hpp>

#include "event/event_manager.hpp"

namespace kvm_vmm {

/// The first signal other than `except` that is blocked and pending, or 0. For long work on the event loop's
/// thread, which receives no signals meanwhile.
[[nodiscard]] int pending_signal(std::initializer_list<int> except);

/// Call this first in each thread except the main one: it blocks all signals except faults, so that the main
/// thread, which alone changes the terminal's mode, handles them.
void leave_signals_to_main_thread() noexcept;

/// Delivers signals to the event loop. The signals are blocked from construction on, in this thread and in
/// all threads that it starts later; destruction restores the previous mask.
class SignalEvents {
public:
    SignalEvents(EventManager& events, std::initializer_list<int> signals,
                 std::function<void(int signal)> handler);
    ~SignalEvents();
    SignalEvents(const SignalEvents&) = delete;
    SignalEvents& operator=(const SignalEvents&) = delete;

    /// In the handler: whether a process sent the signal, not the terminal.
    [[nodiscard]] bool sent_by_process() const noexcept { return sent_by_process_; }

private:
    void read_signals();

    EventManager& events_;
    std::function<void(int)> handler_;
    sigset_t previous_{};
    vmsuperio::UniqueFd fd_;
    EventManager::SubscriptionId subscription_{};
    bool sent_by_process_{false};
};

}  // namespace kvm_vmm
