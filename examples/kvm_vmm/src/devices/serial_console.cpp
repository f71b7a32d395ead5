// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/serial_console.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <fcntl.h>
#include <string>
#include <sys/epoll.h>
#include <unistd.h>
#include <utility>

#include "error.hpp"

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
                             CommandHandler on_command, std::shared_ptr<vmsuperio::SerialMetrics> metrics)
    : events_(events),
      backend_(backend),
      on_command_(std::move(on_command)),
      metrics_(std::move(metrics)),
      device_(std::make_shared<Device>(ConsoleUart<Serial>(
          Serial(std::move(interrupt), Metrics(*metrics_), Writer{this}), [this] { wake_.notify(); }))) {
    with_uart([transmit_policy](auto& uart) {
        // The host's bytes come without a line speed, so a pause in them is known at once.
        (void)uart.serial().set_receive_timeout(vmsuperio::ReceiveTimeout::immediate);
        (void)uart.serial().set_transmit_policy(transmit_policy);
    });
    wake_subscription_ = subscribe(events_, wake_.fd(), EPOLLIN, [this](std::uint32_t) { on_wake(); });
    connect();
    backend_.set_on_change([this] {
        disconnect();
        connect();
        resume_output();  // what waited for the old reader goes to the new one, or nowhere
    });
}

SerialConsole::~SerialConsole() {
    backend_.set_on_change({});
    disconnect();
    events_.remove(*wake_subscription_);
}

void SerialConsole::connect() {
    if (backend_.input_fd() >= 0) {
        input_subscription_ =
            subscribe(events_, backend_.input_fd(), EPOLLIN, [this](std::uint32_t) { on_input(); });
    }
    if (backend_.output_fd() >= 0 && backend_.output_fd() != backend_.input_fd()) {
        output_subscription_ =
            subscribe(events_, backend_.output_fd(), 0, [this](std::uint32_t) { resume_output(); });
    } else if (backend_.output_fd() >= 0) {
        // One descriptor can be in an epoll set once only.
        output_fd_ = FileDescriptor(::fcntl(backend_.output_fd(), F_DUPFD_CLOEXEC, 0));
        output_subscription_ =
            subscribe(events_, output_fd_.get(), 0, [this](std::uint32_t) { resume_output(); });
    }
}

void SerialConsole::disconnect() {
    for (auto* const subscription : {&input_subscription_, &output_subscription_}) {
        if (*subscription) {
            events_.remove(**subscription);
            subscription->reset();
        }
    }
    output_fd_.reset();
}

std::shared_ptr<vmdevice::DevicePio> SerialConsole::device() const { return device_; }

void SerialConsole::send_break() {
    with_uart([](auto& uart) { uart.send_break(); });
}

std::expected<std::size_t, std::error_code> SerialConsole::write_output(std::span<const std::uint8_t> bytes) {
    OutputQueue& unsent = backend_.unsent();
    std::size_t taken = 0;
    if (unsent.empty()) {
        const auto written = backend_.write(bytes);
        if (!written) {
            return written;
        }
        taken = *written;
    }
    taken += unsent.push(bytes.subspan(taken));
    if (!unsent.empty() && !output_waiting_) {
        output_waiting_ = true;
        wake_.notify();
    }
    return taken;
}

std::size_t SerialConsole::unsent() {
    using namespace vmsuperio::uart16550;
    return with_uart([this](auto& uart) {
        const LineStatus status(uart.serial().peek(offset::line_status));
        return backend_.unsent().size() + (status[LineStatus::transmitter_empty] ? 0 : 1);
    });
}

void SerialConsole::on_wake() {
    wake_.clear();
    deliver_pending();
    if (output_subscription_ && with_uart([this](auto&) { return output_waiting_; })) {
        events_.modify(*output_subscription_, EPOLLOUT);
    }
}

// With the UART's lock held, for which a vCPU may wait: so not more than this at a time.
void SerialConsole::write_unsent() {
    constexpr std::size_t at_a_time = 64UL * 1024;
    OutputQueue& unsent = backend_.unsent();
    const auto bytes = unsent.bytes();
    const auto written = backend_.write(bytes.first(std::min(bytes.size(), at_a_time)));
    if (written) {
        unsent.drop_front(*written);
        return;
    }
    for (std::size_t lost = unsent.size(); lost != 0; --lost) {
        metrics_->tx_lost_byte();
    }
    unsent.clear();
}

void SerialConsole::resume_output() {
    const bool done = with_uart([this](auto& uart) {
        OutputQueue& unsent = backend_.unsent();
        if (!unsent.empty()) {
            write_unsent();
        }
        if (!output_subscription_) {
            unsent.clear();  // nobody is there any more
        }
        output_waiting_ = !unsent.empty();
        // A failing back end loses bytes, which the UART counts; the guest goes on.
        (void)uart.serial().resume_transmit();
        return !output_waiting_;
    });
    if (output_subscription_) {
        events_.modify(*output_subscription_, done ? 0 : std::uint32_t{EPOLLOUT});
    }
}

std::size_t SerialConsole::input_room() {
    if (backend_.interactive()) {
        return interactive_read_ahead - backend_.read_ahead().size();
    }
    return backend_.read_ahead().empty() ? with_uart([](auto& uart) { return uart.input_room(); }) : 0;
}

void SerialConsole::on_input() {
    if (const std::size_t room = input_room(); room != 0) {
        read_input(room);
    }
    deliver_pending();
}

void SerialConsole::read_input(std::size_t room) {
    std::array<std::uint8_t, 4096> typed{};
    const ssize_t count = ::read(backend_.input_fd(), typed.data(), std::min(room, typed.size()));
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (count <= 0) {
        if (input_subscription_) {
            events_.remove(*input_subscription_);
            input_subscription_.reset();
        }
        backend_.on_hangup();
        return;
    }
    for (const std::uint8_t byte : std::span(typed).first(static_cast<std::size_t>(count))) {
        if (!backend_.interactive()) {
            backend_.read_ahead().push_back(byte);
            continue;
        }
        const EscapeParser::Result result = backend_.escape().feed(byte);
        if (result.byte) {
            backend_.read_ahead().push_back(*result.byte);
        }
        if (result.command) {
            on_command_(*result.command);
        }
    }
}

void SerialConsole::deliver_pending() {
    std::deque<std::uint8_t>& pending = backend_.read_ahead();
    // Also what a FIFO reset threw away and the UART hands out again.
    (void)with_uart([](auto& uart) { return uart.input_room(); });
    while (!pending.empty()) {
        std::array<std::uint8_t, 64> bytes{};
        const std::size_t size = std::min(bytes.size(), pending.size());
        std::copy_n(pending.begin(), size, bytes.begin());
        const std::size_t taken = with_uart(
            [offered = std::span(bytes).first(size)](auto& uart) { return uart.take_input(offered); });
        pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(taken));
        if (taken < size) {
            break;
        }
    }
    if (input_subscription_) {
        events_.modify(*input_subscription_, input_room() != 0 ? std::uint32_t{EPOLLIN} : 0U);
    }
}

}  // namespace kvm_vmm
