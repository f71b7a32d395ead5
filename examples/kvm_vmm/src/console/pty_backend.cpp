// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/pty_backend.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): posix_openpt is not in <cstdlib>
#include <string>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <vmsuperio/linux/fd_writer.hpp>

#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

[[noreturn]] void fail(const char* what) {
    throw VmmError(ExitCode::vmm_error,
                   errno_message(std::string("cannot make a pseudo-terminal: ") + what, errno));
}

vmsuperio::UniqueFd open_master(const std::string& role) {
    vmsuperio::UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    if (!master || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0) {
        fail("posix_openpt");
    }
    std::array<char, 64> name{};
    if (::ptsname_r(master.get(), name.data(), name.size()) != 0) {
        fail("ptsname");
    }
    // Set raw mode, in which bytes pass unchanged. The slave is closed again so that the master can detect
    // when a program opens the terminal.
    const vmsuperio::UniqueFd slave(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    termios mode{};
    if (!slave || ::tcgetattr(slave.get(), &mode) != 0) {
        fail("open");
    }
    ::cfmakeraw(&mode);
    if (::tcsetattr(slave.get(), TCSANOW, &mode) != 0) {
        fail("tcsetattr");
    }
    report(role + " on " + name.data());
    return master;
}

}  // namespace

PtyBackend::PtyBackend(EventManager& events, const std::string& role)
    : SerialBackend(OutputChannel::Readers::come_and_go),
      master_(open_master(role)),
      timer_(events, CLOCK_MONOTONIC, [this] { look_for_program(); }) {
    look_again_later();
}

std::expected<std::size_t, std::error_code> PtyBackend::read(std::span<std::uint8_t> bytes) {
    const ssize_t count = ::read(master_.get(), bytes.data(), bytes.size());
    if (count < 0) {
        return std::unexpected(std::error_code(errno, std::system_category()));
    }
    return static_cast<std::size_t>(count);
}

void PtyBackend::on_hangup() {
    connected_ = false;
    output().detach();
    keep_rest_of_input();
    drop_what_was_not_read();
    look_again_later();
    changed();
}

// The kernel keeps output that the last program did not read, and would pass it to the next one: up to 4 KiB
// in the terminal's line discipline, the rest before it.
void PtyBackend::drop_what_was_not_read() const {
    ::ioctl(master_.get(), TCFLSH, TCOFLUSH);
    const vmsuperio::UniqueFd slave(
        ::ioctl(master_.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    if (slave) {
        ::tcflush(slave.get(), TCIFLUSH);
    }
}

// The master reports that no program has the terminal open (POLLHUP), but not when that ends, so it is
// polled.
void PtyBackend::look_for_program() {
    pollfd entry{.fd = master_.get(), .events = POLLIN, .revents = 0};
    const bool asked = ::poll(&entry, 1, 0) >= 0;
    if (asked && (entry.revents & POLLHUP) == 0) {
        connected_ = true;
        output().attach(vmsuperio::FdWriter::borrow(master_.get()));
        changed();
        return;
    }
    // A program has opened the terminal, written and closed it since the last check.
    if (asked && (entry.revents & POLLIN) != 0) {
        keep_rest_of_input();
        changed();
    }
    look_again_later();
}

void PtyBackend::look_again_later() {
    constexpr std::chrono::milliseconds interval{100};
    timer_.set_after(interval);
}

}  // namespace kvm_vmm
