// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <span>
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

/// The host's end of a serial port. It outlives the VM, so that a restarted guest finds it as it was.
///
/// All but output() belongs to the event loop's thread.
class SerialBackend {
public:
    /// What commands mean to the user decides what becomes of input that the guest does not read.
    enum class Input : std::uint8_t {
        plain,     ///< stays with the sender, which is held
        commands,  ///< Ctrl-A commands are looked for, so it is read ahead; beyond that the sender is held
        keyboard,  ///< as well, and a user cannot be held: beyond that, input is dropped, but for commands
    };

    explicit SerialBackend(OutputChannel::Readers readers) : output_(readers) {}
    explicit SerialBackend(vmsuperio::FdWriter reader) : output_(std::move(reader)) {}
    virtual ~SerialBackend() = default;
    SerialBackend(const SerialBackend&) = delete;
    SerialBackend& operator=(const SerialBackend&) = delete;

    /// What to wait for before reading; -1 while nothing can come in. The same as output_fd() where one peer
    /// both reads and writes.
    [[nodiscard]] virtual int input_fd() const noexcept = 0;
    /// What to wait for before output().flush(); -1 where there is no reader.
    [[nodiscard]] virtual int output_fd() const noexcept = 0;
    [[nodiscard]] virtual Input input() const noexcept { return Input::plain; }

    /// Never blocks. 0 at the end of the input; error EAGAIN: nothing at the moment.
    [[nodiscard]] virtual std::expected<std::size_t, std::error_code> read(std::span<std::uint8_t> bytes) = 0;
    /// read() met the end of the input, or an error. The other direction may go on.
    virtual void on_input_end() = 0;
    /// Whether on_input_end() was called for the peer of now.
    [[nodiscard]] virtual bool input_ended() const noexcept = 0;

    /// Whether this process is in front of its terminal, and so may read from it. To be called at each look;
    /// only a back end on that terminal minds.
    virtual void set_in_front(bool) {}

    /// Whether there is one peer at a time, which may go and be followed by another.
    [[nodiscard]] virtual bool has_peers() const noexcept { return false; }
    /// The peer has gone, in both directions: nobody may wait for its descriptor any more.
    virtual void on_hangup() {}

    /// `on_change` is called when another peer has come, the old one has gone, or there is input in
    /// read_ahead(). With an empty function, nobody is called.
    void set_on_change(std::function<void()> on_change) { on_change_ = std::move(on_change); }

    /// From any thread.
    [[nodiscard]] OutputChannel& output() noexcept { return output_; }
    /// Output that is not kept where it finds no room. From any thread.
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) {
        return output_.write(bytes);
    }

    /// Read from the host and not yet taken by the guest.
    [[nodiscard]] InputQueue& read_ahead() noexcept { return read_ahead_; }
    [[nodiscard]] EscapeParser& escape() noexcept { return escape_; }

protected:
    void changed() const {
        if (on_change_) {
            on_change_();
        }
    }
    /// Takes over what a peer wrote before it went. Where read_ahead() is full, that is logged.
    void keep_rest_of_input();

private:
    std::function<void()> on_change_;
    InputQueue read_ahead_;
    OutputChannel output_;
    EscapeParser escape_;
};

/// Where the bytes of a serial port go to and come from: of what the user named, what has a path is opened.
struct SerialTarget {
    SerialConfig::Kind kind{};
    std::optional<OutputFile> file;         ///< of Kind::file
    std::optional<ListeningSocket> socket;  ///< of Kind::unix_socket
};

/// Joins a port to its target. Throws VmmError where that is not possible. `events` must outlive it.
[[nodiscard]] std::unique_ptr<SerialBackend> open_serial_backend(SerialTarget target, EventManager& events);

/// A back end on descriptors that stay the caller's; -1 for none.
[[nodiscard]] std::unique_ptr<SerialBackend> use_descriptors(
    int input_fd, int output_fd, SerialBackend::Input input = SerialBackend::Input::plain);

}  // namespace kvm_vmm
