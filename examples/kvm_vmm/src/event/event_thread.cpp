// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "event/event_thread.hpp"

#include <exception>
#include <pthread.h>
#include <sys/epoll.h>
#include <system_error>
#include <utility>

#include "event/signals.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

vmsuperio::EventFdTrigger make_eventfd() {
    auto event_fd = vmsuperio::EventFdTrigger::create();
    if (!event_fd) {
        throw VmmError(ExitCode::vmm_error, "cannot create an eventfd: " + event_fd.error().message());
    }
    return std::move(*event_fd);
}

}  // namespace

EventThread::EventThread(std::string name) : name_(std::move(name)), stop_(make_eventfd()) {
    const auto subscription = events_.add(stop_.fd(), EPOLLIN, [this](std::uint32_t) { stopping_ = true; });
    if (!subscription) {
        throw VmmError(ExitCode::vmm_error,
                       "cannot wait for the end of a thread: " + subscription.error().message());
    }
}

EventThread::~EventThread() { stop(); }

void EventThread::start() {
    try {
        thread_ = std::thread([this] { run(); });
    } catch (const std::system_error& error) {
        throw VmmError(ExitCode::vmm_error, "cannot start the thread " + name_ + ": " + error.what());
    }
    pthread_setname_np(thread_.native_handle(), name_.c_str());
}

void EventThread::stop() noexcept {
    if (thread_.joinable()) {
        [[maybe_unused]] const auto notified = stop_.trigger();
        thread_.join();
    }
}

void EventThread::run() {
    leave_signals_to_main_thread();
    while (!stopping_) {
        try {
            events_.run_once(-1);
        } catch (const std::exception& error) {
            log(LogLevel::error, name_ + ": " + error.what());
        }
    }
}

}  // namespace kvm_vmm
