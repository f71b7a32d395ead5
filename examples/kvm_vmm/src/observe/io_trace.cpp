// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/io_trace.hpp"

#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <poll.h>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

constexpr std::size_t buffer_size = 64UL * 1024;
constexpr std::chrono::seconds flush_interval{1};
constexpr int patience_ms = 1000;
constexpr std::string_view heading = "# seconds cpu bus direction address width value register\n";

}  // namespace

IoTrace::IoTrace(OutputFile file, const DeviceDirectory& devices, std::chrono::steady_clock::time_point start)
    : file_(std::move(file)), devices_(devices), start_(start) {
    buffer_.reserve(buffer_size + buffer_size / 2);
    buffer_ = heading;
    const LockGuard lock(mutex_);
    if (const int error = write_out(); error != 0) {
        file_.fail(errno_message("cannot be written", error));
    }
}

IoTrace::~IoTrace() { flush(); }

void IoTrace::record(const IoAccess& access) {
    if (!active_.load(std::memory_order_relaxed)) {
        return;
    }
    const std::string register_name = devices_.register_name(access);
    const LockGuard lock(mutex_);
    // Read with the lock held, so that times never go backwards in the file.
    const auto time = std::chrono::steady_clock::now() - start_;
    append(access, time, register_name);
    if (buffer_.size() >= buffer_size || time - flushed_ >= flush_interval) {
        flushed_ = time;
        flush_locked();
    }
}

void IoTrace::append(const IoAccess& access, std::chrono::steady_clock::duration time,
                     std::string_view register_name) {
    const bool pio = access.bus == IoAccess::Bus::pio;
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(time).count();
    std::array<char, 96> text{};
    const std::string cpu = access.cpu == IoAccess::unknown_cpu ? "-" : std::to_string(access.cpu);
    std::snprintf(text.data(), text.size(), "%lld.%06lld %s %s %c 0x%04" PRIx64 " %zu ",
                  static_cast<long long>(us / 1'000'000), static_cast<long long>(us % 1'000'000), cpu.c_str(),
                  pio ? "pio" : "mmio", access.write ? 'w' : 'r', access.address, access.width);
    buffer_ += text.data();
    for (std::size_t at = 0; at < access.data.size(); at += access.width) {
        buffer_ += at == 0 ? "0x" : ",0x";
        // Little-endian, as the guest sees it.
        for (std::size_t i = access.width; i-- > 0;) {
            constexpr std::string_view digits = "0123456789abcdef";
            const std::uint8_t byte = at + i < access.data.size() ? access.data[at + i] : std::uint8_t{0};
            buffer_ += digits[byte >> 4U];
            buffer_ += digits[byte & 0xFU];
        }
    }
    buffer_ += ' ';
    buffer_ += register_name;
    buffer_ += '\n';
}

void IoTrace::flush() {
    if (mutex_.try_lock_for(2 * std::chrono::milliseconds(patience_ms))) {
        const LockGuard lock(mutex_, std::adopt_lock);
        flush_locked();
    }
}

void IoTrace::flush_locked() {
    if (!active_.load(std::memory_order_relaxed)) {
        return;
    }
    if (const int error = write_out(); error != 0) {
        active_.store(false, std::memory_order_relaxed);
        log(LogLevel::error, errno_message("the trace ends here: cannot write " + file_.label(), error));
    }
}

int IoTrace::write_out() {
    std::string_view rest = buffer_;
    while (!rest.empty()) {
        const ssize_t written = ::write(file_.fd(), rest.data(), rest.size());
        if (written > 0) {
            rest.remove_prefix(static_cast<std::size_t>(written));
            continue;
        }
        if (written < 0 && errno == EAGAIN) {
            pollfd entry{.fd = file_.fd(), .events = POLLOUT, .revents = 0};
            // If a signal interrupts the wait, it stops the CPU of this thread, so do not wait again.
            if (::poll(&entry, 1, patience_ms) > 0) {
                continue;
            }
            return EAGAIN;
        }
        if (written < 0 && errno != EINTR) {
            return errno;
        }
    }
    buffer_.clear();
    return 0;
}

}  // namespace kvm_vmm
