// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/serial_console.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "error.hpp"

namespace kvm_vmm {
namespace {

EventManager::SubscriptionId subscribe(EventManager& events, int fd, std::uint32_t bits,
                                       EventManager::Handler handler) {
    const auto id = events.add(fd, bits, std::move(handler));
    if (!id) {
        throw VmmError(ExitCode::vmm_error, "cannot wait for a serial port's back end: " + id.error().message());
    }
    return *id;
}

}  // namespace

SerialConsole::SerialConsole(EventManager& events, SerialBackend& backend, vmsuperio::EventFdTrigger interrupt,
                             CommandHandler on_command)
    : events_(events),
      backend_(backend),
      on_command_(std::move(on_command)),
      device_(std::make_shared<Device>(Uart(std::move(interrupt), Events{this}, Writer{this}))) {
    device_->with_lock([](auto& device) {
        // The host's bytes come without a line speed, so a pause in them is known at once.
        (void)device.device().set_receive_timeout(vmsuperio::ReceiveTimeout::immediate);
    });
    wake_subscription_ = subscribe(events_, wake_.fd(), EPOLLIN, [this](std::uint32_t) { on_wake(); });
    if (backend_.input_fd() >= 0) {
        input_subscription_ =
            subscribe(events_, backend_.input_fd(), EPOLLIN, [this](std::uint32_t) { on_input(); });
    }
    if (backend_.output_fd() >= 0) {
        output_subscription_ =
            subscribe(events_, backend_.output_fd(), 0, [this](std::uint32_t) { on_output_ready(); });
    }
}

SerialConsole::~SerialConsole() {
    for (const auto& subscription : {wake_subscription_, input_subscription_, output_subscription_}) {
        if (subscription) {
            events_.remove(*subscription);
        }
    }
}

std::shared_ptr<vmdevice::DevicePio> SerialConsole::device() const { return device_; }

void SerialConsole::send_break() {
    device_->with_lock([](auto& device) { (void)device.device().send_break(); });
}

void SerialConsole::input_drained() noexcept {
    if (input_paused_) {
        input_paused_ = false;
        wake_.notify();
    }
}

std::expected<std::size_t, std::error_code> SerialConsole::write_output(std::span<const std::uint8_t> bytes) {
    const auto taken = backend_.write(bytes);
    if (taken && *taken < bytes.size() && !output_waiting_) {
        output_waiting_ = true;
        wake_.notify();
    }
    return taken;
}

void SerialConsole::on_wake() {
    wake_.clear();
    deliver_pending();
    const bool waiting = device_->with_lock([this](auto&) { return output_waiting_; });
    if (waiting && output_subscription_) {
        events_.modify(*output_subscription_, EPOLLOUT);
    }
}

void SerialConsole::on_output_ready() {
    const bool done = device_->with_lock([this](auto& device) {
        output_waiting_ = false;
        // A failing back end loses bytes, which the UART counts; the guest goes on.
        (void)device.device().resume_transmit();
        // Set again by write_output() where the back end is full once more.
        return !output_waiting_;
    });
    if (done) {
        events_.modify(*output_subscription_, 0);
    }
}

void SerialConsole::on_input() {
    const std::size_t room = device_->with_lock([](auto& device) { return device.device().fifo_capacity(); });
    if (room != 0 && pending_size_ == 0) {
        read_input(std::min(room, input_chunk));
    }
    pause_input_unless_room();
}

void SerialConsole::read_input(std::size_t room) {
    std::array<std::uint8_t, input_chunk> typed{};
    const ssize_t count = ::read(backend_.input_fd(), typed.data(), room);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (count <= 0) {
        end_input();
        return;
    }
    for (const std::uint8_t byte : std::span(typed).first(static_cast<std::size_t>(count))) {
        if (!backend_.interactive()) {
            pending_.at(pending_size_++) = byte;
            continue;
        }
        const EscapeParser::Result result = escape_.feed(byte);
        if (result.byte) {
            pending_.at(pending_size_++) = *result.byte;
        }
        if (result.command) {
            on_command_(*result.command);
        }
    }
    deliver_pending();
}

void SerialConsole::end_input() {
    if (input_subscription_) {
        events_.remove(*input_subscription_);
        input_subscription_.reset();
    }
}

void SerialConsole::deliver_pending() {
    if (pending_size_ != 0) {
        const std::span<const std::uint8_t> bytes(pending_.data(), pending_size_);
        const std::size_t taken = device_->with_lock([bytes](auto& device) -> std::size_t {
            const auto result = device.device().enqueue_raw_bytes(bytes);
            return result ? *result : 0;
        });
        std::copy(pending_.begin() + static_cast<std::ptrdiff_t>(taken),
                  pending_.begin() + static_cast<std::ptrdiff_t>(pending_size_), pending_.begin());
        pending_size_ -= taken;
    }
    pause_input_unless_room();
}

void SerialConsole::pause_input_unless_room() {
    if (!input_subscription_) {
        return;
    }
    const bool paused = device_->with_lock([this](auto& device) {
        input_paused_ = pending_size_ != 0 || device.device().fifo_capacity() == 0;
        return input_paused_;
    });
    events_.modify(*input_subscription_, paused ? 0U : std::uint32_t{EPOLLIN});
}

}  // namespace kvm_vmm
