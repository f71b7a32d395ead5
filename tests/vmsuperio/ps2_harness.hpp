// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include <vmsuperio/i8042.hpp>

#include "recorders.hpp"

/// A controller whose three lines and events are recorded, and the accesses of a guest.
namespace ps2 {

using Bytes = std::vector<std::uint8_t>;
using recorders::CountingTrigger;
using recorders::RecordingLevel;

/// A key by its number, whether there is such a key or not.
inline vmsuperio::Key key_number(unsigned number) {
    // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): a host may pass any number
    return static_cast<vmsuperio::Key>(number);
}

struct RecordingEvents {
    std::vector<bool>* a20;
    Bytes* leds;
    void a20_changed(bool enabled) { a20->push_back(enabled); }
    void leds_changed(std::uint8_t lit) { leds->push_back(lit); }
};

using Device = vmsuperio::I8042<CountingTrigger, CountingTrigger, CountingTrigger, RecordingEvents>;

struct Pc {
    int resets{};
    int irq1{};
    int irq12{};
    bool reset_fails{};
    bool irq_fails{};
    std::vector<bool> a20;
    Bytes leds;
    Device dev;

    explicit Pc(vmsuperio::I8042Options options = {})
        : dev(CountingTrigger{&resets, &reset_fails}, CountingTrigger{&irq1, &irq_fails},
              CountingTrigger{&irq12, &irq_fails}, RecordingEvents{&a20, &leds}, options) {}
    Pc(const Pc&) = delete;
    Pc& operator=(const Pc&) = delete;

    [[nodiscard]] std::expected<Device, vmsuperio::StateError> restored(const vmsuperio::I8042State& state) {
        return Device::from_state(state, CountingTrigger{&resets, &reset_fails},
                                  CountingTrigger{&irq1, &irq_fails}, CountingTrigger{&irq12, &irq_fails},
                                  RecordingEvents{&a20, &leds});
    }

    std::uint8_t status() { return dev.read(4); }
    bool output_full() { return (status() & 0x01) != 0; }
    bool output_from_aux() { return (status() & 0x21) == 0x21; }
    std::uint8_t data() { return dev.read(0); }
    bool command(std::uint8_t value) { return dev.write(4, value).has_value(); }
    bool put(std::uint8_t value) { return dev.write(0, value).has_value(); }
    bool command(std::uint8_t value, std::uint8_t parameter) { return command(value) && put(parameter); }

    /// The next byte, if there is one.
    std::optional<std::uint8_t> next() { return output_full() ? std::optional(data()) : std::nullopt; }
    /// Reads all bytes that wait in the controller and the devices; stops after 100 bytes.
    Bytes drain() {
        Bytes bytes;
        while (output_full() && bytes.size() < 100) {
            bytes.push_back(data());
        }
        return bytes;
    }
    std::uint8_t ctr() {
        command(0x20);
        return data();
    }
    void set_ctr(std::uint8_t value) { command(0x60, value); }

    Bytes keyboard(std::initializer_list<std::uint8_t> bytes) {
        Bytes answer;
        for (const std::uint8_t byte : bytes) {
            put(byte);
            const Bytes more = drain();
            answer.insert(answer.end(), more.begin(), more.end());
        }
        return answer;
    }
    Bytes mouse(std::initializer_list<std::uint8_t> bytes) {
        Bytes answer;
        for (const std::uint8_t byte : bytes) {
            command(0xD4, byte);
            const Bytes more = drain();
            answer.insert(answer.end(), more.begin(), more.end());
        }
        return answer;
    }
};

}  // namespace ps2
