// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "console/escape.hpp"
#include "console/input_queue.hpp"
#include "console/serial_backend.hpp"
#include "event/event_manager.hpp"

namespace kvm_vmm {

/// Connects a device of the guest, a UART or a virtio console, to its back end: it waits for the back end's
/// descriptors, reads input and finds the commands in it, and offers the output that waits to the reader.
///
/// Input that the guest has no room for: with Input::plain it is not read; with the other kinds it is read
/// ahead into the back end's queue, because there may be Ctrl-A commands in it (SerialBackend::Input).
///
/// The disconnect of a peer is detected at any time.
///
/// Used by the event loop's thread only.
class ConsoleLine {
public:
    /// Receives all commands, except that for a BREAK if the device has it.
    using CommandHandler = std::function<void(ConsoleCommand)>;

    /// The guest's end of the line. The functions are called in the event loop's thread.
    class Guest {
    public:
        Guest() = default;
        Guest(const Guest&) = delete;
        Guest& operator=(const Guest&) = delete;
        /// How many bytes the guest can take now.
        [[nodiscard]] virtual std::size_t input_room() = 0;
        /// Moves input to the guest, as much as it can take now.
        virtual void take_input(InputQueue& waiting) = 0;
        /// Whether output waits for the back end's reader. After true is returned, the event loop need not be
        /// woken for it.
        [[nodiscard]] virtual bool output_waits() = 0;
        /// The reader may have taken output. `lost` queued bytes were dropped instead.
        virtual void resume_output(std::size_t lost) = 0;
        /// Whether a BREAK can be sent to the guest.
        [[nodiscard]] virtual bool takes_break() const noexcept = 0;

    protected:
        ~Guest() = default;
    };

    /// All objects must outlive the line. Does nothing before open().
    ConsoleLine(EventManager& events, SerialBackend& backend, Guest& guest, CommandHandler on_command);
    ~ConsoleLine();
    ConsoleLine(const ConsoleLine&) = delete;
    ConsoleLine& operator=(const ConsoleLine&) = delete;

    /// Begins to use the back end and the device. Throws VmmError if the system has no descriptor left.
    void open();

    /// Lets the device take input, and waits for what is possible after that.
    void deliver();
    /// Waits for what is possible now: input if there is room, the reader if output waits.
    void update_watches();
    /// Sends a BREAK, after all input so far. The device must take it.
    void send_break();

private:
    struct Watch {
        EventManager::SubscriptionId id;
        std::uint32_t events;
    };

    void connect();
    void disconnect();
    [[nodiscard]] Watch watch(int fd);
    void watch_for(Watch& watch, std::uint32_t events);
    void on_ready(std::uint32_t events);
    void on_backend_change();
    void resume_output();
    [[nodiscard]] std::size_t room_to_read();
    void read_input();
    void take_typed(std::uint8_t byte);
    void keep(InputItem item);

    EventManager& events_;
    SerialBackend& backend_;
    Guest& guest_;
    CommandHandler on_command_;
    std::optional<Watch> input_watch_;   // for both directions if they have the same descriptor
    std::optional<Watch> output_watch_;  // if the output has another descriptor
    bool input_dropped_logged_{false};
};

}  // namespace kvm_vmm
