// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/serial_backend.hpp"

#include <cerrno>
#include <fcntl.h>
#include <optional>
#include <string>
#include <unistd.h>
#include <utility>

#include <vmsuperio/linux/fd_writer.hpp>

#include "console/pty_backend.hpp"
#include "console/unix_socket_backend.hpp"
#include "error.hpp"

namespace kvm_vmm {
namespace {

/// Descriptors that stay the same from beginning to end.
class DescriptorBackend final : public SerialBackend {
public:
    DescriptorBackend(int input_fd, std::optional<vmsuperio::FdWriter> writer, bool interactive)
        : input_fd_(input_fd), interactive_(interactive), writer_(std::move(writer)) {}

    [[nodiscard]] int input_fd() const noexcept override { return input_fd_; }
    [[nodiscard]] int output_fd() const noexcept override { return writer_ ? writer_->fd() : -1; }
    [[nodiscard]] bool interactive() const noexcept override { return interactive_; }
    [[nodiscard]] std::expected<std::size_t, std::error_code> write(
        std::span<const std::uint8_t> bytes) override {
        if (!writer_) {
            return bytes.size();
        }
        return writer_->write(bytes);
    }
    void on_hangup() override { input_fd_ = -1; }

private:
    int input_fd_;
    bool interactive_;
    std::optional<vmsuperio::FdWriter> writer_;
};

std::unique_ptr<SerialBackend> open_stdio() {
    auto writer = vmsuperio::FdWriter::create(STDOUT_FILENO);
    if (!writer) {
        throw VmmError(ExitCode::vmm_error, "cannot use stdout: " + writer.error().message());
    }
    return std::make_unique<DescriptorBackend>(STDIN_FILENO, std::move(*writer), true);
}

std::unique_ptr<SerialBackend> open_file(const std::string& path) {
    // Non-blocking, so that a FIFO or a device with a slow reader never holds a vCPU. A FIFO needs its reader
    // to be there first (ENXIO otherwise).
    const int fd =
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
    if (fd < 0) {
        throw VmmError(ExitCode::bad_file, errno_message("cannot open serial file '" + path + "'", errno));
    }
    return std::make_unique<DescriptorBackend>(-1, vmsuperio::FdWriter::own(fd), false);
}

}  // namespace

std::unique_ptr<SerialBackend> use_descriptors(int input_fd, int output_fd, bool interactive) {
    std::optional<vmsuperio::FdWriter> writer;
    if (output_fd >= 0) {
        writer = vmsuperio::FdWriter::borrow(output_fd);
    }
    return std::make_unique<DescriptorBackend>(input_fd, std::move(writer), interactive);
}

std::unique_ptr<SerialBackend> open_serial_backend(const SerialConfig& config, EventManager& events) {
    switch (config.kind) {
        case SerialConfig::Kind::stdio:
            return open_stdio();
        case SerialConfig::Kind::file:
            return open_file(config.path);
        case SerialConfig::Kind::pty:
            return std::make_unique<PtyBackend>(events);
        case SerialConfig::Kind::unix_socket:
            return std::make_unique<UnixSocketBackend>(config.path, events);
        case SerialConfig::Kind::null:
            break;
    }
    return use_descriptors(-1, -1, false);
}

}  // namespace kvm_vmm
