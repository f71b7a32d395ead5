// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/event_thread.hpp"

#include <exception>
#include <sys/epoll.h>
#include <system_error>
#include <utility>

#include "event/signals.hpp"
#include "sandbox/sandbox.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm {

EventThread::EventThread(std::string name, sandbox::Role role) : name_(std::move(name)), role_(role) {
    // The subscription ends with the event loop.
    [[maybe_unused]] const auto subscription = events_.subscribe(stop_.fd(), EPOLLIN, "the end of a thread",
                                                                 [this](std::uint32_t) { stopping_ = true; });
}

EventThread::~EventThread() { stop(); }

void EventThread::start() {
    try {
        thread_ = std::thread([this] { run(); });
    } catch (const std::system_error& error) {
        throw VmmError(ExitCode::vmm_error, "cannot start the thread " + name_ + ": " + error.what());
    }
}

void EventThread::stop() noexcept {
    if (thread_.joinable()) {
        stop_.notify();
        thread_.join();
    }
}

void EventThread::run() {
    leave_signals_to_main_thread();
    sandbox::enter(role_, name_.c_str());
    while (!stopping_) {
        try {
            events_.run_once(-1);
        } catch (const std::exception& error) {
            log(LogLevel::error, name_ + ": " + error.what());
        }
    }
}

}  // namespace kvm_vmm
