// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/serial_backend.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "error.hpp"

namespace kvm_vmm {
namespace {

vmsuperio::FdWriter open_file(const std::string& path) {
    // Non-blocking, so that a FIFO or a device with a slow reader never holds a vCPU. A FIFO needs its reader
    // to be there first (ENXIO otherwise).
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
    if (fd < 0) {
        throw VmmError(ExitCode::bad_file, errno_message("cannot open serial file '" + path + "'", errno));
    }
    return vmsuperio::FdWriter::own(fd);
}

}  // namespace

SerialBackend::SerialBackend(const SerialConfig& config) {
    switch (config.kind) {
        case SerialConfig::Kind::stdio: {
            input_fd_ = STDIN_FILENO;
            interactive_ = true;
            auto writer = vmsuperio::FdWriter::create(STDOUT_FILENO);
            if (!writer) {
                throw VmmError(ExitCode::vmm_error, "cannot use stdout: " + writer.error().message());
            }
            writer_ = std::move(*writer);
            break;
        }
        case SerialConfig::Kind::file:
            writer_ = open_file(config.path);
            break;
        case SerialConfig::Kind::null:
            break;
    }
}

SerialBackend::SerialBackend(int input_fd, int output_fd, bool interactive)
    : input_fd_(input_fd), interactive_(interactive) {
    if (output_fd >= 0) {
        writer_ = vmsuperio::FdWriter::borrow(output_fd);
    }
}

std::expected<std::size_t, std::error_code> SerialBackend::write(std::span<const std::uint8_t> bytes) {
    if (!writer_) {
        return bytes.size();
    }
    return writer_->write(bytes);
}

}  // namespace kvm_vmm
