// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/serial_backend.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>

#include <vmsuperio/linux/fd_writer.hpp>

#include "console/input_descriptor.hpp"
#include "console/pty_backend.hpp"
#include "console/raw_terminal.hpp"
#include "console/unix_socket_backend.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

/// A back end whose descriptors never change.
class DescriptorBackend final : public SerialBackend {
public:
    DescriptorBackend(InputDescriptor input, vmsuperio::FdWriter writer, Input kind)
        : SerialBackend(writer_of(writer)),
          descriptor_(std::move(input)),
          writer_(std::move(writer)),
          kind_(kind) {}
    DescriptorBackend(InputDescriptor input, Input kind)
        : SerialBackend(OutputChannel::Readers::one), descriptor_(std::move(input)), kind_(kind) {}

    [[nodiscard]] int input_fd() const noexcept override {
        return ended_ || !in_front_ ? -1 : descriptor_.fd();
    }
    [[nodiscard]] int output_fd() const noexcept override { return writer_ ? writer_->fd() : -1; }
    [[nodiscard]] Input input() const noexcept override { return kind_; }
    [[nodiscard]] std::expected<std::size_t, std::error_code> read(std::span<std::uint8_t> bytes) override {
        return descriptor_.read(bytes);
    }
    void on_input_end() override {
        if (descriptor_.is_terminal() && !RawTerminal::in_front(STDIN_FILENO)) {
            set_in_front(false);  // another job got the terminal just before the read
        } else {
            ended_ = true;
        }
    }
    [[nodiscard]] bool input_ended() const noexcept override { return ended_; }
    void set_in_front(bool in_front) override {
        // A file that is not a terminal can be read in the background, too.
        if (in_front != in_front_ && descriptor_.is_terminal()) {
            in_front_ = in_front;
            changed();
        }
    }

    [[nodiscard]] std::optional<TerminalSize> terminal_size() const override {
        const auto shown = terminal_size_of(output_fd());
        return shown || !descriptor_.is_terminal() ? shown : terminal_size_of(descriptor_.fd());
    }

private:
    // The channel writes to the descriptor that is owned here.
    static vmsuperio::FdWriter writer_of(const vmsuperio::FdWriter& owner) {
        return vmsuperio::FdWriter::borrow(owner.fd());
    }

    InputDescriptor descriptor_;
    std::optional<vmsuperio::FdWriter> writer_;
    Input kind_;
    bool ended_{false};
    bool in_front_{true};
};

vmsuperio::FdWriter write_to_stdout() {
    auto writer = vmsuperio::FdWriter::create(STDOUT_FILENO);
    if (!writer) {
        throw VmmError(ExitCode::vmm_error, "cannot use stdout: " + writer.error().message());
    }
    return std::move(*writer);
}

std::unique_ptr<SerialBackend> open_stdio() {
    vmsuperio::FdWriter writer = write_to_stdout();
    InputDescriptor input(STDIN_FILENO);
    const auto kind = input.is_terminal() ? SerialBackend::Input::keyboard : SerialBackend::Input::commands;
    return std::make_unique<DescriptorBackend>(std::move(input), std::move(writer), kind);
}

// Non-blocking, so that a FIFO or a device with a slow reader never blocks a vCPU.
std::unique_ptr<SerialBackend> use_file(OutputFile file) {
    return std::make_unique<DescriptorBackend>(InputDescriptor(),
                                               vmsuperio::FdWriter::own(file.take_descriptor().release()),
                                               SerialBackend::Input::plain);
}

}  // namespace

void SerialBackend::keep_rest_of_input() {
    std::array<std::uint8_t, 4096> bytes{};
    while (read_ahead_.room() != 0) {
        const auto count = read(std::span(bytes).first(std::min(bytes.size(), read_ahead_.room())));
        if (!count || *count == 0) {
            return;
        }
        for (const std::uint8_t byte : std::span(bytes).first(*count)) {
            (void)read_ahead_.push({.byte = byte});
        }
    }
    log(LogLevel::warning,
        "what the peer of a console sent last may be lost, because it has gone and the guest does not "
        "read what came before");
}

std::optional<TerminalSize> SerialBackend::terminal_size_of(int fd) noexcept {
    winsize size{};
    return ::ioctl(fd, TIOCGWINSZ, &size) == 0
               ? std::optional(TerminalSize{.columns = size.ws_col, .rows = size.ws_row})
               : std::nullopt;
}

std::unique_ptr<SerialBackend> use_descriptors(int input_fd, int output_fd, SerialBackend::Input input) {
    InputDescriptor descriptor = input_fd >= 0 ? InputDescriptor(input_fd) : InputDescriptor();
    if (output_fd >= 0) {
        return std::make_unique<DescriptorBackend>(std::move(descriptor),
                                                   vmsuperio::FdWriter::borrow(output_fd), input);
    }
    return std::make_unique<DescriptorBackend>(std::move(descriptor), input);
}

std::unique_ptr<SerialBackend> open_serial_backend(SerialTarget target, EventManager& events) {
    switch (target.kind) {
        case SerialConfig::Kind::stdio:
            return open_stdio();
        case SerialConfig::Kind::stdout_only:
            return std::make_unique<DescriptorBackend>(InputDescriptor(), write_to_stdout(),
                                                       SerialBackend::Input::plain);
        case SerialConfig::Kind::file:
            return use_file(std::move(*target.file));
        case SerialConfig::Kind::pty:
            return std::make_unique<PtyBackend>(events, target.role);
        case SerialConfig::Kind::unix_socket:
            return std::make_unique<UnixSocketBackend>(std::move(*target.socket), events);
        case SerialConfig::Kind::null:
            break;
    }
    return use_descriptors(-1, -1);
}

}  // namespace kvm_vmm
