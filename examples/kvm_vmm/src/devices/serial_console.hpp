// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_metrics.hpp>

#include "console/escape.hpp"
#include "console/serial_backend.hpp"
#include "devices/console_uart.hpp"
#include "event/event_manager.hpp"
#include "event/notifier.hpp"
#include "observe/device_errors.hpp"

namespace kvm_vmm {

/// A UART of the guest joined to its back end.
///
/// Output: the guest's write reaches the back end in the vCPU's thread, without waiting. What the back end
/// does not take is kept, a MiB of it and then what the UART's FIFO holds; the event loop goes on with it
/// when the back end is writable.
///
/// Input: the event loop reads as much as the UART has room for, and for the sake of Ctrl-A commands a little
/// more. While there is no room, or the guest does not listen, the back end is left unread: nothing is lost
/// and nothing piles up here. The UART tells when to go on.
///
/// Used by the event loop's thread, but for `device()`, which the vCPUs access.
class SerialConsole {
public:
    using CommandHandler = std::function<void(ConsoleCommand)>;

    /// `interrupt` is the eventfd of the port's interrupt line. `events` and `backend` must outlive the
    /// console. The UART is counted in `metrics`, which may be read from any thread.
    SerialConsole(
        EventManager& events, SerialBackend& backend, vmsuperio::EventFdTrigger interrupt,
        vmsuperio::TransmitPolicy transmit_policy, CommandHandler on_command,
        std::shared_ptr<vmsuperio::SerialMetrics> metrics = std::make_shared<vmsuperio::SerialMetrics>());
    ~SerialConsole();
    SerialConsole(const SerialConsole&) = delete;
    SerialConsole& operator=(const SerialConsole&) = delete;

    /// To be put on the bus.
    [[nodiscard]] std::shared_ptr<vmdevice::DevicePio> device() const;

    /// A BREAK on the guest's line.
    void send_break();

    /// How many bytes the back end has not taken yet, or one more where the guest's driver waits as well.
    [[nodiscard]] std::size_t unsent();

    /// Where the failures of the guest's accesses on the host's side are told of.
    void log_errors(const DeviceErrorLog& log) {
        device_->with_lock([&log](auto& device) { device.set_error_handler(log); });
    }

private:
    // Called by the UART, with its lock held, in whichever thread accesses it.
    struct Writer {
        SerialConsole* console;

        [[nodiscard]] std::expected<std::size_t, std::error_code> write(
            std::span<const std::uint8_t> bytes) const {
            return console->write_output(bytes);
        }
    };
    using Metrics = vmsuperio::EventsRef<vmsuperio::SerialMetrics>;
    using Serial = vmsuperio::Serial<vmsuperio::EventFdTrigger, Metrics, Writer>;
    using Device = vmdevice::Locked<vmdevice::ByteDevice<ConsoleUart<Serial>>>;

    // How much may be read ahead of the guest. Where commands are looked for, they have to be found while a
    // guest does not read at all; elsewhere what does not fit into the UART stays with the sender.
    static constexpr std::size_t interactive_read_ahead = 16UL * 1024;

    std::expected<std::size_t, std::error_code> write_output(std::span<const std::uint8_t> bytes);

    void on_input();
    void on_wake();
    void connect();
    void disconnect();
    void resume_output();
    void write_unsent();
    [[nodiscard]] std::size_t input_room();
    void read_input(std::size_t room);
    void deliver_pending();

    // Runs `f` on the UART with its lock held.
    template <class F>
    auto with_uart(F&& f) {
        return device_->with_lock([&f](auto& device) { return f(device.device()); });
    }

    EventManager& events_;
    SerialBackend& backend_;
    CommandHandler on_command_;
    std::shared_ptr<vmsuperio::SerialMetrics> metrics_;
    Notifier wake_;
    std::optional<EventManager::SubscriptionId> wake_subscription_;
    std::optional<EventManager::SubscriptionId> input_subscription_;
    std::optional<EventManager::SubscriptionId> output_subscription_;
    FileDescriptor output_fd_;
    bool output_waiting_{false};  // guarded by the UART's lock

    std::shared_ptr<Device> device_;
};

}  // namespace kvm_vmm
