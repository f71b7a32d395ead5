// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/snapshot.hpp>

#include "support/check_state.hpp"
#include "support/target.hpp"
#include "support/world.hpp"

namespace fuzz {

using vmsuperio::I8042Options;
using vmsuperio::I8042Profile;
using vmsuperio::I8042State;
using vmsuperio::Key;

struct KeyboardWorlds {
    World reset;
    World keyboard;
    World mouse;
};

/// One device with all its checks; i8042_fuzz.cpp describes the operations.
template <class Trigger>
class I8042Target {
    using Clock = vmsuperio::ClockRef<vmsuperio::ManualClock>;
    using Device = vmsuperio::I8042<Edge, Trigger, Trigger, vmsuperio::NoI8042Events, Clock>;

public:
    I8042Target(const Trace& trace, I8042Options options, bool with_twin)
        : trace_(trace),
          hold_off_(options.hold_off),
          with_twin_(with_twin),
          device_(std::in_place, Edge{&worlds_.reset}, Trigger{&worlds_.keyboard}, Trigger{&worlds_.mouse},
                  vmsuperio::NoI8042Events(), Clock(clock_), options) {
        trace_("fuzz::World reset, keyboard, mouse;");
        trace_("vmsuperio::ManualClock clock;");
        trace_("using Clock = vmsuperio::ClockRef<vmsuperio::ManualClock>;");
        trace_("using Device = vmsuperio::I8042<fuzz::Edge, ", name(), ", ", name(),
               ", vmsuperio::NoI8042Events, Clock>;");
        trace_("std::optional<Device> device(std::in_place, fuzz::Edge{&reset}, ", name(), "{&keyboard}, ",
               name(),
               "{&mouse}, vmsuperio::NoI8042Events(), Clock(clock), vmsuperio::I8042Options{.profile = "
               "static_cast<vmsuperio::I8042Profile>(",
               static_cast<unsigned>(options.profile), "), .keyboard = ", options.keyboard,
               ", .mouse = ", options.mouse, ", .command_byte = ", Hex{options.command_byte},
               ", .a20 = ", options.a20, ", .self_tests = ", options.self_tests,
               ", .hold_off = std::chrono::nanoseconds(", options.hold_off.count(), ")});");
    }

    void step(Input& input) {
        const Op op = next_op(input);
        std::optional<Device> twin = make_twin();
        switch (op.kind) {
            case OpKind::read:
                read(op.detail, twin);
                break;
            case OpKind::write:
                write(op.detail >= 8 ? 4 : op.detail, input.byte(), twin);
                break;
            case OpKind::enqueue:
                write(0, input.byte(), twin);
                break;
            case OpKind::tick: {
                pass(op.detail);
                twin = make_twin();
                write(4, 0xD4, twin);
                std::optional<Device> second = make_twin();
                write(0, input.byte(), second);
                twin.reset();
                break;
            }
            case OpKind::snapshot:
                snapshot();
                twin.reset();
                break;
            case OpKind::sink:
                worlds_.keyboard.trigger_fails = worlds_.mouse.trigger_fails = op.detail % 2 != 0;
                worlds_.reset.trigger_fails = op.detail % 4 == 3;
                trace_("keyboard.trigger_fails = mouse.trigger_fails = ", worlds_.mouse.trigger_fails,
                       "; reset.trigger_fails = ", worlds_.reset.trigger_fails, ";");
                break;
            case OpKind::host:
                host_call(op.detail, input, twin);
                break;
            case OpKind::other:
                key(static_cast<Key>(input.byte()), op.detail % 2 == 0, twin);
                break;
        }
        compare(twin);
    }

    /// The complete state and the observable values of the device, as bytes.
    [[nodiscard]] std::vector<std::uint8_t> fingerprint() const {
        std::vector<std::uint8_t> bytes = vmsuperio::encode(device_->state());
        bytes.push_back(
            static_cast<std::uint8_t>((worlds_.keyboard.level ? 1 : 0) | (worlds_.mouse.level ? 2 : 0)));
        return bytes;
    }

private:
    static constexpr const char* name() {
        return std::is_same_v<Trigger, Edge> ? "fuzz::Edge" : "fuzz::Level";
    }

    // A device from the saved state of this one, with triggers of its own.
    std::optional<Device> make_twin() {
        if (!with_twin_) {
            return std::nullopt;
        }
        twin_worlds_ = {};
        // The saved remainder of a hold-off is that of the last time the device read the clock.
        device_->tick();
        auto made =
            Device::from_state(device_->state(), Edge{&twin_worlds_.reset}, Trigger{&twin_worlds_.keyboard},
                               Trigger{&twin_worlds_.mouse}, {}, Clock(clock_), hold_off_);
        check(made.has_value(), "a saved state can be restored");
        return std::optional<Device>(std::move(*made));
    }

    // Whether `now` begins with the rest of `before` after at most two of its oldest bytes were removed: the
    // controller takes one, or with translation a release prefix and its code.
    template <class Queue>
    static bool continues(const Queue& before, const Queue& now) {
        for (std::size_t gone = 0; gone <= 2 && gone <= before.size(); ++gone) {
            const auto left = std::span(before.bytes).first(before.size()).subspan(gone);
            if (left.size() <= now.size() &&
                std::ranges::equal(left, std::span(now.bytes).first(left.size()))) {
                return true;
            }
        }
        return false;
    }

    /// Advances the clock in steps of 200 us.
    void pass(std::uint8_t steps) {
        const std::chrono::nanoseconds time = std::chrono::microseconds(200) * steps;
        trace_("clock.advance(std::chrono::nanoseconds(", time.count(), "));");
        trace_("device->tick();");
        const std::optional<std::chrono::nanoseconds> due = device_->next_deadline();
        clock_.advance(time);
        const NoAllocation none;
        device_->tick();
        if (due) {
            const bool over = time_since_epoch(clock_) >= *due;
            check_equal(device_->state().output_full, over, "a byte that is held back comes at its deadline");
            check_equal(device_->next_deadline().has_value(), !over, "and not before");
        }
    }

    void read(std::uint8_t offset, std::optional<Device>& twin) {
        trace_("device->tick();");
        device_->tick();
        const std::uint8_t shown = device_->peek(offset);
        const I8042State before = device_->state();
        std::uint8_t value = 0;
        trace_.call("CHECK(device->read(", offset, ") == ");
        {
            const NoAllocation none;
            value = device_->read(offset);
        }
        trace_.result(Hex{value}, ");");
        check_equal(value, shown, "a read returns what peek() returned");
        // A read removes only the oldest bytes of a queue, and adds none to those of the keyboard.
        const I8042State after = device_->state();
        check(continues(before.keyboard.keys, after.keyboard.keys) &&
                  after.keyboard.keys.size() <= before.keyboard.keys.size(),
              "scan codes leave in their order");
        check(continues(before.keyboard.replies, after.keyboard.replies) &&
                  after.keyboard.replies.size() <= before.keyboard.replies.size(),
              "the keyboard's answers leave in their order");
        check(continues(before.mouse.packets, after.mouse.packets), "motion leaves in its order");
        if (twin) {
            check_equal(twin->read(offset), value, "the twin reads the same");
        }
    }
    void write(std::uint8_t offset, std::uint8_t value, std::optional<Device>& twin) {
        trace_("(void)device->write(", offset, ", ", Hex{value}, ");");
        const std::uint64_t resets = worlds_.reset.edges;
        {
            const NoAllocation none;
            const auto written = device_->write(offset, value);
            check_equal(written.has_value(), worlds_.reset.edges == resets || !worlds_.reset.trigger_fails,
                        "a write fails with the reset trigger and only with it");
        }
        check(worlds_.reset.edges - resets <= 1, "one reset at most");
        if (twin) {
            const bool reset = twin->write(offset, value) && twin_worlds_.reset.edges != 0;
            check_equal(reset, worlds_.reset.edges != resets, "the twin resets the CPU at the same writes");
        }
    }
    void key(Key key, bool down, std::optional<Device>& twin) {
        trace_("(void)device->key(static_cast<vmsuperio::Key>(", static_cast<unsigned>(key), "), ", down,
               ");");
        const NoAllocation none;
        const vmsuperio::detail::ByteQueue before = device_->state().keyboard.keys;
        const bool sent = device_->key(key, down);
        const vmsuperio::Ps2KeyboardState keyboard = device_->state().keyboard;
        check(continues(before, keyboard.keys), "a scan code goes behind those that wait");
        if (!sent) {
            check(
                !keyboard.keys.empty() && keyboard.keys.back() == (keyboard.scan_code_set == 1 ? 0xFF : 0x00),
                "a key that is lost leaves the overrun code");
        }
        if (twin) {
            check_equal(twin->key(key, down), sent, "the twin takes the same keys");
        }
    }
    void host_call(std::uint8_t call, Input& input, std::optional<Device>& twin) {
        switch (call) {
            case 0:
                trace_("(void)device->ctrl_alt_del();");
                static_cast<void>(device_->ctrl_alt_del());
                if (twin) {
                    static_cast<void>(twin->ctrl_alt_del());
                }
                break;
            case 1:
                trace_("device->reset();");
                device_->reset();
                if (twin) {
                    twin->reset();
                }
                break;
            case 3:
                key(static_cast<Key>(input.u16()), true, twin);
                break;
            default: {
                const auto amount = [&](std::uint8_t byte, unsigned shift) {
                    return static_cast<std::int32_t>(static_cast<std::uint32_t>(byte) << shift);
                };
                const std::uint8_t x = input.byte();
                const std::uint8_t y = input.byte();
                const std::uint8_t wheel = input.byte();
                const unsigned shift = call == 2 ? 0 : 2U * call - 6U;  // up to 2^31
                const vmsuperio::MouseMotion motion{.x = amount(x, shift),
                                                    .y = -1 - amount(y, shift),
                                                    .wheel = static_cast<std::int8_t>(wheel),
                                                    .buttons = input.byte()};
                trace_("device->move_mouse({.x = ", motion.x, ", .y = ", motion.y,
                       ", .wheel = ", motion.wheel, ", .buttons = ", unsigned{motion.buttons}, "});");
                const NoAllocation none;
                device_->move_mouse(motion);
                if (twin) {
                    twin->move_mouse(motion);
                }
                break;
            }
        }
    }
    void snapshot() {
        trace_("keyboard.level = mouse.level = false;");
        trace_("{");
        trace_(
            "    const auto state = "
            "vmsuperio::decode<vmsuperio::I8042State>(vmsuperio::encode(device->state()));");
        trace_("    REQUIRE(state);");
        trace_("    auto restored = Device::from_state(*state, fuzz::Edge{&reset}, ", name(), "{&keyboard}, ",
               name(), "{&mouse}, {}, Clock(clock), std::chrono::nanoseconds(", hold_off_.count(), "));");
        trace_("    REQUIRE(restored);");
        trace_("    device.emplace(std::move(*restored));");
        trace_("}");
        const I8042State state = device_->state();
        const auto decoded = vmsuperio::decode<I8042State>(vmsuperio::encode(state));
        check(decoded.has_value(), "encoded bytes can be decoded");
        check_same_state(*decoded, state, "a state survives encode and decode");
        worlds_.keyboard.level = worlds_.mouse.level = false;
        auto restored = Device::from_state(*decoded, Edge{&worlds_.reset}, Trigger{&worlds_.keyboard},
                                           Trigger{&worlds_.mouse}, {}, Clock(clock_), hold_off_);
        check(restored.has_value(), "a saved state can be restored");
        device_.emplace(std::move(*restored));
        check_same_state(device_->state(), state, "the restored device has the state that was saved");
    }

    void compare(const std::optional<Device>& twin) const {
        const I8042State state = device_->state();
        check(vmsuperio::validate(state).has_value(), "the state can be restored");
        if (twin) {
            check_same_state(twin->state(), state, "the twin has the same state");
        }
        if (device_->profile() != I8042Profile::full) {
            check_equal(device_->peek(0), device_->profile() == I8042Profile::absent ? 0xFF : 0,
                        "no data port");
            return;
        }
        // The status, bit by bit (IBM PS/2 Technical Reference, "Status register").
        const std::uint8_t status = device_->peek(4);
        const std::uint8_t command_byte = state.ram[0];
        const bool full = (status & 0x01) != 0;
        const bool from_mouse = full && (status & 0x20) != 0;
        check_equal(full, state.output_full, "OBF");
        check_equal(status & 0x02, 0, "IBF is never set: nothing takes time");
        check_equal((status & 0x04) != 0, (command_byte & 0x04) != 0, "SYS mirrors the command byte");
        check_equal(status & 0x10, 0x10, "the keyboard is not locked");
        check(full || (status & 0xE0) == 0, "no flags without a byte");
        check_equal(command_byte & 0x80, 0, "the reserved bit of the command byte");
        check_equal(device_->a20_enabled(), (state.output_port & 0x02) != 0,
                    "A20 is bit 1 of the output port");
        check_equal(state.output_port & 0x01, 1, "bit 0 of the output port is never kept low");
        check(device_->leds() <= 7, "there are three LEDs");
        // Each line is up while its byte waits and its interrupt is enabled.
        if constexpr (std::is_same_v<Trigger, Level>) {
            check_equal(worlds_.keyboard.level, full && !from_mouse && (command_byte & 0x01) != 0, "IRQ 1");
            check_equal(worlds_.mouse.level, from_mouse && (command_byte & 0x02) != 0, "IRQ 12");
        }
        // No byte waits while the output buffer is empty, unless its port is disabled or held off.
        if (!full) {
            check(!state.response_waiting, "the controller's answer does not wait behind an empty buffer");
            check((command_byte & 0x10) != 0 || state.hold_left != 0 || state.keyboard.replies.empty(),
                  "the keyboard's answers do not wait either");
            check((command_byte & 0x20) != 0 || state.hold_left != 0 || state.mouse.replies.empty(),
                  "nor do the mouse's");
        }
        check(state.hold_left <= static_cast<std::uint64_t>(hold_off_.count()),
              "no hold-off is longer than was asked for");
        if (device_->next_deadline()) {
            check(!full && state.hold_left != 0, "only a byte that is held back has a deadline");
        }
        check(state.keyboard.replies.count <= 4 && state.keyboard.keys.count <= 15, "the queues' bounds");
        check(state.mouse.waiting_for == 0 || state.mouse.packets.empty(),
              "a mouse that waits for a parameter has no packet to send");
        check(state.mouse.id != 0 || state.mouse.wheel == 0, "a mouse without a wheel counts none");
    }

    vmsuperio::ManualClock clock_;
    const Trace& trace_;
    std::chrono::nanoseconds hold_off_;
    bool with_twin_;
    KeyboardWorlds worlds_;
    KeyboardWorlds twin_worlds_;
    std::optional<Device> device_;
};

}  // namespace fuzz
