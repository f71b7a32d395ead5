// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/serial_console.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <string>
#include <sys/epoll.h>
#include <utility>

#include "devices/register_names.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

EventManager::SubscriptionId subscribe(EventManager& events, int fd, std::uint32_t bits,
                                       EventManager::Handler handler) {
    const auto id = events.add(fd, bits, std::move(handler));
    if (!id) {
        throw VmmError(ExitCode::vmm_error,
                       "cannot wait for a serial port's back end: " + id.error().message());
    }
    return *id;
}

}  // namespace

SerialConsole::SerialConsole(EventManager& events, SerialBackend& backend,
                             vmsuperio::EventFdTrigger interrupt, vmsuperio::TransmitPolicy transmit_policy,
                             CommandHandler on_command, std::shared_ptr<vmsuperio::SerialMetrics> metrics,
                             std::chrono::milliseconds input_patience)
    : events_(events),
      backend_(backend),
      on_command_(std::move(on_command)),
      metrics_(std::move(metrics)),
      patience_(events, CLOCK_MONOTONIC,
                [this] {
                    patience_limited_ = false;
                    deliver_pending();
                }),
      device_(std::make_shared<Device>(ConsoleUart<Serial>(
          Serial(std::move(interrupt), Events(*metrics_), ChannelWriter(backend_.output(), wake_)),
          input_patience, [this] { wake_.notify(); }))) {
    with_uart([transmit_policy](auto& uart) {
        // The host's bytes arrive without a line speed, so a pause in them is detected at once.
        (void)uart.serial().set_receive_timeout(vmsuperio::ReceiveTimeout::immediate);
        (void)uart.serial().set_transmit_policy(transmit_policy);
    });
    wake_subscription_ = subscribe(events_, wake_.fd(), EPOLLIN, [this](std::uint32_t) { on_wake(); });
    backend_.set_on_change([this] { on_backend_change(); });
    on_backend_change();
}

SerialConsole::~SerialConsole() {
    backend_.set_on_change({});
    disconnect();
    events_.remove(*wake_subscription_);
}

// --- Watching descriptors

SerialConsole::Watch SerialConsole::watch(int fd) {
    return {.id = subscribe(events_, fd, 0, [this](std::uint32_t bits) { on_ready(bits); }), .events = 0};
}

void SerialConsole::watch_for(Watch& watch, std::uint32_t events) {
    if (watch.events != events) {
        events_.modify(watch.id, events);
        watch.events = events;
    }
}

void SerialConsole::connect() {
    const int input = backend_.input_fd();
    const int output = backend_.output_fd();
    if (input >= 0) {
        input_watch_ = watch(input);
    }
    if (output >= 0 && output != input) {
        output_watch_ = watch(output);
    }
}

void SerialConsole::disconnect() {
    for (auto* const watch : {&input_watch_, &output_watch_}) {
        if (*watch) {
            events_.remove((*watch)->id);
            watch->reset();
        }
    }
}

void SerialConsole::update_watches() {
    const bool wants_input = !backend_.input_ended() && room_to_read() != 0;
    const bool wants_output = with_uart([](auto& uart) { return uart.serial().writer().update_waiting(); });
    const std::uint32_t input = wants_input ? EPOLLIN : 0U;
    const std::uint32_t output = wants_output ? EPOLLOUT : 0U;
    if (output_watch_) {
        watch_for(*output_watch_, output);
    }
    if (input_watch_) {
        const std::uint32_t events = output_watch_ ? input : input | output;
        watch_for(*input_watch_, backend_.has_peers() && events == 0 ? EventManager::hangup_only : events);
    }
}

void SerialConsole::on_ready(std::uint32_t events) {
    if (backend_.has_peers() && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        disconnect();  // before its descriptor is closed
        backend_.on_hangup();
        return;
    }
    // The end of a descriptor that is not that of a peer is detected by reading and writing.
    if (backend_.output().waiting()) {
        resume_output();
    }
    if (!backend_.input_ended() && room_to_read() != 0) {
        read_input();
    }
    deliver_pending();
}

void SerialConsole::on_backend_change() {
    disconnect();
    connect();
    resume_output();
    deliver_pending();
}

void SerialConsole::on_wake() {
    wake_.clear();
    deliver_pending();
}

// --- Output

std::shared_ptr<vmdevice::DevicePio> SerialConsole::device() const { return device_; }

RegisterNamer SerialConsole::register_namer() const { return kvm_vmm::register_namer(device_); }

std::size_t SerialConsole::unsent() {
    using namespace vmsuperio::uart16550;
    return with_uart([this](auto& uart) {
        const LineStatus status(uart.serial().peek(offset::line_status));
        return backend_.output().unsent() + (status[LineStatus::transmitter_empty] ? 0 : 1);
    });
}

void SerialConsole::resume_output() {
    backend_.output().flush();
    for (std::size_t lost = backend_.output().take_dropped(); lost != 0; --lost) {
        metrics_->tx_lost_byte();
    }
    // If the back end fails, bytes are lost, which the UART counts; the guest continues.
    with_uart([](auto& uart) { (void)uart.serial().resume_transmit(); });
}

// --- Input

void SerialConsole::send_break() {
    keep({.byte = 0, .is_break = true});
    deliver_pending();
}

std::size_t SerialConsole::room_to_read() {
    constexpr std::size_t at_a_time = 4096;
    const InputQueue& waiting = backend_.read_ahead();
    switch (backend_.input()) {
        case SerialBackend::Input::keyboard:
            return at_a_time;
        case SerialBackend::Input::commands:
            return std::min(waiting.room(), at_a_time);
        case SerialBackend::Input::plain:
            break;
    }
    return waiting.empty() ? with_uart([](auto& uart) { return uart.input_room(); }) : 0;
}

void SerialConsole::read_input() {
    std::array<std::uint8_t, 4096> typed{};
    const auto count = backend_.read(std::span(typed).first(std::min(room_to_read(), typed.size())));
    if (!count && (count.error() == std::errc::resource_unavailable_try_again ||
                   count.error() == std::errc::interrupted)) {
        return;
    }
    if (!count || *count == 0) {
        backend_.on_input_end();
        return;
    }
    for (const std::uint8_t byte : std::span(typed).first(*count)) {
        if (backend_.input() == SerialBackend::Input::plain) {
            keep({.byte = byte});
        } else {
            take_typed(byte);
        }
    }
}

void SerialConsole::take_typed(std::uint8_t byte) {
    const EscapeParser::Result result = backend_.escape().feed(byte);
    if (result.byte) {
        keep({.byte = *result.byte});
    }
    if (result.command == ConsoleCommand::send_break) {
        keep({.byte = 0, .is_break = true});
    } else if (result.command) {
        on_command_(*result.command);
    }
}

void SerialConsole::keep(InputItem item) {
    if (!backend_.read_ahead().push(item) && !std::exchange(input_dropped_logged_, true)) {
        log(LogLevel::warning,
            "what is typed is dropped from now on, because the guest does not read what "
            "was typed before");
    }
}

void SerialConsole::deliver_pending() {
    limit_patience();
    with_uart([this](auto& uart) { uart.take_input(backend_.read_ahead()); });
    update_watches();
}

// Limits how long input waits for a guest that is not recognised as listening.
void SerialConsole::limit_patience() {
    const auto deadline = with_uart([](auto& uart) {
        ListeningGuest& guest = uart.guest();
        return guest.must_wait(ListeningGuest::Clock::now())
                   ? std::optional(guest.deadline().time_since_epoch())
                   : std::nullopt;
    });
    if (deadline && !patience_limited_) {
        patience_limited_ = true;
        patience_.set(deadline);
    }
}

}  // namespace kvm_vmm
