// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "console/escape.hpp"
#include "console/input_queue.hpp"
#include "console/listening_socket.hpp"
#include "console/output_channel.hpp"
#include "console/serial_config.hpp"
#include "event/event_manager.hpp"
#include "util/output_file.hpp"

namespace kvm_vmm {

/// The size of a terminal, in characters. 0 if it is unknown.
struct TerminalSize {
    std::uint16_t columns{0};
    std::uint16_t rows{0};

    friend constexpr bool operator==(const TerminalSize&, const TerminalSize&) = default;
};

/// The host's end of a serial port or of a virtio console. It outlives the VM, so that it stays connected when a guest is restarted.
///
/// Only output() may be used outside the event loop's thread.
class SerialBackend {
public:
    /// The kind of input, which determines the treatment of input that the guest does not read.
    enum class Input : std::uint8_t {
        plain,     ///< it stays with the sender, which waits
        commands,  ///< Ctrl-A commands are recognised, so it is read ahead; beyond that the sender waits
        keyboard,  ///< the same, but a user cannot wait: beyond that, input is dropped, except for commands
    };

    explicit SerialBackend(OutputChannel::Readers readers) : output_(readers) {}
    explicit SerialBackend(vmsuperio::FdWriter reader) : output_(std::move(reader)) {}
    virtual ~SerialBackend() = default;
    SerialBackend(const SerialBackend&) = delete;
    SerialBackend& operator=(const SerialBackend&) = delete;

    /// The descriptor to wait for before reading, or -1 while there can be no input. It is the same as
    /// output_fd() if one peer both reads and writes.
    [[nodiscard]] virtual int input_fd() const noexcept = 0;
    /// The descriptor to wait for before output().flush(), or -1 if there is no reader.
    [[nodiscard]] virtual int output_fd() const noexcept = 0;
    [[nodiscard]] virtual Input input() const noexcept { return Input::plain; }

    /// Never blocks. Returns 0 at the end of the input, and the error EAGAIN if there is no input at present.
    [[nodiscard]] virtual std::expected<std::size_t, std::error_code> read(std::span<std::uint8_t> bytes) = 0;
    /// Called when read() has returned the end of the input or an error. The other direction may continue.
    virtual void on_input_end() = 0;
    /// Whether on_input_end() was called for the present peer.
    [[nodiscard]] virtual bool input_ended() const noexcept = 0;

    /// Sets whether this process is in the foreground of its terminal, and so may read from it. Call it at
    /// each check; it affects only a back end on that terminal.
    virtual void set_in_front(bool) {}

    /// The size of the terminal that shows the output; nothing if it is no terminal.
    [[nodiscard]] virtual std::optional<TerminalSize> terminal_size() const { return std::nullopt; }

    /// Whether there is one peer at a time, which may disconnect and be followed by another.
    [[nodiscard]] virtual bool has_peers() const noexcept { return false; }
    /// The peer has disconnected in both directions: its descriptor may not be waited for any more.
    virtual void on_hangup() {}

    /// `on_change` is called when a peer has connected or disconnected, or there is input in read_ahead().
    /// Pass an empty function to unsubscribe.
    void set_on_change(std::function<void()> on_change) { on_change_ = std::move(on_change); }

    /// May be called from any thread.
    [[nodiscard]] OutputChannel& output() noexcept { return output_; }
    /// Sends output that is not queued if there is no room. May be called from any thread.
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) {
        return output_.write(bytes);
    }

    /// Input that was read from the host and that the guest has not taken yet.
    [[nodiscard]] InputQueue& read_ahead() noexcept { return read_ahead_; }
    [[nodiscard]] EscapeParser& escape() noexcept { return escape_; }

protected:
    void changed() const {
        if (on_change_) {
            on_change_();
        }
    }
    /// Reads the rest of the input of a peer that has disconnected. If read_ahead() is full, that is logged.
    void keep_rest_of_input();
    /// Of the terminal `fd`; nothing if it is none.
    [[nodiscard]] static std::optional<TerminalSize> terminal_size_of(int fd) noexcept;

private:
    std::function<void()> on_change_;
    InputQueue read_ahead_;
    OutputChannel output_;
    EscapeParser escape_;
};

/// The target of a serial port or of a virtio console. If it has a path, it is opened.
struct SerialTarget {
    std::string role{"serial port"};  ///< for messages
    SerialConfig::Kind kind{};
    std::optional<OutputFile> file;         ///< of Kind::file
    std::optional<ListeningSocket> socket;  ///< of Kind::unix_socket
};

/// Creates the back end for a target. Throws VmmError if that is not possible. `events` must outlive the back
/// end.
[[nodiscard]] std::unique_ptr<SerialBackend> open_serial_backend(SerialTarget target, EventManager& events);

/// A back end on descriptors that the caller owns; -1 for none.
[[nodiscard]] std::unique_ptr<SerialBackend> use_descriptors(
    int input_fd, int output_fd, SerialBackend::Input input = SerialBackend::Input::plain);

}  // namespace kvm_vmm
