// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once
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
#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_timeout.hpp>
#include <vmsuperio/snapshot.hpp>

#include "model/serial_model.hpp"
#include "support/check_state.hpp"
#include "support/target.hpp"
#include "support/world.hpp"

namespace fuzz {

using vmsuperio::SerialErrorKind;
using vmsuperio::SerialState;

/// One device with all its checks; serial_fuzz.cpp describes the operations.
template <class Trigger>
class SerialTarget {
    using Device = vmsuperio::Serial<Trigger, Events, Sink>;

public:
    explicit SerialTarget(const Trace& trace) : trace_(trace) {
        trace_("fuzz::World world;");
        trace_("vmsuperio::ManualClock clock;");
        trace_("std::optional<vmsuperio::Serial<", name(),
               ", fuzz::Events, fuzz::Sink>> serial(std::in_place, ", name(),
               "{&world}, fuzz::Events{&world}, fuzz::Sink{&world});");
        trace_(
            "std::optional<vmsuperio::SerialTimeout<vmsuperio::ClockRef<vmsuperio::ManualClock>>> "
            "timeout(clock);");
        // Start with the policy that has more states; the host's calls 7 and 8 change it.
        trace_("(void)serial->set_receive_timeout(vmsuperio::ReceiveTimeout::manual);");
        check_error(device_->set_receive_timeout(vmsuperio::ReceiveTimeout::manual));
    }

    void step(Input& input) {
        const Op op = next_op(input);
        switch (op.kind) {
            case OpKind::read:
                read(op.detail);
                break;
            case OpKind::write:
                write(op.detail, input.byte());
                break;
            case OpKind::enqueue:
                enqueue(input.bytes(op.detail + 1U));
                break;
            case OpKind::tick:
                tick(op.detail);
                break;
            case OpKind::snapshot:
                snapshot();
                break;
            case OpKind::sink:
                sink(op.detail);
                break;
            case OpKind::host:
                host_call(op.detail, input);
                break;
            case OpKind::other:
                write_data(input.bytes(op.detail + 1U));
                break;
        }
        compare();
    }

    /// The complete state and the observable values of the device and its model, as bytes. Both are included
    /// because after a step that made them differ, the state of one alone may have been seen before.
    [[nodiscard]] std::vector<std::uint8_t> fingerprint() const {
        std::vector<std::uint8_t> bytes = vmsuperio::encode(device_->state());
        const std::vector<std::uint8_t> models = model_.fingerprint();
        bytes.insert(bytes.end(), models.begin(), models.end());
        bytes.push_back(device_->interrupt_line() ? 1 : 0);
        bytes.push_back(world_.room == 0 ? 1 : 0);
        return bytes;
    }

private:
    static constexpr const char* name() {
        return std::is_same_v<Trigger, Edge> ? "fuzz::Edge" : "fuzz::Level";
    }

    void read(std::uint8_t offset) {
        const std::uint8_t before = device_->peek(offset);
        std::uint8_t value = 0;
        trace_.call("CHECK(serial->read(", offset, ") == ");
        {
            const NoAllocation none;
            value = device_->read(offset);
        }
        trace_.result(Hex{value}, ");");
        check_equal(value, before, "a read returns what peek() returned");
        check_equal(value, model_.read(offset), "a read returns the same as the model's");
    }
    void write(std::uint8_t offset, std::uint8_t value) {
        trace_("(void)serial->write(", offset, ", ", Hex{value}, ");");
        model_.write(offset, value);
        const NoAllocation none;
        check_error(device_->write(offset, value));
    }
    void write_data(std::span<const std::uint8_t> bytes) {
        trace_("(void)serial->write_data(", Bytes{bytes}, ");");
        model_.write_data(bytes);
        const NoAllocation none;
        check_error(device_->write_data(bytes));
    }
    void enqueue(std::span<const std::uint8_t> bytes) {
        trace_("(void)serial->enqueue_raw_bytes(", Bytes{bytes}, ");");
        const std::optional<std::size_t> expected = model_.enqueue(bytes);
        const std::uint64_t failures = world_.failures;
        const NoAllocation none;
        const auto taken = device_->enqueue_raw_bytes(bytes);
        if (taken) {
            check(expected.has_value(), "a full FIFO is an error");
            check_equal(*taken, *expected, "as many bytes are taken as the model takes");
        } else if (taken.error() == SerialErrorKind::trigger) {
            check(world_.failures != failures, "a trigger error means that a trigger failed");
        } else {
            check(taken.error() == SerialErrorKind::full_fifo && !expected, "full_fifo only when it is full");
        }
    }
    void tick(std::uint8_t step) {
        static constexpr std::array<std::int64_t, 16> steps{
            0,         1'000,      100'000, 300'000,       1'000'000,       4'000'000, 5'000'000,  10'000'000,
            2'000'000, 50'000'000, 347'222, 1'000'000'000, 100'000'000'000, -1,        -1'000'000, 347'221};
        trace_("clock.advance(std::chrono::nanoseconds(", steps[step], "));");
        trace_("(void)timeout->poll(*serial);");
        clock_.advance(std::chrono::nanoseconds(steps[step]));
        model_.poll(vmsuperio::time_since_epoch(clock_).count());
        const auto polled = timeout_->poll(*device_);
        check(polled || world_.trigger_fails, "poll fails only with the trigger");
        if (polled && *polled) {
            check((**polled).count() > 0, "the time left is positive");
        }
    }
    void sink(std::uint8_t behaviour) {
        const auto set = [&](auto World::* member, auto value, const char* text) {
            world_.*member = value;
            model_world_.*member = value;
            trace_("world.", text, " = ", static_cast<std::uint64_t>(value), ";");
        };
        if (behaviour <= 8) {
            set(&World::room, std::size_t{behaviour == 8 ? 40U : behaviour}, "room");
        } else if (behaviour == 10 || behaviour == 11) {
            set(&World::write_fails, behaviour == 11, "write_fails");
        } else if (behaviour == 12 || behaviour == 13) {
            set(&World::trigger_fails, behaviour == 13, "trigger_fails");
        } else {
            set(&World::room, World::unlimited, "room");
        }
    }

    void host_call(std::uint8_t call, Input& input) {
        switch (call) {
            case 0:
                trace_("(void)serial->resume_transmit();");
                model_.resume_transmit();
                check_error(device_->resume_transmit());
                break;
            case 1:
                receive_with_errors(0, 0x10);
                break;
            case 2: {
                const std::uint8_t byte = input.byte();
                receive_with_errors(byte, input.byte());
                break;
            }
            case 3:
                trace_("(void)serial->character_timeout();");
                model_.character_timeout();
                check_error(device_->character_timeout());
                break;
            case 4: {
                const std::uint8_t lines = input.byte();
                trace_("(void)serial->set_modem_lines(vmsuperio::uart16550::ModemStatus(", Hex{lines}, "));");
                model_.set_modem_lines(lines);
                check_error(device_->set_modem_lines(vmsuperio::uart16550::ModemStatus(lines)));
                break;
            }
            case 5:
            case 6:
                trace_("(void)serial->set_transmit_policy(vmsuperio::TransmitPolicy::",
                       call == 5 ? "back_pressure" : "drop_and_count", ");");
                model_.set_drop_policy(call == 6);
                check_error(device_->set_transmit_policy(static_cast<vmsuperio::TransmitPolicy>(call - 5)));
                break;
            case 7:
            case 8:
                trace_("(void)serial->set_receive_timeout(vmsuperio::ReceiveTimeout::",
                       call == 7 ? "manual" : "immediate", ");");
                model_.set_immediate_timeout(call == 8);
                check_error(device_->set_receive_timeout(static_cast<vmsuperio::ReceiveTimeout>(call - 7)));
                break;
            case 9:
            case 10:
                trace_("(void)serial->allow_64_byte_fifo(", call == 10, ");");
                model_.allow_64(call == 10);
                check_error(device_->allow_64_byte_fifo(call == 10));
                break;
            case 11:
                trace_("(void)serial->reset();");
                model_.reset();
                check_error(device_->reset());
                break;
            case 15: {
                const bool always = (input.byte() & 1) != 0;
                trace_("(void)serial->set_interrupt_gate(vmsuperio::InterruptGate::",
                       always ? "none" : "out2", ");");
                model_.connect_always(always);
                check_error(device_->set_interrupt_gate(always ? vmsuperio::InterruptGate::none
                                                               : vmsuperio::InterruptGate::out2));
                break;
            }
            default: {
                const std::array<std::uint8_t, 64> many{};
                enqueue(std::span(many).first(1U + input.byte() % 64U));
                break;
            }
        }
    }
    void receive_with_errors(std::uint8_t byte, std::uint8_t errors) {
        trace_("(void)serial->receive_with_errors(", Hex{byte}, ", vmsuperio::uart16550::LineStatus(",
               Hex{errors}, "));");
        const bool fits = model_.receive_with_errors(byte, errors);
        const auto received = device_->receive_with_errors(byte, vmsuperio::uart16550::LineStatus(errors));
        if (!received && received.error() == SerialErrorKind::full_fifo) {
            check(!fits, "full_fifo only when it is full");
        } else {
            check(fits, "a full FIFO is an error");
            check_error(received);
        }
    }

    void snapshot() {
        trace_("world.level = false;");
        trace_("{");
        trace_(
            "    const auto state = "
            "vmsuperio::decode<vmsuperio::SerialState>(vmsuperio::encode(serial->state()));");
        trace_("    REQUIRE(state);");
        trace_("    auto restored = decltype(serial)::value_type::from_state(*state, ", name(),
               "{&world}, fuzz::Events{&world}, fuzz::Sink{&world});");
        trace_("    REQUIRE(restored);");
        trace_("    serial.emplace(std::move(*restored));");
        trace_("    timeout.emplace(clock);");
        trace_("}");
        const SerialState state = device_->state();
        const auto decoded = vmsuperio::decode<SerialState>(vmsuperio::encode(state));
        check(decoded.has_value(), "encoded bytes can be decoded");
        check_same_state(*decoded, state, "a state survives encode and decode");
        const bool fails = std::exchange(world_.trigger_fails, false);
        world_.level = false;
        auto restored = Device::from_state(*decoded, Trigger{&world_}, Events{&world_}, Sink{&world_});
        world_.trigger_fails = fails;
        check(restored.has_value(), "a saved state can be restored");
        device_.emplace(std::move(*restored));
        timeout_.emplace(clock_);
        check_same_state(device_->state(), state, "the restored device has the state that was saved");
        model_.restore();
    }

    template <class Result>
    void check_error(const Result& result) const {
        if (!result) {
            const SerialErrorKind kind = result.error().kind();
            check((kind == SerialErrorKind::trigger && world_.trigger_fails) ||
                      (kind == SerialErrorKind::write && world_.write_fails),
                  "errors concern only the host's side");
        }
    }

    // Called after each step: all observable values equal those of the model.
    void compare() const {
        for (std::uint8_t offset = 0; offset <= 8; ++offset) {
            check_equal(device_->peek(offset), model_.peek(offset), "every register is as the model's");
        }
        check_equal(device_->interrupt_line(), model_.level(), "the interrupt line is as the model's");
        if (std::is_same_v<Trigger, Edge>) {
            check_equal(world_.edges, model_world_.edges, "as many edges as the model");
            check_equal(world_.raised, world_.edges, "interrupt_raised() for every edge");
        } else {
            check_equal(world_.level, model_.level(), "the trigger knows the line's level");
        }
        check_equal(device_->fifo_capacity(), model_.receive_room(), "room in the receive FIFO");
        check(device_->fifo_capacity() <= 64, "the receive FIFO holds 64 bytes");
        check_equal(device_->transmit_capacity(), model_.transmit_room(), "room in the transmit FIFO");
        check_equal(device_->transmit_pending(), model_.transmit_pending(), "whether bytes wait");
        check_equal(device_->modem_outputs().value(), model_.outputs(), "the modem's outputs");
        check_equal(world_.output_count, model_world_.output_count, "as much output as the model");
        check_equal(world_.output_hash, model_world_.output_hash, "the same output as the model");
        check_equal(world_.out_bytes, model_world_.out_bytes, "out_byte()");
        check_equal(world_.lost_bytes, model_world_.lost_bytes, "tx_lost_byte()");
        check_equal(world_.buffer_reads, model_world_.buffer_reads, "buffer_read()");
        check_equal(world_.emptied, model_world_.emptied, "in_buffer_empty()");
        check_equal(world_.overruns, model_world_.overruns, "overrun()");
        check_equal(world_.dropped, model_world_.dropped, "dropped_bytes()");
        check(vmsuperio::validate(device_->state()).has_value(), "the state is one that can be restored");
    }

    const Trace& trace_;
    World world_;
    World model_world_;
    vmsuperio::ManualClock clock_;
    std::optional<Device> device_{std::in_place, Trigger{&world_}, Events{&world_}, Sink{&world_}};
    std::optional<vmsuperio::SerialTimeout<vmsuperio::ClockRef<vmsuperio::ManualClock>>> timeout_{clock_};
    model::SerialModel model_{model_world_};
};

}  // namespace fuzz
