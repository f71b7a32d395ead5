// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/linux/fd_writer.hpp>

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <system_error>

#include "vmm/config.hpp"

namespace kvm_vmm {

/// The host's end of a serial port: a descriptor to read from and one to write to, where there are such.
class SerialBackend {
public:
    /// Opens what the user asked for. Throws VmmError(bad_file) where that is not possible.
    explicit SerialBackend(const SerialConfig& config);
    /// Uses descriptors that stay the caller's; -1 for none.
    SerialBackend(int input_fd, int output_fd, bool interactive);

    /// -1 where nothing ever comes in.
    [[nodiscard]] int input_fd() const noexcept { return input_fd_; }
    /// -1 where writing never has to wait.
    [[nodiscard]] int output_fd() const noexcept { return writer_ ? writer_->fd() : -1; }
    /// Whether Ctrl-A commands are looked for in the input.
    [[nodiscard]] bool interactive() const noexcept { return interactive_; }

    /// Never blocks; see vmsuperio::Writer.
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes);

private:
    int input_fd_{-1};
    bool interactive_{false};
    std::optional<vmsuperio::FdWriter> writer_;
};

}  // namespace kvm_vmm
