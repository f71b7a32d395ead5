// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <expected>
#include <functional>
#include <memory>
#include <span>
#include <system_error>

#include "console/escape.hpp"
#include "console/output_queue.hpp"
#include "event/event_manager.hpp"
#include "vmm/config.hpp"

namespace kvm_vmm {

/// The host's end of a serial port. It outlives the VM, so that a restarted guest finds it as it was.
///
/// All but write() belongs to the event loop's thread.
class SerialBackend {
public:
    SerialBackend() = default;
    virtual ~SerialBackend() = default;
    SerialBackend(const SerialBackend&) = delete;
    SerialBackend& operator=(const SerialBackend&) = delete;

    /// What to read from; -1 while nothing can come in.
    [[nodiscard]] virtual int input_fd() const noexcept = 0;
    /// What to wait for when write() takes nothing; -1 where writing never has to wait.
    [[nodiscard]] virtual int output_fd() const noexcept = 0;
    /// Whether Ctrl-A commands are looked for in the input.
    [[nodiscard]] virtual bool interactive() const noexcept { return false; }
    /// Never blocks; see vmsuperio::Writer. From any thread.
    [[nodiscard]] virtual std::expected<std::size_t, std::error_code> write(
        std::span<const std::uint8_t> bytes) = 0;
    /// Reading found the end of the input, or an error.
    virtual void on_hangup() = 0;

    /// `on_change` is called when the descriptors are others than before. Empty: nobody to be called.
    void set_on_change(std::function<void()> on_change) { on_change_ = std::move(on_change); }

    /// Read from the host and not yet taken by the guest.
    [[nodiscard]] std::deque<std::uint8_t>& read_ahead() noexcept { return read_ahead_; }
    /// Sent by the guest and not yet taken by write(). Guarded by whoever calls that.
    [[nodiscard]] OutputQueue& unsent() noexcept { return unsent_; }
    [[nodiscard]] EscapeParser& escape() noexcept { return escape_; }

protected:
    void changed() const {
        if (on_change_) {
            on_change_();
        }
    }

private:
    std::function<void()> on_change_;
    std::deque<std::uint8_t> read_ahead_;
    OutputQueue unsent_;
    EscapeParser escape_;
};

/// Opens what the user asked for. Throws VmmError(bad_file) where that is not possible. `events` must outlive
/// it.
[[nodiscard]] std::unique_ptr<SerialBackend> open_serial_backend(const SerialConfig& config,
                                                                 EventManager& events);

/// A back end on descriptors that stay the caller's; -1 for none.
[[nodiscard]] std::unique_ptr<SerialBackend> use_descriptors(int input_fd, int output_fd, bool interactive);

}  // namespace kvm_vmm
