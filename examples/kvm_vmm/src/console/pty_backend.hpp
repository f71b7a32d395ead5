// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <optional>

#include <vmsuperio/linux/fd_writer.hpp>

#include "console/serial_backend.hpp"
#include "event/timer.hpp"
#include "util/file_descriptor.hpp"

namespace kvm_vmm {

/// A serial port on a new pseudo-terminal, whose name is reported on stderr. While no program has it open,
/// what the guest sends is dropped.
class PtyBackend final : public SerialBackend {
public:
    explicit PtyBackend(EventManager& events);

    [[nodiscard]] int input_fd() const noexcept override { return connected_ ? master_.get() : -1; }
    [[nodiscard]] int output_fd() const noexcept override { return input_fd(); }
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(
        std::span<const std::uint8_t> bytes) override;
    void on_hangup() override;

private:
    void look_for_program();
    void look_again_later();

    FileDescriptor master_;
    std::optional<vmsuperio::FdWriter> writer_;
    std::atomic<bool> connected_{false};
    Timer timer_;
};

}  // namespace kvm_vmm
