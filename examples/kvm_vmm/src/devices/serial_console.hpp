// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_metrics.hpp>

#include "console/channel_writer.hpp"
#include "console/console_line.hpp"
#include "console/serial_backend.hpp"
#include "devices/console_uart.hpp"
#include "event/event_manager.hpp"
#include "event/notifier.hpp"
#include "event/timer.hpp"
#include "observe/device_directory.hpp"
#include "observe/device_errors.hpp"

namespace kvm_vmm {

/// A UART of the guest, connected to its back end.
///
/// Output: the guest's write reaches the back end in the vCPU's thread, without waiting. Bytes that the back
/// end's reader does not take are kept, up to a MiB and then as many as the UART's FIFO holds; the event loop
/// sends them when the back end is writable. While there is no reader, the transmitter never waits.
///
/// Input: ConsoleLine reads as much as the UART has room for, and more if it must find Ctrl-A commands. A BREAK
/// that the user requests keeps its position in the input. The UART reports when it can take more; a guest that
/// is not recognised as listening gets its input after `input_patience`. Input that the guest discards unread
/// is returned to the queue and delivered again.
///
/// Used by the event loop's thread, except `device()`, which the vCPUs access.
class SerialConsole final : private ConsoleLine::Guest {
public:
    using CommandHandler = ConsoleLine::CommandHandler;

    /// How long input waits for a guest that is not recognised as listening (see ListeningGuest).
    static constexpr std::chrono::milliseconds default_input_patience{1000};

    /// `interrupt` is the eventfd of the port's interrupt line. `events` and `backend` must outlive the
    /// console. `on_command` receives all commands except that for a BREAK. The UART is counted in `metrics`,
    /// which may be read from any thread.
    SerialConsole(
        EventManager& events, SerialBackend& backend, vmsuperio::EventFdTrigger interrupt,
        vmsuperio::TransmitPolicy transmit_policy, CommandHandler on_command,
        std::shared_ptr<vmsuperio::SerialMetrics> metrics = std::make_shared<vmsuperio::SerialMetrics>(),
        std::chrono::milliseconds input_patience = default_input_patience);
    ~SerialConsole();
    SerialConsole(const SerialConsole&) = delete;
    SerialConsole& operator=(const SerialConsole&) = delete;

    /// The device to register on the bus.
    [[nodiscard]] std::shared_ptr<vmdevice::DevicePio> device() const;
    /// The function that names its registers, for a trace.
    [[nodiscard]] RegisterNamer register_namer() const;

    /// Sends a BREAK on the guest's line, after all input so far.
    void send_break() { line_.send_break(); }

    /// How many bytes the reader has not taken yet, one more if the guest's driver waits as well, and 0 if
    /// there is no reader.
    [[nodiscard]] std::size_t unsent();

    /// Sends output that waits for more of it (OutputChannel).
    void end_join();

    /// Reports failures of the guest's accesses on the host's side to `log`.
    void log_errors(const DeviceErrorLog& log) {
        device_->with_lock([&log](auto& device) { device.set_error_handler(log); });
    }

private:
    using Events = ConsoleEvents<vmsuperio::SerialMetrics>;
    using Serial = vmsuperio::Serial<vmsuperio::EventFdTrigger, Events, ChannelWriter>;
    using Uart = vmdevice::Locked<vmdevice::ByteDevice<ConsoleUart<Serial>>>;

    // ConsoleLine::Guest
    [[nodiscard]] std::size_t input_room() override;
    void take_input(InputQueue& waiting) override;
    [[nodiscard]] bool output_waits() override;
    void resume_output(std::size_t lost) override;
    [[nodiscard]] bool takes_break() const noexcept override { return true; }

    void on_wake();
    void limit_patience();

    // Runs `f` on the UART with its lock held.
    template <class F>
    auto with_uart(F&& f) {
        return device_->with_lock([&f](auto& device) { return f(device.device()); });
    }

    EventManager& events_;
    SerialBackend& backend_;
    std::shared_ptr<vmsuperio::SerialMetrics> metrics_;
    Notifier wake_;
    std::optional<EventManager::SubscriptionId> wake_subscription_;
    Timer patience_;
    bool patience_limited_{false};  // the timer is set
    Timer join_;

    std::shared_ptr<Uart> device_;
    ConsoleLine line_;
};

}  // namespace kvm_vmm
