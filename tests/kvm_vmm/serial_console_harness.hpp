// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// A serial console without a VM: the test plays the guest and runs the event loop.
#include <array>
#include <chrono>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <random>
#include <string>
#include <sys/epoll.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "devices/serial_console.hpp"

namespace kvm_vmm::test {

inline constexpr vmdevice::PioAddress base{0x3F8};
inline constexpr vmdevice::PioOffset data_register = 0;
inline constexpr vmdevice::PioOffset interrupt_enable = 1;
inline constexpr vmdevice::PioOffset fifo_control = 2;
inline constexpr vmdevice::PioOffset modem_control = 4;
inline constexpr vmdevice::PioOffset line_status = 5;
inline constexpr std::uint8_t data_ready = 0x01;
inline constexpr std::uint8_t break_interrupt = 0x10;
inline constexpr std::uint8_t thr_empty = 0x20;
/// Represents a BREAK in the texts below.
inline constexpr char break_mark = '^';

struct Pipe {
    vmsuperio::UniqueFd read_end;
    vmsuperio::UniqueFd write_end;
};

inline Pipe make_pipe(int flags = O_NONBLOCK) {
    std::array<int, 2> fds{};
    REQUIRE(::pipe2(fds.data(), O_CLOEXEC | flags) == 0);
    return {vmsuperio::UniqueFd(fds[0]), vmsuperio::UniqueFd(fds[1])};
}

inline std::string random_text(std::size_t size) {
    std::mt19937 random(7);
    std::string text(size, '\0');
    for (char& c : text) {
        c = static_cast<char>(random());
    }
    return text;
}

/// Reads everything that can be read now.
inline std::string read_all(int fd) {
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t count = 0; (count = ::read(fd, buffer.data(), buffer.size())) > 0;) {
        text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return text;
}

/// A patience that does not expire during a test, for tests of what happens without it.
inline constexpr std::chrono::milliseconds never = std::chrono::hours(1);

class Harness {
public:
    using Patience = std::chrono::milliseconds;

    Harness(int input_fd, int output_fd, SerialBackend::Input input = SerialBackend::Input::plain,
            Patience patience = never)
        : Harness([&](EventManager&) { return use_descriptors(input_fd, output_fd, input); }, patience) {}

    /// `make(events)` creates the back end.
    template <class Make>
        requires std::invocable<Make, EventManager&>
    explicit Harness(Make make, Patience patience = never)
        : backend_(make(events_)),
          interrupt_(vmsuperio::EventFdTrigger::create()),
          console_(
              events_, *backend_, *interrupt_->duplicate(), vmsuperio::TransmitPolicy::back_pressure,
              [this](ConsoleCommand command) { commands.push_back(command); }, metrics_, patience),
          device_(console_.device()) {
        write(interrupt_enable, 0x01);  // the guest listens
    }

    std::uint8_t read(vmdevice::PioOffset offset) {
        std::uint8_t value = 0xEE;
        device_->pio_read(base, offset, {&value, 1});
        return value;
    }
    void write(vmdevice::PioOffset offset, std::uint8_t value) {
        device_->pio_write(base, offset, {&value, 1});
    }
    std::size_t loop(int timeout_ms = 0) { return events_.run_once(timeout_ms); }
    /// Runs the event loop until it has nothing to do, as if the time for which bytes wait for others had passed. The test
    /// fails if that never happens.
    void settle() {
        console_.end_join();
        for (int i = 0; loop() != 0; ++i) {
            REQUIRE(i < 100'000);
        }
    }
    std::uint64_t interrupts() { return *interrupt_->take(); }
    SerialConsole& console() { return console_; }
    SerialBackend& backend() { return *backend_; }
    EventManager& events() { return events_; }
    [[nodiscard]] vmsuperio::SerialCounts counts() const { return metrics_->counts(); }

    /// Sends as a driver that waits for THRE does. Returns how many bytes could be sent.
    std::size_t send(const std::string& text) {
        std::size_t sent = 0;
        for (; sent < text.size() && (read(line_status) & thr_empty) != 0; ++sent) {
            write(data_register, static_cast<std::uint8_t>(text[sent]));
        }
        return sent;
    }

    /// Reads as a polling driver does, and runs the event loop in between, until nothing more arrives.
    std::string drain(std::size_t wanted) {
        std::string text;
        for (std::size_t idle = 0; idle < 50 && text.size() < wanted;) {
            loop();
            ++idle;
            for (std::uint8_t status = 0; ((status = read(line_status)) & data_ready) != 0;) {
                const char byte = static_cast<char>(read(data_register));
                text += (status & break_interrupt) != 0 ? break_mark : byte;
                idle = 0;
            }
        }
        return text;
    }

    std::vector<ConsoleCommand> commands;

private:
    EventManager events_;
    std::unique_ptr<SerialBackend> backend_;
    std::expected<vmsuperio::EventFdTrigger, std::error_code> interrupt_;
    std::shared_ptr<vmsuperio::SerialMetrics> metrics_ = std::make_shared<vmsuperio::SerialMetrics>();
    SerialConsole console_;
    std::shared_ptr<vmdevice::DevicePio> device_;
};

}  // namespace kvm_vmm::test
