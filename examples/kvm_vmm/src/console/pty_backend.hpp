// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <system_error>

#include <vmsuperio/linux/unique_fd.hpp>

#include "console/serial_backend.hpp"
#include "event/timer.hpp"

namespace kvm_vmm {

/// A serial port, or another console, on a new pseudo-terminal, whose name is reported on stderr. Programs may open and close it
/// at any time; OutputChannel describes the treatment of output while none has it open. Input that a program
/// wrote is received, even if the program had the terminal open only briefly.
class PtyBackend final : public SerialBackend {
public:
    /// `role` ("serial port") is for the report.
    explicit PtyBackend(EventManager& events, const std::string& role = "serial port");

    [[nodiscard]] int input_fd() const noexcept override { return connected_ ? master_.get() : -1; }
    [[nodiscard]] int output_fd() const noexcept override { return input_fd(); }
    [[nodiscard]] std::expected<std::size_t, std::error_code> read(std::span<std::uint8_t> bytes) override;
    // On the master only a hangup ends the input, and the next program may have opened the terminal since.
    void on_input_end() override {}
    [[nodiscard]] bool input_ended() const noexcept override { return false; }
    [[nodiscard]] bool has_peers() const noexcept override { return true; }
    [[nodiscard]] std::optional<TerminalSize> terminal_size() const override {
        return terminal_size_of(master_.get());
    }
    void on_hangup() override;

private:
    void look_for_program();
    void look_again_later();
    void drop_what_was_not_read() const;

    vmsuperio::UniqueFd master_;
    bool connected_{false};
    Timer timer_;
};

}  // namespace kvm_vmm
