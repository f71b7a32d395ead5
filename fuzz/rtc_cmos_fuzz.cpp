// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// RtcCmos compared with the model of fuzz/model/cmos_model.hpp.
//
// Input: one byte of options (bit 0: a level trigger; bit 1: wild clock, without the model), with a wild
// clock 8 bytes of start time, then operations:
//   0i        read byte i (index, data)      4x  save, encode, decode and restore
//   1i vv     write vv to byte i             5n  odd: the trigger fails from now on; even: it works
//   2x ii     read byte ii                   6x ii vv  the host's set_cmos(ii, vv)
//   3n        the clock moves by step n;     7x ii vv  write vv to byte ii, NMI bit and all
//             wild: 3n t*8 sets it to t
// Byte 14 stands for the century, 15 for any: 0F/1F take an offset 0 to 255 instead and access that port.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/rtc_cmos.hpp>
#include <vmsuperio/snapshot.hpp>

#include "model/cmos_model.hpp"
#include "support/check_state.hpp"
#include "support/target.hpp"
#include "support/world.hpp"

namespace fuzz {
namespace {

using vmsuperio::ManualClock;
using vmsuperio::RtcCmosState;
using ClockRef = vmsuperio::ClockRef<ManualClock>;

template <class Trigger>
class CmosTarget {
    using Device = vmsuperio::RtcCmos<Trigger, vmsuperio::NoRtcCmosEvents, ClockRef>;
    static constexpr std::int64_t start = 1'700'000'000'250'000'000;

public:
    CmosTarget(const Trace& trace, bool wild, std::int64_t at)
        : trace_(trace), wild_(wild), clock_(std::chrono::nanoseconds(wild ? at : start)) {
        trace_("fuzz::World world;");
        trace_("vmsuperio::ManualClock clock{std::chrono::nanoseconds(", wild ? at : start, ")};");
        trace_("using Rtc = vmsuperio::RtcCmos<", name(),
               ", vmsuperio::NoRtcCmosEvents, vmsuperio::ClockRef<vmsuperio::ManualClock>>;");
        trace_("std::optional<Rtc> rtc(std::in_place, ", name(), "{&world}, clock);");
    }

    void step(Input& input) {
        const Op op = next_op(input);
        switch (op.kind) {
            case OpKind::read:
                if (op.detail == 15) {
                    read_port(input.byte());
                } else {
                    write_port(0, op.detail == 14 ? 0x32 : op.detail);
                    read_port(1);
                }
                break;
            case OpKind::write:
                if (op.detail == 15) {
                    const std::uint8_t port = input.byte();
                    write_port(port, input.byte());
                } else {
                    write_port(0, op.detail == 14 ? 0x32 : op.detail);
                    write_port(1, input.byte());
                }
                break;
            case OpKind::enqueue:
                write_port(0, input.byte());
                read_port(1);
                break;
            case OpKind::tick:
                tick(op.detail, input);
                break;
            case OpKind::snapshot:
                snapshot();
                break;
            case OpKind::sink:
                world_.trigger_fails = op.detail % 2 != 0;
                trace_("world.trigger_fails = ", world_.trigger_fails, ";");
                break;
            case OpKind::host: {
                const std::uint8_t index = input.byte();
                const std::uint8_t value = input.byte();
                trace_("rtc->set_cmos(", Hex{index}, ", ", Hex{value}, ");");
                device_->set_cmos(index, value);
                // The checksum is the library's own: the model takes it over instead of comparing it.
                model_.take_over(device_->state().ram, world_.level || model_.level(), model_world_.edges);
                break;
            }
            case OpKind::other:
                write_port(0, input.byte());
                write_port(1, input.byte());
                break;
        }
        compare();
    }

private:
    static constexpr const char* name() {
        return std::is_same_v<Trigger, Edge> ? "fuzz::Edge" : "fuzz::Level";
    }

    void read_port(std::uint8_t port) {
        const std::uint8_t before = device_->peek(port);
        std::uint8_t value = 0;
        trace_.call("CHECK(rtc->read(", port, ") == ");
        {
            const NoAllocation none;
            value = device_->read(port);
        }
        trace_.result(Hex{value}, ");");
        if (!wild_) {
            check_equal(value, before, "a read returns what peek() returned");
            check_equal(value, model_.read_port(port), "a read returns the same as the model's");
        }
    }
    void write_port(std::uint8_t port, std::uint8_t value) {
        trace_("(void)rtc->write(", port, ", ", Hex{value}, ");");
        model_.write_port(port, value);
        const NoAllocation none;
        const auto written = device_->write(port, value);
        check(written || world_.trigger_fails, "a write fails only with the trigger");
        if (!wild_ && model_.lost()) {
            model_.take_over(device_->state().ram, (device_->cmos(0x0C) & 0x80) != 0, world_.edges);
        }
    }
    void tick(std::uint8_t step, Input& input) {
        static constexpr std::array<std::int64_t, 16> steps{
            1,           30'518,         122'071,         1'000'000,        250'000'000,   499'755'860,
            500'000'000, 999'755'859,    999'999'999,     1'000'000'000,    2'000'000'000, 59'000'000'000,
            -1,          -5'000'000'000, 300'000'000'000, 3'700'000'000'000};
        if (wild_) {
            const auto to = static_cast<std::int64_t>(input.u64());
            clock_.set(std::chrono::nanoseconds(to));
            trace_("clock.set(std::chrono::nanoseconds(", to, "));");
        } else {
            clock_.advance(std::chrono::nanoseconds(steps[step]));
            trace_("clock.advance(std::chrono::nanoseconds(", steps[step], "));");
        }
        const auto deadline = device_->next_deadline();
        const std::uint64_t edges = world_.edges;
        trace_("(void)rtc->tick();");
        const auto ticked = device_->tick();
        check(ticked || world_.trigger_fails, "tick fails only with the trigger");
        if (wild_) {
            return;
        }
        model_.elapse(std::max<std::int64_t>(steps[step], 0));
        if (model_.lost()) {
            model_.take_over(device_->state().ram, (device_->cmos(0x0C) & 0x80) != 0, world_.edges);
        } else if (std::is_same_v<Trigger, Edge>) {
            const bool due = deadline && *deadline <= vmsuperio::time_since_epoch(clock_);
            check_equal(world_.edges - edges, due ? 1 : 0, "the line rises at its deadline and only then");
        }
    }
    void snapshot() {
        trace_("world.level = false;");
        trace_("{");
        trace_(
            "    const auto state = "
            "vmsuperio::decode<vmsuperio::RtcCmosState>(vmsuperio::encode(rtc->state()));");
        trace_("    REQUIRE(state);");
        trace_("    auto restored = Rtc::from_state(*state, ", name(), "{&world}, {}, clock);");
        trace_("    REQUIRE(restored);");
        trace_("    rtc.emplace(std::move(*restored));");
        trace_("}");
        const RtcCmosState state = device_->state();
        const auto decoded = vmsuperio::decode<RtcCmosState>(vmsuperio::encode(state));
        check(decoded.has_value(), "encoded bytes can be decoded");
        check_same_state(*decoded, state, "a state survives encode and decode");
        world_.level = false;
        auto restored = Device::from_state(*decoded, Trigger{&world_}, {}, ClockRef(clock_));
        check(restored.has_value(), "a saved state can be restored");
        device_.emplace(std::move(*restored));
        check_same_state(device_->state(), state, "the restored device has the state that was saved");
        model_.restore();
    }

    void compare() const {
        const RtcCmosState state = device_->state();
        check_equal(state.ram[0x0C] & 0x0F, 0, "the reserved bits of register C are 0");
        check_equal(state.ram[0x0D], 0x80, "register D is constant");
        check_equal((state.ram[0x0C] & 0x80) != 0, (state.ram[0x0C] & state.ram[0x0B] & 0x70) != 0,
                    "IRQF follows from the flags and their enables");
        check(state.second_start <= state.time.seen &&
                  vmsuperio::detail::elapsed(state.second_start, state.time.seen) < 1'000'000'000U,
              "the running second has begun and has not ended");
        if (wild_) {
            static_cast<void>(device_->next_deadline());
            static_cast<void>(device_->time_offset());
            return;
        }
        for (std::uint8_t i = 0; i < 128; ++i) {
            check_equal(device_->cmos(i), model_.byte(i), "every byte is as the model's");
        }
        if (std::is_same_v<Trigger, Edge>) {
            check_equal(world_.edges, model_world_.edges, "as many edges as the model");
        } else {
            check_equal(world_.level, model_.level(), "the trigger knows the line's level");
        }
    }

    const Trace& trace_;
    bool wild_;
    World world_;
    World model_world_;
    ManualClock clock_;
    std::optional<Device> device_{std::in_place, Trigger{&world_}, ClockRef(clock_)};
    model::CmosModel model_{model_world_, device_->state().ram, start % 1'000'000'000};
};

template <class Trigger>
void run(Input& input, const Trace& trace, bool wild) {
    CmosTarget<Trigger> target(trace, wild, wild ? static_cast<std::int64_t>(input.u64()) : 0);
    while (!input.empty()) {
        target.step(input);
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    const std::uint8_t options = input.byte();
    const bool wild = (options & 2) != 0;
    if ((options & 1) != 0) {
        run<Level>(input, trace, wild);
    } else {
        run<Edge>(input, trace, wild);
    }
}

}  // namespace fuzz
