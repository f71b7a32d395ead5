// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <vmsuperio/serial.hpp>

#include "recorders.hpp"

namespace serial_test {

using vmsuperio::Serial;
using vmsuperio::SerialErrorKind;
using vmsuperio::SerialState;

// Offsets and bits with the names that drivers use, so that the tests do not depend on the dictionary that
// they test.
inline constexpr std::uint8_t rbr = 0, thr = 0, dll = 0, ier = 1, dlm = 1, iir = 2, fcr = 2, lcr = 3, mcr = 4,
                              lsr = 5, msr = 6, scr = 7;
inline constexpr std::uint8_t dlab = 0x80, loop = 0x10, out2 = 0x08;

/// The host's side of a device, which records the calls of the device.
struct World : recorders::RecordingWriter {
    int edges{0};  // trigger() calls
    bool trigger_fails{false};
    std::vector<bool> levels;  // set_level() calls
    int buffer_reads{0};
    int out_bytes{0};
    int lost_bytes{0};
    int emptied{0};
    int resumed{0};
    int overruns{0};
    int breaks{0};
    int raised{0};
    int resets{0};
    int invalid{0};
    int failed_triggers{0};
    std::size_t dropped{0};
    std::vector<bool> break_control;

    /// The edges since the last call.
    int take_edges() { return std::exchange(edges, 0); }
    std::string take_output() { return std::exchange(output, {}); }
};

struct Edge : recorders::CountingTrigger {
    explicit Edge(World* world) : CountingTrigger{&world->edges, &world->trigger_fails} {}
};
struct Level : recorders::RecordingLevel {
    explicit Level(World* world) : RecordingLevel{&world->levels, &world->edges, &world->trigger_fails} {}
};
struct Sink {
    World* world;
    auto write(std::span<const std::uint8_t> bytes) { return world->write(bytes); }
};

struct Events {
    World* world;
    void buffer_read() { ++world->buffer_reads; }
    void out_byte() { ++world->out_bytes; }
    void tx_lost_byte() { ++world->lost_bytes; }
    void in_buffer_empty() { ++world->emptied; }
    void input_resumed() { ++world->resumed; }
    void overrun() { ++world->overruns; }
    void break_received() { ++world->breaks; }
    void break_control(bool on) { world->break_control.push_back(on); }
    void dropped_bytes(std::size_t count) { world->dropped += count; }
    void fifo_reset() { ++world->resets; }
    void invalid_access() { ++world->invalid; }
    void interrupt_raised() { ++world->raised; }
    void trigger_failed() { ++world->failed_triggers; }
};

inline std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

/// A device and its host's side. Accesses of the guest never return errors unless a test requests that.
template <class T = Edge>
struct Machine {
    World world;
    Serial<T, Events, Sink> uart{T{&world}, Events{&world}, Sink{&world}};

    /// Tests cause the character timeout themselves: with the default policy each byte would interrupt, so
    /// that trigger levels and the timeout could not be distinguished.
    Machine() { static_cast<void>(uart.set_receive_timeout(vmsuperio::ReceiveTimeout::manual)); }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    std::uint8_t in(std::uint8_t offset) { return uart.read(offset); }
    void out(std::uint8_t offset, std::uint8_t value) { static_cast<void>(uart.write(offset, value)); }
    /// Returns how many bytes fitted, 0 for a full FIFO.
    std::size_t type(std::string_view text) { return uart.enqueue_raw_bytes(bytes(text)).value_or(0); }
    std::string drain() {
        std::string got;
        while ((in(lsr) & 0x01) != 0) {
            got += static_cast<char>(in(rbr));
        }
        return got;
    }
    void enable_fifo(std::uint8_t trigger_bits = 0x00) {
        out(fcr, static_cast<std::uint8_t>(0x01 | trigger_bits));
    }
};

}  // namespace serial_test
