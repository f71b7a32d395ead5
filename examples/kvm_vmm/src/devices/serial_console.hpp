// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmdevice/byte_device.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/serial.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "console/escape.hpp"
#include "console/serial_backend.hpp"
#include "event/event_manager.hpp"
#include "event/notifier.hpp"

namespace kvm_vmm {

/// A UART of the guest joined to its back end.
///
/// Output: the guest's write reaches the back end in the vCPU's thread, without waiting. What the back end
/// does not take stays in the UART's FIFO; the event loop goes on with it when the back end is writable.
///
/// Input: the event loop reads no more than the UART has room for. While there is no room the back end
/// is left unread, so nothing is lost and nothing piles up here; the UART tells when the guest drained it.
///
/// Used by the event loop's thread, but for `device()`, which the vCPUs access.
class SerialConsole {
public:
    using CommandHandler = std::function<void(ConsoleCommand)>;

    /// `interrupt` is the eventfd of the port's interrupt line. `events` and `backend` must outlive the console.
    SerialConsole(EventManager& events, SerialBackend& backend, vmsuperio::EventFdTrigger interrupt,
                  CommandHandler on_command);
    ~SerialConsole();
    SerialConsole(const SerialConsole&) = delete;
    SerialConsole& operator=(const SerialConsole&) = delete;

    /// To be put on the bus.
    [[nodiscard]] std::shared_ptr<vmdevice::DevicePio> device() const;

    /// A BREAK on the guest's line.
    void send_break();

private:
    // Called by the UART, with its lock held, in whichever thread accesses it.
    struct Events {
        SerialConsole* console;

        void buffer_read() const noexcept {}
        void out_byte() const noexcept {}
        void tx_lost_byte() const noexcept {}
        void in_buffer_empty() const noexcept { console->input_drained(); }
        void fifo_reset() const noexcept { console->input_drained(); }
    };
    struct Writer {
        SerialConsole* console;

        [[nodiscard]] std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) const {
            return console->write_output(bytes);
        }
    };
    using Uart = vmsuperio::Serial<vmsuperio::EventFdTrigger, Events, Writer>;
    using Device = vmdevice::Locked<vmdevice::ByteDevice<Uart>>;

    static constexpr std::size_t input_chunk = 64;

    void input_drained() noexcept;
    std::expected<std::size_t, std::error_code> write_output(std::span<const std::uint8_t> bytes);

    void on_input();
    void on_output_ready();
    void on_wake();
    void read_input(std::size_t room);
    void end_input();
    void deliver_pending();
    void pause_input_unless_room();

    EventManager& events_;
    SerialBackend& backend_;
    CommandHandler on_command_;
    Notifier wake_;
    std::optional<EventManager::SubscriptionId> wake_subscription_;
    std::optional<EventManager::SubscriptionId> input_subscription_;
    std::optional<EventManager::SubscriptionId> output_subscription_;
    EscapeParser escape_;

    // Read from the back end, not yet taken by the UART: only while the guest has it in loopback mode.
    std::array<std::uint8_t, input_chunk> pending_{};
    std::size_t pending_size_{0};

    // Guarded by the UART's lock.
    bool input_paused_{false};
    bool output_waiting_{false};

    std::shared_ptr<Device> device_;
};

}  // namespace kvm_vmm
