// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/serial_console.hpp"

#include <ctime>
#include <sys/epoll.h>
#include <utility>

#include "devices/register_names.hpp"

namespace kvm_vmm {

SerialConsole::SerialConsole(EventManager& events, SerialBackend& backend,
                             vmsuperio::EventFdTrigger interrupt, vmsuperio::TransmitPolicy transmit_policy,
                             CommandHandler on_command, std::shared_ptr<vmsuperio::SerialMetrics> metrics,
                             std::chrono::milliseconds input_patience)
    : events_(events),
      backend_(backend),
      metrics_(std::move(metrics)),
      patience_(events, CLOCK_MONOTONIC,
                [this] {
                    patience_limited_ = false;
                    line_.deliver();
                }),
      join_(events, CLOCK_MONOTONIC, [this] { end_join(); }),
      device_(std::make_shared<Uart>(ConsoleUart<Serial>(
          Serial(std::move(interrupt), Events(*metrics_), ChannelWriter(backend_.output(), wake_, join_)),
          input_patience, [this] { wake_.notify(); }))),
      line_(events, backend, *this, std::move(on_command)) {
    with_uart([transmit_policy](auto& uart) {
        // The host's bytes arrive without a line speed, so a pause in them is detected at once.
        (void)uart.serial().set_receive_timeout(vmsuperio::ReceiveTimeout::immediate);
        (void)uart.serial().set_transmit_policy(transmit_policy);
    });
    wake_subscription_ =
        events_.subscribe(wake_.fd(), EPOLLIN, "a serial port", [this](std::uint32_t) { on_wake(); });
    line_.open();
}

SerialConsole::~SerialConsole() { events_.remove(*wake_subscription_); }

void SerialConsole::on_wake() {
    wake_.clear();
    line_.deliver();
}

// --- Output

void SerialConsole::end_join() {
    OutputChannel& output = backend_.output();
    if (output.end_join()) {
        join_.set_after(OutputChannel::join_time);
    }
    if (const std::size_t lost = output.take_dropped(); lost != 0) {
        resume_output(lost);
    }
    if (output.waiting()) {
        line_.update_watches();
    }
}

std::shared_ptr<vmdevice::DevicePio> SerialConsole::device() const { return device_; }

RegisterNamer SerialConsole::register_namer() const { return kvm_vmm::register_namer(device_); }

std::size_t SerialConsole::unsent() {
    using namespace vmsuperio::uart16550;
    return with_uart([this](auto& uart) {
        const LineStatus status(uart.serial().peek(offset::line_status));
        return backend_.output().unsent() + (status[LineStatus::transmitter_empty] ? 0 : 1);
    });
}

bool SerialConsole::output_waits() {
    return with_uart([](auto& uart) { return uart.serial().writer().update_waiting(); });
}

void SerialConsole::resume_output(std::size_t lost) {
    for (; lost != 0; --lost) {
        metrics_->tx_lost_byte();
    }
    // If the back end fails, bytes are lost, which the UART counts; the guest continues.
    with_uart([](auto& uart) { (void)uart.serial().resume_transmit(); });
}

// --- Input

std::size_t SerialConsole::input_room() {
    return with_uart([](auto& uart) { return uart.input_room(); });
}

void SerialConsole::take_input(InputQueue& waiting) {
    limit_patience();
    with_uart([&waiting](auto& uart) { uart.take_input(waiting); });
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
