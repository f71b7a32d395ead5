// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string>
#include <thread>

#include "event/event_manager.hpp"
#include "event/notifier.hpp"
#include "sandbox/role.hpp"

namespace kvm_vmm {

/// A thread with an event loop of its own, for a device that must not wait for other devices.
///
/// All functions but stop() are for the thread that owns this object. Handlers run in the new thread, and only
/// there may they use events() once start() was called.
class EventThread {
public:
    /// `name` is that of the thread: at most 15 bytes. `role` confines it. Throws VmmError if the system has no descriptor left.
    EventThread(std::string name, sandbox::Role role);
    /// Stops the thread.
    ~EventThread();
    EventThread(const EventThread&) = delete;
    EventThread& operator=(const EventThread&) = delete;

    [[nodiscard]] EventManager& events() noexcept { return events_; }

    /// Throws VmmError if the system allows no more threads.
    void start();
    /// Ends the loop and waits for a handler that is running. Does nothing if the thread has ended.
    void stop() noexcept;

private:
    void run();

    std::string name_;
    sandbox::Role role_;
    EventManager events_;
    Notifier stop_;
    bool stopping_{false};  // written and read in the thread
    std::thread thread_;
};

}  // namespace kvm_vmm
